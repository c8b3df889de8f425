//! One system call a packet: read into spare room, write from pieces.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};

use bytes::{Bytes, BytesMut};

/// Most pieces of one `writev` (Linux `UIO_MAXIOV`).
pub(crate) const MAX_PIECES: usize = 1024;

/// Reads one packet: `header.len()` bytes into `header`, the rest behind what `buf` holds, into its spare
/// capacity. Returns the bytes of both. A packet that does not fit is cut.
pub(crate) fn read(fd: BorrowedFd<'_>, header: &mut [u8], buf: &mut BytesMut) -> io::Result<usize> {
    let spare = buf.spare_capacity_mut();
    let pieces = [
        libc::iovec { iov_base: header.as_mut_ptr().cast(), iov_len: header.len() },
        libc::iovec { iov_base: spare.as_mut_ptr().cast(), iov_len: spare.len() },
    ];
    // SAFETY: both pieces point to memory that is borrowed mutably and lives through the call; the kernel writes
    // at most `iov_len` bytes into each and reads nothing, so that uninitialised spare room is fine.
    let read = unsafe { libc::readv(fd.as_raw_fd(), pieces.as_ptr(), 2) };
    let read = usize::try_from(read).map_err(|_| io::Error::last_os_error())?;
    let packet = read.saturating_sub(header.len());
    // SAFETY: the kernel filled `header` first and then `packet` bytes of the spare room behind `buf.len()`.
    unsafe { buf.set_len(buf.len() + packet) };
    Ok(read)
}

/// Writes one packet that consists of `header`, `head` and `payload` in this order, with one system call.
/// At most [`MAX_PIECES`] pieces.
pub(crate) fn write(fd: BorrowedFd<'_>, header: &[u8], head: &[u8], payload: &[Bytes]) -> io::Result<usize> {
    let mut pieces = [const { MaybeUninit::<libc::iovec>::uninit() }; MAX_PIECES];
    let slices = [header, head].into_iter().chain(payload.iter().map(Bytes::as_ref));
    let mut count = 0;
    for slice in slices.filter(|slice| !slice.is_empty()) {
        let Some(place) = pieces.get_mut(count) else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "packet in more than 1024 pieces"));
        };
        place.write(libc::iovec { iov_base: slice.as_ptr().cast_mut().cast(), iov_len: slice.len() });
        count += 1;
    }
    // SAFETY: the first `count` pieces are initialised above and point to borrowed memory that lives through the
    // call; `writev` only reads it.
    let written =
        unsafe { libc::writev(fd.as_raw_fd(), pieces.as_ptr().cast::<libc::iovec>(), count as libc::c_int) };
    usize::try_from(written).map_err(|_| io::Error::last_os_error())
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn a_packet_in_pieces_comes_back_whole() {
        let (from, to) = std::os::unix::net::UnixDatagram::pair().unwrap();
        let payload = [Bytes::from_static(b"ab"), Bytes::new(), Bytes::from_static(b"cde")];
        assert_eq!(write(from.as_fd(), b"H", b"IP", &payload).unwrap(), 8);

        let mut header = [0; 1];
        let mut buf = BytesMut::with_capacity(64);
        buf.extend_from_slice(b"kept:");
        assert_eq!(read(to.as_fd(), &mut header, &mut buf).unwrap(), 8);
        assert_eq!((&header[..], &buf[..]), (&b"H"[..], &b"kept:IPabcde"[..]));
    }

    #[test]
    fn more_pieces_than_the_kernel_takes_are_refused() {
        let (from, _to) = std::os::unix::net::UnixDatagram::pair().unwrap();
        let payload = vec![Bytes::from_static(b"x"); MAX_PIECES];
        let error = write(from.as_fd(), b"", b"IP", &payload).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }
}
