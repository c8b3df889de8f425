#!/usr/bin/env bash
# The comparison with peers, in one command: installs from Debian what is missing, builds, measures, writes bench/RESULTS.md.
#
#   bench/run.sh                                        all rows, 5 rounds of 2 s: about ten minutes
#   bench/run.sh --rounds 1 --seconds 1                 a quick look
#   bench/run.sh --only lastack,loopback --rows bulk    some contestants, some rows
set -euo pipefail
cd "$(dirname "$0")/.."
for arg in "$@"; do
    case "$arg" in
    -h | --help)
        sed -n '2,6s/^# \{0,1\}//p' bench/run.sh
        exit
        ;;
    --rounds | --seconds | --only | --rows | --idle) ;;
    -*)
        printf 'error: %s is not known\ncause: a series takes --rounds, --seconds, --only, --rows, --idle\ntry:   bench/run.sh --help\n' "$arg" >&2
        exit 2
        ;;
    esac
done
.ci/setup --bench
cargo build --release -p lastack-cli -p lastack-bench --bins
write=--write
for arg in "$@"; do
    # A part of the table must not replace the whole one.
    case "$arg" in --only | --rows) write= ;; esac
done
exec cargo run --quiet --release -p lastack-bench --bin bench -- $write "$@"
