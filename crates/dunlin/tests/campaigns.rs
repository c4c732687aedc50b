//! A slice of each campaign, so that they keep working: `docs/reliability.md`.

use xtask::campaign::slice;

#[test]
fn kills_of_any_of_three_lose_nothing() {
    slice("kill", 1..2);
}

#[test]
fn a_kill_at_any_call_loses_nothing() {
    slice("syscall", 9..13);
}

#[test]
fn power_cuts_lose_nothing_that_was_durable() {
    slice("cut", 1..2);
}

#[test]
fn a_full_disk_heals() {
    slice("full", 1..2);
}

#[test]
fn errors_of_the_disk_lose_nothing() {
    slice("error", 5..6);
}

#[test]
fn a_damaged_index_is_rebuilt_and_nothing_is_removed() {
    slice("index", 1..7);
}

#[test]
fn a_root_that_is_gone_or_strange_removes_nothing() {
    slice("root", 1..3);
}

#[test]
fn a_peer_that_fails_in_mid_transfer_is_waited_for() {
    slice("peer", 2..3);
}

#[test]
fn a_wrong_clock_changes_nothing() {
    slice("clock", 1..2);
}
