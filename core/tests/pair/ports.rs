//! Local ports: exhaustion, sharing, and who may bind what (specification 2.5, 2.6, 4.7).

use core::net::SocketAddr;

use lastack_core::error::{ConnectError, ListenError};
use lastack_core::sim::{Host, Sim};
use lastack_core::stack::ListenOptions;
use lastack_core::tcp::options::TcpOptions;

use super::*;

fn listen(
    sim: &mut Sim,
    host: Host,
    local: &str,
    reuseaddr: bool,
    reuseport: bool,
) -> Result<SocketAddr, ListenError> {
    let now = sim.now();
    let options = TcpOptions { reuseaddr, reuseport, ..TcpOptions::default() };
    let listen = ListenOptions { options, ..ListenOptions::new(local.parse().expect("address")) };
    let id = sim.stack(host).listen(now, listen)?;
    Ok(sim.peek(host).listener_addr(id).expect("listens"))
}

#[test]
fn every_port_of_the_range_serves_each_destination_once() {
    let (mut sim, client, _) = Sim::pair(400);
    sysctl(&mut sim, client, "ip_local_port_range", "40000 40099");
    let now = sim.now();
    for port in [80, 81] {
        let to = ([10, 0, 0, 2], port).into();
        let mut used: Vec<u16> = (0..100)
            .map(|_| {
                let id =
                    sim.stack(client).connect(now, to, None, TcpOptions::default()).expect("a port is left");
                sim.peek(client).tuple(id).expect("held").local.port()
            })
            .collect();
        used.sort_unstable();
        assert_eq!(
            used,
            (40_000..40_100).collect::<Vec<_>>(),
            "ports are shared by destinations, never by one"
        );
        assert_eq!(
            sim.stack(client).connect(now, to, None, TcpOptions::default()),
            Err(ConnectError::AddrNotAvailable)
        );
    }
}

#[test]
fn a_listener_shares_its_port_with_nobody_but_its_group() {
    let (mut sim, host, _) = Sim::pair(401);
    assert!(listen(&mut sim, host, "10.0.0.1:80", false, false).is_ok());
    for (local, reuseaddr, reuseport) in [
        ("10.0.0.1:80", false, false),
        ("10.0.0.1:80", true, false),
        ("10.0.0.1:80", true, true),
        ("0.0.0.0:80", false, false),
        ("[::]:80", false, false),
    ] {
        assert_eq!(
            listen(&mut sim, host, local, reuseaddr, reuseport),
            Err(ListenError::AddrInUse),
            "{local} {reuseaddr} {reuseport}"
        );
    }
    assert!(listen(&mut sim, host, "10.0.0.1:81", false, true).is_ok());
    assert!(listen(&mut sim, host, "10.0.0.1:81", false, true).is_ok(), "SO_REUSEPORT from the first on");
    assert_eq!(listen(&mut sim, host, "10.0.0.9:82", false, false), Err(ListenError::AddrNotAvailable));
}

#[test]
fn a_reuseport_group_shares_the_connections() {
    let (mut sim, client, server) = Sim::pair(402);
    for _ in 0..4 {
        listen(&mut sim, server, "10.0.0.2:80", false, true).expect("one group");
    }
    let now = sim.now();
    for _ in 0..100 {
        sim.stack(client)
            .connect(now, ([10, 0, 0, 2], 80).into(), None, TcpOptions::default())
            .expect("free");
    }
    sim.run_for(ms(10));
    let queues: Vec<u32> = sim.peek(server).sockets(sim.now()).take(4).map(|row| row.recv_q).collect();
    assert_eq!(queues.iter().sum::<u32>(), 100);
    assert!(queues.iter().all(|queue| *queue > 5), "{queues:?}");
}

/// Specification 2.6: a server can be restarted during TIME-WAIT if both runs set `SO_REUSEADDR`.
#[test]
fn time_wait_keeps_the_port_unless_both_share() {
    for (first, second, allowed) in
        [(false, false, false), (false, true, false), (true, false, false), (true, true, true)]
    {
        let (mut sim, client, server) = Sim::pair(403);
        let now = sim.now();
        let options = TcpOptions { reuseaddr: first, ..TcpOptions::default() };
        let listen_options = ListenOptions { options, ..ListenOptions::new(([10, 0, 0, 2], 80).into()) };
        let listener = sim.stack(server).listen(now, listen_options).expect("free");
        let a = sim.stack(client).connect(now, ([10, 0, 0, 2], 80).into(), None, TcpOptions::default());
        sim.run_for(ms(10));
        let now = sim.now();
        let b = sim.stack(server).accept(now, listener).expect("finished");
        close(&mut sim, server, b);
        sim.run_for(ms(100));
        close(&mut sim, client, a.expect("free"));
        sim.run_for(ms(100));
        let now = sim.now();
        sim.stack(server).close_listener(now, listener);
        let again = listen(&mut sim, server, "10.0.0.2:80", second, false);
        assert_eq!(again.is_ok(), allowed, "first {first}, second {second}");
        sim.run_for(61 * SECOND);
        if !allowed {
            assert!(
                listen(&mut sim, server, "10.0.0.2:80", second, false).is_ok(),
                "after TIME-WAIT anybody"
            );
        }
    }
}

#[test]
fn a_chosen_source_port_is_bound_first() {
    let (mut sim, client, _) = Sim::pair(404);
    let now = sim.now();
    let from = Some(([10, 0, 0, 1], 5000).into());
    let (to, elsewhere) = (([10, 0, 0, 2], 80).into(), ([10, 0, 0, 2], 81).into());
    let plain = TcpOptions::default();
    let reuse = TcpOptions { reuseaddr: true, ..TcpOptions::default() };
    assert!(sim.stack(client).connect(now, to, from, reuse.clone()).is_ok());
    assert_eq!(sim.stack(client).connect(now, elsewhere, from, plain), Err(ConnectError::AddrInUse));
    assert_eq!(sim.stack(client).connect(now, to, from, reuse.clone()), Err(ConnectError::AddrNotAvailable));
    assert!(sim.stack(client).connect(now, elsewhere, from, reuse).is_ok(), "another pair");
    // connect without a port of its own stays away from it.
    sysctl(&mut sim, client, "ip_local_port_range", "5000 5000");
    let other = ([10, 0, 0, 2], 82).into();
    assert_eq!(
        sim.stack(client).connect(now, other, None, TcpOptions::default()),
        Err(ConnectError::AddrNotAvailable)
    );
}

#[test]
fn port_zero_gets_a_free_one() {
    let (mut sim, host, _) = Sim::pair(405);
    sysctl(&mut sim, host, "ip_local_port_range", "6000 6009");
    let mut ports: Vec<u16> =
        (0..10).map(|_| listen(&mut sim, host, "0.0.0.0:0", false, false).expect("free").port()).collect();
    ports.sort_unstable();
    assert_eq!(ports, (6000..6010).collect::<Vec<_>>());
    assert_eq!(listen(&mut sim, host, "0.0.0.0:0", false, false), Err(ListenError::AddrInUse));
}
