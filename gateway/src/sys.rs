//! The system calls that need `unsafe`: nothing else in this crate does.
//!
//! Owns:    namespaces, the TUN device's ioctls, `TCP_INFO`, signal descriptors, spawns that keep one descriptor or confine.
//! Not here: what the calls are for (`sandbox`, `host`); everything rustix offers safely.

pub(crate) mod datagram;

use std::fs::File;
use std::io;
use std::mem::{self, MaybeUninit};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command};

use libc::{c_int, c_ulong};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::confine;

/// Which namespaces to leave.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Namespaces {
    /// User, network and mount.
    UserNetMount,
    /// Network and mount: for root where user namespaces are refused.
    NetMount,
    /// Network.
    Net,
}

/// Moves this process, which must have one thread, into new namespaces.
pub(crate) fn unshare(which: Namespaces) -> io::Result<()> {
    let flags = match which {
        Namespaces::UserNetMount => libc::CLONE_NEWUSER | libc::CLONE_NEWNET | libc::CLONE_NEWNS,
        Namespaces::NetMount => libc::CLONE_NEWNET | libc::CLONE_NEWNS,
        Namespaces::Net => libc::CLONE_NEWNET,
    };
    // SAFETY: no pointer is passed; with one thread nothing else relies on the old namespaces.
    check(unsafe { libc::unshare(flags) }).map(drop)
}

/// Opens `/dev/net/tun` and makes the device `name`, with virtio headers and every offload the kernel has.
/// The device belongs to the network namespace this process is in now.
pub(crate) fn open_tun(name: &str) -> io::Result<OwnedFd> {
    const NEWEST: c_int = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN | TUN_F_USO4 | TUN_F_USO6;
    const OLDER: c_int = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN;
    let file = File::options().read(true).write(true).open("/dev/net/tun")?;
    let fd = OwnedFd::from(file);
    rustix::io::ioctl_fionbio(&fd, true)?;
    // SAFETY: `ifreq` is plain data, for which zero is a value.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes().take(libc::IFNAMSIZ - 1)) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI | libc::IFF_VNET_HDR) as libc::c_short;
    // SAFETY: TUNSETIFF reads and writes one `ifreq`, which outlives the call.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), TUNSETIFF, &raw mut request) })?;
    // Kernels before 6.2 refuse the USO bits, not the rest.
    // SAFETY: TUNSETOFFLOAD takes its bits by value.
    let newest = check(unsafe { libc::ioctl(fd.as_raw_fd(), TUNSETOFFLOAD, NEWEST as c_ulong) });
    if newest.is_err() {
        // SAFETY: as above.
        check(unsafe { libc::ioctl(fd.as_raw_fd(), TUNSETOFFLOAD, OLDER as c_ulong) })?;
    }
    Ok(fd)
}

const TUNSETIFF: c_ulong = 0x4004_54ca;
const TUNSETOFFLOAD: c_ulong = 0x4004_54d0;
const TUN_F_CSUM: c_int = 0x01;
const TUN_F_TSO4: c_int = 0x02;
const TUN_F_TSO6: c_int = 0x04;
const TUN_F_TSO_ECN: c_int = 0x08;
const TUN_F_USO4: c_int = 0x20;
const TUN_F_USO6: c_int = 0x40;

/// The first bytes of the kernel's `struct tcp_info`; shorter answers of older kernels are filled with zeros.
pub(crate) fn tcp_info(fd: impl AsFd) -> io::Result<[u8; TCP_INFO_LEN]> {
    let mut info = [0_u8; TCP_INFO_LEN];
    let mut len = TCP_INFO_LEN as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes into `info`, which is that long.
    check(unsafe {
        libc::getsockopt(
            fd.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &raw mut len,
        )
    })?;
    Ok(info)
}

/// Up to and including `tcpi_rcv_ooopack`.
pub(crate) const TCP_INFO_LEN: usize = 232;

/// Starts `command` with none of `unblocked` blocked, and with `kept`, if any, inherited under the same number
/// whatever its close-on-exec flag. (std lets a child inherit its parent's signal mask.)
pub(crate) fn spawn(
    command: &mut Command,
    unblocked: &[i32],
    kept: Option<BorrowedFd<'_>>,
) -> io::Result<Child> {
    let set = signal_set(unblocked);
    let kept = kept.map(|fd| fd.as_raw_fd());
    // SAFETY: between fork and exec the closure calls fcntl and sigprocmask only, which are async-signal-safe; it
    // allocates nothing and takes no lock.
    unsafe {
        command.pre_exec(move || {
            if let Some(fd) = kept
                && libc::fcntl(fd, libc::F_SETFD, 0) < 0
            {
                return Err(io::Error::last_os_error());
            }
            check(libc::sigprocmask(libc::SIG_UNBLOCK, &raw const set, std::ptr::null_mut())).map(drop)
        });
    }
    command.spawn()
}

