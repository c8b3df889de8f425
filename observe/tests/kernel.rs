//! The kernel source against the live kernel, judged by iproute2's `ss` on the same host.

mod support;

use std::net::TcpListener;
use std::time::Duration;

use lastack_core::tcp::state::TcpState;
use lastack_observe::filter::Filter;
use lastack_observe::row::{OwnerHow, Row};
use lastack_observe::source::kernel::{Endings, Kernel, Query, Scope};
use support::sets::{assert_equal, theirs};
use support::{eventually, in_namespace, pair, zoo};

#[test]
fn filters_choose_the_sockets_that_ss_chooses() {
    in_namespace(|| {
        let _zoo = zoo();
        let mut kernel = Kernel::open(&Scope::Own).expect("opens");
        let filters: &[&[&str]] = &[
            &[],
            &["state", "all"],
            &["state", "connected"],
            &["state", "synchronized"],
            &["state", "bucket"],
            &["state", "big"],
            &["state", "established"],
            &["state", "listening"],
            &["state", "close-wait"],
            &["state", "fin-wait-2"],
            &["state", "time-wait"],
            &["state", "fin-wait-2", "state", "close-wait"],
            &["exclude", "established"],
            &["state", "all", "exclude", "listening"],
            &["state", "all", "sport = :7001"],
            &["state", "all", "sport", "=", ":7001"],
            &["state", "all", "( sport = :7001 or dport = :7003 )"],
            &["state", "all", "sport", ">=", ":7002", "and", "sport", "<=", ":7003"],
            &["state", "all", "sport", "gt", ":7002", "sport", "lt", ":7004"],
            &["state", "all", "not", "sport", "=", ":7001"],
            &["state", "all", "! ( sport = :7001 or sport = :7002 ) and dport != :7004"],
            &["state", "all", "dst", "127.0.0.0/8"],
            &["state", "all", "dst", "127.0.0.2"],
            &["state", "all", "src", "127.0.0.2:7002"],
            &["state", "all", "src", "[::1]"],
            &["state", "all", "dst", "[::1]:7003"],
            &["state", "all", "dst", "127/8"],
            &["state", "all", "src", "127.0.0.1", "or", "src", "[::1]"],
            &["state", "all", "sport = :7001 or sport = :7002 and dst 127.0.0.1"],
            &["state", "all", "sport = :7001 and sport = :7002 or dst 127.0.0.1"],
            &["state", "all", "sport = :7001 or ( sport = :7002 and dst 127.0.0.1 )"],
            &["state", "all", "sport >= :7001 not sport = :7002"],
            &["state", "all", "not not sport = :7001"],
            &["state", "all", "sport :7001"],
            &["state", "all", "( ( dport eq :7001 ) )"],
            &["state", "all", "dport", "neq", ":7001"],
            &["state", "all", "dst", "[::ffff:127.0.0.1]"],
            &["state", "all", "autobound"],
            &["state", "all", "src", ":7004"],
        ];
        for filter in filters {
            assert_equal(&mut kernel, filter);
        }
        assert!(theirs(&["state", "all"]).len() > 30, "the zoo is populated");
    });
}

#[test]
fn single_sockets_are_read_again_and_those_that_have_gone_are_told() {
    in_namespace(|| {
        let mut zoo = zoo();
        let mut kernel = Kernel::open(&Scope::Own).expect("opens");
        let query = Query {
            filter: Filter::parse(&["state all"]).expect("parses"),
            owners: false,
            ..Query::everything()
        };
        let rows = kernel.rows(&query).expect("dumps");
        let all: Vec<usize> = (0..rows.len()).collect();
        let listens = |row: &Row| row.socket.state == TcpState::Listen;
        let told = |row: &Row| {
            (
                row.socket.cookie,
                row.socket.state,
                row.socket.local,
                row.socket.remote,
                row.socket.recv_q,
                row.inode,
            )
        };
        let fresh = kernel.reread(&rows, &all).expect("reads");
        assert_eq!(fresh.len(), rows.iter().filter(|row| !listens(row)).count());
        for (place, row) in &fresh {
            let row = row.as_ref().unwrap_or_else(|| panic!("{:?} is still there", rows[*place]));
            assert_eq!(told(row), told(&rows[*place]));
            assert_eq!(row.socket.info.is_some(), rows[*place].socket.info.is_some());
        }
        // Everything is closed: some are reset and gone, some in another state, as a dump has them.
        zoo.kept.clear();
        eventually("what is read one by one is what a dump has", || {
            let mut one_by_one: Vec<_> = kernel
                .reread(&rows, &all)
                .expect("reads")
                .iter()
                .filter_map(|(_, row)| row.as_ref().map(told))
                .collect();
            let dump = kernel.rows(&query).expect("dumps");
            let mut dump: Vec<_> = dump.iter().filter(|row| !listens(row)).map(told).collect();
            one_by_one.sort();
            dump.sort();
            (one_by_one == dump && dump.len() < fresh.len()).then_some(())
        });
    });
}

