//! `--pcap` writes what Wireshark reads without a complaint.

use std::process::Command;

use lastack_e2e::process::run;
use lastack_e2e::runner::{HOST_V4, HOST_V6, Runner, User};
use lastack_e2e::servers::Server;

use crate::{SHORT, needs_run, write_noise};

#[test]
fn tshark_finds_no_malformed_packet_and_no_bad_checksum() {
    needs_run!();
    needs!("tshark", "nginx", "curl");
    let nginx = Server::nginx().unwrap();
    write_noise(&nginx.content().join("file"), 1_000_000);
    for host in [HOST_V4, HOST_V6] {
        let runner = Runner::new(User::Current);
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
    }
}
