//! What happens in a run, as a list that can be printed, read back, and made shorter.

use crate::odd::Odd;
use std::fmt;
use std::str::FromStr;

/// A whole run: everything else follows from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    /// How the flock is made.
    pub setup: Setup,
    /// What happens, in order of time.
    pub acts: Vec<Act>,
}

/// How a flock is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setup {
    /// The seed of the streams of chance.
    pub seed: u64,
    /// How many devices there are.
    pub devices: usize,
    /// The granularity of time stamps, in nanoseconds.
    pub tick_ns: u64,
    /// One in so many calls of the program to the disk fails; 0 for none.
    pub errors: u32,
    /// By how many seconds each device's clock is off: device `i` by `i` times this.
    pub skew_s: i64,
    /// What is odd about the devices' disks; of those that are not listed nothing is.
    pub disks: Vec<Odd>,
}

/// One thing that happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Act {
    /// When, in milliseconds from the start.
    pub at_ms: u64,
    /// To which device.
    pub device: usize,
    /// Not at once, but just before the program's so-many-th next call to the disk; 0 for at once.
    pub inside: u32,
    /// What.
    pub what: What,
}

/// What users, machines and networks do.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields are paths, contents by number, and devices")]
pub enum What {
    /// Writes a file in place, or a new one.
    Write { path: String, content: u32 },
    /// Writes a temporary file and renames it over the path, as editors do.
    Save { path: String, content: u32 },
    /// Adds to the end of a file.
    Append { path: String, content: u32 },
    /// Cuts a file to nothing.
    Truncate { path: String },
    /// Renames, replacing what is there if the system allows it.
    Move { from: String, to: String },
    /// Two names change places.
    Exchange { a: String, b: String },
    /// Removes a file, a link, or a directory with all that is in it.
    Remove { path: String },
    /// Makes a directory.
    Mkdir { path: String },
    /// Makes a symbolic link.
    Link { path: String, text: String },
    /// Changes the permission bits.
    Chmod { path: String, mode: u16 },
    /// Sets the modification time, in seconds since 1970.
    Touch { path: String, secs: i64 },
    /// The program is killed; it is started again a moment later.
    Kill,
    /// The index takes no commit and gives no row any more, while the disk goes on: the folder is closed and
    /// opened again a moment later.
    Refuse,
    /// The power goes: what was not synced may be lost; started again a moment later.
    PowerCut,
    /// The program is stopped, until it is started.
    Stop,
    /// The program is started.
    Start,
    /// The index is lost while the program is stopped, as after a deletion of the state directory's part.
    LoseIndex,
    /// A backup of the index is taken.
    KeepIndex,
    /// The index is replaced by the backup; the program is restarted.
    RollBack,
    /// The whole machine is kept as it is now: its index, its folder and the notes in it.
    KeepAll,
    /// The whole machine is again what was kept; it is started a moment later.
    RollBackAll,
    /// The whole machine and what was kept of it take turns, as two copies of it of which one is off; started a moment
    /// later.
    TakeTurns,
    /// What was kept of the machine is brought to life on another one, which runs beside it under the same key.
    Copy { to: usize },
    /// The two copies of a machine can hear each other from now on.
    Hear,
    /// A person who knows that there are two copies makes this one a device of its own, and starts the other one again.
    Part,
    /// The wall clock jumps by so many seconds.
    Jump { secs: i64 },
    /// The disk of the folder is not there any more.
    LoseRoot,
    /// It is back.
    BringRoot,
    /// The disk is full.
    Full,
    /// There is room again.
    Room,
    /// The kernel drops watch events.
    Overflow,
    /// The device is never seen again.
    Leave,
    /// The connection with another device ends, and none is made.
    Cut { with: usize },
    /// Nothing arrives any more, and nobody is told.
    Silence { with: usize },
    /// Connections with another device are possible again.
    Heal { with: usize },
    /// Another connection takes the place of the one with this device.
    Again { with: usize },
    /// Nothing that another device sends arrives here any more, while all that is sent to it does.
    Deaf { with: usize },
    /// Both dial at once: for a moment there are two connections with this device.
    Cross { with: usize },
    /// The system refuses the next commit of the index, which was made all the same, or not.
    FailCommit { made: bool },
    /// Of the next so many listings of the program the second half of the entries cannot be looked at.
    ShortList { lists: u32 },
    /// The folder, and not the index, is again what was kept of the machine.
    RollBackFolder,
    /// From its next start on, the device's brake trips for half of the files if they are at least so many.
    Brake { files: u64 },
    /// A person accepts the deletes that are held.
    Accept,
    /// A person rejects them.
    Reject,
    /// A user has a file or directory again as it was last.
    Restore { path: String },
    /// The same at another place of the folder.
    RestoreTo { from: String, to: String },
    /// A user takes the last mass change back, which is one of two things already.
    Undo,
    /// A user takes back all that was changed since so many seconds ago.
    UndoSince { secs: i64 },
}

