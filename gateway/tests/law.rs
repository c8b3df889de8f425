//! The gateway's law, end to end without privileges: a client on a stack of this process, a memory device, the
//! gateway, and servers of this host's loopback. Every step waits for its cause; no clock decides what passes.

mod world;

use std::time::Duration;

use lastack::core::observe::Counters;
use lastack::{TcpStream, UdpSocket};
use lastack_gateway::addresses::Addresses;
use lastack_gateway::journal::{ClosedBy, Entry, FlowEnd, How, Reason};
use lastack_gateway::relay::Policy;
use lastack_gateway::rules::{Pattern, Rules, Verdict};
use lastack_gateway::{GatewayConfig, Note};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use world::{World, inside, listener, noise, test, told};

#[test]
fn bytes_arrive_whole_both_ways_and_who_closed_first_is_told() {
    test(async {
        let mut world = World::new(GatewayConfig::default());
        let listener = listener().await;
        let (client, mut server) = world.connect(&listener).await;
        let sent = noise(3_000_000);
        let (mut reader, mut writer) = client.into_split();
        let expected = sent.clone();
        let echo = tokio::spawn(async move {
            let (mut from, mut to) = server.split();
            tokio::io::copy(&mut from, &mut to).await.unwrap();
            to.shutdown().await.unwrap();
        });
        let sending = tokio::spawn(async move {
            writer.write_all(&sent).await.unwrap();
            writer.shutdown().await.unwrap();
        });
        let mut got = Vec::new();
        reader.read_to_end(&mut got).await.unwrap();
        assert!(got == expected, "{} bytes came back, not the same ones", got.len());
        sending.await.unwrap();
        echo.await.unwrap();
        let record = world.connection().await;
        assert_eq!(told(&record), (ClosedBy::Program, How::Fin, None));
        assert_eq!((record.bytes_up, record.bytes_down, record.lost_bytes()), (3_000_000, 3_000_000, 0));
        assert_eq!(world.gateway.open(), 0);
    });
}

#[test]
fn server_that_closes_first_is_told_and_the_client_reads_to_the_end() {
    test(async {
        let mut world = World::new(GatewayConfig::default());
        let listener = listener().await;
        let (mut client, mut server) = world.connect(&listener).await;
        server.write_all(b"goodbye").await.unwrap();
        drop(server);
        let mut text = String::new();
        client.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "goodbye");
        drop(client);
        assert_eq!(told(&world.connection().await), (ClosedBy::Remote, How::Fin, None));
    });
}

#[test]
fn fin_that_came_with_the_data_goes_on_with_it() {
    test(async {
        let mut world = World::new(GatewayConfig::default());
        let listener = listener().await;
        let (mut client, mut server) = world.connect(&listener).await;
        // Nothing else of this runtime runs in between.
        server.write_all(b"goodbye").await.unwrap();
        drop(server);
        let mut text = String::new();
        client.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "goodbye");
        drop(client);
        let record = world.connection().await;
        assert_eq!(told(&record), (ClosedBy::Remote, How::Fin, None));
        let inside = record.inside.unwrap();
        // SYN-ACK, and the data with the FIN. (The last acknowledgement is TIME-WAIT's.)
        assert_eq!(inside.segments_down - inside.retransmits, 2, "{inside:?}");
    });
}

#[test]
fn half_closed_connection_goes_on_in_the_other_direction() {
    test(async {
        let mut world = World::new(GatewayConfig::default());
        let listener = listener().await;
        let (mut client, mut server) = world.connect(&listener).await;
        server.shutdown().await.unwrap();
        assert_eq!(client.read(&mut [0; 8]).await.unwrap(), 0, "the server's FIN came through");
        client.write_all(b"and still I talk").await.unwrap();
        client.shutdown().await.unwrap();
        let mut text = String::new();
        server.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "and still I talk");
        let record = world.connection().await;
        assert_eq!((told(&record), record.lost_bytes()), ((ClosedBy::Remote, How::Fin, None), 0));
    });
}

