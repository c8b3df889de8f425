//! Bad input, full disks and readers that have gone: three lines, the contract's exit code, nothing broken or left behind.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::process::{Command, Output, Stdio};

fn lastack(line: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lastack"));
    command.args(line.split(' ')).env("LANG", "C").stdin(Stdio::null());
    command
}

/// The three lines of a refusal with that exit code.
fn refusal(output: &Output, code: i32, line: &str) -> [String; 3] {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{line}: {said}");
    let lines: Vec<String> = said.lines().map(str::to_owned).collect();
    let lines = <[String; 3]>::try_from(lines).unwrap_or_else(|_| panic!("{line}: {said}"));
    for (said, with) in lines.iter().zip(["error: ", "cause: ", "try:   "]) {
        assert!(said.starts_with(with), "{line}: {lines:?}");
    }
    lines
}

/// Of each: the exit code, the command line, a part of its three lines.
const REFUSED: &[(i32, &str, &str)] = &[
    (2, "frob", "lastack --help"),
    (2, "ss --zzz", "there is no such flag"),
    (2, "doctor this", "nothing more is taken"),
    (2, "doctor --min-count 0", "0 is not in 1.."),
    (2, "doctor --near-percent 0", "0 is not in 1..=1000"),
    (2, "doctor --retransmit-percent 0", "0 is not in 1..=1000"),
    (2, "doctor --resets-per-second 0", "0 is not in 1.."),
    (2, "doctor --what-if =", "sets nothing"),
    (2, "doctor --what-if tcp_fin_timeout=", "sets nothing"),
    (2, "ss --netns /etc/passwd", "lsns -t net"),
    (2, "ss --from /dev/zero", "neither a snapshot nor a capture"),
    (2, "ss --from /etc/passwd", "neither a snapshot nor a capture"),
    (2, "doctor --from /dev/null", "neither a snapshot nor a capture"),
    (2, "sysctl tcp_fin_timeout=", "sets nothing"),
    (125, "lab frob", "lastack lab --help"),
    (125, "lab run", "lastack lab run --help"),
    (125, "lab run frob", "lastack lab list"),
    (125, "lab run clean-close --sysctl tcp_sack=x", "`x`: net.ipv4.tcp_sack: 0..=255"),
    (125, "lab check --jobs 0 .", "0 is not in 1.."),
    (125, "run --delay -1 -- true", "no number here may be negative"),
    (125, "run --loss 200% -- true", "0% to 100%"),
    (125, "run --seed x -- true", "a whole number is needed"),
    (125, "run --max-flows 99999999999 -- true", "is not in"),
    (125, "run --name kernel -- true", "the kernel's own"),
    (125, "run --name 4711 -- true", "a process id"),
    (125, "run --publish 65536:80 -- true", "1 to 65535"),
    (125, "run --output /no/such/directory/file -- true", "cannot write"),
    (125, "run --pcap /no/such/directory/file -- true", "cannot write"),
    (127, "run --observe -- no-such-program", "`no-such-program` was not started"),
    (126, "run --observe -- /", "it is a directory"),
];

#[test]
fn bad_input_is_refused_in_three_lines() {
    for (code, line, part) in REFUSED {
        let output = lastack(line).output().expect("starts");
        let lines = refusal(&output, *code, line);
        assert!(lines.iter().any(|said| said.contains(part)), "{line}: {lines:?}");
        assert!(output.stdout.is_empty(), "{line}");
    }
}

#[test]
fn words_in_no_encoding_are_refused_like_others() {
    let word = std::ffi::OsStr::from_bytes(b"\xff");
    for (code, begin) in [(2, "ss"), (2, "--lang"), (125, "run")] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lastack"));
        let output = command.arg(begin).arg("--color").arg(word).env("LANG", "C").output().expect("starts");
        refusal(&output, code, begin);
    }
    let output = Command::new(env!("CARGO_BIN_EXE_lastack")).arg(word).env("LANG", "C").output();
    refusal(&output.expect("starts"), 2, "a word of its own");
}

