//! Reading: from the queue to the application, up to the mark of urgent data.
//!
//! Rules: Linux `tcp_recvmsg_locked`, `tcp_inq`.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use crate::tcp::receive::Receiver;
use crate::tcp::seq::SeqNum;

impl Receiver {
    /// Bytes readable now.
    pub(crate) fn readable(&self) -> u32 {
        self.queued
    }

    /// Linux `tcp_inq`: bytes that a read gives at most, up to the mark.
    pub(crate) fn available(&self, inline: bool) -> u32 {
        match self.mark.ahead_of(self.copied_seq) {
            Some(ahead) if !inline && ahead < self.queued => ahead,
            _ => self.queued,
        }
    }

    /// An urgent pointer arrived (Linux `tcp_check_urg`).
    pub(crate) fn announce_urgent(&mut self, seq: SeqNum, pointer: u16, stdurg: bool, inline: bool) {
        let before = self.mark;
        if self.mark.announce(seq, pointer, stdurg, self.copied_seq, self.rcv_nxt)
            && before.is_at(self.copied_seq)
            && !inline
            && self.queued > 0
        {
            // "We may be adding urgent data when the last byte read was urgent": it is not read again as data.
            self.skip_byte();
        }
    }

    /// How far one read may go from here; steps over an urgent byte that is not part of the stream.
    /// `None`: something was read, and the mark is here.
    fn run(&mut self, has_read: bool, inline: bool) -> Option<usize> {
        match self.mark.ahead_of(self.copied_seq) {
            Some(0) if has_read => None,
            Some(0) if !inline && self.queued > 0 => {
                self.skip_byte();
                self.mark.on_read(self.copied_seq);
                Some(usize::MAX)
            }
            Some(0) | None => Some(usize::MAX),
            Some(ahead) => Some(ahead as usize),
        }
    }

    fn skip_byte(&mut self) {
        let _ = self.take(1);
    }

    /// At most `max` bytes of the oldest slice, shared. `inline`: the urgent byte is part of the stream.
    pub(crate) fn pop(&mut self, max: usize, inline: bool) -> Option<Bytes> {
        let max = max.min(self.run(false, inline)?);
        let chunk = self.take(max)?;
        self.mark.on_read(self.copied_seq);
        Some(chunk)
    }

    /// At most `max` bytes of the oldest slice, whatever they are.
    fn take(&mut self, max: usize) -> Option<Bytes> {
        if self.queue.is_empty() {
            self.seal_tail();
        }
        let front = self.queue.front_mut()?;
        let chunk = if front.len() <= max { self.queue.pop_front()? } else { front.split_to(max) };
        self.queued -= chunk.len() as u32;
        self.memory.take(chunk.len() as u32);
        self.copied_seq += chunk.len() as u32;
        if self.queued == 0 {
            // "buffers taken only while data is in them"
            self.tail = BytesMut::new();
            self.tail_size = 0;
            self.queue = VecDeque::new();
        }
        Some(chunk)
    }

    /// Copies into `buf`; gives how many bytes.
    pub(crate) fn read(&mut self, buf: &mut [u8], inline: bool) -> usize {
        let mut done = 0;
        while done < buf.len() {
            let Some(run) = self.run(done > 0, inline) else { break };
            let Some(chunk) = self.take(run.min(buf.len() - done)) else { break };
            self.mark.on_read(self.copied_seq);
            buf[done..done + chunk.len()].copy_from_slice(&chunk);
            done += chunk.len();
        }
        done
    }

    /// As [`Receiver::read`], and everything stays (`MSG_PEEK`).
    pub(crate) fn peek(&self, buf: &mut [u8], inline: bool) -> usize {
        let ahead = self.mark.ahead_of(self.copied_seq);
        let skip = usize::from(ahead == Some(0) && !inline);
        let most = ahead.filter(|ahead| *ahead > 0).map_or(buf.len(), |ahead| buf.len().min(ahead as usize));
        let slices = self.queue.iter().map(|slice| &slice[..]).chain([&self.tail[..]]);
        let (mut at, mut done) = (0, 0);
        for slice in slices {
            let from = skip.saturating_sub(at).min(slice.len());
            let len = (slice.len() - from).min(most - done);
            buf[done..done + len].copy_from_slice(&slice[from..from + len]);
            at += slice.len();
            done += len;
        }
        done
    }

    /// The application has read the end of file.
    pub(crate) fn read_fin(&mut self) {
        self.memory.take_fin();
    }

    /// Throws away what nobody will read (close, reset); gives how many bytes.
    pub(crate) fn discard(&mut self) -> u32 {
        let unread = self.queued;
        self.queue = VecDeque::new();
        self.tail = BytesMut::new();
        self.queued = 0;
        self.memory.clear();
        self.copied_seq = if self.fin { self.rcv_nxt - 1 } else { self.rcv_nxt };
        unread
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::Counters;
    use crate::sysctl::Sysctl;
    use crate::tcp::options::TcpOptions;
    use crate::tcp::receive::{Charge, InitialWindow};

    /// "abc" at the beginning, then "def" that keeps its own buffer.
    fn receiver() -> Receiver {
        let initial = InitialWindow::for_socket(&TcpOptions::default(), 1460, true, &Sysctl::default());
        let mut receiver = Receiver::new(initial, 131_072, false);
        receiver.synchronise(SeqNum(u32::MAX - 2));
        for (piece, truesize) in [("abc", 100), ("def", 3)] {
            receiver.push(
                Bytes::from_static(piece.as_bytes()),
                truesize,
                Charge::of(43),
                true,
                &mut Counters::default(),
            );
        }
        receiver
    }

    fn read(receiver: &mut Receiver, inline: bool) -> String {
        let mut buf = [0; 16];
        let peeked = receiver.peek(&mut buf, inline);
        let first = buf[..peeked].to_vec();
        let len = receiver.read(&mut buf, inline);
        assert_eq!(first, buf[..len], "a peek sees what a read gives");
        String::from_utf8(buf[..len].to_vec()).expect("letters")
    }

    #[test]
    fn a_read_stops_before_the_urgent_byte_and_the_next_one_steps_over_it() {
        let mut receiver = receiver();
        let seq = receiver.copied_seq;
        assert!(receiver.mark.announce(seq, 5, false, seq, seq));
        assert!(receiver.mark.take_from(seq, b"abcdef"));
        assert_eq!(receiver.available(false), 4);
        assert_eq!(read(&mut receiver, false), "abcd");
        assert!(receiver.mark.is_at(receiver.copied_seq));
        assert_eq!(read(&mut receiver, false), "f");
        assert!(!receiver.mark.is_set());
    }

    #[test]
    fn inline_the_byte_is_data_and_the_mark_still_stops_a_read() {
        let mut receiver = receiver();
        let seq = receiver.copied_seq;
        assert!(receiver.mark.announce(seq, 3, false, seq, seq));
        assert_eq!(read(&mut receiver, true), "ab");
        assert_eq!(read(&mut receiver, true), "cdef");
    }
}
