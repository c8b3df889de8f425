//! The report at the end of a run: each connection in two or three lines, and what they come to.
//!
//! Owns:    [`Report`]: the records worth a paragraph, and counts of the rest.
//! Rules:   a hundred thousand connections must not be a hundred thousand paragraphs: the first clean ones and the
//!          first of each that went wrong are told, the others are counted.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use lastack_gateway::journal::{ClosedBy, Connection, Entry, Flow, FlowEnd, How, LookupEnd, Reason};
use lastack_gateway::limits::Reached;
use lastack_gateway::sandbox::DeviceKind;

use crate::args::Lang;
use crate::run::impaired::Account;
use crate::run::words::{self, bytes, time};

/// Clean connections told in full.
const CLEAN_TOLD: usize = 20;
/// Connections that went wrong told in full, of each kind.
const WRONG_TOLD: usize = 10;
/// From so many connections on it matters what the namespace's kernel was told about ports.
const MANY: u64 = 100;
/// Flows told in full.
const FLOWS_TOLD: usize = 20;
/// Names told that were denied or not answered.
const NAMES_TOLD: usize = 20;

/// What a report is made of.
#[derive(Debug, Default)]
pub(crate) struct Report {
    told: Vec<Entry>,
    clean: u64,
    flows: u64,
    lookups: u64,
    /// Names that were denied or not answered, with who asked, and how often.
    names: BTreeMap<(LookupEnd, Arc<str>, Arc<str>), u64>,
    kinds: BTreeMap<(How, Option<Reason>, ClosedBy), u64>,
    retransmits: u64,
    lost: u64,
    bytes_up: u64,
    bytes_down: u64,
    limits: Vec<Reached>,
    device: Option<DeviceKind>,
    link: Option<Account>,
}

/// How it is to be written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Style {
    pub(crate) lang: Lang,
    pub(crate) color: bool,
}

impl Style {
    fn paint(self, code: &str, text: &str) -> String {
        if self.color { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn pick(self, en: &'static str, zh: &'static str) -> &'static str {
        match self.lang {
            Lang::En => en,
            Lang::Zh => zh,
        }
    }
}

impl Report {
    /// Takes an entry down.
    pub(crate) fn add(&mut self, entry: Entry) {
        let tell = match &entry {
            Entry::Connection(connection) => self.count(connection),
            Entry::Flow(_) => {
                self.flows += 1;
                self.flows <= FLOWS_TOLD as u64
            }
            Entry::Limit(reached) => {
                self.limits.push(*reached);
                false
            }
            Entry::Lookup(lookup) => {
                self.lookups += 1;
                if lookup.how != LookupEnd::Answered {
                    let process =
                        lookup.owner.as_ref().map_or_else(|| "?".into(), |owner| owner.process.clone());
                    *self.names.entry((lookup.how, lookup.name.clone(), process)).or_default() += 1;
                }
                false
            }
        };
        if tell {
            self.told.push(entry);
        }
    }

    /// Takes the account of a bad link down.
    pub(crate) fn set_link(&mut self, account: Account) {
        self.link = Some(account);
    }

    fn count(&mut self, connection: &Connection) -> bool {
        let verdict = connection.verdict;
        self.device = self.device.or(connection.device);
        self.retransmits += u64::from(connection.inside.map_or(0, |leg| leg.retransmits))
            + u64::from(connection.outside.map_or(0, |leg| leg.retransmits));
        self.lost += connection.lost_bytes();
        self.bytes_up += connection.bytes_up;
        self.bytes_down += connection.bytes_down;
        let kind = self.kinds.entry((verdict.how, verdict.reason, verdict.ended_by)).or_default();
        *kind += 1;
        if verdict.how == How::Fin && connection.lost_bytes() == 0 {
            self.clean += 1;
            self.clean <= CLEAN_TOLD as u64
        } else {
            *kind <= WRONG_TOLD as u64
        }
    }

