//! What there was, which of it is meant, and having it again.
#![allow(clippy::unwrap_used)]

use crate::common;
use crate::known::{dir, file, known_at, p};
use common::{Body, Contents, Device, name};
use dunlin_core::ids::{ContentId, Incarnation, ROOT};
use dunlin_core::journal::{Journal, Kept, Kind, Mark, Moment};
use dunlin_core::keeps::Keeps;
use dunlin_core::observe::Observation;
use dunlin_core::path::RelPath;
use dunlin_core::revert::{
    Selection, Unmet, Version, Which, choose, last_burst, last_of_each, number_at, select, shown_at, versions,
};
use dunlin_core::rows::{Position, Rows};
use dunlin_core::state::Content;
use dunlin_core::tree::Work;

fn listed(d: &Device, under: &str) -> Vec<(String, Kind, String)> {
    let mut out = Vec::new();
    let under = if under.is_empty() { RelPath::root() } else { p(under) };
    versions(&d.index, &under, |v| out.push((v.path.to_string(), v.by.1, text(&v)))).unwrap();
    out
}

fn text(v: &Version) -> String {
    match &v.content {
        Content::File { id, .. } => id.to_string()[..4].to_owned(),
        Content::Dir => "dir".to_owned(),
        _ => "other".to_owned(),
    }
}

fn id(bytes: &str) -> String {
    ContentId(*blake3::hash(bytes.as_bytes()).as_bytes()).to_string()
}

fn chosen(d: &Device, path: &str, which: &Which) -> Result<Vec<(String, String)>, Unmet> {
    let told = |all: Vec<Version>| all.iter().map(|v| (v.path.to_string(), text(v))).collect();
    choose(&d.index, &p(path), which, false).unwrap().map(told)
}

fn pairs(all: &[(&str, &str)]) -> Vec<(String, String)> {
    all.iter().map(|(path, what)| ((*path).to_owned(), (*what).to_owned())).collect()
}

/// Carries out what a device lacks.
fn settle(d: &mut Device, contents: &Contents) {
    for _ in 0..50 {
        let steps = d.plan(&|_| true, 100).steps;
        if steps.is_empty() {
            return;
        }
        let done: Vec<_> = steps.into_iter().map(|s| (s.clone(), d.carry_out(&s, contents))).collect();
        d.conclude(&done);
    }
    panic!("it does not end: {:#?}", d.lacking());
}

#[test]
fn each_change_is_in_the_journal_with_what_was_before() {
    let mut d = Device::new("a");
    file(&mut d, "f", "one");
    dir(&mut d, "d");
    known_at(&mut d, 1);
    assert!(listed(&d, "").is_empty(), "what was created was nothing before");
    file(&mut d, "f", "two");
    known_at(&mut d, 2);
    d.disk.rename(&p("f"), &p("d/g"));
    known_at(&mut d, 3);
    d.disk.chmod(&p("d/g"), 0o600);
    known_at(&mut d, 4);
    d.disk.remove(&p("d"));
    known_at(&mut d, 5);
    let (one, two) = (id("one")[..4].to_owned(), id("two")[..4].to_owned());
    let mut all = listed(&d, "");
    all.sort();
    let expected = [
        ("d", Kind::Deleted, "dir"),
        ("d/g", Kind::Attributes, &two),
        ("d/g", Kind::Deleted, &two),
        ("f", Kind::Changed, &one),
        ("f", Kind::Moved, &two),
    ];
    let expected: Vec<_> = expected.iter().map(|(p, k, t)| ((*p).to_owned(), *k, (*t).to_owned())).collect();
    assert_eq!(all, expected);
    assert_eq!(listed(&d, "d/g").len(), 4, "two of them under the name it had before");
    // Each knows its time.
    let (seq, _) =
        d.index.changes(0, u64::MAX, 100).unwrap().into_iter().find(|c| c.1.kind == Kind::Moved).unwrap();
    assert_eq!(d.index.moment_of(seq).unwrap().unwrap().wall, 1003);
    // What is forgotten is forgotten, and the rest is not.
    let mut work = Work::new(&d.index);
    assert!(!work.forget_changes(seq, 100).unwrap());
    let changes = work.finish().unwrap();
    d.index.apply(changes);
    assert!(listed(&d, "f").is_empty());
    assert_eq!(listed(&d, "d/g").len(), 2);
    d.check_totals();
}

