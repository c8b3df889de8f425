//! Watching for long: looks, endings and events put together. What `record` and `export` have in common.
//!
//! Owns:    the kernel source, the subscription to endings, the trace where permitted, the recorder.
//! Output:  each ended connection and each reset, handed to the caller as it comes.

use std::io;
use std::time::{Duration, Instant};

use crate::clock;
use crate::closed::{Closed, Correlator};
use crate::record::Recorder;
use crate::snapshot::Snapshot;
use crate::source::kernel::{Endings, Kernel, Query, Scope, TraceOptions, Tracer};
use crate::trace::Event;

/// What came up between two ticks.
#[derive(Debug)]
pub enum News {
    /// A connection ended.
    Closed(Box<Closed>),
    /// A RST was sent or received.
    Reset(Box<Event>),
}

/// A watch over one namespace.
#[derive(Debug)]
pub struct Live {
    kernel: Kernel,
    endings: Endings,
    tracer: Option<Tracer>,
    /// Why there is no trace.
    refused: Option<io::Error>,
    correlator: Correlator,
    recorder: Recorder,
    interval: Duration,
    looked: Option<Instant>,
    last: Snapshot,
    before: Option<Snapshot>,
}

impl Live {
    /// Begins; a look at all sockets every `interval`.
    ///
    /// # Errors
    /// When the kernel's sockets cannot be read. A trace that is not permitted is no error: see
    /// [`Live::refused`].
    pub fn open(scope: &Scope, interval: Duration) -> io::Result<Self> {
        let endings = Endings::open(scope)?;
        let (tracer, refused) = match Tracer::open(TraceOptions { ends: true, ..TraceOptions::default() }) {
            Ok(tracer) => (Some(tracer), None),
            Err(error) => (None, Some(error)),
        };
        Ok(Self {
            kernel: Kernel::open(scope)?,
            endings,
            correlator: Correlator::default(),
            tracer,
            refused,
            recorder: Recorder::default(),
            interval,
            looked: None,
            last: Snapshot::default(),
            before: None,
        })
    }

    /// Why tracepoints could not be read, where they could not.
    pub fn refused(&self) -> Option<&io::Error> {
        self.refused.as_ref()
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
        let now = self.kernel.snapshot(&Query::everything())?;
        self.recorder.note(&now.rows, now.taken_ns);
        self.before = Some(std::mem::replace(&mut self.last, now)).filter(|before| before.taken_ns > 0);
        self.looked = Some(clock::monotonic());
        Ok(())
    }

    fn drain(&mut self, timeout: Duration, each: &mut dyn FnMut(News)) -> io::Result<()> {
        let Self { endings, tracer, correlator, recorder, .. } = self;
        // Endings come last: by then what led to them has been read.
        let mut ended = Vec::new();
        endings.wait(timeout, &mut |row| ended.push(row))?;
        if let Some(tracer) = tracer {
            tracer.wait(Duration::ZERO, &mut |event| {
                correlator.event(&event);
                if matches!(event.name, "tcp_send_reset" | "tcp_receive_reset") {
                    each(News::Reset(Box::new(event)));
                }
            })?;
        }
        for row in ended {
            // A socket that never was connected ends too; that is no connection's end.
            if row.socket.remote.port() == 0 {
                continue;
            }
            let mut closed = correlator.ended(row, clock::unix_ns());
            recorder.complete(&mut closed);
            each(News::Closed(Box::new(closed)));
        }
        Ok(())
    }

    /// The last look, and the one before it.
    pub fn snapshots(&self) -> (&Snapshot, Option<&Snapshot>) {
        (&self.last, self.before.as_ref())
    }

    /// What is remembered.
    pub fn recorder(&self) -> &Recorder {
        &self.recorder
    }

    /// Events that did not fit into a ring, and overflows of the endings' buffer.
    pub fn lost(&self) -> u64 {
        self.tracer.as_ref().map_or(0, Tracer::lost) + self.endings.overflows()
    }
}
