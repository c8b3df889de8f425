//! How a story must end: states, errors and counters, checked on either target.

use std::collections::BTreeMap;

use super::{Record, Side};

/// What must be true of a played story. Paths are `SYN-SENT ESTAB … gone`, one for each connection in order.
#[derive(Clone, Copy, Debug)]
pub struct Ending {
    /// The client's paths.
    pub client: &'static [&'static str],
    /// The server's paths.
    pub server: &'static [&'static str],
    /// The client's paths in the short form; empty: the same.
    pub short_client: &'static [&'static str],
    /// The server's paths in the short form; empty: the same.
    pub short_server: &'static [&'static str],
    /// Every call that failed, by end, in order: `read ECONNRESET`.
    pub errors: &'static [(Side, &'static str)],
    /// How many sockets of an end are left in a state.
    pub left: &'static [(Side, &'static str, usize)],
    /// How far counters moved.
    pub counters: &'static [(Side, &'static str, u64)],
    /// In full form: end, connection, state, and between which seconds it lasted.
    pub lasts: &'static [(Side, usize, &'static str, f64, f64)],
}

impl Ending {
    /// Nothing is demanded.
    pub const NOTHING: Self = Self {
        client: &[],
        server: &[],
        short_client: &[],
        short_server: &[],
        errors: &[],
        left: &[],
        counters: &[],
        lasts: &[],
    };

    /// What is not as it must be; empty: the story ended as it should. `short`: it was told in its short form.
    pub fn differences(&self, record: &Record, short: bool) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut same = |what: String, expected: String, actual: String| {
            if expected != actual {
                wrong.push(format!("{what}: expected `{expected}`, got `{actual}`"));
            }
        };
        for side in Side::BOTH {
            let (full, shorter) = match side {
                Side::Client => (self.client, self.short_client),
                Side::Server => (self.server, self.short_server),
            };
            let paths = if short && !shorter.is_empty() { shorter } else { full };
            same(
                format!("connections seen by the {}", side.name()),
                paths.len().to_string(),
                record.flows.len().to_string(),
            );
            for (flow, path) in paths.iter().enumerate() {
                let what = format!("states of the {} in #{}", side.name(), flow + 1);
                same(what, (*path).to_owned(), record.path(side, flow));
            }
            let expected: Vec<&str> =
                self.errors.iter().filter(|error| error.0 == side).map(|error| error.1).collect();
            same(
                format!("failed calls of the {}", side.name()),
                expected.join(", "),
                record.errors(side).join(", "),
            );
        }
        for (side, state, expected) in self.left {
            let mut left: BTreeMap<&str, usize> = BTreeMap::new();
            record.left[*side as usize].iter().for_each(|socket| *left.entry(socket.state).or_default() += 1);
            let actual = left.get(state).copied().unwrap_or(0);
            same(format!("{state} left at the {}", side.name()), expected.to_string(), actual.to_string());
        }
        for (side, name, expected) in self.counters {
            same(
                format!("{name} of the {}", side.name()),
                expected.to_string(),
                record.counter(*side, name).to_string(),
            );
        }
        if !short {
            for (side, flow, state, least, most) in self.lasts {
                let actual = record.time_in(*side, *flow, state).as_secs_f64();
                if actual < *least || actual > *most {
                    wrong.push(format!(
                        "{state} of the {} in #{} lasted {actual:.3} s, not {least} to {most}",
                        side.name(),
                        flow + 1
                    ));
                }
            }
        }
        wrong
    }
}
