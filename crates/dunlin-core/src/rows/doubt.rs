//! Which files have a stamp that another write may have as well: the clock of a file system moves in steps.

use super::{Rows, Table, decode, encode};
use crate::kv::{Read, Tx};
use crate::state::Mtime;
use minicbor::{Decode, Encode};

/// The times of change (ctime) of files whose contents are to be looked at whatever their metadata say. A writer of the
/// index that ends before it did that leaves this to the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Doubt {
    /// The first of them.
    #[n(0)]
    pub first: Mtime,
    /// The last of them.
    #[n(1)]
    pub last: Mtime,
}

impl Doubt {
    /// The doubt about both.
    pub fn and(self, other: Doubt) -> Doubt {
        Doubt { first: self.first.min(other.first), last: self.last.max(other.last) }
    }

    /// Whether what was changed then is in doubt.
    pub fn is_about(&self, ctime: Mtime) -> bool {
        (self.first..=self.last).contains(&ctime)
    }
}

impl From<Mtime> for Doubt {
    fn from(at: Mtime) -> Doubt {
        Doubt { first: at, last: at }
    }
}

/// What a writer of the index left in doubt.
pub(crate) fn doubt(view: &(impl Rows + ?Sized)) -> Read<Option<Doubt>> {
    view.get(&[Table::Doubt as u8])?.map(|b| decode(&b, "doubt")).transpose()
}

impl Tx<'_> {
    /// Writes what is in doubt by now.
    pub(crate) fn put_doubt(&mut self, now: Option<Doubt>) -> Read<()> {
        let key = alloc::vec![Table::Doubt as u8];
        if doubt(self)? != now {
            match now {
                Some(now) => self.put(key, encode(&now)),
                None => self.remove(key),
            }
        }
        Ok(())
    }
}
