//! A version that lost its name to one that was heard of, and went by the user's hand before it could be
//! given its new one: nobody holds it any more, so nobody may want it.

#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use common::*;
use dunlin_core::path::RelPath;
use dunlin_core::rows::Rows;
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
