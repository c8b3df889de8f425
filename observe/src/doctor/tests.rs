use std::collections::BTreeMap;
use std::net::SocketAddr;

use lastack_core::observe::{TcpInfo, TimerRow};

use super::*;
use crate::row::{Owner, SkMem};

const NETNS: u64 = 4_026_531_840;

/// A row of a test: state, ports, and what matters to a rule.
fn row(state: TcpState, local: &str, remote: &str) -> Row {
    let parse = |text: &str| text.parse::<SocketAddr>().expect("an address in a test");
    let mut row = Row::new(state, parse(local), parse(remote));
    row.socket.cookie = 1;
    row.socket.state_age_ms = Some(60_000);
    // The state's age alone is to count: the kernel's "never" is no age.
    row.socket.info = Some(Box::new(TcpInfo {
        snd_wnd: 1000,
        rcv_wnd: 1000,
        last_data_sent: u32::MAX,
        last_data_recv: u32::MAX,
        last_ack_recv: u32::MAX,
        ..TcpInfo::default()
    }));
    Row {
        netns: NETNS,
        inode: 7,
        uid: Some(0),
        shutdown: Some(0),
        memory: Some(SkMem::default()),
        owner: Some(Owner {
            pid: Some(71),
            comm: "nginx".into(),
            fd: Some(12),
            former: false,
            how: OwnerHow::Descriptor,
        }),
        ..row
    }
}

fn with_timer(mut row: Row, kind: TimerKind, expires_ms: u32, retrans: u8) -> Row {
    row.socket.timer = Some(TimerRow { kind, expires_ms, retrans });
    row
}

fn many(count: u32, make: impl Fn(u32) -> Row) -> Vec<Row> {
    (0..count)
        .map(|index| {
            let mut row = make(index);
            row.socket.cookie = u64::from(index) + 1;
            row
        })
        .collect()
}

fn snapshot(rows: Vec<Row>) -> Snapshot {
    let sysctls = [
        ("tcp_fin_timeout", "60"),
        ("tcp_orphan_retries", "0"),
        ("tcp_tw_reuse", "0"),
        ("tcp_timestamps", "1"),
        ("tcp_max_tw_buckets", "131072"),
        ("tcp_max_orphans", "131072"),
        ("tcp_mem", "100 200 300"),
        ("tcp_keepalive_time", "7200"),
        ("ip_local_port_range", "1000 1099"),
        ("core.somaxconn", "4096"),
    ];
    Snapshot {
        source: "kernel".to_owned(),
        taken_ns: 10_000_000_000,
        rows,
        namespaces: vec![Namespace {
            inode: NETNS,
            name: "self".to_owned(),
            sysctls: sysctls.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect(),
            ..Namespace::default()
        }],
        ..Snapshot::default()
    }
}

fn set(snapshot: &mut Snapshot, name: &str, value: &str) {
    snapshot.namespaces[0].sysctls.insert(name.to_owned(), value.to_owned());
}

fn counters(snapshot: &mut Snapshot, values: &[(&str, u64)]) {
    snapshot.namespaces[0].counters =
        values.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect::<BTreeMap<_, _>>();
}

fn found(snapshot: &Snapshot) -> Vec<(&'static str, u64, Severity)> {
    findings(snapshot, None)
}

fn findings(now: &Snapshot, before: Option<&Snapshot>) -> Vec<(&'static str, u64, Severity)> {
    examine(now, before, &Limits::default())
        .into_iter()
        .map(|finding| (finding.rule.id, finding.count, finding.severity))
        .collect()
}

fn orphan(mut row: Row) -> Row {
    row.socket.orphan = true;
    row.inode = 0;
    row
}

