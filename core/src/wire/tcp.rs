//! The TCP header and its options.
//!
//! Owns:    parse (bytes → [`SegmentHeader`]) and emit (back), both total.
//! Rules:   RFC 9293 3.1 and 3.2, RFC 7323, RFC 2018. Linux: `tcp_parse_options()`, `tcp_options_write()`.
//! Not here: the checksum (`packet` verifies, `emit` prepares), what an option means (`tcp`).

use crate::observe::DropReason;
use crate::tcp::seq::{SeqNum, SeqRange};
use crate::wire::segment::{FastOpen, FastOpenCookie, Flags, Options, SackBlocks, SegmentHeader, Timestamps};

/// Header without options, bytes.
pub const HEADER_LEN: usize = 20;
/// Header with all the options that fit, bytes.
pub const MAX_HEADER_LEN: usize = 60;
/// Place of the checksum field in the header.
pub const CHECKSUM_AT: usize = 16;

const MAX_OPTIONS_LEN: usize = MAX_HEADER_LEN - HEADER_LEN;

const EOL: u8 = 0;
const NOP: u8 = 1;
const MSS: u8 = 2;
const WSCALE: u8 = 3;
const SACK_PERMITTED: u8 = 4;
const SACK: u8 = 5;
const TIMESTAMPS: u8 = 8;
const FAST_OPEN: u8 = 34;
/// RFC 6994: an experiment, named by the two bytes that follow.
const EXPERIMENT: u8 = 254;
const FAST_OPEN_MAGIC: [u8; 2] = [0xf9, 0x89];

/// Parses the header at the start of `segment`; also gives its length, options included.
///
/// # Errors
/// [`DropReason::PacketTooSmall`] below 20 bytes, [`DropReason::TcpHeader`] when the data offset is wrong.
#[inline(always)] // see `packet`
pub fn parse(segment: &[u8]) -> Result<(SegmentHeader, usize), DropReason> {
    let fixed = segment.first_chunk::<HEADER_LEN>().ok_or(DropReason::PacketTooSmall)?;
    let header_len = usize::from(fixed[12] >> 4) * 4;
    if header_len < HEADER_LEN {
        return Err(DropReason::TcpHeader);
    }
    let options = segment.get(HEADER_LEN..header_len).ok_or(DropReason::TcpHeader)?;
    let flags = Flags(u16::from_be_bytes([fixed[12], fixed[13]]) & 0x1ff);
    let header = SegmentHeader {
        src_port: be16(fixed, 0),
        dst_port: be16(fixed, 2),
        seq: SeqNum(be32(fixed, 4)),
        ack: SeqNum(be32(fixed, 8)),
        flags,
        wnd: be16(fixed, 14),
        urg: be16(fixed, 18),
        options: parse_options(options, flags.syn()),
    };
    Ok((header, header_len))
}

fn be16(bytes: &[u8; HEADER_LEN], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn be32(bytes: &[u8; HEADER_LEN], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[inline(always)] // see `packet`
fn parse_options(bytes: &[u8], syn: bool) -> Options {
    let mut options = Options::default();
    // Linux: tcp_parse_aligned_timestamp(): what nearly every segment carries.
    if let [NOP, NOP, TIMESTAMPS, 10, a, b, c, d, e, f, g, h] = *bytes {
        let (tsval, tsecr) = (u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h]));
        options.timestamps = Some(Timestamps { tsval, tsecr });
        return options;
    }
    let mut rest = bytes;
    while let [kind, after_kind @ ..] = rest {
        if *kind == NOP {
            rest = after_kind;
            continue;
        }
        // Linux: tcp_parse_options() stops at EOL, at a length below 2 and at a partial option; what was read stays.
        let [len, ..] = after_kind else { break };
        if *kind == EOL || *len < 2 {
            break;
        }
        let Some(option) = rest.get(..usize::from(*len)) else { break };
        rest = &rest[option.len()..];
        parse_option(option, syn, &mut options);
    }
    options
}

