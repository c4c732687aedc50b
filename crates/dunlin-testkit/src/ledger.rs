//! Who wrote what, and what may be gone: the judge's book.

use crate::{Node, Tree, contents, history};
use blake3::Hash;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Every content that users wrote on any device, and what became of it by their own hands.
///
/// A content has to be found at the end: in a tree (a conflict copy is in a tree), in a history, or it
/// was let go by a user who had it in hand, on any device, when he replaced or removed it.
#[derive(Debug, Default)]
pub struct Ledger(Mutex<Book>);

#[derive(Debug, Default)]
struct Book {
    /// What may be seen under a visible name.
    announced: BTreeSet<[u8; 32]>,
    /// What was put under a visible name, in this order, by whom.
    written: BTreeMap<[u8; 32], Entry>,
    let_go: BTreeMap<[u8; 32], String>,
    clock: u64,
}

#[derive(Clone, Debug)]
struct Entry {
    at: u64,
    by: String,
    path: String,
    size: u64,
    durable: bool,
}

/// What the ledger found at the end.
#[derive(Clone, Copy, Debug, Default)]
pub struct Found {
    /// Contents written.
    pub written: usize,
    /// Of them in a tree.
    pub in_trees: usize,
    /// Of them in no tree and let go by nobody, but in a history.
    pub only_in_history: usize,
}

impl Ledger {
    /// An empty book.
    pub fn new() -> Ledger {
        Ledger::default()
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A content is about to be put under a visible name.
    pub fn announce(&self, content: Hash) {
        self.book().announced.insert(*content.as_bytes());
    }

    /// These bytes may be seen, whoever puts them there.
    pub fn allow(&self, bytes: &[u8]) {
        self.announce(blake3::hash(bytes));
    }

    /// Whether any user wrote this, or was about to.
    pub fn knows(&self, content: &Hash) -> bool {
        self.book().announced.contains(content.as_bytes())
    }

    /// An announced content is under a visible name now.
    pub fn wrote(&self, content: Hash, size: u64, by: &str, path: &str) {
        let mut book = self.book();
        book.clock += 1;
        let entry = Entry { at: book.clock, by: by.into(), path: path.into(), size, durable: false };
        book.written.insert(*content.as_bytes(), entry);
    }

    /// A user who had this in hand replaced or removed it.
    pub fn let_go(&self, content: Hash, by: &str, how: &str) {
        let mut book = self.book();
        book.clock += 1;
        let line = format!("{how} at {by}, {}", book.clock);
        book.let_go.insert(*content.as_bytes(), line);
    }

    /// Whether a user let this go.
    pub fn gone(&self, content: &[u8; 32]) -> bool {
        self.book().let_go.contains_key(content)
    }

    /// The disk has what it was given so far.
    pub fn durable(&self, content: &Hash) {
        if let Some(entry) = self.book().written.get_mut(content.as_bytes()) {
            entry.durable = true;
        }
    }

    /// The power of a device failed: what it wrote and had not made durable may be gone.
    pub fn power_cut(&self, by: &str) {
        let mut book = self.book();
        let volatile: Vec<[u8; 32]> =
            book.written.iter().filter(|(_, e)| e.by == by && !e.durable).map(|(hash, _)| *hash).collect();
        for hash in volatile {
            book.let_go.insert(hash, format!("power cut at {by}"));
        }
    }

    /// How many contents were written.
    pub fn len(&self) -> usize {
        self.book().written.len()
    }

    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Looks for every content; panics with those that are nowhere, and with those in a tree that nobody wrote.
    pub fn judge(&self, what: &str, trees: &[&Tree], nodes: &[&Node]) -> Found {
        let visible: BTreeSet<[u8; 32]> = trees.iter().flat_map(|tree| contents(tree)).collect();
        let kept: BTreeSet<[u8; 32]> = nodes.iter().flat_map(|node| history(&node.dir)).collect();
        let book = self.book();
        let mut found = Found { written: book.written.len(), ..Found::default() };
        let mut wrong: Vec<(u64, String)> = Vec::new();
        for (hash, entry) in &book.written {
            let gone = book.let_go.contains_key(hash);
            match (visible.contains(hash), kept.contains(hash)) {
                (true, _) => found.in_trees += 1,
                (false, true) => found.only_in_history += usize::from(!gone),
                (false, false) if gone => {}
                (false, false) => wrong.push((entry.at, lost(hash, entry))),
            }
        }
        for hash in visible.iter().filter(|hash| !book.announced.contains(*hash)) {
            wrong.push((0, format!("{} is in a tree, and nobody wrote it", short(hash))));
        }
        wrong.sort();
        let lines: Vec<&str> = wrong.iter().take(12).map(|(_, line)| line.as_str()).collect();
        assert!(wrong.is_empty(), "{what}: {} contents are wrong:\n{}", wrong.len(), lines.join("\n"));
        found
    }
}

fn short(hash: &[u8; 32]) -> String {
    Hash::from(*hash).to_hex()[..12].to_owned()
}

fn lost(hash: &[u8; 32], e: &Entry) -> String {
    format!("lost: {} of {} bytes, written at {} as {}, {}", short(hash), e.size, e.by, e.path, e.at)
}
