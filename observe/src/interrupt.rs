//! Ctrl-C as a flag, so that a stream can end with its summary.

use std::sync::atomic::{AtomicBool, Ordering};

/// Raised by Ctrl-C or SIGTERM.
#[derive(Clone, Copy, Debug)]
pub struct Interrupt(&'static AtomicBool);

impl Interrupt {
    /// From now on Ctrl-C raises the flag; a second one ends the process.
    pub fn catch() -> Self {
        Self(crate::sys::catch_interrupts())
    }

    /// True once it was raised.
    pub fn raised(self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
