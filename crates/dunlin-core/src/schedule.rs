//! Which blocks of the contents under way are asked of whom: each device begins at another place, what fewest others
//! have goes first, and who is slow, gone or lies costs no more than what was asked of it.

use crate::blocks::Bits;
use crate::ids::{ContentId, DeviceId};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

/// So many blocks are looked at for the rarest before others are thought of.
const WINDOW: usize = 4096;
/// What was asked for so many ticks ago and did not come may be asked of another one, too.
const SLOW: u64 = 12;
/// A block is asked of no more devices at once.
const TWICE: usize = 2;

/// What a device has of a content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holding {
    /// Nothing.
    Nothing,
    /// Some blocks, and others that it is getting from one that has all of them.
    Some {
        /// What it has.
        here: Bits,
        /// What it is getting.
        coming: Bits,
    },
    /// All of it.
    All,
}

impl Holding {
    fn has(&self, block: usize) -> bool {
        match self {
            Holding::Nothing => false,
            Holding::Some { here, .. } => here.get(block),
            Holding::All => true,
        }
    }
}

/// Blocks that follow each other, to be asked of one device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// The content.
    pub content: ContentId,
    /// The first block.
    pub first: usize,
    /// How many.
    pub count: usize,
    /// Whether it is asked of a device that has all of the content.
    pub whole: bool,
}

struct Gathering {
    count: usize,
    /// Where this device begins.
    start: usize,
    done: Bits,
    left: usize,
    /// How many steps from `start` on are done.
    behind: usize,
    /// How many devices have each block, or are getting it, of those that do not have all.
    others: Vec<u8>,
    holders: BTreeMap<DeviceId, Holding>,
    /// Who is not to be asked for it any more.
    refused: BTreeSet<DeviceId>,
    /// Of whom a block is asked now, and since which tick.
    asked: BTreeMap<usize, Vec<(DeviceId, u64)>>,
}

/// All contents under way in a folder.
pub struct Schedule {
    me: DeviceId,
    tick: u64,
    peers: BTreeSet<DeviceId>,
    contents: BTreeMap<(u64, ContentId), Gathering>,
}

/// Where a content stands in the order of a device: in another one than on any other device.
pub fn place(me: &DeviceId, content: &ContentId) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"dunlin order\0").update(&me.0).update(&content.0);
    hasher.finalize().as_bytes().iter().take(8).fold(0, |n, byte| n << 8 | u64::from(*byte))
}

impl Schedule {
    /// Of the device `me`.
    pub fn new(me: DeviceId) -> Schedule {
        Schedule { me, tick: 0, peers: BTreeSet::new(), contents: BTreeMap::new() }
    }

    fn key(&self, content: &ContentId) -> (u64, ContentId) {
        (place(&self.me, content), *content)
    }

    fn get(&mut self, content: &ContentId) -> Option<&mut Gathering> {
        let key = self.key(content);
        self.contents.get_mut(&key)
    }

    /// A content of so many blocks is gathered from now on; some of them may be here.
    pub fn begin(&mut self, content: ContentId, count: usize, done: Bits) {
        let key = self.key(&content);
        let start = usize::try_from(key.0 % count.max(1) as u64).unwrap_or(0);
        let left = (0..count).filter(|i| !done.get(*i)).count();
        let others = alloc::vec![0; count];
        let (holders, refused, asked) = Default::default();
        let gathering = Gathering { count, start, done, left, behind: 0, others, holders, refused, asked };
        self.contents.insert(key, gathering);
    }

    /// It is whole, or given up.
    pub fn end(&mut self, content: &ContentId) {
        let key = self.key(content);
        self.contents.remove(&key);
    }

    /// Nothing is under way.
    pub fn is_empty(&self) -> bool {
        self.contents.is_empty()
    }

    /// Blocks of all contents under way.
    pub fn blocks(&self) -> usize {
        self.contents.values().map(|g| g.count).sum()
    }

    /// Who is there. What others told is forgotten, and what was held against them.
    pub fn present(&mut self, peers: BTreeSet<DeviceId>) {
        for gone in self.peers.difference(&peers).copied().collect::<Vec<_>>() {
            self.forget(gone);
        }
        self.peers = peers;
    }

