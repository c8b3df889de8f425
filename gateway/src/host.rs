//! A TCP socket of the host, as thin as a relay needs: nonblocking, no buffers of its own, every end told apart.
//!
//! Owns:    [`HostStream`]: connect, read into fresh chunks, gathered writes, FIN, RST, and [`HostInfo`] at the end.
//! Rules:   SO_ERROR, recv and send share one pending error, and whoever asks first eats it: the first errno any of
//!          them gives is kept in [`HostStream::error`]. A RST is told behind the data that came before it.
//! Not here: what is done about an end (`relay`).

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendFlags, Shutdown, SocketFlags, SocketType, sockopt,
};
use tokio::io::unix::AsyncFd;
use tokio::io::{Interest, Ready};

use crate::pool::Pool;
use crate::sys;

/// First read of a quiet connection, bytes: most requests and answers fit.
const SMALL_READ: u32 = 4 * 1024;
/// Largest read, bytes: four super-segments.
pub(crate) const LARGE_READ: usize = 256 * 1024;
/// Slices in one gathered write: Linux takes 1,024, far fewer are ever queued.
const MAX_SLICES: usize = 64;

/// A connected TCP socket of the host.
#[derive(Debug)]
pub struct HostStream {
    fd: Arc<AsyncFd<OwnedFd>>,
    error: Option<i32>,
    /// It connected; else it was accepted.
    has_called: bool,
    /// Nothing but the end of file is left to read.
    is_at_end: bool,
    read_size: u32,
    pool: Arc<Pool>,
    written: u64,
    read: u64,
}

/// The kernel's figures about a host socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct HostInfo {
    /// Linux's state number (`tcpi_state`): 7 once it is dead.
    pub state: u8,
    /// Smoothed round-trip time, microseconds (`tcpi_rtt`).
    pub rtt_us: u32,
    /// Segments sent again in its life (`tcpi_total_retrans`).
    pub retransmits: u32,
    /// Bytes written to it that its peer's kernel has not acknowledged.
    pub unacked_bytes: u64,
}

/// A connection that was begun: all that is done before there is anything to wait for. It needs no runtime.
#[derive(Debug)]
pub(crate) struct Dialled {
    fd: OwnedFd,
    is_established: bool,
}

impl Dialled {
    /// # Errors
    /// As [`HostStream::connect`].
    pub(crate) fn new(remote: SocketAddr) -> io::Result<Self> {
        let family = if remote.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let fd = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
        // The relay writes what arrived as it arrived: the program's own Nagle has already had its say.
        sockopt::set_tcp_nodelay(&fd, true)?;
        match rustix::net::connect(&fd, &remote) {
            Ok(()) | Err(rustix::io::Errno::INPROGRESS) => {}
            Err(error) => return Err(error.into()),
        }
        // On the host itself the handshake is over when the call is: nothing to wait for.
        let is_established = remote.ip().is_loopback() && rustix::net::getpeername(&fd).is_ok();
        Ok(Self { fd, is_established })
    }
}

impl HostStream {
    /// Connects to `remote`, without waiting in the kernel.
    ///
    /// # Errors
    /// The errno connect(2) would give.
    pub async fn connect(remote: SocketAddr) -> io::Result<Self> {
        Self::dialled(Dialled::new(remote)?).await
    }

    /// Waits for the answer to a connection that was begun.
    ///
    /// # Errors
    /// As [`HostStream::connect`].
    pub(crate) async fn dialled(Dialled { fd, is_established }: Dialled) -> io::Result<Self> {
        let mut stream = Self::registered(fd, true)?;
        if is_established {
            return Ok(stream);
        }
        let closed = stream.fd.writable().await?.ready().is_write_closed();
        if closed && let Some(errno) = stream.take_error() {
            // Past the handshake a reset is the connection's end, not the attempt's.
            if errno != libc::ECONNRESET && errno != libc::EPIPE {
                return Err(io::Error::from_raw_os_error(errno));
            }
            stream.error = Some(errno);
        }
        Ok(stream)
    }

