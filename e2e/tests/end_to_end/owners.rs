//! Whose connection it is: the process, and its control group, whatever the socket is like.

use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Command;

use lastack_e2e::needs;
use lastack_e2e::process::run;
use lastack_e2e::runner::{Runner, User};

use crate::{SHORT, each_user, needs_run};

/// Connects once, by a socket that is bound to its interface where that is asked for.
const CONNECT: &str = r"
import socket, sys
socket_ = socket.socket()
if sys.argv[2:]:
    link = next(name for _, name in socket.if_nameindex() if name != 'lo')
    socket_.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, link.encode())
socket_.connect(('10.0.2.2', int(sys.argv[1])))
socket_.recv(1)
";

/// A server that ends every connection at once; its port.
fn server() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    std::thread::spawn(move || listener.incoming().for_each(drop));
    port
}

#[test]
fn a_socket_that_is_bound_to_its_interface_has_its_owner_in_the_journal_too() {
    needs_run!();
    needs!("python3");
    let port = server();
    each_user(|user| {
        let runner = Runner::new(user);
        let args = ["-c", CONNECT, &port, "bound"];
        runner.run("python3", &args, SHORT).expect_success("python3");
        let journal = runner.journal();
        assert_eq!((journal.len(), journal[0].text("process")), (1, "python3".into()), "{journal:?}");
    });
}

/// Where groups of the second kind can be made, if anywhere.
fn unified_hierarchy() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    mounts.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let (at, kind) = (fields.next()?, fields.next()?);
        (kind == "cgroup2").then(|| PathBuf::from(at))
    })
}

/// A control group that is removed again.
struct Group(PathBuf);

impl Drop for Group {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir(&self.0) {
            eprintln!("{} is left: {error}", self.0.display());
        }
    }
}

#[test]
fn the_journal_names_the_service_that_a_program_runs_in() {
    needs_run!();
    needs!("python3");
    let Some(top) = unified_hierarchy() else {
        needs::skip("no cgroup2 is mounted here");
        return;
    };
    let name = format!("lastack-e2e-{}.service", std::process::id());
    let group = top.join(&name);
    if let Err(error) = fs::create_dir(&group) {
        needs::skip(&format!("no group can be made in {}: {error}", top.display()));
        return;
    }
    let group = Group(group);
    let runner = Runner::new(User::Current);
    let lastack = runner.command("python3");
    let enter = "echo $$ >\"$1/cgroup.procs\"; shift; exec \"$@\"";
    let mut shell = Command::new("sh");
    shell.args(["-ec", enter, "sh"]).arg(&group.0).arg(lastack.get_program()).args(lastack.get_args());
    shell.args(["-c", CONNECT, &server()]).current_dir(runner.dir());
    run(&mut shell, SHORT).unwrap().expect_success("python3");
    let journal = runner.journal();
    assert_eq!((journal.len(), journal[0].text("cgroup")), (1, name), "{journal:?}");
}
