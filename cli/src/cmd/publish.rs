//! `lastack publish`: the ports of this host that lead to a running program.

use std::io::{self, BufWriter, Write};
use std::process::ExitCode;

use lastack_core::observe::control::Reply;
use lastack_gateway::publish::{HostPort, Port};
use lastack_observe::json;
use lastack_observe::source::stack::{Refusal, Stack};
use lastack_observe::words::Lang;
use serde_json::{Value, json};

use crate::args::Globals;
use crate::failure::Failure;
use crate::run::publish::{read_one, remedy, unread};
use crate::source_args;
use crate::table::Table;

/// The command line of `publish`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  lastack publish                           every lastack run of yours, and its ports
  lastack publish web                       its ports, and who serves them inside
  lastack publish web 8080:80 5353:53/udp   add two
  lastack publish web --remove 8080         take one back; who is connected stays connected

A run is started with lastack run --name web -- CMD; its process id will do as well. Rules (--allow, --deny) are for the \
way out: who publishes a port lets its clients in. A client keeps its address and port; one of this host's loopback \
appears as 10.0.2.2 or fd00:6c61::2. One that comes while nobody listens inside is reset, where a program without lastack \
would have it refused: this host's kernel has answered it before the program is asked.

Exit status: 0 done, 2 usage, or a port could not be had.")]
pub(crate) struct Args {
    /// A running lastack: its name or process id; without it, all of them are listed
    #[arg(value_name = "NAME|PID")]
    source: Option<String>,
    /// Ports to publish; with --remove, to take back ([ADDR:]HOST[/udp] is enough)
    #[arg(value_name = "[ADDR:]HOST:INSIDE[/udp]")]
    ports: Vec<String>,
    /// Take the ports back: nobody new is let in
    #[arg(long, requires = "ports")]
    remove: bool,
}

