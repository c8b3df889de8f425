//! Prints `docs/league.md`: `cargo run -p lastack-bench --bin league > docs/league.md`.

fn main() {
    print!("{}", lastack_bench::league::document(include_str!("../../../lab/matrix/linux-6.18.tsv")));
}
