//! Bigger programs people use, unmodified: a browser, package managers, Java, Go, a database's client, rsync.
//!
//! Their packages are large: `.ci/setup --programs` installs them, which `.ci/nightly` does. `.ci/run` leaves this module out where they
//! are not there, and says so.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use lastack_e2e::process::{Finished, Process, run};
use lastack_e2e::runner::{HOST_V4, Runner, User};
use lastack_e2e::servers::{self, Server};
use lastack_e2e::{clock, needs};

use crate::{LONG, assert_same_content, each_user, needs_run, write_noise};

/// Ends the calling test with a loud `SKIPPED` unless all of these are installed.
macro_rules! needs_installed {
    ($($program:expr),+ $(,)?) => {
        if let Some(why) = missing(&[$($program),+]) {
            needs::skip(&why);
            return;
        }
    };
}

/// As [`needs::missing`]; `pip` and `postgresql` are no programs of `PATH`.
fn missing(programs: &[&str]) -> Option<String> {
    let is_there = |program: &str| match program {
        "pip" => {
            run(Command::new("python3").args(["-m", "pip", "--version"]), LONG).is_ok_and(|pip| pip.success())
        }
        "postgresql" => postgresql().is_some(),
        program => needs::find(program).is_some(),
    };
    let program = programs.iter().find(|program| !is_there(program))?;
    Some(format!("`{program}` is not installed; `.ci/setup --programs` installs the big programs"))
}

/// Runs `program args…` behind `lastack run` with `HOME` in the runner's directory.
fn at_home(runner: &Runner, program: &str, args: &[&str]) -> Finished {
    let mut command = runner.command(program);
    command.args(args).env("HOME", runner.dir());
    run(&mut command, LONG).expect("lastack starts").expect_success(program)
}

/// The text of a finished program, without the line's end.
fn told(finished: &Finished) -> String {
    finished.text().trim().to_owned()
}

fn sha256(file: &Path) -> String {
    let summed = run(Command::new("sha256sum").arg(file), LONG).unwrap().expect_success("sha256sum").text();
    summed.split_whitespace().next().unwrap_or_default().to_owned()
}

/// A page of 100 scripts and 100 pictures that says what of it was loaded.
fn write_site(content: &Path) {
    let mut page = String::from("<!doctype html><title>two hundred</title><p id=told></p>");
    for number in 0..100 {
        page += &format!("<script src=script{number}.js></script><img src=picture{number}.svg>");
        let script = format!("window.count = (window.count || 0) + 1; // {}", "x".repeat(number * 300));
        fs::write(content.join(format!("script{number}.js")), script).unwrap();
        let picture = format!("<svg xmlns='http://www.w3.org/2000/svg' width='7' height='{}'/>", number + 1);
        fs::write(content.join(format!("picture{number}.svg")), picture).unwrap();
    }
    page += "<script>addEventListener('load', () => { told.textContent = window.count + ' scripts, ' + \
             [...document.images].filter(image => image.naturalWidth == 7).length + ' pictures' })</script>";
    fs::write(content.join("index.html"), page).unwrap();
}

#[test]
fn a_browser_loads_a_page_with_two_hundred_assets() {
    needs_run!();
    needs_installed!("nginx", "chromium");
    let nginx = Server::nginx().unwrap();
    // Browsers go by what the server calls a file.
    write_site(&nginx.content());
    each_user(|user| {
        let runner = Runner::new(user);
        let profile = format!("--user-data-dir={}", runner.dir().join("profile").display());
        let url = format!("http://{HOST_V4}:{}/index.html", nginx.port);
        let args = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--disable-dev-shm-usage",
            &profile,
            "--virtual-time-budget=30000",
            "--dump-dom",
            &url,
        ];
        let page = at_home(&runner, "chromium", &args).text();
        assert!(page.contains("<p id=\"told\">100 scripts, 100 pictures</p>"), "{page}");
        let connections = runner.journal();
        let site = connections.iter().filter(|line| line.text("remote").ends_with(&nginx.port.to_string()));
        let bytes: u64 = site.map(|line| line.number("bytes_down")).sum();
        assert!(bytes > 1_000_000, "{bytes} bytes in {} connections", connections.len());
    });
}

