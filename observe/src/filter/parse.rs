//! The grammar, with `ss`'s one surprise: `and` and `or` bind equally, from left to right
//! (`a or b and c` is `( a or b ) and c`, measured with iproute2 6.1). `and` may be left out.
//!
//! States come first and hold for all that follows, as in `ss`: `state a sport = :1 or sport = :2` is
//! `state a ( sport = :1 or sport = :2 )`. Further on, where `ss` takes none, a state is a condition like others.
//!
//! ```text
//! whole := { ("state" | "exclude") NAME } [list]
//! list  := unary { ["and" | "or"] unary }
//! unary := ("!" | "not") unary | "(" [list] ")" | condition
//! ```

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, ToSocketAddrs as _};

use lastack_core::observe::TimerKind;

use super::lex::{Token, tokens};
use super::{Cmp, Cond, End, Expr, Filter, Host, StateSet};

/// Why a filter is not one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FilterError {
    /// What is wrong, with the word that is.
    pub message: String,
    /// What would be right.
    pub hint: String,
}

impl fmt::Display for FilterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for FilterError {}

/// Parentheses deeper than this are no filter a person wrote.
const MAX_DEPTH: usize = 64;
const HINT: &str = "state fin-wait-1 dst 10.0.0.0/8 sport = :443";

impl Filter {
    /// Parses the words of a command line.
    ///
    /// # Errors
    /// A [`FilterError`] that names the word and shows a right one.
    ///
    /// # Example
    /// ```
    /// use lastack_observe::filter::Filter;
    /// assert!(Filter::parse(&["( dport = :443 or dport = :80 ) and not dst 127.0.0.0/8"]).is_ok());
    /// assert!(Filter::parse(&["dport = 99999"]).is_err());
    /// ```
    pub fn parse<S: AsRef<str>>(arguments: &[S]) -> Result<Self, FilterError> {
        let tokens = tokens(arguments);
        let mut parser = Parser { tokens: &tokens, at: 0, depth: 0 };
        let expr = parser.whole()?;
        if let Some(left) = parser.peek() {
            return Err(error(format!("`{}` closes nothing", spell(left)), HINT));
        }
        Ok(from_expr(expr))
    }
}

/// Takes the states out of the top-level conjunction, so that the source can be asked for them alone.
/// `state a state b` at the top is a union, as in `ss`; `exclude` takes away.
fn from_expr(expr: Expr) -> Filter {
    let mut wanted: Option<StateSet> = None;
    let mut excluded = StateSet::NONE;
    let mut rest = Expr::All;
    for part in expr.conjuncts() {
        match part {
            Expr::Cond(Cond::State(set)) => wanted = Some(wanted.unwrap_or(StateSet::NONE).or(set)),
            Expr::Not(inner) if matches!(*inner, Expr::Cond(Cond::State(_))) => {
                if let Expr::Cond(Cond::State(set)) = *inner {
                    excluded = excluded.or(set);
                }
            }
            other => rest = rest.and(other),
        }
    }
    // A state inside parentheses must find its sockets, whatever the default set is.
    let inside = rest.any(&|cond| matches!(cond, Cond::State(_)));
    let names_states = wanted.is_some() || excluded != StateSet::NONE || inside;
    let states = match wanted {
        Some(set) => set,
        None if names_states => StateSet::ALL,
        None => StateSet::CONNECTED,
    };
    Filter { states: states.and(excluded.complement()), names_states, expr: rest }
}

struct Parser<'a> {
    tokens: &'a [Token],
    at: usize,
    depth: usize,
}

