//! sock_diag for TCP: requests out, rows in.
//!
//! Rules: `linux-tcp` 10.2; Linux `include/uapi/linux/inet_diag.h`, `net/ipv4/inet_diag.c`.
//! Not here: framing (`netlink`), byte code (`bytecode`), owners (`owner`).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::ops::ControlFlow;
use std::sync::Arc;

use lastack_core::observe::{TimerKind, TimerRow};
use lastack_core::tcp::state::TcpState;
use rustix::net::RecvFlags;

use super::netlink::{self, Attributes, F_ACK, F_DUMP, F_REQUEST, Netlink, u32_at, u64_at};
use super::tcp_info;
use crate::filter::StateSet;
use crate::row::{Row, SkMem};

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const SOCK_DESTROY: u16 = 21;
const REQ_BYTECODE: u16 = 1;

const INFO: u16 = 2;
const CONG: u16 = 4;
const SKMEMINFO: u16 = 7;
const SHUTDOWN: u16 = 8;
const SKV6ONLY: u16 = 11;
const MARK: u16 = 15;
const CGROUP_ID: u16 = 21;

const MESSAGE: usize = 72;
const IPPROTO_TCP: u8 = 6;

/// Which optional parts to ask for. What is not asked for costs nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Detail {
    /// State, addresses, queues, timer: what `ss -tan` shows.
    Brief,
    /// Everything, `tcp_info` and memory included.
    Full,
}

impl Detail {
    /// The request's `idiag_ext`: attribute n is bit n-1. Those above 8 come unasked.
    fn ext(self) -> u8 {
        let bit = |attribute: u16| 1u8 << (attribute - 1);
        match self {
            // SHUTDOWN tells an orphan from a socket that nobody has accepted yet.
            Self::Brief => bit(SHUTDOWN),
            Self::Full => bit(INFO) | bit(CONG) | bit(SKMEMINFO) | bit(SHUTDOWN),
        }
    }
}

/// Names seen in this dump, shared by the rows that have them.
#[derive(Debug, Default)]
pub(super) struct Names(Vec<Arc<str>>);

impl Names {
    fn get(&mut self, bytes: &[u8]) -> Option<Arc<str>> {
        let text = std::str::from_utf8(bytes.split(|byte| *byte == 0).next()?).ok()?;
        if let Some(known) = self.0.iter().find(|known| ***known == *text) {
            return Some(Arc::clone(known));
        }
        let name: Arc<str> = text.into();
        self.0.push(Arc::clone(&name));
        Some(name)
    }
}

