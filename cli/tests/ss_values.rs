//! Every value of `lastack ss` against iproute2's `ss` and `/proc/net/*`, at the same moment.
//!
//! Times run on between two looks: `ss` looks between two of ours, and what it says must lie between.

#[path = "../../observe/tests/support/mod.rs"]
mod support;

use std::collections::BTreeMap;
use std::process::Command;

use serde_json::Value;
use support::{eventually, fill, in_namespace, run, zoo};

fn ours(arguments: &[&str]) -> String {
    let mut all = vec!["ss"];
    all.extend(arguments);
    let output =
        Command::new(env!("CARGO_BIN_EXE_lastack")).args(all).env("LANG", "C").output().expect("starts");
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

fn json(arguments: &[&str]) -> Value {
    serde_json::from_str(&ours(arguments)).expect("one document")
}

/// A line and the indented one below it, as words, by the two addresses.
fn lines(text: &str) -> BTreeMap<(String, String), Vec<String>> {
    let mut found: BTreeMap<(String, String), Vec<String>> = BTreeMap::new();
    let mut last = None;
    for line in text.lines() {
        let mut words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        if line.starts_with('\t') {
            // What ss says of the algorithm itself has no place in ours; two words are one value.
            words.retain(|word| !word.starts_with("bbr:("));
            let key: &(String, String) = last.as_ref().expect("a line above");
            let all = found.get_mut(key).expect("known");
            let mut words = words.into_iter().peekable();
            while let Some(word) = words.next() {
                let pair = matches!(word.as_str(), "send" | "pacing_rate" | "delivery_rate");
                all.push(if pair { format!("{word} {}", words.next().expect("a rate")) } else { word });
            }
            continue;
        }
        let key = (words[3].clone(), words[4].clone());
        last = Some(key.clone());
        found.insert(key, words);
    }
    found
}

/// Words that run on with time, as name and milliseconds; a share in parentheses follows from two of them.
fn running(word: &str) -> Option<(&str, u64)> {
    let (name, value) = word.split_once(':')?;
    let running = ["lastsnd", "lastrcv", "lastack", "busy", "rwnd_limited", "sndbuf_limited"].contains(&name);
    let digits = value.find(|c: char| !c.is_ascii_digit()).map_or(value, |end| &value[..end]);
    running.then(|| Some((name, digits.parse().ok()?))).flatten()
}

/// A timer's name, what is left of it as `ss` rounds it, and its repeats.
fn timer(word: &str) -> Option<(String, String, String)> {
    let mut parts = word.strip_prefix("timer:(")?.strip_suffix(')')?.split(',');
    let (name, left, repeats) = (parts.next()?, parts.next()?, parts.next()?);
    // ss writes `2.996ms` for 2.996 s.
    let left = match left.strip_suffix("ms") {
        Some(number) if number.contains('.') => format!("{number}sec"),
        _ => left.to_owned(),
    };
    Some((name.to_owned(), left, repeats.to_owned()))
}

/// Milliseconds of a time as `ss` rounds it: the least and the most it can stand for.
fn range(text: &str) -> (u64, u64) {
    let (minutes, rest) =
        text.split_once("min").map_or((0, text), |(n, rest)| (n.parse().expect("minutes"), rest));
    let least = minutes * 60_000;
    if let Some(seconds) = rest.strip_suffix("sec") {
        return match seconds.split_once('.') {
            Some((whole, ms)) => {
                let exact =
                    least + whole.parse::<u64>().expect("seconds") * 1000 + ms.parse::<u64>().expect("ms");
                (exact, exact)
            }
            None => {
                let least = least + seconds.parse::<u64>().expect("seconds") * 1000;
                (least, least + 999)
            }
        };
    }
    if let Some(ms) = rest.strip_suffix("ms") {
        let exact = least + ms.parse::<u64>().expect("ms");
        return (exact, exact);
    }
    // Above nine minutes the seconds are left out.
    (least, least + if minutes > 9 { 59_999 } else { 999 })
}

/// `theirs` looked between `before` and `after`: every word of it is said by us, or lies between.
fn lies_between(before: &[String], theirs: &[String], after: &[String]) -> Result<(), String> {
    for word in theirs {
        if let Some((name, value)) = running(word) {
            let of = |words: &[String]| {
                words.iter().filter_map(|word| running(word)).find(|r| r.0 == name).map_or(0, |r| r.1)
            };
            if of(before) <= value && value <= of(after) {
                continue;
            }
        } else if let Some((name, left, repeats)) = timer(word) {
            let of = |words: &[String]| words.iter().find_map(|word| timer(word));
            if let (Some(first), Some(last)) = (of(before), of(after)) {
                let (most, least) = (range(&first.1).1, range(&last.1).0);
                let (low, high) = range(&left);
                let same = |t: &(String, String, String)| t.0 == name && t.2 == repeats;
                if same(&first) && same(&last) && low <= most && least <= high {
                    continue;
                }
            }
        } else if before.contains(word) && after.contains(word) {
            continue;
        }
        return Err(format!("ss says {word}; we said {before:?}"));
    }
    Ok(())
}

#[test]
fn timers_memory_internals_and_the_rest_are_those_of_ss() {
    in_namespace(|| {
        let zoo = zoo();
        // Timers of every kind: a full window (persist), keepalive; TIME-WAIT is in the zoo.
        fill(&zoo.kept[0]);
        rustix::net::sockopt::set_socket_keepalive(&zoo.kept[4], true).expect("a flag");
        let mut kinds = std::collections::BTreeSet::new();
        for flags in ["-Htano", "-Htane", "-Htanm", "-Htani", "-Htanoiem"] {
            eventually(flags, || {
                let (before, theirs, after) =
                    (lines(&ours(&[flags])), lines(&run("ss", &[flags])), lines(&ours(&[flags])));
                assert_eq!(before.len(), theirs.len());
                for (key, words) in &theirs {
                    // A control group is a number with us, and a path in ss; a persist timer may fire between.
                    let words: Vec<String> =
                        words.iter().filter(|word| !word.starts_with("cgroup:")).cloned().collect();
                    kinds.extend(words.iter().filter_map(|word| timer(word)).map(|timer| timer.0));
                    if let Err(why) = lies_between(&before[key], &words, &after[key]) {
                        eprintln!("{flags}: {key:?}: {why}: again");
                        return None;
                    }
                }
                Some(())
            });
        }
        // Data that is not acknowledged yet may show the resend timer for a moment, too.
        for kind in ["keepalive", "persist", "timewait"] {
            assert!(kinds.contains(kind), "{kind} not among {kinds:?}");
        }
    });
}

#[test]
fn owners_are_those_of_ss() {
    in_namespace(|| {
        let _zoo = zoo();
        let document = json(&["-a", "--json"]);
        let mut named = 0;
        let theirs = lines(&run("ss", &["-Htanp"]));
        for socket in document["sockets"].as_array().expect("sockets") {
            let owner = &socket["owner"];
            if owner["how"] != "descriptor" {
                continue;
            }
            let (pid, fd) = (owner["pid"].as_u64().expect("a pid"), owner["fd"].as_i64().expect("a number"));
            let (local, peer) =
                (socket["local"].as_str().expect("text"), socket["peer"].as_str().expect("text"));
            let star = |text: &str| match text.strip_suffix(":0") {
                Some("[::]") if socket["state"] == "LISTEN" && socket["v6only"].is_null() => "*:*".to_owned(),
                Some(host) => format!("{host}:*"),
                None => text.replace("[::]:7004", "*:7004"),
            };
            let words = &theirs[&(star(local), star(peer))];
            let users = words.iter().find(|word| word.starts_with("users:")).expect("ss knows it, too");
            assert!(users.contains(&format!("pid={pid},fd={fd})")), "{users}: {owner}");
            named += 1;
        }
        assert_eq!(
            named,
            theirs.values().filter(|words| words.iter().any(|word| word.starts_with("users:"))).count()
        );
    });
}

/// What `/proc/net/tcp` has of a socket.
type ProcRow = (u8, u32, u32, u8, u8, u32, u32);

/// `0100007F:1F90` and its IPv6 form, as we write addresses.
fn proc_address(text: &str) -> String {
    let (ip, port) = text.split_once(':').expect("an address and a port");
    let port = u16::from_str_radix(port, 16).expect("hexadecimal");
    // Each group of eight digits is a number in the host's order.
    let bytes: Vec<u8> = (0..ip.len() / 8)
        .flat_map(|n| u32::from_str_radix(&ip[8 * n..8 * n + 8], 16).expect("hexadecimal").to_ne_bytes())
        .collect();
    match <[u8; 4]>::try_from(&bytes[..]) {
        Ok(v4) => std::net::SocketAddr::from((v4, port)).to_string(),
        Err(_) => {
            std::net::SocketAddr::from((<[u8; 16]>::try_from(&bytes[..]).expect("sixteen"), port)).to_string()
        }
    }
}

fn proc_rows() -> BTreeMap<(String, String), ProcRow> {
    let mut found = BTreeMap::new();
    for file in ["tcp", "tcp6"] {
        let text = std::fs::read_to_string(format!("/proc/thread-self/net/{file}")).expect("reads");
        for line in text.lines().skip(1) {
            let words: Vec<&str> = line.split_whitespace().collect();
            let hex = |text: &str| u32::from_str_radix(text, 16).expect("hexadecimal");
            let (tx, rx) = words[4].split_once(':').expect("two queues");
            let kind = words[5].split_once(':').expect("a timer").0;
            let number = |at: usize| words[at].parse().expect("a number");
            found.insert(
                (proc_address(words[1]), proc_address(words[2])),
                (
                    hex(words[3]) as u8,
                    hex(tx),
                    hex(rx),
                    hex(kind) as u8,
                    hex(words[6]) as u8,
                    number(7),
                    number(9),
                ),
            );
        }
    }
    found
}

#[test]
fn sockets_and_counters_are_those_of_proc() {
    in_namespace(|| {
        let zoo = zoo();
        fill(&zoo.kept[0]);
        let states = [
            "",
            "ESTAB",
            "SYN-SENT",
            "SYN-RECV",
            "FIN-WAIT-1",
            "FIN-WAIT-2",
            "TIME-WAIT",
            "UNCONN",
            "CLOSE-WAIT",
            "LAST-ACK",
            "LISTEN",
            "CLOSING",
        ];
        let timers = ["", "on", "keepalive", "timewait", "persist"];
        eventually("rows are those of /proc/net/tcp", || {
            let document = json(&["-a", "--json"]);
            let theirs = proc_rows();
            let mut mine = BTreeMap::new();
            for socket in document["sockets"].as_array().expect("sockets") {
                let text = |key: &str| socket[key].as_str().expect("text").to_owned();
                let number = |value: &Value| u32::try_from(value.as_u64().unwrap_or(0)).expect("32 bits");
                let timer = timers.iter().position(|name| socket["timer"]["name"] == *name).unwrap_or(0);
                let state = states.iter().position(|name| *name == text("state")).expect("a state");
                // A listener's backlog is in sock_diag alone.
                let send_q = if state == 10 { 0 } else { number(&socket["send_q"]) };
                mine.insert(
                    (text("local"), text("peer")),
                    (
                        state as u8,
                        send_q,
                        number(&socket["recv_q"]),
                        timer as u8,
                        number(&socket["timer"]["retrans"]) as u8,
                        number(&socket["uid"]),
                        number(&socket["inode"]),
                    ),
                );
            }
            // For persist and keepalive, /proc has another count (retransmissions) where sock_diag has probes.
            let settle = |rows: BTreeMap<(String, String), ProcRow>| -> BTreeMap<_, _> {
                rows.into_iter()
                    .map(|(key, mut row)| {
                        if row.3 != 1 {
                            row.4 = 0;
                        }
                        (key, row)
                    })
                    .collect()
            };
            let (mine, theirs) = (settle(mine), settle(theirs));
            if mine != theirs {
                let differ: Vec<_> =
                    theirs.iter().filter(|(key, row)| mine.get(*key) != Some(*row)).collect();
                eprintln!("again: {differ:?}");
                return None;
            }
            (mine.len() > 30).then_some(())
        });
        eventually("counters are those of /proc/net/snmp and netstat", || {
            let document = json(&["-a", "--json"]);
            let counters = &document["namespaces"][0]["counters"];
            let mut compared = 0;
            for (file, prefix) in [("snmp", "Tcp:"), ("netstat", "TcpExt:")] {
                let text = std::fs::read_to_string(format!("/proc/thread-self/net/{file}")).expect("reads");
                let mut lines = text.lines().filter_map(|line| line.strip_prefix(prefix));
                let (names, values) = (lines.next().expect("names"), lines.next().expect("values"));
                for (name, value) in names.split_whitespace().zip(values.split_whitespace()) {
                    let Ok(value) = value.parse::<u64>() else { continue };
                    if counters[name].as_u64() != Some(value) {
                        eprintln!("{name}: {} is {value} now, again", counters[name]);
                        return None;
                    }
                    compared += 1;
                }
            }
            (compared > 100).then_some(())
        });
    });
}

#[test]
fn the_summary_is_that_of_ss() {
    in_namespace(|| {
        let _zoo = zoo();
        eventually("equal figures", || {
            let mine = json(&["-s", "--json"]);
            let text = run("ss", &["-s"]);
            // TCP:   29 (estab 20, closed 5, orphaned 0, timewait 5)
            let line = text
                .lines()
                .find(|line| line.starts_with("TCP:"))
                .expect("a line")
                .replace(['(', ')', ','], " ");
            let words: Vec<&str> = line.split_whitespace().collect();
            let theirs = |name: &str| -> u64 {
                let at = words.iter().position(|word| *word == name).expect("a name");
                words[at + 1].parse().expect("a number")
            };
            // `estab` is the counter CurrEstab: CLOSE-WAIT counts, too.
            let states = |name: &str| mine["states"][name].as_u64().unwrap_or(0);
            let equal = theirs("estab") == states("ESTAB") + states("CLOSE-WAIT")
                && theirs("timewait") == mine["timewait_minis"].as_u64().expect("a number")
                && theirs("orphaned") == mine["host"]["orphans"].as_u64().expect("a number");
            equal.then_some(())
        });
    });
}
