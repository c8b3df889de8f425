//! Explanations: what a journal entry means, and what to do about it, in the reader's language.
//!
//! Owns:    the choice of language and the pieces both languages share.
//! Input:   [`Connection`] and [`Flow`] records. Identifiers stay English; only sentences are translated.
//! Rules:   a cause is stated as it is known: what is only possible is called so, nothing is invented.

use lastack_gateway::journal::{Connection, Direction, Flow, FlowProtocol, How, Reason, Verdict};
use lastack_gateway::limits::Reached;
use lastack_observe::words::Lang;

use crate::run::{words_en, words_zh};

/// What a record means.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Explanation {
    /// What happened and, where known, why.
    pub(crate) text: String,
    /// What to do; `None` when nothing is wrong.
    pub(crate) advice: Option<String>,
}

impl Explanation {
    pub(super) fn new(text: impl Into<String>, advice: Option<&str>) -> Self {
        Self { text: text.into(), advice: advice.map(str::to_owned) }
    }
}

/// Explains a connection.
pub(crate) fn explain(connection: &Connection, lang: Lang) -> Explanation {
    match lang {
        Lang::En => words_en::explain(connection),
        Lang::Zh => words_zh::explain(connection),
    }
}

/// True where that a side sent RST was seen, and only why is not certain: the sentence says so itself.
pub(super) fn only_the_cause_is_uncertain(connection: &Connection) -> bool {
    let Verdict { how, reason, .. } = connection.verdict;
    let has_cause =
        matches!(reason, Some(Reason::ClosedWithUnreadData | Reason::LingerZero | Reason::DataAfterClose));
    how == How::Reset && has_cause
}

/// Explains a flow.
pub(crate) fn explain_flow(flow: &Flow, lang: Lang) -> String {
    match lang {
        Lang::En => words_en::explain_flow(flow),
        Lang::Zh => words_zh::explain_flow(flow),
    }
}

/// Where a flow goes, as the program used it: `10.0.2.2:53/udp`, `192.0.2.7/icmp`.
pub(crate) fn place(flow: &Flow) -> String {
    match flow.protocol {
        FlowProtocol::Udp => format!("{}/udp", flow.remote),
        FlowProtocol::Icmp => format!("{}/icmp", flow.remote.ip()),
    }
}

/// Explains a limit that turned something away.
pub(crate) fn explain_limit(reached: &Reached, lang: Lang) -> String {
    match lang {
        Lang::En => words_en::explain_limit(reached),
        Lang::Zh => words_zh::explain_limit(reached),
    }
}

/// Who went to whom, with the program on the left.
pub(crate) const fn arrow(direction: Direction) -> &'static str {
    match direction {
        Direction::Out => "→",
        Direction::In => "←",
    }
}

/// Bytes with a decimal unit: `81 B`, `12.3 kB`, `4.0 MB`.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["kB", "MB", "GB", "TB", "PB"];
    if count < 1000 {
        return format!("{count} B");
    }
    let mut value = count as f64 / 1000.0;
    let mut unit = 0;
    // 999.95 would be printed as 1000.0.
    while value >= 999.95 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// A time with a unit that keeps two or three digits: `61 µs`, `4.1 ms`, `1.2 s`, `3 min 5 s`.