/// Dumps one family until `each` breaks off.
pub(super) fn dump(
    netlink: &mut Netlink,
    v6: bool,
    states: StateSet,
    program: &[u8],
    detail: Detail,
    netns: u64,
    each: &mut dyn FnMut(Row) -> ControlFlow<()>,
) -> io::Result<ControlFlow<()>> {
    let mut request = request(family(v6), detail.ext(), states.mask());
    request.extend([0; 48]);
    if !program.is_empty() {
        netlink::push_attribute(&mut request, REQ_BYTECODE, program);
    }
    let sequence = netlink.send(SOCK_DIAG_BY_FAMILY, F_REQUEST | F_DUMP, &request)?;
    let mut names = Names::default();
    let (mut broken_off, mut done) = (false, false);
    while !done && !broken_off {
        for message in netlink.receive(RecvFlags::empty())?.filter(|message| message.sequence == sequence) {
            match message.kind {
                netlink::NLMSG_DONE => done = true,
                netlink::NLMSG_ERROR => netlink::error_of(message.payload)?,
                SOCK_DIAG_BY_FAMILY if !broken_off => {
                    let row = parse(message.payload, netns, detail, &mut names);
                    broken_off = row.is_some_and(|row| each(row).is_break());
                }
                _ => {}
            }
        }
    }
    if !done {
        netlink.break_off(sequence);
    }
    Ok(if broken_off { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
}

/// Requests in one datagram: their answers, up to 2 KiB each with the kernel's own share, must fit into the receive buffer.
const BATCH: usize = 32;

/// Reads sockets again, each found by its addresses and cookie; `None` for one that has gone.
pub(super) fn reread(netlink: &mut Netlink, rows: &[&Row], netns: u64) -> io::Result<Vec<Option<Row>>> {
    let mut names = Names::default();
    let mut fresh = vec![None; rows.len()];
    for (rows, fresh) in rows.chunks(BATCH).zip(fresh.chunks_mut(BATCH)) {
        let requests: Vec<Vec<u8>> = rows
            .iter()
            .map(|row| {
                let v6 = row.socket.local.is_ipv6();
                let mut request = request(family(v6), Detail::Full.ext(), StateSet::ALL.mask());
                push_id(&mut request, row);
                request
            })
            .collect();
        let first = netlink.send_all(SOCK_DIAG_BY_FAMILY, F_REQUEST, &requests)?;
        // Each request has exactly one answer: the socket, or an error.
        let mut answered = 0;
        while answered < rows.len() {
            for message in netlink.receive(RecvFlags::empty())? {
                let place = usize::try_from(message.sequence.wrapping_sub(first)).unwrap_or(usize::MAX);
                let Some(fresh) = fresh.get_mut(place) else { continue };
                answered += 1;
                match message.kind {
                    SOCK_DIAG_BY_FAMILY => {
                        *fresh = parse(message.payload, netns, Detail::Full, &mut names);
                    }
                    netlink::NLMSG_ERROR => match netlink::error_of(message.payload) {
                        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                        _ => {}
                    },
                    _ => {}
                }
            }
        }
    }
    Ok(fresh)
}

/// Ends one socket, named by its addresses and cookie (`SOCK_DESTROY`).
pub(super) fn destroy(netlink: &mut Netlink, row: &Row) -> io::Result<()> {
    // inet_diag looks a listener or connection up by these; the mask of states is not used.
    let v6 = row.socket.local.is_ipv6();
    let mut request = request(family(v6), 0, StateSet::ALL.mask());
    push_id(&mut request, row);
    let sequence = netlink.send(SOCK_DESTROY, F_REQUEST | F_ACK, &request)?;
    loop {
        for message in netlink.receive(RecvFlags::empty())? {
            if message.sequence == sequence && message.kind == netlink::NLMSG_ERROR {
                return netlink::error_of(message.payload);
            }
        }
    }
}

/// `inet_diag_req_v2` without its id.
fn request(family: u8, ext: u8, states: u32) -> Vec<u8> {
    let mut out = vec![family, IPPROTO_TCP, ext, 0];
    out.extend(states.to_ne_bytes());
    out
}

fn push_id(out: &mut Vec<u8>, row: &Row) {
    let socket = &row.socket;
    out.extend(socket.local.port().to_be_bytes());
    out.extend(socket.remote.port().to_be_bytes());
    for address in [socket.local.ip(), socket.remote.ip()] {
        let mut bytes = [0; 16];
        match address {
            IpAddr::V4(address) => bytes[..4].copy_from_slice(&address.octets()),
            IpAddr::V6(address) => bytes = address.octets(),
        }
        out.extend(bytes);
    }
    out.extend(row.interface.to_ne_bytes());
    // The cookie is two 32-bit halves, low one first, each in the host's order.
    out.extend((socket.cookie as u32).to_ne_bytes());
    out.extend(((socket.cookie >> 32) as u32).to_ne_bytes());
}

const fn family(v6: bool) -> u8 {
    if v6 { 10 } else { 2 }
}

/// One `inet_diag_msg` with its attributes; `None` when it is cut short or not TCP over IP.
pub(super) fn parse(payload: &[u8], netns: u64, detail: Detail, names: &mut Names) -> Option<Row> {
    let head: &[u8; MESSAGE] = payload.get(..MESSAGE)?.try_into().ok()?;
    let d = |at: usize| u32_at(head, at).unwrap_or(0);
    let be16 = |at: usize| u16::from_be_bytes([head[at], head[at + 1]]);
    let interface = d(40);
    let address = |at: usize, port: u16| -> Option<SocketAddr> {
        match head[0] {
            2 => {
                let octets: [u8; 4] = head[at..at + 4].try_into().ok()?;
                Some(SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::from(octets), port)))
            }
            10 => {
                let octets: [u8; 16] = head[at..at + 16].try_into().ok()?;
                let ip = Ipv6Addr::from(octets);
                let scope = if ip.is_unicast_link_local() { interface } else { 0 };
                Some(SocketAddr::V6(SocketAddrV6::new(ip, port, 0, scope)))
            }
            _ => None,
        }
    };
    let mut state = TcpState::from_number(head[1])?;
    let timer = match head[2] {
        1 => Some(TimerKind::On),
        2 => Some(TimerKind::Keepalive),
        3 => Some(TimerKind::TimeWait),
        4 => Some(TimerKind::Persist),
        _ => None,
    }
    .map(|kind| TimerRow { kind, expires_ms: d(52), retrans: head[3] });
    let mini = timer.is_some_and(|timer| timer.kind == TimerKind::TimeWait);
    let inode = d(68);
    let mut row = Row::new(state, address(8, be16(4))?, address(24, be16(6))?);
    (row.socket.recv_q, row.socket.send_q) = (d(56), d(60));
    row.socket.timer = timer;
    row.socket.cookie = u64::from(d(44)) | u64::from(d(48)) << 32;
    (row.netns, row.inode, row.interface) = (netns, inode, interface);
    row.uid = (!mini).then(|| d(64));
    for (kind, value) in Attributes::of(&payload[MESSAGE..]) {
        match kind {
            INFO => row.socket.info = Some(Box::new(tcp_info::parse(value))),
            CONG => row.congestion = names.get(value),
            SKMEMINFO => row.memory = Some(memory(value)),
            SHUTDOWN => row.shutdown = value.first().copied(),
            SKV6ONLY => row.v6only = value.first().is_some_and(|flag| *flag != 0),
            MARK => row.mark = u32_at(value, 0),
            CGROUP_ID => row.cgroup = u64_at(value, 0),
            _ => {}
        }
    }
    // A half-open entry has neither tcp_info nor a shutdown mask: it is no full socket (`linux-tcp` 1.1).
    let full = row.shutdown.is_some() || row.socket.info.is_some();
    if state == TcpState::SynRecv && !full {
        state = TcpState::NewSynRecv;
        row.socket.state = state;
        row.uid = None;
    }
    row.socket.orphan = mini
        || (inode == 0
            && row.shutdown == Some(3)
            && matches!(
                state,
                TcpState::FinWait1 | TcpState::FinWait2 | TcpState::Closing | TcpState::LastAck
            ));
    if detail == Detail::Brief {
        row.socket.info = None;
    }
    Some(row)
}

