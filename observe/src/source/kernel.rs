//! The Linux kernel as a source: sock_diag for sockets, `/proc` for counters, knobs and owners.
//!
//! Owns:    which namespaces are looked at, and one netlink socket in each.
//! Output:  [`Snapshot`]s; single sockets ended by [`Kernel::destroy`].
//! Rules:   `linux-tcp` 10.2. Reading needs no privilege; other people's processes, other namespaces and
//!          ending sockets do, and what is missing is said ([`Snapshot::missing`]).

use std::collections::HashSet;
use std::io;
use std::ops::ControlFlow;
use std::path::PathBuf;

use lastack_core::tcp::state::TcpState;

use crate::clock;
use crate::filter::Filter;
use crate::record::Recorded;
use crate::row::Row;
use crate::snapshot::{Missing, Namespace, Snapshot};

mod bytecode;
mod cgroup;
mod commands;
mod cookies;
mod descriptors;
mod destroyed;
mod diag;
mod mib;
mod netlink;
mod netns;
mod owner;
mod tcp_info;
mod tracefs;
mod tracepoints;

pub use destroyed::Endings;
pub use diag::Detail;
pub use owner::sockets_of;
pub use tracepoints::{Counting, TraceOptions, Tracer};

use bytecode::Compiled;
use cookies::Cookies;
use netlink::Netlink;

const EINVAL: i32 = 22;

/// Which namespaces to look at.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Scope {
    /// The one we are in.
    #[default]
    Own,
    /// A path, a process id, or a name under `/run/netns`.
    Named(String),
    /// Every one that can be found.
    All,
}

/// What to read.
#[derive(Clone, Debug)]
pub struct Query {
    /// Which sockets.
    pub filter: Filter,
    /// How much of each.
    pub detail: Detail,
    /// Whether to name owners: a walk through `/proc`.
    pub owners: bool,
    /// Only IPv4 (`Some(false)`) or only IPv6 (`Some(true)`).
    pub v6: Option<bool>,
}

impl Query {
    /// Everything about every socket.
    pub fn everything() -> Self {
        Self { filter: Filter::everything(), detail: Detail::Full, owners: true, v6: None }
    }
}

/// The kernel's sockets.
///
/// # Example
/// ```no_run
/// use lastack_observe::source::kernel::{Kernel, Query, Scope};
/// let mut kernel = Kernel::open(&Scope::Own)?;
/// let snapshot = kernel.snapshot(&Query::everything())?;
/// println!("{} sockets", snapshot.rows.len());
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct Kernel {
    rooms: Vec<Room>,
    missing: Vec<Missing>,
    cgroups: cgroup::Cgroups,
    recorded: Option<Recorded>,
}

/// One namespace.
#[derive(Debug)]
struct Room {
    inode: u64,
    name: String,
    /// `None` is our own.
    path: Option<PathBuf>,
    netlink: Netlink,
}

impl Kernel {
    /// Opens a netlink socket in every namespace of `scope`.
    ///
    /// # Errors
    /// When the named namespace cannot be entered. With [`Scope::All`] those that cannot be are left out
    /// and listed in [`Snapshot::missing`].
    pub fn open(scope: &Scope) -> io::Result<Self> {
        let mut this = Self {
            rooms: Vec::new(),
            missing: Vec::new(),
            cgroups: cgroup::Cgroups::default(),
            recorded: None,
        };
        let own = netns::own();
        match scope {
            Scope::Own => {
                this.rooms.push(Room {
                    inode: own,
                    name: "self".to_owned(),
                    path: None,
                    netlink: Netlink::open()?,
                });
            }
            Scope::Named(text) => {
                let path = netns::path_of(text);
                let (inode, netlink) = netns::inside(&path, || Ok((netns::own(), Netlink::open()?)))?;
                this.rooms.push(Room { inode, name: text.clone(), path: Some(path), netlink });
            }
            Scope::All => {
                for (inode, path) in netns::all() {
                    let name = path.display().to_string();
                    if inode == own {
                        this.rooms.push(Room {
                            inode,
                            name: "self".to_owned(),
                            path: None,
                            netlink: Netlink::open()?,
                        });
                        continue;
                    }
                    match netns::inside(&path, Netlink::open) {
                        Ok(netlink) => this.rooms.push(Room { inode, name, path: Some(path), netlink }),
                        Err(error) => this.missing.push(Missing {
                            what: format!("network namespace {inode} ({name}): {error}"),
                            grant: "run as root (CAP_SYS_ADMIN enters other namespaces)".to_owned(),
                        }),
                    }
                }
            }
        }
        Ok(this)
    }

    /// Takes over what a recorder remembers, where one runs: exact ages and former owners.
    pub fn consult_recorder(&mut self) {
        self.recorded = Recorded::load();
    }

