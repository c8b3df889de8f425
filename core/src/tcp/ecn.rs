//! Explicit congestion notification: what was agreed on, and what is owed to the peer because of a mark.
//!
//! Owns:    whether both ends take part, and the echo that lasts until the peer says it has slowed down.
//! Input:   the flags of SYN and SYN-ACK, the ECN bits of arriving data, CWR.
//! Output:  the flags of our SYN and of every later segment.
//! Rules:   RFC 3168 6.1. Linux: `tcp_ecn_send_syn`, `tcp_ecn_rcv_synack`, `tcp_ecn_create_request`, `tcp_data_ecn_check`,
//!          `tcp_ecn_accept_cwr`, `tcp_ecn_send`.
//! Not here: what an echo does to our window (`send/recovery`), which segments carry ECT(0) (`connection/output`).

use crate::sysctl::Sysctl;
use crate::wire::segment::{Flags, Segment};

/// ECT(0) in the IP header: the mark of a segment that routers may mark CE instead of dropping it.
pub(crate) const ECT_0: u8 = 2;
/// Congestion experienced.
const CE: u8 = 3;

/// Both flags of a SYN that asks for ECN.
const ASK: Flags = Flags(Flags::ECE.0 | Flags::CWR.0);

/// The state of one connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Ecn(u8);

impl Ecn {
    /// Agreed on; while in SYN-SENT: asked for (Linux `TCP_ECN_MODE_RFC3168`).
    const ON: u8 = 1;
    /// Our SYN asks. A repeated SYN stops asking: a broken middlebox may have dropped the first because of it.
    const ASKS: u8 = 2;
    /// ECE in every segment until CWR comes (Linux `TCP_ECN_DEMAND_CWR`).
    const ECHO: u8 = 4;
    /// A segment with an ECN mark has come (Linux `TCP_ECN_SEEN`): where ECN is on, one with data.
    const SEEN: u8 = 8;

    /// An active open.
    pub(crate) fn ask(sysctl: &Sysctl) -> Self {
        Self(if sysctl.tcp_ecn == 1 { Self::ON | Self::ASKS } else { 0 })
    }

    /// A passive open, as [`Ecn::accepts`] said.
    pub(crate) fn agreed(on: bool) -> Self {
        Self(u8::from(on) * Self::ON)
    }

    /// Does a listener agree to what `syn` asks for (Linux `tcp_ecn_create_request`)?
    pub(crate) fn accepts(syn: &Segment, sysctl: &Sysctl) -> bool {
        let flags = syn.header.flags;
        // RFC 3168 6.1.1: a SYN is Not-ECT. One that is marked says nothing reliable, unless it asks for accurate ECN.
        flags.contains(ASK) && sysctl.tcp_ecn != 0 && (syn.ecn() == 0 || flags.contains(Flags::AE))
    }

    fn has(self, bit: u8) -> bool {
        self.0 & bit != 0
    }

    fn set(&mut self, bit: u8, on: bool) {
        self.0 = if on { self.0 | bit } else { self.0 & !bit };
    }

    /// Both ends take part.
    pub(crate) fn is_on(self) -> bool {
        self.has(Self::ON)
    }

    /// A segment with an ECN mark has come.
    pub(crate) fn is_seen(self) -> bool {
        self.has(Self::SEEN)
    }

    /// What our SYN adds to its flags.
    pub(crate) fn syn_flags(self) -> Flags {
        if self.has(Self::ASKS) { ASK } else { Flags::NONE }
    }

    /// What our SYN-ACK of a simultaneous open adds (Linux `tcp_ecn_send_synack`).
    pub(crate) fn syn_ack_flags(self) -> Flags {
        if self.has(Self::ASKS) && self.is_on() { Flags::ECE } else { Flags::NONE }
    }

    /// Our SYN is sent again (RFC 3168 6.1.1.1; Linux `tcp_ecn_clear_syn`, `tcp_ecn_fallback`). The answer to the first one
    /// may still agree.
    pub(crate) fn on_syn_repeated(&mut self, fallback: bool) {
        if fallback {
            self.set(Self::ASKS, false);
        }
    }

