//! What the program and the process that carries its bytes give up for good before the first byte is carried.
//!
//! Owns:    [`give_up_capabilities`] and [`filter_calls`] for this process; `Program`, the program's steps between fork and exec.
//! Rules:   capabilities(7), seccomp(2), landlock(7). What a kernel lacks is left out and told, never a reason not to run.
//! Differs: no Landlock domain for this process. A process in one may not look at `/proc/PID/fd` of processes outside of it
//!          (ptrace's rules, `landlock/task.c`), and that is where the owner of a connection is found. The filter's "open for
//!          reading only" stands in its place.
//! Not here: namespaces (`sandbox`); what all this is good for and what not (SECURITY.md).

mod calls;
mod capabilities;
mod program;

use std::io;

use seccompiler::BpfProgram;

pub use capabilities::give_up_capabilities;
pub(crate) use program::Program;

/// Leaves this process, all its threads and those to come, the system calls that carrying takes. Files can be opened for
/// reading only, new sockets are of the internet or netlink, no program can be executed, nobody else be signalled or traced.
///
/// # Errors
/// The kernel has no seccomp filters, or refuses this one; nothing has changed then.
pub fn filter_calls() -> io::Result<()> {
    let filter: BpfProgram = calls::filter()?;
    seccompiler::apply_filter_all_threads(&filter).map_err(io::Error::other)
}
