//! Datagrams: servers inside that answer clients outside, errors both ways, and what a path carries.

use std::fs;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket};
use std::process::Stdio;
use std::time::Duration;

use lastack_e2e::process::{Process, run};
use lastack_e2e::runner::{HOST_V4, Runner, User, on_a_host_of_its_own};
use lastack_e2e::{clock, needs, servers};
use simple_dns::rdata::RData;
use simple_dns::{CLASS, Name, Packet, QCLASS, QTYPE, Question, TYPE};

use crate::{SHORT, each_user, needs_run};

const PATIENCE: Duration = Duration::from_secs(20);

/// Answers each question for an address with 192.0.2.7, so often as it is told, and says who asked.
const NAME_SERVER: &str = "
import socket, sys
server = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
server.bind(('::', 53))
print('listens')
for _ in range(int(sys.argv[1])):
    question, client = server.recvfrom(4096)
    print(client[0], client[1])
    header = question[:2] + bytes.fromhex('81800001000100000000')
    answer = bytes.fromhex('c00c00010001000000050004c0000207')
    server.sendto(header + question[12:] + answer, client)
";

fn question(name: &str) -> Vec<u8> {
    let mut packet = Packet::new_query(7);
    let name = Name::new(name).unwrap().into_owned();
    packet.questions.push(Question::new(name, QTYPE::TYPE(TYPE::A), QCLASS::CLASS(CLASS::IN), false));
    packet.build_bytes_vec().unwrap()
}

fn addresses(answer: &[u8]) -> Vec<IpAddr> {
    let packet = Packet::parse(answer).unwrap();
    let of = |record: &simple_dns::ResourceRecord<'_>| match &record.rdata {
        RData::A(a) => Some(IpAddr::V4(a.address.into())),
        _ => None,
    };
    packet.answers.iter().filter_map(of).collect()
}

#[test]
fn a_name_server_inside_answers_clients_outside() {
    needs_run!();
    needs!("python3");
    each_user(|user| {
        let port = servers::free_port().unwrap();
        let runner = Runner::new(user).flags(&["--publish", &format!("{port}:53/udp")]);
        fs::write(runner.dir().join("server.py"), NAME_SERVER).unwrap();
        let mut command = runner.command("python3");
        let out = fs::File::create(runner.dir().join("out")).unwrap();
        command.args(["-u", "server.py", "3"]).stdin(Stdio::null()).stdout(out);
        let mut process = Process::spawn(&mut command).unwrap();
        let said = || fs::read_to_string(runner.dir().join("out")).unwrap();
        clock::until(PATIENCE, || said().contains("listens").then_some(())).expect("it listens");
        let v4 = SocketAddr::from(([127, 0, 0, 1], port));
        let v6 = SocketAddr::from((Ipv6Addr::LOCALHOST, port));
        let mut seen = Vec::new();
        for server in [v4, v6, SocketAddr::from(([127, 7, 7, 7], port))] {
            let client = UdpSocket::bind((if server.is_ipv4() { "127.0.0.1" } else { "::1" }, 0)).unwrap();
            client.set_read_timeout(Some(PATIENCE)).unwrap();
            // Connected: only an answer from the address that was asked is taken.
            client.connect(server).unwrap();
            client.send(&question("anything.test")).unwrap();
            let mut answer = [0; 512];
            let len = client.recv(&mut answer).unwrap_or_else(|e| panic!("{server}: {e}"));
            assert_eq!(addresses(&answer[..len]), ["192.0.2.7".parse::<IpAddr>().unwrap()]);
            let own = client.local_addr().unwrap();
            seen.push((own, server, if server.is_ipv4() { "::ffff:10.0.2.2" } else { "fd00:6c61::2" }));
        }
        assert!(process.wait_within(SHORT).unwrap().is_some_and(|status| status.success()));
        let flows = runner.flows();
        assert_eq!(flows.len(), 3);
        for (own, server, client) in seen {
            assert!(said().contains(&format!("{client} {}", own.port())), "{}", said());
            let flow =
                flows.iter().find(|flow| flow.text("host_remote") == own.to_string()).expect("its flow");
            for (name, value) in [
                ("direction", "in"),
                ("process", "python3"),
                ("how", "idle"),
                ("host_local", &server.to_string()),
                ("datagrams_down", "1"),
                ("datagrams_up", "1"),
            ] {
                assert_eq!(flow.text(name), value, "{name}: {flow:?}");
            }
        }
    });
}

