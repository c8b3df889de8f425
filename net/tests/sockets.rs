//! The tokio sockets behave as tokio's on Linux do.

mod support;

use std::future::Future;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use lastack::core::tcp::state::TcpState;
use lastack::{
    AnyOptions, Config, Datagram, ListenOptions, Memory, Net, Readiness, TcpListener, TcpOptions, TcpStream,
    UdpAny, UdpSocket, Unreachable,
};
use support::{pair, pattern};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Fails a test that hangs, instead of hanging with it.
async fn in_time<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), future).await.expect("the test hangs")
}

async fn connected(server: &Net, client: &Net) -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind(server, "10.0.0.1:0").await.unwrap();
    let stream = TcpStream::connect(client, listener.local_addr().unwrap()).await.unwrap();
    (listener.accept().await.unwrap().0, stream)
}

#[tokio::test]
async fn megabytes_arrive_intact_both_ways_at_once() {
    let (server, client) = pair();
    let (mut one, mut two) = connected(&server, &client).await;
    let data = pattern(3_000_000);
    let ((mut read_one, mut write_one), (mut read_two, mut write_two)) = (one.split(), two.split());
    let (mut got_one, mut got_two) = (Vec::new(), Vec::new());
    in_time(async {
        tokio::try_join!(
            async {
                write_one.write_all(&data).await?;
                write_one.shutdown().await
            },
            async {
                write_two.write_all(&data).await?;
                write_two.shutdown().await
            },
            async { read_one.read_to_end(&mut got_one).await.map(drop) },
            async { read_two.read_to_end(&mut got_two).await.map(drop) },
        )
        .unwrap();
    })
    .await;
    assert!(got_one == data && got_two == data);
}

#[tokio::test]
async fn connections_over_ipv6_work_too() {
    let (server, client) = pair();
    let listener = TcpListener::bind(&server, "[fd00::1]:80").await.unwrap();
    let mut stream = in_time(TcpStream::connect(&client, "[fd00::1]:80")).await.unwrap();
    stream.write_all(b"six").await.unwrap();
    drop(stream);
    let (mut accepted, peer) = in_time(listener.accept()).await.unwrap();
    assert!(peer.is_ipv6());
    let mut text = String::new();
    in_time(accepted.read_to_string(&mut text)).await.unwrap();
    assert_eq!(text, "six");
}

#[tokio::test]
async fn a_port_without_a_listener_refuses() {
    let (_server, client) = pair();
    let error = in_time(TcpStream::connect(&client, "10.0.0.1:9")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
}

#[tokio::test]
async fn a_port_is_listened_on_once() {
    let (server, _client) = pair();
    let listener = TcpListener::bind(&server, "10.0.0.1:80").await.unwrap();
    let error = TcpListener::bind(&server, "10.0.0.1:80").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AddrInUse);
    drop(listener);
    TcpListener::bind(&server, "10.0.0.1:80").await.unwrap();
    let error = TcpListener::bind(&server, "10.99.0.1:80").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AddrNotAvailable);
}

#[tokio::test]
async fn a_half_closed_connection_still_carries_the_answer() {
    let (server, client) = pair();
    let (mut accepted, mut stream) = connected(&server, &client).await;
    in_time(async {
        stream.write_all(b"question").await.unwrap();
        stream.shutdown().await.unwrap();
        let mut question = String::new();
        accepted.read_to_string(&mut question).await.unwrap();
        accepted.write_all(b"answer").await.unwrap();
        drop(accepted);
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert_eq!((&*question, &*answer), ("question", "answer"));
        let error = stream.write(b"more").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BrokenPipe);
    })
    .await;
}

