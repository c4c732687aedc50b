//! All tests of the command, as one program: it is built and linked once, and while one test waits, others run.

#![allow(clippy::unwrap_used, reason = "tests")]

mod apart;
mod brake;
mod campaigns;
mod cli;
mod conflicts;
mod costs;
mod editors;
mod failing;
mod flock;
mod folders;
mod full;
mod history;
mod index;
mod lan;
mod lane;
mod left_alone;
mod live;
mod memory;
mod netns;
#[path = "odd_disks/main.rs"]
mod odd_disks;
mod oddities;
mod one_file;
mod outside;
mod races;
mod rolled;
mod roots;
mod running_node;
mod scaling;
mod tickets;
mod tight;
mod twice;
mod undo;
mod verify;
mod whole;
