//! One file, three devices that read, write and remove it and rest in any order: many such files side by side.

#![allow(clippy::unwrap_used, reason = "a test")]

use dunlin_testkit::*;
use std::sync::Arc;

/// Files that are worked on at the same time.
const BESIDE: u64 = 50;

/// How many files, each with a history of its own; `ONE_FILE_RUNS=1000` for more.
fn runs() -> u64 {
    std::env::var("ONE_FILE_RUNS").ok().and_then(|n| n.parse().ok()).unwrap_or(100)
}

/// What no user had in hand when he replaced or removed it is in the tree, under the file's name or as a conflict copy,
/// and in a history alone it would be lost to whoever looks.
#[test]
fn only_what_somebody_had_in_hand_is_gone() {
    let temp = tempfile::tempdir().unwrap();
    let base = temp.path().canonicalize().unwrap();
    let [mut a, mut b, mut c] = ["a", "b", "c"].map(|n| Node::new(&base, n));
    b.join(&a.share());
    c.join(&b.invite());
    let nodes = [&a, &b, &c];
    settle("joined", &nodes);
    let ledger = Arc::new(Ledger::new());
    let mut users: Vec<User> = nodes
        .iter()
        .zip(1..)
        .map(|(node, n)| {
            let hands = base.join(format!("hands {n}"));
            User::new(&node.name, &node.dir, &hands, ledger.clone(), Dice::new(n, 0))
        })
        .collect();
    let (mut dice, mut count, mut apart, mut copies) = (Dice::new(7, 0), 0_u64, 0, 0);
    for group in 0..runs().div_ceil(BESIDE) {
        for _ in 0..8 {
            // One that hears nothing for a while edits apart from the others.
            let deaf = dice.one_in(2).then(|| dice.below(3) as usize);
            if let Some(deaf) = deaf {
                nodes[deaf].signal("STOP");
                apart += 1;
            }
            for file in 0..BESIDE {
                let who = dice.below(3) as usize;
                let path = nodes[who].path(format!("{group} {file}"));
                count += 1;
                // To read changes nothing, but is when a change may be seen half-made.
                let _ = match dice.below(10) {
                    0..6 => users[who].put(&path, format!("{count} by {who}").as_bytes()),
                    6..8 => users[who].take(&path),
                    _ => std::fs::read(&path).map(|text| assert!(ledger.knows(&blake3::hash(&text)))),
                };
            }
            if let Some(deaf) = deaf {
                nodes[deaf].signal("CONT");
            }
            if dice.one_in(3) {
                settle_within("between", &nodes, PATIENCE * 2);
            }
        }
        let all = settle_within("after", &nodes, PATIENCE * 2);
        let found = ledger.judge(&format!("group {group}"), &[&all], &nodes);
        assert_eq!(found.only_in_history, 0, "group {group}: {found:?}");
        copies = conflicts(&all).len();
    }
    say(&format!("{} files, {count} acts, {apart} times one was deaf: {copies} conflict copies", runs()));
    assert!(apart > 0 && copies > 0, "they never met");
}
