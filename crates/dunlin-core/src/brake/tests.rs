use super::young::YOUNG_MAX;
use super::*;
use crate::ids::{Incarnation, NodeId};
use proptest::prelude::*;

const MS: fn(u64) -> Duration = Duration::from_millis;

fn change(counter: u64) -> DotRange {
    DotRange { inc: Incarnation([1; 16]), first: counter, last: counter }
}

/// Some files, each of its own number.
fn some(first: u64, many: u64) -> Gone {
    (first..first + many).map(|n| NodeId((u128::from(n) << 64).to_be_bytes())).collect()
}

fn brake(percent: u8, files: u64, most: Option<u64>) -> Brake {
    Brake::new(Limits { percent, files, most })
}

#[test]
fn half_of_the_files_trip_it_if_they_are_many() {
    let trips = |brake: &Brake, pending, files| brake.trips(&brake.count(MS(0), pending, files));
    let usual = Brake::new(Limits::default());
    for (pending, files, expected) in [
        (99, 99, false),
        (100, 100, true),
        (100, 199, true),
        (100, 200, false),
        (101, 201, true),
        (5000, 5200, true),
        (0, 0, false),
    ] {
        assert_eq!(trips(&usual, pending, files), expected, "{pending} of {files}");
    }
    assert!(trips(&brake(50, 4, None), 4, 4) && !trips(&brake(50, 4, None), 3, 3));
    assert!(!trips(&brake(100, 1, None), 5000, 5000));
    let number = brake(100, 1, Some(10));
    assert!(trips(&number, 11, 1_000_000) && !trips(&number, 10, 1_000_000));
}

#[test]
fn what_was_carried_out_counts_for_a_minute() {
    let mut b = Brake::new(Limits::default());
    // 90 of 200 are gone; 110 are left.
    b.done(MS(0), &some(0, 90), [change(7)]);
    let at = |b: &Brake, ms| b.count(MS(ms), 20, 110);
    assert_eq!(at(&b, 59_000), Count { deletes: 110, of: 200, done: 90, ..Count::default() });
    assert!(b.trips(&at(&b, 59_000)));
    assert_eq!(at(&b, 61_000), Count { deletes: 20, of: 110, ..Count::default() });
    assert!(!b.trips(&at(&b, 61_000)));
    assert_eq!((b.changes(MS(59_000)), b.changes(MS(61_000))), (vec![change(7)], vec![]));
    // Nothing is left to be held.
    assert!(!b.trips(&b.count(MS(1), 0, 0)));
    b.clear();
    assert!(!b.trips(&at(&b, 1)));
}

#[test]
fn what_was_made_less_than_a_minute_before_is_young() {
    let mut b = Brake::new(Limits::default());
    let node = |n: u8| NodeId([n; 16]);
    b.made(MS(0), node(1));
    b.made(MS(30_000), node(2));
    b.age(MS(59_999), false);
    assert!(b.is_young(node(1)) && b.is_young(node(2)) && !b.is_young(node(3)));
    // What was deleted while it was young, and is held, stays so.
    b.age(MS(60_000), true);
    assert!(b.is_young(node(1)));
    b.age(MS(60_000), false);
    assert_eq!(b.young.since.keys().collect::<Vec<_>>(), [&node(2)]);
    // Those beyond the bound count.
    for n in 0..=YOUNG_MAX as u64 {
        let mut id = [9; 16];
        id[..8].copy_from_slice(&n.to_be_bytes());
        b.made(MS(60_000), NodeId(id));
    }
    assert_eq!(b.young.since.len(), YOUNG_MAX);
}

#[test]
fn deletes_are_waited_for_until_it_is_quiet_but_not_for_long() {
    let mut p = Patience::since(None, MS(1000));
    assert_eq!(p.due(), MS(1300));
    p = Patience::since(Some(p), MS(1200));
    assert_eq!(p.due(), MS(1500));
    for ms in (1200..4000).step_by(100) {
        p = Patience::since(Some(p), MS(ms));
    }
    assert_eq!(p.due(), MS(3000));
}

#[test]
fn few_deletes_are_not_waited_with() {
    assert!(!brake(50, 100, None).waits(9) && brake(50, 100, None).waits(10));
    assert!(!brake(50, 4, None).waits(0) && brake(50, 4, None).waits(1));
    assert!(brake(100, 1000, Some(20)).waits(2));
}

use alloc::vec;

proptest! {
    /// Whatever the rounds: what is carried out within a minute without the brake is no disaster, and a disaster
    /// within a minute is never carried out to its end.
    #[test]
    fn no_disaster_is_carried_out_in_rounds(
        files in 100u64..3000,
        rounds in prop::collection::vec((0u64..2000, 1u64..400), 1..60),
    ) {
        let mut b = Brake::new(Limits::default());
        let (mut now, mut left, mut done) = (0, files, Vec::new());
        for (wait, deletes) in rounds {
            now += wait;
            let deletes = deletes.min(left);
            let count = b.count(MS(now), deletes, left);
            prop_assert_eq!(count.of, left + done.iter().filter(|(at, _)| now - at < 60_500).map(|d| d.1).sum::<u64>());
            if b.trips(&count) {
                break;
            }
            b.done(MS(now), &some(left - deletes, deletes), []);
            done.push((now, deletes));
            left -= deletes;
            let minute: u64 = done.iter().filter(|(at, _)| now - at < 60_000).map(|d| d.1).sum();
            prop_assert!(minute < 100 || minute * 2 <= left + minute, "{} of {}", minute, left + minute);
        }
        if now < 60_000 {
            prop_assert!(left * 2 >= files || files - left < 100, "{} of {} are left", left, files);
        }
    }
}

#[test]
fn what_may_have_moved_to_another_folder_is_waited_for_once_within_a_minute() {
    let mut brake = brake(50, 1, None);
    for (at, waits) in
        [(0, true), (1_999, true), (2_000, false), (59_999, false), (60_000, true), (62_000, false)]
    {
        assert_eq!(brake.waits_for_other_folders(MS(at)), waits, "{at} ms");
    }
    brake.is_calm();
    assert!(brake.waits_for_other_folders(MS(63_000)));
}
