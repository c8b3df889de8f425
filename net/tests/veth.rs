//! The stack and Linux's, joined by a veth pair and a packet socket in a network namespace of the test's own.

#[path = "support/kernel.rs"]
mod kernel;
mod support;

use std::net::SocketAddr;
use std::process::Command;

use kernel::{KERNEL, STACK, bulk, config, exchange, in_namespace, kernel_connects};
use lastack::{Device, Net, Veth, blocking};
use support::pattern;

/// Linux's end.
const MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x0a];

fn veth(mtu: u32) -> Veth {
    let script = format!(
        "ip link add veth0 mtu {mtu} address 02:00:00:00:00:0a type veth peer name other mtu {mtu}
         ip link set other arp off up && ip link set veth0 arp off up
         ip address add 10.9.0.1/24 dev veth0 && ip address add fd09::1/64 dev veth0 nodad"
    );
    let status = Command::new("sh").args(["-ec", &script]).status().unwrap();
    assert!(status.success(), "the pair could not be made");
    Veth::open("other", MAC).unwrap()
}

fn run(name: &str, test: impl FnOnce()) {
    in_namespace(name, || Ok(()), test);
}

#[test]
fn bulk_arrives_intact_in_super_segments() {
    run("bulk_arrives_intact_in_super_segments", || {
        let net = bulk(veth(1500));
        let link = net.link_counters();
        // 80 MB each way: in segments of the wire that would be 55,000 and their acknowledgements.
        for (packets, bytes) in [(link.rx_packets, link.rx_bytes), (link.tx_packets, link.tx_bytes)] {
            assert!(bytes > 160_000_000 / 2, "{link:?}");
            assert!(packets < 30_000, "super-segments both ways: {link:?}");
        }
    });
}

#[test]
fn bulk_over_a_large_mtu_arrives_intact() {
    run("bulk_over_a_large_mtu_arrives_intact", || {
        let veth = veth(65_520);
        assert_eq!(veth.capabilities().mtu, 65_520);
        bulk(veth);
    });
}

#[test]
fn what_finds_no_room_is_sent_again() {
    run("what_finds_no_room_is_sent_again", || {
        let veth = veth(1500);
        rustix::net::sockopt::set_socket_recv_buffer_size(&veth, 100_000).unwrap();
        assert!(veth.receive_buffer().unwrap() < 250_000);
        let net = Net::spawn_thread(veth, config()).unwrap();
        let data = pattern(3_000_000);
        let pairs: Vec<_> = (0..8).map(|i| kernel_connects(&net, STACK[i % 2])).collect();
        std::thread::scope(|scope| {
            for (theirs, ours) in pairs {
                let data = &data;
                scope.spawn(move || exchange(theirs, ours, data));
            }
        });
        println!("{:?}", net.link_counters());
    });
}

#[test]
fn drops_are_counted_once() {
    run("drops_are_counted_once", || {
        let veth = veth(1500);
        rustix::net::sockopt::set_socket_recv_buffer_size(&veth, 100_000).unwrap();
        let socket = std::net::UdpSocket::bind(KERNEL[0]).unwrap();
        // Nobody reads, and a megabyte does not fit.
        for _ in 0..1000 {
            socket
                .send_to(
                    &[0; 1000],
                    STACK[0].parse::<SocketAddr>().map(|to| SocketAddr::new(to.ip(), 9)).unwrap(),
                )
                .unwrap();
        }
        let dropped = veth.rx_dropped();
        assert!((500..1000).contains(&dropped), "{dropped} of 1000");
        assert_eq!(veth.rx_dropped(), dropped);
    });
}

#[test]
fn datagrams_pass_whole_or_in_fragments() {
    run("datagrams_pass_whole_or_in_fragments", || {
        let net = Net::spawn_thread(veth(1500), config()).unwrap();
        for (kernel, stack) in KERNEL.into_iter().zip(STACK) {
            let theirs = std::net::UdpSocket::bind(kernel).unwrap();
            let ours = blocking::UdpSocket::bind(&net, stack).unwrap();
            let address: SocketAddr = ours.local_addr().unwrap();
            let mut buf = vec![0; 65_536];
            for len in [0, 1, 1400, 30_000] {
                let data = pattern(len);
                theirs.send_to(&data, address).unwrap();
                let (got, from) = ours.recv_from(&mut buf).unwrap();
                assert_eq!((&buf[..got], from), (&data[..], theirs.local_addr().unwrap()));
                ours.send_to(&data, from).unwrap();
                assert_eq!(theirs.recv_from(&mut buf).unwrap(), (len, address));
                assert!(buf[..len] == data);
            }
        }
    });
}
