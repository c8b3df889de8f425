//! `lastack demo`: the guided first run.

use std::io::{self, BufWriter, Write};
use std::process::ExitCode;
use std::time::Duration;

use lastack::{Config, Memory, Net};
use lastack_gateway::rules::Rules;
use lastack_gateway::{Gateway, GatewayConfig, addresses};
use lastack_observe::clock;
use lastack_observe::doctor::{self, Limits};
use lastack_observe::filter::Filter;
use lastack_observe::snapshot::Snapshot;
use lastack_observe::source::kernel::{Kernel, Query, Scope};
use lastack_observe::words::Lang;

use crate::args::Globals;
use crate::cmd;
use crate::failure::{EXIT_OURS, Failure};
use crate::run::impair::Asked;
use crate::run::journal::{Form, Journal, Output};
use crate::run::report::{Place, Style};
use crate::run::scenes::{self, Servers, Stuck};
use crate::run::session::{self, Bounds, Plan};
use crate::text::Paint;

/// The command line of `demo`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Starts five small servers on this host's loopback and a client behind the stack, tells how each connection ended, \
then finds and ends a stuck socket of the kernel. Ten seconds, no network, nothing is left behind.

Examples:
  lastack demo                 as root it can end the stuck socket too
  lastack demo --lang zh       the same in Chinese")]
pub(crate) struct Args {}

/// How often, and how many times, it is looked whether the stuck socket shows its zero window.
const LOOK_EVERY: Duration = Duration::from_millis(100);
const LOOKS: usize = 30;

pub(crate) fn run(_args: &Args, globals: &Globals) -> Result<ExitCode, Failure> {
    let demo = Demo { lang: globals.lang(), colored: globals.colored(), as_json: globals.json };
    let signals = session::block_signals()?;
    let broken = |error: io::Error| {
        Failure::new(
            "the demonstration could not start",
            error.to_string(),
            "check that 127.0.0.1 is up: ip addr show lo",
        )
        .code(EXIT_OURS)
    };
    let stuck = Stuck::make().map_err(broken)?;
    let servers = Servers::start().map_err(broken)?;
    let style = Style { lang: demo.lang, color: demo.colored };
    let form = if demo.as_json { Form::Json } else { Form::Text };
    let journal = Journal::open(form, Output::Stdout, false, style, Place::BehindTheStack).map_err(broken)?;

    let plan = demo.plan(&servers);
    match session::sandbox(&plan) {
        Ok(sandbox) => {
            demo.say(
                "A client in its own network namespace, behind lastack's TCP/IP stack. Five connections:",
                "客户端在自己的网络命名空间里，位于 lastack 的 TCP/IP 栈之后。五条连接：",
            )?;
            session::run(plan, sandbox, signals, &journal)?;
        }
        Err(error) if error.is_refused_namespace() => {
            let (cause, remedy) = error.cause_and_remedy();
            demo.say(
                &format!("No namespace here: {cause}.\n(To have one: {remedy})\nSo the client is in this process, over a memory device. Five connections:"),
                &format!("这里没有命名空间：{cause}。\n（要启用它：{remedy})\n因此客户端就在本进程里，使用内存设备（memory）。五条连接："),
            )?;
            in_memory(&servers, &journal)?;
        }
        Err(error) => return Err(session::refused(&error)),
    }
    journal.close()?;
    demo.stuck_socket(&stuck)?;
    demo.say(
        "\nNext:\n  lastack run -- curl -s http://example.org/     how one program's connections lived and ended\n  \
         lastack doctor                                 stuck sockets of this machine\n  \
         lastack lab run fin-wait-1-zero-window         how such a socket gets stuck, drawn and explained",
        "\n接下来：\n  lastack run -- curl -s http://example.org/     看一个程序的连接如何开始和结束\n  \
         lastack doctor                                 本机卡住的套接字\n  \
         lastack lab run fin-wait-1-zero-window         这样的套接字如何卡住：图示与说明",
    )?;
    Ok(ExitCode::SUCCESS)
}

struct Demo {
    lang: Lang,
    colored: bool,
    /// The journal and the finding, without the words around them.
    as_json: bool,
}

impl Demo {
    fn say(&self, en: &str, zh: &str) -> io::Result<()> {
        if self.as_json {
            return Ok(());
        }
        let mut out = io::stdout().lock();
        writeln!(out, "{}\n", self.lang.pick(en, zh))?;
        out.flush()
    }