/// Runs `script` with `python3` behind `lastack run`; what it printed, and its run.
fn python(user: User, script: &str) -> (String, Runner) {
    let runner = Runner::new(user);
    fs::write(runner.dir().join("script.py"), script).unwrap();
    let text = runner.run("python3", &["script.py"], SHORT).expect_success("the script").text();
    (text, runner)
}

#[test]
fn a_closed_port_of_the_host_is_connection_refused_inside() {
    needs_run!();
    needs!("python3");
    each_user(|user| {
        let closed = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let (text, runner) = python(
            user,
            &format!(
                "
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(20)
s.connect(('{HOST_V4}', {closed}))
s.send(b'x')
try: s.recv(1)
except ConnectionRefusedError as error: print(error.errno)
"
            ),
        );
        assert_eq!(text, "111\n");
        assert_eq!(runner.flows()[0].text("how"), "refused");
    });
}

#[test]
fn datagrams_that_the_program_sends_as_one_arrive_as_many() {
    needs_run!();
    needs!("python3");
    each_user(|user| {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        server.set_read_timeout(Some(PATIENCE)).unwrap();
        let port = server.local_addr().unwrap().port();
        let (text, runner) = python(
            user,
            &format!(
                "
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.connect(('{HOST_V4}', {port}))
s.setsockopt(17, 103, 1000)  # UDP_SEGMENT
print(s.send(bytes(i % 251 for i in range(9500))))
"
            ),
        );
        assert_eq!(text, "9500\n");
        let mut got = Vec::new();
        for n in 0..10 {
            let mut buffer = [0; 2000];
            let len = server.recv(&mut buffer).unwrap();
            assert_eq!(len, if n < 9 { 1000 } else { 500 });
            got.extend_from_slice(&buffer[..len]);
        }
        assert!(got.iter().enumerate().all(|(i, byte)| usize::from(*byte) == i % 251), "in order, each once");
        assert_eq!(runner.flows()[0].text("datagrams_up"), "10");
    });
}

/// A host whose way out carries packets of 900 bytes.
#[test]
fn what_the_path_does_not_carry_is_told_to_the_program() {
    needs_run!();
    needs!("ip", "python3");
    if !needs::is_root() {
        needs::skip("needs root");
        return;
    }
    let dir = servers::directory().unwrap();
    fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let script = "
import errno, select, socket
def path_mtu(family, level, discover, mtu, to):
    s = socket.socket(family, socket.SOCK_DGRAM)
    s.setsockopt(level, discover, 2)  # IP_PMTUDISC_DO
    s.connect((to, 9))
    for _ in range(100):
        try: s.send(bytes(1400))
        except OSError as error:
            print(errno.errorcode[error.errno], s.getsockopt(level, mtu))
            return
        select.select([], [], [], 0.05)
    print('never told')
path_mtu(socket.AF_INET, socket.IPPROTO_IP, 10, 14, '192.0.2.2')
path_mtu(socket.AF_INET6, socket.IPPROTO_IPV6, 23, 24, '2001:db8:1::2')
";
    fs::write(dir.path().join("script.py"), script).unwrap();
    let host = "
        ip link set lo up; ip link add out type veth peer name far; ip link set out mtu 1280; ip link set out up; ip link set far up
        ip address add 192.0.2.1/24 dev out; ip -6 address add 2001:db8:1::1/64 dev out nodad
        ip neigh add 192.0.2.2 lladdr 02:00:00:00:00:01 dev out; ip neigh add 2001:db8:1::2 lladdr 02:00:00:00:00:01 dev out
        ip route change 192.0.2.0/24 dev out mtu 900
        exec \"$@\" run FLAGS --report none --mtu 9000 -- python3 script.py";
    let host = host.replace("FLAGS", &lastack_e2e::runner::device_flags().join(" "));
    let mut command = on_a_host_of_its_own(User::Current, dir.path(), &host);
    let text = run(&mut command, SHORT).unwrap().expect_success("the script").text();
    assert_eq!(text, "EMSGSIZE 900\nEMSGSIZE 1280\n");
}

