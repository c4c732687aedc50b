//! What a plain undo takes back of one mistake: all that was done in one go, and nothing that was made in it.
#![allow(clippy::unwrap_used)]

#[path = "mistake/kinds.rs"]
mod kinds;

use crate::common;
use crate::known::{dir, file, known_at, p};
use common::Device;
use dunlin_core::ids::ROOT;
use dunlin_core::journal::{Journal, Kind, Moment};
use dunlin_core::names;
use dunlin_core::revert::{Back, Beside, Selection, last_burst, last_of_each, select};
use dunlin_core::rows::{Position, Rows};
use dunlin_core::state::Content;
use dunlin_core::tree::Work;
use std::collections::BTreeMap;

/// What each file of the root holds, by the first digits of its hash.
type Shown = BTreeMap<String, String>;

fn shown(d: &Device) -> Shown {
    let mut out = Shown::new();
    for (name, _) in d.index.settled_in(ROOT, None, usize::MAX).unwrap() {
        let at = Position::new(ROOT, name.clone());
        if let Some((_, w)) = names::visible_at(&d.index, &at).unwrap()
            && let Content::File { id, .. } = w.content
        {
            out.insert(name.to_string(), id.to_string()[..8].to_owned());
        }
    }
    out
}

/// Files of a while ago.
fn with_files(count: usize) -> Device {
    let mut d = Device::new("a");
    for i in 0..count {
        file(&mut d, &format!("f{i}"), &format!("good {i}"));
    }
    known_at(&mut d, 1);
    d
}

fn remove(d: &mut Device, i: usize) {
    d.disk.remove(&p(&format!("f{i}")));
}

/// Takes something back, as one act.
fn take_back(d: &mut Device, back: &[Back], seconds: u64) -> usize {
    let mut work = Work::new(&d.index).part_of(d.index.totals().unwrap().seq + 1);
    assert!(back.iter().all(|b| work.take_back(b).unwrap()));
    work.record_moment(Moment { wall: 1000, running: seconds }, None).unwrap();
    let changes = work.finish().unwrap();
    d.index.apply(changes);
    back.len()
}

/// A plain undo; how many things it took back, and what was left beside it.
fn undo(d: &mut Device, seconds: u64) -> (usize, Beside) {
    let burst = last_burst(&d.index, 10, 60, None).unwrap().unwrap();
    let back = select(&d.index, &burst.selection).unwrap().back;
    let back = last_of_each(&d.index, &burst.selection, back, 10).unwrap();
    take_back(d, &back, seconds);
    let mut beside = burst.beside;
    beside.made.retain(|node| back.iter().all(|b| b.node != *node));
    (back.len(), beside)
}

#[test]
fn few_of_another_kind_go_back_with_the_many() {
    let mut d = with_files(60);
    let before = shown(&d);
    // As a backup that is copied over all: edits are found at once, and deletes two seconds later.
    (0..5).for_each(|i| file(&mut d, &format!("f{i}"), "old"));
    d.disk.rename(&p("f5"), &p("moved"));
    known_at(&mut d, 100);
    (10..22).for_each(|i| remove(&mut d, i));
    known_at(&mut d, 103);
    file(&mut d, "f30", "old");
    known_at(&mut d, 104);
    let after = shown(&d);
    let (count, beside) = undo(&mut d, 300);
    assert_eq!((count, shown(&d)), (19, before));
    assert!(beside.things.is_empty() && beside.made.is_empty());
    // And again.
    assert_eq!((undo(&mut d, 500).0, shown(&d)), (19, after));
}

#[test]
fn what_was_done_before_and_after_stays_and_is_told() {
    let mut d = with_files(60);
    file(&mut d, "f0", "meant, long before");
    known_at(&mut d, 100);
    file(&mut d, "f1", "meant, before");
    known_at(&mut d, 150);
    (10..22).for_each(|i| remove(&mut d, i));
    file(&mut d, "made", "meanwhile");
    known_at(&mut d, 200);
    file(&mut d, "f2", "meant, after");
    known_at(&mut d, 204);
    let meant = shown(&d);
    let (count, beside) = undo(&mut d, 300);
    assert_eq!((count, beside.things.len(), beside.made.len()), (12, 2, 1));
    let now = shown(&d);
    assert!(meant.iter().all(|(name, held)| now.get(name) == Some(held)) && now.len() == 61);
}

