//! The yardstick: what a forwarder would reach whose TCP costs nothing. **Not a TCP**: it keeps no segment, repeats none, orders none,
//! has no timer and no checksum over payload; it only moves bytes between a TUN and host loopback sockets.
//!
//! ```text
//! yardstick NAME MTU      # opens TUN interface NAME here; move it to the program's namespace; 10.0.2.2 is then this host's loopback
//! ```
//! One thread, one TUN queue, virtio header and segmentation offload as `lastack run` has them, so the difference between the two
//! is the price of TCP. Only its bulk figures mean something.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, IoSlice, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};

const VNET: usize = 10;
const IP: usize = 20;
const TCP: usize = 20;
const HEAD: usize = VNET + IP + TCP;
/// Window scale we announce: 65535 << 10 is 64 MiB, more than the program's kernel ever has in flight.
const OUR_SCALE: u8 = 10;
const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;
const NEEDS_CSUM: u8 = 1;
const GSO_TCPV4: u8 = 1;

/// One connection: four sequence numbers and a host socket.
struct Flow {
    host: TcpStream,
    program: (Ipv4Addr, u16),
    remote: (Ipv4Addr, u16),
    rcv_nxt: u32,
    snd_nxt: u32,
    snd_una: u32,
    snd_wnd: u32,
    snd_scale: u8,
    program_done: bool,
    host_done: bool,
}

/// What of a packet from the program matters here.
struct Segment<'a> {
    source: (Ipv4Addr, u16),
    destination: (Ipv4Addr, u16),
    seq: u32,
    ack: u32,
    flags: u8,
    window: u16,
    scale: u8,
    payload: &'a [u8],
}

fn main() -> io::Result<()> {
    let mut args = std::env::args().skip(1);
    let (Some(name), Some(mtu)) = (args.next(), args.next().and_then(|mtu| mtu.parse::<u16>().ok())) else {
        eprintln!("error: yardstick takes the interface's name and its MTU\ntry: yardstick yard0 1500");
        std::process::exit(2);
    };
    let mut yardstick =
        Yardstick { tun: lastack_bench::tun::open(&name)?, mss: mtu - 40, flows: HashMap::new() };
    println!("ready");
    yardstick.serve()
}

struct Yardstick {
    tun: File,
    mss: u16,
    /// By the program's port and the remote's.
    flows: HashMap<(u16, u16), Flow>,
}

impl Yardstick {
    fn serve(&mut self) -> io::Result<()> {
        let mut packet = vec![0u8; VNET + 65_536];
        let mut chunk = vec![0u8; 65_536];
        loop {
            let keys: Vec<(u16, u16)> = self.flows.keys().copied().collect();
            let (from_tun, readable) = self.wait(&keys)?;
            if from_tun {
                let n = self.tun.read(&mut packet)?;
                if let Some(segment) = parse(&packet[VNET..n]) {
                    self.take_from_program(&segment)?;
                }
            }
            for key in readable {
                self.take_from_host(key, &mut chunk)?;
            }
        }
    }

    /// Waits for the TUN, or for a host socket whose flow has room in the program's window.
    fn wait(&self, keys: &[(u16, u16)]) -> io::Result<(bool, Vec<(u16, u16)>)> {
        let open: Vec<(u16, u16)> = keys
            .iter()
            .copied()
            .filter(|key| self.flows.get(key).is_some_and(|flow| flow.room() > 0))
            .collect();
        let mut fds = vec![PollFd::new(&self.tun, PollFlags::IN)];
        fds.extend(open.iter().filter_map(|key| {
            Some(PollFd::from_borrowed_fd(self.flows.get(key)?.host.as_fd(), PollFlags::IN))
        }));
        poll(&mut fds, None)?;
        let ready = |fd: &PollFd<'_>| !fd.revents().is_empty();
        let readable = open.iter().zip(&fds[1..]).filter(|(_, fd)| ready(fd)).map(|(key, _)| *key).collect();
        Ok((ready(&fds[0]), readable))
    }

