//! Flocks with members that lie, from seeds: what is promised to the honest ones (docs/reliability.md).

#![allow(clippy::unwrap_used, reason = "a test")]

use dunlin_core::ids::{DeviceId, Incarnation, LifeId};
use dunlin_core::life::Heard;
use dunlin_core::rows::Rows;
use dunlin_core::session::Speaker;
use dunlin_node::engine::Input;
use dunlin_sim::device::Device;
use dunlin_sim::disk::{ModelDisk, Options};
use dunlin_sim::flock::hostile::script;
use dunlin_sim::index::ModelIndex;
use dunlin_sim::run_hostile;
use dunlin_sim::world::Shared;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// `.ci/run` takes 2,000; `HOSTILE_SEEDS=100000` for more; `cargo run -p dunlin-sim -- --hostile --seed 4711` tells what happens in one.
fn seeds() -> u64 {
    std::env::var("HOSTILE_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(500)
}

#[test]
fn whatever_is_said_the_honest_stay_equal_and_lose_nothing() {
    let next = AtomicU64::new(0);
    let failed = Mutex::new(None);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let work = || {
        while failed.lock().unwrap().is_none() {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds() {
                return;
            }
            if let Some(broken) = run_hostile(&script(seed)).broken {
                *failed.lock().unwrap() = Some((seed, broken));
            }
        }
    };
    std::thread::scope(|s| {
        for _ in 0..threads {
            s.spawn(work);
        }
    });
    if let Some((seed, broken)) = failed.into_inner().unwrap() {
        panic!("seed {seed} breaks \"{}\": {}\n{}", broken.invariant, broken.what, script(seed));
    }
}

#[test]
fn a_seed_with_liars_is_reproduced_exactly() {
    for seed in 0..40 {
        let script = script(seed);
        assert_eq!(run_hostile(&script), run_hostile(&script), "seed {seed}");
    }
}

/// An index that others say was rolled back goes on as a new one. Who says so again and again is believed ever later.
#[test]
fn an_index_is_not_renewed_as_often_as_somebody_says_it_must() {
    let shared = Shared::new(vec![(ModelDisk::new(Options::default()), ModelIndex::default())], 1);
    let begun = Instant::now();
    let mut device = Device::new(0, 0);
    device.start(&shared, std::collections::BTreeSet::new(), begun).unwrap();
    let life = device.life.as_mut().unwrap();
    let from = Speaker { device: DeviceId([9; 32]), inc: Incarnation([9; 16]), life: LifeId([9; 16]) };
    let mut renewed = Vec::new();
    for s in 1..=600 {
        let now = begun + Duration::from_secs(s);
        let (of, _) = life.site.store.snapshot().unwrap().totals().unwrap().of_index();
        let heard = Heard { of, received: 1 << 40, life: LifeId([9; 16]) };
        life.engine.handle(Input::Open { from, heard, own: Vec::new() }, now).unwrap();
        life.engine.turn(now).unwrap();
        if std::mem::take(&mut life.host.told().renewed) {
            renewed.push(s);
        }
    }
    assert_eq!(renewed, [1, 9, 25, 57, 121, 249, 505]);
}
