//! A bad link loses packets and no bytes; a seed repeats what it did; what is forced looks real.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{TcpListener, UdpSocket};
use std::path::Path;
use std::process::Command;

use lastack_e2e::binaries;
use lastack_e2e::needs::{self, long};
use lastack_e2e::process::run;
use lastack_e2e::runner::{HOST_V4, Runner, User};
use lastack_e2e::servers::Server;
use serde_json::Value;

use crate::{LONG, SHORT, assert_same_content, each_user, needs_run, write_noise};

const BAD: [&str; 10] =
    ["--loss", "5%", "--delay", "20", "--reorder", "5%", "--duplicate", "1%", "--seed", "7"];

/// The account of the link in a run's journal.
fn link(runner: &Runner) -> Value {
    let text = std::fs::read_to_string(runner.dir().join("journal.json")).expect("a journal");
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("a JSON line"));
    let accounts: Vec<Value> = lines.filter(|line| line["event"] == "impairments").collect();
    assert_eq!(accounts.len(), 1, "{text}");
    accounts[0].clone()
}

/// Hashes of the decisions at powers of two.
fn decisions(account: &Value, direction: &str) -> Vec<(u64, String)> {
    let marks = account["rules"][0][direction]["decisions"].as_array().expect("marks");
    let read = |mark: &Value| (mark[0].as_u64().unwrap(), mark[1].as_str().unwrap().to_owned());
    marks.iter().map(read).filter(|(ordinal, _)| ordinal.is_power_of_two()).collect()
}

#[test]
fn what_crosses_a_bad_link_is_whole_and_a_seed_repeats_its_decisions() {
    needs_run!();
    needs!("nginx", "curl");
    let nginx = Server::nginx().unwrap();
    let size = if long() { 16 << 20 } else { 1 << 20 };
    let source = nginx.dir.path().join("source");
    write_noise(&source, size);
    write_noise(&nginx.content().join("answer"), size);
    let accounts: Vec<Value> = (0..2)
        .map(|n| {
            let runner = Runner::new(User::Current).flags(&BAD);
            let at = format!("http://{HOST_V4}:{}", nginx.port);
            let put = format!("put-{n}");
            let script = format!(
                "curl -sS --fail -o got {at}/answer && curl -sS --fail -T {} {at}/{put}",
                source.display()
            );
            runner.run("sh", &["-c", &script], LONG).expect_success(&script);
            assert_same_content(&nginx.content().join("answer"), &runner.dir().join("got"));
            assert_same_content(&source, &nginx.content().join(&put));
            assert!(runner.journal().iter().all(|line| line.text("how") == "fin"), "{:?}", runner.journal());
            link(&runner)
        })
        .collect();
    for account in &accounts {
        assert_eq!(account["seed"], 7);
        assert_eq!(
            account["asked"],
            serde_json::json!(["--loss 5%", "--delay 20", "--reorder 5%", "--duplicate 1%"])
        );
        for direction in ["up", "down"] {
            let told = &account["rules"][0][direction];
            for what in ["lost", "held_back", "overtaken", "duplicated"] {
                assert!(told[what].as_u64().unwrap() > 0, "{direction} {what}: {told}");
            }
            // A timer may be late on a busy machine, and 50 µs early on any.
            assert!(told["delay_us"]["min"].as_u64().unwrap() >= 19_950, "{told}");
            let (packets, lost) = (told["packets"].as_u64().unwrap(), told["lost"].as_u64().unwrap());
            println!("{direction}: {lost} of {packets} lost, {}", told["delay_us"]);
        }
    }
    for direction in ["up", "down"] {
        let [one, two] = [0, 1].map(|n| decisions(&accounts[n], direction));
        let both = one.len().min(two.len());
        assert!(both >= 8, "more than a hundred packets {direction}: {one:?}");
        assert_eq!(one[..both], two[..both], "seed 7, {direction}");
    }
}

