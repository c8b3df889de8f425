//! What leaves the stack: one packet, or one super-segment for the device to cut.

use bytes::Bytes;

use crate::wire::checksum::Checksum;
use crate::wire::udp;

/// Where a checksum still has to be finished.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum TxChecksum {
    /// Every checksum is in place.
    #[default]
    Complete,
    /// The transport checksum field holds the folded pseudo-header sum, not complemented (virtio
    /// `NEEDS_CSUM`): sum from `start` (bytes into the packet) to the end, complement, store at `start + offset`.
    Partial {
        /// Start of the transport header in the packet, bytes.
        start: u16,
        /// Place of the field behind `start`: 16 for TCP, 6 for UDP.
        offset: u16,
    },
}

/// One packet to send. Reuse one value over many [`poll_transmit`](crate::Stack::poll_transmit) calls: its
/// buffers keep their capacity, so that the steady state allocates nothing.
///
/// The packet is `head` followed by the slices of `payload`. Where `segment_size` is not 0 the payload is cut
/// into segments of that many bytes by the device (TSO/USO) or by [`crate::wire::offload`].
#[derive(Clone, Debug, Default)]
pub struct Transmit {
    /// IP and transport header.
    pub head: Vec<u8>,
    /// Payload slices in order, shared with the send queue: not copied.
    pub payload: Vec<Bytes>,
    /// Payload bytes a segment; 0: the packet is sent as it is.
    pub segment_size: u16,
    /// What is left to do for the transport checksum.
    pub checksum: TxChecksum,
}

impl Transmit {
    /// Forgets the packet, keeps the capacity.
    pub fn clear(&mut self) {
        self.head.clear();
        self.payload.clear();
        self.segment_size = 0;
        self.checksum = TxChecksum::Complete;
    }

    /// Payload bytes in all slices.
    pub fn payload_len(&self) -> usize {
        self.payload.iter().map(Bytes::len).sum()
    }

    /// Header and payload bytes.
    pub fn len(&self) -> usize {
        self.head.len() + self.payload_len()
    }

    /// True when there is no packet in it.
    pub fn is_empty(&self) -> bool {
        self.head.is_empty()
    }

    /// Completes a partial transport checksum in software, in one pass over the slices: for links without offload.
    ///
    /// A super-segment is cut first ([`crate::wire::offload`]); finished whole it is one packet longer than the MTU.
    pub fn finish_checksum(&mut self) {
        let TxChecksum::Partial { start, offset } = core::mem::take(&mut self.checksum) else { return };
        let (start, offset) = (usize::from(start), usize::from(offset));
        let mut sum = Checksum::new();
        sum.add(self.head.get(start..).unwrap_or_default());
        for slice in &self.payload {
            sum.add(slice);
        }
        let mut value = sum.finish();
        if value == 0 && offset == udp::CHECKSUM_AT {
            value = 0xffff; // RFC 768: zero on the wire would say that there is none
        }
        if let Some(field) = self.head.get_mut(start + offset..start + offset + 2) {
            field.copy_from_slice(&value.to_be_bytes());
        }
    }

    /// The whole packet in one buffer. Copies: for tests, captures and links without scatter-gather.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut packet = Vec::with_capacity(self.len());
        packet.extend_from_slice(&self.head);
        for slice in &self.payload {
            packet.extend_from_slice(slice);
        }
        packet
    }
}

/// What the device says about a received packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RxMeta {
    /// The device vouches for the transport checksum (virtio `NEEDS_CSUM` or `DATA_VALID`): not verified again.
    pub checksum_valid: bool,
    /// Payload bytes a segment where the device merged several (virtio `gso_size`), else 0.
    pub segment_size: u16,
    /// Bytes of the buffer that the packet keeps alive; 0 means "as long as the packet".
    pub truesize: u32,
}
