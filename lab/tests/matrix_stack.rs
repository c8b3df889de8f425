//! The matrix: the stack answers every cell as Linux did when it was recorded.

use lastack_lab::matrix::{ask, cells, world};
use lastack_lab::stack::StackTarget;

/// Recorded on Linux 6.18 with the example `matrix`.
const LINUX: &str = include_str!("../matrix/linux-6.18.tsv");

/// Cells where the stack answers otherwise, with the reason. One that agrees must be taken off the list.
const KNOWN: &[(&str, &str)] = &[];

#[test]
fn every_cell_is_answered_as_linux_does() {
    let (cells, world) = (cells(), world());
    let recorded: Vec<&str> = LINUX.lines().collect();
    assert_eq!(recorded.len(), cells.len(), "the recording has every cell: record it again");
    let mut wrong = Vec::new();
    for (cell, line) in cells.iter().zip(recorded) {
        let name = cell.name();
        let linux = line.strip_prefix(&name).map(str::trim_start).expect("cells are recorded in their order");
        let stack =
            ask(cell, &mut StackTarget::new(&world), &world).unwrap_or_else(|failure| failure.message);
        let known = KNOWN.iter().any(|(known, _)| *known == name);
        if (linux == stack) == known {
            wrong.push(format!("{name}\n  linux  {linux}\n  stack  {stack}\n{}", cell.script()));
        }
    }
    assert!(wrong.is_empty(), "{} cells differ:\n{}", wrong.len(), wrong.join("\n"));
}
