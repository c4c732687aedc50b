//! A whole flock in one process: real engines on a model of a disk, driven from one seed.

#![forbid(unsafe_code)]

pub mod chance;
pub mod disk;
