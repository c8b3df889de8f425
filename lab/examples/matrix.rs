//! Asks a host every cell of the matrix: `cargo run -p lastack-lab --example matrix -- kernel > lab/matrix/linux-6.18.tsv`.

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use lastack_lab::kernel::{CubicAllowed, with_kernel};
use lastack_lab::matrix::{Cell, ask, cells, world};
use lastack_lab::stack::StackTarget;

fn main() -> ExitCode {
    let on_kernel = std::env::args().nth(1).as_deref() == Some("kernel");
    let _cubic = on_kernel.then(CubicAllowed::ensure);
    let (cells, world) = (cells(), world());
    let one = |cell: &Cell| {
        // A busy machine may be late, or pause in the middle: an answer counts when it is given twice.
        let mut before = None;
        for _ in 0..8 {
            let answer = if on_kernel {
                with_kernel(&world, |target| ask(cell, target, &world)).expect("a namespace")
            } else {
                ask(cell, &mut StackTarget::new(&world), &world)
            };
            match answer.ok() {
                Some(answer) if before.as_ref() == Some(&answer) => return answer,
                answer => before = answer,
            }
        }
        "could not be played".to_owned()
    };
    let (next, answers) = (AtomicUsize::new(0), Mutex::new(vec![String::new(); cells.len()]));
    std::thread::scope(|scope| {
        for _ in 0..if on_kernel { 12 } else { 2 } {
            scope.spawn(|| {
                while let Some((at, cell)) =
                    Some(next.fetch_add(1, Ordering::Relaxed)).and_then(|at| Some((at, cells.get(at)?)))
                {
                    let answer = one(cell);
                    answers.lock().expect("no holder panics")[at] = answer;
                }
            });
        }
    });
    for (cell, answer) in cells.iter().zip(answers.into_inner().expect("no holder panics")) {
        println!("{}\t{answer}", cell.name());
    }
    ExitCode::SUCCESS
}