impl Parser<'_> {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at)
    }

    fn next(&mut self) -> Option<Token> {
        let token = self.tokens.get(self.at).cloned();
        self.at += 1;
        token
    }

    fn take(&mut self, token: &Token) -> bool {
        let found = self.peek() == Some(token);
        self.at += usize::from(found);
        found
    }

    fn whole(&mut self) -> Result<Expr, FilterError> {
        let mut states: Option<StateSet> = None;
        while let Some(Token::Word(word)) = self.peek()
            && let named @ ("state" | "exclude") = word.as_str()
        {
            let exclude = named == "exclude";
            self.at += 1;
            let set = self.states(if exclude { "exclude" } else { "state" })?;
            // Linux iproute2 `misc/ss.c`, main(): one after the other.
            states = Some(if exclude {
                states.unwrap_or(StateSet::ALL).and(set.complement())
            } else {
                states.unwrap_or(StateSet::NONE).or(set)
            });
            if self.peek() == Some(&Token::And) {
                self.at += 1;
            }
        }
        if self.peek() == Some(&Token::Or) {
            // Not `ss`'s grammar: a state that is one of two conditions.
            self.at = 0;
            return self.list();
        }
        let all = states.map_or(Expr::All, |set| Expr::Cond(Cond::State(set)));
        Ok(if self.peek().is_some() { all.and(self.list()?) } else { all })
    }

    fn list(&mut self) -> Result<Expr, FilterError> {
        let mut left = self.unary()?;
        loop {
            match self.peek() {
                None | Some(Token::Close) => return Ok(left),
                Some(Token::Or) => {
                    self.at += 1;
                    left = Expr::Or(Box::new(left), Box::new(self.unary()?));
                }
                _ => {
                    self.take(&Token::And);
                    left = left.and(self.unary()?);
                }
            }
        }
    }

    fn unary(&mut self) -> Result<Expr, FilterError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(error("the filter is nested too deeply".to_owned(), HINT));
        }
        let expr = match self.next() {
            Some(Token::Not) => Ok(Expr::Not(Box::new(self.unary()?))),
            Some(Token::Open) if self.take(&Token::Close) => Ok(Expr::All),
            Some(Token::Open) => {
                let inner = self.list()?;
                if self.take(&Token::Close) {
                    Ok(inner)
                } else {
                    Err(error("a parenthesis is not closed".to_owned(), "( dport = :80 or dport = :443 )"))
                }
            }
            Some(Token::Word(word)) => self.condition(&word),
            Some(other) => Err(error(format!("`{}` stands where a condition should", spell(&other)), HINT)),
            None => Err(error("the filter ends too early".to_owned(), HINT)),
        };
        self.depth -= 1;
        expr
    }

    fn condition(&mut self, word: &str) -> Result<Expr, FilterError> {
        let one = |cond| Ok(Expr::Cond(cond));
        match word {
            "state" => self.states("state").map(|set| Expr::Cond(Cond::State(set))),
            "exclude" => self.states("exclude").map(|set| Expr::Not(Box::new(Expr::Cond(Cond::State(set))))),
            "all" => Ok(Expr::All),
            "src" | "dst" => {
                let end = if word == "src" { End::Local } else { End::Peer };
                let cmp = self.cmp().unwrap_or(Cmp::Eq);
                let text = self.word("an address", "dst 10.0.0.0/8")?;
                let expr = hosts(end, &text)?;
                match cmp {
                    Cmp::Eq => Ok(expr),
                    Cmp::Ne => Ok(Expr::Not(Box::new(expr))),
                    other => {
                        Err(error(format!("addresses are not ordered: `{word} {other}`"), "dst != 10.0.0.1"))
                    }
                }
            }
            "sport" | "dport" => {
                let end = if word == "sport" { End::Local } else { End::Peer };
                let cmp = self.cmp().unwrap_or(Cmp::Eq);
                one(Cond::Port(end, cmp, port(&self.word("a port", "sport = :443")?)?))
            }
            "autobound" => {
                let (low, high) = local_port_range();
                one(Cond::Autobound(low, high))
            }
            "dev" => {
                let not = self.equality("dev")?;
                let name = self.word("an interface", "dev = eth0")?;
                negated(not, Cond::Dev(interface(&name)?))
            }
            "fwmark" => {
                let not = self.equality("fwmark")?;
                let text = self.word("a mark", "fwmark = 0x1/0xff")?;
                let (value, mask) = text.split_once('/').unwrap_or((&text, "0xffffffff"));
                negated(not, Cond::Mark { value: number(value)?, mask: number(mask)? })
            }
            "cgroup" => {
                let not = self.equality("cgroup")?;
                let path =
                    self.word("a control group", "cgroup = /sys/fs/cgroup/system.slice/nginx.service")?;
                negated(not, Cond::Cgroup(cgroup_id(&path)?))
            }
            "pid" => {
                let not = self.equality("pid")?;
                let text = self.word("a process id", "pid = 4711")?;
                negated(not, Cond::Pid(number(&text)?))
            }
            "process" => {
                let not = self.equality("process")?;
                let name = self.word("a process name", "process = nginx")?;
                negated(not, Cond::Process(name.trim_matches('"').to_owned()))
            }
            "timer" => {
                let not = self.equality("timer")?;
                let name = self.word("a timer", "timer = persist")?;
                negated(not, Cond::Timer(timer(&name)?))
            }
            "uid" => {
                let not = self.equality("uid")?;
                let text = self.word("a user id", "uid = 33")?;
                negated(not, Cond::Uid(number(&text)?))
            }
            "cookie" => {
                let not = self.equality("cookie")?;
                let text = self.word("a cookie", "cookie = 8371")?;
                let value = text.parse().or_else(|_| u64::from_str_radix(text.trim_start_matches("0x"), 16));
                negated(
                    not,
                    Cond::Cookie(
                        value.map_err(|_| error(format!("`{text}` is no cookie"), "cookie = 8371"))?,
                    ),
                )
            }
            "recvq" | "recv-q" | "sendq" | "send-q" => {
                let cmp = self.cmp().unwrap_or(Cmp::Eq);
                let bytes = size(&self.word("a number of bytes", "sendq > 1M")?)?;
                one(if word.starts_with('r') { Cond::RecvQ(cmp, bytes) } else { Cond::SendQ(cmp, bytes) })
            }
            "age" => {
                let cmp = self.cmp().unwrap_or(Cmp::Ge);
                one(Cond::Age(cmp, duration_ms(&self.word("a duration", "age > 60s")?)?))
            }
            "orphan" => one(Cond::Orphan),
            other => Err(error(format!("`{other}` is not a word of the filter grammar"), HINT)),
        }
    }

    fn cmp(&mut self) -> Option<Cmp> {
        match self.peek() {
            Some(Token::Cmp(cmp)) => {
                let cmp = *cmp;
                self.at += 1;
                Some(cmp)
            }
            _ => None,
        }
    }

    /// `=` (or nothing) is false, `!=` is true; order makes no sense here.
    fn equality(&mut self, word: &str) -> Result<bool, FilterError> {
        match self.cmp() {
            None | Some(Cmp::Eq) => Ok(false),
            Some(Cmp::Ne) => Ok(true),
            Some(other) => {
                Err(error(format!("`{word}` is not ordered: `{word} {other}`"), &format!("{word} = …")))
            }
        }
    }

    fn word(&mut self, what: &str, example: &str) -> Result<String, FilterError> {
        match self.next() {
            Some(Token::Word(word)) => Ok(word),
            Some(other) => Err(error(format!("`{}` stands where {what} should", spell(&other)), example)),
            None => Err(error(format!("{what} is missing at the end"), example)),
        }
    }

    fn states(&mut self, word: &str) -> Result<StateSet, FilterError> {
        self.cmp();
        let name = self.word("a state", "state fin-wait-1")?;
        StateSet::by_name(&name).ok_or_else(|| {
            error(
                format!("`{name}` is no state after `{word}`"),
                "one of established syn-sent syn-recv fin-wait-1 fin-wait-2 time-wait closed close-wait \
                 last-ack listening closing all connected synchronized bucket big",
            )
        })
    }
}