fn memory(bytes: &[u8]) -> SkMem {
    let d = |index: usize| u32_at(bytes, index * 4).unwrap_or(0);
    SkMem {
        rmem_alloc: d(0),
        rcvbuf: d(1),
        wmem_alloc: d(2),
        sndbuf: d(3),
        fwd_alloc: d(4),
        wmem_queued: d(5),
        optmem: d(6),
        backlog: d(7),
        drops: d(8),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(family: u8, state: u8, timer: u8) -> Vec<u8> {
        let mut bytes = vec![0; MESSAGE];
        bytes[..4].copy_from_slice(&[family, state, timer, 5]);
        bytes[4..6].copy_from_slice(&443u16.to_be_bytes());
        bytes[8..12].copy_from_slice(&[10, 0, 0, 1]);
        bytes[44..48].copy_from_slice(&7u32.to_ne_bytes());
        bytes[48..52].copy_from_slice(&1u32.to_ne_bytes());
        bytes[52..56].copy_from_slice(&8100u32.to_ne_bytes());
        bytes
    }

    fn read(bytes: &[u8]) -> Option<Row> {
        parse(bytes, 1, Detail::Full, &mut Names::default())
    }

    #[test]
    fn fields_are_where_the_kernel_puts_them() {
        let row = read(&message(2, 4, 4)).expect("a whole message");
        assert_eq!(row.socket.local.to_string(), "10.0.0.1:443");
        assert_eq!(row.socket.cookie, 7 | 1 << 32);
        let timer = row.socket.timer.expect("persist runs");
        assert_eq!((timer.kind, timer.expires_ms, timer.retrans), (TimerKind::Persist, 8100, 5));
    }

    #[test]
    fn orphan_needs_both_directions_shut_and_nobody_holding_it() {
        let mut bytes = message(2, 4, 4);
        netlink::push_attribute(&mut bytes, SHUTDOWN, &[3]);
        assert!(read(&bytes).expect("whole").socket.orphan);
        bytes[68..72].copy_from_slice(&99u32.to_ne_bytes());
        assert!(!read(&bytes).expect("whole").socket.orphan, "a descriptor holds it");
        let mut waiting = message(2, 1, 0);
        netlink::push_attribute(&mut waiting, SHUTDOWN, &[0]);
        let row = read(&waiting).expect("whole");
        assert!(!row.socket.orphan && row.is_unaccepted());
    }

    #[test]
    fn half_open_is_told_from_a_full_socket() {
        assert_eq!(read(&message(2, 3, 1)).expect("whole").socket.state, TcpState::NewSynRecv);
        let mut full = message(2, 3, 1);
        netlink::push_attribute(&mut full, INFO, &[3; 104]);
        assert_eq!(read(&full).expect("whole").socket.state, TcpState::SynRecv);
    }

    #[test]
    fn short_or_foreign_messages_are_no_rows() {
        let bytes = message(2, 1, 0);
        for length in 0..MESSAGE {
            assert!(read(&bytes[..length]).is_none());
        }
        assert!(read(&message(1, 1, 0)).is_none(), "family unix");
        assert!(read(&message(2, 99, 0)).is_none(), "no such state");
    }
}
