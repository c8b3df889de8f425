//! What a machine can refuse, made on purpose: each time three lines that name it and the remedy.

use std::process::Command;

use lastack_e2e::process::{Finished, run};
use lastack_e2e::runner::{as_nobody, copy_for_all};
use lastack_e2e::{binaries, needs, servers};

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
fn as_root(script: &str) -> Finished {
    let dir = servers::directory().unwrap();
    let copy = copy_for_all(binaries::lastack(), dir.path()).unwrap();
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-ec", script, "sh"]).arg(copy).current_dir(dir.path());
    run(&mut command, SHORT).unwrap()
}

#[test]
fn a_limit_of_no_namespaces_is_named_with_its_sysctl() {
    needs_run!();
    for limit in ["max_user_namespaces", "max_net_namespaces"] {
        // Limits are themselves per user namespace: in one of our own we may set them to none.
        let script = format!("echo 0 > /proc/sys/user/{limit}; exec \"$@\" run -- true");
        let mut command = Command::new("unshare");
        // Twice: root inside the first would do without another user namespace.
        command.args(["--user", "--map-root-user", "sh", "-ec", &script, "sh"]).arg(binaries::lastack());
        let ended = run(&mut command, SHORT).unwrap();
        if limit == "max_user_namespaces" && ended.success() {
            continue; // Root of that namespace needs no other.
        }
        assert_explained(&ended, &format!("user.{limit} is 0"), &format!("sudo sysctl user.{limit}=15000"));
    }
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

#[test]
fn a_chroot_is_recognised() {
    needs_run!();
    if !needs::is_root() {
        needs::skip("needs root");
        return;
    }
    let enter = "mkdir -p root/usr root/proc root/dev root/etc
        for d in bin sbin lib lib64; do if [ -L /$d ]; then cp -P /$d root/; elif [ -d /$d ]; then mkdir root/$d; mount --bind /$d root/$d; fi; done
        mount --bind /usr root/usr; mount --bind /proc root/proc; mount --rbind /dev root/dev; cp \"$1\" root/lastack; chmod 755 .";
    let ended = as_root(&format!("{enter}; exec chroot --userspec=65534:65534 root /lastack run -- true"));
    assert_explained(&ended, "this is a chroot", "outside of it");
}
