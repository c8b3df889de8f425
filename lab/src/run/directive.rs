//! Back-quoted commands: recognised where both targets can obey them, shell otherwise.
//!
//! Owns:    `sysctl`, `set_sysctls.py`, `echo V > /proc/sys/…`, `defaults.sh`, restore scripts, and the lab's
//!          own directives `counters NAME=VALUE…` and `state NAME [timer NAME]`.
//! Rules:   packet-script language, section 9.

use crate::target::Setting;

/// One thing a command asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Directive {
    Apply(Setting),
    /// The counter has this value since the script began (namespace and stack are both fresh).
    Counter {
        name: String,
        expected: u64,
    },
    /// The connection under test has this state in the host's tables; `None`: it is gone.
    State {
        state: Option<String>,
        timer: Option<String>,
    },
}

/// `defaults.sh` of the public collections: the baseline their scripts assume.
const DEFAULTS: [(&str, &str); 19] = [
    ("net.ipv4.tcp_rmem", "4096 540000 15728640"),
    ("net.ipv4.tcp_wmem", "4096 262144 4194304"),
    ("net.ipv4.tcp_timestamps", "1"),
    ("net.ipv4.tcp_syn_retries", "5"),
    ("net.ipv4.tcp_synack_retries", "5"),
    ("net.ipv4.tcp_frto", "2"),
    ("net.ipv4.tcp_sack", "1"),
    ("net.ipv4.tcp_dsack", "1"),
    ("net.ipv4.tcp_reordering", "3"),
    ("net.ipv4.tcp_congestion_control", "cubic"),
    ("net.ipv4.tcp_slow_start_after_idle", "0"),
    ("net.ipv4.tcp_early_retrans", "4"),
    ("net.ipv4.tcp_recovery", "1"),
    ("net.ipv4.tcp_tso_win_divisor", "3"),
    ("net.ipv4.tcp_ecn", "0"),
    ("net.ipv4.tcp_pacing_ss_ratio", "200"),
    ("net.ipv4.tcp_pacing_ca_ratio", "120"),
    ("net.ipv4.tcp_notsent_lowat", "4294967295"),
    ("net.ipv4.tcp_syncookies", "1"),
];

/// Splits a command into directives; one piece that nobody recognises makes the whole a shell command.
pub(super) fn recognise(text: &str) -> Result<Vec<Directive>, String> {
    let mut directives = Vec::new();
    for piece in text.split(['\n', ';']).flat_map(|line| line.split("&&")) {
        let piece = piece.split('#').next().unwrap_or("").trim();
        if piece.is_empty() {
            continue;
        }
        match directive(piece)? {
            Some(found) => directives.extend(found),
            None => return Ok(vec![Directive::Apply(Setting::Shell(text.to_owned()))]),
        }
    }
    Ok(directives)
}

fn directive(piece: &str) -> Result<Option<Vec<Directive>>, String> {
    let words = words(piece);
    let Some((first, args)) = words.split_first() else { return Ok(Some(Vec::new())) };
    let base = first.rsplit('/').next().unwrap_or(first);
    let sysctl = |name: &str, value: &str| Directive::Apply(Setting::Sysctl(dotted(name), value.to_owned()));
    match base {
        "defaults.sh" => Ok(Some(DEFAULTS.iter().map(|(name, value)| sysctl(name, value)).collect())),
        "sysctl" | "set_sysctls.py" => {
            let pairs: Option<Vec<_>> = args
                .iter()
                .filter(|arg| !matches!(arg.as_str(), "-q" | "-w" | "-e"))
                .map(|arg| arg.split_once('=').map(|(name, value)| sysctl(name, value)))
                .collect();
            Ok(pairs)
        }
        "echo" => match args {
            [value, arrow, path] if arrow == ">" && path.starts_with("/proc/sys/") => {
                Ok(Some(vec![sysctl(path, value)]))
            }
            _ => Ok(None),
        },
        // Every script starts from a fresh host: there is nothing to restore.
        _ if base.starts_with("sysctl_restore_") => Ok(Some(Vec::new())),
        "counters" => args.iter().map(|arg| counter(arg)).collect::<Result<_, _>>().map(Some),
        "state" => state(args).map(|found| Some(vec![found])),
        _ => Ok(None),
    }
}

