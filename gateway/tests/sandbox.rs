//! Programs in a real sandbox: what they see, how they end, and that nothing of them is left.
//!
//! Has its own `main`, because the sandbox's helper is this same binary run anew.
//! Where namespaces or the TUN device are refused it says so and passes, unless `LASTACK_REQUIRE_E2E` is set.

use std::ffi::OsString;
use std::io::Read as _;
use std::process::{Command, ExitCode, Stdio};

use lastack_gateway::sandbox::{self, DeviceChoice, ProgramEvent, Sandbox, SandboxConfig};

fn main() -> ExitCode {
    if let Some(code) = sandbox::enter_if_asked() {
        return code;
    }
    // One test starts this binary as a parent to be killed.
    if std::env::args().nth(1).as_deref() == Some("be-a-parent") {
        return be_a_parent();
    }
    if let Err(error) = Sandbox::create(&config("true")) {
        let (cause, remedy) = error.cause_and_remedy();
        eprintln!("sandbox tests NOT run: {error}\ncause: {cause}\ntry:   {remedy}");
        return if std::env::var_os("LASTACK_REQUIRE_E2E").is_some() {
            ExitCode::FAILURE
        } else {
            ExitCode::SUCCESS
        };
    }
    for (name, test) in [
        ("either_link_has_the_same_addresses", either_link_has_the_same_addresses as fn()),
        ("missing_family_has_no_default_route", missing_family_has_no_default_route),
        ("exit_status_is_the_programs", exit_status_is_the_programs),
        ("missing_program_is_told_with_its_errno", missing_program_is_told_with_its_errno),
        ("signal_reaches_the_program", signal_reaches_the_program),
        ("leftover_processes_are_ended", leftover_processes_are_ended),
        ("dropping_the_sandbox_ends_the_program", dropping_the_sandbox_ends_the_program),
        ("killed_parent_leaves_no_process", killed_parent_leaves_no_process),
    ] {
        test();
        println!("test {name} ... ok");
    }
    ExitCode::SUCCESS
}

fn config(script: &str) -> SandboxConfig {
    SandboxConfig::new("sh", ["-c", script].map(OsString::from))
}

/// Runs `script` to its end and gives every event.
fn events(script: &str, on_start: impl Fn(&Sandbox)) -> Vec<ProgramEvent> {
    all_events(&Sandbox::create(&config(script)).expect("a sandbox"), on_start)
}

fn all_events(sandbox: &Sandbox, on_start: impl Fn(&Sandbox)) -> Vec<ProgramEvent> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let source = sandbox.events().expect("events");
        sandbox.start().expect("go");
        let mut all = Vec::new();
        loop {
            let event = source.next().await;
            all.push(event);
            match event {
                ProgramEvent::Started(_) => on_start(sandbox),
                ProgramEvent::AllGone | ProgramEvent::NotStarted(_) => return all,
                _ => {}
            }
        }
    })
}

fn exit_status_is_the_programs() {
    let all = events("exit 3", |_| {});
    assert!(
        matches!(all[..], [ProgramEvent::Started(_), ProgramEvent::Exited(3), ProgramEvent::AllGone]),
        "{all:?}"
    );
    let all = events("kill -9 $$", |_| {});
    assert_eq!(all[1], ProgramEvent::Exited(128 + 9));
}

fn missing_program_is_told_with_its_errno() {
    let sandbox = Sandbox::create(&SandboxConfig::new("no-such-program-anywhere", [])).expect("a sandbox");
    assert_eq!(all_events(&sandbox, |_| {}), [ProgramEvent::NotStarted(2)]);
    let sandbox = Sandbox::create(&SandboxConfig::new("/etc/passwd", [])).expect("a sandbox");
    assert_eq!(all_events(&sandbox, |_| {}), [ProgramEvent::NotStarted(13)]);
}

