//! `lastack run --observe`: a program as it is, and its connections as the kernel tells of them.
//!
//! Owns:    the order of things: watch, program, looks while it runs, what ends after it.
//! Rules:   nothing is put between the program and its network, so nothing is known but what the kernel says; what
//!          that is and how sure it is says the verdict. Fields that only a stack in between can fill are absent.

mod judge;
mod watch;

use std::ffi::OsString;
use std::time::Duration;

use lastack_gateway::program::Program;
use lastack_gateway::sandbox::ProgramEvent;
use lastack_gateway::signals::{self, Signals};
use lastack_observe::clock;

use super::journal::Journal;
use super::session::{self, SIGCONT, SIGTSTP};
use crate::failure::{EXIT_OURS, Failure};
use watch::Watch;
pub(crate) use watch::{MOST_ROOMS, Untold};

/// Between two looks at the sockets; a look that costs much is followed by a longer pause, so that at most a quarter of
/// a processor is spent.
const PAUSE: Duration = Duration::from_millis(2);
/// After the program has exited its connections end by and by, some of them on their own: nothing is waited for when
/// nothing has ended for so long.
const PATIENCE: Duration = Duration::from_secs(1);

/// How it ended.
#[derive(Debug)]
pub(crate) struct Observed {
    /// The program's exit status.
    pub(crate) status: u8,
    /// What the journal lacks.
    pub(crate) untold: Untold,
}

/// Runs the program to its end.
pub(crate) fn run(
    program: &OsString,
    arguments: &[OsString],
    signals: Signals,
    journal: &Journal,
) -> Result<Observed, Failure> {
    session::runtime()?.block_on(watch(program, arguments, signals, journal))
}

async fn watch(
    program: &OsString,
    arguments: &[OsString],
    signals: Signals,
    journal: &Journal,
) -> Result<Observed, Failure> {
    let unreadable = |error: std::io::Error| {
        Failure::new(
            "cannot read the kernel's sockets",
            error.to_string(),
            "sudo modprobe tcp_diag; or lastack run -- CMD, where namespaces are allowed",
        )
        .code(EXIT_OURS)
    };
    let mut watch = Watch::open(Box::new(journal.listener())).map_err(unreadable)?;
    let signals = signals.stream().map_err(unreadable)?;
    let program = Program::start(program, arguments)
        .map_err(|error| session::not_started(program, error.raw_os_error().unwrap_or(0)))?;
    watch.follow(program.pid());
    let mut pause = PAUSE;
    let status = loop {
        tokio::select! {
            signal = signals.next() => match signal.number {
                SIGTSTP => {}
                // The program got it from the terminal itself.
                _ if signal.from_terminal => {}
                number => program.signal(number),
            },
            () = tokio::time::sleep(pause) => {
                // A program that has ended has its name until it is reaped: first a look, then the question.
                pause = look(&mut watch, &program, journal).map_err(unreadable)?;
                match program.event() {
                    Some(ProgramEvent::Stopped(_)) => {
                        signals::stop_self();
                        program.signal(SIGCONT);
                    }
                    Some(ProgramEvent::Exited(status)) => break status,
                    _ => {}
                }
            }
        }
    };
    // What it did just before its end.
    pause = look(&mut watch, &program, journal).map_err(unreadable)?.min(pause);
    let mut open = usize::MAX;
    let mut since = clock::monotonic();
    while watch.open_count() > 0 {
        if std::mem::replace(&mut open, watch.open_count()) != watch.open_count() {
            since = clock::monotonic();
        }
        if since.elapsed() > PATIENCE {
            break;
        }
        tokio::select! {
            signal = signals.next() => if signal.number != SIGTSTP { break },
            () = tokio::time::sleep(pause) => pause = look(&mut watch, &program, journal).map_err(unreadable)?,
        }
    }
    Ok(Observed { status, untold: watch.finish() })
}

/// One look; gives the pause that should follow.
fn look(watch: &mut Watch, program: &Program, journal: &Journal) -> std::io::Result<Duration> {
    let begun = processor_time();
    watch.turn(&program.processes())?;
    journal.hand_over();
    Ok(PAUSE.max((processor_time() - begun) * 3))
}

/// What this thread has used of a processor: on a busy machine more time passes than is spent.
fn processor_time() -> Duration {
    let used = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(used.tv_sec.unsigned_abs(), used.tv_nsec.unsigned_abs() as u32)
}
