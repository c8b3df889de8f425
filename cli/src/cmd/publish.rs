//! `lastack publish`: the ports of this host that lead to a running program.

use std::io::{self, BufWriter, Write};
use std::process::ExitCode;

use lastack_core::observe::control::Reply;
use lastack_gateway::publish::{HostPort, Port};
use lastack_observe::json;
use lastack_observe::source::stack::{Refusal, Stack};
use serde_json::{Value, json};

use crate::args::{Globals, Lang};
use crate::failure::Failure;
use crate::run::publish::{read_one, remedy, unread};
use crate::source_args;
use crate::table::Table;

/// The command line of `publish`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  lastack publish web                       its ports, and who serves them inside
  lastack publish web 8080:80 5353:53/udp   add two
  lastack publish web --remove 8080         take one back; who is connected stays connected

A run is started with lastack run --name web -- CMD; its process id will do as well. Rules (--allow, --deny) are for the \
way out: who publishes a port lets its clients in. A client keeps its address and port; one of this host's loopback \
appears as 10.0.2.2 or fd00:6c61::2. One that comes while nobody listens inside is reset, where a program without lastack \
would have it refused: this host's kernel has answered it before the program is asked.

Exit status: 0 done, 2 usage, or a port could not be had.")]
pub(crate) struct Args {
    /// A running lastack: its name or process id
    #[arg(value_name = "NAME|PID")]
    source: String,
    /// Ports to publish; with --remove, to take back ([ADDR:]HOST[/udp] is enough)
    #[arg(value_name = "[ADDR:]HOST:INSIDE[/udp]")]
    ports: Vec<String>,
    /// Take the ports back: nobody new is let in
    #[arg(long, requires = "ports")]
    remove: bool,
}

pub(crate) fn run(args: &Args, globals: &Globals) -> Result<ExitCode, Failure> {
    let changes = changes(args)?;
    let mut stack = source_args::stack(&args.source)?;
    for change in &changes {
        change.make(&mut stack)?;
    }
    let published = stack.published().map_err(|error| unasked(&args.source, &error))?;
    let out = &mut BufWriter::new(io::stdout().lock());
    if globals.json {
        let ports: Vec<Value> = published.iter().filter_map(document).collect();
        writeln!(out, "{}", json!({"schema": json::SCHEMA, "source": stack.name(), "published": ports}))?;
    } else {
        list(&published, globals.lang(), out)?;
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
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

fn list(published: &[Reply], lang: Lang, out: &mut dyn Write) -> io::Result<()> {
    let pick = |en: &'static str, zh: &'static str| if lang == Lang::En { en } else { zh };
    if published.is_empty() {
        return writeln!(out, "{}", pick("no port is published", "没有发布任何端口"));
    }
    let mut table = Table::new(&[
        (pick("Proto", "协议"), false),
        (pick("Host", "主机"), false),
        (pick("Inside", "内侧"), true),
        (pick("Open", "打开"), true),
        (pick("Total", "总计"), true),
        (pick("Served by", "服务者"), false),
    ]);
    for reply in published {
        let Reply::Published { protocol, host, inside, open, total, pid, process, .. } = reply else {
            continue;
        };
        let places: Vec<_> = host.iter().map(ToString::to_string).collect();
        let server = match (pid, process) {
            (Some(pid), Some(process)) => format!("{process} ({pid})"),
            _ => pick("nobody", "无").to_owned(),
        };
        table.push(vec![
            protocol.clone(),
            places.join(" "),
            inside.to_string(),
            open.to_string(),
            total.to_string(),
            server,
        ]);
    }
    table.write(out, true)
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

    fn text(published: &[Reply], lang: Lang) -> String {
        let mut out = Vec::new();
        list(published, lang, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn who_serves_is_named_and_nobody_is_too() {
        let both = text(&[published(Some(7)), published(None)], Lang::En);
        assert!(both.contains("0.0.0.0:8080 [::]:8080") && both.contains("nginx (7)"), "{both}");
        assert!(both.lines().nth(2).is_some_and(|line| line.trim_end().ends_with("nobody")), "{both}");
        assert!(text(&[published(None)], Lang::Zh).contains('无'));
        assert_eq!(text(&[], Lang::En), "no port is published\n");
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
