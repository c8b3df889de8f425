//! The namespace's addresses, and which host address each one means.
//!
//! Owns:    the constants of the contract and [`Addresses`], the map from an address CMD uses to where it goes.
//! Rules:   `10.0.2.2` and `fd00:6c61::2` are the host's loopback, `10.0.2.3` and `fd00:6c61::3` its resolver on
//!          port 53. An address that no link carries packets to is nobody's: connect(2) takes some of them for this
//!          host's own inside. Every other address is itself.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The program's own addresses, with prefix lengths.
pub const GUEST: [(IpAddr, u8); 2] = [(IpAddr::V4(Ipv4Addr::new(10, 0, 2, 100)), 24), (v6(0x100), 64)];
/// The host's loopback, as the program names it.
pub const HOST: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::new(10, 0, 2, 2)), v6(2)];
/// The resolver, as the program names it.
pub const DNS: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::new(10, 0, 2, 3)), v6(3)];
/// The stack's own addresses, with prefix lengths: it is the host, the resolver and the router at once.
pub const STACK: [(IpAddr, u8); 4] = [(HOST[0], 24), (HOST[1], 64), (DNS[0], 24), (DNS[1], 64)];

const fn v6(last: u16) -> IpAddr {
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0x6c61, 0, 0, 0, 0, 0, last))
}

/// Where an address that the program used leads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Destination {
    /// To this address, from the host.
    Host(SocketAddr),
    /// Nowhere: the host's loopback is closed to the program.
    Closed,
    /// Nowhere: there is no resolver, or it has no such port.
    Nobody,
    /// Nowhere, without an answer: no link carries packets to such an address, and Linux drops those that come by one.
    Martian,
}

/// The map from inside to outside addresses.
///
/// # Example
/// ```
/// use lastack_gateway::addresses::{Addresses, Destination};
/// let addresses = Addresses { host_loopback: true, resolvers: vec!["192.0.2.53:53".parse().unwrap()] };
/// let inside = "10.0.2.2:8080".parse().unwrap();
/// assert_eq!(addresses.destination(inside), Destination::Host("127.0.0.1:8080".parse().unwrap()));
/// ```
#[derive(Clone, Debug)]
pub struct Addresses {
    /// The host's loopback may be reached through [`HOST`].
    pub host_loopback: bool,
    /// The host's resolvers, best first.
    pub resolvers: Vec<SocketAddr>,
}

