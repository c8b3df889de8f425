//! TCP options in wire order, as scripts write them.

use super::{Malformed, malformed};

/// One TCP option.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TcpOption {
    /// Kind 0.
    Eol,
    /// Kind 1.
    Nop,
    /// Kind 2.
    Mss(u16),
    /// Kind 3.
    WindowScale(u8),
    /// Kind 4.
    SackPermitted,
    /// Kind 5.
    Sack(Vec<(u32, u32)>),
    /// Kind 8.
    Timestamps {
        /// The sender's clock.
        val: u32,
        /// The echo.
        ecr: u32,
    },
    /// Kind 19.
    Md5(Vec<u8>),
    /// Kind 34, or kind 254 with magic F989.
    FastOpen {
        /// Kind 254.
        experimental: bool,
        /// Empty for a cookie request.
        cookie: Vec<u8>,
    },
    /// Kinds 172 and 174 (RFC 9768).
    AccEcn {
        /// Which counter comes first, hence the kind.
        order: AccEcnOrder,
        /// Up to three counters of 24 bits.
        counters: Vec<u32>,
    },
    /// Any other kind, with its data; scripts cannot write it.
    Unknown(u8, Vec<u8>),
}

/// The order of the counters in an accurate-ECN option.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AccEcnOrder {
    /// Kind 172.
    E0First,
    /// Kind 174.
    E1First,
}

impl AccEcnOrder {
    /// The counters' names in order.
    pub fn names(self) -> [&'static str; 3] {
        match self {
            Self::E0First => ["e0b", "ceb", "e1b"],
            Self::E1First => ["e1b", "ceb", "e0b"],
        }
    }
}

const EXPERIMENTAL_FAST_OPEN: [u8; 2] = [0xf9, 0x89];

impl TcpOption {
    /// Bytes on the wire.
    pub fn wire_len(&self) -> usize {
        match self {
            Self::Eol | Self::Nop => 1,
            Self::Mss(_) => 4,
            Self::WindowScale(_) => 3,
            Self::SackPermitted => 2,
            Self::Sack(blocks) => 2 + 8 * blocks.len(),
            Self::Timestamps { .. } => 10,
            Self::Md5(digest) => 2 + digest.len(),
            Self::FastOpen { experimental, cookie } => 2 + 2 * usize::from(*experimental) + cookie.len(),
            Self::AccEcn { counters, .. } => 2 + 3 * counters.len(),
            Self::Unknown(_, data) => 2 + data.len(),
        }
    }
}

/// Bytes that `options` take; no padding is added.
pub fn options_len(options: &[TcpOption]) -> usize {
    options.iter().map(TcpOption::wire_len).sum()
}

pub(super) fn compose_options(options: &[TcpOption]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(40);
    for option in options {
        let len = option.wire_len() as u8;
        match option {
            TcpOption::Eol => bytes.push(0),
            TcpOption::Nop => bytes.push(1),
            TcpOption::Mss(mss) => {
                bytes.extend([2, len]);
                bytes.extend(mss.to_be_bytes());
            }
            TcpOption::WindowScale(shift) => bytes.extend([3, len, *shift]),
            TcpOption::SackPermitted => bytes.extend([4, len]),
            TcpOption::Sack(blocks) => {
                bytes.extend([5, len]);
                for (start, end) in blocks {
                    bytes.extend(start.to_be_bytes());
                    bytes.extend(end.to_be_bytes());
                }
            }
            TcpOption::Timestamps { val, ecr } => {
                bytes.extend([8, len]);
                bytes.extend(val.to_be_bytes());
                bytes.extend(ecr.to_be_bytes());
            }
            TcpOption::Md5(digest) => {
                bytes.extend([19, len]);
                bytes.extend(digest);
            }
            TcpOption::FastOpen { experimental, cookie } => {
                if *experimental {
                    bytes.extend([254, len]);
                    bytes.extend(EXPERIMENTAL_FAST_OPEN);
                } else {
                    bytes.extend([34, len]);
                }
                bytes.extend(cookie);
            }
            TcpOption::AccEcn { order, counters } => {
                bytes.extend([if *order == AccEcnOrder::E0First { 172 } else { 174 }, len]);
                for counter in counters {
                    bytes.extend(&counter.to_be_bytes()[1..]);
                }
            }
            TcpOption::Unknown(kind, data) => {
                bytes.extend([*kind, len]);
                bytes.extend(data);
            }
        }
    }
    bytes
}

pub(super) fn parse_options(mut bytes: &[u8]) -> Result<Vec<TcpOption>, Malformed> {
    let mut options = Vec::new();
    while let Some(kind) = bytes.first() {
        if *kind < 2 {
            options.push(if *kind == 0 { TcpOption::Eol } else { TcpOption::Nop });
            bytes = &bytes[1..];
            continue;
        }
        let len = usize::from(bytes.get(1).copied().unwrap_or(0));
        if len < 2 || len > bytes.len() {
            return malformed(format!("TCP option {kind} says {len} bytes of {}", bytes.len()));
        }
        options.push(parse_option(*kind, &bytes[2..len]));
        bytes = &bytes[len..];
    }
    Ok(options)
}

fn parse_option(kind: u8, data: &[u8]) -> TcpOption {
    let long = |at: usize| u32::from_be_bytes([data[at], data[at + 1], data[at + 2], data[at + 3]]);
    match (kind, data.len()) {
        (2, 2) => TcpOption::Mss(u16::from_be_bytes([data[0], data[1]])),
        (3, 1) => TcpOption::WindowScale(data[0]),
        (4, 0) => TcpOption::SackPermitted,
        (5, len) if len % 8 == 0 => {
            TcpOption::Sack((0..len / 8).map(|block| (long(8 * block), long(8 * block + 4))).collect())
        }
        (8, 8) => TcpOption::Timestamps { val: long(0), ecr: long(4) },
        (19, _) => TcpOption::Md5(data.to_vec()),
        (34, _) => TcpOption::FastOpen { experimental: false, cookie: data.to_vec() },
        (254, _) if data.starts_with(&EXPERIMENTAL_FAST_OPEN) => {
            TcpOption::FastOpen { experimental: true, cookie: data[2..].to_vec() }
        }
        (172 | 174, len) if len % 3 == 0 => TcpOption::AccEcn {
            order: if kind == 172 { AccEcnOrder::E0First } else { AccEcnOrder::E1First },
            counters: data.chunks(3).map(|c| u32::from_be_bytes([0, c[0], c[1], c[2]])).collect(),
        },
        _ => TcpOption::Unknown(kind, data.to_vec()),
    }
}
