//! Published ports, end to end without privileges: servers on a stack of this process, the gateway, and clients on this
//! host's loopback. Every step waits for its cause; no clock decides what passes.

mod world;

use std::net::{Ipv6Addr, SocketAddr};
use std::time::Duration;

use lastack::{TcpListener, TcpStream, UdpSocket};
use lastack_gateway::GatewayConfig;
use lastack_gateway::addresses::{GUEST, HOST};
use lastack_gateway::journal::{ClosedBy, Connection, Direction, Entry, FlowEnd, How, Reason};
use lastack_gateway::limits::Limit;
use lastack_gateway::publish::{Port, PublishError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use world::{World, noise, test, told};

/// The server's port, and an address of the program's for each family.
const PORT: u16 = 80;

/// A port of this host that nobody has.
fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Publishes the server's port on this host's loopback, in both families; gives the host's port.
fn publish(world: &World, suffix: &str) -> u16 {
    loop {
        let host = free_port();
        let port = |address: &str| format!("{address}:{host}:{PORT}{suffix}").parse::<Port>().unwrap();
        match world.gateway.publisher().add(port("127.0.0.1")) {
            // Somebody was faster.
            Err(PublishError::InUse(_)) => continue,
            added => drop(added.unwrap()),
        }
        world.gateway.publisher().add(port("[::1]")).unwrap();
        return host;
    }
}

struct Pair {
    client: tokio::net::TcpStream,
    server: TcpStream,
}

async fn serve(world: &World) -> TcpListener {
    TcpListener::bind(&world.client, (GUEST[0].0, PORT)).await.unwrap()
}

async fn pair(world: &World) -> Pair {
    let listener = serve(world).await;
    let client = tokio::net::TcpStream::connect(("127.0.0.1", publish(world, ""))).await.unwrap();
    Pair { client, server: listener.accept().await.unwrap().0 }
}

async fn rest<S: tokio::io::AsyncRead + Unpin>(stream: &mut S) -> Result<Vec<u8>, i32> {
    let mut got = Vec::new();
    match stream.read_to_end(&mut got).await {
        Ok(_) => Ok(got),
        Err(error) => Err(error.raw_os_error().unwrap_or(0)),
    }
}

fn reset(client: tokio::net::TcpStream) {
    rustix::net::sockopt::set_socket_linger(&client, Some(Duration::ZERO)).unwrap();
}

#[test]
fn client_is_seen_with_its_own_port_and_the_journal_says_in() {
    test(async {
        let mut world = World::new(GatewayConfig::default());
        let Pair { client, mut server } = pair(&world).await;
        let own = client.local_addr().unwrap();
        assert_eq!(server.peer_addr().unwrap(), SocketAddr::new(HOST[0], own.port()));
        let called = client.peer_addr().unwrap();
        drop(client);
        assert_eq!(rest(&mut server).await, Ok(Vec::new()));
        drop(server);
        let record = world.connection().await;
        let Connection { direction, local, remote, host_local, host_remote, .. } = record;
        assert_eq!(direction, Direction::In);
        assert_eq!((local, host_remote), (SocketAddr::new(GUEST[0].0, PORT), Some(own)));
        assert_eq!((remote, host_local), (SocketAddr::new(HOST[0], own.port()), Some(called)));
        assert_eq!(record.states[0].0.name(), "SYN-SENT");
        assert!(record.to_json("", None).contains(r#""direction":"in""#));
    });
}

#[test]
fn bytes_arrive_whole_both_ways() {
    test(async {
        let mut world = World::new(GatewayConfig::default());
        let Pair { client, mut server } = pair(&world).await;
        let sent = noise(3_000_000);
        let (mut reader, mut writer) = client.into_split();
        let expected = sent.clone();
        let sending = tokio::spawn(async move {
            writer.write_all(&sent).await.unwrap();
            writer.shutdown().await.unwrap();
        });
        let echo = tokio::spawn(async move {
            let got = rest(&mut server).await.unwrap();
            server.write_all(&got).await.unwrap();
            server.shutdown().await.unwrap();
        });
        assert!(rest(&mut reader).await.unwrap() == expected, "not the same bytes came back");
        sending.await.unwrap();
        echo.await.unwrap();
        let record = world.connection().await;
        assert_eq!(told(&record), (ClosedBy::Remote, How::Fin, None));
        assert_eq!((record.bytes_up, record.bytes_down, record.lost_bytes()), (3_000_000, 3_000_000, 0));
    });
}

#[test]
fn half_closed_by_either_side_the_other_direction_lives() {
    test(async {
        let mut world = World::new(GatewayConfig::default());
        let Pair { mut client, mut server } = pair(&world).await;
        client.write_all(b"question").await.unwrap();
        client.shutdown().await.unwrap();
        assert_eq!(rest(&mut server).await, Ok(b"question".to_vec()));
        server.write_all(b"answer").await.unwrap();
        drop(server);
        assert_eq!(rest(&mut client).await, Ok(b"answer".to_vec()));
        drop(client);
        assert_eq!(told(&world.connection().await), (ClosedBy::Remote, How::Fin, None));

        let Pair { mut client, mut server } = pair(&world).await;
        server.shutdown().await.unwrap();
        assert_eq!(rest(&mut client).await, Ok(Vec::new()));
        client.write_all(b"still here").await.unwrap();
        drop(client);
        assert_eq!(rest(&mut server).await, Ok(b"still here".to_vec()));
        drop(server);
        assert_eq!(told(&world.connection().await), (ClosedBy::Program, How::Fin, None));
    });
}

#[test]
fn clients_reset_is_a_reset_inside_behind_its_data() {
    test(async {
        let mut world = World::new(GatewayConfig::default());
        let Pair { mut client, mut server } = pair(&world).await;
        client.write_all(b"last words").await.unwrap();
        let mut got = [0; 10];
        server.read_exact(&mut got).await.unwrap();
        reset(client);
        assert_eq!(rest(&mut server).await, Err(libc::ECONNRESET));
        let record = world.connection().await;
        let (closed_by, how, _) = told(&record);
        assert_eq!((closed_by, how, record.bytes_down), (ClosedBy::Remote, How::Reset, 10));
    });
}

#[test]
fn servers_reset_is_a_reset_outside() {
    test(async {
        let mut world = World::new(GatewayConfig::default());
        let Pair { mut client, server } = pair(&world).await;
        server.abort();
        assert_eq!(rest(&mut client).await, Err(libc::ECONNRESET));
        assert_eq!(
            told(&world.connection().await),
            (ClosedBy::Program, How::Reset, Some(Reason::ResetByProgram))
        );
    });
}

#[test]
fn server_that_closes_with_unread_data_resets() {
    test(async {
        let mut world = World::new(GatewayConfig::default());
        let Pair { mut client, server } = pair(&world).await;
        client.write_all(b"nobody reads this").await.unwrap();
        server.readable().await.unwrap();
        drop(server);
        assert_eq!(rest(&mut client).await, Err(libc::ECONNRESET));
        let (closed_by, how, _) = told(&world.connection().await);
        assert_eq!((closed_by, how), (ClosedBy::Program, How::Reset));
    });
}

#[test]
fn client_that_comes_before_the_server_listens_is_reset_and_the_next_is_served() {
    test(async {
        let mut world = World::new(GatewayConfig::default());
        let host = publish(&world, "");
        let mut early = tokio::net::TcpStream::connect(("127.0.0.1", host)).await.unwrap();
        assert_eq!(rest(&mut early).await, Err(libc::ECONNRESET));
        let record = world.connection().await;
        assert_eq!(told(&record), (ClosedBy::Program, How::Refused, Some(Reason::NoListener)));
        assert_eq!((record.inside, record.handshake_us), (None, None));

        let listener = serve(&world).await;
        let mut client = tokio::net::TcpStream::connect(("127.0.0.1", host)).await.unwrap();
        let (mut server, _) = listener.accept().await.unwrap();
        server.write_all(b"welcome").await.unwrap();
        drop(server);
        assert_eq!(rest(&mut client).await, Ok(b"welcome".to_vec()));
    });
}

#[test]
fn loopback_client_of_ipv6_reaches_a_server_of_ipv4_and_of_its_own_family_first() {
    test(async {
        let world = World::new(GatewayConfig::default());
        let host = publish(&world, "");
        let v4 = serve(&world).await;
        let client = tokio::net::TcpStream::connect((Ipv6Addr::LOCALHOST, host)).await.unwrap();
        let port = client.local_addr().unwrap().port();
        assert_eq!(v4.accept().await.unwrap().1, SocketAddr::new(HOST[0], port));
        let v6 = TcpListener::bind(&world.client, (GUEST[1].0, PORT)).await.unwrap();
        let client = tokio::net::TcpStream::connect((Ipv6Addr::LOCALHOST, host)).await.unwrap();
        let port = client.local_addr().unwrap().port();
        assert_eq!(v6.accept().await.unwrap().1, SocketAddr::new(HOST[1], port));
    });
}

#[test]
fn client_whose_pair_is_taken_keeps_its_address_and_gets_another_port() {
    test(async {
        let world = World::new(GatewayConfig::default());
        let (one, other) = (publish(&world, ""), publish(&world, ""));
        let listener = serve(&world).await;
        let first = tokio::net::TcpStream::connect(("127.0.0.1", one)).await.unwrap();
        let from = first.local_addr().unwrap();
        let (_server, seen) = listener.accept().await.unwrap();
        assert_eq!(seen.port(), from.port());
        // Linux lets one port go to two destinations.
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        let taken = socket.bind(from).is_err();
        let socket = if taken { rebound(from) } else { socket };
        let second = socket.connect(SocketAddr::from(([127, 0, 0, 1], other))).await.unwrap();
        let (_server, seen) = listener.accept().await.unwrap();
        assert_eq!(seen.ip(), HOST[0]);
        if second.local_addr().unwrap().port() == from.port() {
            assert_ne!(seen.port(), from.port(), "that pair is taken");
        }
    });
}

/// Another address of the loopback with the same port: both are the host's inside.
fn rebound(from: SocketAddr) -> tokio::net::TcpSocket {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from(([127, 0, 0, 2], from.port()))).unwrap();
    socket
}

/// What load balancers and port scanners do all day.
#[test]
fn probes_that_connect_and_reset_at_once_are_told_as_such_and_harm_nobody() {
    test(async {
        const PROBES: usize = 50;
        let mut world = World::new(GatewayConfig::default());
        let listener = serve(&world).await;
        let host = publish(&world, "");
        let probe = || {
            let client = std::net::TcpStream::connect(("127.0.0.1", host)).unwrap();
            rustix::net::sockopt::set_socket_linger(&client, Some(Duration::ZERO)).unwrap();
            client
        };
        // Gone before the gateway takes it: nothing else of this runtime runs in between. Then, gone when it is served.
        for _ in 0..PROBES / 2 {
            drop(probe());
        }
        for _ in 0..PROBES / 2 {
            let client = probe();
            let port = client.local_addr().unwrap().port();
            loop {
                let (mut server, seen) = listener.accept().await.unwrap();
                if seen.port() == port {
                    drop(client);
                    assert_eq!(rest(&mut server).await, Err(libc::ECONNRESET));
                    break;
                }
                // One of those that had gone.
                assert_eq!(rest(&mut server).await, Err(libc::ECONNRESET));
            }
        }
        let mut told_of = 0;
        while told_of < PROBES {
            let record = world.connection().await;
            assert_eq!(
                (record.verdict.closed_by, record.verdict.how),
                (ClosedBy::Remote, How::Reset),
                "{record:?}"
            );
            told_of += 1;
        }
        let published = world.gateway.publisher().list();
        assert_eq!((world.gateway.open(), published[0].open, published[0].total), (0, 0, PROBES as u64));

        let client = tokio::net::TcpStream::connect(("127.0.0.1", host)).await.unwrap();
        let port = client.local_addr().unwrap().port();
        let (mut server, seen) = loop {
            let (server, seen) = listener.accept().await.unwrap();
            if seen.port() == port {
                break (server, seen);
            }
        };
        assert_eq!(seen.ip(), HOST[0]);
        server.write_all(b"welcome").await.unwrap();
        drop(server);
        let mut client = client;
        assert_eq!(rest(&mut client).await, Ok(b"welcome".to_vec()));
    });
}

#[test]
fn ports_change_while_it_runs_and_who_is_served_is_served_on() {
    test(async {
        let world = World::new(GatewayConfig::default());
        let Pair { mut client, mut server } = pair(&world).await;
        let publisher = world.gateway.publisher().clone();
        let known = publisher.list();
        assert_eq!(known.len(), 2);
        assert_eq!((known[0].open, known[0].total, known[1].total), (1, 1, 0));
        assert!(matches!(publisher.add(known[0].port), Err(PublishError::Published(_))));
        for published in &known {
            assert!(publisher.remove(published.port.host_port()).await);
            assert!(!publisher.remove(published.port.host_port()).await, "only once");
        }
        assert!(publisher.list().is_empty());
        let host = known[0].port.host;
        let error = tokio::net::TcpStream::connect(("127.0.0.1", host)).await.unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ECONNREFUSED));
        client.write_all(b"still served").await.unwrap();
        client.shutdown().await.unwrap();
        assert_eq!(rest(&mut server).await, Ok(b"still served".to_vec()));
        // The port is free again at once.
        publisher.add(known[0].port).unwrap();
        world.gateway.ownerless();
        assert!(matches!(publisher.add(known[1].port), Err(PublishError::Ending)));
        assert!(publisher.list().is_empty());
    });
}

