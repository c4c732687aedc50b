//! Blocks of all large contents under way in a folder, asked of all who have them. What to ask of whom is the
//! schedule's affair; here it is carried out.

use super::piece::Incoming;
use super::{Load, ask};
use crate::folder::{Folder, Gathered, PeerFolder, lock};
use crate::net::lane::LANES;
use crate::transfer::{StreamError, read_answer};
use dunlin_core::blocks::{Bits, BlockHasher, range};
use dunlin_core::ids::{ContentId, DeviceId};
use dunlin_core::message::{FEATURE_BLOCKS, HOLDS_MAX, HeldBlocks, Holds, Piece, Request, read};
use dunlin_core::schedule::{Holding, Run, Schedule};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::{JoinSet, block_in_place};
use tokio::time::{Instant, sleep_until, timeout};

/// Transfers from one device at once.
const SLOTS: usize = LANES;
/// Blocks asked for together where there is nobody else to share them with.
const RUN: usize = 4;
/// How often others are asked what they have by now, and more rarely the more they have to tell.
const ASK_AGAIN: Duration = Duration::from_millis(150);
const ASK_AGAIN_MOST: Duration = Duration::from_secs(5);
const BLOCKS_PER_MS: usize = 64;
/// How long a device may take to say what it has.
const SAYS_WITHIN: Duration = Duration::from_secs(10);
/// Bytes that are hashed as they come: they are still near.
const STEP: usize = 64 << 10;
/// Buffers of a block each that are kept for the next transfers.
const BUFFERS: usize = 8;

/// What is under way in one folder.
pub(super) struct Swarm {
    schedule: Mutex<Schedule>,
    /// How many transfers each device is busy with.
    busy: Mutex<BTreeMap<DeviceId, usize>>,
    wake: Notify,
    buffers: Mutex<Vec<Vec<u8>>>,
}

/// The connected devices that know of blocks.
pub(super) fn able(folder: &Folder) -> Vec<Arc<PeerFolder>> {
    folder.peer_list().into_iter().filter(|p| p.features & FEATURE_BLOCKS != 0).collect()
}

/// Asks a device what it has of some contents. One that does not say counts as one that has nothing.
pub(super) async fn holdings(folder: &Folder, peer: &PeerFolder, contents: &[ContentId]) -> Vec<Holding> {
    let request = Request::Holds { folder: folder.id, contents: contents.to_vec() };
    let asked = async {
        let mut answer = ask(peer, &request).await?;
        read::<Holds>(&read_answer(&mut answer).await?)
            .map_err(|_| StreamError::Protocol("an answer cannot be read"))
    };
    let told = timeout(SAYS_WITHIN, asked).await.ok().and_then(Result::ok);
    let mut told = told.map(|holds| holds.contents).unwrap_or_default().into_iter();
    contents.iter().map(|_| told.next().map_or(Holding::Nothing, holding)).collect()
}

fn holding(told: HeldBlocks) -> Holding {
    match told {
        HeldBlocks { all: true, .. } => Holding::All,
        HeldBlocks { here, coming, .. } if here.is_empty() && coming.is_empty() => Holding::Nothing,
        HeldBlocks { here, coming, .. } => Holding::Some { here: Bits::new(here), coming: Bits::new(coming) },
    }
}

impl Swarm {
    pub(super) fn new(folder: &Folder) -> Arc<Swarm> {
        let me = DeviceId(*folder.secret.public().as_bytes());
        let schedule = Mutex::new(Schedule::new(me));
        Arc::new(Swarm { schedule, busy: Mutex::default(), wake: Notify::new(), buffers: Mutex::default() })
    }

    /// A content is gathered until what is returned is dropped. `told`: who has what of it.
    pub(super) fn begin(
        self: &Arc<Self>,
        folder: &Arc<Folder>,
        gathered: &Arc<Gathered>,
        told: Vec<(DeviceId, Holding)>,
    ) -> UnderWay {
        let content = gathered.content;
        lock(&folder.gathering).insert(content, gathered.clone());
        let mut schedule = lock(&self.schedule);
        schedule.present(able(folder).iter().map(|p| p.device).collect());
        schedule.begin(content, gathered.values.len(), gathered.blocks().0);
        told.into_iter().for_each(|(peer, holding)| schedule.told(peer, &content, holding));
        drop(schedule);
        self.wake.notify_one();
        UnderWay { swarm: self.clone(), folder: folder.clone(), gathered: gathered.clone() }
    }

