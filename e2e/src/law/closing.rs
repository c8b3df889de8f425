//! The closing law: who closed, how, and what was lost arrive on the other side of a carrier as they were.

use super::Side::{Client, Server};
use super::{Case, Stage, clean, reset};
use crate::clock::monotonic_ns;

/// All cases.
pub const CASES: &[Case] = &[
    Case {
        id: "clean-client",
        title: "client closes first, all data read",
        play: |stage| {
            stage.talk(1000, 2000);
            stage.prepare(Client, "close");
            stage.see(Server, "read", "recv-to-end");
            stage.see(Server, "close", "close");
            stage.see_kernels();
        },
        journal: clean(&["program"]),
    },
    Case {
        id: "clean-server",
        title: "server closes first, all data read",
        play: |stage| {
            stage.talk(1000, 2000);
            stage.prepare(Server, "close");
            stage.see(Client, "read", "recv-to-end");
            stage.see(Client, "close", "close");
            stage.see_kernels();
        },
        journal: clean(&["remote"]),
    },
    Case {
        id: "simultaneous",
        title: "both close at the same moment",
        play: |stage| {
            stage.talk(1000, 2000);
            let moment = monotonic_ns() + 50_000_000;
            stage.see_both("close", &format!("close-at {moment}"));
            // Who keeps the TIME-WAIT is a race on any wire; that nothing was reset is not.
            stage.see_reset_counters();
        },
        journal: clean(&["program", "remote", "both"]),
    },
    Case {
        id: "half-close-client",
        title: "client shuts down writing; server answers 3 MB, then closes",
        play: |stage| half_close(stage, Client, Server),
        journal: clean(&["program"]),
    },
    Case {
        id: "half-close-server",
        title: "server shuts down writing; client answers 3 MB, then closes",
        play: |stage| half_close(stage, Server, Client),
        journal: clean(&["remote"]),
    },
    Case {
        id: "unread-client",
        title: "client closes with 1000 bytes unread",
        play: |stage| close_with_unread(stage, Client, Server),
        journal: reset(&["program"], &["closed-with-unread-data"], None),
    },
    Case {
        id: "unread-server",
        title: "server closes with 1000 bytes unread",
        play: |stage| close_with_unread(stage, Server, Client),
        journal: reset(&["remote"], &["reset-by-peer", "closed-with-unread-data"], None),
    },
    Case {
        id: "linger-0-client",
        title: "client closes with SO_LINGER 0",
        play: |stage| linger_0(stage, Client, Server),
        journal: reset(&["program"], &["linger-zero"], Some(false)),
    },
    Case {
        id: "linger-0-server",
        title: "server closes with SO_LINGER 0",
        play: |stage| linger_0(stage, Server, Client),
        journal: reset(&["remote"], &["reset-by-peer", "linger-zero"], Some(false)),
    },
    Case {
        id: "data-after-close-client",
        title: "client has closed; server goes on sending",
        play: |stage| data_after_close(stage, Client, Server),
        journal: reset(&["program"], &["data-after-close"], Some(true)),
    },
    Case {
        id: "data-after-close-server",
        title: "server has closed; client goes on sending",
        play: |stage| data_after_close(stage, Server, Client),
        journal: reset(&["remote"], &["reset-by-peer", "data-after-close"], Some(true)),
    },
    Case {
        id: "reset-after-half-close-client",
        title: "client shuts down writing, then closes with SO_LINGER 0",
        play: |stage| reset_after_half_close(stage, Client, Server),
        journal: reset(&["program"], &["linger-zero"], Some(false)),
    },
    Case {
        id: "reset-after-half-close-server",
        title: "server shuts down writing, then closes with SO_LINGER 0",
        play: |stage| reset_after_half_close(stage, Server, Client),
        journal: reset(&["remote"], &["reset-by-peer", "linger-zero"], Some(false)),
    },
    Case {
        id: "slow-reader",
        title: "client sends 300 kB and closes before the server has read any",
        play: |stage| {
            stage.connect();
            stage.prepare(Client, "send 300000");
            stage.prepare(Client, "close");
            stage.see(Server, "read", "recv-to-end");
            stage.see(Server, "close", "close");
            stage.see_kernels();
        },
        journal: clean(&["program"]),
    },
    Case {
        id: "send-and-exit",
        title: "client writes 300 kB and its process ends at once",
        play: |stage| {
            stage.connect();
            let last = ["send-and-exit 300000"];
            stage.meanwhile(Client, &last);
            stage.see(Server, "read", "recv-to-end");
            stage.see(Server, "close", "close");
            stage.see_kernel(Server);
        },
        journal: clean(&["program"]),
    },
    Case {
        id: "killed",
        title: "client's process is killed (SIGKILL), all data read",
        play: |stage| {
            stage.talk(1000, 2000);
            stage.meanwhile(Client, &["die"]);
            stage.see(Server, "read", "recv-to-end");
            stage.see(Server, "close", "close");
            stage.see_kernel(Server);
        },
        journal: clean(&["program"]),
    },
    Case {
        id: "killed-unread",
        title: "client's process is killed (SIGKILL) with 1000 bytes unread",
        play: |stage| {
            stage.talk(1000, 0);
            stage.prepare(Server, "send 1000");
            stage.prepare(Client, "wait-unread 1000");
            stage.meanwhile(Client, &["die"]);
            stage.see(Server, "poll", "wait err,hup,rdhup");
            stage.see(Server, "read", "recv 1");
            stage.see_kernel(Server);
        },
        // Its namespace went with it, and with the namespace the counters that tell why.
        journal: reset(&["program"], &["closed-with-unread-data", "reset-by-program"], None),
    },
    Case {
        id: "listener-closed",
        title: "server closes its listener with the connection not yet accepted",
        play: |stage| {
            let address = stage.server_address();
            stage.see(Client, "connect", &format!("connect {address}"));
            stage.prepare(Server, "wait-pending");
            stage.prepare(Server, "close-listener");
            stage.see(Client, "poll", "wait err,hup,rdhup");
            stage.see(Client, "read", "recv 1");
            stage.see_kernel(Client);
        },
        journal: reset(&["remote"], &["reset-by-peer"], Some(false)),
    },
];

