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
