#!/bin/sh
# After the packages are configured: nothing that tells which machine this is, and nothing that a host does not need.
# $1 is the new root.
set -eu
root=$1

# Nobody logs in to a host, on its console as little as anywhere else.
passwd --root "$root" --lock root
for unit in \
    getty@tty1.service serial-getty@ttyS0.service console-getty.service getty.target getty-static.service \
    apt-daily.timer apt-daily.service apt-daily-upgrade.timer apt-daily-upgrade.service dpkg-db-backup.timer \
    e2scrub_all.timer e2scrub_reap.service fstrim.timer man-db.timer logrotate.timer
do
    ln -sf /dev/null "$root/etc/systemd/system/$unit"
done
systemctl --root="$root" --quiet enable systemd-networkd.service systemd-resolved.service systemd-timesyncd.service

# Each machine makes its own.
: > "$root/etc/machine-id"
rm -f "$root/var/lib/systemd/random-seed" "$root/var/lib/dbus/machine-id"
echo spot-runner-host > "$root/etc/hostname"
printf '127.0.0.1 localhost\n127.0.1.1 spot-runner-host\n' > "$root/etc/hosts"
ln -sf ../run/systemd/resolve/stub-resolv.conf "$root/etc/resolv.conf"

rm -f "$root/etc/dpkg/dpkg.cfg.d/spot-runner-build"
rm -rf "$root/var/lib/apt/lists" "$root/var/cache/apt"
mkdir -p "$root/var/lib/apt/lists/partial" "$root/var/cache/apt/archives/partial"
find "$root/var/log" -type f -delete
