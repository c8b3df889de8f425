//! The stack as target: `lastack_core` in virtual time. An hour of waiting takes milliseconds.
//!
//! Owns:    [`StackTarget`]: the clock moves from one deadline to the next, never past one.
//! Differs: shell commands are refused; settings that Linux has and a stack has no use for are accepted.

use core::net::SocketAddr;
use core::time::Duration;

use lastack_core::stack::{Config, SysctlError};

use crate::posix::{Posix, Wheel};
use crate::script::assertion::{Value, Variables};
use crate::target::{Call, Done, Fd, IpVersion, Sent, Setting, SocketFacts, Target, TargetError, World};

/// Our stack with an application on it.
#[derive(Debug)]
pub struct StackTarget {
    host: Posix,
}

/// Virtual time begins here, so that "long ago" exists.
const START: Duration = Duration::from_secs(1000);

impl StackTarget {
    /// A fresh stack for a script's world. The same world and script give the same run.
    pub fn new(world: &World) -> Self {
        let prefix = if world.ip == IpVersion::V6 { 64 } else { 16 };
        let config = Config {
            addresses: vec![(world.local, prefix)],
            mtu: world.mtu,
            seed: [7; 32],
            ..Config::default()
        };
        Self { host: Posix::new(config, START) }
    }

    /// The same with timers as late as on Linux's wheel; `phase`: where in a slot the machine's clock begins.
    pub fn with_late_timers(world: &World, phase: Duration) -> Self {
        let mut target = Self::new(world);
        target.host.use_wheel(Wheel::new(lastack_core::time::Duration::from_nanos(phase.as_nanos() as u64)));
        target
    }
}

impl Target for StackTarget {
    fn name(&self) -> &'static str {
        "stack"
    }

    fn now(&mut self) -> Duration {
        self.host.now()
    }

    fn patience(&self) -> Duration {
        Duration::ZERO
    }

    fn sleep_until(&mut self, at: Duration) {
        while self.host.step(at) {}
    }

    fn inject(&mut self, packet: &[u8]) -> Result<(), TargetError> {
        self.host.inject(packet);
        Ok(())
    }

    fn receive(&mut self, deadline: Duration) -> Result<Option<Sent>, TargetError> {
        loop {
            if let Some(sent) = self.host.take_sent() {
                return Ok(Some(sent));
            }
            if !self.host.step(deadline) {
                return Ok(self.host.take_sent());
            }
        }
    }

    fn begin_call(&mut self, call: &Call) -> Option<Done> {
        self.host.call(call)
    }

    fn await_call(&mut self, deadline: Duration) -> Option<Done> {
        loop {
            if let Some(done) = self.host.take_finished() {
                return Some(done);
            }
            if !self.host.step(deadline) {
                return self.host.take_finished();
            }
        }
    }

    fn apply(&mut self, setting: &Setting) -> Result<(), TargetError> {
        match setting {
            Setting::Sysctl(name, value) => match self.host.stack_mut().sysctl_set(name, value) {
                Ok(()) | Err(SysctlError::NotApplicable(_)) => Ok(()),
                Err(error) => Err(TargetError(format!("cannot set {name} to `{value}`: {error:?}"))),
            },
            Setting::Shell(text) => Err(TargetError(format!("the stack has no shell for `{text}`"))),
        }
    }

    fn socket_info(&mut self, fd: Fd) -> Result<Variables, TargetError> {
        let refused = |errno| TargetError(format!("TCP_INFO: {}", crate::sys::os_error(errno)));
        let info = self.host.tcp_info(fd).map_err(refused)?;
        let named = |(name, value)| (format!("tcpi_{name}"), Value::Int(i128::from(value)));
        Ok(info.fields().into_iter().map(named).collect())
    }

    fn socket_state(
        &mut self,
        local: SocketAddr,
        remote: SocketAddr,
    ) -> Result<Option<SocketFacts>, TargetError> {
        let row = self.host.row(local, remote);
        Ok(row.map(|row| SocketFacts { state: row.state, timer: row.timer.map(|timer| timer.kind) }))
    }

    fn counter(&mut self, name: &str) -> Result<u64, TargetError> {
        let value = self.host.stack().counters().by_name(name);
        value.ok_or_else(|| TargetError(format!("the stack has no counter {name}")))
    }
}
