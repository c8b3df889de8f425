//! A system call as a script writes it → the live call.
//!
//! Rules: packet-script language, section 7: what `...` stands for, which argument is where.
//! Not here: making the call and judging what it gave (`calls`).

use core::net::SocketAddr;

use super::Run;
use super::control::control_of;
use crate::script::ast::{Expr, Field, Syscall};
use crate::script::print::expr_text;
use crate::script::symbols::number;
use crate::target::{Call, Fd, OptionValue, Via};

impl Run<'_> {
    pub(super) fn live_call(&self, call: &Syscall) -> Result<Call, String> {
        let args = Args { run: self, call };
        let fd = || args.fd(0);
        let receive =
            |flags, via| Ok(Call::Receive { fd: args.fd(0)?, lens: vec![args.len(2)?], flags, via });
        let send =
            |flags, via, to| Ok(Call::Send { fd: args.fd(0)?, lens: vec![args.len(2)?], flags, via, to });
        match call.name.as_str() {
            "socket" => Ok(Call::Socket {
                family: match args.get(0)? {
                    Expr::Fill => self.world.ip.socket_family(),
                    family => number(family)? as i32,
                },
                kind: args.int(1)?,
                protocol: args.int(2)?,
            }),
            "bind" => Ok(Call::Bind(fd()?, args.address(1, self.host(self.options.bind_port))?)),
            "listen" => Ok(Call::Listen(fd()?, args.int(1)?)),
            "accept" => Ok(Call::Accept(fd()?)),
            "connect" => Ok(Call::Connect(fd()?, args.destination(1)?)),
            "read" => receive(0, Via::ReadWrite),
            "recv" | "recvfrom" => receive(args.int(3)?, Via::Socket),
            "write" => send(0, Via::ReadWrite, None),
            "send" => send(args.int(3)?, Via::Socket, None),
            "sendto" => send(args.int(3)?, Via::Socket, args.destination(4)?),
            "readv" => Ok(Call::Receive { fd: fd()?, lens: args.lens(1)?, flags: 0, via: Via::ReadWrite }),
            "writev" => {
                Ok(Call::Send { fd: fd()?, lens: args.lens(1)?, flags: 0, via: Via::ReadWrite, to: None })
            }
            "sendmsg" | "recvmsg" => self.live_message(call, &args),
            "close" => Ok(Call::Close(fd()?)),
            "shutdown" => Ok(Call::Shutdown(fd()?, args.int(1)?)),
            "fcntl" => {
                Ok(Call::Fcntl(fd()?, args.int(1)?, if call.args.len() > 2 { args.int(2)? } else { 0 }))
            }
            "ioctl" => Ok(Call::Ioctl(fd()?, args.int64(1)? as u64)),
            "setsockopt" => Ok(Call::SetOption(fd()?, args.int(1)?, args.int(2)?, args.option_value(3)?)),
            "getsockopt" => {
                let len = match args.get(4)? {
                    Expr::List(items) if items.len() == 1 => number(&items[0])?,
                    other => number(other)?,
                };
                Ok(Call::GetOption(fd()?, args.int(1)?, args.int(2)?, len.max(0) as usize))
            }
            "poll" => Ok(Call::Poll(self.poll_list(args.get(0)?)?, args.int(2)?)),
            "epoll_create" => Ok(Call::EpollCreate),
            "epoll_ctl" => {
                let fields = args.fields(3)?;
                let events = field(fields, "events").map_or(Ok(0), number)? as u32;
                Ok(Call::EpollCtl(fd()?, args.int(1)?, args.fd(2)?, events, self.epoll_data(fields)?))
            }
            "epoll_wait" => Ok(Call::EpollWait(fd()?, args.int(2)?, args.int(3)?)),
            "open" => match args.get(0)? {
                Expr::Str(path) => {
                    let path = self.world.directory.join(path);
                    Ok(Call::Open(path.to_string_lossy().into_owned(), args.int(1)?))
                }
                other => Err(format!("open: {} is not a string", expr_text(other))),
            },
            "pipe" => Ok(Call::Pipe),
            "sendfile" => Ok(Call::SendFile {
                to: fd()?,
                from: args.fd(1)?,
                offset: args.offset(2)?,
                len: args.len(3)?,
            }),
            "splice" => match (args.offset(1)?, args.offset(3)?) {
                (None, None) => Ok(Call::Splice {
                    from: fd()?,
                    to: args.fd(2)?,
                    len: args.len(4)?,
                    flags: args.int(5)?.cast_unsigned(),
                }),
                _ => Err("splice: sockets and pipes have no offset; write NULL".to_owned()),
            },
            other => Err(format!("the system call `{other}` is not supported")),
        }
    }

    fn live_message(&self, call: &Syscall, args: &Args<'_, '_>) -> Result<Call, String> {
        let fields = args.fields(1)?;
        let parts = field(fields, "msg_iov").ok_or_else(|| format!("{}: msg_iov is missing", call.name))?;
        let control = control_of(fields)?;
        if call.name == "sendmsg" && !control.is_empty() {
            return Err("sendmsg: control messages are not supported".to_owned());
        }
        let lens = lens(parts)?;
        let (fd, flags, via) = (args.fd(0)?, args.int(2)?, Via::Message);
        if call.name == "recvmsg" {
            return Ok(Call::Receive { fd, lens, flags, via });
        }
        let connects =
            flags & libc::MSG_FASTOPEN != 0 && matches!(field(fields, "msg_name"), Some(Expr::Fill));
        let to = connects.then(|| self.world.ip.socket_address(self.peer(self.options.connect_port)));
        Ok(Call::Send { fd, lens, flags, via, to })
    }

    fn poll_list(&self, list: &Expr) -> Result<Vec<(Fd, i16)>, String> {
        let Expr::List(items) = list else { return Err("poll: expected [{fd=…, events=…}]".to_owned()) };
        let one = |item: &Expr| {
            let Expr::Struct(fields) = item else {
                return Err("poll: expected {fd=…, events=…}".to_owned());
            };
            let fd = field(fields, "fd").ok_or("poll: fd is missing")?;
            let events = field(fields, "events").map_or(Ok(0), number)?;
            Ok((self.fd(number(fd)?)?, events as i16))
        };
        items.iter().map(one).collect()
    }

    /// What epoll gives back with an event: a descriptor stands for the script's number.
    pub(super) fn epoll_data(&self, fields: &[Field]) -> Result<u64, String> {
        for name in ["fd", "ptr", "u32", "u64"] {
            if let Some(value) = field(fields, name) {
                return Ok(number(value)? as u64);
            }
        }
        Ok(0)
    }
}

