//! Two copies of a machine that run at once, under one key. To whom they connect, a new connection of the one takes the
//! place of the other's; the real rule tells when a device runs twice, and then both are stopped until a person
//! decides which of them is the device.

use super::{Event, Flock};
use crate::device::{Device, device_id};
use crate::links::{End, MS, Time};
use crate::script::{Act, What};
use dunlin_core::ids::DeviceId;
use std::collections::BTreeSet;

/// The lives of a copy are numbered from here on, times its place in the flock: no life has the number of another one.
const LIVES_APART: u64 = 1 << 24;
/// Within this time two that can hear each other do.
const HEARD: u64 = 2_000;
/// What is dialled again after another connection took the place of one, is so after this, and up to three times as much.
const REDIAL: u64 = 300;

/// What happens to the copies of a machine.
pub(crate) enum Twins {
    /// `you` closed the connection for one of the other copy's.
    Replaced { me: usize, you: usize, conn: u64 },
    /// A program learns that its device runs twice.
    Stops { device: usize, life: u64 },
}

/// Who becomes a copy by one of these acts is not there before.
pub(super) fn await_copies(devices: &mut [Device], acts: &[Act]) {
    for act in acts {
        if let What::Copy { to } = act.what
            && to != act.device
            && let Some(copy) = devices.get_mut(to)
        {
            (copy.absent, copy.left) = (true, true);
        }
    }
}

impl Flock {
    /// The keys of all members but this one.
    pub(super) fn others(&self, device: usize) -> BTreeSet<DeviceId> {
        let me = self.devices[device].id;
        self.devices.iter().filter(|d| !d.absent && d.id != me).map(|d| d.id).collect()
    }

    /// Whether one of two devices has a copy, or they are the copies.
    pub(super) fn is_of_twins(&self, a: usize, b: usize) -> bool {
        self.devices[a].twin.is_some() || self.devices[b].twin.is_some()
    }

    fn number(&self, device: usize) -> Option<u64> {
        self.devices[device].life.as_ref().map(|l| l.number)
    }

    /// What was kept of a machine is brought to life on another one.
    pub(super) fn copies(&mut self, from: usize, to: usize) {
        let is_free = from < to && self.devices.get(to).is_some_and(|d| d.absent);
        if !is_free || self.devices[from].twin.is_some() || !self.shared.world().copy(from, to) {
            return;
        }
        let [original, copy] = self.devices.get_disjoint_mut([from, to]).unwrap_or_else(|_| unreachable!());
        (copy.absent, copy.left, copy.wanted) = (false, false, true);
        (copy.id, copy.lives) = (original.id, original.lives + LIVES_APART * to as u64);
        (copy.marked, copy.joined, copy.limits) = (original.marked, original.joined, original.limits);
        copy.released = original.released.clone();
        (original.twin, copy.twin) = (Some(to), Some(from));
        self.note(|| format!("{from} was copied to {to}"));
        self.start_soon(to);
    }

    /// Two devices say hello to each other. `false`: one of them runs twice, which it is told.
    pub(super) fn greet(&mut self, a: usize, b: usize) -> bool {
        if self.devices[a].id == self.devices[b].id {
            return false;
        }
        for (me, you) in [(a, b), (b, a)] {
            if self.welcomes(me, you) {
                continue;
            }
            let Some(old) = self.devices[you].twin else {
                self.breaks("honest peers are never refused", format!("{me} takes {you} for two"));
                return false;
            };
            self.note(|| format!("{me} finds that {you} and {old} are one device"));
            self.tell_twice(you);
            if self.links.is_up(me, old) && !self.welcomes(me, old) {
                self.close_for_other(me, old);
                self.tell_twice(old);
            }
            return false;
        }
        for (me, you) in [(a, b), (b, a)] {
            if let Some(old) = self.devices[you].twin {
                self.close_for_other(me, old);
            }
        }
        true
    }

    fn welcomes(&mut self, me: usize, you: usize) -> bool {
        let (id, nonce) = (self.devices[you].id, self.number(you));
        let life = self.devices[me].life.as_mut();
        nonce.zip(life).is_none_or(|(nonce, life)| life.runs.entry(id).or_default().hello(nonce))
    }