fn negated(not: bool, cond: Cond) -> Result<Expr, FilterError> {
    let expr = Expr::Cond(cond);
    Ok(if not { Expr::Not(Box::new(expr)) } else { expr })
}

fn error(message: String, hint: &str) -> FilterError {
    FilterError { message, hint: hint.to_owned() }
}

fn spell(token: &Token) -> String {
    match token {
        Token::Open => "(".to_owned(),
        Token::Close => ")".to_owned(),
        Token::Not => "not".to_owned(),
        Token::And => "and".to_owned(),
        Token::Or => "or".to_owned(),
        Token::Cmp(cmp) => cmp.to_string(),
        Token::Word(word) => word.clone(),
    }
}

/// `[inet:|inet6:]ADDRESS[/PREFIX][:PORT]`, `[v6]`, `*`, or a name, which may have several addresses.
fn hosts(end: End, text: &str) -> Result<Expr, FilterError> {
    let (family, rest) = if let Some(rest) = text.strip_prefix("inet6:") {
        (Some(6), rest)
    } else if let Some(rest) = text.strip_prefix("inet:") {
        (Some(4), rest)
    } else {
        (None, text)
    };
    let (address, port_text) = split_port(rest, family);
    let port = match port_text {
        None | Some("" | "*") => None,
        Some(text) => Some(port(text)?),
    };
    if address.is_empty() || address == "*" {
        return Ok(if port.is_none() && family.is_none() {
            Expr::All
        } else {
            Expr::Cond(Cond::Host(end, Host { prefix: None, port, family }))
        });
    }
    let (name, length) = match address.split_once('/') {
        Some((name, length)) => (name, Some(length)),
        None => (address, None),
    };
    let addresses = match name.trim_matches(['[', ']']).parse::<IpAddr>() {
        Ok(address) => vec![address],
        // `ss` reads `127` as 127.0.0.0 when a prefix length follows (inet_aton).
        Err(_) => short_v4(name).map_or_else(|| resolve(name, family), |address| Ok(vec![address]))?,
    };
    let mut any: Option<Expr> = None;
    for address in addresses {
        let full = if address.is_ipv4() { 32 } else { 128 };
        let length = match length {
            None => full,
            Some(text) => text.parse().ok().filter(|length| *length <= full).ok_or_else(|| {
                error(format!("`/{text}` is no prefix length for {address}"), "dst 10.0.0.0/8")
            })?,
        };
        let cond = Expr::Cond(Cond::Host(end, Host { prefix: Some((address, length)), port, family: None }));
        any = Some(match any {
            None => cond,
            Some(left) => Expr::Or(Box::new(left), Box::new(cond)),
        });
    }
    any.ok_or_else(|| error(format!("`{name}` has no address"), "dst 10.0.0.1"))
}

