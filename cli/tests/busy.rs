//! A busy host where all is well: real servers under real load, and `lastack doctor` finds nothing.

#[path = "../../observe/tests/support/mod.rs"]
mod support;

mod examine;

use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use examine::look;
use serde_json::Value;
use support::{eventually, in_namespace, run, skipped};

/// A server that is ended with the test.
struct Server(Child);

impl Server {
    fn start(program: &str, arguments: &[&str], port: u16) -> Self {
        let child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("{program}: {error}"));
        let this = Self(child);
        eventually(program, || TcpStream::connect(("127.0.0.1", port)).ok().map(drop));
        this
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn nginx(folder: &Path) -> Server {
    let root = folder.display();
    std::fs::write(folder.join("page"), vec![b'x'; 20_000]).expect("writes");
    let config = format!(
        "daemon off; master_process off; user root; pid {root}/pid; error_log {root}/error;\n\
         events {{}}\n\
         http {{ access_log off; client_body_temp_path {root}; proxy_temp_path {root}; fastcgi_temp_path {root};\n\
         uwsgi_temp_path {root}; scgi_temp_path {root};\n\
         server {{ listen 127.0.0.1:8080; root {root}; }} }}\n"
    );
    let file = folder.join("nginx.conf");
    std::fs::write(&file, config).expect("writes");
    Server::start("nginx", &["-c", file.to_str().expect("text")], 8080)
}

/// An SSH session that does nothing, as there is one on most hosts.
fn idle_ssh(folder: &Path) -> [Server; 2] {
    let path = |name: &str| folder.join(name).to_str().expect("text").to_owned();
    for key in ["host", "user"] {
        run("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-f", &path(key)]);
    }
    std::fs::copy(path("user.pub"), path("authorized")).expect("copies");
    std::fs::create_dir_all("/run/sshd").expect("makes it");
    let sshd = String::from_utf8_lossy(&Command::new("which").arg("sshd").output().expect("runs").stdout)
        .trim()
        .to_owned();
    let sshd = if sshd.is_empty() { "/usr/sbin/sshd".to_owned() } else { sshd };
    let host_key = path("host");
    let authorized = format!("AuthorizedKeysFile={}", path("authorized"));
    let options = ["UsePAM=no", "StrictModes=no", "PidFile=none", "ListenAddress=127.0.0.1", &authorized];
    let mut arguments = vec!["-D", "-f", "/dev/null", "-p", "2222", "-h", &host_key];
    arguments.extend(options.iter().flat_map(|option| ["-o", *option]));
    let server = Server::start(&sshd, &arguments, 2222);
    let user_key = path("user");
    let client = Command::new("ssh")
        .args(["-F", "/dev/null", "-N", "-p", "2222", "-i", &user_key])
        .args(["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "root@127.0.0.1"])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("ssh starts");
    let client = Server(client);
    // Logged in: a session's process has the connection.
    eventually("the session", || (run("ss", &["-Htn", "sport = :2222"]).lines().count() == 1).then_some(()));
    [server, client]
}

#[test]
fn nginx_redis_and_ssh_under_load_have_no_findings() {
    for program in ["nginx", "redis-server", "redis-benchmark", "curl", "ssh", "ssh-keygen"] {
        if Command::new("which").arg(program).output().is_ok_and(|found| !found.status.success())
            && !Path::new("/usr/sbin").join(program).exists()
        {
            skipped(&format!("no {program}"));
            return;
        }
    }
    in_namespace(|| {
        let folder = tempfile::tempdir().expect("a directory");
        let _nginx = nginx(folder.path());
        let _redis =
            Server::start("redis-server", &["--port", "6379", "--save", "", "--bind", "127.0.0.1"], 6379);
        let _ssh = idle_ssh(folder.path());
        let over = AtomicBool::new(false);
        let rounds = |work: &dyn Fn()| {
            while !over.load(Ordering::Relaxed) {
                work();
            }
        };
        std::thread::scope(|scope| {
            // Kept connections with many requests; short ones that the client closes; short ones of redis.
            scope.spawn(|| {
                rounds(&|| {
                    let urls = "http://127.0.0.1:8080/page?[1-200]";
                    run("curl", &["-s", "-o", "/dev/null", urls]);
                });
            });
            scope.spawn(|| {
                rounds(&|| {
                    run(
                        "curl",
                        &["-s", "-o", "/dev/null", "-H", "Connection: close", "http://127.0.0.1:8080/page"],
                    );
                });
            });
            scope.spawn(|| {
                rounds(&|| {
                    run("redis-benchmark", &["-q", "-n", "2000", "-c", "20", "-t", "get,set"]);
                    run("redis-benchmark", &["-q", "-n", "300", "-k", "0", "-c", "20", "-t", "ping_inline"]);
                });
            });
            let looks: Vec<_> = (0..4).map(|_| std::panic::catch_unwind(|| look(&[]))).collect();
            over.store(true, Ordering::Relaxed);
            for findings in looks {
                assert_eq!(findings.expect("it looks"), [] as [Value; 0]);
            }
        });
        // There was something to look at: the servers, the session, and what short connections leave.
        assert!(run("ss", &["-Htan"]).lines().count() > 100);
    });
}
