#!/bin/bash
# `make fresh`: what README.md promises, on a Debian machine that has never seen this project.
#   fresh.sh [RELEASE...]     bookworm and trixie, one after the other, unless named
#
# For each release mmdebstrap makes a root file system with git, make and CA certificates in it. The Rust toolchain of
# this machine is mounted read-only at /opt/rust. In there, in mount, pid, network, UTS and IPC namespaces of its own:
# clone what is committed at HEAD, then run the blocks of README.md whose info string is `sh make`, in order, with
# CI=true, so that a skip that a package would have avoided is a failure. The caches of apt and cargo are empty.
#
# The log is target/fresh/RELEASE.log (FRESH_LOGS=DIR). The exit status is that of the first release that failed.
# The root file system is below FRESH_DIR (/var/tmp), 6 GB, and is removed at the end; FRESH_KEEP=1 keeps it.
#
# What is not the machine's own here: the kernel, /dev, and the host's cgroup hierarchies, in which the tests
# make cgroups of their own as on any host. The network is the host's by way of pasta, a user-space translator.
set -euo pipefail

# Tests that nested namespaces make impossible print "skipped, nested:" and a reason. Exactly these many do:
# the virtual machine of `make vm-part` (its emulated processor takes longer than all the rest).
NESTED_SKIPS=1

here=$(cd "$(dirname "$0")" && pwd)
repository=$(cd "$here/.." && pwd)

say() { printf 'fresh: %s\n' "$*"; }
fail() { say "$*" >&2; exit 1; }

# --- 1. On the host

