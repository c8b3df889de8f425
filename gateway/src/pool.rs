//! Large read buffers, used again: a fresh 256 KiB costs 64 page faults, which is more than reading into it.
//!
//! Owns:    [`Pool`]: buffers nobody uses now, at most [`KEPT`]. What a buffer was filled with is read as `Bytes`; it
//!          comes back when the last slice of it is gone.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

/// Buffers kept for the next reader: 4 MiB.
const KEPT: usize = 16;

/// Buffers of one size.
#[derive(Debug)]
pub struct Pool {
    size: usize,
    free: Mutex<Vec<Vec<u8>>>,
}

impl Pool {
    /// A pool of buffers of `size` bytes.
    pub fn new(size: usize) -> Arc<Self> {
        Arc::new(Self { size, free: Mutex::default() })
    }

    /// Bytes in a buffer.
    pub fn size(&self) -> usize {
        self.size
    }

    /// An empty buffer with room for [`Pool::size`] bytes.
    pub fn take(&self) -> Vec<u8> {
        let known = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        known.unwrap_or_else(|| Vec::with_capacity(self.size))
    }

    /// Gives a buffer back.
    pub fn put(&self, mut buffer: Vec<u8>) {
        buffer.clear();
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        if free.len() < KEPT {
            free.push(buffer);
        }
    }

    /// What is in `buffer`, without a copy; the buffer comes back when nobody looks at it any more.
    pub fn lend(self: &Arc<Self>, buffer: Vec<u8>) -> Bytes {
        Bytes::from_owner(Lent { buffer, pool: self.clone() })
    }
}

struct Lent {
    buffer: Vec<u8>,
    pool: Arc<Pool>,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.buffer
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.pool.put(std::mem::take(&mut self.buffer));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffer_comes_back_with_the_last_slice_of_it() {
        let pool = Pool::new(64);
        let mut buffer = pool.take();
        buffer.extend_from_slice(b"some bytes");
        let place = buffer.as_ptr();
        let bytes = pool.lend(buffer);
        let slice = bytes.slice(5..);
        drop(bytes);
        assert_eq!(&slice[..], b"bytes");
        let other = pool.take();
        assert_ne!(other.as_ptr(), place, "it is still looked at");
        drop(slice);
        let again = pool.take();
        assert_eq!((again.as_ptr(), again.len()), (place, 0));
    }

    #[test]
    fn pool_keeps_no_more_than_its_limit() {
        let pool = Pool::new(8);
        for buffer in (0..KEPT * 2).map(|_| Vec::with_capacity(8)).collect::<Vec<_>>() {
            pool.put(buffer);
        }
        assert_eq!(pool.free.lock().unwrap().len(), KEPT);
    }
}