#[test]
fn while_a_folder_is_united_there_is_nothing_before() {
    let mut d = Device::new("a");
    let mut tx = dunlin_core::kv::Tx::new(&d.index);
    let totals = dunlin_core::rows::Totals { uniting: true, ..d.index.totals().unwrap() };
    tx.put_totals(&totals);
    let changes = tx.into_changes();
    d.index.apply(changes);
    file(&mut d, "f", "one");
    known_at(&mut d, 1);
    assert!(d.index.changes(0, u64::MAX, 10).unwrap().is_empty());
}

#[test]
fn what_is_meant_is_the_newest_that_differs_or_what_was_named() {
    let mut d = Device::new("a");
    dir(&mut d, "d");
    file(&mut d, "d/f", "one");
    file(&mut d, "d/g", "g");
    known_at(&mut d, 1);
    file(&mut d, "d/f", "two");
    known_at(&mut d, 2);
    file(&mut d, "d/f", "three");
    file(&mut d, "d/h", "h");
    known_at(&mut d, 3);
    let (one, two) = (id("one")[..4].to_owned(), id("two")[..4].to_owned());
    assert_eq!(chosen(&d, "d/f", &Which::Newest).unwrap(), pairs(&[("d/f", &two)]));
    assert_eq!(chosen(&d, "d/g", &Which::Newest), Err(Unmet::Same));
    assert_eq!(chosen(&d, "d/x", &Which::Newest), Err(Unmet::Unknown));
    assert_eq!(chosen(&d, "d", &Which::Newest), Err(Unmet::Same), "nothing was deleted in it");
    let at = |d: &Device, t: i64| Which::Before(number_at(&d.index, 1000 + t).unwrap().unwrap());
    assert_eq!(chosen(&d, "d/f", &at(&d, 1)).unwrap(), pairs(&[("d/f", &one)]));
    assert_eq!(chosen(&d, "d", &at(&d, 2)).unwrap(), pairs(&[("d/f", &two)]), "what was made since is left");
    assert_eq!(chosen(&d, "d", &at(&d, 3)), Err(Unmet::Same));
    assert_eq!(number_at(&d.index, 900).unwrap(), None, "before the history began");
    assert_eq!(chosen(&d, "d/f", &Which::Content(id("one")[..8].into())).unwrap(), pairs(&[("d/f", &one)]));
    assert_eq!(chosen(&d, "d/f", &Which::Content("0123456789".into())), Err(Unmet::Unknown));
    // What was in it and is gone comes back with it; what is there stays.
    d.disk.remove(&p("d/g"));
    d.disk.remove(&p("d/f"));
    known_at(&mut d, 4);
    let three = id("three")[..4].to_owned();
    let both = pairs(&[("d/f", &three), ("d/g", &id("g")[..4])]);
    assert_eq!(chosen(&d, "d", &Which::Newest).unwrap(), both);
    d.disk.remove(&p("d"));
    known_at(&mut d, 5);
    let all = chosen(&d, "d", &Which::Newest).unwrap();
    assert_eq!(all.len(), 4);
    assert_eq!(all[0], ("d".to_owned(), "dir".to_owned()), "directories come first");
    // A copy of then has what did not change, too.
    let copy = choose(&d.index, &p("d"), &at(&d, 2), true).unwrap().unwrap();
    let copy: Vec<String> = copy.iter().map(|v| v.path.to_string()).collect();
    assert_eq!(copy, ["d", "d/f", "d/g"]);
}

#[test]
fn a_clock_that_was_set_back_does_not_hide_the_history() {
    let mut d = Device::new("a");
    let mut numbers = Vec::new();
    // Seven thousand seconds ahead for the first two; what the clock said, and for how long the program had run.
    for (content, wall, running) in [("1", 9000, 10), ("2", 9050, 60), ("3", 2000, 70), ("4", 2100, 170)] {
        file(&mut d, "f", content);
        d.scan();
        let mut work = Work::new(&d.index);
        work.record_moment(Moment { wall, running }, None).unwrap();
        let changes = work.finish().unwrap();
        d.index.apply(changes);
        numbers.push(d.index.totals().unwrap().seq + 1);
    }
    let number = |wall| number_at(&d.index, wall).unwrap();
    assert_eq!(number(2100), Some(numbers[3]));
    assert_eq!(number(2050), Some(numbers[2]));
    assert_eq!(number(1995), Some(numbers[1]), "ten seconds before the third at least");
    assert_eq!(number(1985), Some(numbers[0]));
    assert_eq!(number(1900), None);
}

