//! Versions that become files of their own: each makes one, whatever was made of the same version before.
#![allow(clippy::unwrap_used)]

use crate::common::{Body, Contents, Device, content_id};
use dunlin_core::path::RelPath;
use std::collections::BTreeSet;

fn p(path: &str) -> RelPath {
    RelPath::parse(path.as_bytes()).unwrap()
}

fn contents(all: &[&[u8]]) -> Contents {
    all.iter().map(|bytes| (content_id(bytes), bytes.to_vec())).collect()
}

/// Carries out all that is planned.
fn settle(d: &mut Device, contents: &Contents) {
    for _ in 0..50 {
        let steps = d.plan(&|_| true, 100).steps;
        if steps.is_empty() {
            return;
        }
        let done: Vec<_> = steps
            .into_iter()
            .map(|step| {
                let outcome = d.carry_out(&step, contents);
                (step, outcome)
            })
            .collect();
        d.conclude(&done);
        d.check_needs();
    }
    panic!("it does not end: {:#?}", d.lacking());
}

/// What the files of a device hold, those in the program's own directory not counted.
fn held(d: &Device) -> BTreeSet<Vec<u8>> {
    let body = |path: &RelPath| match &d.disk.inode(path).unwrap().body {
        Body::File(bytes) => Some(bytes.clone()),
        _ => None,
    };
    d.disk.paths().iter().filter_map(body).collect()
}

fn copy_of(d: &Device) -> RelPath {
    d.disk
        .paths()
        .into_iter()
        .find(|path| path.to_bytes() != b"f" && !path.to_string().starts_with('g'))
        .unwrap()
}

/// The version that has the name is deleted elsewhere as somebody here exchanges it with its copy: what was deleted is here again, as a
/// file of its own.
fn exchanged_as_it_was_deleted(here: &mut Device, there: &mut Device, contents: &Contents) {
    there.hear(&here.rows());
    settle(there, contents);
    there.disk.remove(&p("f"));
    there.scan();
    here.hear(&there.rows());
    let copy = copy_of(here);
    assert!(here.disk.exchange(&p("f"), &copy));
    here.scan();
    settle(here, contents);
}

#[test]
fn what_is_made_of_a_version_does_not_replace_what_was_made_of_it_before() {
    let all: [&[u8]; 3] = [b"one", b"two!", b"three"];
    let contents = contents(&all);
    let mut twice = 0;
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let mut devices = ["here", "there", "late"].map(Device::new);
        for (d, i) in devices.iter_mut().zip(order) {
            d.disk.create(&p("f"), Body::File(all[i].to_vec()));
            d.scan();
        }
        let [mut here, mut there, late] = devices;
        here.hear(&there.rows());
        settle(&mut here, &contents);
        exchanged_as_it_was_deleted(&mut here, &mut there, &contents);
        let first = held(&here);
        // What came of it is elsewhere now.
        let copy = copy_of(&here);
        assert!(here.disk.rename(&copy, &p("g")));
        here.scan();
        here.hear(&late.rows());
        settle(&mut here, &contents);
        if held(&here).len() < 3 {
            continue;
        }
        exchanged_as_it_was_deleted(&mut here, &mut there, &contents);
        twice += 1;
        assert_eq!((first.len(), held(&here).len()), (2, 3), "{order:?}: {:#?}", here.listing());
    }
    assert!(twice > 0);
}
