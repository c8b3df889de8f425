//! Who is measured, and how one load is run behind each.

use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use lastack_e2e::arena::{Arena, in_namespace, namespace, shell};
use lastack_e2e::carrier::{Carrier, Seat};
use lastack_e2e::clock;
use lastack_e2e::process::{Process, descendants, memory_kib};
use serde_json::Value;

/// One who is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contestant {
    /// No namespace, no carrier: the kernel's loopback.
    Loopback,
    /// `lastack run`.
    Lastack,
    /// slirp4netns.
    Slirp4netns,
    /// pasta.
    Pasta,
    /// The forwarder without TCP.
    Yardstick,
}

impl Contestant {
    /// All, in the order of the table.
    pub const ALL: [Self; 5] =
        [Self::Lastack, Self::Slirp4netns, Self::Pasta, Self::Yardstick, Self::Loopback];

    /// Its name in the table and on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Loopback => "loopback",
            Self::Yardstick => "yardstick",
            Self::Lastack | Self::Slirp4netns | Self::Pasta => self.carrier().map_or("", Carrier::name),
        }
    }

    /// The carrier it is, if it is one.
    #[must_use]
    pub fn carrier(self) -> Option<Carrier> {
        match self {
            Self::Loopback | Self::Yardstick => None,
            Self::Lastack => Some(Carrier::Lastack),
            Self::Slirp4netns => Some(Carrier::Slirp4netns),
            Self::Pasta => Some(Carrier::Pasta),
        }
    }

    fn host_loopback(self) -> &'static str {
        match self {
            Self::Loopback => "127.0.0.1",
            Self::Yardstick => "10.0.2.2",
            Self::Lastack | Self::Slirp4netns | Self::Pasta => {
                self.carrier().map_or("", Carrier::host_loopback)
            }
        }
    }
}

/// One row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// What is measured, for people.
    pub title: &'static str,
    /// The load's mode.
    pub mode: &'static str,
    /// Which of the server's ports.
    pub port: &'static str,
    /// MTU of the program's interface.
    pub mtu: u32,
}

/// The rows.
pub const ROWS: [Row; 7] = [
    Row { title: "bulk up, MTU 1500", mode: "bulk-up", port: "sink", mtu: 1500 },
    Row { title: "bulk down, MTU 1500", mode: "bulk-down", port: "source", mtu: 1500 },
    Row { title: "bulk up, MTU 65520", mode: "bulk-up", port: "sink", mtu: 65520 },
    Row { title: "bulk down, MTU 65520", mode: "bulk-down", port: "source", mtu: 65520 },
    Row {
        title: "short connections, server closes",
        mode: "short-server-closes",
        port: "echo_then_close",
        mtu: 1500,
    },
    Row { title: "short connections, client closes", mode: "short-client-closes", port: "echo", mtu: 1500 },
    Row { title: "ping-pong", mode: "ping-pong", port: "echo", mtu: 1500 },
];

/// The load's server in the host namespace.
#[derive(Debug)]
pub struct Server {
    _process: Process,
    ports: Value,
}

impl Server {
    /// Starts it.
    ///
    /// # Errors
    /// It does not start.
    pub fn start(load: &Path) -> io::Result<Self> {
        let mut process =
            Process::spawn(Command::new(load).arg("serve").stdin(Stdio::piped()).stdout(Stdio::piped()))?;
        let ports = Lines::of(&mut process).next(Duration::from_secs(10))?;
        Ok(Self { _process: process, ports })
    }

    fn port(&self, name: &str) -> u16 {
        self.ports[name].as_u64().and_then(|port| u16::try_from(port).ok()).unwrap_or(0)
    }
}

/// What everything is run with.
#[derive(Debug)]
pub struct Contest {
    /// The network.
    pub arena: Arena,
    /// The server.
    pub server: Server,
    /// The `load` program.
    pub load: PathBuf,
    /// The `yardstick` program.
    pub yardstick: PathBuf,
}

/// A contestant brought up for one measurement.
enum Ready {
    Loopback,
    Carrier(Seat),
    /// Dropped in this order: without its namespace the interface is gone under the forwarder.
    Yardstick {
        _forwarder: Process,
        namespace: Process,
    },
}

