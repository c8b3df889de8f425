//! `lastack kill`: ends connections in any state, and says first what each side will see.

use std::collections::{BTreeMap, HashSet};
use std::io::{self, BufRead as _, BufWriter, IsTerminal as _, Write};
use std::process::ExitCode;

use lastack_core::tcp::state::TcpState;
use lastack_observe::filter::{Filter, StateSet};
use lastack_observe::json;
use lastack_observe::kill::{Effect, effect};
use lastack_observe::row::Row;
use lastack_observe::source::Source;
use lastack_observe::source::kernel::{Detail, Query};
use lastack_observe::words::Lang;
use serde_json::{Value, json};

use super::ss::spell;
use crate::args::Globals;
use crate::failure::Failure;
use crate::source_args::{self, SourceArgs};
use crate::table::Table;
use crate::text::paragraph;

/// Some of the matching connections are still there.
const EXIT_SOME: u8 = 3;
/// Connections listed one by one; more are summed up.
const LISTED: usize = 20;

/// The command line of `kill`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  lastack kill --dry-run state fin-wait-1 dst 10.0.0.0/8     what each side would see
  lastack kill --yes state close-wait process = myapp        end the leak of one program

The filter is that of `lastack ss`. Without a state it means connections in every state, never listeners.

Exit status: 0 all ended, 1 none matched, 2 usage or failure, 3 only some ended.")]
pub(crate) struct Args {
    #[command(flatten)]
    source: SourceArgs,
    /// Say what would happen, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
    /// Which connections, for example: state fin-wait-1 dst 10.0.0.0/8
    #[arg(value_name = "FILTER", trailing_var_arg = true)]
    filter: Vec<String>,
}

pub(crate) fn run(args: &Args, globals: &Globals) -> Result<ExitCode, Failure> {
    let lang = globals.lang();
    let query = Query { filter: args.filter()?, detail: Detail::Full, owners: true, v6: None };
    let mut source = args.source.open()?;
    let snapshot = source.snapshot(&query).map_err(|error| args.source.refused(&error))?;
    let (rows, name) = (snapshot.rows, snapshot.source);
    let out = &mut BufWriter::new(io::stdout().lock());
    if args.dry_run || rows.is_empty() {
        if globals.json {
            writeln!(out, "{}", document(&name, &rows, args.dry_run, None, lang))?;
        } else {
            plan(&rows, lang, out)?;
        }
        out.flush()?;
        return Ok(ExitCode::from(u8::from(rows.is_empty())));
    }
    if !args.yes {
        if !globals.json {
            plan(&rows, lang, out)?;
            out.flush()?;
        }
        if !asked(rows.len(), lang)? {
            say!("{}", if lang == Lang::En { "nothing was ended" } else { "没有结束任何连接" });
            return Ok(ExitCode::from(EXIT_SOME));
        }
    }
    let outcome = end(&mut source, &args.source, &query, &rows)?;
    if globals.json {
        writeln!(out, "{}", document(&name, &rows, false, Some(&outcome), lang))?;
    } else {
        report(&outcome, rows.len(), lang, out)?;
    }
    out.flush()?;
    Ok(ExitCode::from(if outcome.left.is_empty() { 0 } else { EXIT_SOME }))
}

impl Args {
    fn filter(&self) -> Result<Filter, Failure> {
        let mut filter = source_args::filter(&self.filter)?;
        if filter.is_empty() {
            return Err(Failure::new(
                "no filter: this would end every connection",
                "kill wants to be told which",
                "lastack kill --dry-run state fin-wait-1",
            ));
        }
        if !filter.names_states {
            let not = StateSet::of(TcpState::Listen).or(StateSet::of(TcpState::Close));
            filter.states = not.complement();
        }
        Ok(filter)
    }
}

/// What became of the matching connections.
struct Outcome {
    ended: usize,
    /// Had ended by themselves before their turn.
    gone: usize,
    /// Still there, with the reason.
    left: Vec<(u64, String)>,
}

fn end(source: &mut Source, named: &SourceArgs, query: &Query, rows: &[Row]) -> Result<Outcome, Failure> {
    let mut outcome = Outcome { ended: 0, gone: 0, left: Vec::new() };
    let mut refused = 0;
    for row in rows {
        match source.destroy(row) {
            Ok(()) => outcome.ended += 1,
            Err(error) if error.kind() == io::ErrorKind::NotFound => outcome.gone += 1,
            Err(error) => {
                refused += usize::from(error.kind() == io::ErrorKind::PermissionDenied);
                outcome.left.push((row.socket.cookie, error.to_string()));
            }
        }
    }
    if refused == rows.len() {
        return Err(Failure::new(
            format!("none of {} connections was ended", rows.len()),
            "ending connections needs CAP_NET_ADMIN in their network namespace",
            "sudo lastack kill …, or setcap cap_net_admin+ep on the binary",
        ));
    }
    // The kernel said yes; look whether they are really gone.
    let again = Query { detail: Detail::Brief, owners: false, ..query.clone() };
    let left: HashSet<u64> = outcome.left.iter().map(|(cookie, _)| *cookie).collect();
    let accepted: HashSet<u64> =
        rows.iter().map(|row| row.socket.cookie).filter(|cookie| !left.contains(cookie)).collect();
    for row in source.snapshot(&again).map_err(|error| named.refused(&error))?.rows {
        let cookie = row.socket.cookie;
        if accepted.contains(&cookie) {
            outcome.ended = outcome.ended.saturating_sub(1);
            outcome
                .left
                .push((cookie, format!("the kernel accepted, but it is still in {}", row.socket.state)));
        }
    }
    Ok(outcome)
}

