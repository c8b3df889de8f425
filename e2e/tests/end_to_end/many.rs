//! Short connections by the thousand, either side closing first: all succeed, nothing is left, memory stays small. And many clients at
//! once of one that serves.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use lastack_e2e::needs::{self, long};
use lastack_e2e::process::{Process, memory_kib, run};
use lastack_e2e::runner::{self, HOST_V4, Runner, User, copy_for_all, on_a_host_of_its_own};
use lastack_e2e::{binaries, clock, journal, servers};
use serde_json::Value;

use crate::{LONG, each_user, needs_run};

/// The most `lastack run` may ever have in memory.
const PEAK_KIB: u64 = 64 * 1024;

#[test]
fn all_succeed_and_nothing_is_left_when_the_server_closes_first() {
    needs_run!();
    short_connections("short-server-closes", "echo_then_close");
}

#[test]
fn all_succeed_and_nothing_is_left_when_the_client_closes_first() {
    needs_run!();
    short_connections("short-client-closes", "echo");
}

fn short_connections(mode: &str, port: &str) {
    each_user(|user| short_connections_of(user, mode, port));
}

fn short_connections_of(user: User, mode: &str, port: &str) {
    // The long size once: nobody's is the same code.
    let count = match user {
        User::Current if long() => 100_000,
        User::Current => 5_000,
        User::Nobody => 2_000,
    };
    let load = binaries::build("lastack-bench", "load");
    let mut server =
        Process::spawn(Command::new(&load).arg("serve").stdin(Stdio::piped()).stdout(Stdio::piped()))
            .unwrap();
    let ports = line(&mut server);
    let port = ports[port].as_u64().expect("the server's port");

    let runner = Runner::new(user);
    let copy = copy_for_all(&load, runner.dir()).unwrap();
    let mut command = runner.command(&copy);
    command.args([mode, &format!("{HOST_V4}:{port}"), &LONG.as_secs().to_string(), &count.to_string()]);
    let mut client = Process::spawn(command.stdin(Stdio::piped()).stdout(Stdio::piped())).unwrap();
    let result = line(&mut client);
    println!("{mode}: {result}");
    assert_eq!(result["errors"], 0, "{result}");
    assert_eq!(result["finished"].as_u64(), Some(count), "{result}");

    // The program is still there; its connections are over, so the runner must have let go of them.
    let rest = clock::until(Duration::from_secs(10), || {
        let (descriptors, sockets) = (descriptors(client.id()), host_sockets(port));
        (descriptors < 64 && sockets == 0).then_some((descriptors, sockets))
    });
    let (now, peak) = memory_kib(client.id()).expect("lastack still runs");
    let rest = rest.unwrap_or((descriptors(client.id()), host_sockets(port)));
    println!(
        "{mode}: {} descriptors, {} host sockets left, {now} KiB now, {peak} KiB at most",
        rest.0, rest.1
    );
    assert!(rest.0 < 64 && rest.1 == 0, "{} descriptors and {} host sockets are left", rest.0, rest.1);
    assert!(peak < PEAK_KIB, "{peak} KiB at most");

    drop(client.child().stdin.take());
    let status = client.wait_within(Duration::from_secs(90)).unwrap().expect("lastack ends with its program");
    assert!(status.success(), "{status}");
    let journal = runner.journal();
    assert_eq!(journal.len() as u64, count);
    let wrong = journal.iter().find(|line| line.text("how") != "fin" || line.text("lost_data") != "false");
    assert!(wrong.is_none(), "{wrong:?}");
    let closer = if mode == "short-server-closes" { "remote" } else { "program" };
    let by_other = journal.iter().filter(|line| line.text("closed_by") != closer).count();
    assert_eq!(by_other, 0, "closed_by is {closer}");
}

/// A web server whose log names its clients; it keeps connections, as wrk wants it.
const SERVER: &str = "
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    def do_GET(self):
        self.send_response(200)
        self.send_header('Content-Length', '5')
        self.end_headers()
        self.wfile.write(b'hello')
class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 1024
    def handle_error(self, request, client):
        sys.stdout.write('%s broke off at %s:%d\\n' % (sys.exc_info()[0].__name__, *client))
server = Server(('0.0.0.0', 8080), Handler)
print('listens')
server.serve_forever()
";

