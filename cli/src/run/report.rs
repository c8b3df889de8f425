//! The report at the end of a run: each connection in two or three lines, and what they come to.
//!
//! Owns:    [`Report`]: the records worth a paragraph, and counts of the rest.
//! Rules:   a hundred thousand connections must not be a hundred thousand paragraphs: the first clean ones and the
//!          first of each that went wrong are told, the others are counted.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;

use lastack_gateway::journal::{
    ClosedBy, Connection, Entry, Flow, FlowEnd, FlowProtocol, How, Lookup, LookupEnd, Reason,
};
use lastack_gateway::limits::Reached;
use lastack_gateway::sandbox::DeviceKind;
use lastack_observe::words::Lang;

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
/// Names told that the program got no address for.
const NAMES_TOLD: usize = 20;
/// Names kept to choose those from: a program may make up any number.
const NAMES_KEPT: usize = 1000;

/// Where the program ran.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Place {
    /// In a namespace of its own, behind the stack.
    #[default]
    BehindTheStack,
    /// Where it would have run anyway (`--observe`).
    AsItWas,
}

/// A name that the program got no address for, and who asked.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Unanswered {
    how: LookupEnd,
    name: Arc<str>,
    process: Arc<str>,
    /// What a resolver answered, where one did.
    rcode: Option<&'static str>,
}

/// What a report is made of.
#[derive(Debug, Default)]
pub(crate) struct Report {
    place: Place,
    told: Vec<Entry>,
    clean: u64,
    flows: u64,
    pings: u64,
    lookups: u64,
    /// Names without an address, and how often they were asked for.
    names: BTreeMap<Unanswered, u64>,
    /// Names with one.
    found: BTreeSet<Arc<str>>,
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
}

impl Report {
    /// An empty one of a program that ran there.
    pub(crate) fn new(place: Place) -> Self {
        Self { place, ..Self::default() }
    }

    /// Takes an entry down.
    pub(crate) fn add(&mut self, entry: Entry) {
        let tell = match &entry {
            Entry::Connection(connection) => self.count(connection),
            Entry::Flow(flow) => {
                match flow.protocol {
                    FlowProtocol::Udp => self.flows += 1,
                    FlowProtocol::Icmp => self.pings += flow.datagrams_up,
                }
                self.told.iter().filter(|told| matches!(told, Entry::Flow(_))).count() < FLOWS_TOLD
            }
            Entry::Limit(reached) => {
                self.limits.push(*reached);
                false
            }
            Entry::Lookup(lookup) => {
                self.lookups += 1;
                self.look_up(lookup);
                false
            }
        };
        if tell {
            self.told.push(entry);
        }
    }

    fn look_up(&mut self, lookup: &Lookup) {
        let Lookup { how, rcode, name, owner, addresses, .. } = lookup;
        if *how == LookupEnd::Answered && *rcode == Some("NOERROR") {
            if !addresses.is_empty() && self.found.len() < NAMES_KEPT {
                self.found.insert(name.clone());
            }
            return;
        }
        let process = owner.as_ref().map_or_else(|| "?".into(), |owner| owner.process.clone());
        let unanswered = Unanswered { how: *how, rcode: *rcode, name: name.clone(), process };
        if self.names.len() < NAMES_KEPT || self.names.contains_key(&unanswered) {
            *self.names.entry(unanswered).or_default() += 1;
        }
    }

    /// True where a resolver's search list added something to a name that has addresses: nobody misses that one.
    fn is_a_guess(&self, unanswered: &Unanswered) -> bool {
        let name = &*unanswered.name;
        let mut heads = name.match_indices('.').map(|(at, _)| &name[..at]);
        unanswered.rcode == Some("NXDOMAIN") && heads.any(|head| self.found.contains(head))
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
        if self.place == Place::BehindTheStack && self.is_empty() {
            let _ = writeln!(
                text,
                "{}",
                style.lang.pick(
                    "there is nothing to journal; localhost inside is the program's own, this host's is 10.0.2.2 and fd00:6c61::2",
                    "没有可记录的内容；内侧的 localhost 是程序自己的，本机的回环地址是 10.0.2.2 和 fd00:6c61::2",
                )
            );
        }
        if self.connections() >= MANY {
            let _ = writeln!(
                text,
                "{}",
                style.lang.pick(
                    "inside, ip_local_port_range is 1024-65535 and tcp_tw_reuse is 1, so that the program's kernel has ports enough",
                    "内侧的 ip_local_port_range 为 1024-65535，tcp_tw_reuse 为 1，以免程序的内核用尽端口",
                )
            );
        }
        text
    }

