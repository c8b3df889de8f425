//! The account of a bad link at the end of a run: what was asked for, what happened.

use std::fmt::Write as _;
use std::time::Duration;

use lastack::impair::{DirectionReport, PathCounters, Report};
use lastack_observe::words::Lang;
use serde::Serialize;

use crate::run::words::{bytes, time};

/// What was asked for and what happened.
#[derive(Clone, Debug)]
pub(crate) struct Account {
    pub(crate) asked: Vec<String>,
    pub(crate) report: Report,
}

impl Account {
    /// Its line in the JSON journal, without a newline.
    pub(crate) fn to_json(&self) -> String {
        let Report { seed, rules, black_holed, flight_full } = &self.report;
        let rules = rules.iter().map(|rule| RuleLine {
            destination: &rule.name,
            up: SideLine::new(&rule.inbound),
            down: SideLine::new(&rule.outbound),
        });
        let line = Line {
            event: "impairments",
            seed: *seed,
            asked: &self.asked,
            rules: rules.collect(),
            black_holed: *black_holed,
            flight_full: *flight_full,
        };
        serde_json::to_string(&line).expect("strings and numbers only")
    }

    /// Its lines in the report.
    pub(crate) fn text(&self, lang: Lang) -> String {
        let zh = lang == Lang::Zh;
        let Report { seed, rules, black_holed, .. } = &self.report;
        let mut text = String::new();
        if !self.asked.is_empty() {
            let _ = match lang {
                Lang::En => writeln!(text, "link: {} --seed {seed}", self.asked.join(" ")),
                Lang::Zh => writeln!(text, "链路：{} --seed {seed}", self.asked.join(" ")),
            };
        }
        for rule in rules {
            for (name, direction) in [("up", &rule.inbound), ("down", &rule.outbound)] {
                let destination = if rules.len() > 1 { format!("{} ", rule.name) } else { String::new() };
                let name = match (zh, name) {
                    (true, "up") => "上行",
                    (true, _) => "下行",
                    (false, name) => name,
                };
                let _ = writeln!(text, "    {destination}{name}: {}", direction_text(direction, zh));
            }
        }
        if *black_holed > 0 {
            let _ = match lang {
                Lang::En => writeln!(text, "    {black_holed} packets vanished in black holes"),
                Lang::Zh => writeln!(text, "    黑洞吞掉了 {black_holed} 个包"),
            };
        }
        text
    }
}

#[derive(Serialize)]
struct Line<'a> {
    event: &'static str,
    seed: u64,
    asked: &'a [String],
    rules: Vec<RuleLine<'a>>,
    black_holed: u64,
    flight_full: u64,
}

#[derive(Serialize)]
struct RuleLine<'a> {
    destination: &'a str,
    up: SideLine,
    down: SideLine,
}

#[derive(Serialize)]
struct SideLine {
    packets: u64,
    bytes: u64,
    lost: u64,
    queue_full: u64,
    flight_full: u64,
    held_back: u64,
    overtaken: u64,
    duplicated: u64,
    arrived: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    delay_us: Option<DelayLine>,
    /// Hashes are text: JSON's numbers end at 53 bits.
    decisions: Vec<(u64, String)>,
}

#[derive(Serialize)]
struct DelayLine {
    min: u64,
    mean: u64,
    max: u64,
}

