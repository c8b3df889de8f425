use super::*;

// Numbers that no process has: pid_max is at most 2^22.
const PROGRAM: u32 = 1 << 30;
const CHILD: u32 = PROGRAM + 1;
const STRANGER: u32 = PROGRAM + 2;

fn watch() -> Watch {
    watch_and_tell(Box::new(|_| {}))
}

fn watch_and_tell(tell: Listener) -> Watch {
    let mut watch = Watch::open(tell).expect("sock_diag");
    watch.follow(PROGRAM);
    watch
}

fn fork(parent: u32, child: u32) -> Event {
    Event { pid: Some(parent), child: Some(child), ..Event::new(1, Event::FORK) }
}

/// `pid` closes its end of the connection that the kernel calls `socket`.
fn closes(pid: u32, socket: u64) -> Event {
    let at = |port| Some(SocketAddr::from(([10, 0, 0, 1], port)));
    Event {
        local: at(4000),
        peer: at(80),
        socket: Some(socket),
        old_state: Some(TcpState::Established),
        state: Some(TcpState::FinWait1),
        pid: Some(pid),
        comm: Some("x".into()),
        ..Event::new(2, "inet_sock_set_state")
    }
}

fn is_ours(watch: &mut Watch, socket: u64) -> bool {
    watch.traced.take(socket).expect("told of").2.is_ours
}

#[test]
fn children_are_the_programs_until_their_number_is_given_to_a_stranger() {
    let mut watch = watch();
    watch.event(&fork(PROGRAM, CHILD));
    watch.event(&closes(CHILD, 7));
    watch.event(&fork(STRANGER, CHILD));
    watch.event(&closes(CHILD, 8));
    assert!(is_ours(&mut watch, 7), "it was the program's when it acted");
    assert!(!is_ours(&mut watch, 8), "another has the number");
}

#[test]
fn the_program_is_our_own_child() {
    let mut watch = watch();
    watch.event(&fork(std::process::id(), PROGRAM));
    watch.event(&closes(PROGRAM, 7));
    assert!(is_ours(&mut watch, 7));
}

#[test]
fn a_reset_that_answers_a_late_segment_is_not_how_it_ended() {
    let reset = |socket| Event {
        reason: Some("NO_SOCKET".into()),
        socket,
        old_state: None,
        state: Some(TcpState::Close),
        pid: None,
        ..Event { name: "tcp_send_reset", ..closes(PROGRAM, 7) }
    };
    let mut watch = watch();
    watch.event(&closes(PROGRAM, 7));
    watch.event(&reset(None));
    assert_eq!(watch.traced.take(7).expect("told of").2.sent_reset, None);
    // Linux closes first and sends then, but the socket is still there.
    watch.event(&closes(PROGRAM, 7));
    watch.event(&reset(Some(7)));
    assert!(watch.traced.take(7).expect("told of").2.sent_reset.is_some());
}

#[test]
fn the_error_of_a_connect_that_failed_comes_after_its_end() {
    let told = std::rc::Rc::new(std::cell::RefCell::new(Vec::new()));
    let ended = std::rc::Rc::clone(&told);
    let mut watch = watch_and_tell(Box::new(move |note| ended.borrow_mut().push(note)));
    let change = |old, new| Event { old_state: Some(old), state: Some(new), ..closes(PROGRAM, 7) };
    watch.event(&change(TcpState::Close, TcpState::SynSent));
    watch.event(&change(TcpState::SynSent, TcpState::Close));
    let (name, error, plain) = ("inet_sk_error_report", Some(113), closes(PROGRAM, 7));
    watch.event(&Event { name, error, socket: None, old_state: None, state: None, pid: None, ..plain });
    watch.finish();
    let told = told.borrow();
    let [Note::Ended(Entry::Connection(connection))] = &told[..] else { panic!("{told:?}") };
    assert_eq!(connection.verdict.how, How::Unreachable);
    assert_eq!(connection.host_errno, Some(113));
}

#[test]
fn who_opened_it_is_seen_in_its_first_state() {
    let direction =
        |states: &[TcpState]| direction_of(&states.iter().map(|state| (*state, 1)).collect::<Vec<_>>());
    assert_eq!(direction(&[TcpState::SynSent, TcpState::Established]), Some(Direction::Out));
    assert_eq!(direction(&[TcpState::Established, TcpState::CloseWait]), Some(Direction::In));
    assert_eq!(direction(&[TcpState::FinWait1]), None, "older than the trace");
    assert_eq!(direction(&[]), None);
}

#[test]
fn what_ended_in_a_namespace_that_was_never_looked_at_is_counted_where_it_was_the_programs() {
    let cut = |pid, socket| Event { state: Some(TcpState::Close), ..closes(pid, socket) };
    let destroyed = |socket| Event {
        old_state: None,
        state: None,
        pid: None,
        ..Event { name: "tcp_destroy_sock", ..closes(PROGRAM, socket) }
    };
    let mut watch = watch();
    for (pid, socket) in [(PROGRAM, 7), (PROGRAM, 8), (STRANGER, 9)] {
        watch.event(&cut(pid, socket));
    }
    // What lives on has not ended untold.
    for socket in [7, 9] {
        watch.event(&destroyed(socket));
    }
    assert_eq!(watch.finish(), Untold { elsewhere: 1, ..Untold::default() });
}