#[test]
fn what_is_seen_half_written_was_made_and_not_edited() {
    // Twenty files are copied slowly, and nothing else was ever done.
    let mut d = with_files(20);
    let all = |d: &mut Device, what: &str| (0..20).for_each(|i| file(d, &format!("new{i}"), what));
    for (seconds, what) in [(100, ""), (103, "the first part"), (109, "the first part and more")] {
        all(&mut d, what);
        known_at(&mut d, seconds);
    }
    assert_eq!(last_burst(&d.index, 10, 60, None).unwrap(), None);
    let whole = shown(&d);
    // They are no part of a mistake beside which they were made, however slowly.
    (0..10).for_each(|i| file(&mut d, &format!("f{i}"), "a mistake"));
    (0..5).for_each(|i| file(&mut d, &format!("later{i}"), ""));
    known_at(&mut d, 200);
    (0..5).for_each(|i| file(&mut d, &format!("later{i}"), "whole"));
    (10..12).for_each(|i| file(&mut d, &format!("f{i}"), "a mistake"));
    known_at(&mut d, 240);
    let mistaken = shown(&d);
    let (count, beside) = undo(&mut d, 300);
    assert_eq!((count, beside.things.len(), beside.made.len()), (12, 0, 5));
    let now = shown(&d);
    for (name, held) in &mistaken {
        assert_eq!(now.get(name), Some(whole.get(name).unwrap_or(held)), "{name}");
    }
    // One that is edited when it is there for a while is an edit.
    all(&mut d, "a mistake");
    known_at(&mut d, 600);
    assert_eq!(last_burst(&d.index, 10, 60, None).unwrap().unwrap().count, 20);
}

#[test]
fn what_was_brought_back_and_then_filled_is_taken_back_whole() {
    let mut d = with_files(12);
    (0..12).for_each(|i| remove(&mut d, i));
    known_at(&mut d, 100);
    for (seconds, what) in [(1000, ""), (1005, "an old copy")] {
        (0..12).for_each(|i| file(&mut d, &format!("f{i}"), what));
        known_at(&mut d, seconds);
    }
    assert_eq!((undo(&mut d, 2000).0, shown(&d)), (12, Shown::new()));
}

#[test]
fn an_old_backup_that_comes_slowly_after_all_was_deleted_is_one_mistake() {
    // In the backup 30 are as they are, 6 are older, and the rest is lacking; or it lacks none, or has few.
    for (same, older, lacking) in [(30, 6, 12), (30, 6, 0), (36, 0, 12), (0, 4, 30), (3, 3, 40)] {
        let all = same + older + lacking;
        let mut d = with_files(all);
        let before = shown(&d);
        let times: Vec<u64> = (0..all).map(|i| d.disk.inode(&p(&format!("f{i}"))).unwrap().mtime).collect();
        (0..all).for_each(|i| remove(&mut d, i));
        known_at(&mut d, 100);
        for n in 0..same + older {
            // The older ones come between the others.
            let i = if n % 2 == 0 { n / 2 } else { same + older - 1 - n / 2 };
            let what = if i < same { format!("good {i}") } else { "old".to_owned() };
            file(&mut d, &format!("f{i}"), &what);
            d.disk.touch(&p(&format!("f{i}")), times[i]);
            known_at(&mut d, 110 + 7 * u64::try_from(n).unwrap() / 2);
        }
        let after = shown(&d);
        assert_eq!(after.len(), same + older);
        let (count, _) = undo(&mut d, 1000);
        assert_eq!((count, shown(&d)), (older + lacking, before), "{same} {older} {lacking}");
        if count >= 10 {
            assert_eq!((undo(&mut d, 2000).0, shown(&d)), (count, after), "{same} {older} {lacking}");
        }
    }
}

#[test]
fn what_was_made_in_the_place_of_something_yields_to_it() {
    let mut d = with_files(30);
    let before = shown(&d);
    // As a program that empties a folder, and then writes each file beside its place and renames it into that.
    (0..20).for_each(|i| remove(&mut d, i));
    dir(&mut d, "made");
    known_at(&mut d, 100);
    for i in 0..15 {
        let now = 103 + 4 * u64::try_from(i).unwrap();
        file(&mut d, &format!(".f{i}.tmp"), "");
        known_at(&mut d, now);
        file(&mut d, &format!(".f{i}.tmp"), "old");
        known_at(&mut d, now + 1);
        assert!(d.disk.rename(&p(&format!(".f{i}.tmp")), &p(&format!("f{i}"))));
        known_at(&mut d, now + 2);
    }
    file(&mut d, "later", "made");
    known_at(&mut d, 190);
    let (_, beside) = undo(&mut d, 300);
    let mut now = shown(&d);
    assert!(now.remove("later").is_some());
    assert_eq!((now, beside.made.len()), (before, 1));
}

