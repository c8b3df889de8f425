//! A link inside the process: what one end sends, the other receives.
//!
//! Owns:    a bounded queue a direction.
//! Rules:   packets are as on a wire: MTU-sized, every checksum finished ([`Memory::pair`]); or super-segments
//!          stay whole as on a virtual link with offload ([`Memory::pair_with_offload`]).
//!          A full queue answers `WouldBlock`, as a qdisc holds back a local sender; nothing is lost.
//! Not here: delay, loss ([`Impaired`](crate::Impaired) around it; `lastack_core`'s simulator has them in virtual time).

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

use bytes::{BufMut, BytesMut};
use lastack_core::wire::offload::Segments;
use lastack_core::wire::transmit::{RxMeta, Transmit, TxChecksum};

use crate::device::{Capabilities, Device};

/// Packets a direction may hold before the sender has to wait.
const QUEUE_LIMIT: usize = 512;
/// Bytes of buffers kept for later packets.
const SPARE_LIMIT: usize = 2 << 20;

/// One end of a link inside the process.
///
/// # Example
/// ```
/// use lastack::{Device, Memory};
/// let (left, right) = Memory::pair(1500);
/// assert_eq!(left.capabilities(), right.capabilities());
/// ```
#[derive(Debug)]
pub struct Memory {
    outgoing: Arc<Mutex<Queue>>,
    incoming: Arc<Mutex<Queue>>,
    capabilities: Capabilities,
}

#[derive(Debug, Default)]
struct Queue {
    packets: VecDeque<(Vec<u8>, RxMeta)>,
    /// Buffers of packets that were received, for the next ones.
    spare: Vec<Vec<u8>>,
    spare_bytes: usize,
    is_closed: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Memory {
    /// Two ends of a plain link.
    pub fn pair(mtu: u32) -> (Self, Self) {
        Self::pair_of(Capabilities::plain(mtu))
    }

    /// Two ends of a link that passes super-segments and unfinished checksums on, as two virtual machines on one
    /// host do: for programs that want the two stacks joined and no wire in between.
    pub fn pair_with_offload(mtu: u32) -> (Self, Self) {
        Self::pair_of(Capabilities { mtu, checksum: true, tso4: true, tso6: true, uso: true })
    }

    fn pair_of(capabilities: Capabilities) -> (Self, Self) {
        let (there, back) = (Arc::<Mutex<Queue>>::default(), Arc::<Mutex<Queue>>::default());
        let left = Self { outgoing: there.clone(), incoming: back.clone(), capabilities };
        (left, Self { outgoing: back, incoming: there, capabilities })
    }
}

fn lock(queue: &Mutex<Queue>) -> MutexGuard<'_, Queue> {
    queue.lock().expect("no code panics while it holds a queue")
}

impl Queue {
    fn spare(&mut self) -> Vec<u8> {
        let mut packet = self.spare.pop().unwrap_or_default();
        self.spare_bytes -= packet.capacity();
        packet.clear();
        packet
    }

    fn push(&mut self, packet: &Transmit, capabilities: &Capabilities) {
        let mut buffer = self.spare();
        if capabilities.takes(packet) {
            buffer.extend_from_slice(&packet.head);
            packet.payload.iter().for_each(|slice| buffer.extend_from_slice(slice));
            let meta = RxMeta {
                checksum_valid: packet.checksum != TxChecksum::Complete,
                segment_size: packet.segment_size,
                truesize: 0,
            };
            self.packets.push_back((buffer, meta));
            return;
        }
        let mut segments = Segments::new(packet);
        while segments.next_packet(&mut buffer) {
            let next = self.spare();
            self.packets.push_back((std::mem::replace(&mut buffer, next), RxMeta::default()));
        }
        self.spare_bytes += buffer.capacity();
        self.spare.push(buffer);
    }
}

