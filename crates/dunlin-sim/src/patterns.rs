//! What editors and other programs do in a few calls that belong together: names that go round, a delete and a rename
//! as one save, a file that is emptied and written twice, and one kind of thing in the place of another.

use crate::chance::Chance;
use crate::script::{Act, What};

/// Names of the usual scripts.
const NAMES: &[&str] = &["a", "b", "c.txt", "d/a", "d/b", "e/c.txt"];
const DIRS: &[&str] = &["d", "e", "d/f"];
const TEXTS: &[&str] = &["a", "d", "../x", "/nowhere"];
/// Contents from here on are written in patterns alone.
const FIRST_CONTENT: u32 = 3000;

struct Writer<'a> {
    chance: Chance,
    acts: &'a mut Vec<Act>,
    device: usize,
    at_ms: u64,
    content: u32,
}

impl Writer<'_> {
    fn push(&mut self, what: What) {
        // Some calls meet the program between two of its own.
        let inside = if self.chance.one_in(4) { 1 + self.chance.below(12) as u32 } else { 0 };
        self.acts.push(Act { at_ms: self.at_ms, device: self.device, inside, what });
    }

    fn wait(&mut self, below: u64) {
        self.at_ms += self.chance.below(below);
    }

    fn name(&mut self) -> String {
        (*self.chance.pick(NAMES)).to_owned()
    }

    fn content(&mut self) -> u32 {
        self.content += 1;
        self.content
    }

    /// Three names change places: each file has the name of the next one.
    fn rotates(&mut self) {
        let first = self.chance.below(NAMES.len() as u64) as usize;
        let names: Vec<String> = (0..3).map(|i| NAMES[(first + i) % NAMES.len()].to_owned()).collect();
        for path in names.clone() {
            if self.chance.one_in(2) {
                let content = self.content();
                self.push(What::Save { path, content });
            }
        }
        self.wait(1500);
        let away = "rotated".to_owned();
        let mut to = away.clone();
        for from in names {
            self.push(What::Move { from: from.clone(), to });
            self.wait(3);
            to = from;
        }
        self.push(What::Move { from: away, to });
    }

    /// As some editors save: the new content beside it, the old one deleted, the new one renamed.
    fn saves_by_delete(&mut self) {
        let (path, content) = (self.name(), self.content());
        let new = format!("{path}.new");
        self.push(What::Write { path: new.clone(), content });
        self.wait(20);
        self.push(What::Remove { path: path.clone() });
        // The system is free to do something else in between; a delete is believed after 300 ms.
        let pause = [3, 60, 600][self.chance.below(3) as usize];
        self.wait(pause);
        self.push(What::Move { from: new, to: path });
    }

    /// Emptied and written, twice in a moment.
    fn writes_twice(&mut self) {
        let path = self.name();
        for _ in 0..2 {
            self.push(What::Truncate { path: path.clone() });
            self.wait(30);
            let content = self.content();
            self.push(What::Write { path: path.clone(), content });
            self.wait(30);
        }
    }

    /// A file, a directory or a link under the name of another of them.
    fn changes_kind(&mut self) {
        let path = if self.chance.one_in(2) { (*self.chance.pick(DIRS)).to_owned() } else { self.name() };
        for _ in 0..1 + self.chance.below(3) {
            self.push(What::Remove { path: path.clone() });
            self.wait(2);
            match self.chance.below(3) {
                0 => {
                    let content = self.content();
                    self.push(What::Write { path: path.clone(), content });
                }
                1 => {
                    self.push(What::Mkdir { path: path.clone() });
                    let content = self.content();
                    self.push(What::Write { path: format!("{path}/a"), content });
                }
                _ => {
                    let text = (*self.chance.pick(TEXTS)).to_owned();
                    self.push(What::Link { path: path.clone(), text });
                }
            }
            let pause = [2, 40, 900][self.chance.below(3) as usize];
            self.wait(pause);
        }
    }
}

/// Adds them to the scripts of some seeds, anywhere. They draw from a stream of their own: other seeds stay as they were.
pub(crate) fn add(seed: u64, devices: usize, acts: &mut Vec<Act>) {
    let mut chance = Chance::new(seed, "patterns");
    if !chance.one_in(5) {
        return;
    }
    let end = acts.last().map_or(0, |act| act.at_ms) + 500;
    let rounds = 1 + chance.below(4);
    let mut w = Writer { chance, acts, device: 0, at_ms: 0, content: FIRST_CONTENT };
    for _ in 0..rounds {
        w.at_ms = w.chance.below(end);
        w.device = w.chance.below(devices as u64) as usize;
        match w.chance.below(4) {
            0 => w.rotates(),
            1 => w.saves_by_delete(),
            2 => w.writes_twice(),
            _ => w.changes_kind(),
        }
    }
    w.acts.sort_by_key(|act| act.at_ms);
}
