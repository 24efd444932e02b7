#!/bin/bash
# Runs in the machine: each test executable that test.sh has put into /out, with our arguments, for at most
# LIMIT seconds, so that one that hangs does not hide the others.
set -u
cp -r /out/target / # to a file system as hosts have it: 9p is not one
cp /out/bin/* /usr/local/bin/ 2> /dev/null
# Pages and bundles are looked for where the tests were compiled.
source=${SOURCE:-/src}
[ -e "$source" ] || { mkdir -p "${source%/*}" && ln -s /src "$source"; }
echo "== Linux $(uname -r), $(systemctl --version | head -n 1), $("$RUNTIME" --version | head -n 1)"
failed=()
for test in $(cat /out/tests); do
    echo "== ${test##*/}"
    timeout "$LIMIT" "$test" "$@" < /dev/null
    case $? in
        0) ;;
        124) failed+=("${test##*/} (stopped after $LIMIT s)") ;;
        *) failed+=("${test##*/}") ;;
    esac
done
[ ${#failed[@]} = 0 ] || { echo "== failed: $(IFS=,; echo "${failed[*]}")"; exit 1; }
echo "== all passed"
