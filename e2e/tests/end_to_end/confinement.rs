//! What the program and lastack itself have given up, seen from inside and from outside.

use std::collections::BTreeMap;
use std::fs;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use lastack_e2e::process::{Process, run};
use lastack_e2e::runner::{HOST_V4, Runner, User, as_nobody, copy_for_all};
use lastack_e2e::{binaries, clock, needs};
use rustix::process::Signal;

use crate::{SHORT, each_user, needs_run};

/// What root's programs keep: chown, dac_override, fowner, fsetid, kill, setgid, setuid, setpcap, net_bind_service, net_raw,
/// sys_chroot, audit_write, setfcap (linux/capability.h).
const ROOT_PROGRAM: u64 = 0xa004_25fb;
/// What lastack keeps of root's: dac_read_search, net_bind_service, sys_ptrace.
const CARRIER: u64 = 1 << 2 | 1 << 10 | 1 << 19;

/// The fields of a `/proc/PID/status`.
fn fields(status: &str) -> BTreeMap<&str, &str> {
    status.lines().filter_map(|line| line.split_once(':')).map(|(name, value)| (name, value.trim())).collect()
}

fn capabilities(status: &BTreeMap<&str, &str>, set: &str) -> u64 {
    u64::from_str_radix(status[set], 16).expect("hexadecimal")
}

/// Every user, and nobody as root of its namespace.
fn each_way(mut test: impl FnMut(User, &[&str])) {
    each_user(|user| {
        test(user, &[]);
        if user == User::Nobody {
            println!("-- with --root-map");
            test(user, &["--root-map"]);
        }
    });
}

/// `command`, started by a shell that has descriptors 7 and 9 open.
fn with_open_descriptors(command: &Command) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-ec", "exec 7</dev/null 9</etc/passwd; exec \"$@\"", "sh"]);
    shell.arg(command.get_program()).args(command.get_args());
    let envs = command.get_envs().filter_map(|(name, value)| Some((name, value?)));
    shell.envs(envs).current_dir(command.get_current_dir().unwrap_or(Path::new("/")));
    shell
}

#[test]
fn the_program_has_no_capability_and_can_gain_none() {
    needs_run!();
    each_user(|user| {
        let inside = Runner::new(user).run("cat", &["/proc/self/status"], SHORT).expect_success("cat").text();
        let status = fields(&inside);
        for set in ["CapInh", "CapAmb"] {
            assert_eq!(capabilities(&status, set), 0, "{set}");
        }
        let is_root = user == User::Current && needs::is_root();
        let kept = if is_root { ROOT_PROGRAM } else { 0 };
        for set in ["CapPrm", "CapEff"] {
            assert_eq!(capabilities(&status, set), kept, "{set}");
        }
        // Either bars more for ever.
        if is_root {
            assert_eq!(capabilities(&status, "CapBnd"), kept);
        } else {
            assert_eq!(status["NoNewPrivs"], "1");
        }
    });
}

#[test]
fn the_program_that_sees_itself_as_root_has_no_more_than_a_containers_root() {
    needs_run!();
    if !needs::is_root() {
        needs::skip("needs root, to be nobody");
        return;
    }
    let runner = Runner::new(User::Nobody).flags(&["--root-map"]);
    let script = "id -u; cat /proc/self/status; ip link add dummy0 type dummy 2>/dev/null && echo made a link; \
                  mount -t tmpfs none /mnt 2>/dev/null && echo mounted; true";
    let inside = runner.run("sh", &["-c", script], SHORT).expect_success("sh").text();
    assert!(inside.starts_with("0\n"), "{inside}");
    assert_eq!(capabilities(&fields(&inside), "CapEff"), ROOT_PROGRAM);
    assert!(!inside.contains("made a link") && !inside.contains("mounted"), "{inside}");
}

#[test]
fn the_program_inherits_three_descriptors_or_all_for_the_asking() {
    needs_run!();
    each_way(|user, way| {
        let seen = |flags: &[&str]| {
            let runner = Runner::new(user).flags(way).flags(flags);
            let mut command = with_open_descriptors(runner.command("ls").arg("/proc/self/fd"));
            let seen = run(&mut command, SHORT).unwrap().expect_success("ls").text();
            seen.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
        };
        // The fourth is what `ls` looks with.
        assert_eq!(seen(&[]), ["0", "1", "2", "3"]);
        // Others that this test was started with may be there too.
        let all = seen(&["--keep-fds"]);
        assert!(["7", "9"].iter().all(|fd| all.iter().any(|seen| seen == fd)), "{all:?}");
    });
}

