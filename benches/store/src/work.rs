//! The entries: rows shaped like those of `dunlin-core`'s `rows.rs`, the same in every run.

use std::ops::Range;

/// Rows to write, sorted by key; `None` removes.
pub type Changes = Vec<(Vec<u8>, Option<Vec<u8>>)>;

/// What an entry consists of.
#[derive(Clone, Copy, PartialEq)]
pub enum Mode {
    /// One row of a 57-byte key and a 200-byte value.
    Rows,
    /// The seven rows that the index keeps of a file, and its counters with every commit.
    Index,
}

impl Mode {
    pub fn parse(text: &str) -> Mode {
        if text == "index" { Mode::Index } else { Mode::Rows }
    }

    pub fn name(self) -> &'static str {
        if self == Mode::Index { "index" } else { "rows" }
    }
}

/// Makes changes, and knows which sequence number each entry has.
pub struct Work {
    mode: Mode,
    seq: Vec<u32>,
    next: u32,
}

fn mix(mut x: u64) -> u64 {
    x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

fn random(domain: u64, seed: u64, len: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(len + 8);
    let mut x = mix(domain << 56 ^ seed);
    while out.len() < len {
        out.extend_from_slice(&x.to_le_bytes());
        x = mix(x);
    }
    out.truncate(len);
    out
}

/// Eleven twentieths of a row are hashes, ids, times and names; the rest is alike in all rows.
fn value(domain: u64, seed: u64, len: usize) -> Vec<u8> {
    let mut out = random(domain, seed, len * 11 / 20);
    out.extend((out.len()..len).map(|i| i as u8));
    out
}

fn key(table: u8, parts: &[&[u8]]) -> Vec<u8> {
    let mut out = vec![table];
    parts.iter().for_each(|p| out.extend_from_slice(p));
    out
}

fn dir(i: usize) -> Vec<u8> {
    random(1, i as u64 / 100, 16)
}

fn node(i: usize) -> Vec<u8> {
    random(2, i as u64, 16)
}

impl Work {
    pub fn new(mode: Mode, count: usize) -> Work {
        Work { mode, seq: Vec::with_capacity(count), next: 1 }
    }

    /// A pseudo-random entry: the `k`-th choice of a series.
    pub fn pick(&self, k: usize, series: u64) -> usize {
        (mix(series << 40 ^ k as u64) % self.seq.len().max(1) as u64) as usize
    }

    fn file_name(&self, i: usize) -> Vec<u8> {
        let hash = mix(i as u64) as u32;
        match self.mode {
            Mode::Rows => format!("{hash:08x}-holiday-pictures-{:010}.jpg", i).into_bytes(),
            Mode::Index => format!("{hash:08x}-image{:06}.jpg", i % 1_000_000).into_bytes(),
        }
    }

    /// The key of the row that is read of an entry.
    pub fn main_key(&self, i: usize) -> Vec<u8> {
        key(b'l', &[&dir(i), &self.file_name(i)])
    }

    /// What the keys of 100 entries begin with.
    pub fn dir_prefix(&self, i: usize) -> Vec<u8> {
        key(b'l', &[&dir(i)])
    }

    /// New entries.
    pub fn add(&mut self, range: Range<usize>) -> Changes {
        let mut out = Changes::new();
        for i in range {
            let seq = self.next;
            self.next += 1;
            if i == self.seq.len() {
                self.seq.push(seq);
            }
            self.rows(i, seq, true, &mut out);
            if self.mode == Mode::Index {
                let (dir, node, name) = (dir(i), node(i), self.file_name(i));
                let ino = (i as u64 + 1_000_000).to_be_bytes();
                out.push((key(b'c', &[&dir, &name, &[0], &node]), Some(vec![])));
                out.push((key(b'p', &[&node, &dir, &name]), Some(vec![])));
                out.push((key(b'i', &[&ino, &dir, &name]), Some(vec![])));
            }
        }
        self.finish(out)
    }

    /// New contents of entries.
    pub fn update(&mut self, picks: impl IntoIterator<Item = usize>) -> Changes {
        let mut out = Changes::new();
        for i in picks {
            if self.mode == Mode::Index {
                self.rows(i, self.seq[i], false, &mut out);
            }
            self.seq[i] = self.next;
            self.next += 1;
            self.rows(i, self.seq[i], true, &mut out);
        }
        self.finish(out)
    }

    /// The rows that a new content changes.
    fn rows(&self, i: usize, seq: u32, add: bool, out: &mut Changes) {
        let (seed, main) = (u64::from(seq), self.main_key(i));
        if self.mode == Mode::Rows {
            return out.push((main, Some(value(3, seed, 200))));
        }
        let name = self.file_name(i);
        let holder = key(b'h', &[&random(4, seed, 32), &dir(i), &name]);
        let order = key(b's', &[&u64::from(seq).to_be_bytes()]);
        if add {
            out.push((main, Some(value(3, seed, 145))));
            out.push((key(b'n', &[&node(i)]), Some(value(5, seed, 172))));
        }
        out.push((holder, add.then(Vec::new)));
        out.push((order, add.then(|| node(i))));
    }

    /// Sorted and each key once, the last one wins, like the map that the program commits.
    fn finish(&self, out: Changes) -> Changes {
        let mut map: std::collections::BTreeMap<_, _> = out.into_iter().collect();
        if self.mode == Mode::Index {
            map.insert(vec![b't'], Some(value(6, u64::from(self.next), 70)));
        }
        map.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rows_have_the_sizes_that_the_record_states() {
        let size = |mode| {
            let changes = Work::new(mode, 1).add(0..1);
            let main = changes.iter().find(|(k, _)| k[0] == b'l').expect("the main row").0.len();
            let bytes = changes.iter().map(|(k, v)| k.len() + v.as_ref().map_or(0, Vec::len)).sum::<usize>();
            (main, changes.len(), bytes)
        };
        assert_eq!(size(Mode::Rows), (57, 1, 257));
        assert_eq!(size(Mode::Index), (41, 8, 637 + 71));
    }
}