/// One option with its kind and length. A length that is wrong for the kind skips it; a repeated one wins.
fn parse_option(option: &[u8], syn: bool, options: &mut Options) {
    match *option {
        // Linux: an MSS of 0 is no MSS.
        [MSS, 4, a, b] if syn && (a, b) != (0, 0) => options.mss = Some(u16::from_be_bytes([a, b])),
        [WSCALE, 3, shift] if syn => options.wscale = Some(shift),
        [SACK_PERMITTED, 2] if syn => options.sack_permitted = true,
        [TIMESTAMPS, 10, a, b, c, d, e, f, g, h] => {
            let (tsval, tsecr) = (u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h]));
            options.timestamps = Some(Timestamps { tsval, tsecr });
        }
        [SACK, _, ref blocks @ ..] => {
            let (blocks, rest) = blocks.as_chunks::<8>();
            if rest.is_empty() && !blocks.is_empty() {
                options.sack = SackBlocks::NONE;
                for [a, b, c, d, e, f, g, h] in blocks {
                    options.sack.push(SeqRange::new(
                        SeqNum(u32::from_be_bytes([*a, *b, *c, *d])),
                        SeqNum(u32::from_be_bytes([*e, *f, *g, *h])),
                    ));
                }
            }
        }
        // Linux: tcp_parse_fastopen_option(): a cookie of a length that none has is no option at all.
        [FAST_OPEN, _, ref cookie @ ..] if syn => options.fast_open = fast_open(cookie, false),
        [EXPERIMENT, _, a, b, ref cookie @ ..] if syn && [a, b] == FAST_OPEN_MAGIC => {
            options.fast_open = fast_open(cookie, true);
        }
        _ => {}
    }
}

fn fast_open(cookie: &[u8], experimental: bool) -> Option<FastOpen> {
    FastOpenCookie::new(cookie).map(|cookie| FastOpen { experimental, cookie })
}

/// Bytes that `options` take in a header: a multiple of 4, at most 40.
///
/// SACK blocks that do not fit any more are left out, here and in the header.
pub fn options_len(options: &Options) -> usize {
    let fixed = fixed_options_len(options);
    match sack_blocks_that_fit(options, fixed) {
        0 => fixed,
        blocks => fixed + 4 + 8 * blocks,
    }
}

fn fixed_options_len(options: &Options) -> usize {
    let mut len = 0;
    if options.mss.is_some() {
        len += 4;
    }
    if options.timestamps.is_some() {
        len += 12;
    } else if options.sack_permitted {
        len += 4;
    }
    if options.wscale.is_some() {
        len += 4;
    }
    // Linux tcp_syn_options(): left out where it does not fit.
    let fast_open = fast_open_len(options);
    if len + fast_open <= MAX_OPTIONS_LEN { len + fast_open } else { len }
}

/// With the NOPs that align it.
fn fast_open_len(options: &Options) -> usize {
    options.fast_open.map_or(0, |fast_open| {
        let base = if fast_open.experimental { 4 } else { 2 };
        (base + fast_open.cookie.as_slice().len()).next_multiple_of(4)
    })
}

fn sack_blocks_that_fit(options: &Options, fixed: usize) -> usize {
    options.sack.as_slice().len().min((MAX_OPTIONS_LEN - fixed).saturating_sub(4) / 8)
}

/// A header's bytes, `len` of them used.
#[derive(Clone, Copy, Debug)]
pub struct HeaderBytes {
    bytes: [u8; MAX_HEADER_LEN],
    len: usize,
}

impl HeaderBytes {
    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// Stores `value` in the checksum field.
    pub fn set_checksum(&mut self, value: u16) {
        self.bytes[CHECKSUM_AT..CHECKSUM_AT + 2].copy_from_slice(&value.to_be_bytes());
    }

