//! A program that runs as it is: no namespace, no stack, its own sockets.
//!
//! Owns:    [`Program`]: its process and its descendants.
//! Rules:   this process becomes a child subreaper (prctl(2)), so that descendants stay its descendants.
//! Not here: a program in a sandbox (`sandbox`).

use std::ffi::OsString;
use std::io;
use std::process::Command;

use rustix::process::{Pid, Signal, WaitOptions};

use crate::sandbox::{ProgramEvent, exit_status, processes};
use crate::{signals, sys};

/// A running program.
#[derive(Debug)]
pub struct Program {
    pid: u32,
}

impl Program {
    /// Starts `program`, looked up in `PATH`.
    ///
    /// # Errors
    /// It cannot be executed.
    pub fn start(program: &OsString, arguments: &[OsString]) -> io::Result<Self> {
        let _ = rustix::process::set_child_subreaper(Pid::from_raw(1));
        let child = sys::spawn(Command::new(program).args(arguments), &signals::READ, None)?;
        Ok(Self { pid: child.id() })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Itself and its descendants, as far as they live.
    pub fn processes(&self) -> Vec<u32> {
        processes::tree_below(std::process::id())
    }

    /// Sends it a signal. It is not reaped before [`Program::event`] has told its end, so the number is its own.
    pub fn signal(&self, number: i32) {
        if let (Some(pid), Some(signal)) =
            (Pid::from_raw(self.pid.cast_signed()), Signal::from_named_raw(number))
        {
            let _ = rustix::process::kill_process(pid, signal);
        }
    }

    /// What has become of it since this was asked last: [`ProgramEvent::Stopped`], [`ProgramEvent::Exited`] or nothing.
    pub fn event(&self) -> Option<ProgramEvent> {
        while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG | WaitOptions::UNTRACED)
        {
            if pid.as_raw_nonzero().get().cast_unsigned() != self.pid {
                continue;
            }
            return Some(match status.stopping_signal() {
                Some(signal) => ProgramEvent::Stopped(signal),
                None => ProgramEvent::Exited(exit_status(status.as_raw())),
            });
        }
        None
    }
}
