//! One case after the other: a few acts, run under many seeds of the network, of the order of events and
//! of the clocks. What must come out of each is written down; the invariants are checked besides.

use crate::case_kit::*;
use dunlin_sim::chance::Chance;
use dunlin_sim::disk::Thing;
use dunlin_sim::users::bytes;
use std::collections::{BTreeMap, BTreeSet};

#[test]
fn folders_that_differ_unite_and_lose_nothing() {
    let acts =
        "0 0 write a 11\n0 1 write a 12\n0 0 write x 13\n0 1 write y 14\n0 2 mkdir d\n0 2 write d/z 15";
    case(3, acts, |rest| {
        assert_eq!(contents(rest), [11, 12, 13, 14, 15]);
        assert_eq!((copies(rest).len(), rest.trees[0].len()), (1, 6), "{:?}", words(&rest.trees[0]));
    });
}

#[test]
fn folders_that_are_equal_unite_without_a_change() {
    let one = |d| {
        format!(
            "0 {d} mkdir d\n0 {d} write a 11\n0 {d} touch a 1000\n0 {d} write d/b 12\n0 {d} touch d/b 2000\n"
        )
    };
    cases(
        SEEDS,
        3,
        |_| one(0) + &one(1) + &one(2),
        |_, rest| {
            shows(rest, &[("a", "11"), ("d", "/"), ("d/b", "12")]);
            for tree in &rest.trees {
                assert!(matches!(tree["a"], Thing::File { mtime, .. } if mtime.secs == 1000));
            }
        },
    );
}

#[test]
fn two_edits_apart_leave_one_copy_of_one_name() {
    apart_case(3, "0 write a.txt 10", "0 write a.txt 11\n1 save a.txt 12", |rest| {
        assert_eq!(contents(rest), [11, 12]);
        assert_eq!((copies(rest).len(), rest.trees[0].len()), (1, 2));
        assert!(rest.trees[0].contains_key("a.txt") && copies(rest)[0].ends_with(".txt"));
        assert!(rest.trees.iter().all(|t| t.contains_key(&copies(rest)[0])));
    });
}

#[test]
fn of_five_edits_apart_four_are_copies() {
    let edits: Vec<String> = (0..5).map(|d| format!("{d} save a {}", 11 + d)).collect();
    let acts = |seed| while_apart(5, "0 write a 10", &edits.join("\n"), seed);
    cases(600, 5, acts, |seed, rest| {
        assert_eq!(contents(rest), [11, 12, 13, 14, 15], "seed {seed}");
        assert_eq!((copies(rest).len(), rest.trees[0].len()), (4, 5), "seed {seed}");
        assert!(copies(rest).iter().all(|c| c.matches("~conflict-").count() == 1), "a copy of a copy");
    });
}

#[test]
fn the_same_bytes_written_apart_are_no_conflict() {
    let meanwhile = "0 write a 11\n1 save a 11\n2 touch a 5000\n2 chmod a 600";
    apart_case(3, "0 write a 10", meanwhile, |rest| {
        shows(rest, &[("a", "11")]);
        assert!(matches!(rest.trees[0]["a"], Thing::File { mode: 0o600, .. }));
    });
    apart_case(3, "0 write a 10", "0 touch a 4000\n1 touch a 5000\n2 chmod a 600", |rest| {
        shows(rest, &[("a", "10")]);
    });
}

#[test]
fn an_edit_outlives_a_delete_that_had_not_seen_it() {
    apart_case(
        3,
        "0 write a 10\n0 write b 20",
        "0 remove a\n1 write a 11\n2 remove b\n0 append b 21",
        |rest| {
            let tree = &rest.trees[0];
            assert!(
                matches!(&tree["b"], Thing::File { bytes: b, .. } if **b == [bytes(20), bytes(21)].concat())
            );
            assert!(matches!(&tree["a"], Thing::File { bytes: b, .. } if **b == bytes(11)));
            assert_eq!(tree.len(), 2);
        },
    );
}

#[test]
fn what_was_deleted_on_two_sides_stays_deleted() {
    let meanwhile = "0 remove a\n1 remove a\n0 remove d\n2 remove d/f";
    apart_case(3, "0 write a 10\n0 mkdir d\n0 write d/f 11", meanwhile, |rest| shows(rest, &[]));
}

