//! Times on the command line: seconds, with or without a fraction.

use std::time::Duration;

/// Ten million seconds, some four months: what is longer was mistyped.
const LONGEST: f64 = 1e7;

/// How long something goes on.
pub(crate) fn length(text: &str) -> Result<Duration, String> {
    between(text, 0.0, LONGEST)
}

/// The pause between two looks.
pub(crate) fn pause(text: &str) -> Result<Duration, String> {
    between(text, 0.05, 3600.0)
}

/// As [`pause`], or none: then there is one look.
pub(crate) fn pause_or_none(text: &str) -> Result<Duration, String> {
    between(text, 0.0, 3600.0)
}

fn between(text: &str, least: f64, most: f64) -> Result<Duration, String> {
    let seconds: Option<f64> = text.parse().ok();
    // What is no number (NaN) is in no range.
    seconds
        .filter(|seconds| (least..=most).contains(seconds))
        .map(Duration::from_secs_f64)
        .ok_or_else(|| format!("a number of seconds, from {least} to {most}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_time_is_refused() {
        assert_eq!(length("2.5"), Ok(Duration::from_millis(2500)));
        assert_eq!(pause("0.05"), Ok(Duration::from_millis(50)));
        assert_eq!(pause_or_none("0"), Ok(Duration::ZERO));
        for text in ["nan", "inf", "-inf", "-1", "1e300", "", "soon"] {
            for read in [length, pause, pause_or_none] {
                assert!(read(text).is_err(), "{text}");
            }
        }
        assert_eq!(pause("0").unwrap_err(), "a number of seconds, from 0.05 to 3600");
    }
}
