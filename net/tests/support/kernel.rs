//! A network namespace of the test's own in which Linux is the other end of the link, and bytes both ways.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::process::Command;
use std::thread;

use lastack::{Config, Device, Net, blocking};

use crate::support::pattern;

/// Set in the process that runs inside of the namespace.
const INSIDE: &str = "LASTACK_TEST_INSIDE_NAMESPACE";

/// Runs `test`, which is the body of the test called `name`, in a fresh network namespace.
pub(crate) fn in_namespace(name: &str, needed: impl FnOnce() -> Result<(), String>, test: impl FnOnce()) {
    if std::env::var_os(INSIDE).is_some() {
        return test();
    }
    if let Err(why) = needed().and_then(|()| possible()) {
        assert!(std::env::var_os("LASTACK_REQUIRE_E2E").is_none(), "{name} cannot run: {why}");
        eprintln!("SKIPPED: {name}: {why}");
        return;
    }
    let status = unshare()
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env(INSIDE, "1")
        .status()
        .unwrap();
    assert!(status.success(), "{name} failed in its namespace: {status}");
}

fn unshare() -> Command {
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--net"]);
    command
}

fn possible() -> Result<(), String> {
    match unshare().arg("true").status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("no network namespace: unshare ended with {status}")),
        Err(error) => Err(format!("unshare: {error}")),
    }
}

pub(crate) fn config() -> Config {
    let addresses = vec![([10, 9, 0, 2].into(), 24), ("fd09::2".parse().unwrap(), 64)];
    Config { addresses, ..Config::default() }
}

pub(crate) const KERNEL: [&str; 2] = ["10.9.0.1:0", "[fd09::1]:0"];
pub(crate) const STACK: [&str; 2] = ["10.9.0.2:0", "[fd09::2]:0"];

/// Both kinds of stream.
pub(crate) trait Stream: Read + Write + Send + Sized {
    fn twin(&self) -> Self;
    fn end_sending(&self);
}

impl Stream for std::net::TcpStream {
    fn twin(&self) -> Self {
        self.try_clone().unwrap()
    }
    fn end_sending(&self) {
        self.shutdown(Shutdown::Write).unwrap();
    }
}

impl Stream for blocking::TcpStream {
    fn twin(&self) -> Self {
        self.try_clone().unwrap()
    }
    fn end_sending(&self) {
        self.shutdown(Shutdown::Write).unwrap();
    }
}

/// Both ends send `data` at the same time and receive it to the end.
pub(crate) fn exchange(one: impl Stream, two: impl Stream, data: &[u8]) {
    fn end<'a>(stream: impl Stream + 'a, data: &'a [u8], scope: &'a thread::Scope<'a, '_>) {
        let mut writer = stream.twin();
        scope.spawn(move || {
            writer.write_all(data).unwrap();
            writer.end_sending();
        });
        let mut reader = stream;
        scope.spawn(move || {
            let mut got = Vec::new();
            reader.read_to_end(&mut got).unwrap();
            assert!(got == data, "{} of {} bytes, or others", got.len(), data.len());
        });
    }
    thread::scope(|scope| {
        // The scope's threads outlive this closure, not the scope.
        let scope: &thread::Scope<'_, '_> = scope;
        end(one, data, scope);
        end(two, data, scope);
    });
}

pub(crate) fn kernel_connects(net: &Net, local: &str) -> (std::net::TcpStream, blocking::TcpStream) {
    let listener = blocking::TcpListener::bind(net, local).unwrap();
    let theirs = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (ours, peer) = listener.accept().unwrap();
    assert_eq!(theirs.local_addr().unwrap(), peer);
    (theirs, ours)
}

pub(crate) fn stack_connects(net: &Net, local: &str) -> (std::net::TcpStream, blocking::TcpStream) {
    let listener = std::net::TcpListener::bind(local).unwrap();
    let ours = blocking::TcpStream::connect(net, listener.local_addr().unwrap()).unwrap();
    (listener.accept().unwrap().0, ours)
}

/// Both open, both send, both families.
pub(crate) fn bulk(device: impl Device) -> Net {
    let net = Net::spawn_thread(device, config()).unwrap();
    let data = pattern(20_000_000);
    for (kernel, stack) in KERNEL.into_iter().zip(STACK) {
        let (theirs, ours) = kernel_connects(&net, stack);
        exchange(theirs, ours, &data);
        let (theirs, ours) = stack_connects(&net, kernel);
        exchange(theirs, ours, &data);
    }
    let counters = net.counters();
    assert_eq!((counters.in_errs, counters.in_csum_errors), (0, 0));
    assert_eq!(net.link_counters().tx_errors, 0);
    net
}
