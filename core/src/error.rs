//! What a command can answer. Each error is one fact and maps to one Linux errno.

use crate::wire::icmp::{ErrorKind, Version};

/// The ICMP error that ended an attempt to connect, for the socket's error queue (Linux `MSG_ERRQUEUE`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct QueuedError {
    /// What it means to the socket.
    pub error: SocketError,
    /// Whose numbers its type and code are.
    pub version: Version,
    /// What it says.
    pub kind: ErrorKind,
    /// Bytes it quotes of our segment.
    pub quoted: u16,
}

/// Errno numbers as on Linux (x86-64 and arm64 alike), so that the core needs no C library.
pub mod errno {
    #![allow(missing_docs, reason = "the names are POSIX's")]
    pub const EAGAIN: i32 = 11;
    pub const EACCES: i32 = 13;
    pub const EINVAL: i32 = 22;
    pub const EPIPE: i32 = 32;
    pub const EPROTO: i32 = 71;
    pub const EMSGSIZE: i32 = 90;
    pub const ENOPROTOOPT: i32 = 92;
    pub const EOPNOTSUPP: i32 = 95;
    pub const EADDRINUSE: i32 = 98;
    pub const EADDRNOTAVAIL: i32 = 99;
    pub const ENETUNREACH: i32 = 101;
    pub const ECONNABORTED: i32 = 103;
    pub const ECONNRESET: i32 = 104;
    pub const ENOBUFS: i32 = 105;
    pub const EISCONN: i32 = 106;
    pub const ENOTCONN: i32 = 107;
    pub const ETIMEDOUT: i32 = 110;
    pub const ECONNREFUSED: i32 = 111;
    pub const EHOSTDOWN: i32 = 112;
    pub const EHOSTUNREACH: i32 = 113;
    pub const EALREADY: i32 = 114;
    pub const EINPROGRESS: i32 = 115;
    pub const ENONET: i32 = 64;
}

macro_rules! errors {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $errno:ident, $text:literal;)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        #[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
        #[non_exhaustive]
        pub enum $name { $($(#[$vdoc])* $variant,)+ }

        impl $name {
            /// The Linux errno that the same failure gives.
            pub const fn errno(self) -> i32 {
                match self { $(Self::$variant => errno::$errno,)+ }
            }

            /// The errno's symbol, for example `ECONNRESET`.
            pub const fn errno_name(self) -> &'static str {
                match self { $(Self::$variant => stringify!($errno),)+ }
            }
        }

        impl core::fmt::Display for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                f.write_str(match self { $(Self::$variant => $text,)+ })
            }
        }

        impl core::error::Error for $name {}
    };
}

errors!(
    /// Why a connection ended or failed, as the application is told (Linux `sk_err`).
    SocketError {
        /// The peer answered the SYN with RST.
        ConnectionRefused = ECONNREFUSED, "connection refused";
        /// The peer reset an established connection.
        ConnectionReset = ECONNRESET, "connection reset by peer";
        /// The peer reset the connection after it had sent its FIN, or this end writes after shutdown.
        BrokenPipe = EPIPE, "broken pipe";
        /// Retransmissions, probes or keepalives went unanswered for too long.
        TimedOut = ETIMEDOUT, "connection timed out";
        /// Ended from outside (`kill`, Linux `SOCK_DESTROY`) or by this end's own abort.
        ConnectionAborted = ECONNABORTED, "connection aborted";
        /// ICMP host unreachable.
        HostUnreachable = EHOSTUNREACH, "no route to host";
        /// ICMP net unreachable, or no route for this family.
        NetworkUnreachable = ENETUNREACH, "network is unreachable";
        /// ICMP administratively prohibited (IPv6; IPv4 gives `HostUnreachable`).
        PermissionDenied = EACCES, "permission denied";
        /// ICMP packet too big that could not be honoured.
        MessageTooLong = EMSGSIZE, "message too long";
        /// ICMP parameter problem.
        ProtocolError = EPROTO, "protocol error";
        /// ICMP protocol unreachable (IPv4).
        ProtocolUnreachable = ENOPROTOOPT, "protocol not available";
        /// ICMP source route failed (IPv4).
        SourceRouteFailed = EOPNOTSUPP, "operation not supported";
        /// ICMP destination host unknown (IPv4).
        HostDown = EHOSTDOWN, "host is down";
        /// ICMP source host isolated (IPv4).
        HostIsolated = ENONET, "machine is not on the network";
    }
);

errors!(
    /// Why `listen` failed.
    ListenError {
        /// Another socket holds the port in a way that forbids sharing.
        AddrInUse = EADDRINUSE, "address already in use";
        /// The address is not one of the stack's.
        AddrNotAvailable = EADDRNOTAVAIL, "cannot assign requested address";
        /// The stack holds as many sockets as it may.
        LimitReached = ENOBUFS, "no buffer space available";
    }
);

