//! A value that takes no memory while nothing is in it.
//!
//! A connection spends most of its life idle. What it needs only with data queued, in flight or lost is behind one of these.

use core::ops::{Deref, DerefMut};

/// A type with a value that says "nothing".
pub(super) trait Quiet: 'static {
    /// Nothing, to read.
    fn quiet() -> &'static Self;
    /// Nothing, to write into.
    fn new() -> Self;
}

/// Reads as [`Quiet::quiet`] where there is none; writing makes one.
#[derive(Debug)]
pub(super) struct OnDemand<T>(Option<Box<T>>);

impl<T: Quiet> OnDemand<T> {
    pub(super) const NONE: Self = Self(None);

    /// The value, if there is one: for what must not make one.
    pub(super) fn present(&mut self) -> Option<&mut T> {
        self.0.as_deref_mut()
    }

    /// Gives the memory back.
    pub(super) fn release(&mut self) {
        self.0 = None;
    }

    /// It takes memory.
    #[cfg(test)]
    pub(super) fn is_held(&self) -> bool {
        self.0.is_some()
    }
}

impl<T: Quiet> Deref for OnDemand<T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        self.0.as_deref().unwrap_or_else(|| T::quiet())
    }
}

impl<T: Quiet> DerefMut for OnDemand<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        self.0.get_or_insert_with(|| Box::new(T::new()))
    }
}
