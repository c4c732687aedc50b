//! The stores behind one interface: one table of bytes by bytes, durable commits, snapshots.

use crate::work::Changes;
use std::path::Path;

/// What each store may keep in memory of the file, in bytes.
const CACHE: usize = 32 << 20;

pub trait View {
    fn get(&self, key: &[u8]) -> Option<Vec<u8>>;
    /// Reads up to `limit` rows whose keys begin with `prefix`; returns how many there were.
    fn scan(&self, prefix: &[u8], limit: usize) -> usize;
}

pub trait Store {
    /// Commits as one; durable when it returns.
    fn commit(&mut self, changes: &Changes);
    /// Reads from one snapshot.
    fn read(&mut self, f: &mut dyn FnMut(&dyn View));
    fn compact(&mut self);
}

pub fn open(name: &str, dir: &Path) -> Box<dyn Store> {
    match name {
        "redb" => Box::new(Redb::open(dir, false, false)),
        "redb-quick" => Box::new(Redb::open(dir, true, false)),
        "redb-cursor" => Box::new(Redb::open(dir, false, true)),
        "fjall" => Box::new(Fjall::open(dir)),
        "sqlite" => Box::new(Sqlite::open(dir)),
        "none" => Box::new(Nothing),
        _ => panic!("no store is called {name}"),
    }
}

/// The cost of the workload itself.
struct Nothing;

impl Store for Nothing {
    fn commit(&mut self, changes: &Changes) {
        std::hint::black_box(changes);
    }
    fn read(&mut self, f: &mut dyn FnMut(&dyn View)) {
        f(self);
    }
    fn compact(&mut self) {}
}

impl View for Nothing {
    fn get(&self, _: &[u8]) -> Option<Vec<u8>> {
        None
    }
    fn scan(&self, _: &[u8], _: usize) -> usize {
        0
    }
}

type Changed = [(Vec<u8>, Option<Vec<u8>>)];

const ROWS: redb::TableDefinition<&[u8], &[u8]> = redb::TableDefinition::new("rows");

struct Redb {
    db: redb::Database,
    quick: bool,
    cursor: bool,
}

impl Redb {
    fn open(dir: &Path, quick: bool, cursor: bool) -> Redb {
        let mut builder = redb::Database::builder();
        builder.set_cache_size(CACHE);
        let db = builder.create(dir.join("index.redb")).expect("open");
        let tx = db.begin_write().expect("begin");
        tx.open_table(ROWS).expect("table");
        tx.commit().expect("commit");
        Redb { db, quick, cursor }
    }
}

impl Store for Redb {
    fn commit(&mut self, changes: &Changes) {
        let mut tx = self.db.begin_write().expect("begin");
        tx.set_durability(redb::Durability::Immediate).expect("durability");
        tx.set_quick_repair(self.quick);
        {
            let mut rows = tx.open_table(ROWS).expect("table");
            let mut rest = changes.as_slice();
            while let Some(((key, value), after)) = rest.split_first() {
                if self.cursor && alike(rest) {
                    let run = insert_run(&mut rows, rest);
                    rest = &rest[run..];
                    if run > 0 {
                        continue;
                    }
                }
                rest = after;
                match value {
                    Some(value) => rows.insert(key.as_slice(), value.as_slice()).expect("insert"),
                    None => rows.remove(key.as_slice()).expect("remove"),
                };
            }
        }
        tx.commit().expect("commit");
    }

    fn read(&mut self, f: &mut dyn FnMut(&dyn View)) {
        use redb::ReadableDatabase;
        let tx = self.db.begin_read().expect("begin");
        f(&RedbView(tx.open_table(ROWS).expect("table")));
    }

    fn compact(&mut self) {
        self.db.compact().expect("compact");
    }
}

/// Whether the first two changes add rows that may well be neighbours.
fn alike(changes: &Changed) -> bool {
    let [(a, Some(_)), (b, Some(_)), ..] = changes else { return false };
    // A table and six bytes: one directory, or one range of numbers.
    a.len() > 7 && b.len() > 7 && a[..7] == b[..7]
}

/// Adds the changes that all belong between the same two rows; returns how many they were. They fill their
/// pages, where single inserts leave them half empty.
fn insert_run(rows: &mut redb::Table<&'static [u8], &'static [u8]>, changes: &Changed) -> usize {
    let from = std::ops::Bound::Included(changes[0].0.as_slice());
    let mut cursor = rows.lower_bound_mut(from).expect("cursor");
    let mut count = 0;
    for (key, value) in changes {
        let Some(value) = value else { break };
        match cursor.insert_before(key.as_slice(), value.as_slice()) {
            Ok(()) => count += 1,
            Err(redb::CursorError::UnorderedKey) => break,
            Err(e) => panic!("{e}"),
        }
    }
    cursor.close().expect("cursor");
    count
}

struct RedbView(redb::ReadOnlyTable<&'static [u8], &'static [u8]>);

