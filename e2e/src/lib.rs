//! End-to-end proofs with real programs.
