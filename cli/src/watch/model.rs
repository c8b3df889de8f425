//! What the view shows: the rows in order, the groups, the selection, each connection's timeline.
//!
//! Owns:    everything but the terminal. Input: [`Look`]s at all sockets, fresh rows of those on the screen, and
//!          [`Key`]s. Output: [`Action`]s.

use std::collections::{HashMap, HashSet};

use lastack_core::tcp::state::TcpState;
use lastack_observe::doctor::Finding;
use lastack_observe::filter::{Filter, StateSet};
use lastack_observe::group;
use lastack_observe::row::Row;
use lastack_observe::snapshot::Snapshot;
use lastack_observe::words::Words;

use super::looker::Look;

/// Timelines kept at most; a busy host's short connections must not fill the memory.
const MAX_TIMELINES: usize = 200_000;

/// A key, free of any terminal library.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Key {
    Char(char),
    Up,
    Down,
    PageUp,
    PageDown,
    Home,
    End,
    Enter,
    Escape,
    Backspace,
}

/// What the command must do.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Action {
    Nothing,
    Quit,
    /// End these.
    Kill(Vec<Row>),
}

/// The order of rows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Sort {
    Age,
    SendQ,
    RecvQ,
    State,
    Peer,
}

impl Sort {
    const ALL: [Self; 5] = [Self::Age, Self::SendQ, Self::RecvQ, Self::State, Self::Peer];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Age => "age",
            Self::SendQ => "send-q",
            Self::RecvQ => "recv-q",
            Self::State => "state",
            Self::Peer => "peer",
        }
    }
}

/// What is on top of the table.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Mode {
    Table,
    /// Typing a filter.
    Filter(String),
    /// Asking before ending.
    Confirm(Vec<Row>),
    Help,
}

/// The keys of grouping, in the order `g` walks through them.
const GROUPS: [Option<group::Key>; 5] = [
    None,
    Some(group::Key::State),
    Some(group::Key::Peer),
    Some(group::Key::Process),
    Some(group::Key::SPort),
];

/// The whole view.
#[derive(Debug)]
pub(crate) struct Model {
    pub(crate) now: Snapshot,
    /// Places in `now.rows` of sockets that have gone since.
    gone: HashSet<usize>,
    pub(crate) findings: Vec<Finding>,
    /// Indices into `now.rows`, filtered and in order.
    pub(crate) shown: Vec<usize>,
    pub(crate) groups: Vec<group::Group>,
    pub(crate) selected: usize,
    pub(crate) filter_text: String,
    filter: Filter,
    pub(crate) sort: Sort,
    grouping: usize,
    pub(crate) details: bool,
    pub(crate) with_findings: bool,
    pub(crate) paused: bool,
    pub(crate) mode: Mode,
    /// Something to tell in the last line.
    pub(crate) message: Option<Words>,
    timelines: HashMap<u64, Timeline>,
    /// The states of all sockets, most frequent first.
    pub(crate) states: Vec<group::Group>,
}

/// What one connection has been seen in; one that stays as it is takes no memory of its own.
#[derive(Clone, Debug)]
struct Timeline {
    first: (u64, TcpState),
    then: Vec<(u64, TcpState)>,
    /// The last look that had it.
    seen_ns: u64,
}

impl Model {
    pub(crate) fn new(filter_text: String, filter: Filter) -> Self {
        Self {
            now: Snapshot::default(),
            gone: HashSet::new(),
            findings: Vec::new(),
            shown: Vec::new(),
            groups: Vec::new(),
            selected: 0,
            filter_text,
            filter: all_states_unless_named(filter),
            sort: Sort::Age,
            grouping: 0,
            details: true,
            with_findings: true,
            paused: false,
            mode: Mode::Table,
            message: None,
            timelines: HashMap::new(),
            states: Vec::new(),
        }
    }

    /// Takes a new look over.
    pub(crate) fn update(&mut self, look: Look) {
        let keep = self.selected_row().map(|row| row.socket.cookie);
        let Look { snapshot, findings, states, took: _ } = look;
        (self.now, self.findings, self.states) = (snapshot, findings, states);
        self.gone.clear();
        self.remember();
        self.arrange();
        if let Some(cookie) = keep
            && let Some(place) =
                self.shown.iter().position(|index| self.now.rows[*index].socket.cookie == cookie)
        {
            self.selected = place;
        }
    }