/// Ten clients that were answered once (so that the server has accepted them), begin another question and reset; each says its
/// port.
const RUDE: &str = "
import socket, struct
for _ in range(10):
    client = socket.create_connection(('203.0.113.9', 8080), 20, ('203.0.113.10', 0))
    client.sendall(b'GET / HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n')
    answer = b''
    while not answer.endswith(b'hello'):
        answer += client.recv(4096)
    client.sendall(b'GET / HT')
    print(client.getsockname()[1])
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
    client.close()
";

/// A server that is published, on a host with two addresses: clients from one load it, those from the other break off.
#[test]
fn clients_of_a_loaded_server_keep_their_addresses_and_those_that_reset_disturb_nobody() {
    needs_run!();
    needs!("ip", "python3", "wrk");
    if !needs::is_root() {
        needs::skip("needs root");
        return;
    }
    each_user(|user| {
        let dir = servers::directory().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
        fs::write(dir.path().join("server.py"), SERVER).unwrap();
        fs::write(dir.path().join("rude.py"), RUDE).unwrap();
        let (clients, time) = if long() { (1000, "20s") } else { (64, "3s") };
        let script = format!(
            "ip link set lo up; ip address add 203.0.113.9/32 dev lo; ip address add 203.0.113.10/32 dev lo
             \"$@\" run {} --publish 8080:8080 --json --output journal -- python3 -u server.py >out 2>log & lastack=$!
             for i in $(seq 200); do grep -q listens out && break; sleep 0.05; done
             wrk -t1 -c {clients} -d {time} --timeout 30s http://203.0.113.9:8080/ >wrk & wrk=$!
             python3 rude.py >rude
             wait $wrk
             for i in $(seq 600); do [ $(grep -c 'at 203.0.113.10' out) -ge 10 ] && break; sleep 0.05; done
             kill $lastack; wait $lastack || true",
            runner::device_flags().join(" ")
        );
        let mut command = on_a_host_of_its_own(user, dir.path(), &script);
        run(&mut command, LONG).unwrap().expect_success("the load");
        let said = |file: &str| fs::read_to_string(dir.path().join(file)).unwrap();
        let report = said("wrk");
        assert!(!report.contains("Socket errors") && !report.contains("Non-2xx"), "{report}");
        let log = said("log");
        let served: Vec<&str> = log.lines().filter(|line| line.contains("\" 200 ")).collect();
        assert!(served.len() > clients, "{report}");
        let of = |client: &str| served.iter().filter(|line| line.starts_with(client)).count();
        assert_eq!((of("203.0.113.10 "), of("203.0.113.9 ")), (10, served.len() - 10));
        let ports = said("rude");
        assert_eq!(ports.lines().count(), 10);
        let journal = journal::connections(&dir.path().join("journal")).unwrap();
        for port in ports.lines() {
            let broken = format!("ConnectionResetError broke off at 203.0.113.10:{port}\n");
            assert!(said("out").contains(&broken), "the server knows its client: {broken}{}", said("out"));
            let line = journal.iter().find(|line| line.text("remote") == format!("203.0.113.10:{port}"));
            let line = line.unwrap_or_else(|| panic!("{port} is not in the journal"));
            let told = ["direction", "how", "closed_by"].map(|field| line.text(field));
            assert_eq!(told, ["in", "reset", "remote"], "{line:?}");
        }
        let of_wrk = journal.iter().filter(|line| line.text("remote").starts_with("203.0.113.9:")).count();
        assert!(of_wrk >= clients && of_wrk + 10 == journal.len(), "{of_wrk} of {}", journal.len());
        println!("{} answers over {of_wrk} connections", served.len());
    });
}

/// The next JSON line a program prints.
fn line(process: &mut Process) -> Value {
    let stdout = process.child().stdout.take().expect("piped");
    let mut text = String::new();
    BufReader::new(stdout).read_line(&mut text).expect("a readable pipe");
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text:?}"))
}

fn descriptors(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

/// Host sockets to or from `port` that are neither listening nor TIME-WAIT.
fn host_sockets(port: u64) -> usize {
    let hex = format!(":{port:04X}");
    let table = std::fs::read_to_string("/proc/self/net/tcp").unwrap_or_default();
    let rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    rows.filter(|row| row.len() > 3 && !["06", "0A"].contains(&row[3]))
        .filter(|row| row[1].ends_with(&hex) || row[2].ends_with(&hex))
        .count()
}