    /// Adopts a socket that was accepted.
    ///
    /// # Errors
    /// When it cannot be made nonblocking or registered with the runtime.
    pub fn from_std(stream: std::net::TcpStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Self::accepted(OwnedFd::from(stream))
    }

    /// Adopts a nonblocking socket that was accepted.
    pub(crate) fn accepted(fd: OwnedFd) -> io::Result<Self> {
        sockopt::set_tcp_nodelay(&fd, true)?;
        Self::registered(fd, false)
    }

    /// This host's end.
    pub(crate) fn local_addr(&self) -> Option<SocketAddr> {
        SocketAddr::try_from(rustix::net::getsockname(&*self.fd).ok()?).ok()
    }

    /// Shares large read buffers with whoever else has `pool`.
    #[must_use]
    pub fn with_pool(mut self, pool: Arc<Pool>) -> Self {
        self.pool = pool;
        self
    }

    fn registered(fd: OwnedFd, has_called: bool) -> io::Result<Self> {
        let fd = Arc::new(sys::register(fd, Interest::READABLE | Interest::WRITABLE)?);
        Ok(Self {
            fd,
            error: None,
            has_called,
            is_at_end: false,
            read_size: SMALL_READ,
            pool: Pool::new(LARGE_READ),
            written: 0,
            read: 0,
        })
    }

    fn take_error(&self) -> Option<i32> {
        match sockopt::socket_error(&*self.fd) {
            Ok(Err(errno)) => Some(errno.raw_os_error()),
            Ok(Ok(())) | Err(_) => None,
        }
    }

    /// The errno that ended this socket, once any call has met it.
    pub fn error(&self) -> Option<i32> {
        self.error
    }

    /// Bytes the kernel took from us.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Bytes read.
    pub fn read(&self) -> u64 {
        self.read
    }

