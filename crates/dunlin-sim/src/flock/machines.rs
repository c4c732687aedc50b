//! What happens to machines and networks.

use super::{Event, Flock, ROOM};
use crate::links::{MS, Time};
use crate::script::{Act, What};
use dunlin_node::engine::Input;

/// How long a silent connection is believed in.
const SILENT: Time = 8_000 * MS;

impl Flock {
    /// An act that is not inside the program.
    pub(super) fn machine(&mut self, act: Act) {
        let device = act.device;
        let disk = self.shared.world().machines[device].disk.clone();
        match act.what {
            What::Start => {
                self.devices[device].wanted = true;
                self.start(device);
            }
            What::Stop => {
                self.devices[device].wanted = false;
                self.stop_in_order(device);
            }
            What::Kill | What::Refuse | What::PowerCut => {
                self.shared.world().carry_out(&act);
                if self.devices[device].life.is_some() {
                    self.died(device);
                }
            }
            What::LoseIndex => self.lose_index(device),
            what @ (What::RollBack | What::RollBackAll | What::RollBackFolder | What::TakeTurns) => {
                self.go_back(device, &what);
            }
            What::KeepIndex => self.shared.world().machines[device].index.keep(),
            What::Jump { secs } => self.devices[device].skew_s += secs,
            // Each is refused where it is so already.
            What::LoseRoot => {
                let away = disk.user().replace_root().is_ok();
                self.shared.world().machines[device].away |= away;
            }
            What::BringRoot => self.bring_root(device),
            What::Full => disk.set_quota(0, 0),
            What::Room => disk.set_quota(ROOM.0, ROOM.1),
            What::Overflow => disk.lose_events(),
            // What only it holds would be wanted for good.
            What::Leave if self.shared.world().holds_alone(device) => {}
            What::Leave => {
                self.devices[device].wanted = false;
                self.devices[device].left = true;
                self.stop_in_order(device);
            }
            what @ (What::Brake { .. } | What::Accept | What::Reject) => self.decides(device, &what),
            what @ (What::Restore { .. } | What::RestoreTo { .. } | What::Undo | What::UndoSince { .. }) => {
                let asked = self.asks_again(device, &what);
                self.note(|| format!("{device} was asked: {asked:?}"));
            }
            What::Copy { to } => self.copies(device, to),
            What::Hear => self.can_hear(device),
            What::Part => self.parts(device),
            what if what.with().is_some() => self.network(device, &what),
            _ => self.shared.world().carry_out(&act),
        }
        self.after_hands(device);
    }

    /// An act on the connection with another device.
    fn network(&mut self, device: usize, what: &What) {
        let Some(with) = what.with().filter(|with| self.is_other(device, *with)) else { return };
        match what {
            What::Cut { .. } => {
                self.links.pair(device, with).allowed = false;
                self.disconnect(device, with);
            }
            What::Silence { .. } => {
                let pair = self.links.pair(device, with);
                let conn = pair.ends.iter().find_map(|e| e.conn);
                if let Some(conn) = conn.filter(|_| !pair.silent) {
                    pair.silent = true;
                    self.later(SILENT, Event::GivenUp { a: device, b: with, conn: conn.number });
                }
            }
            What::Deaf { .. } => {
                // A handshake takes both directions, and so does a connection that crosses another one.
                self.links.pair(device, with).allowed = false;
                if !self.links.answers(device, with) {
                    self.disconnect(device, with);
                }
                let end = self.links.end(device, with);
                if let Some(conn) = end.conn.filter(|_| !end.deaf) {
                    end.deaf = true;
                    self.later(SILENT, Event::GivenUp { a: device, b: with, conn: conn.number });
                }
            }
            What::Cross { .. } => self.both_dial(device, with),
            What::Heal { .. } => {
                self.links.pair(device, with).allowed = true;
                self.dial(device, with);
            }
            What::Again { .. } => self.disconnect(device, with),
            _ => {}
        }
    }

