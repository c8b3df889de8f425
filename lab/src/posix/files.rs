//! Files and pipes beside the sockets: `open`, `pipe`, `sendfile`, `splice`.
//!
//! Owns:    the positions of files, what waits in pipes.
//! Rules:   Linux `splice_direct_to_actor()`, `splice_to_socket()`, `tcp_splice_read()`.
//! Differs: a pipe holds bytes, not pages: 65536 of them, as Linux's default of sixteen full pages.

use std::collections::VecDeque;
use std::fs::File;
use std::os::unix::fs::FileExt;

use lastack_core::error::{RecvError, SendError};
use lastack_core::id::ConnectionId;
use lastack_core::stack::Readiness;

use super::{Attempt, Descriptor, Posix, Role};
use crate::target::{Fd, Outcome, Output};

/// What a pipe holds, and what `sendfile` moves at a time, bytes.
const PIPE_SIZE: usize = 16 * 4096;

/// A file that is read.
#[derive(Debug)]
pub(super) struct OpenFile {
    file: File,
    at: u64,
}

impl OpenFile {
    /// At most `len` bytes from `at`; fewer at the end of the file.
    fn read(&self, at: u64, len: usize) -> Result<Vec<u8>, i32> {
        let mut bytes = vec![0; len];
        let mut read = 0;
        while read < len {
            match self.file.read_at(&mut bytes[read..], at + read as u64) {
                Ok(0) => break,
                Ok(n) => read += n,
                Err(error) => return Err(error.raw_os_error().unwrap_or(libc::EIO)),
            }
        }
        bytes.truncate(read);
        Ok(bytes)
    }
}

/// One end of a pipe. What waits in it is with the reading end.
#[derive(Debug)]
pub(super) enum PipeEnd {
    Read(VecDeque<u8>),
    /// The reading end.
    Write(Fd),
}

/// Where a call that moves bytes into a socket stands.
struct Moves {
    id: ConnectionId,
    progress: usize,
    dont_wait: bool,
}

impl Posix {
    pub(super) fn open(&mut self, path: &str, flags: i32) -> Outcome {
        if flags & libc::O_ACCMODE != libc::O_RDONLY {
            return Outcome::error(libc::EINVAL);
        }
        match File::open(path) {
            Ok(file) => self.add(Descriptor::File(OpenFile { file, at: 0 })),
            Err(error) => Outcome::error(error.raw_os_error().unwrap_or(libc::EIO)),
        }
    }

    pub(super) fn pipe(&mut self) -> Outcome {
        let read = self.add(Descriptor::Pipe(PipeEnd::Read(VecDeque::new()))).value as i32;
        let write = self.add(Descriptor::Pipe(PipeEnd::Write(Fd(read)))).value as i32;
        Outcome::ok(0).with(Output::Pair(Fd(read), Fd(write)))
    }

    /// `sendfile`: pieces of a pipe's size, with `MSG_MORE` as long as fewer were sent than asked for.
    pub(super) fn send_file(
        &mut self,
        to: Fd,
        from: Fd,
        offset: Option<u64>,
        len: usize,
        progress: usize,
        first: bool,
    ) -> Attempt {
        let mut moves = match self.destination(to, progress, false) {
            Ok(moves) => moves,
            Err(outcome) => return outcome.into(),
        };
        if !first && !self.may_go_on(moves.id) {
            return Attempt::Waits { progress, deadline: None };
        }
        loop {
            let Some(Descriptor::File(open)) = self.descriptors.get(&from.0) else {
                return Outcome::error(libc::EINVAL).into();
            };
            // The position has moved by what was sent.
            let at = offset.map_or(open.at, |offset| offset + moves.progress as u64);
            let piece = match open.read(at, PIPE_SIZE.min(len - moves.progress)) {
                Ok(piece) => piece,
                Err(errno) => return Outcome::error(errno).into(),
            };
            // What was asked for has been sent, or the file ends: nothing follows.
            if piece.is_empty() {
                self.stack.push(self.now, moves.id);
                return Outcome::ok(moves.progress as i64).into();
            }
            let more = moves.progress + piece.len() < len;
            let taken = match self.put(&moves, &piece, more) {
                Ok(taken) => taken,
                Err(attempt) => return attempt,
            };
            moves.progress += taken;
            if let (None, Some(Descriptor::File(open))) = (offset, self.descriptors.get_mut(&from.0)) {
                open.at += taken as u64;
            }
        }
    }

