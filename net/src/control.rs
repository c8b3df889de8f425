//! The control socket: other processes of the same user look into a running stack, and end its connections.
//!
//! Owns:    the socket's file, its threads, who may connect.
//! Input:   one JSON object a line, [`Request`].
//! Output:  one JSON object a line, [`Reply`].
//! Rules:   mode 0600 in a directory of mode 0700; only the same user and root are served; a client that does
//!          not read loses events and is told how many. Threads of its own: the data path never waits for a client.
//! Not here: the messages ([`lastack_core::observe::control`]), the client (`lastack-observe`).

mod answer;

use std::fs::{DirBuilder, Permissions};
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use lastack_core::observe::control::{self, PROTOCOL, REQUEST_LIMIT, Reply, Request};

use crate::net::Net;
use crate::shard::Shard;

/// Clients served at a time.
const CLIENT_LIMIT: usize = 16;
/// A client that takes nothing for so long is given up.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// How often, and how many times, it is looked whether clients have been told all at the end: for a second.
const DRAIN_LOOK: Duration = Duration::from_millis(5);
const DRAIN_LOOKS: u32 = 200;

/// What a program that embeds a stack answers to requests that are its own; `None`: the stack's. Called in the client's
/// thread.
type Answers = dyn Fn(&Request) -> Option<Vec<Reply>> + Send + Sync;

/// Serves until it is dropped, which removes the file.
#[derive(Debug)]
pub struct ControlSocket {
    path: PathBuf,
    server: Arc<Server>,
    thread: Option<JoinHandle<()>>,
}

struct Server {
    name: String,
    shard: Arc<Shard>,
    answers: Box<Answers>,
    listener: UnixListener,
    uid: u32,
    is_over: AtomicBool,
    /// A second descriptor of each client, to end it.
    clients: Mutex<Clients>,
}

#[derive(Debug, Default)]
struct Clients {
    list: Vec<(u64, UnixStream)>,
    next_key: u64,
}

/// Opens the control socket of `net` under `name` and serves it in threads of its own.
///
/// # Errors
/// `InvalidInput`: no name for a file. `AddrInUse`: another running process serves this name.
/// `PermissionDenied`: the directory is somebody else's.
pub fn serve(net: &Net, name: &str) -> io::Result<ControlSocket> {
    serve_with(net, name, |_: &Request| None)
}

/// As [`serve`], with answers of the program's own before the stack's.
///
/// # Errors
/// As [`serve`].
pub fn serve_with(
    net: &Net,
    name: &str,
    answers: impl Fn(&Request) -> Option<Vec<Reply>> + Send + Sync + 'static,
) -> io::Result<ControlSocket> {
    let runtime_dir = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|dir| dir.is_dir());
    let uid = rustix::process::geteuid().as_raw();
    serve_at(net, name, &control::directory(runtime_dir.as_deref(), uid), Box::new(answers))
}

/// As [`serve`], in `directory`, which is made if it is not there.
///
/// # Errors
/// As [`serve`].
pub fn serve_in(net: &Net, name: &str, directory: &Path) -> io::Result<ControlSocket> {
    serve_at(net, name, directory, Box::new(|_| None))
}

fn serve_at(net: &Net, name: &str, directory: &Path, answers: Box<Answers>) -> io::Result<ControlSocket> {
    let Some(file) = control::file_name(name) else {
        let message =
            format!("`{name}` cannot name a stack: use 1 to 64 letters, digits, dots, dashes or underscores");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
    };
    let uid = rustix::process::geteuid().as_raw();
    own_directory(directory, uid)?;
    let path = directory.join(file);
    let listener = bind(&path)?;
    std::fs::set_permissions(&path, Permissions::from_mode(0o600))?;
    let server = Arc::new(Server {
        name: name.into(),
        shard: net.handle().shard().clone(),
        answers,
        listener,
        uid,
        is_over: AtomicBool::new(false),
        clients: Mutex::default(),
    });
    let accepting = server.clone();
    let thread =
        std::thread::Builder::new().name("lastack-control".into()).spawn(move || accepting.accept())?;
    Ok(ControlSocket { path, server, thread: Some(thread) })
}

/// Makes the directory, or checks that what is there is ours alone.
fn own_directory(path: &Path, uid: u32) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        result => return result,
    }
    // Not followed: a link in /tmp could lead anywhere.
    let found = std::fs::symlink_metadata(path)?;
    if !found.is_dir() || found.uid() != uid || found.mode() & 0o022 != 0 {
        let message = format!("{} is not a directory that only user {uid} can write to", path.display());
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, message));
    }
    Ok(())
}

/// Binds; the file of a process that is gone is replaced.
fn bind(path: &Path) -> io::Result<UnixListener> {
    match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
        result => return result,
    }
    if UnixStream::connect(path).is_ok() {
        let message = format!("{} is served by another process: choose another name", path.display());
        return Err(io::Error::new(io::ErrorKind::AddrInUse, message));
    }
    std::fs::remove_file(path)?;
    UnixListener::bind(path)
}

