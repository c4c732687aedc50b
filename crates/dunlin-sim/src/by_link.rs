//! Moments in which a directory becomes a link that leads out of the folder, as a step is on its way through it: who
//! opens paths without care makes, moves or removes there what is none of its business.

use crate::chance::Chance;
use crate::script::{Act, What};

const DIRS: &[&str] = &["d", "e"];
/// The link that takes a directory's place: two names that are exchanged are never away.
const LINK: &str = "way";
const TEXTS: &[&str] = &["../x", "/nowhere"];
/// Contents from here on are written in such moments alone.
const FIRST_CONTENT: u32 = 5000;

/// Adds such moments to the end of the scripts of some seeds. They draw from a stream of their own: other seeds stay as
/// they were.
pub(crate) fn add(seed: u64, devices: usize, acts: &mut Vec<Act>) {
    let mut chance = Chance::new(seed, "by-link");
    if !chance.one_in(8) {
        return;
    }
    let mut now = acts.iter().map(|act| act.at_ms).max().unwrap_or(0);
    let mut content = FIRST_CONTENT;
    for _ in 0..1 + chance.below(3) {
        let dir = (*chance.pick(DIRS)).to_owned();
        let file = format!("{dir}/a");
        let here = chance.below(devices as u64) as usize;
        let there = (here + 1 + chance.below(devices as u64 - 1) as usize) % devices;
        let mut act = |at_ms, device, inside, what| acts.push(Act { at_ms, device, inside, what });
        let mut fresh = || {
            content += 1;
            content
        };
        now += 600 + chance.below(600);
        act(now, here, 0, What::Mkdir { path: dir.clone() });
        act(now, here, 0, What::Save { path: file.clone(), content: fresh() });
        act(now, there, 0, What::Link { path: LINK.to_owned(), text: (*chance.pick(TEXTS)).to_owned() });
        now += 600 + chance.below(600);
        let one = match chance.below(6) {
            0 => What::Remove { path: file },
            1 => What::Move { from: file, to: format!("{dir}/b") },
            2 => What::Mkdir { path: format!("{dir}/f") },
            3 => What::Chmod { path: file, mode: *chance.pick(&[0o600, 0o644, 0o755]) },
            4 => What::Write { path: format!("{dir}/new"), content: fresh() },
            _ => What::Save { path: file, content: fresh() },
        };
        // A delete is believed after 300 ms, the rest is told within some milliseconds.
        let heard = if matches!(one, What::Remove { .. }) { 300 } else { 4 };
        act(now, here, 0, one);
        now += heard + chance.below(4);
        let exchange = What::Exchange { a: dir, b: LINK.to_owned() };
        let inside = 1 + chance.below(24) as u32;
        act(now, there, inside, exchange.clone());
        if chance.one_in(2) {
            now += 2 + chance.below(40);
            act(now, there, 0, exchange);
        }
    }
}
