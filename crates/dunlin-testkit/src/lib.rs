//! What tests and campaigns share: real nodes as processes of the program, each with a state directory
//! of its own, that end with the test however that ends; and a comparison of their trees.
//!
//! What fails panics, as in a test.

#![allow(clippy::unwrap_used, reason = "for tests")]

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime};

mod bad_switch;
pub mod conflicts;
mod dice;
#[cfg(test)]
mod judge_tests;
mod lan;
mod ledger;
mod mounts;
mod node;
mod poller;
mod skip;
mod tree;
mod users;

pub use bad_switch::BadSwitch;
pub use dice::Dice;
pub use lan::{Lan, in_netns};
pub use ledger::{Found, Ledger};
pub use mounts::{Journal, Mount, no_mounts, no_power_cuts, unmount};
pub use node::Node;
pub use poller::Poller;
pub use skip::{can, has_time, say, skipped};
pub use tree::{Thing, Tree, conflicts, contents, differences, history, link_content, tree};
pub use users::{Crowd, User};

/// What a slow machine may take for what takes a fast one no time.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Asks again and again until `done`; panics with `what` if it is not in time. Returns how long it took.
pub fn until(what: &str, limit: Duration, mut done: impl FnMut() -> bool) -> Duration {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < limit, "{what}: not within {limit:?}");
        std::thread::sleep(Duration::from_millis(2));
    }
    begun.elapsed()
}

static PROGRAM: OnceLock<PathBuf> = OnceLock::new();

/// From now on this is the program; the first one named counts.
pub fn use_program(path: PathBuf) {
    let _ = PROGRAM.set(path);
}

/// The program: what was named, else what was built with the running test.
pub fn program() -> PathBuf {
    if let Some(named) = PROGRAM.get() {
        return named.clone();
    }
    let me = std::env::current_exe().unwrap();
    // Tests are one directory below.
    let mut near = me.ancestors().skip(1).take(2).map(|dir| dir.join("dunlin"));
    near.find(|path| path.is_file()).unwrap_or_else(|| panic!("no dunlin is built near {}", me.display()))
}

/// Exit code, output and errors of a command.
pub fn told(output: Output) -> (i32, String, String) {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
}

/// All connected and in sync by their own words, and then at once identical on the disk.
pub fn settle(what: &str, nodes: &[&Node]) -> Tree {
    for node in nodes {
        node.until_connected(nodes.len() - 1, PATIENCE);
    }
    for node in nodes {
        // A connection may break in between, and be made anew: who is not connected is not waited for otherwise.
        node.wait_for_copies(nodes.len());
    }
    identical(what, nodes)
}

/// The same with more patience, for machines that are busy with much else, and with the words of all if
/// they do not come to rest. Deletes that are held are accepted.
pub fn settle_within(what: &str, nodes: &[&Node], limit: Duration) -> Tree {
    for node in nodes {
        node.until_connected(nodes.len() - 1, limit);
    }
    for node in nodes {
        let begun = Instant::now();
        let (code, err) = loop {
            // What users at work deleted they meant, though it may be too much for the brake.
            if nodes.iter().any(|node| accept(node)) {
                continue;
            }
            let (code, _, err) = node.asks(&["wait", "--timeout", "5"]);
            if code == 0 || begun.elapsed() > limit {
                break (code, err);
            }
        };
        if code != 0 {
            let all = nodes.iter().map(|node| format!("{}: {:#}", node.name, node.folder()));
            panic!("{what}: wait of {}: {err}{}", node.name, all.collect::<Vec<_>>().join("\n"));
        }
    }
    identical(what, nodes)
}

/// Accepts the deletes that the brake of a device holds, if it holds any.
pub fn accept(node: &Node) -> bool {
    if node.folder()["state"] != "halted" {
        return false;
    }
    let (code, _, err) = node.asks(&["resume", "--accept"]);
    if code != 0 {
        eprintln!("{}: {err}", node.name);
    }
    code == 0
}

/// Two nodes that have joined and are in sync.
pub fn pair() -> (tempfile::TempDir, Node, Node) {
    let temp = tempfile::tempdir().unwrap();
    let base = temp.path().canonicalize().unwrap();
    let [mut a, mut b] = ["a", "b"].map(|n| Node::new(&base, n));
    b.join(&a.share());
    settle("joined", &[&a, &b]);
    (temp, a, b)
}

/// Identical on the disk, now.
pub fn identical(what: &str, nodes: &[&Node]) -> Tree {
    let first = tree(&nodes[0].dir);
    for other in &nodes[1..] {
        let different = differences(&first, &tree(&other.dir));
        if different.is_empty() {
            continue;
        }
        // Whether they become alike later tells a lie of `wait` from a divergence.
        let begun = Instant::now();
        let alike = loop {
            if tree(&nodes[0].dir) == tree(&other.dir) {
                break format!("alike {:?} later", begun.elapsed());
            }
            if begun.elapsed() > Duration::from_secs(5) {
                break "for good".to_owned();
            }
        };
        panic!(
            "{what}: {} and {} differ although in sync ({alike}):\n{}\n{:#}\n{:#}",
            nodes[0].name,
            other.name,
            different.join("\n"),
            nodes[0].folder(),
            other.folder()
        );
    }
    first
}

/// Writes a file, in place.
pub fn write(path: impl AsRef<Path>, text: impl AsRef<[u8]>) {
    fs::write(&path, text).unwrap_or_else(|e| panic!("{}: {e}", path.as_ref().display()));
}

/// These bytes are under this name on all of them: two trees that both lack them are alike, too.
#[track_caller]
pub fn all_hold(nodes: &[&Node], path: &str, bytes: &[u8]) {
    for node in nodes {
        let found = fs::read(node.path(path));
        let as_it_should = found.as_ref().is_ok_and(|found| found == bytes);
        assert!(
            as_it_should,
            "{path} at {}: {:?} bytes of {}",
            node.name,
            found.map(|b| b.len()),
            bytes.len()
        );
    }
}

/// A path of any bytes.
pub fn name(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}

/// Bytes that no compression and no luck makes alike.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut out);
    out
}

/// Sets a modification time.
pub fn set_mtime(path: &Path, secs: i64, nanos: u32) {
    let at = if secs >= 0 {
        SystemTime::UNIX_EPOCH + Duration::new(secs.unsigned_abs(), nanos)
    } else {
        SystemTime::UNIX_EPOCH - Duration::from_secs(secs.unsigned_abs()) + Duration::new(0, nanos)
    };
    fs::File::open(path).unwrap().set_modified(at).unwrap();
}

/// Sets mode bits.
pub fn set_mode(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Whether this may mount and make namespaces.
pub fn is_root() -> bool {
    fs::metadata("/proc/self").unwrap().uid() == 0
}
