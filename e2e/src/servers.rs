//! The servers on the host's loopback that programs behind `lastack run` talk to: each on a free port, in a directory of its own,
//! gone when dropped (and, by its parent-death signal, when the test is killed).

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::process::{Process, run};
use crate::{clock, needs};

/// A server program that runs.
#[derive(Debug)]
pub struct Server {
    process: Process,
    /// Where it listens, on 127.0.0.1 (and ::1 for nginx).
    pub port: u16,
    /// Its directory: content, configuration, keys.
    pub dir: TempDir,
}

impl Server {
    /// nginx, serving (GET, PUT) the directory `content` of [`Server::dir`], on IPv4 and IPv6.
    ///
    /// # Errors
    /// It does not start.
    pub fn nginx() -> io::Result<Self> {
        let (dir, port) = (directory()?, free_port()?);
        let root = dir.path().display().to_string();
        fs::create_dir(dir.path().join("content"))?;
        fs::set_permissions(dir.path().join("content"), fs::Permissions::from_mode(0o777))?;
        fs::write(
            dir.path().join("nginx.conf"),
            NGINX.replace("$DIR", &root).replace("$PORT", &port.to_string()),
        )?;
        let mut command = server("nginx");
        command.args(["-p", &root, "-c", "nginx.conf", "-e", "stderr"]);
        Self::start(command, port, dir)
    }

    /// redis-server without persistence.
    ///
    /// # Errors
    /// It does not start.
    pub fn redis() -> io::Result<Self> {
        let (dir, port) = (directory()?, free_port()?);
        let mut command = server("redis-server");
        command.args([
            "--port",
            &port.to_string(),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--appendonly",
            "no",
        ]);
        command.arg("--dir").arg(dir.path());
        Self::start(command, port, dir)
    }

    /// iperf3's server.
    ///
    /// # Errors
    /// It does not start.
    pub fn iperf3() -> io::Result<Self> {
        let (dir, port) = (directory()?, free_port()?);
        let mut command = server("iperf3");
        command.args(["-s", "-B", "127.0.0.1", "-p", &port.to_string()]);
        Self::start(command, port, dir)
    }

    /// `openssl s_server -www` with a self-signed certificate `cert.pem` for `lastack.test`.
    ///
    /// # Errors
    /// It does not start.
    pub fn openssl() -> io::Result<Self> {
        let (dir, port) = (directory()?, free_port()?);
        let mut make = Command::new("openssl");
        make.args([
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=lastack.test",
        ]);
        make.args(["-keyout", "key.pem", "-out", "cert.pem"]).current_dir(dir.path());
        run(&mut make, Duration::from_secs(60))?.expect_success("openssl req");
        let mut command = server("openssl");
        command.args(["s_server", "-quiet", "-www", "-cert", "cert.pem", "-key", "key.pem"]);
        command.args(["-accept", &format!("127.0.0.1:{port}")]).current_dir(dir.path());
        Self::start(command, port, dir)
    }

    /// sshd, letting in whoever has the key `client` in its directory, as the user who runs the test.
    ///
    /// # Errors
    /// It does not start.
    pub fn sshd() -> io::Result<Self> {
        let (dir, port) = (directory()?, free_port()?);
        for key in ["host", "client"] {
            let mut make = Command::new("ssh-keygen");
            make.args(["-q", "-t", "ed25519", "-N", "", "-f", key]).current_dir(dir.path());
            run(&mut make, Duration::from_secs(20))?.expect_success("ssh-keygen");
        }
        // Debian's sshd wants it; the package's service makes it.
        if needs::is_root() {
            fs::create_dir_all("/run/sshd")?;
        }
        let path = |name: &str| dir.path().join(name).display().to_string();
        let mut command = server("sshd");
        command.args(["-D", "-e", "-f", "/dev/null", "-h", &path("host")]);
        for option in [
            format!("Port={port}"),
            "ListenAddress=127.0.0.1".to_owned(),
            "UsePAM=no".to_owned(),
            "StrictModes=no".to_owned(),
            "PermitRootLogin=yes".to_owned(),
            "PidFile=none".to_owned(),
            format!("AuthorizedKeysFile={}", path("client.pub")),
        ] {
            command.args(["-o", &option]);
        }
        Self::start(command, port, dir)
    }

    /// The files it serves, for nginx.
    #[must_use]
    pub fn content(&self) -> PathBuf {
        self.dir.path().join("content")
    }

    fn start(mut command: Command, port: u16, dir: TempDir) -> io::Result<Self> {
        let log = fs::File::create(dir.path().join("log"))?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let mut process = Process::spawn(&mut command)?;
        let at = SocketAddr::from(([127, 0, 0, 1], port));
        let up = clock::until(Duration::from_secs(10), || match process.wait_within(Duration::ZERO) {
            Ok(None) => TcpStream::connect_timeout(&at, Duration::from_secs(1)).ok().map(|_| true),
            _ => Some(false),
        });
        if up == Some(true) {
            return Ok(Self { process, port, dir });
        }
        let said = fs::read_to_string(dir.path().join("log")).unwrap_or_default();
        Err(io::Error::other(format!(
            "{:?} does not listen: {said}",
            command.get_args().nth(2).unwrap_or_default()
        )))
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.process.id()
    }
}

/// A directory that every user may read, removed when dropped.
///
/// # Errors
/// It cannot be made.
pub fn directory() -> io::Result<TempDir> {
    let dir = tempfile::Builder::new().prefix("lastack-e2e-").tempdir()?;
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755))?;
    Ok(dir)
}

/// A port free on 127.0.0.1 and ::1 a moment ago.
///
/// # Errors
/// There is none.
pub fn free_port() -> io::Result<u16> {
    for _ in 0..100 {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let port = listener.local_addr()?.port();
        if TcpListener::bind(("::1", port)).is_ok() {
            return Ok(port);
        }
    }
    Err(io::ErrorKind::AddrInUse.into())
}

/// `program`, to be killed with the thread that starts it.
fn server(program: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]);
    command.arg(needs::find(program).unwrap_or_else(|| Path::new(program).to_path_buf()));
    command
}

const NGINX: &str = "
daemon off;
master_process off;
pid $DIR/pid;
error_log stderr;
worker_rlimit_nofile 8192;
events { worker_connections 4096; }
http {
    access_log off;
    client_max_body_size 0;
    client_body_temp_path $DIR/body;
    proxy_temp_path $DIR/proxy;
    fastcgi_temp_path $DIR/fastcgi;
    uwsgi_temp_path $DIR/uwsgi;
    scgi_temp_path $DIR/scgi;
    sendfile on;
    types { text/html html; text/javascript js; image/svg+xml svg; }
    keepalive_requests 100000;
    server {
        listen 127.0.0.1:$PORT backlog=1024;
        listen [::1]:$PORT backlog=1024;
        root $DIR/content;
        location / { dav_methods PUT; }
    }
}
";