impl Device for Memory {
    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    fn poll_recv(&self, cx: &mut Context<'_>, buf: &mut BytesMut) -> Poll<io::Result<RxMeta>> {
        let mut queue = lock(&self.incoming);
        let Some((packet, meta)) = queue.packets.pop_front() else {
            if queue.is_closed {
                return Poll::Ready(Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "the other end is gone",
                )));
            }
            queue.reader = Some(cx.waker().clone());
            return Poll::Pending;
        };
        buf.put_slice(&packet);
        if queue.spare_bytes < SPARE_LIMIT {
            queue.spare_bytes += packet.capacity();
            queue.spare.push(packet);
        }
        let writer = if queue.packets.len() < QUEUE_LIMIT { queue.writer.take() } else { None };
        drop(queue);
        if let Some(writer) = writer {
            writer.wake();
        }
        Poll::Ready(Ok(RxMeta { truesize: buf.capacity() as u32, ..meta }))
    }

    fn send(&self, packet: &Transmit) -> io::Result<()> {
        let mut queue = lock(&self.outgoing);
        if queue.is_closed {
            return Err(io::ErrorKind::NotConnected.into());
        }
        if queue.packets.len() >= QUEUE_LIMIT {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        queue.push(packet, &self.capabilities);
        let reader = queue.reader.take();
        drop(queue);
        if let Some(reader) = reader {
            reader.wake();
        }
        Ok(())
    }

    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut queue = lock(&self.outgoing);
        if queue.packets.len() < QUEUE_LIMIT || queue.is_closed {
            return Poll::Ready(Ok(()));
        }
        queue.writer = Some(cx.waker().clone());
        Poll::Pending
    }
}

/// The other end learns that the link is gone, after it has received what was sent.
impl Drop for Memory {
    fn drop(&mut self) {
        for queue in [&self.outgoing, &self.incoming] {
            let mut queue = lock(queue);
            queue.is_closed = true;
            let wakers = [queue.reader.take(), queue.writer.take()];
            drop(queue);
            wakers.into_iter().flatten().for_each(Waker::wake);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use bytes::Bytes;
    use lastack_core::wire::segment::SegmentHeader;
    use lastack_core::wire::{IpFields, emit};

    use super::*;
    use crate::device::MAX_PACKET;

    fn super_segment(bytes: usize) -> Transmit {
        let ip = IpFields { src: [192, 0, 2, 1].into(), dst: [192, 0, 2, 2].into(), ttl: 64, tos: 0, id: 1 };
        let payload = vec![Bytes::from(vec![7; bytes])];
        let mut packet = Transmit { payload, segment_size: 1460, ..Transmit::default() };
        emit::tcp(&mut packet, &ip, &SegmentHeader::default());
        packet
    }

    fn receive(device: &Memory, waker: &Waker) -> Poll<(usize, RxMeta)> {
        let mut buf = BytesMut::with_capacity(MAX_PACKET);
        device
            .poll_recv(&mut Context::from_waker(waker), &mut buf)
            .map(|meta| (buf.len(), meta.expect("the link is there")))
    }

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl std::task::Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_plain_link_carries_packets_of_the_wire() {
        let (left, right) = Memory::pair(1500);
        left.send(&super_segment(4000)).unwrap();
        for size in [1500, 1500, 1120] {
            let Poll::Ready((len, meta)) = receive(&right, Waker::noop()) else { panic!("a packet waits") };
            assert_eq!((len, meta.segment_size, meta.checksum_valid), (size, 0, false));
        }
        assert!(receive(&right, Waker::noop()).is_pending());
    }

    #[test]
    fn a_link_with_offload_keeps_a_super_segment_whole() {
        let (left, right) = Memory::pair_with_offload(1500);
        left.send(&super_segment(4000)).unwrap();
        let Poll::Ready((len, meta)) = receive(&right, Waker::noop()) else { panic!("a packet waits") };
        assert_eq!((len, meta.segment_size, meta.checksum_valid), (4040, 1460, true));
    }

    #[test]
    fn a_full_queue_holds_the_sender_back_and_wakes_it() {
        let (left, right) = Memory::pair(1500);
        let woken = Arc::new(Count::default());
        let waker = Waker::from(woken.clone());
        let packet = super_segment(100);
        for _ in 0..QUEUE_LIMIT {
            left.send(&packet).unwrap();
        }
        assert_eq!(left.send(&packet).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        assert!(left.poll_writable(&mut Context::from_waker(&waker)).is_pending());
        assert!(receive(&right, Waker::noop()).is_ready());
        assert_eq!(woken.0.load(Ordering::Relaxed), 1);
        left.send(&packet).unwrap();
    }

    #[test]
    fn an_arriving_packet_wakes_the_reader() {
        let (left, right) = Memory::pair(1500);
        let woken = Arc::new(Count::default());
        assert!(receive(&right, &Waker::from(woken.clone())).is_pending());
        left.send(&super_segment(1)).unwrap();
        assert_eq!(woken.0.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn what_was_sent_arrives_before_the_end_of_the_link() {
        let (left, right) = Memory::pair(1500);
        left.send(&super_segment(1)).unwrap();
        drop(left);
        assert!(receive(&right, Waker::noop()).is_ready());
        let mut buf = BytesMut::with_capacity(MAX_PACKET);
        let end = right.poll_recv(&mut Context::from_waker(Waker::noop()), &mut buf);
        assert!(matches!(end, Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof));
    }
}
