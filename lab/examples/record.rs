//! Records what a host answers to a script's own side: `cargo run -p lastack-lab --example record -- kernel FILE…`.

use std::path::PathBuf;
use std::process::ExitCode;

use lastack_lab::kernel::{CubicAllowed, with_kernel};
use lastack_lab::run::{record, world_of};
use lastack_lab::script::parse;
use lastack_lab::stack::StackTarget;

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let on_kernel = args.next().as_deref() == Some("kernel");
    let _cubic = on_kernel.then(CubicAllowed::ensure);
    for path in args.map(PathBuf::from) {
        println!("== {}", path.display());
        let script = std::fs::read_to_string(&path).map_err(|error| error.to_string());
        let script = script.and_then(|text| parse(&text).map_err(|error| error.to_string()));
        let script = match script {
            Ok(script) => script,
            Err(error) => {
                eprintln!("{}: {error}", path.display());
                return ExitCode::from(2);
            }
        };
        let world = world_of(&script, &path).expect("options the lab knows");
        let recorded = if on_kernel {
            with_kernel(&world, |target| record(&script, &world, target)).expect("a namespace")
        } else {
            record(&script, &world, &mut StackTarget::new(&world))
        };
        match recorded {
            Ok(entries) => {
                for entry in entries {
                    println!("{:>9.6} {:>3}: {}", entry.at.as_secs_f64(), entry.line, entry.text);
                }
            }
            Err(failure) => println!("{}", failure.text(&path.display().to_string())),
        }
    }
    ExitCode::SUCCESS
}