#[test]
fn what_came_and_went_in_the_midst_of_it_does_not_come_back() {
    let mut d = with_files(40);
    let before = shown(&d);
    // As a program that writes beside each file and then over it.
    (20..23).for_each(|i| remove(&mut d, i));
    known_at(&mut d, 99);
    for i in 0..20 {
        let now = 100 + u64::try_from(i).unwrap();
        let beside = if i % 2 == 0 { format!(".f{i}.tmp") } else { ".new".to_owned() };
        file(&mut d, &beside, "");
        known_at(&mut d, now);
        d.disk.remove(&p(&beside));
        file(&mut d, &format!("f{i}"), "old");
        known_at(&mut d, now + 1);
    }
    assert_eq!((undo(&mut d, 300).0, shown(&d)), (23, before));
    // What was made just before comes back, and what was there for a while, though it was made after the first of it.
    let mut d = with_files(0);
    for seconds in [98, 99] {
        (0..12).for_each(|i| file(&mut d, &format!("new{i}"), "new"));
        known_at(&mut d, seconds);
    }
    (0..12).for_each(|i| d.disk.remove(&p(&format!("new{i}"))));
    known_at(&mut d, 100);
    assert_eq!((undo(&mut d, 300).0, shown(&d).len()), (12, 12));
    let mut d = with_files(12);
    (0..12).for_each(|i| remove(&mut d, i));
    (0..12).for_each(|i| file(&mut d, &format!("new{i}"), "new"));
    known_at(&mut d, 100);
    (0..12).for_each(|i| d.disk.remove(&p(&format!("new{i}"))));
    known_at(&mut d, 105);
    assert_eq!((undo(&mut d, 300).0, shown(&d).len()), (24, 24));
}

#[test]
fn an_undo_within_the_minute_is_undone_and_one_that_was_partial_is_finished() {
    let mut d = with_files(40);
    let before = shown(&d);
    (0..30).for_each(|i| remove(&mut d, i));
    file(&mut d, "f35", "old");
    known_at(&mut d, 100);
    let after = shown(&d);
    for (seconds, shows) in [(110, &before), (120, &after), (130, &before)] {
        assert_eq!((undo(&mut d, seconds).0, &shown(&d)), (31, shows), "{seconds}");
    }
    // Of another one some could not be had.
    let mut d = with_files(40);
    (0..30).for_each(|i| remove(&mut d, i));
    known_at(&mut d, 100);
    let burst = last_burst(&d.index, 10, 60, None).unwrap().unwrap();
    let back = select(&d.index, &burst.selection).unwrap().back;
    let mut work = Work::new(&d.index);
    assert!(back.iter().take(20).all(|b| work.take_back(b).unwrap()));
    work.record_moment(Moment { wall: 1000, running: 110 }, None).unwrap();
    let changes = work.finish().unwrap();
    d.index.apply(changes);
    assert_eq!((undo(&mut d, 120).0, shown(&d)), (10, before));
}

#[test]
fn what_is_written_all_the_time_is_told_and_not_taken_back() {
    let mut d = with_files(40);
    file(&mut d, "log", "0");
    for round in 0..20 {
        file(&mut d, "log", &format!("{round}"));
        if round == 10 {
            (0..12).for_each(|i| remove(&mut d, i));
        }
        known_at(&mut d, 1000 + 15 * round);
    }
    let log = shown(&d)["log"].clone();
    let (count, beside) = undo(&mut d, 2000);
    assert_eq!((count, beside.things.len(), &shown(&d)["log"]), (12, 1, &log));
}