    /// Reads what is there, up to 256 KiB; empty: end of file. What came before a RST is read before its error.
    ///
    /// # Errors
    /// The socket's end; it is also kept in [`HostStream::error`].
    pub fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        loop {
            let mut guard = ready!(self.fd.poll_read_ready(cx))?;
            match self.receive() {
                Ok(chunk) if chunk.is_empty() => {
                    // The pending error may have been eaten by a send: then this is no clean end.
                    let end =
                        self.error.map_or(Ok(Bytes::new()), |errno| Err(io::Error::from_raw_os_error(errno)));
                    return Poll::Ready(end);
                }
                Ok(chunk) => {
                    // Less than there was room for: there is no more just now, and it need not be asked. An end that came
                    // with it would not be told again, so then it is asked.
                    let ends = Ready::READ_CLOSED | Ready::ERROR;
                    if chunk.len() < self.read_size as usize {
                        if (guard.ready() & ends).is_empty() {
                            guard.clear_ready_matching(Ready::READABLE);
                        } else {
                            self.is_at_end = self.look_for_end();
                        }
                    }
                    self.has_read(chunk.len());
                    return Poll::Ready(Ok(chunk));
                }
                Err(rustix::io::Errno::AGAIN) => guard.clear_ready(),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Poll::Ready(Err(self.keep(error))),
            }
        }
    }

    /// Reads at most `read_size` bytes. A slice must not pin much more memory than it carries.
    fn receive(&self) -> rustix::io::Result<Bytes> {
        if self.read_size == SMALL_READ {
            let mut room = [MaybeUninit::<u8>::uninit(); SMALL_READ as usize];
            let ((chunk, _), _) = rustix::net::recv(&*self.fd, &mut room[..], RecvFlags::DONTWAIT)?;
            return Ok(Bytes::copy_from_slice(chunk));
        }
        let size = self.read_size as usize;
        let is_large = size >= self.pool.size();
        let mut chunk = if is_large { self.pool.take() } else { Vec::with_capacity(size) };
        let got =
            rustix::net::recv(&*self.fd, rustix::buffer::spare_capacity(&mut chunk), RecvFlags::DONTWAIT);
        let is_filled = chunk.len() >= size / 2;
        match (is_large, is_filled) {
            (true, true) => Ok(self.pool.lend(chunk)),
            (true, false) => {
                let bytes = Bytes::copy_from_slice(&chunk);
                self.pool.put(chunk);
                got.map(|_| bytes)
            }
            (false, _) => {
                if !is_filled {
                    chunk.shrink_to_fit();
                }
                got.map(|_| Bytes::from(chunk))
            }
        }
    }

    /// So much was read. Busy connections read in large pieces, quiet ones hold small ones.
    fn has_read(&mut self, len: usize) {
        self.read += len as u64;
        let size = self.read_size;
        if len == size as usize {
            self.read_size = (size * 8).min(self.pool.size() as u32);
        } else if len < size as usize / 8 {
            self.read_size = (size / 8).max(SMALL_READ);
        }
    }

    /// Whether the next read gives the end of file.
    fn look_for_end(&mut self) -> bool {
        match rustix::net::recv(&*self.fd, &mut [0; 1], RecvFlags::PEEK | RecvFlags::DONTWAIT) {
            // Behind an error that a send has met it is no clean end.
            Ok((0, _)) => self.error.is_none(),
            Ok(_) | Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => false,
            // The kernel tells it once: the next read finds it kept.
            Err(error) => {
                self.keep(error);
                false
            }
        }
    }

    /// Nothing but the end of file is left behind what was read last. False: that is not known yet.
    pub fn is_at_end(&self) -> bool {
        self.is_at_end
    }

    /// Writes from the front of `queue` and takes out what the kernel took; ready when anything was taken.
    ///
    /// # Errors
    /// The socket's end; it is also kept in [`HostStream::error`].
    pub fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        queue: &mut VecDeque<Bytes>,
    ) -> Poll<io::Result<usize>> {
        loop {
            let mut guard = ready!(self.fd.poll_write_ready(cx))?;
            let mut slices = [IoSlice::new(&[]); MAX_SLICES];
            let count = queue.len().min(MAX_SLICES);
            for (slice, bytes) in slices.iter_mut().zip(queue.iter()) {
                *slice = IoSlice::new(bytes);
            }
            let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
            let sent = rustix::net::sendmsg(
                guard.get_inner(),
                &slices[..count],
                &mut SendAncillaryBuffer::default(),
                flags,
            );
            match sent {
                Ok(taken) => {
                    self.written += taken as u64;
                    take_front(queue, taken);
                    return Poll::Ready(Ok(taken));
                }
                Err(rustix::io::Errno::AGAIN) => guard.clear_ready(),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Poll::Ready(Err(self.keep(error))),
            }
        }
    }

    fn keep(&mut self, error: rustix::io::Errno) -> io::Error {
        let errno = *self.error.get_or_insert(error.raw_os_error());
        io::Error::from_raw_os_error(errno)
    }

    /// Waits until the kernel reports an error on the socket: for a relay that is not reading just now.
    pub fn failed(&self) -> impl Future<Output = ()> + Send + use<> {
        let fd = self.fd.clone();
        async move {
            // An error stays set, so there is nothing to clear; a runtime that shuts down ends the wait too.
            let _ = fd.ready(Interest::ERROR).await;
        }
    }

    /// The errno of a socket that [`HostStream::failed`]; taken from the kernel unless a call has met it already.
    pub fn fail(&mut self) -> i32 {
        let errno = self.error.or_else(|| self.take_error()).unwrap_or(libc::ECONNRESET);
        *self.error.get_or_insert(errno)
    }

    /// Bytes that wait to be read.
    pub fn unread(&self) -> u64 {
        rustix::io::ioctl_fionread(&*self.fd).unwrap_or(0)
    }

    /// Sends FIN behind what was written.
    pub fn shutdown_write(&mut self) {
        let _ = rustix::net::shutdown(&*self.fd, Shutdown::Write);
    }

    /// The kernel's figures.
    pub fn info(&self) -> HostInfo {
        let Ok(info) = sys::tcp_info(&*self.fd) else { return HostInfo::default() };
        let word = |at: usize| u32::from_ne_bytes(info[at..at + 4].try_into().expect("four bytes"));
        let long = |at: usize| u64::from_ne_bytes(info[at..at + 8].try_into().expect("eight bytes"));
        // struct tcp_info: tcpi_rtt at 68, tcpi_total_retrans at 100, tcpi_bytes_acked at 120. The acknowledged
        // count includes the SYN of who called (not the SYN-ACK of who was called), and our FIN when it was acknowledged.
        HostInfo {
            state: info[0],
            rtt_us: word(68),
            retransmits: word(100),
            unacked_bytes: (self.written + u64::from(self.has_called)).saturating_sub(long(120)),
        }
    }

    /// Ends the connection with RST; data the kernel still holds is discarded.
    pub fn reset(self) {
        // SO_LINGER with zero seconds: close() becomes tcp_disconnect().
        let _ = sockopt::set_socket_linger(&*self.fd, Some(Duration::ZERO));
    }
}

