//! Each prediction against the specification's formulas.

use super::*;

const NETNS: u64 = 4_026_531_840;

fn row(state: TcpState, orphan: bool) -> Row {
    let address = |text: &str| text.parse().expect("an address");
    let mut row = Row::new(state, address("10.0.0.1:80"), address("10.0.0.2:40000"));
    row.netns = NETNS;
    (row.socket.cookie, row.socket.orphan) = (1, orphan);
    row
}

/// `rows` in a namespace whose knobs are at Linux's defaults but for `knobs`.
fn snapshot(rows: Vec<Row>, knobs: &[(&str, &str)]) -> Snapshot {
    let defaults = [
        ("tcp_fin_timeout", "60"),
        ("tcp_orphan_retries", "0"),
        ("tcp_retries2", "15"),
        ("tcp_rto_max_ms", "120000"),
        ("tcp_synack_retries", "5"),
        ("tcp_syn_retries", "6"),
        ("tcp_syn_linear_timeouts", "4"),
        ("tcp_tw_reuse", "2"),
        ("tcp_tw_reuse_delay", "1000"),
        ("tcp_timestamps", "1"),
        ("tcp_max_tw_buckets", "131072"),
        ("tcp_keepalive_time", "7200"),
        ("tcp_keepalive_intvl", "75"),
        ("tcp_keepalive_probes", "9"),
        ("ip_local_port_range", "32768 60999"),
    ];
    let sysctls =
        defaults.iter().chain(knobs).map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Snapshot {
        taken_ns: 10_000_000_000,
        namespaces: vec![Namespace { inode: NETNS, sysctls, ..Namespace::default() }],
        rows,
        ..Snapshot::default()
    }
}

fn many(count: usize, state: TcpState, orphan: bool) -> Vec<Row> {
    (0..count).map(|_| row(state, orphan)).collect()
}

/// What is predicted, `(now, then)` a line.
fn predicted(now: &Snapshot, knob: &str, value: &str) -> Vec<(String, String)> {
    let predictions = predict(now, None, knob, value).unwrap_or_else(|e| panic!("{knob}={value}: {e:?}"));
    predictions.into_iter().map(|prediction| (prediction.now, prediction.then)).collect()
}

#[track_caller]
fn assert_line(lines: &[(String, String)], index: usize, now: &str, then: &str) {
    assert_eq!((lines[index].0.as_str(), lines[index].1.as_str()), (now, then), "line {index} of {lines:?}");
}

/// 1.5 and 13.4: not monotonic, and nothing but FIN-WAIT-2's orphans moves.
#[test]
fn fin_timeout_changes_the_life_of_fin_wait_2_orphans_and_nothing_else() {
    let mut rows = many(120, TcpState::FinWait2, true);
    rows.extend(many(7, TcpState::FinWait2, false));
    rows.extend(many(500, TcpState::TimeWait, false));
    let now = snapshot(rows, &[]);
    for (seconds, life, orphans) in [
        ("0", "700ms", "1"),
        ("3", "3.0s", "6"),
        ("30", "30.0s", "60"),
        ("60", "1m 00s", "120"),
        ("61", "2.0s", "4"),
        ("75", "30.0s", "60"),
        ("90", "1m 00s", "120"),
        ("100", "1m 20s", "160"),
        ("120", "2m 00s", "240"),
        ("200", "4m 40s", "560"),
    ] {
        let lines = predicted(&now, "tcp_fin_timeout", seconds);
        assert_line(&lines, 0, "1m 00s", life);
        assert_line(&lines, 1, "120", orphans);
        assert_line(&lines, 2, "500", "500");
        // 3.5: 102 s where the peer is silent, some 5 min behind a zero window.
        assert_line(&lines, 3, "1m 42s / 5m 24s", "1m 42s / 5m 24s");
    }
    // From a knob that was already past the cliff.
    let now = snapshot(many(4, TcpState::FinWait2, true), &[("tcp_fin_timeout", "61")]);
    assert_line(&predicted(&now, "net.ipv4.tcp_fin_timeout", "60"), 1, "4", "120");
}

/// 2.4 and 2.5: 28,232 / 60 s without reuse, / 1 s with it, and only with timestamps.
#[test]
fn tw_reuse_frees_a_port_after_its_delay_where_there_are_timestamps() {
    for (knobs, value, now_rate, then_rate) in [
        (&[][..], "1", "470", "28232"),
        (&[], "0", "470", "470"),
        (&[("tcp_tw_reuse", "1")], "2", "28232", "470"),
        (&[("tcp_timestamps", "0")], "1", "470", "470"),
        (&[("tcp_tw_reuse_delay", "500")], "1", "470", "56464"),
        (&[("ip_local_port_range", "40000 40059")], "1", "1", "60"),
    ] {
        let lines = predicted(&snapshot(many(9, TcpState::TimeWait, false), knobs), "tcp_tw_reuse", value);
        assert_line(&lines, 0, now_rate, then_rate);
        assert_line(&lines, 1, "9", "9");
    }
}

