//! What happens in the same moment as something of ours, or of the user's own.

#![allow(clippy::unwrap_used, reason = "a test")]

use dunlin_testkit::*;
use std::fs;
use std::sync::Arc;
use std::time::Duration;

#[test]
fn what_happens_in_a_directory_that_just_moved_is_seen() {
    let (_temp, a, b) = pair();
    for i in 0..10 {
        let (d, e) = (a.path(format!("d{i}")), a.path(format!("e{i}")));
        fs::create_dir_all(d.join("s")).unwrap();
        write(d.join("f"), format!("f {i}"));
        a.wait();
        if i % 5 == 0 {
            write(d.join("before"), "written, then moved");
        }
        fs::rename(&d, &e).unwrap();
        match i % 5 {
            1 => write(e.join("new"), "moved, then written"),
            2 => write(e.join("s/new"), "deeper"),
            3 => fs::rename(e.join("f"), e.join("h")).unwrap(),
            4 => fs::create_dir_all(e.join("q/r")).unwrap(),
            _ => {}
        }
        a.wait();
        identical(&format!("round {i}"), &[&a, &b]);
    }
}

#[test]
fn a_save_right_after_a_version_was_placed_is_announced() {
    let (_temp, a, b) = pair();
    for i in 0..30 {
        let name = format!("f{}", i % 3);
        let theirs = format!("from a, {i}");
        write(a.path(&name), &theirs);
        until("the version of a", PATIENCE, || fs::read_to_string(b.path(&name)).is_ok_and(|t| t == theirs));
        // Not a moment is lost: what was placed is not even recorded yet.
        write(b.path(&name), format!("from b, {i}"));
        b.wait();
        a.wait();
        let all = identical(&format!("round {i}"), &[&a, &b]);
        assert!(
            conflicts(&all).is_empty(),
            "an edit of what was there is no conflict: {:?}",
            conflicts(&all)
        );
        assert_eq!(fs::read_to_string(a.path(&name)).unwrap(), format!("from b, {i}"));
    }
}

/// `BUSY_ROUNDS=500` for more.
fn rounds() -> u64 {
    std::env::var("BUSY_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(16)
}

/// Of each content that was ever written it is asked where it is: in the tree, in a history, or let go by the hand
/// that had it.
#[test]
fn a_delete_that_meets_a_busy_writer_takes_nothing_it_had_not_seen() {
    let (temp, a, b) = pair();
    let ledger = Arc::new(Ledger::new());
    let user = |node: &Node, n| {
        User::new(
            &node.name,
            &node.dir,
            &temp.path().join(format!("hands {n}")),
            ledger.clone(),
            Dice::new(n, 0),
        )
    };
    let (mut deleter, mut writer) = (user(&a, 1), user(&b, 2));
    let (mut outlived, mut deletes, mut written) = (0, 0, 0_u64);
    for round in 0..rounds() {
        writer.put(&b.path("f"), format!("first of round {round}").as_bytes()).unwrap();
        settle("before", &[&a, &b]);
        std::thread::scope(|s| {
            s.spawn(|| {
                for i in 0..20 {
                    written += 1;
                    let text = format!("{written} of round {round}").repeat(1 + i % 3);
                    // Renamed into place, and written over in place, a thousand times a second.
                    if i % 2 == 0 {
                        writer.put(&b.path("f"), text.as_bytes()).unwrap();
                    } else {
                        writer.overwrite(&b.path("f"), text.as_bytes(), Duration::ZERO).unwrap();
                    }
                    std::thread::sleep(Duration::from_millis(1));
                }
            });
            std::thread::sleep(Duration::from_millis(4 * (round % 16)));
            // It may be gone for a moment, as what is written comes and goes.
            deletes += u64::from(deleter.take(&a.path("f")).is_ok());
        });
        let all = settle("after", &[&a, &b]);
        outlived += u32::from(b.path("f").exists());
        ledger.judge(&format!("round {round}"), &[&all], &[&a, &b]);
        assert!(conflicts(&all).is_empty(), "round {round}: {:?}", conflicts(&all));
    }
    say(&format!("{written} saves met {deletes} deletes: {outlived} times the file outlived it"));
    assert!(deletes > 0 && outlived > 0, "they did not meet");
}

#[test]
fn a_tree_turned_inside_out_stays_whole() {
    let (_temp, mut a, b) = pair();
    for stopped in [false, true] {
        let x = a.path(format!("x{stopped}"));
        let y = a.path(format!("y{stopped}"));
        fs::create_dir_all(x.join("y")).unwrap();
        write(x.join("f"), "f");
        write(x.join("y/g"), "g");
        settle("before", &[&a, &b]);
        if stopped {
            a.stop();
        }
        fs::rename(x.join("y"), &y).unwrap();
        fs::rename(&x, y.join("x")).unwrap();
        if stopped {
            a.run();
        }
        a.until_connected(1, PATIENCE);
        let all = settle("inside out", &[&a, &b]);
        assert!(all.contains_key(format!("y{stopped}/x/f").as_bytes()), "{all:?}");
    }
}

#[test]
fn a_directory_that_became_something_else_while_nobody_looked_is_no_problem() {
    let (_temp, mut a, b) = pair();
    fs::create_dir_all(a.path("d/e")).unwrap();
    fs::create_dir_all(a.path("l/e")).unwrap();
    settle("before", &[&a, &b]);
    a.stop();
    fs::remove_dir_all(a.path("d")).unwrap();
    write(a.path("d"), "a file now");
    fs::remove_dir_all(a.path("l")).unwrap();
    std::os::unix::fs::symlink("d", a.path("l")).unwrap();
    a.run();
    a.until_connected(1, PATIENCE);
    settle("after", &[&a, &b]);
}

#[test]
fn a_file_with_two_names_changes_under_both() {
    let (_temp, a, b) = pair();
    fs::create_dir_all(a.path("p")).unwrap();
    write(a.path("p/f"), "one");
    fs::hard_link(a.path("p/f"), a.path("g")).unwrap();
    settle("before", &[&a, &b]);
    let file = fs::File::options().append(true).open(a.path("p/f")).unwrap();
    std::io::Write::write_all(&mut &file, b" and two").unwrap();
    drop(file);
    settle("after", &[&a, &b]);
    assert_eq!(fs::read_to_string(b.path("g")).unwrap(), "one and two");
}
