//! What a stack's link must offer: receive one packet, send one packet, say what it can do.
//!
//! Owns:    [`Device`] and [`Capabilities`].
//! Output:  packets that begin with the IP header, no link header.
//! Rules:   one packet (or one super-segment) a call; a call never waits.
//! Not here: the devices: [`Tun`](crate::Tun), [`Veth`](crate::Veth), [`Memory`](crate::Memory),
//!          [`Capture`](crate::Capture), [`Impaired`](crate::Impaired).

use std::io;
use std::task::{Context, Poll};

use bytes::BytesMut;
use lastack_core::wire::transmit::{RxMeta, Transmit};

/// Room that [`Device::poll_recv`] needs in its buffer: the largest IP packet.
pub const MAX_PACKET: usize = 65_536;

/// What a device can do with a packet by itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Capabilities {
    /// Largest IP packet on the link, bytes.
    pub mtu: u32,
    /// Finishes a partial transport checksum.
    pub checksum: bool,
    /// Cuts IPv4 TCP super-segments.
    pub tso4: bool,
    /// Cuts IPv6 TCP super-segments.
    pub tso6: bool,
    /// Cuts UDP super-datagrams.
    pub uso: bool,
}

impl Capabilities {
    /// A plain link: whole packets with finished checksums only.
    pub const fn plain(mtu: u32) -> Self {
        Self { mtu, checksum: false, tso4: false, tso6: false, uso: false }
    }

    /// True when the device takes `packet` as it is; else it has to be cut or finished before
    /// ([`lastack_core::wire::offload`]).
    pub fn takes(&self, packet: &Transmit) -> bool {
        use lastack_core::wire::transmit::TxChecksum::{Complete, Partial};
        match (packet.checksum, packet.segment_size) {
            (Complete, 0) => true,
            (Partial { .. }, 0) => self.checksum,
            (Partial { offset: 6, .. }, _) => self.checksum && self.uso,
            (Partial { .. }, _) if packet.head.first().is_some_and(|first| first >> 4 == 6) => {
                self.checksum && self.tso6
            }
            (Partial { .. }, _) => self.checksum && self.tso4,
            // A device that cuts fills in the checksums of the pieces, so it must be allowed to.
            (Complete, _) => false,
        }
    }
}

/// A link. Calls come from the driver and from any thread that uses a socket, hence `&self`.
pub trait Device: Send + Sync + std::fmt::Debug + 'static {
    /// What the device can do. Constant.
    fn capabilities(&self) -> Capabilities;

    /// Receives one packet into the spare room of `buf`, of which there is at least [`MAX_PACKET`], appended to
    /// what is there. Only the driver calls this; it is woken when `Pending` was returned and a packet has come.
    ///
    /// # Errors
    /// The link is gone: the driver ends with this error.
    fn poll_recv(&self, cx: &mut Context<'_>, buf: &mut BytesMut) -> Poll<io::Result<RxMeta>>;

    /// Sends one packet whole, or not at all.
    ///
    /// # Errors
    /// `WouldBlock`: no room now; the same packet is offered again after [`Device::poll_writable`].
    /// Anything else: this packet is lost, the next may pass.
    fn send(&self, packet: &Transmit) -> io::Result<()>;

    /// Ready when [`Device::send`] may succeed again after `WouldBlock`. Only the driver calls this.
    ///
    /// # Errors
    /// The link is gone.
    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
    /// Packets for this side that the kernel dropped because nobody took them in time, since the start; 0 where the
    /// device cannot tell.
    fn rx_dropped(&self) -> u64 {
        0
    }
}

/// A device whose kind is chosen at run time.
impl Device for Box<dyn Device> {
    fn capabilities(&self) -> Capabilities {
        (**self).capabilities()
    }

    fn poll_recv(&self, cx: &mut Context<'_>, buf: &mut BytesMut) -> Poll<io::Result<RxMeta>> {
        (**self).poll_recv(cx, buf)
    }

    fn send(&self, packet: &Transmit) -> io::Result<()> {
        (**self).send(packet)
    }

    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        (**self).poll_writable(cx)
    }

    fn rx_dropped(&self) -> u64 {
        (**self).rx_dropped()
    }
}
