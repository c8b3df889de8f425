//! One program behind the stack, from its sandbox to its exit status.
//!
//! Owns:    the order of things: sandbox, stack, gateway, control socket, "go"; then signals, the program's end, what is
//!          still on its way, and the end of everything.
//! Rules:   when the program has exited, bytes its kernel still holds are on their way: the stack serves on until
//!          connections have ended, at most [`PATIENCE`] without progress; a Ctrl-C then ends it at once.
//! Not here: what is written down (`journal`).

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lastack::impair::{self, Impaired};
use lastack::pcapng::Direction;
use lastack::{Capture, Config, Device, Net};
use lastack_core::observe::control;
use lastack_core::stack::SysctlError;
use lastack_gateway::addresses::{self, Addresses};
use lastack_gateway::confine;
use lastack_gateway::dns;
use lastack_gateway::inject::{Injection, Injections};
use lastack_gateway::journal::Entry;
use lastack_gateway::publish::Port;
use lastack_gateway::relay::Policy;
use lastack_gateway::rules::Rules;
use lastack_gateway::sandbox::{
    DeviceChoice, Facts, ProgramEvent, ProgramEvents, Sandbox, SandboxConfig, SandboxError,
};
use lastack_gateway::signals::{self, Signals};
use lastack_gateway::{Gateway, GatewayConfig, Namespace, Note};

use super::impair::Asked;
use super::impaired::Account;
use super::inject;
use super::journal::Journal;
use super::pcap_file::PcapFile;
use super::publish;
use crate::cmd::run::unwritable;
use crate::failure::{EXIT_OURS, Failure};

/// How long what is on its way may make no progress after the program's end.
const PATIENCE: Duration = Duration::from_secs(60);
/// `net.core.busy_poll` of the program's stack, microseconds: longer than a round trip through the host takes. Each message of a
/// conversation saves a wake-up.
const BUSY_POLL: &str = "200";
/// How often the journal is handed to its writer.
pub(crate) const HAND_OVER: Duration = Duration::from_millis(20);

/// What to run, and how.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) program: OsString,
    pub(crate) arguments: Vec<OsString>,
    pub(crate) mtu: u32,
    pub(crate) root_map: bool,
    /// The program inherits every descriptor.
    pub(crate) keeps_descriptors: bool,
    pub(crate) device: DeviceChoice,
    pub(crate) host_loopback: bool,
    pub(crate) resolvers: Vec<SocketAddr>,
    /// Ports of the host that lead to the program from the start.
    pub(crate) published: Vec<Port>,
    pub(crate) bounds: Bounds,
    pub(crate) rules: Rules,
    /// What the link is to do to packets.
    pub(crate) impairments: Asked,
    /// What is to be forced on connections.
    pub(crate) injections: Vec<Injection>,
    pub(crate) seed: Option<u64>,
    pub(crate) sysctls: Vec<(String, String)>,
    pub(crate) pcap: Option<PcapFile>,
    /// Name of the control socket; the process id without one.
    pub(crate) name: Option<String>,
    /// Carrying is the last thing this process does, so it gives up for good what that does not take.
    pub(crate) is_last: bool,
}

/// How much of everything there may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Connections at a time.
    pub(crate) connections: usize,
    /// UDP flows at a time.
    pub(crate) flows: usize,
    /// Silence that ends a UDP flow.
    pub(crate) udp_idle: Duration,
    /// Silence that ends a connection; `None`: there is none.
    pub(crate) tcp_idle: Option<Duration>,
}

impl Default for Bounds {
    fn default() -> Self {
        let GatewayConfig { max_connections, max_flows, udp_idle, policy, .. } = GatewayConfig::default();
        Self { connections: max_connections, flows: max_flows, udp_idle, tcp_idle: policy.idle }
    }
}

