//! Settings by name: which values are taken and how they read back, asked of this machine's kernel and of the stack.
//!
//! Needs what the kernel target needs; says SKIPPED loudly without, fails instead under LASTACK_REQUIRE_E2E=1.

use std::path::{Path, PathBuf};

use lastack_core::stack::SysctlError;
use lastack_core::sysctl::{Sysctl, names};
use lastack_lab::kernel::{CubicAllowed, with_kernel};
use lastack_lab::run::world_of;
use lastack_lab::script::parse;

const VALUES: &[&str] = &[
    "-2147483649",
    "-2147483648",
    "-8589935",
    "-8589934",
    "-2",
    "-1",
    "0",
    "1",
    "2",
    "3",
    "4",
    "5",
    "31",
    "32",
    "47",
    "48",
    "127",
    "128",
    "255",
    "256",
    "300",
    "301",
    "999",
    "1000",
    "1001",
    "4095",
    "4096",
    "32767",
    "32768",
    "60000",
    "60001",
    "65535",
    "65536",
    "86400",
    "86401",
    "120000",
    "120001",
    "8589934",
    "8589935",
    "2147483647",
    "2147483648",
    "4294967295",
    "4294967296",
    "18446744073709551615",
    "",
    "x",
    "1x",
    "1 2",
    "0x10",
    "010",
    " 7 ",
];

/// Where the stack differs, and why.
const DIFFERS: &[(&str, &str)] = &[
    ("tcp_congestion_control", "a namespace may select what its host allows"),
    ("ip_local_port_range", "a stack has no users, so no privileged ports"),
    ("tcp_invalid_ratelimit", "not rounded to jiffies"),
    ("rmem_max", "read-only in a namespace"),
    ("wmem_max", "read-only in a namespace"),
];

fn path_of(name: &str) -> PathBuf {
    let renamed = match name {
        "net.ipv4.tcp_comp_sack_delay" => "net.ipv4.tcp_comp_sack_delay_ns",
        "net.ipv4.tcp_rto_max" => "net.ipv4.tcp_rto_max_ms",
        "net.ipv4.tcp_rto_min" => "net.ipv4.tcp_rto_min_us",
        other => other,
    };
    Path::new("/proc/sys").join(renamed.replace('.', "/"))
}

/// What the file reads after the write, or `None` where that is refused.
fn ask_kernel(path: &Path, value: &str) -> Option<String> {
    let value = if value.is_empty() { "\n" } else { value };
    std::fs::write(path, value).ok()?;
    std::fs::read_to_string(path).ok().map(|text| text.trim_end().to_owned())
}

fn ask_stack(setting: &names::Setting, value: &str) -> Option<String> {
    let mut sysctl = Sysctl::default();
    setting.set(&mut sysctl, value).ok().map(|()| setting.get(&sysctl))
}

/// Switches are kept as such, and a time below zero as zero.
fn is_same_setting(kernel: Option<&str>, stack: Option<&str>) -> bool {
    let number = |text: &str| text.parse::<i64>().ok();
    match (kernel, stack) {
        (Some(kernel), Some("1")) => number(kernel).is_some_and(|value| value >= 1),
        (Some(kernel), Some("0")) => number(kernel).is_some_and(|value| value <= 0),
        (kernel, stack) => kernel == stack,
    }
}

fn compare() -> Vec<String> {
    let mut wrong = Vec::new();
    for setting in names::SETTINGS {
        let short = setting.name.rsplit('.').next().unwrap_or_default();
        let path = path_of(setting.name);
        if !path.exists() || DIFFERS.iter().any(|(name, _)| *name == short) {
            continue;
        }
        for value in VALUES {
            let _ = std::fs::write(&path, setting.default());
            let (kernel, stack) = (ask_kernel(&path, value), ask_stack(setting, value));
            if !is_same_setting(kernel.as_deref(), stack.as_deref()) {
                wrong.push(format!("{} = {value:?}: Linux {kernel:?}, stack {stack:?}", setting.name));
            }
        }
        let _ = std::fs::write(&path, setting.default());
    }
    wrong
}

/// Every TCP setting of this kernel is a setting here, or says why not.
fn unknown() -> Vec<String> {
    let entries = std::fs::read_dir("/proc/sys/net/ipv4").expect("/proc is mounted");
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let tcp = names.filter(|name| name.starts_with("tcp_"));
    let is_unknown = |name: &String| names::get(&Sysctl::default(), name) == Err(SysctlError::Unknown);
    tcp.filter(is_unknown).collect()
}

#[test]
fn settings_take_and_print_what_linuxs_do() {
    let script = parse("0 socket(..., SOCK_STREAM, IPPROTO_TCP) = 3").expect("a script");
    let world = world_of(&script, &PathBuf::new()).expect("a world");
    // Without it no namespace can be made; that is told below.
    let _cubic = CubicAllowed::ensure();
    match with_kernel(&world, |_| (compare(), unknown())) {
        Ok((wrong, unknown)) => {
            assert_eq!(unknown, Vec::<String>::new(), "settings of Linux that are not known here");
            assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
        }
        Err(why) => {
            assert!(
                std::env::var_os("LASTACK_REQUIRE_E2E").is_none(),
                "the kernel target is required: {why}"
            );
            eprintln!("SKIPPED: no kernel was asked for its settings: {why}");
        }
    }
}
