//! TCP Fast Open: data in the SYN, from a client that has been here before (RFC 7413).
//!
//! Owns:    the secrets that cookies are made with, what a client remembers of a server, how long it does without on a bad way,
//!          and what a child has while its handshake is not over.
//! Rules:   specification 4.6. Linux: `tcp_fastopen.c`, `tcp_metrics.c` (`tcp_fastopen_cache_get`, `_set`).
//! Not here: the option's bytes (`wire::tcp`), the listener's limit (`stack::fast_open`).

use core::hash::Hasher;
use core::net::IpAddr;

use crate::id::{FourTuple, ListenerId};
use crate::observe::Counters;
use crate::rng::HashKey;
use crate::sysctl::Sysctl;
use crate::tcp::half_open::HalfOpen;
use crate::time::{Duration, Instant};
use crate::wire::segment::{FastOpen, FastOpenCookie};

/// `tcp_fastopen`: a client may send a cookie and data.
pub(crate) const CLIENT: u32 = 0x1;
/// `tcp_fastopen`: a listener may take them.
pub(crate) const SERVER: u32 = 0x2;
/// `tcp_fastopen`: a client sends data without a cookie, too.
pub(crate) const CLIENT_NO_COOKIE: u32 = 0x4;
/// `tcp_fastopen`: a listener takes data without a cookie, too.
pub(crate) const SERVER_NO_COOKIE: u32 = 0x200;
/// `tcp_fastopen`: every listener takes it, for as many as its backlog.
pub(crate) const SERVER_ALWAYS: u32 = 0x400;

/// Secrets of cookies: the one they are made with, and the one before it, whose cookies still count.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct FastOpenKeys {
    primary: [u32; 4],
    backup: Option<[u32; 4]>,
}

impl FastOpenKeys {
    /// Nobody chose one: the stack's own secret serves.
    pub(crate) const UNSET: Self = Self { primary: [0; 4], backup: None };

    /// As `/proc/sys/net/ipv4/tcp_fastopen_key` takes it: four groups of hexadecimal digits with `-` between, or two such, with
    /// `,` between.
    pub fn parse(text: &str) -> Option<Self> {
        let key = |text: &str| {
            let mut words = text.split('-').map(|word| u32::from_str_radix(word, 16).ok());
            let key = [words.next()??, words.next()??, words.next()??, words.next()??];
            words.next().is_none().then_some(key)
        };
        match text.trim().split_once(',') {
            Some((primary, backup)) => Some(Self { primary: key(primary)?, backup: Some(key(backup)?) }),
            None => Some(Self { primary: key(text.trim())?, backup: None }),
        }
    }

    /// From the bytes of `TCP_FASTOPEN_KEY`: 16, or 32 with the second secret.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (words, rest) = bytes.as_chunks::<4>();
        let mut words = words.iter().map(|word| u32::from_le_bytes(*word));
        let mut key = || Some([words.next()?, words.next()?, words.next()?, words.next()?]);
        match (bytes.len(), rest.is_empty()) {
            (16, true) => Some(Self { primary: key()?, backup: None }),
            (32, true) => Some(Self { primary: key()?, backup: Some(key()?) }),
            _ => None,
        }
    }

    /// The bytes that [`FastOpenKeys::from_bytes`] takes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let words = self.primary.into_iter().chain(self.backup.into_iter().flatten());
        words.flat_map(u32::to_le_bytes).collect()
    }

    pub(crate) fn secret(first: u64, second: u64) -> Self {
        let halves = |word: u64| [word as u32, (word >> 32) as u32];
        let ([a, b], [c, d]) = (halves(first), halves(second));
        Self { primary: [a, b, c, d], backup: None }
    }

    /// The cookie of a client at `remote` for a listener at `local`.
    pub(crate) fn cookie(&self, tuple: &FourTuple) -> FastOpenCookie {
        cookie(&self.primary, tuple)
    }

    /// Linux `tcp_fastopen_cookie_gen_check`.
    pub(crate) fn check(&self, tuple: &FourTuple, given: &FastOpenCookie) -> Check {
        if cookie(&self.primary, tuple) == *given {
            Check::Valid
        } else if self.backup.is_some_and(|backup| cookie(&backup, tuple) == *given) {
            Check::ValidOfBackup
        } else {
            Check::Invalid
        }
    }
}

