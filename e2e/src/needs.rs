//! What a test needs from the machine. A test that cannot run says so loudly, past the test runner's capture;
//! with `LASTACK_REQUIRE_E2E=1` (as in `.ci/run`) that is a failure.

use std::io::Write;
use std::path::PathBuf;

/// Whether a missing program or permission is a failure instead of a skip.
#[must_use]
pub fn required() -> bool {
    std::env::var_os("LASTACK_REQUIRE_E2E").is_some_and(|value| value != "0" && !value.is_empty())
}

/// Whether the long versions run (`.ci/nightly`): gigabytes, 100,000 connections.
#[must_use]
pub fn long() -> bool {
    std::env::var_os("LASTACK_E2E_LONG").is_some_and(|value| value != "0" && !value.is_empty())
}

/// Says that the calling test does not run, and why.
///
/// # Panics
/// Under `LASTACK_REQUIRE_E2E=1`.
#[track_caller]
pub fn skip(why: &str) {
    let place = std::panic::Location::caller();
    let test = std::thread::current().name().unwrap_or("?").to_owned();
    assert!(!required(), "cannot run, and LASTACK_REQUIRE_E2E is set: {why}");
    let mut stderr = std::io::stderr().lock();
    let _ = writeln!(stderr, "SKIPPED: {test} ({}): {why}", place.file());
}

/// Finds `program` in `PATH` and in the `sbin` directories, which an ordinary user's `PATH` lacks on Debian.
#[must_use]
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let sbin = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(sbin).map(|dir| dir.join(program)).find(|file| file.is_file())
}

/// The first of `programs` that is not installed, as a reason to skip.
#[must_use]
pub fn missing(programs: &[&str]) -> Option<String> {
    let program = programs.iter().find(|program| find(program).is_none())?;
    Some(format!("`{program}` is not installed; `.ci/setup` installs what the tests drive"))
}

/// Whether this process is root.
#[must_use]
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Whether anybody may open `/dev/net/tun`, as `lastack run` needs when it is not root.
#[must_use]
pub fn tun_is_for_everyone() -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata("/dev/net/tun").is_ok_and(|meta| meta.permissions().mode() & 0o006 == 0o006)
}

/// Ends the calling test with a loud `SKIPPED` unless all `programs` are installed.
#[macro_export]
macro_rules! needs {
    ($($program:expr),+ $(,)?) => {
        if let Some(why) = $crate::needs::missing(&[$($program),+]) {
            $crate::needs::skip(&why);
            return;
        }
    };
}
