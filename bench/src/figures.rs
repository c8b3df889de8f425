//! Medians, ratios, the table.

use std::fmt::Write as _;

/// All results of one row behind one contestant, round by round.
#[derive(Clone, Debug, Default)]
pub struct Series {
    /// Figures that count.
    pub figures: Vec<f64>,
    /// Why the others do not.
    pub failures: Vec<String>,
}

impl Series {
    /// Adds a round.
    pub fn add(&mut self, round: Result<f64, String>) {
        match round {
            Ok(figure) => self.figures.push(figure),
            Err(why) => self.failures.push(why),
        }
    }

    /// The median; the mean of the two middle ones for an even number.
    #[must_use]
    pub fn median(&self) -> Option<f64> {
        let mut sorted = self.figures.clone();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        match sorted.len() {
            0 => None,
            n if n % 2 == 1 => Some(sorted[middle]),
            _ => Some(f64::midpoint(sorted[middle - 1], sorted[middle])),
        }
    }

    /// `12.3 (11.0–13.1)`, with what failed the gate.
    #[must_use]
    pub fn cell(&self) -> String {
        let figure = match self.median() {
            Some(median) => {
                let least = self.figures.iter().copied().fold(f64::INFINITY, f64::min);
                let most = self.figures.iter().copied().fold(0.0, f64::max);
                format!("{} ({}–{})", short(median), short(least), short(most))
            }
            None => "–".to_owned(),
        };
        match self.failures.len() {
            0 => figure,
            n => format!("{figure} **gate failed {n}×**"),
        }
    }
}

/// Three significant digits; thousands as `k`.
#[must_use]
pub fn short(figure: f64) -> String {
    match figure {
        f if f >= 100_000.0 => format!("{:.0}k", f / 1000.0),
        f if f >= 10_000.0 => format!("{:.1}k", f / 1000.0),
        f if f >= 1000.0 => format!("{:.2}k", f / 1000.0),
        f if f >= 100.0 => format!("{f:.0}"),
        f if f >= 10.0 => format!("{f:.1}"),
        f => format!("{f:.2}"),
    }
}

/// One line of the table: a title and a series a contestant.
pub type Line = (String, Vec<Series>);

/// The table with the ratios of the first contestant to each of the others. `less_is_better` lines turn the ratio round.
#[must_use]
pub fn table(contestants: &[&str], lines: &[Line], less_is_better: fn(&str) -> bool) -> String {
    let mut out = String::from("| |");
    for name in contestants {
        let _ = write!(out, " {name} |");
    }
    for name in &contestants[1..] {
        let _ = write!(out, " {} : {name} |", contestants[0]);
    }
    let _ = writeln!(out, "\n|{}", "---|".repeat(contestants.len() * 2));
    for (title, series) in lines {
        let _ = write!(out, "| {title} |");
        for one in series {
            let _ = write!(out, " {} |", one.cell());
        }
        for other in &series[1..] {
            let ratio = match (series[0].median(), other.median()) {
                (Some(ours), Some(theirs)) if less_is_better(title) && ours > 0.0 => Some(theirs / ours),
                (Some(ours), Some(theirs)) if !less_is_better(title) && theirs > 0.0 => Some(ours / theirs),
                _ => None,
            };
            let _ = write!(
                out,
                " {} |",
                ratio.map_or_else(|| "–".to_owned(), |ratio| format!("{}×", short(ratio)))
            );
        }
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_is_between_the_middle_two() {
        let series = Series { figures: vec![4.0, 1.0, 3.0, 2.0], failures: Vec::new() };
        assert_eq!(series.median(), Some(2.5));
        assert_eq!(series.cell(), "2.50 (1.00–4.00)");
    }

    #[test]
    fn a_round_that_failed_its_gate_has_no_figure_and_is_shown() {
        let mut series = Series::default();
        series.add(Err("2 stalls".to_owned()));
        assert_eq!(series.median(), None);
        assert_eq!(series.cell(), "– **gate failed 1×**");
    }

    #[test]
    fn a_ratio_says_how_many_times_better_the_first_is() {
        let of = |figure| Series { figures: vec![figure], failures: Vec::new() };
        let lines =
            [("speed".to_owned(), vec![of(10.0), of(4.0)]), ("memory".to_owned(), vec![of(10.0), of(40.0)])];
        let table = table(&["ours", "theirs"], &lines, |title| title == "memory");
        assert!(table.contains("| 2.50× |"), "{table}");
        assert!(table.contains("| 4.00× |"), "{table}");
    }
}
