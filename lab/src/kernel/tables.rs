//! What Linux says about its sockets: `TCP_INFO`, `SO_MEMINFO`, `/proc/net/tcp`, the MIB counters.

use core::net::{IpAddr, SocketAddr};

use lastack_core::observe::TimerKind;
use lastack_core::tcp::state::TcpState;

use crate::script::assertion::{Value, Variables};
use crate::sys;
use crate::target::{Fd, SocketFacts, TargetError};
use crate::tcp_info;

const MEMINFO: [&str; 9] = [
    "SK_MEMINFO_RMEM_ALLOC",
    "SK_MEMINFO_RCVBUF",
    "SK_MEMINFO_WMEM_ALLOC",
    "SK_MEMINFO_SNDBUF",
    "SK_MEMINFO_FWD_ALLOC",
    "SK_MEMINFO_WMEM_QUEUED",
    "SK_MEMINFO_OPTMEM",
    "SK_MEMINFO_BACKLOG",
    "SK_MEMINFO_DROPS",
];
/// Linux `SO_MEMINFO`.
const SO_MEMINFO: i32 = 55;

pub(super) fn socket_info(fd: Fd) -> Result<Variables, TargetError> {
    let failed = |errno| TargetError(format!("TCP_INFO: {}", sys::os_error(errno)));
    let info = sys::get_option(fd.0, libc::IPPROTO_TCP, libc::TCP_INFO, tcp_info::SIZE).map_err(failed)?;
    let named = |(name, value)| (format!("tcpi_{name}"), Value::Int(i128::from(value)));
    let mut facts: Variables = tcp_info::parse(&info).into_iter().map(named).collect();
    let memory = sys::get_option(fd.0, libc::SOL_SOCKET, SO_MEMINFO, 36).map_err(failed)?;
    for (name, bytes) in MEMINFO.iter().zip(memory.chunks_exact(4)) {
        let value = u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        facts.insert((*name).to_owned(), Value::Int(i128::from(value)));
    }
    Ok(facts)
}

fn read(file: &str) -> Result<String, TargetError> {
    // `/proc/net` is the process's first thread's; this thread has a namespace of its own.
    let path = format!("/proc/thread-self/net/{file}");
    std::fs::read_to_string(&path).map_err(|error| TargetError(format!("cannot read {path}: {error}")))
}

pub(super) fn socket_state(
    local: SocketAddr,
    remote: SocketAddr,
) -> Result<Option<SocketFacts>, TargetError> {
    for file in ["tcp", "tcp6"] {
        let Ok(table) = read(file) else { continue };
        for line in table.lines().skip(1) {
            let fields: Vec<&str> = line.split_ascii_whitespace().collect();
            let (Some(from), Some(to)) = (fields.get(1), fields.get(2)) else { continue };
            if address(from) != Some(local) || address(to) != Some(remote) {
                continue;
            }
            return facts(&fields).map(Some);
        }
    }
    Ok(None)
}

fn facts(fields: &[&str]) -> Result<SocketFacts, TargetError> {
    let broken = || TargetError("/proc/net/tcp has another format".to_owned());
    let state = fields.get(3).and_then(|hex| u8::from_str_radix(hex, 16).ok()).ok_or_else(broken)?;
    let timer = fields.get(5).and_then(|field| field.split(':').next()).ok_or_else(broken)?;
    let timer = match timer {
        "01" => Some(TimerKind::On),
        "02" => Some(TimerKind::Keepalive),
        "03" => Some(TimerKind::TimeWait),
        "04" => Some(TimerKind::Persist),
        _ => None,
    };
    Ok(SocketFacts { state: TcpState::from_number(state).ok_or_else(broken)?, timer })
}

/// `0100A8C0:1F90`: words in memory order, the port in hexadecimal. IPv4-mapped addresses in IPv4 form.
fn address(text: &str) -> Option<SocketAddr> {
    let (host, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |hex: &str| u32::from_str_radix(hex, 16).ok().map(u32::to_ne_bytes);
    let ip = match host.len() {
        8 => IpAddr::from(word(host)?),
        32 => {
            let mut octets = [0; 16];
            for (at, chunk) in octets.chunks_mut(4).enumerate() {
                chunk.copy_from_slice(&word(host.get(8 * at..8 * at + 8)?)?);
            }
            IpAddr::from(octets).to_canonical()
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

pub(super) fn counter(name: &str) -> Result<u64, TargetError> {
    for file in ["snmp", "netstat"] {
        let table = read(file)?;
        let lines: Vec<&str> = table.lines().collect();
        for pair in lines.chunks(2) {
            let [names, values] = pair else { continue };
            let Some((group, names)) = names.split_once(": ") else { continue };
            let Some(field) = name.strip_prefix(group) else { continue };
            let values = values.split_once(": ").map_or("", |(_, values)| values).split(' ');
            if let Some((_, value)) = names.split(' ').zip(values).find(|(known, _)| *known == field) {
                return value.parse().map_err(|_| TargetError(format!("{name} is not a count: {value}")));
            }
        }
    }
    Err(TargetError(format!("this kernel has no counter {name}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_proc_net_tcp_are_read() {
        assert_eq!(address("0100A8C0:1F90"), Some("192.168.0.1:8080".parse().unwrap()));
        assert_eq!(address("0000000000000000FFFF00000100A8C0:0050"), Some("192.168.0.1:80".parse().unwrap()));
        assert_eq!(address("0100A8C0"), None);
    }

    #[test]
    fn a_mini_socket_line_is_read() {
        let line = "1: 0100090A:1FA7 0200090A:2328 05 00000000:00000000 03:00001765 00000000 0 0 0 3 0";
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let expected = SocketFacts { state: TcpState::FinWait2, timer: Some(TimerKind::TimeWait) };
        assert_eq!(facts(&fields), Ok(expected));
    }
}
