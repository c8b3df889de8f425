//! Where snapshots come from: the Linux kernel, a running lastack, or a file of packets. Who asks need not know which.

use std::io;
use std::ops::ControlFlow;

use crate::filter::Filter;
use crate::row::Row;
use crate::snapshot::{Missing, Snapshot};
use kernel::{Kernel, Query};
use stack::Stack;

pub mod capture;
pub mod kernel;
pub mod stack;

/// A live source.
#[derive(Debug)]
pub enum Source {
    /// The kernel's sockets.
    Kernel(Box<Kernel>),
    /// Those of a running lastack.
    Stack(Box<Stack>),
}

impl Source {
    /// Everything `query` asks for.
    ///
    /// # Errors
    /// When the source cannot be read.
    pub fn snapshot(&mut self, query: &Query) -> io::Result<Snapshot> {
        match self {
            Self::Kernel(kernel) => kernel.snapshot(query),
            Self::Stack(stack) => {
                let mut snapshot = stack.snapshot(&query.filter)?;
                snapshot.rows.retain(|row| query.v6.is_none_or(|v6| v6 == row.socket.local.is_ipv6()));
                Ok(snapshot)
            }
        }
    }

    /// Hands the sockets that `query` chooses over one by one, without owners, until `each` breaks off.
    ///
    /// # Errors
    /// When the source cannot be read.
    pub fn each(&mut self, query: &Query, each: &mut dyn FnMut(&Row) -> ControlFlow<()>) -> io::Result<()> {
        match self {
            Self::Kernel(kernel) => kernel.each(query, each),
            Self::Stack(_) => {
                let _ = self.snapshot(query)?.rows.iter().try_for_each(each);
                Ok(())
            }
        }
    }

    /// A snapshot without its sockets.
    ///
    /// # Errors
    /// When the source cannot be read.
    pub fn frame(&mut self) -> io::Result<Snapshot> {
        match self {
            Self::Kernel(kernel) => Ok(kernel.frame()),
            Self::Stack(stack) => {
                let whole = stack.snapshot(&Filter::everything())?;
                Ok(Snapshot { rows: Vec::new(), ..whole })
            }
        }
    }

    /// What cannot be read of it, whatever is asked for.
    pub fn missing(&self) -> &[Missing] {
        match self {
            Self::Kernel(kernel) => kernel.missing(),
            Self::Stack(_) => &[],
        }
    }

    /// Names the owners of the rows at the places `chosen`; a stack's rows have theirs already.
    pub fn name_owners(&mut self, snapshot: &mut Snapshot, chosen: &[usize]) {
        if let Self::Kernel(kernel) = self {
            kernel.name_owners_of(snapshot, chosen);
        }
    }

    /// As [`Kernel::reread`]; a stack's rows are read whole only.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn reread(&mut self, rows: &[Row], chosen: &[usize]) -> io::Result<Vec<(usize, Option<Row>)>> {
        match self {
            Self::Kernel(kernel) => kernel.reread(rows, chosen),
            Self::Stack(_) => Ok(Vec::new()),
        }
    }

    /// Ends one socket, in whatever state it is.
    ///
    /// # Errors
    /// As [`Kernel::destroy`].
    pub fn destroy(&mut self, row: &Row) -> io::Result<()> {
        match self {
            Self::Kernel(kernel) => kernel.destroy(row),
            Self::Stack(stack) => stack.destroy(row.socket.cookie),
        }
    }

    /// Sets a knob.
    ///
    /// # Errors
    /// As [`Kernel::set_sysctl`].
    pub fn set_sysctl(&mut self, name: &str, value: &str) -> io::Result<()> {
        match self {
            Self::Kernel(kernel) => kernel.set_sysctl(name, value),
            Self::Stack(stack) => stack.sysctl(name, Some(value)).map(|_| ()),
        }
    }
}
