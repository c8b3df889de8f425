//! The same filter asked of `ss` and of us: sets of lines that must be equal.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use lastack_observe::filter::Filter;
use lastack_observe::source::kernel::{Detail, Kernel, Query};

use super::run;

/// `STATE LOCAL PEER` as `ss` spells them; no state where `ss` left the column out.
pub(crate) type Line = (String, String, String);

/// What `ss` finds.
pub(crate) fn theirs<S: AsRef<str>>(filter: &[S]) -> BTreeSet<Line> {
    let mut arguments = vec!["-Htn"];
    arguments.extend(filter.iter().map(AsRef::as_ref));
    run("ss", &arguments)
        .lines()
        .map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            // With one state asked for, `ss` leaves the state column out.
            let with_state = words[0].parse::<u32>().is_err();
            let at = usize::from(with_state);
            (
                if with_state { words[0] } else { "" }.to_owned(),
                words[at + 2].to_owned(),
                words[at + 3].to_owned(),
            )
        })
        .collect()
}

/// What we find.
pub(crate) fn ours<S: AsRef<str>>(kernel: &mut Kernel, filter: &[S]) -> BTreeSet<Line> {
    let words: Vec<&str> = filter.iter().map(AsRef::as_ref).collect();
    let filter = Filter::parse(&words).unwrap_or_else(|error| panic!("{words:?}: {error}"));
    let query = Query { filter, detail: Detail::Full, owners: false, v6: None };
    let rows = kernel.rows(&query).expect("dumps");
    rows.iter()
        .map(|row| {
            let socket = &row.socket;
            (
                socket.state.name().to_owned(),
                spell(socket.local, row.v6only),
                spell(socket.remote, row.v6only),
            )
        })
        .collect()
}

fn spell(address: SocketAddr, v6only: bool) -> String {
    let port = if address.port() == 0 { "*".to_owned() } else { address.port().to_string() };
    match address.ip() {
        IpAddr::V6(ip) if ip.is_unspecified() && !v6only => format!("*:{port}"),
        IpAddr::V6(ip) => format!("[{ip}]:{port}"),
        IpAddr::V4(ip) => format!("{ip}:{port}"),
    }
}

/// Both sets must be equal. TIME-WAIT ends by itself between the two looks: then both look again.
pub(crate) fn assert_equal<S: AsRef<str> + std::fmt::Debug>(kernel: &mut Kernel, filter: &[S]) -> usize {
    let mut last = String::new();
    for _ in 0..3 {
        let (want, mut got) = (theirs(filter), ours(kernel, filter));
        if want.iter().any(|line| line.0.is_empty()) {
            got = got.into_iter().map(|line| (String::new(), line.1, line.2)).collect();
        }
        if want == got {
            return want.len();
        }
        let extra: Vec<_> = got.difference(&want).collect();
        let lacking: Vec<_> = want.difference(&got).collect();
        last = format!("{filter:?}: extra {extra:?}, lacking {lacking:?}");
    }
    panic!("{last}");
}