#[test]
fn what_is_created_anew_counts_whatever_its_time_says() {
    let meanwhile = "0 remove a\n0 write a 11\n0 touch a 1000";
    apart_case(2, "1 write a 10", meanwhile, |rest| {
        shows(rest, &[("a", "11")]);
        assert!(matches!(rest.trees[1]["a"], Thing::File { mtime, .. } if mtime.secs == 1000));
    });
}

#[test]
fn a_file_and_a_directory_of_one_name_both_stay() {
    apart_case(3, "2 write other 10", "0 write x 11\n1 mkdir x\n1 write x/f 12", |rest| {
        assert_eq!(contents(rest), [10, 11, 12]);
        assert_eq!((copies(rest).len(), rest.trees[0].len()), (1, 4));
        assert_eq!((&*words(&rest.trees[2])["x"], &*words(&rest.trees[2])["x/f"]), ("/", "12"));
    });
}

#[test]
fn a_new_file_keeps_the_directories_it_is_in() {
    let before = "0 mkdir d\n0 mkdir d/e\n0 write d/old 10\n0 write d/e/old 11";
    apart_case(3, before, "0 remove d\n1 write d/e/new 12", |rest| {
        shows(rest, &[("d", "/"), ("d/e", "/"), ("d/e/new", "12")]);
    });
}

#[test]
fn directories_that_move_into_each_other_keep_all_that_is_in_them() {
    let before = "0 mkdir a\n0 mkdir b\n0 write a/f 11\n0 write b/g 12";
    apart_case(3, before, "0 move a b/a\n1 move b a/b", |rest| {
        assert_eq!((contents(rest), copies(rest).len(), rest.trees[0].len()), (vec![11, 12], 0, 4));
    });
}

#[test]
fn a_directory_moved_to_two_places_is_in_one_of_them() {
    let before = "0 mkdir d\n0 mkdir p\n0 mkdir q\n0 write d/f 11\n0 write d/g 12";
    apart_case(3, before, "0 move d p/d\n1 move d q/d", |rest| {
        assert_eq!((contents(rest), copies(rest).len(), rest.trees[0].len()), (vec![11, 12], 0, 5));
        assert!(["p/d", "q/d"].into_iter().filter(|p| rest.trees[2].contains_key(*p)).count() == 1);
    });
}

#[test]
fn what_leaves_a_directory_that_is_removed_at_once_is_moved() {
    let before = "0 mkdir x\n0 mkdir x/y\n0 write x/y/f 10\n0 write x/a 20";
    let moved = "0 move x/y t\n0 move x/a a\n0 remove x";
    let elsewhere = "1 write x/y/g 11\n1 save x/a 21";
    apart_case(3, before, &format!("{moved}\n{elsewhere}"), |rest| {
        let tree = &rest.trees[0];
        assert_eq!(tree.keys().collect::<Vec<_>>(), ["a", "t", "t/f", "t/g"], "{:?}", words(tree));
    });
    // In its place, and in turns with what the other does.
    apart_case(3, before, &format!("{elsewhere}\n{moved}\n0 move t x"), |rest| {
        let tree = &rest.trees[0];
        assert_eq!(tree.keys().collect::<Vec<_>>(), ["a", "x", "x/f", "x/g"], "{:?}", words(tree));
    });
}

#[test]
fn a_directory_whose_name_is_taken_at_once_stays_itself() {
    let before = "0 mkdir a\n0 write a/f 10\n0 mkdir b\n0 write b/g 20";
    let elsewhere = "1 write a/new 11";
    let moved = "0 move a t\n0 move b a";
    let expected = ["a", "a/g", "t", "t/f", "t/new"];
    apart_case(3, before, &format!("{elsewhere}\n{moved}"), |rest| {
        let tree = &rest.trees[0];
        assert_eq!(tree.keys().collect::<Vec<_>>(), expected, "{:?}", words(tree));
    });
    // And back: every name is another's by now.
    apart_case(3, before, &format!("{elsewhere}\n{moved}\n0 move t b"), |rest| {
        let tree = &rest.trees[0];
        let expected = ["a", "a/g", "b", "b/f", "b/new"];
        assert_eq!(tree.keys().collect::<Vec<_>>(), expected, "{:?}", words(tree));
    });
}

