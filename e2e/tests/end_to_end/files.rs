//! Files from and to nginx on the host: nothing lost, nothing changed, whatever the size, the address family and the user.

use lastack_e2e::needs::long;
use lastack_e2e::runner::{HOST_V4, HOST_V6, Runner};
use lastack_e2e::servers::Server;

use crate::{LONG, SHORT, assert_same_content, each_user, needs_run, write_noise};

const SIZES: [(&str, u64); 3] = [("empty", 0), ("byte", 1), ("64k", 64 * 1024)];

#[test]
fn a_fetched_file_is_the_file() {
    needs_run!();
    needs!("nginx", "curl");
    let nginx = Server::nginx().unwrap();
    let big = if long() { 1 << 30 } else { 64 << 20 };
    for (name, bytes) in SIZES.into_iter().chain([("big", big)]) {
        write_noise(&nginx.content().join(name), bytes);
    }
    each_user(|user| {
        for host in [HOST_V4, HOST_V6] {
            for name in ["empty", "byte", "64k", "big"] {
                let runner = Runner::new(user);
                let url = format!("http://{host}:{}/{name}", nginx.port);
                let got = runner.run("curl", &["-sS", "--fail", "-o", "got", &url], LONG);
                got.expect_success(&format!("curl {url} as {user:?}"));
                if name != "empty" {
                    assert_same_content(&nginx.content().join(name), &runner.dir().join("got"));
                }
                let journal = runner.journal();
                assert_eq!(journal.len(), 1, "{journal:?}");
                assert_eq!(journal[0].text("how"), "fin", "{journal:?}");
                assert_eq!(journal[0].text("lost_data"), "false", "{journal:?}");
            }
        }
    });
}

#[test]
fn a_file_put_is_the_file() {
    needs_run!();
    needs!("nginx", "curl");
    let nginx = Server::nginx().unwrap();
    let source = nginx.dir.path().join("source");
    write_noise(&source, if long() { 256 << 20 } else { 32 << 20 });
    each_user(|user| {
        let runner = Runner::new(user);
        let name = format!("put-{user:?}");
        let url = format!("http://{HOST_V4}:{}/{name}", nginx.port);
        let put = runner.run("curl", &["-sS", "--fail", "-T", &source.display().to_string(), &url], LONG);
        put.expect_success("curl -T");
        assert_same_content(&source, &nginx.content().join(name));
    });
}

#[test]
fn two_hundred_at_once_all_arrive() {
    needs_run!();
    needs!("nginx", "curl");
    let nginx = Server::nginx().unwrap();
    let file = nginx.content().join("64k");
    write_noise(&file, 64 * 1024);
    each_user(|user| {
        let runner = Runner::new(user);
        let url = format!("http://{HOST_V4}:{}/64k?[1-200]", nginx.port);
        let args = [
            "-sS",
            "--fail",
            "--parallel",
            "--parallel-immediate",
            "--parallel-max",
            "200",
            "-o",
            "got-#1",
            &url,
        ];
        runner.run("curl", &args, SHORT).expect_success("curl --parallel");
        for n in 1..=200 {
            assert_same_content(&file, &runner.dir().join(format!("got-{n}")));
        }
        let journal = runner.journal();
        assert!(journal.len() > 100, "{} connections for 200 at once", journal.len());
        assert!(journal.iter().all(|line| line.text("how") == "fin"), "{journal:?}");
    });
}

#[test]
fn a_kept_connection_is_one_connection_and_closed_ones_are_as_many_as_requests() {
    needs_run!();
    needs!("nginx", "curl");
    let nginx = Server::nginx().unwrap();
    write_noise(&nginx.content().join("64k"), 64 * 1024);
    let url = format!("http://{HOST_V4}:{}/64k?[1-5]", nginx.port);
    each_user(|user| {
        let keep = Runner::new(user);
        keep.run("curl", &["-sS", "--fail", "-o", "got-#1", &url], SHORT).expect_success("curl, kept");
        let kept = keep.journal();
        assert_eq!(kept.len(), 1, "{kept:?}");
        assert_eq!(kept[0].text("closed_by"), "program");
        assert!(kept[0].number("bytes_down") > 5 * 64 * 1024, "{kept:?}");

        let close = Runner::new(user);
        let args = ["-sS", "--fail", "-H", "Connection: close", "-o", "got-#1", &url];
        close.run("curl", &args, SHORT).expect_success("curl, closed");
        let closed = close.journal();
        assert_eq!(closed.len(), 5, "{closed:?}");
        for line in &closed {
            assert_eq!(line.text("how"), "fin", "{line:?}");
            // nginx closes behind the last byte; curl, which knows the length, may close before it sees that.
            assert!(["remote", "both", "program"].contains(&line.text("closed_by").as_str()), "{line:?}");
            assert_eq!(line.text("process"), "curl", "{line:?}");
            assert_eq!(line.text("remote"), format!("{HOST_V4}:{}", nginx.port));
            assert_eq!(line.text("host_remote"), format!("127.0.0.1:{}", nginx.port));
        }
    });
}
