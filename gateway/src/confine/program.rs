//! What the program gives up between fork and exec.
//!
//! Owns:    the order: descriptors, the Landlock domain (for which root of the namespace still needs its capabilities),
//!          capabilities, `no_new_privs`.
//! Rules:   landlock(7), scopes: from inside the domain no process outside of it can be signalled, and no abstract Unix socket
//!          outside of it be connected to. Kernels before 6.12 have no scopes: the program is as free there as its user is.
//! Differs: a program that runs as root keeps set-user-id programs working (no `no_new_privs`), as in a container: sshd's and
//!          cron's children use them. The bounding set holds for those too.

use std::io;

use landlock::{ABI, Access as _, Ruleset, RulesetAttr as _, RulesetCreated, RulesetCreatedAttr as _, Scope};
use rustix::thread::set_no_new_privs;

use super::capabilities::{ROOT_PROGRAM, give_up_all, keep_at_most};
use crate::sys;

/// The program's limits, prepared as far as they can be before the fork.
#[derive(Debug)]
pub(crate) struct Program {
    is_root: bool,
    keeps_descriptors: bool,
    domain: Option<RulesetCreated>,
}

impl Program {
    /// For a program that runs as root or not, and inherits only descriptors 0 to 2 unless it `keeps_descriptors`.
    pub(crate) fn new(is_root: bool, keeps_descriptors: bool) -> Self {
        Self { is_root, keeps_descriptors, domain: domain(is_root) }
    }

    /// Between fork and exec, once: system calls only.
    pub(crate) fn confine(&mut self) -> io::Result<()> {
        if !self.keeps_descriptors {
            sys::close_on_exec_from(3)?;
        }
        if let Some(domain) = self.domain.take() {
            // A kernel that refuses leaves the program as free as one without Landlock does.
            let _ = domain.restrict_self();
        }
        if self.is_root {
            return keep_at_most(ROOT_PROGRAM);
        }
        // With no capability left and none to be had the bounding set bounds nothing. Emptied, it would only make the
        // kernel refuse to execute what has capabilities in its file, as ping has (capabilities(7), "Safety checking").
        set_no_new_privs(true)?;
        give_up_all()
    }
}

/// `None` where the kernel has no Landlock scopes.
fn domain(is_root: bool) -> Option<RulesetCreated> {
    let ruleset = Ruleset::default().scope(Scope::from_all(ABI::V6)).ok()?.create().ok()?;
    Some(ruleset.no_new_privs(!is_root))
}
