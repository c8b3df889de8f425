//! A running lastack, watched: its own record of each connection, told at its end.

use std::io;
use std::time::Duration;

use lastack_core::observe::{EventKind, EventMask};

use super::News;
use crate::closed::Closed;
use crate::filter::Filter;
use crate::snapshot::Snapshot;
use crate::source::stack::{Stack, StackEvents, event_of};

/// Reads of what waits a turn, at most: half a megabyte of lines.
const READS: usize = 64;

#[derive(Debug)]
pub(super) struct OfStack {
    /// Asked, while events come in over a connection of their own.
    stack: Stack,
    events: StackEvents,
    ended: bool,
}

impl OfStack {
    pub(super) fn open(name: &str) -> io::Result<Self> {
        // What else happens on a bad link would push them out of the queue.
        let events = Stack::open(name)?.into_events(EventMask::LIFE.with(EventMask::RESET))?;
        Ok(Self { stack: Stack::open(name)?, events, ended: false })
    }

    /// What there is now; `None` when the stack does not answer any more. What it told before is read to its end all the same.
    pub(super) fn snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
        match self.stack.snapshot(&Filter::everything()) {
            Ok(now) => Ok(Some(now)),
            Err(error) if matches!(error.kind(), UnexpectedEof | BrokenPipe | ConnectionReset) => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) fn wait(&mut self, timeout: Duration, each: &mut dyn FnMut(News)) -> io::Result<()> {
        let name = self.stack.name();
        let mut timeout = timeout;
        for _ in 0..READS {
            let mut has_come = false;
            let goes_on = self.events.wait_raw(timeout, &mut |event| {
                has_come = true;
                if let EventKind::Destroyed(life) = &event.kind {
                    each(News::Closed(Box::new(Closed::of_stack(name, &event, life))));
                    return;
                }
                let event = event_of(&event);
                if event.is_reset() {
                    each(News::Reset(Box::new(event)));
                }
            })?;
            self.ended |= !goes_on;
            if self.ended || !has_come {
                break;
            }
            timeout = Duration::ZERO;
        }
        Ok(())
    }

    pub(super) fn ended(&self) -> bool {
        self.ended
    }

    pub(super) fn lost(&self) -> u64 {
        self.events.lost()
    }
}