/// How a run ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// The program's exit status.
    pub(crate) status: u8,
    /// What its namespace had.
    pub(crate) facts: Facts,
    /// Packets from the program that found no room on the link, where it can tell.
    pub(crate) dropped: u64,
    /// Packets from the program for a loopback address.
    pub(crate) martians: u64,
    /// Why this process could not be kept from what it does not need, if so.
    pub(crate) unconfined: Option<io::Error>,
}

/// Leaves signals to [`run`]. To be called before any thread is started: each has a mask of its own.
pub(crate) fn block_signals() -> Result<Signals, Failure> {
    Signals::block().map_err(|error| ours("cannot read signals", &error))
}

/// Makes the program's sandbox.
pub(crate) fn sandbox(plan: &Plan) -> Result<Sandbox, SandboxError> {
    Sandbox::create(&SandboxConfig {
        mtu: plan.mtu,
        root_map: plan.root_map,
        keeps_descriptors: plan.keeps_descriptors,
        device: plan.device,
        default_routes: addresses::default_routes(),
        hidden: Some(control_directory()),
        ..SandboxConfig::new(plan.program.clone(), plan.arguments.clone())
    })
}

/// Runs the program to its end.
pub(crate) fn run(
    plan: Plan,
    sandbox: Sandbox,
    signals: Signals,
    journal: &Journal,
) -> Result<Ended, Failure> {
    signals::raise_descriptor_limit();
    runtime()?.block_on(serve(plan, sandbox, signals, journal))
}

/// A runtime in this thread: everything that moves packets and bytes is in one.
pub(crate) fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| ours("cannot start the runtime", &error))
}

/// The three lines for a sandbox that could not be made.
pub(crate) fn refused(error: &SandboxError) -> Failure {
    let (cause, remedy) = error.cause_and_remedy();
    Failure::new(error.what(), cause, remedy).code(EXIT_OURS)
}

fn ours(what: &str, error: &dyn std::fmt::Display) -> Failure {
    Failure::new(what, error.to_string(), "check limits (ulimit -a) and free memory").code(EXIT_OURS)
}

/// Where control sockets are; made if it is not there, so that it can be hidden from the program.
fn control_directory() -> PathBuf {
    let runtime_dir = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|dir| dir.is_dir());
    let directory = control::directory(runtime_dir.as_deref(), rustix::process::geteuid().as_raw());
    // There already, or not to be had: serving says so if it matters.
    let _ = std::fs::DirBuilder::new().mode(0o700).create(&directory);
    remove_stale(&directory);
    directory
}

