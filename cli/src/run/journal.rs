//! Takes down what happens during a run, without making the packets wait.
//!
//! Owns:    [`Journal`]: notes collected where packets move, and a thread that words and writes them.
//! Rules:   the listener only appends to a list; the list is handed over many times a second, so a slow disk or pipe
//!          slows nobody. A list that grows beyond its limit loses notes, which are counted and said.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use lastack_gateway::Note;
use lastack_gateway::confine;
use lastack_gateway::journal::Entry;
use lastack_observe::words::Lang;

use super::impaired::Account;
use super::report::{Place, Report, Style};
use super::words::{arrow, explain, explain_flow, explain_limit, place, time};

/// Notes that may wait to be handed over.
const WAITING: usize = 1 << 18;

/// Which form the journal has.
#[derive(clap::ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Form {
    /// A report at the end
    Text,
    /// One line a connection, when it ends
    Json,
    /// Nothing
    None,
}

/// Where it goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Output<'a> {
    Stderr,
    Stdout,
    /// Appended to this file.
    File(&'a Path),
}

/// The journal of one run.
#[derive(Debug)]
pub(crate) struct Journal {
    waiting: Arc<Mutex<Waiting>>,
    to_writer: Option<Sender<Batch>>,
    thread: Option<JoinHandle<io::Result<()>>>,
    /// No report is wanted any more.
    quiet: Arc<AtomicBool>,
}

/// What is handed to the writer.
#[derive(Debug)]
enum Batch {
    Notes(Vec<Note>),
    /// The account of a bad link.
    Link(Account),
}

#[derive(Debug, Default)]
struct Waiting {
    notes: Vec<Note>,
    lost: u64,
}

impl Journal {
    /// A journal in `form` of a program at `place`, with a line on standard error at each open and end if `live`.
    ///
    /// # Errors
    /// The file cannot be opened, or no thread can be started.
    pub(crate) fn open(
        form: Form,
        output: Output<'_>,
        live: bool,
        style: Style,
        place: Place,
    ) -> io::Result<Self> {
        let out: Box<dyn Write + Send> = match output {
            Output::File(path) => Box::new(File::options().append(true).create(true).open(path)?),
            Output::Stderr => Box::new(io::stderr()),
            Output::Stdout => Box::new(io::stdout()),
        };
        let style = Style { color: style.color && !matches!(output, Output::File(_)), ..style };
        let quiet = Arc::new(AtomicBool::new(false));
        let writer = Writer { form, out, live, style, report: Report::new(place), quiet: quiet.clone() };
        let (to_writer, notes) = channel();
        let thread = std::thread::Builder::new().name("lastack-journal".into()).spawn(move || {
            // It writes to a file that is open.
            confine::give_up_capabilities()?;
            writer.run(&notes)
        })?;
        Ok(Self { waiting: Arc::default(), to_writer: Some(to_writer), thread: Some(thread), quiet })
    }

    /// What a gateway tells its notes to.
    pub(crate) fn listener(&self) -> impl Fn(Note) + Send + Sync + use<> {
        let waiting = self.waiting.clone();
        move |note| {
            let mut waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
            if waiting.notes.len() < WAITING { waiting.notes.push(note) } else { waiting.lost += 1 }
        }
    }

    /// Hands over what has been collected.
    pub(crate) fn hand_over(&self) {
        let notes = std::mem::take(&mut self.waiting.lock().unwrap_or_else(PoisonError::into_inner).notes);
        if !notes.is_empty()
            && let Some(to_writer) = &self.to_writer
        {
            // A writer that has failed tells why when it is closed.
            let _ = to_writer.send(Batch::Notes(notes));
        }
    }

    /// Takes the account of a bad link down, behind everything that has been collected.
    pub(crate) fn tell_link(&self, account: Account) {
        self.hand_over();
        if let Some(to_writer) = &self.to_writer {
            // As above.
            let _ = to_writer.send(Batch::Link(account));
        }
    }

    /// Ends without a report: nothing was run.
    pub(crate) fn discard(mut self) {
        self.quiet.store(true, Ordering::Release);
        drop(self.to_writer.take());
        if let Some(thread) = self.thread.take() {
            // What went wrong has been said already.
            let _ = thread.join();
        }
    }

