//! Many changes of one kind, and many of another one before or after them: one mistake, or good work and a mistake.

use super::*;

fn edit(d: &mut Device, which: std::ops::Range<usize>, what: &str) {
    which.for_each(|i| file(d, &format!("f{i}"), what));
}

/// What somebody did last, and what an undo of it brings back.
fn slips(d: &mut Device, deletes: bool, seconds: u64) {
    if deletes {
        (60..80).for_each(|i| remove(d, i))
    } else {
        edit(d, 60..80, "a mistake")
    }
    known_at(d, seconds);
}

/// Puts onto the disk what is not there yet.
fn place(d: &mut Device) {
    let contents = (0..100).map(|i| format!("good {i}").into_bytes());
    let contents = contents.map(|c| (common::content_id(&c), c)).collect();
    for _ in 0..10 {
        let steps = d.plan(&|_| true, 1000).steps;
        let done: Vec<_> = steps.into_iter().map(|s| (s.clone(), d.carry_out(&s, &contents))).collect();
        d.conclude(&done);
    }
}

#[test]
fn many_of_another_kind_before_a_pause_are_no_part_of_it() {
    for (pause, deletes, beside) in [10, 20, 45, 58]
        .into_iter()
        .flat_map(|pause| [(pause, true, false), (pause, true, true), (pause, false, false)])
    {
        let mut d = with_files(100);
        if deletes {
            edit(&mut d, 0..50, "good")
        } else {
            (0..50).for_each(|i| remove(&mut d, i))
        }
        known_at(&mut d, 100);
        // A save just before it, and one after it, bring nothing of that into it.
        let mut left = 50;
        if beside {
            edit(&mut d, 90..91, "good");
            known_at(&mut d, 96 + pause);
            left += 2;
        }
        let mut meant = shown(&d);
        slips(&mut d, deletes, 100 + pause);
        if beside {
            edit(&mut d, 91..92, "good");
            known_at(&mut d, 105 + pause);
            meant.extend(shown(&d).remove_entry("f91"));
        }
        let burst = last_burst(&d.index, 10, 60, None).unwrap().unwrap();
        assert_eq!((burst.count, burst.beside.things.len()), (20, left), "{pause} {deletes} {beside}");
        undo(&mut d, 300);
        assert_eq!(shown(&d), meant, "{pause} {deletes} {beside}");
    }
}

#[test]
fn what_was_moved_before_a_pause_stays_where_it_is() {
    let mut d = with_files(100);
    let moves = |d: &mut Device, which: std::ops::Range<usize>| {
        which.for_each(|i| assert!(d.disk.rename(&p(&format!("f{i}")), &p(&format!("moved{i}")))));
    };
    moves(&mut d, 0..20);
    known_at(&mut d, 100);
    slips(&mut d, true, 130);
    moves(&mut d, 20..21);
    known_at(&mut d, 136);
    assert_eq!(undo(&mut d, 300).0, 20);
    let now = shown(&d);
    assert!((0..21).all(|i| now.contains_key(&format!("moved{i}"))) && now.len() == 100);
}

#[test]
fn what_was_undone_before_a_pause_stays_undone() {
    for pause in [10, 20, 40] {
        let (mut b, mut a, mut c) = (with_files(100), Device::new("b"), Device::new("c"));
        hears(&mut a, &b, 1);
        hears(&mut c, &b, 1);
        edit(&mut b, 0..50, "a mistake");
        known_at(&mut b, 100);
        hears(&mut a, &b, 100);
        hears(&mut c, &b, 100);
        assert_eq!(undo(&mut a, 110).0, 50);
        let good = shown(&a);
        hears(&mut c, &a, 110);
        place(&mut a);
        (60..80).for_each(|i| remove(&mut a, i));
        known_at(&mut a, 110 + pause);
        assert_eq!(shown(&a).len(), 80);
        hears(&mut c, &a, 110 + pause);
        for (who, whose) in [(&mut c, "another one"), (&mut a, "its own")] {
            let burst = last_burst(&who.index, 10, 60, None).unwrap().unwrap();
            assert!(!burst.brought_back, "{pause} {whose}");
            assert_eq!((undo(who, 300).0, &shown(who)), (20, &good), "{pause} {whose}");
        }
    }
}

#[test]
fn what_goes_on_without_such_a_pause_is_one() {
    // Edits at once, deletes a moment later; deletes first, and then edits as slowly as the first of them came; by turns.
    let steps: [&[(u64, bool, usize)]; 4] = [
        &[(100, false, 20), (109, true, 20)],
        &[(100, true, 20), (130, false, 5), (150, false, 5), (170, false, 5)],
        &[(100, false, 12), (120, true, 12), (140, false, 12), (160, true, 12)],
        &[(100, true, 12), (108, false, 2), (116, false, 2), (124, false, 10), (131, true, 12)],
    ];
    for (n, steps) in steps.into_iter().enumerate() {
        let mut d = with_files(60);
        let (before, mut next) = (shown(&d), 0);
        for (seconds, deletes, count) in steps {
            let which = next..next + count;
            next += count;
            if *deletes {
                which.for_each(|i| remove(&mut d, i))
            } else {
                edit(&mut d, which, "old")
            }
            known_at(&mut d, *seconds);
        }
        assert_eq!((undo(&mut d, 400).0, shown(&d)), (next, before), "{n}");
    }
}

#[test]
fn what_was_renamed_and_written_over_in_place_has_its_name_again() {
    let mut d = with_files(20);
    let before = shown(&d);
    for i in 0..20 {
        assert!(d.disk.rename(&p(&format!("f{i}")), &p(&format!("f{i}.locked"))));
        file(&mut d, &format!("f{i}.locked"), "nobody can read this");
    }
    known_at(&mut d, 100);
    let after = shown(&d);
    for (seconds, shows) in [(300, &before), (500, &after)] {
        assert_eq!((undo(&mut d, seconds).0, &shown(&d)), (20, shows));
    }
}