impl SideLine {
    fn new(direction: &DirectionReport) -> Self {
        let DirectionReport { conditions: _, counters, arrived, overtaken, flight_full, delays, decisions } =
            direction;
        let PathCounters { packets, bytes, lost, queue_full, held_back, duplicated } = *counters;
        let decisions = decisions.iter().map(|(ordinal, hash)| (*ordinal, format!("{hash:016x}")));
        Self {
            packets,
            bytes,
            lost,
            queue_full,
            flight_full: *flight_full,
            held_back,
            overtaken: *overtaken,
            duplicated,
            arrived: *arrived,
            delay_us: delays.map(|delays| DelayLine {
                min: micros(delays.min),
                mean: micros(delays.mean),
                max: micros(delays.max),
            }),
            decisions: decisions.collect(),
        }
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

fn direction_text(direction: &DirectionReport, zh: bool) -> String {
    let counters = &direction.counters;
    let say = |en: &str, zh_word: &str, count: u64| {
        if zh { format!("{zh_word} {count}") } else { format!("{en} {count}") }
    };
    let mut parts = vec![if zh {
        format!("{} 个包（{}）", counters.packets, bytes(counters.bytes))
    } else {
        format!("{} packets ({})", counters.packets, bytes(counters.bytes))
    }];
    let lost = say("lost", "丢失", counters.lost);
    match counters.packets {
        0 => parts.push(lost),
        packets => parts.push(format!("{lost} ({:.2}%)", counters.lost as f64 * 100.0 / packets as f64)),
    }
    for (count, en, zh_word) in [
        (counters.queue_full, "queue full", "队列已满"),
        (direction.flight_full, "flight full", "在途已满"),
        (counters.held_back, "held back", "滞后"),
        (direction.overtaken, "overtaken", "被超越"),
        (counters.duplicated, "twice", "重复"),
    ] {
        if count > 0 {
            parts.push(say(en, zh_word, count));
        }
    }
    if let Some(delays) = direction.delays {
        let micros =
            |time: std::time::Duration| self::time(u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
        let (mean, min, max) = (micros(delays.mean), micros(delays.min), micros(delays.max));
        parts.push(if zh {
            format!("在途平均 {mean}（{min}–{max}）")
        } else {
            format!("on the way {mean} on average ({min} to {max})")
        });
    }
    parts.join(" · ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use lastack::impair::{Conditions, Delays, RuleReport};
    use serde_json::{Value, json};

    fn account() -> Account {
        let direction = DirectionReport {
            conditions: Conditions::default(),
            counters: PathCounters { packets: 1000, bytes: 1_500_000, lost: 52, ..PathCounters::default() },
            arrived: 948,
            overtaken: 3,
            flight_full: 0,
            delays: Some(Delays {
                min: Duration::from_millis(20),
                mean: Duration::from_micros(20_100),
                max: Duration::from_millis(25),
            }),
            decisions: vec![(1, 7), (2, u64::MAX)],
        };
        let rule = RuleReport { name: "*".into(), inbound: direction.clone(), outbound: direction };
        let report = Report { seed: 7, rules: vec![rule], black_holed: 2, flight_full: 0 };
        Account { asked: vec!["--loss 5%".into(), "--delay 20".into()], report }
    }

    #[test]
    fn the_line_has_what_was_asked_and_what_happened() {
        let line = account().to_json();
        assert!(
            line.starts_with(r#"{"event":"impairments","seed":7,"asked":["--loss 5%","--delay 20"],"#),
            "{line}"
        );
        let line: Value = serde_json::from_str(&line).unwrap();
        assert_eq!((&line["event"], &line["seed"]), (&json!("impairments"), &json!(7)));
        assert_eq!(line["asked"], json!(["--loss 5%", "--delay 20"]));
        let up = &line["rules"][0]["up"];
        assert_eq!((&up["packets"], &up["lost"], &up["overtaken"]), (&json!(1000), &json!(52), &json!(3)));
        assert_eq!(up["delay_us"]["mean"], json!(20_100));
        assert_eq!(up["decisions"][1], json!([2, "ffffffffffffffff"]));
    }

    #[test]
    fn the_text_is_in_both_languages() {
        let en = account().text(Lang::En);
        assert!(en.starts_with("link: --loss 5% --delay 20 --seed 7\n"), "{en}");
        assert!(en.contains("up: 1000 packets (1.5 MB) · lost 52 (5.20%)"), "{en}");
        assert!(en.contains("20.1 ms on average (20.0 ms to 25.0 ms)"), "{en}");
        assert!(en.contains("2 packets vanished"), "{en}");
        let zh = account().text(Lang::Zh);
        assert!(zh.contains("上行: 1000 个包（1.5 MB） · 丢失 52 (5.20%)"), "{zh}");
    }
}
