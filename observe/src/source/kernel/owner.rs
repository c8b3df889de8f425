//! Who has a socket: `/proc/PID/fd`, read only when asked, and who had it: cgroup, then listener.
//!
//! Owns:    the map from socket inode to process.
//! Differs: another user's processes cannot be looked into without privilege; what is found is right,
//!          what is missing is counted ([`Owners::refused`]).

use std::collections::HashMap;
use std::fs;
use std::mem::MaybeUninit;
use std::sync::Arc;

use rustix::fs::{Mode, OFlags, RawDir, open, readlinkat_raw};

use super::cgroup::Cgroups;
use super::cookies::Inodes;
use crate::row::{Owner, OwnerHow, Row};

/// `socket:[4294967295]` fits; a longer link is cut, and is no socket's.
const LINK: usize = 32;

/// Processes by the inodes of the sockets they hold.
#[derive(Debug, Default)]
pub(super) struct Owners {
    by_inode: HashMap<u32, Owner>,
    /// Inodes still looked for; `None` looks for all there are.
    wanted: Option<Inodes>,
    refused: usize,
}

impl Owners {
    /// Looks through every process we may look into, until the holders of all `wanted` are found.
    pub(super) fn scan(wanted: Inodes) -> Self {
        let mut this = Self { wanted: Some(wanted), ..Self::default() };
        if this.is_done() {
            return this;
        }
        let mut pids: Vec<u32> = fs::read_dir("/proc")
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .collect();
        pids.sort_unstable();
        for pid in pids {
            this.scan_process(pid);
            if this.is_done() {
                break;
            }
        }
        this
    }

    fn is_done(&self) -> bool {
        self.wanted.as_ref().is_some_and(Inodes::is_empty)
    }

    /// Notes which wanted sockets a process holds. One that has gone meanwhile holds none.
    fn scan_process(&mut self, pid: u32) {
        let directory = match open(
            format!("/proc/{pid}/fd"),
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        ) {
            Ok(directory) => directory,
            Err(error) => {
                let refused = matches!(error, rustix::io::Errno::ACCESS | rustix::io::Errno::PERM);
                self.refused += usize::from(refused);
                return;
            }
        };
        let mut comm: Option<Arc<str>> = None;
        let (mut entries, mut link) = ([MaybeUninit::uninit(); 16 * 1024], [0; LINK]);
        let mut entries = RawDir::new(&directory, &mut entries);
        while let Some(Ok(entry)) = entries.next() {
            let Ok(length) = readlinkat_raw(&directory, entry.file_name(), &mut link) else { continue };
            let Some(inode) = inode_of(&link[..length]) else { continue };
            // Several processes may share a socket; the first by pid is the one that made it.
            match &mut self.wanted {
                Some(wanted) => {
                    if !wanted.remove(&inode) {
                        continue;
                    }
                }
                None => {
                    if self.by_inode.contains_key(&inode) {
                        continue;
                    }
                }
            }
            let comm = Arc::clone(comm.get_or_insert_with(|| command(pid)));
            let fd = entry.file_name().to_str().ok().and_then(|name| name.parse().ok());
            let owner = Owner { pid: Some(pid), comm, fd, former: false, how: OwnerHow::Descriptor };
            self.by_inode.insert(inode, owner);
            if self.is_done() {
                return;
            }
        }
    }

    /// Processes that could not be looked into, if some wanted socket may be theirs.
    pub(super) fn refused(&self) -> usize {
        if self.is_done() { 0 } else { self.refused }
    }

    /// Names the owner of every row that has one or had one.
    ///
    /// `listeners` tell who serves the port of a socket that nobody holds.
    pub(super) fn name(&self, rows: Vec<&mut Row>, listeners: &[Row], cgroups: &mut Cgroups) {
        let listeners: HashMap<(u64, u16), &Owner> = listeners
            .iter()
            .filter_map(|row| Some(((row.netns, row.socket.local.port()), self.by_inode.get(&row.inode)?)))
            .collect();
        cgroups.forget_processes();
        for row in rows {
            row.owner = match self.by_inode.get(&row.inode).filter(|_| row.inode != 0) {
                Some(owner) => Some(owner.clone()),
                // What the recorder remembers is better than what is inferred.
                None if row.owner.is_some() => continue,
                None if row.inode == 0 => former(row, &listeners, cgroups),
                None => None,
            };
        }
    }
}

/// The inode in `socket:[N]`.
fn inode_of(link: &[u8]) -> Option<u32> {
    std::str::from_utf8(link.strip_prefix(b"socket:[")?.strip_suffix(b"]")?).ok()?.parse().ok()
}

/// Who had a socket that nobody holds any more, or will have one that is not accepted yet.
fn former(row: &Row, listeners: &HashMap<(u64, u16), &Owner>, cgroups: &mut Cgroups) -> Option<Owner> {
    let listener = listeners.get(&(row.netns, row.socket.local.port())).copied();
    // The listener's process can be named; a cgroup only says which service. Where both are known and
    // agree, the process is the better answer to "who".
    let former = row.socket.orphan;
    if let Some(unit) = row.cgroup.and_then(|id| cgroups.unit(id)) {
        let agrees = listener
            .and_then(|owner| cgroups.of_process(owner.pid?))
            .is_some_and(|id| Some(id) == row.cgroup);
        if let (true, Some(owner)) = (agrees, listener) {
            return Some(Owner { fd: None, former, how: OwnerHow::Cgroup, ..owner.clone() });
        }
        return Some(Owner { pid: None, comm: unit, fd: None, former, how: OwnerHow::Cgroup });
    }
    listener.map(|owner| Owner { fd: None, former, how: OwnerHow::Listener, ..owner.clone() })
}

/// Which of `pids` holds which socket, by the socket's inode; those we may not look into hold none.
pub fn sockets_of(pids: &[u32]) -> HashMap<u32, u32> {
    let mut owners = Owners::default();
    for pid in pids {
        owners.scan_process(*pid);
    }
    owners.by_inode.into_iter().filter_map(|(inode, owner)| Some((inode, owner.pid?))).collect()
}

/// `/proc/PID/comm`.
pub(super) fn command(pid: u32) -> Arc<str> {
    fs::read_to_string(format!("/proc/{pid}/comm")).map_or_else(|_| "?".into(), |text| text.trim_end().into())
}
