//! Which sockets a command looks at: the kernel's, another namespace's, a running lastack's, a file's.

use std::io::{BufRead as _, BufReader, Read as _};
use std::time::Duration;

use lastack_observe::json;
use lastack_observe::live::Live;
use lastack_observe::snapshot::Snapshot;
use lastack_observe::source::Source;
use lastack_observe::source::capture::Capture;
use lastack_observe::source::kernel::{Kernel, Query, Scope};
use lastack_observe::source::stack::Stack;

use crate::failure::Failure;

/// Where sockets come from.
#[derive(clap::Args, Clone, Debug, Default)]
pub(crate) struct SourceArgs {
    /// `kernel`, or the name or process id of a running lastack, whose sockets are the stack's ends: Peer is the program
    /// [default: kernel]
    #[arg(long, value_name = "NAME|PID", conflicts_with = "from")]
    source: Option<String>,
    /// Another network namespace: a path, a process id, or a name under /run/netns
    #[arg(long, value_name = "PATH|PID", conflicts_with = "all_netns")]
    netns: Option<String>,
    /// Every network namespace that can be found
    #[arg(long)]
    all_netns: bool,
    /// A snapshot saved with `lastack ss -a --json`, or a capture (pcap, pcapng)
    #[arg(long, value_name = "FILE", conflicts_with_all = ["netns", "all_netns"])]
    from: Option<std::path::PathBuf>,
}

impl SourceArgs {
    /// Refuses flags that name two places at once.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        let (Some(name), true) = (self.stack_name(), self.netns.is_some() || self.all_netns) else {
            return Ok(());
        };
        let flag = if self.all_netns { "--all-netns" } else { "--netns" };
        Err(Failure::new(
            format!("--source {name} and {flag} name two places"),
            "a lastack has a stack of its own, in no network namespace of the kernel's",
            format!("--source {name} for its connections, {flag} for the kernel's there"),
        ))
    }

    /// True when other namespaces than this one are meant.
    pub(crate) fn is_elsewhere(&self) -> bool {
        self.netns.is_some()
    }

    /// True when every namespace is meant.
    pub(crate) fn is_everywhere(&self) -> bool {
        self.all_netns
    }

    /// The namespaces meant.
    pub(crate) fn scope(&self) -> Scope {
        match &self.netns {
            Some(name) => Scope::Named(name.clone()),
            None if self.all_netns => Scope::All,
            None => Scope::Own,
        }
    }

    /// A watch for long, with a look at all sockets every `interval`.
    pub(crate) fn watch(&self, interval: Duration) -> Result<Live, Failure> {
        self.check()?;
        match self.stack_name() {
            Some(name) => Live::of_stack(name, interval).map_err(|error| not_open(name, &error)),
            None => Live::open(&self.one_namespace()?, interval).map_err(|error| self.refused(&error)),
        }
    }

    /// The one namespace of a command that follows the kernel's sockets as they end.
    pub(crate) fn one_namespace(&self) -> Result<Scope, Failure> {
        self.check()?;
        let wrong = match (self.is_file(), self.stack_name()) {
            (true, _) => "--from names a file, where nothing ends any more",
            (false, Some(_)) => "--source names a lastack, which journals its own",
            (false, None) if self.all_netns => "--all-netns names them all",
            (false, None) => return Ok(self.scope()),
        };
        Err(Failure::new(
            "ends are told of the kernel's connections, a namespace at a time",
            wrong,
            "--netns PATH",
        ))
    }

    /// True for this host's own kernel, here and now.
    pub(crate) fn is_own_kernel(&self) -> bool {
        !self.is_file() && self.stack_name().is_none() && self.scope() == Scope::Own
    }

    /// True when the sockets come from a file.
    pub(crate) fn is_file(&self) -> bool {
        self.from.is_some()
    }

    /// The capture that `--from` names, if it is one; `tell` is told its events.
    pub(crate) fn capture(
        &self,
        tell: impl FnMut(lastack_observe::trace::Event),
    ) -> Result<Option<Capture>, Failure> {
        let Some(path) = &self.from else { return Ok(None) };
        let unread = |error: std::io::Error| {
            Failure::new(format!("cannot read {}", path.display()), error.to_string(), "a file that exists")
        };
        if !Capture::is_one(path).map_err(unread)? {
            return Ok(None);
        }
        let capture = Capture::read(path, tell).map_err(|error| {
            Failure::new(
                format!("cannot read the capture {}", path.display()),
                error.to_string(),
                format!("capinfos {0}, or write it anew: tcpdump -r {0} -w NEW.pcap", path.display()),
            )
        })?;
        Ok(Some(capture))
    }

    /// The name of a running lastack, where one is meant.
    pub(crate) fn stack_name(&self) -> Option<&str> {
        self.source.as_deref().filter(|source| *source != "kernel")
    }

    /// A running lastack, looked up by name or process id.
    pub(crate) fn stack(&self, name: &str) -> Result<Stack, Failure> {
        stack(name)
    }

    /// The live source that is meant.
    pub(crate) fn open(&self) -> Result<Source, Failure> {
        self.check()?;
        match self.stack_name() {
            Some(name) => Ok(Source::Stack(Box::new(self.stack(name)?))),
            None => Ok(Source::Kernel(Box::new(self.kernel()?))),
        }
    }

    /// The kernel, opened in the namespaces meant.
    fn kernel(&self) -> Result<Kernel, Failure> {
        if self.from.is_some() {
            return Err(Failure::new(
                "this command needs live sockets",
                "--from names a file",
                "the same command without --from",
            ));
        }
        let mut kernel = Kernel::open(&self.scope()).map_err(|error| self.refused(&error))?;
        kernel.consult_recorder();
        Ok(kernel)
    }

    /// Everything `query` asks for, from the kernel or the file.
    pub(crate) fn snapshot(&self, query: &Query) -> Result<Snapshot, Failure> {
        let Some(path) = &self.from else {
            let mut source = self.open()?;
            return source.snapshot(query).map_err(|error| self.refused(&error));
        };
        if let Some(capture) = self.capture(|_| {})? {
            let (_, mut now) = capture.snapshots();
            retain(&mut now, query);
            return Ok(now);
        }
        let no_snapshot = |cause: String| {
            Failure::new(
                format!("{} is neither a snapshot nor a capture", path.display()),
                cause,
                "lastack ss -a --json > FILE, tcpdump -w FILE or lastack run --pcap FILE makes one",
            )
        };
        let unread = |error: std::io::Error| match error.kind() {
            std::io::ErrorKind::InvalidData => no_snapshot("it is no text".to_owned()),
            _ => Failure::new(
                format!("cannot read {}", path.display()),
                error.to_string(),
                "a file that exists",
            ),
        };
        let text = text_of(path).map_err(unread)?;
        let mut snapshot = json::read_snapshot(&text).map_err(|error| no_snapshot(error.to_string()))?;
        retain(&mut snapshot, query);
        Ok(snapshot)
    }

    /// The three lines for a source that could not be read.
    pub(crate) fn refused(&self, error: &std::io::Error) -> Failure {
        let what = match (self.stack_name(), &self.netns) {
            (Some(name), _) => format!("cannot read the lastack called `{name}`"),
            (None, Some(name)) => format!("cannot read the sockets of network namespace `{name}`"),
            (None, None) => "cannot read the kernel's sockets".to_owned(),
        };
        let next = match error.kind() {
            _ if self.stack_name().is_some() => "lastack run --name NAME -- CMD, and NAME while it runs",
            // What is named is no namespace.
            std::io::ErrorKind::NotFound | std::io::ErrorKind::InvalidInput if self.netns.is_some() => {
                "ls /run/netns; lsns -t net"
            }
            std::io::ErrorKind::PermissionDenied => "sudo lastack … (CAP_SYS_ADMIN enters another namespace)",
            _ => "modprobe tcp_diag inet_diag; in a container, allow AF_NETLINK sockets",
        };
        Failure::new(what, error.to_string(), next)
    }
}

