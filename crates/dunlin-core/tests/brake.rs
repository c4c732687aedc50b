//! What the index knows of deletes that are held, let go, or taken back.

#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "brake/again.rs"]
mod again;
#[path = "brake/overwritten.rs"]
mod overwritten;
#[path = "brake/packed.rs"]
mod packed;
#[path = "brake/young.rs"]
mod young;

use crate::common;
use common::*;
use dunlin_core::brake::{Brake, Held, Limits, absent_files, counts, held, pending};
use dunlin_core::ids::{DeviceId, DotRange, ROOT};
use dunlin_core::path::RelPath;
use dunlin_core::plan::{Action, Window, plan};
use dunlin_core::rows::{Position, Rows};
use dunlin_core::tree::Work;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

fn path(text: &str) -> RelPath {
    RelPath::parse(text.as_bytes()).unwrap()
}

/// Two devices with the same tree: files `0` to `n`, half of them in `d`, and an empty directory.
fn pair(n: usize) -> ([Device; 2], Contents) {
    let [mut a, mut b] = ["a", "b"].map(Device::new);
    let mut contents = Contents::new();
    for dir in ["d", "empty"] {
        a.disk.create(&path(dir), Body::Dir(BTreeMap::new()));
    }
    for i in 0..n {
        let bytes = format!("content {i}").into_bytes();
        a.disk.create(&path(&file(i)), Body::File(bytes.clone()));
        contents.insert(content_id(&bytes), bytes);
    }
    a.scan();
    b.hear(&a.rows());
    settle(&mut b, &contents, true);
    assert_eq!(a.listing(), b.listing());
    ([a, b], contents)
}

fn file(i: usize) -> String {
    if i.is_multiple_of(2) { format!("d/{i}") } else { i.to_string() }
}

/// Plans and carries out until nothing more can be done.
fn settle(d: &mut Device, contents: &Contents, removals: bool) {
    settle_with(d, contents, removals, true);
}

fn settle_with(d: &mut Device, contents: &Contents, removals: bool, replaces: bool) {
    loop {
        let skip = BTreeSet::new();
        let staged = |c: &_| contents.contains_key(c);
        let window = Window { removals, replaces, ..Window::new(&staged, &skip, 7) };
        let steps = plan(&d.index, &window).unwrap().steps;
        if steps.is_empty() {
            return;
        }
        let done: Vec<_> = steps.into_iter().map(|s| (d.carry_out(&s, contents), s)).collect();
        d.conclude(&done.into_iter().map(|(o, s)| (s, o)).collect::<Vec<_>>());
        check(d);
    }
}

fn check(d: &Device) {
    d.check_needs();
    d.check_totals();
    let needs = d.index.0.keys().filter(|k| k[0] == b'd');
    let nodes = needs.map(|k| dunlin_core::ids::NodeId::from_slice(&k[1..]).unwrap());
    let needs: Vec<_> = nodes.map(|n| d.index.need(n).unwrap().unwrap()).collect();
    let totals = d.index.totals().unwrap();
    assert_eq!(totals.removals, needs.iter().map(|n| u64::from(n.removals)).sum::<u64>());
    assert_eq!(totals.leaving, needs.iter().map(|n| u64::from(n.leaving)).sum::<u64>());
    assert_eq!(totals.replaces, needs.iter().map(|n| u64::from(n.replaces)).sum::<u64>());
    assert_eq!(totals.replaced, needs.iter().map(|n| n.replaced).sum::<u64>());
    let replacing = needs.iter().filter(|n| n.replaces > 0).map(|n| n.bytes);
    assert_eq!(totals.replacing, replacing.sum::<u64>());
}

fn remove_all(d: &mut Device) {
    for p in d.disk.paths().iter().filter(|p| p.names().len() == 1) {
        d.disk.remove(p);
    }
    d.scan();
}

