//! Sequence numbers: 32-bit, wrapping, compared modulo 2^32 (RFC 9293 3.4).

use core::ops::{Add, AddAssign, Sub};

/// A TCP sequence number.
///
/// Order is circular, so it is spelled with names (`before`, `after`) and not with `<`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct SeqNum(pub u32);

impl SeqNum {
    /// Linux `before(a, b)`: `(i32)(a - b) < 0`.
    pub const fn before(self, other: Self) -> bool {
        (self.0.wrapping_sub(other.0) as i32) < 0
    }

    /// Linux `after(a, b)`.
    pub const fn after(self, other: Self) -> bool {
        other.before(self)
    }

    /// `self <= other` on the circle.
    pub const fn at_or_before(self, other: Self) -> bool {
        !other.before(self)
    }

    /// `self >= other` on the circle.
    pub const fn at_or_after(self, other: Self) -> bool {
        !self.before(other)
    }

    /// Linux `between(self, low, high)`: `low <= self <= high`.
    pub const fn between(self, low: Self, high: Self) -> bool {
        high.0.wrapping_sub(low.0) >= self.0.wrapping_sub(low.0)
    }

    /// Bytes of sequence space from `earlier` to `self`, wrapping.
    pub const fn since(self, earlier: Self) -> u32 {
        self.0.wrapping_sub(earlier.0)
    }

    /// The later of two.
    pub const fn max(self, other: Self) -> Self {
        if self.before(other) { other } else { self }
    }

    /// The earlier of two.
    pub const fn min(self, other: Self) -> Self {
        if self.before(other) { self } else { other }
    }
}

impl Add<u32> for SeqNum {
    type Output = Self;
    fn add(self, n: u32) -> Self {
        Self(self.0.wrapping_add(n))
    }
}

impl AddAssign<u32> for SeqNum {
    fn add_assign(&mut self, n: u32) {
        self.0 = self.0.wrapping_add(n);
    }
}

impl Sub<u32> for SeqNum {
    type Output = Self;
    fn sub(self, n: u32) -> Self {
        Self(self.0.wrapping_sub(n))
    }
}

impl core::fmt::Debug for SeqNum {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A range of sequence space, `[start, end)`: a SACK block, a hole, a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SeqRange {
    /// First sequence number in the range.
    pub start: SeqNum,
    /// First sequence number after the range.
    pub end: SeqNum,
}

impl SeqRange {
    /// The range from `start` up to, not including, `end`.
    pub const fn new(start: SeqNum, end: SeqNum) -> Self {
        Self { start, end }
    }

    /// Length in sequence numbers.
    pub const fn len(self) -> u32 {
        self.end.since(self.start)
    }

    /// True when nothing lies in the range.
    pub const fn is_empty(self) -> bool {
        self.start.0 == self.end.0
    }

    /// True when all of `other` lies in `self`.
    pub const fn covers(self, other: Self) -> bool {
        self.start.at_or_before(other.start) && other.end.at_or_before(self.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_survives_the_wrap() {
        let a = SeqNum(u32::MAX - 5);
        let b = a + 10;
        assert!(a.before(b) && b.after(a) && !b.before(a));
        assert_eq!(b.since(a), 10);
        assert!((a + 3).between(a, b) && !(b + 1).between(a, b));
        assert_eq!(a.max(b), b);
        assert_eq!(a.min(b), a);
    }
}
