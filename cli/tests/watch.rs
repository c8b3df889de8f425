//! `lastack watch` on the live kernel, with and without a terminal, on few sockets and on very many.

#[path = "../../observe/tests/support/mod.rs"]
mod support;

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};

use serde_json::Value;
use support::in_namespace;

/// Runs `lastack watch` on a terminal of that kind and size and types each of `keys` a while after the one before; gives
/// the exit status and all that was drawn, or nothing where there is no script(1).
fn on_terminal(term: &str, size: [u16; 2], arguments: &str, keys: &[&str]) -> Option<(Option<i32>, String)> {
    let [rows, columns] = size;
    let command =
        format!("stty rows {rows} cols {columns}; {} watch {arguments}", env!("CARGO_BIN_EXE_lastack"));
    let typist = "(for key in \"$@\"; do sleep 1.2; printf %s \"$key\"; done; sleep 1) \
                  | timeout 60 script -qec \"$0\" /dev/null";
    let output = Command::new("sh")
        .args(["-c", typist, &command])
        .args(keys)
        .envs([("TERM", term), ("LANG", "C")])
        .output()
        .expect("runs");
    if output.status.code() == Some(127) {
        support::skipped("no script(1)");
        return None;
    }
    Some((output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned()))
}

#[test]
fn without_a_terminal_it_prints_a_line_a_look() {
    in_namespace(|| {
        let _zoo = support::zoo();
        let mut child = Command::new(env!("CARGO_BIN_EXE_lastack"))
            .args(["watch", "--json", "--interval", "0.1", "sport", "=", ":7001"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("starts");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let count = support::run("ss", &["-Htan", "sport = :7001"]).lines().count();
        for line in lines.take(3) {
            let line = line.expect("reads");
            let look: Value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line}"));
            assert_eq!((&look["event"], &look["total"]), (&"summary".into(), &count.into()), "{line}");
        }
        support::run("kill", &["-INT", &child.id().to_string()]);
        assert!(child.wait().expect("ends").success());
    });
}

#[test]
fn on_a_terminal_it_draws_and_ends_at_q() {
    in_namespace(|| {
        let _zoo = support::zoo();
        let Some((status, text)) = on_terminal("xterm", [40, 150], "--interval 0.2", &["q"]) else { return };
        assert_eq!(status, Some(0), "{text}");
        for part in ["sockets", "CLOSE-WAIT", "127.0.0.1:7001"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(text.contains("\u{1b}[?1049l"), "the screen is given back");
        let last = text.lines().last().unwrap_or_default();
        assert!(last.contains(" looks, ") && last.contains(" pictures in "), "{last}");
    });
}

#[test]
fn a_signal_gives_the_terminal_back() {
    in_namespace(|| {
        let command = format!("echo pid $$; exec {} watch", env!("CARGO_BIN_EXE_lastack"));
        let child = Command::new("script")
            .args(["-qec", &command, "/dev/null"])
            .envs([("TERM", "xterm"), ("LANG", "C"), ("SHELL", "/bin/sh")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        let Ok(mut child) = child else { return support::skipped("no script(1)") };
        let mut screen = child.stdout.take().expect("piped");
        let (mut drawn, mut piece) = (String::new(), [0; 4096]);
        while !drawn.contains("\u{1b}[?1049h") {
            let length = screen.read(&mut piece).expect("reads");
            assert!(length > 0, "it draws: {drawn}");
            drawn.push_str(&String::from_utf8_lossy(&piece[..length]));
        }
        let pid = drawn.split_whitespace().nth(1).expect("a number");
        support::run("kill", &["-TERM", pid]);
        // A piece may end inside a character.
        let mut rest = Vec::new();
        screen.read_to_end(&mut rest).expect("reads to the end");
        drawn.push_str(&String::from_utf8_lossy(&rest));
        assert!(drawn.contains("\u{1b}[?1049l"), "the screen is given back: {drawn}");
        assert!(child.wait().expect("ends").success(), "as at q");
    });
}

#[test]
fn a_dumb_terminal_gets_lines() {
    in_namespace(|| {
        let _zoo = support::zoo();
        let Some((status, text)) = on_terminal("dumb", [40, 150], "--interval 0.1 --duration 1", &[]) else {
            return;
        };
        assert_eq!(status, Some(0), "{text}");
        assert!(!text.contains('\u{1b}'), "not one escape: {text:?}");
        let count = support::run("ss", &["-Htan"]).lines().count();
        assert!(text.lines().count() >= 2, "{text}");
        assert!(text.lines().all(|line| line.starts_with(&format!("{count} sockets  "))), "{text}");
    });
}

#[test]
fn a_tiny_terminal_is_survived_and_still_ends_at_q() {
    in_namespace(|| {
        let _zoo = support::zoo();
        for size in [[1, 1], [2, 20], [4, 9]] {
            // Everything that can be opened is opened: help, a filter, the question, groups.
            let Some((status, text)) = on_terminal("xterm", size, "", &["?x/state all\rxngdfsq"]) else {
                return;
            };
            assert_eq!(status, Some(0), "{size:?}: {text:?}");
        }
    });
}

/// Keys, pictures and counts on very many sockets: 100,000 with `LASTACK_E2E_LONG=1`.
#[test]
fn very_many_sockets_are_watched_and_keys_do_not_wait_for_the_dump() {
    // As in the end-to-end tests: 0 and nothing mean no.
    let is_long = std::env::var_os("LASTACK_E2E_LONG").is_some_and(|value| value != "0" && !value.is_empty());
    let many = if is_long { 100_000 } else { 10_000 };
    in_namespace(move || {
        let _zoo = support::zoo();
        time_waits(many);
        let Some((status, text)) =
            on_terminal("xterm", [40, 150], "--interval 0.1", &["/state close-wait\r", "ggggg", "q"])
        else {
            return;
        };
        assert_eq!(status, Some(0), "{text}");
        // Only cells that change are drawn, and a blank between two words may not.
        assert!(text.contains("close-wait"), "the filter was typed: {text}");
        let last = text.lines().last().unwrap_or_default();
        let figure = |what: &str| -> u64 {
            let words: Vec<&str> = last.split([' ', ',']).filter(|word| !word.is_empty()).collect();
            let at = words.iter().position(|word| *word == what).unwrap_or_else(|| panic!("{what}: {last}"));
            // The terminal may get a last escape before the first number.
            let digits = words[at - 1].rsplit(|c: char| !c.is_ascii_digit()).next();
            digits.and_then(|digits| digits.parse().ok()).unwrap_or_else(|| panic!("{what}: {last}"))
        };
        assert!(figure("sockets") >= many, "{last}");
        assert!(figure("looks") >= 1 && figure("pictures") > figure("looks"), "{last}");
        // Lines count what ss counts; TIME-WAITs end meanwhile: once more if so.
        support::eventually("equal counts", || {
            let count = || support::run("ss", &["-Htan", "state", "time-wait"]).lines().count() as u64;
            let before = count();
            let line = support::run(
                env!("CARGO_BIN_EXE_lastack"),
                &["watch", "--json", "--duration", "0.01", "state", "time-wait"],
            );
            let seen: Value = serde_json::from_str(line.lines().next()?).expect("an object");
            (before == count() && seen["total"] == before).then_some(())
        });
    });
}

/// TIME-WAITs, which take no descriptor: of connections that the client closes first.
fn time_waits(many: u64) {
    std::fs::write("/proc/sys/net/ipv4/tcp_max_tw_buckets", "200000").expect("writes");
    std::fs::write("/proc/sys/net/ipv4/ip_local_port_range", "1024 65535").expect("writes");
    // Over loopback Linux's default takes the place of one that is a second old.
    std::fs::write("/proc/sys/net/ipv4/tcp_tw_reuse", "0").expect("writes");
    let listeners: Vec<TcpListener> =
        (0..4).map(|n| TcpListener::bind(("127.0.0.9", 8000 + n)).expect("binds")).collect();
    std::thread::scope(|scope| {
        for listener in &listeners {
            scope.spawn(move || {
                for _ in 0..many / 4 {
                    let client = TcpStream::connect(listener.local_addr().expect("bound")).expect("connects");
                    let (server, _) = listener.accept().expect("accepts");
                    drop(client);
                    drop(server);
                }
            });
        }
    });
}
