//! What the program and lastack itself have given up, seen from inside and from outside.

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv6Addr, TcpListener, UdpSocket};
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

/// Servers of this host's loopback, TCP and UDP on one port, in each family that this host has.
struct Loopback {
    port: u16,
    listeners: Vec<TcpListener>,
    sinks: Vec<UdpSocket>,
}

impl Loopback {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        // Where the port is taken in this family or this protocol, its owner is not reached either, unseen by us.
        let listeners = [Ok(listener), TcpListener::bind((Ipv6Addr::LOCALHOST, port))];
        let sinks = [UdpSocket::bind(("127.0.0.1", port)), UdpSocket::bind((Ipv6Addr::LOCALHOST, port))];
        let loopback = Self {
            port,
            listeners: listeners.into_iter().flatten().collect(),
            sinks: sinks.into_iter().flatten().collect(),
        };
        loopback.listeners.iter().for_each(|listener| listener.set_nonblocking(true).unwrap());
        loopback.sinks.iter().for_each(|sink| sink.set_nonblocking(true).unwrap());
        loopback
    }

    /// Who has come, over which protocol; each is answered.
    fn reached(&self) -> Vec<String> {
        let tcp =
            self.listeners.iter().filter_map(|listener| Some(format!("TCP {}", listener.accept().ok()?.1)));
        let udp = self.sinks.iter().filter_map(|sink| {
            let (_, from) = sink.recv_from(&mut [0; 9]).ok()?;
            sink.send_to(b"out", from).ok()?;
            Some(format!("UDP {from}"))
        });
        tcp.chain(udp).collect()
    }
}

/// Tries the host's loopback at its own address by the link, as any program may; prints how many packets left.
const BY_THE_LINK: &str = r"
import socket, sys
port, left = int(sys.argv[1]), 0
link = next(name for _, name in socket.if_nameindex() if name != 'lo').encode()
for family, to in (socket.AF_INET, '127.0.0.1'), (socket.AF_INET, '127.8.8.8'), (socket.AF_INET6, '::1'):
    for kind in socket.SOCK_DGRAM, socket.SOCK_STREAM:
        tried = socket.socket(family, kind)
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, link)
        tried.settimeout(0.5)
        try:
            tried.connect((to, port))
            tried.send(b'in')
            left += 1
        except TimeoutError:
            left += 1
        except OSError as error:
            print(to, error)
print('left', left)
";

