//! The view on a terminal: summary, table, details, findings, last line. Only visible lines are made.

use lastack_core::tcp::state::TcpState;
use lastack_observe::doctor::Severity;
use lastack_observe::kill::effect;
use lastack_observe::row::Row;
use lastack_observe::words::{Lang, Text, bytes, duration, says, text};
use lastack_observe::{explain, group};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Clear, Paragraph, Row as Cells, Table, Wrap};

use super::model::{Mode, Model};
use crate::cmd::ss::spell;

const HELP: Text = text(
    "↑ ↓ PgUp PgDn Home End  choose\n/  filter (the grammar of lastack ss)\ns  sort: age, send-q, recv-q, state, peer\n\
     g  group: state, peer, process, port\nEnter d  details\nf  findings\nx  end what is chosen (asks)\np  pause\nq  quit",
    "↑ ↓ PgUp PgDn Home End  选择\n/  过滤（语法同 lastack ss）\ns  排序：age、send-q、recv-q、state、peer\n\
     g  分组：state、peer、process、port\nEnter d  详情\nf  诊断结果\nx  结束所选连接（会先询问）\np  暂停\nq  退出",
);
const KEYS: Text = text(
    "? help  / filter  s sort  g group  d details  f findings  x end  p pause  q quit",
    "? 帮助  / 过滤  s 排序  g 分组  d 详情  f 诊断  x 结束  p 暂停  q 退出",
);

