//! Without concurrent edits the result does not depend on the schedule: it is what each user left, whatever the order of
//! events, the delays, and what died meanwhile.

#![allow(clippy::unwrap_used, reason = "a test")]

use dunlin_sim::chance::Chance;
use dunlin_sim::disk::{ModelDisk, Options, Thing};
use dunlin_sim::ledger::Ledger;
use dunlin_sim::rest;
use dunlin_sim::script::{Act, Script, Setup, What};
use dunlin_sim::users::Hands;
use std::collections::BTreeMap;

const DEVICES: usize = 3;
const SCHEDULES: u64 = 3;
const NAMES: &[&str] = &["a", "b", "c.txt", "d", "d/a", "d/e", "d/e/b", "f"];
/// After so long everything is everywhere.
const SETTLED_MS: u64 = 30_000;

/// `.ci/run` takes 400; `SCHEDULE_SEEDS=10000` for more.
fn seeds() -> u64 {
    std::env::var("SCHEDULE_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(80)
}

fn change(chance: &mut Chance, dir: &str, content: u32) -> What {
    let mut path = || format!("{dir}/{}", chance.pick(NAMES));
    let (path, other) = (path(), path());
    match chance.below(12) {
        0..3 => What::Write { path, content },
        3 | 4 => What::Save { path, content },
        5 => What::Append { path, content },
        6 => What::Remove { path },
        7 => What::Mkdir { path },
        8 => What::Move { from: path, to: other },
        9 => What::Exchange { a: path, b: other },
        10 => What::Chmod { path, mode: *chance.pick(&[0o600, 0o700, 0o755]) },
        _ => What::Link { path, text: "a".into() },
    }
}

/// Each user works in a directory of his own, and in another one's when all is at rest.
fn acts(seed: u64) -> Vec<Act> {
    let mut chance = Chance::new(seed, "conflict-free");
    let (mut acts, mut content) = (Vec::new(), 10);
    let mut push = |at_ms, device, what| acts.push(Act { at_ms, device, inside: 0, what });
    for device in 0..DEVICES {
        push(0, device, What::Mkdir { path: format!("n{device}") });
        push(0, device, What::Start);
    }
    for round in 0..DEVICES {
        let begun = 3000 + round as u64 * SETTLED_MS;
        for device in 0..DEVICES {
            let dir = format!("n{}", (device + round) % DEVICES);
            let mut at = begun;
            for _ in 0..4 + chance.below(10) {
                at += [0, 0, 2, 30, 400][chance.below(5) as usize];
                content += 1;
                push(at, device, change(&mut chance, &dir, content));
            }
            let with = (device + 1) % DEVICES;
            let at = begun + chance.below(1500);
            match chance.below(6) {
                0 => push(at, device, What::Kill),
                1 => push(at, device, What::Overflow),
                2 => push(at, device, What::Again { with }),
                3 => push(at, device, What::Cross { with }),
                4 => {
                    push(at, device, What::Cut { with });
                    push(at + 700, device, What::Heal { with });
                }
                _ => {}
            }
        }
    }
    acts.sort_by_key(|act| act.at_ms);
    acts
}

/// All of a thing but its inode and the time, which is the clock's.
fn looks(tree: &BTreeMap<String, Thing>) -> BTreeMap<String, String> {
    let look = |thing: &Thing| match thing {
        Thing::Dir { .. } => "a directory".to_owned(),
        Thing::File { mode, bytes, .. } => format!("{mode:o} {}", String::from_utf8_lossy(bytes)),
        Thing::Link(text) => format!("> {}", String::from_utf8_lossy(text)),
        Thing::Other => "?".to_owned(),
    };
    tree.iter().map(|(path, thing)| (path.clone(), look(thing))).collect()
}

/// What the users leave if nobody syncs.
fn left(acts: &[Act]) -> BTreeMap<String, String> {
    let (disk, mut ledger) =
        (ModelDisk::new(Options { as_root: true, ..Options::default() }), Ledger::default());
    for act in acts {
        // What is refused here is refused there.
        let _ = Hands { disk: &disk, device: act.device, ledger: &mut ledger }.act(&act.what);
    }
    looks(&disk.visible().into_iter().map(|(path, thing)| (path.to_string(), thing)).collect())
}

#[test]
fn what_users_leave_apart_from_each_other_is_what_all_have_in_any_order_of_events() {
    for seed in 0..seeds() {
        let acts = acts(seed);
        let expected = left(&acts);
        for schedule in 0..SCHEDULES {
            let setup = Setup {
                seed: seed * SCHEDULES + schedule,
                devices: DEVICES,
                tick_ns: [1, 4_000_000][(seed % 2) as usize],
                errors: 0,
                skew_s: 0,
                disks: Vec::new(),
            };
            let script = Script { setup, acts: acts.clone() };
            let rest = rest::run(&script);
            assert_eq!(rest.outcome.broken, None, "seed {seed}, schedule {schedule}:\n{script}");
            for tree in &rest.trees {
                assert_eq!(looks(tree), expected, "seed {seed}, schedule {schedule}:\n{script}");
            }
        }
    }
}