    pub(super) fn splice(
        &mut self,
        from: Fd,
        to: Fd,
        len: usize,
        flags: u32,
        progress: usize,
        first: bool,
    ) -> Attempt {
        match (self.descriptors.get(&from.0), self.descriptors.get(&to.0)) {
            (None, _) | (_, None) => Outcome::error(libc::EBADF).into(),
            (Some(Descriptor::Pipe(PipeEnd::Read(_))), Some(Descriptor::Tcp(_))) => {
                self.splice_to_socket(from, to, len, flags, progress, first)
            }
            (Some(Descriptor::Tcp(_)), Some(Descriptor::Pipe(PipeEnd::Write(pipe)))) => {
                let pipe = *pipe;
                self.splice_to_pipe(from, pipe, len, flags)
            }
            _ => Outcome::error(libc::EINVAL).into(),
        }
    }

    /// Linux `splice_to_socket`.
    fn splice_to_socket(
        &mut self,
        from: Fd,
        to: Fd,
        len: usize,
        flags: u32,
        mut progress: usize,
        first: bool,
    ) -> Attempt {
        let mut woken = first;
        loop {
            let waiting = self.pipe_of(from).map(|bytes| bytes.iter().copied());
            let piece: Vec<u8> = waiting.into_iter().flatten().take(len - progress).collect();
            if piece.is_empty() {
                return if progress > 0 || !self.is_written(from) {
                    Outcome::ok(progress as i64).into()
                } else if flags & libc::SPLICE_F_NONBLOCK != 0 {
                    Outcome::error(libc::EAGAIN).into()
                } else {
                    Attempt::Waits { progress: 0, deadline: None }
                };
            }
            let moves = match self.destination(to, progress, flags & libc::SPLICE_F_NONBLOCK != 0) {
                Ok(moves) => moves,
                Err(outcome) => return outcome.into(),
            };
            if !woken && !self.may_go_on(moves.id) {
                return Attempt::Waits { progress, deadline: None };
            }
            woken = true;
            let taken = match self.put(&moves, &piece, flags & libc::SPLICE_F_MORE != 0) {
                Ok(taken) => taken,
                Err(attempt) => return attempt,
            };
            self.pipe_of(from).map(|bytes| bytes.drain(..taken));
            progress += taken;
        }
    }

    /// Linux `tcp_splice_read`: what is there, as far as the pipe has room. Whether it waits for data is the socket's
    /// `O_NONBLOCK`; `flags` speak of the pipe.
    fn splice_to_pipe(&mut self, from: Fd, pipe: Fd, len: usize, flags: u32) -> Attempt {
        let (role, nonblocking) = match self.tcp(from) {
            Ok(socket) => (socket.role, socket.nonblocking),
            Err(outcome) => return outcome.into(),
        };
        let Role::Connection { id, .. } = role else { return Outcome::error(libc::ENOTCONN).into() };
        let Some(room) = self.pipe_of(pipe).map(|bytes| PIPE_SIZE - bytes.len()) else {
            return Outcome::error(libc::EPIPE).into();
        };
        if room == 0 {
            return if flags & libc::SPLICE_F_NONBLOCK != 0 {
                Outcome::error(libc::EAGAIN).into()
            } else {
                Attempt::Waits { progress: 0, deadline: None }
            };
        }
        let mut buffer = vec![0; len.min(room)];
        match self.stack.recv(self.now, id, &mut buffer) {
            Ok(read) => {
                self.pipe_of(pipe).into_iter().for_each(|bytes| bytes.extend(&buffer[..read]));
                Outcome::ok(read as i64).into()
            }
            Err(RecvError::WouldBlock) if nonblocking => Outcome::error(libc::EAGAIN).into(),
            Err(RecvError::WouldBlock) => Attempt::Waits { progress: 0, deadline: None },
            Err(error) => Outcome::error(error.errno()).into(),
        }
    }

