//! The flags that make the link bad: `--loss`, `--delay`, `--rate`, `--queue`, `--reorder`, `--duplicate`.
//!
//! Owns:    the flags and their grammar, `[up:|down:]VALUE[,DESTINATION]`; what they come to, a rule a destination.
//! Rules:   of the destinations given, the first that matches a packet counts, and what it leaves open is taken from the
//!          flags without one. A flag for one direction goes before the same flag for both.
//! Not here: what a bad link does (`lastack::impair`), the account of it (`impaired`).

use std::sync::Arc;
use std::time::Duration;

use lastack::impair::{Conditions, Ends, Loss, QueueLimit, Rule, Share};
use lastack_gateway::dns::Names;
use lastack_gateway::rules::Pattern;

use super::quantity::{self, Quantity};
use crate::failure::{EXIT_OURS, Failure};

/// Where help has them.
pub(crate) const HEADING: &str = "A bad link between CMD and the stack, [up:|down:]VALUE[,DESTINATION]";

/// The flags as they were given.
#[derive(clap::Args, Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct ImpairFlags {
    /// Lose P% of the packets, each for itself; with /N in bursts of N packets on average (Gilbert-Elliott). up: only
    /// what CMD sends, down: only what it receives; DESTINATION as in a rule
    #[arg(long, help_heading = HEADING, value_name = "P%[/N]")]
    loss: Vec<String>,
    /// Every packet takes MS milliseconds each way, give or take JITTER; order is kept
    #[arg(long, help_heading = HEADING, value_name = "MS[±JITTER]")]
    delay: Vec<String>,
    /// Carry no more than so many bits a second: 10M, 512k, 1.5Mbit
    #[arg(long, help_heading = HEADING, value_name = "BIT/S")]
    rate: Vec<String>,
    /// Packets, or bytes with a unit (64kB), that may wait for their turn at that rate; more are lost [default: 1000]
    #[arg(long, help_heading = HEADING, value_name = "LIMIT")]
    queue: Vec<String>,
    /// Hold P% of the packets back so that others overtake them, for MS milliseconds (5)
    #[arg(long, help_heading = HEADING, value_name = "P%[/MS]")]
    reorder: Vec<String>,
    /// Deliver P% of the packets twice
    #[arg(long, help_heading = HEADING, value_name = "P%")]
    duplicate: Vec<String>,
}

/// Which way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Side {
    Both,
    /// From CMD to the stack.
    Up,
    /// From the stack to CMD.
    Down,
}

/// What one flag asks for.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Wish {
    Loss(Loss),
    Delay { delay: Duration, jitter: Duration },
    Rate(u64),
    Queue(QueueLimit),
    Reorder { share: Share, by: Option<Duration> },
    Duplicate(Share),
}

/// One flag, read.
#[derive(Clone, PartialEq, Debug)]
struct Flag {
    name: &'static str,
    text: String,
    side: Side,
    wish: Wish,
    /// As it was written, and what it means.
    destination: Option<(String, Pattern)>,
}

/// All flags, read: what the link is to do.
#[derive(Clone, PartialEq, Debug, Default)]
pub(crate) struct Asked {
    flags: Vec<Flag>,
}

type Read = fn(&str) -> Option<Wish>;

