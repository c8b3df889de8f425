//! Urgent data as received: one byte beside the stream, and the mark where it was.
//!
//! Owns:    the mark (`urg_seq`) and the byte.
//! Input:   the URG flag and pointer, payload, reads.
//! Output:  how far a read may go, and the byte for `MSG_OOB`.
//! Rules:   RFC 9293 3.8.5, RFC 6093. Linux: `tcp_check_urg`, `tcp_urg`, `tcp_recv_urg`, `SIOCATMARK`.
//! Differs: the pointer means what BSD and Linux take it for, one past the byte, unless `tcp_stdurg`.
//! Not here: urgent data sent (`send`).

use crate::tcp::seq::SeqNum;

/// Linux `urg_data`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Byte {
    /// There is no mark.
    #[default]
    None,
    /// Announced, not arrived yet (`TCP_URG_NOTYET`).
    Awaited,
    /// Here, and nobody has read it apart (`TCP_URG_VALID`).
    Here(u8),
    /// Read with `MSG_OOB`; the mark stays until the stream is read past it (`TCP_URG_READ`).
    Taken,
}

/// What `MSG_OOB` gives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Urgent {
    /// The byte.
    Byte(u8),
    /// It is announced and has not come.
    Awaited,
    /// There is none, or it was read already.
    None,
}

/// The mark of one connection.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Mark {
    byte: Byte,
    /// Linux `urg_seq`.
    seq: SeqNum,
}

impl Mark {
    /// Linux `urg_data != 0`.
    pub(crate) fn is_set(&self) -> bool {
        self.byte != Byte::None
    }

    /// The byte has come and was not read apart (`EPOLLPRI`).
    pub(crate) fn is_here(&self) -> bool {
        matches!(self.byte, Byte::Here(_))
    }

    /// The next byte to be read is the urgent one (`SIOCATMARK`).
    pub(crate) fn is_at(&self, copied_seq: SeqNum) -> bool {
        self.is_set() && self.seq == copied_seq
    }

    /// Bytes of the stream before the mark, if it lies ahead.
    pub(crate) fn ahead_of(&self, copied_seq: SeqNum) -> Option<u32> {
        (self.is_set() && !self.seq.before(copied_seq)).then(|| self.seq.since(copied_seq))
    }

    /// A segment at `seq` with URG and this pointer (Linux `tcp_check_urg`). True: a new mark; one unread before it is lost.
    pub(crate) fn announce(
        &mut self,
        seq: SeqNum,
        pointer: u16,
        stdurg: bool,
        copied_seq: SeqNum,
        rcv_nxt: SeqNum,
    ) -> bool {
        let back = u32::from(pointer != 0 && !stdurg);
        let mark = seq + u32::from(pointer) - back;
        // "Ignore urgent data that we've already seen and read." "Do not replay urg ptr."
        // "Do we already have a newer (or duplicate) urgent pointer?"
        let is_new = !copied_seq.after(mark)
            && !mark.before(rcv_nxt)
            && (self.byte == Byte::None || mark.after(self.seq));
        if is_new {
            *self = Self { byte: Byte::Awaited, seq: mark };
        }
        is_new
    }

    /// Payload from `seq` on (Linux `tcp_urg`). True: it brings the byte.
    pub(crate) fn take_from(&mut self, seq: SeqNum, payload: &[u8]) -> bool {
        if self.byte != Byte::Awaited || self.seq.before(seq) {
            return false;
        }
        match payload.get(self.seq.since(seq) as usize) {
            Some(byte) => {
                self.byte = Byte::Here(*byte);
                true
            }
            None => false,
        }
    }

    /// Reads the byte apart; `peek` leaves it.
    pub(crate) fn take(&mut self, peek: bool) -> Urgent {
        match self.byte {
            Byte::None | Byte::Taken => Urgent::None,
            Byte::Awaited => Urgent::Awaited,
            Byte::Here(byte) => {
                if !peek {
                    self.byte = Byte::Taken;
                }
                Urgent::Byte(byte)
            }
        }
    }

    /// The stream was read to `copied_seq`: a mark left behind is gone.
    pub(crate) fn on_read(&mut self, copied_seq: SeqNum) {
        if copied_seq.after(self.seq) {
            self.byte = Byte::None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: SeqNum = SeqNum(100);

    fn marked(pointer: u16) -> Mark {
        let mut mark = Mark::default();
        assert!(mark.announce(AT, pointer, false, AT, AT));
        mark
    }

    #[test]
    fn the_pointer_is_one_past_the_byte_unless_stdurg() {
        assert_eq!(marked(6).seq, AT + 5);
        assert_eq!(marked(0).seq, AT, "a pointer of 0 is not moved back");
        let mut mark = Mark::default();
        assert!(mark.announce(AT, 6, true, AT, AT));
        assert_eq!(mark.seq, AT + 6);
    }

    #[test]
    fn what_was_read_or_received_cannot_be_marked_again() {
        let mut mark = Mark::default();
        assert!(!mark.announce(AT, 6, false, AT + 6, AT + 6), "read");
        assert!(!mark.announce(AT, 6, false, AT, AT + 6), "received");
        assert!(mark.announce(AT, 7, false, AT, AT + 6), "the next byte");
        assert!(!mark.announce(AT, 7, false, AT, AT + 6), "a repeat");
    }

    #[test]
    fn the_byte_is_read_once_and_the_mark_stays_until_it_is_passed() {
        let mut mark = marked(3);
        assert_eq!(mark.take(false), Urgent::Awaited);
        assert!(!mark.take_from(AT + 3, b"d"), "behind the byte");
        assert!(mark.take_from(AT, b"abc"));
        assert_eq!(mark.take(true), Urgent::Byte(b'c'));
        assert_eq!(mark.take(false), Urgent::Byte(b'c'));
        assert_eq!(mark.take(false), Urgent::None);
        assert!(mark.is_at(AT + 2));
        mark.on_read(AT + 2);
        assert!(mark.is_set());
        mark.on_read(AT + 3);
        assert!(!mark.is_set());
    }
}
