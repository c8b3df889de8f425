//! Chaos: applications that do anything at any time, over wires that do too; then everything must be gone and every sum zero.

use std::collections::BTreeMap;

use crate::error::RecvError;
use crate::id::{ConnectionId, ListenerId, PendingId};
use crate::observe::EventMask;
use crate::rng::Rng;
use crate::sim::{Host, Sim};
use crate::stack::{
    AnyOptions, Config, KillTarget, ListenOptions, Shutdown, SocketEvent, Stack, Unreachable,
};
use crate::tcp::options::{TcpOption, TcpOptions};
use crate::time::Duration;

/// One end of a connection as its application knows it.
#[derive(Default)]
struct App {
    sent: usize,
    received: usize,
    ended: bool,
    /// Shut down for reading: end of file may be told before the last data (specification 1.3).
    shut: bool,
}

struct Chaos {
    seed: u64,
    sim: Sim,
    hosts: [Host; 2],
    rng: Rng,
    apps: [BTreeMap<ConnectionId, App>; 2],
    listeners: Vec<ListenerId>,
    pending: Vec<PendingId>,
}

/// The byte at a place of the stream of one end: what one end sends the other can check.
fn byte(from: usize, place: usize) -> u8 {
    (place as u32).wrapping_mul(2_654_435_761).rotate_left(7) as u8 ^ (from as u8) << 7
}

impl Chaos {
    fn new(seed: u64) -> Self {
        let mut sim = Sim::new(seed);
        let mut rng = Rng::from_number(seed ^ 0xc4a0_5000);
        let host = |n: u8| Config {
            addresses: vec![([10, 0, 0, n].into(), 24)],
            any_address: n == 2,
            gso_max_segs: if seed.is_multiple_of(3) { 1 } else { 64 },
            ..Config::default()
        };
        let hosts = [sim.add(host(1)), sim.add(host(2))];
        sim.observe(EventMask::ALL, false);
        let percent = |rng: &mut Rng, most: u32| f64::from(rng.below(most));
        let (loss, reorder, twice) = (percent(&mut rng, 8), percent(&mut rng, 8), percent(&mut rng, 4));
        let delay = Duration::from_millis(u64::from(rng.below(30)));
        sim.wires(|wire| {
            wire.delay(delay).loss_percent(loss).reorder_percent(reorder).duplicate_percent(twice);
        });
        let mut chaos = Self {
            seed,
            sim,
            hosts,
            rng,
            apps: Default::default(),
            listeners: Vec::new(),
            pending: Vec::new(),
        };
        for option in [("tcp_timewait_len", 2), ("tcp_fin_timeout", 3), ("tcp_orphan_retries", 2)] {
            for host in chaos.hosts {
                chaos.sim.stack(host).sysctl_set(option.0, &option.1.to_string()).expect("in range");
            }
        }
        let now = chaos.sim.now();
        for port in 1..4 {
            let backlog = chaos.rng.below(6);
            let listen = ListenOptions { backlog, ..ListenOptions::new(([10, 0, 0, 2], port).into()) };
            chaos.listeners.push(chaos.sim.stack(hosts[1]).listen(now, listen).expect("free"));
        }
        let any = AnyOptions { max_pending: 5, ..AnyOptions::default() };
        chaos.listeners.push(chaos.sim.stack(hosts[1]).listen_any(now, any).expect("the first"));
        chaos
    }

    fn stack(&mut self, n: usize) -> &mut Stack {
        self.sim.stack(self.hosts[n])
    }

