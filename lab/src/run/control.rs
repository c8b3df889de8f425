//! Control messages of `recvmsg`: from a script's notation to values, and into words for a verdict.
//!
//! Rules: packet-script language, section 7 (CMSG).

use core::fmt::Write as _;
use core::time::Duration;

use super::Run;
use super::live::field;
use crate::script::ast::{Expr, Field};
use crate::script::print::{expr_text, seconds};
use crate::script::symbols::number;
use crate::target::{Control, ExtendedError};

/// `msg_control=[{cmsg_level=…, cmsg_type=…, cmsg_data=…}, …]`; nothing where it is not written. Times are the script's.
pub(super) fn control_of(fields: &[Field]) -> Result<Vec<Control>, String> {
    match field(fields, "msg_control") {
        Some(Expr::List(items)) => items.iter().map(one).collect(),
        Some(other) => Err(format!("msg_control: {} is not a list", expr_text(other))),
        None => Ok(Vec::new()),
    }
}

fn one(item: &Expr) -> Result<Control, String> {
    let Expr::Struct(message) = item else { return Err(format!("{} is not {{…}}", expr_text(item))) };
    let part =
        |of: &[Field], name: &str| field(of, name).map_or_else(|| Err(format!("{name} is missing")), number);
    let kind = (part(message, "cmsg_level")? as i32, part(message, "cmsg_type")? as i32);
    let data = field(message, "cmsg_data").ok_or("cmsg_data is missing")?;
    match (kind, data) {
        ((libc::IPPROTO_TCP, libc::TCP_CM_INQ), data) => Ok(Control::Inq(number(data)? as i32)),
        ((libc::SOL_IP, libc::IP_RECVERR) | (libc::SOL_IPV6, libc::IPV6_RECVERR), Expr::Struct(error)) => {
            let small = |name| part(error, name).map(|value| value as u8);
            Ok(Control::Error(ExtendedError {
                v6: kind.0 == libc::SOL_IPV6,
                errno: part(error, "ee_errno")? as u32,
                origin: small("ee_origin")?,
                kind: small("ee_type")?,
                code: small("ee_code")?,
                info: part(error, "ee_info")? as u32,
                data: part(error, "ee_data")? as u32,
            }))
        }
        ((libc::SOL_SOCKET, libc::SCM_TIMESTAMPING), Expr::Struct(stamp)) => {
            let (whole, nanos) = (part(stamp, "scm_sec")? as u64, part(stamp, "scm_nsec")? as u32);
            Ok(Control::Timestamp(Duration::new(whole, nanos)))
        }
        _ => Err("only TCP_CM_INQ, IP_RECVERR, IPV6_RECVERR and SCM_TIMESTAMPING are supported".to_owned()),
    }
}

impl Run<'_> {
    /// What was told, in words. A time within the tolerance of `other`'s is written as that one, a time of 0 is not compared.
    pub(super) fn control_text(&self, control: &[Control], other: &[Control]) -> String {
        let mut text = String::new();
        for (at, message) in control.iter().enumerate() {
            match message {
                Control::Inq(inq) => write!(text, " TCP_CM_INQ {inq}"),
                Control::Error(error) => write!(text, " {error:?}"),
                Control::Timestamp(time) => {
                    let time = self.script_time(*time);
                    let asked = match other.get(at) {
                        Some(Control::Timestamp(asked)) => self.script_time(*asked),
                        _ => time,
                    };
                    let near = time.abs_diff(asked) <= self.options.tolerance(Duration::ZERO);
                    if near || time.is_zero() || asked.is_zero() {
                        write!(text, " SCM_TIMESTAMPING")
                    } else {
                        write!(text, " SCM_TIMESTAMPING {}", seconds(time))
                    }
                }
            }
            .expect("a string takes what is written");
        }
        text
    }

    /// A live time in the script's, which begins with its first event; the script's own are below that.
    fn script_time(&self, time: Duration) -> Duration {
        if time < self.origin { time } else { time - self.origin }
    }
}
