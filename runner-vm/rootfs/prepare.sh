#!/bin/sh
# Before the packages are unpacked: what their installation scripts must find. $1 is the new root.
set -eu
root=$1

# The initial ramdisk holds what finds the root disk, and what talks to the host where the root brings no udev.
mkdir -p "$root/etc/initramfs-tools/conf.d" "$root/etc/initramfs-tools/hooks"
printf 'MODULES=list\nCOMPRESS=zstd\nCOMPRESSLEVEL=3\nRESUME=none\n' > "$root/etc/initramfs-tools/conf.d/spot-runner"
cat > "$root/etc/initramfs-tools/hooks/spot-runner" <<'EOF'
#!/bin/sh
[ "$1" = prereqs ] && exit 0
. /usr/share/initramfs-tools/hook-functions
force_load virtio_pci
force_load virtio_blk
force_load ext4
force_load virtio_console
force_load virtio_net
force_load virtio_rng
EOF
chmod 0755 "$root/etc/initramfs-tools/hooks/spot-runner"

# A runner lives for one job: nobody reads manuals in it.
mkdir -p "$root/etc/dpkg/dpkg.cfg.d"
cat > "$root/etc/dpkg/dpkg.cfg.d/spot-runner" <<'EOF'
path-exclude=/usr/share/man/*
path-exclude=/usr/share/info/*
path-exclude=/usr/share/locale/*
path-exclude=/usr/share/doc/*
path-include=/usr/share/doc/*/copyright
EOF
