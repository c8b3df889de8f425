//! 4-tuples as the table keeps them: packed, one form a family.
//!
//! Owns:    [`TupleV4`] (12 bytes) and [`TupleV6`] (36 bytes); a [`FourTuple`] takes 64.
//! Differs: scope and flow label of an IPv6 socket address are not part of the pair.

use core::hash::Hasher;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::id::FourTuple;
use crate::rng::HashKey;

/// Both ends over IPv4.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct TupleV4 {
    local: [u8; 4],
    remote: [u8; 4],
    local_port: u16,
    remote_port: u16,
}

/// Both ends over IPv6.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct TupleV6 {
    local: [u8; 16],
    remote: [u8; 16],
    local_port: u16,
    remote_port: u16,
}

/// Either, while it is looked up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Packed {
    V4(TupleV4),
    V6(TupleV6),
}

impl TupleV4 {
    pub(crate) fn unpack(&self) -> FourTuple {
        FourTuple {
            local: SocketAddr::new(IpAddr::V4(Ipv4Addr::from(self.local)), self.local_port),
            remote: SocketAddr::new(IpAddr::V4(Ipv4Addr::from(self.remote)), self.remote_port),
        }
    }
}

impl TupleV6 {
    pub(crate) fn unpack(&self) -> FourTuple {
        FourTuple {
            local: SocketAddr::new(IpAddr::V6(Ipv6Addr::from(self.local)), self.local_port),
            remote: SocketAddr::new(IpAddr::V6(Ipv6Addr::from(self.remote)), self.remote_port),
        }
    }
}

impl Packed {
    /// `None` when the families differ: no such connection exists.
    #[inline]
    pub(crate) fn new(tuple: &FourTuple) -> Option<Self> {
        let (local_port, remote_port) = (tuple.local.port(), tuple.remote.port());
        match (tuple.local.ip(), tuple.remote.ip()) {
            (IpAddr::V4(local), IpAddr::V4(remote)) => Some(Self::V4(TupleV4 {
                local: local.octets(),
                remote: remote.octets(),
                local_port,
                remote_port,
            })),
            (IpAddr::V6(local), IpAddr::V6(remote)) => Some(Self::V6(TupleV6 {
                local: local.octets(),
                remote: remote.octets(),
                local_port,
                remote_port,
            })),
            _ => None,
        }
    }

    /// The hash under `key`, for the table.
    #[inline]
    pub(crate) fn hash(&self, key: &HashKey) -> u64 {
        let mut hasher = key.table_hasher();
        self.write(&mut hasher);
        hasher.finish()
    }

    /// Feeds every byte to `hasher`.
    #[inline]
    pub(crate) fn write(&self, hasher: &mut impl Hasher) {
        match self {
            Self::V4(t) => {
                let (local, remote) = (u32::from_be_bytes(t.local), u32::from_be_bytes(t.remote));
                hasher.write_u64(u64::from(local) << 32 | u64::from(remote));
                hasher.write_u32(u32::from(t.local_port) << 16 | u32::from(t.remote_port));
            }
            Self::V6(t) => {
                hasher.write(&t.local);
                hasher.write(&t.remote);
                hasher.write_u32(u32::from(t.local_port) << 16 | u32::from(t.remote_port));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packing_keeps_both_ends() {
        for (local, remote) in [("192.0.2.1:80", "198.51.100.7:40000"), ("[2001:db8::1]:443", "[fe80::2]:5")]
        {
            let tuple = FourTuple {
                local: local.parse().expect("address"),
                remote: remote.parse().expect("address"),
            };
            let unpacked = match Packed::new(&tuple).expect("one family") {
                Packed::V4(t) => t.unpack(),
                Packed::V6(t) => t.unpack(),
            };
            assert_eq!(unpacked, tuple);
        }
    }

    #[test]
    fn sizes() {
        assert_eq!((size_of::<TupleV4>(), size_of::<TupleV6>()), (12, 36));
    }
}