#[test]
fn every_identifier_of_the_contract_has_a_rule_with_all_its_texts() {
    const CONTRACT: &str = "fin-wait-1.zero-window fin-wait-1.silent-peer fin-wait-2.orphan fin-wait-2.owned \
         close-wait.leak time-wait.pile time-wait.port-exhaustion last-ack.silent-peer syn-recv.flood \
         syn-sent.filtered listen.accept-queue-overflow established.zero-window established.dead-peer \
         reset.unread-data reset.data-after-close reset.no-listener retransmit.storm \
         keepalive.longer-than-middlebox orphans.near-limit memory.pressure tw-buckets.overflow sysctl.myth";
    let ids: Vec<&str> = ALL.iter().map(|rule| rule.id).collect();
    assert_eq!(ids, CONTRACT.split_whitespace().collect::<Vec<_>>());
    for rule in ALL {
        let texts = [rule.title, rule.evidence, rule.cause].into_iter().chain(rule.fix.iter().copied());
        for text in texts.chain(rule.myth.iter().copied()) {
            assert!(!text.en.is_empty() && !text.zh.is_empty(), "{}", rule.id);
            assert!(
                text.zh.chars().any(|c| ('\u{4e00}'..='\u{9fff}').contains(&c)),
                "{}: {}",
                rule.id,
                text.zh
            );
            assert!(
                !text.en.chars().any(|c| ('\u{4e00}'..='\u{9fff}').contains(&c)),
                "{}: {}",
                rule.id,
                text.en
            );
        }
        assert!(!rule.fix.is_empty(), "{} says what helps", rule.id);
        assert!(!rule.myth.is_empty() || rule.id == "sysctl.myth", "{} says what does not", rule.id);
    }
}

#[test]
fn a_healthy_host_has_no_findings() {
    let mut rows =
        many(2000, |i| row(TcpState::Established, "10.0.0.1:443", &format!("10.1.0.1:{}", 2000 + i)));
    for row in &mut rows {
        row.socket.state_age_ms = Some(200_000);
    }
    rows.extend(many(300, |i| {
        orphan(with_timer(
            row(TcpState::TimeWait, "10.0.0.1:443", &format!("10.1.0.2:{}", 2000 + i)),
            TimerKind::TimeWait,
            30_000,
            0,
        ))
    }));
    rows.push(row(TcpState::Listen, "0.0.0.0:443", "0.0.0.0:0"));
    let mut now = snapshot(rows);
    counters(
        &mut now,
        &[("OutSegs", 1_000_000), ("RetransSegs", 900), ("OutRsts", 40), ("PassiveOpens", 90_000)],
    );
    let mut before = snapshot(Vec::new());
    before.taken_ns = 9_000_000_000;
    counters(
        &mut before,
        &[("OutSegs", 990_000), ("RetransSegs", 890), ("OutRsts", 38), ("PassiveOpens", 89_000)],
    );
    assert_eq!(findings(&now, Some(&before)), []);
}

#[test]
fn slow_readers_are_told_from_silent_peers() {
    let rows = many(200, |i| {
        let mut row = row(TcpState::FinWait1, "10.0.0.1:7100", &format!("10.1.2.3:{}", 2000 + i));
        row.socket.send_q = 2_883_584;
        row.socket.info = Some(Box::default());
        orphan(with_timer(row, TimerKind::Persist, 8_100, 0))
    });
    let all = examine(&snapshot(rows), None, &Limits::default());
    assert_eq!(all.len(), 1);
    let finding = &all[0];
    assert_eq!((finding.rule.id, finding.count), ("fin-wait-1.zero-window", 200));
    assert_eq!(finding.peers, [("10.1.2.3".parse().expect("address"), 200)]);
    assert_eq!((finding.owners[0].pid, finding.owners[0].count), (Some(71), 200));
    assert_eq!(finding.sockets.len(), 5);
    assert!(finding.evidence[1].en.contains("576.7 MB"), "{}", finding.evidence[1].en);

    let rows = many(20, |i| {
        let row = row(TcpState::FinWait1, "10.0.0.1:7100", &format!("10.1.2.3:{}", 2000 + i));
        orphan(with_timer(row, TimerKind::On, 3_000, 4))
    });
    assert_eq!(found(&snapshot(rows)), [("fin-wait-1.silent-peer", 20, Severity::Warning)]);
}

#[test]
fn a_finding_names_the_services_whichever_side_they_are_on() {
    let held = |local: String, remote: String| row(TcpState::CloseWait, &local, &remote);
    let mut rows = many(30, |i| held("10.0.0.1:7001".to_owned(), format!("10.1.2.3:{}", 50_000 + i)));
    rows.extend(many(40, |i| held(format!("10.0.0.1:{}", 40_000 + i), "10.1.2.4:5432".to_owned())));
    let findings = examine(&snapshot(rows), None, &Limits::default());
    let [finding] = &findings[..] else { panic!("{findings:?}") };
    let ports: Vec<_> = finding.ports.iter().map(|at| (at.port, at.ours, at.count)).collect();
    assert_eq!(ports, [(5432, false, 40), (7001, true, 30)]);
}