    fn take_from_program(&mut self, segment: &Segment<'_>) -> io::Result<()> {
        let key = (segment.source.1, segment.destination.1);
        if segment.flags & SYN != 0 {
            return self.open(key, segment);
        }
        let Some(flow) = self.flows.get_mut(&key) else { return Ok(()) };
        if segment.flags & RST != 0 {
            self.flows.remove(&key);
            return Ok(());
        }
        flow.snd_una = segment.ack;
        flow.snd_wnd = u32::from(segment.window) << flow.snd_scale;
        if segment.seq != flow.rcv_nxt {
            // Out of order cannot be mended here; the kernel repeats what is missing.
            if !segment.payload.is_empty() {
                emit(&self.tun, flow, ACK, &[], self.mss)?;
            }
            return Ok(());
        }
        if !segment.payload.is_empty() {
            // Blocking: a full host socket stops the TUN, which stops the program.
            if flow.host.write_all(segment.payload).is_err() {
                self.flows.remove(&key);
                return Ok(());
            }
            flow.rcv_nxt =
                flow.rcv_nxt.wrapping_add(u32::try_from(segment.payload.len()).expect("at most 64 KiB"));
        }
        let fin = segment.flags & FIN != 0;
        if fin {
            flow.rcv_nxt = flow.rcv_nxt.wrapping_add(1);
            flow.program_done = true;
            let _ = flow.host.shutdown(Shutdown::Write);
        }
        if fin || !segment.payload.is_empty() {
            emit(&self.tun, flow, ACK, &[], self.mss)?;
        }
        self.forget_if_done(key);
        Ok(())
    }

    fn open(&mut self, key: (u16, u16), segment: &Segment<'_>) -> io::Result<()> {
        let host = SocketAddr::from((Ipv4Addr::LOCALHOST, segment.destination.1));
        let Ok(host) = TcpStream::connect_timeout(&host, Duration::from_secs(1)) else { return Ok(()) };
        let _ = host.set_nodelay(true);
        let flow = Flow {
            host,
            program: segment.source,
            remote: segment.destination,
            rcv_nxt: segment.seq.wrapping_add(1),
            snd_nxt: 1,
            snd_una: 1,
            snd_wnd: u32::from(segment.window),
            snd_scale: segment.scale,
            program_done: false,
            host_done: false,
        };
        emit(&self.tun, &flow, SYN | ACK, &[], self.mss)?;
        self.flows.insert(key, Flow { snd_nxt: 2, snd_una: 2, ..flow });
        Ok(())
    }

    fn take_from_host(&mut self, key: (u16, u16), chunk: &mut [u8]) -> io::Result<()> {
        let Some(flow) = self.flows.get_mut(&key) else { return Ok(()) };
        // A whole number of segments: 64 KiB of payload and headers at most.
        let most = (65_535 - IP - TCP) / usize::from(self.mss) * usize::from(self.mss);
        let room = most.min(usize::try_from(flow.room()).unwrap_or(most));
        match flow.host.read(&mut chunk[..room]) {
            Ok(0) | Err(_) => {
                emit(&self.tun, flow, FIN | ACK, &[], self.mss)?;
                flow.snd_nxt = flow.snd_nxt.wrapping_add(1);
                flow.host_done = true;
            }
            Ok(n) => {
                emit(&self.tun, flow, ACK, &chunk[..n], self.mss)?;
                flow.snd_nxt = flow.snd_nxt.wrapping_add(u32::try_from(n).expect("at most 64 KiB"));
            }
        }
        self.forget_if_done(key);
        Ok(())
    }

    fn forget_if_done(&mut self, key: (u16, u16)) {
        let done = |flow: &Flow| flow.program_done && flow.host_done && flow.snd_una == flow.snd_nxt;
        if self.flows.get(&key).is_some_and(done) {
            self.flows.remove(&key);
        }
    }
}

impl Flow {
    /// Bytes the program's window still takes; 0 once the host has ended.
    fn room(&self) -> u32 {
        if self.host_done { 0 } else { self.snd_wnd.saturating_sub(self.snd_nxt.wrapping_sub(self.snd_una)) }
    }
}

