//! What processes are called, also those that have exited: from perf's own records of `exec` and `fork`.
//!
//! Owns:    the newest names, at most [`KEPT`] of them.
//! Input:   the bodies of `PERF_RECORD_COMM` and `PERF_RECORD_FORK`, perf_event_open(2).
//! Rules:   a program may connect and be gone before its tracepoint's record is read: by then `/proc` knows it no
//!          more, and a number alone names nobody.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::netlink::u32_at;
use super::owner;

/// Names that are kept; the oldest goes first.
const KEPT: usize = 4096;

/// Names by process number.
#[derive(Debug, Default)]
pub(super) struct Commands {
    names: HashMap<u32, Arc<str>>,
    order: VecDeque<u32>,
}

/// What one record says.
#[derive(Debug)]
pub(super) enum Told {
    /// A process took a name, as `exec` gives one.
    Named { pid: u32, name: Arc<str> },
    /// A process was forked, and is called as its parent.
    Forked { pid: u32, parent: u32 },
}

impl Told {
    /// From the body of a `PERF_RECORD_COMM`: PID, TID, the name up to its NUL. A thread's name is its own.
    pub(super) fn of_comm(body: &[u8]) -> Option<Self> {
        let (pid, tid, name) = (u32_at(body, 0)?, u32_at(body, 4)?, body.get(8..)?);
        let end = name.iter().position(|byte| *byte == 0)?;
        (pid == tid).then(|| Self::Named { pid, name: owner::printable(&name[..end]) })
    }

    /// From the body of a `PERF_RECORD_FORK`: PID, PPID, TID, PTID. A thread's birth names nobody.
    pub(super) fn of_fork(body: &[u8]) -> Option<Self> {
        let (pid, parent) = (u32_at(body, 0)?, u32_at(body, 4)?);
        (pid != parent).then_some(Self::Forked { pid, parent })
    }
}

impl Commands {
    /// Takes over what a record says; records must come in order of time.
    pub(super) fn take(&mut self, told: Told) {
        match told {
            Told::Named { pid, name } => self.keep(pid, name),
            Told::Forked { pid, parent } => {
                // The number may have been another process's before.
                match self.names.get(&parent).cloned() {
                    Some(name) => self.keep(pid, name),
                    None => self.forget(pid),
                }
            }
        }
    }

    /// The name of `pid`: what it was told to be, or what `/proc` says if it was there before us.
    pub(super) fn of(&self, pid: u32) -> Option<Arc<str>> {
        let told = self.names.get(&pid).cloned();
        told.or_else(|| Some(owner::command(pid)).filter(|name| **name != *"?"))
    }

    fn forget(&mut self, pid: u32) {
        if self.names.remove(&pid).is_some() {
            self.order.retain(|known| *known != pid);
        }
    }

    fn keep(&mut self, pid: u32, name: Arc<str>) {
        if self.names.insert(pid, name).is_none() {
            self.order.push_back(pid);
        }
        while self.order.len() > KEPT {
            let oldest = self.order.pop_front();
            oldest.map(|oldest| self.names.remove(&oldest));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Numbers that no process has: pid_max is at most 2^22.
    const CURL: u32 = 1 << 30;

    fn comm(pid: u32, tid: u32, name: &str) -> Option<Told> {
        Told::of_comm(&[&pid.to_ne_bytes()[..], &tid.to_ne_bytes(), name.as_bytes(), &[0; 19]].concat())
    }

    fn fork(pid: u32, parent: u32) -> Option<Told> {
        let body: Vec<u8> =
            [pid, parent, pid, parent].iter().flat_map(|number| number.to_ne_bytes()).collect();
        Told::of_fork(&body)
    }

    #[test]
    fn a_child_is_called_as_its_parent_until_it_takes_a_name() {
        let mut commands = Commands::default();
        assert_eq!(commands.of(CURL), None);
        commands.take(comm(CURL, CURL, "sh").unwrap());
        commands.take(fork(CURL + 1, CURL).unwrap());
        assert_eq!(commands.of(CURL + 1).as_deref(), Some("sh"));
        commands.take(comm(CURL + 1, CURL + 1, "curl").unwrap());
        assert_eq!(commands.of(CURL + 1).as_deref(), Some("curl"));
        assert_eq!(commands.of(CURL).as_deref(), Some("sh"));
        // A stranger's child with the number again.
        commands.take(fork(CURL + 1, CURL + 9).unwrap());
        assert_eq!(commands.of(CURL + 1), None);
        assert_eq!(commands.order, [CURL]);
    }

    #[test]
    fn threads_and_cut_records_name_nobody() {
        assert!(comm(CURL, CURL + 1, "worker").is_none());
        assert!(fork(CURL, CURL).is_none());
        assert!(Told::of_comm(&[1, 2, 3]).is_none());
        assert!(Told::of_comm(&[b'a'; 20]).is_none());
        assert!(Told::of_fork(&[]).is_none());
    }

    #[test]
    fn the_oldest_name_goes_first() {
        let mut commands = Commands::default();
        for pid in 0..=KEPT as u32 {
            commands.take(comm(CURL + pid, CURL + pid, "x").unwrap());
        }
        assert_eq!((commands.names.len(), commands.order.len()), (KEPT, KEPT));
        assert_eq!(commands.of(CURL), None);
        assert_eq!(commands.of(CURL + KEPT as u32).as_deref(), Some("x"));
    }
}
