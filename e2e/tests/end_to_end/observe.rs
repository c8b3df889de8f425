//! `lastack run --observe`: a program as it is, and its connections as the kernel tells of them.
//!
//! Root has tracepoints, so that everything is told and observed; nobody has looks and endings, so that what is told
//! must not be more than follows from them.

use std::process::Command;

use lastack_e2e::actor::Actor;
use lastack_e2e::journal::{self, Connection};
use lastack_e2e::process::{Process, run};
use lastack_e2e::runner::{User, lastack_as};
use lastack_e2e::servers::Server;
use lastack_e2e::{binaries, clock, needs, servers};

use crate::{SHORT, write_noise};

/// `lastack run --observe` with its journal in a directory of its own.
struct Observed {
    dir: tempfile::TempDir,
    user: User,
}

impl Observed {
    fn new(user: User) -> Self {
        let dir = servers::directory().unwrap();
        std::fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
        Self { dir, user }
    }

    fn command(&self) -> Command {
        let mut command = lastack_as(self.user, self.dir.path());
        command.args(["run", "--observe", "--live", "--json", "--output", "journal", "--"]);
        command.current_dir(self.dir.path());
        command.stderr(std::fs::File::create(self.live()).unwrap());
        command
    }

    fn live(&self) -> std::path::PathBuf {
        self.dir.path().join("live")
    }

    /// Waits until a look has seen a connection.
    fn await_look(&self) {
        let live = self.live();
        let seen =
            clock::until(SHORT, || std::fs::read_to_string(&live).ok()?.contains("ESTAB").then_some(()));
        seen.expect("a look within the time limit");
    }

    fn journal(&self) -> Vec<Connection> {
        journal::connections(&self.dir.path().join("journal")).unwrap()
    }
}

fn needs_root() -> bool {
    if !needs::is_root() {
        needs::skip("needs root: tracepoints");
    }
    needs::is_root()
}

#[track_caller]
fn assert_told(connection: &Connection, fields: &[(&str, &str)]) {
    for (field, value) in fields {
        assert_eq!(connection.text(field), *value, "{field} of {connection:?}");
    }
}

#[test]
fn root_is_told_every_connection_of_real_programs() {
    needs!("nginx", "curl", "redis-server", "redis-cli");
    if !needs_root() {
        return;
    }
    let (nginx, redis) = (Server::nginx().unwrap(), Server::redis().unwrap());
    write_noise(&nginx.content().join("file"), 300_000);
    let observed = Observed::new(User::Current);
    let script = format!(
        "curl -sS -o /dev/null http://127.0.0.1:{port}/file; curl -sS -o /dev/null 'http://[::1]:{port}/file'
         redis-cli -p {redis} ping >/dev/null; redis-cli -p 1 ping 2>/dev/null; exit 3",
        port = nginx.port,
        redis = redis.port
    );
    let ended = run(observed.command().args(["sh", "-c", &script]), SHORT).unwrap();
    assert_eq!(ended.code(), Some(3), "the program's own status: {}", ended.stderr);
    let journal = observed.journal();
    let to = |remote: String| {
        let found: Vec<_> = journal.iter().filter(|c| c.text("remote") == remote).collect();
        assert!(!found.is_empty(), "nothing to {remote}: {journal:?}");
        found
    };
    for remote in [format!("127.0.0.1:{}", nginx.port), format!("[::1]:{}", nginx.port)] {
        let connection = to(remote)[0];
        assert_told(
            connection,
            &[("process", "curl"), ("how", "fin"), ("reason", "null"), ("certainty", "observed")],
        );
        assert!(connection.number("bytes_down") > 300_000, "{connection:?}");
        assert_told(connection, &[("inside", "absent"), ("device", "absent"), ("direction", "out")]);
    }
    assert_told(to(format!("127.0.0.1:{}", redis.port))[0], &[("how", "fin"), ("closed_by", "program")]);
    let refused = to("127.0.0.1:1".into())[0];
    assert_told(
        refused,
        &[("how", "refused"), ("reason", "no-listener"), ("closed_by", "remote"), ("certainty", "observed")],
    );
}

#[test]
fn programs_that_are_gone_at_once_have_their_names() {
    needs!("nginx", "curl");
    if !needs_root() {
        return;
    }
    let nginx = Server::nginx().unwrap();
    write_noise(&nginx.content().join("file"), 1);
    let observed = Observed::new(User::Current);
    let url = format!("http://127.0.0.1:{}/file", nginx.port);
    // One at a time, and many at once that end in any order; bash connects in a child that never called exec.
    let script = format!(
        "for i in $(seq 50); do curl -sS -o /dev/null {url}; done
         for i in $(seq 50); do curl -sS -o /dev/null {url} & done; wait
         for i in $(seq 10); do (exec 3<>/dev/tcp/127.0.0.1/{port}) & done; wait",
        port = nginx.port
    );
    assert_eq!(run(observed.command().args(["bash", "-c", &script]), SHORT).unwrap().code(), Some(0));
    let journal = observed.journal();
    let named = |name: &str| journal.iter().filter(|c| c.text("process") == name).count();
    assert_eq!((journal.len(), named("curl"), named("bash")), (110, 100, 10), "{journal:?}");
}

