//! The index of one folder in a redb file. One writer; any number of snapshots beside it.

mod guard;
mod seal;

use dunlin_core::ids::{DeviceId, FolderId, Incarnation};
use dunlin_core::kv::{Changes, Fault, Pair, Read, Tx, View};
use dunlin_core::rows::Rows;
use foldhash::HashMap;
use guard::guarded;
use redb::{
    CursorError, Database, Durability, ReadOnlyTable, ReadableDatabase, ReadableTable, TableDefinition,
};
use seal::{seal, seal_all, unseal};
use std::cell::RefCell;
use std::ops::Bound;
use std::path::Path;
use std::sync::{PoisonError, RwLock};

const ROWS: TableDefinition<&[u8], &[u8]> = TableDefinition::new("rows");
const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
/// Whose the index is.
const OF: TableDefinition<&str, &[u8]> = TableDefinition::new("of");

/// The number of the index's format; a newer one is refused. Rows of the first had no sums.
pub const SCHEMA: u64 = 2;

/// How much of the index is kept in memory, in bytes.
const CACHE_BYTES: usize = 32 << 20;

/// Why an index could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A newer program wrote it.
    #[error("the index was written by a newer dunlin (format {0})")]
    Newer(u64),
    /// It is damaged: it must be rebuilt by uniting.
    #[error("the index is damaged: {0}")]
    Damaged(String),
    /// The system refused.
    #[error("the index cannot be opened: {0}")]
    Refused(String),
}

impl From<Fault> for OpenError {
    fn from(fault: Fault) -> OpenError {
        if fault.damage { OpenError::Damaged(fault.why) } else { OpenError::Refused(fault.why) }
    }
}

impl From<std::io::Error> for OpenError {
    fn from(e: std::io::Error) -> OpenError {
        OpenError::Refused(e.to_string())
    }
}

/// An index in a redb file.
pub struct Store {
    /// None once it was closed.
    db: RwLock<Option<Database>>,
}

/// A consistent view of an index.
pub struct Snapshot(Box<dyn View + Send>);

impl Snapshot {
    /// Of whatever kind of index.
    pub fn new(view: impl View + Send + 'static) -> Snapshot {
        Snapshot(Box::new(view))
    }
}

impl View for Snapshot {
    fn get(&self, key: &[u8]) -> Read<Option<Vec<u8>>> {
        self.0.get(key)
    }

    fn range(&self, from: &[u8], to: &[u8], limit: usize) -> Read<Vec<Pair>> {
        self.0.range(from, to, limit)
    }
}

/// Where the index of a folder is kept. One writer; any number of snapshots beside it.
pub trait Index: Send + Sync {
    /// The index as it is now.
    fn snapshot(&self) -> Read<Snapshot>;
    /// Commits changes as one; durable when it returns.
    fn commit(&self, changes: Changes) -> Read<()>;
    /// Lets go of the file, whoever still holds this: another handle may open it.
    fn close(&self) {}
}

/// A new index gets an incarnation of its own, and may only unite. `random` has never been used before.
pub fn begin(index: &dyn Index, device: DeviceId, random: [u8; 16]) -> Read<()> {
    let snapshot = index.snapshot()?;
    let mut tx = Tx::new(&snapshot);
    let mut totals = tx.totals()?;
    if totals.inc != Incarnation::default() {
        return Ok(());
    }
    totals.inc = Incarnation::new(device, random);
    totals.uniting = true;
    tx.put_totals(&totals);
    index.commit(tx.into_changes())
}

/// The rows of one snapshot, and what was read of them: the nodes of a batch ask for their directory's again and again.
struct Table {
    rows: ReadOnlyTable<&'static [u8], &'static [u8]>,
    read: RefCell<ReadBefore>,
}

/// At most so many answers are remembered, of so many pairs each.
const REMEMBERED: usize = 1 << 15;
const REMEMBERED_PAIRS: usize = 4;

#[derive(Default)]
struct ReadBefore {
    gets: HashMap<Vec<u8>, Option<Vec<u8>>>,
    ranges: HashMap<(Vec<u8>, Vec<u8>, usize), Vec<Pair>>,
}

fn fault(e: impl Into<redb::Error>) -> Fault {
    use redb::Error::{
        Backend, DatabaseAlreadyOpen, DatabaseClosed, Io, LockPoisoned, PreviousIo, Unsupported,
    };
    match e.into() {
        Io(e) if tells_of_damage(&e) => Fault::damage(e.to_string()),
        Io(e) => Fault::environment(e.to_string()),
        e @ (PreviousIo | DatabaseClosed | DatabaseAlreadyOpen | LockPoisoned(_) | Unsupported
        | Backend(_)) => Fault::environment(e.to_string()),
        e => Fault::damage(e.to_string()),
    }
}