/// Tries every way to the control socket that an ordinary program has; prints the names of those that work.
const REACH: &str = r#"
dir=$1 name=$2 probe=$3
try() { what=$1; shift; if "$@" >/dev/null 2>&1; then echo "REACHED by $what"; fi; }
carrier=$(sed -n 's/^PPid:\t//p' "/proc/$PPID/status")
test -d "$dir" && echo "there is $dir"
try listing test -n "$(ls -A "$dir")"
try name "$probe" ss --source "$name"
try umount umount "$dir"
try 'umount as root of a namespace' unshare --user --map-root-user --mount umount "$dir"
try "the carrier's root" test -e "/proc/$carrier/root$dir"
try "the helper's descriptors" readlink "/proc/$PPID/fd/0"
try "the carrier's descriptors" readlink "/proc/$carrier/fd/0"
try "the carrier's mounts" nsenter --mount --target "$carrier" true
# Opening is what is refused: what is at address 0 can be read by nobody.
opens() { sh -c ': < "$1"' sh "$1"; }
try "the carrier's memory" opens "/proc/$carrier/mem"
try "the helper's memory" opens "/proc/$PPID/mem"
try 'this process, which shows that such a way is found' opens "/proc/$$/mem"
"#;

#[test]
fn the_control_socket_is_out_of_reach() {
    needs_run!();
    needs!("nsenter");
    each_way(|user, way| {
        let name = format!("e2e-reach-{user:?}{}", way.len());
        let runner = Runner::new(user).flags(way).flags(&["--name", &name]);
        // A runtime directory of its own, so that it is known where the socket is.
        let runtime = runner.dir().join("runtime");
        fs::create_dir(&runtime).unwrap();
        fs::set_permissions(&runtime, fs::Permissions::from_mode(0o777)).unwrap();
        let directory = runtime.join("lastack").display().to_string();
        let probe = copy_for_all(binaries::lastack(), runner.dir()).unwrap();
        let mut command = runner.command("sh");
        command.args(["-c", REACH, "sh", &directory, &name]).arg(probe).env("XDG_RUNTIME_DIR", &runtime);
        let tried = run(&mut command, SHORT).unwrap().expect_success("sh").text();
        let found = "REACHED by this process, which shows that such a way is found";
        assert_eq!(tried, format!("there is {directory}\n{found}\n"));
    });
}

