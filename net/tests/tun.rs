//! The stack and Linux's, joined by a TUN in a network namespace of the test's own.

#[path = "support/kernel.rs"]
mod kernel;
mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex};
use std::thread;

use kernel::{KERNEL, STACK, bulk, config, exchange, kernel_connects, stack_connects};
use lastack::blocking;
use lastack::core::wire::transmit::RxMeta;
use lastack::core::wire::{Body, parse};
use lastack::{Capture, Device, Net, Tun, TunOptions};
use support::pattern;

#[allow(dead_code, reason = "its main opens a TUN of its own")]
#[path = "../examples/axum_server.rs"]
mod axum_server;

/// Runs `test`, which is the body of the test called `name`, in a fresh network namespace.
fn in_namespace(name: &str, test: impl FnOnce()) {
    let node = || {
        let opened = std::fs::OpenOptions::new().read(true).write(true).open("/dev/net/tun");
        opened.map(drop).map_err(|error| format!("/dev/net/tun: {error}"))
    };
    kernel::in_namespace(name, node, test);
}

fn options() -> TunOptions {
    TunOptions::new().address([10, 9, 0, 1].into(), 24).address("fd09::1".parse().unwrap(), 64).up()
}

#[test]
fn bulk_with_offload_arrives_intact() {
    in_namespace("bulk_with_offload_arrives_intact", || {
        let tun = Tun::open(&options()).unwrap();
        let capabilities = tun.capabilities();
        assert!(capabilities.checksum && capabilities.tso4 && capabilities.tso6, "{capabilities:?}");
        bulk(tun);
    });
}

#[test]
fn bulk_without_offload_arrives_intact() {
    in_namespace("bulk_without_offload_arrives_intact", || {
        bulk(Tun::open(&options().plain()).unwrap());
    });
}

#[test]
fn bulk_over_a_large_mtu_arrives_intact() {
    in_namespace("bulk_over_a_large_mtu_arrives_intact", || {
        let tun = Tun::open(&options().mtu(65_520)).unwrap();
        assert_eq!(tun.capabilities().mtu, 65_520);
        bulk(tun);
    });
}

#[test]
fn an_adopted_descriptor_keeps_its_offloads() {
    in_namespace("an_adopted_descriptor_keeps_its_offloads", || {
        let tun = Tun::open(&options()).unwrap();
        let passed = tun.as_fd().try_clone_to_owned().unwrap();
        let (name, capabilities) = (tun.name().to_owned(), tun.capabilities());
        drop(tun);
        let adopted = Tun::from_fd(passed, 1500).unwrap();
        assert_eq!((adopted.name(), adopted.capabilities()), (&*name, capabilities));
        let net = Net::spawn_thread(adopted, config()).unwrap();
        let (theirs, ours) = stack_connects(&net, KERNEL[0]);
        exchange(theirs, ours, &pattern(1_000_000));
    });
}

#[test]
fn the_kernel_reaches_an_axum_server() {
    in_namespace("the_kernel_reaches_an_axum_server", || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (net, driver) = Net::start(Tun::open(&options()).unwrap(), config()).unwrap();
        thread::spawn(move || {
            runtime.spawn(driver);
            runtime.block_on(async {
                let listener = lastack::TcpListener::bind(&net, "[fd09::2]:80").await?;
                axum_server::serve(listener).await
            })
        });
        let mut stream = loop {
            // Refused until the server listens.
            match std::net::TcpStream::connect("[fd09::2]:80") {
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => thread::yield_now(),
                result => break result.unwrap(),
            }
        };
        let body = pattern(3_000_000);
        write!(
            stream,
            "POST /length HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
            body.len()
        )
        .unwrap();
        stream.write_all(&body).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\n3000000"), "{answer}");
    });
}

#[derive(Clone, Default)]
struct File(Arc<Mutex<Vec<u8>>>);

