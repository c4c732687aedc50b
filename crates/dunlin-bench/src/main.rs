//! The benchmark, which `cargo xtask bench` builds and starts: Dunlin and other programs in turn, the same
//! work in the same places, the same checks. `docs/performance.md` says what the figures mean.

mod equal;
mod material;
mod meter;
mod place;
mod process;
mod program;
mod report;
mod tell;
mod workload;

use clap::Parser;
use place::Place;
use program::Program;
use report::{Outcome, Report};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};
use tell::{Limit, end_when_asked, is_ended, tell};
use workload::{Run, Workload};

/// Measures Dunlin beside other programs: in network namespaces of their own with root, on loopback
/// without.
#[derive(Parser)]
#[command(name = "cargo xtask bench", bin_name = "cargo xtask bench")]
struct Options {
    /// Which programs [default: all that are installed]
    #[arg(long, value_delimiter = ',', value_parser = clap::builder::PossibleValuesParser::new(program::NAMES))]
    programs: Vec<String>,
    /// Which workloads; `--list` names them [default: all but the heavy ones]
    #[arg(long, value_delimiter = ',')]
    workloads: Vec<String>,
    /// The size of everything, of the full one
    #[arg(long, default_value_t = 1.0)]
    scale: f64,
    /// How often each; the median counts
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// The heavy ones too
    #[arg(long)]
    full: bool,
    /// First syncs of growing size, for the plots; those above 100,000 files or 1 GB with --full only
    #[arg(long)]
    plots: bool,
    /// Seconds that one run of one program may take
    #[arg(long, default_value_t = 1200)]
    limit: u64,
    /// Where report, plots, tools and, for a while, the folders are
    #[arg(long, value_name = "DIR", default_value = "target/bench")]
    out: PathBuf,
    /// Each run on a new ext4 of so many GB in a file there (root), which goes at once; where removing
    /// many files is slow, or so that every run begins alike
    #[arg(long, value_name = "GB")]
    disk: Option<u64>,
    /// The program that is Dunlin
    #[arg(long, value_name = "PATH")]
    program: PathBuf,
    /// Names the workloads, and does nothing
    #[arg(long)]
    list: bool,
}

fn main() -> ExitCode {
    let options = Options::parse();
    if options.list {
        for work in workload::all() {
            let heavy = if work.is_heavy { " (heavy)" } else { "" };
            tell(&format!("{:18} {}{heavy}", work.name, work.what));
        }
        return ExitCode::SUCCESS;
    }
    match bench(&options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            tell(&format!("bench: {why}"));
            ExitCode::FAILURE
        }
    }
}

/// Whether nothing failed.
fn bench(options: &Options) -> Result<bool, String> {
    end_when_asked()?;
    meter::remove_stale();
    let works = chosen(options)?;
    let work_dir = work_dir(&options.out)?;
    dunlin_testkit::use_program(options.program.clone());
    let tools = std::path::absolute(options.out.join("tools")).map_err(|e| e.to_string())?;
    if let Some(why) = options.disk.and_then(|_| dunlin_testkit::no_mounts()) {
        return Err(format!("--disk: {why}"));
    }
    let mut report = Report::new(&options.out, work_dir.path(), options.scale, options.runs);
    report.disk(options.disk);
    let (mut programs, begun) = (Vec::new(), Instant::now());
    for program in program::all(&tools) {
        if !options.programs.is_empty() && !options.programs.iter().any(|name| *name == program.name()) {
            continue;
        }
        match program.version() {
            Ok(version) => {
                tell(&format!("{}: {version}; durable: {}", program.name(), program.durability()));
                report.program(program.as_ref(), version);
                programs.push(program);
            }
            Err(why) => tell(&format!("{}: SKIPPED: {why}", program.name())),
        }
    }
    if !place::has_namespaces() {
        tell("no network namespaces here: all nodes share loopback, and bytes on wires are not counted");
    }
    for work in &works {
        let begun = Instant::now();
        tell(&format!("\n{}: {}", work.name, work.what));
        let outcomes = turns(options, work_dir.path(), work, &programs);
        for line in report.add(work, outcomes) {
            tell(&line);
        }
        tell(&format!("{}: {:.1} s in all", work.name, begun.elapsed().as_secs_f64()));
        report.write()?;
        if is_ended() {
            return Err("ended; what was measured so far is in the report".into());
        }
    }
    tell(&format!(
        "\n{:.0} s in all; {}",
        begun.elapsed().as_secs_f64(),
        options.out.join("report.md").display()
    ));
    Ok(!report.has_failures())
}

