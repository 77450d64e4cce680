#!/bin/sh
# After the packages are configured: the runner's user, and nothing that a runner does not need. $1 is the new root.
set -eu
root=$1

chroot "$root" useradd --uid 1001 --user-group --create-home --shell /bin/bash runner
chroot "$root" install -d -o runner -g runner /home/runner/_work
passwd --root "$root" --lock root

# Docker starts when it is first asked for: a daemon inside the snapshot would be the same one in every runner.
if chroot "$root" getent group docker > /dev/null; then
    chroot "$root" usermod --append --groups docker runner
    systemctl --root="$root" --quiet disable docker.service containerd.service
    systemctl --root="$root" --quiet enable docker.socket
fi

# Everything here either costs start-up time, wakes an idle guest up, or holds the serial line.
for unit in \
    apt-daily.timer apt-daily.service apt-daily-upgrade.timer apt-daily-upgrade.service dpkg-db-backup.timer \
    e2scrub_all.timer e2scrub_reap.service fstrim.timer man-db.timer logrotate.timer \
    getty@tty1.service serial-getty@ttyS0.service console-getty.service getty.target getty-static.service \
    systemd-ask-password-console.path systemd-ask-password-wall.path \
    systemd-random-seed.service systemd-machine-id-commit.service systemd-timesyncd.service systemd-networkd.service \
    systemd-resolved.service systemd-rfkill.socket systemd-pstore.service systemd-tmpfiles-clean.timer \
    systemd-update-utmp.service systemd-update-utmp-runlevel.service \
    modprobe@drm.service modprobe@configfs.service modprobe@fuse.service sys-kernel-debug.mount sys-kernel-tracing.mount \
    dev-hugepages.mount dev-mqueue.mount
do
    ln -sf /dev/null "$root/etc/systemd/system/$unit"
done

# Each runner gets its own at its restore.
: > "$root/etc/machine-id"
rm -f "$root/var/lib/systemd/random-seed" "$root/etc/hostname" "$root/var/lib/dbus/machine-id"
printf 'spot-runner\n' > "$root/etc/hostname"
printf '127.0.0.1 localhost\n127.0.1.1 spot-runner\n' > "$root/etc/hosts"
: > "$root/etc/resolv.conf"
rm -rf "$root/var/lib/apt/lists" "$root/var/cache/apt"
mkdir -p "$root/var/lib/apt/lists/partial" "$root/var/cache/apt/archives/partial"

# What tells when, or in which order, this was made: two builds of the same inputs are the same file by file.
find "$root/var/log" -type f -delete
rm -f "$root/var/cache/ldconfig/aux-cache" "$root"/var/lib/dpkg/*-old "$root"/var/cache/debconf/*-old
rm -f "$root/etc/passwd-" "$root/etc/group-" "$root/etc/shadow-" "$root/etc/gshadow-" "$root/etc/subuid-" "$root/etc/subgid-"
