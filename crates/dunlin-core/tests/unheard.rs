//! A version that lost its name to one that was heard of, and went by the user's hand before it could be
//! given its new one: nobody holds it any more, so nobody may want it.

#![allow(clippy::unwrap_used, reason = "a test")]

use crate::common::*;
use dunlin_core::codec::decode_state;
use dunlin_core::ids::ROOT;
use dunlin_core::journal::Kind;
use dunlin_core::path::RelPath;
use dunlin_core::revert::{Selection, select};
use dunlin_core::rows::{Position, Rows};
use dunlin_core::state::Content;
use dunlin_core::tree::Work;
use std::collections::BTreeMap;

fn path() -> RelPath {
    RelPath::parse(b"d").unwrap()
}

/// Two devices that made something of the same name; the second has heard of it, and placed nothing yet.
/// Which of two files keeps the name is a hash's choice: `ours` is what the second one wrote.
fn apart(theirs: Body, ours: &[u8]) -> [Device; 2] {
    let [mut a, mut b] = ["a", "b"].map(Device::new);
    a.disk.create(&path(), theirs);
    a.scan();
    b.disk.create(&path(), Body::File(ours.to_vec()));
    b.scan();
    b.hear(&a.rows());
    [a, b]
}

fn dir() -> Body {
    Body::Dir(BTreeMap::new())
}

/// All is exchanged and carried out, and none of it has to be fetched from anybody.
fn rests_without_any_content([mut a, mut b]: [Device; 2], noticed: bool, what: &str) -> Vec<String> {
    for round in 0..6 {
        // What happened is not noticed before the first steps are carried out.
        if round > 0 || noticed {
            b.scan();
        }
        a.hear(&b.rows());
        b.hear(&a.rows());
        for device in [&mut a, &mut b] {
            let plan = device.plan(&|_| false, 9);
            let mut done = Vec::new();
            for step in plan.steps {
                let outcome = device.carry_out(&step, &BTreeMap::new());
                done.push((step, outcome));
            }
            device.conclude(&done);
            device.check_needs();
        }
    }
    for device in [&a, &b] {
        let need = device.index.totals().unwrap().need_files;
        assert_eq!(need, 0, "{what}: wanted and held by nobody: {:#?}", device.lacking());
    }
    assert_eq!(a.listing(), b.listing(), "{what}");
    a.listing()
}

#[test]
fn a_version_that_is_gone_before_it_got_its_new_name_is_wanted_by_nobody() {
    for noticed in [true, false] {
        // Replaced by the very thing that has the name.
        let [a, mut b] = apart(dir(), b"ours");
        b.disk.remove(&path());
        b.disk.create(&path(), dir());
        assert_eq!(rests_without_any_content([a, b], noticed, "replaced").len(), 1);
        // Removed, and nothing stands there.
        let [a, mut b] = apart(dir(), b"ours");
        b.disk.remove(&path());
        assert_eq!(rests_without_any_content([a, b], noticed, "removed").len(), 1);
        // Overwritten by what the other wrote; of several contents one at least loses the name.
        let mut lost = 0;
        for ours in [b"1", b"2", b"3", b"4", b"5", b"6"] {
            let [a, mut b] = apart(Body::File(b"theirs".to_vec()), ours);
            lost += u32::from(b.wanted().iter().any(|(at, _, w)| *at != path() && w.copy));
            b.disk.write(&path(), b"theirs");
            let left = rests_without_any_content([a, b], noticed, "overwritten");
            assert!(left.len() == 1 && left[0].contains("theirs"), "{left:?}");
        }
        assert!(lost > 0);
    }
}

#[test]
fn a_version_that_got_its_new_name_unrecorded_stays() {
    let [mut a, mut b] = apart(Body::Dir(BTreeMap::new()), b"ours");
    let copy = b.wanted().into_iter().find(|(_, _, w)| w.copy).unwrap().0;
    // A crash between the steps and the commit that records them.
    b.disk.rename(&path(), &copy);
    b.disk.create(&path(), Body::Dir(BTreeMap::new()));
    b.scan();
    a.hear(&b.rows());
    assert_eq!(b.index.totals().unwrap().need_files, 0, "{:#?}", b.lacking());
    let shows = a.wanted().into_iter().map(|(at, ..)| at).collect::<Vec<_>>();
    assert!(shows.contains(&copy) && shows.len() == 2, "{shows:?}");
}

