//! Counters with Linux's MIB names, defined once: field, name and help come from one list.

/// One counter's name and meaning.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CounterInfo {
    /// Group as `/proc/net/snmp` and `/proc/net/netstat` name it: `Tcp`, `TcpExt`, `Ip`, `Icmp`, `Udp`; `Lastack` for our own.
    pub group: &'static str,
    /// Linux's name, for example `RetransSegs`.
    pub name: &'static str,
    /// When it goes up.
    pub help: &'static str,
}

macro_rules! counters {
    ($($group:literal { $($field:ident $name:literal $help:literal;)+ })+) => {
        /// Every counter of a stack. Monotonic, except the gauge `curr_estab`.
        ///
        /// # Example
        /// ```
        /// use lastack_core::observe::Counters;
        /// let counters = Counters::default();
        /// assert!(counters.iter().any(|(info, value)| info.name == "RetransSegs" && value == 0));
        /// ```
        #[derive(Clone, PartialEq, Eq, Debug, Default)]
        pub struct Counters { $($(#[doc = $help] pub $field: u64,)+)+ }

        impl Counters {
            /// Every counter's name and meaning, in order.
            pub const INFO: &'static [CounterInfo] = &[
                $($(CounterInfo { group: $group, name: $name, help: $help },)+)+
            ];

            /// Names with values, in order.
            pub fn iter(&self) -> impl Iterator<Item = (&'static CounterInfo, u64)> {
                let Self { $($($field,)+)+ } = self;
                Self::INFO.iter().zip([$($(*$field,)+)+])
            }

            /// The value by Linux's name, with or without the group as a prefix (`TcpExtTCPTimeouts`).
            pub fn by_name(&self, name: &str) -> Option<u64> {
                self.iter()
                    .find(|(info, _)| info.name == name || name.strip_prefix(info.group) == Some(info.name))
                    .map(|(_, value)| value)
            }
        }
    };
}

counters! {
    "Tcp" {
        active_opens "ActiveOpens" "A SYN was sent by connect.";
        passive_opens "PassiveOpens" "A connection was created from a half-open one.";
        attempt_fails "AttemptFails" "SYN-SENT or SYN-RECV ended in CLOSE, or a half-open one was killed by RST or SYN.";
        estab_resets "EstabResets" "ESTAB or CLOSE-WAIT went to CLOSE, by anyone.";
        curr_estab "CurrEstab" "Gauge: connections in ESTAB or CLOSE-WAIT.";
        in_segs "InSegs" "Segments received, bad ones included.";
        out_segs "OutSegs" "Segments sent, repeats excluded.";
        retrans_segs "RetransSegs" "Segments sent again.";
        in_errs "InErrs" "Segments received in error.";
        out_rsts "OutRsts" "RST segments sent.";
        in_csum_errors "InCsumErrors" "Segments with a wrong checksum.";
    }
    "TcpExt" {
        syncookies_sent "SyncookiesSent" "SYN cookies sent.";
        syncookies_recv "SyncookiesRecv" "Valid SYN cookies received.";
        syncookies_failed "SyncookiesFailed" "Invalid SYN cookies received.";
        embryonic_rsts "EmbryonicRsts" "Half-open connections removed by RST, SYN or overflow.";
        prune_called "PruneCalled" "Receive memory ran over and was pruned.";
        rcv_pruned "RcvPruned" "Segments dropped for receive memory.";
        ofo_pruned "OfoPruned" "Out-of-order queues dropped for receive memory.";
        out_of_window_icmps "OutOfWindowIcmps" "ICMP errors quoting a sequence number outside the window.";
        tw "TW" "Mini sockets created with more than 4 s to live.";
        tw_recycled "TWRecycled" "connect took over a TIME-WAIT pair.";
        tw_killed "TWKilled" "Mini sockets created with at most 4 s to live.";
        paws_active "PAWSActive" "SYN-SENT: timestamp echo out of range.";
        paws_estab "PAWSEstab" "Segments refused by PAWS in a synchronised state.";
        paws_old_ack "PAWSOldAck" "Old pure ACKs dropped by PAWS without an answer.";
        paws_timewait "PAWSTimewait" "Segments refused by PAWS in TIME-WAIT.";
        tsecr_rejected "TSEcrRejected" "Handshake ACKs with an impossible timestamp echo.";
        beyond_window "BeyondWindow" "Segments whose end lies beyond the window.";
        delayed_acks "DelayedACKs" "ACKs sent by the delayed-ACK timer.";
        delayed_ack_lost "DelayedACKLost" "The peer repeated data because our ACK was late or lost.";
        listen_overflows "ListenOverflows" "The accept queue was full at SYN or final ACK.";
        listen_drops "ListenDrops" "Anything a listener dropped.";
        tcp_hp_hits "TCPHPHits" "Header prediction hits with data.";
        tcp_hp_acks "TCPHPAcks" "Header prediction hits of pure ACKs.";
        tcp_pure_acks "TCPPureAcks" "Pure ACKs outside header prediction.";
        tcp_sack_recovery "TCPSackRecovery" "Recovery entered with SACK.";
        tcp_reno_recovery "TCPRenoRecovery" "Recovery entered without SACK.";
        tcp_sack_recovery_fail "TCPSackRecoveryFail" "Time-out during recovery with SACK.";
        tcp_reno_recovery_fail "TCPRenoRecoveryFail" "Time-out during recovery without SACK.";
        tcp_sack_failures "TCPSackFailures" "Time-out in Disorder with SACK.";
        tcp_reno_failures "TCPRenoFailures" "Time-out in Disorder without SACK.";
        tcp_loss_failures "TCPLossFailures" "Time-out in Loss.";
        tcp_sack_reneging "TCPSACKReneging" "The peer took back a SACK.";
        tcp_sack_discard "TCPSACKDiscard" "Invalid SACK blocks ignored.";
        tcp_sack_reorder "TCPSACKReorder" "Reordering seen through SACK.";
        tcp_reno_reorder "TCPRenoReorder" "Reordering seen through duplicate ACKs.";
        tcp_ts_reorder "TCPTSReorder" "Reordering seen through timestamps.";
        tcp_full_undo "TCPFullUndo" "Whole reductions undone.";
        tcp_partial_undo "TCPPartialUndo" "Reductions undone in the middle of recovery.";
        tcp_dsack_undo "TCPDSACKUndo" "Reductions undone by DSACK.";
        tcp_loss_undo "TCPLossUndo" "Reductions undone after a spurious time-out.";
        tcp_lost_retransmit "TCPLostRetransmit" "Repeated segments lost again.";
        tcp_fast_retrans "TCPFastRetrans" "Segments repeated in Recovery.";
        tcp_slow_start_retrans "TCPSlowStartRetrans" "Segments repeated in Loss.";
        tcp_rcv_collapsed "TCPRcvCollapsed" "Packets that memory is counted for as if they had been copied together, under pressure.";
        tcp_fast_open_active "TCPFastOpenActive" "SYNs whose data the server took.";
        tcp_fast_open_active_fail "TCPFastOpenActiveFail" "SYNs whose data the server left out, or that were lost.";
        tcp_fast_open_blackhole "TCPFastOpenBlackhole" "Times that clients began to do without Fast Open.";
        tcp_fast_open_passive "TCPFastOpenPassive" "Children made out of a SYN with a valid cookie.";
        tcp_fast_open_passive_fail "TCPFastOpenPassiveFail" "SYNs with a cookie that was not valid.";
        tcp_fast_open_listen_overflow "TCPFastOpenListenOverflow" "SYNs refused Fast Open because too many were opening (TCP_FASTOPEN).";
        tcp_fast_open_cookie_reqd "TCPFastOpenCookieReqd" "SYNs that asked for a cookie.";
        tcp_fast_open_passive_alt_key "TCPFastOpenPassiveAltKey" "Cookies made with the secret before.";
        tcp_timeouts "TCPTimeouts" "Retransmission timer firings, SYN and SYN-ACK included.";
        tcp_loss_probes "TCPLossProbes" "Tail loss probes sent.";
        tcp_loss_probe_recovery "TCPLossProbeRecovery" "Losses repaired by a tail loss probe.";
        tcp_spurious_rtos "TCPSpuriousRTOs" "Time-outs that F-RTO found spurious.";
        tcp_syn_retrans "TCPSynRetrans" "SYN or SYN-ACK sent again.";
        tcp_orig_data_sent "TCPOrigDataSent" "Data segments sent for the first time.";
        tcp_delivered "TCPDelivered" "Segments delivered.";
        tcp_delivered_ce "TCPDeliveredCE" "Segments delivered, told by an ACK with ECE.";
        tcp_dsack_old_sent "TCPDSACKOldSent" "DSACKs sent for data below rcv_nxt.";
        tcp_dsack_ofo_sent "TCPDSACKOfoSent" "DSACKs sent for data in the out-of-order queue.";
        tcp_dsack_recv "TCPDSACKRecv" "DSACKs received for data below snd_una.";
        tcp_dsack_ofo_recv "TCPDSACKOfoRecv" "DSACKs received for data above snd_una.";
        tcp_dsack_ignored_old "TCPDSACKIgnoredOld" "DSACKs that came too late to matter.";
        tcp_dsack_ignored_no_undo "TCPDSACKIgnoredNoUndo" "DSACKs without a reduction to undo.";
        tcp_abort_on_data "TCPAbortOnData" "Linger-0 close, data after close, or FIN-WAIT-2 with TCP_LINGER2 below 0.";
        tcp_abort_on_close "TCPAbortOnClose" "Closed with data unread.";
        tcp_abort_on_memory "TCPAbortOnMemory" "Orphans killed by limits.";
        tcp_abort_on_timeout "TCPAbortOnTimeout" "Given up by retransmission, probe, keepalive or user time-out.";
        tcp_abort_on_linger "TCPAbortOnLinger" "Closed in FIN-WAIT-2 with TCP_LINGER2 below 0.";
        tcp_memory_pressures "TCPMemoryPressures" "Entries into memory pressure.";
        tcp_time_wait_overflow "TCPTimeWaitOverflow" "No room for a mini socket (tcp_max_tw_buckets).";
        tcp_req_q_full_do_cookies "TCPReqQFullDoCookies" "SYN queue full: cookie sent.";
        tcp_req_q_full_drop "TCPReqQFullDrop" "SYN queue full: SYN dropped.";
        tcp_defer_accept_drop "TCPDeferAcceptDrop" "Bare ACKs dropped by TCP_DEFER_ACCEPT.";
        tcp_challenge_ack "TCPChallengeACK" "Challenge ACKs sent.";
        tcp_syn_challenge "TCPSYNChallenge" "SYNs in a synchronised state.";
        tcp_ack_skipped_syn_recv "TCPACKSkippedSynRecv" "ACKs withheld by rate limit in SYN-RECV.";
        tcp_ack_skipped_paws "TCPACKSkippedPAWS" "ACKs withheld by rate limit after PAWS.";
        tcp_ack_skipped_seq "TCPACKSkippedSeq" "ACKs withheld by rate limit for out-of-window segments.";
        tcp_ack_skipped_fin_wait2 "TCPACKSkippedFinWait2" "ACKs withheld by rate limit in FIN-WAIT-2.";
        tcp_ack_skipped_time_wait "TCPACKSkippedTimeWait" "ACKs withheld by rate limit in TIME-WAIT.";
        tcp_ack_skipped_challenge "TCPACKSkippedChallenge" "Challenge ACKs withheld by rate limit.";
        tcp_from_zero_window_adv "TCPFromZeroWindowAdv" "Our window left zero.";
        tcp_to_zero_window_adv "TCPToZeroWindowAdv" "Our window became zero.";
        tcp_want_zero_window_adv "TCPWantZeroWindowAdv" "Zero window wanted, but shrinking is not allowed.";
        tcp_zero_window_drop "TCPZeroWindowDrop" "Data arrived at a zero window.";
        tcp_rcv_q_drop "TCPRcvQDrop" "Data dropped because it could not be queued.";
        tcp_win_probe "TCPWinProbe" "Zero-window probes sent.";
        tcp_keep_alive "TCPKeepAlive" "Keepalive probes sent.";
        tcp_min_ttl_drop "TCPMinTTLDrop" "Segments below IP_MINTTL or IPV6_MINHOPCOUNT.";
        tcp_ofo_queue "TCPOFOQueue" "Segments queued out of order.";
        tcp_ofo_drop "TCPOFODrop" "Out-of-order segments dropped for memory.";
        tcp_ofo_merge "TCPOFOMerge" "Out-of-order segments that were there already.";
        tcp_rcv_coalesce "TCPRcvCoalesce" "Segments merged into the one before.";
        tcp_ack_compressed "TCPAckCompressed" "ACKs withheld by SACK compression.";
        tcp_hystart_train_detect "TCPHystartTrainDetect" "HyStart exits by ACK train.";
        tcp_hystart_train_cwnd "TCPHystartTrainCwnd" "Sum of windows at these exits.";
        tcp_hystart_delay_detect "TCPHystartDelayDetect" "HyStart exits by delay.";
        tcp_hystart_delay_cwnd "TCPHystartDelayCwnd" "Sum of windows at these exits.";
        tcp_mtup_success "TCPMTUPSuccess" "Path MTU probes that passed.";
        tcp_mtup_fail "TCPMTUPFail" "Path MTU probes that were lost.";
        tcp_wqueue_too_big "TCPWqueueTooBig" "Send queue over its memory limit.";
        tcp_timeout_rehash "TcpTimeoutRehash" "Flow-hash changes after a time-out.";
        tcp_duplicate_data_rehash "TcpDuplicateDataRehash" "Flow-hash changes after duplicate data.";
    }
    "Ip" {
        ip_in_receives "InReceives" "Packets received.";
        ip_in_hdr_errors "InHdrErrors" "Packets with a bad header.";
        ip_in_addr_errors "InAddrErrors" "Packets not for this stack.";
        ip_in_unknown_protos "InUnknownProtos" "Packets of unknown protocols.";
        ip_in_discards "InDiscards" "Packets dropped for want of room.";
        ip_in_delivers "InDelivers" "Packets delivered to a protocol.";
        ip_out_requests "OutRequests" "Packets sent.";
        ip_out_no_routes "OutNoRoutes" "Packets without a route.";
        ip_reasm_reqds "ReasmReqds" "Fragments received.";
        ip_reasm_oks "ReasmOKs" "Packets reassembled.";
        ip_reasm_fails "ReasmFails" "Reassemblies given up.";
    }
    "IpExt" {
        ip_in_no_ect_pkts "InNoECTPkts" "Packets received as Not-ECT.";
        ip_in_ect1_pkts "InECT1Pkts" "Packets received as ECT(1).";
        ip_in_ect0_pkts "InECT0Pkts" "Packets received as ECT(0).";
        ip_in_ce_pkts "InCEPkts" "Packets received with congestion experienced.";
    }
    "Icmp" {
        icmp_in_msgs "IcmpInMsgs" "ICMP messages received.";
        icmp_in_errors "IcmpInErrors" "ICMP messages in error.";
        icmp_in_echos "IcmpInEchos" "Echo requests received.";
        icmp_out_echo_reps "IcmpOutEchoReps" "Echo replies sent.";
        icmp_out_dest_unreachs "IcmpOutDestUnreachs" "Destination unreachable sent.";
        icmp_in_dest_unreachs "IcmpInDestUnreachs" "Destination unreachable received.";
    }
    "Udp" {
        udp_in_datagrams "InDatagrams" "Datagrams delivered.";
        udp_no_ports "NoPorts" "Datagrams for a port nobody has.";
        udp_in_errors "UdpInErrors" "Datagrams in error.";
        udp_out_datagrams "OutDatagrams" "Datagrams sent.";
        udp_rcvbuf_errors "RcvbufErrors" "Datagrams dropped because the receive queue was full.";
        udp_in_csum_errors "UdpInCsumErrors" "Datagrams with a wrong checksum.";
    }
    "Lastack" {
        pending_syns "PendingSyns" "SYNs handed to an accept-any listener.";
        pending_refused "PendingRefused" "Of these, refused with RST.";
        pending_unreachable "PendingUnreachable" "Of these, answered with ICMP unreachable.";
        pending_dropped "PendingDropped" "Of these, dropped.";
        pending_overflow "PendingOverflow" "SYNs dropped because too many were pending.";
        outbox_overflow "OutboxOverflow" "Replies not sent because too many waited.";
        link_noise "LinkNoise" "Link noise ignored on purpose.";
        martian_destinations "MartianDestinations" "Packets for a loopback address, which no link brings (IPv4: in_martian_dst of /proc/net/stat/rt_cache).";
    }
}