#[test]
fn a_pile_needs_its_number_and_its_age() {
    let make = |count, age| {
        snapshot(many(count, |i| {
            let mut row = row(TcpState::CloseWait, "10.0.0.1:80", &format!("10.1.2.3:{}", 2000 + i));
            row.socket.state_age_ms = Some(age);
            row
        }))
    };
    assert_eq!(found(&make(20, 10_000)), [("close-wait.leak", 20, Severity::Warning)]);
    assert_eq!(found(&make(19, 10_000)), []);
    assert_eq!(found(&make(20, 9_999)), []);
    let limits = Limits { min_count: Some(3), min_age_ms: 0, ..Limits::default() };
    assert_eq!(examine(&make(3, 5), None, &limits)[0].count, 3);
}

#[test]
fn fin_wait_2_is_split_by_who_holds_it_and_ages_by_fin_timeout() {
    let mini = |left| {
        many(1000, move |i| {
            let mut row = row(TcpState::FinWait2, "10.0.0.1:80", &format!("10.1.2.3:{}", 2000 + i));
            row.socket.state_age_ms = None;
            row.socket.info = None;
            orphan(with_timer(row, TimerKind::TimeWait, left, 0))
        })
    };
    assert_eq!(found(&snapshot(mini(50_000))), [("fin-wait-2.orphan", 1000, Severity::Warning)]);
    assert_eq!(found(&snapshot(mini(50_001))), [], "9.999 s old with tcp_fin_timeout = 60");
    let held = many(30, |i| row(TcpState::FinWait2, "10.0.0.1:80", &format!("10.1.2.3:{}", 2000 + i)));
    assert_eq!(found(&snapshot(held)), [("fin-wait-2.owned", 30, Severity::Warning)]);
}

#[test]
fn ports_run_out_towards_one_service_only() {
    let waiting = |n: u32, target: &str| {
        many(n, |i| {
            let mut row = row(TcpState::TimeWait, &format!("10.0.0.1:{}", 1000 + i), target);
            row.socket.state_age_ms = None;
            orphan(with_timer(row, TimerKind::TimeWait, 30_000, 0))
        })
    };
    let mut rows = waiting(79, "10.9.9.9:80");
    rows.extend(waiting(79, "10.9.9.9:81"));
    assert_eq!(found(&snapshot(rows)), [], "79 % towards each of two services");
    let ids = |rows| found(&snapshot(rows)).into_iter().map(|f| (f.0, f.2)).collect::<Vec<_>>();
    assert_eq!(ids(waiting(80, "10.9.9.9:80")), [("time-wait.port-exhaustion", Severity::Warning)]);
    assert_eq!(ids(waiting(100, "10.9.9.9:80")), [("time-wait.port-exhaustion", Severity::Error)]);
    let mut now = snapshot(waiting(100, "10.9.9.9:80"));
    set(&mut now, "tcp_tw_reuse", "1");
    assert_eq!(found(&now), [], "all of them may be taken over");
    set(&mut now, "ip_local_reserved_ports", "5000,1000-1019");
    set(&mut now, "tcp_timestamps", "0");
    let said = examine(&now, None, &Limits::default());
    assert!(said.iter().any(|f| f.rule.id == "time-wait.port-exhaustion"), "no reuse without timestamps");
    assert!(said[0].evidence[0].en.contains("of 80 local ports"), "{}", said[0].evidence[0].en);
}

#[test]
fn a_full_listener_is_not_a_flood() {
    let half_open = |n| {
        many(n, |i| {
            let mut row = row(TcpState::NewSynRecv, "10.0.0.1:80", &format!("10.1.2.3:{}", 2000 + i));
            row.socket.state_age_ms = Some(500);
            row
        })
    };
    let listener = |waiting, backlog| {
        let mut row = row(TcpState::Listen, "0.0.0.0:80", "0.0.0.0:0");
        (row.socket.recv_q, row.socket.send_q) = (waiting, backlog);
        row
    };
    let mut rows = half_open(6);
    rows.push(listener(0, 5));
    assert_eq!(found(&snapshot(rows)), [("syn-recv.flood", 6, Severity::Error)]);
    let mut rows = half_open(6);
    rows.push(listener(6, 5));
    assert_eq!(found(&snapshot(rows)), [("listen.accept-queue-overflow", 1, Severity::Error)]);
    let mut rows = half_open(5);
    rows.push(listener(5, 5));
    assert_eq!(found(&snapshot(rows)), [], "both queues have room for one more");
}

