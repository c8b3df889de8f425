//! Worlds for end-to-end tests: a fresh network namespace, and sockets in chosen states.
#![allow(dead_code, reason = "each test file uses its own part")]

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::time::Duration;

/// Runs `test` in a network namespace of its own, on a thread that ends there.
///
/// Where namespaces cannot be made the test says so loudly, and fails if `LASTACK_REQUIRE_E2E=1`.
pub(crate) fn in_namespace(test: impl FnOnce() + Send + 'static) {
    let worker = std::thread::spawn(move || {
        #[allow(deprecated, reason = "this thread shares nothing that a namespace change could surprise")]
        let made = rustix::thread::unshare(rustix::thread::UnshareFlags::NEWNET);
        if let Err(error) = made {
            skipped(&format!("cannot make a network namespace: {error}"));
            return;
        }
        run("ip", &["link", "set", "lo", "up"]);
        test();
    });
    if let Err(panic) = worker.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Says that a test did not run.
pub(crate) fn skipped(why: &str) {
    assert!(std::env::var_os("LASTACK_REQUIRE_E2E").is_none_or(|v| v != "1"), "required, but {why}");
    eprintln!("SKIPPED: {why}");
}

/// Runs a command in the calling thread's namespace and gives its standard output.
pub(crate) fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap_or_else(|e| panic!("{program}: {e}"));
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A connected pair on the loopback: client, server.
pub(crate) fn pair(listener: &TcpListener) -> (TcpStream, TcpStream) {
    let client = TcpStream::connect(listener.local_addr().expect("bound")).expect("connects");
    let (server, _) = listener.accept().expect("accepts");
    (client, server)
}

/// Tries `check` until it gives something; the kernel's transitions are quick but not immediate.
pub(crate) fn eventually<T>(what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    for _ in 0..200 {
        if let Some(found) = check() {
            return found;
        }
        lastack_observe::clock::pause(Duration::from_millis(25));
    }
    panic!("never happened: {what}");
}

/// Sockets in many states, kept alive.
pub(crate) struct Zoo {
    pub(crate) kept: Vec<TcpStream>,
    pub(crate) listeners: Vec<TcpListener>,
}

/// Listeners, ESTAB, CLOSE-WAIT, FIN-WAIT-2, TIME-WAIT, on IPv4, IPv6 and mapped addresses.
pub(crate) fn zoo() -> Zoo {
    let mut zoo = Zoo { kept: Vec::new(), listeners: Vec::new() };
    for address in ["127.0.0.1:7001", "127.0.0.2:7002", "[::1]:7003", "[::]:7004"] {
        zoo.listeners.push(TcpListener::bind(address).expect("binds"));
    }
    let targets: [SocketAddr; 5] = [
        "127.0.0.1:7001".parse().expect("address"),
        "127.0.0.2:7002".parse().expect("address"),
        "[::1]:7003".parse().expect("address"),
        "[::1]:7004".parse().expect("address"),
        "127.0.0.1:7004".parse().expect("address"),
    ];
    for (index, target) in targets.into_iter().enumerate() {
        let listener = &zoo.listeners[index.min(3)];
        for role in 0..4 {
            let mut client = TcpStream::connect(target).expect("connects");
            let (mut server, _) = listener.accept().expect("accepts");
            match role {
                0 => {
                    client.write_all(b"unread").expect("writes");
                    zoo.kept.extend([client, server]);
                }
                1 => {
                    // FIN-WAIT-2 (owned) and CLOSE-WAIT.
                    client.shutdown(Shutdown::Write).expect("shuts");
                    zoo.kept.extend([client, server]);
                }
                2 => {
                    // TIME-WAIT at the client's end.
                    drop(client);
                    let mut rest = Vec::new();
                    server.read_to_end(&mut rest).expect("reads");
                    drop(server);
                }
                _ => {
                    server.write_all(b"x").expect("writes");
                    zoo.kept.extend([client, server]);
                }
            }
        }
    }
    // The ACK of a FIN may be delayed.
    eventually("the zoo settles", || run("ss", &["-Htn", "state", "fin-wait-1"]).is_empty().then_some(()));
    zoo
}
