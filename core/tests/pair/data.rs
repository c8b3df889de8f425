//! Data: whole, in order, both ways, whatever the wire does.

use lastack_core::Config;
use lastack_core::error::{RecvError, SendError};
use lastack_core::sim::Sim;

use super::*;

#[test]
fn both_ways_at_once_over_every_kind_of_wire() {
    type Change = fn(&mut lastack_core::sim::Wire);
    let wires: [(&str, Change); 8] = [
        ("perfect", |_| {}),
        ("10 ms", |wire| {
            wire.delay(ms(10));
        }),
        ("loss 3 %", |wire| {
            wire.delay(ms(10)).loss_percent(3.0);
        }),
        ("every 7th lost", |wire| {
            wire.delay(ms(1)).loss_every(7);
        }),
        ("reorder 10 %", |wire| {
            wire.delay(ms(10)).reorder_percent(10.0);
        }),
        ("duplicate 10 %", |wire| {
            wire.delay(ms(10)).duplicate_percent(10.0);
        }),
        ("everything", |wire| {
            wire.delay(ms(20)).jitter(ms(5)).loss_percent(2.0).reorder_percent(2.0).duplicate_percent(2.0);
        }),
        ("20 Mbit/s, short queue", |wire| {
            wire.delay(ms(10)).rate(20_000_000, 60_000);
        }),
    ];
    for (n, (name, change)) in wires.into_iter().enumerate() {
        let seed = 100 + n as u64;
        let (mut sim, client, server) = Sim::pair(seed);
        sim.wires(change);
        let (a, b) = sim.establish(client, server, 80);
        let (up, down) = (pattern(400_000, seed), pattern(300_000, seed + 1));
        let (mut sent, mut got) = ([0, 0], [Vec::new(), Vec::new()]);
        let done = sim.run_until(600 * SECOND, |sim| {
            let now = sim.now();
            for (i, (host, id, data)) in [(client, a, &up), (server, b, &down)].into_iter().enumerate() {
                if sent[i] < data.len() {
                    sent[i] += sim.stack(host).send(now, id, &data[sent[i]..]).unwrap_or(0);
                }
                sim.read_all(host, id, &mut got[i]).expect("no error");
            }
            got[0].len() >= down.len() && got[1].len() >= up.len()
        });
        assert!(
            done,
            "{name}, seed {seed}: {} of {}, {} of {}",
            got[1].len(),
            up.len(),
            got[0].len(),
            down.len()
        );
        assert!(got[1] == up && got[0] == down, "{name}, seed {seed}");
        close(&mut sim, client, a);
        close(&mut sim, server, b);
        sim.run_for(200 * SECOND);
        assert_nothing_left(&sim, &[client, server]);
    }
}

#[test]
fn a_reader_that_stops_stops_the_writer_and_nothing_is_lost() {
    let (mut sim, client, server) = Sim::pair(120);
    sim.wires(|wire| {
        wire.delay(ms(5));
    });
    let (a, b) = sim.establish(client, server, 80);
    let data = pattern(20_000_000, 120);
    let mut sent = 0;
    for _ in 0..200 {
        let now = sim.now();
        match sim.stack(client).send(now, a, &data[sent..]) {
            Ok(n) => sent += n,
            Err(error) => assert_eq!(error, SendError::WouldBlock),
        }
        sim.run_for(SECOND);
    }
    assert!(sent < data.len(), "the writer is held up");
    let counters = sim.peek(client).counters();
    assert!(counters.tcp_win_probe > 0, "zero-window probes were sent");
    let mut received = Vec::new();
    let done = sim.run_until(600 * SECOND, |sim| {
        let now = sim.now();
        sent += sim.stack(client).send(now, a, &data[sent..]).unwrap_or(0);
        sim.read_all(server, b, &mut received).expect("no error");
        received.len() >= data.len()
    });
    assert!(done && received == data, "{} of {}", received.len(), data.len());
}