#[test]
fn a_version_that_is_found_under_its_new_name_is_no_loss_even_if_it_is_not_known_again() {
    let [_, mut b] = apart(Body::Dir(BTreeMap::new()), b"ours");
    let copy = b.wanted().into_iter().find(|(_, _, w)| w.copy).unwrap().0;
    b.disk.rename(&path(), &copy);
    b.disk.touch(&copy, 7);
    b.scan();
    let shows = b.wanted().into_iter().map(|(at, ..)| at).collect::<Vec<_>>();
    assert!(shows.contains(&copy) && shows.len() == 2, "{shows:?}");
    assert_eq!(b.lacking().len(), 1, "the directory: {:#?}", b.lacking());
}

/// What shows everywhere after the first device removed its version, which is all that it had seen, and the second
/// did what it does without having heard of that.
fn against_a_delete(ours: &[u8], act: impl FnOnce(&mut Disk, &RelPath)) -> Vec<String> {
    let [mut a, mut b] = apart(Body::File(b"theirs".to_vec()), ours);
    act(&mut b.disk, &path());
    b.scan();
    a.disk.remove(&path());
    a.scan();
    a.hear(&b.rows());
    b.hear(&a.rows());
    let shows = |d: &Device| d.wanted().into_iter().map(|(at, ..)| at.to_string()).collect::<Vec<_>>();
    assert_eq!(shows(&a), shows(&b));
    shows(&a)
}

#[test]
fn the_same_bytes_written_by_a_user_outlive_a_delete_that_had_not_seen_them() {
    assert_eq!(against_a_delete(b"ours", |disk, path| disk.write(path, b"theirs")), ["d"]);
    // A file with the very time of what was heard, but it was known here as another one.
    let [mut a, mut b] = ["a", "b"].map(Device::new);
    let other = RelPath::parse(b"e").unwrap();
    a.disk.create(&path(), Body::File(b"theirs".to_vec()));
    let mtime = a.disk.inode(&path()).unwrap().mtime;
    a.scan();
    b.disk.create(&path(), Body::File(b"ours".to_vec()));
    b.disk.create(&other, Body::File(b"theirs".to_vec()));
    b.disk.touch(&other, mtime);
    b.scan();
    b.hear(&a.rows());
    b.disk.remove(&path());
    b.disk.rename(&other, &path());
    b.scan();
    a.disk.remove(&path());
    a.scan();
    a.hear(&b.rows());
    assert_eq!(a.wanted().into_iter().map(|(at, ..)| at).collect::<Vec<_>>(), [path()]);
}

#[test]
fn a_step_of_ours_that_was_not_recorded_is_no_change() {
    let mut lost = 0;
    for ours in [b"1", b"2", b"3", b"4", b"5", b"6"] {
        let [a, mut b] = apart(Body::File(b"theirs".to_vec()), ours);
        if b.wanted().iter().any(|(shown, _, w)| *shown == path() && w.content != there(&a)) {
            continue;
        }
        lost += 1;
        let mtime = a.disk.inode(&path()).unwrap().mtime;
        b.disk.remove(&path());
        b.disk.create(&path(), Body::File(b"theirs".to_vec()));
        b.disk.touch(&path(), mtime);
        b.scan();
        assert_eq!(b.index.local(&at()).unwrap().unwrap().dot.unwrap().inc, incarnation("a"));
    }
    assert!(lost > 0);
}

fn there(device: &Device) -> Content {
    device.index.local(&at()).unwrap().unwrap().content
}

fn at() -> Position {
    Position::new(ROOT, name(b"d"))
}

#[test]
fn a_delete_that_is_noticed_late_has_not_seen_what_was_heard_after_it() {
    for held_back in [true, false] {
        let [mut a, mut b] = ["a", "b"].map(Device::new);
        for device in [&mut a, &mut b] {
            device.disk.create(&path(), Body::File(b"same".to_vec()));
            device.disk.touch(&path(), 9);
            device.scan();
        }
        // Removed, and nobody looked yet; then an equal version is heard of.
        b.disk.remove(&path());
        let row = b.index.local(&at()).unwrap().unwrap();
        let seen = b.index.node(row.node).unwrap().unwrap().state.seen;
        let mut work = Work::new(&b.index);
        for (node, bytes) in a.rows() {
            work.hear(node, &decode_state(&bytes).unwrap(), 1).unwrap();
        }
        if held_back {
            work.not_seen(at(), row.stamp, seen);
        }
        let changes = work.finish().unwrap();
        b.index.apply(changes);
        b.scan();
        assert_eq!(b.wanted().len(), usize::from(held_back), "{:#?}", b.wanted());
    }
}

#[test]
fn what_is_brought_back_stands_beside_what_is_there() {
    let [mut a, _] = apart(Body::File(b"there".to_vec()), b"ours");
    let node = a.index.local(&at()).unwrap().unwrap().node;
    let content = Content::File { id: content_id(b"taken out"), size: 9 };
    for _ in 0..2 {
        let mut work = Work::new(&a.index);
        work.bring_back(node, content.clone(), 0o600, time(7)).unwrap();
        let changes = work.finish().unwrap();
        a.index.apply(changes);
        let wanted = a.wanted();
        let back = wanted.iter().find(|(_, _, w)| w.content == content).unwrap();
        assert_eq!((wanted.len(), back.2.mode, back.2.mtime), (2, 0o600, time(7)));
    }
}

