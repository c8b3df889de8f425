//! Bytes on one side, clean values on the other. Parsed once at the door, composed once on the way out.

pub mod segment;
pub mod transmit;
