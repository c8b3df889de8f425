//! The table of behaviours: what each script shows, where it is specified, which Linux function does it, and what
//! the stack does otherwise.
//!
//! Input:   the scripts' first comment lines, and the verdicts of a run on the stack.
//! Output:  `docs/linux-fidelity.md`; a test says when the committed copy is old.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use crate::runner::{Case, TargetKind, check_all, find_scripts};

/// Scripts the stack does not pass yet, with the reason. One that passes must be taken off the list.
pub const KNOWN: &[(&str, &str)] = &[];

/// Differences that no script shows, with the reason.
const OTHER_DIFFERENCES: &[&str] = &[
    "A segment that brings data and an acknowledgment is answered by one burst: Linux may retransmit or send new data \
     from the ACK before it has taken the data, so its segments carry the older acknowledgment number.",
    "Timers fire when they are due; Linux's fire at the next tick of a wheel whose grain grows to an eighth of the time \
     (measured side by side in `docs/timing.md`).",
    "A retransmission time-out is not rounded up to a tick (4 ms at HZ 250) before it is doubled: each doubling doubles the difference.",
    "Whether a segment takes the short way (header prediction) is judged from the queues as they are; Linux remembers since when it \
     may not, and sends what `MSG_MORE` holds when data comes by the long way a little longer.",
    "While `TCP_DEFER_ACCEPT` waits, the timestamp echoed is that of the last ACK; Linux's is the SYN's until the connection is made.",
    "What a segment is charged beside its payload depends on how Linux was built (the headroom of its largest link type): when the send \
     buffer grows by itself, the stack reckons 512 bytes as the kernel that judges the scripts does, so that `SO_SNDBUF` after a \
     handshake at 1460 bytes is 46080; a kernel with wireless mesh networks reckons 640 and gives 87040.",
    "A small packet goes behind the one before it, as in Linux, when that has room and no sniffer holds it: the stack reckons with a sniffer \
     that reads at once, so that only the packet that has just come is held. One that reads late makes windows of small segments smaller in Linux.",
    "An out-of-order segment over three pieces that overlap one another counts once in `TCPDSACKOfoSent`; Linux counts each of them that its search for a place passes.",
    "MD5 and accurate ECN are not negotiated. Linux 6.18 takes a SYN-ACK with ECE and CWR both, as a middlebox \
     that reflects our flags sends it, for accurate ECN although it asked for the classic kind (RFC 3168); the stack takes it \
     for a refusal.",
    "Counters of specification 9 that the stack does not have, because what they count does not happen in it: \
     LockDroppedIcmps, DelayedACKLocked, TCPBacklogDrop and TCPBacklogCoalesce (no socket lock, so no backlog behind one); \
     TCPAutoCorking, TCPSpuriousRtxHostQueues, TCPRetransFail, TCPAbortFailed (nothing queues between the stack and its link, and \
     sending cannot fail); SackShifted, SackMerged, SackShiftFallback (how Linux stores its scoreboard); TCPMD5*, TCPAO*, PLB and \
     MigrateReq (not offered); TCPMemoryPressuresChrono, TCPPFMemallocDrop, IPReversePathFilter (of the host).",
    "Socket options that are not offered: TCP_MD5SIG, TCP_AO, TCP_ULP, TCP_REPAIR and TCP_ZEROCOPY_RECEIVE, and those of other \
     levels that `lab/tests/options_kernel.rs` lists: it asks Linux and the stack for every name at every level, of AF_INET and AF_INET6.",
];

struct Entry {
    script: String,
    behaviour: String,
    specification: String,
    linux: String,
}

/// The document, from the scripts under `root`.
///
/// # Errors
/// A script cannot be read.
pub fn document(root: &Path) -> std::io::Result<String> {
    let files = find_scripts(&[root.to_path_buf()])?;
    let work = files
        .iter()
        .map(|file| Ok((Case::load(file)?, TargetKind::Stack)))
        .collect::<std::io::Result<Vec<_>>>()?;
    let verdicts = check_all(&work, 2, |_| {});
    let passes =
        |file: &PathBuf| verdicts.iter().any(|verdict| verdict.script == *file && verdict.failure.is_none());
    let mut out = String::from(
        "# Linux fidelity: behaviour by behaviour\n\n\
         Made by `cargo run -p lastack-lab --example fidelity > docs/linux-fidelity.md`; do not edit.\n\n\
         Each line is a packet script in `lab/scripts`, hand-written from the specification and judged by Linux 6.18: all of \
         them pass there. The last column says whether the stack, in virtual time, does the same. Beside the scripts, \
         every state × segment × place relative to the window × timestamps (880 cells) was recorded from Linux in \
         `lab/matrix/linux-6.18.tsv`, and the stack gives the same answers (`docs/league.md`). How long states last is measured in \
         `docs/timing.md`. The scripts in `differential` are what random calls and segments, played to both, found \
         (`cargo run --release -p lastack-lab --example differential`).\n\n",
    );
    let passed = files.iter().filter(|file| passes(file)).count();
    let _ = writeln!(out, "{} scripts; the stack passes {passed}.\n", files.len());
    let mut folder = String::new();
    for file in &files {
        let text = std::fs::read_to_string(file)?;
        let name = file.strip_prefix(root).unwrap_or(file).display().to_string();
        let entry = entry(&name, &text);
        let this = name.split('/').next().unwrap_or_default().to_owned();
        if this != folder {
            let _ = writeln!(
                out,
                "\n## {this}\n\n| behaviour | script | specification | Linux | stack |\n|---|---|---|---|---|"
            );
            folder = this;
        }
        let Entry { script, behaviour, specification, linux } = entry;
        let stack = if passes(file) { "same" } else { "**differs**" };
        let _ = writeln!(out, "| {behaviour} | `{script}` | {specification} | {linux} | {stack} |");
    }
    out.push_str("\n## Known differences\n\n");
    for (script, reason) in KNOWN {
        let _ = writeln!(out, "- `{script}`: {reason}.");
    }
    for difference in OTHER_DIFFERENCES {
        let _ = writeln!(out, "- {difference}");
    }
    Ok(out)
}

/// `// behaviour`, `// Spec 1.2. Linux: function().`
fn entry(script: &str, text: &str) -> Entry {
    let lines = text.lines().map_while(|line| line.strip_prefix("//")).map(str::trim);
    let comment: Vec<&str> = lines.filter(|line| !line.starts_with("duration:")).collect();
    let comment = comment.join(" ").replace('|', "\\|");
    let (behaviour, rest) = comment.split_once(" Spec ").unwrap_or((&comment, ""));
    let (specification, linux) = rest.split_once("Linux:").unwrap_or((rest, ""));
    let (behaviour, linux) = match (behaviour.split_once(" Linux:"), linux) {
        (Some((behaviour, linux)), "") => (behaviour, linux),
        _ => (behaviour, linux),
    };
    let plain = |text: &str| text.trim().trim_end_matches('.').to_owned();
    Entry {
        script: script.to_owned(),
        behaviour: plain(behaviour),
        specification: plain(specification),
        linux: plain(linux),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comment_becomes_a_row() {
        let entry = entry(
            "a/b.pkt",
            "// It does this.\n// Spec 1.2 (x), 3. Linux: f(), g().\n// duration: short\n0 close(3) = 0",
        );
        assert_eq!((entry.behaviour.as_str(), entry.specification.as_str()), ("It does this", "1.2 (x), 3"));
        assert_eq!(entry.linux, "f(), g()");
    }
}
