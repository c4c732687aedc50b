//! Everything in Dunlin that touches: disk, sockets, store, clock. No decisions; those are
//! `dunlin_core`'s.

pub mod apply;
pub mod blocks;
pub mod chunks;
pub mod config;
pub mod control;
pub mod disk;
pub mod engine;
mod fetch;
mod folder;
pub mod home;
pub mod net;
mod node;
pub mod scan;
mod serve;
mod session;
pub mod site;
pub mod stage;
pub mod store;
pub mod transfer;
pub mod verify;
pub mod watch;

pub use node::{Node, NodeOptions, StartError, start};
