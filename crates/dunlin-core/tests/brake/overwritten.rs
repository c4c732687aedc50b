//! Edits that replace what a history cannot keep: counted, held, accepted, taken back.

use super::common::*;
use super::{check, file, pair, path, settle, settle_with, work};
use dunlin_core::brake::{Brake, Held, History, Limits, Room, overwriting};
use dunlin_core::ids::{ContentId, DotRange, NodeId};
use dunlin_core::plan::{Window, plan};
use dunlin_core::rows::{Rows, Totals};
use std::collections::BTreeSet;
use std::time::Duration;

/// A history with this room.
struct Has(Room, BTreeSet<ContentId>);

impl History for Has {
    fn room(&self, all: bool) -> Room {
        // What could yield is found only if it is looked for.
        Room { disk: if all { self.0.disk } else { self.0.disk / 2 }, ..self.0 }
    }

    fn has(&self, content: &ContentId) -> bool {
        self.1.contains(content)
    }
}

/// Every file holds something else, of 5,000 bytes.
fn overwrite_all(d: &mut Device, n: usize, contents: &mut Contents) {
    for i in 0..n {
        let bytes = format!("{i:05000}").into_bytes();
        d.disk.write(&path(&file(i)), &bytes);
        contents.insert(content_id(&bytes), bytes);
    }
    d.scan();
}

#[test]
fn edits_count_where_the_history_cannot_keep_what_they_replace() {
    let ([mut a, mut b], mut contents) = pair(10);
    overwrite_all(&mut a, 10, &mut contents);
    b.hear(&a.rows());
    check(&b);
    let totals = b.index.totals().unwrap();
    assert_eq!((totals.replaces, totals.replaced, totals.replacing), (10, 90, 50_000));
    let by = overwriting(&b.index).unwrap();
    assert_eq!((by.len(), by[0].0.inc, by[0].1), (1, incarnation("a"), 10));
    let brake = Brake::new(Limits { files: 4, ..Limits::default() });
    let plenty = Room { disk: u64::MAX, kept: u64::MAX, full: false };
    let count = |brake: &Brake, room: Room, has: &[Vec<u8>]| {
        let has = Has(room, has.iter().map(|bytes| content_id(bytes)).collect());
        brake.overwritten(&b.index, &totals, Duration::ZERO, 0, &has).unwrap()
    };
    assert_eq!(count(&brake, plenty, &[]), None);
    // A file of 5,000 bytes takes two blocks of the disk.
    for (room, holds) in [
        (Room { disk: 81_920, ..plenty }, false),
        (Room { disk: 81_919, ..plenty }, true),
        (Room { disk: 1 << 30, kept: 90, full: false }, false),
        (Room { disk: 1 << 30, kept: 89, full: false }, true),
        (Room { full: true, ..plenty }, true),
    ] {
        let count = count(&brake, room, &[]);
        assert_eq!(count.map(|c| (c.replaced, c.of, c.deletes)), holds.then_some((10, 10, 0)), "{room:?}");
    }
    // What is at hand takes no more room.
    let first = format!("{:05000}", 0).into_bytes();
    assert_eq!(count(&brake, Room { disk: 81_919, ..plenty }, &[first]), None);
    // Fewer than trip it, and a brake that is off.
    for limits in [Limits { files: 11, ..Limits::default() }, Limits { percent: 100, ..Limits::default() }] {
        assert_eq!(count(&Brake::new(limits), Room::default(), &[]), None);
    }
    // Held: nothing of it comes; accepted: nothing counts.
    let before = b.listing();
    settle_with(&mut b, &contents, true, false);
    assert_eq!(b.listing(), before);
    let accepted: Vec<DotRange> = by.into_iter().map(|(range, _)| range).collect();
    work(&mut b, |w| w.release(&accepted).unwrap());
    let now = b.index.totals().unwrap();
    assert_eq!((now.replaces, now.replaced, now.replacing), (0, 0, 0));
    settle_with(&mut b, &contents, true, false);
    assert_eq!(b.listing(), a.listing());
}