    fn tell_twice(&mut self, device: usize) {
        if let Some(life) = self.number(device) {
            let after = self.links.delay();
            self.later(after, Event::Twins(Twins::Stops { device, life }));
        }
    }

    /// A connection with one copy ends for one with the other, which its other side learns in a moment.
    fn close_for_other(&mut self, me: usize, old: usize) {
        let Some(conn) = self.links.end(me, old).conn else { return };
        self.note(|| format!("{me} closes its connection with {old}"));
        *self.links.end(me, old) = End::default();
        let pair = self.links.pair(me, old);
        pair.over = pair.last;
        self.count_peers(me);
        let after = self.links.delay();
        self.later(after, Event::Twins(Twins::Replaced { me: old, you: me, conn: conn.number }));
    }

    pub(super) fn of_twins(&mut self, what: Twins) {
        match what {
            Twins::Replaced { me, you, conn } => {
                if !self.links.end(me, you).has(conn) {
                    return;
                }
                self.links.down(me, you);
                self.count_peers(me);
                let pair = self.links.pair(me, you);
                if pair.allowed && !pair.dialling {
                    pair.dialling = true;
                    let soon = self.twins.one_in(4);
                    let ms =
                        if soon { 1 + self.twins.below(10) } else { REDIAL + self.twins.below(2 * REDIAL) };
                    self.later(ms * MS, Event::Dial { a: me, b: you });
                }
            }
            Twins::Stops { device, life } => {
                let d = &mut self.devices[device];
                if d.life.as_ref().is_some_and(|l| l.number == life) {
                    (d.wanted, d.twice) = (false, true);
                    self.stopped_twice += 1;
                    self.note(|| format!("{device} runs twice, and stops"));
                    self.stop_in_order(device);
                }
            }
        }
    }

    /// Two copies come to be in one network.
    pub(super) fn can_hear(&mut self, device: usize) {
        let Some(twin) = self.devices[device].twin else { return };
        for d in [device, twin] {
            self.devices[d].hears = true;
        }
        self.is_heard(device);
    }

    /// Copies that both run and can hear each other do so in a while.
    pub(super) fn is_heard(&mut self, device: usize) {
        let Some(twin) = self.devices[device].twin.filter(|_| self.devices[device].hears) else { return };
        let Some(lives) = self.number(device).zip(self.number(twin)) else { return };
        let after: Time = self.twins.below(HEARD + 1) * MS;
        for (device, life) in [(device, lives.0), (twin, lives.1)] {
            self.later(after, Event::Twins(Twins::Stops { device, life }));
        }
    }

    /// A person knows of the two copies: this one becomes a device of its own, whose folder unites, and the other one is
    /// started again.
    pub(super) fn parts(&mut self, own: usize) {
        let Some(other) = self.devices[own].twin else { return };
        if [own, other].iter().any(|d| self.devices[*d].twice) {
            self.part(own, other);
        }
    }

    fn part(&mut self, own: usize, other: usize) {
        self.note(|| format!("{own} becomes a device of its own, and {other} is the one that was copied"));
        let (first, second) = (own.min(other), own.max(other));
        for (device, number) in [(other, first), (own, second)] {
            self.devices[device].wanted = false;
            self.stop(device);
            let d = &mut self.devices[device];
            (d.twin, d.twice, d.hears, d.wanted) = (None, false, false, true);
            d.id = device_id(number);
        }
        (self.devices[own].joined, self.devices[own].released) = (false, Vec::new());
        self.lose_index(own);
        self.start_soon(other);
        for device in 0..self.devices.len() {
            let others = self.others(device);
            if let Some(life) = &self.devices[device].life {
                life.host.told().others = others;
            }
        }
    }

    /// Who did not decide until all faults end does so now; where one of two copies left for good, the other one is the device.
    pub(super) fn part_at_last(&mut self) {
        for device in 0..self.devices.len() {
            let Some(copy) = self.devices[device].twin.filter(|copy| *copy > device) else { continue };
            let left = [device, copy].map(|d| self.devices[d].left);
            if left.contains(&true) {
                for d in [device, copy] {
                    (self.devices[d].twin, self.devices[d].hears) = (None, false);
                }
                continue;
            }
            let (own, other) = if self.twins.one_in(2) { (device, copy) } else { (copy, device) };
            self.part(own, other);
        }
    }
}
