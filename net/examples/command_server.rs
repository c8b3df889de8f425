//! A server that runs commands, but only those of a list, by name and without arguments.
//!
//! As root: `cargo run --example command_server`, then `echo uptime | nc -N 10.9.0.2 2323`.

mod common;

use std::io::{self, BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};

use lastack::blocking::{TcpListener, TcpStream};

/// What a client may ask for. A word of its own for each: nothing of the client's text reaches a shell.
const ALLOWED: [(&str, &str, &[&str]); 4] = [
    ("date", "date", &["--utc", "+%F %T"]),
    ("uptime", "uptime", &[]),
    ("kernel", "uname", &["-r"]),
    ("memory", "free", &["-m"]),
];

/// Longest line that is read, bytes.
const LINE_LIMIT: u64 = 128;

fn main() -> io::Result<()> {
    let net = common::net()?;
    serve(&TcpListener::bind(&net, "10.9.0.2:2323")?)
}

/// Serves for ever.
pub(crate) fn serve(listener: &TcpListener) -> io::Result<()> {
    for stream in listener.incoming() {
        let stream = stream?;
        std::thread::spawn(move || {
            if let Err(error) = converse(&stream) {
                eprintln!("a client went away: {error}");
            }
        });
    }
    Ok(())
}

fn converse(stream: &TcpStream) -> io::Result<()> {
    let mut output = stream;
    let mut input = BufReader::new(stream);
    let mut line = String::new();
    loop {
        line.clear();
        if input.by_ref().take(LINE_LIMIT).read_line(&mut line)? == 0 {
            return Ok(());
        }
        output.write_all(&answer(line.trim()))?;
    }
}

fn answer(word: &str) -> Vec<u8> {
    let Some((_, program, arguments)) = ALLOWED.iter().find(|(name, ..)| *name == word) else {
        let names: Vec<&str> = ALLOWED.iter().map(|(name, ..)| *name).collect();
        return format!("refused; allowed: {}\n", names.join(" ")).into_bytes();
    };
    match Command::new(program).args(*arguments).stdin(Stdio::null()).output() {
        Ok(output) => output.stdout,
        Err(error) => format!("{word} failed: {error}\n").into_bytes(),
    }
}
