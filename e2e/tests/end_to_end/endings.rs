//! What a program wrote before it ended is not lost with it.

use std::io::Read;
use std::net::TcpListener;

use lastack_e2e::binaries;
use lastack_e2e::process::run_with_input;
use lastack_e2e::runner::{HOST_V4, Runner, copy_for_all};

use crate::{SHORT, each_user, needs_run};

#[test]
fn a_program_that_writes_and_exits_at_once_loses_nothing() {
    needs_run!();
    each_user(|user| {
        for bytes in [1, 32 * 1024, 300_000, 2_000_000] {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let port = listener.local_addr().unwrap().port();
            let server = std::thread::spawn(move || {
                let (mut stream, _) = listener.accept().unwrap();
                let mut all = Vec::new();
                stream.read_to_end(&mut all).map(|_| all.len())
            });
            let runner = Runner::new(user);
            let actor = copy_for_all(binaries::actor(), runner.dir()).unwrap();
            let steps = format!("connect {HOST_V4}:{port}\nsend-and-exit {bytes}\n");
            let ended = run_with_input(&mut runner.command(&actor), steps.as_bytes(), SHORT).unwrap();
            ended.expect_success("the actor");
            let received = server.join().expect("the server thread").expect("no reset");
            assert_eq!(received, bytes, "as {user:?}");
            let journal = runner.journal();
            assert_eq!(journal.len(), 1, "{journal:?}");
            assert_eq!(journal[0].number("bytes_up"), bytes as u64, "{journal:?}");
            assert_eq!(journal[0].text("lost_data"), "false", "{journal:?}");
        }
    });
}

#[test]
fn a_slow_reader_gets_what_an_ended_program_wrote() {
    needs_run!();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut chunk = vec![0; 64 * 1024];
        let mut bytes = 0;
        loop {
            // 64 KiB every 20 ms: the program is gone long before its bytes are.
            lastack_e2e::clock::pause(std::time::Duration::from_millis(20));
            match stream.read(&mut chunk) {
                Ok(0) => return Ok(bytes),
                Ok(n) => bytes += n,
                Err(error) => return Err(error),
            }
        }
    });
    let runner = Runner::new(lastack_e2e::runner::User::Current);
    let steps = format!("connect {HOST_V4}:{port}\nsend-and-exit 3000000\n");
    let ended = run_with_input(&mut runner.command(binaries::actor()), steps.as_bytes(), SHORT).unwrap();
    ended.expect_success("the actor");
    assert_eq!(server.join().expect("the server thread").expect("no reset"), 3_000_000);
}
