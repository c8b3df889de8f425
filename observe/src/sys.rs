//! The system calls nobody wraps: perf events and the memory they write into.
//!
//! Owns:    the only `unsafe` of this crate.
//! Output:  counts ([`Perf::read_count`]) and whole records ([`Ring::drain`]); nothing here knows what is in them.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::sync::atomic::{AtomicU64, Ordering};

const TYPE_TRACEPOINT: u32 = 2;
/// `PERF_ATTR_SIZE_VER5`: known to every kernel since 4.1, larger than all we set.
const ATTR_SIZE: u32 = 112;
const SAMPLE_TID: u64 = 1 << 1;
const SAMPLE_TIME: u64 = 1 << 2;
const SAMPLE_CALLCHAIN: u64 = 1 << 5;
const SAMPLE_RAW: u64 = 1 << 10;
const FLAG_DISABLED: u64 = 1;
const FLAG_COMM: u64 = 1 << 9;
const FLAG_TASK: u64 = 1 << 13;
const FLAG_WATERMARK: u64 = 1 << 14;
const FLAG_SAMPLE_ID_ALL: u64 = 1 << 18;
const FLAG_EXCLUDE_CALLCHAIN_USER: u64 = 1 << 22;
const FLAG_USE_CLOCKID: u64 = 1 << 25;
const OPEN_CLOEXEC: libc::c_ulong = 8;
const IOC_ENABLE: libc::c_ulong = 0x2400;
const IOC_SET_OUTPUT: libc::c_ulong = 0x2405;
const IOC_SET_FILTER: libc::c_ulong = 0x4008_2406;

/// `struct perf_event_attr` up to version 5, as its 14 words.
#[repr(C, align(8))]
struct Attr([u64; 14]);

/// What a perf event does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mode {
    /// Counts.
    Count,
    /// Writes a record each time.
    Sample {
        /// With the kernel's call stack.
        stacks: bool,
        /// With records of every process's name and every fork, besides.
        names: bool,
    },
}

/// One tracepoint on one processor.
#[derive(Debug)]
pub(crate) struct Perf {
    fd: OwnedFd,
}

impl Perf {
    /// Opens tracepoint `id` on `cpu`, disabled.
    pub(crate) fn open(id: u64, cpu: u32, mode: Mode) -> io::Result<Self> {
        let mut attr = Attr([0; 14]);
        attr.0[0] = u64::from(TYPE_TRACEPOINT) | u64::from(ATTR_SIZE) << 32;
        attr.0[1] = id;
        attr.0[5] = FLAG_DISABLED;
        if let Mode::Sample { stacks, names } = mode {
            attr.0[2] = 1;
            attr.0[3] = SAMPLE_TID | SAMPLE_TIME | SAMPLE_RAW;
            attr.0[5] |= FLAG_WATERMARK | FLAG_USE_CLOCKID;
            if stacks {
                attr.0[3] |= SAMPLE_CALLCHAIN;
                attr.0[5] |= FLAG_EXCLUDE_CALLCHAIN_USER;
            }
            if names {
                attr.0[5] |= FLAG_COMM | FLAG_TASK | FLAG_SAMPLE_ID_ALL;
            }
            // wakeup_watermark, in the low half: a quarter of the ring. clockid 1 is CLOCK_MONOTONIC.
            attr.0[6] = (RING_BYTES / 4) as u64;
            attr.0[11] = 1 << 32;
        }
        // SAFETY: `attr` is a readable structure of the size it names and outlives the call; the other
        // arguments are plain numbers.
        let fd = unsafe {
            libc::syscall(libc::SYS_perf_event_open, &raw const attr, -1i32, cpu, -1i32, OPEN_CLOEXEC)
        };
        let fd = RawFd::try_from(fd).unwrap_or(-1);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just given us this descriptor and nobody else knows it.
        Ok(Self { fd: unsafe { OwnedFd::from_raw_fd(fd) } })
    }

    /// Moves its descriptor to the first free number from `place` on.
    pub(crate) fn moved_to(self, place: i32) -> io::Result<Self> {
        Ok(Self { fd: rustix::io::fcntl_dupfd_cloexec(&self.fd, place)? })
    }

    /// Lets the kernel drop what `filter` (tracefs's filter language) does not choose.
    pub(crate) fn set_filter(&self, filter: &str) -> io::Result<()> {
        let filter = std::ffi::CString::new(filter)?;
        // SAFETY: the pointer is to a nul-terminated string that outlives the call.
        checked(unsafe { libc::ioctl(self.fd.as_raw_fd(), IOC_SET_FILTER, filter.as_ptr()) })
    }

    /// Writes its records into `ring`'s memory; both must be of one processor.
    pub(crate) fn write_into(&self, ring: &Ring) -> io::Result<()> {
        // SAFETY: both descriptors are open; the call takes a number.
        checked(unsafe { libc::ioctl(self.fd.as_raw_fd(), IOC_SET_OUTPUT, ring.perf.fd.as_raw_fd()) })
    }

    /// Begins.
    pub(crate) fn enable(&self) -> io::Result<()> {
        // SAFETY: the descriptor is open; the call takes a number.
        checked(unsafe { libc::ioctl(self.fd.as_raw_fd(), IOC_ENABLE, 0) })
    }