    /// A device went, or is another run of itself: nothing is known of it.
    pub fn forget(&mut self, peer: DeviceId) {
        for gathering in self.contents.values_mut() {
            gathering.tell(peer, None);
            gathering.refused.remove(&peer);
        }
    }

    /// A device told what it has.
    pub fn told(&mut self, peer: DeviceId, content: &ContentId, holding: Holding) {
        if let Some(gathering) = self.get(content) {
            gathering.tell(peer, Some(holding));
        }
    }

    /// What a device is to be asked after: first what it told nothing of, then what it may have more of by now.
    pub fn unknown(&self, peer: &DeviceId, again: bool) -> Vec<ContentId> {
        let asks = |g: &Gathering| match g.holders.get(peer) {
            None => true,
            Some(Holding::All) => false,
            Some(_) => again && !g.refused.contains(peer),
        };
        self.contents.iter().filter(|(_, g)| asks(g)).map(|((_, content), _)| *content).collect()
    }

    /// Of how many contents under way a device has all.
    pub fn wholes(&self, peer: &DeviceId) -> usize {
        self.contents.values().filter(|g| g.holders.get(peer) == Some(&Holding::All)).count()
    }

    /// Time goes on, by a fraction of a second.
    pub fn tick(&mut self) {
        self.tick += 1;
    }

    /// What to ask a device for next, no more than `most` blocks; it counts as asked from now on.
    pub fn next(&mut self, peer: DeviceId, most: usize) -> Option<Run> {
        let (tick, mut best) = (self.tick, None);
        for (key, gathering) in &self.contents {
            let Some((rarity, block)) = gathering.rarest(&peer) else { continue };
            if best.is_none_or(|(rarest, _, _)| rarity < rarest) {
                best = Some((rarity, *key, block));
            }
            if rarity == 0 {
                break;
            }
        }
        if let Some((_, key, first)) = best {
            let gathering = self.contents.get_mut(&key)?;
            let count = gathering.run(&peer, first, most.max(1));
            (first..first + count)
                .for_each(|block| gathering.asked.entry(block).or_default().push((peer, tick)));
            let whole = gathering.holders.get(&peer) == Some(&Holding::All);
            return Some(Run { content: key.1, first, count, whole });
        }
        // Nothing else is left: what keeps others waiting is asked once more.
        for ((_, content), gathering) in &mut self.contents {
            if let Some(first) = gathering.slow(&peer, tick) {
                gathering.asked.entry(first).or_default().push((peer, tick));
                let whole = gathering.holders.get(&peer) == Some(&Holding::All);
                return Some(Run { content: *content, first, count: 1, whole });
            }
        }
        None
    }

    /// A block came and is what it should be; `false` if it was here already.
    pub fn came(&mut self, content: &ContentId, block: usize) -> bool {
        self.get(content).is_some_and(|gathering| gathering.came(block))
    }

    /// What was asked of a device in one go has ended: what did not come may be asked for again.
    pub fn over(&mut self, peer: DeviceId, run: &Run) {
        let Some(gathering) = self.get(&run.content) else { return };
        for block in run.first..run.first + run.count {
            if let Some(asked) = gathering.asked.get_mut(&block) {
                asked.retain(|(of, _)| *of != peer);
                if asked.is_empty() {
                    gathering.asked.remove(&block);
                }
            }
        }
    }

    /// A device is asked no more for a content: it did not give what it said it has.
    pub fn refuse(&mut self, peer: DeviceId, content: &ContentId) {
        if let Some(gathering) = self.get(content) {
            gathering.tell(peer, Some(Holding::Nothing));
            gathering.refused.insert(peer);
        }
    }

    /// A device is silent: it is asked no more for anything that is under way.
    pub fn refuse_all(&mut self, peer: DeviceId) {
        for gathering in self.contents.values_mut() {
            gathering.tell(peer, Some(Holding::Nothing));
            gathering.refused.insert(peer);
        }
    }