impl Addresses {
    /// Where `inside` leads.
    pub fn destination(&self, inside: SocketAddr) -> Destination {
        let ip = inside.ip();
        if HOST.contains(&ip) {
            if !self.host_loopback {
                return Destination::Closed;
            }
            let loopback =
                if ip.is_ipv4() { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { IpAddr::V6(Ipv6Addr::LOCALHOST) };
            return Destination::Host(SocketAddr::new(loopback, inside.port()));
        }
        if DNS.contains(&ip) {
            return match self.resolvers.first() {
                Some(resolver) if inside.port() == 53 => Destination::Host(*resolver),
                _ => Destination::Nobody,
            };
        }
        if is_martian(ip) { Destination::Martian } else { Destination::Host(inside) }
    }
}

/// True for what must never be dialled: a socket bound to the link (`SO_BINDTODEVICE` asks for no privilege) sends to any
/// address by it. The core drops most of these as Linux does; this holds whatever it lets through.
fn is_martian(address: IpAddr) -> bool {
    match address {
        // Linux: ipv4_is_loopback(), ipv4_is_zeronet() (0.0.0.0 alone), ipv4_is_multicast(), ipv4_is_lbcast().
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_unspecified() || v4.is_multicast() || v4.is_broadcast(),
        // `::ffff:0:0/96` is IPv4 to connect(2): whatever rules say of an IPv4 address would not be asked. `::/96` has `::`
        // and `::1`; the rest was deprecated (RFC 4291 2.5.5.1), and is the host's own where `sit` tunnels are automatic.
        IpAddr::V6(v6) => v6.is_multicast() || matches!(v6.segments(), [0, 0, 0, 0, 0, 0 | 0xffff, _, _]),
    }
}

/// As whom a client of a published port appears to the program, in the family that is wanted. It keeps its address,
/// except where the program's kernel would not take it from a link: the host's loopback, a link-local address of some
/// link of the host, the program's own address. Such a one is [`HOST`].
pub fn seen_inside(client: IpAddr, is_ipv6: bool) -> IpAddr {
    let is_own = GUEST.iter().any(|(own, _)| *own == client);
    let is_link_local = match client {
        IpAddr::V4(_) => false,
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    if client.is_ipv6() != is_ipv6 || client.is_loopback() || is_own || is_link_local {
        return HOST[usize::from(is_ipv6)];
    }
    client
}

/// Which families the program gets a default route for: none that leads nowhere, so that a program on a host without
/// IPv6 does not try it first and wait. A host with neither, offline, keeps both: the stack then answers that there is
/// no way, and the attempt is written down.
pub fn default_routes() -> [bool; 2] {
    let v4 = leads_out(Ipv4Addr::new(192, 0, 2, 1).into()) || has_route_v4(&read("/proc/net/route"));
    let v6 = leads_out(v6_documentation()) || has_route_v6(&read("/proc/net/ipv6_route"));
    if v4 || v6 { [v4, v6] } else { [true, true] }
}

fn v6_documentation() -> IpAddr {
    Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into()
}

/// The text of a file of the system, empty if there is none. A comment in another encoding costs that comment only.
#[must_use]
pub fn read(path: &str) -> String {
    String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned()
}

/// True: the host has a way to `address`, which nobody has. No packet is sent for a datagram socket's connect(2).
fn leads_out(address: IpAddr) -> bool {
    let any: IpAddr = match address {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    std::net::UdpSocket::bind((any, 0)).is_ok_and(|socket| socket.connect((address, 9)).is_ok())
}

/// `/proc/net/route`: the main table, a line of names first.
fn has_route_v4(table: &str) -> bool {
    table.lines().skip(1).any(|line| line.split_whitespace().next().is_some_and(|name| name != "lo"))
}

/// `/proc/net/ipv6_route`: every table. The host's own addresses are on `lo`; link-local and multicast lead nowhere.
fn has_route_v6(table: &str) -> bool {
    table.lines().any(|line| {
        let mut words = line.split_whitespace();
        let (Some(to), Some(device)) = (words.next(), words.last()) else { return false };
        device != "lo" && !to.starts_with("fe8") && !to.starts_with("ff")
    })
}

/// The resolvers in a `resolv.conf`, at most three as glibc has it; without any, the host's own (resolv.conf(5)).
pub fn resolvers(resolv_conf: &str) -> Vec<SocketAddr> {
    let named: Vec<SocketAddr> = resolv_conf
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            (words.next() == Some("nameserver")).then(|| words.next())??.parse::<IpAddr>().ok()
        })
        .map(|ip| SocketAddr::new(ip, 53))
        .take(3)
        .collect();
    if named.is_empty() { vec![SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 53)] } else { named }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(host_loopback: bool) -> Addresses {
        Addresses { host_loopback, resolvers: resolvers("# x\nnameserver 192.0.2.53\nnameserver bad\n") }
    }

    fn to(addresses: &Addresses, inside: &str) -> Destination {
        addresses.destination(inside.parse().unwrap())
    }

    fn host(text: &str) -> Destination {
        Destination::Host(text.parse().unwrap())
    }