fn asked(count: usize, lang: Lang) -> Result<bool, Failure> {
    if !io::stdin().is_terminal() {
        return Err(Failure::new(
            format!("{count} connections match, and nobody can be asked"),
            "standard input is no terminal",
            "the same with --yes, or with --dry-run",
        ));
    }
    let question = match lang {
        Lang::En => format!("End these {count}? [y/N] "),
        Lang::Zh => format!("结束这 {count} 个连接吗？[y/N] "),
    };
    io::stderr().write_all(question.as_bytes())?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes" | "是"))
}

/// Says what would happen: effects by state, then the connections.
fn plan(rows: &[Row], lang: Lang, out: &mut dyn Write) -> io::Result<()> {
    if rows.is_empty() {
        return writeln!(
            out,
            "{}",
            if lang == Lang::En { "no connection matches" } else { "没有匹配的连接" }
        );
    }
    let mut kinds: BTreeMap<(TcpState, &str), (usize, Effect)> = BTreeMap::new();
    for row in rows {
        let effect = effect(row);
        kinds.entry((row.socket.state, effect.words.en)).or_insert((0, effect)).0 += 1;
    }
    for ((state, _), (count, effect)) in &kinds {
        paragraph(out, &format!("{count} {state}: "), effect.words.get(lang))?;
    }
    let mut table = Table::new(&[
        ("State", false),
        ("Local", false),
        ("Peer", false),
        ("Send-Q", true),
        ("RST", false),
        ("Peer sees", false),
        ("Owner sees", false),
        ("Owner", false),
    ]);
    for row in rows.iter().take(LISTED) {
        let effect = effect(row);
        let or_dash = |word: Option<&str>| word.unwrap_or("-").to_owned();
        table.push(vec![
            row.socket.state.name().to_owned(),
            spell::address(row.socket.local, row.v6only),
            spell::address(row.socket.remote, row.v6only),
            row.socket.send_q.to_string(),
            if effect.sends_rst { "yes" } else { "no" }.to_owned(),
            or_dash(effect.peer_sees),
            or_dash(effect.owner_sees),
            row.owner.as_ref().map_or_else(|| "-".to_owned(), spell::owner),
        ]);
    }
    table.write(out, true)?;
    if rows.len() > LISTED {
        writeln!(out, "… +{}", rows.len() - LISTED)?;
    }
    Ok(())
}

fn report(outcome: &Outcome, matched: usize, lang: Lang, out: &mut dyn Write) -> io::Result<()> {
    let Outcome { ended, gone, left } = outcome;
    match lang {
        Lang::En => {
            writeln!(out, "{matched} matched: {ended} ended, {gone} had gone already, {} left", left.len())?
        }
        Lang::Zh => writeln!(
            out,
            "匹配 {matched} 个：已结束 {ended} 个，{gone} 个此前已消失，剩余 {} 个",
            left.len()
        )?,
    }
    for (cookie, reason) in left.iter().take(LISTED) {
        writeln!(out, "  cookie {cookie}: {reason}")?;
    }
    Ok(())
}

fn document(source: &str, rows: &[Row], dry_run: bool, outcome: Option<&Outcome>, lang: Lang) -> Value {
    let connections: Vec<Value> = rows
        .iter()
        .map(|row| {
            let effect = effect(row);
            let mut value = json::row_value(row);
            value["sends_rst"] = effect.sends_rst.into();
            if let Some(errno) = effect.peer_sees {
                value["peer_sees"] = errno.into();
            }
            if let Some(errno) = effect.owner_sees {
                value["owner_sees"] = errno.into();
            }
            value["explanation"] = effect.words.get(lang).into();
            value
        })
        .collect();
    let mut document = json!({
        "schema": json::SCHEMA, "source": source, "dry_run": dry_run, "matched": rows.len(), "connections": connections,
    });
    if let Some(outcome) = outcome {
        document["ended"] = outcome.ended.into();
        document["gone"] = outcome.gone.into();
        document["left"] =
            outcome.left.iter().map(|(cookie, reason)| json!({"cookie": cookie, "reason": reason})).collect();
    }
    document
}
