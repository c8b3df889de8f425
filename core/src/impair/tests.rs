use super::*;

fn path(conditions: Conditions) -> Path {
    Path::new(7, "up", conditions)
}

fn lost(path: &mut Path, packets: usize) -> Vec<bool> {
    (0..packets).map(|_| matches!(path.carry(Instant::ZERO, 1500), Carried::Lost(_))).collect()
}

fn arrivals(path: &mut Path, packets: usize) -> Vec<Option<Instant>> {
    let arrival = |carried| match carried {
        Carried::Arrives { at, .. } => Some(at),
        Carried::Lost(_) => None,
    };
    (0..packets).map(|_| arrival(path.carry(Instant::ZERO, 1000))).collect()
}

#[test]
fn shares_are_met() {
    let mut path = path(Conditions {
        loss: Loss::Random(Share::percent(10.0)),
        reorder: Share::percent(5.0),
        duplicate: Share::percent(2.0),
        ..Conditions::default()
    });
    lost(&mut path, 100_000);
    let counters = path.counters();
    assert!((9_700..10_300).contains(&counters.lost), "{counters:?}");
    // Of the nine tenths that were not lost.
    assert!((4_300..4_700).contains(&counters.held_back), "{counters:?}");
    assert!((1_680..1_920).contains(&counters.duplicated), "{counters:?}");
}

#[test]
fn the_ends_of_the_scale_are_nothing_and_everything() {
    let none =
        lost(&mut path(Conditions { loss: Loss::Random(Share::NONE), ..Conditions::default() }), 10_000);
    let all = lost(&mut path(Conditions { loss: Loss::Random(Share::ALL), ..Conditions::default() }), 10_000);
    assert!(!none.contains(&true) && !all.contains(&false));
    assert_eq!(Share::percent(-1.0), Share::NONE);
    assert_eq!(Share::percent(1000.0), Share::ALL);
}

#[test]
fn bursts_have_the_asked_share_and_length() {
    let loss = Loss::bursts(Share::percent(5.0), 20.0).unwrap();
    let lost = lost(&mut path(Conditions { loss, ..Conditions::default() }), 1_000_000);
    let share = lost.iter().filter(|lost| **lost).count() as f64 / lost.len() as f64;
    let bursts = lost.windows(2).filter(|pair| !pair[0] && pair[1]).count();
    let mean = share * lost.len() as f64 / bursts as f64;
    assert!((0.045..0.055).contains(&share), "{share}");
    assert!((18.5..21.5).contains(&mean), "{mean}");
}

#[test]
fn no_chain_loses_everything_or_in_bursts_below_one() {
    assert_eq!(Loss::bursts(Share::ALL, 10.0), None);
    assert_eq!(Loss::bursts(Share::percent(5.0), 0.5), None);
    assert_eq!(Loss::bursts(Share::percent(5.0), f64::NAN), None);
}

#[test]
fn decisions_depend_on_seed_direction_and_ordinal_alone() {
    let loss = Loss::Random(Share::percent(20.0));
    let decided = |seed, direction, conditions| lost(&mut Path::new(seed, direction, conditions), 500);
    let plain = Conditions { loss, ..Conditions::default() };
    let first = decided(7, "up", plain);
    // Other impairments and other times change nothing.
    let busy = Conditions {
        delay: Duration::from_millis(20),
        jitter: Duration::from_millis(5),
        reorder: Share::percent(5.0),
        duplicate: Share::percent(5.0),
        ..plain
    };
    assert_eq!(decided(7, "up", busy), first);
    let mut late = Path::new(7, "up", plain);
    let again: Vec<bool> = (0..500_u64)
        .map(|n| matches!(late.carry(Instant::from_millis(n * n), 40), Carried::Lost(_)))
        .collect();
    assert_eq!(again, first);
    assert_ne!(decided(8, "up", plain), first);
    assert_ne!(decided(7, "down", plain), first);
}

#[test]
fn logs_of_two_lengths_agree_as_far_as_both_go() {
    let conditions = Conditions {
        loss: Loss::Random(Share::percent(5.0)),
        jitter: Duration::from_millis(1),
        reorder: Share::percent(5.0),
        ..Conditions::default()
    };
    let marks = |seed, packets| {
        let mut path = Path::new(seed, "down", conditions);
        lost(&mut path, packets);
        path.log().marks()
    };
    let (short, long) = (marks(7, 1000), marks(7, 5000));
    assert_eq!(short.last().map(|mark| mark.0), Some(1000));
    assert_eq!(short[..10], long[..10]);
    assert_eq!(short[9].0, 512);
    assert_ne!(marks(8, 1000)[9], short[9]);
    assert!(marks(7, 0).is_empty());
}

