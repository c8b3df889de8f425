//! Lets namespaces choose CUBIC while the lab runs.
//!
//! A namespace may only select what `tcp_allowed_congestion_control` of the *initial* namespace lists
//! (Linux: `tcp_set_default_congestion_control`, `TCP_CONG_NON_RESTRICTED`). The first run adds `cubic` and says
//! so; the last one to end puts the old list back.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::fd::AsFd as _;

use crate::sys;
use crate::target::TargetError;

const LIST: &str = "/proc/sys/net/ipv4/tcp_allowed_congestion_control";
const LOCK: &str = "lastack-lab-congestion-control";

/// While this lives, CUBIC may be chosen in any namespace.
#[derive(Debug)]
pub struct CubicAllowed {
    /// Shared lock; its content is the list to restore.
    lock: Option<File>,
    /// What was changed, for people.
    pub notice: Option<String>,
}

impl CubicAllowed {
    /// Adds `cubic` to the list if it is not there.
    ///
    /// # Errors
    /// The list cannot be read or written.
    pub fn ensure() -> Result<Self, TargetError> {
        let failed =
            |error: std::io::Error| TargetError(format!("cannot let namespaces use cubic: {LIST}: {error}"));
        let path = std::env::temp_dir().join(LOCK);
        let options = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
        let mut lock = options.map_err(failed)?;
        let list = || std::fs::read_to_string(LIST).map_err(failed);
        let listed = |list: &str| list.split_whitespace().any(|name| name == "cubic");
        // Many runs may share the list; only who changes it is alone.
        sys::lock_file(lock.as_fd(), libc::LOCK_SH);
        let mut notice = None;
        if !listed(&list()?) {
            sys::lock_file(lock.as_fd(), libc::LOCK_EX);
            let list = list()?;
            if !listed(&list) {
                let original = list.trim();
                std::fs::write(LIST, format!("{original} cubic")).map_err(failed)?;
                let kept = lock
                    .set_len(0)
                    .and_then(|()| lock.rewind())
                    .and_then(|()| lock.write_all(original.as_bytes()));
                kept.map_err(failed)?;
                notice = Some(format!("added cubic to {LIST} for the time of this run (was: {original})"));
            }
        }
        sys::lock_file(lock.as_fd(), libc::LOCK_SH);
        Ok(Self { lock: Some(lock), notice })
    }
}

impl Drop for CubicAllowed {
    fn drop(&mut self) {
        let Some(mut lock) = self.lock.take() else { return };
        // Only the last run may restore; an empty file means that nobody changed the list.
        if !sys::lock_file(lock.as_fd(), libc::LOCK_EX | libc::LOCK_NB) {
            return;
        }
        let mut original = String::new();
        let read = lock.rewind().and_then(|()| lock.read_to_string(&mut original));
        if read.is_ok() && !original.is_empty() && std::fs::write(LIST, &original).is_ok() {
            let _ = lock.set_len(0);
        }
    }
}