main() {
    local release status=0
    [ "$(id -u)" = 0 ] || fail "root is needed to make a root file system and namespaces"
    [ $# -gt 0 ] || set -- bookworm trixie
    install_missing mmdebstrap=mmdebstrap pasta=passt unshare=util-linux
    logs=${FRESH_LOGS:-$repository/target/fresh}
    mkdir -p "$logs"
    for release; do
        try "$release" || { status=$?; break; }
    done
    return "$status"
}

install_missing() { # COMMAND=PACKAGE...
    local pair missing=()
    for pair; do
        command -v "${pair%=*}" > /dev/null || missing+=("${pair#*=}")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    say "installing ${missing[*]}"
    { apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y "${missing[@]}"; } > /dev/null ||
        fail "apt-get install ${missing[*]} failed"
}

try() { # RELEASE
    local release=$1 begun=$SECONDS status=0 log=$logs/$1.log took
    work=$(mktemp -d "${FRESH_DIR:-/var/tmp}/aril-fresh.XXXXXX")
    trap remove EXIT
    say "$release: log in $log"
    {
        make_root "$release" &&
            unshare --mount --propagation private "$work/fresh.sh" --connect "$work"
    } > "$log" 2>&1 < /dev/null || status=$?
    took="$(((SECONDS - begun) / 60))m$(((SECONDS - begun) % 60))s"
    [ "$status" != 0 ] || check_skips "$log" || status=1
    if [ "$status" = 0 ]; then
        say "$release: passed in $took"
    else
        grep -E '^(test .* FAILED|error(\[|:)|make.*\*\*\*|fresh:)' "$log" | tail -n 30 || true
        say "$release: failed after $took with status $status; the end of $log:"
        tail -n 15 "$log"
    fi
    grep '^fresh: \$' "$log" || true
    remove
    trap - EXIT
    return "$status"
}

remove() {
    if [ -n "${FRESH_KEEP:-}" ]; then say "kept: $work"; else rm -rf --one-file-system "$work"; fi
}

# The root file system, and what is cloned in it: a bundle of HEAD.
make_root() { # RELEASE
    local root=$work/root
    # What is committed now is what is tried, whatever becomes of the working tree in the meantime.
    cp "$here/fresh.sh" "$work/fresh.sh" || return
    (cd "$repository" && rustc --print sysroot) > "$work/toolchain"
    git -C "$repository" bundle create --quiet "$work/repository" HEAD || return
    say "making a root file system of $1"
    # In namespaces of its own, so that nothing that it mounts can stay behind.
    unshare --mount --pid --fork --kill-child --mount-proc \
        mmdebstrap --quiet --variant=apt --include=git,make,ca-certificates "$1" "$root" || return
    cp "$work/repository" "$root/root/repository" || return
    mkdir -p "$root/opt/rust"
    # No service manager runs there: packages do not start services.
    printf '#!/bin/sh\nexit 101\n' > "$root/usr/sbin/policy-rc.d"
    chmod 755 "$root/usr/sbin/policy-rc.d"
    # The way to the network is the host's: resolver, and certificates of a proxy that it may have.
    cp -L /etc/resolv.conf "$root/etc/resolv.conf"
    cp -L "${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}" "$root/etc/ssl/certs/ca-certificates.crt"
    printf '127.0.0.1 localhost fresh\n::1 localhost\n' > "$root/etc/hosts"
    echo fresh > "$root/etc/hostname"
}

# The skips that nesting causes are counted: a further one is a test that is no longer run, and has to be looked at.
check_skips() { # LOG
    local found
    found=$(grep -c 'skipped, nested:' "$1" || true)
    say "skips:"
    sed -n 's/^.*\(skipped\(, nested\)\?: \)/  \1/p' "$1" | sort | uniq -c
    [ "$found" = "$NESTED_SKIPS" ] || { say "$found skips of nested tests, not $NESTED_SKIPS"; return 1; }
}

# --- 2. In a mount namespace: a network namespace whose packets pasta carries

connect() { # WORK
    local work=$1
    touch "$work/net"
    unshare "--net=$work/net" true
    # It dies with this process. In the foreground, since pasta in the background would outlive a killed script.
    setpriv --pdeathsig KILL pasta --foreground --quiet --config-net --netns-only --runas 0:0 --no-map-gw \
        -t none -u none -T none -U none --netns "$work/net" > "$work/pasta.log" 2>&1 &
    carrier=$!
    until nsenter "--net=$work/net" cat /proc/net/route | awk '$2 == "00000000" { found = 1 } END { exit !found }'; do
        kill -0 "$carrier" 2> /dev/null || { cat "$work/pasta.log" >&2; fail "pasta has ended"; }
        sleep 0.1
    done
    local status=0
    nsenter "--net=$work/net" unshare --mount --pid --fork --kill-child --uts --ipc "$work/fresh.sh" --pivot "$work" || status=$?
    kill "$carrier"
    wait "$carrier" || true
    umount "$work/net"
    return "$status"
}

# --- 3. In all namespaces: the root file system becomes the root, and a mount point

pivot() { # WORK
    local root=$1/root toolchain
    toolchain=$(cat "$1/toolchain")
    hostname fresh
    mount --bind "$root" "$root"
    mount -t proc proc "$root/proc"
    mount -t sysfs sysfs "$root/sys"
    mount --rbind /sys/fs/cgroup "$root/sys/fs/cgroup"
    if mountpoint -q /sys/kernel/security; then mount -t securityfs securityfs "$root/sys/kernel/security"; fi
    mount --bind /dev "$root/dev"
    mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts "$root/dev/pts"
    mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
    mount -t tmpfs -o mode=755 tmpfs "$root/run"
    mkdir -m 1777 "$root/run/lock"
    mount --bind -o ro "$toolchain" "$root/opt/rust"
    mount -o remount,bind,ro "$root/opt/rust"
    cp "$1/fresh.sh" "$root/root/fresh.sh"
    cd "$root"
    mkdir -p mnt/old
    pivot_root . mnt/old
    chroot mnt/old umount -l / # by the host's program: there is none here yet
    local variables=() name
    for name in http_proxy https_proxy no_proxy MAKEFLAGS RUST_TEST_THREADS; do
        [ -z "${!name:-}" ] || variables+=("$name=${!name}")
    done
    exec env -i HOME=/root LANG=C.UTF-8 TERM=dumb CI=true NESTED=1 "${variables[@]}" \
        PATH=/opt/rust/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
        bash /root/fresh.sh --newcomer
}

# --- 4. On the fresh machine

newcomer() {
    cd /root
    git clone --quiet repository aril
    cd aril
    say "$(. /etc/os-release; echo "$PRETTY_NAME"), Linux $(uname -r), $(rustc --version), aril $(git rev-parse --short HEAD)"
    local line begun status
    while read -r line; do
        say "\$ $line"
        begun=$SECONDS status=0
        bash -c "$line" || status=$?
        say "\$ $line: status $status after $(((SECONDS - begun) / 60))m$(((SECONDS - begun) % 60))s"
        [ "$status" = 0 ] || return "$status"
    done < <(awk '/^```sh make$/ { on = 1; next } /^```$/ { on = 0 } on' README.md)
}

case ${1:-} in
    --connect) connect "$2" ;;
    --pivot) pivot "$2" ;;
    --newcomer) newcomer ;;
    -*) sed -n '2,/^set/s/^# \?//p' "$0"; exit 2 ;;
    *) main "$@" ;;
esac
