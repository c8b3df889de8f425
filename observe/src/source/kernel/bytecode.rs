//! Filters as the kernel runs them: `inet_diag`'s byte code, so that only wanted sockets are copied out.
//!
//! A program is a list of `inet_diag_bc_op {u8 code, u8 yes, u16 no}`: on a match go `yes` bytes on, else
//! `no`. Falling off the end accepts, jumping 4 past the end rejects (Linux: `inet_diag_bc_run`).
//!
//! Input:   the expression's conjuncts. Output: a program for those the kernel can judge; the rest is
//!          left to [`Expr::matches`].

use std::net::IpAddr;

use crate::filter::{Cmp, Cond, End, Expr, Host};

const JMP: u8 = 1;
const S_GE: u8 = 2;
const S_LE: u8 = 3;
const D_GE: u8 = 4;
const D_LE: u8 = 5;
const S_COND: u8 = 7;
const D_COND: u8 = 8;
const DEV_COND: u8 = 9;
const S_EQ: u8 = 11;
const D_EQ: u8 = 12;
const CGROUP_COND: u8 = 13;

/// A program longer than this cannot be addressed by its 16-bit jumps.
const MAX_PROGRAM: usize = 60_000;

/// A filter cut in two: what the kernel judges, and what is judged here.
#[derive(Debug)]
pub(super) struct Compiled {
    /// The program; empty when there is nothing the kernel could judge.
    pub(super) program: Vec<u8>,
    /// What `program` says, for a kernel that refuses it.
    pub(super) there: Expr,
    /// What is left to do here.
    pub(super) here: Expr,
}

/// Cuts `expr` in two.
pub(super) fn compile(expr: &Expr) -> Compiled {
    let mut done = Compiled { program: Vec::new(), there: Expr::All, here: Expr::All };
    for part in expr.clone().conjuncts() {
        match code(&part) {
            Some(more) if done.program.len() + more.len() <= MAX_PROGRAM => {
                done.program = and(done.program, more);
                done.there = done.there.and(part);
            }
            _ => done.here = done.here.and(part),
        }
    }
    done
}

fn code(expr: &Expr) -> Option<Vec<u8>> {
    match expr {
        Expr::All => Some(Vec::new()),
        Expr::Nothing => Some(not(Vec::new())),
        Expr::Not(inner) => Some(not(code(inner)?)),
        Expr::And(left, right) => Some(and(code(left)?, code(right)?)),
        Expr::Or(left, right) => {
            let (left, right) = (code(left)?, code(right)?);
            (left.len() + right.len() < MAX_PROGRAM).then(|| or(left, right))
        }
        Expr::Cond(cond) => condition(cond),
    }
}

fn condition(cond: &Cond) -> Option<Vec<u8>> {
    match cond {
        Cond::Port(end, cmp, port) => Some(port_op(*end, *cmp, *port)),
        Cond::Host(end, host) => Some(host_op(*end, host)),
        Cond::Dev(index) => Some(op_with(DEV_COND, &index.to_ne_bytes())),
        Cond::Cgroup(id) => Some(op_with(CGROUP_COND, &id.to_ne_bytes())),
        // Needs CAP_NET_ADMIN in the kernel; done here, on the mark we were given.
        Cond::Mark { .. } => None,
        Cond::State(_)
        | Cond::Autobound(..)
        | Cond::Pid(_)
        | Cond::Process(_)
        | Cond::Timer(_)
        | Cond::RecvQ(..)
        | Cond::SendQ(..)
        | Cond::Age(..)
        | Cond::Uid(_)
        | Cond::Cookie(_)
        | Cond::Orphan => None,
    }
}

fn port_op(end: End, cmp: Cmp, port: u16) -> Vec<u8> {
    let (ge, le, eq) = match end {
        End::Local => (S_GE, S_LE, S_EQ),
        End::Peer => (D_GE, D_LE, D_EQ),
    };
    // The port sits where a second op's `no` would be.
    let [low, high] = port.to_ne_bytes();
    let op = |code| op_with(code, &[0, 0, low, high]);
    match cmp {
        Cmp::Eq => op(eq),
        Cmp::Ne => not(op(eq)),
        Cmp::Ge => op(ge),
        Cmp::Le => op(le),
        Cmp::Gt => not(op(le)),
        Cmp::Lt => not(op(ge)),
    }
}

/// `inet_diag_hostcond {u8 family, u8 prefix_len, u16 pad, i32 port (-1 any), addr[]}`.
fn host_op(end: End, host: &Host) -> Vec<u8> {
    const AF_UNSPEC: u8 = 0;
    const AF_INET: u8 = 2;
    const AF_INET6: u8 = 10;
    let (family, length, address): (u8, u8, Vec<u8>) = match (host.prefix, host.family) {
        (Some((IpAddr::V4(a), length)), _) => (AF_INET, length, a.octets().to_vec()),
        (Some((IpAddr::V6(a), length)), _) => (AF_INET6, length, a.octets().to_vec()),
        (None, Some(4)) => (AF_INET, 0, vec![0; 4]),
        (None, Some(_)) => (AF_INET6, 0, vec![0; 16]),
        (None, None) => (AF_UNSPEC, 0, Vec::new()),
    };
    let mut body = vec![family, length, 0, 0];
    body.extend(host.port.map_or(-1, i32::from).to_ne_bytes());
    body.extend(address);
    op_with(if end == End::Local { S_COND } else { D_COND }, &body)
}

