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
        "TCP_NODELAY TCP_MAXSEG TCP_CORK TCP_KEEPIDLE TCP_KEEPINTVL TCP_KEEPCNT TCP_SYNCNT TCP_LINGER2 TCP_DEFER_ACCEPT TCP_WINDOW_CLAMP TCP_QUICKACK TCP_THIN_LINEAR_TIMEOUTS TCP_USER_TIMEOUT TCP_NOTSENT_LOWAT TCP_FASTOPEN TCP_FASTOPEN_NO_COOKIE TCP_INQ TCP_SAVE_SYN TCP_RTO_MAX_MS TCP_RTO_MIN_US TCP_DELACK_MAX_US",
    ),
    (
        "IPPROTO_IP",
        "IP_TOS IP_TTL IP_RECVERR IP_MTU_DISCOVER IP_FREEBIND IP_TRANSPARENT IP_MINTTL IP_BIND_ADDRESS_NO_PORT IP_LOCAL_PORT_RANGE IP_MTU",
    ),
];

const OPTIONS_V6: &[(&str, &str)] = &[
    (
        "IPPROTO_IPV6",
        "IPV6_TCLASS IPV6_UNICAST_HOPS IPV6_MINHOPCOUNT IPV6_RECVERR IPV6_MTU_DISCOVER IPV6_V6ONLY IPV6_MTU",
    ),
    ("IPPROTO_IP", "IP_TOS IP_TTL IP_RECVERR IP_MTU_DISCOVER IP_MINTTL"),
];

/// What is asked for by number, at each of these levels; the last ones are not a TCP socket's.
const LEVELS: &[&str] = &["SOL_SOCKET", "IPPROTO_TCP", "IPPROTO_IP", "IPPROTO_IPV6", "IPPROTO_UDP"];
const NAMES: core::ops::RangeInclusive<i32> = -1..=130;

/// Names that Linux takes and the stack does not.
const NOT_OFFERED: &[(i32, &[i32], &str)] = &[
    (libc::SOL_SOCKET, &[20, 21, 66, 67], "SO_RCVTIMEO and SO_SNDTIMEO: no script's call waits for ever"),
    (libc::SOL_SOCKET, &[25, 62], "SO_BINDTODEVICE: one device"),
    (libc::SOL_SOCKET, &[28], "SO_PEERNAME"),
    (libc::SOL_SOCKET, &[32, 33, 72], "SO_SNDBUFFORCE, SO_RCVBUFFORCE, SO_BUF_LOCK"),
    (libc::SOL_SOCKET, &[44, 50, 52, 53], "SO_LOCK_FILTER, SO_ATTACH_BPF and others: no BPF"),
    (libc::SOL_SOCKET, &[65, 70, 74], "SO_TIMESTAMPING_NEW, SO_BUSY_POLL_BUDGET, SO_TXREHASH"),
    (libc::IPPROTO_TCP, &[19], "TCP_REPAIR"),
    (libc::IPPROTO_IP, &[4], "IP_OPTIONS"),
    (libc::IPPROTO_IP, &[16, 17], "IPsec"),
    (libc::IPPROTO_IP, &[37, 38, 39, 40, 41, 42, 43, 44, 45, 46, 47, 48, 49, 50], "multicast, IP_UNICAST_IF"),
    (libc::IPPROTO_IP, &[64, 65, 66, 67, 80, 83, 96, 97, 98, 99], "netfilter"),
    (libc::IPPROTO_IPV6, &[1, 6, 20, 21, 27, 28, 76], "addresses, multicast"),
    (libc::IPPROTO_IPV6, &[32, 34, 35, 42, 43, 44, 45, 46, 47, 48, 50], "addresses, multicast, IPsec"),
    (libc::IPPROTO_IPV6, &[54, 55, 57, 59, 61], "extension headers, IPV6_PATHMTU"),
    (libc::IPPROTO_IPV6, &[64, 65, 68, 69, 80], "netfilter"),
    (libc::IPPROTO_IPV6, &[72], "IPV6_ADDR_PREFERENCES"),
];

fn number(symbol: &str) -> i32 {
    symbols::value(symbol).expect("a known symbol") as i32
}

/// One line an option: what each value gave and read back as, runs joined.
fn ask(target: &mut dyn Target) -> Vec<String> {
    let mut lines = Vec::new();
    for listening in [false, true] {
        for (options, family) in [(OPTIONS, libc::AF_INET), (OPTIONS_V6, libc::AF_INET6)] {
            for (level, names) in options {
                for name in names.split(' ') {
                    let kind = Kind { family, listening };
                    lines.push(ask_option(target, kind, name, number(level), number(name)));
                }
            }
        }
    }
    lines
}

#[derive(Clone, Copy)]
struct Kind {
    family: i32,
    listening: bool,
}

fn ask_option(target: &mut dyn Target, kind: Kind, text: &str, level: i32, name: i32) -> String {
    let mut line = format!("{text}{}", if kind.listening { " (listening)" } else { "" });
    let mut last = String::new();
    let unit = ROUNDED.iter().find(|(known, _)| *known == text).map_or(1, |(_, unit)| *unit);
    for value in VALUES.iter().filter(|value| **value % unit == 0) {
        let fd = fresh(target, kind);
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

/// One line a level, family and name: what 1 gave, and what was read before.
fn scan(target: &mut dyn Target) -> Vec<String> {
    let mut lines = Vec::new();
    for (family, version) in [(libc::AF_INET, 4), (libc::AF_INET6, 6)] {
        let numbered = LEVELS.iter().map(|level| number(level)).chain([libc::IPPROTO_ICMPV6, 999, -1]);
        for (level, name) in numbered.flat_map(|level| NAMES.map(move |name| (level, name))) {
            let is_left_out = |(at, names, _): &&(i32, &[i32], &str)| *at == level && names.contains(&name);
            let is_own = level != libc::IPPROTO_IPV6 || version == 6;
            if is_own && NOT_OFFERED.iter().any(|row| is_left_out(&row)) {
                continue;
            }
            let fd = fresh(target, Kind { family, listening: false });
            let first = call(target, &Call::GetOption(fd, level, name, 4));
            let first = match &first.output {
                // Values are the other test's; how many bytes there are is told.
                Output::Bytes(bytes) => format!("{} bytes", bytes.len()),
                _ => told(&first),
            };
            let set = told(&call(target, &Call::SetOption(fd, level, name, OptionValue::Int(1))));
            lines.push(format!("IPv{version} level {level} name {name}: read {first}, set {set}"));
            call(target, &Call::Close(fd));
        }
    }
    lines
}

fn fresh(target: &mut dyn Target, kind: Kind) -> Fd {
    let Kind { family, listening } = kind;
    let made = call(target, &Call::Socket { family, kind: libc::SOCK_STREAM, protocol: libc::IPPROTO_TCP });
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

/// Asks both, and says where they differ.
fn compare(ask: impl Fn(&mut dyn Target) -> Vec<String> + Send + Sync) {
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

#[test]
fn options_take_and_give_back_what_linuxs_do() {
    compare(ask);
}

/// Of another family, unknown, or of no TCP socket: refused with the same errno.
#[test]
fn every_name_at_every_level_is_answered_as_on_linux() {
    compare(scan);
}
