//! Another process looks into a running stack through its control socket.

mod support;

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use lastack::blocking::{TcpListener, TcpStream};
use lastack::control::{self, ControlSocket};
use lastack::core::observe::control::{PROTOCOL, Reply, Request};
use lastack::core::observe::{EventKind, EventMask};
use lastack::core::tcp::state::TcpState;
use support::pair_of_threads;

struct Client {
    input: BufReader<UnixStream>,
}

impl Client {
    fn connect(socket: &ControlSocket) -> Self {
        let stream = UnixStream::connect(socket.path()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let mut client = Self { input: BufReader::new(stream) };
        assert!(matches!(client.reply(), Reply::Hello { protocol: PROTOCOL, .. }));
        client
    }

    fn send(&mut self, text: &str) {
        self.input.get_mut().write_all(text.as_bytes()).unwrap();
    }

    fn ask(&mut self, request: &Request) -> Reply {
        self.send(&format!("{}\n", serde_json::to_string(request).unwrap()));
        self.reply()
    }

    fn reply(&mut self) -> Reply {
        let mut line = String::new();
        self.input.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"))
    }

    /// The replies up to `End`.
    fn all(&mut self, request: &Request) -> Vec<Reply> {
        let mut replies = vec![self.ask(request)];
        while *replies.last().unwrap() != Reply::End {
            replies.push(self.reply());
        }
        replies.pop();
        replies
    }
}

#[test]
fn sockets_counters_and_settings_are_told_and_changed() {
    let (server, _client) = pair_of_threads();
    let directory = tempfile::tempdir().unwrap();
    let socket = control::serve_in(&server, "web", directory.path()).unwrap();
    let _listener = TcpListener::bind(&server, "10.0.0.1:80").unwrap();
    let mut client = Client::connect(&socket);

    let sockets = client.all(&Request::Sockets);
    let [Reply::Socket(row)] = &sockets[..] else { panic!("{sockets:?}") };
    assert_eq!((row.state, row.local), (TcpState::Listen, "10.0.0.1:80".parse().unwrap()));

    let counters = client.all(&Request::Counters);
    assert!(counters.iter().any(
        |reply| matches!(reply, Reply::Counter { group, name, .. } if group == "Tcp" && name == "InSegs")
    ));

    let sysctl = |value: Option<&str>| Request::Sysctl {
        name: "tcp_fin_timeout".into(),
        value: value.map(str::to_string),
    };
    let is = |value: &str| Reply::Sysctl { name: "tcp_fin_timeout".into(), value: value.into() };
    assert_eq!(client.ask(&sysctl(None)), is("60"));
    assert_eq!(client.ask(&sysctl(Some("5"))), is("5"));
    assert_eq!(server.sysctl("tcp_fin_timeout").unwrap(), "5");
    assert!(matches!(client.ask(&sysctl(Some("soon"))), Reply::Error { errno: libc::EINVAL, .. }));
    assert!(matches!(client.ask(&Request::Kill { cookie: 12345 }), Reply::Error { errno: libc::ENOENT, .. }));

    client.send("what?\n");
    assert!(matches!(client.reply(), Reply::Error { message, .. } if message.starts_with("not a request")));
    assert_eq!(client.ask(&sysctl(None)), is("5"), "a bad line is not the end");
}

#[test]
fn a_killed_connection_is_seen_in_the_event_stream() {
    let (server, client) = pair_of_threads();
    let directory = tempfile::tempdir().unwrap();
    let socket = control::serve_in(&server, "web", directory.path()).unwrap();
    let mut watcher = Client::connect(&socket);
    assert_eq!(watcher.ask(&Request::Events { mask: EventMask::LIFE }), Reply::End);

    let listener = TcpListener::bind(&server, "10.0.0.1:80").unwrap();
    let mut stream = TcpStream::connect(&client, "10.0.0.1:80").unwrap();
    let (accepted, _) = listener.accept().unwrap();
    let mut killer = Client::connect(&socket);
    let killed = killer.ask(&Request::Kill { cookie: accepted.cookie() });
    assert_eq!(killed, Reply::Killed { state: TcpState::Established });
    assert_eq!(stream.read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::ConnectionReset);

    let mut states = Vec::new();
    loop {
        let Reply::Event(event) = watcher.reply() else { panic!("nothing is lost here") };
        if event.cookie != accepted.cookie() {
            continue;
        }
        if let EventKind::StateChange { new, .. } = event.kind {
            states.push(new);
            if new == TcpState::Close {
                break;
            }
        }
    }
    assert_eq!(states.last_chunk(), Some(&[TcpState::Established, TcpState::Close]), "{states:?}");
}

#[test]
fn a_line_without_end_ends_the_conversation() {
    let (server, _client) = pair_of_threads();
    let directory = tempfile::tempdir().unwrap();
    let socket = control::serve_in(&server, "web", directory.path()).unwrap();
    let mut client = Client::connect(&socket);
    client.send(&"x".repeat(5000));
    assert!(matches!(client.reply(), Reply::Error { errno: libc::EMSGSIZE, .. }));
    let mut rest = Vec::new();
    // The unread rest of the line makes the kernel reset; either way nothing more comes.
    let _ = client.input.read_to_end(&mut rest);
    assert!(rest.is_empty());
}

#[test]
fn the_file_is_private_replaced_when_stale_and_removed_at_the_end() {
    let (server, other) = pair_of_threads();
    let directory = tempfile::tempdir().unwrap();
    let below = directory.path().join("lastack");
    let socket = control::serve_in(&server, "web", &below).unwrap();
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&below), mode(socket.path())), (0o700, 0o600));

    let error = control::serve_in(&other, "web", &below).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AddrInUse);
    let path = socket.path().to_owned();
    drop(socket);
    assert!(!path.exists());

    // Left behind by a process that was killed.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let socket = control::serve_in(&other, "web", &below).unwrap();
    drop(Client::connect(&socket));

    assert_eq!(control::serve_in(&server, "../web", &below).unwrap_err().kind(), ErrorKind::InvalidInput);
    std::fs::set_permissions(&below, std::fs::Permissions::from_mode(0o777)).unwrap();
    let error = control::serve_in(&server, "two", &below).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
}

#[test]
fn clients_beyond_the_limit_are_told_so() {
    let (server, _client) = pair_of_threads();
    let directory = tempfile::tempdir().unwrap();
    let socket = control::serve_in(&server, "web", directory.path()).unwrap();
    let clients: Vec<Client> = (0..16).map(|_| Client::connect(&socket)).collect();
    let stream = UnixStream::connect(socket.path()).unwrap();
    let mut refused = Client { input: BufReader::new(stream) };
    assert!(matches!(refused.reply(), Reply::Error { errno: libc::EBUSY, .. }));
    drop(clients);
}
