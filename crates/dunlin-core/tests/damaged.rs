//! Files whose bytes are not what they were although nobody wrote to them.
#![allow(clippy::unwrap_used)]

use crate::common;
use common::{Body, Contents, Device, content_id, name};
use dunlin_core::ids::{ContentId, ROOT};
use dunlin_core::observe::{Observation, Seen};
use dunlin_core::path::RelPath;
use dunlin_core::plan::{Action, Step};
use dunlin_core::rows::{LocalRow, Position, Rows};
use dunlin_core::tree::Work;

const GOOD: &[u8] = b"as it was";
const ROTTEN: &[u8] = b"as it wos";

fn at() -> Position {
    Position::new(ROOT, name(b"f"))
}

fn row(d: &Device) -> LocalRow {
    d.index.local(&at()).unwrap().unwrap()
}

fn verified(d: &mut Device, found: ContentId) -> Option<bool> {
    let stamp = row(d).stamp;
    let mut work = Work::new(&d.index);
    let answer = work.verified(&at(), &stamp, found).unwrap();
    let changes = work.finish().unwrap();
    d.index.apply(changes);
    d.check_needs();
    d.check_totals();
    answer
}

/// A device with a file that turned out to be damaged.
fn damaged() -> Device {
    let mut d = Device::new("a");
    d.disk.create(&RelPath::parse(b"f").unwrap(), Body::File(GOOD.to_vec()));
    d.scan();
    assert_eq!(verified(&mut d, content_id(GOOD)), Some(false));
    assert_eq!(d.index.totals().unwrap().need_files, 0);
    assert_eq!(verified(&mut d, content_id(ROTTEN)), Some(true));
    d
}

#[test]
fn damage_is_a_lack_of_this_disk_and_no_edit() {
    let mut d = damaged();
    let totals = d.index.totals().unwrap();
    assert_eq!((totals.need_files, totals.need_bytes), (1, GOOD.len() as u64));
    assert!(d.index.holders(content_id(GOOD)).unwrap().is_empty(), "it is not served, and not copied from");
    let told = d.rows();
    d.scan();
    assert_eq!(d.rows(), told);

    let plan = d.plan(&|_| false, 10);
    assert!(plan.steps.is_empty());
    assert_eq!((plan.fetches[0].content, plan.fetches.len()), (content_id(GOOD), 1));
    assert!(plan.fetches[0].holders.is_empty());

    let steps = d.plan(&|_| true, 10).steps;
    let [Step { action: Action::Place { replaces: Some(stamp), .. }, .. }] = &steps[..] else {
        panic!("{steps:#?}")
    };
    assert_eq!(*stamp, row(&d).stamp);
    let contents = Contents::from([(content_id(GOOD), GOOD.to_vec())]);
    let outcome = d.carry_out(&steps[0], &contents);
    d.conclude(&[(steps[0].clone(), outcome)]);
    assert_eq!(row(&d).damaged, None);
    assert_eq!(d.index.totals().unwrap().need_files, 0);
    assert_eq!(d.index.holders(content_id(GOOD)).unwrap(), [at()]);
    assert_eq!(d.rows(), told);
}

#[test]
fn a_damaged_file_that_is_touched_is_no_edit_of_its_bytes() {
    let mut d = damaged();
    let stamp = dunlin_core::rows::Stamp { ctime: common::time(99), ..row(&d).stamp };
    let content = |d: &Device| {
        let state = d.index.node(row(d).node).unwrap().unwrap().state;
        state.content.entries().iter().map(|(_, c)| c.value.clone()).collect::<Vec<_>>()
    };
    let before = content(&d);
    d.observe(vec![Observation { at: at(), seen: Seen::File(content_id(ROTTEN), 0o600, stamp) }]);
    assert_eq!(content(&d), before);
    let now = row(&d);
    assert_eq!((now.mode, now.stamp, now.damaged), (0o600, stamp, Some(content_id(ROTTEN))));
    assert_eq!(d.index.totals().unwrap().need_files, 1);
}

#[test]
fn a_damaged_file_that_is_written_is_edited_and_one_put_right_is_right() {
    let mut d = damaged();
    d.disk.write(&RelPath::parse(b"f").unwrap(), b"new work");
    d.scan();
    assert_eq!(row(&d).damaged, None);
    assert_eq!(d.index.totals().unwrap().need_files, 0);
    assert_eq!(d.index.holders(content_id(b"new work")).unwrap(), [at()]);

    let mut d = damaged();
    let told = d.rows();
    assert_eq!(verified(&mut d, content_id(GOOD)), Some(false));
    assert_eq!((row(&d).damaged, d.index.totals().unwrap().need_files), (None, 0));
    assert_eq!(d.rows(), told);
}

#[test]
fn what_is_another_file_by_now_is_left_to_the_scan() {
    let mut d = damaged();
    let stale = dunlin_core::rows::Stamp::default();
    let mut work = Work::new(&d.index);
    assert_eq!(work.verified(&at(), &stale, content_id(b"x")).unwrap(), None);
    d.disk.remove(&RelPath::parse(b"f").unwrap());
    d.scan();
    assert_eq!(d.index.totals().unwrap().need_files, 0, "a delete of a damaged file is one");
}
