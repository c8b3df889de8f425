//! The full-screen view: [`model`] knows what is shown, [`draw`] shows it; the command feeds both.

pub(crate) mod draw;
pub(crate) mod model;
