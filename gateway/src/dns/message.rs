//! The little of a DNS message that rules need: the question, the addresses in an answer, and a refusal.
//!
//! Rules:   RFC 1035 4; RFC 6891 (a refusal has an OPT record when the question had one); RFC 8914 (15, "Blocked").
//!          A permitted question and its answer pass as they are, bit for bit: truncation and EDNS are the resolver's.

use std::net::IpAddr;
use std::sync::Arc;

use simple_dns::rdata::{OPT, OPTCode, RData};
use simple_dns::{OPCODE, Packet, PacketFlag, QTYPE, RCODE, TYPE};

/// Extended DNS Error 15, "Blocked": the answer is withheld by the operator's policy.
const EDE: u16 = 15;
const BLOCKED: [u8; 2] = [0, 15];
/// What a refusal says it takes (DNS Flag Day 2020).
const UDP_SIZE: u16 = 1232;

/// A question with its name and type.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Question {
    /// In lower case, without a last dot; empty for the root.
    pub(crate) name: Arc<str>,
    /// `A`, `AAAA`, `HTTPS`, …; `TYPE65280` where it has no name.
    pub(crate) kind: Arc<str>,
    id: u16,
}

/// Reads a question. `None`: it is none that a resolver would answer.
pub(crate) fn question(bytes: &[u8]) -> Option<Question> {
    let packet = Packet::parse(bytes).ok()?;
    let [asked] = &packet.questions[..] else { return None };
    if packet.has_flags(PacketFlag::RESPONSE) || packet.opcode() != OPCODE::StandardQuery {
        return None;
    }
    let kind = match asked.qtype {
        QTYPE::TYPE(TYPE::Unknown(number)) => format!("TYPE{number}"),
        QTYPE::TYPE(kind) => format!("{kind:?}"),
        other => format!("{other:?}"),
    };
    Some(Question { name: lower(&asked.qname), kind: kind.into(), id: packet.id() })
}

fn lower(name: &simple_dns::Name<'_>) -> Arc<str> {
    name.to_string().trim_end_matches('.').to_ascii_lowercase().into()
}

/// What an answer comes to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Answer {
    /// `NOERROR`, `NXDOMAIN`, …
    pub(crate) rcode: &'static str,
    /// Its addresses.
    pub(crate) addresses: Vec<IpAddr>,
}

/// Reads the answer to `question`. `None`: it is not that.
pub(crate) fn answer(bytes: &[u8], question: &Question) -> Option<Answer> {
    let packet = Packet::parse(bytes).ok()?;
    let [asked] = &packet.questions[..] else { return None };
    if packet.id() != question.id
        || !packet.has_flags(PacketFlag::RESPONSE)
        || lower(&asked.qname) != question.name
    {
        return None;
    }
    let addresses = packet.answers.iter().filter_map(|record| match &record.rdata {
        RData::A(a) => Some(IpAddr::V4(a.address.into())),
        RData::AAAA(aaaa) => Some(IpAddr::V6(aaaa.address.into())),
        _ => None,
    });
    Some(Answer { rcode: rcode_name(packet.rcode()), addresses: addresses.collect() })
}

fn rcode_name(rcode: RCODE) -> &'static str {
    match rcode {
        RCODE::NoError => "NOERROR",
        RCODE::FormatError => "FORMERR",
        RCODE::ServerFailure => "SERVFAIL",
        RCODE::NameError => "NXDOMAIN",
        RCODE::NotImplemented => "NOTIMP",
        RCODE::Refused => "REFUSED",
        _ => "OTHER",
    }
}

/// The answer that there is no such name, because a rule says so. `None` for what is no question.
pub(crate) fn denied(query: &[u8]) -> Option<Vec<u8>> {
    reply(query, RCODE::NameError, true)
}

/// The answer that no resolver could be asked.
pub(crate) fn failed(query: &[u8]) -> Option<Vec<u8>> {
    reply(query, RCODE::ServerFailure, false)
}