fn either_link_has_the_same_addresses() {
    // Each step's number is its exit code, so that a failure names itself.
    let script = "exec </dev/null
         ip -4 -o addr show dev LINK | grep -q 'inet 10.0.2.100/24' || exit 1
         ip -6 -o addr show dev LINK | grep -q 'inet6 fd00:6c61::100/64' || exit 2
         [ $(ip -6 -o addr show dev LINK | wc -l) = 1 ] || exit 3
         ip -4 route show default | grep -q LINK || exit 4
         ip -6 route show default | grep -q LINK || exit 5
         ip link show dev lo | grep -q LOWER_UP || exit 6
         grep -q '^nameserver 10.0.2.3$' /etc/resolv.conf || exit 7
         [ \"$(cat /proc/sys/net/ipv4/ip_local_port_range | tr '\t' ' ')\" = '1024 65535' ] || exit 8
         [ \"$(cat /proc/sys/net/ipv4/tcp_tw_reuse)\" = 1 ] || exit 9
         ls -l /proc/self/fd | grep -E 'tun|netlink|socket' && exit 10
         ip link show dev LINK | grep -q 'mtu 1500' || exit 11
         [ $(ip -o link | wc -l) = 2 ] || exit 12";
    for (device, name) in [(DeviceChoice::Tun, "tun0"), (DeviceChoice::Veth, "veth0")] {
        let config = SandboxConfig { device, ..config(&script.replace("LINK", name)) };
        let sandbox = match Sandbox::create(&config) {
            Ok(sandbox) => sandbox,
            Err(error) if device == DeviceChoice::Tun => {
                println!("no TUN here: {error}");
                continue;
            }
            Err(error) => panic!("{error}"),
        };
        assert_eq!((sandbox.facts().device.interface(), sandbox.facts().tun_refused), (name, None));
        assert_eq!(all_events(&sandbox, |_| {})[1], ProgramEvent::Exited(0), "{name}");
    }
}

fn missing_family_has_no_default_route() {
    let script = "exec </dev/null
         ip -4 route show default | grep -q dev || exit 1
         ip -6 route show default | grep -q dev && exit 2
         ip -6 route get fd00:6c61::2 | grep -q dev || exit 3";
    let config = SandboxConfig { default_routes: [true, false], ..config(script) };
    let sandbox = Sandbox::create(&config).expect("a sandbox");
    assert_eq!(all_events(&sandbox, |_| {})[1], ProgramEvent::Exited(0));
}

fn signal_reaches_the_program() {
    let all = events("trap 'exit 7' TERM; while :; do sleep 0.01; done", |sandbox| sandbox.signal(15));
    // The shell may not have set its trap yet when the signal comes: then the signal itself ends it.
    assert!(matches!(all[1], ProgramEvent::Exited(7 | 143)), "{all:?}");
}

fn leftover_processes_are_ended() {
    // One that goes when asked and one that does not; both have lost their parent.
    let all =
        events("(sleep 1001 &) ; (sh -c 'trap \"\" TERM; while :; do sleep 1002; done' &) ; exit 0", |_| {});
    assert_eq!(all[1..], [ProgramEvent::Exited(0), ProgramEvent::AllGone]);
    assert!(!is_running("sleep 1001") && !is_running("sleep 1002"));
}

fn dropping_the_sandbox_ends_the_program() {
    let sandbox = Sandbox::create(&config("exec sleep 1003")).expect("a sandbox");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let source = sandbox.events().expect("events");
        sandbox.start().expect("go");
        assert!(matches!(source.next().await, ProgramEvent::Started(_)));
    });
    drop(sandbox);
    assert!(!is_running("sleep 1003"));
}

fn killed_parent_leaves_no_process() {
    let mut parent = Command::new("/proc/self/exe")
        .arg("be-a-parent")
        .stdout(Stdio::piped())
        .spawn()
        .expect("this binary runs");
    let mut pipe = parent.stdout.take().expect("piped");
    let mut byte = [0];
    pipe.read_exact(&mut byte).expect("the program runs");
    parent.kill().expect("killed");
    parent.wait().expect("reaped");
    // Everybody inside holds the pipe: its end means that they are all gone. No clock is involved.
    let mut rest = Vec::new();
    pipe.read_to_end(&mut rest).expect("the pipe ends");
    assert!(!is_running("sleep 1004"));
}

fn be_a_parent() -> ExitCode {
    let mut sandbox = Sandbox::create(&config("echo; (sleep 1004 &) ; exec sleep 1004")).expect("a sandbox");
    let _device = sandbox.take_device().expect("a device");
    all_events(&sandbox, |_| {});
    ExitCode::FAILURE
}

fn is_running(line: &str) -> bool {
    std::fs::read_dir("/proc").expect("/proc").flatten().any(|entry| {
        std::fs::read(entry.path().join("cmdline"))
            .is_ok_and(|text| String::from_utf8_lossy(&text).replace('\0', " ").trim() == line)
    })
}