#[test]
fn what_is_made_since_a_time_stays_as_it_is_where_it_is_to_stay() {
    let mut d = with_files(2);
    let from = d.index.totals().unwrap().seq + 1;
    for (seconds, what) in [(100, ""), (200, "whole")] {
        file(&mut d, "new", what);
        file(&mut d, "gone", what);
        file(&mut d, "f0", what);
        known_at(&mut d, seconds);
    }
    d.disk.remove(&p("gone"));
    known_at(&mut d, 300);
    let kinds = [Kind::Changed, Kind::Moved, Kind::Attributes, Kind::Deleted, Kind::Revived];
    let kept = Selection { kinds: Some(kinds.into()), ..Selection::since(from) };
    let sizes = |selection: &Selection| {
        let back = select(&d.index, selection).unwrap().back;
        back.into_iter().map(|b| (b.path.to_string(), b.content.map(|c| c.1))).collect::<Vec<_>>()
    };
    // What went comes back as it was last.
    let [f0, gone] = [("f0".to_owned(), Some(6)), ("gone".to_owned(), Some(5))];
    assert_eq!(sizes(&kept), [f0.clone(), gone]);
    assert_eq!(sizes(&Selection::since(from)), [f0, ("new".to_owned(), None)]);
}

/// What it hears of another one is recorded at this time.
fn hears(d: &mut Device, other: &Device, seconds: u64) {
    d.hear(&other.rows());
    let mut work = Work::new(&d.index);
    let moment = Moment { wall: 1000 + i64::try_from(seconds).unwrap(), running: seconds };
    work.record_moment(moment, None).unwrap();
    let changes = work.finish().unwrap();
    d.index.apply(changes);
}

#[test]
fn an_undo_is_undone_however_often_by_whom_it_may() {
    let mistakes: [fn(&mut Device); 3] = [
        |d| (0..12).for_each(|i| file(d, &format!("f{i}"), "")),
        |d| (0..12).for_each(|i| assert!(d.disk.rename(&p(&format!("f{i}")), &p(&format!("moved{i}"))))),
        |d| (0..12).for_each(|i| remove(d, i)),
    ];
    // Each time it is the one who made the mistake, another one, or both by turns.
    for (mistake, whose) in (0..mistakes.len()).flat_map(|m| [(m, "a"), (m, "b"), (m, "aab"), (m, "aabb")]) {
        let (mut b, mut a) = (with_files(12), Device::new("b"));
        hears(&mut a, &b, 1);
        mistakes[mistake](&mut b);
        known_at(&mut b, 300);
        let (before, after) = (shown(&a), shown(&b));
        hears(&mut a, &b, 300);
        for n in 0..14 {
            let seconds = 305 + 5 * n;
            let turn = usize::try_from(n).unwrap() % whose.len();
            let (who, other) = if &whose[turn..=turn] == "a" { (&mut a, &mut b) } else { (&mut b, &mut a) };
            // What was undone is said to be an undo.
            let burst = last_burst(&who.index, 10, 60, None).unwrap().unwrap();
            let brought = n > 0 && (mistake != 2 || n % 2 == 1);
            assert_eq!((undo(who, seconds).0, burst.brought_back), (12, brought), "{mistake} {whose} {n}");
            assert_eq!(shown(who), if n % 2 == 0 { before.clone() } else { after.clone() });
            hears(other, who, seconds);
        }
    }
}

#[test]
fn a_directory_that_is_moved_counts_with_what_is_in_it() {
    for (inside, deep, counts) in [(9, false, true), (8, false, false), (3, true, true)] {
        let mut d = with_files(12);
        ["d", "d/e", "sub"].iter().for_each(|name| dir(&mut d, name));
        (0..inside - 1).for_each(|i| file(&mut d, &format!("d/e/{i}"), "inside"));
        if deep {
            (0..6).for_each(|i| dir(&mut d, &format!("d/e/d{i}")));
            (0..20).for_each(|i| file(&mut d, &format!("d/e/d5/{i}"), "deep inside"));
        }
        known_at(&mut d, 100);
        (0..12).for_each(|i| file(&mut d, &format!("f{i}"), "a mistake"));
        known_at(&mut d, 300);
        let burst = |d: &Device| last_burst(&d.index, 10, 60, None).unwrap().unwrap();
        assert!(d.disk.rename(&p("d"), &p("sub/d")));
        known_at(&mut d, 1000);
        let found = burst(&d);
        assert_eq!((found.count, found.brought_back), (if counts { 1 } else { 12 }, false), "{inside}");
        // Taken back and made again, within the minute, too.
        for n in 0..if counts { 6 } else { 0 } {
            assert_eq!(undo(&mut d, 1005 + 5 * n).0, 1, "{n}");
            let at = names::visible_at(&d.index, &Position::new(ROOT, common::name(b"d"))).unwrap();
            assert_eq!(at.is_some(), n % 2 == 0, "{n}");
            assert!(burst(&d).brought_back);
        }
    }
}

