//! A name server on the host's loopback for tests: answers a few names over UDP and TCP, and remembers who was asked for.
//!
//! The answer to a name that begins with `big.` has 2000 bytes: it is truncated over UDP where the question does not take so many
//! (RFC 6891: an OPT record), so that it must be asked again over TCP.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use simple_dns::rdata::{A, AAAA, OPT, OPTCode, RData, TXT};
use simple_dns::{CLASS, Packet, PacketFlag, Question, RCODE, ResourceRecord, TYPE};

/// What a question without an OPT record takes over UDP (RFC 1035 4.2.1), and what ours with one says it takes.
const WITHOUT_OPT: u16 = 512;
const WITH_OPT: u16 = 4096;
/// A client's cookie (RFC 7873), as an option that nobody on the way has to know.
const COOKIE: (u16, [u8; 8]) = (10, *b"lastack!");

/// The server; its threads end with the process.
#[derive(Debug)]
pub struct Resolver {
    /// Where it listens, UDP and TCP.
    pub address: SocketAddr,
    zone: Arc<Zone>,
}

#[derive(Debug)]
struct Zone {
    names: Vec<(String, IpAddr)>,
    asked: Mutex<Vec<Exchange>>,
}

/// A question and its answer, bit for bit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exchange {
    /// What was asked for.
    pub name: String,
    /// The question's message.
    pub query: Vec<u8>,
    /// The answer's.
    pub reply: Vec<u8>,
}

impl Resolver {
    /// Answers `names` with their addresses, and everything else with NXDOMAIN. A name may be there more than once.
    ///
    /// # Errors
    /// No port can be had.
    pub fn start(names: &[(&str, IpAddr)]) -> io::Result<Self> {
        let names = names.iter().map(|(name, address)| ((*name).to_owned(), *address)).collect();
        let zone = Arc::new(Zone { names, asked: Mutex::default() });
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let socket = UdpSocket::bind(address)?;
        let over_udp = zone.clone();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok((len, from)) = socket.recv_from(&mut buffer) {
                if let Some(reply) = over_udp.answer(&buffer[..len], Transport::Udp) {
                    let _ = socket.send_to(&reply, from);
                }
            }
        });
        let over_tcp = zone.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // A client that goes away in between is no concern of the next.
                let _ = over_tcp.serve(stream);
            }
        });
        Ok(Self { address, zone })
    }

    /// The names it was asked for, in order.
    #[must_use]
    pub fn asked(&self) -> Vec<String> {
        self.exchanges().into_iter().map(|exchange| exchange.name).collect()
    }

    /// What it was asked and what it answered, in order.
    #[must_use]
    pub fn exchanges(&self) -> Vec<Exchange> {
        self.zone.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Zone {
    fn serve(&self, mut stream: TcpStream) -> io::Result<()> {
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        loop {
            let question = read_message(&mut stream)?;
            let Some(reply) = self.answer(&question, Transport::Tcp) else { return Ok(()) };
            write_message(&mut stream, &reply)?;
        }
    }

    fn answer(&self, query: &[u8], over: Transport) -> Option<Vec<u8>> {
        let packet = Packet::parse(query).ok()?;
        let asked = packet.questions.first()?.clone();
        let name = asked.qname.to_string().to_ascii_lowercase();
        let room = match (over, packet.opt()) {
            (Transport::Tcp, _) => usize::from(u16::MAX),
            (Transport::Udp, Some(opt)) => usize::from(opt.udp_packet_size.max(WITHOUT_OPT)),
            (Transport::Udp, None) => usize::from(WITHOUT_OPT),
        };
        let mut reply = Packet::new_reply(packet.id());
        reply.set_flags(PacketFlag::RECURSION_AVAILABLE);
        // RFC 6891 6.1.1: a question with OPT has an answer with OPT.
        *reply.opt_mut() =
            packet.opt().map(|_| OPT { opt_codes: Vec::new(), udp_packet_size: WITH_OPT, version: 0 });
        if !self.names.iter().any(|(known, _)| *known == name) {
            *reply.rcode_mut() = RCODE::NameError;
        }
        let ours = self.names.iter().filter(|(known, _)| *known == name);
        // A name without a record of the type that is asked for is there all the same.
        for (_, address) in ours.filter(|(_, address)| asked.qtype == type_of(*address).into()) {
            let data = match *address {
                IpAddr::V4(address) => RData::A(A { address: address.into() }),
                IpAddr::V6(address) => RData::AAAA(AAAA { address: address.into() }),
            };
            reply.answers.push(ResourceRecord::new(asked.qname.clone(), CLASS::IN, 60, data));
        }
        let filling = "x".repeat(200);
        if name.starts_with("big.") {
            let text = (0..10).try_fold(TXT::new(), |text, _| text.with_string(&filling)).ok()?;
            let record = ResourceRecord::new(asked.qname.clone(), CLASS::IN, 60, RData::TXT(text));
            reply.additional_records.push(record);
        }
        reply.questions.push(asked);
        let mut bytes = reply.build_bytes_vec().ok()?;
        if bytes.len() > room {
            reply.set_flags(PacketFlag::TRUNCATION);
            (reply.answers, reply.additional_records) = (Vec::new(), Vec::new());
            bytes = reply.build_bytes_vec().ok()?;
        }
        let exchange = Exchange { name, query: query.to_vec(), reply: bytes.clone() };
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).push(exchange);
        Some(bytes)
    }
}

