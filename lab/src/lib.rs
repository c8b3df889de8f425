//! Writes connection stories and packet scripts and checks how they end, in the stack and in Linux.