#[test]
fn a_directory_that_is_a_link_for_a_while_loses_no_file() {
    let before = "0 mkdir d\n0 mkdir e\n0 write d/f 11\n0 write e/g 12";
    let acts = |seed| {
        let before: String = before.lines().map(|l| format!("0 {l}\n")).collect();
        let pause = [1, 30, 3000][(seed % 3) as usize];
        let (one, two) = (5000 + pause, 5000 + 2 * pause);
        format!(
            "{before}5000 0 move d aside\n{one} 0 link d e\n{two} 0 remove d\n{two} 0 move aside d\n{two} 1 write e/h 13"
        )
    };
    cases(SEEDS, 3, acts, |_, rest| {
        shows(rest, &[("d", "/"), ("d/f", "11"), ("e", "/"), ("e/g", "12"), ("e/h", "13")]);
    });
}

/// What one user leaves behind, by his acts.
fn long_work(seed: u64, device: usize, count: u64) -> (String, BTreeMap<String, u32>) {
    let (mut chance, mut acts, mut tree) = (Chance::new(seed, "work"), String::new(), BTreeMap::new());
    for i in 0..count {
        let path = format!("f{}", chance.below(40));
        let content = 100 + i as u32;
        let at = 6000 + i * 5;
        if chance.one_in(3) && tree.remove(&path).is_some() {
            acts += &format!("{at} {device} remove {path}\n");
        } else {
            acts += &format!("{at} {device} save {path} {content}\n");
            tree.insert(path, content);
        }
    }
    (acts, tree)
}

#[test]
fn who_was_away_for_long_brings_nothing_back() {
    let work = |seed| long_work(seed, 0, 2000);
    let acts = |seed| {
        let before: String = (0..40).map(|i| format!("0 2 write f{i} {}\n", 10 + i)).collect();
        let more: String = (40..60).map(|i| format!("5500 0 remove g{i}\n")).collect();
        let gone: String = (40..60).map(|i| format!("0 2 write g{i} {i}\n")).collect();
        let starts = "1 0 start\n1 1 start\n1 2 start\n5000 2 stop\n";
        format!("{before}{gone}{starts}{more}{}20000 2 start\n", work(seed).0)
    };
    cases(6, 3, acts, |seed, rest| {
        let (made, left) = (work(seed).0, work(seed).1);
        let mut expected: BTreeMap<String, u32> = (0..40).map(|i| (format!("f{i}"), 10 + i)).collect();
        expected
            .retain(|path, _| !made.contains(&format!(" {path} ")) && !made.contains(&format!(" {path}\n")));
        expected.extend(left);
        let shown = words(&rest.trees[2]);
        let shown: BTreeMap<String, u32> =
            shown.iter().map(|(p, w)| ((*p).to_owned(), w.parse().unwrap_or(0))).collect();
        assert_eq!(shown, expected);
    });
}

#[test]
fn whatever_way_changes_take_they_arrive() {
    const DEVICES: usize = 5;
    let acts = |seed| {
        let mut chance = Chance::new(seed, "ways");
        let mut out = apart(1, DEVICES);
        for i in 0..60u64 {
            let at = 100 + i * 200;
            let all = pairs(DEVICES);
            let (a, b) = *chance.pick(&all);
            let word = if chance.one_in(2) { "cut" } else { "heal" };
            out += &format!("{at} {a} {word} {b}\n");
            let by = i % DEVICES as u64;
            out += &format!("{at} {by} write by{by} {}\n", 100 + i);
        }
        out
    };
    cases(SEEDS / 2, DEVICES, acts, |_, rest| {
        shows(rest, &[("by0", "155"), ("by1", "156"), ("by2", "157"), ("by3", "158"), ("by4", "159")]);
    });
}

/// Rounds of: nobody reaches anybody, each writes or deletes the one file or leaves it, all meet again.
struct Rounds {
    acts: String,
    /// How many contents show in the end.
    left: usize,
    /// Those that nobody had when the file changed for the last time.
    last: Vec<u32>,
}

