//! What is said on a control socket: one JSON object a line, requests one way, replies the other.
//!
//! Owns:    [`Request`] and [`Reply`], the only messages there are, and [`PROTOCOL`].
//! Input:   with the `serde` feature both (de)serialise; `lastack` answers, `lastack-observe` asks.
//! Rules:   the server greets with [`Reply::Hello`]. A request for many things is answered by one reply each and
//!          then [`Reply::End`]; a request for one thing by that; either by one [`Reply::Error`] instead.
//!          [`Request::Events`] is answered by [`Reply::End`] as soon as nothing is missed any more; the rest of
//!          the connection is a stream of events that never ends by itself.
//! Not here: the socket, who may connect, JSON text itself.

use core::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::observe::event::{Event, EventMask};
use crate::observe::info::{Gauges, SocketRow};
use crate::tcp::state::TcpState;
use crate::time::Instant;

/// Version of this protocol. A field may be added without changing it; nothing is renamed or reused.
pub const PROTOCOL: u32 = 1;

/// Longest request line, bytes, newline included. Longer ones end the connection.
pub const REQUEST_LIMIT: usize = 4096;

/// Where the control sockets of user `uid` are: in `$XDG_RUNTIME_DIR` where it is set and is there (the caller
/// looks), else below `/tmp`.
/// Whoever connects checks that the directory is that user's and nobody else's to write.
pub fn directory(xdg_runtime_dir: Option<&Path>, uid: u32) -> PathBuf {
    match xdg_runtime_dir {
        Some(dir) if dir.is_absolute() => dir.join("lastack"),
        _ => PathBuf::from(format!("/tmp/lastack-{uid}")),
    }
}

/// The file of the stack called `name`; `None` where that is no name: 1 to 64 of `A-Z a-z 0-9 . _ -`, not
/// beginning with a dot.
pub fn file_name(name: &str) -> Option<String> {
    let is_name = (1..=64).contains(&name.len())
        && !name.starts_with('.')
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    is_name.then(|| format!("{name}.sock"))
}

/// What a client asks.
///
/// On the wire: `{"request":"sockets"}`, `{"request":"kill","cookie":7}`, …
#[derive(Clone, PartialEq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(tag = "request", rename_all = "kebab-case"))]
#[non_exhaustive]
pub enum Request {
    /// Every socket: a [`Reply::Socket`] each, then [`Reply::End`].
    Sockets,
    /// Every counter: [`Reply::Counter`] each, then [`Reply::Gauges`] and [`Reply::End`].
    Counters,
    /// Events of these groups from now on: [`Reply::Event`] each, [`Reply::Lost`] where some did not fit.
    Events {
        /// Which groups.
        mask: EventMask,
    },
    /// Ends one socket: [`Reply::Killed`].
    Kill {
        /// Its cookie.
        cookie: u64,
    },
    /// Ends the socket of this pair: [`Reply::Killed`].
    KillTuple {
        /// The stack's end.
        local: SocketAddr,
        /// The other end.
        remote: SocketAddr,
    },
    /// Reads a setting, or writes it where `value` is given: [`Reply::Sysctl`] with the value that holds now.
    Sysctl {
        /// Linux's name.
        name: String,
        /// As `/proc/sys` takes it.
        #[cfg_attr(feature = "serde", serde(default, skip_serializing_if = "Option::is_none"))]
        value: Option<String>,
    },
    /// Every published port: a [`Reply::Published`] each, then [`Reply::End`].
    Published,
    /// Publishes a port: [`Reply::Published`], then [`Reply::End`].
    Publish {
        /// `[ADDR:]HOST:INSIDE[/udp]`.
        port: String,
    },
    /// Takes a port back; those who are served are served on. [`Reply::End`].
    Unpublish {
        /// `[ADDR:]HOST[/udp]`, as it was published.
        port: String,
    },
}