#[test]
fn something_made_again_is_there_or_in_the_place_of_what_is() {
    let mut d = Device::new("a");
    let contents: Contents =
        ["one", "two", "mine"].map(|c| (common::content_id(c.as_bytes()), c.into())).into();
    file(&mut d, "f", "one");
    known_at(&mut d, 1);
    file(&mut d, "f", "two");
    known_at(&mut d, 2);
    let one = Content::File { id: common::content_id(b"one"), size: 3 };
    let make = |d: &mut Device, path: &str, content: &Content, looks: bool| {
        let mut work = Work::new(&d.index);
        let made = work.make(&p(path), content, Some(0o640), Some(common::time(7))).unwrap();
        let changes = work.finish().unwrap();
        d.index.apply(changes);
        if looks {
            d.scan();
        }
        settle(d, &contents);
        made
    };
    assert!(make(&mut d, "f", &one, false) && make(&mut d, "new/deep/f", &one, false));
    for path in ["f", "new/deep/f"] {
        let inode = d.disk.inode(&p(path)).unwrap();
        assert_eq!(
            (&inode.body, inode.mode, inode.mtime),
            (&Body::File(b"one".to_vec()), 0o640, 7),
            "{path}"
        );
    }
    assert!(!make(&mut d, "f", &one, false), "it is there already");
    assert!(!make(&mut d, "new", &one, false), "a directory does not yield");
    assert!(!make(&mut d, "f/below", &one, false), "nor does a file, to a directory");
    // An edit that was not seen yet is no victim of it.
    file(&mut d, "f", "mine");
    let two = Content::File { id: common::content_id(b"two"), size: 3 };
    assert!(make(&mut d, "f", &two, true));
    let held: Vec<&Body> = d.disk.paths().iter().map(|p| &d.disk.inode(p).unwrap().body).collect();
    assert!(held.contains(&&Body::File(b"mine".to_vec())) && held.contains(&&Body::File(b"two".to_vec())));
}

fn inc(d: &Device) -> Incarnation {
    d.index.totals().unwrap().inc
}

#[test]
fn the_last_mass_change_is_told_from_what_went_on_beside_it() {
    let mut d = Device::new("a");
    for i in 0..30 {
        file(&mut d, &format!("f{i}"), &i.to_string());
    }
    known_at(&mut d, 1);
    assert_eq!(last_burst(&d.index, 10, 60, None).unwrap(), None, "additions do not count");
    file(&mut d, "f0", "edited");
    known_at(&mut d, 97);
    for i in 10..20 {
        d.disk.remove(&p(&format!("f{i}")));
    }
    known_at(&mut d, 101);
    for i in 20..25 {
        d.disk.remove(&p(&format!("f{i}")));
    }
    file(&mut d, "later", "added");
    known_at(&mut d, 150);
    d.disk.remove(&p("f1"));
    known_at(&mut d, 500);
    let burst = last_burst(&d.index, 10, 60, None).unwrap().unwrap();
    assert_eq!((burst.count, burst.selection.by.clone()), (15, Some([inc(&d)].into())));
    let undo = select(&d.index, &burst.selection).unwrap();
    assert!(undo.back.iter().all(|b| b.kind == Kind::Deleted) && undo.back.len() == 15);
    assert!(undo.back.iter().all(|b| b.content.is_some()), "each needs its bytes");
    d.disk.chmod(&p("f2"), 0o600);
    d.disk.rename(&p("f3"), &p("moved"));
    let from = d.index.totals().unwrap().seq + 1;
    known_at(&mut d, 550);
    let light = select(&d.index, &Selection::since(from)).unwrap();
    let light: Vec<_> = light.back.iter().map(|b| (b.kind, b.content)).collect();
    assert_eq!(light, [(Kind::Attributes, None), (Kind::Moved, None)], "nothing has to come back");
    assert_eq!(last_burst(&d.index, 16, 60, None).unwrap(), None);
    let last = last_burst(&d.index, 1, 60, None).unwrap().unwrap();
    assert_eq!(last.count, 2, "the last, however small, with what was done at once with it");
    let nobody = [Incarnation([9; 16])].into();
    assert_eq!(last_burst(&d.index, 1, 60, Some(&nobody)).unwrap(), None);
    // What came to one of them since is left alone.
    file(&mut d, "f10", "made anew");
    known_at(&mut d, 600);
    let undo = select(&d.index, &burst.selection).unwrap();
    assert_eq!((undo.back.len(), undo.changed_since), (14, vec![p("f10")]));
    // Taken back, it is the last mass change itself.
    let mut work = Work::new(&d.index);
    assert!(undo.back.iter().all(|b| work.take_back(b).unwrap()));
    assert!(!work.take_back(&undo.back[0]).unwrap(), "once");
    let changes = work.finish().unwrap();
    d.index.apply(changes);
    assert!(shown_at(&d.index, &p("f11")).unwrap().is_some());
    known_at(&mut d, 700);
    let again = last_burst(&d.index, 10, 60, None).unwrap().unwrap();
    assert_eq!(again.selection.kinds, Some([Kind::Revived].into()));
}

