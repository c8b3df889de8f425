//! Samples of the carrier's process during a soak, and whether they were flat.
//!
//! Owns:    [`Sample`], the table's lines, [`judge`].
//! Rules:   flat: the mean of the last quarter is at most the mean of the second quarter, and a twentieth of it, and
//!          [`Measure::slack`]. The first quarter is for filling pools and caches. Over two hours at ten connections a second
//!          a leak of 60 bytes a connection is not flat.

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::process::{descendants, memory_kib, run};

/// What was seen at one moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// Since the begin.
    pub at: Duration,
    /// The carrier's memory.
    pub rss_kib: u64,
    /// Its open descriptors.
    pub descriptors: u64,
    /// The connections of its stack in any state but LISTEN and TIME-WAIT.
    pub connections: u64,
    /// Those in TIME-WAIT.
    pub time_wait: u64,
    /// Processor time it has used.
    pub cpu: Duration,
    /// The same of its children: helper and program.
    pub children_cpu: Duration,
}

/// The table's head.
pub const HEAD: &str =
    "  minute   RSS KiB  descriptors  connections  TIME-WAIT   lastack CPU  program CPU   % of a core, both";

impl Sample {
    /// Looks at the process `pid`, a `lastack run` that the program `lastack` knows as `name`; `None`: it is gone.
    #[must_use]
    pub fn take(at: Duration, pid: u32, lastack: &Path, name: &str) -> Option<Self> {
        let mut ss = std::process::Command::new(lastack);
        ss.args(["ss", "--source", name, "-s", "--json"]);
        let told = run(&mut ss, Duration::from_secs(20)).ok()?.text();
        let summary: Value = serde_json::from_str(&told).ok()?;
        let state = |name: &str| summary["states"][name].as_u64().unwrap_or(0);
        let time_wait = state("TIME-WAIT");
        Some(Self {
            at,
            rss_kib: memory_kib(pid)?.0,
            descriptors: fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count() as u64,
            connections: summary["total"].as_u64()?.saturating_sub(state("LISTEN") + time_wait),
            time_wait,
            cpu: cpu(pid)?,
            children_cpu: descendants(pid).into_iter().filter_map(cpu).sum(),
        })
    }

    /// Its line in the table; `before` is the sample before it.
    #[must_use]
    pub fn line(&self, before: Option<&Self>) -> String {
        let used = |sample: &Self| sample.cpu + sample.children_cpu;
        let share = before.map_or(0.0, |before| {
            let time = self.at.saturating_sub(before.at).as_secs_f64().max(0.001);
            used(self).saturating_sub(used(before)).as_secs_f64() / time * 100.0
        });
        format!(
            "{:8.2} {:9} {:12} {:12} {:10} {:11.2} s {:10.2} s {:14.1}",
            self.at.as_secs_f64() / 60.0,
            self.rss_kib,
            self.descriptors,
            self.connections,
            self.time_wait,
            self.cpu.as_secs_f64(),
            self.children_cpu.as_secs_f64(),
            share,
        )
    }
}

/// User and system time of a process, from `/proc/PID/stat`.
#[must_use]
pub fn cpu(pid: u32) -> Option<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // proc_pid_stat(5): utime and stime are fields 14 and 15; the name in parentheses is the second.
    let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
    let ticks = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    Some(Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64))
}

/// What must be flat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// Memory.
    Rss,
    /// Descriptors.
    Descriptors,
    /// Connections that live.
    Connections,
}

impl Measure {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Rss, Self::Descriptors, Self::Connections];

    /// Its name and unit.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Rss => "RSS, KiB",
            Self::Descriptors => "descriptors",
            Self::Connections => "connections",
        }
    }

    /// What chance may add to a mean: half the connections under way at once, or one allocation of the memory pool.
    #[must_use]
    pub fn slack(self) -> f64 {
        match self {
            Self::Rss => 1024.0,
            Self::Descriptors | Self::Connections => 12.0,
        }
    }

    fn of(self, sample: &Sample) -> f64 {
        let value = match self {
            Self::Rss => sample.rss_kib,
            Self::Descriptors => sample.descriptors,
            Self::Connections => sample.connections,
        };
        value as f64
    }
}

/// One measure judged.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Judgement {
    /// Which.
    pub measure: Measure,
    /// Mean of each quarter.
    pub quarters: [f64; 4],
    /// Whether the last is no more than the second, a twentieth of it and the slack.
    pub is_flat: bool,
}

/// Judges every measure; `None` with fewer than two samples a quarter.
#[must_use]
pub fn judge(samples: &[Sample]) -> Option<[Judgement; 3]> {
    (samples.len() >= 8).then(|| {
        Measure::ALL.map(|measure| {
            let quarters = [0, 1, 2, 3].map(|n| {
                let part = &samples[n * samples.len() / 4..(n + 1) * samples.len() / 4];
                part.iter().map(|sample| measure.of(sample)).sum::<f64>() / part.len() as f64
            });
            let is_flat = quarters[3] <= quarters[1] * 1.05 + measure.slack();
            Judgement { measure, quarters, is_flat }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(rss_kib: impl Fn(u64) -> u64) -> Vec<Sample> {
        let sample = |minute| Sample {
            at: Duration::from_secs(minute * 60),
            rss_kib: rss_kib(minute),
            descriptors: 40 + minute % 3,
            connections: 20 + minute % 5,
            time_wait: 0,
            cpu: Duration::ZERO,
            children_cpu: Duration::ZERO,
        };
        (1..=120).map(sample).collect()
    }

    #[test]
    fn what_fills_at_the_begin_and_stays_is_flat() {
        let flat = judge(&samples(|minute| 20_000 + 10_000 * minute.min(25) / 25)).unwrap();
        assert!(flat.iter().all(|judgement| judgement.is_flat), "{flat:?}");
    }

    #[test]
    fn sixty_bytes_a_connection_are_a_leak() {
        let leak = judge(&samples(|minute| 20_000 + minute * 600 * 60 / 1024)).unwrap();
        assert!(!leak[0].is_flat && leak[1].is_flat && leak[2].is_flat, "{leak:?}");
    }

    #[test]
    fn too_few_samples_are_not_judged() {
        assert_eq!(judge(&samples(|_| 1)[..7]), None);
    }

    #[test]
    fn this_process_has_used_some_processor_time() {
        assert!(cpu(std::process::id()).is_some());
        assert_eq!(cpu(u32::MAX), None);
    }
}
