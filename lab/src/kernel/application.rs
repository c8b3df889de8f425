//! The script's application: a thread that makes the calls, so that one may block while the script goes on.
//!
//! A call counts as blocking once its thread sleeps (state `S` in `/proc`), as in the reference tool.

use core::time::Duration;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use crate::sys;
use crate::target::{Call, Done, Fd, OptionValue, Outcome, Output, Via};

#[derive(Debug)]
pub(super) struct Application {
    calls: Option<Sender<Call>>,
    done: Receiver<Done>,
    in_call: Arc<AtomicBool>,
    open: Arc<Mutex<Vec<RawFd>>>,
    thread_id: i32,
    thread: Option<JoinHandle<()>>,
}

impl Application {
    /// Starts the thread, in the caller's network namespace.
    pub(super) fn start() -> Self {
        let (calls, inbox) = channel::<Call>();
        let (outbox, done) = channel();
        let (tell_id, id) = channel();
        let in_call = Arc::new(AtomicBool::new(false));
        let open = Arc::new(Mutex::new(Vec::new()));
        let (busy, descriptors) = (Arc::clone(&in_call), Arc::clone(&open));
        let body = move || {
            let _ = tell_id.send(sys::thread_id());
            while let Ok(call) = inbox.recv() {
                busy.store(true, Ordering::Release);
                let outcome = perform(&call);
                let at = sys::now();
                busy.store(false, Ordering::Release);
                remember(&mut descriptors.lock().expect("no holder panics"), &call, &outcome);
                if outbox.send(Done { at, outcome }).is_err() {
                    return;
                }
            }
        };
        let thread =
            std::thread::Builder::new().name("application".into()).spawn(body).expect("a thread starts");
        let thread_id = id.recv().expect("the thread tells its number first");
        Self { calls: Some(calls), done, in_call, open, thread_id, thread: Some(thread) }
    }

    /// Makes a call; `None`: it blocks.
    pub(super) fn begin(&mut self, call: &Call) -> Option<Done> {
        let calls = self.calls.as_ref().expect("taken only when dropped");
        calls.send(call.clone()).expect("the thread lives as long as its inbox");
        let mut pause = Duration::from_millis(1);
        loop {
            match self.done.recv_timeout(pause) {
                Ok(done) => return Some(done),
                Err(RecvTimeoutError::Timeout) if self.sleeps() => return None,
                Err(RecvTimeoutError::Timeout) => pause = Duration::from_micros(200),
                Err(RecvTimeoutError::Disconnected) => unreachable!("the thread lives as long as its inbox"),
            }
        }
    }

    pub(super) fn wait(&mut self, time: Duration) -> Option<Done> {
        self.done.recv_timeout(time).ok()
    }

    /// The thread is inside a call and asleep.
    fn sleeps(&self) -> bool {
        let stat =
            std::fs::read_to_string(format!("/proc/self/task/{}/stat", self.thread_id)).unwrap_or_default();
        let state = stat.rsplit(") ").next().and_then(|rest| rest.chars().next());
        self.in_call.load(Ordering::Acquire) && state == Some('S')
    }
}