fn counter(arg: &str) -> Result<Directive, String> {
    let parsed = arg.split_once('=').and_then(|(name, value)| Some((name, value.parse().ok()?)));
    let Some((name, expected)) = parsed else { return Err(format!("counters: `{arg}` is not NAME=NUMBER")) };
    Ok(Directive::Counter { name: name.to_owned(), expected })
}

fn state(args: &[String]) -> Result<Directive, String> {
    let name = |word: &String| (word != "none").then(|| word.clone());
    match args {
        [state] => Ok(Directive::State { state: name(state), timer: None }),
        [state, word, timer] if word == "timer" => {
            Ok(Directive::State { state: name(state), timer: Some(timer.clone()) })
        }
        _ => Err("state: expected `state NAME` or `state NAME timer NAME`".to_owned()),
    }
}

/// `/proc/sys/net/ipv4/tcp_sack` and `net/ipv4/tcp_sack` → `net.ipv4.tcp_sack`.
fn dotted(name: &str) -> String {
    name.strip_prefix("/proc/sys/").unwrap_or(name).replace('/', ".")
}

/// Shell words: blanks separate, quotes hold together.
fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    for c in text.chars() {
        match quote {
            Some(open) if c == open => quote = None,
            None if c == '"' || c == '\'' => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            None if c.is_whitespace() => words.extend(word.take()),
            _ => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sysctl(name: &str, value: &str) -> Directive {
        Directive::Apply(Setting::Sysctl(name.to_owned(), value.to_owned()))
    }

    #[test]
    fn settings_are_recognised_in_every_spelling() {
        let expected = vec![sysctl("net.ipv4.tcp_sack", "0")];
        for text in [
            "sysctl -q net.ipv4.tcp_sack=0",
            "sysctl -q -w net/ipv4/tcp_sack=0 # off",
            "../common/set_sysctls.py /proc/sys/net/ipv4/tcp_sack=0",
            "echo 0 > /proc/sys/net/ipv4/tcp_sack; /tmp/sysctl_restore_${PPID}.sh",
        ] {
            assert_eq!(recognise(text), Ok(expected.clone()), "{text}");
        }
        let quoted =
            recognise("sysctl -q net.ipv4.tcp_rmem=\"4096 5000 6000\"\nsysctl net.ipv4.tcp_ecn=1").unwrap();
        assert_eq!(
            quoted,
            vec![sysctl("net.ipv4.tcp_rmem", "4096 5000 6000"), sysctl("net.ipv4.tcp_ecn", "1")]
        );
        assert_eq!(recognise("../common/defaults.sh").unwrap().len(), DEFAULTS.len());
    }

    #[test]
    fn what_is_not_recognised_goes_to_the_shell_whole() {
        let text = "ip route show; sysctl -q net.ipv4.tcp_sack=0";
        assert_eq!(recognise(text), Ok(vec![Directive::Apply(Setting::Shell(text.to_owned()))]));
    }

    #[test]
    fn the_labs_own_directives_are_checked() {
        let counters = recognise("counters TcpExtTCPTimeouts=1 TcpEstabResets=0").unwrap();
        assert_eq!(counters.len(), 2);
        assert_eq!(
            recognise("state FIN-WAIT-2 timer timewait"),
            Ok(vec![Directive::State { state: Some("FIN-WAIT-2".into()), timer: Some("timewait".into()) }])
        );
        assert_eq!(recognise("state none"), Ok(vec![Directive::State { state: None, timer: None }]));
        assert!(recognise("counters TcpExtTCPTimeouts").is_err());
    }
}
