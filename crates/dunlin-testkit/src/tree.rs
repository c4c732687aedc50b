//! What a folder holds, as far as devices keep it identical.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// What a path is, as far as devices keep it identical.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Thing {
    /// A directory.
    Dir {
        /// Its bits, as far as they are kept.
        mode: u32,
    },
    /// A file.
    File {
        /// Its bits, as far as they are kept.
        mode: u32,
        /// Seconds and nanoseconds.
        mtime: (i64, i64),
        /// In bytes.
        size: u64,
        /// BLAKE3 of its bytes.
        hash: blake3::Hash,
    },
    /// A symbolic link.
    Link {
        /// Where it leads, as written.
        text: Vec<u8>,
    },
}

/// Things by their paths below a root.
pub type Tree = BTreeMap<Vec<u8>, Thing>;

/// Everything below `root`, but what is dunlin's and what is left alone.
pub fn tree(root: &Path) -> Tree {
    let mut out = Tree::new();
    collect(root, &[], &mut out);
    out
}

fn collect(dir: &Path, prefix: &[u8], out: &mut Tree) {
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let name = entry.file_name().into_vec();
        if prefix.is_empty() && name == b".dunlin" {
            continue;
        }
        let path = [prefix, &name].concat();
        let meta = match fs::symlink_metadata(entry.path()) {
            // It went since the directory was listed.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
            meta => meta.unwrap(),
        };
        let mode = meta.mode() & 0o777;
        if meta.is_dir() {
            collect(&entry.path(), &[&path[..], b"/"].concat(), out);
            out.insert(path, Thing::Dir { mode });
        } else if meta.is_symlink() {
            out.insert(
                path,
                Thing::Link { text: fs::read_link(entry.path()).unwrap().into_os_string().into_vec() },
            );
        } else if meta.is_file() {
            let mut file = match fs::File::open(entry.path()) {
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
                file => file.unwrap(),
            };
            let hash = hash_of(&mut file).unwrap();
            let mtime = (meta.mtime(), meta.mtime_nsec());
            out.insert(path, Thing::File { mode, mtime, size: meta.len(), hash });
        }
    }
}

/// The hash of all that can be read.
pub(crate) fn hash_of(file: &mut fs::File) -> std::io::Result<blake3::Hash> {
    let (mut hasher, mut buffer) = (blake3::Hasher::new(), vec![0; 1 << 16]);
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hasher.finalize()),
            n => hasher.update(&buffer[..n]),
        };
    }
}

/// The differences of two trees, as lines; a few of them.
pub fn differences(a: &Tree, b: &Tree) -> Vec<String> {
    let paths: BTreeSet<&Vec<u8>> = a.keys().chain(b.keys()).collect();
    let differ = paths.into_iter().filter(|p| a.get(*p) != b.get(*p));
    let line = |p: &Vec<u8>| format!("{}: {:?} | {:?}", p.escape_ascii(), a.get(p), b.get(p));
    differ.take(12).map(line).collect()
}

/// The files whose name holds `conflict`, in a tree.
pub fn conflicts(tree: &Tree) -> Vec<String> {
    let is = |p: &&Vec<u8>| p.windows(8).any(|w| w == b"conflict");
    tree.keys().filter(is).map(|p| p.escape_ascii().to_string()).collect()
}

/// The contents in a tree: of files by their bytes, of links by their texts.
pub fn contents(tree: &Tree) -> BTreeSet<[u8; 32]> {
    let content = |thing: &Thing| match thing {
        Thing::File { hash, .. } => Some(*hash.as_bytes()),
        Thing::Link { text } => Some(*link_content(text).as_bytes()),
        Thing::Dir { .. } => None,
    };
    tree.values().filter_map(content).collect()
}

/// What a link counts as where contents are counted; no file has these bytes.
pub fn link_content(text: &[u8]) -> blake3::Hash {
    blake3::Hasher::new_derive_key("dunlin testkit link").update(text).finalize()
}

/// The contents in the history of a folder.
pub fn history(root: &Path) -> BTreeSet<[u8; 32]> {
    let history = root.join(".dunlin/history");
    if history.is_dir() { contents(&tree(&history)) } else { BTreeSet::new() }
}
