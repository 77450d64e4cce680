#!/bin/bash
# Installs a kernel from a package of its own and makes it the only one that boots. $1 is the root, $2 the .deb or .rpm,
# as that root sees it. The caller has held it against its pin; what this takes in the root says images/root.py.
set -euo pipefail
umask 022
export DEBIAN_FRONTEND=noninteractive
root=${1%/} package=$2 staged=
trap 'rm -rf "${staged:-}"' EXIT

inside() { chroot "$root/" "$@"; }

fail() {
    echo "$package: $1" >&2
    exit 1
}

# $1 are the versions that were found, one a line.
check_one() {
    [ -n "$1" ] || fail "there is no /boot/vmlinuz-… in it and no /lib/modules/…/vmlinuz; name a kernel's package"
    [[ $1 != *$'\n'* ]] || fail "it holds the kernels ${1//$'\n'/, }; name a package with one"
}

install_deb() {
    version=$(dpkg-deb --fsys-tarfile "$root$package" | tar -t | sed -n 's#^\./boot/vmlinuz-\([^/]*\)$#\1#p')
    check_one "$version"
    inside apt-get install -y -q --no-install-recommends "$package"
    # What it looked up would stay in the image.
    rm -f "$root/var/cache/apt/"*.bin
}

install_rpm() {
    # Beside the root first: a /lib of the archive would take the place of Debian's link of this name.
    staged=$(mktemp -d "$root/var/tmp/kernel.XXXXXX")
    rpm2cpio "$root$package" | (
        cd "$staged"
        cpio --extract --quiet --make-directories --no-absolute-filenames --no-preserve-owner
    )
    version=$(
        cd "$staged"
        find . -path './boot/vmlinuz-*' -o -regex '\./\(usr/\)?lib/modules/[^/]*/vmlinuz' |
            sed -e 's#.*/vmlinuz-##' -e 's#.*/\([^/]*\)/vmlinuz$#\1#' | sort -u
    )
    check_one "$version"
    modules=$staged/lib/modules/$version
    [ -d "$modules" ] || modules=$staged/usr/lib/modules/$version
    [ -d "$modules" ] || fail "it has no /lib/modules/$version; name the package that holds the kernel with its modules"
    place_kernel
}

place_kernel() {
    own="$root/lib/modules/$version"
    rm -rf "$own" "$root/boot/initrd.img-$version"
    mkdir -p "$root/lib/modules"
    mv "$modules" "$own"
    for name in vmlinuz config System.map; do
        if [ -e "$staged/boot/$name-$version" ]; then
            mv "$staged/boot/$name-$version" "$root/boot/"
        elif [ -e "$own/$name" ]; then
            cp "$own/$name" "$root/boot/$name-$version"
        fi
    done
}

case $package in
*.deb) install_deb ;;
*.rpm) install_rpm ;;
*) fail "what is installed ends in .deb or .rpm" ;;
esac
inside depmod "$version"
# A .deb has let Debian's hooks make it, if it calls them.
[ -e "$root/boot/initrd.img-$version" ] || inside update-initramfs -c -k "$version"
for name in vmlinuz initrd.img; do
    [ -s "$root/boot/$name-$version" ] || fail "it is installed, but there is no /boot/$name-$version"
done
for name in vmlinuz initrd.img; do
    find "$root/boot" -maxdepth 1 -name "$name-*" ! -name "$name-$version" -delete
done