    /// The peer's SYN-ACK: "ECE set and CWR not set" agrees.
    pub(crate) fn on_syn_ack(&mut self, flags: Flags) {
        if !flags.ece() || flags.cwr() {
            self.set(Self::ON, false);
        }
    }

    /// The peer's SYN of a simultaneous open.
    pub(crate) fn on_syn(&mut self, flags: Flags) {
        if !flags.contains(ASK) {
            self.set(Self::ON, false);
        }
    }

    /// An acceptable segment came with these ECN bits. Linux 6.18 notes a mark on any of them where ECN was not agreed on.
    pub(crate) fn on_segment(&mut self, bits: u8) {
        if bits != 0 && !self.is_on() {
            self.set(Self::SEEN, true);
        }
    }

    /// Data came with these ECN bits. True: acknowledge quickly (Linux `tcp_enter_quickack_mode(sk, 2)`).
    pub(crate) fn on_data(&mut self, bits: u8) -> bool {
        if !self.is_on() {
            return false;
        }
        match bits {
            // "if ECT is not set on a segment, and we already seen ECT on a previous segment, it is probably a retransmit"
            0 => self.is_seen(),
            CE => {
                let first = !self.has(Self::ECHO);
                self.set(Self::SEEN | Self::ECHO, true);
                first
            }
            _ => {
                self.set(Self::SEEN, true);
                false
            }
        }
    }

    /// The flags of an acceptable segment: CWR ends the echo. True when it does so with data: its sender may have a window
    /// of one segment, so acknowledge at once. Linux takes CWR from pure ACKs too, which RFC 3168 does not foresee.
    pub(crate) fn on_flags(&mut self, flags: Flags, takes_sequence: bool) -> bool {
        if !self.is_on() || !flags.cwr() {
            return false;
        }
        self.set(Self::ECHO, false);
        takes_sequence
    }

    /// What every segment but a SYN adds to its flags.
    pub(crate) fn echo(self) -> Flags {
        if self.is_on() && self.has(Self::ECHO) { Flags::ECE } else { Flags::NONE }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_echo_lasts_until_cwr() {
        let mut ecn = Ecn::agreed(true);
        assert!(!ecn.on_data(ECT_0) && ecn.is_seen());
        assert!(ecn.on_data(CE), "the first mark asks for quick ACKs");
        assert!(!ecn.on_data(CE), "the second does not");
        assert_eq!(ecn.echo(), Flags::ECE);
        assert!(ecn.on_data(0), "a repeat, probably");
        assert!(!ecn.on_flags(Flags::ACK, true));
        assert!(ecn.on_flags(Flags::ACK | Flags::CWR, true));
        assert_eq!(ecn.echo(), Flags::NONE);
    }

    #[test]
    fn marks_are_only_noted_where_ecn_was_not_agreed_on() {
        let mut ecn = Ecn::agreed(false);
        assert!(!ecn.on_data(CE) && !ecn.is_seen());
        ecn.on_segment(0);
        assert!(!ecn.is_seen());
        ecn.on_segment(CE);
        assert!(ecn.is_seen());
        assert_eq!(ecn.echo(), Flags::NONE);
    }

    #[test]
    fn a_repeated_syn_does_not_ask_but_a_late_answer_agrees() {
        let sysctl = Sysctl { tcp_ecn: 1, ..Sysctl::default() };
        let mut ecn = Ecn::ask(&sysctl);
        assert_eq!(ecn.syn_flags(), ASK);
        ecn.on_syn_repeated(false);
        assert_eq!(ecn.syn_flags(), ASK, "tcp_ecn_fallback=0");
        ecn.on_syn_repeated(true);
        assert_eq!(ecn.syn_flags(), Flags::NONE);
        ecn.on_syn_ack(Flags::SYN | Flags::ACK | Flags::ECE);
        assert!(ecn.is_on());
        ecn.on_syn_ack(Flags::SYN | Flags::ACK | Flags::ECE | Flags::CWR);
        assert!(!ecn.is_on(), "a reflection of our own flags is no answer");
    }
}
