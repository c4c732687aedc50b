//! Members that lie, in a flock of honest devices: what holds among these whatever is said to them.

use super::{Event, FOLDER, Flock, Outcome, Trace};
use crate::chance::Chance;
use crate::disk::Names;
use crate::judge::{Tree, difference};
use crate::ledger::{Entry, id_of_link};
use crate::liar::{Ear, LINKS, Liar};
use crate::links::MS;
use crate::script::Script;
use crate::users::content_of;
use crate::workload;
use crate::world::Machine;
use dunlin_core::decide::{Lack, lacks_of};
use dunlin_core::ids::{ContentId, LifeId, NodeId, PARKED, ROOT};
use dunlin_core::kv::{Read, View};
use dunlin_core::life::Heard;
use dunlin_core::merge::BESIDE_MAX;
use dunlin_core::message::Message;
use dunlin_core::names::wanted;
use dunlin_core::path::{Name, RelPath};
use dunlin_core::plan::path_of;
use dunlin_core::rows::{LocalRow, Rows};
use dunlin_core::session::{Outgoing, Standing};
use dunlin_core::state::Content;
use dunlin_node::engine::Input;
use std::collections::BTreeSet;

/// Acts that no run with a liar has: what they may take from a user is told by other tests.
const LEFT_OUT: &[&str] = &[
    "power-cut",
    "lose-index",
    "keep-index",
    "roll-back",
    "lose-root",
    "bring-root",
    "full",
    "room",
    "leave",
];
/// After the last lie and the last fault, all is at rest after this: contents that nobody has are asked for a while.
const CALM: u64 = 150_000 * MS;
/// Within this, whoever asks in vain asks again.
const ASKS_AGAIN: u64 = 20_000 * MS;
/// A word about the past of an index may be believed so much later.
const LATE: u64 = 2_200_000 * MS;
/// An index takes no more than this many bytes, and so many times what liars said: each version that shows remembers
/// what had been seen.
const GROWS: u64 = BESIDE_MAX as u64;
const GROWS_ANYWAY: u64 = 400 << 10;

/// The script of a seed in a flock with liars.
pub fn script(seed: u64) -> Script {
    let mut script = workload::script_with(seed, 3);
    script.setup.errors = 0;
    script.setup.disks.clear();
    script.acts.retain(|act| !LEFT_OUT.contains(&act.what.word()));
    script
}

/// Runs a script among liars; `trace` is told what happens.
pub fn run(script: &Script, trace: Option<Trace>) -> Outcome {
    let mut flock = Flock::new(&script.setup, script.acts.clone(), trace);
    flock.invite_liars(script);
    flock.play();
    if !flock.is_broken() {
        flock.calm_down();
        flock.judge_the_honest();
    }
    flock.outcome()
}

impl Flock {
    fn invite_liars(&mut self, script: &Script) {
        let (seed, devices) = (script.setup.seed, script.setup.devices);
        let mut chance = Chance::new(seed, "liars");
        let end = script.acts.last().map_or(0, |a| a.at_ms) + 3_000;
        for liar in 0..1 + chance.below(2) as usize {
            self.liars.push(Liar::new(seed, liar, devices));
            for _ in 0..2 + chance.below(16) {
                let at = chance.below(end) * MS;
                self.later(at, Event::Lie { liar, to: chance.below(devices as u64) as usize });
            }
        }
    }

    /// Which liar has this key.
    pub(super) fn liar(&self, id: &dunlin_core::ids::DeviceId) -> Option<usize> {
        self.liars.iter().position(|l| l.id == *id)
    }

    /// A device sent a liar away, or its index counts anew.
    pub(super) fn sent_away(&mut self, liar: usize, device: usize) {
        self.note(|| format!("{device} sends liar {liar} away"));
        self.liars[liar].ears[device] = None;
    }

