//! What each request is answered with.

use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use lastack_core::id::FourTuple;
use lastack_core::observe::control::{Reply, Request};
use lastack_core::observe::{EventMask, SocketRow};
use lastack_core::stack::{KillTarget, SysctlError};

use super::write_line;
use crate::events::{Events, Observed};
use crate::shard::Shard;

/// How often a silent event stream looks whether its client is still there.
const LOOK_AFTER_CLIENT: Duration = Duration::from_millis(500);

/// Answers one request that has an end.
pub(super) fn answer(shard: &Shard, request: Request, output: &mut impl Write) -> io::Result<()> {
    match request {
        Request::Sockets => {
            // Collected under the lock, written after it.
            let rows: Vec<SocketRow> = shard.look(|state, now| state.stack.sockets(now).collect());
            for row in rows {
                write_line(output, &Reply::Socket(Box::new(row)))?;
            }
            write_line(output, &Reply::End)
        }
        Request::Counters => {
            let (counters, gauges) =
                shard.look(|state, _| (state.stack.counters().clone(), state.stack.gauges()));
            for (info, value) in counters.iter() {
                let (group, name) = (info.group.into(), info.name.into());
                write_line(output, &Reply::Counter { group, name, value })?;
            }
            write_line(output, &Reply::Gauges(gauges))?;
            write_line(output, &Reply::End)
        }
        Request::Kill { cookie } => write_line(output, &kill(shard, KillTarget::Cookie(cookie))),
        Request::KillTuple { local, remote } => {
            write_line(output, &kill(shard, KillTarget::Tuple(FourTuple { local, remote })))
        }
        Request::Sysctl { name, value } => write_line(output, &sysctl(shard, name, value.as_deref())),
        // Answered by `stream_events`; what is unknown was refused when it was read.
        _ => write_line(output, &Reply::Error { message: "not served".into(), errno: libc::EOPNOTSUPP }),
    }
}

fn kill(shard: &Shard, target: KillTarget) -> Reply {
    match shard.with(|state, now| state.stack.kill(now, target)) {
        Ok(state) => Reply::Killed { state },
        // As Linux answers SOCK_DESTROY.
        Err(_) => Reply::Error { message: "no such socket".into(), errno: libc::ENOENT },
    }
}

fn sysctl(shard: &Shard, name: String, value: Option<&str>) -> Reply {
    let result = shard.with(|state, _| {
        if let Some(value) = value {
            state.stack.sysctl_set(&name, value)?;
        }
        state.stack.sysctl_get(&name)
    });
    let (message, errno) = match result {
        Ok(value) => return Reply::Sysctl { name, value },
        Err(SysctlError::Unknown) => (format!("no setting is called {name}"), libc::ENOENT),
        Err(SysctlError::NotApplicable(why)) => (why.into(), libc::EOPNOTSUPP),
        Err(SysctlError::Invalid(range)) => (range, libc::EINVAL),
        Err(SysctlError::ReadOnly) => (format!("{name} is read-only"), libc::EACCES),
        Err(_) => (format!("{name} is refused"), libc::EINVAL),
    };
    Reply::Error { message, errno }
}

/// Writes events until the client or the stack is gone.
pub(super) fn stream_events(
    shard: &Arc<Shard>,
    mask: EventMask,
    client: &UnixStream,
    output: &mut impl Write,
) -> io::Result<()> {
    let mut events = Events::new(shard.clone(), mask);
    // Tells the client that from here on nothing is missed.
    write_line(output, &Reply::End)?;
    output.flush()?;
    loop {
        let reply = match events.next_timeout(LOOK_AFTER_CLIENT) {
            Ok(Some(Observed::Event(event))) => Reply::Event(Box::new(event)),
            Ok(Some(Observed::Lost(count))) => Reply::Lost { count },
            Ok(None) => return Ok(()),
            Err(_) if is_gone(client)? => return Ok(()),
            Err(_) => continue,
        };
        write_line(output, &reply)?;
        if !events.has_more() {
            output.flush()?;
        }
    }
}

fn is_gone(client: &UnixStream) -> io::Result<bool> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut fds = [PollFd::new(client, PollFlags::RDHUP)];
    Ok(poll(&mut fds, Some(&Timespec::default()))? > 0)
}