#[test]
fn a_dump_that_was_broken_off_is_in_nobodys_way() {
    in_namespace(|| {
        let listener = std::net::TcpListener::bind("127.0.0.1:7001").expect("binds");
        // More than the kernel says at once.
        let _kept: Vec<_> = (0..400).map(|_| pair(&listener)).collect();
        let mut kernel = Kernel::open(&Scope::Own).expect("opens");
        let query = Query { owners: false, ..Query::everything() };
        let all = kernel.rows(&query).expect("dumps").len();
        assert!(all > 800);
        for _ in 0..3 {
            let mut seen = 0;
            let mut first = |_: &Row| {
                seen += 1;
                std::ops::ControlFlow::Break(())
            };
            kernel.each(&query, &mut first).expect("dumps");
            assert_eq!(seen, 1);
        }
        assert_eq!(kernel.rows(&query).expect("dumps again").len(), all);
    });
}

#[test]
fn a_row_carries_all_the_kernel_says() {
    in_namespace(|| {
        let listener = TcpListener::bind("127.0.0.1:7100").expect("binds");
        let (client, server) = pair(&listener);
        use std::io::Write as _;
        (&client).write_all(&[7; 5000]).expect("writes");
        let mut kernel = Kernel::open(&Scope::Own).expect("opens");
        let mut query = Query::everything();
        query.filter = Filter::parse(&["sport = :7100 state established"]).expect("parses");
        let row = eventually("5000 bytes arrive", || {
            let rows = kernel.rows(&query).expect("dumps");
            rows.into_iter().find(|row| row.socket.recv_q == 5000)
        });
        let info = row.socket.info.as_deref().expect("a full socket");
        assert_eq!((info.state, info.bytes_received, info.segs_in > 0), (1, 5000, true));
        assert!(info.rcv_wnd > 0, "a field beyond what older structures had");
        assert!(row.memory.is_some_and(|memory| memory.rmem_alloc >= 5000 && memory.rcvbuf > 0));
        assert!(row.congestion.is_some() && row.inode != 0 && row.uid.is_some() && row.cgroup.is_some());
        assert_eq!(row.shutdown, Some(0));
        assert!(!row.socket.orphan && !row.is_unaccepted());
        drop((client, server));
    });
}

#[test]
fn owners_by_descriptor_then_by_port() {
    in_namespace(|| {
        let listener = TcpListener::bind("127.0.0.1:7200").expect("binds");
        let (client, server) = pair(&listener);
        let _waiting = std::net::TcpStream::connect("127.0.0.1:7200").expect("connects");
        // The server closes first: an orphan FIN-WAIT-2 with no owner of its own.
        let (other_client, other_server) = {
            let (_, accepted) = (client.peer_addr(), listener.accept().expect("the one that waits"));
            (client, accepted.0)
        };
        drop(server);
        let mut kernel = Kernel::open(&Scope::Own).expect("opens");
        let mut query = Query::everything();
        query.filter = Filter::parse(&["state all sport = :7200"]).expect("parses");
        let rows = eventually("the orphan is in FIN-WAIT-2", || {
            let rows = kernel.snapshot(&query).expect("reads").rows;
            rows.iter().any(|row| row.socket.state == TcpState::FinWait2).then_some(rows)
        });
        for row in &rows {
            let owner = row.owner.as_ref().unwrap_or_else(|| panic!("no owner for {row:?}"));
            match row.socket.state {
                TcpState::FinWait2 => {
                    assert!(row.socket.orphan && owner.former, "{owner:?}");
                    assert!(matches!(owner.how, OwnerHow::Listener | OwnerHow::Cgroup), "{owner:?}");
                }
                _ => {
                    assert_eq!((owner.pid, owner.how), (Some(std::process::id()), OwnerHow::Descriptor));
                    assert!(owner.fd.is_some() && !owner.former);
                }
            }
        }
        drop((other_client, other_server));
    });
}

