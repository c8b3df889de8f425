//! Two stacks joined by a bad link: how TCP fares at 3 % loss, 10 ms each way and 20 Mbit/s.
//!
//! Needs no permission: `cargo run --example bad_link`. The same seed loses the same packets again.

use std::io;
use std::time::Duration;

use lastack::impair::{Conditions, Handle, Impaired, Loss, Rule, Share};
use lastack::{Config, Memory, Net, TcpListener, TcpStream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[tokio::main(flavor = "current_thread")]
async fn main() -> io::Result<()> {
    let conditions = Conditions {
        loss: Loss::Random(Share::percent(3.0)),
        delay: Duration::from_millis(10),
        rate: Some(20_000_000),
        ..Conditions::default()
    };
    let (received, retransmits, link) = transfer(conditions, 7, 1 << 20).await?;
    let report = &link.report().rules[0];
    println!("{} bytes arrived, {retransmits} segments were sent again", received.len());
    println!("server to client: {:?} {:?}", report.outbound.counters, report.outbound.delays);
    println!("client to server: {:?} {:?}", report.inbound.counters, report.inbound.delays);
    Ok(())
}

/// Sends `len` bytes over a link in `conditions`: what arrived, how many segments were sent again, and the link.
pub(crate) async fn transfer(
    conditions: Conditions,
    seed: u64,
    len: usize,
) -> io::Result<(Vec<u8>, u32, Handle)> {
    let at = |last| Config { addresses: vec![([10, 0, 0, last].into(), 24)], ..Config::default() };
    let (left, right) = Memory::pair(1500);
    // Around one end is enough: it has both directions.
    let (left, link) = Impaired::new(left, seed, vec![Rule::all(conditions)])?;
    let (server, server_driver) = Net::start(left, at(1))?;
    let (client, client_driver) = Net::start(right, at(2))?;
    tokio::spawn(server_driver);
    tokio::spawn(client_driver);

    let listener = TcpListener::bind(&server, "10.0.0.1:80").await?;
    let mut stream = TcpStream::connect(&client, "10.0.0.1:80").await?;
    let (mut accepted, _) = listener.accept().await?;
    let send = async {
        accepted.write_all(&vec![7; len]).await?;
        accepted.shutdown().await
    };
    let mut received = Vec::new();
    let (sent, read) = tokio::join!(send, stream.read_to_end(&mut received));
    sent.and(read)?;
    Ok((received, accepted.tcp_info().map_or(0, |info| info.total_retrans), link))
}
