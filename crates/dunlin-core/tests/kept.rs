//! Directories that were deleted elsewhere and stay here for what is in them and is not synced.
#![allow(clippy::unwrap_used)]

use crate::common::{Body, Contents, Device, name};
use dunlin_core::ids::ROOT;
use dunlin_core::path::RelPath;
use dunlin_core::plan::{Action, Outcome, Step};
use dunlin_core::rows::{LocalRow, Position, Rows};
use dunlin_core::tree::Work;
use std::collections::BTreeMap;

fn p(path: &str) -> RelPath {
    RelPath::parse(path.as_bytes()).unwrap()
}

/// Carries out all that is planned. Directories of `holding` hold something that is not synced.
fn settle(d: &mut Device, holding: &[&str]) -> Vec<Step> {
    let mut out = Vec::new();
    for _ in 0..50 {
        let steps = d.plan(&|_| true, 100).steps;
        let done: Vec<(Step, Outcome)> = steps
            .into_iter()
            .map(|step| {
                let path = step.path.to_string();
                let stays =
                    |kept: &[dunlin_core::path::Name]| holding.contains(&path.as_str()) || !kept.is_empty();
                let outcome = match &step.action {
                    Action::Remove { kept, .. } if stays(kept) => Outcome::Kept,
                    _ => d.carry_out(&step, &Contents::new()),
                };
                (step, outcome)
            })
            .collect();
        if done.is_empty() {
            return out;
        }
        d.conclude(&done);
        d.check_needs();
        out.extend(done.into_iter().map(|(s, _)| s));
    }
    panic!("it does not end: {:#?}", d.lacking());
}

/// Two devices with `d/sub/deep`; the first has deleted all of it, the second has heard.
fn deleted() -> (Device, Device) {
    let (mut a, mut b) = (Device::new("a"), Device::new("b"));
    for path in ["d", "d/sub", "d/sub/deep"] {
        a.disk.create(&p(path), Body::Dir(BTreeMap::new()));
    }
    a.scan();
    b.hear(&a.rows());
    settle(&mut b, &[]);
    a.disk.remove(&p("d"));
    a.scan();
    b.hear(&a.rows());
    (a, b)
}

fn row(d: &Device, path: &str) -> Option<LocalRow> {
    let (mut dir, mut found) = (ROOT, None);
    for part in path.split('/') {
        let row = d.index.local(&Position::new(dir, name(part.as_bytes()))).unwrap()?;
        dir = row.node;
        found = Some(row);
    }
    found
}

fn retry(d: &mut Device, path: &str) {
    let node = row(d, path).unwrap().node;
    let mut work = Work::new(&d.index);
    work.retry_kept(node).unwrap();
    let changes = work.finish().unwrap();
    d.index.apply(changes);
}

#[test]
fn what_holds_a_kept_directory_is_kept_with_it_and_nobody_is_told() {
    let (_, mut b) = deleted();
    let told = b.rows();
    settle(&mut b, &["d/sub"]);
    assert!(row(&b, "d").unwrap().kept && row(&b, "d/sub").unwrap().kept);
    assert_eq!(row(&b, "d/sub/deep"), None);
    assert_eq!(b.index.totals().unwrap().need_files, 0);
    // A look, and another mode, are no news either.
    b.disk.chmod(&p("d/sub"), 0o700);
    b.scan();
    assert_eq!(b.rows(), told);
    assert!(settle(&mut b, &["d/sub"]).is_empty());

    retry(&mut b, "d/sub");
    assert_eq!(b.index.totals().unwrap().need_files, 1);
    let steps = settle(&mut b, &["d/sub"]);
    assert_eq!(steps.len(), 1, "{steps:#?}");
    assert!(row(&b, "d/sub").unwrap().kept);

    // What was in it is gone: it goes, and what held it.
    retry(&mut b, "d/sub");
    settle(&mut b, &[]);
    assert!(b.disk.paths().is_empty());
    assert_eq!(b.rows(), told);
}

#[test]
fn a_kept_directory_that_gets_a_file_is_one_again() {
    let (mut a, mut b) = deleted();
    settle(&mut b, &["d/sub"]);
    b.disk.create(&p("d/sub/file"), Body::Link(b"text".to_vec()));
    b.scan();
    assert!(!row(&b, "d").unwrap().kept && !row(&b, "d/sub").unwrap().kept);
    assert!(settle(&mut b, &["d/sub"]).is_empty());
    a.hear(&b.rows());
    settle(&mut a, &[]);
    assert_eq!(a.listing().len(), 3, "{:?}", a.listing());
}

#[test]
fn a_kept_directory_made_anew_is_announced() {
    let (mut a, mut b) = deleted();
    settle(&mut b, &["d"]);
    b.disk.remove(&p("d"));
    // Something else takes the inode's number, so that the new directory is another one.
    b.disk.create(&p("other"), Body::Dir(BTreeMap::new()));
    b.disk.create(&p("d"), Body::Dir(BTreeMap::new()));
    b.scan();
    a.hear(&b.rows());
    settle(&mut a, &[]);
    assert_eq!(a.listing(), ["d dir 755", "other dir 755"]);
}

#[test]
fn what_a_kept_directory_is_in_the_way_of_is_named_and_comes_when_it_goes() {
    let (mut a, mut b) = deleted();
    settle(&mut b, &["d"]);
    a.disk.create(&p("d"), Body::Link(b"text".to_vec()));
    a.scan();
    b.hear(&a.rows());
    let plan = b.plan(&|_| true, 100);
    assert!(plan.steps.is_empty());
    assert_eq!(plan.blocked.iter().map(|(_, path)| path.to_string()).collect::<Vec<_>>(), ["d"]);
    assert_eq!(b.index.totals().unwrap().need_files, 1);
    retry(&mut b, "d");
    settle(&mut b, &[]);
    assert_eq!(b.listing(), a.listing());
}
