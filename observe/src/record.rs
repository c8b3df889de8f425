//! The recorder's memory: which process had which socket, since when, and in which state since when.
//!
//! Owns:    what was seen, by socket cookie, which names a connection from its SYN to the end of TIME-WAIT.
//! Input:   snapshots with owners, a few a second.
//! Output:  a file that other commands read ([`Recorded`]).
//! Differs: what was there before the recorder began has no exact age; connections shorter than the pause
//!          between two looks are missed.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lastack_core::tcp::state::TcpState;
use serde::{Deserialize, Serialize};

use crate::clock;
use crate::closed::Closed;
use crate::row::{Owner, OwnerHow, Row};

/// Connections remembered at most; the rest is counted.
const MAX_SEEN: usize = 1_000_000;
/// A file older than this is of a recorder that has ended.
const FRESH_NS: u64 = 30_000_000_000;
const SCHEMA: u32 = 1;

/// What is remembered of one connection.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Seen {
    cookie: u64,
    /// When it was first seen, nanoseconds since the Unix epoch; absent when it was there already.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    opened_ns: Option<u64>,
    /// `ss`'s name.
    state: String,
    /// When it was first seen in it; absent when it was so already.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    state_ns: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    comm: Option<Arc<str>>,
}

/// The file's content.
#[derive(Serialize, Deserialize)]
struct Document {
    schema: u32,
    boot_id: String,
    updated_ns: u64,
    connections: Vec<Seen>,
}

/// Watches and remembers.
#[derive(Debug, Default)]
pub struct Recorder {
    seen: HashMap<u64, Seen>,
    begun: bool,
    overflow: u64,
}

impl Recorder {
    /// Takes note of one look at all sockets, taken at `now_ns`; what is gone is forgotten.
    pub fn note(&mut self, rows: &[Row], now_ns: u64) {
        let mut next = HashMap::with_capacity(rows.len().min(MAX_SEEN));
        self.overflow = 0;
        for row in rows {
            let cookie = row.socket.cookie;
            if matches!(row.socket.state, TcpState::Listen | TcpState::Close) {
                continue;
            }
            if next.len() >= MAX_SEEN {
                self.overflow += 1;
                continue;
            }
            let state = row.socket.state.name();
            let fresh = self.begun.then_some(now_ns);
            let mut seen = self.seen.remove(&cookie).unwrap_or_else(|| Seen {
                cookie,
                opened_ns: fresh,
                state: state.to_owned(),
                state_ns: fresh,
                pid: None,
                comm: None,
            });
            if seen.state != state {
                (seen.state, seen.state_ns) = (state.to_owned(), fresh);
            }
            if let Some(owner) = row.owner.as_ref().filter(|owner| owner.how == OwnerHow::Descriptor) {
                (seen.pid, seen.comm) = (owner.pid, Some(Arc::clone(&owner.comm)));
            }
            next.insert(cookie, seen);
        }
        self.seen = next;
        self.begun = true;
    }

    /// Connections remembered.
    pub fn len(&self) -> usize {
        self.seen.len()
    }

    /// True before the first look, and on a host without connections.
    pub fn is_empty(&self) -> bool {
        self.seen.is_empty()
    }

    /// Connections of the last look that did not fit.
    pub fn overflow(&self) -> u64 {
        self.overflow
    }

    /// Fills in what is remembered of a connection that has ended.
    pub fn complete(&self, closed: &mut Closed) {
        let Some(seen) = self.seen.get(&closed.row.socket.cookie) else { return };
        closed.opened_ns = closed.opened_ns.or(seen.opened_ns);
        if closed.comm.is_none() {
            (closed.pid, closed.comm) = (seen.pid, seen.comm.clone());
        }
    }

    /// Writes the file, whole or not at all.
    ///
    /// # Errors
    /// When the directory or the file cannot be written.
    pub fn save(&self, path: &Path) -> io::Result<()> {
        // The file takes the place of the one before: a device or a directory in its place would be lost.
        if fs::metadata(path).is_ok_and(|there| !there.is_file()) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
        }
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)?;
        }
        let mut connections: Vec<Seen> = self.seen.values().cloned().collect();
        connections.sort_unstable_by_key(|seen| seen.cookie);
        let document =
            Document { schema: SCHEMA, boot_id: boot_id(), updated_ns: clock::unix_ns(), connections };
        let next = path.with_extension("new");
        fs::write(&next, serde_json::to_vec(&document)?).and_then(|()| fs::rename(&next, path)).inspect_err(
            |_| {
                // Half a file helps nobody; where it cannot be removed, it could not be written either.
                let _ = fs::remove_file(&next);
            },
        )
    }
}

/// What a recorder remembers, read by another command.
#[derive(Debug, Default)]
pub struct Recorded {
    seen: HashMap<u64, Seen>,
}

impl Recorded {
    /// Reads the file of a recorder that runs on this boot; nothing where there is none.
    pub fn load() -> Option<Self> {
        candidates().into_iter().find_map(|path| Self::read(&path))
    }

    fn read(path: &Path) -> Option<Self> {
        let document: Document = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
        let age = clock::unix_ns().saturating_sub(document.updated_ns);
        let ours = document.schema == SCHEMA && document.boot_id == boot_id() && age < FRESH_NS;
        ours.then(|| Self {
            seen: document.connections.into_iter().map(|seen| (seen.cookie, seen)).collect(),
        })
    }

    /// Fills in owners that nobody holds any more, and exact ages.
    pub fn apply(&self, rows: &mut [Row], now_ns: u64) {
        for row in rows {
            let Some(seen) = self.seen.get(&row.socket.cookie) else { continue };
            let since = |then: u64| now_ns.saturating_sub(then) / 1_000_000;
            row.socket.age_ms = row.socket.age_ms.or(seen.opened_ns.map(since));
            if seen.state == row.socket.state.name() {
                row.socket.state_age_ms = row.socket.state_age_ms.or(seen.state_ns.map(since));
            }
            let held = row.owner.as_ref().is_some_and(|owner| owner.how == OwnerHow::Descriptor);
            if let Some(comm) = seen.comm.as_ref().filter(|_| !held) {
                row.owner = Some(Owner {
                    pid: seen.pid,
                    comm: Arc::clone(comm),
                    fd: None,
                    former: row.inode == 0,
                    how: OwnerHow::Recorded,
                });
            }
        }
    }
}

/// Where this user's recorder keeps its file.
pub fn default_path() -> PathBuf {
    candidates().remove(0)
}

/// Where a recorder's file may be, the nearest first.
fn candidates() -> Vec<PathBuf> {
    let mut found = Vec::new();
    if let Some(path) = std::env::var_os("LASTACK_RECORD") {
        found.push(PathBuf::from(path));
    }
    if rustix::process::geteuid().is_root() {
        found.push(PathBuf::from("/run/lastack/record.json"));
    } else {
        if let Some(runtime) = std::env::var_os("XDG_RUNTIME_DIR") {
            found.push(Path::new(&runtime).join("lastack/record.json"));
        }
        found.push(PathBuf::from("/run/lastack/record.json"));
    }
    found
}

/// Cookies mean something within one boot only.
fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}