/// Removes the sockets of runs that were killed: those named after a process that is no more.
fn remove_stale(directory: &Path) {
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let process = name.to_str().and_then(|name| name.strip_suffix(".sock")?.parse::<u32>().ok());
        if process.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            // Somebody else's, or gone already.
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

async fn serve(
    plan: Plan,
    mut sandbox: Sandbox,
    signals: Signals,
    journal: &Journal,
) -> Result<Ended, Failure> {
    let facts = sandbox.facts();
    let names = Names::default();
    // The program reads this file for itself.
    let hosts = addresses::read("/etc/hosts");
    let known = Arc::new(dns::Names::from_hosts(&hosts));
    let Started { net, driver, link } = start_stack(&plan, &mut sandbox, &names, &known)?;
    // On one processor whoever is waited for could not run meanwhile.
    if std::thread::available_parallelism().is_ok_and(|processors| processors.get() > 1) {
        net.set_sysctl("net.core.busy_poll", BUSY_POLL).expect("a setting of the stack");
    }
    for (name, value) in &plan.sysctls {
        net.set_sysctl(name, value).map_err(|error| sysctl_refused(name, value, &error))?;
    }
    let injections = Injections { list: plan.injections.clone(), link: link.clone() };
    let gateway = start_gateway(&plan, &net, &mut sandbox, journal, names, known, injections)
        .map_err(|error| ours("cannot start forwarding", &error))?;
    for port in &plan.published {
        let published = gateway.publisher().add(*port);
        published.map_err(|error| publish::refused(port, &error).code(EXIT_OURS))?;
    }
    let name = plan.name.clone().unwrap_or_else(|| std::process::id().to_string());
    let control = match lastack::control::serve_with(&net, &name, publish::answers(gateway.publisher())) {
        Ok(control) => Some(control),
        // Nobody asked for one: the run goes on without.
        Err(_) if plan.name.is_none() => None,
        Err(error) => {
            return Err(Failure::new(
                format!("cannot serve this run under the name `{name}`"),
                error.to_string(),
                "another --name",
            )
            .code(EXIT_OURS));
        }
    };
    let mut driver = tokio::spawn(driver);
    let signals = signals.stream().map_err(|error| ours("cannot read signals", &error))?;
    let events = sandbox.events().map_err(|error| ours("cannot watch the program", &error))?;
    let unconfined = plan.is_last.then(confine::filter_calls).and_then(Result::err);
    sandbox.start().map_err(|error| ours("cannot start the program", &error))?;

    let mut tick = tokio::time::interval(HAND_OVER);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let run = Run { sandbox: &sandbox, gateway: &gateway, events: &events, program: &plan.program };
    let result = tokio::select! {
        result = run.to_the_end(&signals) => result,
        died = &mut driver => Err(stack_died(died)),
        () = async { loop { tick.tick().await; journal.hand_over(); } } => unreachable!("the tick never ends"),
    };
    gateway.stop().await;
    if let Some(link) = link {
        journal.tell_link(Account { asked: plan.impairments.texts(), report: link.report() });
    }
    drop(control);
    drop(sandbox);
    // The stack itself goes with everything it holds: TIME-WAIT is of no use to a namespace that is gone.
    driver.abort();
    result.map(|status| Ended {
        status,
        facts,
        dropped: net.link_counters().rx_dropped,
        martians: net.counters().martian_destinations,
        unconfined,
    })
}

fn stack_died(died: Result<io::Result<()>, tokio::task::JoinError>) -> Failure {
    let cause = match died {
        Ok(Ok(())) => "its driver ended".to_owned(),
        Ok(Err(error)) => error.to_string(),
        Err(error) => error.to_string(),
    };
    Failure::new("the stack stopped while the program was running", cause, "report this with the journal")
        .code(EXIT_OURS)
}

/// A stack on the sandbox's device.
struct Started {
    net: Net,
    driver: lastack::Driver,
    /// What makes the link bad, where that was asked for.
    link: Option<impair::Handle>,
}

fn start_stack(
    plan: &Plan,
    sandbox: &mut Sandbox,
    names: &Names,
    known: &Arc<dns::Names>,
) -> Result<Started, Failure> {
    let device = sandbox
        .take_device()
        .map_err(|error| ours("cannot use the program's link", &error))?
        .expect("a new sandbox has its device");
    // The link was the last that took more; the threads that are started below have no more either.
    if plan.is_last {
        confine::give_up_capabilities().map_err(|error| ours("cannot give up capabilities", &error))?;
    }
    let interface = sandbox.facts().device.interface();
    let config = Config {
        seed: plan.seed.map_or([0; 32], seed_bytes),
        addresses: addresses::STACK.to_vec(),
        any_address: true,
        ..Config::default()
    };
    let started = match &plan.pcap {
        None => start_on(device, plan, known, config),
        Some(file) => Capture::new(device, file.clone(), interface).and_then(|capture| {
            let names = names.clone();
            start_on(
                capture.annotate(move |direction, packet| names.comment(direction, packet)),
                plan,
                known,
                config,
            )
        }),
    };
    started.map_err(|error| match plan.pcap.as_ref().filter(|pcap| pcap.refused().is_some()) {
        Some(pcap) => unwritable(Some(pcap.path()), &error),
        None => ours("cannot start the stack", &error),
    })
}

/// A stack on `device`, or on a bad link to it: what is captured is the program's side of that.
fn start_on(
    device: impl Device,
    plan: &Plan,
    known: &Arc<dns::Names>,
    config: Config,
) -> io::Result<Started> {
    if plan.impairments.is_nothing() && !inject::needs_link(&plan.injections) {
        let (net, driver) = Net::start(device, config)?;
        return Ok(Started { net, driver, link: None });
    }
    let seed = plan.seed.map_or_else(random_seed, Ok)?;
    let (device, link) = Impaired::new(device, seed, plan.impairments.rules(known))?;
    let (net, driver) = Net::start(device, config)?;
    Ok(Started { net, driver, link: Some(link) })
}

/// A seed nobody chose: short, because it may have to be typed.
fn random_seed() -> io::Result<u64> {
    let mut bytes = [0; 4];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    Ok(u64::from(u32::from_le_bytes(bytes)))
}

/// A seed of the stack; an all-zero one would mean a random one.
fn seed_bytes(seed: u64) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    bytes[31] = 1;
    bytes
}