    /// One application does one thing.
    fn act(&mut self) {
        let now = self.sim.now();
        let n = self.rng.below(2) as usize;
        let count = self.apps[n].len();
        let Some(id) = self.apps[n].keys().nth(self.rng.below(count.max(1) as u32) as usize).copied() else {
            return self.open();
        };
        match self.rng.below(40) {
            0..5 => self.open(),
            5..18 => self.send(n, id),
            18..28 => self.read(n, id),
            28 => {
                let how = [Shutdown::Write, Shutdown::Write, Shutdown::Both, Shutdown::Read];
                let how = how[self.rng.below(4) as usize];
                let _ = self.stack(n).shutdown(now, id, how);
                self.apps[n].get_mut(&id).expect("held").shut |= how != Shutdown::Write;
            }
            29..34 => {
                self.stack(n).close(now, id);
                self.apps[n].remove(&id);
            }
            34 => {
                self.stack(n).abort(now, id);
                self.apps[n].remove(&id);
            }
            35 => {
                let cookie = self.stack(n).cookie(id).expect("held");
                let _ = self.stack(n).kill(now, KillTarget::Cookie(cookie));
            }
            36 => {
                let options = [
                    TcpOption::Linger(Some(0)),
                    TcpOption::Linger2(-1),
                    TcpOption::NoDelay(true),
                    TcpOption::KeepAlive(true),
                    TcpOption::KeepIdle(1),
                    TcpOption::RcvBuf(2304),
                    TcpOption::UserTimeout(1500),
                    TcpOption::QuickAck(false),
                    TcpOption::Cork(true),
                    TcpOption::ReuseAddr(true),
                ];
                let option = options[self.rng.below(options.len() as u32) as usize];
                let _ = self.stack(n).set_option(now, id, option);
            }
            37 => {
                let cut = self.rng.below(3) == 0;
                self.sim.wire(self.hosts[n]).cut(cut);
            }
            _ => self.decide(),
        }
    }

    fn open(&mut self) {
        let now = self.sim.now();
        let to = match self.rng.below(5) {
            port @ 1..4 => ([10, 0, 0, 2], port as u16).into(),
            _ => ([203, 0, 113, 9], 443).into(),
        };
        let from = (self.rng.below(4) == 0).then(|| ([10, 0, 0, 1], 5000 + self.rng.below(4) as u16).into());
        let options = TcpOptions { reuseaddr: true, ..TcpOptions::default() };
        if let Ok(id) = self.stack(0).connect(now, to, from, options) {
            self.apps[0].insert(id, App::default());
        }
    }

    fn send(&mut self, n: usize, id: ConnectionId) {
        let now = self.sim.now();
        let len = 1 << self.rng.below(17);
        let place = self.apps[n][&id].sent;
        let data: Vec<u8> = (place..place + len).map(|place| byte(n, place)).collect();
        if let Ok(taken) = self.stack(n).send(now, id, &data) {
            self.apps[n].get_mut(&id).expect("held").sent += taken;
        }
    }

    fn read(&mut self, n: usize, id: ConnectionId) {
        let now = self.sim.now();
        for _ in 0..self.rng.below(20) {
            let max = 1 << self.rng.below(17);
            let answer = self.stack(n).recv_chunk(now, id, max);
            let (seed, app) = (self.seed, self.apps[n].get_mut(&id).expect("held"));
            match answer {
                Ok(Some(chunk)) => {
                    assert!(!app.ended || app.shut, "seed {seed}: data after the end");
                    let whole = chunk.iter().enumerate().all(|(i, b)| *b == byte(1 - n, app.received + i));
                    assert!(whole, "seed {seed}: wrong bytes near {}", app.received);
                    app.received += chunk.len();
                }
                Ok(None) => app.ended = true,
                Err(RecvError::WouldBlock) => return,
                Err(_) => {}
            }
        }
    }

    fn decide(&mut self) {
        let now = self.sim.now();
        let Some(id) = self.pending.pop() else { return };
        let what = self.rng.below(8);
        let stack = self.stack(1);
        let _ = match what {
            0 => stack.pending_refuse(now, id),
            1 => stack.pending_unreachable(now, id, Unreachable::Host),
            2 => stack.pending_drop(now, id),
            _ => stack.pending_accept(now, id),
        };
    }

    fn take_events(&mut self) {
        let now = self.sim.now();
        while let Some((host, event)) = self.sim.poll_event() {
            let n = usize::from(host == self.hosts[1]);
            match event {
                SocketEvent::Listener(id) => {
                    // Not always all of them: accept queues fill up.
                    for _ in 0..self.rng.below(4) {
                        if let Ok(id) = self.stack(n).accept(now, id) {
                            self.apps[n].insert(id, App::default());
                        }
                    }
                }
                SocketEvent::Pending(id) => {
                    while let Some(syn) = self.stack(n).next_pending(id) {
                        self.pending.push(syn.id);
                    }
                }
                SocketEvent::PendingDone(_, Ok(id)) => {
                    self.apps[n].insert(id, App::default());
                }
                SocketEvent::PendingDone(_, Err(_)) | SocketEvent::Udp(..) | SocketEvent::Ping => {}
                SocketEvent::Connection(id, _) => {
                    assert!(self.apps[n].contains_key(&id), "seed {}: {id:?} is nobody's", self.seed);
                }
            }
        }
    }

