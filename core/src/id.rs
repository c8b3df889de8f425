//! Names of things in a stack: sockets by kind, and the 4-tuple.

use core::net::SocketAddr;

macro_rules! socket_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        ///
        /// An index with a generation: an id that outlived its socket is refused, never mistaken for another.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name {
            pub(crate) index: u32,
            pub(crate) generation: u32,
        }

        impl $name {
            /// Place in the stack's table of this kind: small, dense, reused after the socket is gone.
            /// For side tables; always compare the whole id before trusting an entry.
            pub const fn index(self) -> usize {
                self.index as usize
            }
        }

        impl core::fmt::Debug for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                write!(f, concat!(stringify!($name), "({}.{})"), self.index, self.generation)
            }
        }
    };
}

socket_id!(
    /// A TCP connection that an application holds.
    ConnectionId
);
socket_id!(
    /// A TCP listener.
    ListenerId
);
socket_id!(
    /// A SYN that arrived on an accept-any listener and waits for a decision.
    PendingId
);
socket_id!(
    /// A UDP socket.
    UdpId
);

/// Both ends of a connection, as this stack sees them.
///
/// `local` is this stack's end: for a packet received it is the destination.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct FourTuple {
    /// This stack's address and port.
    pub local: SocketAddr,
    /// The other end's address and port.
    pub remote: SocketAddr,
}