pub(crate) fn run(args: &Args, globals: &Globals) -> Result<ExitCode, Failure> {
    let Some(source) = &args.source else { return everywhere(globals) };
    let changes = changes(args)?;
    let mut stack = source_args::stack(source).map_err(|failure| named_last(source, failure))?;
    for change in &changes {
        change.make(&mut stack)?;
    }
    let published = stack.published().map_err(|error| unasked(source, &error))?;
    let out = &mut BufWriter::new(io::stdout().lock());
    if globals.json {
        writeln!(
            out,
            "{}",
            json!({"schema": json::SCHEMA, "source": stack.name(), "published": ports(&published)})
        )?;
    } else if published.is_empty() {
        writeln!(out, "{}", globals.lang().pick("no port is published", "没有发布任何端口"))?;
    } else {
        let mut table = table(globals.lang(), None);
        published.iter().filter_map(|port| row(port, globals.lang())).for_each(|row| table.push(row));
        table.write(out, true)?;
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

/// Every run, with its ports.
fn everywhere(globals: &Globals) -> Result<ExitCode, Failure> {
    let lang = globals.lang();
    let running = Stack::running().map_err(|error| {
        Failure::new(
            "cannot look for running lastacks",
            error.to_string(),
            "remove that directory, or make it yours",
        )
    })?;
    let runs: Vec<Run> = running.into_iter().filter_map(Run::of).collect();
    let out = &mut BufWriter::new(io::stdout().lock());
    if globals.json {
        let runs: Vec<Value> = runs
            .iter()
            .map(|run| json!({"source": run.name, "pid": run.pid, "published": ports(&run.published)}))
            .collect();
        writeln!(out, "{}", json!({"schema": json::SCHEMA, "runs": runs}))?;
    } else if runs.is_empty() {
        writeln!(
            out,
            "{}",
            lang.pick(
                "no lastack runs: lastack run --name NAME -- CMD",
                "没有正在运行的 lastack：lastack run --name NAME -- CMD"
            )
        )?;
    } else {
        let mut table = table(lang, Some(lang.pick("Run", "运行")));
        for run in &runs {
            let name = format!("{} ({})", run.name, run.pid);
            let mut rows: Vec<_> = run.published.iter().filter_map(|port| row(port, lang)).collect();
            if rows.is_empty() {
                rows.push(vec!["-".to_owned()]);
            }
            for row in rows {
                table.push([vec![name.clone()], row].concat());
            }
        }
        table.write(out, true)?;
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

/// One run among others.
struct Run {
    name: String,
    pid: u32,
    published: Vec<Reply>,
}

impl Run {
    /// `None`: a stack without a program, or one that has ended meanwhile.
    fn of(mut stack: Stack) -> Option<Self> {
        let published = stack.published().ok()?;
        Some(Self { name: stack.name().to_owned(), pid: stack.pid(), published })
    }
}

/// A port where the name belongs is taken for one.
fn named_last(source: &str, failure: Failure) -> Failure {
    match source.parse::<Port>() {
        Ok(port) => Failure::new(
            format!("{port} is published by no lastack that was named"),
            "the name comes first",
            format!("lastack publish NAME {port}; lastack publish lists the names"),
        ),
        Err(_) => failure,
    }
}

/// It is published already.
const EEXIST: i32 = rustix::io::Errno::EXIST.raw_os_error();

/// One thing that is to be different.
enum Change {
    Add(Port),
    Remove(HostPort),
}

/// All of them, read before any is made.
fn changes(args: &Args) -> Result<Vec<Change>, Failure> {
    args.ports
        .iter()
        .map(|text| match args.remove {
            false => read_one(text).map(Change::Add),
            true => text.parse().map(Change::Remove).map_err(|error| unread(text, &error)),
        })
        .collect()
}

impl Change {
    fn make(&self, stack: &mut Stack) -> Result<(), Failure> {
        match self {
            Self::Add(port) => stack.publish(&port.to_string()).map(drop).map_err(|error| {
                let name = stack.name();
                let remedy = match Refusal::errno(&error) {
                    EEXIST => format!("lastack publish {name} --remove {}", port.host_port()),
                    errno => remedy(port, errno, &format!("lastack publish {name}")),
                };
                Failure::new(format!("cannot publish {port}"), error.to_string(), remedy)
            }),
            Self::Remove(port) => stack.unpublish(&port.to_string()).map_err(|error| {
                let remedy = format!("lastack publish {} lists what is", stack.name());
                Failure::new(format!("cannot take {port} back"), error.to_string(), remedy)
            }),
        }
    }
}

fn unasked(source: &str, error: &io::Error) -> Failure {
    Failure::new(
        format!("`{source}` does not tell what it publishes"),
        error.to_string(),
        "a lastack run that is still going: lastack run --name NAME -- CMD",
    )
}

fn document(reply: &Reply) -> Option<Value> {
    let Reply::Published { port, protocol, host, inside, open, total, pid, process } = reply else {
        return None;
    };
    let mut value = json!({
        "port": port, "protocol": protocol, "host": host, "inside": inside, "open": open, "total": total,
    });
    if let (Some(pid), Some(process)) = (pid, process) {
        value["pid"] = (*pid).into();
        value["process"] = process.as_str().into();
    }
    Some(value)
}

fn ports(published: &[Reply]) -> Vec<Value> {
    published.iter().filter_map(document).collect()
}

fn table(lang: Lang, first: Option<&'static str>) -> Table {
    let mut columns: Vec<(&'static str, bool)> = first.map(|name| (name, false)).into_iter().collect();
    columns.extend([
        (lang.pick("Proto", "协议"), false),
        (lang.pick("Host", "主机"), false),
        (lang.pick("Inside", "内侧"), true),
        (lang.pick("Open", "打开"), true),
        (lang.pick("Total", "总计"), true),
        (lang.pick("Served by", "服务者"), false),
    ]);
    Table::new(&columns)
}

fn row(reply: &Reply, lang: Lang) -> Option<Vec<String>> {
    let Reply::Published { protocol, host, inside, open, total, pid, process, .. } = reply else {
        return None;
    };
    let places: Vec<_> = host.iter().map(ToString::to_string).collect();
    let server = match (pid, process) {
        (Some(pid), Some(process)) => format!("{process} ({pid})"),
        _ => lang.pick("nobody", "无").to_owned(),
    };
    Some(vec![
        protocol.clone(),
        places.join(" "),
        inside.to_string(),
        open.to_string(),
        total.to_string(),
        server,
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn published(pid: Option<u32>) -> Reply {
        Reply::Published {
            port: "8080:80".into(),
            protocol: "tcp".into(),
            host: vec!["0.0.0.0:8080".parse().unwrap(), "[::]:8080".parse().unwrap()],
            inside: 80,
            open: 2,
            total: 17,
            pid,
            process: pid.map(|_| "nginx".into()),
        }
    }

    #[test]
    fn who_serves_is_named_and_nobody_is_too() {
        let nginx = row(&published(Some(7)), Lang::En).unwrap();
        assert_eq!(nginx, ["tcp", "0.0.0.0:8080 [::]:8080", "80", "2", "17", "nginx (7)"]);
        assert_eq!(row(&published(None), Lang::En).unwrap().last().unwrap(), "nobody");
        assert_eq!(row(&published(None), Lang::Zh).unwrap().last().unwrap(), "无");
    }

    #[test]
    fn a_port_in_the_place_of_a_name_is_recognised() {
        let failure = || Failure::new("no lastack called", "none runs", "start one");
        let said = |source: &str| format!("{:?}", named_last(source, failure()));
        assert!(said("8080:80").contains("lastack publish NAME 8080:80"), "{}", said("8080:80"));
        assert!(said("web").contains("no lastack called"), "{}", said("web"));
    }

    #[test]
    fn document_has_no_process_where_nobody_serves() {
        assert_eq!(
            document(&published(None)).unwrap().to_string(),
            r#"{"host":["0.0.0.0:8080","[::]:8080"],"inside":80,"open":2,"port":"8080:80","protocol":"tcp","total":17}"#
        );
        assert_eq!(document(&published(Some(7))).unwrap()["process"], "nginx");
    }
}
