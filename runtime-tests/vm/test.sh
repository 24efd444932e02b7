#!/bin/bash
# The tests on the machine of vm.sh. `make vm-test` calls it with the release binary.
#   test.sh [ARGUMENT...]     what the test executables take: a filter, --nocapture, --list ...
# RUNTIME is the binary under test: a file, which is taken along, or a name, looked up in the machine.
# The results stay in target/vm/KERNEL/log; the exit status is that of the tests.
set -euo pipefail

: "${RUNTIME:?is the binary under test: see make vm-test}"
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../.."
export VM_KERNEL=${VM_KERNEL:-6.12} VM_TIMEOUT=${VM_TIMEOUT:-5400}

target=$(cargo metadata --locked --no-deps --format-version 1 | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')
export VM_OUT=$target/vm/$VM_KERNEL
rm -rf "$VM_OUT"
mkdir -p "$VM_OUT"/{bin,target}

# The machine first: where there is none, nothing needs to be compiled.
"$here/vm.sh" build

# One line for each program: is it a test, its kind, its name, its file.
programs=$(cargo test --locked --workspace --no-run --message-format=json-render-diagnostics |
    jq -r 'select(.reason == "compiler-artifact" and .executable != null)
        | "\(.profile.test) \(.target.kind[0]) \(.target.name) \(.executable)"')

# All keep their places under target/, by which the tests find their programs. `tidy` reads sources only.
while read -r is_test kind name file; do
    place=target/${file#"$target"/}
    mkdir -p "$VM_OUT/$(dirname "$place")"
    ln -f "$file" "$VM_OUT/$place" 2> /dev/null || cp "$file" "$VM_OUT/$place"
    case $is_test-$kind-$name in
        true-test-tidy) ;;
        true-lib-* | true-test-*) echo "/$place" ;;
    esac
done <<< "$programs" > "$VM_OUT/tests"

runtime=$RUNTIME
if [[ $runtime == */* ]]; then
    cp "$runtime" "$VM_OUT/bin/"
    shim=$(dirname "$runtime")/containerd-shim-aril-v2
    [ ! -f "$shim" ] || cp "$shim" "$VM_OUT/bin/"
    runtime=/usr/local/bin/$(basename "$runtime")
fi
environment=("RUNTIME=$runtime" "SOURCE=$PWD" TMPDIR=/var/tmp "LIMIT=$((VM_TIMEOUT / 3))")
for name in CI OBSERVER_PEER RUST_TEST_THREADS WHOLE_TABLE; do
    [ -z "${!name:-}" ] || environment+=("$name=${!name}")
done

status=0
"$here/vm.sh" run "$(printf '%q ' env "${environment[@]}" bash /src/runtime-tests/vm/suite.sh "$@")" |
    tee "$VM_OUT/log" || status=$?
rm -rf "$VM_OUT"/{bin,target,tests}
exit "$status"
