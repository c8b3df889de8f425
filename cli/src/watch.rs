//! The full-screen view: [`looker`] looks, [`model`] knows what is shown, [`draw`] shows it; the command feeds them.

pub(crate) mod draw;
pub(crate) mod looker;
pub(crate) mod model;