    fn run(mut self) {
        for _ in 0..600 {
            self.act();
            self.take_events();
            let pause = Duration::from_micros(1 << self.rng.below(20));
            self.sim.run_for(pause);
            self.take_events();
        }
        // Everybody lets go.
        self.sim.wires(|wire| {
            wire.cut(false);
        });
        let now = self.sim.now();
        for listener in core::mem::take(&mut self.listeners) {
            self.stack(1).close_listener(now, listener);
        }
        self.take_events();
        for n in [0, 1] {
            for id in core::mem::take(&mut self.apps[n]).into_keys() {
                self.stack(n).close(now, id);
            }
        }
        self.sim.run_for(Duration::from_secs(2000));
        while self.sim.poll_event().is_some() {}
        for host in self.hosts {
            self.assert_empty(host);
        }
    }

    fn assert_empty(&self, host: Host) {
        let (seed, stack) = (self.seed, self.sim.peek(host));
        let rows: Vec<_> = stack.sockets(self.sim.now()).collect();
        assert!(rows.is_empty(), "seed {seed}, {host:?}: {rows:#?}");
        assert_eq!(stack.poll_timeout(), None, "seed {seed}, {host:?}: something waits for time");
        assert!(stack.sockets.is_empty(), "seed {seed}, {host:?}: a table still knows somebody");
        assert!(stack.ports.is_empty(), "seed {seed}, {host:?}: a port is still taken");
        assert_eq!(stack.pending.len(), 0, "seed {seed}, {host:?}");
        let limits = &stack.world.limits;
        assert_eq!(
            (limits.orphans, limits.time_waits, limits.queued_bytes),
            (0, 0, 0),
            "seed {seed}, {host:?}"
        );
        assert_eq!(stack.counters().curr_estab, 0, "seed {seed}, {host:?}");
        assert!(stack.owing.is_empty(), "seed {seed}, {host:?}: somebody owes");
    }
}

/// `LASTACK_CHAOS=FROM..TO` runs other seeds.
#[test]
fn whatever_applications_and_wires_do_everything_is_gone_in_the_end() {
    let seeds = std::env::var("LASTACK_CHAOS").ok().and_then(|text| {
        let (from, to) = text.split_once("..")?;
        Some(from.parse().ok()?..to.parse().ok()?)
    });
    for seed in seeds.unwrap_or(0u64..25) {
        Chaos::new(seed).run();
    }
}

/// Every list is bounded, also for an application that never looks at it.
#[test]
fn events_nobody_asks_for_do_not_pile_up() {
    let (mut sim, client, server) = Sim::pair(9);
    for _ in 0..3000 {
        let now = sim.now();
        let to = ([10, 0, 0, 2], 80).into();
        let id = sim.stack(client).connect(now, to, None, TcpOptions::default()).expect("a port is free");
        sim.run_for(Duration::from_millis(1));
        let now = sim.now();
        sim.stack(client).close(now, id);
        let udp = sim.stack(server).udp_bind(now, ([10, 0, 0, 2], 53).into()).expect("free");
        let at_client = sim.stack(client).udp_bind(now, ([10, 0, 0, 1], 0).into()).expect("free");
        let data = bytes::Bytes::from_static(b"x");
        sim.stack(client).udp_send(now, at_client, None, ([10, 0, 0, 2], 53).into(), data).expect("room");
        sim.run_for(Duration::from_millis(1));
        sim.stack(server).udp_close(udp);
        sim.stack(client).udp_close(at_client);
    }
    for host in [client, server] {
        let waiting = sim.peek(host).notices.len();
        assert!(waiting < 1000, "{waiting} events wait");
    }
    assert_eq!(sim.peek(client).socket_count(), 0);
}