#[test]
fn pip_installs_from_an_index() {
    needs_run!();
    needs_installed!("nginx", "python3", "pip");
    let nginx = Server::nginx().unwrap();
    let index = nginx.content().join("simple/lastack-probe");
    fs::create_dir_all(&index).unwrap();
    fs::write(
        index.join("index.html"),
        "<a href=lastack_probe-1.0-py3-none-any.whl>lastack_probe-1.0-py3-none-any.whl</a>",
    )
    .unwrap();
    let make = "import sys, zipfile
with zipfile.ZipFile(sys.argv[1], 'w') as wheel:
    wheel.writestr('lastack_probe.py', 'WORD = \"' + 'installed ' * 50000 + '\"')
    info = 'lastack_probe-1.0.dist-info/'
    wheel.writestr(info + 'METADATA', 'Metadata-Version: 2.1\\nName: lastack-probe\\nVersion: 1.0\\n')
    wheel.writestr(info + 'WHEEL', 'Wheel-Version: 1.0\\nGenerator: e2e\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n')
    wheel.writestr(info + 'RECORD', '')";
    let wheel = index.join("lastack_probe-1.0-py3-none-any.whl");
    run(Command::new("python3").args(["-c", make]).arg(&wheel), LONG).unwrap().expect_success("zipfile");
    let runner = Runner::new(User::Current);
    let url = format!("http://{HOST_V4}:{}/simple/", nginx.port);
    let target = runner.dir().join("site").display().to_string();
    // Only what the test serves: other settings of this machine's pip are left out.
    let args = [
        "-m",
        "pip",
        "--isolated",
        "install",
        "--no-cache-dir",
        "--disable-pip-version-check",
        "--index-url",
        &url,
        "--trusted-host",
        HOST_V4,
        "--target",
        &target,
        "lastack-probe",
    ];
    at_home(&runner, "python3", &args);
    let installed = fs::read_to_string(Path::new(&target).join("lastack_probe.py")).unwrap();
    assert_eq!(installed.len(), "WORD = \"\"".len() + "installed ".len() * 50_000);
}

