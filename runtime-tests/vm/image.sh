#!/bin/bash
# Makes the files that QEMU boots, from Debian packages: disk, vmlinuz, initrd.
#   image.sh NEW-DIRECTORY SUITE KERNEL-SUITE MIRROR
# Called by vm.sh in mount and pid namespaces of its own, so that it can be killed at any moment.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
dir=$1 suite=$2 kernel_suite=$3 mirror=$4
root=$dir/root

# What a host of containers has, and what the tests call.
packages=(
    systemd-sysv dbus-user-session libpam-systemd polkitd udev kmod procps iproute2 iputils-ping less vim-tiny
    nftables iptables apparmor uidmap passt slirp4netns fuse-overlayfs netavark aardvark-dns
    busybox-static strace jq python3 bats attr e2fsprogs stress-ng umoci
    runc crun conmon containerd podman criu
)
[ "$suite" = bookworm ] || packages+=(libcriu2) # crun loads it to checkpoint
packages+=(${VM_PACKAGES:-})

# Units that cost seconds of an emulated boot and give the tests nothing. Loading AppArmor profiles
# is one (the LSM itself stays on).
masked=(
    apparmor containerd ldconfig modprobe@{configfs,drm,efi_pstore} e2scrub_reap
    podman{,-auto-update,-clean-transient,-restart}.service netavark-dhcp-proxy
    systemd-{binfmt,firstboot,hibernate-clear,hwdb-update,journal-catalog-update,journal-flush}
    systemd-{machine-id-commit,pcrmachine,pcrphase,pcrphase-sysinit,pstore,random-seed,sysusers}
    systemd-{tpm2-setup,tpm2-setup-early,udev-trigger,update-done}
    {netavark-dhcp-proxy,podman,systemd-creds,systemd-hostnamed,systemd-pcrextend}.socket
    systemd-{pcrlock,sysext}.socket systemd-ask-password-{console,wall}.path
    {apt-daily,apt-daily-upgrade,dpkg-db-backup,e2scrub_all,fstrim,podman-auto-update}.timer
    systemd-tmpfiles-clean.timer sys-kernel-config.mount proc-sys-fs-binfmt_misc.automount
    remote-fs.target getty.target
)

# apt of another suite, which leaves the host's sources and lists alone.
apt_of() {
    local state=$dir/apt tool=$1
    mkdir -p "$state"/{lists,archives}/partial
    echo "deb $mirror $kernel_suite main" > "$state/sources"
    "$tool" -qq -o Dir::Etc::SourceList="$state/sources" -o Dir::Etc::SourceParts=- \
        -o Dir::State::Lists="$state/lists" -o Dir::Cache="$state" -o APT::Sandbox::User=root "${@:2}"
}

depends_of() { # PACKAGE PATTERN: those of its direct dependencies that match
    apt_of apt-cache depends "$1" | awk -v p="$2" '$1 == "Depends:" && $2 ~ p { print $2 }'
}

install_packages() {
    local list
    list=$(IFS=,; echo "${packages[*]}")
    # Nobody reads manuals in there, and nobody needs what a power cut would take.
    mmdebstrap --quiet --variant=minbase --include="$list" --dpkgopt=force-unsafe-io \
        --dpkgopt=path-exclude='/usr/share/man/*' --dpkgopt=path-exclude='/usr/share/doc/*' \
        --dpkgopt=path-exclude='/usr/share/locale/*' "$suite" "$root" "deb $mirror $suite main"
}

install_kernel() { # sets version
    local kernel=$dir/kernel image package
    mkdir "$kernel"
    apt_of apt-get update
    image=$(depends_of linux-image-amd64 '^linux-image-')
    # Since 6.17 Debian splits the image; the parts carry the version in their names.
    (cd "$kernel" && apt_of apt-get download $image $(depends_of $image '^linux-(base|binary|modules)-[0-9]'))
    for package in "$kernel"/*.deb; do dpkg-deb -x "$package" "$kernel"; done
    [ ! -d "$kernel/lib/modules" ] || { mkdir -p "$kernel/usr/lib" && mv "$kernel/lib/modules" "$kernel/usr/lib/"; }
    version=$(basename "$kernel"/usr/lib/modules/*)
    mv "$kernel/usr/lib/modules/$version/vmlinuz" "$dir/vmlinuz" 2> /dev/null ||
        mv "$kernel/boot/vmlinuz-$version" "$dir/vmlinuz"
    mkdir -p "$root/usr/lib/modules"
    mv "$kernel/usr/lib/modules/$version" "$root/usr/lib/modules/"
    chroot "$root" depmod "$version"
}

configure() {
    local unit units=$root/etc/systemd/system
    cp -r "$here/guest/." "$root/"
    mkdir -p "$root"/{src,out} "$units/multi-user.target.wants"
    chroot "$root" useradd --create-home --shell /bin/bash --uid 1000 tester
    install -D /dev/null "$root/var/lib/systemd/linger/tester"
    for unit in "${masked[@]}"; do
        case $unit in *.*) ;; *) unit=$unit.service ;; esac
        ln -sf /dev/null "$units/$unit"
    done
    ln -sf /lib/systemd/system/multi-user.target "$units/default.target"
    ln -sf ../vm-agent.service "$units/multi-user.target.wants/"
}

modules_of() { # MODULE...: their files in order of loading
    local module
    for module; do chroot "$root" modprobe --set-version "$version" --show-depends "$module"; done |
        awk '$1 == "insmod" && !seen[$2]++ { print $2 }'
}

# busybox and the modules that mount the disk: a distribution's initrd takes longer to make and to boot.
make_initrd() {
    local tree=$dir/tree file number=10
    mkdir -p "$tree"/{dev,root,modules}
    cp "$root/bin/busybox" "$tree/"
    for file in $(modules_of virtio_pci virtio_blk virtio_console virtio_rng ext4); do
        case $file in
            *.xz) xz -dc "$root$file" ;;
            *.zst) zstd -qdc "$root$file" ;;
            *) cat "$root$file" ;;
        esac > "$tree/modules/$((number++)).ko"
    done
    cp "$here/initrd-init" "$tree/init"
    (cd "$tree" && find . | ./busybox cpio -o -H newc 2> /dev/null | gzip -1) > "$dir/initrd"
}

install_packages
install_kernel
configure
make_initrd
mke2fs -qF -t ext4 -O ^has_journal -E lazy_itable_init=1 -d "$root" "$dir/disk" 8G
rm -rf "$root" "$dir"/{apt,kernel,tree}