#[test]
fn servers_reset_is_a_reset_behind_its_data() {
    test(async {
        let mut world = World::new(GatewayConfig::default());
        let listener = listener().await;
        let (mut client, mut server) = world.connect(&listener).await;
        server.write_all(b"last words").await.unwrap();
        server.set_zero_linger().unwrap();
        drop(server);
        let mut text = [0; 10];
        client.read_exact(&mut text).await.unwrap();
        assert_eq!(&text, b"last words");
        let error = client.read(&mut [0; 1]).await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
        let record = world.connection().await;
        assert_eq!((record.verdict.closed_by, record.verdict.how), (ClosedBy::Remote, How::Reset));
    });
}

#[test]
fn clients_reset_is_a_reset_behind_its_data() {
    test(async {
        let mut world = World::new(GatewayConfig::default());
        let listener = listener().await;
        let (mut client, mut server) = world.connect(&listener).await;
        client.write_all(b"last words").await.unwrap();
        let mut text = [0; 10];
        server.read_exact(&mut text).await.unwrap();
        client.abort();
        let error = server.read(&mut [0; 1]).await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
        let record = world.connection().await;
        assert_eq!(told(&record), (ClosedBy::Program, How::Reset, Some(Reason::ResetByProgram)));
        assert_eq!((record.bytes_up, record.lost_bytes()), (10, 0));
    });
}

#[test]
fn reset_after_a_fin_is_told_and_passed_on() {
    test(async {
        let mut world = World::new(GatewayConfig::default());
        let listener = listener().await;
        let (mut client, mut server) = world.connect(&listener).await;
        client.shutdown().await.unwrap();
        assert_eq!(server.read(&mut [0; 1]).await.unwrap(), 0);
        client.abort();
        let error = server.ready(tokio::io::Interest::ERROR).await.map(|_| server.take_error().unwrap());
        assert!(error.unwrap().is_some(), "the server's kernel got the RST");
        let record = world.connection().await;
        assert_eq!((record.verdict.closed_by, record.verdict.how), (ClosedBy::Program, How::Reset));
    });
}

