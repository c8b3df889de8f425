//! What a machine can refuse, made on purpose: each time three lines that name it and the remedy, and `--observe` as it is offered there.

use std::fs;
use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use lastack_e2e::process::{Finished, Process, run};
use lastack_e2e::runner::{as_nobody, copy_for_all};
use lastack_e2e::{binaries, clock, journal, needs, servers};

use crate::{SHORT, needs_run};

/// Panics unless `ended` is a failure of ours in three lines whose second and third contain these.
#[track_caller]
fn assert_explained(ended: &Finished, cause: &str, remedy: &str) {
    assert_eq!(ended.code(), Some(125), "{}", ended.stderr);
    let line = |start: &str| {
        let found = ended.stderr.lines().find(|line| line.starts_with(start));
        found.unwrap_or_else(|| panic!("no `{start}` line in:\n{}", ended.stderr)).to_owned()
    };
    assert!(!line("error: ").is_empty());
    assert!(line("cause: ").contains(cause), "{}", ended.stderr);
    assert!(line("try: ").contains(remedy), "{}", ended.stderr);
    assert!(line("try: ").contains("lastack run --observe -- CMD"), "{}", ended.stderr);
}

/// `script` as root in a mount namespace of its own; `$1` is a copy of `lastack` that everybody may execute.
fn as_root_in(dir: &Path, script: &str) -> Command {
    let copy = copy_for_all(binaries::lastack(), dir).unwrap();
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-ec", script, "sh"]).arg(copy).current_dir(dir);
    command
}

/// The same, to its end.
fn as_root(script: &str) -> Finished {
    let dir = servers::directory().unwrap();
    run(&mut as_root_in(dir.path(), script), SHORT).unwrap()
}

/// `lastack` as an ordinary user where `limit` is 0. Limits are themselves per user namespace: in one of our own we may set them.
fn where_none(limit: &str, dir: &Path) -> Command {
    let copy = copy_for_all(binaries::lastack(), dir).unwrap();
    let mut command = if needs::is_root() { as_nobody(false) } else { Command::new("env") };
    let drop = "setpriv --inh-caps -all --ambient-caps -all --";
    let script = format!("echo 0 > /proc/sys/user/{limit}; exec {drop} \"$@\"");
    command.args(["unshare", "--user", "--map-current-user", "--keep-caps", "sh", "-ec", &script, "sh"]);
    command.arg(copy).current_dir(dir);
    command
}

#[test]
fn a_limit_of_no_namespaces_is_named_with_its_sysctl() {
    needs_run!();
    let dir = servers::directory().unwrap();
    for limit in ["max_user_namespaces", "max_net_namespaces"] {
        let ended = run(where_none(limit, dir.path()).args(["run", "--", "true"]), SHORT).unwrap();
        assert_eq!(ended.code(), Some(125), "{}", ended.stderr);
        assert_eq!(
            ended.stderr.lines().collect::<Vec<_>>(),
            [
                "error: cannot make a network namespace for the program",
                &format!(
                    "cause: namespaces are switched off: user.{limit} is 0 (No space left on device (os error 28))"
                ),
                &format!(
                    "try:   sudo sysctl user.{limit}=15000; or run as root; or, without a namespace: lastack run --observe -- CMD"
                ),
            ]
        );
    }
}

#[test]
fn root_needs_no_user_namespace_but_a_network_namespace() {
    needs_run!();
    let root = |limit: &str| {
        let script = format!("echo 0 > /proc/sys/user/{limit}; exec \"$@\" run -- true");
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "sh", "-ec", &script, "sh"]).arg(binaries::lastack());
        run(&mut command, SHORT).unwrap()
    };
    root("max_user_namespaces").expect_success("root does without");
    let ended = root("max_net_namespaces");
    assert_explained(&ended, "user.max_net_namespaces is 0", "sudo sysctl user.max_net_namespaces=15000");
}

#[test]
fn without_a_tun_node_the_cure_is_named_and_auto_does_without() {
    needs_run!();
    if !needs::is_root() {
        needs::skip("needs root");
        return;
    }
    let hide = "mount -t tmpfs -o size=4k none /dev/net";
    let ended = as_root(&format!("{hide}; exec \"$1\" run --device tun -- true"));
    assert_explained(&ended, "there is no /dev/net/tun", "--device /dev/net/tun");
    let ended = as_root(&format!("{hide}; exec \"$1\" run -- true")).expect_success("auto");
    assert!(ended.stderr.contains("0 connections"), "{}", ended.stderr);
}

#[test]
fn without_any_link_both_are_explained() {
    needs_run!();
    if !needs::is_root() || needs::tun_is_for_everyone() {
        needs::skip("needs root, and a /dev/net/tun that is not open to all");
        return;
    }
    let dir = servers::directory().unwrap();
    let copy = copy_for_all(binaries::lastack(), dir.path()).unwrap();
    // One network namespace is enough for a TUN, not for a veth pair.
    let script = "echo 1 > /proc/sys/user/max_net_namespaces; exec \"$@\" run -- true";
    let mut command = as_nobody(false);
    command
        .args(["unshare", "--user", "--map-root-user", "sh", "-ec", script, "sh"])
        .arg(copy)
        .current_dir("/");
    let ended = run(&mut command, SHORT).unwrap();
    assert_explained(&ended, "/dev/net/tun", "max_net_namespaces");
    assert!(ended.stderr.contains("neither a TUN device nor a veth pair"), "{}", ended.stderr);
}

