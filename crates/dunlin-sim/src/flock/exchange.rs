//! What devices say to each other, by the real rules of `dunlin_core::session`.

use super::{Event, FOLDER, Flock};
use crate::ledger::id_of;
use crate::links::{End, MS};
use dunlin_core::life::Heard;
use dunlin_core::message::Message;
use dunlin_core::plan::Fetch;
use dunlin_core::rows::Rows;
use dunlin_core::session::{Outgoing, Receipt, Speaker, Standing, opening};
use dunlin_node::engine::Input;

/// So many messages may be under way from one device to another.
const WINDOW: u32 = 8;

impl Flock {
    /// Connects two devices, if both run and can reach each other.
    pub(super) fn connect(&mut self, a: usize, b: usize) {
        self.links.pair(a, b).dialling = false;
        let run = self.devices[a].life.is_some() && self.devices[b].life.is_some();
        let pair = self.links.pair(a, b);
        if !run || !pair.allowed || pair.is_any() || !self.greet(a, b) {
            return;
        }
        let pair = self.links.pair(a, b);
        let conn = pair.conn(a, self.now);
        for of in [a, b] {
            *self.links.end(of, a + b - of) = End::of(conn);
        }
        self.note(|| format!("{a} and {b} connect"));
        for (me, you) in [(a, b), (b, a)] {
            self.begins(me, you);
        }
    }

    /// One side has a new connection, and begins to speak on it.
    pub(super) fn begins(&mut self, me: usize, you: usize) {
        self.count_peers(me);
        self.input(me, Input::Peers);
        let Some(life) = &self.devices[me].life else { return };
        let id = self.devices[you].id;
        let said = life.site.store.snapshot().and_then(|s| opening(&s, FOLDER, id));
        match said {
            Ok(message) => {
                self.send(me, you, message);
                self.send_releases(me, you);
            }
            Err(e) => self.breaks("the index can be read", e.to_string()),
        }
    }

    /// Ends the connection of two devices; both dial again after a while.
    pub(super) fn disconnect(&mut self, a: usize, b: usize) {
        if self.links.is_up(a, b) {
            self.note(|| format!("{a} and {b} are apart"));
        }
        self.links.down(a, b);
        for device in [a, b] {
            self.count_peers(device);
        }
        self.dial(a, b);
    }

    /// Has two devices connect in a moment.
    pub(super) fn dial(&mut self, a: usize, b: usize) {
        let pair = self.links.pair(a, b);
        if pair.allowed && !pair.is_any() && !pair.dialling {
            pair.dialling = true;
            let after = MS + 4 * self.links.delay();
            self.later(after, Event::Dial { a, b });
        }
    }

    pub(super) fn count_peers(&self, device: usize) {
        if let Some(life) = &self.devices[device].life {
            let connected = self.links.connected(device).into_iter().map(|d| self.devices[d].id).collect();
            life.host.told().connected = connected;
        }
    }

    /// Sends a message, if there is a connection.
    pub(super) fn send(&mut self, from: usize, to: usize, message: Message) {
        if !self.links.is_up(from, to) {
            return;
        }
        self.messages += 1;
        if let Message::Rows { rows, .. } = &message {
            self.sent.rows += rows.len() as u64;
        }
        if let Message::Contents { contents, .. } = &message {
            self.sent.bytes += contents.iter().map(|c| c.len() as u64).sum::<u64>();
        }
        let arrival = self.links.arrival(self.now, from, to);
        let Some(conn) = self.links.end(from, to).conn else { return };
        self.later(arrival - self.now, Event::Arrives { from, to, conn: conn.number, message });
    }

    /// Says all that is to be said to every connected device.
    pub(super) fn say(&mut self, device: usize) {
        for peer in self.links.connected(device) {
            self.say_to(device, peer);
        }
    }

    fn standing(&self, device: usize) -> Option<Standing> {
        Some(self.devices[device].life.as_ref()?.host.told().pulse.standing())
    }

    /// A device is told that its rows are committed elsewhere.
    fn hear_receipt(&mut self, to: usize, from: usize, receipt: &Receipt) {
        let Some(life) = &self.devices[to].life else { return };
        let (me, device) = (life.site.life_id(), self.devices[from].id);
        let of = life.site.store.snapshot().and_then(|s| s.totals()).unwrap_or_default().of_index().0;
        if receipt.is_anothers(me) {
            return;
        }
        let end = self.links.end(to, from);
        end.known.acked = receipt.received;
        if receipt.life == me && !std::mem::replace(&mut end.noted, true) {
            let before = Heard { of, received: receipt.before.1, life: receipt.before.0 };
            self.input(to, Input::Noted { from: device, before });
        }
    }