#[test]
fn flags_are_for_one_direction_or_one_destination_alone() {
    needs_run!();
    needs!("nginx", "curl");
    let nginx = Server::nginx().unwrap();
    write_noise(&nginx.content().join("page"), 300_000);
    each_user(|user| {
        let other = format!("20%,{HOST_V4}:1");
        let runner = Runner::new(user).flags(&["--loss", &other, "--duplicate", "down:100%"]);
        let url = format!("http://{HOST_V4}:{}/page", nginx.port);
        runner.run("curl", &["-sS", "--fail", "-o", "got", &url], LONG).expect_success("curl");
        assert_same_content(&nginx.content().join("page"), &runner.dir().join("got"));
        let account = link(&runner);
        assert_eq!(account["rules"][0]["up"]["packets"], 0, "{account}");
        let rest = &account["rules"][1];
        assert_eq!((&rest["up"]["duplicated"], &rest["up"]["lost"]), (&Value::from(0), &Value::from(0)));
        assert_eq!(rest["down"]["duplicated"], rest["down"]["packets"], "{account}");
    });
}

#[test]
fn what_is_forced_looks_real_to_programs_and_kernels() {
    needs_run!();
    needs!("ip", "ss", "unshare", "nsenter");
    let play = binaries::build("lastack-e2e", "forced-law");
    let _ = (binaries::lastack(), binaries::actor());
    let ended = run(&mut Command::new(play), LONG).unwrap();
    println!("{}", ended.text());
    assert!(ended.success(), "{}\n{}", ended.text(), ended.stderr);
    assert_eq!(ended.text().matches(": the same\n").count(), 5, "{}", ended.text());
}

/// Waits for the end of its first connection, then asks over its second.
const TWO: &str = "
import errno, socket, sys
one, two = [socket.create_connection((sys.argv[1], int(port)), 20) for port in sys.argv[2:]]
try: print('read', one.recv(1))
except OSError as error: print(errno.errorcode[error.errno])
two.sendall(b'still there?')
print(two.recv(100).decode())
";

#[test]
fn what_is_forced_on_one_destination_leaves_others_alone() {
    needs_run!();
    needs!("python3");
    each_user(|user| {
        let [one, two] = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let [port_one, port_two] = [&one, &two].map(|listener| listener.local_addr().unwrap().port());
        // Says nothing; what its reader meets is told by its thread.
        let reset = std::thread::spawn(move || {
            let (mut stream, _) = one.accept().unwrap();
            stream.set_read_timeout(Some(SHORT)).unwrap();
            stream.read(&mut [0; 1]).map_err(|error| error.kind())
        });
        std::thread::spawn(move || {
            let (mut stream, _) = two.accept().unwrap();
            let mut asked = [0; 12];
            stream.read_exact(&mut asked).unwrap();
            assert_eq!(&asked, b"still there?");
            stream.write_all(b"as before").unwrap();
        });
        let runner = Runner::new(user).flags(&["--inject", &format!("rst@300ms,{HOST_V4}:{port_one}")]);
        let args = ["-c", TWO, HOST_V4, &port_one.to_string(), &port_two.to_string()];
        let text = runner.run("python3", &args, SHORT).expect_success("the script").text();
        assert_eq!(text, "ECONNRESET\nas before\n");
        assert_eq!(reset.join().unwrap(), Err(ErrorKind::ConnectionReset), "the server's end");
        let journal = runner.journal();
        let mut told: Vec<_> = journal
            .iter()
            .map(|line| ["remote", "how", "reason", "injected.event"].map(|field| line.text(field)).join(" "))
            .collect();
        told.sort_by_key(|line| line.ends_with("absent"));
        assert_eq!(
            told,
            [
                format!("{HOST_V4}:{port_one} reset injected rst"),
                format!("{HOST_V4}:{port_two} fin null absent")
            ]
        );
    });
}

#[test]
fn the_interface_has_the_mtu_that_is_asked_for() {
    needs_run!();
    needs!("ip");
    for device in ["tun", "veth"] {
        if device == "tun" && (!needs::is_root() || !Path::new("/dev/net/tun").exists()) {
            needs::skip("a TUN needs root and /dev/net/tun");
            continue;
        }
        for mtu in ["576", "9000"] {
            let mut command = Command::new(binaries::lastack());
            command.args(["run", "--report", "none", "--device", device, "--mtu", mtu]);
            command.args(["--", "ip", "-o", "link", "show", &format!("{device}0")]);
            let text = run(&mut command, SHORT).unwrap().expect_success(device).text();
            assert!(text.contains(&format!(" mtu {mtu} ")), "{device}: {text}");
        }
    }
}

