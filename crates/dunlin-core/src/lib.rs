//! Everything in Dunlin that decides: no IO, no clock, no randomness, no hash maps. The compiler
//! proves it pure (`no_std`), and a test holds the direction of its imports.
#![no_std]
extern crate alloc;

pub mod path;