/// The same as packets of our own making, to every address that connect(2) takes for this host's inside.
const BY_PACKETS: &str = r"
import socket, struct, sys
port = int(sys.argv[1])
link = next(name for _, name in socket.if_nameindex() if name != 'lo')
raw = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM)
def total(data):
    data += b'\0' * (len(data) % 2)
    n = sum(struct.unpack('!%dH' % (len(data) // 2), data))
    n = (n & 0xffff) + (n >> 16)
    return ~((n & 0xffff) + (n >> 16)) & 0xffff
def send(family, own, to):
    ends = socket.inet_pton(family, own) + socket.inet_pton(family, to)
    udp = struct.pack('!HHHH', 4000, port, 10, 0) + b'in'
    syn = struct.pack('!HHIIBBHHH', 4000, port, 7, 0, 0x50, 2, 65535, 0, 0)
    for number, body, at in (17, udp, 6), (6, syn, 16):
        sum_ = total(ends + struct.pack('!II', len(body), number) + body)
        body = body[:at] + struct.pack('!H', sum_) + body[at + 2:]
        if family == socket.AF_INET:
            head = struct.pack('!BBHHHBBH', 0x45, 0, 20 + len(body), 1, 0, 64, number, 0) + ends
            head = head[:10] + struct.pack('!H', total(head)) + head[12:]
        else:
            head = struct.pack('!IHBB', 6 << 28, len(body), number, 64) + ends
        raw.sendto(head + body, (link, 0x0800 if family == socket.AF_INET else 0x86dd))
for to in '127.0.0.1', '0.0.0.0':
    send(socket.AF_INET, '10.0.2.100', to)
for to in '::1', '::', '::ffff:127.0.0.1', '::ffff:0.0.0.0', '::127.0.0.1':
    send(socket.AF_INET6, 'fd00:6c61::100', to)
# The last: what comes back of it has passed all the others.
last = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
last.connect(('10.0.2.3', 9))
last.send(b'')
try:
    last.recv(1)
except ConnectionRefusedError:
    print('all sent')
";

#[test]
fn the_hosts_loopback_has_one_door_and_that_can_be_closed() {
    needs_run!();
    needs!("python3");
    let loopback = Loopback::new();
    let port = loopback.port.to_string();
    for closed in [&["--no-host-loopback"][..], &["--deny", "10.0.2.2", "--deny", "fd00:6c61::2"]] {
        each_way(|user, way| {
            let runner = Runner::new(user).flags(way).flags(closed);
            let ended = runner.run("python3", &["-c", BY_THE_LINK, &port], SHORT).expect_success("python3");
            assert_eq!(loopback.reached(), [""; 0], "{closed:?}: {}", ended.text());
            let left = ended.text().lines().find_map(|line| line.strip_prefix("left ")?.parse::<u32>().ok());
            // This host's rules may hold IPv6 back; IPv4's four have left, and the stack tells that they came.
            assert!(left.is_some_and(|left| left >= 4), "{}", ended.text());
            assert!(ended.stderr.contains("127.0.0.0/8"), "{}", ended.stderr);
            assert_eq!(runner.journal().len(), 0, "as if nothing were there: {:?}", runner.journal());
        });
    }
}

#[test]
fn no_packet_is_led_to_the_hosts_inside_by_another_name_of_it() {
    needs_run!();
    needs!("python3");
    if !needs::is_root() {
        needs::skip("needs root, to send packets of one's own making");
        return;
    }
    let loopback = Loopback::new();
    let port = loopback.port.to_string();
    for (user, way) in [(User::Current, &[][..]), (User::Nobody, &["--root-map"])] {
        let runner = Runner::new(user).flags(way).flags(&["--no-host-loopback"]);
        let ended = runner.run("python3", &["-c", BY_PACKETS, &port], SHORT).expect_success("python3");
        assert_eq!(ended.text(), "all sent\n", "{}", ended.stderr);
        assert_eq!(loopback.reached(), [""; 0]);
        // What Linux would send on is refused by name; the rest is dropped before anybody is asked.
        let told = |lines: Vec<lastack_e2e::journal::Line>, field: &str| -> Vec<(String, String)> {
            let mut told: Vec<_> = lines.iter().map(|line| (line.text("remote"), line.text(field))).collect();
            told.retain(|(remote, _)| remote.starts_with("[::"));
            told.sort();
            told
        };
        let martian = |to: &str| (format!("[{to}]:{port}"), "martian-destination".to_owned());
        let expected = ["::7f00:1", "::ffff:0.0.0.0", "::ffff:127.0.0.1"].map(martian);
        assert_eq!(told(runner.flows(), "how"), expected);
        assert_eq!(told(runner.journal(), "reason"), expected);
    }
}

/// A SYN from an address that nobody has, so that nobody answers the SYN-ACK; then the program is gone.
const HALF_OPEN: &str = r"
import socket, struct, sys, time
port = int(sys.argv[1])
link = next(name for _, name in socket.if_nameindex() if name != 'lo')
raw = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM)
def total(data):
    n = sum(struct.unpack('!%dH' % (len(data) // 2), data))
    n = (n & 0xffff) + (n >> 16)
    return ~((n & 0xffff) + (n >> 16)) & 0xffff
ends = socket.inet_aton('10.0.2.77') + socket.inet_aton('10.0.2.2')
syn = struct.pack('!HHIIBBHHH', 4000, port, 7, 0, 0x50, 2, 65535, 0, 0)
sum_ = total(ends + struct.pack('!II', 20, 6) + syn)
syn = syn[:16] + struct.pack('!H', sum_) + syn[18:]
head = struct.pack('!BBHHHBBH', 0x45, 0, 40, 1, 0, 64, 6, 0) + ends
head = head[:10] + struct.pack('!H', total(head)) + head[12:]
seen = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0800))
raw.sendto(head + syn, (link, 0x0800))
while seen.recv(2000)[16:20] != socket.inet_aton('10.0.2.77'):
    pass
print('half open')
";

#[test]
fn what_was_left_half_open_ends_with_the_program() {
    needs_run!();
    needs!("python3");
    if !needs::is_root() {
        needs::skip("needs root, to send packets of one's own making");
        return;
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    for (user, way) in [(User::Current, &[][..]), (User::Nobody, &["--root-map"])] {
        let runner = Runner::new(user).flags(way);
        let ended = runner.run("python3", &["-c", HALF_OPEN, &port], SHORT).expect_success("python3");
        assert_eq!(ended.text(), "half open\n", "{}", ended.stderr);
        let journal = runner.journal();
        assert_eq!(journal.len(), 1, "{journal:?}");
        // Without the end of the program it would have been open when patience was.
        assert_eq!(
            (journal[0].text("how"), journal[0].text("reason")),
            ("refused".into(), "program-gone".into())
        );
        let mut host = listener.accept().unwrap().0;
        let read = std::io::Read::read(&mut host, &mut [0; 1]);
        assert_eq!(read.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    }
}

/// Knocks at the host's loopback by its own door, TCP and UDP; prints what came back.
const KNOCK: &str = r"
import errno, socket, sys
for family, to in (socket.AF_INET, '10.0.2.2'), (socket.AF_INET6, 'fd00:6c61::2'):
    for kind in socket.SOCK_STREAM, socket.SOCK_DGRAM:
        tried = socket.socket(family, kind)
        try:
            tried.connect((to, int(sys.argv[1])))
            tried.send(b'in')
            tried.recv(1)
            print('answered')
        except OSError as error:
            print(errno.errorcode[error.errno])
";

#[test]
fn a_closed_loopback_refuses_connections_and_datagrams_of_both_families() {
    needs_run!();
    needs!("python3");
    let loopback = Loopback::new();
    let port = loopback.port.to_string();
    each_user(|user| {
        let runner = Runner::new(user).flags(&["--no-host-loopback"]);
        let ended = runner.run("python3", &["-c", KNOCK, &port], SHORT).expect_success("python3");
        assert_eq!(ended.text(), "ECONNREFUSED\n".repeat(4));
        assert_eq!(loopback.reached(), [""; 0]);
        let doors = ["10.0.2.2", "[fd00:6c61::2]"].map(|door| format!("{door}:{port}"));
        let told = |lines: &[lastack_e2e::journal::Line], fields: [&str; 3]| -> Vec<[String; 3]> {
            lines.iter().map(|line| fields.map(|field| line.text(field))).collect()
        };
        let line = |door: &String, how: &str| [door.clone(), how.to_owned(), "absent".to_owned()];
        let fields = ["remote", "reason", "host_remote"];
        assert_eq!(
            told(&runner.journal(), fields),
            [line(&doors[0], "loopback-closed"), line(&doors[1], "loopback-closed")]
        );
        let fields = ["remote", "how", "host_remote"];
        assert_eq!(
            told(&runner.flows(), fields),
            [line(&doors[0], "loopback-closed"), line(&doors[1], "loopback-closed")]
        );
        // Open, they lead there.
        let runner = Runner::new(user);
        let mut open = runner.command("python3");
        let mut knock = Process::spawn(open.args(["-c", KNOCK, &port]).stdin(Stdio::null())).unwrap();
        let mut reached = Vec::new();
        clock::until(SHORT, || {
            reached.extend(loopback.reached());
            (reached.len() == loopback.listeners.len() + loopback.sinks.len()).then_some(())
        })
        .unwrap_or_else(|| panic!("{reached:?}"));
        assert!(knock.wait_within(SHORT).unwrap().expect("it ends").success());
    });
}

#[test]
fn capabilities_of_files_give_an_ordinary_users_program_nothing() {
    needs_run!();
    needs!("setcap");
    if !needs::is_root() {
        needs::skip("needs root, to give a file capabilities");
        return;
    }
    let runner = Runner::new(User::Nobody);
    let (program, secret) = (runner.dir().join("show"), runner.dir().join("secret"));
    let make = "cp \"$(command -v cat)\" \"$1\"; chmod 755 \"$1\"; setcap cap_dac_override+ep \"$1\"; echo secret >\"$2\"; chmod 600 \"$2\"";
    run(Command::new("sh").args(["-ec", make, "sh"]).arg(&program).arg(&secret), SHORT)
        .unwrap()
        .expect_success("setcap");
    let mut outside = as_nobody(false);
    let outside = run(outside.arg(&program).arg(&secret), SHORT).unwrap().expect_success("show").text();
    assert_eq!(outside, "secret\n", "the file's capability works without us");
    let inside = runner.run(&program.display().to_string(), &[&secret.display().to_string()], SHORT);
    assert_eq!((inside.code(), inside.text().as_str()), (Some(1), ""), "{}", inside.stderr);
}
