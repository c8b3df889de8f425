//! The system calls that carrying takes, as a seccomp filter.
//!
//! Owns:    the list, with conditions where a call can do more than is needed.
//! Rules:   seccomp(2). Whatever is not on the list gets ENOSYS, as from an old kernel: libraries know how to do without
//!          (glibc starts threads by `clone`, whose flags a filter can read, where `clone3` is missing).
//!          Calls without a condition are answered from the kernel's bitmap (Linux 5.11 and later) without running the filter;
//!          none of those that carry packets has one.

use std::collections::BTreeMap;
use std::io;

use libc::c_long;
use seccompiler::SeccompCmpArgLen::Dword;
use seccompiler::SeccompCmpOp::{Eq, MaskedEq};
use seccompiler::{BpfProgram, SeccompAction, SeccompCondition, SeccompFilter, SeccompRule};

/// Allowed whatever their arguments.
const FREE: &[c_long] = &[
    // Bytes and packets.
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_pread64,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_pwrite64,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    // Sockets.
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_bind,
    libc::SYS_listen,
    libc::SYS_connect,
    libc::SYS_shutdown,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    // Waiting.
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_ppoll,
    libc::SYS_pselect6,
    libc::SYS_eventfd2,
    libc::SYS_timerfd_create,
    libc::SYS_timerfd_settime,
    libc::SYS_timerfd_gettime,
    libc::SYS_futex,
    libc::SYS_nanosleep,
    libc::SYS_clock_nanosleep,
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_gettimeofday,
    libc::SYS_sched_yield,
    libc::SYS_restart_syscall,
    // Descriptors.
    libc::SYS_close,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_pipe2,
    libc::SYS_lseek,
    libc::SYS_fstat,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    // Looking at files, `/proc` above all.
    libc::SYS_statx,
    libc::SYS_newfstatat,
    libc::SYS_readlinkat,
    libc::SYS_getdents64,
    libc::SYS_faccessat,
    libc::SYS_getcwd,
    // The control socket's file, at the end.
    libc::SYS_unlinkat,
    // Memory; what could be executed is below.
    libc::SYS_brk,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    // Threads and signals of its own.
    libc::SYS_set_robust_list,
    libc::SYS_get_robust_list,
    libc::SYS_rseq,
    libc::SYS_set_tid_address,
    libc::SYS_membarrier,
    libc::SYS_sched_getaffinity,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigtimedwait,
    libc::SYS_sigaltstack,
    libc::SYS_signalfd4,
    libc::SYS_exit,
    libc::SYS_exit_group,
    // The helper's end.
    libc::SYS_wait4,
    libc::SYS_waitid,
    // Facts about itself.
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_getppid,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_getrusage,
    libc::SYS_getrandom,
    libc::SYS_uname,
    libc::SYS_sysinfo,
    // Giving up more: a thread that was started before the filter may do so behind it.
    libc::SYS_capget,
    libc::SYS_capset,
];

/// The same under the names that newer machines do not have.
#[cfg(target_arch = "x86_64")]
const FREE_OLD: &[c_long] = &[
    libc::SYS_epoll_wait,
    libc::SYS_poll,
    libc::SYS_select,
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_readlink,
    libc::SYS_access,
    libc::SYS_unlink,
    libc::SYS_time,
    libc::SYS_getrlimit,
    libc::SYS_arch_prctl,
];
#[cfg(not(target_arch = "x86_64"))]
const FREE_OLD: &[c_long] = &[];

/// What makes a file more than read.
const WRITING: i32 = libc::O_WRONLY | libc::O_RDWR | libc::O_CREAT | libc::O_TRUNC | libc::O_APPEND;
const PR_SET_NAME: u64 = 15;

/// A condition: argument `number`, masked, has this value.
fn masked(number: u8, mask: u64, value: u64) -> io::Result<SeccompCondition> {
    SeccompCondition::new(number, Dword, MaskedEq(mask), value).map_err(io::Error::other)
}

fn equal(number: u8, value: u64) -> io::Result<SeccompCondition> {
    SeccompCondition::new(number, Dword, Eq, value).map_err(io::Error::other)
}

fn any_of(
    conditions: impl IntoIterator<Item = io::Result<SeccompCondition>>,
) -> io::Result<Vec<SeccompRule>> {
    let rule = |condition: io::Result<_>| SeccompRule::new(vec![condition?]).map_err(io::Error::other);
    conditions.into_iter().map(rule).collect()
}

/// Allowed with the right arguments.
fn conditional() -> io::Result<Vec<(c_long, Vec<SeccompRule>)>> {
    let own_process = u64::from(std::process::id());
    let one = |condition| any_of([condition]);
    let is_not = |number: u8, bits: i32| one(masked(number, bits as u64, 0));
    // No Unix sockets: those of other services (a bus that starts programs, a container engine) are doors of their own. The
    // control socket is bound already, and its clients are accepted.
    let families = [libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];
    let requests = [libc::FIONREAD, libc::FIONBIO, libc::TCGETS, libc::TIOCGWINSZ];
    let thread = libc::CLONE_THREAD as u64;
    // None that says whom a descriptor signals (F_SETOWN, F_SETSIG, F_SETLEASE, F_NOTIFY). Without an owner O_ASYNC signals
    // nobody, but a terminal's gets one by itself: its foreground process group.
    let descriptor = [libc::F_DUPFD_CLOEXEC, libc::F_GETFD, libc::F_SETFD, libc::F_GETFL];
    let mut fcntl = any_of(descriptor.map(|command| equal(1, command as u64)))?;
    let flags = [equal(1, libc::F_SETFL as u64)?, masked(2, libc::O_ASYNC as u64, 0)?];
    fcntl.push(SeccompRule::new(flags.to_vec()).map_err(io::Error::other)?);
    Ok(vec![
        (libc::SYS_openat, is_not(2, WRITING)?),
        (libc::SYS_mmap, is_not(2, libc::PROT_EXEC)?),
        (libc::SYS_mprotect, is_not(2, libc::PROT_EXEC)?),
        (libc::SYS_socket, any_of(families.map(|family| equal(0, family as u64)))?),
        (libc::SYS_fcntl, fcntl),
        (libc::SYS_ioctl, any_of(requests.map(|request| equal(1, request)))?),
        (libc::SYS_clone, one(masked(0, thread, thread))?),
        (libc::SYS_prctl, one(equal(0, PR_SET_NAME))?),
        // Its own limits; stopping itself at Ctrl-Z.
        (libc::SYS_prlimit64, one(equal(0, 0))?),
        (libc::SYS_kill, one(equal(0, own_process))?),
        (libc::SYS_tgkill, one(equal(0, own_process))?),
    ])
}