#[tokio::test]
async fn dropping_with_unread_data_resets() {
    let (server, client) = pair();
    let (accepted, mut stream) = connected(&server, &client).await;
    in_time(async {
        stream.write_all(b"never read").await.unwrap();
        accepted.readable().await.unwrap();
        drop(accepted);
        let error = stream.read(&mut [0; 8]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        // Told once, then end of file.
        assert_eq!(stream.read(&mut [0; 8]).await.unwrap(), 0);
    })
    .await;
}

#[tokio::test]
async fn linger_zero_and_abort_reset() {
    let (server, client) = pair();
    for abort in [false, true] {
        let (accepted, mut stream) = connected(&server, &client).await;
        if abort {
            accepted.abort();
        } else {
            accepted.set_linger(Some(Duration::ZERO)).unwrap();
            drop(accepted);
        }
        let error = in_time(stream.read(&mut [0; 8])).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset, "abort: {abort}");
    }
}

#[tokio::test]
async fn a_lingering_close_waits_until_everything_is_acknowledged() {
    let (server, client) = pair();
    let (mut accepted, mut stream) = connected(&server, &client).await;
    stream.set_linger(Some(Duration::from_secs(30))).unwrap();
    let data = pattern(300_000);
    in_time(async {
        let reader = tokio::spawn(async move {
            let mut got = Vec::new();
            accepted.read_to_end(&mut got).await.unwrap();
            got
        });
        stream.write_all(&data).await.unwrap();
        stream.close().await;
        let left = client.sockets();
        assert!(left.iter().all(|row| row.state != TcpState::FinWait1), "{left:?}");
        assert_eq!(reader.await.unwrap(), data);
    })
    .await;
}

#[tokio::test]
async fn chunks_are_the_slices_that_were_sent() {
    let (server, client) = pair();
    let (accepted, stream) = connected(&server, &client).await;
    let data = Bytes::from(pattern(200_000));
    in_time(async {
        let writer = async {
            for chunk in [data.slice(..1), data.slice(1..70_000), data.slice(70_000..)] {
                stream.write_bytes(chunk).await.unwrap();
            }
            stream.shutdown_how(std::net::Shutdown::Write).unwrap();
        };
        let reader = async {
            let mut got = Vec::new();
            while let Some(chunk) = accepted.read_chunk(50_000).await.unwrap() {
                assert!(!chunk.is_empty() && chunk.len() <= 50_000);
                got.extend_from_slice(&chunk);
            }
            got
        };
        let ((), got) = tokio::join!(writer, reader);
        assert!(got == data);
    })
    .await;
}

#[tokio::test]
async fn the_last_write_and_its_end_are_one_segment() {
    let (server, client) = pair();
    let (sender, mut receiver) = connected(&server, &client).await;
    let before = sender.tcp_info().unwrap().segs_out;
    let last = Bytes::from_static(b"that was it");
    in_time(std::future::poll_fn(|cx| sender.poll_write_last(cx, &last))).await.unwrap();
    assert_eq!(sender.tcp_info().unwrap().segs_out, before + 1);
    let mut text = String::new();
    in_time(receiver.read_to_string(&mut text)).await.unwrap();
    assert_eq!(text, "that was it");
    let error = in_time(std::future::poll_fn(|cx| sender.poll_write_last(cx, &last))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BrokenPipe);
}

#[tokio::test]
async fn a_write_waits_while_the_reader_does_not_read() {
    let (server, client) = pair();
    let (mut accepted, mut stream) = connected(&server, &client).await;
    let data = pattern(40_000_000);
    in_time(async {
        {
            let write = stream.write_all(&data);
            tokio::pin!(write);
            let early = tokio::time::timeout(Duration::from_millis(300), &mut write).await;
            assert!(early.is_err(), "40 MB went into buffers");
            let mut got = vec![0; data.len()];
            let (_, read) = tokio::join!(write, accepted.read_exact(&mut got));
            read.unwrap();
            assert!(got == data);
        }
    })
    .await;
}