/// Splits `ADDRESS:PORT`; a bare v6 address has no port unless it is in brackets.
fn split_port(text: &str, family: Option<u8>) -> (&str, Option<&str>) {
    if let Some(rest) = text.strip_prefix('[') {
        return match rest.split_once(']') {
            Some((address, tail)) => {
                let (prefix, port) = match tail.rsplit_once(':') {
                    Some((prefix, port)) => (prefix, Some(port)),
                    None => (tail, None),
                };
                // `[::1]/128` keeps its prefix length: give the text up to it.
                if prefix.is_empty() {
                    (address, port)
                } else {
                    (&text[..text.len() - tail.len() + prefix.len()], port)
                }
            }
            None => (text, None),
        };
    }
    if family == Some(6) || text.matches(':').count() > 1 {
        return (text, None);
    }
    match text.rsplit_once(':') {
        Some((address, port)) => (address, Some(port)),
        None => (text, None),
    }
}

/// `10`, `10.1`, `10.1.2` as the kernel's tools read them in front of a prefix length.
fn short_v4(text: &str) -> Option<IpAddr> {
    let parts: Vec<u8> = text.split('.').map(str::parse).collect::<Result<_, _>>().ok()?;
    (!parts.is_empty() && parts.len() < 4).then(|| {
        let mut octets = [0u8; 4];
        octets[..parts.len()].copy_from_slice(&parts);
        IpAddr::V4(Ipv4Addr::from(octets))
    })
}

fn resolve(name: &str, family: Option<u8>) -> Result<Vec<IpAddr>, FilterError> {
    let found = (name, 0u16).to_socket_addrs().map_err(|cause| {
        error(format!("`{name}` is neither an address nor a name that resolves: {cause}"), "dst 10.0.0.0/8")
    })?;
    let mut addresses: Vec<IpAddr> = found.map(|address| address.ip()).collect();
    addresses.retain(|address| family.is_none_or(|family| address.is_ipv4() == (family == 4)));
    addresses.sort_unstable();
    addresses.dedup();
    Ok(addresses)
}

