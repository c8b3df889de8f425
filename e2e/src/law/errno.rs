//! The errno law: a refused, unreachable, silent, reset or finished peer looks the same through a carrier.

use super::Side::{Client, Server};
use super::{Case, Verdict, clean, reset};
use crate::arena::{
    HOST_REFUSES, HOST_UNREACHABLE, NET_UNREACHABLE, PROHIBITED, SERVER_V4, SERVER_V6, SILENT, UNREACHABLE_V6,
};

/// A router's word ends it: from the program's side that is the remote's, as a refusal is.
const fn unreachable() -> Option<Verdict> {
    let reason = &["host-unreachable", "network-unreachable"];
    Some(Verdict { closed_by: &["remote"], how: "unreachable", reason, lost_data: Some(false) })
}

/// All cases.
pub const CASES: &[Case] = &[
    Case {
        id: "closed-port",
        title: "connect to a closed port",
        play: |stage| {
            stage.see(Client, "connect", &format!("connect {SERVER_V4}:9"));
            stage.see_kernel(Client);
        },
        journal: Some(Verdict {
            closed_by: &["remote"],
            how: "refused",
            reason: &["no-listener"],
            lost_data: Some(false),
        }),
    },
    Case {
        id: "closed-port-v6",
        title: "connect to a closed port, IPv6",
        play: |stage| stage.see(Client, "connect", &format!("connect [{SERVER_V6}]:9")),
        journal: Some(Verdict {
            closed_by: &["remote"],
            how: "refused",
            reason: &["no-listener"],
            lost_data: Some(false),
        }),
    },
    Case {
        id: "host-unreachable",
        title: "connect; a router answers \"host unreachable\"",
        play: |stage| stage.see(Client, "connect", &format!("connect {HOST_UNREACHABLE}:80")),
        journal: unreachable(),
    },
    Case {
        id: "net-unreachable",
        title: "connect; a router answers \"network unreachable\"",
        play: |stage| stage.see(Client, "connect", &format!("connect {NET_UNREACHABLE}:80")),
        journal: unreachable(),
    },
    Case {
        id: "prohibited",
        title: "connect; a router answers \"administratively prohibited\"",
        play: |stage| stage.see(Client, "connect", &format!("connect {PROHIBITED}:80")),
        journal: unreachable(),
    },
    Case {
        id: "host-refuses",
        title: "connect; the host's own routing says unreachable",
        play: |stage| stage.see(Client, "connect", &format!("connect {HOST_REFUSES}:80")),
        journal: unreachable(),
    },
    Case {
        id: "unreachable-v6",
        title: "connect; a router answers \"no route\", IPv6",
        play: |stage| stage.see(Client, "connect", &format!("connect [{UNREACHABLE_V6}]:80")),
        journal: unreachable(),
    },
    Case {
        id: "silence",
        title: "connect; every packet is dropped (TCP_USER_TIMEOUT 2 s)",
        play: |stage| {
            stage.see(Client, "connect", &format!("connect {SILENT}:80 2000"));
            stage.see_kernel(Client);
        },
        journal: None,
    },
    Case {
        id: "read-after-reset",
        title: "read after the peer's RST, then read again",
        play: |stage| {
            stage.talk(100, 0);
            stage.prepare(Server, "linger-0");
            stage.prepare(Server, "close");
            stage.see(Client, "poll", "wait err,hup,rdhup");
            stage.see(Client, "read", "recv 1");
            stage.see(Client, "read again", "recv 1");
            stage.see(Client, "write", "send 1");
        },
        journal: reset(&["remote"], &["reset-by-peer"], Some(false)),
    },
    Case {
        id: "write-after-reset",
        title: "write after the peer's RST",
        play: |stage| {
            stage.talk(100, 0);
            stage.prepare(Server, "linger-0");
            stage.prepare(Server, "close");
            stage.see(Client, "poll", "wait err,hup,rdhup");
            stage.see(Client, "write", "send 1");
            stage.see(Client, "write again", "send 1");
        },
        journal: reset(&["remote"], &["reset-by-peer"], Some(false)),
    },
    Case {
        id: "unread-then-reset",
        title: "data, then RST: read what came before it",
        play: |stage| {
            stage.talk(100, 0);
            stage.prepare(Server, "send 1000");
            stage.prepare(Client, "wait-unread 1000");
            stage.prepare(Server, "linger-0");
            stage.prepare(Server, "close");
            stage.see(Client, "poll", "wait err,hup,rdhup");
            stage.see(Client, "read", "recv 1000");
            stage.see(Client, "read again", "recv 1");
        },
        journal: reset(&["remote"], &["reset-by-peer"], Some(false)),
    },
    Case {
        id: "read-after-fin",
        title: "read after the peer's FIN",
        play: |stage| {
            stage.talk(100, 1000);
            stage.prepare(Server, "send 1000");
            stage.prepare(Server, "close");
            stage.see(Client, "poll", "wait rdhup,err");
            stage.see(Client, "read", "recv-to-end");
            stage.see(Client, "read again", "recv 1");
        },
        journal: clean(&["remote"]),
    },
    Case {
        id: "write-after-close",
        title: "write after the peer has closed",
        play: |stage| {
            stage.talk(100, 0);
            stage.prepare(Server, "close");
            stage.see(Client, "poll", "wait rdhup,err");
            stage.see(Client, "first write", "send 1");
            stage.see(Client, "poll", "wait err");
            stage.see(Client, "next write", "send 1");
            stage.see(Client, "read", "recv 1");
        },
        journal: reset(&["remote"], &["reset-by-peer", "data-after-close"], Some(true)),
    },
    Case {
        id: "half-close",
        title: "half-close, then read to end of file",
        play: |stage| {
            stage.talk(100, 0);
            stage.see(Client, "shutdown", "shutdown-write");
            stage.see(Server, "read", "recv-to-end");
            stage.see(Client, "write", "send 1");
            let answer = ["send 3000000", "close"];
            stage.meanwhile(Server, &answer);
            stage.see(Client, "read", "recv-to-end");
            stage.join(Server, &answer);
            stage.see_kernels();
        },
        journal: clean(&["program"]),
    },
    Case {
        id: "udp-closed-port",
        title: "UDP to a closed port",
        play: |stage| stage.see(Client, "send, then receive", &format!("udp {SERVER_V4}:9")),
        journal: None,
    },
];