impl Contest {
    /// Measures one row behind one contestant for `seconds`. The text of an error says why the figure does not count.
    ///
    /// # Errors
    /// The contestant does not come up, the load failed, stalled or left connections behind.
    pub fn measure(&self, who: Contestant, row: &Row, seconds: f64) -> Result<f64, String> {
        let ready = self.bring_up(who, row.mtu).map_err(|e| format!("does not come up: {e}"))?;
        let port = self.server.port(row.port);
        let mut command = self.load_behind(&ready);
        command.args([row.mode, &format!("{}:{port}", who.host_loopback()), &seconds.to_string()]);
        let mut process = start(&mut command).map_err(|e| e.to_string())?;
        let limit = Duration::from_secs_f64(seconds) + Duration::from_secs(45);
        let result =
            Lines::of(&mut process).next(limit).map_err(|e| format!("the load gave no figure: {e}"))?;
        let left = connections_left(port, Duration::from_secs(5));
        end(&mut process);
        gate(&result, left)?;
        result["figure"].as_f64().ok_or_else(|| format!("no figure in {result}"))
    }

    /// Memory the carrier takes for one idle connection, in bytes, from the difference between `few` and `many`, and all it
    /// takes at `many`, in MiB.
    ///
    /// # Errors
    /// The contestant does not come up, or cannot hold them.
    pub fn memory(&self, who: Contestant, few: u64, many: u64) -> Result<(f64, f64), String> {
        let ready = self.bring_up(who, 1500).map_err(|e| format!("does not come up: {e}"))?;
        let mut command = self.load_behind(&ready);
        let at = format!("{}:{}", who.host_loopback(), self.server.port("hold"));
        command.args(["hold", &at, &few.to_string(), &many.to_string()]);
        let mut process = start(&mut command).map_err(|e| e.to_string())?;
        let mut lines = Lines::of(&mut process);
        let mut resident = Vec::new();
        for _ in 0..2 {
            lines
                .next(Duration::from_secs(60))
                .map_err(|e| format!("cannot hold {many} connections: {e}"))?;
            let memory = match &ready {
                Ready::Carrier(seat) => match seat.resident() {
                    Some(pid) => memory_kib(pid).map(|(now, _)| now),
                    None => Some(memory_of(who.name(), process.id())),
                },
                Ready::Loopback | Ready::Yardstick { .. } => None,
            };
            resident.push(memory.ok_or("its memory cannot be read")?);
            if let Some(stdin) = &mut process.child().stdin {
                let _ = writeln!(stdin);
            }
        }
        end(&mut process);
        let grown = resident[1].saturating_sub(resident[0]) as f64 * 1024.0;
        Ok((grown / (many - few) as f64, resident[1] as f64 / 1024.0))
    }

    fn bring_up(&self, who: Contestant, mtu: u32) -> io::Result<Ready> {
        match (who.carrier(), who) {
            (Some(carrier), _) => Ok(Ready::Carrier(carrier.seat(&self.arena, mtu)?)),
            (None, Contestant::Yardstick) => self.bring_up_yardstick(mtu),
            (None, _) => Ok(Ready::Loopback),
        }
    }

    /// A TUN stays with the process that opened it when its interface moves to another namespace.
    fn bring_up_yardstick(&self, mtu: u32) -> io::Result<Ready> {
        let namespace = namespace()?;
        let mut command = Command::new(&self.yardstick);
        let mut forwarder = Process::spawn(command.args(["yard0", &mtu.to_string()]).stdout(Stdio::piped()))?;
        let mut first = String::new();
        if let Some(stdout) = forwarder.child().stdout.take() {
            BufReader::new(stdout).read_line(&mut first)?;
        }
        if first.trim() != "ready" {
            return Err(io::Error::other("the yardstick cannot open /dev/net/tun"));
        }
        shell(&format!("ip link set yard0 netns {}", namespace.id()), None)?;
        let inside = format!(
            "ip link set lo up\nip link set yard0 mtu {mtu}\nip addr add 10.0.2.100/24 dev yard0\nip link set yard0 up\nip route add default dev yard0"
        );
        shell(&inside, Some(namespace.id()))?;
        Ok(Ready::Yardstick { _forwarder: forwarder, namespace })
    }

