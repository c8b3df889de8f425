//! Who has a socket: `/proc/PID/fd`, read only when asked, and who had it: cgroup, then listener.
//!
//! Owns:    the map from socket inode to process.
//! Differs: another user's processes cannot be looked into without privilege; what is found is right,
//!          what is missing is counted ([`Owners::refused`]).

use std::collections::HashMap;
use std::fs;
use std::mem::MaybeUninit;
use std::net::IpAddr;
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
        let listeners = Listeners::new(listeners, &self.by_inode);
        cgroups.begin_look();
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
fn former(row: &Row, listeners: &Listeners<'_>, cgroups: &mut Cgroups) -> Option<Owner> {
    let listener = listeners.of(row);
    // The listener's process can be named; a cgroup only says which service. Where both are known and
    // agree, the process is the better answer to "who".
    let former = row.socket.orphan;
    if let Some(unit) = row.cgroup.and_then(|id| cgroups.unit(id)) {
        let agrees = listener
            .as_ref()
            .and_then(|owner| cgroups.of_process(owner.pid?))
            .is_some_and(|id| Some(id) == row.cgroup);
        if let (true, Some(owner)) = (agrees, listener) {
            return Some(Owner { fd: None, former, how: OwnerHow::Cgroup, ..owner });
        }
        return Some(Owner { pid: None, comm: unit, fd: None, former, how: OwnerHow::Cgroup });
    }
    listener.map(|owner| Owner { fd: None, former, how: OwnerHow::Listener, ..owner })
}

/// Who listens where, by namespace and port.
struct Listeners<'a>(HashMap<(u64, u16), Vec<Listener<'a>>>);

/// A listening socket and who holds it, where that is known.
type Listener<'a> = (&'a Row, Option<&'a Owner>);

impl<'a> Listeners<'a> {
    fn new(rows: &'a [Row], by_inode: &'a HashMap<u32, Owner>) -> Self {
        let mut all: HashMap<_, Vec<_>> = HashMap::new();
        for row in rows {
            let place = (row.netns, row.socket.local.port());
            all.entry(place).or_default().push((row, by_inode.get(&row.inode)));
        }
        Self(all)
    }

    /// The one that let the socket in: it listens on the socket's address, else on all of them. Of several on the same
    /// (`SO_REUSEPORT`) nothing tells which it was: no more is said than what is true of each.
    fn of(&self, row: &Row) -> Option<Owner> {
        let here = self.0.get(&(row.netns, row.socket.local.port()))?;
        let ip = row.socket.local.ip().to_canonical();
        let best = here.iter().filter_map(|(listener, _)| nearness(listener, ip)).min()?;
        let mut owners = here.iter().filter(|(listener, _)| nearness(listener, ip) == Some(best));
        let first = owners.next()?.1?.clone();
        owners.try_fold(first, |common, (_, owner)| {
            let owner = owner.filter(|owner| owner.comm == common.comm)?;
            Some(Owner { pid: common.pid.filter(|pid| owner.pid == Some(*pid)), ..common })
        })
    }
}

/// How closely a listener's address fits `ip`, the closest first; `None` where it lets nobody in for it.
fn nearness(listener: &Row, ip: IpAddr) -> Option<u8> {
    let at = listener.socket.local.ip();
    if at.to_canonical() == ip {
        return Some(0);
    }
    match (at.is_unspecified(), at.is_ipv4() == ip.is_ipv4()) {
        (true, true) => Some(1),
        (true, false) if at.is_ipv6() && !listener.v6only => Some(2),
        _ => None,
    }
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
    let text = fs::read(format!("/proc/{pid}/comm"));
    text.map_or_else(|_| "?".into(), |text| printable(text.strip_suffix(b"\n").unwrap_or(&text)))
}

/// A name that a program gave itself: it may hold anything, and is shown on terminals of others.
pub(super) fn printable(name: &[u8]) -> Arc<str> {
    String::from_utf8_lossy(name).replace(char::is_control, "?").into()
}

#[cfg(test)]
mod tests {
    use lastack_core::tcp::state::TcpState;

    use super::*;

    fn listener(at: &str, inode: u32, v6only: bool) -> Row {
        let row = Row::new(TcpState::Listen, at.parse().unwrap(), "0.0.0.0:0".parse().unwrap());
        Row { inode, v6only, ..row }
    }

    fn held(processes: &[(u32, u32, &str)]) -> HashMap<u32, Owner> {
        let owner = |pid, comm: &str| Owner {
            pid: Some(pid),
            comm: comm.into(),
            fd: Some(3),
            former: false,
            how: OwnerHow::Descriptor,
        };
        processes.iter().map(|(inode, pid, comm)| (*inode, owner(*pid, comm))).collect()
    }

    #[test]
    fn a_socket_is_of_the_listener_at_its_address_else_of_the_one_at_all() {
        let rows = [
            listener("127.0.0.1:80", 1, false),
            listener("127.0.0.2:80", 2, false),
            listener("0.0.0.0:80", 3, false),
            listener("[::]:80", 4, true),
            listener("[::]:81", 5, false),
            listener("10.0.0.9:80", 6, false),
        ];
        // Of 10.0.0.9's listener nobody knows the owner: it is not the other one's all the same.
        let by_inode = held(&[(1, 71, "a"), (2, 72, "b"), (3, 73, "c"), (4, 74, "d"), (5, 75, "e")]);
        let listeners = Listeners::new(&rows, &by_inode);
        for (local, pid) in [
            ("127.0.0.1:80", Some(71)),
            ("127.0.0.2:80", Some(72)),
            ("[::ffff:127.0.0.2]:80", Some(72)),
            ("10.0.0.1:80", Some(73)),
            ("[fd00::1]:80", Some(74)),
            ("10.0.0.1:81", Some(75)),
            ("10.0.0.9:80", None),
            ("10.0.0.1:82", None),
        ] {
            let row = Row::new(TcpState::FinWait2, local.parse().unwrap(), "10.0.0.7:4000".parse().unwrap());
            assert_eq!(listeners.of(&row).and_then(|owner| owner.pid), pid, "{local}");
        }
    }

    #[test]
    fn a_name_does_nothing_to_a_terminal() {
        assert_eq!(*printable(b"nginx: worker"), *"nginx: worker");
        assert_eq!(*printable(b"\x1b[2J\xffx\n"), *"?[2J\u{fffd}x?");
    }

    #[test]
    fn of_several_at_one_address_only_what_they_share_is_said() {
        let rows = [1, 2, 3].map(|inode| listener("10.0.0.1:80", inode, false));
        let row =
            Row::new(TcpState::FinWait2, "10.0.0.1:80".parse().unwrap(), "10.0.0.7:4000".parse().unwrap());
        let told = |processes: &[(u32, u32, &str)]| {
            let owner = Listeners::new(&rows, &held(processes)).of(&row)?;
            Some((owner.pid, owner.comm.to_string()))
        };
        assert_eq!(told(&[(1, 7, "web"), (2, 7, "web"), (3, 7, "web")]), Some((Some(7), "web".to_owned())));
        assert_eq!(told(&[(1, 7, "web"), (2, 8, "web"), (3, 7, "web")]), Some((None, "web".to_owned())));
        assert_eq!(told(&[(1, 7, "web"), (2, 8, "db"), (3, 7, "web")]), None);
        assert_eq!(told(&[(1, 7, "web"), (2, 7, "web")]), None, "the third may be anybody's");
    }
}