#[tokio::test]
async fn halves_go_to_two_tasks_and_come_back() {
    let (server, client) = pair();
    let (accepted, stream) = connected(&server, &client).await;
    in_time(async {
        let (mut read, mut write) = stream.into_split();
        let writing = tokio::spawn(async move {
            write.write_all(b"ping").await.unwrap();
            write
        });
        let (mut accepted_read, accepted_write) = accepted.into_split();
        let mut ping = [0; 4];
        accepted_read.read_exact(&mut ping).await.unwrap();
        // Dropping the writing half ends that direction.
        drop(accepted_write);
        assert_eq!(read.read(&mut [0; 4]).await.unwrap(), 0);
        let write = writing.await.unwrap();
        let (_, other) = connected(&server, &client).await.0.into_split();
        let lastack::tcp::ReuniteError(read, _other) = read.reunite(other).unwrap_err();
        let mut stream = read.reunite(write).unwrap();
        stream.write_all(b"more").await.unwrap();
        let mut more = [0; 4];
        accepted_read.read_exact(&mut more).await.unwrap();
        assert_eq!(&more, b"more");
    })
    .await;
}

#[tokio::test]
async fn a_dropped_connect_leaves_nothing() {
    let (_server, client) = pair();
    // Nobody answers there: the SYN goes into the link and is not for the other stack.
    let connecting = TcpStream::connect(&client, "10.0.0.77:80");
    assert!(tokio::time::timeout(Duration::from_millis(50), connecting).await.is_err());
    assert_eq!(client.socket_count(), 0);
}

#[tokio::test]
async fn many_connections_at_once_are_served_and_forgotten() {
    let (server, client) = pair();
    let listener = TcpListener::bind(&server, "10.0.0.1:80").await.unwrap();
    in_time(async {
        let serving = tokio::spawn(async move {
            for _ in 0..500 {
                let (mut stream, _) = listener.accept().await.unwrap();
                tokio::spawn(async move {
                    let mut byte = [0];
                    stream.read_exact(&mut byte).await.unwrap();
                    stream.write_all(&byte).await.unwrap();
                    // The client closes first.
                    assert_eq!(stream.read(&mut byte).await.unwrap(), 0);
                });
            }
        });
        let clients: Vec<_> = (0..500_u32)
            .map(|number| {
                let client = client.clone();
                tokio::spawn(async move {
                    let mut stream = TcpStream::connect(&client, "10.0.0.1:80").await.unwrap();
                    stream.write_all(&[number as u8]).await.unwrap();
                    assert_eq!(stream.read_u8().await.unwrap(), number as u8);
                })
            })
            .collect();
        for task in clients {
            task.await.unwrap();
        }
        serving.await.unwrap();
        while server.socket_count() > 0 {
            tokio::task::yield_now().await;
        }
        assert!(client.sockets().iter().all(|row| row.state == TcpState::TimeWait));
    })
    .await;
}

#[tokio::test]
async fn options_are_set_and_read_back() {
    let (server, client) = pair();
    let (_accepted, stream) = connected(&server, &client).await;
    assert!(!stream.nodelay().unwrap());
    stream.set_nodelay(true).unwrap();
    assert!(stream.nodelay().unwrap());
    stream.set_ttl(7).unwrap();
    assert_eq!(stream.ttl().unwrap(), 7);
    assert_eq!(stream.set_ttl(256).unwrap_err().kind(), ErrorKind::InvalidInput);
    assert_eq!(stream.linger().unwrap(), None);
    assert_eq!(stream.state(), Some(TcpState::Established));
    let info = stream.tcp_info().unwrap();
    assert_eq!(info.state, 1);
    assert_ne!(stream.cookie(), 0);
    assert_eq!(stream.take_error().unwrap().map(|error| error.kind()), None);
}

