//! Drives the library through its C table, as packetdrill does: one thread of events, one of calls that block,
//! time only through `usleep` and `gettimeofday`.
#![allow(unsafe_code, reason = "the tool's side of a C interface")]

use std::ffi::CString;
use std::mem::{MaybeUninit, size_of};
use std::os::raw::c_void;
use std::time::Duration;

use lastack_lab::packet::{IpHeader, TCP, TcpFlags, TcpOption, TcpPacket, WirePacket};
use lastack_packetdrill::{Interface, packetdrill_interface_init};

struct Tool {
    table: Interface,
}

// SAFETY: the tool shares the table between its threads; the host behind it is locked.
unsafe impl Sync for Tool {}
// SAFETY: as above.
unsafe impl Send for Tool {}

impl Tool {
    fn new(flags: &str) -> Self {
        let path =
            std::env::temp_dir().join(format!("lastack-so-flags-{}-{}", std::process::id(), flags.len()));
        std::fs::write(&path, flags).expect("a flags file");
        let text = CString::new(path.to_str().expect("a printable path")).expect("no NUL");
        let mut table = MaybeUninit::uninit();
        // SAFETY: a C string and room for the table.
        let table = unsafe {
            packetdrill_interface_init(text.as_ptr(), table.as_mut_ptr());
            table.assume_init()
        };
        Self { table }
    }

    fn now_us(&self) -> i64 {
        let mut time = libc::timeval { tv_sec: 0, tv_usec: 0 };
        // SAFETY: room for a timeval; the zone is ignored.
        unsafe { (self.table.gettimeofday)(self.table.userdata, &raw mut time, std::ptr::null_mut()) };
        time.tv_sec * 1_000_000 + time.tv_usec
    }

    fn sleep(&self, time: Duration) {
        // SAFETY: no memory is involved.
        unsafe { (self.table.usleep)(self.table.userdata, time.as_micros() as u32) };
    }

    fn send(&self, packet: &TcpPacket) {
        let bytes = packet.compose();
        // SAFETY: the slice's pointer and length.
        unsafe { (self.table.netdev_send)(self.table.userdata, bytes.as_ptr().cast(), bytes.len()) };
    }

    /// The next packet and when it left, microseconds.
    fn receive(&self) -> Option<(i64, TcpPacket)> {
        let mut buffer = vec![0u8; 65_536];
        let (mut len, mut time) = (buffer.len(), 0i64);
        // SAFETY: the buffer's pointer and length.
        let result = unsafe {
            let buffer = buffer.as_mut_ptr().cast();
            (self.table.netdev_receive)(self.table.userdata, buffer, &raw mut len, &raw mut time)
        };
        assert_eq!(result, 0);
        match WirePacket::parse(&buffer[..len]) {
            Ok(WirePacket::Tcp(packet)) => Some((time, packet)),
            _ => None,
        }
    }

    fn socket(&self) -> i32 {
        // SAFETY: no memory is involved.
        unsafe {
            (self.table.socket)(self.table.userdata, libc::AF_INET, libc::SOCK_STREAM, libc::IPPROTO_TCP)
        }
    }

