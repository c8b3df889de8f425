//! Bytes on one side, clean values on the other. Parsed once at the door, composed once on the way out.
//!
//! In: [`parse`] ([`packet`]). Out: [`emit`] into a [`transmit::Transmit`]; [`offload`] cuts what the device cannot.
//! Between them one module a protocol: [`ip`], [`ipv4`], [`ipv6`], [`icmp`], [`udp`], [`tcp`], and [`checksum`].

pub mod checksum;
pub mod emit;
pub mod icmp;
pub mod ip;
pub mod ipv4;
pub mod ipv6;
pub mod offload;
pub mod packet;
pub mod segment;
pub mod tcp;
pub mod transmit;
pub mod udp;

#[cfg(test)]
mod arbitrary;
#[cfg(test)]
mod tests;

pub use ip::{FragmentInfo, IpFields, IpHeader};
pub use packet::{Body, Datagram, Fragment, Packet, parse};
