//! The index of a stopped device is lost or damaged, and both go on.

use super::field::{Field, PATIENCE, heal};
use dunlin_testkit::{Dice, Node, contents, tree};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

type Damage = fn(&Path, &mut Dice);

/// The damage for which the index is kept as it is, and an hour goes by.
const ROLLED_BACK: &str = "rolled back an hour";

/// What happens to it.
const DAMAGES: &[(&str, Damage)] = &[
    ("deleted", |path, _| fs::remove_file(path).expect("an index")),
    ("truncated", |path, dice| {
        let file = open(path);
        file.set_len(dice.below(size(path))).expect("truncated");
    }),
    ("a bit flipped", |path, dice| {
        let (file, at) = (open(path), dice.below(size(path)));
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).expect("read");
        file.write_all_at(&[byte[0] ^ (1 << dice.below(8))], at).expect("written");
    }),
    ("a page zeroed", |path, dice| {
        let page = dice.below(size(path) / 4096) * 4096;
        open(path).write_all_at(&[0; 4096], page).expect("written");
    }),
    ("a used bit flipped", |path, dice| {
        let bytes = fs::read(path).expect("an index");
        let used: Vec<usize> = (0..bytes.len()).filter(|i| bytes[*i] != 0).collect();
        let at = *dice.pick(&used);
        let flipped = [bytes[at] ^ (1 << dice.below(8))];
        open(path).write_all_at(&flipped, at as u64).expect("written");
    }),
    ("emptied", |path, _| open(path).set_len(0).expect("emptied")),
    (ROLLED_BACK, |path, _| fs::rename(kept(path), path).expect("put back")),
];

fn open(path: &Path) -> fs::File {
    fs::File::options().read(true).write(true).open(path).expect("an index")
}

/// Where an older copy of an index waits.
fn kept(index: &Path) -> PathBuf {
    index.with_extension("an hour ago")
}

fn size(path: &Path) -> u64 {
    fs::metadata(path).expect("an index").len()
}

fn index(node: &Node) -> PathBuf {
    let folders = fs::read_dir(node.home.join("folders")).expect("folders");
    let mut all = folders.flatten().map(|entry| entry.path().join("index.redb"));
    all.next().expect("a folder")
}

/// One run: the seed says what happens to the index.
pub fn run(field: &mut Field) -> String {
    let (damage, apply) = DAMAGES[(field.seed.saturating_sub(1) % DAMAGES.len() as u64) as usize];
    let mut nodes: Vec<Node> = ["a", "b"].map(|name| field.node(name)).into();
    field.found(&mut nodes);
    let pollers = field.watch(&nodes);
    field.work(&[&nodes[0], &nodes[1]], 80);
    field.come_to_rest(&[&nodes[0], &nodes[1]]);
    if damage == ROLLED_BACK {
        an_hour(field, &mut nodes);
    }
    nodes[1].stop();
    // Both are worked on meanwhile, but nothing is removed: of what is here then, nothing may go.
    let mut users = [field.user(&nodes[0]), field.user(&nodes[1])];
    for user in &mut users {
        user.gentle = true;
        (0..8).for_each(|_| user.act());
    }
    let mut before = contents(&tree(&nodes[0].dir));
    before.append(&mut contents(&tree(&nodes[1].dir)));
    apply(&index(&nodes[1]), &mut field.dice);
    nodes[1].run();
    let again = until_open(&nodes[1]);
    let done = field.judge(&nodes, pollers);
    let after = contents(&tree(&nodes[0].dir));
    let missing: BTreeSet<_> = before.difference(&after).filter(|c| !field.ledger.gone(c)).collect();
    assert!(missing.is_empty(), "{} contents were removed from the tree", missing.len());
    let aside = index(&nodes[1]).with_extension("damaged.redb").exists();
    format!("{damage}{}{again}, {done}", if aside { ", put aside" } else { "" })
}

/// The index is kept, and all go on: everything is edited, moved and deleted as before, and is in sync.
fn an_hour(field: &Field, nodes: &mut [Node]) {
    nodes[1].stop();
    fs::copy(index(&nodes[1]), kept(&index(&nodes[1]))).expect("a copy");
    nodes[1].run();
    field.work(&[&nodes[0], &nodes[1]], 80);
    field.come_to_rest(&[&nodes[0], &nodes[1]]);
}

/// It opens, or is halted with a word on why, perhaps only as it comes upon the damage.
fn until_open(node: &Node) -> &'static str {
    node.until_connected(1, PATIENCE);
    let waited = node.asks(&["wait", "--timeout", "20"]).0;
    if waited == 0 { "" } else { heal(node) }
}