/// How a question goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Transport {
    /// As a datagram.
    #[default]
    Udp,
    /// Over a connection of its own.
    Tcp,
}

/// What is asked, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Manner {
    /// How it goes.
    pub over: Transport,
    /// For addresses of IPv6 (AAAA) instead of IPv4 (A).
    pub ipv6: bool,
    /// With an OPT record that takes 4096 bytes, and an option in it.
    pub edns: bool,
}

/// What was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// The response code.
    pub rcode: String,
    /// The addresses.
    pub addresses: Vec<IpAddr>,
    /// Whether it was truncated.
    pub truncated: bool,
    /// The question's message.
    pub query: Vec<u8>,
    /// The answer's.
    pub reply: Vec<u8>,
}

/// Asks `server` for the address of `name`.
///
/// # Errors
/// No answer, or one that is no DNS message.
pub fn ask(server: SocketAddr, name: &str, manner: Manner) -> io::Result<Told> {
    const PATIENCE: Option<Duration> = Some(Duration::from_secs(5));
    let invalid = |_| io::Error::from(io::ErrorKind::InvalidData);
    let mut query = Packet::new_query(4711);
    query.set_flags(PacketFlag::RECURSION_DESIRED);
    let qname = simple_dns::Name::new(name).map_err(invalid)?;
    let kind = if manner.ipv6 { TYPE::AAAA } else { TYPE::A };
    query.questions.push(Question::new(qname, kind.into(), CLASS::IN.into(), false));
    if manner.edns {
        let cookie = OPTCode { code: COOKIE.0, data: COOKIE.1.to_vec().into() };
        *query.opt_mut() = Some(OPT { opt_codes: vec![cookie], udp_packet_size: WITH_OPT, version: 0 });
    }
    let query = query.build_bytes_vec().map_err(invalid)?;
    let reply = match manner.over {
        Transport::Tcp => {
            let mut stream = TcpStream::connect(server)?;
            stream.set_read_timeout(PATIENCE)?;
            write_message(&mut stream, &query)?;
            read_message(&mut stream)?
        }
        Transport::Udp => {
            let any = if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
            let socket = UdpSocket::bind(any)?;
            socket.set_read_timeout(PATIENCE)?;
            socket.connect(server)?;
            socket.send(&query)?;
            let mut buffer = vec![0; 65_535];
            let len = socket.recv(&mut buffer)?;
            buffer.truncate(len);
            buffer
        }
    };
    let packet = Packet::parse(&reply).map_err(invalid)?;
    let addresses = packet.answers.iter().filter_map(|record| match &record.rdata {
        RData::A(a) => Some(IpAddr::V4(a.address.into())),
        RData::AAAA(aaaa) => Some(IpAddr::V6(aaaa.address.into())),
        _ => None,
    });
    let (rcode, addresses) = (format!("{:?}", packet.rcode()), addresses.collect());
    let truncated = packet.has_flags(PacketFlag::TRUNCATION);
    Ok(Told { rcode, addresses, truncated, query, reply })
}

fn type_of(address: IpAddr) -> TYPE {
    if address.is_ipv4() { TYPE::A } else { TYPE::AAAA }
}

fn read_message(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut len = [0; 2];
    stream.read_exact(&mut len)?;
    let mut message = vec![0; usize::from(u16::from_be_bytes(len))];
    stream.read_exact(&mut message)?;
    Ok(message)
}

fn write_message(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let len = u16::try_from(message.len()).map_err(|_| io::ErrorKind::InvalidData)?;
    stream.write_all(&[&len.to_be_bytes(), message].concat())
}