    fn plan(&self, servers: &Servers) -> Plan {
        let (program, arguments) = scenes::client_command(&servers.ports);
        Plan {
            program: program.into(),
            arguments: arguments.into_iter().map(Into::into).collect(),
            mtu: 1500,
            root_map: false,
            keeps_descriptors: false,
            device: lastack_gateway::sandbox::DeviceChoice::Auto,
            host_loopback: true,
            resolvers: Vec::new(),
            published: Vec::new(),
            bounds: Bounds::default(),
            rules: Rules::default(),
            impairments: Asked::default(),
            injections: Vec::new(),
            seed: None,
            sysctls: Vec::new(),
            pcap: None,
            name: None,
            // The kernel's stuck socket is shown, and ended, afterwards.
            is_last: false,
        }
    }

    /// Shows the kernel's own FIN-WAIT-1 and ends it.
    fn stuck_socket(&self, stuck: &Stuck) -> Result<(), Failure> {
        self.say(
            "\nOn the way the kernel of this host got a stuck socket too: a writer that has closed, a reader that never reads.",
            "\n与此同时，本机内核里也有了一个卡住的套接字：写的一方已经关闭，读的一方从不读取。",
        )?;
        let Some(mut found) = look(stuck) else {
            return Ok(self.say(
                "The kernel's sockets cannot be read here (AF_NETLINK is refused), so its FIN-WAIT-1 cannot be shown.",
                "这里无法读取内核的套接字（AF_NETLINK 被拒绝），因此无法展示它的 FIN-WAIT-1。",
            )?);
        };
        let findings = doctor::examine(
            &found.snapshot,
            None,
            &Limits { min_count: Some(1), min_age_ms: 0, ..Limits::default() },
        );
        let mut out = BufWriter::new(io::stdout().lock());
        let lang = self.lang;
        if self.as_json {
            cmd::doctor::document(&findings, &found.snapshot, None, None, lang, &mut out)?;
        } else {
            let paint = Paint { colored: self.colored };
            cmd::doctor::report(&findings, &found.snapshot, lang, &paint, &mut out)?;
        }
        out.flush()?;
        drop(out);
        let rows = std::mem::take(&mut found.snapshot.rows);
        let command = format!("lastack kill state fin-wait-1 sport = :{}", stuck.port);
        for row in rows {
            match found.kernel.destroy(&row) {
                Ok(()) => self.say(
                    &format!("\n`{command}` has ended it: its peer got RST, its memory is free."),
                    &format!("\n`{command}` 已经结束了它：对端收到 RST，内存已释放。"),
                )?,
                Err(error) => self.say(
                    &format!("\nOnly root may end it ({error}): sudo {command}. It ends with this demonstration, because its reader does."),
                    &format!("\n只有 root 能结束它（{error}):sudo {command}。演示结束时读者也随之结束，它就会消失。"),
                )?,
            }
        }
        Ok(())
    }
}

struct Found {
    kernel: Kernel,
    snapshot: Snapshot,
}

/// The kernel's view of the stuck socket, once its zero window shows.
fn look(stuck: &Stuck) -> Option<Found> {
    let words = ["state", "fin-wait-1", "sport", "=", &format!(":{}", stuck.port)].map(str::to_owned);
    let query = Query { filter: Filter::parse(&words).expect("a filter of our own"), ..Query::everything() };
    let mut kernel = Kernel::open(&Scope::Own).ok()?;
    for _ in 0..LOOKS {
        let snapshot = kernel.snapshot(&query).ok()?;
        let probing = snapshot.rows.iter().any(|row| {
            row.socket.timer.is_some_and(|timer| timer.kind == lastack_core::observe::TimerKind::Persist)
        });
        if probing {
            return Some(Found { kernel, snapshot });
        }
        clock::pause(LOOK_EVERY);
    }
    None
}

/// The scenes with the client in this process: two stacks and a memory device between them.
fn in_memory(servers: &Servers, journal: &Journal) -> Result<(), Failure> {
    let runtime = session::runtime()?;
    let ports = servers.ports;
    runtime
        .block_on(async {
            let (near, far) = Memory::pair(1500);
            let gateway_side =
                Config { addresses: addresses::STACK.to_vec(), any_address: true, ..Config::default() };
            let client_side = Config { addresses: addresses::GUEST.to_vec(), ..Config::default() };
            let (net, driver) = Net::start(near, gateway_side)?;
            let (client, client_driver) = Net::start(far, client_side)?;
            let drivers = [tokio::spawn(driver), tokio::spawn(client_driver)];
            let gateway = Gateway::start(net, GatewayConfig::default(), journal.listener())?;
            tokio::task::spawn_blocking(move || scenes::play_in_process(&ports, &client))
                .await
                .map_err(io::Error::other)?;
            let _ = tokio::time::timeout(Duration::from_secs(3), gateway.idle()).await;
            gateway.stop().await;
            drivers.iter().for_each(tokio::task::JoinHandle::abort);
            Ok(())
        })
        .map_err(|error: io::Error| {
            Failure::new(
                "the demonstration's stacks stopped",
                error.to_string(),
                "report this with the output above",
            )
            .code(EXIT_OURS)
        })
}
