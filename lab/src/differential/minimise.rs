//! The shortest script that still shows a difference: delta debugging over events, settings and options.

use crate::script::print::print;
use crate::script::{Script, parse};

/// Leaves out whatever can be left out while `differs` stays true.
pub fn minimise(script: &Script, mut differs: impl FnMut(&Script) -> bool) -> Script {
    let mut best = script.clone();
    // Large pieces first, then smaller ones, then single events, until nothing more can go.
    let mut piece = best.events.len().div_ceil(2);
    loop {
        let mut shorter = false;
        let mut at = best.events.len();
        while at > 0 {
            let from = at.saturating_sub(piece);
            let mut candidate = best.clone();
            candidate.events.drain(from..at);
            if let Some(candidate) = renumbered(&candidate)
                && differs(&candidate)
            {
                best = candidate;
                shorter = true;
            }
            at = from.min(best.events.len());
        }
        match (piece, shorter) {
            (1, false) => break,
            (1, true) => {}
            _ => piece = piece.div_ceil(2),
        }
    }
    for without in [without_sysctls, without_address_family] {
        if let Some(candidate) = without(&best).as_ref().and_then(renumbered)
            && differs(&candidate)
        {
            best = candidate;
        }
    }
    best
}

/// Each event has a line of its own again, and the first one is at 0.
fn renumbered(script: &Script) -> Option<Script> {
    let mut script = script.clone();
    script.events.first_mut()?.when = crate::script::ast::When::At(core::time::Duration::ZERO);
    parse(&print(&script)).ok()
}

fn without_sysctls(script: &Script) -> Option<Script> {
    script.init.as_ref()?;
    Some(Script { init: None, ..script.clone() })
}

fn without_address_family(script: &Script) -> Option<Script> {
    let mut script = script.clone();
    script.option("ip_version")?;
    script.options.retain(|option| option.name != "ip_version");
    Some(script)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_matters_stays() {
        let text = "--ip_version=ipv6\n`sysctl -q net.ipv4.tcp_sack=0`\n0 close(1) = 0\n+0 close(2) = 0\n+0 close(3) = 0\n\
                    +0 close(4) = 0\n+0 close(5) = 0\n";
        let script = parse(text).unwrap();
        let has = |script: &Script, name: &str| print(script).contains(name);
        let least = minimise(&script, |script| has(script, "close(2)") && has(script, "close(5)"));
        assert_eq!(print(&least), "0 close(2) = 0\n+0 close(5) = 0\n");
    }
}
