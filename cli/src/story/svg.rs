//! The sequence chart as SVG: no scripts, no outside fonts, readable where it is put.

use std::fmt::Write as _;

use lastack_lab::stories::chart::{Cell, Differs, Middle, Row};
use lastack_lab::stories::record::{Role, Segment};
use lastack_lab::stories::words::{Lang, time};
use lastack_lab::stories::{Fate, Side};

use super::{cell_text, fold_text, legend, segment_text};
use crate::text::{width, wrap};

const WIDTH: u32 = 1000;
/// Where the lifelines are.
const LINES: [u32; 2] = [310, 770];
const ROW: u32 = 30;
const LINE: u32 = 18;
const HEAD: u32 = 96;

/// A picture of the rows under a title.
pub(crate) fn draw(title: &str, heads: &[String; 2], rows: &[Row], many: bool, lang: Lang) -> String {
    let mut body = String::new();
    // Where the state that each end is in began; for the bars on the lifelines.
    let mut since: [Option<(u32, &'static str)>; 2] = [None, None];
    let mut bars = String::new();
    let mut y = HEAD;
    let mut last = String::new();
    for row in rows {
        if let Middle::Says(words) = &row.middle {
            y += 6;
            let lines = wrap(words.get(lang), 112);
            let height = (LINE + 2) * lines.len() as u32 + 8;
            let _ = writeln!(
                body,
                r##"<rect x="8" y="{y}" width="{}" height="{height}" rx="5" fill="#eef4ff"/>"##,
                WIDTH - 16
            );
            for line in lines {
                let _ =
                    writeln!(body, r#"<text class="says" x="16" y="{}">{}</text>"#, y + 18, escape(&line));
                y += LINE + 2;
            }
            y += 8;
            y += 4;
            continue;
        }
        let at = y + 18;
        let stamp = time(row.at.as_secs_f64());
        if stamp != last {
            let _ = writeln!(body, r#"<text class="time" x="96" y="{at}">{stamp}</text>"#);
        }
        last = stamp;
        if let Some(second) = row.second {
            let _ = writeln!(
                body,
                r#"<text class="time" x="96" y="{}">Linux {}</text>"#,
                at + 13,
                time(second.as_secs_f64())
            );
        }
        if row.differs.is_some() {
            let _ = writeln!(body, r#"<text class="differs" x="8" y="{at}">≠</text>"#);
        }
        let mut taken = 1;
        for side in Side::BOTH {
            let lane = side as usize;
            taken = taken.max(draw_lane(&mut body, &row.lanes[lane], lane, at, lang));
            for cell in &row.lanes[lane] {
                if let Cell::State(state) = cell {
                    // A segment's slope ends a little lower than it begins.
                    let arrives = row.arrow().is_some_and(|segment| segment.from != side);
                    let here = if arrives { at + 8 } else { at };
                    bar(&mut bars, lane, &mut since[lane], here, *state);
                }
            }
        }
        match &row.middle {
            Middle::Arrow(segment) => arrow(&mut body, segment, at, if many { row.flow } else { None }, lang),
            Middle::Fold(fold) => {
                let text = escape(&fold_text(fold, lang, 64));
                let middle = (LINES[0] + LINES[1]) / 2;
                let _ = writeln!(body, r#"<text class="fold" x="{middle}" y="{at}">⋮ {text}</text>"#);
            }
            Middle::Nothing | Middle::Says(_) => {}
        }
        if let Some(Differs::Figures(there)) = &row.differs {
            let middle = (LINES[0] + LINES[1]) / 2;
            let _ = writeln!(
                body,
                r#"<text class="differs mid" x="{middle}" y="{}">Linux: {}</text>"#,
                at + 22,
                escape(there)
            );
            taken += 1;
        }
        y += ROW + (taken - 1) * LINE;
    }
    let bottom = y + 14;
    for (lane, since) in since.iter_mut().enumerate() {
        bar(&mut bars, lane, since, bottom, None);
    }
    let mut out = format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" role="img">
<title>{title}</title>
<style>{STYLE}</style>
<defs><marker id="head" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" orient="auto-start-reverse"><path d="M0 1L9 5L0 9z" fill="context-stroke"/></marker></defs>
<rect width="{WIDTH}" height="{height}" fill="white"/>
"#,
        height = bottom + 34,
        title = escape(title),
    );
    for (n, line) in wrap(title, 96).iter().take(2).enumerate() {
        let _ =
            writeln!(out, r#"<text class="title" x="16" y="{}">{}</text>"#, 28 + 22 * n as u32, escape(line));
    }
    for (lane, head) in heads.iter().enumerate() {
        let x = LINES[lane];
        let _ = writeln!(out, r#"<text class="end" x="{x}" y="{}">{}</text>"#, HEAD - 12, escape(head));
        let _ = writeln!(
            out,
            r##"<line x1="{x}" y1="{HEAD}" x2="{x}" y2="{bottom}" stroke="#9aa4b2" stroke-width="1.5"/>"##
        );
    }
    out.push_str(&bars);
    out.push_str(&body);
    let _ =
        writeln!(out, r#"<text class="legend" x="16" y="{}">{}</text>"#, bottom + 20, escape(legend(lang)));
    out.push_str("</svg>\n");
    out
}

const STYLE: &str = "text{font:13px ui-sans-serif,system-ui,'DejaVu Sans','Noto Sans CJK SC',sans-serif;fill:#1f2933}\
.title{font-size:17px;font-weight:600}.end{font-weight:600;text-anchor:middle}.time{fill:#66707c;font-size:12px;text-anchor:end}\
.says{fill:#1d4ed8;font-style:italic}.left{text-anchor:end}.state{font-weight:700}.call{font-family:ui-monospace,'DejaVu Sans Mono',monospace;font-size:12px}\
.timer{fill:#b45309}.bad{fill:#c81e1e}.seg{font-family:ui-monospace,'DejaVu Sans Mono',monospace;font-size:12px;text-anchor:middle}\
.fold{fill:#66707c;text-anchor:middle}.differs{fill:#b45309;font-weight:700}.legend{fill:#66707c;font-size:11.5px}.mid{text-anchor:middle;font-weight:400}";

/// A lane's entries at height `at`; how many lines they took.
fn draw_lane(out: &mut String, cells: &[Cell], lane: usize, at: u32, lang: Lang) -> u32 {
    let mut lines = 0;
    for cell in cells {
        let class = match cell {
            Cell::Call(_, result) if result.starts_with('E') => "call bad",
            Cell::Call(..) => "call",
            Cell::State(_) => "state",
            Cell::Timer(_) => "timer",
        };
        let (x, side) = if lane == 0 { (LINES[0] - 14, " left") } else { (LINES[1] + 14, "") };
        let color = match cell {
            Cell::State(Some(state)) => format!(r#" style="fill:{}""#, color(state)),
            _ => String::new(),
        };
        // A lane has room for some two dozen characters.
        for line in wrap(&cell_text(cell, lang), 25) {
            let y = at + lines * LINE;
            let _ = writeln!(
                out,
                r#"<text class="{class}{side}" x="{x}" y="{y}"{color}>{}</text>"#,
                escape(&line)
            );
            lines += 1;
        }
    }
    lines.max(1)
}

/// Ends the bar of the state before, and begins the next one's.
fn bar(
    out: &mut String,
    lane: usize,
    since: &mut Option<(u32, &'static str)>,
    at: u32,
    next: Option<&'static str>,
) {
    if let Some((from, state)) = since.take() {
        let _ = writeln!(
            out,
            r#"<rect x="{}" y="{from}" width="7" height="{}" rx="3" fill="{}"/>"#,
            LINES[lane] - 3,
            at.saturating_sub(from),
            color(state)
        );
    }
    *since = next.map(|state| (at, state));
}

fn color(state: &str) -> &'static str {
    match state {
        "ESTAB" => "#15803d",
        "SYN-SENT" | "SYN-RECV" => "#0e7490",
        "FIN-WAIT-1" | "LAST-ACK" | "CLOSING" => "#c2410c",
        "FIN-WAIT-2" => "#a16207",
        "CLOSE-WAIT" => "#7e22ce",
        _ => "#475569",
    }
}

fn arrow(out: &mut String, segment: &Segment, at: u32, flow: Option<usize>, lang: Lang) {
    let (from, to) = match segment.from {
        Side::Client => (LINES[0] + 6, LINES[1] - 6),
        Side::Server => (LINES[1] - 6, LINES[0] + 6),
    };
    let lost = !matches!(segment.fate, Fate::Arrives { .. });
    let bad = lost || segment.flags.contains("RST");
    let stroke = match segment.role {
        _ if bad => "#c81e1e",
        Role::First => "#334155",
        Role::Again | Role::WindowProbe | Role::KeepaliveProbe => "#b45309",
    };
    let y = at - 4;
    if lost {
        let end = if from < to { from + (to - from) * 7 / 10 } else { from - (from - to) * 7 / 10 };
        let _ = writeln!(
            out,
            r#"<line x1="{from}" y1="{y}" x2="{end}" y2="{}" stroke="{stroke}" stroke-width="1.5" stroke-dasharray="5 4"/><text class="bad" style="text-anchor:middle;font-size:17px" x="{end}" y="{}">✗</text>"#,
            y + 8,
            y + 14
        );
    } else {
        let _ = writeln!(
            out,
            r#"<line x1="{from}" y1="{y}" x2="{to}" y2="{}" stroke="{stroke}" stroke-width="1.5" marker-end="url(#head)"/>"#,
            y + 9
        );
    }
    let number = flow.map_or_else(String::new, |flow| format!("#{} ", flow + 1));
    let text = format!("{number}{}", segment_text(segment, lang, 54));
    let (middle, length) = ((LINES[0] + LINES[1]) / 2, width(&text) as u32 * 73 / 10);
    let _ = writeln!(
        out,
        r#"<rect x="{}" y="{}" width="{}" height="15" fill="white" opacity="0.92"/><text class="seg" x="{middle}" y="{}"{}>{}</text>"#,
        middle - length / 2 - 4,
        y - 5,
        length + 8,
        y + 7,
        if bad { r##" style="fill:#c81e1e""## } else { "" },
        escape(&text)
    );
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