/// All of a snapshot. One begins with `{`: what does not is not read to its end, which it may not have.
fn text_of(path: &std::path::Path) -> std::io::Result<String> {
    let mut file = BufReader::new(std::fs::File::open(path)?);
    let begin = file.fill_buf()?.trim_ascii_start().first().copied();
    let mut text = String::new();
    match begin {
        Some(b'{') => file.read_to_string(&mut text)?,
        // Enough for the reader of JSON to say where it is wrong.
        _ => file.take(64).read_to_string(&mut text)?,
    };
    Ok(text)
}

/// A running lastack, looked up by name or process id.
pub(crate) fn stack(name: &str) -> Result<Stack, Failure> {
    Stack::open(name).map_err(|error| not_open(name, &error))
}

fn not_open(name: &str, error: &std::io::Error) -> Failure {
    Failure::new(
        format!("no lastack called `{name}` can be looked into"),
        error.to_string(),
        "lastack publish lists those of yours; lastack run --name NAME -- CMD starts one",
    )
}

/// Leaves only what `query` asks for.
fn retain(snapshot: &mut Snapshot, query: &Query) {
    let wanted = |v6: bool| query.v6.is_none_or(|only| only == v6);
    snapshot.rows.retain(|row| query.filter.matches(row) && wanted(row.socket.local.is_ipv6()));
}

/// Parses the words of a filter.
pub(crate) fn filter(words: &[String]) -> Result<lastack_observe::filter::Filter, Failure> {
    lastack_observe::filter::Filter::parse(words).map_err(|error| {
        Failure::new(
            error.message,
            "the filter is iproute2's: conditions from left to right, parentheses to group",
            error.hint,
        )
    })
}
