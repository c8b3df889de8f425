//! The helper process: makes the namespaces and the link, hands the link over, starts the program and stays with it.
//!
//! Owns:    the steps from `unshare` to exec, and afterwards the program's tree of processes until none is left.
//! Rules:   one thread, no runtime; every step that fails is named to the parent. All signals are blocked and read
//!          from a descriptor, so that terminal signals reach the program alone; it is a child subreaper, so that
//!          nobody inside escapes. When its parent dies, by SIGKILL too, the socket ends: whatever step it is at, it
//!          comes to the socket, ends everything inside and itself. No parent-death signal: it would have to be cleared
//!          in the moment in which the program is forked, and whoever dies by it ends nobody else.
//! Not here: what the parent does with the device (`sandbox`); texts about failures (`failure`).

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::path::Path;
use std::process::{Command, ExitCode};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, WaitOptions};

use super::failure::Stage;
use super::link::{self, DeviceChoice, DeviceKind};
use super::message::{FromHelper, ToHelper};
use super::{files, processes};
use crate::netlink::{self, Netlink};
use crate::{addresses, confine, sys};

/// How long the program's leftover processes have between SIGTERM and SIGKILL.
const LEFTOVER_PATIENCE: Timespec = Timespec { tv_sec: 2, tv_nsec: 0 };
/// Packets the TUN device may queue: the kernel's 500 would drop under many flows.
const TUN_QUEUE: u32 = 5000;

/// What the parent tells on the command line.
struct Orders {
    socket: OwnedFd,
    mtu: u32,
    root_map: bool,
    /// The program inherits descriptors above 2 too.
    keeps_descriptors: bool,
    device: DeviceChoice,
    /// A default route for IPv4, for IPv6.
    routes: [bool; 2],
    hidden: OsString,
    program: OsString,
    arguments: Vec<OsString>,
}

/// Runs the helper to its end. `arguments` is what follows the helper's own name.
pub(super) fn main(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let Some(orders) = parse(arguments) else {
        eprintln!(
            "error: `lastack __sandbox` is lastack's own helper\ncause: it was started by hand\ntry:   lastack run -- CMD"
        );
        return ExitCode::from(125);
    };
    match prepare(&orders) {
        Ok(()) => supervise(&orders),
        Err((stage, error)) => {
            let failed = FromHelper::Failed(stage, error.raw_os_error().unwrap_or(0));
            let _ = failed.send(&orders.socket, &[]);
            ExitCode::from(125)
        }
    }
}

fn parse(mut arguments: impl Iterator<Item = OsString>) -> Option<Orders> {
    let mut number = || arguments.next()?.to_str()?.parse::<u32>().ok();
    let (socket, mtu, root_map, keeps_descriptors) = (number()?, number()?, number()? != 0, number()? != 0);
    let (device, routes) = (DeviceChoice::from_number(number()?)?, [number()? != 0, number()? != 0]);
    Some(Orders {
        socket: sys::inherited_fd(i32::try_from(socket).ok()?).ok()?,
        mtu,
        root_map,
        keeps_descriptors,
        device,
        routes,
        hidden: arguments.next()?,
        program: arguments.next()?,
        arguments: arguments.collect(),
    })
}

type Step<T> = Result<T, (Stage, io::Error)>;

fn at<T>(stage: Stage, result: io::Result<T>) -> Step<T> {
    result.map_err(|error| (stage, error))
}

fn prepare(orders: &Orders) -> Step<()> {
    let socket = &orders.socket;
    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
    let user = enter_namespaces(uid.is_root())?;
    at(Stage::Talk, FromHelper::Unshared { user }.send(socket, &[]))?;
    match at(Stage::Talk, ToHelper::receive(socket))? {
        Some(ToHelper::Maps { written: false }) if user => {
            let (inner_uid, inner_gid) = if orders.root_map { (0, 0) } else { (uid.as_raw(), gid.as_raw()) };
            // user_namespaces(7): an unprivileged process must give up setgroups before it may write its gid map.
            at(Stage::Maps, fs::write("/proc/self/setgroups", "deny"))?;
            at(Stage::Maps, fs::write("/proc/self/uid_map", format!("{inner_uid} {} 1", uid.as_raw())))?;
            at(Stage::Maps, fs::write("/proc/self/gid_map", format!("{inner_gid} {} 1", gid.as_raw())))?;
        }
        Some(ToHelper::Maps { .. }) => {}
        _ => return Err((Stage::Talk, io::Error::from(io::ErrorKind::UnexpectedEof))),
    }
    let link = link::make(orders.device, orders.mtu, |error| {
        let refused = FromHelper::TunRefused(error.raw_os_error().unwrap_or(0));
        at(Stage::Talk, refused.send(socket, &[]))
    })?;
    let ipv6 = at(Stage::Interface, configure_interface(link.kind, orders.mtu, orders.routes))?;
    let sysctls = set_sysctls();
    allow_ping();
    let diag = OwnedFd::from(at(Stage::SockDiag, Netlink::sock_diag())?);
    at(Stage::Mounts, files::make_private())?;
    if !orders.hidden.is_empty() {
        at(Stage::Mounts, files::hide(Path::new(&orders.hidden)))?;
    }
    // Without these bindings names are looked up elsewhere or not at all; connections work all the same.
    let names = if ipv6 { &addresses::DNS[..] } else { &addresses::DNS[..1] };
    let resolver = files::point_names_to(names).unwrap_or(false);
    let ready = FromHelper::Ready { veth: link.kind == DeviceKind::Veth, ipv6, resolver, sysctls };
    at(Stage::Talk, ready.send(socket, &[link.fd.as_fd(), diag.as_fd()]))?;
    drop((link, diag));
    match at(Stage::Talk, ToHelper::receive(socket))? {
        Some(ToHelper::Go) => Ok(()),
        _ => Err((Stage::Talk, io::Error::from(io::ErrorKind::UnexpectedEof))),
    }
}