impl View for RedbView {
    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.0.get(key).expect("get").map(|v| v.value().to_vec())
    }

    fn scan(&self, prefix: &[u8], limit: usize) -> usize {
        let rows = self.0.range::<&[u8]>(prefix..).expect("range").take(limit);
        let mut count = 0;
        for row in rows {
            let (key, value) = row.expect("row");
            if !key.value().starts_with(prefix) {
                break;
            }
            std::hint::black_box((key.value().to_vec(), value.value().to_vec()));
            count += 1;
        }
        count
    }
}

struct Fjall {
    db: fjall::Database,
    rows: fjall::Keyspace,
}

impl Fjall {
    fn open(dir: &Path) -> Fjall {
        let db = fjall::Database::builder(dir.join("fjall")).cache_size(CACHE as u64).open().expect("open");
        // A quarter of the default, to keep within the memory that the index may have.
        let options = || fjall::KeyspaceCreateOptions::default().max_memtable_size(16 << 20);
        let rows = db.keyspace("rows", options).expect("keyspace");
        Fjall { db, rows }
    }
}

impl Store for Fjall {
    fn commit(&mut self, changes: &Changes) {
        let mut batch = self.db.batch().durability(Some(fjall::PersistMode::SyncData));
        for (key, value) in changes {
            match value {
                Some(value) => batch.insert(&self.rows, key.as_slice(), value.as_slice()),
                None => batch.remove(&self.rows, key.as_slice()),
            }
        }
        batch.commit().expect("commit");
    }

    fn read(&mut self, f: &mut dyn FnMut(&dyn View)) {
        f(&FjallView { at: self.db.snapshot(), rows: &self.rows });
    }

    fn compact(&mut self) {
        self.rows.major_compact().expect("compact");
    }
}

struct FjallView<'a> {
    at: fjall::Snapshot,
    rows: &'a fjall::Keyspace,
}

impl View for FjallView<'_> {
    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        use fjall::Readable;
        self.at.get(self.rows, key).expect("get").map(|v| v.to_vec())
    }

    fn scan(&self, prefix: &[u8], limit: usize) -> usize {
        use fjall::Readable;
        let mut count = 0;
        for row in self.at.prefix(self.rows, prefix).take(limit) {
            let (key, value) = row.into_inner().expect("row");
            std::hint::black_box((key.to_vec(), value.to_vec()));
            count += 1;
        }
        count
    }
}

struct Sqlite(rusqlite::Connection);

impl Sqlite {
    fn open(dir: &Path) -> Sqlite {
        let db = rusqlite::Connection::open(dir.join("index.sqlite")).expect("open");
        db.execute_batch(&format!(
            "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA cache_size=-{};
             CREATE TABLE IF NOT EXISTS kv (k BLOB PRIMARY KEY, v BLOB NOT NULL) WITHOUT ROWID;",
            CACHE / 1024
        ))
        .expect("prepare");
        Sqlite(db)
    }
}

impl Store for Sqlite {
    fn commit(&mut self, changes: &Changes) {
        let tx = self.0.transaction().expect("begin");
        {
            let mut put = tx.prepare_cached("REPLACE INTO kv VALUES (?1, ?2)").expect("put");
            let mut remove = tx.prepare_cached("DELETE FROM kv WHERE k = ?1").expect("remove");
            for (key, value) in changes {
                match value {
                    Some(value) => put.execute((key.as_slice(), value.as_slice())).expect("put"),
                    None => remove.execute((key.as_slice(),)).expect("remove"),
                };
            }
        }
        tx.commit().expect("commit");
    }

    fn read(&mut self, f: &mut dyn FnMut(&dyn View)) {
        let tx = self.0.transaction().expect("begin");
        f(&SqliteView(&tx));
    }

    fn compact(&mut self) {
        self.0.execute_batch("VACUUM; PRAGMA wal_checkpoint(TRUNCATE);").expect("compact");
    }
}

struct SqliteView<'a>(&'a rusqlite::Connection);

impl View for SqliteView<'_> {
    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        use rusqlite::OptionalExtension;
        let mut get = self.0.prepare_cached("SELECT v FROM kv WHERE k = ?1").expect("get");
        get.query_row([key], |row| row.get(0)).optional().expect("get")
    }

    fn scan(&self, prefix: &[u8], limit: usize) -> usize {
        let mut scan =
            self.0.prepare_cached("SELECT k, v FROM kv WHERE k >= ?1 ORDER BY k LIMIT ?2").expect("scan");
        let mut rows = scan.query((prefix, limit as i64)).expect("scan");
        let mut count = 0;
        while let Some(row) = rows.next().expect("row") {
            let (key, value): (Vec<u8>, Vec<u8>) = (row.get(0).expect("key"), row.get(1).expect("value"));
            if !key.starts_with(prefix) {
                break;
            }
            std::hint::black_box((key, value));
            count += 1;
        }
        count
    }
}