    /// Whether nobody has more of it; and whether somebody may have soon.
    pub(super) fn is_stuck(&self, content: &ContentId) -> (bool, bool) {
        let schedule = lock(&self.schedule);
        (schedule.is_stuck(content), schedule.may_grow(content))
    }

    /// Asks and fetches as long as anything is under way; for ever.
    pub(super) async fn drive(self: Arc<Self>, folder: Arc<Folder>) {
        let mut changed = folder.peers_changed.subscribe();
        let (mut transfers, mut polls) = (JoinSet::new(), JoinSet::new());
        // Who is asked what it has just now; and by which connection each is known.
        let (mut asked, mut links) = (BTreeSet::new(), BTreeMap::new());
        let mut next = Instant::now();
        loop {
            let is_idle = lock(&self.schedule).is_empty();
            let mut again = false;
            tokio::select! {
                () = self.wake.notified() => {}
                there = changed.changed(), if !is_idle => if there.is_err() { return },
                Some(_) = transfers.join_next(), if !transfers.is_empty() => {}
                Some(done) = polls.join_next(), if !polls.is_empty() => {
                    // One that panicked is a bug; that device is not asked any more.
                    if let Ok(peer) = done {
                        asked.remove(&peer);
                    }
                }
                () = sleep_until(next), if !is_idle => {
                    again = true;
                    next = Instant::now() + self.ticks();
                }
            }
            let peers = able(&folder);
            self.meet(&peers, &mut links);
            for peer in &peers {
                let mut contents = lock(&self.schedule).unknown(&peer.device, again);
                contents.truncate(HOLDS_MAX);
                if !contents.is_empty() && asked.insert(peer.device) {
                    polls.spawn(self.clone().hear(folder.clone(), peer.clone(), contents));
                }
            }
            self.assign(&folder, peers, &mut transfers);
        }
    }

    fn ticks(&self) -> Duration {
        let mut schedule = lock(&self.schedule);
        schedule.tick();
        let more = Duration::from_millis((schedule.blocks() / BLOCKS_PER_MS) as u64);
        (ASK_AGAIN + more).min(ASK_AGAIN_MOST)
    }

    /// Who is there; one that is connected anew is asked anew.
    fn meet(&self, peers: &[Arc<PeerFolder>], links: &mut BTreeMap<DeviceId, usize>) {
        let now: BTreeMap<DeviceId, usize> = peers.iter().map(|p| (p.device, p.conn.stable_id())).collect();
        if now == *links {
            return;
        }
        let mut schedule = lock(&self.schedule);
        schedule.present(now.keys().copied().collect());
        for (peer, link) in &now {
            if links.get(peer).is_some_and(|old| old != link) {
                schedule.forget(*peer);
            }
        }
        *links = now;
    }

    async fn hear(
        self: Arc<Self>,
        folder: Arc<Folder>,
        peer: Arc<PeerFolder>,
        contents: Vec<ContentId>,
    ) -> DeviceId {
        let told = holdings(&folder, &peer, &contents).await;
        let mut schedule = lock(&self.schedule);
        contents.iter().zip(told).for_each(|(content, holding)| schedule.told(peer.device, content, holding));
        for content in &contents {
            if let Some(gathered) = lock(&folder.gathering).get(content) {
                gathered.changed.notify_one();
            }
        }
        peer.device
    }

    /// Gives every device that has time something to do.
    fn assign(
        self: &Arc<Self>,
        folder: &Arc<Folder>,
        mut peers: Vec<Arc<PeerFolder>>,
        transfers: &mut JoinSet<()>,
    ) {
        let most = if peers.len() > 1 { 1 } else { RUN };
        // Who has all is asked last: what others can give is theirs to give.
        peers.sort_by_cached_key(|p| lock(&self.schedule).wholes(&p.device));
        while !peers.is_empty() {
            peers.retain(|peer| {
                let mut busy = lock(&self.busy);
                let slots = busy.entry(peer.device).or_default();
                if *slots >= SLOTS {
                    return false;
                }
                let Some(run) = lock(&self.schedule).next(peer.device, most) else { return false };
                *slots += 1;
                drop(busy);
                self.start(folder, peer.clone(), run, transfers);
                true
            });
        }
    }