fn sysctl_refused(name: &str, value: &str, error: &SysctlError) -> Failure {
    let (cause, remedy) = match error {
        SysctlError::Unknown => {
            ("the stack has no such setting".to_owned(), "lastack sysctl lists them".to_owned())
        }
        SysctlError::NotApplicable(why) => ((*why).to_owned(), "leave it out".to_owned()),
        SysctlError::Invalid(range) => (range.clone(), format!("lastack sysctl {name} tells what it takes")),
        SysctlError::ReadOnly => ("it is read-only".to_owned(), "leave it out".to_owned()),
        _ => ("it was refused".to_owned(), "leave it out".to_owned()),
    };
    Failure::new(format!("cannot set {name} to `{value}`"), cause, remedy).code(EXIT_OURS)
}

fn start_gateway(
    plan: &Plan,
    net: &Net,
    sandbox: &mut Sandbox,
    journal: &Journal,
    names: Names,
    known: Arc<dns::Names>,
    injections: Injections,
) -> io::Result<Gateway> {
    let (helper_pid, device) = (sandbox.helper_pid(), sandbox.facts().device);
    let namespace = sandbox.take_sock_diag().map(|sock_diag| Namespace { sock_diag, helper_pid, device });
    let config = GatewayConfig {
        addresses: Addresses { host_loopback: plan.host_loopback, resolvers: plan.resolvers.clone() },
        rules: plan.rules.clone(),
        max_connections: plan.bounds.connections,
        max_flows: plan.bounds.flows,
        udp_idle: plan.bounds.udp_idle,
        names: known,
        policy: Policy { idle: plan.bounds.tcp_idle, ..Policy::default() },
        injections,
        namespace,
        ..GatewayConfig::default()
    };
    let write_down = journal.listener();
    let wants_names = plan.pcap.is_some();
    Gateway::start(net.clone(), config, move |note| {
        if wants_names {
            names.learn(&note);
        }
        write_down(note);
    })
}

/// What is watched while the program runs.
struct Run<'a> {
    sandbox: &'a Sandbox,
    gateway: &'a Gateway,
    events: &'a ProgramEvents,
    program: &'a OsStr,
}

