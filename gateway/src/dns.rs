//! The resolver inside: answers permitted names from the host's resolvers, and says of others that there are none.
//!
//! Owns:    [`route`], whose a question is; every lookup's life and its line in the journal; [`Names`].
//! Rules:   a name is judged before anybody is asked, so that a question cannot carry anything out. Questions to any
//!          server are taken while there are rules, whatever `resolv.conf` a program believes in; a rule that names
//!          a server's address stands above this. Questions and answers pass bit for bit (RFC 1035, RFC 6891): a
//!          truncated answer makes the program ask again over TCP (RFC 7766), as it would without us.
//! Not here: connections and flows (`forward`, `udp`); DNS over TLS or HTTPS, which are connections like others.

mod message;
mod names;

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use lastack::{Datagram, TcpStream};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::UdpSocket;
use tokio::time::timeout;

use crate::addresses;
use crate::journal::{Entry, Lookup, LookupEnd};
use crate::owner::Protocol;
use crate::rules::Verdict;
use crate::session::{Limit, Note, Session};
use crate::udp::Flows;
use message::{Answer, Question};
pub use names::Names;

const PORT: u16 = 53;
/// How long one resolver may take before the next is asked; glibc's default is 5 s for all.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long a connection may be silent between questions (RFC 7766 6.2.3: in the order of seconds).
const IDLE: Duration = Duration::from_secs(30);

/// Whose a question is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Route {
    /// The resolver's inside.
    Resolver,
    /// The server's that it was sent to.
    Server,
    /// Nobody's: a rule closes that server.
    Refused,
}

/// Whose a question to `server` is; `None`: it is none.
pub(crate) fn route(session: &Session, server: SocketAddr) -> Option<Route> {
    if server.port() != PORT {
        return None;
    }
    let is_ours = addresses::DNS.contains(&server.ip());
    Some(match session.rules.of_server(server) {
        Some(Verdict::Deny) => Route::Refused,
        Some(Verdict::Allow) if !is_ours => Route::Server,
        None if !is_ours && session.rules.is_empty() => Route::Server,
        Some(Verdict::Allow) | None => Route::Resolver,
    })
}

/// Answers one datagram, beside everything else. More than [`Session::lookups`] at a time are dropped: programs ask again.
pub(crate) fn datagram(session: &Arc<Session>, flows: &Arc<Flows>, asked: Datagram) {
    let Ok(permit) = session.lookups.clone().try_acquire_owned() else {
        return session.limit_bit(Limit::Lookups);
    };
    let (session, flows) = (session.clone(), flows.clone());
    tokio::spawn(async move {
        let client = Client { local: asked.from, server: asked.to, tcp: false };
        let reply = tokio::select! {
            reply = lookup(&session, client, &asked.data) => reply,
            () = session.over() => None,
        };
        if let Some(data) = reply {
            // What the link cannot carry is lost, as on any link.
            let _ = flows
                .any
                .send(&Datagram { from: asked.to, to: asked.from, data, dont_fragment: false })
                .await;
        }
        drop(permit);
    });
}

/// Who asks, whom, and how.
#[derive(Clone, Copy, Debug)]
struct Client {
    local: SocketAddr,
    server: SocketAddr,
    tcp: bool,
}

/// How a connection with questions ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Served {
    /// The program sent its last question, and FIN.
    ByProgram,
    /// The program broke it off.
    Reset,
    /// It was silent for too long.
    Idle,
}

