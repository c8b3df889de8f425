//! The languages texts are written in. Identifiers, field names and JSON keys are always English.

/// A language every explanation exists in.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Lang {
    /// English.
    #[default]
    En,
    /// Chinese.
    Zh,
}

impl Lang {
    /// The one of two texts that is in this language.
    pub const fn pick<'a>(self, en: &'a str, zh: &'a str) -> &'a str {
        match self {
            Self::En => en,
            Self::Zh => zh,
        }
    }
}

/// One fixed text in both languages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Text {
    /// English.
    pub en: &'static str,
    /// Chinese.
    pub zh: &'static str,
}

impl Text {
    /// The text in `lang`.
    pub const fn get(self, lang: Lang) -> &'static str {
        lang.pick(self.en, self.zh)
    }
}

/// Shorthand for tables of texts.
pub const fn text(en: &'static str, zh: &'static str) -> Text {
    Text { en, zh }
}

/// One text made of what was found, in both languages.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Words {
    /// English.
    pub en: String,
    /// Chinese.
    pub zh: String,
}

impl Words {
    /// The text in `lang`.
    pub fn get(&self, lang: Lang) -> &str {
        lang.pick(&self.en, &self.zh)
    }
}

/// Two format strings, one for each language, over the same values.
#[macro_export]
macro_rules! says {
    ($en:literal, $zh:literal) => {
        $crate::words::Words { en: format!($en), zh: format!($zh) }
    };
}
pub use says;

/// `8.2s`, `4m 10s`, `3h 02m`: how long, for people.
pub fn duration(ms: u64) -> String {
    match ms {
        0..=999 => format!("{ms}ms"),
        1_000..=59_999 => format!("{}.{}s", ms / 1000, ms % 1000 / 100),
        60_000..=3_599_999 => format!("{}m {:02}s", ms / 60_000, ms / 1000 % 60),
        3_600_000..=86_399_999 => format!("{}h {:02}m", ms / 3_600_000, ms / 60_000 % 60),
        _ => format!("{}d {:02}h", ms / 86_400_000, ms / 3_600_000 % 24),
    }
}

/// `2.8 MB`: how many bytes, for people (powers of 1000).
pub fn bytes(count: u64) -> String {
    match count {
        0..=999 => format!("{count} B"),
        1_000..=999_949 => format!("{}.{} kB", count / 1000, count % 1000 / 100),
        999_950..=999_949_999 => format!("{}.{} MB", count / 1_000_000, count / 100_000 % 10),
        _ => format!("{}.{} GB", count / 1_000_000_000, count / 100_000_000 % 10),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes_read_well() {
        assert_eq!(duration(999), "999ms");
        assert_eq!(duration(81_234), "1m 21s");
        assert_eq!(duration(3_720_000), "1h 02m");
        assert_eq!(bytes(2_883_584), "2.8 MB");
    }
}
