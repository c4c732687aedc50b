//! Everything in Dunlin that decides: no IO, no clock, no randomness, no hash maps. The compiler
//! proves it pure (`no_std`), and a test holds the direction of its imports.
#![no_std]
extern crate alloc;

pub mod blocks;
pub mod brake;
pub mod change;
pub mod check;
pub mod codec;
pub mod decide;
pub mod ids;
pub mod journal;
pub mod keeps;
pub mod kv;
pub mod life;
pub mod members;
pub mod merge;
pub mod message;
pub mod names;
pub mod observe;
pub mod path;
pub mod plan;
pub mod revert;
pub mod rows;
pub mod runs;
pub mod schedule;
pub mod session;
pub mod state;
pub mod ticket;
pub mod tree;
