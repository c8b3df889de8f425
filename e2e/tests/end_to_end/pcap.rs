//! `--pcap` writes what Wireshark reads without a complaint.

use std::process::Command;

use lastack_e2e::process::run;
use lastack_e2e::runner::{self, HOST_V4, HOST_V6, Runner, User};
use lastack_e2e::servers::Server;

use crate::{LONG, SHORT, needs_run, write_noise};

#[test]
fn tshark_finds_no_malformed_packet_and_no_bad_checksum() {
    needs_run!();
    needs!("tshark", "nginx", "curl");
    let nginx = Server::nginx().unwrap();
    write_noise(&nginx.content().join("file"), 1_000_000);
    for (host, user) in runner::users().into_iter().flat_map(|user| [(HOST_V4, user), (HOST_V6, user)]) {
        let runner = Runner::new(user);
        let capture = runner.dir().join("run.pcapng").display().to_string();
        let runner = runner.flags(&["--pcap", &capture]);
        let url = format!("http://{host}:{}/file", nginx.port);
        let put = format!("http://{host}:{}/put", nginx.port);
        let both = format!("curl -sS --fail -o got {url} && curl -sS --fail -T got {put}");
        runner.run("sh", &["-c", &both], SHORT).expect_success("curl");

        let count = |filter: &str| {
            let mut tshark = Command::new("tshark");
            tshark.args(["-r", &capture, "-o", "tcp.check_checksum:TRUE", "-o", "ip.check_checksum:TRUE"]);
            tshark.args([
                "-o",
                "udp.check_checksum:TRUE",
                "-Y",
                filter,
                "-T",
                "fields",
                "-e",
                "frame.number",
            ]);
            run(&mut tshark, SHORT).unwrap().expect_success("tshark").text().lines().count()
        };
        assert_eq!(count("_ws.malformed"), 0, "malformed");
        assert_eq!(
            count("tcp.checksum.status == \"Bad\" || ip.checksum.status == \"Bad\""),
            0,
            "bad checksums"
        );
        assert_eq!(
            count("udp.checksum.status == \"Bad\" || icmpv6.checksum.status == \"Bad\""),
            0,
            "bad checksums"
        );
        assert!(count("tcp.checksum.status == \"Good\"") > 100, "checksums are there and good");
        assert_eq!(count("tcp.flags.syn == 1 && tcp.flags.ack == 0"), 2, "SYN");
        assert_eq!(count("tcp.flags.syn == 1 && tcp.flags.ack == 1"), 2, "SYN-ACK");
        assert_eq!(count("tcp.flags.fin == 1"), 4, "FIN each way, twice");
        assert_eq!(count("tcp.flags.reset == 1"), 0, "no reset");
        assert_eq!(count("tcp.analysis.lost_segment || tcp.analysis.ack_lost_segment"), 0, "nothing missing");
        assert_eq!(count("frame.len > 1514"), 0, "packets are of the link's size");
        let data = count("tcp.len > 0");
        assert_eq!(
            count("tcp.len > 0 && frame.comment contains \"curl\""),
            data,
            "the process, in a comment"
        );
    }
}

/// One segment as tshark reads it: whether the program sent it, and what it carries.
struct Segment {
    up: bool,
    syn: bool,
    ack: bool,
    fin: bool,
    /// Relative numbers, as tshark counts them: a SYN is 0.
    seq: u64,
    ack_seq: u64,
    len: u64,
}

fn segments(capture: &str) -> Vec<Segment> {
    let mut tshark = Command::new("tshark");
    tshark.args(["-r", capture, "-Y", "tcp", "-T", "fields"]);
    for field in
        ["ip.src", "tcp.flags.syn", "tcp.flags.ack", "tcp.flags.fin", "tcp.seq", "tcp.ack", "tcp.len"]
    {
        tshark.args(["-e", field]);
    }
    let text = run(&mut tshark, SHORT).unwrap().expect_success("tshark").text();
    let is = |word: &str| ["1", "True"].contains(&word);
    let number = |word: &str| word.parse().expect("a number");
    text.lines()
        .map(|line| {
            let words: Vec<&str> = line.split('\t').collect();
            Segment {
                up: words[0] != HOST_V4,
                syn: is(words[1]),
                ack: is(words[2]),
                fin: is(words[3]),
                seq: number(words[4]),
                ack_seq: number(words[5]),
                len: number(words[6]),
            }
        })
        .collect()
}

/// The states that the stack's end of one connection must have gone through (RFC 9293, figure 5), from its packets.
fn states_of(segments: &[Segment]) -> Vec<&'static str> {
    let mut states = vec!["LISTEN"];
    let mut our_fin_ends = None;
    for segment in segments {
        let state = *states.last().expect("one");
        let fin_is_acked = segment.ack && our_fin_ends == Some(segment.ack_seq);
        let next: &[&str] = match (state, segment.up) {
            ("LISTEN", true) if segment.syn => &["SYN-RECV"],
            ("SYN-RECV", true) if segment.ack => &["ESTAB"],
            ("ESTAB", false) if segment.fin => &["FIN-WAIT-1"],
            ("ESTAB", true) if segment.fin => &["CLOSE-WAIT"],
            ("CLOSE-WAIT", false) if segment.fin => &["LAST-ACK"],
            ("FIN-WAIT-1", true) if segment.fin && fin_is_acked => &["FIN-WAIT-2", "TIME-WAIT"],
            ("FIN-WAIT-1", true) if segment.fin => &["CLOSING"],
            ("FIN-WAIT-1", true) if fin_is_acked => &["FIN-WAIT-2"],
            ("FIN-WAIT-2", true) if segment.fin => &["TIME-WAIT"],
            ("CLOSING", true) if fin_is_acked => &["TIME-WAIT"],
            ("LAST-ACK", true) if fin_is_acked => &["UNCONN"],
            _ => &[],
        };
        if segment.fin && !segment.up {
            our_fin_ends = Some(segment.seq + segment.len + 1);
        }
        states.extend(next);
    }
    states
}

