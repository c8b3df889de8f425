//! `lastack run`: runs a program behind the stack.

use std::ffi::OsString;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use lastack_core::observe::control;
use lastack_gateway::addresses;
use lastack_gateway::sandbox::DeviceChoice;
use lastack_gateway::signals::Signals;
use lastack_observe::words::Lang;

use crate::args::Globals;
use crate::failure::{EXIT_OURS, Failure};
use crate::run::impair::ImpairFlags;
use crate::run::inject;
use crate::run::journal::{Form, Journal, Output};
use crate::run::observe;
use crate::run::pcap_file::PcapFile;
use crate::run::publish;
use crate::run::report::{Place, Style};
use crate::run::rules::RuleFlags;
use crate::run::session::{self, Bounds, Ended, Plan};
use crate::run::warning::Warning;

/// The command line of `run`.
#[derive(clap::Args, Debug)]
#[command(
    override_usage = "lastack run [OPTIONS] -- <CMD>...",
    after_help = "\
Inside: 10.0.2.100 and fd00:6c61::100. 10.0.2.2 and fd00:6c61::2 are this host's loopback, 10.0.2.3 \
and fd00:6c61::3 its resolver; in a run inside a run, \"this host\" is the inside of the outer one. ip_local_port_range is 1024-65535, tcp_tw_reuse 1, ip_unprivileged_port_start 0.

When CMD has exited, what its kernel still holds is carried on until its connections have ended, \
at most 60 s without progress; Ctrl-C ends that at once.

Exit status: CMD's own (128 + N for signal N); 125 a failure of lastack, 126 CMD cannot be executed, 127 not found.

Examples:
  lastack run -- curl -s http://10.0.2.2:8080/             how its connection lived and ended
  lastack run --observe -- ./job                           without a namespace, as the kernel tells
  lastack run --json --deny '*:25' -- ./job                a journal for machines; mail is refused
  lastack run --loss 5% --delay 20±5 --seed 7 -- ./test    the same packets are lost each time
  lastack run --publish 8080:80 -- ./server                its clients come from outside
  lastack run --inject stall@1MB,10.0.2.2:8080 -- ./test   the server freezes in mid-answer"
)]
pub(crate) struct Args {
    /// The journal: text at the end, json one line a connection, or none (--json is --report json)
    #[arg(long, value_enum, value_name = "FORM")]
    report: Option<Form>,
    /// Append the journal to FILE instead of writing it to standard error
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// A line on standard error at each open and end
    #[arg(long)]
    live: bool,
    /// Capture the namespace's packets (pcapng)
    #[arg(long, value_name = "FILE")]
    pcap: Option<PathBuf>,
    /// Let clients of this host's port HOST in to the program's port INSIDE, from the address they come from; at ADDR, or
    /// at all of this host's addresses. `lastack publish` changes it while the program runs
    #[arg(long, value_name = "[ADDR:]HOST:INSIDE[/udp]")]
    publish: Vec<String>,
    /// Connections at a time, both ways together; more are refused and noted in the journal
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    max_connections: Option<u32>,
    /// UDP flows at a time, clients of published ports among them; datagrams that would begin another are dropped and counted
    #[arg(long, value_name = "N", default_value_t = 4096, value_parser = clap::value_parser!(u32).range(1..))]
    max_flows: u32,
    /// Silence that ends a UDP flow, seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    udp_idle: u64,
    /// Silence after which a TCP connection is reset at both ends, seconds, from 1 to 2592000; without it, never
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=2_592_000))]
    tcp_idle: Option<u64>,
    #[command(flatten)]
    rules: RuleFlags,
    #[command(flatten)]
    impair: ImpairFlags,
    /// Force EVENT on every connection, or on those to DESTINATION: rst, stall, zero-window, blackhole or half-open, so long
    /// after it was established or when it has carried so much (rst@5s, zero-window@1MB)
    #[arg(long, value_name = "EVENT@WHEN[,DESTINATION]")]
    inject: Vec<String>,
    /// MTU of the program's interface, bytes
    #[arg(long, value_name = "N", default_value_t = 1500, value_parser = clap::value_parser!(u32).range(576..=65_520))]
    mtu: u32,
    /// Make every choice of the stack and of a bad link from this number, so that a run can be repeated
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// A setting of the stack by Linux's name: net.ipv4.tcp_fin_timeout=10
    #[arg(long, value_name = "NAME=VALUE", value_parser = setting)]
    sysctl: Vec<(String, String)>,
    /// The link: a TUN, a veth pair with a packet socket, or the first of them that can be had
    #[arg(long, value_enum, value_name = "KIND", default_value_t = Device::Auto)]
    device: Device,
    /// No namespace and no stack: run CMD as it is and journal its connections from the kernel. What the kernel does
    /// not tell is absent; root's tracepoints tell who closed first and why
    #[arg(long, conflicts_with_all = [
        "publish", "max_connections", "max_flows", "udp_idle", "tcp_idle", "allow", "deny", "pcap", "loss", "delay", "rate", "queue", "reorder", "duplicate", "inject", "mtu", "seed", "sysctl", "device",
        "no_host_loopback", "dns", "name", "root_map", "keep_fds",
    ])]
    observe: bool,
    /// Close this host's loopback (10.0.2.2, fd00:6c61::2) to the program
    #[arg(long)]
    no_host_loopback: bool,
    /// Resolver behind 10.0.2.3, ADDRESS or ADDRESS:PORT; without it, this host's
    #[arg(long, value_name = "ADDR", value_parser = resolver)]
    dns: Option<SocketAddr>,
    /// Name under which ss, kill and trace find this run (otherwise its process id)
    #[arg(long, value_name = "NAME", value_parser = name)]
    name: Option<String>,
    /// The program sees itself as root
    #[arg(long)]
    root_map: bool,
    /// CMD inherits the descriptors above 2 as well: for `<(process substitution)`, or make's job server
    #[arg(long)]
    keep_fds: bool,
    /// The program and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "CMD")]
    command: Vec<OsString>,
}

