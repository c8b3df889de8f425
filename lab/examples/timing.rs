//! Measures how long states last, on Linux and on the stack: `cargo run --release -p lastack-lab --example timing`.
//!
//! Prints `docs/timing.md`; exit status 1 when a case differs by more than is allowed. Takes six minutes.

use std::process::ExitCode;
use std::time::Duration;

use lastack_lab::kernel::{CubicAllowed, with_kernel};
use lastack_lab::run::FailureKind;
use lastack_lab::stack::StackTarget;
use lastack_lab::target::World;
use lastack_lab::timing::{CASES, Case, Measured, agrees, document, world};

/// A busy machine may be late on the way into the state: then it is tried again.
fn measure_on_kernel(case: &Case, world: &World) -> Result<Duration, String> {
    let once = || with_kernel(world, |target| case.measure(world, target)).map_err(|error| error.0);
    for _ in 0..10 {
        match once()? {
            Err(failure) if failure.kind == FailureKind::Late => {}
            result => return result.map_err(|failure| failure.message),
        }
    }
    Err("the lab was late ten times".to_owned())
}

fn main() -> ExitCode {
    let cubic = CubicAllowed::ensure();
    if let Some(notice) = cubic.as_ref().ok().and_then(|cubic| cubic.notice.as_ref()) {
        eprintln!("{notice}");
    }
    let world = world();
    let measured: Vec<Measured> = std::thread::scope(|scope| {
        // Side by side: a case is a namespace that waits.
        let running: Vec<_> = CASES
            .iter()
            .map(|case| {
                let world = &world;
                scope.spawn(move || measure_on_kernel(case, world))
            })
            .collect();
        CASES
            .iter()
            .zip(running)
            .map(|(case, linux)| {
                let stack = case.measure(&world, &mut StackTarget::new(&world));
                let linux = linux.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                (*case, linux, stack.map_err(|failure| failure.message))
            })
            .collect()
    });
    print!("{}", document(&measured));
    let all_agree = measured.iter().all(|(case, linux, stack)| {
        matches!((linux, stack), (Ok(linux), Ok(stack)) if agrees(case, *linux, *stack))
    });
    ExitCode::from(u8::from(!all_agree))
}
