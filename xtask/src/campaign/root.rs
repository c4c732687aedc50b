//! The root of a device goes away or is something else for a while, as it runs or while it is stopped.
//!
//! Not among them: a root that is emptied and keeps its marker, which is a user's mass delete and the brake's; and
//! one that is replaced for good, which `crates/dunlin/tests/roots.rs` tries.

use super::field::Field;
use dunlin_testkit::Mount;
use dunlin_testkit::{Node, Tree, differences, tree, until, write};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What happens to the root. The directory itself waits beside it, except where something hides it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    Gone,
    Empty,
    OtherDirectory,
    LinkToOther,
    File,
    MountedOver,
    Unmounted,
    MarkerGone,
}

const TROUBLES: [Trouble; 8] = [
    Trouble::Gone,
    Trouble::Empty,
    Trouble::OtherDirectory,
    Trouble::LinkToOther,
    Trouble::File,
    Trouble::MountedOver,
    Trouble::Unmounted,
    Trouble::MarkerGone,
];

/// What lies in a directory that is not the folder's.
const OTHER: &[u8] = b"of another directory";

/// One run: the seed says what happens, and whether the node runs meanwhile.
pub fn run(field: &mut Field) -> String {
    let nth = field.seed.saturating_sub(1);
    let (trouble, running) = (TROUBLES[(nth % 8) as usize], (nth / 8).is_multiple_of(2));
    // Its root is an own file system or lies in one, so that it can be unmounted.
    let place = field.base().join("disk");
    // It may be seen where the root was; that it is taken for the folder's is looked at below.
    field.ledger.allow(OTHER);
    let image = field.base().join("image");
    let disk = (trouble == Trouble::Unmounted).then(|| Mount::ext4(&image, &place, 64, "noatime"));
    fs::create_dir_all(&place).expect("a directory");
    let mut nodes = vec![field.node("a"), field.node("b")];
    nodes[1].dir = place.join("b");
    field.found(&mut nodes);
    let pollers = field.watch(&nodes);
    field.work(&[&nodes[0], &nodes[1]], 60);
    field.come_to_rest(&[&nodes[0], &nodes[1]]);
    if !running {
        nodes[1].stop();
    }
    let over = break_root(&nodes[1], trouble, disk.as_ref());
    let mut user = field.user(&nodes[0]);
    user.gentle = true;
    (0..10).for_each(|_| user.act());
    let expected = rested(&nodes[0]);
    if !running {
        nodes[1].run();
    }
    let halted = || {
        let (code, out, _) = nodes[1].asks(&["status", "--json"]);
        code == 0 && out.contains("\"state\":\"halted\"") || out.contains("\"state\": \"halted\"")
    };
    until("it says that it is halted", Duration::from_secs(30), halted);
    // Two looks at the marker later nothing left it either.
    std::thread::sleep(Duration::from_millis(1500));
    let different = differences(&expected, &tree(&nodes[0].dir));
    assert!(different.is_empty(), "{trouble:?}: something left a halted device: {different:?}");
    nothing_came(&nodes[1].dir, trouble);
    mend_root(&nodes[1], trouble, over, disk.as_ref());
    until("it goes on by itself", Duration::from_secs(30), || !halted());
    let done = field.judge(&nodes, pollers);
    assert!(!nodes[0].path("other").exists(), "{trouble:?}: what is not the folder's was spread");
    nodes.clear();
    let when = if running { "running" } else { "stopped" };
    format!("{trouble:?} while {when}, {done}")
}

/// The tree of a node once it has carried out what its own user's changes ask for, as the mode of a conflict copy.
fn rested(node: &Node) -> Tree {
    let mut last = tree(&node.dir);
    until("it rests", Duration::from_secs(30), || {
        std::thread::sleep(Duration::from_millis(1000));
        let now = tree(&node.dir);
        std::mem::replace(&mut last, now.clone()) == now
    });
    last
}

fn away(root: &Path) -> PathBuf {
    root.with_extension("away")
}

fn break_root(node: &Node, trouble: Trouble, disk: Option<&Mount>) -> Option<Mount> {
    let (root, other) = (&node.dir, node.dir.with_extension("other"));
    let vacate = || fs::rename(root, away(root)).expect("moved away");
    match trouble {
        Trouble::Gone => vacate(),
        Trouble::Empty => {
            vacate();
            fs::create_dir(root).expect("an empty root");
        }
        Trouble::OtherDirectory => {
            fs::create_dir(&other).expect("another directory");
            write(other.join("other"), OTHER);
            vacate();
            // Whole as it comes: what shows is looked at all the time.
            fs::rename(&other, root).expect("another root");
        }
        Trouble::LinkToOther => {
            vacate();
            fs::create_dir(&other).expect("another directory");
            write(other.join("other"), OTHER);
            symlink(&other, root).expect("a link");
        }
        Trouble::File => {
            vacate();
            write(root, "a file");
        }
        Trouble::MountedOver => return Some(Mount::memory(root, "size=4m")),
        Trouble::Unmounted => disk.expect("a disk").detach(),
        Trouble::MarkerGone => {
            fs::rename(root.join(".dunlin/folder"), away(root)).expect("the marker");
            for entry in fs::read_dir(root).expect("a root").flatten() {
                if entry.file_name() != ".dunlin" {
                    fs::rename(entry.path(), away_entry(root, &entry)).expect("emptied");
                }
            }
        }
    }
    None
}

/// Where a thing of the root waits.
fn away_entry(root: &Path, entry: &fs::DirEntry) -> PathBuf {
    let kept = root.with_extension("kept");
    fs::create_dir_all(&kept).expect("a directory");
    kept.join(entry.file_name())
}

/// Nothing was put where the folder is not.
fn nothing_came(root: &Path, trouble: Trouble) {
    let expected: &[&str] = match trouble {
        Trouble::Empty | Trouble::MountedOver => &[],
        Trouble::OtherDirectory | Trouble::LinkToOther => &["other"],
        Trouble::MarkerGone => &[".dunlin"],
        Trouble::Gone | Trouble::File | Trouble::Unmounted => {
            assert!(fs::read_dir(root).is_err(), "{trouble:?}: a directory was made");
            return;
        }
    };
    let names = fs::read_dir(root).expect("a directory").flatten().map(|e| e.file_name());
    let names: Vec<String> = names.map(|n| n.to_string_lossy().into_owned()).collect();
    assert_eq!(names, expected, "{trouble:?}: something was put there");
}

fn mend_root(node: &Node, trouble: Trouble, over: Option<Mount>, disk: Option<&Mount>) {
    let root = &node.dir;
    match trouble {
        Trouble::Gone => {}
        Trouble::Empty | Trouble::OtherDirectory => fs::remove_dir_all(root).expect("removed"),
        Trouble::LinkToOther | Trouble::File => fs::remove_file(root).expect("removed"),
        Trouble::MountedOver => return drop(over),
        Trouble::Unmounted => return disk.expect("a disk").mount("noatime"),
        Trouble::MarkerGone => {
            for entry in fs::read_dir(root.with_extension("kept")).into_iter().flatten().flatten() {
                fs::rename(entry.path(), root.join(entry.file_name())).expect("put back");
            }
            return fs::rename(away(root), root.join(".dunlin/folder")).expect("the marker");
        }
    }
    fs::rename(away(root), root).expect("moved back");
}
