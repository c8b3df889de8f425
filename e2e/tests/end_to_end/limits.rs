//! Limits that a run is given: how many connections and flows, and how long they may be silent. What a limit does is told.

use std::io::{Read, Write};
use std::net::{TcpListener, UdpSocket};
use std::process::Stdio;

use lastack_e2e::clock;
use lastack_e2e::journal::Line;
use lastack_e2e::process::Process;
use lastack_e2e::runner::Runner;

use crate::{SHORT, each_user, needs_run};

fn texts(line: &Line, fields: [&str; 3]) -> [String; 3] {
    fields.map(|field| line.text(field))
}

/// Connects twice, and keeps the first; prints how either went.
const TWO_CONNECTIONS: &str = r"
import errno, socket, sys
kept = []
for _ in range(2):
    tried = socket.socket()
    print(errno.errorcode.get(tried.connect_ex(('10.0.2.2', int(sys.argv[1]))), 'connected'))
    kept.append(tried)
";

#[test]
fn one_connection_too_many_is_refused_and_told() {
    needs_run!();
    needs!("python3");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    // Each is closed when its client has closed.
    std::thread::spawn(move || {
        listener.incoming().flatten().for_each(|mut client| drop(client.read_to_end(&mut Vec::new())));
    });
    each_user(|user| {
        let runner = Runner::new(user).flags(&["--max-connections", "1"]);
        let ended = runner.run("python3", &["-c", TWO_CONNECTIONS, &port], SHORT).expect_success("python3");
        assert_eq!(ended.text(), "connected\nECONNREFUSED\n", "{}", ended.stderr);
        let journal = runner.journal();
        let refused = journal.iter().find(|line| line.text("how") == "refused").expect("it is told");
        let fields = ["closed_by", "reason", "host_remote"];
        let expected = ["lastack", "connection-limit", &format!("127.0.0.1:{port}")];
        assert_eq!(texts(refused, fields), expected);
        let [limit] = &runner.limits()[..] else { panic!("{:?}", runner.limits()) };
        assert_eq!((limit.text("limit"), limit.number("turned_away")), ("connections".into(), 1));
        assert!(limit.text("explanation").contains("--max-connections"), "{limit:?}");
    });
}

/// One flow that is answered, one that would be another, and the first again; a line when all have left.
const TWO_FLOWS: &str = r"
import socket, sys
to = ('10.0.2.2', int(sys.argv[1]))
one, other = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2)]
one.sendto(b'first', to)
one.recv(9)
other.sendto(b'other', to)
one.sendto(b'again', to)
one.recv(9)
";

#[test]
fn one_flow_too_many_is_dropped_and_told() {
    needs_run!();
    needs!("python3");
    each_user(|user| {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        server.set_read_timeout(Some(SHORT)).unwrap();
        let port = server.local_addr().unwrap().port().to_string();
        let runner = Runner::new(user).flags(&["--max-flows", "1"]);
        let mut command = runner.command("python3");
        let mut program =
            Process::spawn(command.args(["-c", TWO_FLOWS, &port]).stdin(Stdio::null())).unwrap();
        let mut got = [0; 9];
        for expected in ["first", "again"] {
            let (len, from) = server.recv_from(&mut got).unwrap();
            assert_eq!(&got[..len], expected.as_bytes());
            server.send_to(b"yes", from).unwrap();
        }
        assert!(program.wait_within(SHORT).unwrap().expect("it ends").success());
        let flows = runner.flows();
        assert_eq!((flows.len(), flows[0].number("datagrams_up")), (1, 2), "{flows:?}");
        let [limit] = &runner.limits()[..] else { panic!("{:?}", runner.limits()) };
        assert_eq!((limit.text("limit"), limit.number("turned_away")), ("udp-flows".into(), 1));
        assert!(limit.text("explanation").contains("--max-flows"), "{limit:?}");
    });
}

/// Asks, waits for a word on standard input, and asks again from the same port.
const ASK_TWICE: &str = r"
import socket, sys
asks = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for _ in range(2):
    asks.sendto(b'?', ('10.0.2.2', int(sys.argv[1])))
    print(asks.recv(9), flush=True)
    sys.stdin.readline()
";

#[test]
fn a_silent_flow_ends_when_it_was_asked_to_and_the_next_datagram_begins_another() {
    needs_run!();
    needs!("python3");
    each_user(|user| {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        server.set_read_timeout(Some(SHORT)).unwrap();
        let port = server.local_addr().unwrap().port().to_string();
        let runner = Runner::new(user).flags(&["--udp-idle", "1"]);
        let mut command = runner.command("python3");
        let mut program =
            Process::spawn(command.args(["-c", ASK_TWICE, &port]).stdin(Stdio::piped())).unwrap();
        let mut word = program.child().stdin.take().unwrap();
        for flows in 1..=2 {
            let (_, from) = server.recv_from(&mut [0; 9]).unwrap();
            server.send_to(b"!", from).unwrap();
            // The program still runs: nothing but silence ends a flow.
            let told = || (runner.flows().len() == flows).then_some(());
            clock::until(SHORT, told).unwrap_or_else(|| panic!("{:?}", runner.flows()));
            word.write_all(b"\n").unwrap();
        }
        assert!(program.wait_within(SHORT).unwrap().expect("it ends").success());
        let flows = runner.flows();
        assert_eq!(flows.len(), 2);
        for flow in &flows {
            assert_eq!(texts(flow, ["how", "datagrams_up", "local"]), ["idle", "1", &flows[0].text("local")]);
        }
    });
}

/// Connects, and waits for what will never come.
const WAIT: &str = r"
import errno, socket, sys
waits = socket.create_connection(('10.0.2.2', int(sys.argv[1])))
try:
    print(waits.recv(1))
except OSError as error:
    print(errno.errorcode[error.errno])
";

#[test]
fn an_idle_connection_is_reset_at_both_ends_when_it_was_asked_to_be() {
    needs_run!();
    needs!("python3");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    each_user(|user| {
        let runner = Runner::new(user).flags(&["--tcp-idle", "1"]);
        let mut command = runner.command("python3");
        let program = command.args(["-c", WAIT, &port]).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut program = Process::spawn(program).unwrap();
        let mut server = clock::until(SHORT, || listener.accept().ok()).expect("the program connects").0;
        server.set_nonblocking(false).unwrap();
        server.set_read_timeout(Some(SHORT)).unwrap();
        assert_eq!(server.read(&mut [0; 1]).unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
        assert!(program.wait_within(SHORT).unwrap().expect("it ends").success());
        let mut said = String::new();
        program.child().stdout.take().unwrap().read_to_string(&mut said).unwrap();
        assert_eq!(said, "ECONNRESET\n");
        let journal = runner.journal();
        assert_eq!(journal.len(), 1, "{journal:?}");
        assert_eq!(texts(&journal[0], ["closed_by", "how", "reason"]), ["lastack", "reset", "idle-timeout"]);
        assert!(journal[0].text("explanation").contains("--tcp-idle"), "{journal:?}");
    });
}
