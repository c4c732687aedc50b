//! Chores of the project that are programs of their own.

pub mod bench;
pub mod bugs;
mod build;
pub mod campaign;