#[test]
fn port_range_is_ports_and_ports_over_60_s() {
    let now = snapshot(Vec::new(), &[]);
    for (range, ports, rate) in
        [("1024 65535", "64512", "1075"), ("1024-65535", "64512", "1075"), ("40000\t40000", "1", "0")]
    {
        let lines = predicted(&now, "ip_local_port_range", range);
        assert_line(&lines, 0, "28232", ports);
        assert_line(&lines, 1, "470", rate);
    }
}

/// 3.2 and 3.3: model(N); 0 means 8, but none once the time-out is at its maximum.
#[test]
fn orphan_retries_bound_silent_peers_and_no_zero_window() {
    for (value, life) in
        [("0", "1m 42s"), ("1", "600ms"), ("2", "1.4s"), ("3", "3.0s"), ("8", "1m 42s"), ("10", "5m 24s")]
    {
        let lines = predicted(&snapshot(Vec::new(), &[]), "tcp_orphan_retries", value);
        assert_line(&lines, 0, "1m 42s", life);
        assert_line(&lines, 1, "5m 24s", "5m 24s");
    }
    let lines = predicted(&snapshot(Vec::new(), &[("tcp_rto_max_ms", "1000")]), "tcp_orphan_retries", "8");
    assert_line(&lines, 0, "2.4s", "7.4s");
}

/// 3.2: model(N) again, for sockets that a program holds.
#[test]
fn retries2_bounds_held_sockets_and_no_orphans() {
    for (value, life) in [("3", "3.0s"), ("5", "12.6s"), ("8", "1m 42s"), ("15", "15m 24s")] {
        let lines = predicted(&snapshot(Vec::new(), &[]), "tcp_retries2", value);
        assert_line(&lines, 0, "15m 24s", life);
        assert_line(&lines, 1, "1m 42s", "1m 42s");
    }
}

/// 3.2's second row and 3.4.
#[test]
fn rto_max_shortens_what_doubles_up_to_it() {
    let lines = predicted(&snapshot(Vec::new(), &[]), "tcp_rto_max_ms", "1000");
    assert_line(&lines, 0, "15m 24s", "14.4s");
    assert_line(&lines, 1, "5m 24s", "2.4s");
}

/// 3.5 and 13.6: 2^(n+1) - 1 s, each step at most 120 s.
#[test]
fn synack_retries_are_the_life_of_a_half_open_connection() {
    let now = snapshot(many(126, TcpState::NewSynRecv, false), &[]);
    for (value, life, half_open) in [
        ("0", "1.0s", "2"),
        ("2", "7.0s", "14"),
        ("3", "15.0s", "30"),
        ("5", "1m 03s", "126"),
        ("7", "4m 07s", "494"),
    ] {
        let lines = predicted(&now, "tcp_synack_retries", value);
        assert_line(&lines, 0, "1m 03s", life);
        assert_line(&lines, 1, "126", half_open);
    }
}

/// 3.5 and 13.6.
#[test]
fn syn_retries_with_and_without_linear_ones() {
    for (linear, value, now_time, then_time) in [
        ("4", "6", "2m 11s", "2m 11s"),
        ("4", "1", "2m 11s", "3.0s"),
        ("4", "2", "2m 11s", "7.0s"),
        ("0", "6", "2m 07s", "2m 07s"),
        ("0", "3", "2m 07s", "15.0s"),
    ] {
        let now = snapshot(Vec::new(), &[("tcp_syn_linear_timeouts", linear)]);
        assert_line(&predicted(&now, "tcp_syn_retries", value), 0, now_time, then_time);
    }
}

/// 3.5: idle + probes × interval.
#[test]
fn keepalive_time_is_idle_and_nine_intervals() {
    let now = snapshot(many(30, TcpState::Established, false), &[]);
    let lines = predicted(&now, "tcp_keepalive_time", "60");
    assert_line(&lines, 0, "2h 11m", "12m 15s");
    assert_line(&lines, 1, "30", "30");
}

