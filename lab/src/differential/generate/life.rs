//! What may happen to a connection, and how it ends.

use super::Kind;
use crate::differential::story::Story;

/// One thing that happens in the middle of a life.
pub(super) fn step(story: &mut Story, kind: Kind) {
    let die = story.random.below(100);
    let (receive, send, option, error, close) = match kind {
        Kind::Receive => (70, 85, 90, 93, 100),
        Kind::Send => (10, 85, 90, 93, 100),
        Kind::Options => (25, 55, 90, 92, 100),
        Kind::Errors => (15, 45, 50, 95, 100),
        Kind::Timers => (10, 70, 90, 93, 100),
        _ => (25, 45, 50, 65, 100),
    };
    match die {
        _ if die < receive => receive_step(story),
        _ if die < send => send_step(story),
        _ if die < option => option_step(story),
        _ if die < error => error_step(story),
        _ if die < close => close_step(story),
        _ => story.facts(),
    }
}

fn payload(story: &mut Story) -> u32 {
    let mss = 1440;
    story.random.pick(&[1, 10, 100, 100, 500, 536, 1000, 1000, mss, mss])
}

fn receive_step(story: &mut Story) {
    let (len, fd, next) = (payload(story), story.fd, story.peer_nxt);
    let ack = Some(story.acked);
    match story.random.below(16) {
        0..=4 => {
            story.peer("P.", next, len, ack);
            story.peer_nxt += len;
        }
        5 => {
            for _ in 0..3 {
                let next = story.peer_nxt;
                story.peer(".", next, len, ack);
                story.peer_nxt += len;
            }
        }
        // A hole, filled later or never.
        6 | 7 => {
            let hole = payload(story);
            story.peer(".", next + hole, len, ack);
            if story.random.chance(60) {
                story.peer(".", next, hole, ack);
                story.peer_nxt += hole + len;
            }
        }
        8 => {
            // Beyond a hole, twice, touching or not.
            let hole = payload(story);
            let second = next + hole + len + story.random.pick(&[0, 100]);
            story.peer(".", next + hole, len, ack);
            story.peer(".", second, len, ack);
            story.peer(".", next + hole, len, ack);
        }
        9 => {
            let back = story.random.below(next.min(2000));
            story.peer("P.", next - back, len, ack);
            story.peer_nxt = story.peer_nxt.max(next - back + len);
        }
        10 => {
            let far = story.random.pick(&[30_000, 60_000, 65_535, 100_000]);
            story.peer(".", next + far, len, ack);
        }
        11 => story.peer(".", next.wrapping_sub(1), 0, ack),
        12 => {
            let len = story.random.pick(&[1, 100, 1000, 5000, 100_000]);
            story.then(&format!("recv({fd}, ..., {len}, MSG_DONTWAIT) = 0"));
        }
        13 => story.then(&format!("recv({fd}, ..., 100000, MSG_DONTWAIT) = 0")),
        14 => story.then(&format!("ioctl({fd}, SIOCINQ, [0]) = 0")),
        _ => {
            story.then(&format!("poll([{{fd={fd}, events=POLLIN|POLLOUT|POLLRDHUP, revents=0}}], 1, 0) = 0"))
        }
    }
}

