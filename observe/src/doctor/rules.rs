//! The rules, a file each, in the order of the contract.

use super::Rule;

mod close_wait_leak;
mod established_dead_peer;
mod established_zero_window;
mod fin_wait_1_silent_peer;
mod fin_wait_1_zero_window;
mod fin_wait_2_orphan;
mod fin_wait_2_owned;
mod keepalive_longer_than_middlebox;
mod last_ack_silent_peer;
mod listen_accept_queue_overflow;
mod memory_pressure;
mod orphans_near_limit;
mod reset_counts;
mod reset_data_after_close;
mod reset_no_listener;
mod reset_unread_data;
mod retransmit_storm;
mod syn_recv_flood;
mod syn_sent_filtered;
mod sysctl_myth;
mod time_wait_pile;
mod time_wait_port_exhaustion;
mod tw_buckets_overflow;

/// Every rule.
pub const ALL: &[&Rule] = &[
    &fin_wait_1_zero_window::RULE,
    &fin_wait_1_silent_peer::RULE,
    &fin_wait_2_orphan::RULE,
    &fin_wait_2_owned::RULE,
    &close_wait_leak::RULE,
    &time_wait_pile::RULE,
    &time_wait_port_exhaustion::RULE,
    &last_ack_silent_peer::RULE,
    &syn_recv_flood::RULE,
    &syn_sent_filtered::RULE,
    &listen_accept_queue_overflow::RULE,
    &established_zero_window::RULE,
    &established_dead_peer::RULE,
    &reset_unread_data::RULE,
    &reset_data_after_close::RULE,
    &reset_no_listener::RULE,
    &retransmit_storm::RULE,
    &keepalive_longer_than_middlebox::RULE,
    &orphans_near_limit::RULE,
    &memory_pressure::RULE,
    &tw_buckets_overflow::RULE,
    &sysctl_myth::RULE,
];
