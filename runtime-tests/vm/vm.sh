#!/bin/bash
# A Debian host with systemd, pure cgroup v2 and every capability, as a virtual machine that lives for
# one command. It is built from packages once, booted once and saved; each use resumes the saved machine.
#   vm.sh run COMMAND...   run COMMAND (bash) as root in /src; its exit status is ours
#   vm.sh shell            an interactive root shell, until it exits
#   vm.sh build            only make what is missing in the cache
#   vm.sh disk             the same, and print the path of the disk, which is an ext4 file system
#   vm.sh clean            empty the cache
# In the machine /src is the repository (read-only), /out is $VM_OUT (writable, what is left there stays),
# and `as-user COMMAND...` runs COMMAND as an unprivileged user with a systemd manager of its own.
#   VM_KERNEL=6.1|6.12|newest (6.12)   VM_OUT=DIR   VM_TIMEOUT=SECONDS (1200, of one run)
#   VM_CACHE=DIR ($XDG_CACHE_HOME/aril-vm)   VM_MIRROR=URL (the host's)   VM_PACKAGES="more packages"
#   VM_BOOT="more parameters of the kernel"
#   VM_ACCEL=kvm|tcg (KVM if a boot proves that it works)   VM_CPUS=2   VM_MEMORY=2G
# Exit status 77: no such machine can run here, and the reason is on standard error.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
source_tree=$(cd "$here/../.." && pwd)
: "${VM_KERNEL:=6.12}" "${VM_TIMEOUT:=1200}" "${VM_CPUS:=2}" "${VM_MEMORY:=2G}"
cache=$(realpath -m "${VM_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/aril-vm}")

say() { printf 'vm: %s\n' "$*" >&2; }
fail() { say "$*"; exit 125; }

# A skip. With CI=true, one that a better prepared machine would have avoided is a failure.
unprepared() {
    [ "${CI:-}" != true ] || fail "needless skip: $*"
    say "skipped: $*"
    exit 77
}

case $VM_KERNEL in
    6.1) suite=bookworm kernel_suite=bookworm ;;
    6.12) suite=trixie kernel_suite=trixie ;;
    newest) suite=trixie kernel_suite=trixie-backports ;;
    *) fail "VM_KERNEL=$VM_KERNEL: not one of 6.1, 6.12, newest" ;;
esac

digest() { cksum | tr ' ' -; }

# One directory for each recipe of an image.
image=$cache/$VM_KERNEL-$({ cat "$here/image.sh" "$here/initrd-init"; tar -C "$here/guest" --sort=name \
    --mtime=@0 --owner=0 --group=0 --numeric-owner -c .; echo "${VM_PACKAGES:-}"; } | digest)

# --- Nothing outlives this script: each long process is its child, dies with it, and is ended by the trap.

child='' terminal='' scratch='' unfinished=''
attend() { # COMMAND...: in the background, so that a signal to us is not held up until its end
    setpriv --pdeathsig KILL "$@" <&0 &
    child=$!
    local status=0
    while :; do
        wait "$child" && status=0 || status=$?
        kill -0 "$child" 2> /dev/null || break # else it was a change of the window's size
    done
    child=''
    return "$status"
}
finish() {
    trap '' INT TERM HUP
    [ -z "$child" ] || { kill -KILL "$child"; wait "$child"; } 2> /dev/null || true
    [ -z "$terminal" ] || stty "$terminal" < /dev/tty || true
    [ -z "$scratch$unfinished" ] || rm -rf "$scratch" "$unfinished"
}
trap finish EXIT
trap 'exit 129' HUP; trap 'exit 130' INT; trap 'exit 143' TERM

# --- What the host must have

install_missing() { # COMMAND=PACKAGE...
    local pair missing=()
    for pair; do
        command -v "${pair%=*}" > /dev/null || [ -x "/usr/sbin/${pair%=*}" ] || missing+=("${pair#*=}")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    command -v apt-get > /dev/null || unprepared "missing: ${missing[*]}, and there is no apt-get to install it"
    [ "$(id -u)" = 0 ] || unprepared "missing: ${missing[*]} (install it, or run as root)"
    say "installing ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    { apt-get -qq update && apt-get -qq install -y --no-install-recommends "${missing[@]}"; } \
        > "$scratch/log" 2>&1 < /dev/null || { tail -n 20 "$scratch/log" >&2; unprepared "apt-get install ${missing[*]} failed: is there a network?"; }
}