#[tokio::test]
async fn a_killed_connection_tells_both_ends() {
    use lastack::core::stack::KillTarget;
    let (server, client) = pair();
    let (mut accepted, mut stream) = connected(&server, &client).await;
    assert_eq!(server.kill(KillTarget::Cookie(accepted.cookie())), Ok(TcpState::Established));
    let error = in_time(accepted.read(&mut [0; 1])).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionAborted);
    let error = in_time(stream.read(&mut [0; 1])).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_reader_learns_that_the_driver_is_gone() {
    let (left, right) = Memory::pair(1500);
    let (server, server_driver) = Net::start(left, support::config(1)).unwrap();
    let (client, client_driver) = Net::start(right, support::config(2)).unwrap();
    let server_driver = tokio::spawn(server_driver);
    tokio::spawn(client_driver);
    let (mut accepted, _stream) = connected(&server, &client).await;
    let reading = tokio::spawn(async move { accepted.read(&mut [0; 1]).await });
    tokio::task::yield_now().await;
    server_driver.abort();
    let error = in_time(reading).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotConnected);
    assert!(TcpListener::bind(&server, "10.0.0.1:81").await.is_err());
}

#[tokio::test]
async fn the_driver_ends_when_nothing_is_left() {
    let (left, _right) = Memory::pair(1500);
    let (net, driver) = Net::start(left, support::config(1)).unwrap();
    let driver = tokio::spawn(driver);
    let listener = TcpListener::bind(&net, "10.0.0.1:80").await.unwrap();
    drop(net);
    tokio::task::yield_now().await;
    assert!(!driver.is_finished());
    drop(listener);
    in_time(driver).await.unwrap().unwrap();
}

// ---- accept-any

fn any(server: &Net) -> lastack::Incoming {
    server.incoming(AnyOptions::default()).unwrap()
}

fn connect(client: &Net, to: &str) -> tokio::task::JoinHandle<std::io::Result<TcpStream>> {
    let (client, to) = (client.clone(), to.to_owned());
    tokio::spawn(async move { TcpStream::connect(&client, to).await })
}

/// A pair whose server takes packets for any address.
fn any_pair() -> (Net, Net) {
    let (left, right) = Memory::pair(1500);
    let config = Config { any_address: true, ..support::config(1) };
    let (server, server_driver) = Net::start(left, config).unwrap();
    let (client, client_driver) = Net::start(right, support::config(2)).unwrap();
    tokio::spawn(server_driver);
    tokio::spawn(client_driver);
    (server, client)
}

#[tokio::test]
async fn a_pending_connection_is_accepted_under_the_address_it_asked_for() {
    let (server, client) = any_pair();
    let mut incoming = any(&server);
    in_time(async {
        let connecting = connect(&client, "192.0.2.80:8080");
        let pending = incoming.next().await.unwrap();
        assert_eq!(pending.destination(), "192.0.2.80:8080".parse::<SocketAddr>().unwrap());
        assert!(!connecting.is_finished(), "nothing was answered yet");
        let cookie = pending.cookie();
        let mut accepted = pending.accept().await.unwrap();
        assert_eq!(accepted.cookie(), cookie);
        let mut stream = connecting.await.unwrap().unwrap();
        stream.write_all(b"x").await.unwrap();
        assert_eq!(accepted.read_u8().await.unwrap(), b'x');
        assert_eq!(accepted.local_addr().unwrap(), "192.0.2.80:8080".parse().unwrap());
    })
    .await;
}

/// The stack gives the index of an ended SYN to the next one; the first one's owner may not have looked yet.
#[tokio::test]
async fn an_accept_that_is_looked_at_late_keeps_its_connection() {
    let (server, client) = any_pair();
    let mut incoming = any(&server);
    in_time(async {
        let first = connect(&client, "192.0.2.80:1");
        let mut late = Box::pin(incoming.next().await.unwrap().accept());
        let is_pending = std::future::poll_fn(|cx| Poll::Ready(late.as_mut().poll(cx).is_pending())).await;
        assert!(is_pending, "the SYN-ACK has only just been sent");
        let mut stream = first.await.unwrap().unwrap();
        stream.write_all(b"1").await.unwrap();
        // Its end has come once the server's stack has the byte; nobody looks at it.
        while server.sockets().iter().all(|row| row.recv_q != 1) {
            tokio::task::yield_now().await;
        }
        let second = connect(&client, "192.0.2.80:2");
        let mut prompt = incoming.next().await.unwrap().accept().await.unwrap();
        let mut other = second.await.unwrap().unwrap();
        other.write_all(b"2").await.unwrap();
        assert_eq!(prompt.read_u8().await.unwrap(), b'2');
        assert_eq!(late.await.unwrap().read_u8().await.unwrap(), b'1');
    })
    .await;
}