/// `lastack`, where the system call of that number on x86-64 or arm64 fails with EPERM and the rest is allowed.
fn where_refused(x86_64: u32, aarch64: u32) -> Option<Command> {
    let (prctl, call) = match std::env::consts::ARCH {
        "x86_64" => (157, x86_64),
        "aarch64" => (167, aarch64),
        _ => {
            needs::skip("the filter is written for x86-64 and arm64");
            return None;
        }
    };
    // Loads the number of the call, and compares.
    let perl = format!(
        "my ($prctl, $call) = ({prctl}, {call});
         my $filter = pack('SCCL' x 4, 0x20,0,0,0, 0x15,0,1,$call, 0x06,0,0,0x50001, 0x06,0,0,0x7fff0000);
         my $program = pack('S x![Q] P', 4, $filter);
         syscall($prctl, 38, 1, 0, 0, 0) == 0 or die; syscall($prctl, 22, 2, $program) == 0 or die $!;
         exec @ARGV or die;"
    );
    let mut command = Command::new("perl");
    command.args(["-e", &perl]).arg(binaries::lastack());
    Some(command)
}

#[test]
fn a_seccomp_filter_is_recognised() {
    needs_run!();
    needs!("perl");
    // unshare
    let Some(mut command) = where_refused(272, 97) else { return };
    let ended = run(command.args(["run", "--", "true"]), SHORT).unwrap();
    assert_explained(&ended, "seccomp", "--security-opt seccomp=unconfined");
}

#[test]
fn that_lastack_has_no_filter_of_its_own_is_told_whatever_the_report() {
    needs_run!();
    needs!("perl");
    for report in ["none", "text"] {
        // seccomp
        let Some(mut command) = where_refused(317, 277) else { return };
        let ended = run(command.args(["run", "--report", report, "--", "true"]), SHORT).unwrap();
        assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
        assert!(
            ended.stderr.contains("without a filter of its own system calls"),
            "{report}: {}",
            ended.stderr
        );
    }
}

/// Makes a chroot of this machine's programs in `root`, with `lastack` in it. `exec $CHROOT` goes on as nobody in there.
const CHROOT: &str = "
mkdir -p root/usr root/proc root/dev root/etc; mkdir -m 777 root/tmp
for d in bin sbin lib lib64; do if [ -L /$d ]; then cp -P /$d root/; elif [ -d /$d ]; then mkdir root/$d; mount --bind /$d root/$d; fi; done
mount --bind /usr root/usr; mount --bind /proc root/proc; mount --rbind /dev root/dev; cp \"$1\" root/lastack; chmod 755 .
CHROOT='chroot --userspec=65534:65534 root'
";

#[test]
fn a_chroot_is_recognised() {
    needs_run!();
    if !needs::is_root() {
        needs::skip("needs root");
        return;
    }
    let ended = as_root(&format!("{CHROOT} exec $CHROOT /lastack run -- true"));
    assert_explained(&ended, "this is a chroot", "outside of it");
}

/// Ways to be refused a namespace.
const REFUSALS: [&str; 4] = ["max_user_namespaces", "max_net_namespaces", "seccomp", "chroot"];

/// `lastack` where a namespace is refused to it that way, to add arguments to; `None`, told, where that cannot be made.
fn refused(how: &str, dir: &Path) -> Option<Command> {
    match how {
        // unshare
        "seccomp" => where_refused(272, 97).map(|mut command| {
            command.current_dir(dir);
            command
        }),
        "chroot" if !needs::is_root() => {
            needs::skip("a chroot needs root");
            None
        }
        "chroot" => Some(as_root_in(dir, &format!("{CHROOT} shift; exec $CHROOT /lastack \"$@\""))),
        limit => Some(where_none(limit, dir)),
    }
}

#[test]
fn where_a_namespace_is_refused_the_program_is_observed_for_the_asking() {
    needs_run!();
    needs!("perl", "bash");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let connect = format!("exec 3<>/dev/tcp/127.0.0.1/{port}; read -r line <&3; exit 5");
    for how in REFUSALS {
        println!("-- {how}");
        let dirs = [(); 3].map(|()| servers::directory().unwrap());
        for dir in &dirs {
            fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
        }
        let [plain, observed, real] = dirs.each_ref().map(|dir| refused(how, dir.path()));
        let (Some(mut plain), Some(mut observed), Some(mut real)) = (plain, observed, real) else { continue };
        // It is refused here indeed.
        assert_eq!(run(plain.args(["run", "--", "true"]), SHORT).unwrap().code(), Some(125), "{how}");
        run(observed.args(["run", "--observe", "--", "true"]), SHORT).unwrap().expect_success(how);

        let dir = dirs[2].path();
        let live = dir.join("live");
        real.args(["run", "--observe", "--live", "--json", "--output", "tmp/journal", "--"]);
        real.args(["bash", "-c", &connect]).stderr(fs::File::create(&live).unwrap());
        if how != "chroot" {
            fs::create_dir(dir.join("tmp")).unwrap();
            fs::set_permissions(dir.join("tmp"), fs::Permissions::from_mode(0o777)).unwrap();
        }
        let mut process = Process::spawn(&mut real).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        // Nobody is told of what comes and goes between two looks: wait for one.
        let said = || fs::read_to_string(&live).unwrap();
        let looked = clock::until(SHORT, || said().contains("ESTAB").then_some(()));
        assert!(looked.is_some(), "{how}: {}", said());
        server.write_all(b"line\n").unwrap();
        drop(server);
        let status = process.wait_within(SHORT).unwrap();
        assert_eq!(status.and_then(|status| status.code()), Some(5), "{how}: the program's own status");
        let tmp = if how == "chroot" { "root/tmp" } else { "tmp" };
        let journal = journal::connections(&dir.join(tmp).join("journal")).unwrap();
        let [connection] = journal.as_slice() else { panic!("{how}: {journal:?}") };
        for (field, value) in [("process", "bash"), ("direction", "out"), ("bytes_down", "5")] {
            assert_eq!(connection.text(field), value, "{how}: {connection:?}");
        }
    }
}