find_mirror() { # sets mirror
    local ask=(apt-get indextargets --format '$(REPO_URI)' 'Origin: Debian' 'Label: Debian')
    mirror=${VM_MIRROR:-$("${ask[@]}" | head -n 1)}
    [ -n "$mirror" ] || { apt-get -qq update > /dev/null 2>&1 || true; mirror=$("${ask[@]}" | head -n 1); }
    [ -n "$mirror" ] || unprepared "no Debian mirror among the sources of apt: set VM_MIRROR"
}

need_room() { # DIRECTORY MEGABYTES
    local free
    mkdir -p "$1" || fail "cannot make $1"
    free=$(($(df --output=avail -m "$1" | tail -n 1)))
    [ "$free" -ge "$2" ] || unprepared "no room in $1: $2 MB are needed, $free MB are free (VM_CACHE=DIR takes another place)"
}

# --- QEMU

# QEMU 7.2, of bookworm, crashed one guest in eight and cannot save to a file. Its packages' libraries
# do for 10.0 of the backports, which we unpack beside the images and leave the host as it is.
find_qemu() { # sets qemu
    local version own=$cache/qemu/usr
    version=$(qemu-system-x86_64 --version | sed -n 's/^QEMU emulator version \([0-9]*\).*/\1/p')
    qemu=(qemu-system-x86_64)
    [ "$version" -lt 9 ] || return 0
    [ "$(. /etc/os-release; echo "${VERSION_CODENAME:-}")" = bookworm ] ||
        unprepared "qemu $version is too old: 9 is needed, or Debian bookworm, whose backports have it"
    [ -d "$cache/qemu" ] || fetch_qemu
    qemu=(env "QEMU_MODULE_DIR=$own/lib/x86_64-linux-gnu/qemu" "$own/bin/qemu-system-x86_64" -L "$own/share/qemu" -L "$own/share/seabios")
}