/// Answers the questions of one connection, one after the other, until the program has no more.
pub(crate) async fn connection(session: &Session, stream: &mut TcpStream) -> Served {
    let (Ok(local), Ok(server)) = (stream.peer_addr(), stream.local_addr()) else { return Served::Reset };
    let client = Client { local, server, tcp: true };
    loop {
        let question = match timeout(IDLE, read_message(stream)).await {
            Err(_) => return Served::Idle,
            Ok(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => return Served::ByProgram,
            Ok(Err(_)) => return Served::Reset,
            Ok(Ok(question)) => question,
        };
        // What is no question gets no answer, and ends the connection (RFC 7766 8).
        let Some(reply) = lookup(session, client, &question).await else { return Served::Idle };
        if write_message(stream, &reply).await.is_err() {
            return Served::Reset;
        }
    }
}

/// Judges, asks, learns and writes down. `None`: it was no question.
async fn lookup(session: &Session, client: Client, query: &[u8]) -> Option<Bytes> {
    let question = message::question(query)?;
    let asked = session.net.now();
    let protocol = if client.tcp { Protocol::Tcp } else { Protocol::Udp };
    let owner = session.owner(protocol, client.local, client.server);
    let mut entry = Lookup {
        id: session.number(),
        owner,
        local: client.local,
        server: client.server,
        tcp: client.tcp,
        name: question.name.clone(),
        kind: question.kind.clone(),
        asked,
        took_us: 0,
        how: LookupEnd::Denied,
        rcode: None,
        addresses: Vec::new(),
    };
    let reply = if session.rules.name_verdict(&question.name) == Verdict::Deny {
        message::denied(query).map(Bytes::from)
    } else if let Some((reply, answer)) = ask(session, query, &question, client.tcp).await {
        for address in &answer.addresses {
            session.names.learn(&question.name, *address);
        }
        (entry.how, entry.rcode, entry.addresses) =
            (LookupEnd::Answered, Some(answer.rcode), answer.addresses);
        Some(reply)
    } else {
        entry.how = LookupEnd::Failed;
        message::failed(query).map(Bytes::from)
    };
    entry.took_us = session.net.now().saturating_since(asked).as_micros() as u64;
    session.tell(Note::Ended(Entry::Lookup(entry)));
    reply
}

/// The first good answer of the host's resolvers, asked in order.
async fn ask(session: &Session, query: &[u8], question: &Question, tcp: bool) -> Option<(Bytes, Answer)> {
    for resolver in &session.addresses.resolvers {
        let answer = async {
            if tcp {
                ask_by_tcp(*resolver, query, question).await
            } else {
                ask_by_udp(*resolver, query, question).await
            }
        };
        if let Ok(Ok(answer)) = timeout(PATIENCE, answer).await {
            return Some(answer);
        }
    }
    None
}

async fn ask_by_udp(resolver: SocketAddr, query: &[u8], question: &Question) -> io::Result<(Bytes, Answer)> {
    let any: SocketAddr = if resolver.is_ipv4() {
        (Ipv4Addr::UNSPECIFIED, 0).into()
    } else {
        (Ipv6Addr::UNSPECIFIED, 0).into()
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(resolver).await?;
    let resolver = socket.peer_addr()?;
    socket.send(query).await?;
    let mut buffer = vec![0; 65_535];
    loop {
        let (len, from) = socket.recv_from(&mut buffer).await?;
        // Anything else on this port is somebody's guess: the right one may still come. (Before it was connected, anybody's
        // could.)
        if from == resolver
            && let Some(answer) = message::answer(&buffer[..len], question)
        {
            return Ok((Bytes::copy_from_slice(&buffer[..len]), answer));
        }
    }
}

async fn ask_by_tcp(resolver: SocketAddr, query: &[u8], question: &Question) -> io::Result<(Bytes, Answer)> {
    let mut stream = tokio::net::TcpStream::connect(resolver).await?;
    write_message(&mut stream, query).await?;
    let reply = read_message(&mut stream).await?;
    let answer = message::answer(&reply, question).ok_or(io::ErrorKind::InvalidData)?;
    Ok((reply.into(), answer))
}

/// RFC 1035 4.2.2: two bytes of length, then the message.
async fn read_message(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let mut message = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

async fn write_message(stream: &mut (impl AsyncWrite + Unpin), message: &[u8]) -> io::Result<()> {
    let len = u16::try_from(message.len()).map_err(|_| io::ErrorKind::InvalidData)?;
    stream.write_all(&[&len.to_be_bytes(), message].concat()).await?;
    stream.flush().await
}