/// Which link the program gets.
#[derive(clap::ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
enum Device {
    /// A TUN; where there is none, a veth pair
    Auto,
    /// A TUN device
    Tun,
    /// A veth pair: needs no device node
    Veth,
}

impl From<Device> for DeviceChoice {
    fn from(device: Device) -> Self {
        match device {
            Device::Auto => Self::Auto,
            Device::Tun => Self::Tun,
            Device::Veth => Self::Veth,
        }
    }
}

impl Args {
    /// The journal's form. Two that contradict each other are none.
    fn form(&self, globals: &Globals) -> Result<Form, Failure> {
        let contradicts = |what: &str, cause: &str, next: &str| {
            Err(Failure::new(what.to_owned(), cause.to_owned(), next.to_owned()).code(EXIT_OURS))
        };
        match self.report {
            Some(Form::Text | Form::None) if globals.json => contradicts(
                "--json and --report ask for two forms of the journal",
                "--json is --report json",
                "one of them",
            ),
            Some(Form::None) if self.output.is_some() => contradicts(
                "--report none leaves nothing to write to --output",
                "the journal is what that file is for",
                "one of them",
            ),
            report => Ok(report.unwrap_or(if globals.json { Form::Json } else { Form::Text })),
        }
    }
}

fn setting(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() && !value.is_empty() => Ok((name.into(), value.into())),
        _ => Err("NAME=VALUE is needed, for example net.ipv4.tcp_fin_timeout=10".into()),
    }
}

fn name(text: &str) -> Result<String, String> {
    if text == "kernel" {
        return Err("--source kernel means the kernel's own connections".into());
    }
    if text.bytes().all(|byte| byte.is_ascii_digit()) && !text.is_empty() {
        return Err("digits alone are a process id".into());
    }
    match control::file_name(text) {
        Some(_) => Ok(text.into()),
        None => Err("1 to 64 letters, digits, dots, dashes or underscores are needed, no dot first".into()),
    }
}

fn resolver(text: &str) -> Result<SocketAddr, String> {
    let with_port = text.parse::<SocketAddr>().ok();
    let bare = text.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, 53));
    with_port.or(bare).ok_or_else(|| "an address is needed, for example 192.0.2.53 or 127.0.0.1:5353".into())
}

