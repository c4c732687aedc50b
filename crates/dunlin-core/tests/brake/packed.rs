//! A repository of git is packed: what its program put into one file, and deletes, does not count.

use super::young::tell;
use super::{Body, Device, content_id, pair, path, plan_position, settle};
use dunlin_core::brake::{Brake, Limits, absent_files};
use dunlin_core::rows::Rows;
use std::collections::BTreeMap;
use std::time::Duration;

/// Loose objects, beside eight ordinary files.
const OBJECTS: usize = 20;

fn loose(i: usize) -> String {
    format!("git/objects/a{}/{i:038x}", i % 2)
}

/// All of a repository that git deletes as it packs it: loose objects and two references.
fn packable() -> impl Iterator<Item = String> {
    (0..OBJECTS).map(loose).chain(["git/refs/tags/1", "git/refs/tags/x/2"].map(Into::into))
}

fn put(device: &mut Device, at: &str) {
    device.disk.create(&path(at), Body::File(at.as_bytes().to_vec()));
}

/// Two devices that know the same repository.
fn repositories() -> [Device; 2] {
    let ([mut a, mut b], mut contents) = pair(8);
    let dirs = [
        "",
        "/objects",
        "/objects/a0",
        "/objects/a1",
        "/objects/pack",
        "/refs",
        "/refs/tags",
        "/refs/tags/x",
    ];
    for dir in dirs {
        a.disk.create(&path(&format!("git{dir}")), Body::Dir(BTreeMap::new()));
    }
    for file in packable().chain(["git/HEAD".into(), "git/objects/a0/not-of-git".into()]) {
        put(&mut a, &file);
        contents.insert(content_id(file.as_bytes()), file.into_bytes());
    }
    a.scan();
    b.hear(&a.rows());
    settle(&mut b, &contents, true);
    [a, b]
}

fn brake() -> Brake {
    let mut brake = Brake::new(Limits { percent: 50, files: 4, most: None });
    brake.knows(true);
    brake
}

/// What of a device's files is young.
fn young(brake: &Brake, device: &Device) -> Vec<String> {
    let is_young = |at: &String| {
        let at = plan_position(device, &path(at)).unwrap();
        brake.is_young(device.index.local(&at).unwrap().unwrap().node)
    };
    let mut all: Vec<String> = device.disk.paths().iter().map(ToString::to_string).filter(is_young).collect();
    all.sort();
    all
}

fn sorted(all: impl Iterator<Item = String>) -> Vec<String> {
    let mut all: Vec<String> = all.collect();
    all.sort();
    all
}

#[test]
fn what_a_new_pack_may_hold_does_not_count_as_it_goes() {
    let [a, b] = repositories();
    // Written under another name first, for longer than a minute.
    let (mut packs, mut brake) = (a.clone(), brake());
    put(&mut packs, "git/objects/pack/tmp_pack_1");
    packs.scan();
    tell(&mut brake, &a, &packs);
    brake.age(Duration::from_secs(61), false);
    assert_eq!(young(&brake, &packs), Vec::<String>::new());
    let before = packs.clone();
    packs.disk.rename(&path("git/objects/pack/tmp_pack_1"), &path("git/objects/pack/pack-12ab.pack"));
    packs.scan();
    tell(&mut brake, &before, &packs);
    assert_eq!(young(&brake, &packs), sorted(packable()));

    // They are deleted. All else counts as before: of ten files and the pack six are more than half.
    let totals = packs.index.totals().unwrap();
    let gone: Vec<_> = packable().map(|at| plan_position(&packs, &path(&at)).unwrap()).collect();
    let here = absent_files(&packs.index, &brake, &gone).unwrap().living;
    assert_eq!(here, 0);
    let count = |here| brake.too_many(&packs.index, &totals, Duration::from_secs(61), here).unwrap();
    assert_eq!((count(5), count(6).map(|c| (c.deletes, c.of))), (None, Some((6, 11))));

    // Another device hears of it at once.
    let (mut hears, mut there) = (b.clone(), self::brake());
    hears.hear(&packs.rows());
    let news: Vec<_> = packs.rows().iter().map(|(node, _)| *node).collect();
    there.heard(Duration::ZERO, &b.index, &hears.index, &news).unwrap();
    assert_eq!(young(&there, &hears), sorted(packable()));
}

#[test]
fn only_a_pack_where_git_has_them_says_so() {
    let [a, _] = repositories();
    for at in [
        "git/pack-12ab.pack",
        "git/objects/pack/pack-12ab.idx",
        "git/objects/a0/pack-12ab.pack",
        "pack-12ab.pack",
    ] {
        let (mut now, mut brake) = (a.clone(), brake());
        put(&mut now, at);
        now.scan();
        tell(&mut brake, &a, &now);
        assert_eq!(young(&brake, &now), [at]);
    }
    // What was there before says nothing of what is deleted now.
    let (mut packed, mut brake) = (a.clone(), brake());
    put(&mut packed, "git/objects/pack/pack-12ab.pack");
    packed.scan();
    tell(&mut brake, &a, &packed);
    brake.age(Duration::from_secs(61), false);
    assert_eq!(young(&brake, &packed), Vec::<String>::new());
    let before = packed.clone();
    packed.disk.write(&path("git/objects/pack/pack-12ab.pack"), b"edited");
    packed.scan();
    tell(&mut brake, &before, &packed);
    assert_eq!(young(&brake, &packed), Vec::<String>::new());
}
