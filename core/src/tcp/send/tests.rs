//! The sending half against a peer of a few lines, in virtual time.

mod handshake;
mod harness;
mod output;
mod path;
mod recovery;
mod timeouts;

/// Queues, records, CUBIC's and recovery's memory come with data, in-flight segments, samples and losses.
#[test]
fn an_idle_sender_is_small() {
    let size = size_of::<crate::tcp::send::Sender>();
    assert!(size <= 376, "{size} bytes");
}
