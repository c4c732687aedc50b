//! Campaigns: real nodes as processes, users at work in their folders, and one kind of trouble, run by
//! run from a seed. Every run ends with the same judgement: `field.rs`.
//!
//! A run that fails panics, as a test does; `command` tells it and goes on with the next.

mod clock;
mod cut;
mod error;
mod field;
mod full;
mod index;
mod kill;
mod peer;
mod root;
mod syscall;

pub use field::Field;

use dunlin_testkit::{say, skipped};
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

/// What to run.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Which campaign; `all` for each in turn
    #[arg(value_parser = names())]
    name: String,
    /// How many runs [default: the campaign's own]
    #[arg(long)]
    runs: Option<u64>,
    /// The seed of the first run; the next ones count up
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Keep the directories of failed runs
    #[arg(long)]
    keep: bool,
    /// Take this program instead of building one
    #[arg(long, value_name = "PATH")]
    program: Option<PathBuf>,
}

/// One kind of trouble.
struct Campaign {
    name: &'static str,
    /// Runs by default.
    runs: u64,
    /// Why it cannot run here, if so.
    lacks: fn() -> Option<String>,
    /// One run; what it did, in a few words. Panics if anything is wrong at its end.
    run: fn(&mut Field) -> String,
}

const CAMPAIGNS: &[Campaign] = &[
    Campaign { name: "kill", runs: 50, lacks: || None, run: kill::run },
    Campaign { name: "syscall", runs: 200, lacks: field::no_strace, run: syscall::run },
    Campaign { name: "cut", runs: 40, lacks: dunlin_testkit::no_power_cuts, run: cut::run },
    Campaign { name: "full", runs: 30, lacks: dunlin_testkit::no_mounts, run: full::run },
    Campaign { name: "error", runs: 40, lacks: field::no_strace, run: error::run },
    Campaign { name: "index", runs: 100, lacks: || None, run: index::run },
    Campaign { name: "root", runs: 48, lacks: dunlin_testkit::no_mounts, run: root::run },
    Campaign { name: "peer", runs: 30, lacks: field::no_namespaces, run: peer::run },
    Campaign { name: "clock", runs: 12, lacks: clock::no_faketime, run: clock::run },
];

fn names() -> clap::builder::PossibleValuesParser {
    CAMPAIGNS.iter().map(|c| c.name).chain(["all"]).collect::<Vec<_>>().into()
}

/// A line for whoever watches; that nobody does is no reason to stop.
fn tell(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// `cargo xtask campaign`.
pub fn command(options: &Options) -> ExitCode {
    if let Err(why) = choose_program(options) {
        tell(&why);
        return ExitCode::FAILURE;
    }
    let chosen = CAMPAIGNS.iter().filter(|c| options.name == "all" || c.name == options.name);
    let failed: u64 = chosen.map(|c| campaign(c, options)).sum();
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The release build, unless another program is named.
fn choose_program(options: &Options) -> Result<(), String> {
    if let Some(path) = &options.program {
        dunlin_testkit::use_program(path.clone());
        return Ok(());
    }
    dunlin_testkit::use_program(crate::build::release("dunlin")?);
    Ok(())
}

/// All runs of one campaign; how many failed.
fn campaign(campaign: &Campaign, options: &Options) -> u64 {
    let name = campaign.name;
    if let Some(why) = (campaign.lacks)() {
        tell(&format!("{name}: SKIPPED: {why}"));
        return 0;
    }
    let (runs, begun) = (options.runs.unwrap_or(campaign.runs), Instant::now());
    let mut failed = Vec::new();
    for seed in options.seed..options.seed + runs {
        let (line, good) = one(campaign, seed, options.keep);
        tell(&line);
        if !good {
            failed.push(seed);
        }
    }
    let (from, took) = (options.seed, begun.elapsed().as_secs());
    tell(&format!("{name}: {runs} runs from seed {from}, {} failed, {took} s", failed.len()));
    for seed in &failed {
        tell(&format!("  again: cargo xtask campaign {name} --runs 1 --seed {seed} --keep"));
    }
    failed.len() as u64
}

/// A line about a run, and whether all was well.
fn one(campaign: &Campaign, seed: u64, keep: bool) -> (String, bool) {
    let (name, begun) = (campaign.name, Instant::now());
    let mut field = Field::new(seed);
    let ended = catch_unwind(AssertUnwindSafe(|| (campaign.run)(&mut field)));
    let took = begun.elapsed().as_secs_f64();
    match ended {
        Ok(done) => (format!("{name} {seed}: ok, {done}, {took:.1} s"), true),
        Err(why) => {
            let words = why.downcast_ref::<String>().map(String::as_str);
            let words = words.or(why.downcast_ref::<&str>().copied()).unwrap_or("it panicked");
            let kept = if keep { format!("; kept in {}", field.keep().display()) } else { String::new() };
            (format!("{name} {seed}: FAILED, {took:.1} s{kept}\n  {}", words.replace('\n', "\n  ")), false)
        }
    }
}

/// Runs of a slice at a time: a run mostly waits.
const TOGETHER: usize = 4;

/// These runs of a campaign, as a test: panics if one fails, says so if it cannot run here.
pub fn slice(name: &str, seeds: &[u64]) {
    let campaign = CAMPAIGNS.iter().find(|c| c.name == name).expect("a campaign of this name");
    if let Some(why) = (campaign.lacks)() {
        skipped(&format!("campaign {name}"), &why);
        return;
    }
    for some in seeds.chunks(TOGETHER) {
        let run = |seed: &u64| {
            let (line, good) = one(campaign, *seed, false);
            say(&line);
            assert!(good, "{line}");
        };
        std::thread::scope(|s| some.iter().for_each(|seed| drop(s.spawn(move || run(seed)))));
    }
}
