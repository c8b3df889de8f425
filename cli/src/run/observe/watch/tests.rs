use super::*;

// Numbers that no process has: pid_max is at most 2^22.
const PROGRAM: u32 = 1 << 30;
const CHILD: u32 = PROGRAM + 1;
const STRANGER: u32 = PROGRAM + 2;

fn watch() -> Watch {
    let mut watch = Watch::open(Box::new(|_| {})).expect("sock_diag");
    watch.follow(PROGRAM);
    watch
}

fn fork(parent: u32, child: u32) -> Event {
    Event { pid: Some(parent), child: Some(child), ..Event::new(1, Event::FORK) }
}

/// `pid` closes its end of the connection between these ports.
fn closes(pid: u32, local: u16, peer: u16) -> Event {
    let at = |port| Some(SocketAddr::from(([10, 0, 0, 1], port)));
    Event {
        local: at(local),
        peer: at(peer),
        old_state: Some(TcpState::Established),
        state: Some(TcpState::FinWait1),
        pid: Some(pid),
        comm: Some("x".into()),
        ..Event::new(2, "inet_sock_set_state")
    }
}

/// The end between ports 4000 and 80 enters `state`.
fn enters(state: TcpState) -> Event {
    Event { state: Some(state), pid: None, ..closes(PROGRAM, 4000, 80) }
}

fn is_ours(watch: &Watch, local: u16, peer: u16) -> bool {
    let at = |port| SocketAddr::from(([10, 0, 0, 1], port));
    watch.traced[&(at(local), at(peer))].is_ours
}

#[test]
fn children_are_the_programs_until_their_number_is_given_to_a_stranger() {
    let mut watch = watch();
    watch.event(&fork(PROGRAM, CHILD));
    watch.event(&closes(CHILD, 4000, 80));
    watch.event(&fork(STRANGER, CHILD));
    watch.event(&closes(CHILD, 4001, 80));
    assert!(is_ours(&watch, 4000, 80), "it was the program's when it acted");
    assert!(!is_ours(&watch, 4001, 80), "another has the number");
}

#[test]
fn the_program_is_our_own_child() {
    let mut watch = watch();
    watch.event(&fork(std::process::id(), PROGRAM));
    watch.event(&closes(PROGRAM, 4000, 80));
    assert!(is_ours(&watch, 4000, 80));
}

#[test]
fn a_reset_that_answers_a_late_segment_is_not_how_it_ended() {
    let mut traced = Traced::default();
    let reset =
        |socket| Event { socket, reason: Some("NO_SOCKET".into()), ..Event::new(3, "tcp_send_reset") };
    for state in [TcpState::Established, TcpState::CloseWait, TcpState::LastAck, TcpState::Close] {
        traced.take(&enters(state), false);
    }
    traced.take(&reset(None), false);
    assert_eq!(traced.sent_reset, None);
    // Linux closes first and sends then, but the socket is still there.
    traced.take(&reset(Some(7)), false);
    assert!(traced.sent_reset.is_some());
    // Nobody listened: there was no socket at any time.
    let mut refused = Traced::default();
    refused.take(&reset(None), false);
    assert!(refused.sent_reset.is_some());
}