impl AsFd for HostStream {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Removes `taken` bytes from the front of `queue`.
fn take_front(queue: &mut VecDeque<Bytes>, mut taken: usize) {
    while let Some(front) = queue.front_mut() {
        if taken < front.len() {
            front.advance(taken);
            return;
        }
        taken -= front.len();
        queue.pop_front();
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};

    use super::*;

    fn run<T>(test: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test)
    }

    async fn pair() -> (HostStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let ours = HostStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (ours, listener.accept().unwrap().0)
    }

    async fn read(stream: &mut HostStream) -> io::Result<Bytes> {
        poll_fn(|cx| stream.poll_read(cx)).await
    }

    async fn write(stream: &mut HostStream, pieces: &[&'static str]) -> io::Result<usize> {
        let mut queue = pieces.iter().map(|piece| Bytes::from_static(piece.as_bytes())).collect();
        poll_fn(|cx| stream.poll_write(cx, &mut queue)).await
    }

    fn reset_by(peer: TcpStream) {
        sockopt::set_socket_linger(&peer, Some(Duration::ZERO)).unwrap();
    }

    #[test]
    fn pieces_go_out_in_one_write_and_answers_come_back() {
        run(async {
            let (mut ours, mut peer) = pair().await;
            assert_eq!(write(&mut ours, &["GET ", "/", "\r\n"]).await.unwrap(), 7);
            let mut got = [0; 7];
            peer.read_exact(&mut got).unwrap();
            assert_eq!(&got, b"GET /\r\n");
            peer.write_all(b"answer").unwrap();
            assert_eq!(read(&mut ours).await.unwrap(), "answer");
            assert_eq!((ours.written(), ours.read()), (7, 6));
        });
    }

    #[test]
    fn closed_port_is_refused_with_its_errno() {
        run(async {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
            let error = HostStream::connect(port).await.unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::ECONNREFUSED));
        });
    }

    #[test]
    fn fin_is_an_empty_read_and_the_other_direction_lives() {
        run(async {
            let (mut ours, mut peer) = pair().await;
            peer.shutdown(std::net::Shutdown::Write).unwrap();
            assert_eq!(read(&mut ours).await.unwrap(), "");
            write(&mut ours, &["still here"]).await.unwrap();
            ours.shutdown_write();
            let mut rest = String::new();
            peer.read_to_string(&mut rest).unwrap();
            assert_eq!(rest, "still here");
            assert_eq!(ours.error(), None);
        });
    }

    #[test]
    fn end_that_came_with_the_data_is_known_and_no_other() {
        run(async {
            let (mut ours, mut peer) = pair().await;
            peer.write_all(b"more follows").unwrap();
            assert_eq!(read(&mut ours).await.unwrap(), "more follows");
            assert!(!ours.is_at_end());
            peer.write_all(b"the last").unwrap();
            peer.shutdown(std::net::Shutdown::Write).unwrap();
            ours.fd.ready(Interest::READABLE).await.unwrap().retain_ready();
            assert_eq!(read(&mut ours).await.unwrap(), "the last");
            assert!(ours.is_at_end());
            assert_eq!(read(&mut ours).await.unwrap(), "");
        });
    }

    #[test]
    fn reset_is_told_behind_the_data_that_came_before_it() {
        run(async {
            let (mut ours, mut peer) = pair().await;
            peer.write_all(b"last words").unwrap();
            reset_by(peer);
            assert_eq!(read(&mut ours).await.unwrap(), "last words");
            assert_eq!(read(&mut ours).await.unwrap_err().raw_os_error(), Some(libc::ECONNRESET));
        });
    }

    #[test]
    fn reset_that_a_write_met_is_not_a_clean_end_for_the_reader() {
        run(async {
            let (mut ours, peer) = pair().await;
            reset_by(peer);
            ours.failed().await;
            assert_eq!(write(&mut ours, &["x"]).await.unwrap_err().raw_os_error(), Some(libc::ECONNRESET));
            assert_eq!(read(&mut ours).await.unwrap_err().raw_os_error(), Some(libc::ECONNRESET));
            assert_eq!(ours.error(), Some(libc::ECONNRESET));
        });
    }

    #[test]
    fn reset_that_a_write_met_is_no_end_behind_the_data_before_it() {
        run(async {
            let (mut ours, mut peer) = pair().await;
            peer.write_all(b"last words").unwrap();
            reset_by(peer);
            ours.failed().await;
            assert_eq!(write(&mut ours, &["x"]).await.unwrap_err().raw_os_error(), Some(libc::ECONNRESET));
            assert_eq!(read(&mut ours).await.unwrap(), "last words");
            assert!(!ours.is_at_end());
            assert_eq!(read(&mut ours).await.unwrap_err().raw_os_error(), Some(libc::ECONNRESET));
        });
    }

    #[test]
    fn our_reset_is_a_reset_for_the_peer() {
        run(async {
            let (ours, mut peer) = pair().await;
            ours.reset();
            let error = peer.read(&mut [0; 1]).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::ECONNRESET));
        });
    }

    #[test]
    fn unread_bytes_of_a_peer_that_reset_are_acknowledged_all_the_same() {
        run(async {
            let (mut ours, peer) = pair().await;
            write(&mut ours, &["12345"]).await.unwrap();
            drop(peer); // unread data: its kernel answers with RST
            ours.failed().await;
            assert_eq!(ours.info().unacked_bytes, 0, "the peer's kernel had taken them");
        });
    }

    #[test]
    fn nothing_is_unacknowledged_on_a_quiet_socket_whoever_called() {
        run(async {
            let (mut caller, called) = pair().await;
            let mut called = HostStream::from_std(called).unwrap();
            assert_eq!([caller.info().unacked_bytes, called.info().unacked_bytes], [0, 0]);
            write(&mut called, &["to the caller"]).await.unwrap();
            read(&mut caller).await.unwrap();
            write(&mut caller, &["and back"]).await.unwrap();
            // Its acknowledgment came with the answer.
            read(&mut called).await.unwrap();
            assert_eq!(called.info().unacked_bytes, 0);
        });
    }

    #[test]
    fn bytes_the_peer_has_no_room_for_are_counted_as_unacknowledged() {
        run(async {
            let (mut ours, peer) = pair().await;
            let chunk = Bytes::from(vec![7_u8; 1 << 20]);
            // Once the runtime knows that there is room, it need not be waited for.
            let mut sent = write(&mut ours, &["first"]).await.unwrap();
            loop {
                let mut queue = VecDeque::from([chunk.clone()]);
                let write = poll_fn(|cx| Poll::Ready(ours.poll_write(cx, &mut queue))).await;
                match write {
                    Poll::Ready(taken) => sent += taken.unwrap(),
                    Poll::Pending => break,
                }
            }
            reset_by(peer);
            ours.failed().await;
            let lost = ours.info().unacked_bytes;
            assert!(lost > 0 && lost < sent as u64, "{lost} of {sent}");
        });
    }

    #[test]
    fn queue_keeps_what_was_not_taken() {
        let mut queue: VecDeque<Bytes> = ["abc", "de", "f"].map(|s| Bytes::from_static(s.as_bytes())).into();
        take_front(&mut queue, 4);
        assert_eq!(queue, ["e", "f"].map(|s| Bytes::from_static(s.as_bytes())));
        take_front(&mut queue, 2);
        assert!(queue.is_empty());
    }
}
