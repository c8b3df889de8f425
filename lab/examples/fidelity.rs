//! Prints `docs/linux-fidelity.md`: `cargo run -p lastack-lab --example fidelity > docs/linux-fidelity.md`.

use std::path::Path;

fn main() -> std::io::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts");
    print!("{}", lastack_lab::fidelity::document(&root)?);
    Ok(())
}
