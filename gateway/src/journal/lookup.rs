//! What is written down about a name that was looked up.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use lastack::core::time::Instant;
use serde::Serialize;

use crate::owner::Owner;

identifiers!(
    /// How a lookup ended.
    LookupEnd {
        /// A resolver answered it.
        Answered = "answered",
        /// A rule forbade the name: the program was told that there is none.
        Denied = "denied",
        /// No resolver answered.
        Failed = "failed",
    }
);

/// One name that the program looked up.
#[derive(Clone, PartialEq, Debug)]
pub struct Lookup {
    /// Its number in this run, from 1, shared with connections and flows.
    pub id: u64,
    /// Who asked, where that could be told.
    pub owner: Option<Owner>,
    /// The program's end.
    pub local: SocketAddr,
    /// The resolver it asked.
    pub server: SocketAddr,
    /// Over TCP.
    pub tcp: bool,
    /// The name, in lower case.
    pub name: Arc<str>,
    /// The record type asked for: `A`, `AAAA`, …
    pub kind: Arc<str>,
    /// When it asked.
    pub asked: Instant,
    /// Until the answer, microseconds.
    pub took_us: u64,
    /// How it ended.
    pub how: LookupEnd,
    /// The answer's code: `NOERROR`, `NXDOMAIN`, …; none where nobody answered.
    pub rcode: Option<&'static str>,
    /// The addresses answered.
    pub addresses: Vec<IpAddr>,
}

#[derive(Serialize)]
struct Line<'a> {
    event: &'static str,
    id: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    process: Option<&'a str>,
    name: &'a str,
    #[serde(rename = "type")]
    kind: &'a str,
    protocol: &'static str,
    local: SocketAddr,
    server: SocketAddr,
    asked_ns: u64,
    took_us: u64,
    how: LookupEnd,
    #[serde(skip_serializing_if = "Option::is_none")]
    rcode: Option<&'static str>,
    addresses: &'a [IpAddr],
}

impl Lookup {
    /// Its line in the JSON journal, without a newline.
    pub fn to_json(&self) -> String {
        let Self { id, owner, local, server, tcp, name, kind, asked, took_us, how, rcode, addresses } = self;
        let line = Line {
            event: "lookup",
            id: *id,
            pid: owner.as_ref().map(|owner| owner.pid),
            process: owner.as_ref().map(|owner| &*owner.process),
            name,
            kind,
            protocol: if *tcp { "tcp" } else { "udp" },
            local: *local,
            server: *server,
            asked_ns: asked.as_nanos(),
            took_us: *took_us,
            how: *how,
            rcode: *rcode,
            addresses,
        };
        serde_json::to_string(&line).expect("strings and numbers only")
    }
}
