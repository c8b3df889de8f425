//! Drawing stories: as text for a terminal, as SVG for a page.
//!
//! [`chart`] is the sequence chart, [`lanes`] the states against time, [`svg`] both as a picture.

pub(crate) mod chart;
pub(crate) mod lanes;
pub(crate) mod svg;

use lastack_lab::stories::chart::{Cell, Fold};
use lastack_lab::stories::record::{Role, Segment};
use lastack_lab::stories::words::{Lang, count, time};

use crate::text::{Paint, width};

/// How text is laid out.
#[derive(Debug)]
pub(crate) struct Layout {
    pub(crate) columns: usize,
    /// Lines and arrows of ASCII characters only, for terminals that have no others.
    pub(crate) ascii: bool,
    pub(crate) lang: Lang,
    pub(crate) paint: Paint,
}

impl Layout {
    /// `unicode`, or what stands for it where there is no Unicode.
    fn pick(&self, unicode: &'static str, ascii: &'static str) -> &'static str {
        if self.ascii { ascii } else { unicode }
    }

    fn words(&self, en: &'static str, zh: &'static str) -> &'static str {
        match self.lang {
            Lang::En => en,
            Lang::Zh => zh,
        }
    }
}

/// A lane's entry in words.
fn cell_text(cell: &Cell, lang: Lang) -> String {
    match (cell, lang) {
        (Cell::Call(call, result), _) => format!("{call} {result}").trim_end().to_owned(),
        (Cell::State(Some(state)), _) => (*state).to_owned(),
        (Cell::State(None), Lang::En) => "gone".to_owned(),
        (Cell::State(None), Lang::Zh) => "消失".to_owned(),
        (Cell::Timer(name), Lang::En) => format!("{} fires", timer_name(name, lang)),
        (Cell::Timer(name), Lang::Zh) => format!("{} 到期", timer_name(name, lang)),
    }
}

/// A segment's label in at most so many columns: what it is for, where its flags do not tell, then its numbers.
fn segment_text(segment: &Segment, lang: Lang, columns: usize) -> String {
    let role = match (segment.role, lang) {
        (Role::First, _) => return segment.text(columns),
        (Role::Again, Lang::En) => "again: ",
        (Role::Again, Lang::Zh) => "重发：",
        (Role::WindowProbe | Role::KeepaliveProbe, Lang::En) => "probe: ",
        (Role::WindowProbe | Role::KeepaliveProbe, Lang::Zh) => "探测：",
    };
    format!("{role}{}", segment.text(columns.saturating_sub(width(role))))
}

/// How to read the numbers, for who has not seen tcpdump.
fn legend(lang: Lang) -> &'static str {
    match lang {
        Lang::En => {
            "a:b = bytes a to b-1 of this direction (FIN and SYN count one); ack n = has everything before n; win = bytes it would still take"
        }
        Lang::Zh => {
            "a:b = 该方向的第 a 到 b-1 字节（FIN 和 SYN 各算一个）；ack n = n 之前的都已收到；win = 还愿接收的字节数"
        }
    }
}

/// `ss` calls the retransmission timer `on`.
fn timer_name(name: &'static str, lang: Lang) -> &'static str {
    match (name, lang) {
        ("on", Lang::En) => "resend timer",
        ("on", Lang::Zh) => "重发定时器",
        _ => name,
    }
}

/// What was left out, in words: the longest form that has at most so many columns.
fn fold_text(fold: &Fold, lang: Lang, columns: usize) -> String {
    let forms = fold_forms(fold, lang);
    let fits = forms.iter().find(|form| width(form) <= columns);
    fits.or(forms.last()).cloned().unwrap_or_default()
}

fn fold_forms(fold: &Fold, lang: Lang) -> Vec<String> {
    match (fold, lang) {
        (Fold::Data { segments, bytes, acks, window, .. }, Lang::En) => {
            let bytes = count(*bytes);
            let acks = if *acks == 1 { "1 ACK".to_owned() } else { format!("{acks} ACKs") };
            let short = format!("{segments} segments, {bytes} bytes");
            let more = format!("{short}; {acks} back");
            let window = window.map(|window| format!("{more}, window now {}", count(window.into())));
            window.into_iter().chain([more, short]).collect()
        }
        (Fold::Data { segments, bytes, acks, window, .. }, Lang::Zh) => {
            let short = format!("{segments} 段 {} 字节", count(*bytes));
            let more = format!("{short}；返回 {acks} 个 ACK");
            let window = window.map(|window| format!("{more}，窗口剩 {}", count(window.into())));
            window.into_iter().chain([more, short]).collect()
        }
        (Fold::Repeats { times, apart, answered, .. }, lang) => {
            let (from, to) = (time(apart.0.as_secs_f64()), time(apart.1.as_secs_f64()));
            let short = match (lang, answered) {
                (Lang::En, true) => format!("{times} more, each answered"),
                (Lang::En, false) => format!("{times} more"),
                (Lang::Zh, true) => format!("又 {times} 次，均有应答"),
                (Lang::Zh, false) => format!("又 {times} 次"),
            };
            let long = match lang {
                Lang::En => format!("{short}, {from} to {to} apart"),
                Lang::Zh => format!("{short}，间隔 {from} 到 {to}"),
            };
            vec![long, short]
        }
    }
}