/// True: in a user namespace too. Root does without one where they are refused.
fn enter_namespaces(root: bool) -> Step<bool> {
    match sys::unshare(sys::Namespaces::UserNetMount) {
        Ok(()) => Ok(true),
        Err(error) if root => match sys::unshare(sys::Namespaces::NetMount) {
            Ok(()) => Ok(false),
            Err(_) => Err((Stage::Namespaces, error)),
        },
        Err(error) => Err((Stage::Namespaces, error)),
    }
}

/// True: IPv6 is there too.
fn configure_interface(kind: DeviceKind, mtu: u32, routes: [bool; 2]) -> io::Result<bool> {
    let name = kind.interface();
    // No router is asked for, no address is made up, none is probed for: the link has two ends and both are ours.
    for (setting, value) in
        [("accept_ra", "0"), ("router_solicitations", "0"), ("dad_transmits", "0"), ("addr_gen_mode", "1")]
    {
        let _ = fs::write(format!("/proc/sys/net/ipv6/conf/{name}/{setting}"), value);
    }
    let netlink = Netlink::route()?;
    let index = rustix::net::netdevice::name_to_index(&netlink, name)?;
    netlink::link_up(&netlink, 1, None, None)?;
    // A veth has no queue.
    netlink::link_up(&netlink, index, Some(mtu), (kind == DeviceKind::Tun).then_some(TUN_QUEUE))?;
    let mut ipv6 = false;
    for ((address, prefix), has_route) in addresses::GUEST.into_iter().zip(routes) {
        let done = netlink::add_address(&netlink, index, address, prefix).and_then(|()| {
            if has_route { netlink::add_default_route(&netlink, index, address) } else { Ok(()) }
        });
        match done {
            Ok(()) => ipv6 |= address.is_ipv6(),
            // A kernel without IPv6, or with it switched off: IPv4 is enough.
            Err(_) if address.is_ipv6() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(ipv6)
}

/// True: all were accepted. `/proc/sys` may be read-only in a container: said in the report, not fatal.
fn set_sysctls() -> bool {
    [
        // 28,232 ports and 60 s of TIME-WAIT are 470 connections a second to one server; this is for CMD's kernel.
        ("/proc/sys/net/ipv4/ip_local_port_range", "1024 65535"),
        ("/proc/sys/net/ipv4/tcp_tw_reuse", "1"),
        ("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0"),
    ]
    .into_iter()
    .fold(true, |all, (path, value)| fs::write(path, value).is_ok() && all)
}

/// ping(8) works without capabilities where its group may open ICMP sockets. Those of ping's file are of no use to a program
/// that may gain none.
fn allow_ping() {
    let gid = rustix::process::getegid().as_raw();
    // Ids that are not mapped cannot be named; root's map has all of them.
    let range = if gid == 0 { "0 2147483647".to_owned() } else { format!("{gid} {gid}") };
    let _ = fs::write("/proc/sys/net/ipv4/ping_group_range", range)
        .or_else(|_| fs::write("/proc/sys/net/ipv4/ping_group_range", format!("{gid} {gid}")));
}

/// Signals that are read instead of obeyed: those of the terminal are the program's, the rest come by the parent.
const READ_SIGNALS: [i32; 10] = [
    libc::SIGCHLD,
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGTERM,
    libc::SIGHUP,
    libc::SIGTSTP,
    libc::SIGTTIN,
    libc::SIGTTOU,
    libc::SIGUSR1,
    libc::SIGUSR2,
];

fn supervise(orders: &Orders) -> ExitCode {
    let socket = &orders.socket;
    let signals = match sys::signal_fd(&READ_SIGNALS) {
        Ok(signals) => signals,
        Err(error) => return not_started(socket, &error),
    };
    let _ = rustix::process::set_child_subreaper(Pid::from_raw(1));
    let mut command = Command::new(&orders.program);
    let limits = confine::Program::new(rustix::process::geteuid().is_root(), orders.keeps_descriptors);
    let program = match sys::spawn_confined(command.args(&orders.arguments), &READ_SIGNALS, limits) {
        Ok(child) => child.id(),
        Err(error) => return not_started(socket, &told(error, &orders.program)),
    };
    let _ = FromHelper::Started { pid: program }.send(socket, &[]);
    let mut tree = Tree { program, ended: false };
    loop {
        if wait(&[socket.as_fd(), signals.as_fd()], None)[0] && !tree.obey(socket) {
            end_all();
            return ExitCode::from(125);
        }
        while let Ok(Some(_)) = sys::read_signal(&signals) {}
        tree.reap(socket);
        if tree.ended {
            end_leftovers(socket, &signals);
            let _ = FromHelper::AllGone.send(socket, &[]);
            // The namespace lives as long as somebody is in it: the parent still reads its counters.
            while let Ok(Some(_)) = ToHelper::receive(socket) {}
            return ExitCode::SUCCESS;
        }
    }
}

/// execvp(3) answers EACCES when any directory of `PATH` may not be searched, though the program is in none of them.
fn told(error: io::Error, program: &OsStr) -> io::Error {
    let by_path = !program.as_encoded_bytes().contains(&b'/');
    let path = std::env::var_os("PATH").unwrap_or_default();
    let exists = || std::env::split_paths(&path).any(|directory| directory.join(program).is_file());
    if by_path && error.kind() == io::ErrorKind::PermissionDenied && !exists() {
        return io::Error::from_raw_os_error(libc::ENOENT);
    }
    error
}

fn not_started(socket: &OwnedFd, error: &io::Error) -> ExitCode {
    let _ = FromHelper::NotStarted(error.raw_os_error().unwrap_or(0)).send(socket, &[]);
    ExitCode::from(125)
}

struct Tree {
    program: u32,
    ended: bool,
}

impl Tree {
    /// False: the parent is gone.
    fn obey(&self, socket: &OwnedFd) -> bool {
        match ToHelper::receive(socket) {
            Ok(Some(ToHelper::Signal(number))) => {
                // The program is not reaped yet, so its number is still its own.
                if let (Some(pid), Some(signal)) =
                    (Pid::from_raw(self.program.cast_signed()), Signal::from_named_raw(number))
                {
                    let _ = rustix::process::kill_process(pid, signal);
                }
                true
            }
            Ok(Some(ToHelper::KillLeftovers)) => {
                processes::signal_all(&processes::descendants(std::process::id()), Signal::KILL);
                true
            }
            Ok(Some(ToHelper::Maps { .. } | ToHelper::Go)) => true,
            Ok(None) | Err(_) => false,
        }
    }

    /// Collects whoever changed state, and tells the parent about the program.
    fn reap(&mut self, socket: &OwnedFd) {
        let options = WaitOptions::NOHANG | WaitOptions::UNTRACED;
        while let Ok(Some((pid, status))) = rustix::process::wait(options) {
            if pid.as_raw_nonzero().get().cast_unsigned() != self.program {
                continue;
            }
            if let Some(signal) = status.stopping_signal() {
                let _ = FromHelper::Stopped(signal).send(socket, &[]);
            } else if !self.ended {
                self.ended = true;
                let _ = FromHelper::Exited(status.as_raw()).send(socket, &[]);
            }
        }
    }
}

/// The program has exited: asks what it left to go, then makes it go.
fn end_leftovers(socket: &OwnedFd, signals: &OwnedFd) {
    let me = std::process::id();
    let left = processes::descendants(me);
    processes::signal_all(&left, Signal::TERM);
    // A stopped process takes SIGTERM only when it runs again.
    processes::signal_all(&left, Signal::CONT);
    while !processes::descendants(me).is_empty() {
        let woken = wait(&[socket.as_fd(), signals.as_fd()], Some(&LEFTOVER_PATIENCE));
        let parent_spoke = woken[0];
        while let Ok(Some(_)) = sys::read_signal(signals) {}
        while let Ok(Some(_)) = rustix::process::wait(WaitOptions::NOHANG) {}
        if parent_spoke || !woken[1] {
            return end_all();
        }
    }
}

/// SIGKILL to everybody inside, again until nobody is left: a process may fork while it is being looked for.
fn end_all() {
    loop {
        let left = processes::descendants(std::process::id());
        processes::signal_all(&left, Signal::KILL);
        match rustix::process::wait(WaitOptions::empty()) {
            Ok(_) => {}
            Err(_) => return, // ECHILD: no child is left, and whoever lost its parent is a child
        }
    }
}

/// Which of `fds` are readable; none of them when the time ran out.
fn wait<const N: usize>(fds: &[std::os::fd::BorrowedFd<'_>; N], timeout: Option<&Timespec>) -> [bool; N] {
    let mut polled = fds.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
    let _ = rustix::io::retry_on_intr(|| poll(&mut polled, timeout));
    polled.map(|fd| !fd.revents().is_empty())
}

/// The argument that carries the socket's descriptor number.
pub(super) fn socket_argument(socket: &OwnedFd) -> String {
    socket.as_raw_fd().to_string()
}