    /// Writes what is left, and the report. Gives the number of notes that were lost.
    ///
    /// # Errors
    /// Something could not be written.
    pub(crate) fn close(mut self) -> io::Result<u64> {
        self.hand_over();
        drop(self.to_writer.take());
        let thread = self.thread.take().expect("closed once");
        thread.join().expect("the writer does not panic")?;
        Ok(self.waiting.lock().unwrap_or_else(PoisonError::into_inner).lost)
    }
}

struct Writer {
    form: Form,
    out: Box<dyn Write + Send>,
    live: bool,
    style: Style,
    report: Report,
    quiet: Arc<AtomicBool>,
}

impl Writer {
    fn run(mut self, batches: &Receiver<Batch>) -> io::Result<()> {
        let mut lines = String::new();
        for batch in batches {
            lines.clear();
            match batch {
                Batch::Notes(notes) => notes.into_iter().for_each(|note| self.take(note, &mut lines)),
                Batch::Link(account) => match self.form {
                    Form::Json => {
                        lines.push_str(&account.to_json());
                        lines.push('\n');
                    }
                    Form::Text => self.report.set_link(account),
                    Form::None => {}
                },
            }
            self.out.write_all(lines.as_bytes())?;
            self.out.flush()?;
        }
        if self.form == Form::Text && !self.quiet.load(Ordering::Acquire) {
            self.out.write_all(self.report.text(self.style).as_bytes())?;
            self.out.flush()?;
        }
        Ok(())
    }

    fn take(&mut self, note: Note, lines: &mut String) {
        if self.live {
            let line = live_line(&note, self.style.lang);
            // Broken standard error: nobody reads it.
            let _ = writeln!(io::stderr(), "{line}");
        }
        let Note::Ended(entry) = note else { return };
        match self.form {
            Form::Json => {
                lines.push_str(&json(&entry, self.style.lang));
                lines.push('\n');
            }
            Form::Text => self.report.add(entry),
            Form::None => {}
        }
    }
}

fn json(entry: &Entry, lang: Lang) -> String {
    match entry {
        Entry::Connection(connection) => {
            let explanation = explain(connection, lang);
            connection.to_json(&explanation.text, explanation.advice.as_deref())
        }
        Entry::Flow(flow) => flow.to_json(&explain_flow(flow, lang)),
        Entry::Lookup(lookup) => lookup.to_json(),
        Entry::Limit(reached) => reached.to_json(&explain_limit(reached, lang)),
    }
}

fn live_line(note: &Note, lang: Lang) -> String {
    match note {
        Note::Opened(opened) => {
            let process = opened.owner.as_ref().map_or("?", |owner| &*owner.process);
            let handshake = opened.handshake_us.map(|us| format!(" {}", time(us))).unwrap_or_default();
            let arrow = arrow(opened.direction);
            format!("#{} {process} {arrow} {} ESTAB{handshake}", opened.id, opened.remote)
        }
        Note::Ended(Entry::Connection(c)) => {
            let process = c.owner.as_ref().map_or("?", |owner| &*owner.process);
            let (arrow, how) = (arrow(c.direction), c.verdict.how.name());
            format!("#{} {process} {arrow} {} {how}: {}", c.id, c.remote, explain(c, lang).text)
        }
        Note::Ended(Entry::Flow(flow)) => {
            let process = flow.owner.as_ref().map_or("?", |owner| &*owner.process);
            let (arrow, how) = (arrow(flow.direction), flow.how.name());
            format!("#{} {process} {arrow} {} {how}: {}", flow.id, place(flow), explain_flow(flow, lang))
        }
        Note::Ended(Entry::Limit(reached)) => explain_limit(reached, lang),
        Note::Ended(Entry::Lookup(l)) => {
            let process = l.owner.as_ref().map_or("?", |owner| &*owner.process);
            format!("#{} {process} ? {} {} {} {}", l.id, l.name, l.kind, l.how.name(), time(l.took_us))
        }
    }
}