/// `first` sends its FIN, then reads all that `other` still has to say.
fn half_close(stage: &mut Stage, first: super::Side, other: super::Side) {
    stage.talk(1000, 2000);
    stage.see(first, "shutdown", "shutdown-write");
    stage.see(other, "read", "recv-to-end");
    let answer = ["send 3000000", "close"];
    stage.meanwhile(other, &answer);
    stage.see(first, "read", "recv-to-end");
    stage.join(other, &answer);
    stage.see(first, "close", "close");
    stage.see_kernels();
}

/// Linux answers a close with unread data with RST instead of FIN (RFC 2525 2.17).
fn close_with_unread(stage: &mut Stage, closer: super::Side, other: super::Side) {
    stage.talk(1000, 2000);
    stage.prepare(other, "send 1000");
    stage.prepare(closer, "wait-unread 1000");
    stage.see(closer, "close", "close");
    stage.see(other, "poll", "wait err,hup,rdhup");
    stage.see(other, "read", "recv 1");
    stage.see(other, "write", "send 1");
    stage.see(other, "close", "close");
    stage.see_kernels();
}

fn linger_0(stage: &mut Stage, closer: super::Side, other: super::Side) {
    stage.talk(1000, 2000);
    stage.prepare(closer, "linger-0");
    stage.see(closer, "close", "close");
    stage.see(other, "poll", "wait err,hup,rdhup");
    stage.see(other, "SO_ERROR", "so-error");
    stage.see(other, "read", "recv 1");
    stage.see(other, "close", "close");
    stage.see_kernels();
}

fn data_after_close(stage: &mut Stage, closer: super::Side, other: super::Side) {
    stage.talk(1000, 2000);
    stage.see(closer, "close", "close");
    stage.see(other, "read", "recv-to-end");
    stage.see(other, "first write", "send 1000");
    stage.see(other, "poll", "wait err");
    stage.see(other, "next write", "send 1000");
    stage.see(other, "close", "close");
    stage.see_kernels();
}

fn reset_after_half_close(stage: &mut Stage, closer: super::Side, other: super::Side) {
    stage.talk(1000, 2000);
    stage.prepare(closer, "shutdown-write");
    stage.see(other, "read", "recv-to-end");
    stage.prepare(closer, "linger-0");
    stage.see(closer, "close", "close");
    stage.see(other, "poll", "wait err");
    stage.see(other, "SO_ERROR", "so-error");
    stage.see(other, "write", "send 1");
    stage.see_kernels();
}
