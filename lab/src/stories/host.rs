//! One end of a story: a stack of ours in virtual or real time, or this machine's kernel behind a TUN.
//!
//! Owns:    what both have in common: socket calls that never block, packets out and in, the socket table, counters, settings.
//! Not here: time and the wire (`stage`).

use core::net::SocketAddr;
use core::time::Duration;
use std::collections::VecDeque;

use lastack_core::Stack;
use lastack_core::observe::SocketRow;
use lastack_core::stack::{Config, SysctlError};
use lastack_core::time::Instant;

use crate::kernel::KernelTarget;
use crate::posix::Posix;
use crate::target::{Call, Outcome, Sent, Setting, Target, TargetError};

/// An end.
#[derive(Debug)]
pub(super) enum Host<'k> {
    /// Our stack.
    Stack(Box<Posix>),
    /// Linux; packets it sent that nobody took yet.
    Kernel(&'k mut KernelTarget, VecDeque<Sent>),
}

impl Host<'_> {
    /// A stack whose clock begins at `start`.
    pub(super) fn stack(address: core::net::IpAddr, seed: u8, start: Duration) -> Self {
        let config = Config { addresses: vec![(address, 16)], seed: [seed; 32], ..Config::default() };
        Self::Stack(Box::new(Posix::new(config, start)))
    }

    /// Brings a stack's clock to `now`; Linux has its own.
    pub(super) fn step_to(&mut self, now: Duration) {
        if let Self::Stack(host) = self {
            while host.step(now) {}
        }
    }

    /// When a stack's next timer fires.
    pub(super) fn next_timer(&self) -> Option<Duration> {
        match self {
            Self::Stack(host) => host.stack().poll_timeout().map(|at| Duration::from_nanos(at.as_nanos())),
            Self::Kernel(..) => None,
        }
    }

    /// Makes a call that returns at once.
    pub(super) fn call(&mut self, call: &Call) -> Result<Outcome, TargetError> {
        let done = match self {
            Self::Stack(host) => host.begin_call(call).ok(),
            Self::Kernel(host, _) => host.begin_call(call),
        };
        done.map(|done| done.outcome)
            .ok_or_else(|| TargetError(format!("a story's calls may not block: {call:?}")))
    }

    /// A packet arrives.
    pub(super) fn inject(&mut self, packet: &[u8]) -> Result<(), TargetError> {
        match self {
            Self::Stack(host) => {
                host.inject(packet);
                Ok(())
            }
            Self::Kernel(host, _) => host.inject(packet),
        }
    }

    /// The oldest packet that left and was not taken.
    pub(super) fn take_sent(&mut self) -> Result<Option<Sent>, TargetError> {
        match self {
            Self::Stack(host) => Ok(host.take_sent()),
            Self::Kernel(host, sent) => match sent.pop_front() {
                Some(packet) => Ok(Some(packet)),
                None => host.receive(Duration::ZERO),
            },
        }
    }

    /// Linux: waits until it sends something, at most until `until`.
    pub(super) fn wait(&mut self, until: Duration) -> Result<(), TargetError> {
        if let Self::Kernel(host, sent) = self {
            sent.extend(host.receive(until)?);
        }
        Ok(())
    }

    /// Its sockets of these pairs (its own address first); a stack of ours shows all it has.
    pub(super) fn rows(&self, pairs: &[(SocketAddr, SocketAddr)]) -> Result<Vec<SocketRow>, TargetError> {
        match self {
            Self::Stack(host) => {
                let now = Instant::from_nanos(host.now().as_nanos() as u64);
                Ok(host.stack().sockets(now).collect())
            }
            Self::Kernel(host, _) => {
                pairs.iter().filter_map(|(local, remote)| host.row(*local, *remote).transpose()).collect()
            }
        }
    }

    /// Our stack and its clock; `None` for Linux.
    pub(super) fn our_stack(&self) -> Option<(&Stack, Instant)> {
        match self {
            Self::Stack(host) => Some((host.stack(), Instant::from_nanos(host.now().as_nanos() as u64))),
            Self::Kernel(..) => None,
        }
    }

    /// The counters of `names`, in their order.
    pub(super) fn counters(&mut self, names: &[&str]) -> Vec<u64> {
        names
            .iter()
            .map(|name| match self {
                Self::Stack(host) => host.stack().counters().by_name(name).unwrap_or(0),
                // A kernel that lacks one counts nothing.
                Self::Kernel(host, _) => host.counter(name).unwrap_or(0),
            })
            .collect()
    }

    /// Changes a setting by Linux's name.
    pub(super) fn set(&mut self, name: &str, value: &str) -> Result<(), TargetError> {
        match self {
            Self::Stack(host) => host.stack_mut().sysctl_set(name, value).map_err(|error| {
                TargetError(match error {
                    SysctlError::NotApplicable(why) => format!("{name} has no use in a stack: {why}"),
                    SysctlError::Unknown => format!("there is no setting {name}"),
                    SysctlError::Invalid(range) => format!("{name} cannot be `{value}`: {range}"),
                    error => format!("{name} cannot be `{value}`: {error:?}"),
                })
            }),
            Self::Kernel(host, _) => {
                let full = match name {
                    _ if name.contains(['.', '/']) => name.to_owned(),
                    "somaxconn" | "rmem_max" | "wmem_max" => format!("net.core.{name}"),
                    _ => format!("net.ipv4.{name}"),
                };
                host.apply(&Setting::Sysctl(full, value.to_owned()))
            }
        }
    }
}