#[test]
fn rates_come_from_two_snapshots() {
    let mut before = snapshot(Vec::new());
    before.taken_ns = 9_000_000_000;
    counters(&mut before, &[("OutRsts", 100), ("TCPAbortOnClose", 10), ("PassiveOpens", 100_000)]);
    let mut now = snapshot(Vec::new());
    counters(&mut now, &[("OutRsts", 110), ("TCPAbortOnClose", 15), ("PassiveOpens", 100_000)]);
    assert_eq!(
        findings(&now, Some(&before)),
        [("reset.unread-data", 5, Severity::Warning), ("reset.no-listener", 5, Severity::Warning)]
    );
    counters(&mut now, &[("OutSegs", 980), ("RetransSegs", 20), ("PassiveOpens", 100_000)]);
    counters(&mut before, &[("PassiveOpens", 100_000)]);
    assert_eq!(findings(&now, Some(&before)), [("retransmit.storm", 0, Severity::Warning)]);
    counters(&mut now, &[("ListenOverflows", 3)]);
    assert_eq!(findings(&now, Some(&before)), [("listen.accept-queue-overflow", 1, Severity::Error)]);
}

#[test]
fn a_habit_is_told_without_rates() {
    let mut now = snapshot(Vec::new());
    counters(&mut now, &[("TCPAbortOnData", 50), ("OutRsts", 50), ("PassiveOpens", 1000)]);
    assert_eq!(found(&now), [("reset.data-after-close", 50, Severity::Info)]);
    counters(&mut now, &[("TCPAbortOnData", 49), ("OutRsts", 49), ("PassiveOpens", 1000)]);
    assert_eq!(found(&now), [], "less than 5 %");
}

#[test]
fn host_wide_gauges_against_host_wide_limits() {
    let mut now = snapshot(Vec::new());
    now.host.orphans = 131_072 / 4;
    assert_eq!(found(&now), [("orphans.near-limit", 32_768, Severity::Warning)]);
    now.host.orphans = 131_072;
    assert_eq!(found(&now), [("orphans.near-limit", 131_072, Severity::Error)]);
    let mut now = snapshot(Vec::new());
    now.host.memory_pages = 200;
    assert_eq!(found(&now), [("memory.pressure", 0, Severity::Warning)]);
    now.host.memory_pages = 300;
    assert_eq!(found(&now), [("memory.pressure", 0, Severity::Error)]);
    // Inside a namespace the limits cannot be read: nothing is said.
    now.namespaces[0].sysctls.remove("tcp_mem");
    assert_eq!(found(&now), []);
}

#[test]
fn a_knob_is_a_myth_only_where_it_is_set() {
    let mut now = snapshot(many(30, |i| {
        let mut row = row(TcpState::TimeWait, "10.0.0.1:80", &format!("10.1.2.3:{}", 2000 + i));
        row.socket.state_age_ms = None;
        orphan(with_timer(row, TimerKind::TimeWait, 30_000, 0))
    }));
    assert_eq!(found(&now), []);
    set(&mut now, "tcp_fin_timeout", "3");
    assert_eq!(found(&now), [("sysctl.myth", 30, Severity::Warning)]);
    now.rows.clear();
    assert_eq!(found(&now), [("sysctl.myth", 0, Severity::Info)]);
}

#[test]
fn idle_is_suspicious_only_off_the_loopback_and_without_keepalive() {
    let idle = |peer: &str| {
        many(20, |i| {
            let mut row = row(TcpState::Established, "10.0.0.1:80", &format!("{peer}:{}", 2000 + i));
            row.socket.state_age_ms = Some(400_000);
            row
        })
    };
    assert_eq!(found(&snapshot(idle("10.1.2.3"))), [("keepalive.longer-than-middlebox", 20, Severity::Info)]);
    assert_eq!(found(&snapshot(idle("127.0.0.1"))), []);
    let kept =
        idle("10.1.2.3").into_iter().map(|row| with_timer(row, TimerKind::Keepalive, 60_000, 0)).collect();
    assert_eq!(found(&snapshot(kept)), []);
}