#[test]
fn npm_installs_from_a_registry() {
    needs_run!();
    needs_installed!("nginx", "npm", "tar");
    let nginx = Server::nginx().unwrap();
    let package = nginx.dir.path().join("package");
    fs::create_dir(&package).unwrap();
    fs::write(package.join("package.json"), r#"{"name":"lastack-probe","version":"1.0.0"}"#).unwrap();
    write_noise(&package.join("noise"), 500_000);
    let mut tar = Command::new("tar");
    tar.arg("-czf").arg(nginx.content().join("probe.tgz")).arg("-C").arg(nginx.dir.path()).arg("package");
    run(&mut tar, LONG).unwrap().expect_success("tar");
    let registry = format!("http://{HOST_V4}:{}/", nginx.port);
    let document = serde_json::json!({
        "name": "lastack-probe",
        "dist-tags": { "latest": "1.0.0" },
        "versions": { "1.0.0": {
            "name": "lastack-probe", "version": "1.0.0", "dist": { "tarball": format!("{registry}probe.tgz") },
        } },
    });
    fs::write(nginx.content().join("lastack-probe"), document.to_string()).unwrap();
    let runner = Runner::new(User::Current);
    fs::write(runner.dir().join("package.json"), "{}").unwrap();
    let args = ["install", "--registry", &registry, "--no-audit", "--no-fund", "lastack-probe"];
    at_home(&runner, "npm", &args);
    let installed = runner.dir().join("node_modules/lastack-probe/noise");
    assert_same_content(&package.join("noise"), &installed);
}

#[test]
fn apt_updates_and_downloads_from_a_mirror() {
    needs_run!();
    needs_installed!("nginx", "apt-get", "dpkg-deb");
    let nginx = Server::nginx().unwrap();
    let tree = nginx.dir.path().join("tree");
    fs::create_dir_all(tree.join("DEBIAN")).unwrap();
    let control = "Package: lastack-probe\nVersion: 1.0\nArchitecture: all\n\
                   Maintainer: e2e <e2e@lastack.test>\nDescription: a probe\n";
    fs::write(tree.join("DEBIAN/control"), control).unwrap();
    write_noise(&tree.join("noise"), 700_000);
    let package = nginx.content().join("probe.deb");
    let mut build = Command::new("dpkg-deb");
    build.args(["--root-owner-group", "--build"]).arg(&tree).arg(&package);
    run(&mut build, LONG).unwrap().expect_success("dpkg-deb");
    let size = fs::metadata(&package).unwrap().len();
    let list = format!("{control}Filename: ./probe.deb\nSize: {size}\nSHA256: {}\n", sha256(&package));
    fs::write(nginx.content().join("Packages"), list).unwrap();
    // As root apt becomes its own user for the download, which the sandbox must allow.
    each_user(|user| {
        let runner = Runner::new(user);
        let source = runner.dir().join("sources.list");
        fs::write(&source, format!("deb [trusted=yes] http://{HOST_V4}:{}/ ./\n", nginx.port)).unwrap();
        let script = "mkdir -p state/lists/partial cache/archives/partial && chmod -R 777 state cache
            o() { apt-get -q -o Dir::State=\"$PWD/state\" -o Dir::State::status=/dev/null -o Dir::Cache=\"$PWD/cache\" \
                -o Dir::Etc::sourcelist=\"$1\" -o Dir::Etc::sourceparts=- -o Dir::Etc::main=/dev/null -o Dir::Etc::parts=- \
                -o Acquire::http::Proxy=false -o Acquire::Languages=none \"$2\" $3; }
            o \"$1\" update && o \"$1\" download lastack-probe && mv lastack-probe_1.0_all.deb got.deb";
        at_home(&runner, "sh", &["-ec", script, "sh", &source.display().to_string()]);
        assert_same_content(&package, &runner.dir().join("got.deb"));
    });
}

const JAVA: &str = r#"
import java.net.URI;
import java.net.http.*;
import java.security.MessageDigest;
import java.util.HexFormat;

public class Fetch {
    public static void main(String[] arguments) throws Exception {
        var client = HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).build();
        for (var url : arguments) {
            var answer = client.send(HttpRequest.newBuilder(URI.create(url)).build(), HttpResponse.BodyHandlers.ofByteArray());
            System.out.println(HexFormat.of().formatHex(MessageDigest.getInstance("SHA-256").digest(answer.body())));
        }
    }
}
"#;

const GO: &str = r#"
package main

import ("crypto/sha256"; "fmt"; "io"; "net/http"; "os")

func main() {
	for _, url := range os.Args[1:] {
		answer, err := http.Get(url)
		if err != nil { panic(err) }
		sum := sha256.New()
		if _, err := io.Copy(sum, answer.Body); err != nil { panic(err) }
		answer.Body.Close()
		fmt.Printf("%x\n", sum.Sum(nil))
	}
}
"#;

/// `program args… URL URL` must print the digest of a file of 3 MB twice.
fn fetches(program: &str, args: &[&str], source: (&str, &str)) {
    let nginx = Server::nginx().unwrap();
    let file = nginx.content().join("file");
    write_noise(&file, 3_000_000);
    let url = format!("http://{HOST_V4}:{}/file", nginx.port);
    let runner = Runner::new(User::Current);
    fs::write(runner.dir().join(source.0), source.1).unwrap();
    let args = [args, &[source.0, &url, &url]].concat();
    let digest = sha256(&file);
    assert_eq!(told(&at_home(&runner, program, &args)), format!("{digest}\n{digest}"));
    let bytes: u64 = runner.journal().iter().map(|line| line.number("bytes_down")).sum();
    assert!(bytes > 6_000_000, "{bytes}");
}

#[test]
fn java_fetches_over_http() {
    needs_run!();
    needs_installed!("nginx", "java", "javac", "sha256sum");
    fetches("java", &[], ("Fetch.java", JAVA));
}

#[test]
fn go_fetches_over_http() {
    needs_run!();
    needs_installed!("nginx", "go", "sha256sum");
    fetches("go", &["run"], ("fetch.go", GO));
}

/// The directory of PostgreSQL's programs, which Debian keeps out of `PATH`.
fn postgresql() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?.flatten();
    let mut found: Vec<PathBuf> = versions.map(|version| version.path().join("bin")).collect();
    found.retain(|bin| ["initdb", "postgres", "pgbench"].iter().all(|name| bin.join(name).exists()));
    found.sort();
    found.pop()
}