/// Starts `command` with none of `unblocked` blocked, confined to `limits`. This process must have one thread.
pub(crate) fn spawn_confined(
    command: &mut Command,
    unblocked: &[i32],
    mut limits: confine::Program,
) -> io::Result<Child> {
    // SAFETY: `confine` makes system calls only; and as this process has one thread, no lock can be held in the child
    // that nobody is there to release.
    unsafe { command.pre_exec(move || limits.confine()) };
    spawn(command, unblocked, None)
}

/// Marks every descriptor from `first` on close-on-exec.
pub(crate) fn close_on_exec_from(first: u32) -> io::Result<()> {
    const CLOSE_RANGE_CLOEXEC: libc::c_uint = 4;
    // SAFETY: close_range takes numbers, and marks descriptors instead of closing them.
    let done = unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, CLOSE_RANGE_CLOEXEC) };
    if done == 0 {
        return Ok(());
    }
    // Linux before 5.11 has no such flag. A number that is not open is no error here.
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(65_536);
    for number in first..u32::try_from(limit).unwrap_or(u32::MAX) {
        // SAFETY: F_SETFD takes its flag by value.
        unsafe { libc::fcntl(number.cast_signed(), libc::F_SETFD, libc::FD_CLOEXEC) };
    }
    Ok(())
}

fn signal_set(signals: &[i32]) -> libc::sigset_t {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigemptyset initialises the set, sigaddset changes it; both live until the end of the block.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        for signal in signals {
            libc::sigaddset(set.as_mut_ptr(), *signal);
        }
        set.assume_init()
    }
}

/// Takes over a descriptor number that was inherited across exec, and marks it close-on-exec.
pub(crate) fn inherited_fd(raw: i32) -> io::Result<OwnedFd> {
    // SAFETY: F_SETFD takes its flag by value; a number that is not open fails with EBADF.
    check(unsafe { libc::fcntl(raw, libc::F_SETFD, libc::FD_CLOEXEC) })?;
    // SAFETY: the number is open (just checked) and was passed to this process for it to own.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

/// Registers a nonblocking descriptor with the runtime this is called in.
pub(crate) fn register(fd: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` gives the same open number until it is dropped, and `AsyncFd` deregisters before that.
    Ok(unsafe { AsyncFd::register_with_interest(fd, interest) }?)
}

/// A signal read from a signal descriptor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Signalled {
    /// Its number.
    pub(crate) signal: i32,
    /// True when the kernel made it for the terminal: the whole foreground process group got it.
    pub(crate) from_terminal: bool,
}

/// Blocks `signals` for this thread and gives a nonblocking descriptor that reads them.
pub(crate) fn signal_fd(signals: &[i32]) -> io::Result<OwnedFd> {
    let set = signal_set(signals);
    // SAFETY: `set` is initialised; no old set is asked for.
    let blocked = unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) };
    if blocked != 0 {
        return Err(io::Error::from_raw_os_error(blocked));
    }
    // SAFETY: `set` is initialised; a new descriptor is asked for.
    let fd = check(unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) })?;
    // SAFETY: the kernel just gave us this descriptor; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The next signal of a signal descriptor; `None`: none waits.
pub(crate) fn read_signal(fd: impl AsFd) -> io::Result<Option<Signalled>> {
    let mut bytes = [0_u8; mem::size_of::<libc::signalfd_siginfo>()];
    match rustix::io::read(fd, &mut bytes) {
        Ok(_) => {}
        Err(rustix::io::Errno::AGAIN) => return Ok(None),
        Err(error) => return Err(error.into()),
    }
    // SAFETY: signalfd reads whole records; the record is plain data and the copy needs no alignment.
    let info: libc::signalfd_siginfo = unsafe { std::ptr::read_unaligned(bytes.as_ptr().cast()) };
    Ok(Some(Signalled {
        signal: info.ssi_signo.cast_signed(),
        // SI_KERNEL: neither kill() nor sigqueue() made it.
        from_terminal: info.ssi_code == 0x80,
    }))
}

/// Whom `O_ASYNC` of a descriptor signals. What is here for is that it is refused.
#[cfg(test)]
pub(crate) fn set_owner(fd: impl AsFd, process: rustix::process::Pid) -> io::Result<()> {
    // SAFETY: F_SETOWN takes a number.
    check(unsafe { libc::fcntl(fd.as_fd().as_raw_fd(), libc::F_SETOWN, process.as_raw_nonzero().get()) })
        .map(drop)
}

fn check(result: c_int) -> io::Result<c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocked_signal_is_read_from_its_descriptor() {
        // A thread of its own: the mask is per thread, and a signal sent to the thread stays with it.
        std::thread::spawn(|| {
            let fd = signal_fd(&[libc::SIGUSR2]).expect("signalfd");
            assert_eq!(read_signal(&fd).expect("read"), None);
            // SAFETY: raising a blocked signal runs no handler.
            unsafe { libc::raise(libc::SIGUSR2) };
            let got = read_signal(&fd).expect("read").expect("a signal waits");
            assert_eq!((got.signal, got.from_terminal), (libc::SIGUSR2, false));
        })
        .join()
        .expect("the thread ends");
    }

    #[test]
    fn tcp_info_of_a_listener_says_listen() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
        assert_eq!(tcp_info(&listener).expect("TCP_INFO")[0], 10);
    }
}
