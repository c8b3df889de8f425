//! The network namespaces that the program's processes are in: ours, and those that its children made.
//!
//! Owns:    [`Rooms`]: for each a look at its sockets and a subscription to their endings; who is in which.
//! Rules:   entering another namespace needs CAP_SYS_ADMIN. One that cannot be entered is counted and not told of; one
//!          beyond [`MOST`] is counted, and entered when another has been left.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::time::{Duration, Instant};

use lastack_observe::clock;
use lastack_observe::source::kernel::{Endings, Kernel, Scope};

/// Namespaces looked at at a time, ours among them: a look at each takes a few system calls.
pub(crate) const MOST: usize = 64;
/// A namespace that nobody is in is left when nothing of it has been seen for so long.
const PATIENCE: Duration = Duration::from_secs(1);

/// One namespace.
pub(super) struct Room {
    /// Its inode.
    pub(super) netns: u64,
    pub(super) kernel: Kernel,
    pub(super) endings: Endings,
    counted: Counted,
    lived_in: Instant,
    /// Keeps it, and the way to it, when its processes have gone; `None`: our own.
    _door: Option<File>,
}

/// What a namespace has counted: so far, or since it was asked last.
#[derive(Clone, Copy, Default)]
pub(super) struct Counted {
    /// `EstabResets`: connections that went from ESTABLISHED or CLOSE-WAIT to nothing.
    pub(super) resets: u64,
    /// `TCPAbortOnTimeout`: connections that were given up, attempts among them.
    pub(super) timeouts: u64,
}

/// The namespaces of a program.
pub(super) struct Rooms {
    /// Our own is the first.
    pub(super) all: Vec<Room>,
    /// Where each process was at the last look.
    places: HashMap<u32, u64>,
    closed: HashSet<u64>,
    /// Those that have waited for a place.
    crowded: HashSet<u64>,
}

impl Room {
    fn open(scope: &Scope, door: Option<File>) -> io::Result<Self> {
        let kernel = Kernel::open(scope)?;
        let mut room = Self {
            netns: 0,
            endings: Endings::open(scope)?,
            counted: Counted::default(),
            kernel,
            lived_in: clock::monotonic(),
            _door: door,
        };
        let figures = room.kernel.figures();
        room.netns = figures.first().map_or(0, |namespace| namespace.inode);
        room.count();
        Ok(room)
    }

    /// What has been counted since this was asked last.
    pub(super) fn count(&mut self) -> Counted {
        let figures = self.kernel.figures();
        let sum = |name| figures.iter().map(|namespace| namespace.counter(name)).sum();
        let now = Counted { resets: sum("EstabResets"), timeouts: sum("TCPAbortOnTimeout") };
        let before = std::mem::replace(&mut self.counted, now);
        Counted {
            resets: now.resets.saturating_sub(before.resets),
            timeouts: now.timeouts.saturating_sub(before.timeouts),
        }
    }
}

impl Rooms {
    /// Begins with our own namespace.
    pub(super) fn open() -> io::Result<Self> {
        let own = Room::open(&Scope::Own, None)?;
        Ok(Self { all: vec![own], places: HashMap::new(), closed: HashSet::new(), crowded: HashSet::new() })
    }

    /// Enters the namespaces that `processes` are in, and leaves those where nobody is any more, unless something
    /// still lives there.
    pub(super) fn follow(&mut self, processes: &[u32], lives_in: impl Fn(u64) -> bool) {
        let now = clock::monotonic();
        for pid in processes {
            // It has gone, or is another user's.
            let Ok(found) = fs::metadata(format!("/proc/{pid}/ns/net")) else { continue };
            self.places.insert(*pid, found.ino());
            let place = self.all.iter().position(|room| room.netns == found.ino());
            if let Some(place) = place {
                self.all[place].lived_in = now;
            } else if !self.closed.contains(&found.ino()) {
                self.enter(*pid, found.ino());
            }
        }
        let own = self.all[0].netns;
        self.all.retain(|room| {
            room.netns == own || now.duration_since(room.lived_in) < PATIENCE || lives_in(room.netns)
        });
    }

    fn enter(&mut self, pid: u32, netns: u64) {
        let open = || {
            let door = File::open(format!("/proc/{pid}/ns/net"))?;
            if door.metadata()?.ino() != netns {
                // It has moved on: the next look finds where.
                return Err(io::ErrorKind::NotFound.into());
            }
            let path = format!("/proc/self/fd/{}", door.as_raw_fd());
            Room::open(&Scope::Named(path), Some(door))
        };
        if self.all.len() >= MOST {
            self.crowded.insert(netns);
            return;
        }
        match open() {
            Ok(room) => self.all.push(room),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(_) => drop(self.closed.insert(netns)),
        }
    }

    /// The namespace that a process was in at the last look that met it.
    pub(super) fn place(&self, pid: u32) -> Option<u64> {
        self.places.get(&pid).copied()
    }

    /// The namespace of that inode, if it is looked at.
    pub(super) fn room(&mut self, netns: u64) -> Option<&mut Room> {
        self.all.iter_mut().find(|room| room.netns == netns)
    }

    /// How many namespaces of the program could not be looked at.
    pub(super) fn closed(&self) -> usize {
        self.closed.len()
    }

    /// How many had to wait until another was left, some for ever.
    pub(super) fn crowded(&self) -> usize {
        self.crowded.len()
    }
}
