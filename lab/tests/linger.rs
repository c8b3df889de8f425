//! A `close` that lingers has freed its descriptor: who asks about it is refused, on Linux and on the stack.
//!
//! Needs what the kernel target needs; says SKIPPED loudly without, fails instead under LASTACK_REQUIRE_E2E=1.

use std::path::PathBuf;

use lastack_lab::kernel::{CubicAllowed, with_kernel};
use lastack_lab::run::{Failure, run, world_of};
use lastack_lab::script::ast::Script;
use lastack_lab::script::parse;
use lastack_lab::stack::StackTarget;
use lastack_lab::target::World;

/// The peer acknowledges the FIN half a second after `close`.
const LINGERS: &str = "\
0 socket(..., SOCK_STREAM, IPPROTO_TCP) = 3
+0 bind(3, ..., ...) = 0
+0 listen(3, 1) = 0
+0 < S 0:0(0) win 65535 <mss 1460>
+0 > S. 0:0(0) ack 1 win 64240 <mss 1460>
+.01 < . 1:1(0) ack 1 win 65535
+0 accept(3, ..., ...) = 4
+0 setsockopt(4, SOL_SOCKET, SO_LINGER, {onoff=1, linger=5}, 8) = 0
+0 %{ assert tcpi_state == 1 }%
+0...0.5 close(4) = 0
+0 > F. 1:1(0) ack 1
";
const ASKS: &str = "+.1 %{ assert tcpi_state == 4 }%\n";
const ENDS: &str = "+.1 `state FIN-WAIT-1`\n+.4 < . 1:1(0) ack 2 win 65535\n+.1 `state FIN-WAIT-2`\n";

fn script(asks: bool) -> (Script, World) {
    let text = LINGERS.to_owned() + if asks { ASKS } else { ENDS };
    let script = parse(&text).expect("a script");
    let world = world_of(&script, &PathBuf::new()).expect("a world");
    (script, world)
}

fn judge(failure: Result<(), Failure>, target: &str) {
    let failure = failure.expect_err("nobody may ask");
    let told = failure.text("linger");
    assert!(told.contains("TCP_INFO: Bad file descriptor"), "{target}: {told}");
}

#[test]
fn a_lingering_close_has_freed_its_descriptor() {
    let ((lingers, world), (asks, _)) = (script(false), script(true));
    run(&lingers, &world, &mut StackTarget::new(&world)).expect("the stack lingers");
    judge(run(&asks, &world, &mut StackTarget::new(&world)), "stack");

    let _cubic = CubicAllowed::ensure();
    let on_kernel =
        |script: &Script| with_kernel(&world, |target| run(script, &world, target)).map_err(|error| error.0);
    match on_kernel(&lingers) {
        Ok(verdict) => verdict.expect("Linux lingers"),
        Err(why) => {
            assert!(
                std::env::var_os("LASTACK_REQUIRE_E2E").is_none(),
                "the kernel target is required: {why}"
            );
            eprintln!("SKIPPED: no kernel was asked about a lingering close: {why}");
            return;
        }
    }
    judge(on_kernel(&asks).expect("the kernel was there a moment ago"), "Linux");
}