    fn push(&mut self, bytes: &[u8]) {
        self.bytes[self.len..self.len + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
    }
}

/// The header in wire form, checksum field 0. Options in Linux's order (`tcp_options_write()`).
pub fn emit(header: &SegmentHeader) -> HeaderBytes {
    let mut out = HeaderBytes { bytes: [0; MAX_HEADER_LEN], len: HEADER_LEN };
    emit_options(&header.options, &mut out);
    let offset_and_flags = (out.len as u16 / 4) << 12 | (header.flags.0 & 0x1ff);
    out.bytes[0..2].copy_from_slice(&header.src_port.to_be_bytes());
    out.bytes[2..4].copy_from_slice(&header.dst_port.to_be_bytes());
    out.bytes[4..8].copy_from_slice(&header.seq.0.to_be_bytes());
    out.bytes[8..12].copy_from_slice(&header.ack.0.to_be_bytes());
    out.bytes[12..14].copy_from_slice(&offset_and_flags.to_be_bytes());
    out.bytes[14..16].copy_from_slice(&header.wnd.to_be_bytes());
    out.bytes[18..20].copy_from_slice(&header.urg.to_be_bytes());
    out
}

fn emit_options(options: &Options, out: &mut HeaderBytes) {
    let fixed = fixed_options_len(options);
    if let Some(mss) = options.mss {
        let [a, b] = mss.to_be_bytes();
        out.push(&[MSS, 4, a, b]);
    }
    if let Some(Timestamps { tsval, tsecr }) = options.timestamps {
        // SACK-permitted takes the place of the two NOPs that align the timestamps.
        out.push(if options.sack_permitted { &[SACK_PERMITTED, 2] } else { &[NOP, NOP] });
        out.push(&[TIMESTAMPS, 10]);
        out.push(&tsval.to_be_bytes());
        out.push(&tsecr.to_be_bytes());
    } else if options.sack_permitted {
        out.push(&[NOP, NOP, SACK_PERMITTED, 2]);
    }
    if let Some(shift) = options.wscale {
        out.push(&[NOP, WSCALE, 3, shift]);
    }
    if let Some(fast_open) = options.fast_open
        && out.len - HEADER_LEN + fast_open_len(options) <= MAX_OPTIONS_LEN
    {
        let cookie = fast_open.cookie.as_slice();
        if fast_open.experimental {
            out.push(&[EXPERIMENT, 4 + cookie.len() as u8]);
            out.push(&FAST_OPEN_MAGIC);
        } else {
            out.push(&[FAST_OPEN, 2 + cookie.len() as u8]);
        }
        out.push(cookie);
        if out.len % 4 == 2 {
            out.push(&[NOP, NOP]);
        }
    }
    let blocks = sack_blocks_that_fit(options, fixed);
    if blocks > 0 {
        out.push(&[NOP, NOP, SACK, 2 + 8 * blocks as u8]);
        for block in &options.sack.as_slice()[..blocks] {
            out.push(&block.start.0.to_be_bytes());
            out.push(&block.end.0.to_be_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::arbitrary;

    fn options_of(options: &Options) -> Vec<u8> {
        let header = SegmentHeader { options: *options, ..SegmentHeader::default() };
        emit(&header).as_slice()[HEADER_LEN..].to_vec()
    }

    const TS: Timestamps = Timestamps { tsval: 0x0102_0304, tsecr: 0x0506_0708 };

    /// Specification 4.8, the table "Options: content and order on the wire".
    #[test]
    fn options_are_in_linux_order() {
        let all = Options {
            mss: Some(1460),
            wscale: Some(10),
            sack_permitted: true,
            timestamps: Some(TS),
            sack: SackBlocks::NONE,
            fast_open: None,
        };
        assert_eq!(options_of(&all), [2, 4, 5, 180, 4, 2, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8, 1, 3, 3, 10]);
        let without_timestamps = Options { timestamps: None, ..all };
        assert_eq!(options_of(&without_timestamps), [2, 4, 5, 180, 1, 1, 4, 2, 1, 3, 3, 10]);
        let without_sack = Options { sack_permitted: false, ..all };
        assert_eq!(
            options_of(&without_sack),
            [2, 4, 5, 180, 1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8, 1, 3, 3, 10]
        );
        let mut sack = SackBlocks::NONE;
        sack.push(SeqRange::new(SeqNum(1), SeqNum(2)));
        let data = Options { timestamps: Some(TS), sack, ..Options::default() };
        assert_eq!(
            options_of(&data),
            [1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8, 1, 1, 5, 10, 0, 0, 0, 1, 0, 0, 0, 2]
        );
    }

    #[test]
    fn only_the_sack_blocks_that_fit_are_sent() {
        let mut sack = SackBlocks::NONE;
        for n in 0..4 {
            sack.push(SeqRange::new(SeqNum(n * 10), SeqNum(n * 10 + 5)));
        }
        for (timestamps, len, blocks) in [(None, 36, 4), (Some(TS), 40, 3)] {
            let header = SegmentHeader {
                options: Options { timestamps, sack, ..Options::default() },
                ..Default::default()
            };
            assert_eq!(options_len(&header.options), len);
            let (parsed, header_len) = parse(emit(&header).as_slice()).expect("valid");
            assert_eq!((header_len, parsed.options.sack.as_slice()), (20 + len, &sack.as_slice()[..blocks]));
        }
    }

    #[test]
    fn malformed_options_end_the_list_and_keep_what_was_read() {
        let read = |bytes: &[u8]| parse_options(bytes, true);
        assert_eq!(read(&[2, 4, 5, 180, 3, 0, 1, 1]).mss, Some(1460), "length 0");
        assert_eq!(read(&[2, 4, 5, 180, 3, 9, 7, 1]).wscale, None, "past the end");
        assert_eq!(read(&[2, 4, 5, 180, 1, 1, 1, 3]).mss, Some(1460), "kind without length");
        assert_eq!(read(&[0, 4, 0, 0, 2, 4, 5, 180]).mss, None, "behind EOL");
        assert_eq!(read(&[253, 4, 9, 9, 2, 4, 5, 180]).mss, Some(1460), "unknown kind is skipped");
        assert_eq!(read(&[2, 3, 5, 3, 3, 7, 0, 0]).wscale, Some(7), "wrong length for the kind is skipped");
        assert_eq!(read(&[2, 4, 0, 0]).mss, None, "MSS 0 is none");
        assert!(read(&[5, 9, 0, 0, 0, 0, 0, 0, 0]).sack.is_empty(), "block cut short");
    }

    #[test]
    fn handshake_options_count_only_with_syn() {
        let bytes = [2, 4, 5, 180, 4, 2, 1, 1, 1, 3, 3, 7];
        assert_eq!(parse_options(&bytes, false), Options::default());
        assert!(parse_options(&bytes, true).sack_permitted);
    }

    #[test]
    fn a_wrong_data_offset_is_refused() {
        let mut bytes = emit(&SegmentHeader::default()).as_slice().to_vec();
        assert_eq!(parse(&bytes[..19]), Err(DropReason::PacketTooSmall));
        bytes[12] = 0x40;
        assert_eq!(parse(&bytes), Err(DropReason::TcpHeader));
        bytes[12] = 0x60;
        assert_eq!(parse(&bytes), Err(DropReason::TcpHeader));
    }

    proptest! {
        #[test]
        fn parse_of_emit_is_identity(header in arbitrary::segment_header()) {
            let bytes = emit(&header);
            prop_assert_eq!(bytes.as_slice().len(), HEADER_LEN + options_len(&header.options));
            prop_assert_eq!(parse(bytes.as_slice()), Ok((header, bytes.as_slice().len())));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = parse(&bytes);
        }
    }
}