fn send_step(story: &mut Story) {
    let fd = story.fd;
    match story.random.below(16) {
        0..=3 => {
            // A full send buffer is left alone: Linux counts its memory in pages and headers, the stack in bytes.
            let room = 20_000_u32.saturating_sub(story.host_nxt.wrapping_sub(story.acked));
            let len = story.random.pick(&[1, 10, 100, 1000, 1460, 3000, 10_000, 15_000]).min(room.max(1));
            let flags =
                story.random.pick(&["MSG_DONTWAIT", "MSG_DONTWAIT", "MSG_DONTWAIT", "MSG_DONTWAIT|MSG_MORE"]);
            story.then(&format!("send({fd}, ..., {len}, {flags}|MSG_NOSIGNAL) = 0"));
            story.host_nxt += len;
        }
        // Everything, or a part of it.
        4..=6 => {
            let outstanding = story.host_nxt - story.acked;
            let part = match story.random.below(4) {
                0 => outstanding.min(story.mss),
                1 => story.random.below(outstanding + 1),
                2 => outstanding.min(10 * story.mss),
                _ => outstanding,
            };
            story.acked += part;
            let (next, acked) = (story.peer_nxt, story.acked);
            story.peer(".", next, 0, Some(acked));
        }
        7 => {
            let (next, acked) = (story.peer_nxt, story.acked);
            for _ in 0..3 {
                story.peer(".", next, 0, Some(acked));
            }
        }
        // SACK: one or two blocks at segment borders, in what is outstanding.
        8..=11 => {
            let mss = story.mss.min(1448);
            let (acked, segments) = (story.acked, (story.host_nxt - story.acked).div_ceil(mss).min(12));
            let first = 1 + story.random.below(segments.max(2));
            let len = 1 + story.random.below(3);
            let (start, end) = (acked + first * mss, acked + (first + len) * mss);
            if story.random.chance(25) {
                let (start2, end2) = (end + mss, end + 2 * mss);
                story.peer_sack(acked, &format!("{start2}:{end2} {start}:{end}"));
            } else {
                story.peer_sack(acked, &format!("{start}:{end}"));
            }
        }
        // DSACK
        12 => {
            let (acked, mss) = (story.acked, story.mss.min(1448));
            let start = acked.saturating_sub(mss).max(1);
            story.peer_sack(acked, &format!("{start}:{acked}"));
        }
        13 => {
            story.win = story.random.pick(&[0, 0, 1, 10, 100, 500, 1000, 3000, 20_000, 65_535]);
            let (next, acked) = (story.peer_nxt, story.acked);
            story.peer(".", next, 0, Some(acked));
        }
        14 => {
            let wrong = story.random.pick(&[story.host_nxt + 1000, story.acked.wrapping_sub(1000), 1, 0]);
            let next = story.peer_nxt;
            story.peer(".", next, 0, Some(wrong));
        }
        _ => story.at(450, &format!("ioctl({fd}, SIOCOUTQ, [0]) = 0")),
    }
}