#[test]
fn small_reads_give_the_same_bytes() {
    let (mut sim, client, server) = Sim::pair(121);
    let (a, b) = sim.establish(client, server, 80);
    let data = pattern(50_000, 121);
    let (mut sent, mut received) = (0, Vec::new());
    let done = sim.run_until(60 * SECOND, |sim| {
        let now = sim.now();
        if sent < data.len() {
            sent += sim.stack(client).send(now, a, &data[sent..]).unwrap_or(0);
        }
        let mut buf = [0; 7];
        loop {
            match sim.stack(server).recv(now, b, &mut buf) {
                Ok(n) => received.extend_from_slice(&buf[..n]),
                Err(error) => {
                    assert_eq!(error, RecvError::WouldBlock);
                    break;
                }
            }
        }
        received.len() >= data.len()
    });
    assert!(done && received == data);
}

#[test]
fn a_narrow_path_is_found_by_what_its_router_says() {
    let (mut sim, client, server) = Sim::pair(122);
    sim.wires(|wire| {
        wire.delay(ms(5)).mtu(1300);
    });
    let (a, b) = sim.establish(client, server, 80);
    let data = pattern(200_000, 122);
    assert!(sim.transfer(client, a, server, b, &data) == data);
    assert_eq!(sim.peek(client).tcp_info(sim.now(), a).expect("held").pmtu, 1300);
    // The next connection knows.
    let lost = sim.wire(client).lost();
    let (a, b) = sim.establish(client, server, 81);
    assert!(sim.transfer(client, a, server, b, &data) == data);
    assert_eq!(sim.wire(client).lost(), lost);
}

#[test]
fn ipv6_works_the_same() {
    let mut sim = Sim::new(123);
    let host = |n: u16| Config {
        addresses: vec![(std::net::Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, n).into(), 64)],
        ..Config::default()
    };
    let (client, server) = (sim.add(host(1)), sim.add(host(2)));
    sim.wires(|wire| {
        wire.delay(ms(5)).loss_percent(2.0);
    });
    let (a, b) = sim.establish(client, server, 80);
    let data = pattern(300_000, 123);
    assert!(sim.transfer(client, a, server, b, &data) == data);
    assert_eq!(sim.peek(client).tcp_info(sim.now(), a).expect("held").advmss, 1428);
    close(&mut sim, client, a);
    close(&mut sim, server, b);
    sim.run_for(200 * SECOND);
    assert_nothing_left(&sim, &[client, server]);
}

#[test]
fn a_wire_without_offload_is_no_different() {
    let mut sim = Sim::new(124);
    let host = |n: u8, segs| Config {
        addresses: vec![([10, 0, 0, n].into(), 24)],
        gso_max_segs: segs,
        ..Config::default()
    };
    let (client, server) = (sim.add(host(1, 1)), sim.add(host(2, 64)));
    let (a, b) = sim.establish(client, server, 80);
    let data = pattern(300_000, 124);
    assert!(sim.transfer(client, a, server, b, &data) == data);
    assert!(sim.transfer(server, b, client, a, &data) == data);
}

#[test]
fn chunks_travel_whole() {
    let (mut sim, client, server) = Sim::pair(125);
    let (a, b) = sim.establish(client, server, 80);
    let now = sim.now();
    let chunk = bytes::Bytes::from(pattern(100_000, 125));
    assert_eq!(sim.stack(client).send_bytes(now, a, chunk.clone()), Ok(()));
    let mut received = Vec::new();
    assert!(sim.run_until(60 * SECOND, |sim| {
        sim.read_all(server, b, &mut received).expect("no error");
        received.len() == chunk.len()
    }));
    assert!(received == chunk);
    let now = sim.now();
    assert_eq!(sim.stack(server).recv_chunk(now, b, 10), Err(RecvError::WouldBlock));
}

#[test]
fn a_link_that_becomes_narrower_gets_smaller_packets() {
    let (mut sim, client, server) = Sim::pair(126);
    let (a, b) = sim.establish(client, server, 80);
    let now = sim.now();
    sim.stack(client).handle_link(now, 1200);
    sim.on_packet(move |seen| {
        assert!(seen.from != client || seen.packet.len() <= 1200, "{} bytes", seen.packet.len());
        lastack_core::sim::Fate::Pass
    });
    let data = pattern(100_000, 126);
    assert!(sim.transfer(client, a, server, b, &data) == data);
    let (a, b) = sim.establish(client, server, 81);
    assert!(sim.transfer(client, a, server, b, &data) == data);
}
