//! A driver that comes late: what waits at the device is older than the timers that came due meanwhile.

mod support;

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::time::Duration;

use lastack::{Memory, Net, TcpListener, TcpStream};
use support::{config, pattern};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// The machine has no time for this thread.
#[allow(clippy::disallowed_methods, reason = "what is tested is time that passes without the driver")]
fn stand_still(time: Duration) {
    std::thread::sleep(time);
}

/// Nothing was lost, so nothing is sent twice: the acknowledgement was there before the time-out was looked at.
#[tokio::test]
async fn late_driver_reads_what_waits_before_a_timer_fires() {
    let (left, right) = Memory::pair(1500);
    let (server, server_driver) = Net::start(left, config(1)).unwrap();
    let (client, client_driver) = Net::start(right, config(2)).unwrap();
    let (mut server_driver, mut client_driver) = (pin!(server_driver), pin!(client_driver));

    let talk = async {
        let listener = TcpListener::bind(&server, "10.0.0.1:80").await.unwrap();
        let first = TcpStream::connect(&client, "10.0.0.1:80").await.unwrap();
        let (first_there, _) = listener.accept().await.unwrap();
        let second = TcpStream::connect(&client, "10.0.0.1:80").await.unwrap();
        let (second_there, _) = listener.accept().await.unwrap();
        (listener, first, first_there, second, second_there)
    };
    let mut talk = pin!(talk);
    let (_listener, mut first, mut first_there, mut second, mut second_there) = poll_fn(|cx| {
        assert!(server_driver.as_mut().poll(cx).is_pending());
        assert!(client_driver.as_mut().poll(cx).is_pending());
        talk.as_mut().poll(cx)
    })
    .await;

    // On the way to the client: a byte of the second connection, then the acknowledgement of what the first has sent.
    let data = pattern(1000);
    first.write_all(&data).await.unwrap();
    second_there.write_all(b"!").await.unwrap();
    let mut got = Vec::with_capacity(data.len());
    {
        let mut read = pin!(first_there.read_buf(&mut got));
        let read = poll_fn(|cx| {
            assert!(server_driver.as_mut().poll(cx).is_pending());
            read.as_mut().poll(cx)
        });
        assert_eq!(read.await.unwrap(), data.len());
    }
    // Longer than the least time-out (200 ms) and every loss probe: the client's driver was not run.
    stand_still(Duration::from_millis(400));
    let mut byte = [0];
    {
        let mut read = pin!(second.read_exact(&mut byte));
        poll_fn(|cx| {
            assert!(client_driver.as_mut().poll(cx).is_pending());
            read.as_mut().poll(cx)
        })
        .await
        .unwrap();
    }
    let counters = client.counters();
    let repeated =
        ["RetransSegs", "TCPLossProbes", "TCPTimeouts"].map(|name| counters.by_name(name).unwrap());
    assert_eq!(repeated, [0, 0, 0], "sent again, probes, time-outs");
}