#[tokio::test]
async fn the_other_decisions_give_the_client_linux_errors() {
    let (server, client) = any_pair();
    let mut incoming = any(&server);
    in_time(async {
        let connecting = connect(&client, "192.0.2.80:1");
        incoming.next().await.unwrap().refuse().unwrap();
        assert_eq!(connecting.await.unwrap().unwrap_err().kind(), ErrorKind::ConnectionRefused);

        for (why, kind) in [
            (Unreachable::Host, ErrorKind::HostUnreachable),
            (Unreachable::Net, ErrorKind::NetworkUnreachable),
            (Unreachable::Port, ErrorKind::ConnectionRefused),
        ] {
            let connecting = connect(&client, "192.0.2.80:2");
            incoming.next().await.unwrap().unreachable(why).unwrap();
            assert_eq!(connecting.await.unwrap().unwrap_err().kind(), kind, "{why:?}");
        }

        // Dropped: the repeated SYN is pending anew.
        let connecting = connect(&client, "192.0.2.80:3");
        drop(incoming.next().await.unwrap());
        let again = incoming.next().await.unwrap();
        let _accepted = again.accept().await.unwrap();
        connecting.await.unwrap().unwrap();
    })
    .await;
    assert_eq!(server.counters().pending_dropped, 1);
}

#[tokio::test]
async fn whoever_holds_a_pending_connection_learns_that_its_sender_gave_up() {
    let (server, client) = any_pair();
    let mut incoming = any(&server);
    in_time(async {
        let connecting = {
            let client = client.clone();
            tokio::spawn(async move {
                let remote = "192.0.2.80:1".parse().unwrap();
                TcpStream::connect_with(
                    &client,
                    remote,
                    Some("10.0.0.2:4000".parse().unwrap()),
                    TcpOptions::default(),
                )
                .await
            })
        };
        let mut pending = incoming.next().await.unwrap();
        // A new attempt from the same port with another number takes the old one's place.
        connecting.abort();
        let _ = connecting.await;
        let again = {
            let client = client.clone();
            tokio::spawn(async move {
                let remote = "192.0.2.80:1".parse().unwrap();
                let local = Some("10.0.0.2:4000".parse().unwrap());
                TcpStream::connect_with(&client, remote, local, TcpOptions::default()).await
            })
        };
        assert_eq!(pending.gone().await.kind(), ErrorKind::ConnectionReset);
        assert_eq!(pending.accept().await.unwrap_err().kind(), ErrorKind::ConnectionReset);
        let _accepted = incoming.next().await.unwrap().accept().await.unwrap();
        again.await.unwrap().unwrap();
    })
    .await;
}