/// `:443`, `443`, `:https`, `*:443`.
fn port(text: &str) -> Result<u16, FilterError> {
    let bare = text.rsplit(':').next().unwrap_or(text);
    if let Ok(port) = bare.parse() {
        return Ok(port);
    }
    service(bare).ok_or_else(|| {
        error(format!("`{text}` is neither a port (0 to 65535) nor a service name"), "sport = :443")
    })
}

fn service(name: &str) -> Option<u16> {
    let services = std::fs::read_to_string("/etc/services").ok()?;
    services.lines().find_map(|line| {
        let mut words = line.split('#').next()?.split_whitespace();
        let (first, port) = (words.next()?, words.next()?);
        let port = port.strip_suffix("/tcp")?;
        (first == name || words.any(|alias| alias == name)).then(|| port.parse().ok())?
    })
}

/// `net.ipv4.ip_local_port_range`, of the namespace we are in.
fn local_port_range() -> (u16, u16) {
    let text = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let mut words = text.split_whitespace().map_while(|word| word.parse().ok());
    (words.next().unwrap_or(32768), words.next().unwrap_or(60999))
}

fn interface(name: &str) -> Result<u32, FilterError> {
    if let Ok(index) = name.parse() {
        return Ok(index);
    }
    std::fs::read_to_string(format!("/sys/class/net/{name}/ifindex"))
        .ok()
        .filter(|_| !name.contains('/'))
        .and_then(|text| text.trim().parse().ok())
        .ok_or_else(|| error(format!("there is no interface `{name}`"), "dev = eth0"))
}

fn cgroup_id(path: &str) -> Result<u64, FilterError> {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata(path).map(|found| found.ino()).map_err(|cause| {
        error(format!("no control group at `{path}`: {cause}"), "cgroup = /sys/fs/cgroup/system.slice")
    })
}

fn timer(name: &str) -> Result<Option<TimerKind>, FilterError> {
    match name {
        "on" => Ok(Some(TimerKind::On)),
        "keepalive" => Ok(Some(TimerKind::Keepalive)),
        "timewait" => Ok(Some(TimerKind::TimeWait)),
        "persist" => Ok(Some(TimerKind::Persist)),
        "none" => Ok(None),
        _ => {
            Err(error(format!("`{name}` is no timer"), "timer = persist (or on, keepalive, timewait, none)"))
        }
    }
}

fn number(text: &str) -> Result<u32, FilterError> {
    let parsed = match text.strip_prefix("0x") {
        Some(hex) => u32::from_str_radix(hex, 16),
        None => text.parse(),
    };
    parsed.map_err(|_| error(format!("`{text}` is no number"), "a number, for example 4711 or 0x1f"))
}

/// Bytes, with `k`, `M`, `G` as powers of 1024.
fn size(text: &str) -> Result<u64, FilterError> {
    let (digits, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let shift = match unit.to_ascii_lowercase().trim_end_matches("ib").trim_end_matches('b') {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        _ => return Err(error(format!("`{text}` is no number of bytes"), "sendq > 1M")),
    };
    digits
        .parse::<u64>()
        .ok()
        .and_then(|value| value.checked_mul(1 << shift))
        .ok_or_else(|| error(format!("`{text}` is no number of bytes"), "sendq > 1M"))
}

/// Milliseconds, from `500ms`, `60s`, `5m`, `2h`, `1d`; a bare number is seconds.
///
/// # Errors
/// When it is no duration.
pub fn duration_ms(text: &str) -> Result<u64, FilterError> {
    let (digits, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let ms = match unit {
        "ms" => 1,
        "" | "s" | "sec" => 1_000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(error(format!("`{text}` is no duration"), "age > 60s (ms, s, m, h, d)")),
    };
    digits
        .parse::<u64>()
        .ok()
        .and_then(|value| value.checked_mul(ms))
        .ok_or_else(|| error(format!("`{text}` is no duration"), "age > 60s (ms, s, m, h, d)"))
}