/// One op with its operand: a match goes on behind it, a miss rejects.
fn op_with(code: u8, operand: &[u8]) -> Vec<u8> {
    let length = u8::try_from(4 + operand.len()).expect("operands are at most 24 bytes");
    let mut op = vec![code, length, 0, 0];
    op[2..4].copy_from_slice(&(u16::from(length) + 4).to_ne_bytes());
    op.extend(operand);
    op
}

fn jump(no: usize) -> [u8; 4] {
    let [low, high] = u16::try_from(no).expect("programs are bounded by MAX_PROGRAM").to_ne_bytes();
    [JMP, 4, low, high]
}

/// Every jump that rejected by leaving `program` now leaves `more` bytes later.
fn extend_rejects(program: &mut [u8], more: usize) {
    let end = program.len();
    let mut at = 0;
    while at < end {
        let no = usize::from(u16::from_ne_bytes([program[at + 2], program[at + 3]]));
        if at + no == end + 4 {
            let no = u16::try_from(no + more).expect("programs are bounded by MAX_PROGRAM");
            program[at + 2..at + 4].copy_from_slice(&no.to_ne_bytes());
        }
        at += usize::from(program[at + 1]);
    }
}

fn and(mut left: Vec<u8>, right: Vec<u8>) -> Vec<u8> {
    extend_rejects(&mut left, right.len());
    left.extend(right);
    left
}

/// `left`; accepted: jump over `right`; rejected: land on `right`, 4 bytes behind `left`'s end.
fn or(mut left: Vec<u8>, right: Vec<u8>) -> Vec<u8> {
    left.extend(jump(right.len() + 4));
    left.extend(right);
    left
}

/// `inner`; accepted: jump 4 past the end; rejected: land exactly on the end.
fn not(mut inner: Vec<u8>) -> Vec<u8> {
    inner.extend(jump(8));
    inner
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::Filter;

    /// The kernel's loop, on a socket of which only ports matter.
    fn run(program: &[u8], sport: u16, dport: u16) -> bool {
        let (mut at, end) = (0usize, program.len());
        while at < end {
            let word = |i: usize| u16::from_ne_bytes([program[i], program[i + 1]]);
            let yes = match program[at] {
                JMP => false,
                S_EQ => sport == word(at + 6),
                D_EQ => dport == word(at + 6),
                S_GE => sport >= word(at + 6),
                S_LE => sport <= word(at + 6),
                D_GE => dport >= word(at + 6),
                D_LE => dport <= word(at + 6),
                other => panic!("op {other} in a test of ports"),
            };
            at += if yes { usize::from(program[at + 1]) } else { usize::from(word(at + 2)) };
        }
        at == end
    }

    #[test]
    fn programs_decide_as_the_expression_does() {
        for text in [
            "sport = :1",
            "sport != :1",
            "sport = :1 dport = :2",
            "sport = :1 or dport = :2",
            "not ( sport = :1 or dport = :2 )",
            "( sport = :1 or sport = :2 ) and not ( dport = :1 and sport = :2 )",
            "not not sport > :1",
            "sport < :2 or ( dport >= :2 and ! dport = :3 ) or sport = :3",
        ] {
            let expr = Filter::parse(&[text]).expect(text).expr;
            let Compiled { program, here, .. } = compile(&expr);
            assert_eq!(here, Expr::All, "{text}: all of it compiles");
            for (sport, dport) in (0..5).flat_map(|s| (0..5).map(move |d| (s, d))) {
                assert_eq!(
                    run(&program, sport, dport),
                    decide(&expr, sport, dport),
                    "{text} on {sport} {dport}"
                );
            }
        }
    }

    fn decide(expr: &Expr, sport: u16, dport: u16) -> bool {
        match expr {
            Expr::All => true,
            Expr::Nothing => false,
            Expr::Not(inner) => !decide(inner, sport, dport),
            Expr::And(l, r) => decide(l, sport, dport) && decide(r, sport, dport),
            Expr::Or(l, r) => decide(l, sport, dport) || decide(r, sport, dport),
            Expr::Cond(Cond::Port(end, cmp, port)) => {
                let own = if *end == End::Local { sport } else { dport };
                match cmp {
                    Cmp::Eq => own == *port,
                    Cmp::Ne => own != *port,
                    Cmp::Ge => own >= *port,
                    Cmp::Le => own <= *port,
                    Cmp::Gt => own > *port,
                    Cmp::Lt => own < *port,
                }
            }
            Expr::Cond(other) => panic!("{other:?} in a test of ports"),
        }
    }

    #[test]
    fn what_the_kernel_cannot_judge_is_left_over() {
        let expr = Filter::parse(&["dst 10.0.0.0/8 sendq > 1 orphan"]).expect("parses").expr;
        let done = compile(&expr);
        assert_eq!(done.program.len(), 16);
        assert_eq!(done.here.conjuncts().len(), 2);
        // Or with an uncompilable side is wholly left over.
        let expr = Filter::parse(&["dst 10.0.0.0/8 or orphan"]).expect("parses").expr;
        assert!(compile(&expr).program.is_empty());
    }
}
