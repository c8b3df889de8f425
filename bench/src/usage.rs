//! What a finished child has used: the one figure of `wait4` that std leaves out.

use std::io;
use std::process::Child;

/// What a program took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// Processor time, user and system, seconds.
    pub cpu_s: f64,
    /// Largest resident memory, bytes.
    pub peak_bytes: u64,
    /// It ended with status 0.
    pub success: bool,
}

/// Waits for `child` and tells what it used.
///
/// # Errors
/// The child has been waited for already.
pub fn wait(child: Child) -> io::Result<Usage> {
    let pid = libc::pid_t::try_from(child.id()).map_err(io::Error::other)?;
    let mut status = 0;
    // SAFETY: rusage is plain numbers; all zeroes is one of its values.
    let mut used: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are to live variables of the types that wait4 fills.
    let waited = unsafe { libc::wait4(pid, &raw mut status, 0, &raw mut used) };
    if waited != pid {
        return Err(io::Error::last_os_error());
    }
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    Ok(Usage {
        cpu_s: seconds(used.ru_utime) + seconds(used.ru_stime),
        peak_bytes: u64::try_from(used.ru_maxrss).unwrap_or(0) * 1024,
        success: libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0,
    })
}
