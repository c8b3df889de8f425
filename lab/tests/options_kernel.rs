//! Socket options: ranges, errors and values read back, asked of this machine's kernel and of the stack.
//!
//! Needs what the kernel target needs; says SKIPPED loudly without, fails instead under LASTACK_REQUIRE_E2E=1.

use std::path::PathBuf;

use lastack_lab::kernel::{CubicAllowed, with_kernel};
use lastack_lab::run::world_of;
use lastack_lab::script::{parse, symbols};
use lastack_lab::stack::StackTarget;
use lastack_lab::target::{Call, Fd, OptionValue, Outcome, Output, Target};

/// Options whose value is a time that the kernel rounds up to its jiffies; the stack does not.
const ROUNDED: &[(&str, i32)] =
    &[("TCP_RTO_MAX_MS", 4), ("TCP_RTO_MIN_US", 4_000), ("TCP_DELACK_MAX_US", 4_000)];

const VALUES: &[i32] = &[
    i32::MIN,
    -2,
    -1,
    0,
    1,
    2,
    3,
    4,
    5,
    48,
    87,
    88,
    100,
    127,
    128,
    200,
    255,
    256,
    536,
    999,
    1_000,
    1_152,
    2_304,
    4_000,
    8_000,
    32_767,
    32_768,
    60_000,
    100_000,
    120_000,
    120_004,
    200_000,
    200_004,
    1_000_000,
    i32::MAX,
];

const OPTIONS: &[(&str, &str)] = &[
    (
        "SOL_SOCKET",
        "SO_REUSEADDR SO_REUSEPORT SO_KEEPALIVE SO_OOBINLINE SO_SNDBUF SO_RCVBUF SO_RCVLOWAT SO_TYPE SO_PROTOCOL SO_DOMAIN SO_ACCEPTCONN SO_ERROR SO_PRIORITY SO_MARK SO_BUSY_POLL SO_ZEROCOPY SO_INCOMING_CPU",
    ),
    (
        "IPPROTO_TCP",
        "TCP_NODELAY TCP_MAXSEG TCP_CORK TCP_KEEPIDLE TCP_KEEPINTVL TCP_KEEPCNT TCP_SYNCNT TCP_LINGER2 TCP_DEFER_ACCEPT TCP_WINDOW_CLAMP TCP_QUICKACK TCP_THIN_LINEAR_TIMEOUTS TCP_USER_TIMEOUT TCP_NOTSENT_LOWAT TCP_FASTOPEN TCP_FASTOPEN_NO_COOKIE TCP_INQ TCP_RTO_MAX_MS TCP_RTO_MIN_US TCP_DELACK_MAX_US",
    ),
    (
        "IPPROTO_IP",
        "IP_TOS IP_TTL IP_RECVERR IP_MTU_DISCOVER IP_FREEBIND IP_TRANSPARENT IP_MINTTL IP_BIND_ADDRESS_NO_PORT IP_LOCAL_PORT_RANGE IP_MTU",
    ),
];

/// One line an option: what each value gave and read back as, runs joined.
fn ask(target: &mut dyn Target) -> Vec<String> {
    let mut lines = Vec::new();
    for listening in [false, true] {
        for (level, names) in OPTIONS {
            for name in names.split(' ') {
                let number = |symbol: &str| symbols::value(symbol).expect("a known symbol") as i32;
                lines.push(ask_option(target, listening, name, number(level), number(name)));
            }
        }
    }
    lines
}

fn ask_option(target: &mut dyn Target, listening: bool, text: &str, level: i32, name: i32) -> String {
    let mut line = format!("{text}{}", if listening { " (listening)" } else { "" });
    let mut last = String::new();
    let unit = ROUNDED.iter().find(|(known, _)| *known == text).map_or(1, |(_, unit)| *unit);
    for value in VALUES.iter().filter(|value| **value % unit == 0) {
        let fd = fresh(target, listening);
        if last.is_empty() {
            line += &format!(" first {}", told(&call(target, &Call::GetOption(fd, level, name, 4))));
        }
        let set = call(target, &Call::SetOption(fd, level, name, OptionValue::Int(*value)));
        let back = told(&call(target, &Call::GetOption(fd, level, name, 4)));
        let back = if back == value.to_string() { "same".to_owned() } else { back };
        let answer = format!("{} {back}", told(&set));
        if answer != last {
            line += &format!(", {value}: {answer}");
            last = answer;
        }
        call(target, &Call::Close(fd));
    }
    line
}

fn fresh(target: &mut dyn Target, listening: bool) -> Fd {
    let (family, kind) = (libc::AF_INET, libc::SOCK_STREAM);
    let made = call(target, &Call::Socket { family, kind, protocol: libc::IPPROTO_TCP });
    let fd = Fd(made.value as i32);
    if listening {
        call(target, &Call::Listen(fd, 1));
    }
    fd
}

fn call(target: &mut dyn Target, call: &Call) -> Outcome {
    let patience = target.now() + core::time::Duration::from_secs(5);
    target
        .begin_call(call)
        .or_else(|| target.await_call(patience))
        .expect("option calls do not block")
        .outcome
}

fn told(outcome: &Outcome) -> String {
    match &outcome.output {
        _ if outcome.value < 0 => symbols::errno_name(outcome.errno),
        Output::Bytes(bytes) => match bytes.as_slice() {
            [a, b, c, d] => i32::from_ne_bytes([*a, *b, *c, *d]).to_string(),
            // The IP level gives small values as one byte when asked so; never for four.
            other => format!("{other:?}"),
        },
        _ => "ok".to_owned(),
    }
}

#[test]
fn options_take_and_give_back_what_linuxs_do() {
    let script = parse("0 socket(..., SOCK_STREAM, IPPROTO_TCP) = 3").expect("a script");
    let world = world_of(&script, &PathBuf::new()).expect("a world");
    // Without it no namespace can be made; that is told below.
    let _cubic = CubicAllowed::ensure();
    let kernel = match with_kernel(&world, |target| ask(target)) {
        Ok(lines) => lines,
        Err(why) => {
            assert!(
                std::env::var_os("LASTACK_REQUIRE_E2E").is_none(),
                "the kernel target is required: {why}"
            );
            eprintln!("SKIPPED: no kernel was asked for its options: {why}");
            return;
        }
    };
    let stack = ask(&mut StackTarget::new(&world));
    let pairs = kernel.iter().zip(&stack).filter(|(kernel, stack)| kernel != stack);
    let wrong: Vec<String> = pairs.map(|(kernel, stack)| format!("Linux {kernel}\nstack {stack}")).collect();
    assert!(kernel.len() == stack.len() && wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}
