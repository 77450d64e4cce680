#!/bin/sh
# Before the packages are unpacked: what their installation scripts must find. $1 is the new root.
set -eu
root=$1

# A host boots on machines of several clouds, so its initial ramdisk finds every kind of disk.
mkdir -p "$root/etc/initramfs-tools/conf.d"
printf 'MODULES=most\nCOMPRESS=zstd\nCOMPRESSLEVEL=3\nRESUME=none\n' > "$root/etc/initramfs-tools/conf.d/spot-runner"

# Where the suite's backports are among the sources, the monitor and its firmware come from there, and nothing else does.
mkdir -p "$root/etc/apt/preferences.d"
cp "$(dirname "$0")/preferences" "$root/etc/apt/preferences.d/spot-runner"

# Nobody reads manuals on a host. Nor need the half-made root survive a crash.
mkdir -p "$root/etc/dpkg/dpkg.cfg.d"
cat > "$root/etc/dpkg/dpkg.cfg.d/spot-runner" <<'EOF'
path-exclude=/usr/share/man/*
path-exclude=/usr/share/info/*
path-exclude=/usr/share/locale/*
path-exclude=/usr/share/doc/*
path-include=/usr/share/doc/*/copyright
EOF
echo force-unsafe-io > "$root/etc/dpkg/dpkg.cfg.d/spot-runner-build"
