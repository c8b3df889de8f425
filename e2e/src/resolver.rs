//! A name server on the host's loopback for tests: answers a few names over UDP and TCP, and remembers who was asked for.
//!
//! A name that begins with `big.` is truncated over UDP, so that it must be asked again over TCP.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use simple_dns::rdata::{A, RData};
use simple_dns::{CLASS, Packet, PacketFlag, Question, RCODE, ResourceRecord, TYPE};

/// The server; its threads end with the process.
#[derive(Debug)]
pub struct Resolver {
    /// Where it listens, UDP and TCP.
    pub address: SocketAddr,
    zone: Arc<Zone>,
}

#[derive(Debug)]
struct Zone {
    names: HashMap<String, Ipv4Addr>,
    asked: Mutex<Vec<String>>,
}

impl Resolver {
    /// Answers `names` with their addresses, and everything else with NXDOMAIN.
    ///
    /// # Errors
    /// No port can be had.
    pub fn start(names: &[(&str, Ipv4Addr)]) -> io::Result<Self> {
        let names = names.iter().map(|(name, address)| ((*name).to_owned(), *address)).collect();
        let zone = Arc::new(Zone { names, asked: Mutex::default() });
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let socket = UdpSocket::bind(address)?;
        let over_udp = zone.clone();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok((len, from)) = socket.recv_from(&mut buffer) {
                if let Some(reply) = over_udp.answer(&buffer[..len], false) {
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
        self.zone.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Zone {
    fn serve(&self, mut stream: TcpStream) -> io::Result<()> {
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        loop {
            let question = read_message(&mut stream)?;
            let Some(reply) = self.answer(&question, true) else { return Ok(()) };
            write_message(&mut stream, &reply)?;
        }
    }

    fn answer(&self, question: &[u8], tcp: bool) -> Option<Vec<u8>> {
        let packet = Packet::parse(question).ok()?;
        let asked = packet.questions.first()?.clone();
        let name = asked.qname.to_string().to_ascii_lowercase();
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).push(name.clone());
        let mut reply = Packet::new_reply(packet.id());
        reply.set_flags(PacketFlag::RECURSION_AVAILABLE);
        match self.names.get(&name) {
            None => *reply.rcode_mut() = RCODE::NameError,
            Some(_) if name.starts_with("big.") && !tcp => reply.set_flags(PacketFlag::TRUNCATION),
            Some(address) if asked.qtype == TYPE::A.into() => {
                let data = RData::A(A { address: (*address).into() });
                reply.answers.push(ResourceRecord::new(asked.qname.clone(), CLASS::IN, 60, data));
            }
            // The name is there, without a record of this type.
            Some(_) => {}
        }
        reply.questions.push(asked);
        reply.build_bytes_vec().ok()
    }
}

/// Asks `server` for the address of `name`; gives the response code, the addresses, and whether it was truncated.
///
/// # Errors
/// No answer, or one that is no DNS message.
pub fn ask(server: SocketAddr, name: &str, tcp: bool) -> io::Result<(String, Vec<Ipv4Addr>, bool)> {
    const PATIENCE: Option<Duration> = Some(Duration::from_secs(5));
    let invalid = |_| io::Error::from(io::ErrorKind::InvalidData);
    let mut query = Packet::new_query(4711);
    query.set_flags(PacketFlag::RECURSION_DESIRED);
    let qname = simple_dns::Name::new(name).map_err(invalid)?;
    query.questions.push(Question::new(qname, TYPE::A.into(), CLASS::IN.into(), false));
    let query = query.build_bytes_vec().map_err(invalid)?;
    let reply = if tcp {
        let mut stream = TcpStream::connect(server)?;
        stream.set_read_timeout(PATIENCE)?;
        write_message(&mut stream, &query)?;
        read_message(&mut stream)?
    } else {
        let any = if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = UdpSocket::bind(any)?;
        socket.set_read_timeout(PATIENCE)?;
        socket.connect(server)?;
        socket.send(&query)?;
        let mut buffer = vec![0; 4096];
        let len = socket.recv(&mut buffer)?;
        buffer.truncate(len);
        buffer
    };
    let packet = Packet::parse(&reply).map_err(invalid)?;
    let addresses = packet.answers.iter().filter_map(|record| match &record.rdata {
        RData::A(a) => Some(a.address.into()),
        _ => None,
    });
    let rcode = format!("{:?}", packet.rcode());
    Ok((rcode, addresses.collect(), packet.has_flags(PacketFlag::TRUNCATION)))
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