    /// The names that the program got no address for.
    fn tell_names(&self, text: &mut String, style: Style) {
        let mut names: Vec<_> = self.names.iter().filter(|(name, _)| !self.is_a_guess(name)).collect();
        let rest = names.len().saturating_sub(NAMES_TOLD);
        names.truncate(NAMES_TOLD);
        for (Unanswered { how, rcode, name, process }, count) in names {
            let (en, zh) = match (how, rcode) {
                (LookupEnd::Denied, _) => ("denied by a rule".to_owned(), "被规则禁止".to_owned()),
                (LookupEnd::Answered, Some("NXDOMAIN")) => {
                    ("there is no such name (NXDOMAIN)".to_owned(), "没有这个名字（NXDOMAIN）".to_owned())
                }
                (LookupEnd::Answered, Some(code)) => {
                    (format!("the resolver answered {code}"), format!("解析器回答 {code}"))
                }
                (LookupEnd::Answered | LookupEnd::Failed, _) => {
                    ("no resolver answered".to_owned(), "没有解析器应答".to_owned())
                }
            };
            let line = match style.lang {
                Lang::En => format!("{process} asked for {name}: {en}"),
                Lang::Zh => format!("{process} 查询 {name}：{zh}"),
            };
            let times = match (style.lang, *count) {
                (_, 1) => String::new(),
                (Lang::En, count) => format!(", ×{count}"),
                (Lang::Zh, count) => format!("，{count} 次"),
            };
            let _ = writeln!(text, "{}", style.paint("33", &(line + &times)));
        }
        if rest > 0 {
            let _ = match style.lang {
                Lang::En => writeln!(text, "… and {rest} more names"),
                Lang::Zh => writeln!(text, "……另有 {rest} 个名字"),
            };
        }
    }