    /// A liar says something to a device, and hears what that has to say.
    pub(super) fn lies(&mut self, liar: usize, to: usize) {
        let Some(number) = self.devices[to].life.as_ref().map(|l| l.number) else { return };
        let knows = self.liars[liar].ears[to].as_ref().is_some_and(|ear| ear.life == number);
        if (!knows || self.liars[liar].chance().one_in(6)) && !self.opens(liar, to, number) {
            return;
        }
        if let Err(e) = self.tells_the_liar(liar, to) {
            return self.breaks("the index can be read", e.to_string());
        }
        let rows = self.liars[liar].lie();
        let (upto, last) = (self.liars[liar].upto(), !self.liars[liar].chance().one_in(3));
        let Some(from) = self.liars[liar].ears[to].as_ref().map(|ear| ear.speaker) else { return };
        // Contents of its own are nobody's loss, and may show.
        let mut world = self.shared.world();
        let links = LINKS.iter().map(|text| id_of_link(text));
        for id in self.liars[liar].own.keys().copied().chain(links) {
            let entry = Entry { destroyed: true, text: "a lie".into(), ..Entry::default() };
            world.ledger.0.entry(id).or_insert(entry);
        }
        drop(world);
        self.note(|| {
            let nodes: Vec<String> = rows.iter().map(|r| format!("{:?}:{}", r.node, r.state.len())).collect();
            format!("liar {liar} tells {to}: {}", nodes.join(" "))
        });
        let Some(life) = &self.devices[to].life else { return };
        let told = life.site.store.snapshot().and_then(|s| s.totals()).unwrap_or_default().of_index().0;
        self.input(to, Input::Rows { from, told, upto, last, rows });
    }

    /// A liar opens the exchange, or opens it anew; `false` if the device is gone by then.
    fn opens(&mut self, liar: usize, to: usize, number: u64) -> bool {
        self.input(to, Input::Peers);
        let Some(life) = self.devices[to].life.as_ref() else { return false };
        let Ok(totals) = life.site.store.snapshot().and_then(|s| s.totals()) else { return false };
        let (speaker, heard) = self.liars[liar].opening(totals.inc, totals.seq);
        self.note(|| format!("liar {liar} opens to {to}: {speaker:?} {heard:?}"));
        self.input(to, Input::Open { from: speaker, heard, own: Vec::new() });
        let Some(life) = self.devices[to].life.as_ref().filter(|l| l.number == number) else { return false };
        let begun = life.site.store.snapshot().and_then(|s| Outgoing::new(&s, FOLDER, speaker, &heard));
        let Ok(outgoing) = begun else { return false };
        // It heard nobody before, and notes whom it hears.
        let before = Heard { of: totals.of_index().0, received: 0, life: LifeId::default() };
        self.input(to, Input::Noted { from: speaker.device, before });
        if self.devices[to].life.as_ref().is_none_or(|l| l.number != number) {
            return false;
        }
        self.liars[liar].ears[to] = Some(Ear { life: number, speaker, outgoing });
        true
    }

    fn tells_the_liar(&mut self, liar: usize, to: usize) -> Read<()> {
        let (Some(life), liar) = (&self.devices[to].life, &mut self.liars[liar]) else { return Ok(()) };
        let snapshot = life.site.store.snapshot()?;
        let standing = Standing { digest: [0; 4], need: 0, busy: true, held: false };
        let mut heard = Vec::new();
        if let Some(ear) = &mut liar.ears[to] {
            while let Some(message) = ear.outgoing.next(&snapshot, standing)? {
                if let Message::Rows { rows, .. } = message {
                    heard.extend(rows);
                }
            }
        }
        liar.hears(&heard);
        Ok(())
    }

    /// What a liar answers who asks for a content: what it has, something else, or nothing.
    pub(super) fn asks_liars(&mut self, device: usize, content: &ContentId) -> Option<Vec<u8>> {
        self.liars.iter_mut().filter(|l| l.ears[device].is_some()).find_map(|liar| {
            match liar.chance().below(4) {
                0 => Some(b"something else".to_vec()),
                1 => None,
                _ => liar.own.get(content).cloned(),
            }
        })
    }

