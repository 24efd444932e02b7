#!/bin/sh
# run.sh [SECONDS [TARGET...]]: builds the fuzz targets and runs each for so long (default: 30), all if
# none is named. New inputs go to corpus/TARGET (or FUZZ_CORPUS); what fails is left in
# artifacts/TARGET, and `run.sh 0 TARGET FILE` repeats it. `run.sh check` only checks their types.
#
# The targets are cargo-fuzz's; neither it nor a nightly toolchain is needed, for the coverage that
# guides libFuzzer is asked of stable rustc.
set -eu
cd "$(dirname "$0")"
targets='config plan seccomp mount_options mountinfo id_map record frame'
seconds=${1:-30}
[ $# -eq 0 ] || shift
host=$(rustc -vV | sed -n 's/^host: //p')
corpus=${FUZZ_CORPUS:-corpus}

command -v c++ > /dev/null || { echo 'c++ is missing (libFuzzer is built with it): apt-get install g++'; exit 1; }
args='-C passes=sancov-module -C codegen-units=1'
for pass in level=4 inline-8bit-counters pc-table trace-compares; do
	args="$args -C llvm-args=-sanitizer-coverage-$pass"
done
if [ "$seconds" = check ]; then
	RUSTFLAGS='--cfg fuzzing' exec cargo check --quiet --locked --target "$host"
fi
RUSTFLAGS="$args --cfg fuzzing" cargo build --release --locked --target "$host"
programs=target/$host/release

if [ "$seconds" = 0 ]; then
	target=$1
	shift
	exec "$programs/$target" "$@"
fi
for target in ${*:-$targets}; do
	mkdir -p "$corpus/$target" "artifacts/$target"
	dictionary=
	[ "$target" != config ] || dictionary=-dict=config.dict
	echo "== $target"
	log=artifacts/$target/log
	if "$programs/$target" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=1024 -max_len=16384 \
		-print_final_stats=1 -verbosity=0 -artifact_prefix="artifacts/$target/" $dictionary \
		"$corpus/$target" "seeds/$target" > "$log" 2>&1
	then
		grep -e number_of_executed_units -e new_units_added "$log"
	else
		cat "$log"
		exit 1
	fi
done