#[test]
fn an_undo_of_edits_is_undone_by_the_device_that_made_them_at_once() {
    let mut d = Device::new("a");
    let write = |d: &mut Device, from: usize, what: &str| {
        for i in from..from + 10 {
            file(d, &format!("f{i}"), &format!("{what} {i}"));
        }
    };
    let undo = |d: &mut Device| {
        let burst = last_burst(&d.index, 10, 60, None).unwrap().unwrap().selection;
        let back = select(&d.index, &burst).unwrap().back;
        last_of_each(&d.index, &burst, back, 10).unwrap()
    };
    write(&mut d, 0, "first");
    write(&mut d, 10, "first");
    known_at(&mut d, 1);
    write(&mut d, 0, "second");
    known_at(&mut d, 100);
    let of = |d: &Device, what: &str| {
        let text = |i: usize| *blake3::hash(format!("{what} {i}").as_bytes()).as_bytes();
        let is = |i: usize| {
            let shown = shown_at(&d.index, &p(&format!("f{i}"))).unwrap().unwrap().1.content;
            matches!(shown, Content::File { id, .. } if id.0 == text(i))
        };
        (0..10).all(is)
    };
    // Within the minute all of it is one burst, in which the edits come to nothing.
    for (n, what) in ["first", "second", "first", "second"].into_iter().enumerate() {
        let back = undo(&mut d);
        assert_eq!(back.len(), 10, "{what}");
        let mut work = Work::new(&d.index);
        assert!(back.iter().all(|b| work.take_back(b).unwrap()));
        let seconds = 101 + u64::try_from(n).unwrap();
        work.record_moment(Moment { wall: 1000, running: seconds }, None).unwrap();
        let changes = work.finish().unwrap();
        d.index.apply(changes);
        assert!(of(&d, what), "{what}");
    }
}

#[test]
fn a_file_that_comes_back_where_a_directory_has_to_stay_leaves_that_one_open() {
    let mut d = Device::new("a");
    file(&mut d, "f", "one");
    d.disk.chmod(&p("f"), 0o640);
    known_at(&mut d, 1);
    let from = d.index.totals().unwrap().seq + 1;
    d.disk.remove(&p("f"));
    dir(&mut d, "f");
    known_at(&mut d, 2);
    file(&mut d, "f/in", "made since");
    known_at(&mut d, 3);
    let kinds = Some([Kind::Deleted, Kind::Revived].into());
    let edits = Selection { kinds, ..Selection::since(from) };
    let back = select(&d.index, &edits).unwrap().back;
    assert_eq!(back.len(), 1);
    let mut work = Work::new(&d.index);
    assert!(work.take_back(&back[0]).unwrap());
    let changes = work.finish().unwrap();
    d.index.apply(changes);
    let (_, shown) = shown_at(&d.index, &p("f")).unwrap().unwrap();
    assert_eq!((shown.content, shown.mode), (Content::Dir, 0o750));
    assert!(shown_at(&d.index, &p("f/in")).unwrap().is_some());
}