/// Where standard error takes nothing, the exit code still tells; nothing panics (which would be 101).
#[test]
fn a_full_standard_error_changes_no_exit_code() {
    for (code, line) in [
        (2, "frob"),
        (0, "ss -u"),
        (2, "kill --yes"),
        (127, "run --observe -- no-such-program"),
        (125, "run --observe -- true"),
        (0, "run --observe --report none -- true"),
    ] {
        let full = File::options().write(true).open("/dev/full").expect("opens");
        let status = lastack(line).stdout(Stdio::null()).stderr(full).status().expect("starts");
        assert_eq!(status.code(), Some(code), "{line}");
    }
}

/// A pipe whose reader has gone.
fn broken_pipe() -> io::PipeWriter {
    let (reader, writer) = io::pipe().expect("a pipe");
    drop(reader);
    writer
}

#[test]
fn a_reader_that_has_gone_is_success_and_a_full_disk_is_not() {
    let folder = tempfile::tempdir().expect("a directory");
    let memory = folder.path().join("memory");
    let record = format!("record --duration 0 --memory {}", memory.display());
    for (code, line) in [
        (2, "--help"),
        (125, "run --help"),
        (2, "ss -a"),
        (125, "lab list"),
        (2, "sysctl"),
        (2, "export --print alerts"),
        (2, &record),
    ] {
        let status = lastack(line).stdout(broken_pipe()).stderr(Stdio::null()).status().expect("starts");
        assert!(status.success(), "{line}: {status}");
        let full = File::options().write(true).open("/dev/full").expect("opens");
        let output = lastack(line).stdout(full).stderr(Stdio::piped()).spawn().expect("starts");
        let output = output.wait_with_output().expect("ends");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            said.contains("error: could not write the output") && output.status.code() == Some(code),
            "{line}: {said}"
        );
    }
}

#[test]
fn the_status_is_the_programs_where_nobody_reads_the_journal() {
    let output = lastack("run --observe -- sh -c").arg("exit 7").stderr(broken_pipe()).status();
    assert_eq!(output.expect("starts").code(), Some(7));
}

#[test]
fn a_recorder_takes_the_place_of_files_only() {
    let folder = tempfile::tempdir().expect("a directory");
    let device = folder.path().join("device");
    // A named pipe stands for every file that is not one: a device, too, would be replaced.
    let made = Command::new("mkfifo").arg(&device).status().expect("coreutils");
    assert!(made.success());
    for path in [device.as_path(), folder.path()] {
        let line = format!("record --duration 0 --memory {}", path.display());
        let output = lastack(&line).output().expect("starts");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("it is not a regular file"), "{said}");
        assert_eq!(output.status.code(), Some(2), "{said}");
    }
    assert!(fs::metadata(&device).expect("is there").file_type().is_fifo());
    assert_eq!(folder.path().read_dir().expect("a directory").count(), 1);
}

#[test]
fn a_script_without_its_interpreter_is_told_from_a_missing_program() {
    let folder = tempfile::tempdir().expect("a directory");
    let script = folder.path().join("script");
    let mut file = File::create(&script).expect("creates");
    file.write_all(b"#!/no/such/interpreter\n").expect("writes");
    file.set_permissions(fs::Permissions::from_mode(0o755)).expect("its mode");
    drop(file);
    let output = lastack("run --observe --").arg(&script).output().expect("starts");
    let lines = refusal(&output, 127, "script");
    assert!(
        lines[0].contains("/script` was not started") && lines[1].contains("the interpreter"),
        "{lines:?}"
    );
}

#[test]
fn a_capture_that_the_disk_refuses_is_named() {
    if !lastack("run -- true").stderr(Stdio::null()).status().expect("starts").success() {
        println!("SKIPPED: no program can be run behind the stack here: lastack run -- true");
        return;
    }
    let output = lastack("run --pcap /dev/full -- true").output().expect("starts");
    let lines = refusal(&output, 125, "--pcap /dev/full");
    assert!(lines[0].contains("cannot write /dev/full") && lines[1].contains("No space left"), "{lines:?}");
}
