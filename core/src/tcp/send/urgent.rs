//! Urgent data to send: until the peer has acknowledged it, every segment points at its end.
//!
//! Rules: RFC 9293 3.8.5, RFC 6093. Linux: `tcp_mark_urg`, `tcp_urg_mode`, `__tcp_transmit_skb`.

use crate::tcp::send::Sender;
use crate::tcp::seq::SeqNum;

impl Sender {
    /// What was queued last ends with the urgent byte.
    pub(crate) fn mark_urgent(&mut self) {
        self.snd_up = self.write_seq;
    }

    /// Linux `tcp_urg_mode`.
    pub(super) fn is_urgent(&self) -> bool {
        self.snd_una != self.snd_up
    }

    /// The urgent pointer of a segment at `seq`; 0: without URG.
    pub(crate) fn urgent_pointer(&self, seq: SeqNum) -> u16 {
        if !self.is_urgent() || !seq.before(self.snd_up) {
            return 0;
        }
        match u16::try_from(self.snd_up.since(seq)) {
            Ok(pointer) => pointer,
            // Linux: too far to point at, but told when nothing that was sent lies nearer.
            Err(_) if (seq + 0xffff).after(self.snd_nxt) => u16::MAX,
            Err(_) => 0,
        }
    }

    /// `ack` is about to become `snd_una` (Linux `tcp_clean_rtx_queue`).
    pub(super) fn acked_urgent(&mut self, ack: SeqNum) {
        if self.snd_up.between(self.snd_una, ack) {
            self.snd_up = ack;
        }
    }

    /// Linux `tcp_write_wakeup`: a window probe tells of urgent data that can be pointed at.
    pub(super) fn probes_urgently(&self) -> bool {
        self.snd_up.between(self.snd_una + 1, self.snd_una + 0xffff)
    }
}
