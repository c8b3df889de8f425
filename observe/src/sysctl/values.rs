//! Which values a knob takes, in either language: the units are a small vocabulary.

use std::borrow::Cow;

use super::Knob;
use crate::words::Lang;

/// Units and kinds.
const WORDS: &[(&str, &str)] = &[
    ("sockets", "套接字"),
    ("two ports", "两个端口"),
    ("names", "若干名称"),
    ("a name", "一个名称"),
    ("a shift", "移位数"),
    ("a divisor", "除数"),
    ("an exponent", "指数"),
    ("a sum of bits", "若干位之和"),
    ("one or two keys", "一个或两个密钥"),
    ("seconds", "秒"),
    ("milliseconds", "毫秒"),
    ("microseconds", "微秒"),
    ("nanoseconds", "纳秒"),
    ("bytes", "字节"),
    ("three numbers of bytes", "三个字节数"),
    ("three numbers of pages", "三个页数"),
    ("segments", "报文段"),
    ("ACKs a second", "每秒 ACK 数"),
    ("SACKs", "SACK 数"),
    ("buckets", "桶"),
    ("probes", "探测次数"),
    ("half-open connections", "半开连接"),
    ("mini sockets", "精简套接字"),
    ("per cent", "百分比"),
    ("replies", "应答次数"),
    ("of 256", "以 256 为分母"),
    ("rounds", "轮数"),
    ("time-outs", "超时次数"),
    ("repeats", "重发次数"),
    ("read only", "只读"),
];

impl Knob {
    /// Values it takes, with the unit.
    pub fn values_in(&self, lang: Lang) -> Cow<'static, str> {
        match lang {
            Lang::En => self.values.into(),
            Lang::Zh => self.values.split(", ").map(chinese).collect::<Vec<_>>().join("，").into(),
        }
    }
}

/// A unit, or a range: `0 to 2`, `0 or 1`.
fn chinese(part: &str) -> String {
    match WORDS.iter().find(|(en, _)| *en == part) {
        Some((_, zh)) => (*zh).to_owned(),
        None => part.replace(" to ", " 到 ").replace(" or ", " 或 "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sysctl::ALL;

    #[test]
    fn every_knobs_values_are_in_both_languages() {
        for knob in ALL {
            let zh = knob.values_in(Lang::Zh);
            let left: String = zh.replace("SACK", "").replace("ACK", "").replace("16M", "");
            assert!(!left.chars().any(|c| c.is_ascii_alphabetic()), "{}: {zh}", knob.name);
            assert_eq!(knob.values_in(Lang::En), knob.values);
        }
        assert_eq!(Knob::by_name("tcp_retries2").unwrap().values_in(Lang::Zh), "指数，0 到 255");
    }
}