    /// How often it has happened.
    pub(crate) fn read_count(&self) -> io::Result<u64> {
        let mut bytes = [0; 8];
        let length = rustix::io::read(&self.fd, &mut bytes)?;
        if length == 8 { Ok(u64::from_ne_bytes(bytes)) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }
}

fn checked(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Data area of a ring, some 30,000 records; the kernel wants a power of two of pages.
const RING_BYTES: usize = 4 << 20;
/// Offsets of `data_head` and `data_tail` in `struct perf_event_mmap_page`.
const DATA_HEAD: usize = 1024;
const DATA_TAIL: usize = 1032;
/// `struct perf_event_header`.
const HEADER: usize = 8;

/// The memory into which the kernel writes one processor's records.
#[derive(Debug)]
pub(crate) struct Ring {
    perf: Perf,
    memory: *mut u8,
    length: usize,
    page: usize,
    copy: Vec<u8>,
}

// SAFETY: the mapping belongs to this value alone; moving the value to another thread moves the right to it.
unsafe impl Send for Ring {}

impl Ring {
    /// Maps the ring of `perf`, which becomes part of it.
    pub(crate) fn new(perf: Perf) -> io::Result<Self> {
        let page = rustix::param::page_size();
        let length = page + RING_BYTES;
        // SAFETY: a new shared mapping at an address of the kernel's choice touches no memory of ours; the
        // descriptor is open.
        let memory = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                perf.fd.as_raw_fd(),
                0,
            )
        };
        if memory == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { perf, memory: memory.cast(), length, page, copy: Vec::new() })
    }

    /// The descriptor that becomes readable when a quarter of the ring is full.
    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        std::os::fd::AsFd::as_fd(&self.perf.fd)
    }

    /// Begins.
    pub(crate) fn enable(&self) -> io::Result<()> {
        self.perf.enable()
    }

    /// Lets the kernel drop what `filter` does not choose.
    pub(crate) fn set_filter(&self, filter: &str) -> io::Result<()> {
        self.perf.set_filter(filter)
    }

    /// Hands every whole record (type and body) to `each`, and gives their room back to the kernel.
    pub(crate) fn drain(&mut self, each: &mut dyn FnMut(u32, &[u8])) {
        // SAFETY: the first page is `perf_event_mmap_page`; both words are 8-byte aligned, inside the
        // mapping, and shared with the kernel only through atomic accesses.
        let (head, tail) = unsafe {
            (
                &*self.memory.add(DATA_HEAD).cast::<AtomicU64>(),
                &*self.memory.add(DATA_TAIL).cast::<AtomicU64>(),
            )
        };
        // perf_event_open(2): the head is read before the records, the tail is written after them.
        let end = head.load(Ordering::Acquire);
        let mut at = tail.load(Ordering::Relaxed);
        while at < end {
            let mut header = [0; HEADER];
            self.bytes(at, &mut header);
            let size = usize::from(u16::from_ne_bytes([header[6], header[7]]));
            if size < HEADER || at + size as u64 > end {
                // No record of the kernel's: where the next one begins is not known either.
                at = end;
                break;
            }
            let kind = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]);
            let mut body = std::mem::take(&mut self.copy);
            body.resize(size - HEADER, 0);
            self.bytes(at + HEADER as u64, &mut body);
            each(kind, &body);
            self.copy = body;
            at += size as u64;
        }
        tail.store(at, Ordering::Release);
    }

    /// Copies bytes out of the ring, around its end.
    fn bytes(&self, at: u64, into: &mut [u8]) {
        let start = (at % RING_BYTES as u64) as usize;
        let first = into.len().min(RING_BYTES - start);
        let (front, back) = into.split_at_mut(first);
        // SAFETY: the data area is RING_BYTES long behind the first page; `start + first` and
        // `back.len()` are within it (records are at most 64 KiB). The kernel does not write between
        // tail and head, where these bytes are.
        unsafe {
            let data = self.memory.add(self.page);
            std::ptr::copy_nonoverlapping(data.add(start), front.as_mut_ptr(), front.len());
            std::ptr::copy_nonoverlapping(data, back.as_mut_ptr(), back.len());
        }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // SAFETY: this is the mapping made in `new`, unmapped once.
        unsafe { libc::munmap(self.memory.cast(), self.length) };
    }
}

static INTERRUPTED: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(false);

extern "C" fn note_signal(_signal: libc::c_int) {
    INTERRUPTED.store(true, Ordering::Relaxed);
}

/// Lets Ctrl-C and SIGTERM raise a flag instead of ending the process; a second one ends it.
pub(crate) fn catch_interrupts() -> &'static std::sync::atomic::AtomicBool {
    // SAFETY: a zeroed `sigaction` is a valid one (no flags, empty mask); the handler only stores to an
    // atomic, which is allowed in a signal handler.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = note_signal as *const () as usize;
        // SA_RESTART is left out on purpose: waiting calls return, and the loop looks at the flag.
        action.sa_flags = libc::SA_RESETHAND;
        for signal in [libc::SIGINT, libc::SIGTERM] {
            libc::sigaction(signal, &raw const action, std::ptr::null_mut());
        }
    }
    &INTERRUPTED
}