errors!(
    /// Why `connect` failed at once. What fails later is a [`SocketError`].
    ConnectError {
        /// The chosen local address and port are taken.
        AddrInUse = EADDRINUSE, "address already in use";
        /// No free source port for this destination, or the local address is not the stack's.
        AddrNotAvailable = EADDRNOTAVAIL, "cannot assign requested address";
        /// The stack has no address of the destination's family.
        NetworkUnreachable = ENETUNREACH, "network is unreachable";
        /// Port 0, or a multicast or broadcast destination.
        InvalidDestination = EINVAL, "invalid destination";
        /// The stack holds as many sockets as it may.
        LimitReached = ENOBUFS, "no buffer space available";
    }
);

errors!(
    /// Why `accept` returned nothing.
    AcceptError {
        /// No finished connection waits.
        WouldBlock = EAGAIN, "no connection waits";
        /// The listener is gone.
        NoSuchListener = EINVAL, "not a listener";
    }
);

/// Why `send` took nothing.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum SendError {
    /// The send queue is full, or the connection is not established yet.
    WouldBlock,
    /// This end was shut down for writing, or the connection has ended: `EPIPE`.
    BrokenPipe,
    /// Not connected: the id is stale (`ENOTCONN`).
    NotConnected,
    /// The connection failed; told once, then `BrokenPipe`.
    Socket(SocketError),
}

/// Why `recv` gave nothing. End of file is `Ok(0)` or `Ok(None)`, not an error.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum RecvError {
    /// Nothing to read yet.
    WouldBlock,
    /// Not connected: the id is stale.
    NotConnected,
    /// The connection failed; told once, then end of file.
    Socket(SocketError),
}

errors!(
    /// Why there is no urgent byte to read.
    RecvOobError {
        /// None was announced, or it was read already, or `SO_OOBINLINE` leaves it in the stream.
        NoUrgentByte = EINVAL, "no urgent byte";
        /// Announced, and not here yet.
        WouldBlock = EAGAIN, "the urgent byte has not come yet";
        /// Not connected: the id is stale.
        NotConnected = ENOTCONN, "not connected";
    }
);

impl SendError {
    /// The Linux errno that the same failure gives.
    pub const fn errno(self) -> i32 {
        match self {
            Self::WouldBlock => errno::EAGAIN,
            Self::BrokenPipe => errno::EPIPE,
            Self::NotConnected => errno::ENOTCONN,
            Self::Socket(error) => error.errno(),
        }
    }
}

impl RecvError {
    /// The Linux errno that the same failure gives.
    pub const fn errno(self) -> i32 {
        match self {
            Self::WouldBlock => errno::EAGAIN,
            Self::NotConnected => errno::ENOTCONN,
            Self::Socket(error) => error.errno(),
        }
    }
}

impl core::fmt::Display for SendError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::WouldBlock => f.write_str("the send queue is full"),
            Self::BrokenPipe => f.write_str("broken pipe"),
            Self::NotConnected => f.write_str("not connected"),
            Self::Socket(error) => error.fmt(f),
        }
    }
}

impl core::fmt::Display for RecvError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::WouldBlock => f.write_str("nothing to read yet"),
            Self::NotConnected => f.write_str("not connected"),
            Self::Socket(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for SendError {}
impl core::error::Error for RecvError {}

errors!(
    /// Why a UDP command failed.
    UdpError {
        /// Nothing to read, or no room to send.
        WouldBlock = EAGAIN, "would block";
        /// The port is taken.
        AddrInUse = EADDRINUSE, "address already in use";
        /// The address is not the stack's, or no port is free.
        AddrNotAvailable = EADDRNOTAVAIL, "cannot assign requested address";
        /// An ICMP port unreachable came back.
        ConnectionRefused = ECONNREFUSED, "connection refused";
        /// An ICMP host unreachable came back.
        HostUnreachable = EHOSTUNREACH, "no route to host";
        /// The stack has no address of the destination's family.
        NetworkUnreachable = ENETUNREACH, "network is unreachable";
        /// The datagram does not fit in 65,507 bytes (IPv4) or 65,527 (IPv6).
        MessageTooLong = EMSGSIZE, "message too long";
        /// Stale id.
        NotConnected = ENOTCONN, "no such socket";
    }
);

errors!(
    /// Why a socket option was refused.
    OptionError {
        /// Outside the option's range.
        OutOfRange = EINVAL, "value out of range";
        /// Not an option of this kind of socket.
        NotSupported = ENOPROTOOPT, "option not supported";
        /// Stale id.
        NoSuchSocket = ENOTCONN, "no such socket";
    }
);