#[test]
fn root_is_told_who_closed_first_and_why_a_reset_came() {
    if !needs_root() {
        return;
    }
    // What each side does once connected; then what is told.
    type Words = [(&'static str, &'static str)];
    let law: [(&str, &Words, &Words); 5] = [
        (
            "program first",
            &[("c", "close"), ("s", "recv-to-end"), ("s", "close")],
            &[("how", "fin"), ("closed_by", "program"), ("reason", "null")],
        ),
        (
            "remote first",
            &[("s", "close"), ("c", "recv-to-end"), ("c", "close")],
            &[("how", "fin"), ("closed_by", "remote"), ("reason", "null")],
        ),
        (
            "program with data unread",
            &[("s", "send 100"), ("c", "wait-unread 100"), ("c", "close")],
            &[("how", "reset"), ("closed_by", "program"), ("reason", "closed-with-unread-data")],
        ),
        (
            "remote with data unread",
            &[("c", "send 100"), ("s", "wait-unread 100"), ("s", "close"), ("c", "wait err"), ("c", "close")],
            &[("how", "reset"), ("closed_by", "remote"), ("reason", "closed-with-unread-data")],
        ),
        (
            "program with linger 0",
            &[("c", "linger-0"), ("c", "close")],
            &[("how", "reset"), ("closed_by", "program"), ("reason", "linger-zero")],
        ),
    ];
    for (name, steps, told) in law {
        let observed = Observed::new(User::Current);
        let mut server = Actor::start(&mut Command::new(binaries::actor())).unwrap();
        let mut client = Actor::start(observed.command().arg(binaries::actor())).unwrap();
        let port = server.step("listen 127.0.0.1:0").port();
        assert_eq!(client.step(&format!("connect 127.0.0.1:{port}")).result, "ok", "{name}");
        assert_eq!(server.step("accept").result, "ok", "{name}");
        for (side, step) in steps {
            let answer = if *side == "c" { client.step(step) } else { server.step(step) };
            let is_done = matches!(&*answer.result, "ok" | "eof" | "ERR HUP");
            assert!(is_done, "{name}: {side} {step}: {answer:?}");
        }
        assert!(client.finish(SHORT).unwrap().is_some(), "{name}");
        let journal = observed.journal();
        assert_eq!(journal.len(), 1, "{name}: {journal:?}");
        println!("{name}: {:?}", journal[0]);
        assert_told(&journal[0], told);
        // Linux gives a linger of 0 no reason of its own.
        let certainty = if name == "program with linger 0" { "inferred" } else { "observed" };
        assert_told(&journal[0], &[("process", "actor"), ("certainty", certainty)]);
    }
}

/// Both ends of a connection in a namespace of its own, with ports that are the same in each. When everybody has been seen,
/// the server closes: with data unread, or after the client.
const PAIR: &str = r#"
import socket, sys, time
server, client = socket.socket(), socket.socket()
server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
server.bind(("127.0.0.1", 7100)); server.listen()
client.bind(("127.0.0.1", 7200)); client.connect(("127.0.0.1", 7100))
served, _ = server.accept()
while open(sys.argv[2]).read().count("ESTAB") < 4: time.sleep(0.001)
if sys.argv[1] == "unread":
    client.send(b"0123456789"); served.recv(1, socket.MSG_PEEK); served.close()
    try: client.recv(1)
    except ConnectionResetError: pass
    client.close()
else:
    client.close(); served.recv(1); served.close()
"#;

#[test]
fn the_same_four_numbers_in_two_namespaces_are_two_connections() {
    needs!("unshare", "ip", "python3");
    if !needs_root() {
        return;
    }
    let observed = Observed::new(User::Current);
    std::fs::write(observed.dir.path().join("pair.py"), PAIR).unwrap();
    let inside = |how: &str| {
        let live = observed.live().display().to_string();
        format!("unshare -n sh -c 'ip link set lo up && exec python3 pair.py {how} {live}'")
    };
    let script = format!("{} & {} & wait", inside("unread"), inside("clean"));
    let mut process = Process::spawn(observed.command().args(["sh", "-c", &script])).unwrap();
    let status = process.wait_within(SHORT).unwrap().map(|status| status.code());
    let live = std::fs::read_to_string(observed.live()).unwrap();
    assert_eq!(status, Some(Some(0)), "{live}");
    assert!(!live.contains("warning"), "{live}");
    let journal = observed.journal();
    let mut told: Vec<String> = journal
        .iter()
        .map(|c| ["local", "direction", "how", "closed_by", "reason"].map(|field| c.text(field)).join(" "))
        .collect();
    told.sort();
    assert_eq!(
        told,
        [
            "127.0.0.1:7100 in fin remote null",
            "127.0.0.1:7100 in reset program closed-with-unread-data",
            "127.0.0.1:7200 out fin program null",
            "127.0.0.1:7200 out reset remote closed-with-unread-data",
        ],
        "{journal:?}"
    );
}

