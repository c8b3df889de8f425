//! The sockets for threads behave as std's on Linux do.

mod support;

use std::io::{ErrorKind, IoSlice, Read, Write};
use std::net::Shutdown;
use std::time::Duration;

use lastack::Net;
use lastack::blocking::{self, TcpListener, TcpStream, UdpSocket};
use support::{pair_of_threads, pattern};

fn connected(server: &Net, client: &Net) -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind(server, "10.0.0.1:0").unwrap();
    let stream = TcpStream::connect(client, listener.local_addr().unwrap()).unwrap();
    (listener.accept().unwrap().0, stream)
}

#[test]
fn clones_in_two_threads_read_and_write_at_once() {
    let (server, client) = pair_of_threads();
    let (accepted, stream) = connected(&server, &client);
    let data = pattern(2_000_000);
    std::thread::scope(|scope| {
        for end in [accepted, stream] {
            let mut writer = end.try_clone().unwrap();
            let data = &data;
            scope.spawn(move || {
                writer.write_all(data).unwrap();
                writer.shutdown(Shutdown::Write).unwrap();
            });
            scope.spawn(move || {
                let mut got = Vec::new();
                (&end).read_to_end(&mut got).unwrap();
                assert!(got == *data);
            });
        }
    });
}

#[test]
fn a_read_that_waits_too_long_would_block() {
    let (server, client) = pair_of_threads();
    let (mut accepted, _stream) = connected(&server, &client);
    accepted.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    assert_eq!(accepted.read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::WouldBlock);
    assert_eq!(accepted.set_read_timeout(Some(Duration::ZERO)).unwrap_err().kind(), ErrorKind::InvalidInput);
}

#[test]
fn a_connect_that_waits_too_long_times_out_and_leaves_nothing() {
    let (_server, client) = pair_of_threads();
    let nobody = "10.0.0.77:80".parse().unwrap();
    let error = TcpStream::connect_timeout(&client, &nobody, Duration::from_millis(20)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    assert_eq!(client.socket_count(), 0);
    let error = TcpStream::connect(&client, "10.0.0.1:9").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
}

#[test]
fn a_vectored_write_takes_its_slices_in_order() {
    let (server, client) = pair_of_threads();
    let (mut accepted, mut stream) = connected(&server, &client);
    let slices = [IoSlice::new(b"one "), IoSlice::new(b""), IoSlice::new(b"two")];
    assert_eq!(stream.write_vectored(&slices).unwrap(), 7);
    drop(stream);
    let mut text = String::new();
    accepted.read_to_string(&mut text).unwrap();
    assert_eq!(text, "one two");
}

#[test]
fn dropping_a_lingering_stream_waits_until_everything_is_acknowledged() {
    let (server, client) = pair_of_threads();
    let (mut accepted, mut stream) = connected(&server, &client);
    let data = pattern(300_000);
    std::thread::scope(|scope| {
        let reader = scope.spawn(move || {
            let mut got = Vec::new();
            accepted.read_to_end(&mut got).unwrap();
            got
        });
        stream.set_linger(Some(Duration::from_secs(30))).unwrap();
        stream.write_all(&data).unwrap();
        let cookie = stream.cookie();
        drop(stream);
        let row = client.sockets().into_iter().find(|row| row.cookie == cookie);
        assert!(row.as_ref().is_none_or(|row| row.send_q == 0), "{row:?}");
        assert!(reader.join().unwrap() == data);
    });
}

#[test]
fn pending_connections_are_decided_by_threads_too() {
    let (left, right) = lastack::Memory::pair(1500);
    let config = lastack::Config { any_address: true, ..support::config(1) };
    let server = Net::spawn_thread(left, config).unwrap();
    let client = Net::spawn_thread(right, support::config(2)).unwrap();
    let mut incoming = blocking::incoming(&server, lastack::AnyOptions::default()).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let error = TcpStream::connect(&client, "192.0.2.9:1").unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
            let mut stream = TcpStream::connect(&client, "192.0.2.9:2").unwrap();
            stream.write_all(b"x").unwrap();
        });
        incoming.next().unwrap().unwrap().refuse().unwrap();
        let mut accepted = incoming.next().unwrap().unwrap().accept_blocking().unwrap();
        let mut text = String::new();
        accepted.read_to_string(&mut text).unwrap();
        assert_eq!(text, "x");
    });
}

#[test]
fn datagrams_go_both_ways() {
    let (server, client) = pair_of_threads();
    let one = UdpSocket::bind(&server, "10.0.0.1:53").unwrap();
    let two = UdpSocket::bind(&client, "10.0.0.2:0").unwrap();
    two.send_to(b"question", one.local_addr().unwrap()).unwrap();
    let mut buf = [0; 64];
    let (len, from) = one.recv_from(&mut buf).unwrap();
    assert_eq!(&buf[..len], b"question");
    one.send_to(b"answer", from).unwrap();
    let (len, from) = two.recv_from(&mut buf).unwrap();
    assert_eq!((&buf[..len], from), (&b"answer"[..], one.local_addr().unwrap()));
}