    fn say_to(&mut self, device: usize, peer: usize) {
        let (Some(standing), Some(life)) = (self.standing(device), &self.devices[device].life) else {
            return;
        };
        let site = life.site.clone();
        let Ok(snapshot) = site.store.snapshot() else { return };
        while self.links.end(device, peer).under_way < WINDOW {
            let Some(outgoing) = &mut self.links.end(device, peer).outgoing else { return };
            match outgoing.next(&snapshot, standing) {
                Ok(Some(message)) => {
                    self.rides(device, peer, &message);
                    self.send(device, peer, message);
                }
                Ok(None) => return,
                Err(e) => return self.breaks("the index can be read", e.to_string()),
            }
        }
    }

    /// A message arrives, unless its connection is not the one that counts any more.
    pub(super) fn arrives(&mut self, from: usize, to: usize, conn: u64, message: Message) {
        let is_silent = self.links.pair(from, to).silent || self.links.end(to, from).deaf;
        if is_silent || !self.links.pair(from, to).has(conn) {
            return;
        }
        let Some(message) = self.comes_early(to, from, conn, message) else { return };
        let sender = self.links.end(from, to);
        if sender.has(conn) {
            sender.under_way -= 1;
        }
        if !self.links.end(to, from).has(conn) {
            return;
        }
        let device = self.devices[from].id;
        self.note(|| format!("{from} tells {to}: {}", brief(&message)));
        match message {
            Message::Open { inc, of, received, life, heard_in, own, .. } => {
                let speaker = Speaker { device, inc, life };
                let heard = Heard { of, received, life: heard_in };
                self.input(to, Input::Open { from: speaker, heard, own });
                let Some(life) = &self.devices[to].life else { return };
                let begun =
                    life.site.store.snapshot().and_then(|s| Outgoing::new(&s, FOLDER, speaker, &heard));
                let Ok(outgoing) = begun else { return };
                let end = self.links.end(to, from);
                end.from = Some(speaker);
                end.known.acked = outgoing.acked();
                end.outgoing = Some(outgoing);
            }
            Message::Rows { upto, last, rows, .. } => {
                let Some(speaker) = self.links.end(to, from).from else {
                    return self.breaks("honest peers are never refused", "rows before an opening".into());
                };
                if self.liars.is_empty() {
                    self.shared.world().check_rows(&rows);
                }
                let Some(life) = &self.devices[to].life else { return };
                // Messages of earlier connections do not arrive here.
                let told = life.site.store.snapshot().and_then(|s| s.totals()).unwrap_or_default();
                let told = told.of_index().0;
                self.input(to, Input::Rows { from: speaker, told, upto, last, rows });
            }
            Message::Statements { statements, .. } => self.hear_releases(to, &statements),
            Message::Ack { received, life, before, before_received, .. } => {
                let receipt = Receipt { received, life, before: (before, before_received) };
                self.hear_receipt(to, from, &receipt);
            }
            Message::Status { digest, need, busy, held, .. } => {
                self.links.end(to, from).known.standing = Some(Standing { digest, need, busy, held });
            }
            Message::Contents { contents, .. } => {
                let Some(life) = &self.devices[to].life else { return };
                for bytes in contents {
                    life.host.told().carries(id_of(&bytes), bytes.to_vec());
                }
            }
            _ => {}
        }
        self.say_to(to, from);
        self.say_to(from, to);
    }

    /// Asks the connected devices for a content, as the fetcher does; what is wrong is not taken.
    pub(super) fn ask(&mut self, device: usize, fetch: &Fetch) -> Option<Vec<u8>> {
        for peer in self.links.connected(device) {
            if !self.links.answers(device, peer) {
                continue;
            }
            let Some(life) = &self.devices[peer].life else { continue };
            let (site, host) = (life.site.clone(), life.host.clone());
            self.set_clock(peer);
            let recent = host.told().recent.iter().find(|(c, _)| *c == fetch.content).map(|(_, b)| b.clone());
            let found = recent.or_else(|| {
                let file = site.find(&fetch.content)?;
                let mut bytes = vec![0; usize::try_from(fetch.size).unwrap_or(0) + 1];
                let n = file.read_at(&mut bytes, 0).ok()?;
                bytes.truncate(n);
                Some(bytes)
            });
            let died = self.shared.world().machines[peer].died;
            if died {
                self.died(peer);
                continue;
            }
            if let Some(bytes) = found
                && id_of(&bytes) == fetch.content
            {
                self.sent.bytes += bytes.len() as u64;
                return Some(bytes);
            }
        }
        self.asks_liars(device, &fetch.content).filter(|bytes| id_of(bytes) == fetch.content)
    }
}

fn brief(message: &Message) -> String {
    match message {
        Message::Rows { upto, last, rows, .. } => {
            let nodes: Vec<String> =
                rows.iter().map(|r| format!("{}", r.node).chars().take(6).collect()).collect();
            format!("rows up to {upto}{} {}", if *last { ", all:" } else { ":" }, nodes.join(" "))
        }
        Message::Status { need, busy, .. } => format!("need {need}, busy {busy}"),
        Message::Open { received, .. } => format!("open, has {received}"),
        Message::Ack { received, .. } => format!("has {received}"),
        other => format!("{other:?}"),
    }
}