/// The filter for the machine this was built for.
pub(super) fn filter() -> io::Result<BpfProgram> {
    let free = FREE.iter().chain(FREE_OLD).map(|call| (*call, Vec::new()));
    let rules: BTreeMap<c_long, Vec<SeccompRule>> = free.chain(conditional()?).collect();
    let arch = std::env::consts::ARCH.try_into().map_err(io::Error::other)?;
    let otherwise = SeccompAction::Errno(libc::ENOSYS as u32);
    let filter =
        SeccompFilter::new(rules, otherwise, SeccompAction::Allow, arch).map_err(io::Error::other)?;
    filter.try_into().map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};

    use super::*;

    /// Runs `test` in a thread that has the filter, alone: the other tests go on without.
    fn filtered(test: impl FnOnce() + Send + 'static) {
        let filter = filter().expect("a filter");
        let thread = std::thread::spawn(move || {
            seccompiler::apply_filter(&filter).expect("seccomp");
            test();
        });
        thread.join().expect("the thread ends");
    }

    #[test]
    fn files_are_read_and_not_written_nor_made() {
        let dir = std::env::temp_dir().join(format!("lastack-filter-{}", std::process::id()));
        filtered(move || {
            assert!(std::fs::read_to_string("/proc/self/stat").is_ok());
            assert!(std::fs::read_dir("/proc/self/fd").unwrap().count() > 0);
            let refused = |result: io::Result<()>| result.unwrap_err().raw_os_error() == Some(libc::ENOSYS);
            assert!(refused(std::fs::write(&dir, "x")));
            assert!(refused(std::fs::create_dir(&dir)));
            assert!(refused(std::fs::rename("/proc/self/stat", &dir)));
            assert!(refused(std::fs::File::options().append(true).open("/dev/null").map(drop)));
        });
    }

    #[test]
    fn no_program_is_executed_and_nobody_else_signalled() {
        filtered(|| {
            assert!(std::process::Command::new("true").spawn().is_err());
            let parent = rustix::process::getppid().expect("a parent");
            assert_eq!(rustix::process::test_kill_process(parent), Err(rustix::io::Errno::NOSYS));
            assert_eq!(rustix::process::test_kill_process(rustix::process::getpid()), Ok(()));
        });
    }

    #[test]
    fn a_descriptor_signals_nobody() {
        use rustix::fs::OFlags;
        use rustix::io::{Errno, FdFlags, fcntl_dupfd_cloexec, fcntl_getfd, fcntl_setfd};
        filtered(|| {
            let socket = UdpSocket::bind("127.0.0.1:0").expect("UDP");
            let owner = crate::sys::set_owner(&socket, rustix::process::getppid().expect("a parent"));
            assert_eq!(owner.unwrap_err().raw_os_error(), Some(libc::ENOSYS));
            let flags = rustix::fs::fcntl_getfl(&socket).expect("F_GETFL");
            rustix::fs::fcntl_setfl(&socket, flags | OFlags::NONBLOCK).expect("F_SETFL");
            let asynchronous = flags | OFlags::from_bits_retain(libc::O_ASYNC as u32);
            assert_eq!(rustix::fs::fcntl_setfl(&socket, asynchronous), Err(Errno::NOSYS));
            assert_eq!(fcntl_getfd(&socket), Ok(FdFlags::CLOEXEC));
            fcntl_setfd(&socket, FdFlags::CLOEXEC).expect("F_SETFD");
            fcntl_dupfd_cloexec(&socket, 3).expect("F_DUPFD_CLOEXEC");
        });
    }

    #[test]
    fn capabilities_can_still_be_given_up() {
        filtered(|| crate::confine::give_up_capabilities().expect("capset"));
    }

    #[test]
    fn internet_sockets_and_threads_are_left() {
        filtered(|| {
            let listener = TcpListener::bind("127.0.0.1:0").expect("TCP");
            UdpSocket::bind("127.0.0.1:0").expect("UDP");
            let at = listener.local_addr().expect("an address");
            let there = std::thread::Builder::new().name("named".into());
            let there = there.spawn(move || std::net::TcpStream::connect(at).is_ok()).expect("a thread");
            listener.accept().expect("a connection");
            assert!(there.join().expect("it ends"));
            let raw =
                rustix::net::socket(rustix::net::AddressFamily::PACKET, rustix::net::SocketType::RAW, None);
            assert_eq!(raw.unwrap_err(), rustix::io::Errno::NOSYS);
            assert!(
                std::os::unix::net::UnixStream::connect("/nowhere").unwrap_err().raw_os_error()
                    == Some(libc::ENOSYS)
            );
        });
    }
}