    /// The first line of the table that is visible in `height` lines, so that the selected one is.
    pub(crate) fn first_line(&self, height: usize) -> usize {
        self.selected.saturating_sub(height / 2).min(self.len().saturating_sub(height))
    }

    /// The places in `now.rows` of the sockets that a table of `height` lines shows.
    pub(crate) fn visible(&self, height: usize) -> Vec<usize> {
        if self.group_key().is_some() {
            return Vec::new();
        }
        let still = |place: &usize| !self.gone.contains(place);
        self.shown.iter().skip(self.first_line(height)).take(height).copied().filter(still).collect()
    }

    /// Takes over what has been read again of single sockets; their places in the order stay until the next look.
    pub(crate) fn refresh(&mut self, fresh: Vec<(usize, Option<Row>)>, now_ns: u64) {
        for (place, row) in fresh {
            match row {
                Some(row) => {
                    note(&mut self.timelines, &row, now_ns);
                    self.now.rows[place] = row;
                }
                None => {
                    self.gone.insert(place);
                }
            }
        }
    }

    /// The socket at this place in `now.rows` has gone since the last look.
    pub(crate) fn is_gone(&self, place: usize) -> bool {
        self.gone.contains(&place)
    }

    fn remember(&mut self) {
        let now_ns = self.now.taken_ns;
        for row in self.now.rows.iter().take(MAX_TIMELINES) {
            note(&mut self.timelines, row, now_ns);
        }
        // One that was read again after this look had begun may have opened since.
        self.timelines.retain(|_, line| line.seen_ns >= now_ns);
    }

    /// Filters, orders and groups what there is.
    fn arrange(&mut self) {
        let rows = &self.now.rows;
        let mut shown: Vec<usize> =
            (0..rows.len()).filter(|index| self.filter.matches(&rows[*index])).collect();
        let by = |index: &usize| {
            let row = &rows[*index];
            let number = match self.sort {
                Sort::Age => row.condition_age_ms().unwrap_or(0),
                Sort::SendQ if row.socket.state != TcpState::Listen => row.socket.send_q.into(),
                Sort::RecvQ => row.socket.recv_q.into(),
                Sort::SendQ | Sort::State | Sort::Peer => 0,
            };
            std::cmp::Reverse(number)
        };
        match self.sort {
            Sort::State => shown.sort_by_key(|index| (rows[*index].socket.state, rows[*index].socket.cookie)),
            Sort::Peer => shown.sort_by_key(|index| (rows[*index].socket.remote, rows[*index].socket.cookie)),
            _ => shown.sort_by_cached_key(|index| (by(index), rows[*index].socket.cookie)),
        }
        self.shown = shown;
        self.groups = match self.group_key() {
            None => Vec::new(),
            Some(key) => group::by(self.chosen(), &[key]),
        };
        self.selected = self.selected.min(self.len().saturating_sub(1));
    }

    /// The rows that the filter leaves, in order.
    pub(crate) fn chosen(&self) -> impl Iterator<Item = &Row> {
        self.shown.iter().map(|index| &self.now.rows[*index])
    }

    pub(crate) fn group_key(&self) -> Option<group::Key> {
        GROUPS[self.grouping]
    }

    /// Lines of the table.
    pub(crate) fn len(&self) -> usize {
        if self.group_key().is_some() { self.groups.len() } else { self.shown.len() }
    }

    pub(crate) fn selected_row(&self) -> Option<&Row> {
        if self.group_key().is_some() {
            return None;
        }
        self.shown.get(self.selected).map(|index| &self.now.rows[*index])
    }

    /// When the connection was first seen in which state.
    pub(crate) fn timeline(&self, cookie: u64) -> impl Iterator<Item = (u64, TcpState)> {
        let line = self.timelines.get(&cookie);
        line.into_iter().flat_map(|line| std::iter::once(&line.first).chain(&line.then).copied())
    }

    /// Does what a key means; `page` is the table's height.
    pub(crate) fn key(&mut self, key: Key, page: usize) -> Action {
        self.message = None;
        match std::mem::replace(&mut self.mode, Mode::Table) {
            Mode::Table => return self.table_key(key, page),
            Mode::Help => {}
            Mode::Filter(text) => self.filter_key(key, text),
            Mode::Confirm(rows) => match key {
                Key::Char('y' | 'Y') => return Action::Kill(rows),
                _ => {
                    self.message = Some(Words {
                        en: "nothing was ended".to_owned(),
                        zh: "没有结束任何连接".to_owned(),
                    });
                }
            },
        }
        Action::Nothing
    }

