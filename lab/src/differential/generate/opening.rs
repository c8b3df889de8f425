//! How a connection begins, in the usual ways and in wrong ones, and many of them on one backlog.

use super::Kind;
use super::life::{step, unreachable_code};
use crate::differential::story::Story;

/// A server's or a client's connection, established in the usual way.
pub(super) fn open(story: &mut Story) {
    if story.random.chance(70) {
        listener(story, 1);
        syn(story);
        last_ack(story);
        story.at(2, "accept(3, ..., ...) = 4");
        story.at(0, "fcntl(4, F_SETFL, O_RDWR|O_NONBLOCK) = 0");
    } else {
        story.fd = 3;
        client(story);
        syn_ack(story);
    }
}

fn listener(story: &mut Story, backlog: u32) {
    story.at(0, "socket(..., SOCK_STREAM|SOCK_NONBLOCK, IPPROTO_TCP) = 3");
    if story.random.chance(15) {
        early_option(story, 3);
    }
    story.at(0, "bind(3, ..., ...) = 0");
    story.at(0, &format!("listen(3, {backlog}) = 0"));
}

fn client(story: &mut Story) {
    story.at(0, "socket(..., SOCK_STREAM|SOCK_NONBLOCK, IPPROTO_TCP) = 3");
    if story.random.chance(20) {
        early_option(story, 3);
    }
    story.at(0, "connect(3, ..., ...) = -1 EINPROGRESS");
}

fn syn(story: &mut Story) {
    let (win, options) = (story.win.max(1000), story.syn_options());
    story.at(10, &format!("< S 0:0(0) win {win}{options}"));
}

fn syn_ack(story: &mut Story) {
    let options = story.syn_options().replace("ecr 0", "ecr 500");
    let win = story.win.max(1000);
    story.at(10, &format!("< S. 0:0(0) ack 1 win {win}{options}"));
}

/// Ends a server's handshake; the echo is of the SYN-ACK, as Linux demands.
fn last_ack(story: &mut Story) {
    let win = story.win;
    let options = if story.timestamps { " <nop,nop,TS val 100 ecr 500>" } else { "" };
    story.then(&format!("< . 1:1(0) ack 1 win {win}{options}"));
}

fn early_option(story: &mut Story, fd: u32) {
    let options = [
        ("SOL_SOCKET", "SO_RCVBUF", "8192"),
        ("SOL_SOCKET", "SO_RCVBUF", "1"),
        ("SOL_TCP", "TCP_MAXSEG", "500"),
        ("SOL_TCP", "TCP_WINDOW_CLAMP", "3000"),
        ("SOL_TCP", "TCP_DEFER_ACCEPT", "1"),
        ("SOL_TCP", "TCP_NODELAY", "1"),
        ("SOL_TCP", "TCP_SYNCNT", "1"),
        ("SOL_TCP", "TCP_QUICKACK", "0"),
        ("SOL_TCP", "TCP_USER_TIMEOUT", "700"),
        ("SOL_SOCKET", "SO_RCVLOWAT", "3000"),
    ];
    let (level, name, value) = story.random.pick(&options);
    story.at(0, &format!("setsockopt({fd}, {level}, {name}, [{value}], 4) = 0"));
}

pub(super) fn handshake(story: &mut Story) {
    let server = story.random.chance(55);
    if server {
        listener(story, 1);
        if story.random.chance(15) {
            stray(story);
        }
        syn(story);
    } else {
        story.fd = 3;
        client(story);
    }
    let steps = 1 + story.random.below(6);
    for _ in 0..steps {
        let odd = story.random.pick(&[0, 1, 100, 1000, 70000, u32::MAX]);
        match story.random.below(if server { 12 } else { 16 }) {
            0 => story.peer(".", 1, 0, Some(odd)),
            1 => story.peer(".", odd, 0, Some(1)),
            2 => story.peer("P.", 1, 100, Some(1)),
            3 => story.peer("R", odd, 0, None),
            4 => story.peer("R.", 1, 0, Some(odd)),
            5 => story.peer("F.", 1, 0, Some(1)),
            6 => syn(story),
            7 => story.peer("S", odd, 0, None),
            8 => story.peer("S.", odd, 0, Some(1)),
            9 => story.then("accept(3, ..., ...) = 4"),
            10 => story.then("%{ facts }%"),
            11 => story.at(1100, "getsockopt(3, SOL_SOCKET, SO_ERROR, [0], [4]) = 0"),
            12 => {
                let options = story.syn_options();
                story.then(&format!("< S 0:0(0) win 5000{options}"));
            }
            13 => {
                let options = story.syn_options().replace("ecr 0", "ecr 500");
                story.then(&format!("< S. 0:0(0) ack {odd} win 5000{options}"));
            }
            14 => {
                let code = unreachable_code(story);
                story.then(&format!("< icmp unreachable {code} [0:0(0)]"));
            }
            _ => story.then("connect(3, ..., ...) = 0"),
        }
    }
    if server {
        story.peer(".", 1, 0, Some(1));
        story.then("accept(3, ..., ...) = 4");
        story.at(0, "fcntl(4, F_SETFL, O_RDWR|O_NONBLOCK) = 0");
    } else {
        syn_ack(story);
        story.then("connect(3, ..., ...) = 0");
    }
    for _ in 0..story.random.below(4) {
        step(story, Kind::Close);
    }
}

/// A segment for nobody.
fn stray(story: &mut Story) {
    let flags = story.random.pick(&[".", "F.", "R", "R.", "S.", "P.", "-", "SF", "FP"]);
    let len = story.random.pick(&[0, 0, 10]);
    let ack = flags.contains('.').then_some(5000);
    story.peer(flags, 1000, len, ack);
}

pub(super) fn backlog(story: &mut Story) {
    // A SYN may be dropped here, and then there is no timestamp to echo.
    story.timestamps = false;
    let size = story.random.below(3);
    listener(story, size);
    let connections = 2 + story.random.below(4);
    let mut fd = 4;
    for port in 0..connections {
        let options = story.syn_options();
        let win = story.win.max(1000);
        let port = 40_100 + port;
        story.then(&format!("< {port} > 8080 S 0:0(0) win {win}{options}"));
        match story.random.below(10) {
            0 => {}
            1 => story.peer("R", 1, 0, None),
            2 => story.peer("P.", 1, 50, Some(1)),
            _ => story.peer(".", 1, 0, Some(1)),
        }
        if story.random.chance(30) {
            story.then(&format!("accept(3, ..., ...) = {fd}"));
            fd += 1;
        }
    }
    for _ in 0..2 {
        story.then(&format!("accept(3, ..., ...) = {fd}"));
        fd += 1;
    }
    match story.random.below(5) {
        0 => story.then("close(3) = 0"),
        1 => story.then("shutdown(3, SHUT_RD) = 0"),
        2 => story.then("close(4) = 0"),
        3 => story.peer("P.", 1, 100, Some(1)),
        _ => {}
    }
    story.at(1200, "%{ facts }%");
}