#[test]
fn pgbench_drives_a_database() {
    needs_run!();
    needs_installed!("postgresql");
    let bin = postgresql().expect("it is installed");
    let dir = servers::directory().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let data = dir.path().join("data").display().to_string();
    // PostgreSQL does not run as root.
    let owner = |program: &str| {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]);
        if needs::is_root() {
            command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]);
        }
        command.arg("--").arg(bin.join(program)).current_dir(dir.path()).env("LC_ALL", "C");
        command
    };
    let mut make = owner("initdb");
    make.args(["--no-sync", "--auth", "trust", "--username", "e2e", "--pgdata", &data]);
    run(&mut make, LONG).unwrap().expect_success("initdb");
    let port = servers::free_port().unwrap().to_string();
    let mut serve = owner("postgres");
    serve.args(["-D", &data, "-p", &port, "-h", "127.0.0.1", "-F", "-k", &dir.path().display().to_string()]);
    let _server = Process::spawn(serve.stdin(Stdio::null()).stderr(Stdio::null())).unwrap();
    let pgbench = |runner: &Runner, args: &[&str]| {
        let mut command = runner.command(bin.join("pgbench"));
        command.args(["-h", HOST_V4, "-p", &port, "-U", "e2e"]).args(args).arg("postgres");
        run(&mut command, LONG).expect("lastack starts")
    };
    let up = clock::until(Duration::from_secs(60), || {
        std::net::TcpStream::connect(format!("127.0.0.1:{port}")).is_ok().then_some(())
    });
    assert!(up.is_some(), "PostgreSQL does not listen");
    each_user(|user| {
        let runner = Runner::new(user);
        pgbench(&runner, &["--initialize", "--quiet"]).expect_success("pgbench -i");
        let ended = pgbench(&runner, &["--client", "4", "--transactions", "50"]).expect_success("pgbench");
        let text = ended.text();
        assert!(text.contains("number of transactions actually processed: 200/200"), "{text}");
        assert!(text.contains("number of failed transactions: 0"), "{text}");
    });
}

#[test]
fn rsync_over_ssh_copies_a_tree() {
    needs_run!();
    needs_installed!("rsync", "sshd", "ssh", "ssh-keygen", "diff");
    let sshd = Server::sshd().unwrap();
    let tree = sshd.dir.path().join("tree");
    for number in 0..200_u64 {
        let dir = tree.join(format!("dir{}", number % 7));
        fs::create_dir_all(&dir).unwrap();
        write_noise(&dir.join(format!("file{number}")), number * 1000);
    }
    let runner = Runner::new(User::Current);
    let key = sshd.dir.path().join("client").display().to_string();
    let ssh = format!(
        "ssh -F none -i {key} -p {} -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o BatchMode=yes -o LogLevel=ERROR",
        sshd.port
    );
    let from = format!("{HOST_V4}:{}/", tree.display());
    for round in ["first", "nothing new"] {
        let args = ["-a", "--stats", "-e", &ssh, &from, "copy"];
        let stats = at_home(&runner, "rsync", &args).text();
        let copied = stats.lines().find(|line| line.starts_with("Number of regular files transferred"));
        let expected = if round == "first" { "200" } else { "0" };
        assert!(copied.is_some_and(|line| line.ends_with(&format!(": {expected}"))), "{round}: {stats}");
    }
    let mut compare = Command::new("diff");
    compare.arg("-r").arg(&tree).arg(runner.dir().join("copy"));
    run(&mut compare, LONG).unwrap().expect_success("diff -r");
}
