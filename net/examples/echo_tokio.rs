//! An echo server with a tokio task a connection, all in one thread with the stack itself.
//!
//! As root: `cargo run --example echo_tokio`, then `nc 10.9.0.2 7`.

mod common;

use std::io;

use lastack::{Net, TcpListener};

#[tokio::main(flavor = "current_thread")]
async fn main() -> io::Result<()> {
    let (net, driver) = Net::start(common::tun()?, common::config())?;
    let listener = TcpListener::bind(&net, "10.9.0.2:7").await?;
    tokio::select! {
        result = driver => result,
        result = serve(listener) => result,
    }
}

/// Serves for ever.
pub(crate) async fn serve(listener: TcpListener) -> io::Result<()> {
    loop {
        let (mut stream, peer) = listener.accept().await?;
        tokio::spawn(async move {
            let (mut read, mut write) = stream.split();
            if let Err(error) = tokio::io::copy(&mut read, &mut write).await {
                eprintln!("{peer} went away: {error}");
            }
        });
    }
}