#[test]
fn what_was_replaced_within_the_minute_counts_with_what_is_still_to_be() {
    let ([mut a, mut b], mut contents) = pair(10);
    overwrite_all(&mut a, 10, &mut contents);
    b.hear(&a.rows());
    let mut brake = Brake::new(Limits { files: 9, ..Limits::default() });
    let nodes: Vec<_> = (0..10).map(|i| node(&b, i)).collect();
    let dot = |i: usize| b.index.node(nodes[i]).unwrap().unwrap().state.versions()[0].0;
    let ms = Duration::from_millis;
    // Once more replaced it still is one file.
    for at in [0, 500] {
        brake.numbers(ms(at), 70 + at);
        brake.replaced(ms(at), nodes[3], 11, dot(3));
    }
    let totals = Totals { replaces: 9, ..b.index.totals().unwrap() };
    let none = Has(Room::default(), BTreeSet::new());
    let count = |b: &Device, brake: &Brake, at| {
        brake.overwritten(&b.index, &totals, ms(at), 0, &none).unwrap().map(|c| (c.replaced, c.replaced_done))
    };
    // Of the ten that are pending one was replaced before, and is to be once more.
    assert_eq!(count(&b, &brake, 1000), Some((10, 0)));
    assert_eq!((brake.replacing(ms(1000)), brake.replaced_bytes(ms(1000))), (vec![DotRange::of(dot(3))], 11));
    assert!(brake.replacing(ms(60_500)).is_empty());
    // So it is if all of them were; and one that is not pending any more counts beside them.
    let mut again = brake.clone();
    (0..10).for_each(|i| again.replaced(ms(900), nodes[i], 11, dot(i)));
    assert_eq!(count(&b, &again, 1000), Some((10, 0)));
    again.replaced(ms(900), dunlin_core::ids::ROOT, 11, dot(0));
    assert_eq!(count(&b, &again, 1000), Some((11, 1)));
    // What the history got meanwhile does not yield, if there may be too much of it.
    let few = Totals::default();
    assert_eq!(brake.spares(ms(1000), &few, None), Some(70..u64::MAX));
    let usual = Brake::new(Limits::default());
    assert_eq!(usual.spares(ms(1000), &totals, None), None, "few");
    assert_eq!(brake.spares(ms(60_200), &few, None), Some(70..u64::MAX));
    assert_eq!(brake.spares(ms(60_600), &few, None), None);
    let held = Held { deletes: 5, from: Some(7), upto: 9, ..Held::default() };
    assert_eq!(brake.spares(ms(90_000), &few, Some(&held)), Some(7..9));
    brake.clear();
    assert_eq!(brake.spares(ms(1000), &totals, None), None);
}

#[test]
fn edits_that_are_rejected_become_everywhere_what_was_there() {
    let ([mut a, mut b], mut contents) = pair(10);
    let before = b.listing();
    overwrite_all(&mut a, 10, &mut contents);
    b.hear(&a.rows());
    let changes: Vec<DotRange> = overwriting(&b.index).unwrap().into_iter().map(|(range, _)| range).collect();
    // Three of them were carried out before the brake tripped; one more is changed once more since.
    let skip: BTreeSet<_> = (3..10).map(|i| node(&b, i)).collect();
    let staged = |c: &_| contents.contains_key(c);
    let steps = plan(&b.index, &Window::new(&staged, &skip, 20)).unwrap().steps;
    assert_eq!(steps.len(), 3);
    let done: Vec<_> = steps.into_iter().map(|s| (b.carry_out(&s, &contents), s)).collect();
    b.conclude(&done.into_iter().map(|(o, s)| (s, o)).collect::<Vec<_>>());
    a.disk.write(&path(&file(0)), b"later, and meant");
    contents.insert(content_id(b"later, and meant"), b"later, and meant".to_vec());
    a.disk.write(&path(&file(5)), b"more of the same");
    contents.insert(content_id(b"more of the same"), b"more of the same".to_vec());
    a.scan();
    b.hear(&a.rows());
    settle_only(&mut b, &contents, 0);
    assert_eq!(work(&mut b, |w| w.take_edits_back(&changes).unwrap()), 9);
    settle(&mut b, &contents, true);
    a.hear(&b.rows());
    settle(&mut a, &contents, true);
    assert_eq!(a.listing(), b.listing());
    let differ: Vec<_> = b.listing().into_iter().filter(|line| !before.contains(line)).collect();
    assert_eq!(differ.len(), 1, "{differ:#?}");
    assert!(b.disk.inode(&path(&file(0))).unwrap().body == Body::File(b"later, and meant".to_vec()));
}

fn node(d: &Device, i: usize) -> NodeId {
    dunlin_core::revert::shown_at(&d.index, &path(&file(i))).unwrap().unwrap().0
}

/// Carries out what one of the files lacks.
fn settle_only(d: &mut Device, contents: &Contents, i: usize) {
    let skip: BTreeSet<_> = (0..10).filter(|n| *n != i).map(|n| node(d, n)).collect();
    let staged = |c: &_| contents.contains_key(c);
    let steps = plan(&d.index, &Window::new(&staged, &skip, 20)).unwrap().steps;
    let done: Vec<_> = steps.into_iter().map(|s| (d.carry_out(&s, contents), s)).collect();
    d.conclude(&done.into_iter().map(|(o, s)| (s, o)).collect::<Vec<_>>());
}
