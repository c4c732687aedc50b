//! The model disk against the real one: the same calls, the same answers, the same tree, the same hints.

#![allow(clippy::unwrap_used)]

use crate::disk_common::{Op, Pair, UserOp, op};
use dunlin_core::path::RelPath;
use dunlin_node::disk::{FileTime, Stat};
use dunlin_node::watch::Hint;
use proptest::prelude::*;
use std::process::Command;

/// Runs all, and compares after each.
fn compare(ops: &[Op]) {
    let mut pair = Pair::new();
    let mut said = Vec::new();
    let mut before = [pair.model.stamps(), pair.real.stamps()];
    for (n, op) in ops.iter().enumerate() {
        pair.model_disk.set_now(FileTime { secs: 2_000_000_000 + n as i64, nanos: 0 });
        let (model, real) = pair.run(op);
        said.push(format!("{op:?} -> {model:?}"));
        assert_eq!(model, real, "model, real; after {said:#?}");
        let (mut model, mut real) = pair.hints();
        if matches!(op, Op::User(UserOp::Truncate(..))) {
            // The model's is the system call by path, which closes nothing; the real side opens a file.
            [&mut model, &mut real].into_iter().flatten().for_each(closed);
        }
        // Within a batch the order says nothing, and differs where the kernel forgets a directory late.
        for hints in [&mut model, &mut real] {
            hints.sort_by_key(|hint| format!("{hint:?}"));
        }
        assert_eq!(model, real, "hints of the model, real; after {said:#?}");
        let after = [pair.model.stamps(), pair.real.stamps()];
        if pair.each_change_stamps {
            let [model, real] = [0, 1].map(|i| changed(&before[i], &after[i]));
            assert_eq!(model, real, "stamps that changed on the model, the real; after {said:#?}");
        }
        before = after;
    }
    let (mut model, mut real) = (Vec::new(), Vec::new());
    pair.model.look(&RelPath::root(), &mut model, pair.dir_links);
    pair.real.look(&RelPath::root(), &mut real, pair.dir_links);
    assert_eq!(model, real, "model, real; after {said:#?}");
}

/// What is still where it was, and whether the times of its inode and of its content changed.
fn changed(before: &[(RelPath, Stat)], after: &[(RelPath, Stat)]) -> Vec<(RelPath, bool, bool)> {
    let was = |path: &RelPath, ino: u64| before.iter().find(|(p, s)| p == path && s.ino == ino);
    let both = |(path, now): &(RelPath, Stat)| {
        let (_, then) = was(path, now.ino)?;
        Some((path.clone(), then.ctime != now.ctime, then.mtime != now.mtime))
    };
    after.iter().filter_map(both).collect()
}

fn closed(hint: &mut Hint) {
    if let Hint::Entry { writing, .. } = hint {
        *writing = false;
    }
}

/// `PROPTEST_CASES` for more.
fn config() -> ProptestConfig {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(500);
    ProptestConfig { cases, max_shrink_iters: 400, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]
    #[test]
    fn the_model_does_as_the_real_disk(ops in prop::collection::vec(op(), 60)) {
        compare(&ops);
    }
}

/// Nothing is forbidden to root, so root runs the same as somebody else too.
#[test]
fn permissions_hinder_alike() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let exe = std::env::current_exe().unwrap();
    let copy = tempfile::Builder::new().prefix("disk-differential").tempfile().unwrap();
    std::fs::copy(&exe, copy.path()).unwrap();
    std::fs::set_permissions(copy.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let path = copy.into_temp_path();
    let mut child = Command::new("setpriv");
    child.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&path);
    child
        .env("PROPTEST_CASES", "150")
        .args(["--exact", "disk_differential::the_model_does_as_the_real_disk"])
        .current_dir("/tmp");
    match child.output() {
        Ok(ran) => {
            let text = String::from_utf8_lossy(&ran.stdout);
            assert!(ran.status.success() && text.contains("1 passed"), "{text}{ran:?}");
        }
        Err(e) => dunlin_testkit::skipped("setpriv", &e.to_string()),
    }
}