fn rounds(seed: u64) -> Rounds {
    let mut chance = Chance::new(seed, "rounds");
    let mut rounds = Rounds { acts: String::new(), left: 0, last: Vec::new() };
    let mut content = 100;
    for round in 0..5u64 {
        let at = 1000 + round * 12_000;
        rounds.acts += &apart(at, 3);
        let (mut writes, mut deleted) = (Vec::new(), false);
        for device in 0..3 {
            match chance.below(4) {
                0 => {
                    rounds.acts += &format!("{} {device} remove f\n", at + 100);
                    deleted = true;
                }
                1 | 2 => {
                    content += 1;
                    rounds.acts += &format!("{} {device} save f {content}\n", at + 100);
                    writes.push(content);
                }
                _ => {}
            }
        }
        // All had the same one under the name. It is replaced or deleted, and what else there was stays.
        let replaced = rounds.left > 0 && (deleted || !writes.is_empty());
        rounds.left = rounds.left - usize::from(replaced) + writes.len();
        if replaced || !writes.is_empty() {
            rounds.last = writes;
        }
        rounds.acts += &together(at + 2000, 3, seed ^ round);
    }
    rounds
}

#[test]
fn of_one_file_only_what_somebody_had_in_hand_is_replaced() {
    cases(
        1000,
        3,
        |seed| rounds(seed).acts,
        |seed, rest| {
            let (shown, rounds) = (contents(rest), rounds(seed));
            assert_eq!(shown.len(), rounds.left, "seed {seed}: {shown:?}");
            assert!(
                rounds.last.iter().all(|c| shown.contains(c)),
                "seed {seed}: {shown:?}, {:?}",
                rounds.last
            );
            assert_eq!(shown.iter().collect::<BTreeSet<_>>().len(), shown.len(), "seed {seed}: {shown:?}");
            // As long as any is left, one has the name.
            assert_eq!(rest.trees[0].contains_key("f"), rounds.left > 0, "seed {seed}");
        },
    );
}

#[test]
fn a_swap_never_leaves_a_content_in_no_place() {
    // The one who made the contents is killed, or its power cut, at each call of the swap, and the other is
    // never seen again: what there is then is all there is.
    for what in ["kill", "power-cut"] {
        let acts = |seed| {
            let before = "0 1 write a 11\n0 1 write b 12";
            let when = 1 + seed / 2;
            format!("{before}\n5000 0 exchange a b\n5000 1 {what} @{when}\n5060 0 leave\n")
        };
        cases(120, 2, acts, |_, rest| {
            let words = words(&rest.trees[1]);
            let shown: BTreeSet<&str> = words.values().map(String::as_str).collect();
            assert_eq!((shown, words.len()), (BTreeSet::from(["11", "12"]), 2), "{words:?}");
        });
    }
}

/// A file saved, moved, removed, its directory renamed, and what happens at two calls of all that.
fn changes_and(what: &str, seed: u64) -> String {
    let before = "0 0 mkdir d\n0 0 write d/a 11\n0 0 write b 12\n0 0 write c 13";
    let change = "5000 0 save d/a 21\n5000 0 move b d/b\n5000 0 remove c\n5000 0 move d e\n5000 0 link l e";
    format!("{before}\n5000 1 {what} @{}\n{change}\n5100 1 {what} @{}", 1 + seed / 2, 1 + seed / 3)
}

#[test]
fn a_kill_at_any_call_changes_nothing_about_the_end() {
    cases(
        SEEDS,
        2,
        |seed| changes_and("kill", seed),
        |_, rest| {
            shows(rest, &[("e", "/"), ("e/a", "21"), ("e/b", "12"), ("l", "> e")]);
        },
    );
}

#[test]
fn a_power_cut_at_any_call_loses_nothing_and_takes_no_name() {
    cases(
        SEEDS,
        2,
        |seed| changes_and("power-cut", seed),
        |_, rest| {
            let shown = words(&rest.trees[1]);
            // A rename that was not durable may leave a file in two places, and so a copy.
            let named: Vec<(&str, &str)> =
                shown.iter().filter(|(p, _)| !p.contains('~')).map(|(p, w)| (*p, w.as_str())).collect();
            assert_eq!(named, [("e", "/"), ("e/a", "21"), ("e/b", "12"), ("l", "> e")]);
        },
    );
}

