//! Shared by the `reset.*` rules: when a number of resets is worth a finding.

use super::super::{Case, Found, PILE, Severity};
use crate::row::Certainty;
use crate::words::{Words, duration, says};

/// Share of all connections, since the namespace began, that is a habit and not an accident, per cent.
const HABIT_PERCENT: u64 = 5;

/// A finding when `now` resets in the interval are a storm (a warning), or `total` since the beginning are
/// a habit (an information).
pub(super) fn found<'a>(
    case: &Case<'a>,
    now: u64,
    total: u64,
    certainty: Certainty,
    more: impl FnOnce() -> Vec<Words>,
) -> Option<Found<'a>> {
    let opened = case.total("ActiveOpens") + case.total("PassiveOpens");
    let storm = now > 0 && case.per_second(now) >= case.limits.resets_per_second;
    let pile = case.limits.min_count.unwrap_or(PILE) as u64;
    let habit = total >= pile && total * 100 >= opened.max(1) * HABIT_PERCENT;
    if !storm && !habit {
        return None;
    }
    let mut evidence = Vec::new();
    if case.before.is_some() {
        let (interval, rate) = (duration(case.interval_ms()), case.per_second(now));
        evidence.push(says!(
            "{now} in the last {interval} ({rate} a second)",
            "最近 {interval} 有 {now} 次（每秒 {rate} 次）"
        ));
    }
    evidence.push(says!(
        "{total} since this network namespace began, of {opened} connections opened",
        "自该网络命名空间创建以来 {total} 次，共打开 {opened} 个连接"
    ));
    evidence.extend(more());
    let (severity, count) = if storm { (Severity::Warning, now) } else { (Severity::Info, total) };
    Some(Found { severity, certainty, count, rows: Vec::new(), evidence })
}
