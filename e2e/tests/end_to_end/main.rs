//! `lastack run` and `lastack demo` with real programs.
//!
//! Each test has its own servers and ports, runs as root and as nobody where it is run by root, and is bounded in time.
//! What cannot run says `SKIPPED`; `LASTACK_REQUIRE_E2E=1` makes that a failure; `LASTACK_E2E_LONG=1` takes the long sizes.

#[macro_use]
extern crate lastack_e2e;

mod confinement;
mod demo;
mod device;
mod endings;
mod files;
mod impairments;
mod input;
mod laws;
mod leftovers;
mod limits;
mod many;
mod names;
mod observe;
mod owners;
mod pcap;
mod programs;
mod publish;
mod real_programs;
mod refusals;
mod rules;
mod udp;

use std::io::Read;
use std::path::Path;
use std::time::Duration;

use lastack_e2e::runner;

/// How long a run of a few connections may take.
const SHORT: Duration = Duration::from_secs(60);
/// How long moving gigabytes or a hundred thousand connections may take.
const LONG: Duration = Duration::from_secs(600);

/// Ends the calling test with a loud `SKIPPED` where `lastack run` cannot work.
macro_rules! needs_run {
    () => {
        if let Some(why) = lastack_e2e::runner::unavailable() {
            lastack_e2e::needs::skip(&why);
            return;
        }
    };
}
pub(crate) use needs_run;

/// A file of `bytes` bytes that no two places of which are alike (a xorshift sequence), so that a swapped or lost
/// segment shows.
fn write_noise(path: &Path, bytes: u64) {
    let mut out = std::io::BufWriter::new(std::fs::File::create(path).expect("our own directory"));
    let mut state = 0x9e37_79b9_7f4a_7c15_u64 ^ bytes;
    let mut left = bytes;
    while left > 0 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let n = left.min(8);
        std::io::Write::write_all(&mut out, &state.to_le_bytes()[..usize::try_from(n).expect("at most 8")])
            .expect("room on the disk");
        left -= n;
    }
}

/// Panics unless both files have the same content.
#[track_caller]
fn assert_same_content(a: &Path, b: &Path) {
    let open = |path: &Path| std::fs::File::open(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let (mut left, mut right) = (std::io::BufReader::new(open(a)), std::io::BufReader::new(open(b)));
    let sizes = [a, b].map(|path| std::fs::metadata(path).map_or(0, |meta| meta.len()));
    assert_eq!(sizes[0], sizes[1], "sizes of {} and {}", a.display(), b.display());
    let (mut x, mut y) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    let mut at = 0;
    loop {
        let n = left.read(&mut x).expect("a readable file");
        right.read_exact(&mut y[..n]).expect("files of the same size");
        assert!(x[..n] == y[..n], "{} and {} differ after byte {at}", a.display(), b.display());
        at += n;
        if n == 0 {
            return;
        }
    }
}

/// Every user, with its name for messages.
fn each_user(mut test: impl FnMut(runner::User)) {
    for user in runner::users() {
        println!("-- as {user:?}");
        test(user);
    }
}