#[test]
fn a_lost_index_deletes_nothing_and_nothing_older_takes_a_name() {
    let before =
        "0 0 write a 10\n0 0 write b 11\n0 0 write c 12\n0 1 write own 13\n1 0 start\n1 1 start\n1 2 start";
    let acts = |_| {
        format!(
            "{before}\n5000 1 stop\n6000 0 save a 20\n6000 0 write d 21\n6000 1 write mine 22\n7000 1 lose-index\n8000 1 start"
        )
    };
    cases(SEEDS, 3, acts, |_, rest| {
        let named: Vec<(&str, String)> =
            words(&rest.trees[1]).into_iter().filter(|(p, _)| !p.contains('~')).collect();
        let expected = [("a", "20"), ("b", "11"), ("c", "12"), ("d", "21"), ("mine", "22"), ("own", "13")];
        assert_eq!(named, expected.map(|(p, w)| (p, w.to_owned())));
    });
}

#[test]
fn clocks_that_jump_decide_nothing() {
    let acts = |seed: u64| {
        let jump = [-315_360_000i64, 315_360_000, -1_800_000_000, 1][(seed % 4) as usize];
        format!(
            "0 0 write a 10\n4000 1 jump {jump}\n5000 1 save a 11\n9000 0 save a 12\n13000 2 jump {jump}\n14000 2 save a 13"
        )
    };
    cases(SEEDS, 3, acts, |_, rest| shows(rest, &[("a", "13")]));
}

#[test]
fn connections_that_cross_and_replace_each_other_lose_nothing() {
    let acts = |seed| {
        let mut chance = Chance::new(seed, "again");
        let mut out = String::new();
        for i in 0..50u64 {
            let (a, at) = (chance.below(2), 1000 + i * 20 + chance.below(20));
            out += &format!("{at} {a} again {}\n{at} {} write f{} {}\n", 1 - a, i % 2, i % 4, 100 + i);
        }
        out
    };
    cases(SEEDS, 2, acts, |_, rest| {
        shows(rest, &[("f0", "148"), ("f1", "149"), ("f2", "146"), ("f3", "147")]);
    });
}

#[test]
fn a_root_that_is_away_deletes_nothing() {
    let acts = |seed: u64| {
        let back = 5000 + [50, 3000, 20_000][(seed % 3) as usize];
        format!(
            "0 0 write a 10\n0 0 mkdir d\n0 0 write d/b 11\n5000 1 lose-root\n5010 0 write c 12\n{back} 1 bring-root"
        )
    };
    cases(SEEDS, 3, acts, |_, rest| shows(rest, &[("a", "10"), ("c", "12"), ("d", "/"), ("d/b", "11")]));
}

#[test]
fn events_that_the_kernel_drops_are_made_up_for() {
    let acts = |_| {
        "0 0 mkdir d\n0 0 write d/a 10\n5000 0 write d/a 11\n5000 0 write b 12\n5000 0 move d e\n5000 0 overflow".into()
    };
    cases(SEEDS, 2, acts, |_, rest| shows(rest, &[("b", "12"), ("e", "/"), ("e/a", "11")]));
}

#[test]
fn a_cut_in_one_direction_ends_as_any_other() {
    let acts = |seed| {
        let (deaf, other) = (seed % 2, 1 - seed % 2);
        format!(
            "0 0 write a 10\n3000 {deaf} deaf {other}\n3100 0 save a 11\n3200 1 save b 12\n3300 1 write c 13\n15000 {deaf} heal {other}"
        )
    };
    cases(SEEDS, 2, acts, |_, rest| shows(rest, &[("a", "11"), ("b", "12"), ("c", "13")]));
}

#[test]
fn a_folder_that_goes_back_alone_at_once_was_edited_and_after_long_deletes_nothing() {
    let before = "0 0 write a 10\n0 1 write b 11\n4000 0 keep-all\n5000 0 save a 20\n5000 0 write c 21\n";
    let at_once = |_| format!("{before}9000 0 roll-back-folder");
    cases(SEEDS, 2, at_once, |_, rest| shows(rest, &[("a", "10"), ("b", "11")]));
    let after_long = |_| format!("{before}80000 0 save a 30\n90000 0 roll-back-folder");
    cases(SEEDS, 2, after_long, |_, rest| {
        let shown = words(&rest.trees[1]);
        assert_eq!((&*shown["a"], &*shown["b"], &*shown["c"]), ("30", "11", "21"), "{shown:?}");
    });
}