/// 2.2: beyond the limit connections end without TIME-WAIT; the rate is what two looks counted.
#[test]
fn tw_buckets_cut_off_what_is_above() {
    let looks = |rate: u64| {
        let mut now = snapshot(many(6_000, TcpState::TimeWait, false), &[]);
        let mut before = now.clone();
        (now.namespaces[0].timewait, before.taken_ns) = (6_000, now.taken_ns - 2_000_000_000);
        now.namespaces[0].counters.insert("TW".to_owned(), 50 + 2 * rate);
        before.namespaces[0].counters.insert("TW".to_owned(), 50);
        (now, before)
    };
    for (rate, limit, minis, without) in
        [(100, "3000", "3000", "50"), (100, "6000", "6000", "0"), (500, "3000", "3000", "450")]
    {
        let (now, before) = looks(rate);
        let lines = predict(&now, Some(&before), "tcp_max_tw_buckets", limit).expect("a model");
        assert_eq!(
            (lines[0].now.as_str(), lines[0].then.as_str()),
            ("6000", minis),
            "{rate} a second, {limit}"
        );
        assert_eq!(
            (lines[1].now.as_str(), lines[1].then.as_str()),
            ("0", without),
            "{rate} a second, {limit}"
        );
        let length = predict(&now, Some(&before), "tcp_timewait_len", "10").expect("a model");
        assert_eq!(
            (length[0].now.as_str(), length[0].then.as_str()),
            ("6000", (rate * 10).to_string().as_str())
        );
    }
}

#[test]
fn every_knob_has_a_model_and_nonsense_has_none() {
    let now = snapshot(Vec::new(), &[]);
    for knob in KNOBS {
        let value = match *knob {
            "ip_local_port_range" => "1024 65535",
            "tcp_rto_max_ms" => "1000",
            _ => "1",
        };
        let predictions = predict(&now, None, knob, value).unwrap_or_else(|e| panic!("{knob}: {e:?}"));
        assert!(predictions.iter().all(|p| !p.now.is_empty() && !p.then.is_empty()), "{knob}");
    }
    for (knob, value, why) in [
        ("tcp_bogus", "1", Unknown::Knob),
        ("tcp_fin_timeout", "soon", Unknown::Value),
        ("tcp_tw_reuse", "3", Unknown::Value),
        ("tcp_syn_retries", "0", Unknown::Value),
        ("tcp_rto_max_ms", "999", Unknown::Value),
        ("ip_local_port_range", "60000 1024", Unknown::Value),
        ("ip_local_port_range", "1024", Unknown::Value),
        ("tcp_synack_retries", "-1", Unknown::Value),
        // What the kernel refuses too: its types are an int and a byte.
        ("tcp_fin_timeout", "9223372036854775807", Unknown::Value),
        ("tcp_keepalive_time", "9223372036854775807", Unknown::Value),
        ("tcp_retries2", "256", Unknown::Value),
        ("tcp_orphan_retries", "256", Unknown::Value),
        ("tcp_synack_retries", "256", Unknown::Value),
    ] {
        assert_eq!(predict(&now, None, knob, value).err(), Some(why), "{knob}={value}");
    }
}

/// A snapshot may come from a file: whatever its figures are, nothing overflows and nothing takes for ever.
#[test]
fn figures_beyond_all_measure_are_survived() {
    let (large, max) = (i64::MAX.to_string(), u32::MAX.to_string());
    let range = format!("{} {large}", i64::MIN);
    let mut knobs: Vec<(&str, &str)> = KNOBS.iter().map(|knob| (*knob, max.as_str())).collect();
    knobs.extend([
        ("tcp_syn_linear_timeouts", max.as_str()),
        ("tcp_keepalive_intvl", &max),
        ("tcp_keepalive_probes", &max),
        ("ip_local_port_range", &range),
    ]);
    let mut now = snapshot(many(3, TcpState::FinWait2, true), &knobs);
    now.namespaces[0].timewait = u64::MAX;
    now.namespaces[0].counters.extend([("TW".to_owned(), u64::MAX), ("TWKilled".to_owned(), u64::MAX)]);
    let mut before = now.clone();
    before.taken_ns = 0;
    before.namespaces[0].counters.clear();
    for knob in KNOBS {
        let value = match *knob {
            "ip_local_port_range" => "1 65535",
            "tcp_rto_max_ms" => "1000",
            "tcp_tw_reuse" => "1",
            "tcp_syn_retries" => "127",
            "tcp_retries2" | "tcp_orphan_retries" | "tcp_synack_retries" => "255",
            "tcp_timewait_len" | "tcp_max_tw_buckets" => &max,
            _ => "2147483647",
        };
        assert!(predict(&now, Some(&before), knob, value).is_ok_and(|p| !p.is_empty()), "{knob}");
    }
}
