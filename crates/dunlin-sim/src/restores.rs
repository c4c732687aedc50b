//! Users who have things again as they were, and take changes back: in one seed of six, with kills, power cuts and full
//! disks in the midst of it.

use crate::chance::Chance;
use crate::script::{Act, What};

/// Contents from here on are written around restores alone.
const FIRST_CONTENT: u32 = 2000;

/// What else may go wrong in a seed.
#[derive(Clone, Copy)]
pub(crate) struct May {
    pub kills: bool,
    pub cuts_of_power: bool,
    pub full: bool,
}

/// The stream of chance of a seed that has restores. It is one of their own: other seeds stay as they were.
pub(crate) fn chance(seed: u64) -> Option<Chance> {
    let mut chance = Chance::new(seed, "restores");
    chance.one_in(6).then_some(chance)
}

fn path_in(what: &What) -> Option<&String> {
    match what {
        What::Write { path, .. } | What::Save { path, .. } | What::Mkdir { path } => Some(path),
        What::Move { to, .. } => Some(to),
        _ => None,
    }
}

/// Adds them to a script, anywhere in it.
pub(crate) fn add(seed: u64, devices: usize, may: May, acts: &mut Vec<Act>) {
    let Some(mut chance) = chance(seed) else { return };
    let mut paths: Vec<String> = acts.iter().filter_map(|a| path_in(&a.what)).cloned().collect();
    paths.push("a".into());
    let end = acts.last().map_or(0, |act| act.at_ms) + 1000;
    let mut content = FIRST_CONTENT;
    for _ in 0..2 + chance.below(5) {
        let mut at_ms = chance.below(end);
        let device = chance.below(devices as u64) as usize;
        let mut push = |at_ms, device, inside, what| acts.push(Act { at_ms, device, inside, what });
        let path = chance.pick(&paths).clone();
        if chance.one_in(2) {
            // There is something to have back; mostly it is known by then.
            let by = chance.below(devices as u64) as usize;
            content += 1;
            let what = match chance.below(3) {
                0 => What::Save { path: path.clone(), content },
                1 => What::Move { from: path.clone(), to: format!("{path}.away") },
                _ => What::Remove { path: path.clone() },
            };
            push(at_ms, by, 0, what);
            at_ms += [5, 400, 900][chance.below(3) as usize];
        }
        // Before it, so that it happens between its calls.
        let inside = 1 + chance.below(24) as u32;
        match chance.below(4) {
            0 if may.kills => push(at_ms, device, inside, What::Kill),
            1 if may.cuts_of_power => push(at_ms, device, inside, What::PowerCut),
            2 if may.full => {
                let full = chance.below(devices as u64) as usize;
                push(at_ms + chance.below(3), full, 0, What::Full);
                push(at_ms + 50 + chance.below(2000), full, 0, What::Room);
            }
            _ => {}
        }
        let what = match chance.below(6) {
            0 | 1 => What::Restore { path },
            2 => What::RestoreTo { from: path, to: format!("again{content}") },
            3 | 4 => What::Undo,
            _ => What::UndoSince { secs: chance.below(4) as i64 },
        };
        push(at_ms, device, 0, what);
    }
    acts.sort_by_key(|act| act.at_ms);
}
