//! Which capabilities are kept, and giving up the others.
//!
//! Rules:   capabilities(7). An ordinary user's program keeps none and can gain none. One that runs as root keeps what root of a container
//!          keeps by convention (files, users, ports, chroot): programs that change user need it. Nothing that reaches mounts,
//!          interfaces, other processes or the kernel.

use std::io;

use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities,
};

/// What a program keeps that runs as root, its own or the machine's.
pub(super) const ROOT_PROGRAM: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::KILL)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETPCAP)
    .union(CapabilitySet::SETFCAP)
    .union(CapabilitySet::NET_BIND_SERVICE)
    .union(CapabilitySet::NET_RAW)
    .union(CapabilitySet::SYS_CHROOT)
    .union(CapabilitySet::AUDIT_WRITE);

/// What this process keeps of root's: finding owners among processes of other users, and ports below 1024.
const CARRIER: CapabilitySet =
    CapabilitySet::DAC_READ_SEARCH.union(CapabilitySet::SYS_PTRACE).union(CapabilitySet::NET_BIND_SERVICE);

/// Gives up this thread's capabilities but the few that carrying takes; the threads it starts from now on have no more.
///
/// # Errors
/// The kernel refuses, which it has no reason to.
pub fn give_up_capabilities() -> io::Result<()> {
    keep(CARRIER)
}

/// Between fork and exec: no capability is left. System calls only, nothing is allocated.
pub(super) fn give_up_all() -> io::Result<()> {
    clear_ambient_capability_set()?;
    keep(CapabilitySet::empty())
}

/// Between fork and exec: of the bounding set too no more is left, so that neither root's exec nor a file's capabilities bring
/// one back. System calls only, nothing is allocated.
pub(super) fn keep_at_most(kept: CapabilitySet) -> io::Result<()> {
    for number in 0..u64::BITS {
        let one = CapabilitySet::from_bits_retain(1 << number);
        if kept.contains(one) {
            continue;
        }
        match remove_capability_from_bounding_set(one) {
            Ok(()) => {}
            // The kernel knows no more of them.
            Err(rustix::io::Errno::INVAL) => break,
            Err(error) => return Err(error.into()),
        }
    }
    clear_ambient_capability_set()?;
    keep(kept)
}

fn keep(kept: CapabilitySet) -> io::Result<()> {
    let own = capabilities(None)?;
    let kept = kept & own.permitted;
    let inheritable = CapabilitySet::empty();
    Ok(set_capabilities(None, CapabilitySets { effective: kept, permitted: kept, inheritable })?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_gave_up_has_no_more_than_carrying_takes() {
        // Capabilities are a thread's.
        std::thread::spawn(|| {
            give_up_capabilities().unwrap();
            let left = capabilities(None).unwrap();
            assert!(CARRIER.contains(left.permitted) && CARRIER.contains(left.effective), "{left:?}");
            assert_eq!(left.inheritable, CapabilitySet::empty());
        })
        .join()
        .unwrap();
    }

    #[test]
    fn roots_program_reaches_no_mount_no_interface_and_no_kernel() {
        for lacking in [
            CapabilitySet::SYS_ADMIN,
            CapabilitySet::NET_ADMIN,
            CapabilitySet::SYS_PTRACE,
            CapabilitySet::SYS_MODULE,
            CapabilitySet::MKNOD,
            CapabilitySet::BPF,
            CapabilitySet::DAC_READ_SEARCH,
        ] {
            assert!(!ROOT_PROGRAM.intersects(lacking), "{lacking:?}");
        }
    }
}
