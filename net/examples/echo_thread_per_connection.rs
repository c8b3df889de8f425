//! An echo server with a thread a connection. Chunks go back as the slices they came in: nothing is copied.
//!
//! As root: `cargo run --example echo_thread_per_connection`, then `nc 10.9.0.2 7`.

mod common;

use std::io;

use lastack::blocking::{TcpListener, TcpStream};

fn main() -> io::Result<()> {
    let net = common::net()?;
    serve(&TcpListener::bind(&net, "10.9.0.2:7")?)
}

/// Serves for ever.
pub(crate) fn serve(listener: &TcpListener) -> io::Result<()> {
    for stream in listener.incoming() {
        let stream = stream?;
        std::thread::spawn(move || {
            if let Err(error) = echo(&stream) {
                eprintln!("a client went away: {error}");
            }
        });
    }
    Ok(())
}

fn echo(stream: &TcpStream) -> io::Result<()> {
    while let Some(chunk) = stream.read_chunk(64 * 1024)? {
        stream.write_bytes(&chunk)?;
    }
    Ok(())
}