impl Write for File {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_capture_shows_packets_of_the_wire() {
    in_namespace("a_capture_shows_packets_of_the_wire", || {
        let file = File::default();
        let tun = Capture::new(Tun::open(&options()).unwrap(), file.clone(), "tun0").unwrap();
        let (net, driver) = Net::start(tun, config()).unwrap();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.spawn(driver);
        let (theirs, ours) = kernel_connects(&net, STACK[0]);
        exchange(theirs, ours, &pattern(1_000_000));
        // The driver's end completes the file.
        drop(net);
        drop(runtime);

        let file = file.0.lock().unwrap();
        let (mut rest, mut packets, mut payload) = (&file[..], 0, 0);
        while !rest.is_empty() {
            let word = |at: usize| u32::from_le_bytes(rest[at..at + 4].try_into().unwrap()) as usize;
            if word(0) == 6 {
                let packet = bytes::Bytes::copy_from_slice(&rest[28..28 + word(20)]);
                assert!(packet.len() <= 1500);
                let parsed = parse(&packet, RxMeta::default()).expect("well formed, checksums finished");
                if let Body::Tcp(segment) = parsed.body {
                    packets += 1;
                    payload += segment.payload.len();
                }
            }
            rest = &rest[word(4)..];
        }
        assert!(packets > 1400, "{packets} packets");
        assert!(payload >= 2_000_000, "{payload} bytes");
    });
}

#[test]
fn both_sides_see_the_errors_linux_gives() {
    in_namespace("both_sides_see_the_errors_linux_gives", || {
        let net = Net::spawn_thread(Tun::open(&options()).unwrap(), config()).unwrap();
        let refused = std::net::TcpStream::connect("10.9.0.2:9").unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        let refused = blocking::TcpStream::connect(&net, "10.9.0.1:9").unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);

        // Closed with data unread: a reset, in either direction.
        let (mut theirs, mut ours) = kernel_connects(&net, STACK[0]);
        theirs.write_all(b"x").unwrap();
        ours.wait_readiness(lastack::Readiness::READABLE).unwrap();
        drop(ours);
        assert_eq!(theirs.read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::ConnectionReset);

        (theirs, ours) = kernel_connects(&net, STACK[0]);
        ours.write_all(b"x").unwrap();
        theirs.peek(&mut [0; 1]).unwrap();
        drop(theirs);
        assert_eq!(ours.read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::ConnectionReset);

        // Half closed: the other direction still carries the answer.
        (theirs, ours) = stack_connects(&net, KERNEL[1]);
        theirs.write_all(b"question").unwrap();
        theirs.shutdown(Shutdown::Write).unwrap();
        let mut text = String::new();
        ours.read_to_string(&mut text).unwrap();
        ours.write_all(text.to_uppercase().as_bytes()).unwrap();
        drop(ours);
        text.clear();
        theirs.read_to_string(&mut text).unwrap();
        assert_eq!(text, "QUESTION");
    });
}

#[test]
fn a_thousand_short_connections_leave_only_time_wait() {
    in_namespace("a_thousand_short_connections_leave_only_time_wait", || {
        use lastack::core::tcp::state::TcpState;
        let net = Net::spawn_thread(Tun::open(&options()).unwrap(), config()).unwrap();
        let listener = blocking::TcpListener::bind(&net, "10.9.0.2:80").unwrap();
        thread::scope(|scope| {
            scope.spawn(|| {
                for stream in listener.incoming().take(1000) {
                    let mut stream = stream.unwrap();
                    stream.write_all(b"bye").unwrap();
                }
            });
            for _ in 0..1000 {
                let mut stream = std::net::TcpStream::connect("10.9.0.2:80").unwrap();
                let mut text = String::new();
                stream.read_to_string(&mut text).unwrap();
                assert_eq!(text, "bye");
            }
        });
        // The server closed first, so that it has the TIME-WAITs; the clients' last FINs may be on their way.
        drop(listener);
        let is_done = |row: &lastack::core::observe::SocketRow| row.state == TcpState::TimeWait;
        while !net.sockets().iter().all(is_done) {
            thread::yield_now();
        }
        assert_eq!(net.socket_count(), 1000);
    });
}

#[test]
fn datagrams_pass_whole_or_in_fragments() {
    in_namespace("datagrams_pass_whole_or_in_fragments", || {
        let net = Net::spawn_thread(Tun::open(&options()).unwrap(), config()).unwrap();
        for (kernel, stack) in KERNEL.into_iter().zip(STACK) {
            let theirs = std::net::UdpSocket::bind(kernel).unwrap();
            let ours = blocking::UdpSocket::bind(&net, stack).unwrap();
            let address: SocketAddr = ours.local_addr().unwrap();
            let mut buf = vec![0; 65_536];
            for len in [0, 1, 1400, 30_000] {
                let data = pattern(len);
                theirs.send_to(&data, address).unwrap();
                let (got, from) = ours.recv_from(&mut buf).unwrap();
                assert_eq!((&buf[..got], from), (&data[..], theirs.local_addr().unwrap()));
                ours.send_to(&data, from).unwrap();
                assert_eq!(theirs.recv_from(&mut buf).unwrap(), (len, address));
                assert!(buf[..len] == data);
            }
        }
    });
}
