//! Short connections, as many as this machine gives: a thread a core opens, accepts and closes them on the loopback.
//!
//! Each thread has a listener at an address of its own, and the server closes first: TIME-WAIT stays at its end, where a SYN
//! with a later timestamp takes the pair over, so that neither ports nor the table run out.

use std::io;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::Duration;

use lastack_e2e::clock;

/// What was made.
#[derive(Clone, Copy, Debug)]
pub struct Made {
    /// Connections, each opened, accepted and closed from both ends.
    pub connections: u64,
    /// In so many seconds.
    pub seconds: f64,
}

/// Makes connections with so many threads for so long.
///
/// # Errors
/// When one of them cannot be made: no rate is worth having that came of failures.
pub fn make(threads: u8, length: Duration) -> io::Result<Made> {
    let start = clock::now();
    let counts: io::Result<Vec<u64>> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|thread| scope.spawn(move || one(thread, length))).collect();
        let join = |worker: std::thread::ScopedJoinHandle<'_, io::Result<u64>>| {
            worker.join().unwrap_or_else(|_| Err(io::Error::other("a thread of the load panicked")))
        };
        workers.into_iter().map(join).collect()
    });
    Ok(Made { connections: counts?.iter().sum(), seconds: start.elapsed().as_secs_f64() })
}

fn one(thread: u8, length: Duration) -> io::Result<u64> {
    let listener = TcpListener::bind((Ipv4Addr::new(127, 0, 1, thread + 1), 0))?;
    let address = listener.local_addr()?;
    let (start, mut count) = (clock::now(), 0);
    while start.elapsed() < length {
        for _ in 0..64 {
            let client = TcpStream::connect(address)?;
            let (server, _) = listener.accept()?;
            drop(server);
            drop(client);
            count += 1;
        }
    }
    Ok(count)
}