fn chosen(options: &Options) -> Result<Vec<Workload>, String> {
    let mut all = workload::all();
    if let Some(name) = options.workloads.iter().find(|name| !all.iter().any(|w| w.name == **name)) {
        return Err(format!("there is no workload {name}; --list names them"));
    }
    all.retain(|work| {
        if !options.workloads.is_empty() || work.point.is_none() {
            let named = options.workloads.contains(&work.name);
            return named
                || (options.workloads.is_empty() && !options.plots && (options.full || !work.is_heavy));
        }
        let is_large = work.point.is_some_and(|(_, size)| !(size <= 100_000.0 && size != 20_000.0));
        options.plots && (options.full || !is_large)
    });
    Ok(all)
}

/// A directory of this run; what is left of one that was killed is removed.
fn work_dir(out: &Path) -> Result<tempfile::TempDir, String> {
    std::fs::create_dir_all(out).map_err(|e| format!("{}: {e}", out.display()))?;
    for entry in std::fs::read_dir(out).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let pid = name.strip_prefix("work-").and_then(|rest| rest.split('-').next());
        if pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            for place in std::fs::read_dir(entry.path()).into_iter().flatten().flatten() {
                dunlin_testkit::unmount(&place.path().join("disk"));
            }
            // Another run may be at it as well.
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
    let prefix = format!("work-{}-", std::process::id());
    tempfile::Builder::new().prefix(&prefix).tempdir_in(out).map_err(|e| e.to_string())
}

/// All runs of one workload, the programs in turn.
fn turns(
    options: &Options,
    work_dir: &Path,
    work: &Workload,
    programs: &[Box<dyn Program>],
) -> Vec<(&'static str, Vec<Outcome>)> {
    let mut outcomes: Vec<_> = programs.iter().map(|program| (program.name(), Vec::new())).collect();
    for turn in 1..=options.runs {
        for (program, (name, outcomes)) in programs.iter().zip(&mut outcomes) {
            // What cannot be done, or failed, is not tried again.
            if outcomes.iter().any(|outcome| !matches!(outcome, Outcome::Done(_))) || is_ended() {
                continue;
            }
            let begun = Instant::now();
            let outcome = one(options, work_dir, work, program.as_ref());
            let took = begun.elapsed().as_secs_f64();
            tell(&format!("  {turn} {name}: {} ({took:.1} s)", outcome.words(work.headline)));
            outcomes.push(outcome);
        }
    }
    outcomes
}

fn one(options: &Options, work_dir: &Path, work: &Workload, program: &dyn Program) -> Outcome {
    if work.needs_watching && !program.sees_changes() {
        return Outcome::Skipped("is run by hand, and sees no changes".into());
    }
    if work.hosts > 2 && !program.can_have_many() {
        return Outcome::Skipped("is for pairs".into());
    }
    if let Some(why) = work.wire.lacks() {
        return Outcome::Skipped(why);
    }
    let done = catch_unwind(AssertUnwindSafe(|| {
        let place = Place::new(work_dir, work.hosts, work.wire, options.disk)?;
        let limit = Limit::new(Duration::from_secs(options.limit));
        (work.run)(&Run { program, place: &place, scale: options.scale, limit })
    }));
    match done {
        Ok(Ok(values)) => Outcome::Done(values),
        Ok(Err(why)) => Outcome::Failed(why),
        Err(panic) => {
            let words = panic.downcast_ref::<String>().map(String::as_str);
            let words = words.or(panic.downcast_ref::<&str>().copied()).unwrap_or("it panicked");
            Outcome::Failed(words.into())
        }
    }
}
