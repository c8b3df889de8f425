//! A story being written: lines of a script, and what its author believes about the connection.
//!
//! Owns:    numbers (what the peer has sent, what the application has written), the script's clock, options.
//! Differs: the author does not know what the host answers; it knows what a host would be expected to have sent.
//!          Where it is wrong the segments are merely strange, and strange segments are wanted too.

use core::fmt::Write as _;

use super::random::Random;

/// A script under construction.
#[derive(Debug)]
pub(super) struct Story {
    pub(super) random: Random,
    options: Vec<String>,
    sysctls: Vec<String>,
    lines: Vec<String>,
    /// Since the first event, milliseconds.
    clock: u32,
    pub(super) v6: bool,
    pub(super) timestamps: bool,
    pub(super) sack: bool,
    /// The peer scales its window by this.
    pub(super) wscale: Option<u32>,
    /// The peer's next sequence number; 1 is the first data byte.
    pub(super) peer_nxt: u32,
    /// The host's next sequence number, as far as the application's calls tell.
    pub(super) host_nxt: u32,
    /// What the peer has acknowledged.
    pub(super) acked: u32,
    pub(super) win: u32,
    pub(super) fd: u32,
    pub(super) mss: u32,
    peer_clock_offset: u32,
}

impl Story {
    pub(super) fn new(random: Random) -> Self {
        Self {
            random,
            options: vec!["--tcp_ts_ecr_scaled".to_owned()],
            sysctls: Vec::new(),
            lines: Vec::new(),
            clock: 0,
            v6: false,
            timestamps: false,
            sack: true,
            wscale: None,
            peer_nxt: 1,
            host_nxt: 1,
            acked: 1,
            win: 65535,
            fd: 4,
            mss: 1460,
            peer_clock_offset: 100,
        }
    }

    pub(super) fn option(&mut self, option: &str) {
        self.options.push(option.to_owned());
    }

    pub(super) fn sysctl(&mut self, name: &str, value: &str) {
        self.sysctls.push(format!("sysctl -q {name}={value}"));
    }

    /// An event `gap` milliseconds after the one before.
    pub(super) fn at(&mut self, gap: u32, what: &str) {
        self.clock += gap;
        let time = if self.lines.is_empty() {
            "0".to_owned()
        } else {
            format!("+{}", crate::script::print::seconds(core::time::Duration::from_millis(gap.into())))
        };
        self.lines.push(format!("{time} {what}"));
    }

    /// The same after a usual pause: mostly a moment, sometimes long enough for a timer.
    pub(super) fn then(&mut self, what: &str) {
        let gap = self.pause();
        self.at(gap, what);
    }

    fn pause(&mut self) -> u32 {
        self.random.pick(&[2, 2, 2, 2, 5, 10, 10, 10, 20, 30, 70, 120, 260, 330, 700])
    }

    /// A segment of the peer: flags, first number, payload, and whether it acknowledges.
    pub(super) fn peer(&mut self, flags: &str, seq: u32, len: u32, ack: Option<u32>) {
        let options = self.segment_options(flags, "");
        self.peer_with(flags, seq, len, ack, &options);
    }

    /// The same with `sack` blocks.
    pub(super) fn peer_sack(&mut self, ack: u32, blocks: &str) {
        let options = self.segment_options(".", blocks);
        let seq = self.peer_nxt;
        self.peer_with(".", seq, 0, Some(ack), &options);
    }

    fn peer_with(&mut self, flags: &str, seq: u32, len: u32, ack: Option<u32>, options: &str) {
        let gap = self.pause();
        self.clock += gap;
        let win = self.win;
        let ack = ack.map(|ack| format!(" ack {ack}")).unwrap_or_default();
        self.clock -= gap;
        self.at(gap, &format!("< {flags} {seq}:{}({len}){ack} win {win}{options}", seq.wrapping_add(len)));
    }

    /// Timestamps (mostly right, sometimes old) and SACK blocks.
    fn segment_options(&mut self, flags: &str, blocks: &str) -> String {
        let mut parts = Vec::new();
        if self.timestamps && !self.random.chance(3) {
            let old = if self.random.chance(4) { self.random.pick(&[1, 50, 5000]) } else { 0 };
            let val = (self.peer_clock_offset + self.clock).wrapping_sub(old);
            let ecr = if flags.contains('.') { 500 + self.clock.saturating_sub(20) } else { 0 };
            parts.push(format!("nop,nop,TS val {val} ecr {ecr}"));
        }
        if !blocks.is_empty() {
            parts.push(format!("nop,nop,sack {blocks}"));
        }
        if parts.is_empty() { String::new() } else { format!(" <{}>", parts.join(",")) }
    }

    /// Options of the peer's SYN or SYN-ACK.
    pub(super) fn syn_options(&mut self) -> String {
        let mut out = String::new();
        if !self.random.chance(4) {
            let _ = write!(out, "mss {}", self.mss);
        }
        let mut add = |text: &str| {
            if !out.is_empty() {
                out.push(',');
            }
            out.push_str(text);
        };
        match (self.timestamps, self.sack) {
            (true, true) => add("sackOK,TS val 100 ecr 0"),
            (true, false) => add("nop,nop,TS val 100 ecr 0"),
            (false, true) => add("nop,nop,sackOK"),
            (false, false) => {}
        }
        if let Some(shift) = self.wscale {
            add(&format!("nop,wscale {shift}"));
        }
        if out.is_empty() { out } else { format!(" <{out}>") }
    }

    /// What the application can learn.
    pub(super) fn facts(&mut self) {
        self.then("%{ facts }%");
    }

    /// The whole script.
    pub(super) fn text(&self) -> String {
        let mut out = String::new();
        for option in &self.options {
            let _ = writeln!(out, "{option}");
        }
        if !self.sysctls.is_empty() {
            let _ = writeln!(out, "`{}`", self.sysctls.join("\n"));
        }
        for line in &self.lines {
            let _ = writeln!(out, "{line}");
        }
        out
    }
}