impl ImpairFlags {
    /// The flags, read.
    pub(crate) fn read(&self) -> Result<Asked, Failure> {
        let Self { loss, delay, rate, queue, reorder, duplicate } = self;
        let kinds: [(&'static str, &Vec<String>, Read, &str, &str); 6] = [
            (
                "loss",
                loss,
                read_loss,
                "a share of 0% to 100% is needed",
                "--loss 5%, --loss 2%/20 for bursts of 20",
            ),
            ("delay", delay, read_delay, "milliseconds are needed", "--delay 20, --delay 20±5, --delay 1.5s"),
            ("rate", rate, read_rate, "bits a second are needed", "--rate 10M, --rate 512k"),
            (
                "queue",
                queue,
                read_queue,
                "packets, or bytes with a unit, are needed",
                "--queue 100, --queue 64kB",
            ),
            (
                "reorder",
                reorder,
                read_reorder,
                "a share of 0% to 100% is needed",
                "--reorder 5%, --reorder 5%/10",
            ),
            ("duplicate", duplicate, read_duplicate, "a share of 0% to 100% is needed", "--duplicate 1%"),
        ];
        let mut flags: Vec<Flag> = Vec::new();
        for (name, texts, read, needed, example) in kinds {
            for text in texts {
                let flag = read_flag(name, text, read, needed, example)?;
                if let Some(twice) = flags.iter().find(|other| other.contradicts(&flag)) {
                    return Err(contradiction(twice, &flag));
                }
                flags.push(flag);
            }
        }
        let asked = Asked { flags };
        asked.check_queues()?;
        Ok(asked)
    }
}

fn read_flag(
    name: &'static str,
    text: &str,
    read: Read,
    needed: &str,
    example: &str,
) -> Result<Flag, Failure> {
    let refused = |cause: String, remedy: &str| {
        Failure::new(format!("cannot read --{name} `{text}`"), cause, remedy).code(EXIT_OURS)
    };
    let (side, rest) = match text.split_once(':') {
        Some(("up", rest)) => (Side::Up, rest),
        Some(("down", rest)) => (Side::Down, rest),
        _ => (Side::Both, text),
    };
    let (value, destination) = match rest.split_once(',') {
        Some((value, destination)) => (value, Some(destination)),
        None => (rest, None),
    };
    let wish = read(value.trim()).ok_or_else(|| refused(needed.to_owned(), example))?;
    let destination = destination
        .map(|to| Pattern::parse(to).map(|pattern| (to.trim().to_owned(), pattern)))
        .transpose()
        .map_err(|error| {
            refused(format!("its destination: {error}"), "as in a rule: 192.0.2.10:443, 10.0.0.0/8")
        })?;
    Ok(Flag { name, text: text.to_owned(), side, wish, destination })
}

fn contradiction(first: &Flag, second: &Flag) -> Failure {
    Failure::new(
        format!("--{} is given twice for the same packets", first.name),
        format!("`{}` and `{}`", first.text, second.text),
        "one of them; or up: and down:, or a destination each",
    )
    .code(EXIT_OURS)
}

impl Flag {
    fn destination(&self) -> Option<&str> {
        self.destination.as_ref().map(|(text, _)| text.as_str())
    }

    fn contradicts(&self, other: &Self) -> bool {
        self.name == other.name && self.side == other.side && self.destination() == other.destination()
    }

    fn apply(&self, to: &mut Conditions) {
        match self.wish {
            Wish::Loss(loss) => to.loss = loss,
            Wish::Delay { delay, jitter } => (to.delay, to.jitter) = (delay, jitter),
            Wish::Rate(rate) => to.rate = Some(rate),
            Wish::Queue(limit) => to.queue = limit,
            Wish::Reorder { share, by } => {
                to.reorder = share;
                to.reorder_by = by.unwrap_or(to.reorder_by);
            }
            Wish::Duplicate(share) => to.duplicate = share,
        }
    }
}

impl Asked {
    /// True when nothing is asked for: then there is no bad link at all.
    pub(crate) fn is_nothing(&self) -> bool {
        self.flags.is_empty()
    }

    /// The flags as they were given.
    pub(crate) fn texts(&self) -> Vec<String> {
        self.flags.iter().map(|flag| format!("--{} {}", flag.name, flag.text)).collect()
    }

    /// A rule a destination, in the order they were given, and one for everything else. Destinations by name are those that
    /// are `known`.
    pub(crate) fn rules(&self, known: &Arc<Names>) -> Vec<Rule> {
        let mut rules = Vec::new();
        for (text, pattern) in self.destinations() {
            let (pattern, known) = (pattern.clone(), known.clone());
            let matches = move |ends: &Ends| pattern.matches(ends.local, &known.of(ends.local.ip()));
            let (up, down) = (self.conditions(Some(text), Side::Up), self.conditions(Some(text), Side::Down));
            rules.push(Rule::matching(text, matches, up, down));
        }
        let (up, down) = (self.conditions(None, Side::Up), self.conditions(None, Side::Down));
        if [up, down].iter().any(|conditions| *conditions != Conditions::default()) {
            rules.push(Rule::matching("*", |_| true, up, down));
        }
        rules
    }