    fn table_key(&mut self, key: Key, page: usize) -> Action {
        let last = self.len().saturating_sub(1);
        match key {
            Key::Char('q') | Key::Escape => return Action::Quit,
            Key::Up => self.selected = self.selected.saturating_sub(1),
            Key::Down => self.selected = (self.selected + 1).min(last),
            Key::PageUp => self.selected = self.selected.saturating_sub(page),
            Key::PageDown => self.selected = (self.selected + page).min(last),
            Key::Home => self.selected = 0,
            Key::End => self.selected = last,
            Key::Enter | Key::Char('d') => self.details = !self.details,
            Key::Char('f') => self.with_findings = !self.with_findings,
            Key::Char('p') => self.paused = !self.paused,
            Key::Char('/') => self.mode = Mode::Filter(self.filter_text.clone()),
            Key::Char('?' | 'h') => self.mode = Mode::Help,
            Key::Char('s') => {
                let at = Sort::ALL.iter().position(|sort| *sort == self.sort).unwrap_or(0);
                self.sort = Sort::ALL[(at + 1) % Sort::ALL.len()];
                self.arrange();
            }
            Key::Char('g') => {
                self.grouping = (self.grouping + 1) % GROUPS.len();
                self.selected = 0;
                self.arrange();
            }
            Key::Char('x') => {
                let rows: Vec<Row> = match self.group_key() {
                    None => self.selected_row().into_iter().cloned().collect(),
                    Some(key) => {
                        let wanted = self.groups.get(self.selected).map(|group| group.values[0].clone());
                        let of_group =
                            |row: &&Row| Some(key.of(row)) == wanted && row.socket.state != TcpState::Listen;
                        self.shown
                            .iter()
                            .map(|index| &self.now.rows[*index])
                            .filter(of_group)
                            .cloned()
                            .collect()
                    }
                };
                if !rows.is_empty() {
                    self.mode = Mode::Confirm(rows);
                }
            }
            Key::Char(_) | Key::Backspace => {}
        }
        Action::Nothing
    }

    fn filter_key(&mut self, key: Key, mut text: String) {
        match key {
            Key::Enter => match Filter::parse(&[&text]) {
                Ok(filter) => {
                    self.filter = all_states_unless_named(filter);
                    self.filter_text = text;
                    self.selected = 0;
                    self.arrange();
                }
                Err(error) => {
                    self.message = Some(Words {
                        en: format!("{}; for example: {}", error.message, error.hint),
                        zh: format!("{}；例如：{}", error.message, error.hint),
                    });
                    self.mode = Mode::Filter(text);
                }
            },
            Key::Escape => {}
            Key::Backspace => {
                text.pop();
                self.mode = Mode::Filter(text);
            }
            Key::Char(c) => {
                text.push(c);
                self.mode = Mode::Filter(text);
            }
            _ => self.mode = Mode::Filter(text),
        }
    }
}

/// Adds what `row` was in at `now_ns` to its timeline, unless more recent is known.
fn note(timelines: &mut HashMap<u64, Timeline>, row: &Row, now_ns: u64) {
    let state = (now_ns, row.socket.state);
    let line = timelines.entry(row.socket.cookie);
    let line = line.or_insert_with(|| Timeline { first: state, then: Vec::new(), seen_ns: now_ns });
    if line.seen_ns > now_ns {
        return;
    }
    line.seen_ns = now_ns;
    if line.then.last().unwrap_or(&line.first).1 != state.1 {
        line.then.push(state);
    }
}

/// The view shows every state unless the filter names some.
pub(crate) fn all_states_unless_named(mut filter: Filter) -> Filter {
    if !filter.names_states {
        filter.states = StateSet::ALL;
    }
    filter
}

#[cfg(test)]
pub(crate) mod tests {
    use std::time::Duration;

    use super::*;
    use lastack_observe::doctor::{self, Limits};
    use lastack_observe::json;

