//! Who has a socket: `/proc/PID/fd`, read only when asked, and who had it: cgroup, then listener.
//!
//! Owns:    the map from socket inode to process.
//! Differs: another user's processes cannot be looked into without privilege; what is found is right,
//!          what is missing is counted ([`Owners::refused`]).

use std::collections::HashMap;
use std::fs;
use std::sync::Arc;

use lastack_core::tcp::state::TcpState;

use super::cgroup::Cgroups;
use crate::row::{Owner, OwnerHow, Row};

/// Processes by the inodes of the sockets they hold.
#[derive(Debug, Default)]
pub(super) struct Owners {
    by_inode: HashMap<u32, Owner>,
    refused: usize,
}

impl Owners {
    /// Looks through every process we may look into.
    pub(super) fn scan() -> Self {
        let mut this = Self::default();
        let mut pids: Vec<u32> = fs::read_dir("/proc")
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .collect();
        pids.sort_unstable();
        for pid in pids {
            this.scan_process(pid);
        }
        this
    }

    fn scan_process(&mut self, pid: u32) {
        let entries = match fs::read_dir(format!("/proc/{pid}/fd")) {
            Ok(entries) => entries,
            Err(error) => {
                self.refused += usize::from(error.kind() == std::io::ErrorKind::PermissionDenied);
                return;
            }
        };
        let mut comm: Option<Arc<str>> = None;
        for entry in entries.flatten() {
            let Some(inode) = fs::read_link(entry.path()).ok().and_then(|target| {
                target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse::<u32>().ok()
            }) else {
                continue;
            };
            let comm = comm.get_or_insert_with(|| command(pid));
            // Several processes may share a socket; the first by pid is the one that made it.
            self.by_inode.entry(inode).or_insert_with(|| Owner {
                pid: Some(pid),
                comm: Arc::clone(comm),
                fd: entry.file_name().to_str().and_then(|name| name.parse().ok()),
                former: false,
                how: OwnerHow::Descriptor,
            });
        }
    }

    /// Processes that could not be looked into.
    pub(super) fn refused(&self) -> usize {
        self.refused
    }

    /// Names the owner of every row that has one or had one.
    ///
    /// `all` are the namespace's listeners; for a socket that nobody holds they tell who serves its port.
    pub(super) fn name(&self, rows: &mut [Row], cgroups: &mut Cgroups) {
        let listeners = self.listeners(rows);
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

    fn listeners(&self, rows: &[Row]) -> HashMap<(u64, u16), Owner> {
        rows.iter()
            .filter(|row| row.socket.state == TcpState::Listen)
            .filter_map(|row| {
                let owner = self.by_inode.get(&row.inode)?.clone();
                Some(((row.netns, row.socket.local.port()), owner))
            })
            .collect()
    }
}

/// Who had a socket that nobody holds any more, or will have one that is not accepted yet.
fn former(row: &Row, listeners: &HashMap<(u64, u16), Owner>, cgroups: &mut Cgroups) -> Option<Owner> {
    let listener = listeners.get(&(row.netns, row.socket.local.port()));
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
