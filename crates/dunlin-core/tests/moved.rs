//! Files that were moved and written to before anybody looked.
#![allow(clippy::unwrap_used)]

use crate::common;
use crate::known::{dir, file, p};
use common::Device;
use dunlin_core::ids::{NodeId, ROOT};
use dunlin_core::names;
use dunlin_core::observe::{Observation, Seen, is_seen_elsewhere, leave_out, suspects};
use dunlin_core::rows::{Position, Rows};
use dunlin_core::state::Content;
use dunlin_core::tree::Work;

fn at(name: &str) -> Position {
    Position::new(ROOT, common::name(name.as_bytes()))
}

/// Which node a file on the disk is.
fn node(d: &Device, name: &str) -> NodeId {
    d.index.local(&at(name)).unwrap().unwrap().node
}

/// A file that was there for a while, and which node it is.
fn with_file() -> (Device, NodeId) {
    let mut d = Device::new("a");
    file(&mut d, "x", "as it was");
    d.scan();
    let x = node(&d, "x");
    (d, x)
}

/// The files that show, by name, and their sizes.
fn shown(d: &Device) -> Vec<(String, u64)> {
    let shown = d.index.settled_in(ROOT, None, usize::MAX).unwrap();
    let size = |(name, _): (dunlin_core::path::Name, NodeId)| match names::visible_at(
        &d.index,
        &Position::new(ROOT, name.clone()),
    )
    .unwrap()?
    .1
    .content
    {
        Content::File { size, .. } => Some((name.to_string(), size)),
        _ => None,
    };
    shown.into_iter().filter_map(size).collect()
}

#[test]
fn a_file_that_was_moved_and_written_to_at_once_is_the_same() {
    let (mut d, x) = with_file();
    let mut other = Device::new("b");
    other.hear(&d.rows());
    assert!(d.disk.rename(&p("x"), &p("y")));
    file(&mut d, "y", "as it was, and more");
    d.scan();
    assert_eq!((node(&d, "y"), d.index.local(&at("x")).unwrap()), (x, None));
    assert_eq!(shown(&d), [("y".to_owned(), 19)]);
    other.hear(&d.rows());
    assert_eq!(shown(&other), shown(&d));
    // Into another directory, and out of one that was moved itself.
    dir(&mut d, "d");
    d.scan();
    assert!(d.disk.rename(&p("y"), &p("d/z")));
    file(&mut d, "d/z", "once more");
    d.scan();
    assert!(d.disk.rename(&p("d"), &p("e")) && d.disk.rename(&p("e/z"), &p("x")));
    file(&mut d, "x", "and at last");
    d.scan();
    assert_eq!((node(&d, "x"), shown(&d)), (x, vec![("x".to_owned(), 11)]));
}

#[test]
fn an_edit_elsewhere_meets_it_as_usual() {
    let (mut a, x) = with_file();
    let mut b = Device::new("b");
    b.hear(&a.rows());
    let contents = [b"as it was".to_vec()].map(|c| (common::content_id(&c), c)).into();
    for _ in 0..5 {
        let steps = b.plan(&|_| true, 10).steps;
        let done: Vec<_> = steps.into_iter().map(|s| (s.clone(), b.carry_out(&s, &contents))).collect();
        b.conclude(&done);
    }
    assert!(a.disk.rename(&p("x"), &p("y")));
    file(&mut a, "y", "by a, moved");
    file(&mut b, "x", "by b");
    a.scan();
    b.scan();
    assert_eq!((node(&a, "y"), node(&b, "x")), (x, x));
    a.hear(&b.rows());
    b.hear(&a.rows());
    // Both versions, and nothing under the old name.
    let versions = |d: &Device| {
        let all = names::wanted(&d.index, x).unwrap().into_iter();
        let mut all: Vec<_> = all.map(|w| (w.at.name.to_string(), w.content)).collect();
        all.sort();
        all
    };
    assert_eq!(versions(&a), versions(&b));
    assert!(versions(&a).len() == 2 && versions(&a).iter().all(|(name, _)| name.starts_with('y')));
    assert!(shown(&a).iter().chain(&shown(&b)).all(|(name, _)| name == "y"));
}