    /// The load behind a contestant, with a wide port range where that may be set: 28,232 ports do not last a series.
    fn load_behind(&self, ready: &Ready) -> Command {
        let mut command = match ready {
            Ready::Loopback => Command::new("sh"),
            Ready::Carrier(seat) => seat.command("sh"),
            Ready::Yardstick { namespace, .. } => {
                let mut command = in_namespace(namespace.id());
                command.arg("sh");
                command
            }
        };
        command.args(["-c", WIDE_PORTS, "sh"]).arg(&self.load);
        command
    }
}

const WIDE_PORTS: &str = "{ echo 1024 65535 > /proc/sys/net/ipv4/ip_local_port_range; echo 1 > /proc/sys/net/ipv4/tcp_tw_reuse; } 2>/dev/null
exec \"$@\"";

/// Sets the same for the host namespace, where carriers and loopback take their ports.
///
/// # Errors
/// The kernel refuses.
pub fn widen_host_ports() -> io::Result<()> {
    shell(
        "echo 1024 65535 > /proc/sys/net/ipv4/ip_local_port_range\necho 1 > /proc/sys/net/ipv4/tcp_tw_reuse",
        None,
    )
}

fn start(command: &mut Command) -> io::Result<Process> {
    Process::spawn(command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()))
}

/// Lets the client end and its carrier with it.
fn end(process: &mut Process) {
    drop(process.child().stdin.take());
    let _ = process.wait_within(Duration::from_secs(10));
}

/// Zero errors, zero stalls, zero connections left: else the figure does not count.
fn gate(result: &Value, left: usize) -> Result<(), String> {
    let number = |name: &str| result[name].as_u64().unwrap_or(0);
    let mut faults = Vec::new();
    if number("errors") > 0 {
        let reasons: Vec<&str> =
            result["reasons"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        faults.push(format!("{} errors ({})", number("errors"), reasons.join(", ")));
    }
    if number("stalls") > 0 {
        faults.push(format!("{} stalls of more than 1 s", number("stalls")));
    }
    if left > 0 {
        faults.push(format!("{left} connections left behind"));
    }
    if faults.is_empty() {
        return Ok(());
    }
    let figure = result["figure"].as_f64().unwrap_or(0.0);
    Err(format!("{} (would have been {})", faults.join("; "), crate::figures::short(figure)))
}

/// Sockets with the server's port that are not gone (TIME-WAIT apart) after at most `limit`.
fn connections_left(port: u16, limit: Duration) -> usize {
    let hex = format!(":{port:04X}");
    let count = || {
        let table = std::fs::read_to_string("/proc/self/net/tcp").unwrap_or_default();
        let rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        // 06 TIME-WAIT, 0A LISTEN.
        rows.filter(|row| row.len() > 3 && !["06", "0A"].contains(&row[3]))
            .filter(|row| row[1].ends_with(&hex) || row[2].ends_with(&hex))
            .count()
    };
    match clock::until(limit, || (count() == 0).then_some(())) {
        Some(()) => 0,
        None => count(),
    }
}

/// KiB of all processes under `root` (and itself) whose program is the carrier `name`.
fn memory_of(name: &str, root: u32) -> u64 {
    let all = std::iter::once(root).chain(descendants(root));
    let is_carrier = |pid: &u32| {
        let exe = std::fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
        // Debian's pasta is a link to passt, of which there is one build a processor generation.
        let names = if name == "pasta" { ["pasta", "passt"] } else { [name, name] };
        exe.file_name().is_some_and(|file| names.iter().any(|name| file.to_string_lossy().starts_with(name)))
    };
    all.filter(is_carrier).filter_map(memory_kib).map(|(now, _)| now).sum()
}

/// The JSON lines a load prints.
struct Lines(Receiver<String>);

impl Lines {
    fn of(process: &mut Process) -> Self {
        let stdout = process.child().stdout.take();
        let (tx, rx) = channel();
        std::thread::spawn(move || {
            for line in stdout.into_iter().flat_map(|out| BufReader::new(out).lines()).map_while(Result::ok) {
                if tx.send(line).is_err() {
                    break;
                }
            }
        });
        Self(rx)
    }

    fn next(&mut self, limit: Duration) -> io::Result<Value> {
        let line = self.0.recv_timeout(limit).map_err(io::Error::other)?;
        serde_json::from_str(&line).map_err(io::Error::other)
    }
}
