//! What is young, and neither counts nor hides that older files go.

use super::{Body, Contents, Device, Disk, pair, path, plan_position, remove_all, settle};
use dunlin_core::brake::{Brake, Limits};
use dunlin_core::observe::Observation;
use dunlin_core::path::RelPath;
use dunlin_core::rows::Rows;
use std::collections::BTreeMap;
use std::time::Duration;

/// What was seen on `d` since `before`, as the brake is told of it.
pub fn tell(brake: &mut Brake, before: &Device, d: &Device) {
    let at = |p: &RelPath| plan_position(d, p);
    let all = d.disk.paths();
    let seen: Vec<Observation> =
        all.iter().filter_map(|p| Some(Observation { at: at(p)?, seen: d.disk.seen(p) })).collect();
    brake.saw(Duration::ZERO, &before.index, &d.index, &seen).unwrap();
}

#[test]
fn what_appears_on_the_disk_is_young_if_it_was_nowhere_before() {
    let ([a, _], _) = pair(6);
    let young = |act: &dyn Fn(&mut Disk), known: bool| {
        let (mut brake, mut now) = (Brake::new(Limits::default()), a.clone());
        brake.knows(known);
        act(&mut now.disk);
        now.scan();
        tell(&mut brake, &a, &now);
        let is_young = |p: &RelPath| {
            let row = now.index.local(&plan_position(&now, p).unwrap()).unwrap().unwrap();
            brake.is_young(row.node)
        };
        now.disk.paths().iter().filter(|p| is_young(p)).map(ToString::to_string).collect::<Vec<_>>()
    };
    let make = |disk: &mut Disk| {
        disk.create(&path("d/new"), Body::File(b"new".to_vec()));
        disk.create(&path("link"), Body::Link(b"1".to_vec()));
        disk.create(&path("dir"), Body::Dir(BTreeMap::new()));
    };
    assert_eq!(young(&make, true), ["link", "d/new"]);
    // While it is not known what there was, nothing is.
    assert_eq!(young(&make, false), Vec::<String>::new());
    let others: [&dyn Fn(&mut Disk); 3] = [
        &|disk| disk.write(&path("1"), b"edited"),
        &|disk| assert!(disk.rename(&path("d"), &path("empty/d"))),
        &|disk| assert!(disk.rename(&path("1"), &path("d/1"))),
    ];
    others.iter().for_each(|act| assert_eq!(young(act, true), Vec::<String>::new()));
    // Deleted and made again it is another life.
    let again = |disk: &mut Disk| {
        disk.remove(&path("1"));
        disk.create(&path("1"), Body::File(b"again".to_vec()));
    };
    assert_eq!(young(&again, true), Vec::<String>::new(), "an edit, as far as can be seen");
}

#[test]
fn what_is_met_again_before_it_is_removed_is_as_old_as_it_was() {
    let ([mut a, mut b], _) = pair(6);
    remove_all(&mut a);
    b.hear(&a.rows());
    let (before, mut brake) = (b.clone(), Brake::new(Limits::default()));
    brake.knows(true);
    // Its removal failed halfway: it was taken out and put back.
    let seen = b.disk.seen(&path("1"));
    let at = plan_position(&b, &path("1")).unwrap();
    let met = [Observation { at: at.clone(), seen }];
    brake.saw(Duration::ZERO, &before.index, &b.index, &met).unwrap();
    assert!(!brake.is_young(b.index.local(&at).unwrap().unwrap().node));
}

#[test]
fn what_is_heard_of_is_young_if_nothing_was_known_of_it() {
    let ([mut a, b], _) = pair(4);
    a.disk.create(&path("new"), Body::File(b"new".to_vec()));
    a.disk.write(&path("1"), b"edited");
    a.scan();
    let rows = a.rows();
    let news: Vec<_> = rows.iter().map(|(node, _)| *node).collect();
    let node = |p: &str| a.index.local(&plan_position(&a, &path(p)).unwrap()).unwrap().unwrap().node;
    for known in [false, true] {
        let mut brake = Brake::new(Limits::default());
        brake.knows(known);
        let mut after = b.clone();
        after.hear(&rows);
        brake.heard(Duration::ZERO, &b.index, &after.index, &news).unwrap();
        assert_eq!((brake.is_young(node("new")), brake.is_young(node("1"))), (known, false));
    }
}

#[test]
fn young_files_neither_trip_it_nor_hide_that_older_ones_go() {
    let ([a, mut b], _) = pair(8);
    let limits = Limits { percent: 50, files: 4, most: None };
    let before = a.clone();
    let mut a = a;
    for i in 0..20 {
        a.disk.create(&path(&format!("newdir{i}")), Body::Dir(BTreeMap::new()));
        a.disk.create(&path(&format!("new{i}")), Body::File(format!("new {i}").into_bytes()));
    }
    a.scan();
    let mut brake = Brake::new(limits);
    brake.knows(true);
    tell(&mut brake, &before, &a);
    // 4 of 8 old files are just half of those, and 5 are more; whatever else there is.
    let count = |here| brake.too_many(&a.index, &a.index.totals().unwrap(), Duration::ZERO, here).unwrap();
    assert_eq!(count(4), None);
    assert_eq!(count(5).map(|c| (c.deletes, c.of)), Some((5, 8)));
    // Where they were heard of and are not there yet, they are none of the files either.
    b.hear(&a.rows());
    let mut brake = Brake::new(limits);
    brake.knows(true);
    let news: Vec<_> = a.rows().iter().map(|(node, _)| *node).collect();
    brake.heard(Duration::ZERO, &pair(8).0[1].index, &b.index, &news).unwrap();
    let totals = b.index.totals().unwrap();
    assert_eq!(brake.too_many(&b.index, &totals, Duration::ZERO, 4).unwrap(), None);
    assert!(brake.too_many(&b.index, &totals, Duration::ZERO, 5).unwrap().is_some());
    // Nor are directories, once they are there.
    settle(&mut b, &Contents::new(), true);
    assert_eq!(brake.too_many(&b.index, &b.index.totals().unwrap(), Duration::ZERO, 4).unwrap(), None);
}