#[test]
fn predictions_follow_the_model() {
    let mut now = snapshot(many(600, |i| {
        let mut row = row(TcpState::FinWait2, "10.0.0.1:80", &format!("10.1.2.3:{}", 2000 + i));
        row.socket.info = None;
        orphan(with_timer(row, TimerKind::TimeWait, 30_000, 0))
    }));
    set(&mut now, "ip_local_port_range", "32768 60999");
    let then = |name: &str, value: &str| {
        what_if::predict(&now, None, name, value)
            .unwrap_or_else(|e| panic!("{name}={value}: {e:?}"))
            .into_iter()
            .map(|p| (p.now, p.then))
            .collect::<Vec<_>>()
    };
    assert_eq!(then("tcp_fin_timeout", "30")[1], ("600".to_owned(), "300".to_owned()));
    assert_eq!(then("net.ipv4.tcp_fin_timeout", "61")[0].1, "2.0s", "the cliff");
    assert_eq!(then("tcp_tw_reuse", "1")[0], ("470".to_owned(), "28232".to_owned()));
    assert_eq!(then("tcp_orphan_retries", "3")[0], ("1m 42s".to_owned(), "3.0s".to_owned()));
    assert_eq!(
        then("tcp_orphan_retries", "3")[1].0,
        then("tcp_orphan_retries", "3")[1].1,
        "no help at zero window"
    );
    assert_eq!(then("ip_local_port_range", "1024 65535")[0].1, "64512");
    for knob in what_if::KNOBS {
        let value = match *knob {
            "ip_local_port_range" => "1 2",
            "tcp_rto_max_ms" => "1000",
            _ => "1",
        };
        assert!(what_if::predict(&now, None, knob, value).is_ok_and(|p| !p.is_empty()), "{knob}");
        assert_eq!(what_if::predict(&now, None, knob, "soon").err(), Some(what_if::Unknown::Value));
    }
    assert_eq!(what_if::predict(&now, None, "tcp_bogus", "1").err(), Some(what_if::Unknown::Knob));
}

#[test]
fn owners_are_asked_for_only_where_a_rule_speaks() {
    let nameless = |mut row: Row| {
        row.owner = None;
        row
    };
    let healthy =
        many(50, |n| nameless(row(TcpState::Established, "10.0.0.1:80", &format!("10.0.1.{n}:4000"))));
    let mut now = snapshot(healthy.clone());
    let limits = Limits::default();
    let found = examine_then_name(&mut now, None, &limits, |_, _| panic!("nobody is ill"));
    assert!(found.is_empty(), "{found:?}");

    let mut rows = healthy;
    rows.extend(many(30, |_| nameless(row(TcpState::CloseWait, "10.0.0.1:80", "10.0.0.9:4000"))));
    let mut now = snapshot(rows);
    let mut asked = Vec::new();
    let found = examine_then_name(&mut now, None, &limits, |now, places| {
        asked = places.to_vec();
        for place in places {
            now.rows[*place].owner = row(TcpState::CloseWait, "10.0.0.1:80", "10.0.0.9:4000").owner;
        }
    });
    assert_eq!(asked, (50..80).collect::<Vec<_>>());
    assert_eq!((found.len(), found[0].rule.id, found[0].count), (1, "close-wait.leak", 30));
    assert_eq!((found[0].owners[0].pid, found[0].owners[0].count), (Some(71), 30));
}

#[test]
fn no_rule_decides_by_owner() {
    let rows = many(300, |n| {
        let state = TcpState::ALL[n as usize % TcpState::ALL.len()];
        with_timer(row(state, "10.0.0.1:80", "10.0.0.9:4000"), TimerKind::Persist, 100, 5)
    });
    let named = snapshot(rows);
    let mut nameless = named.clone();
    nameless.rows.iter_mut().for_each(|row| row.owner = None);
    let with = found(&named);
    assert!(!with.is_empty());
    assert_eq!(found(&nameless), with);
}