    /// A look at three sockets, as `ss --json` would have saved it.
    pub(crate) fn look(middle: &str) -> Look {
        let text = format!(
            r#"{{"schema":1,"source":"kernel","taken_ns":5000000000,"sockets":[
            {{"netns":1,"state":"LISTEN","local":"0.0.0.0:80","peer":"0.0.0.0:0","recv_q":0,"send_q":128,"inode":5,"cookie":1}},
            {{"netns":1,"state":"{middle}","local":"10.0.0.1:80","peer":"10.0.0.9:4000","recv_q":0,"send_q":777,"cookie":2,"orphan":true,
              "timer":{{"name":"persist","expires_ms":8100,"retrans":0}},"state_age_ms":61000,"state_age_how":"recorded",
              "owner":{{"pid":71,"comm":"nginx","former":true,"how":"listener"}}}},
            {{"netns":1,"state":"ESTAB","local":"10.0.0.1:80","peer":"10.0.0.8:4001","recv_q":9000,"send_q":0,"inode":7,"cookie":3}}]}}"#
        );
        let snapshot = json::read_snapshot(&text).expect("a snapshot");
        let findings = doctor::examine(&snapshot, None, &Limits::default());
        let states = group::by(&snapshot.rows, &[group::Key::State]);
        Look { snapshot, findings, states, took: Duration::ZERO }
    }

    fn model() -> Model {
        let mut model = Model::new(String::new(), Filter::default());
        model.update(look("FIN-WAIT-1"));
        model
    }

    fn typed(model: &mut Model, text: &str) {
        for c in text.chars() {
            assert_eq!(model.key(Key::Char(c), 10), Action::Nothing);
        }
    }

    #[test]
    fn the_oldest_is_first_and_sorting_goes_round() {
        let mut model = model();
        assert_eq!(model.selected_row().map(|row| row.socket.cookie), Some(2));
        typed(&mut model, "ss");
        assert_eq!((model.sort, model.shown[0]), (Sort::RecvQ, 2));
        typed(&mut model, "sss");
        assert_eq!(model.sort, Sort::Age);
    }

    #[test]
    fn a_filter_is_typed_and_mistakes_are_told() {
        let mut model = model();
        typed(&mut model, "/bogus");
        model.key(Key::Enter, 10);
        assert!(
            model.message.as_ref().is_some_and(|said| said.en.contains("bogus"))
                && matches!(model.mode, Mode::Filter(_))
        );
        for _ in 0..5 {
            model.key(Key::Backspace, 10);
        }
        typed(&mut model, "state fin-wait-1");
        model.key(Key::Enter, 10);
        assert_eq!((model.len(), model.filter_text.as_str()), (1, "state fin-wait-1"));
    }

    #[test]
    fn ending_asks_first_and_never_means_a_listener_of_a_group() {
        let mut model = model();
        typed(&mut model, "x");
        assert!(matches!(&model.mode, Mode::Confirm(rows) if rows.len() == 1));
        assert_eq!(model.key(Key::Char('n'), 10), Action::Nothing);
        typed(&mut model, "gggg");
        assert_eq!(model.groups[0].values[0], "80");
        typed(&mut model, "x");
        match model.key(Key::Char('y'), 10) {
            Action::Kill(rows) => assert_eq!(rows.len(), 2, "not the listener"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_timeline_grows_and_the_selection_stays_on_its_connection() {
        let mut model = model();
        model.key(Key::End, 10);
        let chosen = model.selected_row().map(|row| row.socket.cookie);
        model.update(look("FIN-WAIT-2"));
        assert_eq!(model.selected_row().map(|row| row.socket.cookie), chosen);
        let states: Vec<_> = model.timeline(2).map(|(_, state)| state).collect();
        assert_eq!(states, [TcpState::FinWait1, TcpState::FinWait2]);
    }

    #[test]
    fn what_is_on_the_screen_is_read_again_between_two_looks() {
        let mut model = model();
        assert_eq!(model.visible(2), [1, 0], "the oldest, and the next in order");
        let mut changed = model.now.rows[1].clone();
        changed.socket.state = TcpState::FinWait2;
        model.refresh(vec![(1, Some(changed)), (2, None)], 6_000_000_000);
        assert_eq!(model.selected_row().map(|row| row.socket.state), Some(TcpState::FinWait2));
        assert!(model.is_gone(2) && model.visible(3) == [1, 0], "what has gone is not asked for again");
        let seen: Vec<_> = model.timeline(2).collect();
        assert_eq!(seen, [(5_000_000_000, TcpState::FinWait1), (6_000_000_000, TcpState::FinWait2)]);
        // A look that began before that, and comes in after it, forgets nothing.
        model.update(look("FIN-WAIT-2"));
        assert_eq!(model.timeline(2).count(), 2);
        assert!(!model.is_gone(2), "the new look has its own places");
        typed(&mut model, "g");
        assert_eq!(model.visible(3), [0; 0], "groups are of the last look");
    }
}