pub(crate) fn run(args: &Args, globals: &Globals) -> Result<ExitCode, Failure> {
    let form = args.form(globals)?;
    let rules = args.rules.read()?;
    let published = publish::read(&args.publish)?;
    let impairments = args.impair.read()?;
    let injections = inject::read(&args.inject)?;
    let pcap = args.pcap.as_deref().map(PcapFile::create).transpose()?;
    let style = Style { lang: globals.lang(), color: globals.colored_on(&io::stderr()) };
    let output = args.output.as_deref().map_or(Output::Stderr, Output::File);
    let signals = session::block_signals()?;
    let place = if args.observe { Place::AsItWas } else { Place::BehindTheStack };
    let journal = Journal::open(form, output, args.live, style, place)
        .map_err(|error| unwritable(args.output.as_deref(), &error))?;
    let (program, arguments) = args.command.split_first().expect("clap requires a program");
    if args.observe {
        return observe(args, form, globals.lang(), program, arguments, signals, journal);
    }
    let plan = Plan {
        program: program.clone(),
        arguments: arguments.to_vec(),
        mtu: args.mtu,
        root_map: args.root_map,
        keeps_descriptors: args.keep_fds,
        device: args.device.into(),
        host_loopback: !args.no_host_loopback,
        resolvers: match args.dns {
            Some(resolver) => vec![resolver],
            None => addresses::resolvers(&addresses::read("/etc/resolv.conf")),
        },
        published,
        bounds: Bounds {
            connections: args.max_connections.map_or(usize::MAX, |most| most as usize),
            flows: args.max_flows as usize,
            udp_idle: Duration::from_secs(args.udp_idle),
            tcp_idle: args.tcp_idle.map(Duration::from_secs),
        },
        rules,
        impairments,
        injections,
        seed: args.seed,
        sysctls: args.sysctl.clone(),
        pcap: pcap.clone(),
        name: args.name.clone(),
        is_last: true,
    };
    let ended = session::sandbox(&plan)
        .map_err(|error| session::refused(&error))
        .and_then(|sandbox| session::run(plan, sandbox, signals, &journal));
    let ended = match ended {
        Ok(ended) => ended,
        Err(failure) => {
            // Nothing was run, so there is nothing to report.
            journal.discard();
            return Err(failure);
        }
    };
    let lost = closed(journal, args.output.as_deref())?;
    warnings(form, lost, pcap.as_ref(), &ended).iter().for_each(|warning| warning.say(globals.lang()));
    Ok(ExitCode::from(ended.status))
}

fn observe(
    args: &Args,
    form: Form,
    lang: Lang,
    program: &OsString,
    arguments: &[OsString],
    signals: Signals,
    journal: Journal,
) -> Result<ExitCode, Failure> {
    let observed = match observe::run(program, arguments, signals, &journal) {
        Ok(observed) => observed,
        Err(failure) => {
            journal.discard();
            return Err(failure);
        }
    };
    let lost = closed(journal, args.output.as_deref())?;
    if form != Form::None {
        let entries = (lost > 0).then_some(Warning::EntriesLost(lost));
        entries.into_iter().chain(Warning::of_untold(observed.untold)).for_each(|warning| warning.say(lang));
    }
    Ok(ExitCode::from(observed.status))
}

/// Completes the journal; gives the number of entries it lacks.
fn closed(journal: Journal, output: Option<&Path>) -> Result<u64, Failure> {
    match journal.close() {
        // Whoever read it has gone: the exit status is the program's all the same.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(0),
        closed => closed.map_err(|error| unwritable(output, &error)),
    }
}

/// What the reader of the journal should know about its limits; what is wrong with more than the journal, in any case.
fn warnings(form: Form, lost: u64, pcap: Option<&PcapFile>, ended: &Ended) -> Vec<Warning> {
    let Ended { status: _, facts, dropped, martians, unconfined } = ended;
    let mut warnings = Vec::new();
    if let Some((pcap, error)) = pcap.and_then(|pcap| Some((pcap, pcap.refused()?))) {
        warnings.push(Warning::CaptureEnds { path: pcap.path().to_owned(), error: error.to_string() });
    }
    if let Some(error) = unconfined {
        warnings.push(Warning::Unfiltered { error: error.to_string() });
    }
    if form == Form::None {
        return warnings;
    }
    let rest = [
        (lost > 0, Warning::EntriesLost(lost)),
        (*dropped > 0, Warning::LinkWasFull(*dropped)),
        (*martians > 0, Warning::Martians(*martians)),
        (!facts.resolver, Warning::HostsResolver),
        (!facts.sysctls, Warning::KernelsPorts),
    ];
    warnings.extend(rest.into_iter().filter(|(applies, _)| *applies).map(|(_, warning)| warning));
    warnings
}

pub(crate) fn unwritable(path: Option<&Path>, error: &io::Error) -> Failure {
    let what = path.map_or_else(|| "standard error".to_owned(), |path| path.display().to_string());
    Failure::new(format!("cannot write {what}"), error.to_string(), "another file, or space on the disk")
        .code(EXIT_OURS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_and_resolvers_are_read() {
        assert_eq!(setting("tcp_sack=0"), Ok(("tcp_sack".into(), "0".into())));
        assert!(setting("tcp_sack").is_err() && setting("=1").is_err());
        assert_eq!(resolver("192.0.2.53"), Ok("192.0.2.53:53".parse().unwrap()));
        assert_eq!(resolver("[::1]:5353"), Ok("[::1]:5353".parse().unwrap()));
        assert!(resolver("example.org").is_err());
        assert_eq!(name("web-2.eu"), Ok("web-2.eu".into()));
        for wrong in ["", "kernel", "4711", "a/b", "../x", ".x", "名字", &"x".repeat(65)] {
            assert!(name(wrong).is_err(), "{wrong}");
        }
    }
}