    fn listener(&self) -> i32 {
        let fd = self.socket();
        let address = libc::sockaddr_in {
            sin_family: libc::AF_INET as u16,
            sin_port: 8080u16.to_be(),
            sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes([192, 168, 0, 1]) },
            sin_zero: [0; 8],
        };
        // SAFETY: a complete sockaddr_in and its size.
        unsafe {
            let len = size_of::<libc::sockaddr_in>() as u32;
            assert_eq!((self.table.bind)(self.table.userdata, fd, (&raw const address).cast(), len), 0);
            assert_eq!((self.table.listen)(self.table.userdata, fd, 1), 0);
        }
        fd
    }

    /// A connection made by a scripted peer; gives its descriptor and the host's ISN.
    fn accepted(&self) -> (i32, u32) {
        self.accepted_by(self.listener())
    }

    fn accepted_by(&self, listener: i32) -> (i32, u32) {
        self.send(&segment(TcpFlags::SYN, 0, 0, 0));
        let (_, syn_ack) = self.receive().expect("a SYN-ACK");
        assert_eq!(syn_ack.flags, TcpFlags::SYN | TcpFlags::ACK);
        self.send(&segment(TcpFlags::ACK, 1, syn_ack.seq + 1, 0));
        // SAFETY: nobody's address is asked for.
        let fd = unsafe {
            (self.table.accept)(self.table.userdata, listener, std::ptr::null_mut(), std::ptr::null_mut())
        };
        assert!(fd >= 0);
        (fd, syn_ack.seq)
    }

    fn read(&self, fd: i32) -> isize {
        let mut buffer = [1u8; 100];
        // SAFETY: the buffer's pointer and length.
        let got =
            unsafe { (self.table.read)(self.table.userdata, fd, buffer.as_mut_ptr().cast(), buffer.len()) };
        if got > 0 {
            assert!(buffer[..got as usize].iter().all(|byte| *byte == 0), "payload is zeros");
        }
        got
    }

    fn close(&self, fd: i32) -> i32 {
        // SAFETY: no memory is involved.
        unsafe { (self.table.close)(self.table.userdata, fd) }
    }

    /// `SO_LINGER`, on.
    fn linger(&self, fd: i32, seconds: i32) {
        let value = libc::linger { l_onoff: 1, l_linger: seconds };
        let len = size_of::<libc::linger>() as u32;
        // SAFETY: a complete struct linger and its size.
        let set = unsafe {
            let value = (&raw const value).cast();
            (self.table.setsockopt)(self.table.userdata, fd, libc::SOL_SOCKET, libc::SO_LINGER, value, len)
        };
        assert_eq!(set, 0);
    }

    /// `TCP_INFO`: all of it is written, or -1.
    fn info(&self, fd: i32) -> i32 {
        let (result, info, length) = self.option(fd, libc::TCP_INFO, 280);
        assert!(result < 0 || (length, info.len()) == (280, 280));
        result
    }

    /// What `getsockopt` gives and writes to `room` bytes, and to the length.
    fn option(&self, fd: i32, name: i32, room: usize) -> (i32, Vec<u8>, i32) {
        let (mut length, mut value) = (room as u32, vec![0u8; room.max(1)]);
        // SAFETY: as much room as is said.
        let result = unsafe {
            let (level, value) = (libc::IPPROTO_TCP, value.as_mut_ptr().cast());
            (self.table.getsockopt)(self.table.userdata, fd, level, name, value, &raw mut length)
        };
        value.truncate(room.min(length as usize));
        (result, value, length.cast_signed())
    }
}

