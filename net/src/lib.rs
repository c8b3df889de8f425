//! Runs lastack-core on a real machine: TUN devices, tokio and blocking sockets, pending SYNs.