impl ControlSocket {
    /// The socket's file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        self.server.is_over.store(true, Ordering::Release);
        // Before the end is visible to clients: whoever finds the file finds a server.
        let _ = std::fs::remove_file(&self.path);
        // Wakes the thread in `accept`.
        let _ = rustix::net::shutdown(&self.server.listener, rustix::net::Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        // No more requests; events that were queued before are told, if the client takes them.
        for (_, client) in &self.server.clients().list {
            let _ = client.shutdown(std::net::Shutdown::Read);
        }
        for _ in 0..DRAIN_LOOKS {
            if self.server.clients().list.is_empty() {
                return;
            }
            std::thread::park_timeout(DRAIN_LOOK);
        }
        for (_, client) in self.server.clients().list.drain(..) {
            let _ = client.shutdown(std::net::Shutdown::Both);
        }
    }
}

impl Server {
    fn clients(&self) -> MutexGuard<'_, Clients> {
        self.clients.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn accept(self: Arc<Self>) {
        while !self.is_over.load(Ordering::Acquire) {
            match self.listener.accept() {
                Ok((client, _)) => {
                    // Whatever goes wrong concerns this client alone.
                    let _ = self.clone().greet(client);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Out of descriptors: one client's wait, not the end.
                Err(error) if matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)) => {
                    std::thread::park_timeout(Duration::from_millis(100));
                }
                Err(_) => return,
            }
        }
    }

    /// Serves one client in a thread of its own, or says why not.
    fn greet(self: Arc<Self>, client: UnixStream) -> io::Result<()> {
        client.set_write_timeout(Some(WRITE_TIMEOUT))?;
        let peer = rustix::net::sockopt::socket_peercred(&client)?.uid.as_raw();
        if peer != self.uid && peer != 0 {
            let message = format!("this stack belongs to user {}", self.uid);
            return write_line(&mut &client, &Reply::Error { message, errno: libc::EPERM });
        }
        let kept = client.try_clone()?;
        let key = {
            let mut clients = self.clients();
            if clients.list.len() >= CLIENT_LIMIT {
                drop(clients);
                let message = format!("{CLIENT_LIMIT} clients are being served already");
                return write_line(&mut &client, &Reply::Error { message, errno: libc::EBUSY });
            }
            clients.next_key += 1;
            let key = clients.next_key;
            clients.list.push((key, kept));
            key
        };
        let server = self.clone();
        let thread = std::thread::Builder::new().name("lastack-client".into()).spawn(move || {
            // An error is the client's end.
            let _ = server.converse(&client);
            server.clients().list.retain(|(other, _)| *other != key);
        });
        if thread.is_err() {
            self.clients().list.retain(|(other, _)| *other != key);
        }
        thread.map(drop)
    }

    fn converse(&self, client: &UnixStream) -> io::Result<()> {
        let mut input = BufReader::new(client);
        let mut output = BufWriter::new(client);
        write_line(&mut output, &self.hello())?;
        output.flush()?;
        let mut line = Vec::new();
        loop {
            line.clear();
            input.by_ref().take(REQUEST_LIMIT as u64).read_until(b'\n', &mut line)?;
            if line.is_empty() {
                return Ok(());
            }
            if line.last() != Some(&b'\n') {
                let message = format!("a request has at most {REQUEST_LIMIT} bytes and ends with a newline");
                write_line(&mut output, &Reply::Error { message, errno: libc::EMSGSIZE })?;
                return output.flush();
            }
            match serde_json::from_slice::<Request>(&line) {
                Ok(Request::Events { mask }) => {
                    return answer::stream_events(&self.shard, mask, client, &mut output);
                }
                Ok(request) => match (self.answers)(&request) {
                    Some(replies) => {
                        for reply in &replies {
                            write_line(&mut output, reply)?;
                        }
                    }
                    None => answer::answer(&self.shard, request, &mut output)?,
                },
                Err(error) => {
                    let reply = Reply::Error { message: format!("not a request: {error}"), errno: 0 };
                    write_line(&mut output, &reply)?;
                }
            }
            output.flush()?;
        }
    }

    fn hello(&self) -> Reply {
        Reply::Hello {
            protocol: PROTOCOL,
            version: env!("CARGO_PKG_VERSION").into(),
            name: self.name.clone(),
            pid: std::process::id(),
            now: self.shard.clock.now(),
        }
    }
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server")
            .field("name", &self.name)
            .field("listener", &self.listener)
            .finish_non_exhaustive()
    }
}

fn write_line(output: &mut impl Write, reply: &Reply) -> io::Result<()> {
    serde_json::to_writer(&mut *output, reply)?;
    output.write_all(b"\n")
}