fn errno() -> i32 {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

fn segment(flags: TcpFlags, seq: u32, ack: u32, len: u32) -> TcpPacket {
    let ip = IpHeader::new("192.0.2.1".parse().unwrap(), "192.168.0.1".parse().unwrap(), TCP);
    let options = if flags.syn() { vec![TcpOption::Mss(1460)] } else { Vec::new() };
    TcpPacket { ip, src_port: 40_000, dst_port: 8080, flags, seq, ack, win: 65_535, urg: 0, options, len }
}

#[test]
fn the_table_has_33_words() {
    assert_eq!(size_of::<Interface>(), 33 * size_of::<*const c_void>());
}

#[test]
fn virtual_time_passes_without_real_time() {
    let tool = Tool::new("net.ipv4.tcp_synack_retries=1");
    let (begun, real) = (tool.now_us(), tool.now_us());
    assert!(real > begun, "each reading moves the clock");
    tool.listener();
    tool.send(&segment(TcpFlags::SYN, 0, 0, 0));
    let (first, _) = tool.receive().expect("a SYN-ACK");
    let (second, _) = tool.receive().expect("the same again: the clock ran to it");
    assert_eq!(second - first, 1_000_000);
    assert!(tool.receive().is_none(), "tcp_synack_retries=1 from the flags file; then no timer is left");
    tool.sleep(Duration::from_secs(3000));
    assert!(tool.now_us() - begun > 3_000_000_000);
}

#[test]
fn a_blocked_read_returns_at_the_moment_of_the_packet() {
    let tool = Tool::new("");
    let (fd, isn) = tool.accepted();
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let got = tool.read(fd);
            (got, tool.now_us())
        });
        // As the tool does: the event loop goes on once the reader sleeps.
        while !reader.is_finished() && !sleeps() {
            std::thread::yield_now();
        }
        let begun = tool.now_us();
        tool.sleep(Duration::from_millis(250));
        tool.send(&segment(TcpFlags::PSH | TcpFlags::ACK, 1, isn + 1, 10));
        let sent = tool.now_us();
        tool.sleep(Duration::from_secs(5));
        let (got, at) = reader.join().expect("the reader ends");
        assert_eq!(got, 10);
        assert!(at >= begun + 250_000 && at <= sent + 10, "stamped {at}, sent at {sent}");
    });
}

/// Linux frees the number first, then `__tcp_close()` waits.
#[test]
fn a_lingering_close_frees_its_descriptor_at_once() {
    let tool = Tool::new("");
    let (fd, isn) = tool.accepted();
    tool.linger(fd, 5);
    std::thread::scope(|scope| {
        let closer = scope.spawn(|| (tool.close(fd), tool.now_us()));
        let fin = loop {
            // The closer has not come so far while nothing leaves.
            match tool.receive() {
                Some((_, packet)) => break packet,
                None => std::thread::yield_now(),
            }
        };
        assert_eq!((fin.flags, fin.seq), (TcpFlags::FIN | TcpFlags::ACK, isn + 1));
        assert_eq!((tool.read(fd), errno()), (-1, libc::EBADF));
        assert_eq!((tool.info(fd), errno()), (-1, libc::EBADF));
        assert_eq!((tool.close(fd), errno()), (-1, libc::EBADF));
        let begun = tool.now_us();
        tool.sleep(Duration::from_millis(100));
        tool.send(&segment(TcpFlags::ACK, 1, isn + 2, 0));
        tool.sleep(Duration::from_secs(10));
        let (closed, at) = closer.join().expect("the closer ends");
        assert_eq!(closed, 0);
        assert!(at >= begun + 100_000 && at < begun + 200_000, "at {at}, begun at {begun}");
    });
}

/// As packetdrill makes a call that it does not expect to block.
#[test]
fn a_close_on_the_event_loop_lingers_in_virtual_time() {
    let tool = Tool::new("");
    let (fd, _) = tool.accepted();
    tool.linger(fd, 2);
    let begun = tool.now_us();
    assert_eq!(tool.close(fd), 0);
    let took = tool.now_us() - begun;
    assert!((2_000_000..2_100_000).contains(&took), "{took} us");
}

/// Linux: whole or not at all; how long it is stands in the length.
#[test]
fn a_saved_syn_says_how_much_room_it_needs() {
    let tool = Tool::new("");
    let listener = tool.listener();
    let on = 1i32;
    // SAFETY: an int and its size.
    let set = unsafe {
        let (level, name) = (libc::IPPROTO_TCP, libc::TCP_SAVE_SYN);
        (tool.table.setsockopt)(tool.table.userdata, listener, level, name, (&raw const on).cast(), 4)
    };
    assert_eq!(set, 0);
    let syn = segment(TcpFlags::SYN, 0, 0, 0);
    let fd = tool.accepted_by(listener).0;
    let (result, _, length) = tool.option(fd, libc::TCP_SAVED_SYN, 43);
    assert_eq!((result, errno(), length), (-1, libc::EINVAL, 44));
    assert_eq!(tool.option(fd, libc::TCP_SAVED_SYN, 100), (0, syn.compose(), 44));
    assert_eq!(tool.option(fd, libc::TCP_SAVED_SYN, 100), (0, Vec::new(), 0));
}

