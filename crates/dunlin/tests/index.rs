//! A damaged index that is met while the node runs: put aside and rebuilt by uniting, without a restart.

#![allow(clippy::unwrap_used, reason = "a test")]

use dunlin_core::kv::Tx;
use dunlin_core::rows::Rows;
use dunlin_node::store::{Index, Store};
use dunlin_testkit::*;
use std::fs;
use std::path::PathBuf;

fn state(node: &Node) -> PathBuf {
    fs::read_dir(node.home.join("folders")).unwrap().next().unwrap().unwrap().path()
}

/// Breaks all rows of a kind in the index of a node that does not run.
fn spoil(node: &Node, kind: u8) {
    let store = Store::open(&state(node).join("index.redb")).unwrap();
    let rows = {
        use dunlin_core::kv::View;
        store.snapshot().unwrap().range(&[kind], &[kind + 1], 1000).unwrap()
    };
    assert!(!rows.is_empty());
    store.commit(rows.into_iter().map(|(key, _)| (key, Some(vec![0xff; 3]))).collect()).unwrap();
}

#[test]
fn a_row_that_cannot_be_read_has_the_index_rebuilt_in_the_running_node() {
    // What is on the disk here; and the totals, which are read before the folder is even open.
    for kind in [b'l', b't'] {
        let (_temp, mut a, mut b) = pair();
        for i in 0..20 {
            write(a.path(format!("theirs {i}")), format!("{i}"));
            write(b.path(format!("mine {i}")), format!("{i}"));
        }
        settle("before", &[&a, &b]);
        b.stop();
        spoil(&b, kind);
        write(a.path("new"), b"new");
        b.run();
        let aside = state(&b).join("index.damaged.redb");
        until("it is put aside", PATIENCE, || aside.exists());
        until("it is rebuilt", PATIENCE, || b.connections() == 1);
        let tree = settle("rebuilt", &[&a, &b]);
        assert_eq!((tree.len(), conflicts(&tree)), (41, vec![]));
        assert!(b.lives() && !b.panicked(), "{}", b.errors());
        a.stop();
    }
}

#[test]
fn an_index_whose_rows_do_not_add_up_is_rebuilt_by_who_disagrees_with_others() {
    let (_temp, a, mut b) = pair();
    for i in 0..20 {
        write(a.path(format!("theirs {i}")), format!("{i}"));
        write(b.path(format!("mine {i}")), format!("{i}"));
    }
    settle("before", &[&a, &b]);
    b.stop();
    // Each row can be read, and is what was written; only together they are wrong.
    let store = Store::open(&state(&b).join("index.redb")).unwrap();
    let changes = {
        let snapshot = store.snapshot().unwrap();
        let mut tx = Tx::new(&snapshot);
        let mut totals = tx.totals().unwrap();
        totals.digest[2] ^= 1 << 40;
        tx.put_totals(&totals);
        tx.into_changes()
    };
    store.commit(changes).unwrap();
    drop(store);
    b.run();
    until("it is put aside", PATIENCE, || state(&b).join("index.damaged.redb").exists());
    until("it is rebuilt", PATIENCE, || b.connections() == 1);
    let tree = settle("rebuilt", &[&a, &b]);
    assert_eq!((tree.len(), conflicts(&tree)), (40, vec![]));
    assert!(b.lives() && !b.panicked(), "{}", b.errors());
    assert!(!state(&a).join("index.damaged.redb").exists());
}

#[test]
fn an_index_of_another_folder_is_put_aside() {
    let (_temp, a, mut b) = pair();
    let (_other, c, mut d) = pair();
    write(a.path("ours"), "ours");
    write(c.path("theirs"), "theirs");
    settle("before", &[&a, &b]);
    settle("the others", &[&c, &d]);
    b.stop();
    d.stop();
    fs::copy(state(&d).join("index.redb"), state(&b).join("index.redb")).unwrap();
    write(b.path("meanwhile"), "written meanwhile");
    b.run();
    let aside = state(&b).join("index.damaged.redb");
    until("it is put aside", PATIENCE, || aside.exists());
    let all = settle("rebuilt", &[&a, &b]);
    let names: Vec<String> = all.keys().map(|k| k.escape_ascii().to_string()).collect();
    assert_eq!(names, ["meanwhile", "ours"]);
    // Nothing of it was ever told.
    let applied: Vec<String> = a.events("applied").iter().map(ToString::to_string).collect();
    assert!(applied.iter().any(|e| e.contains("meanwhile")), "{applied:?}");
    assert!(!applied.iter().any(|e| e.contains("theirs")), "{applied:?}");
}
