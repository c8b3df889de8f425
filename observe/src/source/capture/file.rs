//! Capture files: pcap and pcapng, of any byte order and clock resolution, one frame at a time.
//!
//! Owns:    reading with bounded memory; interfaces and their clocks; what a link layer puts before IP.
//! Output:  [`Frame`]s in the file's order.
//! Rules:   draft-ietf-opsawg-pcap, draft-ietf-opsawg-pcapng (by the crate `pcap-parser`); LINKTYPE_ values of tcpdump.org.
//! Not here: IP and TCP (`frame`).

use std::io::{self, Read};

use pcap_parser::traits::PcapNGPacketBlock as _;
use pcap_parser::{Block, Linktype, PcapBlockOwned, PcapError, create_reader};

/// Room for a block at first, and at most; a bigger one is not a packet's.
const ROOM: usize = 1 << 17;
const MAX_BLOCK: usize = 1 << 20;
const NS: u128 = 1_000_000_000;

/// One captured frame.
pub(super) struct Frame<'a> {
    /// Nanoseconds since the Unix epoch.
    pub(super) at_ns: u64,
    pub(super) link: Linktype,
    /// What was captured of it.
    pub(super) bytes: &'a [u8],
}

/// True when a file that begins with these bytes is a capture.
pub(super) fn is_capture(magic: [u8; 4]) -> bool {
    const SECTION: u32 = 0x0a0d_0d0a;
    const PCAP: [u32; 3] = [0xa1b2_c3d4, 0xa1b2_3c4d, 0xa1b2_cd34];
    let (le, be) = (u32::from_le_bytes(magic), u32::from_be_bytes(magic));
    le == SECTION || PCAP.contains(&le) || PCAP.contains(&be)
}

/// How the reading of a file ended.
pub(super) enum End {
    /// At the end of the file.
    Whole,
    /// In the middle of a block: the capture was cut off.
    Cut,
}

/// Reads all frames of `file`.
///
/// # Errors
/// The file cannot be read, or is no capture; after the first frame only reading itself can fail.
pub(super) fn read(file: impl Read + Send, mut each: impl FnMut(Frame<'_>)) -> io::Result<End> {
    let mut room = ROOM;
    let mut reader = create_reader(room, file).map_err(invalid)?;
    let mut interfaces: Vec<Interface> = Vec::new();
    let mut legacy = Interface { link: Linktype::RAW, units: 1_000_000, offset_s: 0 };
    // A block that is not complete although no more bytes come is where the writer was stopped.
    let mut held = usize::MAX;
    loop {
        let consumed = match reader.next() {
            Ok((len, block)) => {
                match block {
                    PcapBlockOwned::LegacyHeader(header) => {
                        legacy.link = header.network;
                        legacy.units =
                            if header.is_nanosecond_precision() { 1_000_000_000 } else { 1_000_000 };
                    }
                    PcapBlockOwned::Legacy(packet) => {
                        let sub_ns = u64::from(packet.ts_usec).saturating_mul(1_000_000_000 / legacy.units);
                        let at_ns = u64::from(packet.ts_sec) * 1_000_000_000 + sub_ns;
                        each(Frame { at_ns, link: legacy.link, bytes: packet.data });
                    }
                    PcapBlockOwned::NG(Block::SectionHeader(_)) => interfaces.clear(),
                    PcapBlockOwned::NG(Block::InterfaceDescription(block)) => interfaces.push(Interface {
                        link: block.linktype,
                        units: block.ts_resolution().filter(|units| *units > 0).unwrap_or(1_000_000),
                        offset_s: block.ts_offset(),
                    }),
                    PcapBlockOwned::NG(Block::EnhancedPacket(packet)) => {
                        if let Some(interface) = interfaces.get(packet.if_id as usize) {
                            let at_ns = interface.unix_ns(packet.ts_high, packet.ts_low);
                            each(Frame { at_ns, link: interface.link, bytes: packet.packet_data() });
                        }
                    }
                    // Simple packets have no time, and without time nothing here can be told.
                    PcapBlockOwned::NG(_) => {}
                }
                len
            }
            Err(PcapError::Eof) => return Ok(End::Whole),
            Err(PcapError::UnexpectedEof) => return Ok(End::Cut),
            Err(PcapError::Incomplete(_)) => {
                let now = reader.data().len();
                if now == held {
                    return Ok(End::Cut);
                }
                held = now;
                reader.refill().map_err(invalid)?;
                continue;
            }
            Err(PcapError::BufferTooSmall) if room < MAX_BLOCK => {
                room *= 2;
                reader.grow(room);
                continue;
            }
            Err(error) => return Err(invalid(error)),
        };
        held = usize::MAX;
        reader.consume(consumed);
    }
}

fn invalid(error: PcapError<&[u8]>) -> io::Error {
    let message = match error {
        PcapError::ReadError => "the file could not be read on".to_owned(),
        PcapError::BufferTooSmall => format!("a block is larger than {MAX_BLOCK} bytes"),
        PcapError::HeaderNotRecognized => "it does not begin as a pcap or pcapng file does".to_owned(),
        other => format!("a block is malformed ({})", other.to_owned_vec()),
    };
    io::Error::new(io::ErrorKind::InvalidData, message)
}

struct Interface {
    link: Linktype,
    /// Units of its clock a second.
    units: u64,
    offset_s: i64,
}

impl Interface {
    fn unix_ns(&self, high: u32, low: u32) -> u64 {
        let units = u64::from(high) << 32 | u64::from(low);
        let ns = i128::try_from(u128::from(units) * NS / u128::from(self.units)).unwrap_or(i128::MAX);
        u64::try_from(ns.saturating_add(i128::from(self.offset_s) * NS as i128)).unwrap_or(0)
    }
}
