//! A terminal for a full-screen program: what it draws is read as it comes and thrown away, but for its end.

use std::fs::OpenOptions;
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::process::Command;

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::usage::{self, Usage};

/// The size of the terminal.
const ROWS: u16 = 50;
const COLUMNS: u16 = 160;
/// As much of what was drawn is kept.
const KEPT: usize = 4096;

/// Runs `command` on a terminal of its own until it ends; gives what it took and the last that it wrote.
///
/// # Errors
/// When there is no terminal to be had, or the program cannot be started.
pub fn run(command: &mut Command) -> io::Result<(Usage, String)> {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    grantpt(&master)?;
    unlockpt(&master)?;
    tcsetwinsize(&master, Winsize { ws_row: ROWS, ws_col: COLUMNS, ws_xpixel: 0, ws_ypixel: 0 })?;
    let name = ptsname(&master, Vec::new())?.into_string().map_err(io::Error::other)?;
    let slave = OwnedFd::from(OpenOptions::new().read(true).write(true).open(name)?);
    command.env("TERM", "xterm-256color");
    command.stdin(slave.try_clone()?).stdout(slave.try_clone()?).stderr(slave);
    let child = command.spawn()?;
    // The command still has its copies: reading ends only once nobody holds the other side.
    command.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::null());
    command.stderr(std::process::Stdio::null());
    let mut master = std::fs::File::from(master);
    let (mut end, mut piece) = (Vec::new(), [0; 64 * 1024]);
    // A terminal whose program has gone says EIO.
    while let Ok(length) = master.read(&mut piece) {
        if length == 0 {
            break;
        }
        end.extend_from_slice(&piece[..length]);
        if end.len() > KEPT {
            end.drain(..end.len() - KEPT);
        }
    }
    Ok((usage::wait(child)?, String::from_utf8_lossy(&end).into_owned()))
}