impl Run<'_> {
    /// Gives the program's exit status, when nothing is on its way any more.
    async fn to_the_end(&self, signals: &signals::SignalStream) -> Result<u8, Failure> {
        let mut status = None;
        loop {
            tokio::select! {
                event = self.events.next() => match event {
                    ProgramEvent::Started(_) => {}
                    ProgramEvent::NotStarted(errno) => return Err(not_started(self.program, errno)),
                    ProgramEvent::Stopped(_) => {
                        signals::stop_self();
                        self.sandbox.signal(SIGCONT);
                    }
                    ProgramEvent::Exited(code) => status = Some(code),
                    ProgramEvent::AllGone => break,
                },
                signal = signals.next() => match (status, signal.number) {
                    (_, SIGTSTP) => {}
                    // The program got it from the terminal itself.
                    (None, _) if signal.from_terminal => {}
                    (None, number) => self.sandbox.signal(number),
                    (Some(_), _) => self.sandbox.kill_leftovers(),
                },
            }
        }
        let Some(status) = status else {
            return Err(Failure::new(
                "the program's sandbox is gone",
                "its helper process was killed from outside",
                "run it again",
            )
            .code(EXIT_OURS));
        };
        self.gateway.ownerless();
        tokio::select! {
            () = self.gateway.idle() => {}
            () = self.no_progress() => {}
            () = interrupted(signals) => {}
        }
        Ok(status)
    }

    /// Resolves when nothing has moved for [`PATIENCE`].
    async fn no_progress(&self) {
        let mut last = self.gateway.progress();
        loop {
            tokio::time::sleep(PATIENCE).await;
            if std::mem::replace(&mut last, self.gateway.progress()) == self.gateway.progress() {
                return;
            }
        }
    }
}

async fn interrupted(signals: &signals::SignalStream) {
    while signals.next().await.number == SIGTSTP {}
}

/// The three lines for a program that the kernel did not start.
pub(crate) fn not_started(program: &OsStr, errno: i32) -> Failure {
    let error = io::Error::from_raw_os_error(errno);
    let name = program.display();
    // Without a slash it was looked for in PATH.
    let path = std::env::var_os("PATH").filter(|_| !program.as_encoded_bytes().contains(&b'/'));
    let file = match &path {
        None => Some(PathBuf::from(program)),
        Some(path) => {
            std::env::split_paths(path).map(|directory| directory.join(program)).find(|file| file.is_file())
        }
    };
    let (code, cause, remedy) = match (error.kind(), file.filter(|file| file.exists())) {
        (io::ErrorKind::NotFound, Some(file)) => (
            127,
            "the file is there; the interpreter or the loader it names is not".to_owned(),
            format!("head -1 {0}; ldd {0}", file.display()),
        ),
        (io::ErrorKind::NotFound, None) if path.is_some() => {
            (127, "no directory of PATH has it".to_owned(), "its full path, or check PATH".to_owned())
        }
        (io::ErrorKind::NotFound, None) => (127, error.to_string(), "the path of a program".to_owned()),
        (_, Some(file)) if file.is_dir() => {
            (126, "it is a directory".to_owned(), "the path of a program".to_owned())
        }
        _ => (126, error.to_string(), format!("chmod +x, or name its interpreter: lastack run -- sh {name}")),
    };
    Failure::new(format!("`{name}` was not started"), cause, remedy).code(code)
}

pub(crate) const SIGCONT: i32 = 18;
pub(crate) const SIGTSTP: i32 = 20;

/// Process names by the two ends of a connection, the program's first, for comments in a capture.
#[derive(Clone, Debug, Default)]
struct Names(Arc<Mutex<NamesByEnds>>);

type NamesByEnds = HashMap<(SocketAddr, SocketAddr), Arc<str>>;

impl Names {
    fn learn(&self, note: &Note) {
        let mut names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match note {
            Note::Opened(opened) => {
                if let Some(owner) = &opened.owner {
                    names.insert((opened.local, opened.remote), owner.process.clone());
                }
            }
            Note::Ended(Entry::Connection(c)) => drop(names.remove(&(c.local, c.remote))),
            Note::Ended(Entry::Flow(_) | Entry::Lookup(_) | Entry::Limit(_)) => {}
        }
    }

    /// The name of the process a packet belongs to. `Inbound` is from the program.
    fn comment(&self, direction: Direction, packet: &[u8]) -> Option<String> {
        let (source, destination) = ends(packet)?;
        let pair =
            if direction == Direction::Inbound { (source, destination) } else { (destination, source) };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&pair).map(|name| name.to_string())
    }
}

