#!/bin/sh
# run.sh [SECONDS [TARGET...]]: builds the fuzz targets and runs each for so long (default: 30), all if
# none is named. New inputs go to corpus/TARGET (or FUZZ_CORPUS); what fails is left in
# artifacts/TARGET, and `run.sh 0 TARGET FILE` repeats it. `run.sh check` only checks their types.
# `run.sh coverage [TARGET...]` says which lines of which files the seeds and the corpus reach, by
# target (rustup component add llvm-tools); the lines themselves are in coverage/TARGET.
#
# The targets are cargo-fuzz's; neither it nor a nightly toolchain is needed, for the coverage that
# guides libFuzzer is asked of stable rustc.
set -eu
cd "$(dirname "$0")"
targets='config plan seccomp mount_options mountinfo id_map record frame image cni'
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
if [ "$seconds" = coverage ]; then
	tools=$(rustc --print sysroot)/lib/rustlib/$host/bin
	export LLVM_PROFILE_FILE=coverage/build.profraw
	RUSTFLAGS='-C instrument-coverage --cfg fuzzing' \
		cargo build --release --locked --target "$host" --target-dir target/coverage
	for target in ${*:-$targets}; do
		program=target/coverage/$host/release/$target
		mkdir -p "$corpus/$target" coverage
		LLVM_PROFILE_FILE=coverage/$target.profraw \
			"$program" -runs=0 "$corpus/$target" "seeds/$target" 2> /dev/null
		"$tools/llvm-profdata" merge --sparse -o "coverage/$target.profdata" "coverage/$target.profraw"
		set -- "$program" --instr-profile="coverage/$target.profdata" \
			--ignore-filename-regex='/(rustc|registry|fuzz)/|/sys/'
		echo "== $target"
		"$tools/llvm-cov" report "$@" | awk '$10 > 0 && $10 != "0.00%" { print $10, $1 }'
		"$tools/llvm-cov" show "$@" > "coverage/$target.txt"
	done
	exit
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
