//! The five connections of the demonstration: their servers on this host, and the client that makes them.
//!
//! Owns:    [`Servers`], [`play`], and the client as a process of its own ([`enter_if_asked`]).
//! Rules:   every wait has an end: a scene that goes wrong takes five seconds, not for ever.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use lastack::Net;
use lastack::blocking;

const CLIENT: &str = "__demo-client";
/// The longest wait of any scene.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long the reader that never reads does not read.
const NOT_READING: Duration = Duration::from_millis(1200);
/// What the server of that scene would send: more than any buffer between it and the reader holds.
const TOO_MUCH: usize = 64 << 20;

/// Ports of the scenes' servers, in the scenes' order.
pub(crate) type Ports = [u16; 5];

/// Servers on this host's loopback, a thread each, until dropped.
#[derive(Debug)]
pub(crate) struct Servers {
    pub(crate) ports: Ports,
}

impl Servers {
    /// Starts them.
    pub(crate) fn start() -> io::Result<Self> {
        let refused = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let ports =
            [serve(echo)?, serve(answer_at_end)?, refused, serve(close_with_unread)?, serve(send_too_much)?];
        Ok(Self { ports })
    }
}

/// One connection is served, in a thread that ends with it.
fn serve(scene: fn(TcpStream) -> io::Result<()>) -> io::Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let port = listener.local_addr()?.port();
    std::thread::Builder::new().name("demo-server".into()).spawn(move || {
        let (stream, _) = listener.accept()?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        scene(stream)
    })?;
    Ok(port)
}

fn echo(mut stream: TcpStream) -> io::Result<()> {
    let mut buffer = [0; 1024];
    loop {
        match stream.read(&mut buffer)? {
            0 => return Ok(()),
            len => stream.write_all(&buffer[..len])?,
        }
    }
}

fn answer_at_end(mut stream: TcpStream) -> io::Result<()> {
    let mut question = Vec::new();
    stream.read_to_end(&mut question)?;
    stream.write_all(&vec![b'.'; 100_000])
}

fn close_with_unread(mut stream: TcpStream) -> io::Result<()> {
    // The head of the request is enough for an answer; its body stays unread.
    let mut head = [0; 16];
    stream.read_exact(&mut head)?;
    // Once the body has arrived too: closing now makes the kernel send RST instead of FIN.
    let _ = stream.peek(&mut head)?;
    stream.write_all(b"413 Content Too Large\r\n")
}

fn send_too_much(mut stream: TcpStream) -> io::Result<()> {
    stream.write_all(&vec![b'x'; TOO_MUCH])
}

/// A connection of the client: the kernel's, or a stack's in this process.
trait Wire: Read + Write {
    fn end_writing(&self) -> io::Result<()>;
}

impl Wire for TcpStream {
    fn end_writing(&self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }
}

impl Wire for blocking::TcpStream {
    fn end_writing(&self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }
}

/// Plays the client's part of every scene, one after the other.
fn play(ports: &Ports, connect: &dyn Fn(SocketAddr) -> io::Result<Box<dyn Wire>>) {
    let to = |port: u16| connect(SocketAddr::from(([10, 0, 2, 2], port)));
    // How each ends is the journal's to tell.
    let _ = to(ports[0]).and_then(|mut wire| {
        wire.write_all(b"hello")?;
        wire.read_exact(&mut [0; 5])
    });
    let _ = to(ports[1]).and_then(|mut wire| {
        wire.write_all(b"everything I have to ask")?;
        wire.end_writing()?;
        wire.read_to_end(&mut Vec::new())
    });
    let _ = to(ports[2]);
    let _ = to(ports[3]).and_then(|mut wire| {
        wire.write_all(&[b'p'; 20_000])?;
        wire.read_to_end(&mut Vec::new())
    });
    let _ = to(ports[4]).map(|wire| {
        let (_keep, never): (Sender<()>, Receiver<()>) = channel();
        let waited = never.recv_timeout(NOT_READING);
        debug_assert_eq!(waited, Err(RecvTimeoutError::Timeout));
        drop(wire);
    });
}

/// Plays over a stack of this process.
pub(crate) fn play_in_process(ports: &Ports, net: &Net) {
    play(ports, &|to| {
        let stream = blocking::TcpStream::connect_timeout(net, &to, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Box::new(stream))
    });
}

/// What starts the client as a process of its own: program and arguments.
pub(crate) fn client_command(ports: &Ports) -> (&'static str, Vec<String>) {
    let arguments = std::iter::once(CLIENT.to_owned()).chain(ports.iter().map(u16::to_string));
    ("/proc/self/exe", arguments.collect())
}

/// Plays over the kernel's sockets when this process was started as the client.
pub(crate) fn enter_if_asked() -> Option<ExitCode> {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next()? != CLIENT {
        return None;
    }
    // Started as /proc/self/exe: without a name of its own it would be `exe` in the journal.
    let _ = rustix::thread::set_name(c"demo-client");
    let ports: Vec<u16> = arguments.filter_map(|port| port.to_str()?.parse().ok()).collect();
    let Ok(ports) = Ports::try_from(ports) else { return Some(ExitCode::from(125)) };
    play(&ports, &|to| {
        let stream = TcpStream::connect_timeout(&to, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Box::new(stream))
    });
    Some(ExitCode::SUCCESS)
}

/// A kernel connection whose reader does not read and whose writer has closed: FIN-WAIT-1 behind a zero window.
#[derive(Debug)]
pub(crate) struct Stuck {
    /// The closed side's port: the socket in FIN-WAIT-1 has it as its own.
    pub(crate) port: u16,
    _reader: TcpStream,
}

impl Stuck {
    /// Makes one on this host's loopback. It lasts until dropped.
    pub(crate) fn make() -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let reader = TcpStream::connect(listener.local_addr()?)?;
        let (mut writer, _) = listener.accept()?;
        writer.set_nonblocking(true)?;
        let chunk = vec![b'x'; 1 << 20];
        loop {
            match writer.write(&chunk) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(Self { port: listener.local_addr()?.port(), _reader: reader })
    }
}
