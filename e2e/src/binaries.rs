//! Where the `lastack` under test and our own helper programs are.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The directory cargo builds this profile into (`target/debug`, `target/release`).
///
/// # Panics
/// The running program was moved out of cargo's target directory.
#[must_use]
pub fn profile_dir() -> PathBuf {
    let exe = std::env::current_exe().expect("a running program has a path");
    let mut dir = exe.parent().expect("a program is in a directory").to_path_buf();
    if dir.ends_with("deps") || dir.ends_with("examples") {
        dir.pop();
    }
    dir
}

/// The `lastack` program of this profile, built first if need be. `LASTACK_BIN` names another one.
///
/// # Panics
/// It does not build.
pub fn lastack() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| match std::env::var_os("LASTACK_BIN") {
        Some(path) => PathBuf::from(path),
        None => build("lastack-cli", "lastack"),
    })
}

/// The actor: the program that makes socket calls on request.
///
/// # Panics
/// It does not build.
pub fn actor() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| build("lastack-e2e", "actor"))
}

/// Builds program `bin` of `package` in the profile we run in ourselves, and gives its path.
///
/// # Panics
/// It does not build.
#[must_use]
pub fn build(package: &str, bin: &str) -> PathBuf {
    let dir = profile_dir();
    let path = dir.join(bin);
    // Cargo sets CARGO for `cargo test` and `cargo run`; started by hand, what was built is taken as it is.
    let Some(cargo) = std::env::var_os("CARGO") else {
        assert!(path.is_file(), "{} is not built: cargo build -p {package} --bin {bin}", path.display());
        return path;
    };
    let mut command = Command::new(cargo);
    command.args(["build", "--quiet", "-p", package, "--bin", bin]);
    command.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    if dir.ends_with("release") {
        command.arg("--release");
    }
    let status = command.status().expect("cargo starts: it started us");
    assert!(status.success(), "cargo build -p {package} --bin {bin}: {status}");
    path
}
