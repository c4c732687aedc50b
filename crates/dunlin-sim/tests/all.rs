//! All tests of the simulator, as one program: it is built and linked once.

#![allow(clippy::unwrap_used, reason = "tests")]

mod brake;
mod case_kit;
mod cases;
mod conflicts;
mod disk_common;
mod disk_crash;
mod disk_differential;
mod disk_model;
mod flocks;
mod hostile;
mod odd;
mod rolled;
mod schedules;
mod twice;
mod work;