fn reply(query: &[u8], rcode: RCODE, blocked: bool) -> Option<Vec<u8>> {
    let query = Packet::parse(query).ok()?;
    let mut reply = Packet::new_reply(query.id());
    reply.set_flags(PacketFlag::RECURSION_AVAILABLE);
    if query.has_flags(PacketFlag::RECURSION_DESIRED) {
        reply.set_flags(PacketFlag::RECURSION_DESIRED);
    }
    *reply.rcode_mut() = rcode;
    if query.opt().is_some() {
        let why = blocked.then(|| OPTCode { code: EDE, data: BLOCKED.to_vec().into() });
        let opt = OPT { opt_codes: why.into_iter().collect(), udp_packet_size: UDP_SIZE, version: 0 };
        *reply.opt_mut() = Some(opt);
    }
    reply.questions = query.questions;
    reply.build_bytes_vec().ok()
}

#[cfg(test)]
mod tests {
    use simple_dns::rdata::A;
    use simple_dns::{CLASS, Name, Question as Asked, ResourceRecord};

    use super::*;

    fn query(name: &str, edns: bool) -> Vec<u8> {
        let mut packet = Packet::new_query(77);
        packet.set_flags(PacketFlag::RECURSION_DESIRED);
        let name = Name::new_unchecked(name);
        packet.questions.push(Asked::new(name, TYPE::A.into(), CLASS::IN.into(), false));
        if edns {
            *packet.opt_mut() = Some(OPT { opt_codes: Vec::new(), udp_packet_size: 4096, version: 0 });
        }
        packet.build_bytes_vec().unwrap()
    }

    #[test]
    fn question_is_read_without_case() {
        let asked = question(&query("WWW.Example.test", false)).unwrap();
        assert_eq!((&*asked.name, &*asked.kind), ("www.example.test", "A"));
        assert_eq!(question(b"no message"), None);
    }

    #[test]
    fn denial_says_that_there_is_no_such_name_and_why() {
        let query = query("bad.test", true);
        let bytes = denied(&query).unwrap();
        let reply = Packet::parse(&bytes).unwrap();
        assert_eq!((reply.id(), reply.rcode()), (77, RCODE::NameError));
        assert!(reply.has_flags(PacketFlag::RESPONSE | PacketFlag::RECURSION_DESIRED));
        assert_eq!(reply.questions.len(), 1);
        let opt = reply.opt().expect("the question had one");
        assert_eq!((opt.opt_codes[0].code, &*opt.opt_codes[0].data), (15, &[0, 15][..]));
        assert_eq!(answer(&bytes, &question(&query).unwrap()).unwrap().rcode, "NXDOMAIN");
    }

    #[test]
    fn only_the_answer_to_the_question_counts() {
        let asked = question(&query("a.test", false)).unwrap();
        let reply = |id, name: &'static str| {
            let mut packet = Packet::new_reply(id);
            let name = Name::new_unchecked(name);
            packet.questions.push(Asked::new(name.clone(), TYPE::A.into(), CLASS::IN.into(), false));
            let rdata = RData::A(A { address: u32::from(std::net::Ipv4Addr::new(192, 0, 2, 7)) });
            packet.answers.push(ResourceRecord::new(name, CLASS::IN, 60, rdata));
            packet.build_bytes_vec().unwrap()
        };
        let good = answer(&reply(77, "a.test"), &asked).unwrap();
        assert_eq!(good.addresses, ["192.0.2.7".parse::<IpAddr>().unwrap()]);
        assert_eq!(answer(&reply(78, "a.test"), &asked), None, "another number");
        assert_eq!(answer(&reply(77, "b.test"), &asked), None, "another name");
        assert_eq!(answer(&query("a.test", false), &asked), None, "a question");
    }

    #[test]
    fn damaged_messages_are_no_questions_and_no_panic() {
        let bytes = query("a.test", true);
        for at in 0..bytes.len() {
            for flip in [1, 0x40, 0xff] {
                let mut damaged = bytes.clone();
                damaged[at] ^= flip;
                let _ = question(&damaged);
                let _ = denied(&damaged);
                let _ = question(&damaged[..at]);
            }
        }
    }
}