#[test]
fn an_undo_of_modes_is_undone_for_what_was_made_where_there_are_none() {
    let mut d = Device::new("a");
    for i in 0..10 {
        file(&mut d, &format!("f{i}"), &i.to_string());
    }
    // As a disk without modes has it: nothing is told of them.
    let seen: Vec<Observation> = (0..10)
        .map(|i| {
            let path = p(&format!("f{i}"));
            Observation { at: Position::new(ROOT, path.names()[0].clone()), seen: d.disk.seen(&path) }
        })
        .collect();
    let mut work = Work::new(&d.index).on(Keeps { modes: false, ..Keeps::default() });
    work.observe(&seen).unwrap();
    work.record_moment(Moment { wall: 1000, running: 0 }, None).unwrap();
    let changes = work.finish().unwrap();
    d.index.apply(changes);
    for i in 0..10 {
        d.disk.chmod(&p(&format!("f{i}")), 0o640);
    }
    known_at(&mut d, 100);
    for (n, mode) in [0o644, 0o640, 0o644].into_iter().enumerate() {
        let burst = last_burst(&d.index, 10, 60, None).unwrap().unwrap().selection;
        let back = select(&d.index, &burst).unwrap().back;
        let back = last_of_each(&d.index, &burst, back, 10).unwrap();
        let mut work = Work::new(&d.index);
        assert!(back.iter().all(|b| work.take_back(b).unwrap()));
        let running = 101 + u64::try_from(n).unwrap();
        work.record_moment(Moment { wall: 1000, running }, None).unwrap();
        let changes = work.finish().unwrap();
        d.index.apply(changes);
        let modes: Vec<u16> =
            (0..10).map(|i| shown_at(&d.index, &p(&format!("f{i}"))).unwrap().unwrap().1.mode).collect();
        assert_eq!(modes, [mode; 10], "{n}");
    }
}

#[test]
fn the_history_ages_by_the_time_that_the_program_ran() {
    const DAY: u64 = 86_400;
    let mut d = Device::new("a");
    let mut work = Work::new(&d.index);
    // The clock is ten years ahead for a while, and long before 1970 for another.
    for (day, wall) in [(0, 0), (1, 300_000_000), (2, -2_000_000_000), (3, 86_400 * 3)] {
        let at = Moment { wall, running: day * DAY };
        work.record_mark(Mark { at, seq: day * 10, number: day * 100 });
    }
    let changes = work.finish().unwrap();
    d.index.apply(changes);
    let outlived = |day: u64, wall: i64, days: u32| {
        let now = Moment { wall, running: day * DAY };
        d.index.outlived(now, Kept { days, percent: 10 }).unwrap().map(|m| m.number)
    };
    for wall in [0, i64::from(i32::MAX) * 4, -5_000_000_000] {
        assert_eq!(outlived(3, wall, 30), None, "{wall}");
        assert_eq!(outlived(29, wall, 30), None);
        assert_eq!(outlived(30, wall, 30), Some(0));
        assert_eq!(outlived(32, wall, 30), Some(200));
    }
    assert_eq!(outlived(3, 0, 0), Some(300));
}

#[test]
fn who_changed_something_is_known_by_incarnation() {
    let mut d = Device::new("a");
    let device = dunlin_core::ids::DeviceId([3; 32]);
    let mut work = Work::new(&d.index);
    work.record_author(Incarnation([1; 16]), device).unwrap();
    work.record_author(Incarnation([2; 16]), device).unwrap();
    let changes = work.finish().unwrap();
    d.index.apply(changes);
    assert_eq!(d.index.device_of(Incarnation([1; 16])).unwrap(), Some(device));
    assert_eq!(d.index.device_of(Incarnation([3; 16])).unwrap(), None);
    assert_eq!(d.index.incarnations_of(device).unwrap().len(), 2);
    file(&mut d, "f", "one");
    known_at(&mut d, 1);
    file(&mut d, "f", "two");
    known_at(&mut d, 2);
    let by = |k: Kind| {
        let all = d.index.changes(0, u64::MAX, 10).unwrap();
        all.into_iter().find(|(_, c)| c.kind == k).unwrap().1.by
    };
    let at = Position::new(ROOT, name(b"f"));
    let row = d.index.local(&at).unwrap().unwrap();
    assert_eq!(Some(by(Kind::Changed)), row.dot);
    assert_eq!(by(Kind::Created).inc, inc(&d));
}