/// Another thread of this process is in a futex: the reader waits.
fn sleeps() -> bool {
    let tasks = std::fs::read_dir("/proc/self/task").expect("this process's threads");
    let mut waiting = 0;
    for task in tasks.flatten() {
        let call = std::fs::read_to_string(task.path().join("syscall")).unwrap_or_default();
        waiting += usize::from(call.starts_with(&libc::SYS_futex.to_string()));
    }
    waiting >= 2
}

#[test]
fn errors_arrive_in_errno_and_descriptors_are_real() {
    let tool = Tool::new("");
    let (fd, isn) = tool.accepted();
    tool.send(&segment(TcpFlags::RST, 1, 0, 0));
    assert_eq!(tool.read(fd), -1);
    assert_eq!(std::io::Error::last_os_error().raw_os_error(), Some(libc::ECONNRESET));
    // The tool closes what the script left open with the real close(): there must be something to close.
    // SAFETY: the placeholder descriptor of a socket nobody uses any more.
    assert_eq!(unsafe { libc::close(fd) }, 0);
    assert_eq!(tool.info(tool.socket()), 0);
    assert_ne!(isn, 0);
}

#[test]
fn bytes_go_through_a_pipe_from_a_socket_and_back() {
    let tool = Tool::new("");
    let (fd, isn) = tool.accepted();
    let mut ends = [-1; 2];
    let data = tool.table.userdata;
    // The tool has no null for a script's NULL: it points to 0.
    let splice = |from, to| {
        let (mut no, mut none) = (0, 0);
        // SAFETY: both offsets outlive the call.
        unsafe { (tool.table.splice)(data, from, &raw mut no, to, &raw mut none, 1000, 0) }
    };
    // SAFETY: room for two.
    assert_eq!(unsafe { (tool.table.pipe)(data, ends.as_mut_ptr()) }, 0);
    let [read, write] = ends;
    tool.send(&segment(TcpFlags::ACK, 1, isn + 1, 300));
    assert_eq!(splice(fd, write), 300);
    assert_eq!(splice(read, fd), 300);
    let echo = std::iter::from_fn(|| tool.receive()).map(|(_, packet)| packet.len).find(|len| *len > 0);
    assert_eq!(echo, Some(300));
    // SAFETY: no memory is involved.
    unsafe {
        assert_eq!((tool.table.close)(data, write), 0);
        assert_eq!(splice(read, fd), 0, "empty, and nobody writes");
        assert_eq!((tool.table.close)(data, read), 0);
    }
    assert_eq!(splice(read, fd), -1);
    assert_eq!(std::io::Error::last_os_error().raw_os_error(), Some(libc::EBADF));
}

/// The kernel writes nothing into the header of a call that fails; the tool compares it all the same.
#[test]
fn failed_recvmsg_leaves_its_header_alone() {
    let tool = Tool::new("");
    let (fd, _) = tool.accepted();
    // SAFETY: all fields may be zero.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    let mut control = [7u8; 24];
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = control.len();
    message.msg_namelen = 16;
    message.msg_flags = libc::MSG_ERRQUEUE;
    // SAFETY: the header and what it points to outlive the call.
    let result =
        unsafe { (tool.table.recvmsg)(tool.table.userdata, fd, &raw mut message, libc::MSG_ERRQUEUE) };
    assert_eq!(result, -1);
    assert_eq!(std::io::Error::last_os_error().raw_os_error(), Some(libc::EAGAIN));
    assert_eq!((message.msg_flags, message.msg_namelen), (libc::MSG_ERRQUEUE, 16));
    assert_eq!((message.msg_controllen, control), (24, [7; 24]));
}
