//! What the core asks of a store: ordered keys and values, read through a [`View`], changed through
//! a [`Tx`] whose changes the single writer commits as one.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

/// The store could not be read or written, or holds what it should not. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What happened.
    pub why: String,
    /// The store holds what it should not. Else the machine refused, a full disk for one: that says nothing
    /// against what is stored.
    pub damage: bool,
}

impl Fault {
    /// The store holds what it should not.
    pub fn damage(why: impl Into<String>) -> Fault {
        Fault { why: why.into(), damage: true }
    }

    /// The machine refused.
    pub fn environment(why: impl Into<String>) -> Fault {
        Fault { why: why.into(), damage: false }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "index: {}", self.why)
    }
}

impl core::error::Error for Fault {}

/// The result of everything that reads the store.
pub type Read<T> = Result<T, Fault>;

/// A key and its value.
pub type Pair = (Vec<u8>, Vec<u8>);

/// A consistent snapshot of the store.
pub trait View {
    /// The value of `key`.
    fn get(&self, key: &[u8]) -> Read<Option<Vec<u8>>>;
    /// At most `limit` pairs with `from <= key < to`, in order of the keys.
    fn range(&self, from: &[u8], to: &[u8], limit: usize) -> Read<Vec<Pair>>;
}

/// New values by key; `None` removes the key.
pub type Changes = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// A view with changes on top: reads see them, and [`Tx::into_changes`] hands them to the writer.
pub struct Tx<'v> {
    base: &'v dyn View,
    changes: Changes,
}

impl<'v> Tx<'v> {
    /// A transaction without changes.
    pub fn new(base: &'v dyn View) -> Tx<'v> {
        Tx { base, changes: Changes::new() }
    }

    /// What is to be committed.
    pub fn into_changes(self) -> Changes {
        self.changes
    }

    /// Whether nothing was changed.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// How many keys were changed so far.
    pub fn len(&self) -> usize {
        self.changes.len()
    }

    /// Sets the value of `key`.
    pub fn put(&mut self, key: Vec<u8>, value: Vec<u8>) {
        self.changes.insert(key, Some(value));
    }

    /// Removes `key`.
    pub fn remove(&mut self, key: Vec<u8>) {
        self.changes.insert(key, None);
    }
}

impl View for Tx<'_> {
    fn get(&self, key: &[u8]) -> Read<Option<Vec<u8>>> {
        match self.changes.get(key) {
            Some(changed) => Ok(changed.clone()),
            None => self.base.get(key),
        }
    }

    fn range(&self, from: &[u8], to: &[u8], limit: usize) -> Read<Vec<Pair>> {
        if from >= to {
            return Ok(Vec::new());
        }
        let mut changed =
            self.changes.range::<[u8], _>((core::ops::Bound::Included(from), core::ops::Bound::Excluded(to)));
        // Each removal can hide one pair of the base, so that many more are asked for; a window of
        // the base that ends early must not let changed keys behind its end slip in before the rest.
        let hidden =
            changed.clone().filter(|(_, v)| v.is_none()).take(limit.saturating_mul(4).max(64)).count();
        let want = limit.saturating_add(hidden);
        let base = self.base.range(from, to, want)?;
        let end = if base.len() == want { base.last().map(|p| p.0.clone()) } else { None };
        let mut merged: BTreeMap<Vec<u8>, Vec<u8>> = base.into_iter().collect();
        for (key, value) in &mut changed {
            if end.as_ref().is_some_and(|e| key > e) {
                break;
            }
            match value {
                Some(value) => merged.insert(key.clone(), value.clone()),
                None => merged.remove(key),
            };
        }
        let short = merged.len() < limit;
        let mut out: Vec<Pair> = merged.into_iter().take(limit).collect();
        if let (true, Some(end)) = (short, end) {
            let mut next = end;
            next.push(0);
            out.extend(self.range(&next, to, limit - out.len())?);
        }
        Ok(out)
    }
}

/// A store in memory, for tests and the simulator.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory(pub BTreeMap<Vec<u8>, Vec<u8>>);

impl Memory {
    /// Commits changes.
    pub fn apply(&mut self, changes: Changes) {
        for (key, value) in changes {
            match value {
                Some(value) => self.0.insert(key, value),
                None => self.0.remove(&key),
            };
        }
    }
}

impl View for Memory {
    fn get(&self, key: &[u8]) -> Read<Option<Vec<u8>>> {
        Ok(self.0.get(key).cloned())
    }

    fn range(&self, from: &[u8], to: &[u8], limit: usize) -> Read<Vec<Pair>> {
        if from >= to {
            return Ok(Vec::new());
        }
        let bounds = (core::ops::Bound::Included(from), core::ops::Bound::Excluded(to));
        let pairs = self.0.range::<[u8], _>(bounds).take(limit);
        Ok(pairs.map(|(k, v)| (k.clone(), v.clone())).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// A transaction reads like the store with its changes applied.
        #[test]
        fn a_transaction_reads_like_its_result(
            base in prop::collection::btree_map(0u8..40, any::<u8>(), 0..30),
            changes in prop::collection::btree_map(0u8..40, any::<Option<u8>>(), 0..30),
            from in 0u8..40, to in 0u8..45, limit in 0usize..12,
        ) {
            let memory = Memory(base.into_iter().map(|(k, v)| (alloc::vec![k], alloc::vec![v])).collect());
            let mut tx = Tx::new(&memory);
            for (k, v) in changes {
                match v {
                    Some(v) => tx.put(alloc::vec![k], alloc::vec![v]),
                    None => tx.remove(alloc::vec![k]),
                }
            }
            let seen = tx.range(&[from], &[to], limit).unwrap();
            let mut after = memory.clone();
            after.apply(tx.into_changes());
            prop_assert_eq!(seen, after.range(&[from], &[to], limit).unwrap());
        }
    }
}