#[test]
fn reader_that_never_reads_holds_the_writer_up_and_its_end_counts_what_was_lost() {
    test(async {
        let mut world = World::new(GatewayConfig::default());
        let listener = listener().await;
        let (client, mut server) = world.connect(&listener).await;
        let writing = tokio::spawn(async move {
            let chunk = vec![7; 1 << 20];
            while server.write_all(&chunk).await.is_ok() {}
        });
        // The client's window is full once it has as many bytes as it will take without being read.
        client.readable().await.unwrap();
        let mut before = usize::MAX;
        while std::mem::replace(&mut before, client.recv_available()) != client.recv_available() {
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        client.abort();
        writing.await.unwrap();
        let record = world.connection().await;
        assert_eq!(record.verdict.how, How::Reset);
        assert!(record.lost_down > 0 && record.lost_down <= record.bytes_down, "{record:?}");
        assert!(
            record.bytes_down < 80 << 20,
            "what was taken from the server is bounded: {}",
            record.bytes_down
        );
    });
}

/// Half-closed connections are probed after the shortest silence there is.
fn probing() -> GatewayConfig {
    let policy = Policy { half_closed_probe: Duration::from_secs(1), ..Policy::default() };
    GatewayConfig { policy, ..GatewayConfig::default() }
}

#[test]
fn half_closed_connection_whose_program_is_gone_without_a_word_is_reset_at_the_host() {
    test(async {
        let mut world = World::new(probing());
        let listener = listener().await;
        let client_net = world.client.clone();
        let moved = |count: fn(&Counters) -> u64, before: u64| {
            let client = client_net.clone();
            async move {
                while count(&client.counters()) <= before {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
        };
        // Closed by the server, then by the client; then the program's kernel forgets the connection. The FIN is acknowledged
        // by then: but for probes nothing more would be sent.
        let (mut client, mut server) = world.connect(&listener).await;
        let before = world.client.counters().out_segs;
        server.shutdown().await.unwrap();
        assert_eq!(client.read(&mut [0; 8]).await.unwrap(), 0);
        moved(|counters| counters.out_segs, before).await;
        client.abandon();
        assert_eq!(server.read(&mut [0; 8]).await.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
        let record = world.connection().await;
        assert_eq!((record.verdict.closed_by, record.verdict.how), (ClosedBy::Remote, How::Reset));

        let (mut client, mut server) = world.connect(&listener).await;
        let before = world.client.counters().in_segs;
        client.shutdown().await.unwrap();
        assert_eq!(server.read(&mut [0; 8]).await.unwrap(), 0);
        moved(|counters| counters.in_segs, before).await;
        client.abandon();
        server.ready(tokio::io::Interest::ERROR).await.unwrap();
        assert!(server.take_error().unwrap().is_some(), "the server's kernel got the RST");
        let record = world.connection().await;
        assert_eq!((record.verdict.closed_by, record.verdict.how), (ClosedBy::Program, How::Reset));
        assert_eq!(world.gateway.open(), 0);
    });
}

#[test]
fn half_closed_connection_whose_program_is_silent_but_there_lives_on() {
    test(async {
        let mut world = World::new(probing());
        let listener = listener().await;
        let (mut client, mut server) = world.connect(&listener).await;
        server.shutdown().await.unwrap();
        assert_eq!(client.read(&mut [0; 8]).await.unwrap(), 0);
        let segments = || world.client.counters().in_segs;
        let before = segments();
        // The FIN's acknowledgement may be under way still; the rest is probes.
        while segments() < before + 4 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        client.write_all(b"still here").await.unwrap();
        client.shutdown().await.unwrap();
        let mut text = String::new();
        server.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "still here");
        assert_eq!(told(&world.connection().await), (ClosedBy::Remote, How::Fin, None));
    });
}

fn impatient(seconds: u64) -> GatewayConfig {
    let policy = Policy { idle: Some(Duration::from_secs(seconds)), ..Policy::default() };
    GatewayConfig { policy, ..GatewayConfig::default() }
}

#[test]
fn connection_that_carries_nothing_is_reset_at_both_ends_where_that_was_asked_for() {
    test(async {
        let mut world = World::new(impatient(1));
        let listener = listener().await;
        let (mut client, mut server) = world.connect(&listener).await;
        assert_eq!(client.read(&mut [0; 1]).await.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
        assert_eq!(server.read(&mut [0; 1]).await.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
        let record = world.connection().await;
        assert_eq!(told(&record), (ClosedBy::Lastack, How::Reset, Some(Reason::IdleTimeout)));
        assert!(record.duration_us >= 1_000_000, "{record:?}");
    });
}

#[test]
fn a_byte_either_way_begins_silence_anew() {
    test(async {
        let mut world = World::new(impatient(3));
        let listener = listener().await;
        let (mut client, mut server) = world.connect(&listener).await;
        for turn in 0..12_u8 {
            tokio::time::sleep(Duration::from_millis(300)).await;
            let mut got = [0; 1];
            if turn % 2 == 0 {
                client.write_all(&[turn]).await.unwrap();
                server.read_exact(&mut got).await.unwrap();
            } else {
                server.write_all(&[turn]).await.unwrap();
                client.read_exact(&mut got).await.unwrap();
            }
            assert_eq!(got, [turn]);
        }
        assert_eq!(server.read(&mut [0; 1]).await.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
        let record = world.connection().await;
        assert_eq!(told(&record), (ClosedBy::Lastack, How::Reset, Some(Reason::IdleTimeout)));
        // Three seconds after the last byte, which was no sooner than twelve pauses after the first.
        assert!(record.duration_us >= 6_600_000 && record.lost_bytes() == 0, "{record:?}");
    });
}

/// What the remote end takes out of the host's buffers is carried, though nothing comes or goes inside.
#[test]
fn a_slow_reader_is_no_idle_connection() {
    test(async {
        let mut world = World::new(impatient(1));
        let listener = listener().await;
        let (mut client, mut server) = world.connect(&listener).await;
        let sent = noise(3_000_000);
        let expected = sent.clone();
        let client = tokio::spawn(async move {
            client.write_all(&sent).await.unwrap();
            // It waits for the answer.
            let mut text = String::new();
            client.read_to_string(&mut text).await.map(|_| text)
        });
        let mut got = vec![0; 3_000_000];
        for piece in got.chunks_mut(250_000) {
            tokio::time::sleep(Duration::from_millis(300)).await;
            server.read_exact(piece).await.unwrap();
        }
        assert!(got == expected);
        server.write_all(b"thanks").await.unwrap();
        drop(server);
        assert_eq!(client.await.unwrap().unwrap(), "thanks");
        assert_eq!(told(&world.connection().await), (ClosedBy::Remote, How::Fin, None));
    });
}

#[test]
fn closed_port_is_refused() {
    test(async {
        let mut world = World::new(GatewayConfig::default());
        let port = listener().await.local_addr().unwrap().port();
        let error = world.dial(port).await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
        let record = world.connection().await;
        assert_eq!(told(&record), (ClosedBy::Remote, How::Refused, Some(Reason::NoListener)));
        assert_eq!((record.handshake_us, record.inside), (None, None));
    });
}

#[test]
fn denied_address_is_refused_without_being_dialled() {
    test(async {
        let listener = listener().await;
        let port = listener.local_addr().unwrap().port();
        let mut rules = Rules::default();
        rules.push(Verdict::Deny, Pattern::parse("10.0.2.2").unwrap());
        let mut world = World::new(GatewayConfig { rules, ..GatewayConfig::default() });
        let error = world.dial(port).await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
        let record = world.connection().await;
        assert_eq!(told(&record), (ClosedBy::Lastack, How::Denied, Some(Reason::DeniedByRule)));
        assert_eq!(record.host_remote, None);
    });
}

#[test]
fn closed_host_loopback_is_refused() {
    test(async {
        let addresses = Addresses { host_loopback: false, resolvers: Vec::new() };
        let mut world = World::new(GatewayConfig { addresses, ..GatewayConfig::default() });
        let listener = listener().await;
        let error = world.dial(listener.local_addr().unwrap().port()).await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
        assert_eq!(
            told(&world.connection().await),
            (ClosedBy::Lastack, How::Denied, Some(Reason::LoopbackClosed))
        );
    });
}

#[test]
fn stopping_tells_what_is_open_and_resets_it() {
    test(async {
        let World { client, gateway, mut notes } = World::new(GatewayConfig::default());
        let listener = listener().await;
        let port = listener.local_addr().unwrap().port();
        let mut stream = TcpStream::connect(&client, inside(port)).await.unwrap();
        let (mut server, _) = listener.accept().await.unwrap();
        assert_eq!(gateway.open(), 1);
        gateway.stop().await;
        let mut last = None;
        while let Ok(note) = notes.try_recv() {
            last = Some(note);
        }
        let Some(Note::Ended(Entry::Connection(record))) = last else { panic!("{last:?}") };
        assert_eq!(told(&record), (ClosedBy::Nobody, How::Open, None));
        assert_eq!(server.read(&mut [0; 1]).await.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
        assert_eq!(stream.read(&mut [0; 1]).await.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    });
}

#[test]
fn datagrams_go_both_ways_and_a_closed_port_is_refused() {
    test(async {
        let mut world = World::new(GatewayConfig::default());
        let server = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let to = inside(server.local_addr().unwrap().port());
        let client = UdpSocket::bind(&world.client, "10.0.2.100:0").await.unwrap();
        client.send_to(b"question", to).await.unwrap();
        let mut buffer = [0; 64];
        let (len, from) = server.recv_from(&mut buffer).await.unwrap();
        assert_eq!(&buffer[..len], b"question");
        server.send_to(b"answer", from).await.unwrap();
        let (len, from) = client.recv_from(&mut buffer).await.unwrap();
        assert_eq!((&buffer[..len], from), (&b"answer"[..], to));
        drop(server);
        client.send_to(b"anybody there?", to).await.unwrap();
        let error = client.recv_from(&mut buffer).await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
        let World { gateway, .. } = &mut world;
        assert_eq!(gateway.open(), 0, "flows are not connections");
    });
}

#[test]
fn denied_datagram_is_answered_with_port_unreachable() {
    test(async {
        let mut rules = Rules::default();
        rules.push(Verdict::Deny, Pattern::parse("*:9").unwrap());
        let mut world = World::new(GatewayConfig { rules, ..GatewayConfig::default() });
        let client = UdpSocket::bind(&world.client, "10.0.2.100:0").await.unwrap();
        client.send_to(b"x", inside(9)).await.unwrap();
        let error = client.recv_from(&mut [0; 8]).await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
        assert_eq!(world.flow().await.how, FlowEnd::Denied);
    });
}
