//! Ends of records (`MSG_EOR`): no segment holds bytes on both sides of one, sent once or again.
//!
//! Owns:    nothing; the queue keeps where records end.
//! Rules:   Linux `tcp_sendmsg_locked` ("TCP_SKB_CB(skb)->eor = 1"), `tcp_skb_can_collapse_to`.

use crate::tcp::send::Sender;
use crate::tcp::seq::SeqNum;

impl Sender {
    /// What was written so far ends a record: the next write begins a new super-segment.
    pub(crate) fn end_record(&mut self) {
        self.queue.end_record();
        self.queue.set_last_filled(self.size_goal());
    }

    /// Payload that is next to be sent: of one record only.
    pub(super) fn next_payload(&self) -> u32 {
        let end = self.queue.record_ends_after(self.snd_nxt).next();
        end.map_or(u32::MAX, |end| end.since(self.snd_nxt)).min(self.unsent_payload())
    }

    /// A record ends at `seq`.
    pub(super) fn is_record_end(&self, seq: SeqNum) -> bool {
        self.queue.record_ends_after(seq - 1).next() == Some(seq)
    }
}
