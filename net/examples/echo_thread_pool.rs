//! An echo server with a fixed number of threads, which all wait in `accept` of the same listener.
//!
//! As root: `cargo run --example echo_thread_pool`, then `nc 10.9.0.2 7`.

mod common;

use std::io;

use lastack::blocking::{TcpListener, TcpStream};

fn main() -> io::Result<()> {
    let net = common::net()?;
    serve(&TcpListener::bind(&net, "10.9.0.2:7")?, 4)
}

/// Serves for ever, at most `threads` clients at a time; the others wait in the accept queue.
pub(crate) fn serve(listener: &TcpListener, threads: usize) -> io::Result<()> {
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(|| work(listener))).collect();
        workers.into_iter().try_for_each(|worker| worker.join().expect("a worker does not panic"))
    })
}

fn work(listener: &TcpListener) -> io::Result<()> {
    loop {
        let (stream, peer) = listener.accept()?;
        if let Err(error) = echo(&stream) {
            eprintln!("{peer} went away: {error}");
        }
    }
}

fn echo(stream: &TcpStream) -> io::Result<()> {
    while let Some(chunk) = stream.read_chunk(64 * 1024)? {
        stream.write_bytes(&chunk)?;
    }
    Ok(())
}