    /// The whole text.
    pub(crate) fn text(&self, style: Style) -> String {
        let mut text = String::new();
        for entry in &self.told {
            match entry {
                Entry::Connection(connection) => tell_connection(&mut text, connection, style),
                Entry::Flow(flow) => tell_flow(&mut text, flow, style),
                Entry::Lookup(_) | Entry::Limit(_) => {}
            }
        }
        self.tell_names(&mut text, style);
        let told = self.told.iter().filter(|entry| matches!(entry, Entry::Connection(_))).count() as u64;
        let rest = self.connections() - told;
        if rest > 0 {
            let _ = match style.lang {
                Lang::En => writeln!(text, "… and {rest} more like these"),
                Lang::Zh => writeln!(text, "……另有 {rest} 条类似的连接"),
            };
        }
        for reached in &self.limits {
            let _ = writeln!(text, "{}", style.paint("33", &words::explain_limit(reached, style.lang)));
        }
        if let Some(link) = &self.link {
            text.push_str(&link.text(style.lang));
        }
        let _ = writeln!(text, "{}", style.paint("1", &self.summary(style)));
        if self.connections() >= MANY {
            let _ = writeln!(
                text,
                "{}",
                style.pick(
                    "inside, ip_local_port_range is 1024-65535 and tcp_tw_reuse is 1, so that the program's kernel has ports enough",
                    "内侧的 ip_local_port_range 为 1024-65535，tcp_tw_reuse 为 1，以免程序的内核用尽端口",
                )
            );
        }
        text
    }

    /// The names that the program was not told.
    fn tell_names(&self, text: &mut String, style: Style) {
        for ((how, name, process), count) in self.names.iter().take(NAMES_TOLD) {
            let line = match (style.lang, how) {
                (Lang::En, LookupEnd::Denied) => {
                    format!("{process} asked for {name}: denied by a rule, ×{count}")
                }
                (Lang::Zh, LookupEnd::Denied) => format!("{process} 查询 {name}：被规则禁止，{count} 次"),
                (Lang::En, _) => format!("{process} asked for {name}: no resolver answered, ×{count}"),
                (Lang::Zh, _) => format!("{process} 查询 {name}：没有解析器应答，{count} 次"),
            };
            let _ = writeln!(text, "{}", style.paint("33", &line));
        }
        let rest = self.names.len().saturating_sub(NAMES_TOLD);
        if rest > 0 {
            let _ = match style.lang {
                Lang::En => writeln!(text, "… and {rest} more names"),
                Lang::Zh => writeln!(text, "……另有 {rest} 个名字"),
            };
        }
    }

    fn connections(&self) -> u64 {
        self.kinds.values().sum()
    }

    fn of(&self, wanted: How) -> u64 {
        self.kinds.iter().filter(|((how, ..), _)| *how == wanted).map(|(_, count)| count).sum()
    }

