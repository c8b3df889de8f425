//! What the filter of system calls costs: nanoseconds a call without it and with it.
//!
//! ```text
//! cargo run --release -p lastack-gateway --example filter-cost
//! ```
//! Four calls: one that carries packets (a read that finds nothing), the cheapest there is, and two with a condition. Each figure is the least of
//! [`ROUNDS`] rounds, which a busy machine disturbs least.

use std::fs::File;
use std::time::Instant;

use rustix::event::EventfdFlags;

const ROUNDS: u32 = 4000;
const CALLS: u32 = 250;

#[allow(clippy::disallowed_methods, reason = "this measures time")]
fn least(call: &dyn Fn()) -> f64 {
    let round = |_| {
        let begin = Instant::now();
        (0..CALLS).for_each(|_| call());
        begin.elapsed().as_nanos() as f64 / f64::from(CALLS)
    };
    (0..ROUNDS).map(round).fold(f64::INFINITY, f64::min)
}

fn main() {
    let nothing = rustix::event::eventfd(0, EventfdFlags::NONBLOCK).expect("eventfd");
    let file = File::open("/proc/self/stat").expect("/proc");
    let read = || assert!(rustix::io::read(&nothing, &mut [0; 8]).is_err());
    let getppid = || {
        std::hint::black_box(rustix::process::getppid());
    };
    let ioctl = || {
        let _ = std::hint::black_box(rustix::io::ioctl_fionread(&file));
    };
    let kill = || {
        let _ = std::hint::black_box(rustix::process::test_kill_process(rustix::process::getpid()));
    };
    let calls: [(&str, &dyn Fn()); 4] = [
        ("read that finds nothing", &read),
        ("getppid", &getppid),
        ("ioctl(FIONREAD), conditional", &ioctl),
        ("getpid and kill(self, 0), one conditional", &kill),
    ];
    let before = calls.map(|(_, call)| least(call));
    lastack_gateway::confine::filter_calls().expect("this kernel has seccomp filters");
    println!("{:45} {:>8} {:>8} {:>8}", "ns a call", "without", "with", "more");
    for ((name, call), before) in calls.into_iter().zip(before) {
        let after = least(call);
        println!("{name:45} {before:8.1} {after:8.1} {:8.1}", after - before);
    }
}