#[tokio::test]
async fn an_abandoned_accept_resets_the_client() {
    let (server, client) = any_pair();
    let mut incoming = any(&server);
    in_time(async {
        let connecting = connect(&client, "192.0.2.80:1");
        let pending = incoming.next().await.unwrap();
        {
            let accepting = pending.accept();
            tokio::pin!(accepting);
            // One poll sends the SYN-ACK; then the caller loses interest.
            std::future::poll_fn(|cx| {
                assert!(accepting.as_mut().poll(cx).is_pending());
                std::task::Poll::Ready(())
            })
            .await;
        }
        let mut stream = connecting.await.unwrap().unwrap();
        let error = stream.read(&mut [0; 1]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        while server.socket_count() > 1 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_listener_goes_before_accept_any() {
    let (server, client) = any_pair();
    let mut incoming = any(&server);
    assert_eq!(server.incoming(AnyOptions::default()).unwrap_err().kind(), ErrorKind::AddrInUse);
    let listener =
        TcpListener::bind_with(&server, ListenOptions::new("10.0.0.1:80".parse().unwrap())).unwrap();
    in_time(async {
        let connecting = connect(&client, "10.0.0.1:80");
        listener.accept().await.unwrap();
        connecting.await.unwrap().unwrap();
        let connecting = connect(&client, "10.0.0.1:81");
        let pending = incoming.next().await.unwrap();
        assert_eq!(pending.destination().port(), 81);
        pending.refuse().unwrap();
        connecting.await.unwrap().unwrap_err();
    })
    .await;
}

// ---- UDP

#[tokio::test]
async fn datagrams_go_both_ways_and_refusals_come_back() {
    let (server, client) = pair();
    in_time(async {
        let one = UdpSocket::bind(&server, "10.0.0.1:53").await.unwrap();
        let two = UdpSocket::bind(&client, "10.0.0.2:0").await.unwrap();
        two.send_to(b"question", "10.0.0.1:53".parse().unwrap()).await.unwrap();
        let mut buf = [0; 4];
        let (len, from) = one.recv_from(&mut buf).await.unwrap();
        assert_eq!((&buf[..len], from), (&b"ques"[..], two.local_addr().unwrap()));
        one.send_bytes_to(Bytes::from(pattern(1400)), from).await.unwrap();
        assert_eq!(two.recv().await.unwrap().data, pattern(1400));
    })
    .await;
}

#[tokio::test]
async fn every_datagram_nobody_wants_goes_to_udp_any() {
    let (server, client) = any_pair();
    in_time(async {
        let any = UdpAny::bind(&server).unwrap();
        let socket = UdpSocket::bind(&client, "10.0.0.2:0").await.unwrap();
        let to = "198.51.100.7:53".parse().unwrap();
        socket.send_to(b"who", to).await.unwrap();
        let question = any.recv().await.unwrap();
        assert_eq!(
            (question.from, question.to, &*question.data),
            (socket.local_addr().unwrap(), to, &b"who"[..])
        );
        let answer =
            Datagram { from: to, to: question.from, data: Bytes::from_static(b"me"), dont_fragment: false };
        any.send(&answer).await.unwrap();
        // What leaves a stack says so.
        assert_eq!(socket.recv().await.unwrap(), Datagram { dont_fragment: true, ..answer });
    })
    .await;
}

#[tokio::test]
async fn readiness_tells_the_peers_close() {
    let (server, client) = pair();
    let (accepted, stream) = connected(&server, &client).await;
    in_time(async {
        drop(accepted);
        let ready = stream.wait_readiness(Readiness::PEER_CLOSED).await.unwrap();
        assert!(ready.intersects(Readiness::READABLE));
        assert_eq!(stream.try_read(&mut [0; 1]).unwrap(), 0);
    })
    .await;
}

#[tokio::test]
async fn urgent_data_is_apart_from_the_stream_and_a_peek_takes_nothing() {
    let (server, client) = pair();
    in_time(async {
        let (mut left, mut right) = connected(&server, &client).await;
        left.write_all(b"ab").await.unwrap();
        assert_eq!(left.send_oob(b"cD").await.unwrap(), 2);
        right.wait_readiness(Readiness::PRIORITY).await.unwrap();
        let mut buf = [0; 16];
        assert_eq!(right.peek(&mut buf).await.unwrap(), 3);
        assert_eq!(right.read(&mut buf).await.unwrap(), 3);
        assert_eq!(&buf[..3], b"abc");
        assert!(right.is_at_mark());
        assert_eq!(right.recv_oob().unwrap(), Some(b'D'));
        assert_eq!(right.recv_oob().unwrap_err().kind(), std::io::ErrorKind::InvalidInput);
        left.write_all(b"e").await.unwrap();
        assert_eq!(right.read(&mut buf).await.unwrap(), 1);
        assert_eq!(buf[0], b'e');
        assert!(!right.is_at_mark());
    })
    .await;
}
