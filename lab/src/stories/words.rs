//! Texts of stories, in both languages. Identifiers, states and system calls are the same in either.

/// A language stories are told in.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Lang {
    /// English.
    #[default]
    En,
    /// Chinese.
    Zh,
}

/// One text in both languages.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
pub struct Text {
    /// English.
    pub en: &'static str,
    /// Chinese.
    pub zh: &'static str,
}

impl Text {
    /// The text in `lang`.
    pub const fn get(self, lang: Lang) -> &'static str {
        match lang {
            Lang::En => self.en,
            Lang::Zh => self.zh,
        }
    }
}

/// Shorthand for the stories' tables.
pub const fn text(en: &'static str, zh: &'static str) -> Text {
    Text { en, zh }
}

/// `0.204 s`, `12.6 s`, `5 min 24 s`, `2 h 11 min`: how long, or when, for people.
pub fn time(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    if seconds < 10.0 {
        format!("{seconds:.3} s")
    } else if seconds < 100.0 {
        format!("{seconds:.1} s")
    } else if whole < 3600 {
        format!("{} min {:02} s", whole / 60, whole % 60)
    } else {
        format!("{} h {:02} min", whole / 3600, whole / 60 % 60)
    }
}

/// `2,568,192`: a count that people can read.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_counts_read_well() {
        assert_eq!(time(0.2041), "0.204 s");
        assert_eq!(time(12.64), "12.6 s");
        assert_eq!(time(324.6), "5 min 25 s");
        assert_eq!(time(7875.0), "2 h 11 min");
        assert_eq!([count(7), count(1448), count(2_568_192)], ["7", "1,448", "2,568,192"]);
    }
}
