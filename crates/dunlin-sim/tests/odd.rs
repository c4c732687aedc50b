//! Devices with disks that are not like those of Linux: a few acts under many seeds, and what each ends with.

#![allow(clippy::unwrap_used, reason = "a test")]

use dunlin_core::path::RelPath;
use dunlin_node::disk::Disk;
use dunlin_node::disk::probe::{Abilities, probe};
use dunlin_sim::disk::{ModelDisk, Options, Thing};
use dunlin_sim::odd::Odd;
use dunlin_sim::rest;
use dunlin_sim::script::Script;
use dunlin_sim::users::bytes;
use std::collections::BTreeMap;

const SEEDS: u64 = 100;

type Tree = BTreeMap<String, Thing>;

/// Two devices, the second with such a disk; what each shows at rest.
fn run(odd: Odd, acts: &str, check: impl Fn(&Tree, &Tree)) {
    for seed in 0..SEEDS {
        let text = format!("flock {seed} 2 1 0 0 0 {odd}\n0 0 start\n0 1 start\n{acts}");
        let script: Script = text.parse().unwrap();
        let rest = rest::run(&script);
        assert_eq!(rest.outcome.broken, None, "{text}");
        check(&rest.trees[0], &rest.trees[1]);
    }
}

fn holds(tree: &Tree, path: &str) -> Option<Vec<u8>> {
    match tree.get(path)? {
        Thing::File { bytes, .. } => Some(bytes.to_vec()),
        _ => None,
    }
}

/// Paths and what files hold.
fn shown(tree: &Tree) -> Vec<(&String, Option<Vec<u8>>)> {
    tree.keys().map(|path| (path, holds(tree, path))).collect()
}

#[test]
fn what_a_disk_can_do_is_found_out() {
    let all = Abilities {
        rename_no_replace: true,
        rename_exchange: true,
        symlinks: true,
        modes: true,
        tick_ns: 1,
        forms: true,
        blind: false,
    };
    for (odd, found) in [
        (Odd::default(), all),
        (Odd::CASE, Abilities { blind: true, ..all }),
        (Odd::FORM, Abilities { blind: true, ..all }),
        (Odd::DECOMPOSES, Abilities { blind: true, forms: false, ..all }),
        (Odd::NO_MODES, Abilities { modes: false, ..all }),
        (Odd::COARSE, Abilities { tick_ns: 2_000_000_000, ..all }),
        (Odd::NO_LINKS, Abilities { symlinks: false, ..all }),
    ] {
        let disk = ModelDisk::new(odd.options(Options::default()));
        let control = RelPath::parse(b".dunlin").unwrap();
        disk.mkdir(&control, 0o700).unwrap();
        assert_eq!(probe(&disk, &control).unwrap(), found);
        assert!(disk.list(&control).unwrap().is_empty());
    }
}

#[test]
fn only_the_case_of_a_name_changes() {
    let acts = "5 0 write Foo 11\n5 0 mkdir D\n9 0 write D/x 12\n2000 0 move Foo foo\n2000 0 move D d";
    run(Odd::CASE, acts, |a, b| {
        assert_eq!(shown(a), shown(b));
        assert_eq!(b.keys().collect::<Vec<_>>(), ["d", "d/x", "foo"]);
        assert_eq!((holds(b, "foo"), holds(b, "d/x")), (Some(bytes(11)), Some(bytes(12))));
    });
    run(Odd::CASE, &acts.replace("2000 0", "2000 1"), |a, b| {
        assert_eq!(shown(a), shown(b));
        assert_eq!(a.keys().collect::<Vec<_>>(), ["d", "d/x", "foo"]);
    });
}

#[test]
fn of_two_names_that_are_one_the_one_in_place_stays() {
    let acts = "5 0 write Foo 11\n2000 0 write foo 12\n2500 1 write Foo 13";
    run(Odd::CASE, acts, |a, b| {
        assert_eq!((holds(a, "Foo"), holds(a, "foo")), (Some(bytes(13)), Some(bytes(12))));
        assert_eq!((b.len(), holds(b, "Foo")), (1, Some(bytes(13))));
    });
    // The one in place goes: removed, or moved away, here or there.
    for gone in ["4000 0 remove Foo", "4000 1 remove Foo"] {
        run(Odd::CASE, &format!("{acts}\n{gone}"), |a, b| {
            assert_eq!((holds(a, "foo"), a.len()), (Some(bytes(12)), 1));
            assert_eq!(shown(a), shown(b));
        });
    }
    run(Odd::CASE, &format!("{acts}\n4000 1 move Foo bar"), |a, b| {
        assert_eq!(shown(a), shown(b));
        assert_eq!((holds(b, "bar"), holds(b, "foo")), (Some(bytes(13)), Some(bytes(12))));
    });
}

#[test]
fn names_in_two_forms() {
    let (composed, decomposed) = ("\u{e9}", "e\u{301}");
    let acts = format!("5 0 write {composed} 11\n2000 1 write {decomposed} 12");
    run(Odd::DECOMPOSES, &acts, |a, b| {
        // One file: the bytes of its name are those of who made it.
        assert_eq!((a.len(), holds(a, composed)), (1, Some(bytes(12))));
        assert_eq!((b.len(), holds(b, decomposed)), (1, Some(bytes(12))));
    });
    run(Odd::DECOMPOSES, &format!("{acts}\n4000 0 write {decomposed} 13"), |a, b| {
        assert_eq!((holds(a, composed), holds(a, decomposed)), (Some(bytes(12)), Some(bytes(13))));
        assert_eq!((b.len(), holds(b, decomposed)), (1, Some(bytes(12))));
    });
}

#[test]
fn what_the_disk_drops_stays_elsewhere() {
    let acts =
        "5 0 write a 11\n5 0 chmod a 700\n5 0 touch a 1000001\n3000 1 move a b\n6000 1 stop\n9000 1 start";
    run(Odd::NO_MODES, acts, |a, _| {
        assert!(matches!(a["b"], Thing::File { mode: 0o700, mtime, .. } if mtime.secs == 1_000_001));
    });
    run(Odd::COARSE, acts, |a, b| {
        let secs = |tree: &Tree| match tree["b"] {
            Thing::File { mtime, .. } => mtime.secs,
            _ => 0,
        };
        assert_eq!((secs(a), secs(b)), (1_000_001, 1_000_000));
    });
    run(Odd::NO_LINKS, "5 0 link l nowhere\n9 0 write a 11", |a, b| {
        assert!(matches!(a["l"], Thing::Link(_)) && !b.contains_key("l"));
        assert_eq!(holds(b, "a"), Some(bytes(11)));
    });
}
