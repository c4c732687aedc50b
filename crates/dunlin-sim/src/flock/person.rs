//! A person who decides about mass deletes, and how that becomes known: the statements of the real program, unsigned.

use super::{FOLDER, Flock};
use crate::links::{MS, Time};
use crate::script::What;
use dunlin_core::brake::Limits;
use dunlin_core::ids::DotRange;
use dunlin_core::members::{accept, claimed_release};
use dunlin_core::message::{Message, Statement, frame};
use dunlin_node::engine::Input;

/// How long a person lets a folder be halted when nothing else happens.
const THINKS: Time = 5_000 * MS;

impl Flock {
    /// A person decides about mass deletes on a device.
    pub(super) fn decides(&mut self, device: usize, what: &What) {
        match what {
            What::Brake { files } => self.set_brake(device, *files),
            what => self.decide(device, *what == What::Accept),
        }
    }

    fn set_brake(&mut self, device: usize, files: u64) {
        self.devices[device].limits = Limits { files, ..Limits::default() };
        self.shared.world().machines[device].brake = Some(files);
    }

    fn decide(&mut self, device: usize, accept: bool) {
        if self.devices[device].life.is_some() {
            // What becomes of it shows.
            self.input(device, Input::Resume { accept, decided: Box::new(|_| {}) });
        }
    }

    /// At rest somebody looks at what is halted, and decides after a while.
    pub(crate) fn look_at_halted(&mut self) {
        for device in 0..self.devices.len() {
            let d = &mut self.devices[device];
            let halted = d.life.as_ref().is_some_and(|l| l.host.told().pulse.brake.is_some());
            let since = *d.halted_since.get_or_insert(self.now);
            if !halted {
                d.halted_since = None;
            } else if self.now >= since + THINKS {
                d.halted_since = None;
                let accept = self.accepts || self.person.one_in(2);
                self.decide(device, accept);
            }
        }
    }

    fn release_message(&self, device: usize) -> Option<Message> {
        let d = &self.devices[device];
        let claims = accept(FOLDER, d.id, &d.released, &[]);
        let statement = |claim| Statement { claim: frame(claim)[4..].to_vec(), signature: Vec::new() };
        let statements: Vec<Statement> = claims.iter().map(statement).collect();
        (!statements.is_empty()).then_some(Message::Statements { folder: FOLDER, statements })
    }

    pub(super) fn send_releases(&mut self, from: usize, to: usize) {
        if let Some(message) = self.release_message(from) {
            self.send(from, to, message);
        }
    }

    /// What was accepted on a device is told to the others.
    pub(super) fn tell_releases(&mut self, device: usize) {
        let Some(life) = &self.devices[device].life else { return };
        let accepted = std::mem::take(&mut life.host.told().releases);
        if self.learn(device, accepted) {
            for peer in self.links.connected(device) {
                self.send_releases(device, peer);
            }
        }
    }

    fn learn(&mut self, device: usize, ranges: Vec<DotRange>) -> bool {
        let known = &mut self.devices[device].released;
        let before = known.len();
        known.extend(ranges);
        known.sort();
        known.dedup();
        known.len() > before
    }

    pub(super) fn hear_releases(&mut self, device: usize, statements: &[Statement]) {
        let releases = statements.iter().filter_map(claimed_release);
        let heard: Vec<DotRange> = releases.flat_map(|(_, release)| release.ranges).collect();
        if self.learn(device, heard) {
            let all = self.devices[device].released.clone();
            self.input(device, Input::Released(all));
            for peer in self.links.connected(device) {
                self.send_releases(device, peer);
            }
        }
    }
}