#[test]
fn what_was_done_before_a_pause_is_no_part_of_a_mistake_after_it() {
    for pause in [5, 20, 45, 58] {
        let mut d = with_files(60);
        for (seconds, what) in [(100, "a first save"), (105, "a good save")] {
            file(&mut d, "f0", what);
            known_at(&mut d, seconds);
        }
        file(&mut d, "f1", "a good edit");
        assert!(d.disk.rename(&p("f2"), &p("renamed")));
        remove(&mut d, 3);
        known_at(&mut d, 106);
        let meant = shown(&d);
        for (seconds, from) in [(0, 0), (1, 30)] {
            (from..from + 30).filter(|i| ![2, 3].contains(i)).for_each(|i| {
                file(&mut d, &format!("f{i}"), "a mistake");
            });
            file(&mut d, "renamed", "a mistake");
            known_at(&mut d, 106 + pause + seconds);
        }
        let (count, beside) = undo(&mut d, 300);
        assert_eq!((count, shown(&d)), (59, meant), "{pause}");
        assert_eq!((beside.earlier.len(), beside.things.len()), (3, 1), "{pause}");
        assert!((pause..=pause + 6).contains(&beside.earlier_by), "{pause}");
    }
    // What goes on slowly, or in parts, is one.
    for pauses in [&[20_u64, 1, 1, 20, 20][..], &[4, 3, 4, 3, 4], &[40, 1, 40, 1, 40]] {
        let mut d = with_files(60);
        let (before, mut now) = (shown(&d), 1000);
        for (n, pause) in pauses.iter().enumerate() {
            let each = if pauses[0] == 20 { 12 } else { 4 };
            (each * n..each * (n + 1)).for_each(|i| file(&mut d, &format!("f{i}"), "a mistake"));
            known_at(&mut d, now);
            now += pause;
        }
        undo(&mut d, 2000);
        assert_eq!(shown(&d), before, "{pauses:?}");
    }
}

#[test]
fn hours_of_work_are_no_part_of_a_mistake_after_them() {
    let mut d = with_files(60);
    for i in 0..100 {
        file(&mut d, &format!("f{}", i % 40), &format!("work {i}"));
        known_at(&mut d, 1000 + 50 * u64::try_from(i).unwrap());
    }
    let meant = shown(&d);
    (0..60).for_each(|i| file(&mut d, &format!("f{i}"), "a mistake"));
    known_at(&mut d, 5990);
    assert_eq!((undo(&mut d, 6100).0, shown(&d)), (60, meant));
}

/// Two undos of different things, a moment apart.
#[test]
fn each_undo_is_one_of_its_own() {
    let (mut d, mut other) = (with_files(60), Device::new("b"));
    hears(&mut other, &d, 1);
    (0..12).for_each(|i| file(&mut d, &format!("f{i}"), "a mistake"));
    known_at(&mut d, 300);
    hears(&mut other, &d, 300);
    (20..35).for_each(|i| file(&mut d, &format!("f{i}"), "another one"));
    known_at(&mut d, 400);
    let all = shown(&d);
    hears(&mut other, &d, 400);
    let mut d = other;
    // The second mistake, then the first one: what was named by device or time.
    assert_eq!(undo(&mut d, 500).0, 15);
    let first = d.index.changes(0, u64::MAX, 1000).unwrap();
    let from = first.iter().find(|(_, row)| row.kind == Kind::Changed).unwrap().0;
    let earlier = Selection { to: from + 12, ..Selection::since(from) };
    let back = select(&d.index, &earlier).unwrap().back;
    assert_eq!((back.len(), take_back(&mut d, &back, 501)), (12, 12));
    let good = shown(&d);
    // Only the last of the two is undone; and that, again and again.
    for n in 0..6 {
        assert_eq!(undo(&mut d, 502 + n).0, 12, "{n}");
        let now = shown(&d);
        let is = |i: usize, as_in: &Shown| now[&format!("f{i}")] == as_in[&format!("f{i}")];
        assert!((20..35).all(|i| is(i, &good)), "{n}");
        assert!((0..12).all(|i| is(i, if n % 2 == 0 { &all } else { &good })), "{n}");
    }
}
