//! Watching for long: looks, endings and events put together. What `record` and `export` have in common.
//!
//! Owns:    what is watched (a namespace of the kernel, or a running lastack), the recorder.
//! Output:  each ended connection and each reset, handed to the caller as it comes.

use std::io;
use std::time::{Duration, Instant};

use crate::clock;
use crate::closed::Closed;
use crate::record::Recorder;
use crate::snapshot::Snapshot;
use crate::source::kernel::Scope;
use crate::trace::Event;

mod kernel;
mod stack;

use kernel::OfKernel;
use stack::OfStack;

/// What came up between two ticks.
#[derive(Debug)]
pub enum News {
    /// A connection ended.
    Closed(Box<Closed>),
    /// A RST was sent or received.
    Reset(Box<Event>),
}

#[derive(Debug)]
enum Watched {
    Kernel(Box<OfKernel>),
    Stack(Box<OfStack>),
}

/// A watch over one namespace of the kernel, or over one running lastack.
#[derive(Debug)]
pub struct Live {
    watched: Watched,
    recorder: Recorder,
    interval: Duration,
    looked: Option<Instant>,
    last: Snapshot,
    before: Option<Snapshot>,
}

impl Live {
    /// Begins with a namespace; a look at all sockets every `interval`.
    ///
    /// # Errors
    /// When the kernel's sockets cannot be read. A trace that is not permitted is no error: see
    /// [`Live::refused`].
    pub fn open(scope: &Scope, interval: Duration) -> io::Result<Self> {
        Ok(Self::new(Watched::Kernel(Box::new(OfKernel::open(scope)?)), interval))
    }

    /// Begins with the running lastack of that name or process id.
    ///
    /// # Errors
    /// As [`crate::source::stack::Stack::open`].
    pub fn of_stack(name: &str, interval: Duration) -> io::Result<Self> {
        Ok(Self::new(Watched::Stack(Box::new(OfStack::open(name)?)), interval))
    }

    fn new(watched: Watched, interval: Duration) -> Self {
        let (last, recorder) = (Snapshot::default(), Recorder::default());
        Self { watched, recorder, interval, looked: None, last, before: None }
    }

    /// Why tracepoints could not be read, where they could not.
    pub fn refused(&self) -> Option<&io::Error> {
        match &self.watched {
            Watched::Kernel(kernel) => kernel.refused(),
            Watched::Stack(_) => None,
        }
    }

    /// True when what is watched has ended: a kernel does not, a lastack does.
    pub fn ended(&self) -> bool {
        match &self.watched {
            Watched::Kernel(_) => false,
            Watched::Stack(stack) => stack.ended(),
        }
    }

    /// Waits at most `timeout` for news; looks at all sockets when it is time. True after a look.
    ///
    /// # Errors
    /// When reading fails.
    pub fn tick(&mut self, timeout: Duration, each: &mut dyn FnMut(News)) -> io::Result<bool> {
        if self.looked.is_none_or(|then| then.elapsed() >= self.interval) {
            self.look()?;
            self.drain(Duration::ZERO, each)?;
            return Ok(true);
        }
        self.drain(timeout, each)?;
        Ok(false)
    }

    fn look(&mut self) -> io::Result<()> {
        let now = match &mut self.watched {
            Watched::Kernel(kernel) => kernel.snapshot()?,
            Watched::Stack(stack) => match stack.snapshot()? {
                Some(now) => now,
                None => return Ok(()),
            },
        };
        self.recorder.note(&now.rows, now.taken_ns);
        self.before = Some(std::mem::replace(&mut self.last, now)).filter(|before| before.taken_ns > 0);
        self.looked = Some(clock::monotonic());
        Ok(())
    }

    fn drain(&mut self, timeout: Duration, each: &mut dyn FnMut(News)) -> io::Result<()> {
        let Self { watched, recorder, .. } = self;
        let mut completed = |mut news: News| {
            if let News::Closed(closed) = &mut news {
                recorder.complete(closed);
            }
            each(news);
        };
        match watched {
            Watched::Kernel(kernel) => kernel.wait(timeout, &mut completed),
            Watched::Stack(stack) => stack.wait(timeout, &mut completed),
        }
    }

    /// The last look, and the one before it.
    pub fn snapshots(&self) -> (&Snapshot, Option<&Snapshot>) {
        (&self.last, self.before.as_ref())
    }

    /// What is remembered.
    pub fn recorder(&self) -> &Recorder {
        &self.recorder
    }

    /// Events that did not fit into a ring or a queue, and overflows of the endings' buffer.
    pub fn lost(&self) -> u64 {
        match &self.watched {
            Watched::Kernel(kernel) => kernel.lost(),
            Watched::Stack(stack) => stack.lost(),
        }
    }
}