/// What the server answers.
#[derive(Clone, PartialEq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(tag = "reply", rename_all = "kebab-case"))]
#[non_exhaustive]
pub enum Reply {
    /// The first line on every connection.
    Hello {
        /// [`PROTOCOL`] of the server.
        protocol: u32,
        /// Version of `lastack` that serves.
        version: String,
        /// Name the stack was started under.
        name: String,
        /// Process that runs it.
        pid: u32,
        /// The stack's clock now. It counts nanoseconds since the Unix epoch and never jumps.
        now: Instant,
    },
    /// One socket.
    Socket(Box<SocketRow>),
    /// One counter.
    Counter {
        /// Linux's group.
        group: String,
        /// Linux's name.
        name: String,
        /// Its value.
        value: u64,
    },
    /// What is in use now.
    Gauges(Gauges),
    /// One event.
    Event(Box<Event>),
    /// Events that were not told because this client read too slowly, or the stack's queue was full.
    Lost {
        /// How many since the last such line.
        count: u64,
    },
    /// A socket was ended.
    Killed {
        /// The state it was in.
        state: TcpState,
    },
    /// A setting.
    Sysctl {
        /// Linux's name.
        name: String,
        /// As `/proc/sys` prints it.
        value: String,
    },
    /// A port of the host that leads to the program.
    Published {
        /// `[ADDR:]HOST:INSIDE[/udp]`.
        port: String,
        /// `tcp` or `udp`.
        protocol: String,
        /// Where it is had on the host.
        host: Vec<SocketAddr>,
        /// The program's port.
        inside: u16,
        /// Connections or flows that came by it and live.
        open: u64,
        /// How many came.
        total: u64,
        /// The process that serves it inside; absent: nobody, or that cannot be told.
        #[cfg_attr(feature = "serde", serde(default, skip_serializing_if = "Option::is_none"))]
        pid: Option<u32>,
        /// Its name.
        #[cfg_attr(feature = "serde", serde(default, skip_serializing_if = "Option::is_none"))]
        process: Option<String>,
    },
    /// The answer is complete.
    End,
    /// The request could not be served.
    Error {
        /// What is wrong, lower case without a full stop.
        message: String,
        /// The errno of Linux's own interface for the same failure, 0 where there is none.
        errno: i32,
    },
}

#[cfg(all(test, feature = "serde"))]
mod tests {
    use super::*;

    #[test]
    fn requests_are_short_lines_of_json() {
        for (request, line) in [
            (Request::Sockets, r#"{"request":"sockets"}"#),
            (Request::Kill { cookie: 7 }, r#"{"request":"kill","cookie":7}"#),
            (
                Request::KillTuple {
                    local: "10.0.0.1:80".parse().unwrap(),
                    remote: "[fd00::2]:9".parse().unwrap(),
                },
                r#"{"request":"kill-tuple","local":"10.0.0.1:80","remote":"[fd00::2]:9"}"#,
            ),
            (Request::Events { mask: EventMask::LIFE }, r#"{"request":"events","mask":1}"#),
            (Request::Published, r#"{"request":"published"}"#),
            (Request::Publish { port: "8080:80".into() }, r#"{"request":"publish","port":"8080:80"}"#),
            (
                Request::Sysctl { name: "tcp_fin_timeout".into(), value: None },
                r#"{"request":"sysctl","name":"tcp_fin_timeout"}"#,
            ),
        ] {
            assert_eq!(serde_json::to_string(&request).unwrap(), line);
            assert_eq!(serde_json::from_str::<Request>(line).unwrap(), request);
        }
    }

    #[test]
    fn a_name_cannot_leave_the_directory() {
        assert_eq!(file_name("web-1"), Some("web-1.sock".into()));
        for bad in ["", ".", "..", "../x", "a/b", ".hidden", "a b", &"x".repeat(65)] {
            assert_eq!(file_name(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_reply_survives_the_wire() {
        let row = SocketRow {
            state: TcpState::FinWait1,
            local: "127.0.0.1:7100".parse().unwrap(),
            remote: "127.0.0.1:40122".parse().unwrap(),
            recv_q: 0,
            send_q: 2_883_584,
            timer: Some(crate::observe::TimerRow {
                kind: crate::observe::TimerKind::Persist,
                expires_ms: 8100,
                retrans: 5,
            }),
            cookie: u64::MAX,
            orphan: true,
            age_ms: Some(81_234),
            state_age_ms: None,
            info: Some(Box::new(crate::observe::TcpInfo { rto: 204_000, ..Default::default() })),
        };
        survives(&Reply::Published {
            port: "8080:80".into(),
            protocol: "tcp".into(),
            host: vec!["0.0.0.0:8080".parse().unwrap()],
            inside: 80,
            open: 1,
            total: 7,
            pid: None,
            process: None,
        });
        survives(&Reply::Socket(Box::new(row)));
    }

    fn survives(reply: &Reply) {
        let line = serde_json::to_string(reply).unwrap();
        assert_eq!(&serde_json::from_str::<Reply>(&line).unwrap(), reply);
    }

    #[test]
    fn a_tcp_info_from_an_older_server_reads_as_zero_where_it_is_silent() {
        let info: crate::observe::TcpInfo = serde_json::from_str(r#"{"rto":1}"#).unwrap();
        assert_eq!(info, crate::observe::TcpInfo { rto: 1, ..Default::default() });
    }
}