    #[test]
    fn host_and_resolver_are_mapped_and_others_are_themselves() {
        let a = addresses(true);
        assert_eq!(to(&a, "10.0.2.2:80"), host("127.0.0.1:80"));
        assert_eq!(to(&a, "[fd00:6c61::2]:80"), host("[::1]:80"));
        assert_eq!(to(&a, "10.0.2.3:53"), host("192.0.2.53:53"));
        assert_eq!(to(&a, "[fd00:6c61::3]:53"), host("192.0.2.53:53"));
        assert_eq!(to(&a, "10.0.2.3:80"), Destination::Nobody);
        assert_eq!(to(&a, "198.51.100.7:443"), host("198.51.100.7:443"));
    }

    #[test]
    fn closed_loopback_is_closed() {
        assert_eq!(to(&addresses(false), "10.0.2.2:80"), Destination::Closed);
        assert_eq!(to(&addresses(false), "[fd00:6c61::2]:80"), Destination::Closed);
        assert_eq!(to(&addresses(false), "10.0.2.3:53"), host("192.0.2.53:53"), "names still resolve");
    }

    #[test]
    fn the_hosts_inside_has_no_other_door_whatever_it_is_called() {
        for closed in [false, true] {
            for martian in [
                "127.0.0.1",
                "127.8.8.8",
                "0.0.0.0",
                "224.0.0.1",
                "255.255.255.255",
                "[::1]",
                "[::]",
                "[::ffff:127.0.0.1]",
                "[::ffff:0.0.0.0]",
                "[::ffff:10.0.2.2]",
                "[::ffff:192.0.2.1]",
                "[::127.0.0.1]",
                "[ff02::1]",
            ] {
                for port in [53, 80] {
                    let to = to(&addresses(!closed), &format!("{martian}:{port}"));
                    assert_eq!(to, Destination::Martian, "{martian}");
                }
            }
            // Linux sends to 0.0.0.0/8 and 240.0.0.0/4; 64:ff9b::/96 is a translator's business (RFC 6052).
            for other in
                ["0.0.0.1:80", "240.0.0.1:80", "169.254.169.254:80", "[64:ff9b::7f00:1]:80", "[fe80::1]:80"]
            {
                assert_eq!(to(&addresses(!closed), other), host(other));
            }
        }
    }

    #[test]
    fn clients_keep_their_address_where_the_programs_kernel_takes_it() {
        for (client, seen) in [
            ("198.51.100.7", "198.51.100.7"),
            ("169.254.1.1", "169.254.1.1"),
            ("127.0.0.1", "10.0.2.2"),
            ("127.8.8.8", "10.0.2.2"),
            ("10.0.2.100", "10.0.2.2"),
            ("2001:db8::7", "2001:db8::7"),
            ("::1", "fd00:6c61::2"),
            ("fe80::7", "fd00:6c61::2"),
            ("fd00:6c61::100", "fd00:6c61::2"),
        ] {
            let (client, seen): (IpAddr, IpAddr) = (client.parse().unwrap(), seen.parse().unwrap());
            assert_eq!(seen_inside(client, client.is_ipv6()), seen, "{client}");
        }
        assert_eq!(seen_inside("::1".parse().unwrap(), false), HOST[0]);
    }

    #[test]
    fn a_family_without_a_way_out_of_the_host_is_seen() {
        let head = "Iface\tDestination\tGateway\n";
        assert!(!has_route_v4(head) && has_route_v4(&format!("{head}eth0\t0000000A\t00000000\n")));
        let route = |to: &str, device: &str| {
            format!("{to} 40 {0} 00 {0} 00000100 00000001 00000000 00000001 {device}\n", "0".repeat(32))
        };
        let link_local = route(&format!("fe80{}", "0".repeat(28)), "eth0");
        let own = route(&format!("2001{}1", "0".repeat(27)), "lo");
        assert!(!has_route_v6(&(link_local.clone() + &own)));
        assert!(has_route_v6(&(link_local + &route(&format!("2001{}", "0".repeat(28)), "eth0"))));
    }

    #[test]
    fn no_nameserver_line_means_the_local_one() {
        assert_eq!(resolvers("search example\n"), ["127.0.0.1:53".parse().unwrap()]);
    }
}
