//! What belongs to the whole host: one test at a time may touch it, and it is put back whatever happens.

use std::fs::File;
use std::process::{Child, Command, Stdio};

/// The right to load or change what all namespaces share, among all test processes of this host.
pub(crate) struct HostTurn {
    _locked: File,
}

impl HostTurn {
    /// Waits for it.
    pub(crate) fn wait() -> Self {
        let path = std::env::temp_dir().join("lastack-test-host.lock");
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        file.lock().expect("locks");
        Self { _locked: file }
    }
}

/// A host-wide knob that has another value for as long as this lives.
///
/// A child holds the old value and one end of a pipe: it writes the value back when the other end is closed,
/// which the kernel does even for a test that is killed.
pub(crate) struct HostKnob {
    guardian: Child,
}

impl HostKnob {
    /// Sets `net.ipv4.name` of the host; `None` where this process may not.
    pub(crate) fn set(_turn: &HostTurn, name: &str, value: &str) -> Option<Self> {
        let path = format!("/proc/sys/net/ipv4/{name}");
        let old = std::fs::read_to_string(&path).ok()?;
        let mut guardian = Command::new("sh")
            .args(["-c", "trap '' INT TERM HUP; cat >/dev/null; printf %s \"$1\" >\"$0\"", &path, old.trim()])
            .stdin(Stdio::piped())
            .spawn()
            .expect("sh starts");
        if std::fs::write(&path, value).is_ok() {
            return Some(Self { guardian });
        }
        drop(guardian.stdin.take());
        guardian.wait().expect("sh ends");
        None
    }
}

impl Drop for HostKnob {
    fn drop(&mut self) {
        drop(self.guardian.stdin.take());
        let _ = self.guardian.wait();
    }
}