    fn destination(&mut self, to: Fd, progress: usize, nonblocking: bool) -> Result<Moves, Outcome> {
        let socket = self.tcp(to)?;
        let dont_wait = nonblocking || socket.nonblocking;
        match socket.role {
            Role::Connection { id, .. } => Ok(Moves { id, progress, dont_wait }),
            Role::Fresh | Role::Listener(_) => Err(Outcome::error(libc::EPIPE)),
        }
    }

    /// Linux `sk_stream_write_space`: who waits for room is woken when there is a good deal of it.
    pub(super) fn may_go_on(&self, id: ConnectionId) -> bool {
        let woken = Readiness::WRITABLE.0 | Readiness::ERROR.0 | Readiness::HANGUP.0;
        self.stack.readiness(id).intersects(Readiness(woken))
    }

    /// Sends `piece`. What the socket took, or how the call goes on.
    fn put(&mut self, moves: &Moves, piece: &[u8], more: bool) -> Result<usize, Attempt> {
        let Moves { id, progress, dont_wait } = *moves;
        let sent = if more {
            self.stack.send_more(self.now, id, piece)
        } else {
            self.stack.send(self.now, id, piece)
        };
        match sent {
            Ok(taken) => {
                self.transmit_all();
                Ok(taken)
            }
            Err(SendError::WouldBlock) if !dont_wait => Err(Attempt::Waits { progress, deadline: None }),
            Err(_) if progress > 0 => Err(Outcome::ok(progress as i64).into()),
            Err(error) => Err(Outcome::error(error.errno()).into()),
        }
    }

    /// What waits in the pipe with this reading end; `None`: that is closed.
    fn pipe_of(&mut self, reader: Fd) -> Option<&mut VecDeque<u8>> {
        match self.descriptors.get_mut(&reader.0) {
            Some(Descriptor::Pipe(PipeEnd::Read(bytes))) => Some(bytes),
            _ => None,
        }
    }

    /// The writing end of the pipe is open.
    fn is_written(&self, reader: Fd) -> bool {
        let is_writer =
            |end: &Descriptor| matches!(end, Descriptor::Pipe(PipeEnd::Write(to)) if *to == reader);
        self.descriptors.values().any(is_writer)
    }
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use super::*;
    use crate::target::Call;

    #[test]
    fn only_regular_descriptors_are_spliced() {
        let mut posix = Posix::new(lastack_core::Config::default(), Duration::from_secs(1));
        let mut call = |call| posix.call(&call).expect("returns at once").outcome;
        let Output::Pair(read, write) = call(Call::Pipe).output else { panic!("both ends") };
        let splice = |from, to| Call::Splice { from, to, len: 10, flags: 0 };
        assert_eq!(call(splice(read, write)).errno, libc::EINVAL, "no socket");
        assert_eq!(call(splice(read, Fd(99))).errno, libc::EBADF);
        let socket = Call::Socket { family: libc::AF_INET, kind: libc::SOCK_STREAM, protocol: 0 };
        let socket = Fd(call(socket).value as i32);
        assert_eq!(call(splice(socket, write)).errno, libc::ENOTCONN);
        assert_eq!(call(Call::Open("/nowhere".into(), libc::O_RDONLY)).errno, libc::ENOENT);
        let from_pipe = Call::SendFile { to: socket, from: read, offset: None, len: 10 };
        assert_eq!(call(from_pipe).value, -1);
    }
}