    /// Reads everything `query` asks for.
    ///
    /// # Errors
    /// When the kernel refuses the dump.
    pub fn snapshot(&mut self, query: &Query) -> io::Result<Snapshot> {
        // A dump takes its time: no row is older than this.
        let taken_ns = clock::unix_ns();
        let rows = self.rows(query)?;
        let mut snapshot = Snapshot { taken_ns, rows, ..self.frame() };
        if query.owners {
            let Snapshot { rows, missing, .. } = &mut snapshot;
            missing.extend(self.name_owners(rows.iter_mut().collect()));
        }
        Ok(snapshot)
    }

    /// A snapshot without its sockets: the moment, counters, gauges and knobs.
    pub fn frame(&self) -> Snapshot {
        Snapshot {
            source: "kernel".to_owned(),
            taken_ns: clock::unix_ns(),
            rows: Vec::new(),
            namespaces: self.figures(),
            host: mib::host(),
            missing: self.missing.clone(),
        }
    }

    /// Only the sockets; owners are named when the filter wants them.
    ///
    /// # Errors
    /// When the kernel refuses the dump.
    pub fn rows(&mut self, query: &Query) -> io::Result<Vec<Row>> {
        let mut rows = Vec::new();
        let compiled = bytecode::compile(&query.filter.expr);
        if !query.filter.needs_owner() {
            self.walk(query, &compiled, true, &mut |row| {
                rows.push(row);
                ControlFlow::Continue(())
            })?;
            return Ok(rows);
        }
        self.walk(query, &compiled, false, &mut |row| {
            rows.push(row);
            ControlFlow::Continue(())
        })?;
        self.name_owners(rows.iter_mut().collect());
        rows.retain(|row| compiled.here.matches(row));
        Ok(rows)
    }

    /// Hands the sockets over one by one as the kernel tells them, keeping none, until `each` breaks off. Owners are
    /// named only when the filter wants them; then all are read first.
    ///
    /// # Errors
    /// When the kernel refuses the dump.
    pub fn each(&mut self, query: &Query, each: &mut dyn FnMut(&Row) -> ControlFlow<()>) -> io::Result<()> {
        if query.filter.needs_owner() {
            let _ = self.rows(query)?.iter().try_for_each(each);
            return Ok(());
        }
        let compiled = bytecode::compile(&query.filter.expr);
        self.walk(query, &compiled, true, &mut |row| each(&row))
    }

