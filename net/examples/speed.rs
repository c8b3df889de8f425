//! Discard on port 9 and zeroes without end on port 19: how fast the stack is against this machine's kernel.
//!
//! As root: `cargo run --release --example speed`, then
//! `head -c 20G /dev/zero | nc -N 10.9.0.2 9` and `nc 10.9.0.2 19 | head -c 20G >/dev/null`.
//! `--plain` opens the TUN without offload.

mod common;

use std::io;

use bytes::Bytes;
use lastack::{Net, TcpListener, TcpStream, Tun, TunOptions};

#[tokio::main(flavor = "current_thread")]
async fn main() -> io::Result<()> {
    let mut options = TunOptions::new().address([10, 9, 0, 1].into(), 24).up();
    if std::env::args().any(|argument| argument == "--plain") {
        options = options.plain();
    }
    let tun = Tun::open(&options)?;
    let (net, driver) = Net::start(tun, common::config())?;
    tokio::spawn(serve(TcpListener::bind(&net, "10.9.0.2:9").await?, discard));
    tokio::spawn(serve(TcpListener::bind(&net, "10.9.0.2:19").await?, zeroes));
    driver.await
}

async fn serve<Session: Future<Output = io::Result<()>> + Send + 'static>(
    listener: TcpListener,
    session: fn(TcpStream) -> Session,
) -> io::Result<()> {
    loop {
        let (stream, peer) = listener.accept().await?;
        tokio::spawn(async move {
            if let Err(error) = session(stream).await {
                eprintln!("{peer} went away: {error}");
            }
        });
    }
}

async fn discard(stream: TcpStream) -> io::Result<()> {
    while stream.read_chunk(usize::MAX).await?.is_some() {}
    Ok(())
}

async fn zeroes(stream: TcpStream) -> io::Result<()> {
    let zeroes = Bytes::from(vec![0; 64 * 1024]);
    loop {
        stream.write_bytes(zeroes.clone()).await?;
    }
}