/// As `/proc/sys` prints it.
impl core::fmt::Display for FastOpenKeys {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let key = |f: &mut core::fmt::Formatter<'_>, [a, b, c, d]: [u32; 4]| {
            write!(f, "{a:08x}-{b:08x}-{c:08x}-{d:08x}")
        };
        key(f, self.primary)?;
        self.backup.map_or(Ok(()), |backup| f.write_str(",").and_then(|()| key(f, backup)))
    }
}

impl core::fmt::Debug for FastOpenKeys {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("FastOpenKeys(secret)")
    }
}

/// What a cookie is worth.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Check {
    Valid,
    /// Made with the secret before: the SYN-ACK brings a newer one.
    ValidOfBackup,
    Invalid,
}

/// Linux `__tcp_fastopen_cookie_gen_cipher`: SipHash-2-4 of both addresses as the SYN has them.
fn cookie(key: &[u32; 4], tuple: &FourTuple) -> FastOpenCookie {
    let word = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
    let mut hasher = HashKey::new(word(key[0], key[1]), word(key[2], key[3])).wire_hasher();
    for ip in [tuple.remote.ip(), tuple.local.ip()] {
        match ip {
            IpAddr::V4(ip) => hasher.write(&ip.octets()),
            IpAddr::V6(ip) => hasher.write(&ip.octets()),
        }
    }
    FastOpenCookie::new(&hasher.finish().to_le_bytes()).unwrap_or_default()
}

/// What a client remembers of a server (Linux `struct tcp_fastopen_metrics`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Remembered {
    /// The MSS it announced; 0: not known.
    pub(crate) mss: u16,
    /// Its cookie, in the form it came in; empty: none.
    pub(crate) given: FastOpen,
    /// A request in RFC 7413's form had no answer: 1, the experimental form is tried next; 2, that had none either.
    pub(crate) try_experiment: u8,
}

impl Remembered {
    /// Linux `tcp_fastopen_cache_set`.
    pub(crate) fn learn(&mut self, mss: u16, answer: Option<FastOpen>, try_experiment: u8) {
        if mss != 0 {
            self.mss = mss;
        }
        match answer {
            Some(answer) if !answer.cookie.is_empty() => self.given = answer,
            _ if try_experiment > self.try_experiment
                && self.given.cookie.is_empty()
                && !self.given.experimental =>
            {
                self.try_experiment = try_experiment;
            }
            _ => {}
        }
    }

    /// What the next SYN brings: the cookie, or the request for one.
    pub(crate) fn option(&self) -> FastOpen {
        let asks_by_experiment = self.given.cookie.is_empty() && self.try_experiment == 1;
        FastOpen { experimental: self.given.experimental || asks_by_experiment, ..self.given }
    }
}

/// Clients do without Fast Open for a while: something on the way seems to swallow it (Linux `tfo_active_disable_times`).
///
/// Rules: nothing without `tcp_fastopen_blackhole_timeout_sec`; each time in a row lasts twice as long, 64 times at most.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Pause {
    /// In a row, and when the last one began.
    times: u32,
    since: Instant,
}

impl Pause {
    /// Linux `tcp_fastopen_active_disable`.
    pub(crate) fn begin(&mut self, now: Instant, sysctl: &Sysctl, counters: &mut Counters) {
        if sysctl.tcp_fastopen_blackhole_timeout_sec != 0 {
            self.times = self.times.saturating_add(1);
            self.since = now;
            counters.tcp_fast_open_blackhole += 1;
        }
    }

    /// Linux `tcp_fastopen_active_should_disable`.
    pub(crate) fn holds(&self, now: Instant, sysctl: &Sysctl) -> bool {
        let once = Duration::from_secs(sysctl.tcp_fastopen_blackhole_timeout_sec.into());
        self.has_been() && now < self.since + once * (1 << (self.times - 1).min(6))
    }