    /// Whether the honest devices hold the same states, know it of each other, and have nothing to do.
    fn honest_rest(&self) -> Result<(), String> {
        if self.busy_queue() {
            return Err("something is under way".into());
        }
        let mut digests = BTreeSet::new();
        for d in &self.devices {
            let Some(life) = &d.life else { return Err(format!("{} does not run", d.number)) };
            let told = life.host.told();
            if told.pulse.busy() || d.hints_at.is_some() {
                return Err(format!("{} is busy: {:?} {:?}", d.number, told.pulse, told.problems));
            }
            let totals = life.site.store.snapshot().and_then(|s| s.totals()).unwrap_or_default();
            digests.insert(totals.digest);
            for other in self.devices.iter().filter(|o| o.number != d.number) {
                if self.links.known(d.number, other.number).acked < totals.seq {
                    return Err(format!("{} has not all that {} has", other.number, d.number));
                }
            }
        }
        if digests.len() == 1 { Ok(()) } else { Err("their states differ".into()) }
    }

    fn judge_the_honest(&mut self) {
        let until = self.now + CALM;
        while self.step(until) {}
        // Whoever asks in vain asks now and then, and for a moment something is under way.
        let limit = self.now + LATE;
        while !self.is_broken() && self.honest_rest().is_err() {
            if self.now > limit || !self.step(limit) {
                let why = self.honest_rest().err().unwrap_or_default();
                return self.breaks("the honest come to rest", why);
            }
        }
        if self.is_broken() {
            return;
        }
        for device in self.staying() {
            self.shared.world().check_visible(device);
        }
        if matches!(self.lacking(), Ok((_, Some(_)))) {
            // A liar may have answered at last, one of them. Whoever asks in vain asks again before long.
            let until = self.now + ASKS_AGAIN;
            while self.step(until) {}
        }
        self.all_else_is_done();
        self.nothing_is_gone();
        self.nothing_grew();
    }

    /// What honest devices have of a liar's doing that cannot be carried out: paths that say nothing, each with all
    /// below; and something else that is lacking.
    fn lacking(&self) -> Read<(BTreeSet<RelPath>, Option<String>)> {
        let (world, staying) = (self.shared.world(), self.staying());
        let mut held = BTreeSet::new();
        for device in &staying {
            held.extend(contents(&world.machines[*device]));
        }
        let (mut out, mut undone) = (BTreeSet::new(), None);
        for device in staying {
            let rows = world.machines[device].index.rows();
            let view = rows.as_ref();
            let mut open = needy(view)?;
            let (mut vain, unshown) = (BTreeSet::new(), self.unshown(device));
            let names = self.odd(device).names();
            for node in &open {
                for w in wanted(view, *node)? {
                    let path = path_of(view, &w.at)?;
                    // Its disk cannot show it, as it says.
                    if path.as_ref().is_some_and(|path| unshown.covers(path)) {
                        vain.insert(*node);
                    }
                    out.extend(path);
                }
                for at in view.places_of(*node)? {
                    out.extend(path_of(view, &at)?);
                }
            }
            loop {
                let before = vain.len();
                for node in &open {
                    if is_vain(view, *node, names, (&held, &vain))? {
                        vain.insert(*node);
                    }
                }
                open.retain(|node| !vain.contains(node));
                if vain.len() == before {
                    break;
                }
            }
            if let Some(node) = open.first() {
                undone = Some(format!("device {device}: {:?}", lacks_of(view, *node)?));
            }
        }
        Ok((out, undone))
    }

    fn honest_trees_are_equal(&self, lacking: &BTreeSet<RelPath>) {
        let below = |p: &RelPath| lacking.iter().any(|l| p.names().starts_with(l.names()));
        let without = |tree: Tree| -> Tree { tree.into_iter().filter(|(p, _)| !below(p)).collect() };
        let mut ordinary = self.staying().into_iter().filter(|d| !self.odd(*d).any());
        let Some(one) = ordinary.next() else { return };
        let first = without(self.tree(one));
        for other in ordinary {
            if let Some(differs) = difference(&first, &without(self.tree(other))) {
                self.breaks("honest trees are equal", format!("{one} | {other}: {differs}"));
            }
        }
    }