#[test]
fn a_connection_that_is_accepted_is_the_programs_too() {
    let observed = Observed::new(User::Current);
    let mut program = Actor::start(observed.command().arg(binaries::actor())).unwrap();
    let port = program.step("listen 127.0.0.1:0").port();
    let mut client = Actor::start(&mut Command::new(binaries::actor())).unwrap();
    assert_eq!(client.step(&format!("connect 127.0.0.1:{port}")).result, "ok");
    assert_eq!(program.step("accept").result, "ok");
    assert_eq!(client.step("send 1000").result, "ok");
    assert_eq!(program.step("recv 1000").result, "ok");
    observed.await_look();
    assert_eq!(client.step("close").result, "ok");
    assert_eq!(program.step("recv-to-end").result, "eof");
    assert!(program.finish(SHORT).unwrap().is_some());
    let journal = observed.journal();
    assert_eq!(journal.len(), 1, "{journal:?}");
    assert_told(
        &journal[0],
        &[("direction", "in"), ("bytes_down", "1000"), ("closed_by", "remote"), ("how", "fin")],
    );
    assert!(journal[0].text("local").ends_with(&format!(":{port}")));
}

#[test]
fn nobody_is_told_what_follows_and_no_more() {
    if !needs::is_root() {
        needs::skip("needs root");
        return;
    }
    let observed = Observed::new(User::Nobody);
    let copy = lastack_e2e::runner::copy_for_all(binaries::actor(), observed.dir.path()).unwrap();
    let mut client = Actor::start(observed.command().arg(copy)).unwrap();
    let mut server = Actor::start(&mut Command::new(binaries::actor())).unwrap();
    let port = server.step("listen 127.0.0.1:0").port();
    assert_eq!(client.step(&format!("connect 127.0.0.1:{port}")).result, "ok");
    assert_eq!(server.step("accept").result, "ok");
    assert_eq!(client.step("send 10").result, "ok");
    assert_eq!(server.step("recv 10").result, "ok");
    observed.await_look();
    assert_eq!(client.step("close").result, "ok");
    assert_eq!(server.step("recv-to-end").result, "eof");
    assert_eq!(server.step("close").result, "ok");
    assert!(client.finish(SHORT).unwrap().is_some());
    let journal = observed.journal();
    assert_eq!(journal.len(), 1, "{journal:?}");
    assert_told(
        &journal[0],
        &[("process", "actor"), ("how", "fin"), ("closed_by", "program"), ("bytes_up", "10")],
    );
    assert_ne!(journal[0].text("certainty"), "possible");
}

#[test]
fn what_only_a_stack_can_do_is_refused_with_it() {
    for flags in [
        &["--deny", "*"][..],
        &["--pcap", "x"],
        &["--sysctl", "tcp_sack=0"],
        &["--device", "tun"],
        &["--mtu", "9000"],
    ] {
        let mut command = Command::new(binaries::lastack());
        command.args(["run", "--observe"]).args(flags).args(["--", "true"]);
        let ended = run(&mut command, SHORT).unwrap();
        assert_eq!(ended.code(), Some(125), "{flags:?}: {}", ended.stderr);
        assert!(ended.stderr.contains("--observe") && ended.stderr.contains(flags[0]), "{}", ended.stderr);
    }
}

#[test]
fn the_programs_status_signals_and_streams_are_its_own() {
    let observed = Observed::new(User::Current);
    let code = |script: &str| run(observed.command().args(["sh", "-c", script]), SHORT).unwrap().code();
    assert_eq!(code("exit 4"), Some(4));
    assert_eq!(code("kill -KILL $$"), Some(128 + 9));
    assert_eq!(run(observed.command().arg("no-such-program-anywhere"), SHORT).unwrap().code(), Some(127));
    let mut command = observed.command();
    command.args(["sh", "-c", "trap 'exit 7' TERM; echo; while :; do sleep 0.01; done"]);
    let mut process = Process::spawn(command.stdout(std::process::Stdio::piped())).unwrap();
    let mut byte = [0];
    let mut stdout = process.child().stdout.take().unwrap();
    std::io::Read::read_exact(&mut stdout, &mut byte).unwrap();
    process.signal(rustix::process::Signal::TERM);
    assert_eq!(process.wait_within(SHORT).unwrap().and_then(|status| status.code()), Some(7));
}
