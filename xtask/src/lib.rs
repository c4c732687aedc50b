//! Chores of the project that are programs of their own.

pub mod bugs;
pub mod campaign;