fn option_step(story: &mut Story) {
    let fd = story.fd;
    let options = [
        ("SOL_TCP", "TCP_NODELAY", "1"),
        ("SOL_TCP", "TCP_NODELAY", "0"),
        ("SOL_TCP", "TCP_CORK", "1"),
        ("SOL_TCP", "TCP_CORK", "0"),
        ("SOL_TCP", "TCP_QUICKACK", "1"),
        ("SOL_TCP", "TCP_QUICKACK", "0"),
        ("SOL_TCP", "TCP_USER_TIMEOUT", "300"),
        ("SOL_TCP", "TCP_USER_TIMEOUT", "1000"),
        ("SOL_TCP", "TCP_USER_TIMEOUT", "0"),
        ("SOL_TCP", "TCP_LINGER2", "1"),
        ("SOL_TCP", "TCP_LINGER2", "-1"),
        ("SOL_TCP", "TCP_LINGER2", "200"),
        ("SOL_TCP", "TCP_KEEPIDLE", "1"),
        ("SOL_TCP", "TCP_KEEPINTVL", "1"),
        ("SOL_TCP", "TCP_KEEPCNT", "1"),
        ("SOL_TCP", "TCP_KEEPIDLE", "0"),
        ("SOL_SOCKET", "SO_KEEPALIVE", "1"),
        ("SOL_SOCKET", "SO_KEEPALIVE", "0"),
        ("SOL_TCP", "TCP_WINDOW_CLAMP", "2000"),
        ("SOL_TCP", "TCP_WINDOW_CLAMP", "0"),
        ("SOL_TCP", "TCP_MAXSEG", "400"),
        ("SOL_TCP", "TCP_MAXSEG", "10"),
        ("SOL_TCP", "TCP_NOTSENT_LOWAT", "1000"),
        ("SOL_TCP", "TCP_DEFER_ACCEPT", "5"),
        ("SOL_TCP", "TCP_SYNCNT", "200"),
        ("SOL_TCP", "TCP_THIN_LINEAR_TIMEOUTS", "1"),
        ("SOL_TCP", "TCP_RTO_MAX_MS", "1000"),
        ("SOL_TCP", "TCP_RTO_MIN_US", "100000"),
        ("SOL_TCP", "TCP_DELACK_MAX_US", "20000"),
        ("SOL_SOCKET", "SO_RCVBUF", "4096"),
        ("SOL_SOCKET", "SO_RCVBUF", "300000"),
        ("SOL_SOCKET", "SO_RCVLOWAT", "2000"),
    ];
    let read = [
        "TCP_NODELAY",
        "TCP_CORK",
        "TCP_QUICKACK",
        "TCP_MAXSEG",
        "TCP_LINGER2",
        "TCP_USER_TIMEOUT",
        "TCP_KEEPIDLE",
    ];
    match story.random.below(10) {
        0 => {
            let name = story.random.pick(&read);
            story.then(&format!("getsockopt({fd}, SOL_TCP, {name}, [0], [4]) = 0"));
        }
        1 => {
            let name = story.random.pick(&["SO_ERROR", "SO_RCVBUF", "SO_SNDBUF", "SO_RCVLOWAT"]);
            story.then(&format!("getsockopt({fd}, SOL_SOCKET, {name}, [0], [4]) = 0"));
        }
        2 => {
            let name = story.random.pick(&["reno", "cubic", "none"]);
            story.then(&format!("setsockopt({fd}, SOL_TCP, TCP_CONGESTION, \"{name}\", {}) = 0", name.len()));
        }
        _ => {
            let (level, name, value) = story.random.pick(&options);
            story.then(&format!("setsockopt({fd}, {level}, {name}, [{value}], 4) = 0"));
        }
    }
}

fn error_step(story: &mut Story) {
    let (fd, next, acked) = (story.fd, story.peer_nxt, story.acked);
    match story.random.below(16) {
        0..=2 => {
            let code = unreachable_code(story);
            story.then(&format!("< icmp unreachable {code} [{acked}:{}(100)]", acked + 100));
        }
        3 => {
            let mtu = story.random.pick(&[1400, 1200, 576, 552, 100, 68, 0, 2000]);
            let kind = if story.v6 { "packet_too_big" } else { "unreachable frag_needed" };
            story.then(&format!("< icmp {kind} mtu {mtu} [{acked}:{}(1000)]", acked + 1000));
        }
        4 => {
            let code = unreachable_code(story);
            story.then(&format!("< icmp unreachable {code} [{}:{}(100)]", acked + 90_000, acked + 90_100));
        }
        5 => story.then(&format!("setsockopt({fd}, SOL_IP, IP_RECVERR, [1], 4) = 0")),
        6 => story.then(&format!("getsockopt({fd}, SOL_SOCKET, SO_ERROR, [0], [4]) = 0")),
        7 => {
            let odd = story.random.pick(&[1, 5, 1000]);
            story.peer("R", next + odd, 0, None);
        }
        8 => story.peer("R", next.wrapping_sub(1), 0, None),
        9 => story.peer("R.", next + 70_000, 0, Some(acked)),
        10 => story.peer("S", next, 0, None),
        11 => story.peer("S.", next.wrapping_sub(1), 0, Some(acked)),
        12 => {
            let len = payload(story);
            story.peer("-", next, len, None);
        }
        13 => {
            let flags = story.random.pick(&["SF", "SR", "FR.", "SF.", "FP", "UP.", "SFRP.", "F"]);
            story.peer(flags, next, 0, flags.contains('.').then_some(acked));
        }
        14 => story.then("< icmp time_exceeded [1:101(100)]"),
        _ => {
            let len = payload(story);
            let wrong = story.host_nxt + 5000;
            story.peer("P.", next, len, Some(wrong));
        }
    }
}