    fn summary(&self, style: Style) -> String {
        let counted = |count: u64, one: &str, many: &str, zh: &str| match style.lang {
            Lang::En => format!("{count} {}", if count == 1 { one } else { many }),
            Lang::Zh => format!("{zh} {count}"),
        };
        let mut parts = vec![
            counted(self.connections(), "connection", "connections", "连接"),
            counted(self.of(How::Fin), "clean close", "clean closes", "正常关闭"),
            counted(self.of(How::Reset), "reset", "resets", "重置"),
        ];
        for (how, one, many, zh) in [
            (How::Refused, "refused", "refused", "被拒绝"),
            (How::Denied, "denied", "denied", "被规则禁止"),
            (How::Timeout, "time-out", "time-outs", "超时"),
            (How::Unreachable, "unreachable", "unreachable", "不可达"),
            (How::Killed, "killed", "killed", "被终止"),
            (How::Open, "still open", "still open", "仍打开"),
        ] {
            if self.of(how) > 0 {
                parts.push(counted(self.of(how), one, many, zh));
            }
        }
        parts.push(counted(self.retransmits, "retransmit", "retransmits", "重传"));
        if self.connections() > 1 {
            parts.push(format!("↑ {}  ↓ {}", bytes(self.bytes_up), bytes(self.bytes_down)));
        }
        if self.lost > 0 {
            parts.push(format!("{} {}", bytes(self.lost), style.pick("lost", "丢失")));
        }
        if self.flows > 0 {
            parts.push(counted(self.flows, "UDP flow", "UDP flows", "UDP 流"));
        }
        if self.lookups > 0 {
            parts.push(counted(self.lookups, "lookup", "lookups", "域名查询"));
        }
        match self.device {
            Some(DeviceKind::Tun) => parts.push(style.pick("over TUN", "经由 TUN").to_owned()),
            Some(DeviceKind::Veth) => parts.push(style.pick("over veth", "经由 veth").to_owned()),
            None => {}
        }
        parts.join(" · ")
    }
}

fn tell_connection(text: &mut String, c: &Connection, style: Style) {
    let process = c.owner.as_ref().map_or("?", |owner| &*owner.process);
    let arrow = words::arrow(c.direction);
    let _ = write!(text, "{}  {process} {arrow} {}", style.paint("1", &format!("#{}", c.id)), c.remote);
    if let Some(host) = c.host_remote.filter(|host| *host != c.remote) {
        let _ = write!(text, " ({} {host})", style.pick("host", "主机"));
    }
    if let Some(published) = c.host_local {
        let _ = write!(text, " {} {published}", style.pick("at", "经由"));
    }
    let _ = match c.handshake_us {
        Some(handshake) => {
            write!(
                text,
                "   SYN {}  ESTAB {}",
                time(handshake),
                time(c.duration_us.saturating_sub(handshake))
            )
        }
        None if c.outside.is_some() => write!(text, "   ESTAB {}", time(c.duration_us)),
        None => write!(text, "   SYN {}", time(c.duration_us)),
    };
    if c.handshake_us.is_some() || c.outside.is_some() {
        let _ = write!(text, "  ↑ {}  ↓ {}", bytes(c.bytes_up), bytes(c.bytes_down));
    }
    for (leg, retransmits) in [
        (style.pick("inside", "内侧"), c.inside.map_or(0, |leg| leg.retransmits)),
        (style.pick("outside", "外侧"), c.outside.map_or(0, |leg| leg.retransmits)),
    ] {
        if retransmits > 0 {
            let _ = write!(text, "  {} {retransmits} ({leg})", style.pick("retransmits", "重传"));
        }
    }
    text.push('\n');
    let explanation = words::explain(c, style.lang);
    let color = if c.verdict.how == How::Fin && c.lost_bytes() == 0 { "32" } else { "33" };
    let _ = writeln!(text, "    {}", style.paint(color, &explanation.text));
    if let Some(advice) = explanation.advice {
        let _ = writeln!(text, "    {}: {advice}", style.pick("try", "建议"));
    }
}

fn tell_flow(text: &mut String, flow: &Flow, style: Style) {
    let process = flow.owner.as_ref().map_or("?", |owner| &*owner.process);
    let arrow = words::arrow(flow.direction);
    let _ = write!(
        text,
        "{}  {process} {arrow} {}",
        style.paint("1", &format!("#{}", flow.id)),
        words::place(flow)
    );
    if let Some(host) = flow.host_remote.filter(|host| *host != flow.remote) {
        let _ = write!(text, " ({} {host})", style.pick("host", "主机"));
    }
    let _ = writeln!(
        text,
        "   {}  ↑ {} ({})  ↓ {} ({})",
        time(flow.duration_us),
        bytes(flow.bytes_up),
        flow.datagrams_up,
        bytes(flow.bytes_down),
        flow.datagrams_down
    );
    if flow.how != FlowEnd::Idle || flow.datagrams_down == 0 || flow.datagrams_up == 0 {
        let _ = writeln!(text, "    {}", style.paint("33", &words::explain_flow(flow, style.lang)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::words::tests::connection;

    const PLAIN: Style = Style { lang: Lang::En, color: false };

    #[test]
    fn one_clean_connection_reads_like_the_first_screen() {
        let mut report = Report::default();
        let mut c = connection(How::Fin, None, ClosedBy::Program);
        (c.bytes_up, c.bytes_down, c.duration_us) = (81, 12_345, 4_310);
        report.add(Entry::Connection(c));
        assert_eq!(
            report.text(PLAIN),
            "#3  myapp → 10.0.2.2:9000 (host 127.0.0.1:9000)   SYN 210 µs  ESTAB 4.1 ms  ↑ 81 B  ↓ 12.3 kB\n    \
             myapp closed first (FIN), the remote end followed. TIME-WAIT is on myapp's side, in its kernel, for 60 s.\n\
             1 connection · 1 clean close · 0 resets · 0 retransmits\n"
        );
    }

    #[test]
    fn thousands_are_counted_and_the_odd_one_is_told() {
        let mut report = Report::default();
        for _ in 0..5_000 {
            report.add(Entry::Connection(connection(How::Fin, None, ClosedBy::Remote)));
        }
        report.add(Entry::Connection(connection(How::Refused, Some(Reason::NoListener), ClosedBy::Remote)));
        let text = report.text(PLAIN);
        assert!(text.lines().count() < 60, "{text}");
        assert!(text.contains("… and 4980 more like these"), "{text}");
        assert!(text.contains("Nobody listens on 127.0.0.1:9000"), "{text}");
        assert!(text.contains("5001 connections · 5000 clean closes · 0 resets · 1 refused"), "{text}");
    }

    #[test]
    fn chinese_report_has_a_chinese_summary() {
        let mut report = Report::default();
        report.add(Entry::Connection(connection(How::Reset, Some(Reason::ResetByPeer), ClosedBy::Remote)));
        let text = report.text(Style { lang: Lang::Zh, color: false });
        assert!(text.contains("连接 1 · 正常关闭 0 · 重置 1"), "{text}");
    }
}