fn work<T>(d: &mut Device, f: impl FnOnce(&mut Work<'_>) -> T) -> T {
    let mut work = Work::new(&d.index);
    let out = f(&mut work);
    let changes = work.finish().unwrap();
    d.index.apply(changes);
    check(d);
    out
}

fn ranges(d: &Device) -> Vec<DotRange> {
    pending(&d.index).unwrap().into_iter().map(|(range, _)| range).collect()
}

#[test]
fn what_is_heard_deleted_counts_until_it_is_carried_out_or_accepted() {
    let ([mut a, mut b], contents) = pair(10);
    remove_all(&mut a);
    b.hear(&a.rows());
    check(&b);
    assert_eq!(b.index.totals().unwrap().removals, 10);
    let by = pending(&b.index).unwrap();
    assert_eq!((by.len(), by[0].0.inc, by[0].1), (1, incarnation("a"), 10));
    // Held: additions arrive, nothing goes.
    let before = b.listing();
    a.disk.create(&path("new"), Body::Link(b"to".to_vec()));
    a.scan();
    b.hear(&a.rows());
    settle(&mut b, &contents, false);
    let now = b.listing();
    assert!(now.len() == before.len() + 1 && before.iter().all(|line| now.contains(line)), "{now:#?}");
    // Accepted: nothing counts, whether heard before or later.
    let (mut late, accepted) = (Device::new("late"), ranges(&b));
    assert!(work(&mut b, |w| w.release(&accepted).unwrap()));
    assert!(!work(&mut b, |w| w.release(&accepted).unwrap()));
    assert_eq!(b.index.totals().unwrap().removals, 0);
    late.index = pair(10).0[1].index.clone();
    work(&mut late, |w| w.release(&accepted).unwrap());
    late.hear(&a.rows());
    assert_eq!((late.index.totals().unwrap().removals, late.lacking().len()), (0, 13));
    // Not accepted any more.
    work(&mut b, |w| w.release(&[]).unwrap());
    assert_eq!(b.index.totals().unwrap().removals, 10);
    work(&mut b, |w| w.release(&accepted).unwrap());
    settle(&mut b, &contents, true);
    assert_eq!(b.listing(), a.listing());
    assert_eq!(b.disk.paths(), [path("new")]);
}

#[test]
fn what_is_to_go_as_accepted_is_none_of_the_files_that_stay() {
    let ([mut a, mut b], contents) = pair(10);
    let brake = Brake::new(Limits { percent: 50, files: 2, most: None });
    let too_many = |b: &Device, here| {
        brake.too_many(&b.index, &b.index.totals().unwrap(), Duration::ZERO, here).unwrap()
    };
    for i in 0..6 {
        a.disk.remove(&path(&file(i)));
    }
    a.scan();
    b.hear(&a.rows());
    let accepted = ranges(&b);
    work(&mut b, |w| w.release(&accepted).unwrap());
    let totals = b.index.totals().unwrap();
    assert_eq!((totals.files, totals.removals, totals.leaving), (10, 0, 6));
    // Three of the four others, whether they vanish here or are heard of.
    assert_eq!(too_many(&b, 2), None);
    assert_eq!(too_many(&b, 3).map(|c| (c.deletes, c.of)), Some((3, 4)));
    for i in 6..9 {
        a.disk.remove(&path(&file(i)));
    }
    a.scan();
    b.hear(&a.rows());
    check(&b);
    assert_eq!(too_many(&b, 0).map(|c| (c.deletes, c.of)), Some((3, 4)));
    settle(&mut b, &contents, true);
    assert_eq!((b.listing(), b.index.totals().unwrap().leaving), (a.listing(), 0));
}

#[test]
fn a_delete_that_was_accepted_is_enough_and_another_one_is_not() {
    let ([mut a, mut b], _) = pair(4);
    let mut c = Device::new("c");
    (c.index, c.disk) = (b.index.clone(), b.disk.clone());
    work(&mut c, |w| {
        let totals = dunlin_core::rows::Totals { inc: incarnation("c"), ..w.tx.totals().unwrap() };
        w.tx.put_totals(&totals);
    });
    remove_all(&mut a);
    remove_all(&mut c);
    b.hear(&a.rows());
    let of_a = ranges(&b);
    b.hear(&c.rows());
    assert_eq!(ranges(&b).len(), 2);
    let earlier = DotRange { last: of_a[0].first - 1, ..of_a[0] };
    work(&mut b, |w| w.release(&[earlier]).unwrap());
    assert_eq!(b.index.totals().unwrap().removals, 4);
    work(&mut b, |w| w.release(&of_a).unwrap());
    assert_eq!(b.index.totals().unwrap().removals, 0);
}

#[test]
fn deletes_that_are_taken_back_come_back_everywhere() {
    let ([mut a, mut b], contents) = pair(10);
    let whole = b.listing();
    remove_all(&mut a);
    b.hear(&a.rows());
    let rejected = ranges(&b);
    let mut c = Device::new("a");
    (c.index, c.disk) = (a.index.clone(), a.disk.clone());
    assert_eq!(work(&mut b, |w| w.take_deletes_of_back(&[]).unwrap()), 0, "what was heard happens");
    let files = work(&mut b, |w| w.take_deletes_back(&[]).unwrap());
    assert_eq!((files, b.index.totals().unwrap().removals), (10, 0));
    assert!(b.lacking().is_empty(), "{:#?}", b.lacking());
    a.hear(&b.rows());
    settle(&mut a, &contents, true);
    assert_eq!((a.listing(), b.listing()), (whole.clone(), whole.clone()));
    // Who carried them out already can take them back, too; directories belong to the same changes.
    let all = [DotRange { first: 1, last: 1 << 20, ..rejected[0] }];
    assert_eq!(work(&mut c, |w| w.take_deletes_back(&[]).unwrap()), 0);
    assert_eq!(work(&mut c, |w| w.take_deletes_of_back(&[]).unwrap()), 0);
    assert_eq!(work(&mut c, |w| w.take_deletes_of_back(&all).unwrap()), 10);
    settle(&mut c, &contents, true);
    assert_eq!(c.listing(), whole);
    // Nothing more comes of it, and what is deleted now is deleted.
    assert_eq!(work(&mut b, |w| w.take_deletes_back(&all).unwrap()), 0);
    a.hear(&b.rows());
    b.disk.remove(&path("1"));
    b.scan();
    a.hear(&b.rows());
    settle(&mut a, &contents, true);
    assert_eq!((a.listing().len(), a.listing()), (whole.len() - 1, b.listing()));
}

#[test]
fn two_who_take_back_agree_and_a_third_that_deletes_too_does_not_win() {
    let ([mut a, mut b], contents) = pair(4);
    let whole = b.listing();
    let mut c = Device::new("c");
    (c.index, c.disk) = (b.index.clone(), b.disk.clone());
    work(&mut c, |w| {
        let totals = dunlin_core::rows::Totals { inc: incarnation("c"), ..w.tx.totals().unwrap() };
        w.tx.put_totals(&totals);
    });
    remove_all(&mut a);
    for d in [&mut b, &mut c] {
        d.hear(&a.rows());
        work(d, |w| w.take_deletes_back(&[]).unwrap());
    }
    for _ in 0..2 {
        b.hear(&c.rows());
        c.hear(&b.rows());
        a.hear(&b.rows());
    }
    for d in [&mut a, &mut b, &mut c] {
        settle(d, &contents, true);
        let files = d.listing().into_iter().filter(|line| !line.contains("conflict")).count();
        assert!(d.listing().iter().all(|line| whole.contains(line)) && files >= 4, "{:#?}", d.listing());
    }
    assert_eq!(a.listing(), b.listing());
    assert_eq!(a.listing(), c.listing());
}

#[test]
fn what_vanished_is_counted_once_and_can_be_forgotten() {
    let ([_, mut b], contents) = pair(10);
    let whole = b.listing();
    let at = |name_: &str| Position::new(ROOT, name(name_.as_bytes()));
    let d = b.index.local(&at("d")).unwrap().unwrap().node;
    let inner = Position::new(d, name(b"2"));
    let count = |b: &Device, all: &[Position]| {
        absent_files(&b.index, &Brake::new(Limits::default()), all).unwrap().living
    };
    assert_eq!(count(&b, &[at("d")]), 5);
    assert_eq!(count(&b, &[at("d"), inner.clone(), at("1"), at("nothing")]), 6);
    for gone in ["d", "1"] {
        b.disk.remove(&path(gone));
    }
    let mut c = Device::new("a");
    (c.index, c.disk) = (b.index.clone(), b.disk.clone());
    remove_all(&mut c);
    c.disk = b.disk.clone();
    let mut held = Device::new("held");
    held.index = b.index.clone();
    held.hear(&c.rows());
    let absent = absent_files(&held.index, &Brake::new(Limits::default()), &[at("d")]).unwrap();
    assert_eq!((absent.living, absent.pending, absent.gone.files()), (0, 5, 5));
    let told = b.rows();
    work(&mut b, |w| w.forget(&[at("d"), inner, at("1")]).unwrap());
    assert_eq!(b.rows(), told, "nobody is told of it");
    settle(&mut b, &contents, true);
    assert_eq!(b.listing(), whole);
}

#[test]
fn moves_and_lost_names_do_not_count() {
    let ([mut a, mut b], contents) = pair(10);
    for i in 0..5 {
        a.disk.rename(&path(&file(i)), &path(&format!("empty/{i}")));
    }
    a.disk.rename(&path("d"), &path("moved"));
    a.scan();
    b.hear(&a.rows());
    assert_eq!(b.index.totals().unwrap().removals, 0);
    settle(&mut b, &contents, false);
    assert_eq!(b.listing(), a.listing());
    // Two versions, one of them deleted: the node lives.
    a.disk.write(&path("7"), b"by a");
    b.disk.write(&path("7"), b"by b");
    a.scan();
    b.scan();
    a.hear(&b.rows());
    b.hear(&a.rows());
    let all: Contents =
        contents.into_iter().chain([b"by a", b"by b"].map(|c| (content_id(c), c.to_vec()))).collect();
    settle(&mut a, &all, true);
    settle(&mut b, &all, true);
    let copy = a.disk.paths().into_iter().find(|p| p.to_string().contains("conflict")).unwrap();
    a.disk.remove(&copy);
    a.scan();
    b.hear(&a.rows());
    assert_eq!((b.index.totals().unwrap().removals, b.lacking().len()), (0, 1));
}

#[test]
fn what_is_held_is_remembered() {
    let ([_, mut b], _) = pair(1);
    assert_eq!(held(&b.index).unwrap(), None);
    let range = DotRange { inc: incarnation("a"), first: 3, last: 9 };
    let all = Held {
        here: true,
        deletes: 7,
        of: 9,
        done: 2,
        changes: vec![range],
        replaced: 8,
        replaced_done: 1,
        replacing: vec![range],
        bytes: 11,
        from: Some(12),
        several: true,
        upto: 13,
        others: vec![(DeviceId([1; 32]), 15)],
        ..Held::default()
    };
    work(&mut b, |w| w.hold(Some(&all)));
    assert_eq!(held(&b.index).unwrap(), Some(all));
    work(&mut b, |w| w.hold(None));
    assert_eq!(held(&b.index).unwrap(), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Deletes and creations in any order: what counts is what goes, and the count is kept in step.
    #[test]
    fn the_count_of_removals_is_that_of_files_to_be_removed(
        acts in prop::collection::vec((0usize..8, 0u8..4), 1..20),
        from in 0u64..30, len in 0u64..30,
    ) {
        let ([mut a, mut b], contents) = pair(6);
        for (i, act) in acts {
            let (at, dir) = (path(&file(i)), path("d"));
            match act {
                0 if a.disk.lookup(&at).is_some() => a.disk.remove(&at),
                1 => drop(a.disk.create(&at, Body::Link(b"new".to_vec()))),
                2 if i == 0 && a.disk.lookup(&dir).is_some() => a.disk.remove(&dir),
                3 => b.hear(&a.rows()),
                _ => {}
            }
            a.scan();
        }
        let released = [DotRange { inc: incarnation("a"), first: from, last: from + len }];
        work(&mut b, |w| w.release(&released).unwrap());
        b.hear(&a.rows());
        check(&b);
        let count = b.index.totals().unwrap().removals;
        let steps = b.plan(&|_| true, 1000).steps;
        let removes = steps.iter().filter(|s| matches!(&s.action, Action::Remove { .. }));
        let counted = removes.filter(|s| !counts(&b.index, s.node).unwrap().is_empty()).count();
        if steps.iter().any(|s| matches!(&s.action, Action::Remove { .. })) {
            prop_assert_eq!(count, counted as u64);
        }
        let of: u64 = pending(&b.index).unwrap().iter().map(|p| p.1).sum();
        prop_assert_eq!(of, count);
        prop_assert!(ranges(&b).iter().all(|r| !released[0].includes(r)) || count == 0);
        settle(&mut b, &contents, true);
        prop_assert_eq!(b.index.totals().unwrap().removals, 0);
        prop_assert_eq!(a.listing(), b.listing());
    }
}

fn plan_position(d: &Device, path: &RelPath) -> Option<Position> {
    let (mut dir, (names, last)) = (ROOT, path.split_last().map(|(up, last)| (up, last.clone()))?);
    for name in names.names() {
        dir = d.index.local(&Position::new(dir, name.clone())).unwrap()?.node;
    }
    Some(Position::new(dir, last))
}
