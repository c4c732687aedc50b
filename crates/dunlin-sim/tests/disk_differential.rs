//! The model disk against the real one: the same calls, the same answers, the same tree, the same hints.

#![allow(clippy::unwrap_used)]

mod disk_common;

use disk_common::{Op, Pair, UserOp, op};
use dunlin_core::path::RelPath;
use dunlin_node::watch::Hint;
use proptest::prelude::*;
use std::process::Command;

/// Runs all, and compares after each.
fn compare(ops: &[Op]) {
    let mut pair = Pair::new();
    let mut said = Vec::new();
    for op in ops {
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
    }
    let (mut model, mut real) = (Vec::new(), Vec::new());
    pair.model.look(&RelPath::root(), &mut model, pair.dir_links);
    pair.real.look(&RelPath::root(), &mut real, pair.dir_links);
    assert_eq!(model, real, "model, real; after {said:#?}");
}

fn closed(hint: &mut Hint) {
    if let Hint::Entry { writing, .. } = hint {
        *writing = false;
    }
}

/// `PROPTEST_CASES` for more.
fn config() -> ProptestConfig {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(600);
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
    child.args(["--exact", "the_model_does_as_the_real_disk"]).current_dir("/tmp");
    match child.output() {
        Ok(ran) => {
            let text = String::from_utf8_lossy(&ran.stdout);
            assert!(ran.status.success() && text.contains("1 passed"), "{text}{ran:?}");
        }
        Err(e) => eprintln!("SKIPPED: setpriv: {e}"),
    }
}
