//! What the fuzz targets do with their bytes. Included by `fuzz/` (which looks for new inputs) and by
//! `tests/fuzz_corpus.rs` (which replays the known ones).
//!
//! Every harness reads its input as a small program, so that the fuzzer's mutations mean something.

#![allow(dead_code, reason = "each target uses its own part")]

use lastack_core::wire::transmit::RxMeta;
use lastack_core::wire::{Body, Packet, parse};

pub(crate) mod stack_arbitrary;
pub(crate) mod stack_mutated;
pub(crate) mod wire;

/// Reads numbers and slices from the input; at its end everything is zero and empty.
pub(crate) struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    /// Begins with the first byte.
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// True when nothing is left.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// One byte.
    pub(crate) fn u8(&mut self) -> u8 {
        self.bytes(1).first().copied().unwrap_or_default()
    }

    /// Two bytes.
    pub(crate) fn u16(&mut self) -> u16 {
        u16::from_be_bytes([self.u8(), self.u8()])
    }

    /// At most `len` bytes: what there is.
    pub(crate) fn bytes(&mut self, len: usize) -> &'a [u8] {
        let (bytes, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        bytes
    }
}

/// Prints a line where `FUZZ_TRACE` is set: to read what an input does (`FUZZ_TRACE=1 cargo fuzz run … INPUT`).
pub(crate) fn trace(line: impl FnOnce() -> String) {
    static IS_ON: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
    if *IS_ON.get_or_init(|| std::env::var_os("FUZZ_TRACE").is_some()) {
        eprintln!("{}", line());
    }
}

/// One line about a packet.
pub(crate) fn describe(packet: &bytes::Bytes, meta: RxMeta) -> String {
    match parse(packet, meta) {
        Ok(Packet { ip, body: Body::Tcp(segment) }) => {
            let header = &segment.header;
            format!(
                "{}.{} > {}.{} {} {:?}:{:?}({}) ack {:?} wnd {} {:?}",
                ip.src,
                header.src_port,
                ip.dst,
                header.dst_port,
                header.flags,
                header.seq,
                segment.end_seq(),
                segment.payload.len(),
                header.ack,
                header.wnd,
                header.options.sack.as_slice(),
            )
        }
        Ok(other) => format!("{other:?}"),
        Err(reason) => format!("{} bytes: {reason}", packet.len()),
    }
}

/// Makes a mutated IPv4 header valid again where its checksum is the only thing wrong.
pub(crate) fn repair_ipv4(packet: &mut [u8]) {
    let Some(first) = packet.first() else { return };
    let header_len = usize::from(first & 0x0f) * 4;
    if first >> 4 != 4 || header_len < 20 || packet.len() < header_len {
        return;
    }
    packet[10..12].fill(0);
    let mut sum = lastack_core::wire::checksum::Checksum::new();
    sum.add(&packet[..header_len]);
    packet[10..12].copy_from_slice(&sum.finish().to_be_bytes());
}
