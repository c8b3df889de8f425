use std::net::SocketAddr;

use lastack_core::tcp::state::TcpState;

use super::*;

fn row(state: TcpState, local: &str, remote: &str) -> Row {
    let parse = |text: &str| text.parse::<SocketAddr>().expect("an address in a test");
    let mut row = Row::new(state, parse(local), parse(remote));
    (row.inode, row.socket.cookie) = (1, 1);
    row
}

fn filter(text: &str) -> Filter {
    Filter::parse(&[text]).unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[test]
fn and_and_or_bind_equally_from_left_to_right_as_in_ss() {
    let f = filter("sport = :1 dport = :2 or sport = :3");
    assert!(f.matches(&row(TcpState::Established, "127.0.0.1:1", "127.0.0.1:2")));
    assert!(!f.matches(&row(TcpState::Established, "127.0.0.1:1", "127.0.0.1:9")));
    assert!(f.matches(&row(TcpState::Established, "127.0.0.1:3", "127.0.0.1:9")));
    let f = filter("sport = :1 or sport = :3 and dport = :2");
    assert!(!f.matches(&row(TcpState::Established, "127.0.0.1:1", "127.0.0.1:9")), "( a or b ) and c");
    let f = filter("sport = :1 or ( sport = :3 and dport = :2 )");
    assert!(f.matches(&row(TcpState::Established, "127.0.0.1:1", "127.0.0.1:9")));
}

#[test]
fn states_in_front_hold_for_all_that_follows_as_in_ss() {
    let f = filter("state established sport = :1 or sport = :3");
    assert!(f.matches(&row(TcpState::Established, "127.0.0.1:3", "127.0.0.1:9")));
    assert!(!f.matches(&row(TcpState::FinWait1, "127.0.0.1:3", "127.0.0.1:9")), "not ( state and a ) or b");
    let f = filter("exclude time-wait state established");
    assert!(f.states.contains(TcpState::Listen) && !f.states.contains(TcpState::TimeWait));
    // What `ss` does not take: a state among other conditions.
    let f = filter("state fin-wait-1 or sport = :3");
    assert!(f.matches(&row(TcpState::Established, "127.0.0.1:3", "127.0.0.1:9")));
    assert!(f.matches(&row(TcpState::FinWait1, "127.0.0.1:1", "127.0.0.1:9")));
}

#[test]
fn not_binds_to_the_next_condition_only() {
    let f = filter("! sport = :1 dport = :2");
    assert!(f.matches(&row(TcpState::Established, "127.0.0.1:7", "127.0.0.1:2")));
    assert!(!f.matches(&row(TcpState::Established, "127.0.0.1:7", "127.0.0.1:3")));
    assert!(!f.matches(&row(TcpState::Established, "127.0.0.1:1", "127.0.0.1:2")));
}

#[test]
fn operators_need_no_spaces() {
    for text in ["sport=:443", "(sport == 443)", "sport eq :443", "not sport!=:443", "sport>=443 sport<=443"]
    {
        let f = filter(text);
        assert!(f.matches(&row(TcpState::Established, "1.2.3.4:443", "5.6.7.8:1")), "{text}");
        assert!(!f.matches(&row(TcpState::Established, "1.2.3.4:444", "5.6.7.8:1")), "{text}");
    }
}

#[test]
fn mapped_addresses_match_v4_prefixes_and_never_the_reverse() {
    let mapped = row(TcpState::Established, "[::ffff:10.1.2.3]:1", "[::ffff:10.9.9.9]:2");
    assert!(filter("dst 10.0.0.0/8").matches(&mapped));
    assert!(!filter("dst 11.0.0.0/8").matches(&mapped));
    let plain = row(TcpState::Established, "10.1.2.3:1", "10.9.9.9:2");
    assert!(!filter("dst [::ffff:0:0]/96").matches(&plain));
}

#[test]
fn address_with_prefix_and_port() {
    let r = row(TcpState::Established, "10.1.2.3:80", "[::1]:9");
    assert!(filter("src 10.0.0.0/8:80").matches(&r));
    assert!(!filter("src 10.0.0.0/8:81").matches(&r));
    assert!(filter("dst [::1]:9").matches(&r));
    assert!(filter("dst ::1").matches(&r));
    assert!(filter("dst [::]/0:9").matches(&r));
    assert!(filter("src :80").matches(&r));
    assert!(filter("src 10/8").matches(&r));
    assert!(!filter("dst inet:*:9").matches(&r));
}

#[test]
fn states_at_the_top_are_a_union_and_exclude_takes_away() {
    let f = filter("state fin-wait-1 state fin-wait-2");
    assert!(f.states.contains(TcpState::FinWait1) && f.states.contains(TcpState::FinWait2));
    assert!(!f.states.contains(TcpState::Established));
    let f = filter("exclude listening exclude time-wait");
    assert!(f.states.contains(TcpState::Close) && !f.states.contains(TcpState::Listen));
    let f = filter("state connected exclude established");
    assert!(f.states.contains(TcpState::SynRecv) && !f.states.contains(TcpState::Established));
}

#[test]
fn a_state_inside_parentheses_is_a_condition() {
    let f = filter("( state time-wait or sport = :80 )");
    assert!(f.matches(&row(TcpState::TimeWait, "1.1.1.1:5", "1.1.1.1:6")));
    assert!(f.matches(&row(TcpState::Listen, "1.1.1.1:80", "0.0.0.0:0")));
    assert!(!f.matches(&row(TcpState::Listen, "1.1.1.1:81", "0.0.0.0:0")));
}

#[test]
fn nothing_chosen_is_ss_default_and_known_as_empty() {
    assert!(Filter::parse::<&str>(&[]).expect("empty").is_empty());
    assert!(!filter("state all").is_empty());
    assert!(!Filter::default().matches(&row(TcpState::TimeWait, "1.1.1.1:1", "1.1.1.1:2")));
}

#[test]
fn mistakes_are_named_and_shown_right() {
    for (text, says) in [
        ("state bogus", "bogus"),
        ("sport = :99999", "99999"),
        ("dst 10.0.0.0/33", "/33"),
        ("( sport = :1", "not closed"),
        ("sport = :1 )", "`)`"),
        ("sport =", "missing"),
        ("frobnicate", "frobnicate"),
        ("sport = :1 or", "too early"),
        ("dst > 10.0.0.1", "not ordered"),
    ] {
        let error = Filter::parse(&[text]).expect_err(text);
        assert!(error.message.contains(says), "{text}: {}", error.message);
        assert!(!error.hint.is_empty());
    }
}

#[test]
fn own_words() {
    let mut r = row(TcpState::FinWait1, "1.1.1.1:1", "2.2.2.2:2");
    r.socket.send_q = 2 << 20;
    r.socket.orphan = true;
    r.socket.state_age_ms = Some(61_000);
    assert!(filter("sendq > 1M orphan age > 1m timer none").matches(&r));
    assert!(!filter("sendq > 3M").matches(&r));
    assert!(!filter("age < 61s").matches(&r));
}
