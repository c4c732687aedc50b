//! The judge notices what it is there for.

use crate::{Dice, Ledger, Node, Poller, User, noise, tree, until};
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

/// A device with a folder, a user and a ledger; nothing runs.
fn place() -> (tempfile::TempDir, Node, User, Arc<Ledger>) {
    let temp = tempfile::tempdir().unwrap();
    let node = Node::new(temp.path(), "a");
    fs::create_dir_all(node.path(".dunlin/history")).unwrap();
    let ledger = Arc::new(Ledger::new());
    let user = User::new("a", &node.dir, &temp.path().join("hands"), ledger.clone(), Dice::new(1, 1));
    (temp, node, user, ledger)
}

/// What the ledger says, if it complains.
fn complaint(ledger: &Ledger, node: &Node) -> Option<String> {
    let judged = catch_unwind(AssertUnwindSafe(|| ledger.judge("judged", &[&tree(&node.dir)], &[node])));
    judged.err().map(|why| why.downcast_ref::<String>().unwrap().clone())
}

#[test]
fn a_content_that_is_nowhere_is_lost_unless_its_user_let_it_go() {
    let (_temp, node, mut user, ledger) = place();
    user.put(&node.path("f"), b"one").unwrap();
    user.put(&node.path("g"), b"other").unwrap();
    assert_eq!(complaint(&ledger, &node), None);
    // Replaced by its user, who had it in hand.
    user.put(&node.path("f"), b"two").unwrap();
    assert_eq!(complaint(&ledger, &node), None);
    // A program kept it, and then not even that.
    fs::rename(node.path("f"), node.path(".dunlin/history/1~f")).unwrap();
    assert_eq!(complaint(&ledger, &node), None);
    fs::remove_file(node.path(".dunlin/history/1~f")).unwrap();
    let said = complaint(&ledger, &node).unwrap();
    assert!(said.contains("1 contents are wrong") && said.contains("3 bytes, written at a as f"), "{said}");
}

#[test]
fn what_nobody_wrote_is_noticed_in_a_tree_and_by_the_poller() {
    let (_temp, node, mut user, ledger) = place();
    let poller = Poller::new(&node.dir, ledger.clone());
    user.put(&node.path("f"), &noise(1, 10_000)).unwrap();
    assert_eq!(complaint(&ledger, &node), None);
    until("it looked", Duration::from_secs(30), || poller.rounds() > 2);
    poller.end();
    let poller = Poller::new(&node.dir, ledger.clone());
    fs::write(node.path("f"), &noise(1, 10_000)[..9_999]).unwrap();
    assert!(complaint(&ledger, &node).unwrap().contains("nobody wrote it"));
    // Seen while it shows, even if all is well at the end.
    until("it looked", Duration::from_secs(30), || poller.rounds() > 2);
    fs::write(node.path("f"), noise(1, 10_000)).unwrap();
    assert_eq!(complaint(&ledger, &node), None);
    assert!(catch_unwind(AssertUnwindSafe(|| poller.end())).is_err());
}

#[test]
fn users_book_all_they_do() {
    let (_temp, node, mut user, ledger) = place();
    for _ in 0..2000 {
        user.act();
    }
    assert_eq!(complaint(&ledger, &node), None);
    assert!(ledger.len() > 300, "{} contents", ledger.len());
    let all = tree(&node.dir);
    assert!(all.len() > 10, "{all:?}");
    // Whatever goes without a user's hand is missed.
    let kept = crate::contents(&all);
    let gone = all.keys().find(|path| node.dir.join(crate::name(path)).is_file()).unwrap();
    fs::remove_file(node.dir.join(crate::name(gone))).unwrap();
    let alone = crate::contents(&tree(&node.dir)).len() < kept.len();
    assert_eq!(complaint(&ledger, &node).is_some(), alone);
}