#[test]
fn the_journal_tells_what_tshark_reads_in_the_same_capture() {
    needs_run!();
    needs!("tshark", "nginx", "curl");
    let nginx = Server::nginx().unwrap();
    write_noise(&nginx.content().join("file"), 300_000);
    let runner = Runner::new(User::Current);
    let capture = runner.dir().join("run.pcapng").display().to_string();
    let runner = runner.flags(&["--pcap", &capture]);
    let url = format!("http://{HOST_V4}:{}/file", nginx.port);
    runner.run("curl", &["-sS", "--fail", "-o", "got", &url], SHORT).expect_success("curl");

    let segments = segments(&capture);
    let [syn, syn_ack, ack, ..] = &segments[..] else { panic!("no handshake") };
    assert!(syn.up && syn.syn && !syn.ack, "SYN by the program");
    assert!(!syn_ack.up && syn_ack.syn && syn_ack.ack, "SYN-ACK by the stack");
    assert!(ack.up && !ack.syn && ack.ack && ack.len == 0, "ACK by the program");

    let journal = runner.journal();
    assert_eq!(journal.len(), 1, "{journal:?}");
    let told: Vec<&str> = journal[0]
        .field("states")
        .and_then(|states| states.as_array())
        .expect("states")
        .iter()
        .map(|state| state[0].as_str().expect("a name"))
        .collect();
    let read = states_of(&segments);
    assert!(read.len() >= 5, "{read:?}");
    assert_eq!(told, read[1..], "all but the listener's own");
    let first_fin = segments.iter().find(|segment| segment.fin).expect("somebody closed");
    assert_eq!(journal[0].text("closed_by"), if first_fin.up { "program" } else { "remote" });
    // A SYN is number 0, so that the first byte is number 1.
    let bytes = |up: bool| {
        let data = segments.iter().filter(|segment| segment.up == up && segment.len > 0);
        data.map(|segment| segment.seq + segment.len - 1).max().expect("data")
    };
    assert_eq!((journal[0].number("bytes_up"), journal[0].number("bytes_down")), (bytes(true), bytes(false)));
}

/// The values of `fields` of the packets of `capture` that pass `filter`, a packet a line.
fn fields(capture: &str, filter: &str, fields: &[&str]) -> Vec<Vec<String>> {
    let mut tshark = Command::new("tshark");
    tshark.args(["-r", capture, "-Y", filter, "-T", "fields"]);
    for field in fields {
        tshark.args(["-e", field]);
    }
    let text = run(&mut tshark, SHORT).unwrap().expect_success("tshark").text();
    text.lines().map(|line| line.split('\t').map(str::to_owned).collect()).collect()
}

#[test]
fn both_ends_use_the_options_of_tcp_and_repair_losses_by_sack() {
    needs_run!();
    needs!("tshark", "nginx", "curl");
    let nginx = Server::nginx().unwrap();
    write_noise(&nginx.content().join("file"), 1_000_000);
    let runner = Runner::new(User::Current);
    let capture = runner.dir().join("run.pcapng").display().to_string();
    let runner = runner.flags(&["--pcap", &capture, "--loss", "3%", "--seed", "7"]);
    let at = format!("http://{HOST_V4}:{}", nginx.port);
    let both = format!("curl -sS --fail -o got {at}/file && curl -sS --fail -T got {at}/put");
    runner.run("sh", &["-c", &both], LONG).expect_success("curl");
    let options = [
        "tcp.options.mss_val",
        "tcp.options.sack_perm",
        "tcp.options.wscale.shift",
        "tcp.options.timestamp.tsval",
    ];
    for (who, filter) in [
        ("the program's kernel", format!("tcp.flags.syn == 1 && ip.dst == {HOST_V4}")),
        ("the stack", format!("tcp.flags.syn == 1 && ip.src == {HOST_V4}")),
    ] {
        let syns = fields(&capture, &filter, &options);
        assert!(syns.len() >= 2, "{who}: {syns:?}");
        for syn in &syns {
            assert_eq!(syn.len(), options.len());
            assert!(syn.iter().all(|value| !value.is_empty()), "{who}: {syn:?}");
            assert_eq!(syn[0], "1460", "{who}");
            assert_ne!(syn[2], "0", "{who}: its window is scaled");
        }
    }
    for (who, direction) in [("the program's kernel", "ip.dst"), ("the stack", "ip.src")] {
        let filter = format!("tcp.options.sack_le && {direction} == {HOST_V4}");
        let blocks = fields(&capture, &filter, &["tcp.options.sack.count"]);
        println!("{who}: {} segments with SACK blocks", blocks.len());
        assert!(blocks.len() > 3, "{who} tells what it has behind a hole");
        let segments = format!("tcp.flags.syn == 0 && tcp.flags.reset == 0 && {direction} == {HOST_V4}");
        let stamped =
            fields(&capture, &format!("{segments} && tcp.options.timestamp.tsval"), &["frame.number"]);
        assert_eq!(
            stamped.len(),
            fields(&capture, &segments, &["frame.number"]).len(),
            "{who}: timestamps on all"
        );
    }
}
