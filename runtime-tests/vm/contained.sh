#!/bin/bash
# systemd as pid 1 on this machine's own kernel and processor: the disk of vm.sh as a container that
# aril runs. For times, which an emulated processor falsifies; the tests want the machine of vm.sh.
#   contained.sh COMMAND...   run COMMAND (bash) in the repository, as a service of that systemd
# Of the controllers it has those that this host leaves to cgroup v2. The repository is read-only, /out is not.
# Exit status 77: no such disk can be made here, and the reason is on standard error.
set -euo pipefail

: "${RUNTIME:?is the aril that runs the host: see make bench-systemd}"
here=$(cd "$(dirname "$0")" && pwd)
source_tree=$(cd "$here/../.." && pwd)
disk=${DISK:-}

if [ -z "$disk" ]; then
    disk=$("$here/vm.sh" disk)
    exec unshare --mount --propagation private env DISK="$disk" "$here/contained.sh" "$@"
fi

scratch=$(mktemp -d)
aril=("$RUNTIME" --root "$scratch/state")
finish() {
    "${aril[@]}" delete --force systemd-host 2> /dev/null || true
    umount "$scratch/disk" && rm -rf "$scratch"
}
trap finish EXIT

mkdir "$scratch"/{disk,out}
mount -o ro,noload,loop "$disk" "$scratch/disk"
# A mount's options are those of the whole hierarchy: the host's stay.
mount -t cgroup2 -o "$(findmnt -n -f -t cgroup2 -o FS-OPTIONS)" cgroup2 /sys/fs/cgroup
"$RUNTIME" spec --bundle "$scratch"
"$RUNTIME" features | jq --slurpfile spec "$scratch/config.json" \
    --arg disk "$scratch/disk" --arg src "$source_tree" --arg out "$scratch/out" '
    (.linux.capabilities - ["CAP_SYS_RESOURCE"]) as $all # which even root may lack
    | $spec[0]
    | .root = {path: $disk}
    | .process += {terminal: false, args: ["/sbin/init"], noNewPrivileges: false, rlimits: []}
    | .process.env += ["container=aril"]
    | .process.capabilities = {bounding: $all, effective: $all, permitted: $all}
    | .linux |= del(.maskedPaths, .readonlyPaths, .resources)
    | .mounts |= map(if .destination == "/sys/fs/cgroup" then .options -= ["ro"] else . end)
    | .mounts += [
        {destination: "/run", type: "tmpfs", source: "tmpfs", options: ["nosuid", "nodev", "mode=755"]},
        {destination: $src, type: "bind", source: $src, options: ["rbind", "ro"]},
        {destination: "/out", type: "bind", source: $out, options: ["rbind"]}
    ]' > "$scratch/new" && mv "$scratch/new" "$scratch/config.json"
"${aril[@]}" run --detach --bundle "$scratch" --upper tmpfs:4g systemd-host < /dev/null

# As a service, for a process of ours in the root of that tree would keep its controllers back.
printf 'cd %q\n%s\n' "$source_tree" "$*" > "$scratch/out/command"
until "${aril[@]}" exec systemd-host systemctl is-system-running --wait > /dev/null 2>&1; do sleep 0.1; done
"${aril[@]}" exec systemd-host systemd-run --quiet --no-block --remain-after-exit --unit=contained \
    sh -c '{ bash /out/command; echo $? > /out/status; } > /out/log 2>&1'
tail -n +1 -F "$scratch/out/log" 2> /dev/null &
log=$!
until [ -s "$scratch/out/status" ]; do sleep 0.2; done
sleep 1
kill "$log"
exit "$(cat "$scratch/out/status")"