/// Pings what its first argument names three times, and says what came.
const PING: &str = "
import errno, os, select, socket, struct, sys, time
start = time.monotonic_ns()
def ping(to):
    v6 = ':' in to
    s = socket.socket(socket.AF_INET6 if v6 else socket.AF_INET, socket.SOCK_DGRAM, 58 if v6 else 1)
    s.settimeout(20)
    s.setsockopt(*((41, 25, 1) if v6 else (0, 11, 1)))  # IP_RECVERR, as ping does
    s.connect((to, 0))
    for seq in range(1, 4):
        payload = b'ping %d' % seq + bytes(1000 * seq)
        try:
            s.send(struct.pack('!BBHHH', 128 if v6 else 8, 0, 0, 0, seq) + payload)
            answer = s.recv(65536)
            assert answer[8:] == payload
            print(to, answer[0], struct.unpack('!H', answer[6:8])[0])
        except OSError as error:
            print(to, errno.errorcode[error.errno])
            return
for to in sys.argv[1:]: ping(to)
print('took', (time.monotonic_ns() - start) // 1000)
time.sleep(0.5)  # silence that belongs to nobody
";

#[test]
fn pings_are_answered_as_the_host_is_answered() {
    needs_run!();
    needs!("ip", "python3");
    if !needs::is_root() {
        needs::skip("needs root");
        return;
    }
    // The host: addresses of its own that answer, one that it cannot reach, and pings allowed or not.
    let allowed = "echo '0 2147483647' > /proc/sys/net/ipv4/ping_group_range";
    each_user(|user| {
        let run_host = |before: &str, flags: &str, to: &str| {
            let dir = servers::directory().unwrap();
            fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
            fs::write(dir.path().join("script.py"), PING).unwrap();
            let script = format!(
            "ip link set lo up; ip address add 203.0.113.9/32 dev lo; ip -6 address add 2001:db8:9::9/128 dev lo nodad
             ip link add out type veth peer name far; ip link set out up; ip link set far up
             ip address add 192.0.2.1/24 dev out; ip -6 address add 2001:db8:1::1/64 dev out nodad
             ip route add unreachable 198.51.100.5
             {before}
             exec \"$@\" run {} {flags} --json --output journal -- python3 script.py {to}",
            lastack_e2e::runner::device_flags().join(" ")
        );
            let mut command = on_a_host_of_its_own(user, dir.path(), &script);
            let text = run(&mut command, SHORT).unwrap().expect_success("the script").text();
            let flows = lastack_e2e::journal::flows(&dir.path().join("journal")).unwrap();
            let (text, took) = text.trim_end().split_once("took ").expect("it says how long it took");
            for flow in &flows {
                assert!(flow.number("duration_us") <= took.parse().unwrap(), "{took}: {flow:?}");
            }
            (text.to_owned(), flows)
        };
        let (text, flows) = run_host(allowed, "", "203.0.113.9 2001:db8:9::9 198.51.100.5");
        assert_eq!(
            text,
            "203.0.113.9 0 1\n203.0.113.9 0 2\n203.0.113.9 0 3\n\
         2001:db8:9::9 129 1\n2001:db8:9::9 129 2\n2001:db8:9::9 129 3\n198.51.100.5 EHOSTUNREACH\n"
        );
        let of = |flows: &[lastack_e2e::journal::Line], to: &str| {
            let flow =
                flows.iter().find(|flow| flow.text("remote") == format!("{to}:0")).expect("its flow").clone();
            assert_eq!(flow.text("protocol"), "icmp");
            (flow.text("how"), flow.number("datagrams_up"), flow.number("datagrams_down"))
        };
        assert_eq!(of(&flows, "203.0.113.9"), ("idle".into(), 3, 3));
        assert_eq!(of(&flows, "198.51.100.5"), ("unreachable".into(), 1, 0));

        let (text, flows) = run_host("echo '1 0' > /proc/sys/net/ipv4/ping_group_range", "", "203.0.113.9");
        assert_eq!(text, "203.0.113.9 EHOSTUNREACH\n");
        assert_eq!(of(&flows, "203.0.113.9"), ("not-permitted".into(), 1, 0));

        let (text, flows) = run_host(allowed, "--deny '*'", "203.0.113.9");
        assert_eq!(text, "203.0.113.9 EHOSTUNREACH\n");
        assert_eq!(of(&flows, "203.0.113.9").0, "denied");
    });
}