#[test]
fn what_is_to_give_up_its_name_and_is_deleted_is_deleted() {
    let mut lost = 0;
    for ours in [b"1", b"2", b"3", b"4", b"5", b"6"] {
        // It was moved to a name that was taken elsewhere meanwhile.
        let [mut a, mut b] = ["a", "b"].map(Device::new);
        let other = RelPath::parse(b"e").unwrap();
        a.disk.create(&path(), Body::File(b"theirs".to_vec()));
        a.scan();
        b.disk.create(&other, Body::File(ours.to_vec()));
        b.scan();
        b.disk.rename(&other, &path());
        b.scan();
        let node = b.index.local(&at()).unwrap().unwrap().node;
        b.hear(&a.rows());
        lost += u32::from(b.wanted().iter().any(|(shown, of, w)| *of == node && *shown != path() && !w.copy));
        b.disk.remove(&path());
        b.scan();
        assert!(!b.index.node(node).unwrap().unwrap().state.alive(), "{:#?}", b.wanted());
    }
    assert!(lost > 0);
}

/// A file that one moves and the other, which heard of it, edits where it was and removes there, before it is moved there
/// too; with the content that it was edited to.
fn edited_and_removed_where_it_was() -> ([Device; 2], dunlin_core::ids::NodeId) {
    let [mut a, mut b] = ["a", "b"].map(Device::new);
    a.disk.create(&path(), Body::File(b"old".to_vec()));
    a.scan();
    b.disk.create(&path(), Body::File(b"old".to_vec()));
    b.disk.touch(&path(), a.disk.inode(&path()).unwrap().mtime);
    b.scan();
    b.hear(&a.rows());
    a.hear(&b.rows());
    let node = a.index.local(&at()).unwrap().unwrap().node;
    a.disk.rename(&path(), &RelPath::parse(b"moved").unwrap());
    a.scan();
    b.hear(&a.rows());
    b.disk.write(&path(), b"edited");
    b.scan();
    (([a, b]), node)
}

#[test]
fn what_was_made_again_is_not_withdrawn_before_it_was_here() {
    let mut a = Device::new("a");
    a.disk.create(&path(), Body::File(b"old".to_vec()));
    a.scan();
    let node = a.index.local(&at()).unwrap().unwrap().node;
    a.disk.remove(&path());
    a.scan();
    let all = Selection { kinds: Some([Kind::Deleted].into()), ..Selection::since(0) };
    let back = select(&a.index, &all).unwrap().back;
    let mut work = Work::new(&a.index);
    assert!(work.take_back(&back[0]).unwrap());
    let changes = work.finish().unwrap();
    a.index.apply(changes);
    let mut work = Work::new(&a.index);
    assert!(!work.withdraw(node, content_id(b"old")).unwrap(), "a person wants it");
    // Once it is here, it is as any other.
    let marks = |a: &Device| a.index.0.keys().filter(|key| key[0] == b'g').count();
    assert_eq!(marks(&a), 1);
    let step = a.plan(&|_| true, 9).steps.remove(0);
    let outcome = a.carry_out(&step, &[(content_id(b"old"), b"old".to_vec())].into());
    a.conclude(&[(step, outcome)]);
    assert_eq!((a.listing().len(), marks(&a)), (1, 0));
}

#[test]
fn what_its_maker_removed_and_nobody_has_is_withdrawn() {
    let ([mut a, mut b], node) = edited_and_removed_where_it_was();
    let edited = content_id(b"edited");
    let withdraw = |device: &mut Device, content| {
        let mut work = Work::new(&device.index);
        let withdrawn = work.withdraw(node, content).unwrap();
        let changes = work.finish().unwrap();
        device.index.apply(changes);
        withdrawn
    };
    assert!(!withdraw(&mut b, edited), "it is here");
    b.disk.remove(&path());
    b.scan();
    assert_eq!(b.lacking().len(), 1, "moves beat deletes: {:#?}", b.lacking());
    a.hear(&b.rows());
    assert!(!withdraw(&mut a, edited), "it is another's");
    assert!(!withdraw(&mut b, content_id(b"old")), "nobody wants that");
    assert!(withdraw(&mut b, edited));
    // It was all that there was by then: what it had come of goes where it still is.
    assert_eq!(rests_without_any_content([a, b], true, "withdrawn"), Vec::<String>::new());
}