    /// True when nothing was journalled.
    fn is_empty(&self) -> bool {
        self.connections() == 0 && self.flows + self.pings + self.lookups == 0
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
        let mut parts = vec![counted(self.connections(), "connection", "connections", "连接")];
        // Of no connections there is no more to say.
        let any = self.connections() > 0;
        if any {
            parts.push(counted(self.of(How::Fin), "clean close", "clean closes", "正常关闭"));
            parts.push(counted(self.of(How::Reset), "reset", "resets", "重置"));
        }
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
        if any {
            parts.push(counted(self.retransmits, "retransmit", "retransmits", "重传"));
        }
        if self.connections() > 1 {
            parts.push(format!("↑ {}  ↓ {}", bytes(self.bytes_up), bytes(self.bytes_down)));
        }
        if self.lost > 0 {
            parts.push(format!("{} {}", bytes(self.lost), style.lang.pick("lost", "丢失")));
        }
        if self.flows > 0 {
            parts.push(counted(self.flows, "UDP flow", "UDP flows", "UDP 流"));
        }
        if self.pings > 0 {
            parts.push(counted(self.pings, "ping", "pings", "ping"));
        }
        if self.lookups > 0 {
            parts.push(counted(self.lookups, "lookup", "lookups", "域名查询"));
        }
        match self.device {
            Some(DeviceKind::Tun) => parts.push(style.lang.pick("over TUN", "经由 TUN").to_owned()),
            Some(DeviceKind::Veth) => parts.push(style.lang.pick("over veth", "经由 veth").to_owned()),
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
        let _ = write!(text, " ({} {host})", style.lang.pick("host", "主机"));
    }
    if let Some(published) = c.host_local {
        let _ = write!(text, " {} {published}", style.lang.pick("at", "经由"));
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
        (style.lang.pick("inside", "内侧"), c.inside.map_or(0, |leg| leg.retransmits)),
        (style.lang.pick("outside", "外侧"), c.outside.map_or(0, |leg| leg.retransmits)),
    ] {
        if retransmits > 0 {
            let _ = write!(text, "  {} {retransmits} ({leg})", style.lang.pick("retransmits", "重传"));
        }
    }
    text.push('\n');
    let explanation = words::explain(c, style.lang);
    let color = if c.verdict.how == How::Fin && c.lost_bytes() == 0 { "32" } else { "33" };
    let _ = writeln!(text, "    {}", style.paint(color, &explanation.text));
    if let Some(advice) = explanation.advice {
        let _ = writeln!(text, "    {}: {advice}", style.lang.pick("try", "建议"));
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
        let _ = write!(text, " ({} {host})", style.lang.pick("host", "主机"));
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
    use lastack_gateway::journal::Direction;

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

    fn lookup(name: &str, how: LookupEnd, rcode: Option<&'static str>, address: Option<&str>) -> Entry {
        Entry::Lookup(Lookup {
            id: 1,
            owner: Some(lastack_gateway::owner::Owner { pid: 7, process: "curl".into(), cgroup: None }),
            local: "10.0.2.100:4000".parse().unwrap(),
            server: "10.0.2.3:53".parse().unwrap(),
            tcp: false,
            name: name.into(),
            kind: "A".into(),
            asked: lastack::core::time::Instant::ZERO,
            took_us: 100,
            how,
            rcode,
            addresses: address.into_iter().map(|text| text.parse().unwrap()).collect(),
        })
    }

    #[test]
    fn a_name_without_an_address_is_told_with_what_was_answered() {
        let mut report = Report::default();
        for _ in 0..2 {
            report.add(lookup("nosuch.test", LookupEnd::Answered, Some("NXDOMAIN"), None));
        }
        report.add(lookup("broken.test", LookupEnd::Answered, Some("SERVFAIL"), None));
        report.add(lookup("silent.test", LookupEnd::Failed, None, None));
        report.add(lookup("secret.test", LookupEnd::Denied, None, None));
        // What a search list made of a name that was found then is no failure, nor is a name without an AAAA.
        report.add(lookup("web.test.corp.test", LookupEnd::Answered, Some("NXDOMAIN"), None));
        report.add(lookup("web.test", LookupEnd::Answered, Some("NOERROR"), Some("192.0.2.7")));
        report.add(lookup("web.test", LookupEnd::Answered, Some("NOERROR"), None));
        assert_eq!(
            report.text(PLAIN),
            "curl asked for broken.test: the resolver answered SERVFAIL\n\
             curl asked for nosuch.test: there is no such name (NXDOMAIN), ×2\n\
             curl asked for secret.test: denied by a rule\n\
             curl asked for silent.test: no resolver answered\n\
             0 connections · 8 lookups\n"
        );
        let zh = report.text(Style { lang: Lang::Zh, color: false });
        assert!(zh.contains("curl 查询 nosuch.test：没有这个名字（NXDOMAIN），2 次"), "{zh}");
    }

    #[test]
    fn names_that_a_program_makes_up_do_not_fill_the_memory() {
        let mut report = Report::default();
        for number in 0..2 * NAMES_KEPT {
            report.add(lookup(&format!("{number}.test"), LookupEnd::Failed, None, None));
            report.add(lookup(&format!("{number}.found"), LookupEnd::Answered, Some("NOERROR"), Some("::1")));
        }
        assert_eq!((report.names.len(), report.found.len()), (NAMES_KEPT, NAMES_KEPT));
        assert!(report.text(PLAIN).contains("… and 980 more names"));
    }

    #[test]
    fn a_run_without_traffic_tells_where_this_hosts_loopback_is() {
        let text = Report::default().text(PLAIN);
        assert!(text.starts_with("0 connections\nthere is nothing to journal"), "{text}");
        assert!(text.contains("this host's is 10.0.2.2 and fd00:6c61::2"), "{text}");
        assert_eq!(Report::new(Place::AsItWas).text(PLAIN), "0 connections\n");
    }

    #[test]
    fn pings_are_no_udp_flows() {
        let mut report = Report::default();
        let mut flow = crate::run::words::tests::flow(Direction::Out, FlowEnd::Idle, 3);
        flow.protocol = FlowProtocol::Icmp;
        report.add(Entry::Flow(flow));
        let text = report.text(PLAIN);
        assert!(text.ends_with("0 connections · 3 pings\n"), "{text}");
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