#[test]
fn any_state_can_be_ended_and_the_listener_is_left_alone() {
    in_namespace(|| {
        let _zoo = zoo();
        let mut kernel = Kernel::open(&Scope::Own).expect("opens");
        let everything = Query { owners: false, ..Query::everything() };
        let rows = kernel.rows(&everything).expect("dumps");
        let (listeners, rest): (Vec<_>, Vec<_>) =
            rows.into_iter().partition(|row| row.socket.state == TcpState::Listen);
        assert_eq!(listeners.len(), 4);
        for state in [TcpState::Established, TcpState::FinWait2, TcpState::CloseWait, TcpState::TimeWait] {
            assert!(rest.iter().any(|row| row.socket.state == state), "{state} is in the zoo");
        }
        for row in &rest {
            // Ending one end resets the other, which may be gone before its turn.
            match kernel.destroy(row) {
                Ok(()) => {}
                Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::NotFound, "{row:?}"),
            }
        }
        eventually("only open but dead sockets are left", || {
            let left = kernel.rows(&everything).expect("dumps");
            left.iter()
                .all(|row| matches!(row.socket.state, TcpState::Listen | TcpState::Close))
                .then_some(())
        });
    });
}

#[test]
fn endings_arrive_with_the_last_tcp_info() {
    in_namespace(|| {
        let mut endings = Endings::open(&Scope::Own).expect("subscribes without privilege");
        let listener = TcpListener::bind("127.0.0.1:7300").expect("binds");
        let (client, server) = pair(&listener);
        use std::io::Write as _;
        (&client).write_all(&[1; 777]).expect("writes");
        let cookie = {
            let mut kernel = Kernel::open(&Scope::Own).expect("opens");
            let mut query = Query::everything();
            query.filter = Filter::parse(&["sport = :7300 state established"]).expect("parses");
            kernel.rows(&query).expect("dumps")[0].socket.cookie
        };
        let _ = std::io::Read::read(&mut &server, &mut [0; 1000]).expect("reads");
        drop(client);
        drop(server);
        let mut seen = Vec::new();
        eventually("both ends are told", || {
            endings.wait(Duration::from_millis(50), &mut |row| seen.push(row)).expect("waits");
            (seen.iter().filter(|row| row.socket.local.port() != 0).count() >= 2).then_some(())
        });
        let ended = seen.iter().find(|row| row.socket.cookie == cookie).expect("the server's end, by cookie");
        assert_eq!(ended.socket.info.as_deref().expect("tcp_info").bytes_received, 777 + 1, "the FIN counts");
        assert_eq!(endings.overflows(), 0);
    });
}

#[test]
fn a_namespace_is_found_and_read_from_outside() {
    let own = Kernel::open(&Scope::Own).expect("opens").figures()[0].inode;
    in_namespace(move || {
        let _listener = TcpListener::bind("127.0.0.1:7400").expect("binds");
        let inside = Kernel::open(&Scope::Own).expect("opens").figures()[0].inode;
        assert_ne!(inside, own);
        // A child in this namespace, so that it can be found by process.
        let mut child = std::process::Command::new("cat")
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::null())
            .spawn()
            .expect("cat starts");
        let pid = child.id().to_string();
        let outside = std::thread::spawn(move || {
            let mut kernel = Kernel::open(&Scope::Named(pid)).expect("root may enter");
            let rows = kernel.rows(&Query { owners: false, ..Query::everything() }).expect("dumps");
            let mut all = Kernel::open(&Scope::All).expect("opens");
            (rows, all.rows(&Query { owners: false, ..Query::everything() }).expect("dumps"))
        });
        let (rows, all) = outside.join().expect("no panic");
        assert_eq!(rows.len(), 1);
        assert_eq!((rows[0].netns, rows[0].socket.local.port()), (inside, 7400));
        assert!(all.iter().any(|row| row.netns == inside && row.socket.local.port() == 7400));
        child.kill().expect("ends");
        child.wait().expect("is reaped");
    });
}

#[test]
fn counters_are_those_of_proc() {
    in_namespace(|| {
        let listener = TcpListener::bind("127.0.0.1:7500").expect("binds");
        let _both = pair(&listener);
        let kernel = Kernel::open(&Scope::Own).expect("opens");
        let figures = kernel.figures().remove(0);
        assert_eq!(figures.counter("PassiveOpens"), 1);
        assert_eq!(figures.counter("CurrEstab"), 2);
        assert_eq!(figures.inuse, 3);
        assert_eq!(figures.number("tcp_fin_timeout"), Some(60));
        assert_eq!(figures.numbers("ip_local_port_range"), [32768, 60999]);
        assert!(figures.number("core.somaxconn").is_some());
    });
}