#[test]
fn what_has_the_old_name_by_then_is_the_file() {
    // As editors save, whether something was written to the old one or not; and two that changed names.
    let (mut d, x) = with_file();
    assert!(d.disk.rename(&p("x"), &p("x~")));
    file(&mut d, "x~", "a last word");
    file(&mut d, "x", "saved");
    d.scan();
    assert_eq!(node(&d, "x"), x);
    assert!(node(&d, "x~") != x);
    let (mut d, x) = with_file();
    file(&mut d, "y", "another one");
    d.scan();
    let y = node(&d, "y");
    assert!(d.disk.exchange(&p("x"), &p("y")));
    file(&mut d, "x", "written to");
    file(&mut d, "y", "written to as well");
    d.scan();
    assert_eq!((node(&d, "x"), node(&d, "y")), (x, y));
}

#[test]
fn what_only_has_its_number_is_another_one() {
    // Removed, and its number is given again.
    let (mut d, x) = with_file();
    let ino = d.disk.lookup(&p("x"));
    d.disk.remove(&p("x"));
    file(&mut d, "y", "another one");
    assert_eq!(d.disk.lookup(&p("y")), ino);
    d.scan();
    assert!(node(&d, "y") != x && d.index.local(&at("x")).unwrap().is_none());
    // Emptied.
    let (mut d, x) = with_file();
    assert!(d.disk.rename(&p("x"), &p("y")));
    file(&mut d, "y", "");
    d.scan();
    assert!(node(&d, "y") != x);
    // With a second name.
    let (mut d, x) = with_file();
    assert!(d.disk.link(&p("x"), &p("second")));
    d.scan();
    assert!(d.disk.rename(&p("x"), &p("y")));
    file(&mut d, "y", "written to");
    d.scan();
    assert!(node(&d, "y") != x);
    // A file system that knows no time of birth.
    let (mut d, x) = with_file();
    let seen = |d: &Device, name: &str| {
        let Seen::File(id, mode, stamp) = d.disk.seen(&p(name)) else { return Seen::Absent };
        Seen::File(id, mode, dunlin_core::rows::Stamp { btime: None, ..stamp })
    };
    let take_in = |d: &mut Device, names: &[&str]| {
        let batch: Vec<_> = names.iter().map(|n| Observation { at: at(n), seen: seen(d, n) }).collect();
        let suspects = suspects(&d.index, &batch).unwrap();
        let mut work = Work::new(&d.index);
        work.observe(&batch).unwrap();
        let changes = work.finish().unwrap();
        d.index.apply(changes);
        suspects
    };
    d.disk.touch(&p("x"), 9);
    take_in(&mut d, &["x"]);
    assert!(d.disk.rename(&p("x"), &p("y")));
    file(&mut d, "y", "written to");
    assert_eq!(take_in(&mut d, &["y", "x"]), []);
    assert!(node(&d, "y") != x);
}

#[test]
fn what_tells_of_one_move_is_left_out_together() {
    let (mut d, _) = with_file();
    for name in ["v", "w", "still"] {
        file(&mut d, name, name);
    }
    d.scan();
    // x goes over v, v to w, w to a new name: one chain; and something that has nothing to do with it.
    for (from, to) in [("w", "new"), ("v", "w"), ("x", "v")] {
        assert!(d.disk.rename(&p(from), &p(to)));
    }
    file(&mut d, "other", "other");
    let names = ["new", "other", "v", "w", "x"];
    let seen = |n: &&str| Observation { at: at(n), seen: d.disk.seen(&p(n)) };
    let batch: Vec<Observation> = names.iter().map(seen).collect();
    let left_out = |which: &str| {
        let (rest, out) = leave_out(&d.index, batch.clone(), |o| o.at == at(which)).unwrap();
        assert_eq!(rest.len() + out.len(), batch.len());
        out.iter().map(|o| o.at.name.to_string()).collect::<std::collections::BTreeSet<_>>()
    };
    for which in ["new", "v", "w", "x"] {
        assert_eq!(left_out(which), ["new", "v", "w", "x"].map(str::to_owned).into(), "{which}");
    }
    assert_eq!(left_out("other"), ["other".to_owned()].into());
    // What is gone is known to be elsewhere only from what is seen there.
    let gone = &batch[4];
    assert_eq!(gone.seen, Seen::Absent);
    assert!(is_seen_elsewhere(&d.index, &batch, gone).unwrap());
    assert!(!is_seen_elsewhere(&d.index, &batch[..2], gone).unwrap());
    assert!(!is_seen_elsewhere(&d.index, &batch, &batch[0]).unwrap());
    // Another file that was given its name, and one that merely has as many bytes, are something else.
    file(&mut d, "later", "as it was");
    let later = Observation { at: at("later"), seen: d.disk.seen(&p("later")) };
    assert!(!is_seen_elsewhere(&d.index, &[later], gone).unwrap());
}
