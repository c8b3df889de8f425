//! Numbers with units, as flags have them.

use std::time::Duration;

/// An amount that is of bytes if it has their unit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Quantity {
    Bytes(u64),
    Count(u64),
}

/// A number that is not negative, not infinite, and written in digits.
pub(super) fn number(text: &str) -> Option<f64> {
    let is_plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    text.parse().ok().filter(|_| is_plain)
}

/// The number and what follows it.
fn split(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    (number, unit.trim_start())
}

/// Milliseconds, unless another unit is given: `20`, `20ms`, `1.5s`, `500us`.
pub(super) fn milliseconds(text: &str) -> Option<Duration> {
    let (digits, unit) = split(text);
    let seconds = match unit {
        "" | "ms" => 1e-3,
        "s" => 1.0,
        "us" | "µs" => 1e-6,
        _ => return None,
    };
    // An hour on the way is more than any wire has.
    Duration::try_from_secs_f64(number(digits)? * seconds)
        .ok()
        .filter(|time| *time <= Duration::from_secs(3600))
}

/// Bits a second: `1000000`, `10M`, `512kbit`, `1.5Gbit/s`. Not zero.
pub(super) fn bits_a_second(text: &str) -> Option<u64> {
    let (digits, unit) = split(text);
    let unit = unit.to_ascii_lowercase();
    let prefix = ["bit/s", "bps", "bit"].iter().find_map(|suffix| unit.strip_suffix(suffix)).unwrap_or(&unit);
    let factor = match prefix {
        "" => 1.0,
        "k" => 1e3,
        "m" => 1e6,
        "g" => 1e9,
        _ => return None,
    };
    let rate = number(digits)? * factor;
    (1.0..=1e12).contains(&rate).then_some(rate as u64)
}

/// A count, or bytes with a unit: `100`, `64kB`, `1MiB`, `1500B`.
pub(super) fn bytes_or_count(text: &str) -> Option<Quantity> {
    let (digits, unit) = split(text);
    let value = number(digits)?;
    let factor = match unit {
        "" => return (value < 1e15).then_some(Quantity::Count(value as u64)),
        "B" => 1.0,
        "kB" | "KB" => 1e3,
        "MB" => 1e6,
        "KiB" => 1024.0,
        "MiB" => 1024.0 * 1024.0,
        _ => return None,
    };
    (value * factor < 1e15).then_some(Quantity::Bytes((value * factor) as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_read() {
        assert_eq!(milliseconds("20"), Some(Duration::from_millis(20)));
        assert_eq!(milliseconds("0.5ms"), Some(Duration::from_micros(500)));
        assert_eq!(milliseconds("500us"), Some(Duration::from_micros(500)));
        for (text, rate) in [
            ("10M", 10_000_000),
            ("512kbit", 512_000),
            ("1.5Gbit/s", 1_500_000_000),
            ("64000", 64_000),
            ("8bps", 8),
        ] {
            assert_eq!(bits_a_second(text), Some(rate), "{text}");
        }
        assert_eq!(bytes_or_count("64kB"), Some(Quantity::Bytes(64_000)));
        assert_eq!(bytes_or_count("100"), Some(Quantity::Count(100)));
    }

    #[test]
    fn nonsense_is_not() {
        for text in ["", "x", "-5", "1e3", "inf", "nan", "1.2.3", "99999s", "5 parsecs"] {
            assert_eq!(milliseconds(text), None, "{text}");
            assert_eq!(bits_a_second(text), None, "{text}");
            assert_eq!(bytes_or_count(text), None, "{text}");
        }
        assert_eq!(bits_a_second("0"), None);
    }
}