/// Draws everything as it is at `now_ns`; gives the table's height.
pub(crate) fn draw(frame: &mut Frame<'_>, model: &Model, now_ns: u64, lang: Lang) -> usize {
    let details = if model.details && model.selected_row().is_some() { 7 } else { 0 };
    let findings = if model.with_findings { (model.findings.len() as u16 + 1).clamp(2, 6) } else { 0 };
    let [top, table, middle, bottom, last] = Layout::vertical([
        Constraint::Length(2),
        Constraint::Min(3),
        Constraint::Length(details),
        Constraint::Length(findings),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    summary(frame, top, model, now_ns, lang);
    match model.group_key() {
        None => sockets(frame, table, model, lang),
        Some(key) => groups(frame, table, model, key, lang),
    }
    if let Some(row) = model.selected_row().filter(|_| details > 0) {
        self::details(frame, middle, model, row, lang);
    }
    if findings > 0 {
        self::findings(frame, bottom, model, lang);
    }
    last_line(frame, last, model, lang);
    match &model.mode {
        Mode::Help => popup(frame, text("keys", "按键").get(lang), HELP.get(lang)),
        Mode::Confirm(rows) => popup(frame, text("end?", "结束？").get(lang), &confirmation(rows, lang)),
        Mode::Table | Mode::Filter(_) => {}
    }
    usize::from(table.height.saturating_sub(1)).max(1)
}

fn summary(frame: &mut Frame<'_>, area: Rect, model: &Model, now_ns: u64, lang: Lang) {
    let total = model.now.rows.len();
    let head = says!("{total} sockets", "{total} 个套接字");
    let mut spans = vec![Span::styled(head.get(lang).to_owned(), bold())];
    for state in TcpState::ALL {
        if let Some(found) = model.states.iter().find(|group| group.values[0] == state.name())
            && state != TcpState::NewSynRecv
        {
            spans.push(Span::raw(format!("  {state} {}", found.count)));
        }
    }
    let host = model.now.host;
    let (source, orphans) = (&model.now.source, host.orphans);
    let memory = bytes(host.memory_bytes());
    let sort = model.sort.name();
    let filter = if model.filter_text.is_empty() { "-" } else { &model.filter_text };
    let age = match now_ns.checked_sub(model.now.taken_ns).filter(|_| model.now.taken_ns > 0) {
        Some(ns) => duration(ns / 1_000_000),
        None => "-".to_owned(),
    };
    let second = says!(
        "source {source}  looked {age} ago  orphans of the host {orphans}  TCP memory {memory}  sort {sort}  filter {filter}",
        "来源 {source}  {age} 前的全表  本机孤儿 {orphans}  TCP 内存 {memory}  排序 {sort}  过滤 {filter}"
    );
    let second = Line::from(second.get(lang).to_owned());
    frame.render_widget(Paragraph::new(vec![Line::from(spans), second]), area);
}

fn sockets(frame: &mut Frame<'_>, area: Rect, model: &Model, lang: Lang) {
    let height = usize::from(area.height.saturating_sub(1)).max(1);
    let first = model.first_line(height);
    let lines = model.shown.iter().enumerate().skip(first).take(height).map(|(place, index)| {
        let row = &model.now.rows[*index];
        let socket = &row.socket;
        let gone = model.is_gone(*index);
        let style = match (place == model.selected, gone) {
            (true, _) => reversed(),
            (false, true) => Style::new().add_modifier(Modifier::DIM | Modifier::CROSSED_OUT),
            (false, false) => state_style(socket.state),
        };
        Cells::new(vec![
            if gone { text("gone", "已消失").get(lang) } else { socket.state.name() }.to_owned(),
            row.condition_age_ms().map_or_else(|| "-".to_owned(), duration),
            socket.recv_q.to_string(),
            socket.send_q.to_string(),
            spell::address(socket.local, row.v6only),
            spell::address(socket.remote, row.v6only),
            socket.timer.map_or_else(|| "-".to_owned(), spell::timer),
            row.owner.as_ref().map_or_else(|| "-".to_owned(), spell::owner),
        ])
        .style(style)
    });
    let widths = [10, 9, 9, 9, 24, 24, 18].map(Constraint::Length).into_iter().chain([Constraint::Min(10)]);
    let names = match lang {
        Lang::En => ["State", "Age ≥", "Recv-Q", "Send-Q", "Local", "Peer", "Timer", "Owner"],
        Lang::Zh => ["State", "时长 ≥", "Recv-Q", "Send-Q", "本端", "对端", "定时器", "进程"],
    };
    let header = Cells::new(names).style(bold());
    frame.render_widget(Table::new(lines, widths).header(header), area);
}

fn groups(frame: &mut Frame<'_>, area: Rect, model: &Model, key: group::Key, lang: Lang) {
    let height = usize::from(area.height.saturating_sub(1)).max(1);
    let first = model.first_line(height);
    let lines = model.groups.iter().enumerate().skip(first).take(height).map(|(place, group)| {
        let style = if place == model.selected { reversed() } else { Style::new() };
        Cells::new(vec![
            group.values[0].clone(),
            group.count.to_string(),
            group.oldest_ms.map_or_else(|| "-".to_owned(), duration),
            bytes(group.recv_q),
            bytes(group.send_q),
        ])
        .style(style)
    });
    let widths = [
        Constraint::Min(20),
        Constraint::Length(10),
        Constraint::Length(10),
        Constraint::Length(12),
        Constraint::Length(12),
    ];
    let (count, oldest) = (text("Count", "数量"), text("Oldest", "最久"));
    let header =
        Cells::new([key.name(), count.get(lang), oldest.get(lang), "Recv-Q", "Send-Q"]).style(bold());
    frame.render_widget(Table::new(lines, widths).header(header), area);
}

fn details(frame: &mut Frame<'_>, area: Rect, model: &Model, row: &Row, lang: Lang) {
    let mut lines = vec![Line::from(explain::row(row).get(lang).to_owned())];
    let mut timeline = model.timeline(row.socket.cookie).peekable();
    let start = timeline.peek().map_or(0, |(at, _)| *at);
    let states: Vec<String> = timeline
        .map(|(at, state)| format!("{state} +{}", duration(at.saturating_sub(start) / 1_000_000)))
        .collect();
    lines.push(Line::from(format!("{}{}", text("seen: ", "经过：").get(lang), states.join(" → "))));
    if let Some(info) = row.socket.info.as_deref() {
        lines.push(Line::from(format!(
            "rtt {} us  cwnd {}  unacked {}  retrans {}/{}  sent {}  received {}  peer's window {}  ours {}",
            info.rtt,
            info.snd_cwnd,
            info.unacked,
            info.retrans,
            info.total_retrans,
            bytes(info.bytes_sent),
            bytes(info.bytes_received),
            bytes(info.snd_wnd.into()),
            bytes(info.rcv_wnd.into()),
        )));
    }
    let effect = effect(row);
    lines.push(Line::from(format!(
        "{}{}",
        text("ending it: ", "结束它：").get(lang),
        effect.words.get(lang)
    )));
    let title = format!(" {} → {} ", row.socket.local, row.socket.remote);
    let paragraph = Paragraph::new(lines).wrap(Wrap { trim: true }).block(Block::bordered().title(title));
    frame.render_widget(paragraph, area);
}

fn findings(frame: &mut Frame<'_>, area: Rect, model: &Model, lang: Lang) {
    let mut lines: Vec<Line<'_>> = model
        .findings
        .iter()
        .map(|finding| {
            let color = match finding.severity {
                Severity::Info => Color::Blue,
                Severity::Warning => Color::Yellow,
                Severity::Error => Color::Red,
            };
            Line::from(vec![
                Span::styled(format!("{} × {}  ", finding.rule.id, finding.count), Style::new().fg(color)),
                Span::raw(finding.rule.title.get(lang).to_owned()),
            ])
        })
        .collect();
    if lines.is_empty() {
        lines.push(Line::from(text("doctor: nothing wrong found", "doctor：未发现问题").get(lang)));
    }
    frame.render_widget(Paragraph::new(lines), area);
}

fn last_line(frame: &mut Frame<'_>, area: Rect, model: &Model, lang: Lang) {
    let said = model.message.as_ref().map(|words| words.get(lang));
    let line = match (&model.mode, said) {
        (Mode::Filter(typed), None) => says!(
            "filter: {typed}_   (Enter applies, Esc leaves)",
            "过滤：{typed}_   （Enter 应用，Esc 取消）"
        )
        .get(lang)
        .to_owned(),
        (Mode::Filter(typed), Some(said)) => {
            format!("{}{typed}_   {said}", text("filter: ", "过滤：").get(lang))
        }
        (_, Some(said)) => said.to_owned(),
        _ if model.paused => text("paused: p goes on", "已暂停：按 p 继续").get(lang).to_owned(),
        _ => KEYS.get(lang).to_owned(),
    };
    frame.render_widget(Paragraph::new(line).style(Style::new().add_modifier(Modifier::DIM)), area);
}

fn confirmation(rows: &[Row], lang: Lang) -> String {
    let count = rows.len();
    let mut out = says!("{count} connections\n", "{count} 个连接\n").get(lang).to_owned();
    for row in rows.iter().take(5) {
        out.push_str(&format!("{} {} → {}\n", row.socket.state, row.socket.local, row.socket.remote));
    }
    if let Some(row) = rows.first() {
        out.push_str(effect(row).words.get(lang));
    }
    out.push_str(
        text("\n\ny ends them, any other key does not", "\n\n按 y 结束它们，按其他键则不结束").get(lang),
    );
    out
}

fn popup(frame: &mut Frame<'_>, title: &str, body: &str) {
    let area = frame.area();
    let (width, height) = (area.width.min(76), area.height.min(13));
    let place = Rect { x: (area.width - width) / 2, y: (area.height - height) / 2, width, height };
    frame.render_widget(Clear, place);
    let block = Block::bordered().title(format!(" {title} "));
    frame.render_widget(Paragraph::new(body).wrap(Wrap { trim: false }).block(block), place);
}

fn bold() -> Style {
    Style::new().add_modifier(Modifier::BOLD)
}

fn reversed() -> Style {
    Style::new().add_modifier(Modifier::REVERSED)
}

fn state_style(state: TcpState) -> Style {
    match state {
        TcpState::FinWait1 | TcpState::LastAck | TcpState::Closing | TcpState::CloseWait => {
            Style::new().fg(Color::Yellow)
        }
        TcpState::SynSent | TcpState::SynRecv | TcpState::NewSynRecv => Style::new().fg(Color::Cyan),
        TcpState::TimeWait | TcpState::FinWait2 | TcpState::Close => Style::new().add_modifier(Modifier::DIM),
        TcpState::Established | TcpState::Listen => Style::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::model::{Key, Model, tests::look};
    use super::*;
    use lastack_observe::filter::Filter;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    fn screen(model: &Model, width: u16, height: u16, lang: Lang) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a terminal");
        terminal
            .draw(|frame| {
                draw(frame, model, 5_400_000_000, lang);
            })
            .expect("draws");
        terminal.backend().to_string()
    }

    #[test]
    fn the_screen_shows_summary_table_explanation_and_what_ending_does() {
        let mut model = Model::new(String::new(), Filter::default());
        model.update(look("FIN-WAIT-1"));
        let text = screen(&model, 140, 30, Lang::En);
        for part in [
            "3 sockets",
            "looked 400ms ago",
            "FIN-WAIT-1 1",
            "10.0.0.9:4000",
            "persist,8.1s,0",
            "nginx/71 (former, by port)",
            "the FIN waits behind 777 B",
            "ending it: RST",
            "nothing wrong found",
        ] {
            assert!(text.contains(part), "{part}\n{text}");
        }
        assert!(screen(&model, 140, 30, Lang::Zh).contains("窗"), "the other language");
        model.key(Key::Char('x'), 10);
        assert!(screen(&model, 140, 30, Lang::En).contains("y ends them"));
        model.key(Key::Char('n'), 10);
        model.refresh(vec![(1, None)], 6_000_000_000);
        assert!(screen(&model, 140, 30, Lang::En).contains("gone"));
    }

    #[test]
    fn any_size_of_terminal_is_survived() {
        let mut model = Model::new(String::new(), Filter::default());
        model.update(look("CLOSE-WAIT"));
        for key in ["", "?", "gx", "d", "f"] {
            key.chars().for_each(|c| {
                model.key(Key::Char(c), 3);
            });
            for (width, height) in [(1, 1), (5, 3), (20, 8), (300, 100)] {
                screen(&model, width, height, Lang::En);
            }
        }
    }
}