impl What {
    /// The word of it in a script.
    pub fn word(&self) -> &'static str {
        match self {
            What::Write { .. } => "write",
            What::Save { .. } => "save",
            What::Append { .. } => "append",
            What::Truncate { .. } => "truncate",
            What::Move { .. } => "move",
            What::Exchange { .. } => "exchange",
            What::Remove { .. } => "remove",
            What::Mkdir { .. } => "mkdir",
            What::Link { .. } => "link",
            What::Chmod { .. } => "chmod",
            What::Touch { .. } => "touch",
            What::Kill => "kill",
            What::Refuse => "refuse",
            What::PowerCut => "power-cut",
            What::Stop => "stop",
            What::Start => "start",
            What::LoseIndex => "lose-index",
            What::KeepIndex => "keep-index",
            What::RollBack => "roll-back",
            What::KeepAll => "keep-all",
            What::RollBackAll => "roll-back-all",
            What::TakeTurns => "take-turns",
            What::Copy { .. } => "copy",
            What::Hear => "hear",
            What::Part => "part",
            What::Jump { .. } => "jump",
            What::LoseRoot => "lose-root",
            What::BringRoot => "bring-root",
            What::Full => "full",
            What::Room => "room",
            What::Overflow => "overflow",
            What::Leave => "leave",
            What::Cut { .. } => "cut",
            What::Silence { .. } => "silence",
            What::Heal { .. } => "heal",
            What::Again { .. } => "again",
            What::Deaf { .. } => "deaf",
            What::Cross { .. } => "cross",
            What::FailCommit { .. } => "fail-commit",
            What::ShortList { .. } => "short-list",
            What::RollBackFolder => "roll-back-folder",
            What::Brake { .. } => "brake",
            What::Accept => "accept",
            What::Reject => "reject",
            What::Restore { .. } => "restore",
            What::RestoreTo { .. } => "restore-to",
            What::Undo => "undo",
            What::UndoSince { .. } => "undo-since",
        }
    }

    fn arguments(&self) -> Vec<String> {
        match self {
            What::Write { path, content } | What::Save { path, content } | What::Append { path, content } => {
                vec![path.clone(), content.to_string()]
            }
            What::Truncate { path }
            | What::Remove { path }
            | What::Mkdir { path }
            | What::Restore { path } => vec![path.clone()],
            What::Move { from, to } | What::RestoreTo { from, to } => vec![from.clone(), to.clone()],
            What::Exchange { a, b } => vec![a.clone(), b.clone()],
            What::Link { path, text } => vec![path.clone(), text.clone()],
            What::Chmod { path, mode } => vec![path.clone(), format!("{mode:o}")],
            What::Touch { path, secs } => vec![path.clone(), secs.to_string()],
            What::Jump { secs } | What::UndoSince { secs } => vec![secs.to_string()],
            What::Brake { files } => vec![files.to_string()],
            What::FailCommit { made } => vec![made.to_string()],
            What::ShortList { lists } => vec![lists.to_string()],
            What::Copy { to } => vec![to.to_string()],
            what => what.with().map(|with| with.to_string()).into_iter().collect(),
        }
    }

    /// The other device of a connection.
    pub(crate) fn with(&self) -> Option<usize> {
        match self {
            What::Cut { with }
            | What::Silence { with }
            | What::Heal { with }
            | What::Again { with }
            | What::Deaf { with }
            | What::Cross { with } => Some(*with),
            _ => None,
        }
    }
}

impl fmt::Display for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.at_ms, self.device, self.what.word())?;
        self.what.arguments().iter().try_for_each(|a| write!(f, " {a}"))?;
        if self.inside > 0 { write!(f, " @{}", self.inside) } else { Ok(()) }
    }
}

impl fmt::Display for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Setup { seed, devices, tick_ns, errors, skew_s, disks } = &self.setup;
        write!(f, "flock {seed} {devices} {tick_ns} {errors} {skew_s}")?;
        disks.iter().try_for_each(|odd| write!(f, " {odd}"))?;
        writeln!(f)?;
        self.acts.iter().try_for_each(|a| writeln!(f, "{a}"))
    }
}

/// A script that cannot be read: the line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadScript(pub String);

fn number<T: FromStr>(word: Option<&&str>, line: &str) -> Result<T, BadScript> {
    word.and_then(|w| w.parse().ok()).ok_or_else(|| BadScript(line.into()))
}

