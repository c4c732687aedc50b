//! Deletes that were carried out and taken back: they count no more.

use super::{file, pair, path, ranges, settle, work};
use dunlin_core::brake::{Brake, Count, Gone, Limits};
use dunlin_core::ids::ROOT;
use dunlin_core::rows::{Position, Rows};
use std::time::Duration;

#[test]
fn what_lives_again_is_no_delete_and_one_of_the_files() {
    let ([mut a, mut b], contents) = pair(10);
    let nodes: Vec<_> = (0..4)
        .map(|i| {
            let at = super::plan_position(&b, &path(&file(i))).unwrap();
            b.index.local(&at).unwrap().unwrap().node
        })
        .collect();
    for i in 0..4 {
        a.disk.remove(&path(&file(i)));
    }
    a.scan();
    b.hear(&a.rows());
    let deletes = ranges(&b);
    settle(&mut b, &contents, true);
    let mut brake = Brake::new(Limits { percent: 50, files: 2, most: None });
    brake.done(Duration::ZERO, &nodes.into_iter().collect::<Gone>(), deletes.iter().copied());
    let count = |brake: &Brake, d: &super::Device, here| {
        brake.too_many(&d.index, &d.index.totals().unwrap(), Duration::from_secs(1), here).unwrap()
    };
    let four_and_two = Count { deletes: 6, of: 10, done: 4, ..Count::default() };
    assert_eq!(count(&brake, &b, 2), Some(four_and_two));

    // Taken back elsewhere; heard of, and not here yet: of ten files some are on their way.
    work(&mut a, |w| w.take_deletes_of_back(&deletes).unwrap());
    settle(&mut a, &contents, true);
    b.hear(&a.rows());
    assert_eq!(count(&brake, &b, 5), None);
    assert_eq!(count(&brake, &b, 6), Some(Count { deletes: 6, of: 10, ..Count::default() }));
    // Back on this disk.
    settle(&mut b, &contents, true);
    assert_eq!(b.index.totals().unwrap().files, 10);
    assert_eq!(count(&brake, &b, 5), None);
    assert_eq!(count(&brake, &b, 6), Some(Count { deletes: 6, of: 10, ..Count::default() }));
    // Deleted once more they count.
    b.disk.remove(&path(&file(1)));
    b.scan();
    assert!(b.index.local(&Position::new(ROOT, super::name(b"1"))).unwrap().is_none());
    assert_eq!(count(&brake, &b, 5), Some(Count { deletes: 6, of: 10, done: 1, ..Count::default() }));
}