    fn start(
        self: &Arc<Self>,
        folder: &Arc<Folder>,
        peer: Arc<PeerFolder>,
        run: Run,
        transfers: &mut JoinSet<()>,
    ) {
        let gathered = lock(&folder.gathering).get(&run.content).cloned();
        let slot = Slot { swarm: self.clone(), peer: peer.device, run, gathered };
        // What has ended since the schedule was asked needs nothing any more.
        let Some(gathered) = slot.gathered.clone() else { return };
        if run.whole {
            gathered.is_coming(run.first..run.first + run.count, true);
        }
        let transfer = transfers.spawn(transfer(slot, folder.clone(), peer, gathered.clone()));
        gathered.belongs(transfer);
    }
}

/// A content that is gathered.
pub(super) struct UnderWay {
    swarm: Arc<Swarm>,
    folder: Arc<Folder>,
    gathered: Arc<Gathered>,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        lock(&self.swarm.schedule).end(&self.gathered.content);
        self.gathered.close();
        lock(&self.folder.gathering).remove(&self.gathered.content);
    }
}

/// One of the transfers that a device may be busy with; however it ends, it is free again.
struct Slot {
    swarm: Arc<Swarm>,
    peer: DeviceId,
    run: Run,
    gathered: Option<Arc<Gathered>>,
}

impl Drop for Slot {
    fn drop(&mut self) {
        lock(&self.swarm.schedule).over(self.peer, &self.run);
        if let Some(slots) = lock(&self.swarm.busy).get_mut(&self.peer) {
            *slots = slots.saturating_sub(1);
        }
        if let Some(gathered) = &self.gathered {
            if self.run.whole {
                gathered.is_coming(self.run.first..self.run.first + self.run.count, false);
            }
            gathered.changed.notify_one();
        }
        self.swarm.wake.notify_one();
    }
}

/// Why a run did not come.
enum Broken {
    Stream(StreamError),
    Disk(io::Error),
}

impl From<StreamError> for Broken {
    fn from(e: StreamError) -> Broken {
        Broken::Stream(e)
    }
}

async fn transfer(slot: Slot, folder: Arc<Folder>, peer: Arc<PeerFolder>, gathered: Arc<Gathered>) {
    let _load = Load::on(&peer);
    let mut buffer = lock(&slot.swarm.buffers).pop().unwrap_or_default();
    let end = blocks(&slot, &folder, &peer, &gathered, &mut buffer).await;
    match end {
        Ok(()) => {}
        Err(Broken::Disk(e)) => gathered.fail(e),
        Err(Broken::Stream(StreamError::Silent)) => lock(&slot.swarm.schedule).refuse_all(slot.peer),
        Err(Broken::Stream(_)) => lock(&slot.swarm.schedule).refuse(slot.peer, &slot.run.content),
    }
    let mut buffers = lock(&slot.swarm.buffers);
    if buffers.len() < BUFFERS {
        buffers.push(buffer);
    }
}

async fn blocks(
    slot: &Slot,
    folder: &Folder,
    peer: &Arc<PeerFolder>,
    gathered: &Gathered,
    buffer: &mut Vec<u8>,
) -> Result<(), Broken> {
    let Run { content, first, count, .. } = slot.run;
    let (offset, size) = (range(first, gathered.size).0, gathered.size);
    let len = (first..first + count).map(|block| range(block, size).1).sum();
    let mut incoming = Incoming::ask(peer.clone(), folder.id, Piece { content, offset, len }).await?;
    for block in first..first + count {
        buffer.resize(usize::try_from(range(block, size).1).unwrap_or(0), 0);
        let mut hasher = BlockHasher::new(block, size);
        for step in buffer.chunks_mut(STEP) {
            incoming.read(step).await?;
            hasher.update(step);
        }
        if gathered.values.get(block) != Some(&hasher.value()) {
            return Err(StreamError::Protocol("a block does not fit its hash").into());
        }
        block_in_place(|| gathered.put(block, buffer)).map_err(Broken::Disk)?;
        lock(&slot.swarm.schedule).came(&content, block);
    }
    incoming.done();
    Ok(())
}
