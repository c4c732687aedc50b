//! Everything in Dunlin that touches: disk, sockets, store, clock. No decisions; those are
//! `dunlin_core`'s.

pub mod disk;
pub mod net;
pub mod watch;
