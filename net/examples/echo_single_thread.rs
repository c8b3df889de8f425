//! An echo server in one thread: one client after the other.
//!
//! As root: `cargo run --example echo_single_thread`, then `nc 10.9.0.2 7`.

mod common;

use std::io::{self, Read, Write};

use lastack::blocking::{TcpListener, TcpStream};

fn main() -> io::Result<()> {
    let net = common::net()?;
    serve(&TcpListener::bind(&net, "10.9.0.2:7")?)
}

/// Serves for ever; the others wait in the accept queue meanwhile.
pub(crate) fn serve(listener: &TcpListener) -> io::Result<()> {
    for stream in listener.incoming() {
        if let Err(error) = echo(stream?) {
            eprintln!("a client went away: {error}");
        }
    }
    Ok(())
}

fn echo(mut stream: TcpStream) -> io::Result<()> {
    let mut buf = [0; 16 * 1024];
    loop {
        match stream.read(&mut buf)? {
            // The client has finished: leaving closes the connection.
            0 => return Ok(()),
            len => stream.write_all(&buf[..len])?,
        }
    }
}