    /// Whether nobody who is there has more of a content, and nothing of it is to come.
    pub fn is_stuck(&self, content: &ContentId) -> bool {
        let Some(gathering) = self.contents.get(&self.key(content)) else { return true };
        let may_help = |peer: &DeviceId| match gathering.holders.get(peer) {
            None => true,
            Some(holding) => (0..gathering.count).any(|b| !gathering.done.get(b) && holding.has(b)),
        };
        gathering.left > 0 && gathering.asked.is_empty() && !self.peers.iter().any(may_help)
    }

    /// Whether some device has part of a content, and may have more soon.
    pub fn may_grow(&self, content: &ContentId) -> bool {
        let gathering = self.contents.get(&self.key(content));
        gathering.is_some_and(|g| g.holders.values().any(|h| matches!(h, Holding::Some { .. })))
    }
}

impl Gathering {
    fn tell(&mut self, peer: DeviceId, holding: Option<Holding>) {
        if self.refused.contains(&peer) && holding.is_some() {
            return;
        }
        let old = match &holding {
            Some(holding) => self.holders.insert(peer, holding.clone()),
            None => self.holders.remove(&peer),
        };
        self.counts(old.as_ref(), |n| n.saturating_sub(1));
        self.counts(holding.as_ref(), |n| n.saturating_add(1));
    }

    fn counts(&mut self, holding: Option<&Holding>, change: impl Fn(u8) -> u8) {
        let Some(Holding::Some { here, coming }) = holding else { return };
        for (block, count) in self.others.iter_mut().enumerate() {
            if here.get(block) || coming.get(block) {
                *count = change(*count);
            }
        }
    }

    /// The blocks in the order of this device, from the first that is not done.
    fn order(&self) -> impl Iterator<Item = usize> + '_ {
        (self.behind..self.count).map(|step| (self.start + step) % self.count)
    }

    fn is_free(&self, block: usize) -> bool {
        !self.done.get(block) && !self.asked.contains_key(&block)
    }

    /// The block that a device has and fewest others have, and how many these are.
    fn rarest(&self, peer: &DeviceId) -> Option<(u8, usize)> {
        let holding = self.holders.get(peer).filter(|h| **h != Holding::Nothing)?;
        // One that does not have all is counted among those that have it.
        let least = u8::from(*holding != Holding::All);
        let mut best: Option<(u8, usize)> = None;
        for (step, block) in self.order().enumerate() {
            if step >= WINDOW && best.is_some() {
                break;
            }
            if self.is_free(block) && holding.has(block) {
                let rarity = self.others.get(block).copied().unwrap_or(0);
                if best.is_none_or(|(rarest, _)| rarity < rarest) {
                    best = Some((rarity, block));
                }
                if rarity <= least {
                    break;
                }
            }
        }
        best
    }

    /// How many blocks from one on are asked for together: those of which the same is to be said.
    fn run(&self, peer: &DeviceId, first: usize, most: usize) -> usize {
        let Some(holding) = self.holders.get(peer) else { return 1 };
        let alike =
            |b: &usize| self.is_free(*b) && holding.has(*b) && self.others.get(*b) == self.others.get(first);
        (first..self.count).take(most).take_while(alike).count().max(1)
    }

    /// A block that others were asked for long ago, and that a device has.
    fn slow(&self, peer: &DeviceId, tick: u64) -> Option<usize> {
        let holding = self.holders.get(peer)?;
        let waits = |asked: &Vec<(DeviceId, u64)>| {
            asked.len() < TWICE && asked.iter().all(|(of, since)| of != peer && since + SLOW <= tick)
        };
        let mut late = self.asked.iter().filter(|(block, asked)| waits(asked) && holding.has(**block));
        late.find(|(block, _)| !self.done.get(**block)).map(|(block, _)| *block)
    }

    fn came(&mut self, block: usize) -> bool {
        if block >= self.count || self.done.get(block) {
            return false;
        }
        self.done.set(block, true);
        self.left -= 1;
        while self.behind < self.count && self.done.get((self.start + self.behind) % self.count) {
            self.behind += 1;
        }
        true
    }
}

#[cfg(test)]
mod tests;