/// Errors that say something of what is in the file. All others (no space, no such device, too many open files)
/// say something of the machine.
fn tells_of_damage(e: &std::io::Error) -> bool {
    use std::io::ErrorKind::{InvalidData, InvalidInput, IsADirectory, UnexpectedEof};
    matches!(e.kind(), InvalidData | InvalidInput | IsADirectory | UnexpectedEof)
}

impl Store {
    /// Opens the index at `path`, creating it where it is missing.
    pub fn open(path: &Path) -> Result<Store, OpenError> {
        let (db, schema) = guarded(|| {
            let mut builder = Database::builder();
            builder.set_cache_size(CACHE_BYTES);
            let db = builder.create(path).map_err(fault)?;
            let schema = Store::prepare(&db)?;
            Ok((db, schema))
        })?;
        let store = Store { db: RwLock::new(Some(db)) };
        if schema > SCHEMA { Err(OpenError::Newer(schema)) } else { Ok(store) }
    }

    /// Notes whose index it is. One that is another folder's, as when files of a backup were mixed up, is as good as damaged:
    /// it must not tell in this one what is in that one.
    pub fn belongs_to(&self, folder: FolderId) -> Read<()> {
        self.with(|db| {
            let of = db.begin_read().map_err(fault)?.open_table(OF).map_err(fault)?;
            match of.get("folder").map_err(fault)? {
                Some(found) if found.value() == folder.0 => Ok(()),
                Some(_) => Err(Fault::damage("it is another folder's")),
                None => {
                    let tx = db.begin_write().map_err(fault)?;
                    tx.open_table(OF).map_err(fault)?.insert("folder", &folder.0[..]).map_err(fault)?;
                    tx.commit().map_err(fault)
                }
            }
        })
    }

    /// Makes the tables of a new index, and brings an older one up to date; returns the schema number.
    fn prepare(db: &Database) -> Read<u64> {
        let tx = db.begin_write().map_err(fault)?;
        let schema = {
            let mut meta = tx.open_table(META).map_err(fault)?;
            let found = meta.get("schema").map_err(fault)?.map(|v| v.value());
            let mut rows = tx.open_table(ROWS).map_err(fault)?;
            if found.is_some_and(|found| found < 2) {
                seal_all(&mut rows)?;
            }
            if found.is_none_or(|found| found < SCHEMA) {
                meta.insert("schema", SCHEMA).map_err(fault)?;
            }
            tx.open_table(OF).map_err(fault)?;
            found.map_or(SCHEMA, |found| found.max(SCHEMA))
        };
        tx.commit().map_err(fault)?;
        Ok(schema)
    }

    fn with<T>(&self, work: impl FnOnce(&Database) -> Read<T>) -> Read<T> {
        let db = self.db.read().unwrap_or_else(PoisonError::into_inner);
        let db = db.as_ref().ok_or_else(|| Fault::environment("closed"))?;
        guarded(|| work(db))
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.close();
    }
}

impl Index for Store {
    fn snapshot(&self) -> Read<Snapshot> {
        self.with(|db| {
            let tx = db.begin_read().map_err(fault)?;
            let rows = tx.open_table(ROWS).map_err(fault)?;
            Ok(Snapshot::new(Table { rows, read: RefCell::default() }))
        })
    }

    fn commit(&self, changes: Changes) -> Read<()> {
        if changes.is_empty() {
            return Ok(());
        }
        self.with(|db| {
            let mut tx = db.begin_write().map_err(fault)?;
            tx.set_durability(Durability::Immediate).map_err(fault)?;
            {
                let mut rows = tx.open_table(ROWS).map_err(fault)?;
                put_all(&mut rows, &changes)?;
            }
            tx.commit().map_err(fault)
        })
    }

    fn close(&self) {
        let db = self.db.write().unwrap_or_else(PoisonError::into_inner).take();
        // What it could not write at its end it had not promised.
        let _ = guarded(|| {
            drop(db);
            Ok(())
        });
    }
}

type RowsTable<'a> = redb::Table<'a, &'static [u8], &'static [u8]>;
type Change<'a> = (&'a [u8], Option<&'a [u8]>);

/// So many bytes alike at the beginning of two keys: one table, and siblings or numbers that follow each other.
const ALIKE: usize = 7;

