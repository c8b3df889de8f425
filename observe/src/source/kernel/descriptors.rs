//! Room for the descriptors of a trace: one for each tracepoint on each processor, thousands on a large machine.
//!
//! Rules:   the soft limit is raised while they are opened and what it was afterwards, so that whatever this process starts
//!          has the limit it would have had. The descriptors go above it (fcntl(2) `F_DUPFD`): a descriptor that is open
//!          stays so under a lower limit, and the numbers below stay free.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Numbers that are left to everything else.
const SPARE: u64 = 8;

/// Room that was made; dropping it lowers the limit to what it was.
#[derive(Debug)]
pub(super) struct Room {
    /// The limit before, if it had to be raised.
    before: Option<Rlimit>,
    /// The first number that is taken.
    from: u64,
}

impl Room {
    /// Room for `each` descriptors on each of `cpus` processors.
    ///
    /// # Errors
    /// `QuotaExceeded` where this process may not have so many.
    pub(super) fn make(each: usize, cpus: usize) -> io::Result<Self> {
        // One more is open while it is moved.
        let (wanted, used) = ((each * cpus) as u64 + 1, used());
        let limit = getrlimit(Resource::Nofile);
        let (soft, hard) = (limit.current.unwrap_or(u64::MAX), limit.maximum.unwrap_or(u64::MAX));
        if used.saturating_add(wanted).saturating_add(SPARE) <= soft {
            return Ok(Self { before: None, from: 0 });
        }
        let from = soft.min(hard.saturating_sub(wanted));
        let raised = Rlimit { current: Some(from.saturating_add(wanted)), maximum: limit.maximum };
        if from < used.saturating_add(SPARE) || setrlimit(Resource::Nofile, raised).is_err() {
            return Err(io::Error::new(
                io::ErrorKind::QuotaExceeded,
                format!(
                    "{each} tracepoints on {cpus} processors take {wanted} descriptors, and this process may have {hard}"
                ),
            ));
        }
        Ok(Self { before: Some(limit), from })
    }

    /// The number above which a descriptor is to be moved, if it is.
    pub(super) fn place(&self) -> Option<i32> {
        self.before.and_then(|_| i32::try_from(self.from).ok())
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        if let Some(before) = self.before {
            // Lowering a soft limit is always allowed.
            let _ = setrlimit(Resource::Nofile, before);
        }
    }
}

/// Descriptors that are open.
fn used() -> u64 {
    std::fs::read_dir("/proc/self/fd").map_or(SPARE, |open| open.count() as u64)
}