    fn destinations(&self) -> Vec<(&str, &Pattern)> {
        let mut all: Vec<(&str, &Pattern)> = Vec::new();
        for (text, pattern) in self.flags.iter().filter_map(|flag| flag.destination.as_ref()) {
            if !all.iter().any(|(known, _)| known == text) {
                all.push((text, pattern));
            }
        }
        all
    }

    /// What happens one way, `destination` being the rule's.
    fn conditions(&self, destination: Option<&str>, side: Side) -> Conditions {
        let mut conditions = Conditions::default();
        // From the general to the particular: what comes later replaces what came before.
        for (of, way) in [(None, Side::Both), (None, side), (destination, Side::Both), (destination, side)] {
            let applies = |flag: &&Flag| flag.destination() == of && flag.side == way;
            self.flags.iter().filter(applies).for_each(|flag| flag.apply(&mut conditions));
        }
        conditions
    }

    fn check_queues(&self) -> Result<(), Failure> {
        let has_rate = self.flags.iter().any(|flag| matches!(flag.wish, Wish::Rate(_)));
        match self.flags.iter().find(|flag| matches!(flag.wish, Wish::Queue(_))) {
            Some(queue) if !has_rate => Err(Failure::new(
                format!("--queue {} has nothing to wait for", queue.text),
                "packets wait only where the rate is limited",
                "--rate beside it: --rate 10M --queue 100",
            )
            .code(EXIT_OURS)),
            _ => Ok(()),
        }
    }
}

fn share(text: &str) -> Option<Share> {
    let percent = quantity::number(text.strip_suffix('%').unwrap_or(text).trim())?;
    (percent <= 100.0).then(|| Share::percent(percent))
}

fn read_loss(text: &str) -> Option<Wish> {
    let loss = match text.split_once('/') {
        Some((percent, mean)) => Loss::bursts(share(percent)?, quantity::number(mean.trim())?)?,
        None => Loss::Random(share(text)?),
    };
    Some(Wish::Loss(loss))
}

fn read_delay(text: &str) -> Option<Wish> {
    let (delay, jitter) = match text.split_once('±').or_else(|| text.split_once("+-")) {
        Some((delay, jitter)) => (delay, Some(jitter)),
        None => (text, None),
    };
    let delay = quantity::milliseconds(delay.trim())?;
    let jitter = jitter.map_or(Some(Duration::ZERO), |jitter| quantity::milliseconds(jitter.trim()))?;
    Some(Wish::Delay { delay, jitter })
}

fn read_rate(text: &str) -> Option<Wish> {
    quantity::bits_a_second(text).map(Wish::Rate)
}

fn read_queue(text: &str) -> Option<Wish> {
    let limit = match quantity::bytes_or_count(text)? {
        Quantity::Bytes(bytes) => QueueLimit { packets: u32::MAX, bytes },
        Quantity::Count(packets) => QueueLimit { packets: u32::try_from(packets).ok()?, bytes: u64::MAX },
    };
    // A queue without room would lose everything.
    (limit.packets > 0 && limit.bytes > 0).then_some(Wish::Queue(limit))
}

fn read_reorder(text: &str) -> Option<Wish> {
    let (percent, by) = match text.split_once('/') {
        Some((percent, by)) => (percent, Some(quantity::milliseconds(by.trim())?)),
        None => (text, None),
    };
    Some(Wish::Reorder { share: share(percent)?, by })
}

fn read_duplicate(text: &str) -> Option<Wish> {
    share(text).map(Wish::Duplicate)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(words: &[&str]) -> ImpairFlags {
        use clap::{Args as _, FromArgMatches as _};
        let command = ImpairFlags::augment_args(clap::Command::new("run").no_binary_name(true));
        ImpairFlags::from_arg_matches(&command.get_matches_from(words)).unwrap()
    }

    fn asked(words: &[&str]) -> Asked {
        flags(words).read().unwrap_or_else(|_| panic!("{words:?}"))
    }

    #[test]
    fn every_form_is_read() {
        let all = asked(&[
            "--loss",
            "5%",
            "--delay",
            "20±5",
            "--rate",
            "10M",
            "--queue",
            "64kB",
            "--reorder",
            "5%/10",
            "--duplicate",
            "1%",
        ]);
        let expected = Conditions {
            loss: Loss::Random(Share::percent(5.0)),
            delay: Duration::from_millis(20),
            jitter: Duration::from_millis(5),
            rate: Some(10_000_000),
            queue: QueueLimit { packets: u32::MAX, bytes: 64_000 },
            reorder: Share::percent(5.0),
            reorder_by: Duration::from_millis(10),
            duplicate: Share::percent(1.0),
            ..Conditions::default()
        };
        let rules = all.rules(&Arc::default());
        assert_eq!((rules.len(), rules[0].inbound, rules[0].outbound), (1, expected, expected));
        assert_eq!(
            asked(&["--loss", "2%/20"]).rules(&Arc::default())[0].inbound.loss,
            Loss::bursts(Share::percent(2.0), 20.0).unwrap()
        );
        assert_eq!(
            asked(&["--delay", "1.5s"]).rules(&Arc::default())[0].inbound.delay,
            Duration::from_millis(1500)
        );
        assert_eq!(all.texts()[0], "--loss 5%");
    }

    #[test]
    fn one_direction_goes_before_both_and_up_is_what_the_stack_receives() {
        let rules = asked(&["--loss", "up:5%", "--delay", "10", "--delay", "down:30"]).rules(&Arc::default());
        let (up, down) = (rules[0].inbound, rules[0].outbound);
        assert_eq!((up.loss, down.loss), (Loss::Random(Share::percent(5.0)), Loss::None));
        assert_eq!((up.delay.as_millis(), down.delay.as_millis()), (10, 30));
    }

    #[test]
    fn a_destination_takes_what_it_leaves_open_from_the_rest() {
        let rules = asked(&["--delay", "10", "--loss", "50%,10.0.0.0/8", "--delay", "99,192.0.2.1:80"])
            .rules(&Arc::default());
        let told: Vec<_> = rules
            .iter()
            .map(|rule| (rule.name.as_str(), rule.inbound.loss != Loss::None, rule.inbound.delay.as_millis()))
            .collect();
        assert_eq!(told, [("10.0.0.0/8", true, 10), ("192.0.2.1:80", false, 99), ("*", false, 10)]);
    }

    #[test]
    fn only_destinations_leave_everything_else_alone() {
        let rules = asked(&["--loss", "5%,[fd00::/16]:80"]).rules(&Arc::default());
        assert_eq!(rules.len(), 1);
    }

    #[test]
    fn nonsense_is_refused() {
        for words in [
            ["--loss", "150%"],
            ["--loss", "x"],
            ["--loss", ""],
            ["--loss", "nan%"],
            ["--loss", "90%/1"],
            ["--loss", "5%,10.0.0.0/33"],
            ["--loss", "sideways:5%"],
            ["--delay", "x"],
            ["--delay", "20±"],
            ["--rate", "0"],
            ["--rate", "fast"],
            ["--queue", "100"],
            ["--reorder", "5%/"],
            ["--duplicate", "101"],
        ] {
            assert!(matches!(flags(&words).read(), Err(Failure::Said(_))), "{words:?}");
        }
        assert!(flags(&["--rate", "1M", "--queue", "0"]).read().is_err());
        assert!(flags(&["--loss", "1%", "--loss", "2%"]).read().is_err());
        assert!(flags(&["--loss", "up:1%", "--loss", "2%"]).read().is_ok());
    }
}