/// Runs of new rows that lie together are put together, each page that they fill at once.
fn put_all(rows: &mut RowsTable<'_>, changes: &Changes) -> Read<()> {
    let all: Vec<Change<'_>> =
        changes.iter().map(|(key, value)| (key.as_slice(), value.as_deref())).collect();
    let (mut at, mut known, mut sealed) = (0, None, Vec::new());
    while let Some((key, value)) = all.get(at) {
        // Where one row is known already, those beside it are likely to be.
        if begins_run(&all[at..]) && known.is_none_or(|beside| !key.starts_with(beside)) {
            let added = insert_run(rows, &all[at..])?;
            at += added;
            if added > 0 {
                continue;
            }
            known = key.get(..ALIKE);
        }
        match value {
            Some(value) => {
                seal(key, value, &mut sealed);
                rows.insert(*key, sealed.as_slice()).map_err(fault)?
            }
            None => rows.remove(*key).map_err(fault)?,
        };
        at += 1;
    }
    Ok(())
}

/// Whether the first two changes put rows that may well be neighbours.
fn begins_run(changes: &[Change<'_>]) -> bool {
    let [(a, Some(_)), (b, Some(_)), ..] = changes else { return false };
    a.get(..ALIKE).is_some_and(|prefix| b.starts_with(prefix))
}

/// Adds the changes that all belong between the same two rows; returns how many they were.
fn insert_run(rows: &mut RowsTable<'_>, changes: &[Change<'_>]) -> Read<usize> {
    let Some((first, _)) = changes.first() else { return Ok(0) };
    let mut cursor = rows.lower_bound_mut(Bound::Included(*first)).map_err(fault)?;
    let (mut added, mut sealed) = (0, Vec::new());
    for (key, value) in changes {
        let Some(value) = value else { break };
        seal(key, value, &mut sealed);
        match cursor.insert_before(*key, sealed.as_slice()) {
            Ok(()) => added += 1,
            Err(CursorError::UnorderedKey) => break,
            Err(e) => return Err(fault(e)),
        }
    }
    // What was to be added and could not be is told of here: without it there is no commit.
    cursor.close().map_err(fault)?;
    Ok(added)
}

impl View for Table {
    fn get(&self, key: &[u8]) -> Read<Option<Vec<u8>>> {
        if let Some(known) = self.read.borrow().gets.get(key) {
            return Ok(known.clone());
        }
        let value = guarded(|| {
            let found = self.rows.get(key).map_err(fault)?;
            found.map(|sealed| unseal(key, sealed.value())).transpose()
        })?;
        let gets = &mut self.read.borrow_mut().gets;
        if gets.len() >= REMEMBERED {
            gets.clear();
        }
        gets.insert(key.to_vec(), value.clone());
        Ok(value)
    }

    fn range(&self, from: &[u8], to: &[u8], limit: usize) -> Read<Vec<Pair>> {
        if from >= to || limit == 0 {
            return Ok(Vec::new());
        }
        let asked = (from.to_vec(), to.to_vec(), limit);
        if let Some(known) = self.read.borrow().ranges.get(&asked) {
            return Ok(known.clone());
        }
        let pairs = guarded(|| {
            let mut out = Vec::new();
            for pair in self.rows.range::<&[u8]>(from..to).map_err(fault)?.take(limit) {
                let (key, value) = pair.map_err(fault)?;
                out.push((key.value().to_vec(), unseal(key.value(), value.value())?));
            }
            Ok(out)
        })?;
        if pairs.len() <= REMEMBERED_PAIRS {
            let ranges = &mut self.read.borrow_mut().ranges;
            if ranges.len() >= REMEMBERED {
                ranges.clear();
            }
            ranges.insert(asked, pairs.clone());
        }
        Ok(pairs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commits_are_seen_by_later_snapshots_and_survive() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("index.redb");
        let store = Store::open(&path).unwrap();
        let before = store.snapshot().unwrap();
        store
            .commit([(b"a".to_vec(), Some(b"1".to_vec())), (b"b".to_vec(), Some(b"2".to_vec()))].into())
            .unwrap();
        assert_eq!(before.get(b"a").unwrap(), None);
        drop((before, store));
        let store = Store::open(&path).unwrap();
        store.commit([(b"a".to_vec(), None)].into()).unwrap();
        let now = store.snapshot().unwrap();
        assert_eq!(now.range(b"a", b"z", 9).unwrap(), [(b"b".to_vec(), b"2".to_vec())]);
        assert_eq!(now.range(b"z", b"a", 9).unwrap(), []);
    }

    #[test]
    fn damage_is_an_error_and_no_panic() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("index.redb");
        std::fs::write(&path, vec![7; 9000]).unwrap();
        assert!(matches!(Store::open(&path), Err(OpenError::Damaged(_))));
    }