pub(crate) fn time(us: u64) -> String {
    match us {
        0..1_000 => format!("{us} µs"),
        1_000..1_000_000 => format!("{:.1} ms", us as f64 / 1e3),
        1_000_000..60_000_000 => format!("{:.1} s", us as f64 / 1e6),
        _ => format!("{} min {} s", us / 60_000_000, us / 1_000_000 % 60),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use lastack_gateway::journal::{Certainty, ClosedBy};

    pub(in crate::run) fn connection(how: How, reason: Option<Reason>, ended_by: ClosedBy) -> Connection {
        Connection {
            id: 3,
            owner: Some(lastack_gateway::owner::Owner { pid: 7, process: "myapp".into(), cgroup: None }),
            local: "10.0.2.100:4000".parse().unwrap(),
            remote: "10.0.2.2:9000".parse().unwrap(),
            host_local: None,
            host_remote: Some("127.0.0.1:9000".parse().unwrap()),
            device: None,
            direction: Direction::Out,
            opened: lastack::core::time::Instant::ZERO,
            handshake_us: (how == How::Fin || how == How::Reset).then_some(210),
            duration_us: 1_200_000,
            bytes_up: 4_000_000,
            bytes_down: 0,
            inside: None,
            outside: None,
            verdict: Verdict { closed_by: ended_by, how, reason, certainty: Certainty::Observed, ended_by },
            host_errno: None,
            lost_up: 0,
            lost_down: 0,
            unread_bytes: None,
            injected: None,
            states: Vec::new(),
        }
    }

    /// Every ending that can be judged.
    fn endings() -> Vec<Connection> {
        let mut all = Vec::new();
        for how in How::ALL {
            for ended_by in ClosedBy::ALL {
                all.push(connection(*how, None, *ended_by));
                all.extend(Reason::ALL.iter().map(|reason| connection(*how, Some(*reason), *ended_by)));
            }
        }
        let published = all.iter().cloned().map(|out| Connection { direction: Direction::In, ..out });
        let published: Vec<_> = published.collect();
        all.extend(published);
        all
    }

    #[test]
    fn every_ending_is_explained_in_both_languages() {
        for connection in endings() {
            let (en, zh) = (explain(&connection, Lang::En), explain(&connection, Lang::Zh));
            assert!(en.text.ends_with('.') && en.text.is_ascii(), "{}", en.text);
            assert!(zh.text.ends_with('。') && !zh.text.is_ascii(), "{}", zh.text);
            assert_eq!(en.advice.is_some(), zh.advice.is_some(), "{:?}", connection.verdict);
        }
    }

    #[test]
    fn what_is_not_observed_is_called_so_in_both_languages() {
        for (certainty, en, zh) in [
            (Certainty::Observed, None, None),
            (Certainty::Inferred, Some("nferred: "), Some("推断：")),
            (Certainty::Possible, Some("ossible: "), Some("可能：")),
        ] {
            for mut connection in endings() {
                connection.verdict.certainty = certainty;
                let (en_text, zh_text) =
                    (explain(&connection, Lang::En).text, explain(&connection, Lang::Zh).text);
                assert!(en.is_none_or(|word| en_text.contains(word)), "{certainty:?}: {en_text}");
                assert!(zh.is_none_or(|word| zh_text.contains(word)), "{certainty:?}: {zh_text}");
            }
        }
        let mut unread = connection(How::Reset, Some(Reason::ClosedWithUnreadData), ClosedBy::Remote);
        unread.verdict.certainty = Certainty::Inferred;
        let text = explain(&unread, Lang::En).text;
        assert!(text.starts_with("RESET by the remote end. Inferred: it closed with data unread"), "{text}");
        let mut first = connection(How::Fin, None, ClosedBy::Program);
        first.verdict.certainty = Certainty::Possible;
        let text = explain(&first, Lang::En).text;
        assert!(text.starts_with("Possible: myapp closed first (FIN)"), "{text}");
    }

    #[test]
    fn what_was_forced_is_named_with_its_moment() {
        use lastack_gateway::inject::{Event, Injected};
        for event in Event::ALL {
            for (how, ended_by) in [
                (How::Reset, ClosedBy::Lastack),
                (How::Open, ClosedBy::Nobody),
                (How::Timeout, ClosedBy::Nobody),
            ] {
                let mut forced = connection(how, Some(Reason::Injected), ended_by);
                forced.injected = Some(Injected { event: *event, at_us: 2_000_000, bytes: 1_000_000 });
                let (en, zh) = (explain(&forced, Lang::En), explain(&forced, Lang::Zh));
                assert!(en.text.contains("--inject") && en.text.contains("2.0 s"), "{}", en.text);
                assert!(zh.text.contains("--inject") && zh.text.contains("1.0 MB"), "{}", zh.text);
            }
        }
    }

    #[test]
    fn every_limit_and_every_flow_is_explained_in_both_languages() {
        use lastack_gateway::journal::FlowEnd;
        use lastack_gateway::limits::Limit;
        let texts = |en: String, zh: String| {
            assert!(en.ends_with('.') && en.is_ascii(), "{en}");
            assert!(zh.ends_with('。') && !zh.is_ascii(), "{zh}");
        };
        for limit in Limit::ALL {
            let reached = Reached { limit: *limit, turned_away: 3, first: None };
            texts(explain_limit(&reached, Lang::En), explain_limit(&reached, Lang::Zh));
        }
        for how in FlowEnd::ALL {
            for direction in Direction::ALL {
                for datagrams in [0, 1] {
                    let flow = flow(*direction, *how, datagrams);
                    texts(explain_flow(&flow, Lang::En), explain_flow(&flow, Lang::Zh));
                }
            }
        }
    }

    pub(in crate::run) fn flow(
        direction: Direction,
        how: lastack_gateway::journal::FlowEnd,
        datagrams: u64,
    ) -> Flow {
        Flow {
            id: 1,
            protocol: if datagrams == 0 { FlowProtocol::Udp } else { FlowProtocol::Icmp },
            owner: None,
            local: "10.0.2.100:53".parse().unwrap(),
            remote: "10.0.2.2:4000".parse().unwrap(),
            host_local: None,
            host_remote: None,
            device: None,
            direction,
            opened: lastack::core::time::Instant::ZERO,
            duration_us: 0,
            bytes_up: 0,
            bytes_down: 0,
            datagrams_up: datagrams,
            datagrams_down: datagrams,
            how,
        }
    }

    #[test]
    fn lost_bytes_are_told_in_both_languages() {
        let mut lossy = connection(How::Reset, Some(Reason::ResetByPeer), ClosedBy::Remote);
        lossy.lost_up = 1_100_000;
        assert!(explain(&lossy, Lang::En).text.contains("1.1 MB"));
        assert!(explain(&lossy, Lang::Zh).text.contains("1.1 MB"));
    }

    #[test]
    fn numbers_keep_their_size() {
        assert_eq!(
            [0, 999, 1000, 12_345, 999_999, 4_000_000].map(bytes),
            ["0 B", "999 B", "1.0 kB", "12.3 kB", "1.0 MB", "4.0 MB"]
        );
        assert_eq!([61, 4_100, 1_200_000, 185_000_000].map(time), ["61 µs", "4.1 ms", "1.2 s", "3 min 5 s"]);
    }
}