    /// Something is wanted that no device holds any more. All that does not wait for it is done, and equal.
    pub(crate) fn all_else_is_done(&self) {
        match self.lacking() {
            Ok((_, Some(undone))) => self.breaks("what can be done is done", undone),
            Ok((lacking, None)) => self.honest_trees_are_equal(&lacking),
            Err(e) => self.breaks("the index can be read", e.to_string()),
        }
    }

    /// What a user wrote and no user deleted shows, or is in the history of an honest device.
    fn nothing_is_gone(&mut self) {
        let mut world = self.shared.world();
        let mut kept = BTreeSet::new();
        for machine in &world.machines {
            kept.extend(contents(machine));
        }
        let gone = |(id, e): &(&ContentId, &Entry)| !kept.contains(*id) && !e.destroyed && !e.excused;
        if let Some(text) = world.ledger.0.iter().find(gone).map(|(_, e)| e.text.clone()) {
            world.breaks("what users wrote is in the tree or the history", format!("{text:?}: nowhere"));
        }
    }

    /// Nobody can make an index grow by more than what was said.
    fn nothing_grew(&mut self) {
        let told: u64 = self.liars.iter().map(|l| l.told).sum();
        let mut world = self.shared.world();
        for device in 0..world.machines.len() {
            let rows = world.machines[device].index.rows();
            let pairs = rows.range(&[0], &[0xff], usize::MAX).unwrap_or_default();
            let size: usize = pairs.iter().map(|(k, v)| k.len() + v.len()).sum();
            if size as u64 > GROWS_ANYWAY + GROWS * told {
                world.breaks("an index is bounded", format!("device {device}: {size} bytes of {told} told"));
            }
        }
    }
}

/// Everything a machine has, in the folder and in the program's own directory.
fn contents(machine: &Machine) -> BTreeSet<ContentId> {
    let all = machine.disk.visible().into_values().chain(machine.disk.control_tree().into_values());
    all.filter_map(|t| content_of(&t)).collect()
}

/// The nodes that lack something.
fn needy(view: &dyn View) -> Read<Vec<NodeId>> {
    let keys = view.range(b"d", b"e", usize::MAX)?;
    Ok(keys.iter().filter_map(|(k, _)| NodeId::from_slice(k.get(1..17)?)).collect())
}

/// Whether what a node lacks cannot be had: nobody has its content, its directory is nowhere, or what is in its way
/// is such a node, under a name that the disk takes for the same.
fn is_vain(
    view: &dyn View,
    node: NodeId,
    names: Names,
    (held, vain): (&BTreeSet<ContentId>, &BTreeSet<NodeId>),
) -> Read<bool> {
    let lacks = lacks_of(view, node)?;
    // Of a kind that no program knows.
    let mut all = lacks.is_empty();
    for lack in &lacks {
        all |= match lack {
            Lack::Create(w) | Lack::Replace(_, w) | Lack::Move(_, _, w) => {
                let lost = matches!(&w.content, Content::File { id, .. } if !held.contains(id));
                let in_the_way = |(at, x): &(Name, LocalRow)| {
                    names.same(at, &w.at.name) && x.node != node && vain.contains(&x.node)
                };
                let there = view.locals(w.at.dir)?.iter().any(in_the_way);
                let dir = w.at.dir != ROOT && !view.is_on_disk(w.at.dir)?;
                let nowhere = dir && view.node(w.at.dir)?.is_none_or(|r| r.raw().is_none());
                // On its way, or where it is now, it would be in itself.
                let mut up = Some(w.at.dir);
                let mut held_up = false;
                while let Some(at) = up {
                    held_up |= at != node && vain.contains(&at);
                    up = view.dir_position(at)?.map(|p| p.dir);
                }
                lost || there || nowhere || held_up
            }
            Lack::Remove(at, _) => {
                let dir = view.locals(node)?;
                dir.iter().any(|(_, x)| vain.contains(&x.node)) || at.dir == PARKED
            }
            Lack::Meta(..) => false,
        };
    }
    Ok(all)
}