#[test]
fn jitter_keeps_order_and_its_range() {
    let conditions = Conditions {
        delay: Duration::from_millis(20),
        jitter: Duration::from_millis(5),
        ..Conditions::default()
    };
    let mut kept = path(conditions);
    let mut last = Instant::ZERO;
    for n in 0..2000 {
        let now = Instant::from_micros(n * 100);
        let Carried::Arrives { at, .. } = kept.carry(now, 1500) else { panic!("nothing is lost") };
        assert!(at >= last, "packet {n} overtook another");
        let took = at.saturating_since(now);
        assert!((Duration::from_millis(15)..=Duration::from_millis(25)).contains(&took), "{took:?}");
        last = at;
    }
    let mut free = path(Conditions { jitter_reorders: true, ..conditions });
    let arrivals = arrivals(&mut free, 100);
    assert!(!arrivals.is_sorted());
}

#[test]
fn more_jitter_than_delay_is_never_earlier_than_now() {
    let mut path = path(Conditions { jitter: Duration::from_secs(1), ..Conditions::default() });
    let now = Instant::from_millis(10);
    for _ in 0..100 {
        let Carried::Arrives { at, .. } = path.carry(now, 40) else { panic!("nothing is lost") };
        assert!(at >= now);
    }
}

#[test]
fn a_held_back_packet_is_overtaken_and_holds_nobody_up() {
    let mut path = path(Conditions {
        delay: Duration::from_millis(1),
        reorder: Share::percent(10.0),
        ..Conditions::default()
    });
    let arrivals = arrivals(&mut path, 1000);
    let late = arrivals.iter().filter(|at| **at == Some(Instant::from_millis(6))).count() as u64;
    let prompt = arrivals.iter().filter(|at| **at == Some(Instant::from_millis(1))).count() as u64;
    assert_eq!((late, late + prompt), (path.counters().held_back, 1000));
    assert!(late > 50);
}

#[test]
fn a_rate_spaces_packets_and_its_queue_ends_by_bytes_or_packets() {
    let at = |ms| Some(Instant::from_millis(ms));
    // 1000 bytes take 1 ms.
    let rate =
        Conditions { rate: Some(8_000_000), delay: Duration::from_millis(10), ..Conditions::default() };
    let mut bytes = path(Conditions { queue: QueueLimit { bytes: 3000, ..QueueLimit::default() }, ..rate });
    assert_eq!(arrivals(&mut bytes, 4), [at(11), at(12), at(13), None]);
    let mut packets = path(Conditions { queue: QueueLimit { packets: 2, bytes: u64::MAX }, ..rate });
    assert_eq!(arrivals(&mut packets, 3), [at(11), at(12), None]);
    assert_eq!(packets.counters().queue_full, 1);
    // One has left: there is room for one.
    assert_eq!(
        packets.carry(Instant::from_millis(1), 1000),
        Carried::Arrives { at: Instant::from_millis(13), twice: false }
    );
    assert_eq!(packets.carry(Instant::from_millis(1), 1000), Carried::Lost(LostBy::QueueFull));
}

#[test]
fn what_waits_is_bounded_whatever_is_asked() {
    let queue = QueueLimit { packets: u32::MAX, bytes: u64::MAX };
    let mut path = path(Conditions { rate: Some(1), queue, ..Conditions::default() });
    for _ in 0..70_000 {
        path.carry(Instant::ZERO, 1500);
    }
    assert_eq!(path.counters().queue_full, 70_000 - WAITING as u64);
}

#[test]
fn no_value_panics() {
    let wild = Conditions {
        loss: Loss::None,
        delay: Duration::MAX,
        jitter: Duration::MAX,
        jitter_reorders: true,
        rate: Some(0),
        queue: QueueLimit { packets: u32::MAX, bytes: u64::MAX },
        reorder: Share::ALL,
        reorder_by: Duration::MAX,
        duplicate: Share::ALL,
    };
    let mut path = path(wild);
    for len in [0, 1, 1500, 65_535] {
        path.carry(Instant::from_millis(1), len);
    }
}