/// The kernel has Landlock's scopes, as far as can be told from outside.
fn has_scopes() -> bool {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut numbers = release.split(['.', '-']).map(|part| part.parse::<u32>().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let listed = fs::read_to_string("/sys/kernel/security/lsm").map_or(true, |lsm| lsm.contains("landlock"));
    version >= (6, 12) && listed
}

#[test]
fn nobody_outside_can_be_signalled() {
    needs_run!();
    if !has_scopes() {
        needs::skip("this kernel has no Landlock scopes (Linux 6.12): SECURITY.md says what that means");
        return;
    }
    each_way(|user, way| {
        let mut outside = match user {
            User::Current => Command::new("sleep"),
            User::Nobody => as_nobody(false),
        };
        if user == User::Nobody {
            outside.arg("sleep");
        }
        let outside = Process::spawn(outside.arg("100").stdin(Stdio::null())).unwrap();
        let ready = || {
            let comm = fs::read_to_string(format!("/proc/{}/comm", outside.id())).ok()?;
            (comm == "sleep\n").then_some(())
        };
        clock::until(SHORT, ready).expect("sleep runs");
        let script = format!(
            "kill -0 {} && echo signalled; sleep 9 & kill $! && wait $!; echo ended $?",
            outside.id()
        );
        let runner = Runner::new(user).flags(way);
        let ended = runner.run("sh", &["-c", &script], SHORT).expect_success("sh");
        assert_eq!(ended.text(), "ended 143\n", "{}", ended.stderr);
    });
}

#[test]
fn abstract_sockets_outside_are_out_of_reach() {
    needs_run!();
    needs!("python3");
    let name = format!("lastack-e2e-{}", std::process::id());
    let listener = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    listener.set_nonblocking(true).unwrap();
    let script = format!("import socket; print(socket.socket(socket.AF_UNIX).connect_ex('\\0{name}'))");
    let outside = run(Command::new("python3").args(["-c", &script]), SHORT).unwrap();
    assert_eq!(outside.expect_success("python3").text(), "0\n", "it is there");
    listener.accept().unwrap();
    each_way(|user, way| {
        let runner = Runner::new(user).flags(way);
        let tried = runner.run("python3", &["-c", &script], SHORT).expect_success("python3").text();
        assert!(tried != "0\n" && listener.accept().is_err(), "{tried}");
    });
}

#[test]
fn set_user_id_programs_give_what_the_program_may_have_and_no_more() {
    needs_run!();
    if !needs::is_root() {
        needs::skip("needs root, to make a set-user-id program");
        return;
    }
    // Of root for nobody, of nobody for root: either changes the user where it works.
    each_user(|user| {
        let (owner, own, kept) = match user {
            User::Current => ("65534", "0", ROOT_PROGRAM),
            User::Nobody => ("0", "65534", 0),
        };
        let runner = Runner::new(user);
        let program = runner.dir().join("show");
        let make = "cp \"$(command -v cat)\" \"$1\" && chown \"$2\" \"$1\" && chmod 4755 \"$1\"";
        let mut made = Command::new("sh");
        made.args(["-ec", make, "sh"]).arg(&program).arg(owner);
        run(&mut made, SHORT).unwrap().expect_success("a set-user-id program");
        let effective = |status: &str| fields(status)["Uid"].split_whitespace().nth(1).map(str::to_owned);
        let mut outside = match user {
            User::Current => Command::new(&program),
            User::Nobody => as_nobody(false),
        };
        if user == User::Nobody {
            outside.arg(&program);
        }
        let outside = run(outside.arg("/proc/self/status"), SHORT).unwrap().expect_success("show").text();
        if effective(&outside).as_deref() != Some(owner) {
            needs::skip("set-user-id programs do not work in the directory for temporary files");
            return;
        }
        let program = program.display().to_string();
        let inside = runner.run(&program, &["/proc/self/status"], SHORT).expect_success("show").text();
        let expected = if user == User::Current { owner } else { own };
        assert_eq!(effective(&inside).as_deref(), Some(expected), "{inside}");
        for set in ["CapPrm", "CapEff", "CapInh", "CapAmb"] {
            assert_eq!(capabilities(&fields(&inside), set) & !kept, 0, "{set}: {inside}");
        }
    });
}

#[test]
fn lastack_itself_keeps_little_while_it_carries() {
    needs_run!();
    each_user(|user| {
        let pcap = Runner::new(user);
        let file = pcap.dir().join("run.pcapng").display().to_string();
        let runner = pcap.flags(&["--pcap", &file, "--loss", "1%"]);
        let mut command = runner.command("sh");
        command.args(["-c", "echo up; sleep 1000"]).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut process = Process::spawn(&mut command).unwrap();
        let mut up = [0; 2];
        std::io::Read::read_exact(process.child().stdout.as_mut().unwrap(), &mut up).unwrap();
        let tasks = fs::read_dir(format!("/proc/{}/task", process.id())).unwrap().flatten();
        let statuses: Vec<String> =
            tasks.map(|task| fs::read_to_string(task.path().join("status")).unwrap()).collect();
        assert!(statuses.len() >= 3, "the carrier, its journal, its control socket");
        let most = if user == User::Current && needs::is_root() { CARRIER } else { 0 };
        for status in statuses {
            let status = fields(&status);
            assert_eq!((status["Seccomp"], status["NoNewPrivs"]), ("2", "1"), "{status:?}");
            for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
                assert_eq!(capabilities(&status, set) & !most, 0, "{set}: {status:?}");
            }
        }
        process.signal(Signal::TERM);
        process.wait_within(SHORT).unwrap().expect("it ends");
    });
}

#[test]
fn ping_needs_no_capability_inside() {
    needs_run!();
    needs!("ping");
    each_user(|user| {
        let ended = Runner::new(user).run("ping", &["-c", "1", "-W", "20", HOST_V4], Duration::from_secs(60));
        assert!(ended.expect_success("ping").text().contains("1 received"));
    });
}
