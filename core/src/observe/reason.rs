//! Why something was dropped or reset: nothing is discarded without one of these.

macro_rules! reasons {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
        #[non_exhaustive]
        pub enum $name { $($(#[$vdoc])* $variant,)+ }

        impl $name {
            /// Every reason, in order.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// Stable name: Linux's where Linux has the reason.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }
        }

        impl core::fmt::Display for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                f.pad(self.name())
            }
        }
    };
}

reasons!(
    /// Why a packet or segment was discarded. Names equal Linux's `SKB_DROP_REASON_*` where one exists.
    DropReason {
        /// Shorter than its headers say, or a length field contradicts another.
        PacketTooSmall = "PKT_TOO_SMALL",
        /// IP version, header length or total length is wrong.
        IpHeader = "IP_INHDR",
        /// IPv4 header checksum is wrong.
        IpChecksum = "IP_CSUM",
        /// The destination is not one of the stack's addresses.
        NotLocal = "OTHERHOST",
        /// Source address that no packet may have: multicast, broadcast, or our own.
        InvalidSource = "IP_INVALID_SOURCE",
        /// An address of 127.0.0.0/8 came by a link (`route_localnet` is 0). Linux's name for `::1` is `IP_INHDR`.
        LocalNet = "IP_LOCALNET",
        /// No transport protocol for this number; answered with ICMP protocol unreachable where allowed.
        IpNoProto = "IP_NOPROTO",
        /// Fragments overlapped, ran over 64 KiB, or did not complete in time.
        FragReassembly = "FRAG_REASM_TIMEOUT",
        /// The fragment queue is full (`ipfrag_high_thresh`).
        FragLimit = "FRAG_TOO_MANY",
        /// TCP header offset or length is wrong.
        TcpHeader = "TCP_INVALID_HEADER",
        /// TCP checksum is wrong.
        TcpChecksum = "TCP_CSUM",
        /// UDP checksum is wrong.
        UdpChecksum = "UDP_CSUM",
        /// ICMP checksum is wrong.
        IcmpChecksum = "ICMP_CSUM",
        /// No socket: answered with RST (TCP) or port unreachable (UDP).
        NoSocket = "NO_SOCKET",
        /// Flags that make no sense in this state, for example SYN with FIN on a listener, or none at all.
        TcpFlags = "TCP_FLAGS",
        /// Payload wholly left of `rcv_nxt`.
        TcpOldData = "TCP_OLD_DATA",
        /// Right of the window, or end beyond it with the receive queue not empty.
        TcpOverWindow = "TCP_OVERWINDOW",
        /// Left of the window.
        TcpOldSequence = "TCP_OLD_SEQUENCE",
        /// Right of the window.
        TcpInvalidSequence = "TCP_INVALID_SEQUENCE",
        /// Payload that is in the out-of-order queue already.
        TcpOfoMerge = "TCP_OFOMERGE",
        /// The out-of-order queue was dropped to free memory.
        TcpOfoDrop = "TCP_OFO_DROP",
        /// The window is zero.
        TcpZeroWindow = "TCP_ZEROWINDOW",
        /// Timestamp older than the last one (PAWS, RFC 7323 5).
        TcpPaws = "TCP_RFC7323_PAWS",
        /// RST that is not exactly at `rcv_nxt`.
        TcpReset = "TCP_RESET",
        /// SYN in a synchronised state.
        TcpInvalidSyn = "TCP_INVALID_SYN",
        /// Segment without ACK in a synchronised state.
        TcpNoAck = "TCP_NO_ACK",
        /// ACK far older than anything outstanding.
        TcpTooOldAck = "TCP_TOO_OLD_ACK",
        /// ACK for something never sent.
        TcpAckUnsent = "TCP_ACK_UNSENT_DATA",
        /// ACK that does not acknowledge our SYN.
        TcpInvalidAck = "TCP_INVALID_ACK_SEQUENCE",
        /// Segment on a socket that is closed, or past the FIN.
        TcpClose = "TCP_CLOSE",
        /// Data after this end had closed: answered with RST.
        TcpAbortOnData = "TCP_ABORT_ON_DATA",
        /// Segment for a TIME-WAIT pair, answered or ignored there.
        TcpTimeWait = "TCP_TIMEWAIT",
        /// The accept queue is full.
        ListenOverflow = "LISTEN_OVERFLOW",
        /// The SYN queue is full and cookies are off.
        SynQueueFull = "SYN_QUEUE_FULL",
        /// Duplicate SYN that joined a connection attempt already pending.
        SynJoined = "SYN_JOINED",
        /// Bare ACK while `TCP_DEFER_ACCEPT` waits for data.
        DeferAccept = "TCP_DEFER_ACCEPT",
        /// The stack's or the socket's receive memory is exhausted.
        ReceiveBuffer = "SOCKET_RCVBUFF",
        /// The whole stack is at its memory limit (`tcp_mem`).
        ProtoMemory = "PROTO_MEM",
        /// The stack holds as many connections or pending SYNs as it may.
        ConnectionLimit = "CONNECTION_LIMIT",
        /// ICMP error whose quoted packet belongs to nobody, or is outside the window.
        IcmpUnmatched = "ICMP_UNMATCHED",
        /// Multicast, neighbour-discovery or listener-report noise of a link, ignored on purpose.
        LinkNoise = "LINK_NOISE",
        /// A rule or the program in front of the stack decided to drop it.
        PolicyDrop = "POLICY_DROP",
    }
);

reasons!(
    /// Why this stack sent a RST. Names equal Linux's `SK_RST_REASON_*` where one exists.
    ResetReason {
        /// No socket for the segment.
        NoSocket = "NO_SOCKET",
        /// ACK in SYN-SENT or SYN-RECV that acknowledges something else.
        InvalidAckSequence = "TCP_INVALID_ACK_SEQUENCE",
        /// Flags that are illegal in this state.
        Flags = "TCP_FLAGS",
        /// SYN in a half-open or FIN-WAIT-2 mini socket's window.
        InvalidSyn = "INVALID_SYN",
        /// Data arrived after the application had closed.
        AbortOnData = "TCP_ABORT_ON_DATA",
        /// A TIME-WAIT or FIN-WAIT-2 mini socket refused the segment.
        TimeWaitSocket = "TCP_TIMEWAIT_SOCKET",
        /// The application closed with data unread (RFC 2525 2.17).
        AbortOnClose = "TCP_ABORT_ON_CLOSE",
        /// `TCP_LINGER2` below zero.
        AbortOnLinger = "TCP_ABORT_ON_LINGER",
        /// `SO_LINGER` with zero seconds, or a disconnect.
        Disconnect = "TCP_DISCONNECT_WITH_DATA",
        /// Too many orphans, or out of memory.
        AbortOnMemory = "TCP_ABORT_ON_MEMORY",
        /// The orphan's state needs no peer any more.
        State = "TCP_STATE",
        /// Keepalive probes went unanswered.
        KeepaliveTimeout = "TCP_KEEPALIVE_TIMEOUT",
        /// The listener closed with this connection in its accept queue.
        ListenerClosed = "LISTENER_CLOSED",
        /// The accept queue was full and `tcp_abort_on_overflow` is set.
        AcceptOverflow = "ACCEPT_OVERFLOW",
        /// Ended from outside (`kill`).
        Killed = "KILLED",
        /// The program in front of the stack refused the SYN.
        Refused = "REFUSED",
    }
);
