//! The committed league table is what the code gives.

#[test]
fn the_league_table_is_fresh() {
    let committed = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/league.md"))
        .unwrap_or_default();
    let now = lastack_bench::league::document(include_str!("../../lab/matrix/linux-6.18.tsv"));
    assert!(
        committed == now,
        "docs/league.md is old: cargo run -p lastack-bench --bin league > docs/league.md"
    );
}