#[test]
fn one_connection_too_many_is_refused_with_its_reason_and_counted() {
    test(async {
        let mut world = World::new(GatewayConfig { max_connections: 1, ..GatewayConfig::default() });
        let listener = serve(&world).await;
        let host = publish(&world, "");
        let first = tokio::net::TcpStream::connect(("127.0.0.1", host)).await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        let mut second = tokio::net::TcpStream::connect(("127.0.0.1", host)).await.unwrap();
        assert_eq!(rest(&mut second).await, Err(libc::ECONNRESET));
        let record = world.connection().await;
        assert_eq!(told(&record), (ClosedBy::Lastack, How::Refused, Some(Reason::ConnectionLimit)));
        drop((first, server));
        assert_eq!(told(&world.connection().await).1, How::Fin);
        let told = world.stop().await;
        let [Entry::Limit(reached)] = told[..] else { panic!("{told:?}") };
        assert_eq!((reached.limit, reached.turned_away), (Limit::Connections, 1));
    });
}

#[test]
fn datagrams_of_two_clients_are_answered_each_and_a_closed_client_is_told() {
    test(async {
        let mut world =
            World::new(GatewayConfig { udp_idle: Duration::from_secs(1), ..GatewayConfig::default() });
        let server = UdpSocket::bind(&world.client, (GUEST[0].0, PORT)).await.unwrap();
        let host = publish(&world, "/udp");
        let client = || async {
            let client = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
            client.connect(("127.0.0.1", host)).await.unwrap();
            client
        };
        let clients = [client().await, client().await, client().await];
        let mut buffer = [0; 4000];
        for (n, client) in clients.iter().enumerate() {
            for len in [10 + n, 3000] {
                client.send(&vec![7; len]).await.unwrap();
                let (got, from) = server.recv_from(&mut buffer).await.unwrap();
                let port = client.local_addr().unwrap().port();
                assert_eq!((got, from), (len, SocketAddr::new(HOST[0], port)));
                server.send_to(&buffer[..got], from).await.unwrap();
                assert_eq!(client.recv(&mut buffer).await.unwrap(), len);
            }
        }
        // A client that is gone: its kernel says so, and the server is told.
        let [gone, ..] = clients;
        let port = gone.local_addr().unwrap().port();
        drop(gone);
        server.send_to(b"too late", SocketAddr::new(HOST[0], port)).await.unwrap();
        let error = server.recv_from(&mut buffer).await.unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ECONNREFUSED));
        let mut flows = [world.flow().await, world.flow().await, world.flow().await];
        flows.sort_by_key(|flow| flow.id);
        for (n, flow) in flows.iter().enumerate() {
            assert_eq!((flow.direction, flow.local), (Direction::In, SocketAddr::new(GUEST[0].0, PORT)));
            let answers = 2 + u64::from(n == 0);
            assert_eq!((flow.datagrams_down, flow.datagrams_up), (2, answers));
            assert_eq!(flow.how, if n == 0 { FlowEnd::Refused } else { FlowEnd::Idle });
        }
    });
}

