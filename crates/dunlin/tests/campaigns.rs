//! A slice of each campaign: every kind of trouble that `docs/reliability.md` names comes in one of its runs.

use xtask::campaign::slice;

#[test]
fn kills_of_any_of_three_lose_nothing() {
    slice("kill", &[1]);
}

#[test]
fn a_kill_at_any_call_loses_nothing() {
    // One of each kind of call, none of them the first.
    slice("syscall", &[9, 18, 11, 20, 21, 22, 15, 24]);
}

#[test]
fn power_cuts_lose_nothing_that_was_durable() {
    // Folder and state, the state, the folder; the journal lost or flushed; with and without auto_da_alloc.
    slice("cut", &[1, 6, 8]);
}

#[test]
fn a_full_disk_heals() {
    // Without the state on it, and with it.
    slice("full", &[1, 2]);
}

#[test]
fn errors_of_the_disk_lose_nothing() {
    // Every sync, every third one, reads, listings, writes, renames, opens, looks.
    slice("error", &[1, 2, 3, 5, 7, 8, 9, 10]);
}

#[test]
fn a_damaged_index_is_rebuilt_and_nothing_is_removed() {
    slice("index", &[1, 2, 3, 4, 5, 6, 7]);
}

#[test]
fn a_root_that_is_gone_or_strange_removes_nothing() {
    // Gone, empty, another, a link, a file, mounted over, unmounted, without its marker; by turns running and stopped.
    slice("root", &[1, 10, 3, 12, 5, 14, 7, 16]);
}

#[test]
fn a_peer_that_fails_in_mid_transfer_is_waited_for() {
    slice("peer", &[2]);
}

#[test]
fn a_wrong_clock_changes_nothing() {
    slice("clock", &[1, 2]);
}
