//! A source that is a file of packets: pcap or pcapng, taken anywhere between the two ends.
//!
//! Owns:    [`Capture`]: every TCP connection of a capture, both ends of each.
//! Output:  two [`Snapshot`]s (nothing had happened; the end of the capture) that rules judge as they judge a kernel's;
//!          [`Event`]s with the kernel's names; a sentence for each connection.
//! Rules:   only what packets show is told. Who owned a socket, what waited unsent or unread, and the knobs of either
//!          host are not in a capture, and are absent.
//! Not here: IP fragments and tunnels: such packets are counted as not readable.

mod conversation;
mod end;
mod explain;
mod file;
mod frame;

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, BufReader, Read as _};
use std::net::SocketAddr;
use std::path::Path;

use crate::snapshot::{Missing, Namespace, Snapshot};
use crate::trace::Event;
pub use conversation::{Conversation, Reset, ResetKind, Side};
pub use explain::How;
use file::Frame;
use frame::NotSeen;

/// Connections that are followed; segments of more are counted, not followed.
pub const MAX_CONVERSATIONS: usize = 1_000_000;

/// A capture that has been read.
///
/// # Example
/// ```no_run
/// use lastack_observe::source::capture::Capture;
/// use lastack_observe::words::Lang;
/// let capture = Capture::read("trace.pcapng".as_ref(), |event| println!("{}", event.to_json()))?;
/// for connection in capture.conversations() {
///     let (words, certainty) = connection.explain(capture.ends_ns());
///     println!("{:?}: {} ({})", connection.addresses(), words.get(Lang::En), certainty.name());
/// }
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug, Default)]
pub struct Capture {
    source: String,
    conversations: Vec<Conversation>,
    /// The latest conversation of each pair of addresses.
    by_ends: HashMap<[SocketAddr; 2], usize>,
    begins_ns: u64,
    ends_ns: u64,
    figures: Figures,
}

/// What a capture has, in frames.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Figures {
    /// Frames in the file.
    pub frames: u64,
    /// TCP segments among them.
    pub segments: u64,
    /// TCP, but fragmented, malformed, or cut before the end of the header.
    pub unreadable: u64,
    /// On a link layer that is not known.
    pub unknown_link: u64,
    /// Of connections beyond [`MAX_CONVERSATIONS`].
    pub not_followed: u64,
    /// The file ends in the middle of a block.
    pub is_cut: bool,
}

impl Capture {
    /// True when `path` begins as a pcap or pcapng file does.
    ///
    /// # Errors
    /// The file cannot be opened or read.
    pub fn is_one(path: &Path) -> io::Result<bool> {
        let mut magic = [0; 4];
        match File::open(path)?.read_exact(&mut magic) {
            Ok(()) => Ok(file::is_capture(magic)),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Reads a whole capture; `tell` is told each event as it is found.
    ///
    /// # Errors
    /// The file cannot be read, or is no capture, or has a malformed block. A file that ends in the middle of
    /// a block is read up to there, and [`Figures::is_cut`] says so.
    pub fn read(path: &Path, mut tell: impl FnMut(Event)) -> io::Result<Self> {
        let mut capture = Self { source: path.display().to_string(), ..Self::default() };
        let end = file::read(BufReader::new(File::open(path)?), |frame| capture.frame(&frame, &mut tell))?;
        capture.figures.is_cut = matches!(end, file::End::Cut);
        Ok(capture)
    }

    fn frame(&mut self, frame: &Frame<'_>, tell: &mut dyn FnMut(Event)) {
        if self.figures.frames == 0 {
            self.begins_ns = frame.at_ns;
        }
        self.figures.frames += 1;
        self.ends_ns = self.ends_ns.max(frame.at_ns);
        let seen = match frame::segment(frame.link, frame.bytes) {
            Ok(seen) => seen,
            Err(NotSeen::NotTcp) => return,
            Err(NotSeen::Unreadable) => return self.figures.unreadable += 1,
            Err(NotSeen::Link) => return self.figures.unknown_link += 1,
        };
        self.figures.segments += 1;
        let mut ends = [seen.src, seen.dst];
        ends.sort_unstable();
        let known = self.by_ends.get(&ends).copied();
        let at = match known.filter(|at| !self.conversations[*at].is_over_for(&seen)) {
            Some(at) => at,
            None if self.conversations.len() < MAX_CONVERSATIONS => {
                self.conversations.push(Conversation::new(frame.at_ns, &seen));
                self.by_ends.insert(ends, self.conversations.len() - 1);
                self.conversations.len() - 1
            }
            None => return self.figures.not_followed += 1,
        };
        self.conversations[at].segment(frame.at_ns, &seen, tell);
    }

    /// Every connection, in the order of their first segments.
    pub fn conversations(&self) -> &[Conversation] {
        &self.conversations
    }

    /// When the last frame was captured, nanoseconds since the Unix epoch.
    pub fn ends_ns(&self) -> u64 {
        self.ends_ns
    }

    /// What was in the file.
    pub fn figures(&self) -> Figures {
        self.figures
    }

    /// The capture's beginning, when nothing had been counted, and its end.
    pub fn snapshots(&self) -> (Snapshot, Snapshot) {
        let at = |taken_ns, counters| Snapshot {
            source: self.source.clone(),
            taken_ns,
            namespaces: vec![Namespace { counters, ..Namespace::default() }],
            ..Snapshot::default()
        };
        let mut now = at(self.ends_ns, self.counters());
        let rows = self.conversations.iter().enumerate().flat_map(|(number, conversation)| {
            [Side::First, Side::Second].into_iter().filter_map(move |side| {
                conversation.row(side, number as u64 * 2 + 1 + side as u64, self.ends_ns)
            })
        });
        now.rows = rows.collect();
        now.missing = self.missing();
        (at(self.begins_ns, BTreeMap::new()), now)
    }

    /// The counters that packets tell, over all ends.
    fn counters(&self) -> BTreeMap<String, u64> {
        let ends = || self.conversations.iter().flat_map(|conversation| &conversation.ends);
        let repeats: u64 = ends().map(|end| end.repeats).sum();
        let sent: u64 = ends().map(end::End::segments).sum();
        let opened = self.conversations.iter().filter(|conversation| conversation.from_syn).count();
        [("OutSegs", sent - repeats), ("RetransSegs", repeats), ("ActiveOpens", opened as u64)]
            .map(|(name, value)| (name.to_owned(), value))
            .into()
    }

    fn missing(&self) -> Vec<Missing> {
        let Figures { frames: _, segments: _, unreadable, unknown_link, not_followed, is_cut } = self.figures;
        let mut missing = vec![Missing {
            what: "owners, knobs, and what waits unsent or unread".to_owned(),
            grant: "a capture does not have them: lastack doctor on the host itself".to_owned(),
        }];
        let mut lacks = |count: u64, what: &str, grant: &str| {
            if count > 0 {
                missing.push(Missing { what: format!("{count} {what}"), grant: grant.to_owned() });
            }
        };
        lacks(
            unreadable,
            "TCP packets (fragments, cut headers)",
            "capture with a snapshot length of 256 or more",
        );
        lacks(
            unknown_link,
            "frames of an unknown link layer",
            "capture on an Ethernet, raw IP or `any` interface",
        );
        lacks(not_followed, "segments of too many connections", "a narrower capture filter");
        lacks(
            u64::from(is_cut),
            "last packet: the file ends in the middle of it",
            "stop the capture before copying it",
        );
        missing
    }
}

#[cfg(test)]
mod tests;