    /// A device's index, or its folder, or all of its machine, is again what was kept of it.
    fn go_back(&mut self, device: usize, what: &What) {
        let whole = *what != What::RollBack;
        let possible = {
            let world = self.shared.world();
            // A backup of a moment ago leaves no trace, and is no backup that anybody keeps.
            if whole { world.is_kept(device) } else { world.is_noted_beyond(device) }
        };
        if !possible {
            return;
        }
        self.stop(device);
        {
            let mut world = self.shared.world();
            match what {
                What::RollBackAll => world.bring_back(device),
                What::TakeTurns => world.take_turns(device),
                What::RollBackFolder => world.bring_back_folder(device),
                _ => {
                    world.rough = true;
                    world.machines[device].index.roll_back();
                }
            }
        }
        self.start_soon(device);
    }

    /// A device's index is lost while it is stopped.
    pub(crate) fn lose_index(&mut self, device: usize) {
        self.stop(device);
        let mut world = self.shared.world();
        world.rough = true;
        world.machines[device].index.lose();
        drop(world);
        self.start_soon(device);
    }

    fn bring_root(&self, device: usize) {
        let machine = &mut self.shared.world().machines[device];
        machine.away &= machine.disk.user().bring_root_back().is_err();
    }

    fn is_other(&self, device: usize, with: usize) -> bool {
        device != with && with < self.devices.len()
    }

    /// Users were at a disk, or the machine died under their hands.
    pub(super) fn after_hands(&mut self, device: usize) {
        let died = self.shared.world().machines[device].died;
        if died && self.devices[device].life.is_some() {
            return self.died(device);
        }
        self.wake(device);
    }

    /// A program was killed; it is started again.
    pub(super) fn died(&mut self, device: usize) {
        self.stop(device);
        self.start_soon(device);
    }

    pub(super) fn start_soon(&mut self, device: usize) {
        if self.devices[device].wanted {
            let after = MS + 30 * self.links.delay();
            self.later(after, Event::Start { device });
        }
    }

    /// Ends a program that notes that, if its index takes it.
    pub(super) fn stop_in_order(&mut self, device: usize) {
        if let Some(life) = &self.devices[device].life {
            // Else it counts as one that was killed.
            let _ = life.site.end_life();
        }
        self.stop(device);
    }

    /// Ends a program, with its connections.
    pub(super) fn stop(&mut self, device: usize) {
        self.devices[device].end();
        self.shared.world().forget_deletes(device);
        self.shared.disarm(device);
        {
            let world = self.shared.world();
            let machine = &world.machines[device];
            machine.index.kill();
            machine.disk.halt();
        }
        for other in 0..self.devices.len() {
            if other != device {
                self.disconnect(device, other);
            }
        }
    }

    /// Starts a program that is to run and does not.
    pub(super) fn start(&mut self, device: usize) {
        let (now, others) = (self.instant(), self.others(device));
        self.set_clock(device);
        let d = &mut self.devices[device];
        if d.life.is_some() || !d.wanted || d.left {
            return;
        }
        if let Err(e) = d.start(&self.shared, others, now) {
            // As the program does: it looks again, now and then.
            self.note(|| format!("{device} does not start: {e}"));
            return self.later(1000 * MS, Event::Start { device });
        }
        self.note(|| format!("{device} starts"));
        for other in 0..self.devices.len() {
            if other != device && self.devices[other].life.is_some() {
                self.dial(device, other);
            }
        }
        self.is_heard(device);
        if self.shared.world().machines[device].died {
            return self.died(device);
        }
        self.wake(device);
    }

    /// All faults end: everybody is there, can reach everybody, and has a disk that works.
    pub(crate) fn calm_down(&mut self) {
        self.calm_since = self.now;
        self.part_at_last();
        for device in 0..self.devices.len() {
            self.shared.disarm(device);
            let disk = self.shared.world().machines[device].disk.clone();
            disk.set_quota(ROOM.0, ROOM.1);
            disk.set_faults(Default::default());
            self.bring_root(device);
            self.after_hands(device);
        }
        for a in 0..self.devices.len() {
            for b in a + 1..self.devices.len() {
                let pair = self.links.pair(a, b);
                pair.allowed = true;
                if pair.silent || pair.ends.iter().any(|e| e.deaf) {
                    self.disconnect(a, b);
                }
                self.dial(a, b);
            }
        }
        for device in 0..self.devices.len() {
            if !self.devices[device].left {
                self.devices[device].wanted = true;
                self.start(device);
            }
        }
    }

    /// Has a device look at everything.
    pub(crate) fn look_through(&mut self, device: usize) {
        self.input(device, Input::Hints(vec![dunlin_node::watch::Hint::Overflow]));
    }
}
