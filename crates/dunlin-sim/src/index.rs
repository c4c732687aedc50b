//! The index of a device in memory: the real rows, in a store that can be killed, lost and rolled back.

use dunlin_core::kv::{Changes, Fault, Pair, Read, View};
use dunlin_node::store::{Index, Snapshot};
use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Included};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The rows of an index. Each commit leaves the version before to whoever reads it; keys and values are shared
/// by all versions that have them.
#[derive(Clone, Default)]
pub struct Stored(BTreeMap<Arc<[u8]>, Arc<[u8]>>);

impl Stored {
    fn apply(&mut self, changes: Changes) {
        for (key, value) in changes {
            match value {
                Some(value) => self.0.insert(key.into(), value.into()),
                None => self.0.remove(key.as_slice()),
            };
        }
    }
}

impl View for Stored {
    fn get(&self, key: &[u8]) -> Read<Option<Vec<u8>>> {
        Ok(self.0.get(key).map(|value| value.to_vec()))
    }

    fn range(&self, from: &[u8], to: &[u8], limit: usize) -> Read<Vec<Pair>> {
        if from >= to {
            return Ok(Vec::new());
        }
        let pairs = self.0.range::<[u8], _>((Included(from), Excluded(to))).take(limit);
        Ok(pairs.map(|(k, v)| (k.to_vec(), v.to_vec())).collect())
    }
}

#[derive(Default)]
struct Inner {
    rows: Arc<Stored>,
    /// Handles of earlier lives of the program do nothing any more.
    life: u64,
    commits: u64,
    /// Rows that programs looked for or got.
    reads: Arc<AtomicU64>,
    kept: Option<Arc<Stored>>,
    /// The next commit fails, and was made all the same or not.
    fails: Option<bool>,
    /// It failed.
    failed: bool,
}

/// The index of one device, across all lives of its program.
#[derive(Clone)]
pub struct ModelIndex(Arc<Mutex<Inner>>);

/// Told of each commit before it is made: the rows before, and the changes.
type Watch = Box<dyn Fn(&dyn View, &Changes) + Send + Sync>;

/// What one life of the program has of it.
pub struct Handle {
    index: ModelIndex,
    life: u64,
    watch: Watch,
}

struct Shared(Arc<Stored>, Arc<AtomicU64>);

impl View for Shared {
    fn get(&self, key: &[u8]) -> Read<Option<Vec<u8>>> {
        self.1.fetch_add(1, Ordering::Relaxed);
        self.0.get(key)
    }

    fn range(&self, from: &[u8], to: &[u8], limit: usize) -> Read<Vec<Pair>> {
        let pairs = self.0.range(from, to, limit)?;
        self.1.fetch_add(1 + pairs.len() as u64, Ordering::Relaxed);
        Ok(pairs)
    }
}

impl Default for ModelIndex {
    fn default() -> ModelIndex {
        ModelIndex(Arc::new(Mutex::new(Inner::default())))
    }
}

impl ModelIndex {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A handle for the next life of the program; those of earlier ones are dead. `watch` is called with
    /// the rows before and the changes, before each commit.
    pub fn open(&self, watch: impl Fn(&dyn View, &Changes) + Send + Sync + 'static) -> Handle {
        let mut inner = self.inner();
        inner.life += 1;
        Handle { index: self.clone(), life: inner.life, watch: Box::new(watch) }
    }

    /// The program is dead: nothing of it is committed any more.
    pub fn kill(&self) {
        self.inner().life += 1;
    }

    /// The system refuses the next commit (no space, EIO), which was `made` all the same, or not.
    pub fn fail_next(&self, made: bool) {
        self.inner().fails = Some(made);
    }

    /// Whether a commit failed since this was last asked.
    pub fn take_failed(&self) -> bool {
        std::mem::take(&mut self.inner().failed)
    }

    /// The rows as they are now.
    pub fn rows(&self) -> Arc<Stored> {
        self.inner().rows.clone()
    }

    /// How many rows programs looked for or got.
    pub fn reads(&self) -> u64 {
        self.inner().reads.load(Ordering::Relaxed)
    }

    /// How many commits there were.
    pub fn commits(&self) -> u64 {
        self.inner().commits
    }

    /// Loses everything.
    pub fn lose(&self) {
        self.inner().rows = Arc::default();
    }

    /// Takes a backup.
    pub fn keep(&self) {
        let mut inner = self.inner();
        inner.kept = Some(inner.rows.clone());
    }

    /// The backup.
    pub fn kept(&self) -> Option<Arc<Stored>> {
        self.inner().kept.clone()
    }

    /// Is again what it was.
    pub fn bring_back(&self, rows: Arc<Stored>) {
        self.inner().rows = rows;
    }

    /// Goes back to the backup, if there is one.
    pub fn roll_back(&self) -> bool {
        let mut inner = self.inner();
        let Some(kept) = inner.kept.clone() else { return false };
        inner.rows = kept;
        true
    }
}

impl Index for Handle {
    fn snapshot(&self) -> Read<Snapshot> {
        let inner = self.index.inner();
        if inner.life != self.life {
            return Err(Fault::environment("killed"));
        }
        Ok(Snapshot::new(Shared(inner.rows.clone(), inner.reads.clone())))
    }

    fn commit(&self, changes: Changes) -> Read<()> {
        if changes.is_empty() {
            return Ok(());
        }
        let before = self.index.rows();
        (self.watch)(before.as_ref(), &changes);
        drop(before);
        let mut inner = self.index.inner();
        if inner.life != self.life {
            return Err(Fault::environment("killed"));
        }
        let fails = inner.fails.take();
        if fails != Some(false) {
            inner.commits += 1;
            Arc::make_mut(&mut inner.rows).apply(changes);
        }
        if fails.is_none() {
            return Ok(());
        }
        inner.failed = true;
        Err(Fault::environment("no space left on the device of the index"))
    }
}
