//! The examples do what they say, over a link inside the process.

#![allow(clippy::duplicate_mod, reason = "each example brings its own copy of the small module it shares")]

mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::Shutdown;

use lastack::Net;
use lastack::blocking::{TcpListener, TcpStream};
use support::{pair_of_threads, pattern};

#[allow(dead_code, reason = "its main opens a TUN")]
#[path = "../examples/axum_server.rs"]
mod axum_server;
#[allow(dead_code, reason = "the test does what its main does")]
#[path = "../examples/bad_link.rs"]
mod bad_link;
#[allow(dead_code, reason = "its main opens a TUN")]
#[path = "../examples/command_server.rs"]
mod command_server;
#[allow(dead_code, reason = "its main opens a TUN")]
#[path = "../examples/echo_client.rs"]
mod echo_client;
#[allow(dead_code, reason = "its main opens a TUN")]
#[path = "../examples/echo_single_thread.rs"]
mod echo_single_thread;
#[allow(dead_code, reason = "its main opens a TUN")]
#[path = "../examples/echo_thread_per_connection.rs"]
mod echo_thread_per_connection;
#[allow(dead_code, reason = "its main opens a TUN")]
#[path = "../examples/echo_thread_pool.rs"]
mod echo_thread_pool;
#[allow(dead_code, reason = "its main opens a TUN")]
#[path = "../examples/echo_tokio.rs"]
mod echo_tokio;

const ADDRESS: &str = "10.0.0.1:7";

/// Eight clients at once, each with its own bytes.
fn echoes(client: &Net) {
    std::thread::scope(|scope| {
        for number in 0..8 {
            scope.spawn(move || {
                let data = pattern(100_000 + number);
                let echoed = echo_client::echo(client, ADDRESS, &data[number..]).unwrap();
                assert!(echoed == data[number..]);
            });
        }
    });
}

fn listener(server: &Net) -> TcpListener {
    TcpListener::bind(server, ADDRESS).unwrap()
}

#[test]
fn one_thread_echoes() {
    let (server, client) = pair_of_threads();
    let listener = listener(&server);
    std::thread::spawn(move || echo_single_thread::serve(&listener));
    echoes(&client);
}

#[test]
fn a_thread_a_connection_echoes() {
    let (server, client) = pair_of_threads();
    let listener = listener(&server);
    std::thread::spawn(move || echo_thread_per_connection::serve(&listener));
    echoes(&client);
}

#[test]
fn a_thread_pool_echoes() {
    let (server, client) = pair_of_threads();
    let listener = listener(&server);
    std::thread::spawn(move || echo_thread_pool::serve(&listener, 3));
    echoes(&client);
}

/// Runs a server in a runtime beside the stack's thread.
fn in_runtime(future: impl Future<Output = std::io::Result<()>> + Send + 'static) {
    std::thread::spawn(move || {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
    });
}

#[test]
fn tokio_echoes() {
    let (server, client) = pair_of_threads();
    let listener =
        lastack::TcpListener::bind_with(&server, lastack::ListenOptions::new(ADDRESS.parse().unwrap()))
            .unwrap();
    in_runtime(echo_tokio::serve(listener));
    echoes(&client);
}

#[test]
fn only_listed_commands_run() {
    let (server, client) = pair_of_threads();
    let listener = listener(&server);
    std::thread::spawn(move || command_server::serve(&listener));
    let stream = TcpStream::connect(&client, ADDRESS).unwrap();
    (&stream).write_all(b"kernel\nrm -rf /\n").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut lines = BufReader::new(&stream).lines().map(Result::unwrap);
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    assert_eq!(lines.next().unwrap(), kernel.trim());
    assert_eq!(lines.next().unwrap(), "refused; allowed: date uptime kernel memory");
    assert_eq!(lines.next(), None);
}

#[test]
fn axum_serves() {
    let (server, client) = pair_of_threads();
    let listener =
        lastack::TcpListener::bind_with(&server, lastack::ListenOptions::new(ADDRESS.parse().unwrap()))
            .unwrap();
    in_runtime(axum_server::serve(listener));
    let mut stream = TcpStream::connect(&client, ADDRESS).unwrap();
    stream.write_all(b"GET /zeroes/200000 HTTP/1.1\r\nhost: stack\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200 OK\r\n"));
    assert!(answer.ends_with(&[0; 200_000]));
}

#[tokio::test(flavor = "current_thread")]
async fn a_bad_link_loses_packets_and_no_bytes() {
    use lastack::impair::{Conditions, Loss, Share};
    let conditions = Conditions {
        loss: Loss::Random(Share::percent(3.0)),
        delay: std::time::Duration::from_millis(2),
        reorder: Share::percent(2.0),
        duplicate: Share::percent(2.0),
        ..Conditions::default()
    };
    let (received, retransmits, link) = bad_link::transfer(conditions, 7, 300_000).await.unwrap();
    assert!(received == vec![7; 300_000], "seed 7");
    let report = &link.report().rules[0];
    assert!(report.outbound.counters.lost > 0 && retransmits > 0, "{report:?}");
}