pub(super) fn unreachable_code(story: &mut Story) -> &'static str {
    let v4 = [
        "net_unreachable",
        "host_unreachable",
        "port_unreachable",
        "protocol_unreachable",
        "host_prohibited",
    ];
    let v6 = ["no_route", "address_unreachable", "port_unreachable", "admin_prohibited"];
    if story.v6 { story.random.pick(&v6) } else { story.random.pick(&v4) }
}

fn close_step(story: &mut Story) {
    let (fd, next, acked) = (story.fd, story.peer_nxt, story.acked);
    match story.random.below(19) {
        0 => story.then(&format!("shutdown({fd}, SHUT_RD) = 0")),
        1 | 2 => {
            story.then(&format!("shutdown({fd}, SHUT_WR) = 0"));
            story.host_nxt += 1;
        }
        3 => {
            story.then(&format!("shutdown({fd}, SHUT_RDWR) = 0"));
            story.host_nxt += 1;
        }
        4 => {
            story.then(&format!("close({fd}) = 0"));
            story.host_nxt += 1;
        }
        5 | 6 => {
            story.peer("F.", next, 0, Some(acked));
            story.peer_nxt += 1;
        }
        7 => {
            let len = payload(story);
            story.peer("FP.", next, len, Some(acked));
            story.peer_nxt += len + 1;
        }
        8 => {
            let hole = payload(story);
            story.peer("F.", next + hole, 0, Some(acked));
        }
        9 => story.peer("R", next, 0, None),
        10 => story.peer("R.", next, 0, Some(acked)),
        11..=13 => {
            story.acked = story.host_nxt;
            let acked = story.acked;
            story.peer(".", next, 0, Some(acked));
        }
        14 => story.then(&format!("recv({fd}, ..., 100000, MSG_DONTWAIT) = 0")),
        15 => {
            story.then(&format!("send({fd}, ..., 100, MSG_DONTWAIT|MSG_NOSIGNAL) = 0"));
            story.host_nxt += 100;
        }
        16 => {
            let len = payload(story);
            story.peer("P.", next, len, Some(acked));
            story.peer_nxt += len;
        }
        17 => story.then(&format!("setsockopt({fd}, SOL_SOCKET, SO_LINGER, {{onoff=1, linger=0}}, 8) = 0")),
        _ => story.then(&format!("getsockopt({fd}, SOL_SOCKET, SO_ERROR, [0], [4]) = 0")),
    }
}

/// The application goes, the peer reacts in some way.
pub(super) fn end(story: &mut Story) {
    let fd = story.fd;
    if story.random.chance(15) {
        story.then(&format!("setsockopt({fd}, SOL_SOCKET, SO_LINGER, {{onoff=1, linger=1}}, 8) = 0"));
    }
    story.then(&format!("close({fd}) = 0"));
    story.host_nxt += 1;
    for _ in 0..1 + story.random.below(5) {
        let (next, host_nxt, acked) = (story.peer_nxt, story.host_nxt, story.acked);
        match story.random.below(12) {
            0..=3 => {
                story.acked = host_nxt;
                story.peer(".", next, 0, Some(host_nxt));
            }
            4..=6 => {
                story.acked = host_nxt;
                story.peer("F.", next, 0, Some(host_nxt));
                story.peer_nxt += 1;
            }
            7 => {
                story.peer("F.", next, 0, Some(acked));
                story.peer_nxt += 1;
            }
            8 => {
                let len = payload(story);
                story.peer("P.", next, len, Some(acked));
            }
            9 => story.peer("R", next, 0, None),
            10 => {
                let (win, ahead) = (story.win.max(1000), story.random.pick(&[0, 1, 1000]));
                let options = story.syn_options();
                story.then(&format!("< S {}:{}(0) win {win}{options}", next + ahead, next + ahead));
            }
            _ => story.peer("F.", next.wrapping_sub(1), 0, Some(host_nxt)),
        }
    }
}