#[test]
fn a_server_that_only_listens_has_not_refused() {
    test(async {
        let world = World::new(GatewayConfig::default());
        let server = UdpSocket::bind(&world.client, (GUEST[0].0, PORT)).await.unwrap();
        let client = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        client.send_to(b"a line for the log", ("127.0.0.1", publish(&world, "/udp"))).await.unwrap();
        let (len, _) = server.recv_from(&mut [0; 64]).await.unwrap();
        assert_eq!(len, 18);
        world.gateway.ownerless();
        let told = world.stop().await;
        let [Entry::Flow(flow)] = &told[..] else { panic!("{told:?}") };
        // Nobody can be asked here whether there is a socket.
        assert_eq!((flow.owner.as_ref(), flow.how), (None, FlowEnd::Idle));
    });
}

#[test]
fn flows_are_bounded_and_what_was_turned_away_is_counted() {
    test(async {
        let world = World::new(GatewayConfig { max_flows: 1, ..GatewayConfig::default() });
        let program = UdpSocket::bind(&world.client, (GUEST[0].0, 4000)).await.unwrap();
        let [one, other] = [0, 1].map(|_| std::net::UdpSocket::bind("127.0.0.1:0").unwrap());
        let one = tokio::net::UdpSocket::from_std(nonblocking(one)).unwrap();
        let mut buffer = [0; 16];
        for server in [one.local_addr().unwrap(), other.local_addr().unwrap(), one.local_addr().unwrap()] {
            program.send_to(b"x", SocketAddr::new(HOST[0], server.port())).await.unwrap();
        }
        // Datagrams of the program are taken in order: the third has come, so the second was turned away.
        one.recv_from(&mut buffer).await.unwrap();
        one.recv_from(&mut buffer).await.unwrap();
        let told = world.stop().await;
        let [Entry::Flow(flow), Entry::Limit(reached)] = &told[..] else { panic!("{told:?}") };
        assert_eq!((flow.direction, flow.datagrams_up), (Direction::Out, 2));
        assert_eq!((reached.limit, reached.turned_away), (Limit::Flows, 1));
    });
}

fn nonblocking(socket: std::net::UdpSocket) -> std::net::UdpSocket {
    socket.set_nonblocking(true).unwrap();
    socket
}