#[test]
fn a_rate_takes_its_time_and_a_short_queue_loses() {
    needs_run!();
    needs!("nginx", "curl");
    let nginx = Server::nginx().unwrap();
    write_noise(&nginx.content().join("file"), 300_000);
    let url = format!("http://{HOST_V4}:{}/file", nginx.port);
    each_user(|user| {
        let runner = Runner::new(user).flags(&["--rate", "1M", "--queue", "10"]);
        runner.run("curl", &["-sS", "--fail", "-o", "got", &url], LONG).expect_success("curl");
        assert_same_content(&nginx.content().join("file"), &runner.dir().join("got"));
        let account = link(&runner);
        let down = &account["rules"][0]["down"];
        let number = |what: &str| down[what].as_u64().unwrap();
        assert!(number("queue_full") > 0, "{account}");
        assert_eq!(number("lost"), 0, "the queue's losses are no loss that was asked for: {account}");
        assert_eq!(number("packets"), number("arrived") + number("queue_full"), "{account}");
        // A million bits a second: what came cannot have come faster, its headers left out.
        let line = &runner.journal()[0];
        let (bytes, took_us) = (line.number("bytes_down"), line.number("duration_us"));
        assert!(bytes >= 300_000, "{line:?}");
        assert!(took_us >= bytes * 8, "{bytes} bytes in {took_us} us");
    });
}

#[test]
fn jitter_spreads_packets_and_keeps_their_order() {
    needs_run!();
    needs!("nginx", "curl");
    let nginx = Server::nginx().unwrap();
    write_noise(&nginx.content().join("file"), 1 << 20);
    let url = format!("http://{HOST_V4}:{}/file", nginx.port);
    let runner = Runner::new(User::Current).flags(&["--delay", "20±5", "--seed", "7"]);
    runner.run("curl", &["-sS", "--fail", "-o", "got", &url], LONG).expect_success("curl");
    assert_same_content(&nginx.content().join("file"), &runner.dir().join("got"));
    let account = link(&runner);
    for direction in ["up", "down"] {
        let told = &account["rules"][0][direction];
        let us = |what: &str| told["delay_us"][what].as_u64().unwrap();
        // A timer may be late on a busy machine, and 50 µs early on any.
        assert!((14_950..20_000).contains(&us("min")), "{direction}: {told}");
        assert!(us("max") > 20_000, "{direction}: {told}");
        assert_eq!(told["overtaken"], 0, "{direction}: {told}");
    }
}

const DATAGRAMS: usize = 4000;

/// Sends numbered datagrams, a few thousand a second.
const NUMBERS: &str = "
import socket, sys, time
out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
out.connect((sys.argv[1], int(sys.argv[2])))
for number in range(int(sys.argv[3])):
    out.send(b'%d' % number)
    time.sleep(0.0002)
";

#[test]
fn losses_come_in_bursts_of_the_length_that_is_asked_for() {
    needs_run!();
    needs!("python3");
    // The mean length of a run of losses: of single ones at 10 % it is 1.1.
    for (loss, mean) in [("up:10%", 1.0..1.3), ("up:10%/5", 3.5..7.0)] {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = socket.local_addr().unwrap().port().to_string();
        let came = std::thread::spawn(move || {
            let mut came = vec![false; DATAGRAMS];
            let mut buffer = [0; 16];
            while let Ok(len) = socket.recv(&mut buffer) {
                let Ok(number) = std::str::from_utf8(&buffer[..len]).unwrap().parse::<usize>() else { break };
                came[number] = true;
            }
            came
        });
        let runner = Runner::new(User::Current).flags(&["--loss", loss, "--seed", "7"]);
        let args = ["-c", NUMBERS, HOST_V4, &port, &DATAGRAMS.to_string()];
        runner.run("python3", &args, SHORT).expect_success("the script");
        UdpSocket::bind("127.0.0.1:0").unwrap().send_to(b"end", format!("127.0.0.1:{port}")).unwrap();
        let came = came.join().unwrap();
        let lost = came.iter().filter(|came| !**came).count();
        let bursts = came.chunk_by(|one, next| one == next).filter(|run| !run[0]).count();
        let found = lost as f64 / bursts as f64;
        println!("--loss {loss} --seed 7: {lost} lost in {bursts} bursts of {found:.2}");
        assert!((200..700).contains(&lost), "{lost} of {DATAGRAMS}");
        assert!(mean.contains(&found), "{lost} lost in {bursts} bursts");
    }
}