    /// There was one: the next Fast Open that succeeds ends the row.
    pub(crate) fn has_been(&self) -> bool {
        self.times > 0
    }

    /// Fast Open works.
    pub(crate) fn forget(&mut self) {
        self.times = 0;
    }
}

/// How an active Fast Open failed (Linux `tcpi_fastopen_client_fail`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum ClientFail {
    #[default]
    Unspecified = 0,
    CookieUnavailable = 1,
    DataNotAcked = 2,
    SynRetransmitted = 3,
}

/// What a client's connection remembers of its Fast Open.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Attempt {
    /// The option of the first SYN; repeats have none.
    pub(crate) option: Option<FastOpen>,
    /// The first SYN had data.
    pub(crate) syn_data: bool,
    /// After a [`Pause`]: if it succeeds, the row of them ends (Linux `syn_fastopen_ch`).
    pub(crate) tests_the_way: bool,
    /// The application waits to send more (Linux `sk_write_pending`).
    pub(crate) more_follows: bool,
    pub(crate) fail: ClientFail,
}

/// A child that exists while its handshake is not over (Linux `fastopen_rsk`).
#[derive(Debug)]
pub(crate) struct Opening {
    pub(crate) half_open: HalfOpen,
    pub(crate) listener: ListenerId,
    /// The handshake is over, and the listener has to learn of it.
    pub(crate) over: Option<Over>,
}

/// How it ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Over {
    /// By the final ACK, or with the connection.
    Done,
    /// By the peer's RST: perhaps its address was forged.
    Reset,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tuple(remote: &str, local: &str) -> FourTuple {
        let at = |ip: &str| core::net::SocketAddr::new(ip.parse().expect("an address"), 1);
        FourTuple { remote: at(remote), local: at(local) }
    }

    /// Cookies that the kernel made with this secret, from the specification of the test language.
    #[test]
    fn cookies_are_the_kernels() {
        let text = "a1a1a1a1-b2b2b2b2-c3c3c3c3-d4d4d4d4";
        let keys = FastOpenKeys::parse(text).expect("a key");
        let hex = |cookie: FastOpenCookie| {
            cookie.as_slice().iter().map(|byte| format!("{byte:02x}")).collect::<String>()
        };
        assert_eq!(hex(keys.cookie(&tuple("192.0.2.1", "192.168.0.1"))), "3021b9d889017eeb");
        assert_eq!(hex(keys.cookie(&tuple("fd3d:fa7b:d17d::1", "fd3d:0a0b:17d6::1"))), "c1d1e9742a47a9bc");
        assert_eq!(keys.to_string(), text);
        assert_eq!(FastOpenKeys::from_bytes(&keys.to_bytes()), Some(keys));
    }

    #[test]
    fn the_secret_before_still_counts() {
        let keys = FastOpenKeys::parse("1-2-3-4,a1a1a1a1-b2b2b2b2-c3c3c3c3-d4d4d4d4").expect("two keys");
        let pair = tuple("192.0.2.1", "192.168.0.1");
        let old = FastOpenCookie::new(&0x3021_b9d8_8901_7eeb_u64.to_be_bytes()).expect("eight bytes");
        assert_eq!(keys.check(&pair, &old), Check::ValidOfBackup);
        assert_eq!(keys.check(&pair, &keys.cookie(&pair)), Check::Valid);
        assert_eq!(keys.check(&tuple("192.0.2.2", "192.168.0.1"), &old), Check::Invalid);
        for wrong in ["", "1-2-3", "1-2-3-4-5", "1-2-3-g", "1-2-3-4,"] {
            assert_eq!(FastOpenKeys::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_request_without_answer_is_tried_in_the_other_form_once() {
        let mut memory = Remembered::default();
        assert!(!memory.option().experimental);
        memory.learn(1460, None, 1);
        assert!(memory.option().experimental);
        memory.learn(1460, None, 2);
        assert!(!memory.option().experimental);
        let cookie = FastOpen { experimental: true, cookie: FastOpenCookie::new(&[7; 8]).expect("a cookie") };
        memory.learn(1400, Some(cookie), 0);
        assert_eq!((memory.option(), memory.mss), (cookie, 1400));
    }
}