/// Acts of one word.
const PLAIN: &[What] = &[
    What::Kill,
    What::Refuse,
    What::PowerCut,
    What::Stop,
    What::Start,
    What::LoseIndex,
    What::KeepIndex,
    What::RollBack,
    What::KeepAll,
    What::RollBackAll,
    What::TakeTurns,
    What::LoseRoot,
    What::BringRoot,
    What::Full,
    What::Room,
    What::Overflow,
    What::Leave,
    What::RollBackFolder,
    What::Accept,
    What::Reject,
    What::Undo,
    What::Hear,
    What::Part,
];

impl FromStr for Act {
    type Err = BadScript;

    fn from_str(line: &str) -> Result<Act, BadScript> {
        let mut words: Vec<&str> = line.split_whitespace().collect();
        let mut inside = 0;
        if let Some(n) = words.last().and_then(|w| w.strip_prefix('@')) {
            inside = n.parse().map_err(|_| BadScript(line.into()))?;
            words.pop();
        }
        let (at_ms, device) = (number(words.first(), line)?, number(words.get(1), line)?);
        let text = |i: usize| words.get(i).map(|w| w.to_string()).ok_or_else(|| BadScript(line.into()));
        let what = match *words.get(2).unwrap_or(&"") {
            "write" => What::Write { path: text(3)?, content: number(words.get(4), line)? },
            "save" => What::Save { path: text(3)?, content: number(words.get(4), line)? },
            "append" => What::Append { path: text(3)?, content: number(words.get(4), line)? },
            "truncate" => What::Truncate { path: text(3)? },
            "move" => What::Move { from: text(3)?, to: text(4)? },
            "exchange" => What::Exchange { a: text(3)?, b: text(4)? },
            "remove" => What::Remove { path: text(3)? },
            "mkdir" => What::Mkdir { path: text(3)? },
            "link" => What::Link { path: text(3)?, text: text(4)? },
            "chmod" => What::Chmod {
                path: text(3)?,
                mode: u16::from_str_radix(&text(4)?, 8).map_err(|_| BadScript(line.into()))?,
            },
            "touch" => What::Touch { path: text(3)?, secs: number(words.get(4), line)? },
            "jump" => What::Jump { secs: number(words.get(3), line)? },
            "cut" => What::Cut { with: number(words.get(3), line)? },
            "silence" => What::Silence { with: number(words.get(3), line)? },
            "heal" => What::Heal { with: number(words.get(3), line)? },
            "again" => What::Again { with: number(words.get(3), line)? },
            "deaf" => What::Deaf { with: number(words.get(3), line)? },
            "cross" => What::Cross { with: number(words.get(3), line)? },
            "fail-commit" => What::FailCommit { made: number(words.get(3), line)? },
            "short-list" => What::ShortList { lists: number(words.get(3), line)? },
            "brake" => What::Brake { files: number(words.get(3), line)? },
            "restore" => What::Restore { path: text(3)? },
            "restore-to" => What::RestoreTo { from: text(3)?, to: text(4)? },
            "undo-since" => What::UndoSince { secs: number(words.get(3), line)? },
            "copy" => What::Copy { to: number(words.get(3), line)? },
            word => match PLAIN.iter().find(|what| what.word() == word) {
                Some(what) => what.clone(),
                None => return Err(BadScript(line.into())),
            },
        };
        Ok(Act { at_ms, device, inside, what })
    }
}

impl FromStr for Script {
    type Err = BadScript;

    fn from_str(text: &str) -> Result<Script, BadScript> {
        let comment = |l: &&str| !l.trim().is_empty() && !l.starts_with('#');
        let mut lines = text.lines().filter(comment);
        let first = lines.next().unwrap_or_default();
        let words: Vec<&str> = first.split_whitespace().collect();
        if words.first() != Some(&"flock") {
            return Err(BadScript(first.into()));
        }
        let setup = Setup {
            seed: number(words.get(1), first)?,
            devices: number(words.get(2), first)?,
            tick_ns: number(words.get(3), first)?,
            errors: number(words.get(4), first)?,
            skew_s: number(words.get(5), first)?,
            disks: (6..words.len()).map(|i| number(words.get(i), first)).collect::<Result<_, _>>()?,
        };
        Ok(Script { setup, acts: lines.map(str::parse).collect::<Result<_, _>>()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_are_read_as_they_are_printed() {
        for seed in 0..200 {
            let script = crate::workload::script(seed);
            assert_eq!(script.to_string().parse::<Script>().as_ref(), Ok(&script));
        }
        for act in ["0 1 brake 4", "7 0 accept", "8 2 reject @3", "9 0 copy 3", "9 1 hear", "9 1 part"] {
            assert_eq!(act.parse::<Act>().unwrap().to_string(), act);
        }
        assert!("flock 1 3 1 0 0\n5 0 dance a".parse::<Script>().is_err());
        assert!("5 0 kill".parse::<Script>().is_err());
    }
}
