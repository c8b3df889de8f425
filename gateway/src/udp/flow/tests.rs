use std::net::UdpSocket as StdSocket;

use super::*;
use crate::addresses::{GUEST, HOST};
use crate::journal::Flow;
use crate::session::{GatewayConfig, Phase};
use crate::stage::{Stage, play};
use crate::udp::{Pair, blank};

fn sizes(sizes: &[usize]) -> Vec<Sent> {
    sizes.iter().map(|len| Sent { data: Bytes::from(vec![0; *len]), dont_fragment: true }).collect()
}

#[test]
fn datagrams_of_one_size_leave_together_and_a_shorter_one_is_the_last() {
    for (waiting, count) in [
        (&[100][..], 1),
        (&[100, 100, 100], 3),
        (&[100, 100, 40, 100], 3),
        (&[100, 101], 1),
        (&[100, 0], 1),
        (&[0, 0], 1),
        (&[1400; 60], 46),
    ] {
        assert_eq!(together(&sizes(waiting)), count, "{waiting:?}");
    }
    let mut mixed = sizes(&[100, 100]);
    mixed[1].dont_fragment = false;
    assert_eq!(together(&mixed), 1);
    mixed.reverse();
    assert_eq!(together(&mixed), 1);
}

/// A program's socket, and the flow from it to `peer`.
async fn flow(stage: &Stage, peer: &StdSocket) -> (lastack::UdpSocket, Pair, Flow) {
    let program = lastack::UdpSocket::bind(&stage.program, (GUEST[0].0, 4000)).await.unwrap();
    let to = peer.local_addr().unwrap();
    let pair = (SocketAddr::new(GUEST[0].0, 4000), SocketAddr::new(HOST[0], to.port()));
    let flow = Flow { host_remote: Some(to), ..blank(&stage.session, Direction::Out, pair) };
    (program, pair, flow)
}

fn tokio_socket(socket: StdSocket) -> UdpSocket {
    socket.set_nonblocking(true).unwrap();
    UdpSocket::from_std(socket).unwrap()
}

#[test]
fn what_a_stranger_sent_before_the_socket_was_connected_is_not_the_flows() {
    play(async {
        let mut stage = Stage::new(GatewayConfig::default());
        let [peer, stranger, socket] = [(); 3].map(|()| StdSocket::bind("127.0.0.1:0").unwrap());
        let at = socket.local_addr().unwrap();
        stranger.send_to(b"stranger", at).unwrap();
        socket.peek(&mut [0]).unwrap(); // waits
        socket.connect(peer.local_addr().unwrap()).unwrap();
        peer.send_to(b"peer", at).unwrap();
        let (program, pair, flow) = flow(&stage, &peer).await;
        let begun = stage.flows.enter(&stage.session, pair).unwrap();
        let carrier = Carrier::new(stage.session.clone(), stage.flows.clone(), flow);
        tokio::spawn(carrier.run(begun, async move { Ok(tokio_socket(socket)) }));
        let mut buffer = [0; 16];
        let (len, from) = program.recv_from(&mut buffer).await.unwrap();
        assert_eq!((&buffer[..len], from), (&b"peer"[..], pair.1));
        stage.session.advance(Phase::Over);
        assert_eq!(stage.flow().await.datagrams_down, 1);
    });
}

#[test]
fn a_refusal_that_waits_is_told_and_the_datagrams_behind_it_leave() {
    play(async {
        let stage = Stage::new(GatewayConfig::default());
        // An address of the loopback that nothing else uses: its port is free again below.
        let peer = StdSocket::bind("127.81.7.8:0").unwrap();
        let (program, _, flow) = flow(&stage, &peer).await;
        let to = peer.local_addr().unwrap();
        drop(peer);
        for batch in [&[b"one"][..], &[b"two", b"six"]] {
            let socket = connected(to).await.unwrap();
            socket.send(b"to nobody").await.unwrap();
            socket.ready(Interest::ERROR).await.unwrap();
            let peer = UdpSocket::bind(to).await.unwrap();
            let mut carrier = Carrier::new(stage.session.clone(), stage.flows.clone(), flow.clone());
            let sent = |data: &&[u8; 3]| Sent { data: Bytes::copy_from_slice(*data), dont_fragment: true };
            let mut waiting: Vec<_> = batch.iter().map(sent).collect();
            carrier.send_all(&socket, &mut waiting).await;
            for data in batch {
                let mut buffer = [0; 16];
                let (len, _) = peer.recv_from(&mut buffer).await.unwrap();
                assert_eq!(&buffer[..len], &data[..]);
            }
            assert_eq!(carrier.flow.how, FlowEnd::Refused);
            let error = program.recv_from(&mut [0]).await.unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::ECONNREFUSED));
        }
    });
}

#[test]
fn who_is_called_decides_how_long_silence_may_last() {
    play(async {
        let stage = Stage::new(GatewayConfig::default());
        let [name_server, other] = [("192.0.2.1", 53), ("192.0.2.1", 5300)]
            .map(|(ip, port)| SocketAddr::new(ip.parse().unwrap(), port));
        let most = stage.session.udp_idle;
        for (direction, pair, expected) in [
            (Direction::Out, (other, name_server), IDLE_DNS),
            (Direction::Out, (name_server, other), most),
            (Direction::In, (name_server, other), IDLE_DNS),
            (Direction::In, (other, name_server), most),
        ] {
            assert_eq!(
                idle(&blank(&stage.session, direction, pair), most),
                expected,
                "{direction:?} {pair:?}"
            );
        }
    });
}
