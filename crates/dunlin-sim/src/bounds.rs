//! What a flock that rests holds in memory and in its indexes, and what it sent: no more than follows from what there is.

use crate::flock::Flock;
use dunlin_core::kv::View;
use dunlin_core::rows::Rows;

/// What was sent over all connections so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sent {
    /// Rows.
    pub rows: u64,
    /// Bytes of contents.
    pub bytes: u64,
}

/// What an engine may remember at rest beyond one thing for each node, and the rows of an index beyond those of nodes.
const ANYWAY: usize = 8;
/// Rows for each node, without those of the journal of changes.
const ROWS: usize = 8;
/// So many lives of a program are remembered.
const LIVES: usize = 256;

impl Flock {
    /// What engines remember, and the rows of their indexes.
    pub(crate) fn is_bounded(&self) {
        for device in self.staying() {
            let Some(life) = &self.devices[device].life else { continue };
            let remembers = life.engine.remembers();
            let rows = self.shared.world().machines[device].index.rows();
            let pairs = rows.range(&[0], &[0xff], usize::MAX).unwrap_or_default();
            let count = |tables: &[u8]| pairs.iter().filter(|(k, _)| tables.contains(&k[0])).count();
            // The journal of changes, and the lives of programs: a start that fails is one.
            let (nodes, journal) = (count(b"n"), count(b"uzm"));
            let (lives, authors) = (count(b"v"), count(b"o"));
            let rest = pairs.len() - journal - lives - authors;
            let seq = rows.totals().map_or(0, |t| t.seq) as usize;
            let wrong = [
                (remembers > ANYWAY + nodes, "remembers", remembers),
                (rest > ROWS * (nodes + ANYWAY), "has rows of nodes:", rest),
                (journal > 2 * seq + ANYWAY, "has rows in the journal:", journal),
                (lives > LIVES, "has rows of lives:", lives),
                (authors > 2 * LIVES * self.devices.len(), "has rows of incarnations:", authors),
            ];
            for (_, what, n) in wrong.iter().filter(|w| w.0) {
                let what = format!("device {device} {what} {n}, of {nodes} nodes, {seq} changes");
                self.breaks("memory is bounded", what);
            }
        }
    }

    /// What was sent since, of changes in a flock at rest.
    pub(crate) fn sent_little(&self, before: Sent, most: Sent, what: &str) {
        let (rows, bytes) = (self.sent.rows - before.rows, self.sent.bytes - before.bytes);
        if rows > most.rows || bytes > most.bytes {
            let what = format!("{what}: {rows} rows and {bytes} bytes of contents, for {most:?}");
            self.breaks("bytes sent are in proportion to bytes changed", what);
        }
    }
}