    #[test]
    fn whatever_page_is_damaged_there_is_no_panic() {
        const PAGE: usize = 4096;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("index.redb");
        let rows = |from: u32, with: u8| -> Changes {
            (from..from + 1500).map(|n| (n.to_be_bytes().to_vec(), Some(vec![with; 60]))).collect()
        };
        let whole = Store::open(&path).unwrap();
        whole.commit(rows(0, 1)).unwrap();
        whole.commit(rows(750, 2)).unwrap();
        drop(whole);
        let whole = std::fs::read(&path).unwrap();
        let use_it = || -> Result<(), OpenError> {
            let store = Store::open(&path)?;
            let snapshot = store.snapshot()?;
            snapshot.range(&[0], &[255], usize::MAX)?;
            (0..1500_u32).try_for_each(|n| snapshot.get(&n.to_be_bytes()).map(drop))?;
            store.commit(rows(300, 3))?;
            store.commit(rows(0, 4).into_keys().map(|key| (key, None)).collect())?;
            Ok(())
        };
        let used: Vec<usize> = (0..whole.len())
            .step_by(PAGE)
            .filter(|at| whole[*at..(at + PAGE).min(whole.len())].iter().any(|b| *b != 0))
            .collect();
        let (mut damaged, mut fine) = (0, 0);
        for (n, at) in used.iter().enumerate() {
            for how in 0..3 {
                let mut bytes = whole.clone();
                let end = (at + PAGE).min(bytes.len());
                match how {
                    0 => bytes[*at..end].fill(0),
                    1 => bytes[at + (n * 37) % 64] ^= 1 << (n % 8),
                    _ => bytes[*at..end].fill(0xff),
                }
                std::fs::write(&path, &bytes).unwrap();
                match use_it() {
                    Ok(()) => fine += 1,
                    Err(OpenError::Damaged(_)) => damaged += 1,
                    Err(e) => panic!("page {n}, {how}: {e}"),
                }
            }
        }
        assert!(damaged > used.len() && fine > 0, "{damaged} damaged, {fine} fine");
    }

    #[test]
    fn what_the_machine_refuses_is_no_damage() {
        let errno = |n| fault(redb::StorageError::Io(std::io::Error::from_raw_os_error(n)));
        // ENOSPC, EDQUOT, EIO, EROFS, EMFILE, ENFILE, ENOMEM, EACCES, EPERM, EBUSY, ENODEV, ESTALE
        for n in [28, 122, 5, 30, 24, 23, 12, 13, 1, 16, 19, 116] {
            assert!(!errno(n).damage, "{n}");
        }
        assert!(!fault(redb::StorageError::PreviousIo).damage);
        assert!(fault(redb::StorageError::Corrupted("a page".into())).damage);
        let short = std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
        assert!(fault(redb::StorageError::Io(short)).damage);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("index.redb");
        let _holds = Store::open(&path).unwrap();
        // Somebody still has it: that is no reason to put it aside.
        assert!(matches!(Store::open(&path), Err(OpenError::Refused(_))));
    }

    #[test]
    fn once_closed_it_lets_go_of_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("index.redb");
        let store = Store::open(&path).unwrap();
        let old = store.snapshot().unwrap();
        store.close();
        Store::open(&path).unwrap().commit([(b"a".to_vec(), Some(b"1".to_vec()))].into()).unwrap();
        assert!(store.snapshot().is_err_and(|fault| !fault.damage));
        // What was read before may still answer, as it was; else that is no damage.
        assert!(old.get(b"a").map_or_else(|fault| !fault.damage, |value| value.is_none()));
    }

    #[test]
    fn rows_that_come_together_are_what_was_put() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("index.redb")).unwrap();
        let mut model = std::collections::BTreeMap::new();
        // Numbers of a few places, some again and some removed, so that runs break off at what is there already.
        let mut dice = 7_u64;
        for _ in 0..40 {
            let mut changes = Changes::new();
            for _ in 0..200 {
                dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let (place, n) = (dice >> 40 & 3, dice >> 44 & 0x3ff);
                let key = format!("n-place-{place}-{n:04}").into_bytes();
                changes.insert(key, (dice >> 60 != 0).then(|| dice.to_be_bytes().repeat(5)));
            }
            for (key, value) in &changes {
                match value {
                    Some(value) => model.insert(key.clone(), value.clone()),
                    None => model.remove(key),
                };
            }
            store.commit(changes).unwrap();
        }
        let all = store.snapshot().unwrap().range(b"a", b"z", usize::MAX).unwrap();
        assert_eq!(all, model.into_iter().collect::<Vec<Pair>>());
    }
}
