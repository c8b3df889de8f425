//! Captures what passes a device into a pcapng file, as packets of the wire: MTU-sized, checksums finished.
//!
//! Owns:    cutting of copies, and the thread that writes.
//! Rules:   the data path never waits for the disk: what does not fit in the queue to the writer is left out of
//!          the file and counted in it (interface statistics).
//! Not here: the format (`pcapng`).

use std::io::{self, Write};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::thread::JoinHandle;

use bytes::BytesMut;
use lastack_core::wire::offload::Segments;
use lastack_core::wire::transmit::{RxMeta, Transmit};

use crate::clock::Clock;
use crate::device::{Capabilities, Device};
use crate::pcapng::{self, Direction};
use crate::received::undo_offload;

/// Bytes after which a piece of the file goes to the writer.
const PIECE: usize = 64 * 1024;
/// Pieces that may wait for the disk: 16 MiB and what one super-segment adds.
const PIECES_WAITING: usize = 256;

/// Says something about a packet, for example which process it belongs to; `None`: nothing.
pub type Annotate = dyn Fn(Direction, &[u8]) -> Option<String> + Send;

/// A device whose packets are written to a file too.
///
/// # Example
/// ```
/// use lastack::{Capture, Memory};
/// let (left, _right) = Memory::pair(1500);
/// let file = Vec::new(); // or `std::fs::File::create("session.pcapng")?`
/// let device = Capture::new(left, file, "memory")?;
/// # drop(device);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct Capture<D> {
    device: D,
    clock: Clock,
    tape: Mutex<Tape>,
}

/// What is between a packet and the file.
struct Tape {
    piece: Vec<u8>,
    /// Packets in `piece`.
    packets: u64,
    /// Packets that are not in the file.
    dropped: u64,
    packet: Vec<u8>,
    received: Transmit,
    annotate: Option<Box<Annotate>>,
    writer: Option<(SyncSender<Vec<u8>>, JoinHandle<()>)>,
}

impl<D: Device> Capture<D> {
    /// Captures `device` into `file`. `interface` is the link's name in the file.
    ///
    /// # Errors
    /// The header cannot be written, or no thread can be started.
    pub fn new(device: D, mut file: impl Write + Send + 'static, interface: &str) -> io::Result<Self> {
        let mut header = Vec::new();
        pcapng::write_header(&mut header, concat!("lastack ", env!("CARGO_PKG_VERSION")), interface);
        file.write_all(&header)?;
        file.flush()?;
        let (to_writer, pieces) = sync_channel(PIECES_WAITING);
        let thread = std::thread::Builder::new()
            .name("lastack-capture".into())
            .spawn(move || write_pieces(file, &pieces))?;
        let tape = Tape {
            piece: Vec::new(),
            packets: 0,
            dropped: 0,
            packet: Vec::new(),
            received: Transmit::default(),
            annotate: None,
            writer: Some((to_writer, thread)),
        };
        Ok(Self { device, clock: Clock::start(), tape: Mutex::new(tape) })
    }

    /// Asks `annotate` about every packet; what it says becomes the packet's comment.
    #[must_use]
    pub fn annotate(self, annotate: impl Fn(Direction, &[u8]) -> Option<String> + Send + 'static) -> Self {
        self.lock().annotate = Some(Box::new(annotate));
        self
    }

    /// Packets that are not in the file because the disk was too slow.
    pub fn dropped(&self) -> u64 {
        self.lock().dropped
    }

    fn lock(&self) -> MutexGuard<'_, Tape> {
        self.tape.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// The writer's thread: until the tape is dropped or the file fails.
fn write_pieces(mut file: impl Write, pieces: &Receiver<Vec<u8>>) {
    for piece in pieces {
        if file.write_all(&piece).and_then(|()| file.flush()).is_err() {
            return;
        }
    }
}

impl Tape {
    fn sent(&mut self, clock: &Clock, packet: &Transmit) {
        let mut segments = Segments::new(packet);
        while segments.next_packet(&mut self.packet) {
            self.record(clock, Direction::Outbound);
        }
    }

    fn received(&mut self, clock: &Clock, packet: &[u8], meta: RxMeta) {
        if !meta.checksum_valid && meta.segment_size == 0 {
            self.packet.clear();
            self.packet.extend_from_slice(packet);
            self.record(clock, Direction::Inbound);
            return;
        }
        let mut received = std::mem::take(&mut self.received);
        undo_offload(&mut received, packet, meta);
        let mut segments = Segments::new(&received);
        while segments.next_packet(&mut self.packet) {
            self.record(clock, Direction::Inbound);
        }
        received.clear();
        self.received = received;
    }

    /// Writes `self.packet`.
    fn record(&mut self, clock: &Clock, direction: Direction) {
        let comment = self.annotate.as_ref().and_then(|annotate| annotate(direction, &self.packet));
        pcapng::write_packet(&mut self.piece, clock.now(), direction, &self.packet, comment.as_deref());
        self.packets += 1;
        if self.piece.len() >= PIECE {
            self.hand_over();
        }
    }

    fn hand_over(&mut self) {
        if self.piece.is_empty() {
            return;
        }
        let Some((writer, _)) = &self.writer else { return };
        match writer.try_send(std::mem::take(&mut self.piece)) {
            Ok(()) => {}
            Err(TrySendError::Full(piece) | TrySendError::Disconnected(piece)) => {
                self.dropped += self.packets;
                self.piece = piece;
                self.piece.clear();
            }
        }
        self.packets = 0;
    }
}

impl<D: Device> Device for Capture<D> {
    fn capabilities(&self) -> Capabilities {
        self.device.capabilities()
    }

