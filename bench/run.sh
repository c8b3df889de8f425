#!/usr/bin/env bash
# The comparison with peers, in one command: installs from Debian what is missing, builds, measures, writes bench/RESULTS.md.
#
#   bench/run.sh                                        all rows, 5 rounds of 2 s: about ten minutes
#   bench/run.sh --rounds 1 --seconds 1                 a quick look
#   bench/run.sh --only lastack,loopback --rows bulk    some contestants, some rows
set -euo pipefail
cd "$(dirname "$0")/.."
.ci/setup --bench
cargo build --release -p lastack-cli -p lastack-bench --bins
write=--write
for arg in "$@"; do
    # A part of the table must not replace the whole one.
    case "$arg" in --only | --rows) write= ;; esac
done
exec cargo run --quiet --release -p lastack-bench --bin bench -- $write "$@"