fetch_qemu() {
    local state=$scratch/apt new=$scratch/qemu file
    say "fetching a newer QEMU into $cache"
    find_mirror
    mkdir -p "$state"/{lists,archives}/partial "$new"
    printf "deb $mirror %s main\n" bookworm-backports bookworm > "$state/sources"
    local options=(-qq -o Dir::Etc::SourceList="$state/sources" -o Dir::Etc::SourceParts=-
        -o Dir::State::Lists="$state/lists" -o Dir::Cache="$state" -o APT::Sandbox::User=root)
    (
        cd "$new"
        apt-get "${options[@]}" update
        apt-get "${options[@]}" -t bookworm-backports download \
            qemu-system-x86 qemu-system-common qemu-system-data seabios
    ) > "$scratch/log" 2>&1 || { tail -n 20 "$scratch/log" >&2; unprepared "cannot fetch QEMU from $mirror: is there a network?"; }
    for file in "$new"/*.deb; do dpkg-deb -x "$file" "$new"; rm "$file"; done
    mv -T "$new" "$cache/qemu" 2> /dev/null || [ -d "$cache/qemu" ] # another one may have been faster
}

# What a saved state depends on, besides the image. The consoles' other ends are given at each start.
machine() { # sets machine, saved
    local cpu=Nehalem accel=tcg,thread=multi,tb-size=512 key # others are slower to emulate
    [ "$acceleration" = tcg ] || cpu=host accel=kvm
    machine=(
        -accel "$accel" -cpu "$cpu" -smp "$VM_CPUS" -m "$VM_MEMORY"
        -machine q35,sata=off,smbus=off,vmport=off -nodefaults -display none -no-reboot
        -append "console=ttyS0 loglevel=4 mitigations=off panic=-1 systemd.show_status=0${VM_BOOT:+ $VM_BOOT}"
        -kernel "$image/vmlinuz" -initrd "$image/initrd"
        -device virtio-rng-pci -device vmgenid,guid=auto -device virtio-serial-pci
        -device virtserialport,name=job,chardev=job -device virtconsole,chardev=terminal
    )
    key=${machine[*]}-$("${qemu[@]}" --version | head -n 1)
    [ "$acceleration" = tcg ] || key+=$(host_cpu)
    saved=$image/saved-$(echo "$key" | digest)
}

host_cpu() { uname -r; grep -m 2 -E '^(model name|flags)' /proc/cpuinfo; }

start() { # SECONDS DISK ARGUMENT...: QEMU, until the machine is off or the time is over
    # The disk's changes are in an unlinked file, beside the image because /tmp may be memory.
    TMPDIR=$image attend timeout --foreground --kill-after=5 "$1" setpriv --pdeathsig KILL "${qemu[@]}" "${machine[@]}" \
        -drive "if=virtio,cache=unsafe,file=$2" -serial "file:$scratch/console" \
        -virtfs "local,path=$source_tree,mount_tag=src,security_model=none,readonly=on" \
        -virtfs "local,path=$out,mount_tag=out,security_model=none" "${@:3}"
}

# --- The image and the saved machine

build() {
    mkdir -p "$cache" || fail "cannot make the cache $cache"
    exec 9> "$image.lock"
    flock -s 9
    choose_acceleration
    if [ -f "$image/disk" ] && find_qemu && machine && [ -f "$saved" ]; then return; fi
    flock 9
    drop_old_images
    [ -f "$image/disk" ] || build_image
    find_qemu
    machine
    [ -f "$saved" ] || save
    flock -s 9
}

# Images of this kernel by another recipe, unless somebody is using them.
drop_old_images() {
    local old
    for old in "$cache/$VM_KERNEL"-*.lock; do
        [ "$old" = "$image.lock" ] || flock -n "$old" rm -rf "${old%.lock}"{,.new,.lock} || true
    done
}

build_image() {
    [ "$(id -u)" = 0 ] || unprepared "building the image needs root"
    need_room "$cache" 4000
    install_missing mmdebstrap=mmdebstrap mke2fs=e2fsprogs xz=xz-utils zstd=zstd
    find_mirror
    say "building the image for kernel $VM_KERNEL from $mirror (a minute or two)"
    unfinished=$image.new
    rm -rf "$unfinished"
    mkdir "$unfinished"
    # mmdebstrap fails with inherited descriptors above 9; what it mounts goes with the namespace.
    attend unshare --mount --pid --fork --kill-child --mount-proc \
        "$here/image.sh" "$unfinished" "$suite" "$kernel_suite" "$mirror" > "$scratch/log" 2>&1 < /dev/null 4>&- 5>&- 9>&- || {
        tail -n 20 "$scratch/log" >&2
        unprepared "cannot build the image from the packages of $mirror: is there a network?"
    }
    rm -rf "$image"
    mv "$unfinished" "$image"
}

# /dev/kvm is no promise: under some hypervisors stock kernels hang. A machine that was booted and resumed is.
choose_acceleration() { # sets acceleration
    acceleration=${VM_ACCEL:-}
    if [ -z "$acceleration" ]; then
        acceleration=tcg
        [ ! -w /dev/kvm ] || [ -f "$cache/no-kvm-$(host_cpu | digest)" ] || acceleration=kvm
    fi
}

save() {
    if [ "$acceleration" = kvm ] && [ -z "${VM_ACCEL:-}" ]; then
        boot_and_save 40 2> /dev/null && return
        say "KVM does not boot the machine here: emulating the processor"
        touch "$cache/no-kvm-$(host_cpu | digest)"
        acceleration=tcg
        machine
    fi
    boot_and_save 180 || { tail -n 30 "$scratch/console" >&2; fail "the machine did not boot ($acceleration)"; }
}

boot_and_save() { # SECONDS
    local out=$scratch status=0 order
    say "booting the machine to save it ($acceleration)"
    rm -f "$saved"*
    make_fifos in monitor
    exec 4<> "$scratch/in" 5<> "$scratch/monitor"
    echo "snapshot_blkdev virtio0 $saved.disk qcow2" >&5
    : > "$scratch/console"
    order_to_save &
    order=$!
    start "$1" "$image/disk,format=raw" -chardev null,id=terminal -chardev stdio,id=job,signal=off \
        -chardev "file,id=monitor,path=$scratch/monitor.log,input-path=$scratch/monitor" -mon monitor \
        <&4 > "$scratch/log" 2>&1 9>&- || status=$?
    kill "$order" 2> /dev/null || true
    wait "$order" || true
    exec 4>&- 5>&-
    [ "$status" = 0 ] && [ -f "$saved.new" ] || { cat "$scratch/log" >&2; return 1; }
    mv "$saved.new" "$saved"
    out=$scratch/out resume "$1" true && return
    rm -f "$saved"*
    return 1
}

make_fifos() { # NAME...
    (cd "$scratch" && rm -f "$@" && mkfifo "$@")
}

order_to_save() { # when the agent says that it waits
    until grep -qs VM-READY "$scratch/console"; do
        sleep 0.2
        kill -0 $$ 2> /dev/null || return
    done
    printf '%s\n' "migrate file:$saved.new" quit >&5
}

# --- Uses

resume() { # SECONDS COMMAND...
    local status=0 output
    mkdir -p "$out"
    rm -f "$out/status"
    printf '%s\n' "${*:2}" > "$out/job"
    # The job's port must never see an end of file, nor the caller's files QEMU's O_NONBLOCK.
    make_fifos in from
    exec 4<> "$scratch/in"
    echo "$(date +%s) run" >&4
    { cat || cat > /dev/null; } < "$scratch/from" 2> /dev/null & # a reader that goes does not stop the job
    output=$!
    start "$1" "$saved.disk,snapshot=on" -incoming "file:$saved" -chardev null,id=terminal \
        -chardev stdio,id=job,signal=off <&4 > "$scratch/from" || status=$?
    wait "$output" || true # the last of it
    exec 4>&-
    end_of "$1" "$status"
}

end_of() { # SECONDS STATUS: of the job, else why there is none
    local status
    if status=$(cat "$out/status" 2> /dev/null) && [ -n "$status" ]; then
        rm -f "$out"/{status,job,size}
        return "$status"
    fi
    [ "$2" != 124 ] || { say "stopped after $1 s (VM_TIMEOUT)"; return 124; }
    say "the machine ended without an exit status (QEMU: $2); its console:"
    tail -n 40 "$scratch/console" >&2
    return 125
}

tell_size() { stty size < /dev/tty | sed 's/\(.*\) \(.*\)/rows \1 cols \2/' > "$out/size"; }

shell() {
    [ -t 0 ] && [ -t 1 ] || fail "shell needs a terminal; for one command: vm.sh run COMMAND"
    local status=0
    rm -f "$out/status"
    tell_size
    terminal=$(stty -g)
    make_fifos in
    exec 4<> "$scratch/in"
    echo "$(date +%s) shell ${TERM:-vt100}" >&4
    trap tell_size WINCH
    say "kernel $VM_KERNEL: the repository is /src, /out is $out; exit ends the machine"
    start 0 "$saved.disk,snapshot=on" -incoming "file:$saved" -chardev stdio,id=terminal,signal=off \
        -chardev "file,id=job,path=/dev/null,input-path=$scratch/in" || status=$?
    end_of 0 "$status"
}

[ "$(uname -m)" = x86_64 ] || { say "skipped: the machine's packages are for x86_64, this is $(uname -m)"; exit 77; }
[ -z "${NESTED:-}" ] || { say "skipped, nested: a virtual machine takes longer than all other tests (make vm-part)"; exit 77; }
scratch=$(mktemp --directory --tmpdir aril-vm.XXXXXX)
install_missing qemu-system-x86_64=qemu-system-x86 setpriv=util-linux jq=jq
out=${VM_OUT:-$scratch/out}
mkdir -p "$out"
out=$(cd "$out" && pwd)
case ${1:-} in
    build) build ;;
    disk) build; echo "$image/disk" ;;
    run) build; resume "$VM_TIMEOUT" "${@:2}" ;;
    shell) build; shell ;;
    clean) rm -rf "$cache" ;;
    *) sed -n '2,/^set/s/^# \?//p' "$0"; exit 2 ;;
esac