    /// Dumps what `query` wants, every socket once; `judge` tells whether to apply what the kernel cannot judge.
    fn walk(
        &mut self,
        query: &Query,
        compiled: &Compiled,
        judge: bool,
        each: &mut dyn FnMut(Row) -> ControlFlow<()>,
    ) -> io::Result<()> {
        let mut seen = Cookies::default();
        let Self { rooms, recorded, .. } = self;
        let now_ns = clock::unix_ns();
        for room in rooms {
            for v6 in [false, true] {
                if query.v6.is_some_and(|wanted| wanted != v6) {
                    continue;
                }
                seen.clear();
                let mut chosen = |mut row: Row| {
                    if let Some(recorded) = recorded {
                        recorded.apply(std::slice::from_mut(&mut row), now_ns);
                    }
                    // A dump is not atomic: a socket that moved between hash chains comes twice.
                    if (!judge || compiled.here.matches(&row))
                        && seen.insert((row.socket.cookie, row.socket.state))
                    {
                        return each(row);
                    }
                    ControlFlow::Continue(())
                };
                if room.dump(v6, query, compiled, &mut chosen)?.is_break() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Counters, gauges and knobs of every namespace, without the sockets.
    pub fn figures(&self) -> Vec<Namespace> {
        self.rooms.iter().map(Room::figures).collect()
    }

    /// Sets a knob (`tcp_…`, `core.…`) in the first namespace of the scope.
    ///
    /// # Errors
    /// What the kernel says: `PermissionDenied` without privilege, `InvalidInput` for a value out of range,
    /// `NotFound` for a knob this kernel or namespace does not have.
    pub fn set_sysctl(&self, name: &str, value: &str) -> io::Result<()> {
        let file = match name.strip_prefix("core.") {
            Some(tail) => format!("/proc/sys/net/core/{tail}"),
            None => format!("/proc/sys/net/ipv4/{name}"),
        };
        let write = || {
            std::fs::OpenOptions::new()
                .write(true)
                .open(&file)
                .and_then(|mut f| std::io::Write::write_all(&mut f, value.as_bytes()))
        };
        match self.rooms.first().and_then(|room| room.path.as_ref()) {
            Some(path) => netns::inside(path, write),
            None => write(),
        }
    }

    /// Ends one socket, in whatever state it is.
    ///
    /// # Errors
    /// `PermissionDenied` without `CAP_NET_ADMIN` in the socket's namespace; `NotFound` when it has gone
    /// already; `Unsupported` when the kernel was built without `CONFIG_INET_DIAG_DESTROY`.
    pub fn destroy(&mut self, row: &Row) -> io::Result<()> {
        let room =
            self.rooms.iter_mut().find(|room| room.inode == row.netns).ok_or_else(|| {
                io::Error::new(io::ErrorKind::NotFound, "the socket's namespace is not open")
            })?;
        diag::destroy(&mut room.netlink, row)
    }

    /// Reads the rows at the places `chosen` again, one by one: what a few of them cost where a dump of all is dear.
    /// Gives those places with the socket as it is now, or `None` where it has gone; who has it is as at the last look,
    /// but for who has closed it since. A listener is left out:
    /// where several share a port, its address does not name it.
    ///
    /// # Errors
    /// When the kernel refuses, for another reason than that the socket has gone.
    pub fn reread(&mut self, rows: &[Row], chosen: &[usize]) -> io::Result<Vec<(usize, Option<Row>)>> {
        let mut fresh = Vec::with_capacity(chosen.len());
        let now_ns = clock::unix_ns();
        for room in &mut self.rooms {
            let places: Vec<usize> = chosen
                .iter()
                .copied()
                .filter(|place| {
                    rows.get(*place).is_some_and(|row| {
                        row.netns == room.inode
                            && !matches!(row.socket.state, TcpState::Listen | TcpState::Close)
                    })
                })
                .collect();
            let before: Vec<&Row> = places.iter().map(|place| &rows[*place]).collect();
            let after = diag::reread(&mut room.netlink, &before, room.inode)?;
            fresh.extend(places.into_iter().zip(after));
        }
        for (place, row) in &mut fresh {
            let Some(row) = row else { continue };
            row.owner = rows[*place].owner.clone().map(|owner| owner.remembered(row));
            if let Some(recorded) = &mut self.recorded {
                recorded.apply(std::slice::from_mut(row), now_ns);
            }
        }
        Ok(fresh)
    }

    /// Namespaces of the scope that could not be entered.
    pub fn missing(&self) -> &[Missing] {
        &self.missing
    }

    /// Names the owners of the rows at the places `chosen`, and of no others. Looks through `/proc` only until all of
    /// them are found.
    pub fn name_owners_of(&mut self, snapshot: &mut Snapshot, chosen: &[usize]) {
        let chosen: HashSet<usize> = chosen.iter().copied().collect();
        let rows = snapshot.rows.iter_mut().enumerate();
        let rows = rows.filter_map(|(place, row)| chosen.contains(&place).then_some(row)).collect();
        snapshot.missing.extend(self.name_owners(rows));
    }

    /// Names owners; tells what could not be looked into, where that mattered.
    fn name_owners(&mut self, rows: Vec<&mut Row>) -> Option<Missing> {
        // Inferring a former owner from its port needs the listeners, which the filter may have left out.
        let served: HashSet<(u64, u16)> = rows
            .iter()
            .filter(|row| row.inode == 0)
            .map(|row| (row.netns, row.socket.local.port()))
            .collect();
        let mut listeners = Vec::new();
        if !served.is_empty() {
            let listening = Filter::parse(&["state listening"]).expect("a filter of our own");
            let query = Query { filter: listening, detail: Detail::Brief, owners: false, v6: None };
            listeners = self.rows(&query).unwrap_or_default();
            listeners.retain(|row| served.contains(&(row.netns, row.socket.local.port())));
        }
        let held = rows.iter().map(|row| row.inode).chain(listeners.iter().map(|row| row.inode));
        let owners = owner::Owners::scan(held.filter(|inode| *inode != 0).collect());
        owners.name(rows, &listeners, &mut self.cgroups);
        (owners.refused() > 0).then(|| Missing {
            what: format!("owners: {} processes of other users cannot be looked into", owners.refused()),
            grant: "sudo lastack …, or setcap cap_sys_ptrace,cap_dac_read_search+ep on the binary".to_owned(),
        })
    }
}

impl Room {
    fn dump(
        &mut self,
        v6: bool,
        query: &Query,
        compiled: &Compiled,
        each: &mut dyn FnMut(Row) -> ControlFlow<()>,
    ) -> io::Result<ControlFlow<()>> {
        let (states, detail, netns) = (query.filter.states, query.detail, self.inode);
        let mut none_yet = true;
        let mut counted = |row| {
            none_yet = false;
            each(row)
        };
        match diag::dump(&mut self.netlink, v6, states, &compiled.program, detail, netns, &mut counted) {
            // A kernel that does not know one of our operations says EINVAL before the first row: ask for
            // everything and do its part here.
            Err(error)
                if error.raw_os_error() == Some(EINVAL) && none_yet && !compiled.program.is_empty() =>
            {
                let mut chosen = |row: Row| {
                    if compiled.there.matches(&row) { each(row) } else { ControlFlow::Continue(()) }
                };
                diag::dump(&mut self.netlink, v6, states, &[], detail, netns, &mut chosen)
            }
            result => result,
        }
    }

    fn figures(&self) -> Namespace {
        let read = || Ok(mib::namespace(self.inode, &self.name));
        match &self.path {
            None => mib::namespace(self.inode, &self.name),
            Some(path) => netns::inside(path, read).unwrap_or_else(|_| Namespace {
                inode: self.inode,
                name: self.name.clone(),
                ..Namespace::default()
            }),
        }
    }
}