    fn poll_recv(&self, cx: &mut Context<'_>, buf: &mut BytesMut) -> Poll<io::Result<RxMeta>> {
        let before = buf.len();
        let result = self.device.poll_recv(cx, buf);
        let mut tape = self.lock();
        match &result {
            Poll::Ready(Ok(meta)) => tape.received(&self.clock, &buf[before..], *meta),
            // The device has no more: the file should show what has happened.
            Poll::Ready(Err(_)) | Poll::Pending => tape.hand_over(),
        }
        result
    }

    fn send(&self, packet: &Transmit) -> io::Result<()> {
        // Under the lock already, so that no answer is recorded before what it answers. Recorded only if it left.
        let mut tape = self.lock();
        self.device.send(packet)?;
        tape.sent(&self.clock, packet);
        Ok(())
    }

    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.device.poll_writable(cx)
    }

    fn rx_dropped(&self) -> u64 {
        self.device.rx_dropped()
    }
}

impl<D> Drop for Capture<D> {
    /// Completes the file: waits for the disk.
    fn drop(&mut self) {
        let now = self.clock.now();
        let tape = self.tape.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner);
        pcapng::write_dropped(&mut tape.piece, now, tape.dropped);
        if let Some((writer, thread)) = tape.writer.take() {
            let _ = writer.send(std::mem::take(&mut tape.piece));
            drop(writer);
            let _ = thread.join();
        }
    }
}

impl std::fmt::Debug for Tape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tape")
            .field("waiting_bytes", &self.piece.len())
            .field("dropped", &self.dropped)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::task::Waker;

    use lastack_core::wire::segment::SegmentHeader;
    use lastack_core::wire::{Body, IpFields, emit, parse};

    use bytes::Bytes;

    use super::*;
    use crate::device::MAX_PACKET;
    use crate::memory::Memory;

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// The packets of a file, with their flags.
    fn packets(file: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
        let (mut rest, mut found) = (file, Vec::new());
        while !rest.is_empty() {
            let word = |at: usize| u32::from_le_bytes(rest[at..at + 4].try_into().unwrap()) as usize;
            if word(0) == 6 {
                let end = 28 + word(20);
                found.push((rest[28..end].to_vec(), rest[end.next_multiple_of(4)..word(4) - 4].to_vec()));
            }
            rest = &rest[word(4)..];
        }
        found
    }

    fn super_segment(src: &str, dst: &str) -> Transmit {
        let ip = IpFields { src: src.parse().unwrap(), dst: dst.parse().unwrap(), ttl: 64, tos: 0, id: 1 };
        let payload = vec![Bytes::from_static(&[7; 100]), Bytes::from(vec![9; 3900])];
        let mut packet = Transmit { payload, segment_size: 1440, ..Transmit::default() };
        emit::tcp(&mut packet, &ip, &SegmentHeader { src_port: 80, ..SegmentHeader::default() });
        packet
    }

    #[test]
    fn both_directions_are_written_as_packets_of_the_wire() {
        for (src, dst) in [("192.0.2.1", "192.0.2.2"), ("2001:db8::1", "2001:db8::2")] {
            let file = Shared::default();
            let (left, right) = Memory::pair_with_offload(1500);
            let left = Capture::new(left, file.clone(), "memory")
                .unwrap()
                .annotate(|direction, _| (direction == Direction::Inbound).then(|| "from right".to_string()));
            left.send(&super_segment(src, dst)).unwrap();
            right.send(&super_segment(dst, src)).unwrap();
            let mut buf = BytesMut::with_capacity(MAX_PACKET);
            assert!(left.poll_recv(&mut Context::from_waker(Waker::noop()), &mut buf).is_ready());
            drop(left);

            let file = file.0.lock().unwrap();
            let found = packets(&file);
            assert_eq!(found.len(), 6, "{src}");
            for (index, (packet, options)) in found.iter().enumerate() {
                assert!(packet.len() <= 1500);
                let parsed = parse(&Bytes::copy_from_slice(packet), RxMeta::default());
                assert!(matches!(parsed.unwrap().body, Body::Tcp(_)), "the checksum is finished");
                let has_comment = options.windows(10).any(|bytes| bytes == b"from right");
                assert_eq!(has_comment, index >= 3);
            }
        }
    }

    /// A disk that takes nothing until it is allowed to.
    struct Stuck(Receiver<()>);

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if bytes.len() > 1000 {
                let _ = self.0.recv();
            }
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_disk_that_hangs_does_not_hold_up_packets() {
        let (release, stuck) = sync_channel(0);
        let (left, right) = Memory::pair_with_offload(65_000);
        let left = Capture::new(left, Stuck(stuck), "memory").unwrap();
        let mut packet = super_segment("192.0.2.1", "192.0.2.2");
        packet.payload = vec![Bytes::from(vec![1; 60_000])];
        packet.segment_size = 0;
        let mut buf = BytesMut::with_capacity(MAX_PACKET);
        for _ in 0..PIECES_WAITING * 2 + 8 {
            left.send(&packet).unwrap();
            buf.clear();
            assert!(right.poll_recv(&mut Context::from_waker(Waker::noop()), &mut buf).is_ready());
        }
        assert!(left.dropped() > 0);
        drop(release);
        drop(left);
    }
}
