//! `cargo run -p dunlin-sim`: many seeds, or one with everything that happens in it.

use clap::Parser;
use dunlin_sim::pace::Pace;
use dunlin_sim::script::Script;
use dunlin_sim::{flock, masses, rolled, run_caught, run_hostile, shrink, twice, workload};
use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Runs simulated flocks.
#[derive(Parser)]
struct Arguments {
    /// How many seeds.
    #[arg(long, default_value_t = 10_000)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Threads.
    #[arg(long)]
    threads: Option<usize>,
    /// Runs only this seed, and tells what happens in it.
    #[arg(long)]
    seed: Option<u64>,
    /// Runs the script of a file instead, and tells what happens in it.
    #[arg(long)]
    script: Option<std::path::PathBuf>,
    /// Always so many devices.
    #[arg(long)]
    devices: Option<usize>,
    /// Goes on after the first failure, and counts them by invariant.
    #[arg(long)]
    all: bool,
    /// Prints only the first seed that fails, with the invariant, and shrinks nothing.
    #[arg(long)]
    find: bool,
    /// Prints what came of each seed: of two builds that should do the same, any difference shows.
    #[arg(long)]
    each: bool,
    /// Only this invariant counts as a failure; may be given several times.
    #[arg(long, value_name = "NAME")]
    by: Vec<String>,
    /// All disks are ordinary ones.
    #[arg(long)]
    without_odd: bool,
    /// Among members that lie.
    #[arg(long)]
    hostile: bool,
    /// With a machine that goes back in time.
    #[arg(long)]
    rolled: bool,
    /// With a machine that was copied, of which both copies are at work by turns.
    #[arg(long)]
    copied: bool,
    /// With a machine that was copied, of which both copies are at work at once.
    #[arg(long)]
    twice: bool,
    /// With brakes, mass deletes and who decides about them.
    #[arg(long)]
    masses: bool,
    /// Leaves out the acts with these words, as scripts have them (roll-back).
    #[arg(long, value_name = "WORDS", value_delimiter = ',')]
    without: Vec<String>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let make = |seed| {
        let mut script = match arguments.devices {
            _ if arguments.hostile => flock::hostile::script(seed),
            _ if arguments.masses => masses::script(seed),
            devices if arguments.copied => rolled::copied(seed, devices.unwrap_or(3)),
            devices if arguments.twice => twice::script(seed, devices.unwrap_or(3)),
            devices if arguments.rolled => rolled::script(seed, devices.unwrap_or(3)),
            Some(devices) => workload::script_with(seed, devices),
            None => workload::script(seed),
        };
        if arguments.without_odd {
            script.setup.disks.clear();
        }
        script.acts.retain(|act| !arguments.without.iter().any(|word| word == act.what.word()));
        script
    };
    if let Some(path) = &arguments.script {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        return match text.parse::<Script>() {
            Ok(script) => one(&script, arguments.hostile),
            Err(e) => {
                eprintln!("error: {} is no script: {}", path.display(), e.0);
                ExitCode::from(2)
            }
        };
    }
    match arguments.seed {
        Some(seed) => one(&make(seed), arguments.hostile),
        None => many(&arguments, &make),
    }
}

fn one(script: &Script, hostile: bool) -> ExitCode {
    println!("{script}");
    let run = if hostile { flock::hostile::run } else { flock::run };
    let outcome = run(script, Some(|line| println!("{line}")));
    println!("{} events, {} effects", outcome.events, outcome.effects);
    let Some(broken) = outcome.broken else { return ExitCode::SUCCESS };
    println!("BROKEN: {}: {}", broken.invariant, broken.what);
    ExitCode::FAILURE
}

/// Prints the first seed that failed. Seeds are handed out in order, and those before it are done.
fn first(failures: &BTreeMap<String, Vec<(u64, String)>>) -> ExitCode {
    let all = failures.iter().flat_map(|(invariant, found)| found.iter().map(move |f| (f, invariant)));
    let Some(((seed, what), invariant)) = all.min() else { return ExitCode::SUCCESS };
    println!("{seed}: {invariant}: {what}");
    ExitCode::FAILURE
}

fn many(arguments: &Arguments, make: &(dyn Fn(u64) -> Script + Sync)) -> ExitCode {
    std::panic::set_hook(Box::new(|_| {}));
    let threads =
        arguments.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    let pace = Pace::begin();
    let (next, events, effects) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let hopeless = AtomicU64::new(0);
    let stop = AtomicBool::new(false);
    let failures = Mutex::new(BTreeMap::<String, Vec<(u64, String)>>::new());
    let work = || {
        while !stop.load(Ordering::Relaxed) {
            let i = next.fetch_add(1, Ordering::Relaxed);
            if i >= arguments.seeds {
                break;
            }
            let seed = arguments.from + i;
            let outcome = if arguments.hostile { run_hostile(&make(seed)) } else { run_caught(&make(seed)) };
            events.fetch_add(outcome.events, Ordering::Relaxed);
            effects.fetch_add(outcome.effects, Ordering::Relaxed);
            hopeless.fetch_add(outcome.hopeless.into(), Ordering::Relaxed);
            if arguments.each {
                let broken = outcome.broken.as_ref().map(|b| format!(" {}: {}", b.invariant, b.what));
                println!("{seed} {} {}{}", outcome.events, outcome.effects, broken.unwrap_or_default());
            }
            let counts = |name: &str| arguments.by.is_empty() || arguments.by.iter().any(|by| by == name);
            if let Some(broken) = outcome.broken.filter(|b| counts(b.invariant)) {
                stop.fetch_or(!arguments.all, Ordering::Relaxed);
                let mut all = failures.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                all.entry(broken.invariant.to_owned()).or_default().push((seed, broken.what));
            }
        }
        pace.thread_ends();
    };
    std::thread::scope(|s| {
        for _ in 0..threads {
            s.spawn(work);
        }
    });
    let failures = failures.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    if arguments.find && !arguments.all {
        return first(&failures);
    }
    let done = next.into_inner().min(arguments.seeds);
    let (events, effects) = (events.into_inner(), effects.into_inner());
    println!("{done} seeds, {events} events, {effects} effects in {}", pace.of(done));
    println!("{} ended with something wanted that no device holds any more", hopeless.into_inner());
    for (invariant, found) in &failures {
        let seeds: Vec<String> = found.iter().take(8).map(|(s, _)| s.to_string()).collect();
        println!("BROKEN: {invariant}: {} times, seeds {}", found.len(), seeds.join(" "));
        if let Some((seed, what)) = found.iter().min() {
            println!("  {seed}: {what}");
            if !arguments.find && !arguments.hostile {
                println!("{}", shrink::shrink(&make(*seed), invariant));
            }
        }
    }
    if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
