//! The stories, a file each: first how connections should live, then the findings of `lastack doctor` in their order.

use super::Story;

mod clean_close;
mod close_wait_leak;
mod established_dead_peer;
mod established_zero_window;
mod fin_before_data;
mod fin_wait_1_silent_peer;
mod fin_wait_1_zero_window;
mod fin_wait_2_orphan;
mod fin_wait_2_owned;
mod first_retransmission;
mod half_close;
mod keepalive_longer_than_middlebox;
mod last_ack_silent_peer;
mod linger_zero;
mod listen_accept_queue_overflow;
mod memory_pressure;
mod orphans_near_limit;
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

/// Every story.
pub const ALL: &[&Story] = &[
    &clean_close::STORY,
    &half_close::STORY,
    &linger_zero::STORY,
    &first_retransmission::STORY,
    &fin_before_data::STORY,
    &fin_wait_1_zero_window::STORY,
    &fin_wait_1_silent_peer::STORY,
    &fin_wait_2_orphan::STORY,
    &fin_wait_2_owned::STORY,
    &close_wait_leak::STORY,
    &time_wait_pile::STORY,
    &time_wait_port_exhaustion::STORY,
    &last_ack_silent_peer::STORY,
    &syn_recv_flood::STORY,
    &syn_sent_filtered::STORY,
    &listen_accept_queue_overflow::STORY,
    &established_zero_window::STORY,
    &established_dead_peer::STORY,
    &reset_unread_data::STORY,
    &reset_data_after_close::STORY,
    &reset_no_listener::STORY,
    &retransmit_storm::STORY,
    &keepalive_longer_than_middlebox::STORY,
    &orphans_near_limit::STORY,
    &memory_pressure::STORY,
    &tw_buckets_overflow::STORY,
    &sysctl_myth::STORY,
];
