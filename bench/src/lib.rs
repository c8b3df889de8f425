//! Comparisons with peers: see `bench/run.sh`.
