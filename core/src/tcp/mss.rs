//! The peer's maximum segment size: what it offers, and what counts where it offers none.
//!
//! Rules:   RFC 9293 3.7.1. Linux: `tcp_parse_options`, `tcp_connect_init`.

use core::net::IpAddr;

use crate::sysctl::Sysctl;
use crate::tcp::options::TcpOptions;

/// RFC 9293 3.7.1: "If an MSS Option is not received at connection setup, … 536" (Linux `TCP_MSS_DEFAULT`).
pub(crate) const MSS_DEFAULT: u16 = 536;
/// Linux `tcp_request_sock_ipv6_ops`, `tcp_v6_connect()`: `IPV6_MIN_MTU` without the headers.
const MSS_DEFAULT_V6: u16 = 1280 - 60;

/// The MSS of a peer that has offered none.
pub(crate) fn default_mss(remote: IpAddr) -> u16 {
    if remote.is_ipv4() { MSS_DEFAULT } else { MSS_DEFAULT_V6 }
}

/// The peer's MSS as Linux takes it: what it offers, at most `TCP_MAXSEG`; `missing` when there is none, whatever `TCP_MAXSEG`
/// says; at least `tcp_min_snd_mss`.
pub(crate) fn checked_mss(offered: Option<u16>, missing: u16, options: &TcpOptions, sysctl: &Sysctl) -> u16 {
    // Linux `tcp_parse_options`: an MSS of 0 counts as missing.
    let offered = offered.filter(|mss| *mss != 0);
    let mss = offered.map_or(missing, |mss| options.maxseg.map_or(mss, |maxseg| mss.min(maxseg)));
    mss.max(sysctl.tcp_min_snd_mss.min(65_535) as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mss_of_a_peer_that_announces_none_is_the_familys() {
        let (options, sysctl) = (TcpOptions::default(), Sysctl::default());
        for (remote, missing) in [("192.0.2.1", 536), ("2001:db8::1", 1220)] {
            let missing_mss = default_mss(remote.parse().expect("an address"));
            for offered in [None, Some(0)] {
                assert_eq!(
                    checked_mss(offered, missing_mss, &options, &sysctl),
                    missing,
                    "{remote} {offered:?}"
                );
            }
            assert_eq!(checked_mss(Some(1000), missing_mss, &options, &sysctl), 1000, "{remote}");
        }
        let options = TcpOptions { maxseg: Some(500), ..TcpOptions::default() };
        assert_eq!(checked_mss(None, 536, &options, &sysctl), 536, "TCP_MAXSEG bounds what is offered");
        assert_eq!(checked_mss(Some(1000), 536, &options, &sysctl), 500);
    }
}
