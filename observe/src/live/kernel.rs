//! A namespace of the kernel, watched: the ends of its sockets, and what tracepoints say of them where permitted.

use std::io;
use std::time::Duration;

use super::News;
use crate::clock;
use crate::closed::Correlator;
use crate::snapshot::Snapshot;
use crate::source::kernel::{Endings, Kernel, Query, Scope, TraceOptions, Tracer};

#[derive(Debug)]
pub(super) struct OfKernel {
    kernel: Kernel,
    endings: Endings,
    tracer: Option<Tracer>,
    /// Why there is no trace.
    refused: Option<io::Error>,
    correlator: Correlator,
}

impl OfKernel {
    pub(super) fn open(scope: &Scope) -> io::Result<Self> {
        let endings = Endings::open(scope)?;
        let (tracer, refused) = match Tracer::open(TraceOptions { ends: true, ..TraceOptions::default() }) {
            Ok(tracer) => (Some(tracer), None),
            Err(error) => (None, Some(error)),
        };
        let kernel = Kernel::open(scope)?;
        Ok(Self { kernel, endings, tracer, refused, correlator: Correlator::default() })
    }

    pub(super) fn refused(&self) -> Option<&io::Error> {
        self.refused.as_ref()
    }

    pub(super) fn snapshot(&mut self) -> io::Result<Snapshot> {
        self.kernel.snapshot(&Query::everything())
    }

    pub(super) fn wait(&mut self, timeout: Duration, each: &mut dyn FnMut(News)) -> io::Result<()> {
        let Self { endings, tracer, correlator, .. } = self;
        // Endings come last: by then what led to them has been read.
        let mut ended = Vec::new();
        endings.wait(timeout, &mut |row| ended.push(row))?;
        if let Some(tracer) = tracer {
            tracer.wait(Duration::ZERO, &mut |event| {
                correlator.event(&event);
                if event.is_reset() {
                    each(News::Reset(Box::new(event)));
                }
            })?;
        }
        for row in ended {
            // A socket that never was connected ends too; that is no connection's end.
            if row.socket.remote.port() != 0 {
                each(News::Closed(Box::new(correlator.ended(row, clock::unix_ns()))));
            }
        }
        Ok(())
    }

    pub(super) fn lost(&self) -> u64 {
        self.tracer.as_ref().map_or(0, Tracer::lost) + self.endings.overflows()
    }
}
