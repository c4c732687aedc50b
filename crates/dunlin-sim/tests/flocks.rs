//! Whole flocks from seeds, with every fault: no invariant may break (docs/reliability.md).

#![allow(clippy::unwrap_used, reason = "a test")]

use dunlin_sim::pace::Pace;
use dunlin_sim::script::Script;
use dunlin_sim::{run_caught, shrink, workload};
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// Seeds that break something and are not mended yet, and what they break (docs/reliability.md, "Open"). The list
/// may only shrink: a seed on it that breaks nothing any more has to go.
const OPEN: &[(u64, &str)] = &[];

/// The first seed of flocks whose number of devices is drawn.
const ANY_SIZE: u64 = 500_000;

/// `.ci/run` takes 20,000; `FLOCK_SEEDS=1000000` for more; `cargo run -p dunlin-sim -- --help` for other ways to run them.
fn seeds() -> u64 {
    std::env::var("FLOCK_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(2_000)
}

#[test]
fn flocks_hold_all_invariants() {
    all_hold(0..seeds(), |seed| workload::script_with(seed, 3));
}

/// `dunlin-sim --from 500000 --seeds 1000`: where `--devices` is not given, it is drawn.
#[test]
fn flocks_of_two_to_seven_hold_all_invariants() {
    let some = seeds() / 20;
    all_hold(ANY_SIZE..ANY_SIZE + some, workload::script);
}

fn all_hold(seeds: Range<u64>, script: impl Fn(u64) -> Script + Sync) {
    let (next, events) = (AtomicU64::new(seeds.start), AtomicU64::new(0));
    let failed = Mutex::new(None);
    let pace = Pace::begin();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let work = || {
        while failed.lock().unwrap().is_none() {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                break;
            }
            let outcome = run_caught(&script(seed));
            events.fetch_add(outcome.events, Ordering::Relaxed);
            let open = OPEN.iter().find(|(open, _)| *open == seed).map(|(_, invariant)| *invariant);
            match (outcome.broken, open) {
                (Some(broken), Some(open)) if broken.invariant == open => {}
                (Some(broken), _) => *failed.lock().unwrap() = Some((seed, broken)),
                (None, Some(open)) => {
                    panic!("seed {seed} does not break \"{open}\" any more: take it off the list")
                }
                (None, None) => {}
            }
        }
        pace.thread_ends();
    };
    std::thread::scope(|s| {
        for _ in 0..threads {
            s.spawn(work);
        }
    });
    let count = seeds.end - seeds.start;
    dunlin_testkit::say(&format!("{count} seeds, {} events in {}", events.into_inner(), pace.of(count)));
    if let Some((seed, broken)) = failed.into_inner().unwrap() {
        let short = shrink::shrink(&script(seed), broken.invariant);
        panic!("seed {seed} breaks \"{}\": {}\n{short}", broken.invariant, broken.what);
    }
}

#[test]
fn a_seed_is_reproduced_exactly() {
    for seed in 0..200 {
        let script = workload::script(seed);
        assert_eq!(run_caught(&script), run_caught(&script), "seed {seed}");
    }
}

/// Scripts that once broke an invariant, each under the streams of chance of many seeds.
#[test]
fn what_was_mended_stays_mended() {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/scripts");
    let mut count = 0;
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let script: Script = std::fs::read_to_string(&path).unwrap().parse().unwrap();
        for seed in 0..50 {
            let mut script = script.clone();
            script.setup.seed += seed;
            assert_eq!(
                run_caught(&script).broken,
                None,
                "{} with seed {}",
                path.display(),
                script.setup.seed
            );
        }
        count += 1;
    }
    assert!(count >= 59, "{count}");
}