impl Drop for Application {
    /// Ends a call that still blocks and resets what is still open: nothing outlives the script.
    fn drop(&mut self) {
        self.calls = None;
        while self.thread.as_ref().is_some_and(|thread| !thread.is_finished()) {
            sys::interrupt(self.thread_id);
            sys::sleep(Duration::from_millis(1));
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        for fd in self.open.lock().expect("no holder panics").drain(..) {
            let _ = set_option(fd, libc::SOL_SOCKET, libc::SO_LINGER, &OptionValue::Linger(1, 0));
            let _ = sys::close(fd);
        }
    }
}

fn remember(open: &mut Vec<RawFd>, call: &Call, outcome: &Outcome) {
    match call {
        Call::Socket { .. } | Call::Accept(_) | Call::EpollCreate | Call::Open(..) if outcome.value >= 0 => {
            open.push(outcome.value as RawFd);
        }
        Call::Pipe => {
            if let Output::Pair(read, write) = outcome.output {
                open.extend([read.0, write.0]);
            }
        }
        Call::Close(fd) => open.retain(|known| *known != fd.0),
        _ => {}
    }
}

fn perform(call: &Call) -> Outcome {
    let result = match call {
        Call::Socket { family, kind, protocol } => sys::socket(*family, *kind, *protocol).map(Outcome::ok),
        Call::Bind(fd, address) => sys::bind(fd.0, *address).map(Outcome::ok),
        Call::Listen(fd, backlog) => sys::listen(fd.0, *backlog).map(Outcome::ok),
        Call::Accept(fd) => sys::accept(fd.0)
            .map(|(child, peer)| Outcome::ok(child).with(peer.map_or(Output::None, Output::Peer))),
        Call::Connect(fd, address) => sys::connect(fd.0, *address).map(Outcome::ok),
        Call::Receive { fd, lens, flags, via } => {
            sys::receive(fd.0, lens, *flags, *via).map(|(len, flags, control)| {
                let is_message = *via == Via::Message;
                let output = if is_message { Output::Message { flags, control } } else { Output::None };
                Outcome::ok(len).with(output)
            })
        }
        Call::Send { fd, lens, flags, via, to } => sys::send(fd.0, lens, *flags, *via, *to).map(Outcome::ok),
        Call::Close(fd) => sys::close(fd.0).map(Outcome::ok),
        Call::Shutdown(fd, how) => sys::shutdown(fd.0, *how).map(Outcome::ok),
        Call::Fcntl(fd, command, arg) => sys::fcntl(fd.0, *command, *arg).map(Outcome::ok),
        Call::Ioctl(fd, request) => {
            sys::ioctl_int(fd.0, *request).map(|(result, value)| Outcome::ok(result).with(Output::Int(value)))
        }
        Call::SetOption(fd, level, name, value) => set_option(fd.0, *level, *name, value).map(Outcome::ok),
        Call::GetOption(fd, level, name, len) => {
            sys::get_option(fd.0, *level, *name, *len).map(|bytes| Outcome::ok(0).with(Output::Bytes(bytes)))
        }
        Call::Poll(entries, timeout) => {
            let raw: Vec<(RawFd, i16)> = entries.iter().map(|(Fd(fd), events)| (*fd, *events)).collect();
            sys::poll(&raw, *timeout).map(|(ready, masks)| Outcome::ok(ready).with(Output::Ready(masks)))
        }
        Call::EpollCreate => sys::epoll_create().map(Outcome::ok),
        Call::EpollCtl(epoll, operation, fd, events, data) => {
            sys::epoll_ctl(epoll.0, *operation, fd.0, *events, *data).map(Outcome::ok)
        }
        Call::EpollWait(epoll, most, timeout) => sys::epoll_wait(epoll.0, *most, *timeout)
            .map(|(n, events)| Outcome::ok(n).with(Output::Events(events))),
        Call::Open(path, flags) => sys::open(path, *flags).map(Outcome::ok),
        Call::Pipe => sys::pipe().map(|(read, write)| Outcome::ok(0).with(Output::Pair(Fd(read), Fd(write)))),
        Call::SendFile { to, from, offset, len } => {
            sys::send_file(to.0, from.0, *offset, *len).map(Outcome::ok)
        }
        Call::Splice { from, to, len, flags } => sys::splice(from.0, to.0, *len, *flags).map(Outcome::ok),
    };
    result.unwrap_or_else(Outcome::error)
}

fn set_option(fd: RawFd, level: i32, name: i32, value: &OptionValue) -> sys::Sys<i64> {
    match value {
        OptionValue::Int(value) => sys::set_option_int(fd, level, name, *value),
        OptionValue::Bytes(bytes) => sys::set_option_bytes(fd, level, name, bytes),
        OptionValue::Linger(onoff, seconds) => {
            let mut bytes = onoff.to_ne_bytes().to_vec();
            bytes.extend(seconds.to_ne_bytes());
            sys::set_option_bytes(fd, level, name, &bytes)
        }
    }
}
