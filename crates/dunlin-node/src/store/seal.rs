//! What each row of an index ends with, so that one of which a bit flipped is not taken for what was written.

use super::{RowsTable, fault};
use dunlin_core::kv::{Fault, Pair, Read};
use redb::ReadableTable;

/// What a row's bytes end with: CRC-32 of its key and them, big endian. Neither is served or told of if it does not fit.
const SUM: usize = 4;

fn sum(key: &[u8], value: &[u8]) -> [u8; SUM] {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(key);
    hasher.update(value);
    hasher.finalize().to_be_bytes()
}

pub(super) fn seal(key: &[u8], value: &[u8], sealed: &mut Vec<u8>) {
    sealed.clear();
    sealed.extend_from_slice(value);
    sealed.extend_from_slice(&sum(key, value));
}

pub(super) fn unseal(key: &[u8], sealed: &[u8]) -> Read<Vec<u8>> {
    match sealed.split_last_chunk::<SUM>() {
        Some((value, found)) if *found == sum(key, value) => Ok(value.to_vec()),
        _ => Err(Fault::damage("a row is not what was written")),
    }
}

/// Rows that are given their sums at a time.
const PAGE: usize = 4096;

/// Gives all rows their sums.
pub(super) fn seal_all(rows: &mut RowsTable<'_>) -> Read<()> {
    let (mut from, mut sealed) = (Vec::new(), Vec::new());
    loop {
        let page = rows.range::<&[u8]>(from.as_slice()..).map_err(fault)?.take(PAGE);
        let page = page.map(|pair| pair.map(|(key, value)| (key.value().to_vec(), value.value().to_vec())));
        let page = page.collect::<Result<Vec<Pair>, _>>().map_err(fault)?;
        let Some((last, _)) = page.last() else { return Ok(()) };
        from.clone_from(last);
        from.push(0);
        for (key, value) in &page {
            seal(key, value, &mut sealed);
            rows.insert(key.as_slice(), sealed.as_slice()).map_err(fault)?;
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::store::{Index, META, OpenError, ROWS, Store};
    use dunlin_core::kv::{Changes, Pair, View};
    use redb::Database;

    /// Rows that differ from each other, as an index has them.
    fn some_rows() -> Changes {
        let row = |n: u32| (format!("n{n:08}").into_bytes(), Some(n.to_be_bytes().repeat(9)));
        (0..600).map(row).collect()
    }

    #[test]
    fn whatever_bit_flips_no_row_is_served_that_was_not_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("index.redb");
        let rows = some_rows();
        let store = Store::open(&path).unwrap();
        store.commit(rows.clone()).unwrap();
        drop(store);
        let whole = std::fs::read(&path).unwrap();
        let used: Vec<usize> = (0..whole.len()).filter(|at| whole[*at] != 0).step_by(97).collect();
        let (mut damaged, mut fine) = (0, 0);
        for at in used {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << (at % 8);
            std::fs::write(&path, &bytes).unwrap();
            let read =
                || Store::open(&path)?.snapshot()?.range(b"a", b"z", usize::MAX).map_err(OpenError::from);
            match read() {
                Ok(read) => {
                    let is_one = |(key, value): &Pair| rows.get(key) == Some(&Some(value.clone()));
                    assert!(read.iter().all(is_one), "byte {at}");
                    fine += 1;
                }
                Err(OpenError::Damaged(_) | OpenError::Newer(_)) => damaged += 1,
                Err(e) => panic!("byte {at}: {e}"),
            }
        }
        assert!(damaged > 50 && fine > 0, "{damaged} damaged, {fine} fine");
    }

    #[test]
    fn an_index_of_the_first_format_is_brought_up_to_date_at_once_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("index.redb");
        let all: Vec<Pair> = some_rows().into_iter().map(|(key, value)| (key, value.unwrap())).collect();
        let db = Database::create(&path).unwrap();
        let tx = db.begin_write().unwrap();
        {
            tx.open_table(META).unwrap().insert("schema", 1).unwrap();
            let mut rows = tx.open_table(ROWS).unwrap();
            all.iter().for_each(|(key, value)| drop(rows.insert(key.as_slice(), value.as_slice()).unwrap()));
        }
        tx.commit().unwrap();
        drop(db);
        for _ in 0..2 {
            let store = Store::open(&path).unwrap();
            assert_eq!(store.snapshot().unwrap().range(b"a", b"z", usize::MAX).unwrap(), all);
        }
    }
}