pub(super) fn field<'a>(fields: &'a [Field], name: &str) -> Option<&'a Expr> {
    fields.iter().find(|field| field.name.as_deref() == Some(name)).map(|field| &field.value)
}

/// `[{..., LEN}, …]`
fn lens(parts: &Expr) -> Result<Vec<usize>, String> {
    let Expr::List(parts) = parts else { return Err(format!("{} is not [{{..., LEN}}]", expr_text(parts))) };
    let len = |part: &Expr| match part {
        Expr::Struct(fields) if fields.len() == 2 => number(&fields[1].value).map(|len| len.max(0) as usize),
        other => Err(format!("{} is not {{..., LEN}}", expr_text(other))),
    };
    parts.iter().map(len).collect()
}

/// The arguments of one call, with what `...` stands for.
struct Args<'a, 'r> {
    run: &'a Run<'r>,
    call: &'a Syscall,
}

impl<'a> Args<'a, '_> {
    fn get(&self, at: usize) -> Result<&'a Expr, String> {
        let missing = || {
            format!("{} has {} arguments; number {} is missing", self.call.name, self.call.args.len(), at + 1)
        };
        self.call.args.get(at).ok_or_else(missing)
    }

    fn int64(&self, at: usize) -> Result<i64, String> {
        number(self.get(at)?)
    }

    fn int(&self, at: usize) -> Result<i32, String> {
        let value = self.int64(at)?;
        i32::try_from(value)
            .or_else(|_| u32::try_from(value).map(u32::cast_signed))
            .map_err(|_| format!("{}: {value} does not fit in an int", self.call.name))
    }

    fn len(&self, at: usize) -> Result<usize, String> {
        let value = self.int64(at)?;
        usize::try_from(value).map_err(|_| format!("{}: a length of {value}", self.call.name))
    }

    fn lens(&self, at: usize) -> Result<Vec<usize>, String> {
        lens(self.get(at)?)
    }

    /// `NULL` or `[OFFSET]`
    fn offset(&self, at: usize) -> Result<Option<u64>, String> {
        match self.get(at)? {
            Expr::List(items) if items.len() == 1 => number(&items[0]).map(|offset| Some(offset as u64)),
            Expr::Symbol(name) if name == "NULL" => Ok(None),
            other => Err(format!("{}: {} is not NULL or [OFFSET]", self.call.name, expr_text(other))),
        }
    }

    fn fd(&self, at: usize) -> Result<Fd, String> {
        self.run.fd(self.int64(at)?)
    }

    fn fields(&self, at: usize) -> Result<&'a [Field], String> {
        match self.get(at)? {
            Expr::Struct(fields) => Ok(fields),
            other => Err(format!("{}: {} is not {{…}}", self.call.name, expr_text(other))),
        }
    }

    /// `...` or `{sa_family=…, sin_port=htons(…), sin_addr=inet_addr("…")}`.
    fn address(&self, at: usize, default: SocketAddr) -> Result<SocketAddr, String> {
        let ip = self.run.world.ip;
        let fields = match self.get(at)? {
            Expr::Fill => return Ok(ip.socket_address(default)),
            Expr::Struct(fields) => fields,
            other => return Err(format!("{}: {} is not an address", self.call.name, expr_text(other))),
        };
        let port = match field(fields, "sin_port") {
            Some(Expr::Apply(function, args)) if function == "htons" && args.len() == 1 => number(&args[0])?,
            _ => return Err(format!("{}: sin_port=htons(…) is missing", self.call.name)),
        };
        let host = match field(fields, "sin_addr") {
            Some(Expr::Apply(function, args)) if function == "inet_addr" => match args.first() {
                Some(Expr::Str(text)) => text.parse().map_err(|_| format!("`{text}` is not an address"))?,
                _ => return Err("inet_addr needs a string".to_owned()),
            },
            _ => default.ip(),
        };
        Ok(ip.socket_address(SocketAddr::new(host, port as u16)))
    }

    /// `...` is the peer; AF_UNSPEC is nobody.
    fn destination(&self, at: usize) -> Result<Option<SocketAddr>, String> {
        if let Expr::Symbol(family) = self.get(at)? {
            return if family == "AF_UNSPEC" {
                Ok(None)
            } else {
                Err(format!("{}: {family}", self.call.name))
            };
        }
        self.address(at, self.run.peer(self.run.options.connect_port)).map(Some)
    }

    fn option_value(&self, at: usize) -> Result<OptionValue, String> {
        match self.get(at)? {
            Expr::List(items) if items.len() == 1 => Ok(OptionValue::Int(number(&items[0])? as i32)),
            Expr::Str(text) => Ok(OptionValue::Bytes(text.clone().into_bytes())),
            Expr::Struct(fields) => {
                let word = |name: &str, place: usize| {
                    let value = field(fields, name).or_else(|| fields.get(place).map(|field| &field.value));
                    value.map_or_else(|| Err(format!("{name} is missing")), number).map(|value| value as i32)
                };
                Ok(OptionValue::Linger(word("onoff", 0)?, word("linger", 1)?))
            }
            other => Err(format!("{} is not [INT], a string or {{onoff=…, linger=…}}", expr_text(other))),
        }
    }
}
