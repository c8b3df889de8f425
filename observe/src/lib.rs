//! Reads TCP connections from any source and explains them.