/// Source and destination of a TCP packet without extension headers.
fn ends(packet: &[u8]) -> Option<(SocketAddr, SocketAddr)> {
    const TCP: u8 = 6;
    let address = |at: usize, len: usize| -> Option<std::net::IpAddr> {
        let bytes = packet.get(at..at + len)?;
        Some(match <[u8; 4]>::try_from(bytes) {
            Ok(v4) => v4.into(),
            Err(_) => <[u8; 16]>::try_from(bytes).ok()?.into(),
        })
    };
    let first = *packet.first()?;
    let (source, destination, ports) = match first >> 4 {
        4 if *packet.get(9)? == TCP => (address(12, 4)?, address(16, 4)?, usize::from(first & 15) * 4),
        6 if *packet.get(6)? == TCP => (address(8, 16)?, address(24, 16)?, 40),
        _ => return None,
    };
    let port = |at: usize| Some(u16::from_be_bytes(packet.get(at..at + 2)?.try_into().ok()?));
    Some((SocketAddr::new(source, port(ports)?), SocketAddr::new(destination, port(ports + 2)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_of_a_packet_are_found_in_both_families() {
        let mut v4 = vec![0x45; 1];
        v4.resize(24, 0);
        v4[9] = 6;
        v4[12..16].copy_from_slice(&[10, 0, 2, 100]);
        v4[16..20].copy_from_slice(&[10, 0, 2, 2]);
        v4[20..24].copy_from_slice(&[0x9c, 0xba, 0x1f, 0x90]);
        let (source, destination) = ends(&v4).unwrap();
        assert_eq!(
            (source.to_string(), destination.to_string()),
            ("10.0.2.100:40122".into(), "10.0.2.2:8080".into())
        );
        assert_eq!(ends(&v4[..22]), None);
        let mut v6 = vec![0x60; 1];
        v6.resize(44, 0);
        v6[6] = 6;
        v6[23] = 1;
        v6[40..44].copy_from_slice(&[0, 1, 0, 2]);
        assert_eq!(ends(&v6).unwrap().0.to_string(), "[::1]:1");
        assert_eq!(ends(&[]), None);
    }

    #[test]
    fn sockets_of_dead_runs_are_removed_and_others_are_not() {
        let directory = tempfile::tempdir().unwrap();
        let own = format!("{}.sock", std::process::id());
        // Process ids end at 2^22.
        for name in ["4194305.sock", own.as_str(), "named.sock", "note"] {
            std::fs::File::create(directory.path().join(name)).unwrap();
        }
        remove_stale(directory.path());
        let mut left: Vec<_> = directory
            .path()
            .read_dir()
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        let mut expected = vec![own, "named.sock".to_owned(), "note".to_owned()];
        expected.sort();
        assert_eq!(left, expected);
    }

    #[test]
    fn what_was_not_started_is_named_with_its_own_cause() {
        let directory = tempfile::tempdir().unwrap();
        let script = directory.path().join("script");
        std::fs::write(&script, "#!/no/such/interpreter\n").unwrap();
        let said = |program: &OsStr, errno| format!("{:?}", not_started(program, errno));
        for (program, errno, parts) in [
            (OsStr::new("nosuch"), 2, ["`nosuch` was not started", "no directory of PATH", "127"]),
            (OsStr::new("./nosuch"), 2, ["`./nosuch`", "No such file", "127"]),
            (OsStr::new(""), 2, ["`` was not started", "no directory of PATH", "127"]),
            (script.as_os_str(), 2, ["script", "the interpreter", "127"]),
            (script.as_os_str(), 13, ["script", "Permission denied", "126"]),
            (directory.path().as_os_str(), 13, ["` was not", "it is a directory", "126"]),
        ] {
            let said = said(program, errno);
            assert!(parts.iter().all(|part| said.contains(part)), "{program:?} {errno}: {said}");
        }
    }

    #[test]
    fn seed_is_never_the_one_that_means_random() {
        assert_ne!(seed_bytes(0), [0; 32]);
        assert_ne!(seed_bytes(1), seed_bytes(2));
    }
}
