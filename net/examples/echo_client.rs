//! A client: sends what it reads from standard input to an echo server of the kernel and prints what comes back.
//!
//! As root: `socat TCP-LISTEN:7,fork EXEC:cat &`, then `echo hello | cargo run --example echo_client`.

mod common;

use std::io::{self, Read, Write};
use std::net::Shutdown;

use lastack::Net;
use lastack::blocking::TcpStream;

fn main() -> io::Result<()> {
    let net = common::net()?;
    let mut text = Vec::new();
    io::stdin().read_to_end(&mut text)?;
    let echoed = echo(&net, "10.9.0.1:7", &text)?;
    io::stdout().write_all(&echoed)
}

/// Sends `data`, ends the sending direction, and reads to the end. Both at once: an echo server that is not read
/// stops reading.
pub(crate) fn echo(net: &Net, server: &str, data: &[u8]) -> io::Result<Vec<u8>> {
    let stream = TcpStream::connect(net, server)?;
    std::thread::scope(|scope| {
        let sending = scope.spawn(|| {
            (&stream).write_all(data)?;
            stream.shutdown(Shutdown::Write)
        });
        let mut echoed = Vec::with_capacity(data.len());
        (&stream).read_to_end(&mut echoed)?;
        sending.join().expect("the sender does not panic")?;
        Ok(echoed)
    })
}