fn parse(packet: &[u8]) -> Option<Segment<'_>> {
    let header = usize::from(packet.first()? & 0x0f) * 4;
    if packet[0] >> 4 != 4 || packet.len() < header + TCP || packet[9] != 6 {
        return None;
    }
    let total = usize::from(u16::from_be_bytes([packet[2], packet[3]])).min(packet.len());
    let tcp = packet.get(header..total)?;
    let u16_at = |at: usize| u16::from_be_bytes([tcp[at], tcp[at + 1]]);
    let u32_at = |at: usize| u32::from_be_bytes([tcp[at], tcp[at + 1], tcp[at + 2], tcp[at + 3]]);
    let address = |at: usize| Ipv4Addr::new(packet[at], packet[at + 1], packet[at + 2], packet[at + 3]);
    let offset = usize::from(tcp[12] >> 4) * 4;
    let options = tcp.get(TCP..offset)?;
    Some(Segment {
        source: (address(12), u16_at(0)),
        destination: (address(16), u16_at(2)),
        seq: u32_at(4),
        ack: u32_at(8),
        flags: tcp[13],
        window: u16_at(14),
        scale: window_scale(options),
        payload: &tcp[offset..],
    })
}

/// The window-scale option of a SYN; 0 without.
fn window_scale(options: &[u8]) -> u8 {
    let mut rest = options;
    while let [kind, tail @ ..] = rest {
        match (kind, tail) {
            (0, _) => break,
            (1, _) => rest = tail,
            (3, [3, shift, ..]) => return (*shift).min(14),
            (_, [length, ..]) if *length >= 2 => rest = rest.get(usize::from(*length)..).unwrap_or(&[]),
            _ => break,
        }
    }
    0
}

/// Writes one packet, up to 64 KiB, to the program's kernel, which cuts it and fills in the checksum as hardware would.
fn emit(tun: &File, flow: &Flow, flags: u8, payload: &[u8], mss: u16) -> io::Result<()> {
    let syn = flags & SYN != 0;
    let scale_option = if syn { OUR_SCALE } else { 0 };
    let options = [2, 4, (mss >> 8) as u8, mss as u8, 3, 3, scale_option, 1];
    let options = if syn { &options[..] } else { &[] };
    let tcp_length = TCP + options.len() + payload.len();
    let length = u16::try_from(IP + tcp_length).expect("at most 64 KiB");
    let mut head = [0u8; HEAD];
    head[0] = NEEDS_CSUM;
    if payload.len() > usize::from(mss) {
        head[1] = GSO_TCPV4;
        head[4..6].copy_from_slice(&mss.to_ne_bytes());
    }
    head[2..4].copy_from_slice(&((IP + TCP + options.len()) as u16).to_ne_bytes());
    head[6..8].copy_from_slice(&(IP as u16).to_ne_bytes());
    head[8..10].copy_from_slice(&16u16.to_ne_bytes());
    let ip = &mut head[VNET..VNET + IP];
    ip[0] = 0x45;
    ip[2..4].copy_from_slice(&length.to_be_bytes());
    ip[6] = 0x40;
    ip[8] = 64;
    ip[9] = 6;
    ip[12..16].copy_from_slice(&flow.remote.0.octets());
    ip[16..20].copy_from_slice(&flow.program.0.octets());
    let checksum = !fold(sum(ip));
    ip[10..12].copy_from_slice(&checksum.to_be_bytes());
    let pseudo = fold(sum(&ip[12..20]) + 6 + tcp_length as u32);
    let tcp = &mut head[VNET + IP..];
    tcp[0..2].copy_from_slice(&flow.remote.1.to_be_bytes());
    tcp[2..4].copy_from_slice(&flow.program.1.to_be_bytes());
    tcp[4..8].copy_from_slice(&flow.snd_nxt.to_be_bytes());
    tcp[8..12].copy_from_slice(&flow.rcv_nxt.to_be_bytes());
    tcp[12] = (((TCP + options.len()) / 4) << 4) as u8;
    tcp[13] = flags;
    tcp[14..16].copy_from_slice(&u16::MAX.to_be_bytes());
    tcp[16..18].copy_from_slice(&pseudo.to_be_bytes());
    let mut tun = tun;
    // One call is one packet: a TUN takes all of it or refuses.
    tun.write_vectored(&[IoSlice::new(&head), IoSlice::new(options), IoSlice::new(payload)]).map(drop)
}

fn sum(bytes: &[u8]) -> u32 {
    bytes.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum()
}

fn fold(sum: u32) -> u16 {
    let once = (sum >> 16) + (sum & 0xffff);
    ((once >> 16) + (once & 0xffff)) as u16
}
