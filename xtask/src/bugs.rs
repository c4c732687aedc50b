//! The board of known bugs: each is a patch that brings one back, and the simulator must find it.
//!
//! A seed that fails without the patch says nothing, and neither does an invariant that the patch does not name.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

/// Where the patches are.
const BUGS: &str = "crates/dunlin-sim/bugs";
/// Whatever is wrong, these may be what is seen of it: they tell too little.
const VAGUE: &[&str] = &["no panic", "comes to rest"];
const CAUGHT: &str = "# caught by: ";
/// Which flocks find it, as the simulator is told: the ordinary ones, if that is not said.
const WITH: &str = "# with: ";

/// Which bugs, and how long each is looked for.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Which bugs; all, if none is named
    names: Vec<String>,
    /// Up to so many seeds each
    #[arg(long, default_value_t = 20_000)]
    seeds: u64,
    /// Acts to leave out, by their words in scripts
    #[arg(long, value_name = "WORDS")]
    without: Option<String>,
    /// Where the copy of the workspace is made
    #[arg(long, value_name = "DIRECTORY")]
    scratch: Option<PathBuf>,
    /// The build directory [default: in the copy]
    #[arg(long, value_name = "DIRECTORY")]
    target: Option<PathBuf>,
}

/// A patch that brings a bug back.
pub struct Bug {
    /// Its name.
    pub name: String,
    /// Where it lies.
    pub path: PathBuf,
    /// The invariants that must catch it.
    pub invariants: Vec<String>,
    /// What the simulator is told besides.
    pub with: Option<String>,
    /// What it is, and where it was seen.
    pub about: String,
}

/// All bugs, by name.
///
/// # Errors
/// What is wrong with the directory or a patch.
pub fn all(root: &Path) -> Result<Vec<Bug>, String> {
    let dir = root.join(BUGS);
    let entries = std::fs::read_dir(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    let mut bugs = Vec::new();
    for entry in entries.flatten() {
        let path = entry.path();
        let text = std::fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        bugs.push(read(path, &text)?);
    }
    bugs.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(bugs)
}

fn read(path: PathBuf, text: &str) -> Result<Bug, String> {
    let name = path.file_stem().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let comment: Vec<&str> = text.lines().take_while(|l| l.starts_with('#')).collect();
    let caught = comment.iter().find_map(|l| l.strip_prefix(CAUGHT)).unwrap_or_default();
    let invariants: Vec<String> =
        caught.split(';').map(|i| i.trim().to_owned()).filter(|i| !i.is_empty()).collect();
    let with = comment.iter().find_map(|l| l.strip_prefix(WITH)).map(str::to_owned);
    let told = |l: &&&str| !l.starts_with(CAUGHT) && !l.starts_with(WITH);
    let words = comment.iter().filter(told).map(|l| l.trim_start_matches('#').trim());
    let about = words.collect::<Vec<_>>().join(" ");
    if invariants.is_empty() || about.is_empty() {
        return Err(format!("{name}: says not what it is and what must catch it"));
    }
    match invariants.iter().find(|i| VAGUE.contains(&i.as_str())) {
        Some(vague) => Err(format!("{name}: {vague:?} tells too little")),
        None => Ok(Bug { name, path, invariants, with, about }),
    }
}

/// Whether the patch applies to the sources below `root`.
pub fn applies(root: &Path, bug: &Bug) -> bool {
    git(root).args(["apply", "--check", "-p1"]).arg(&bug.path).output().is_ok_and(|o| o.status.success())
}

fn git(root: &Path) -> Command {
    let mut git = Command::new("git");
    git.current_dir(root);
    git
}

/// The scratch copy of the workspace.
struct Copy {
    root: PathBuf,
    target: PathBuf,
}

impl Copy {
    /// All files that git knows, as they are now; those that are the same there keep their times, so that
    /// only what a patch touched is built again.
    fn fill(&self, from: &Path) -> Result<(), String> {
        let listed =
            git(from).args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]).output();
        let listed = listed.map_err(|e| e.to_string())?;
        for name in String::from_utf8_lossy(&listed.stdout).split('\0').filter(|n| !n.is_empty()) {
            let Ok(bytes) = std::fs::read(from.join(name)) else { continue };
            let to = self.root.join(name);
            if std::fs::read(&to).is_ok_and(|old| old == bytes) {
                continue;
            }
            let dir = to.parent().unwrap_or(&self.root);
            std::fs::create_dir_all(dir)
                .and_then(|()| std::fs::write(&to, bytes))
                .map_err(|e| e.to_string())?;
        }
        Ok(())
    }

    fn build(&self, to: &Path) -> Result<(), String> {
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.current_dir(&self.root).env("CARGO_TARGET_DIR", &self.target);
        // In many units, so that only those are built again that a patch changes.
        for package in ["dunlin-core", "dunlin-node", "dunlin-sim"] {
            cargo.arg("--config").arg(format!("profile.dev.package.{package}.codegen-units=64"));
        }
        let built = cargo.args(["build", "--quiet", "--locked", "--package", "dunlin-sim"]).output();
        let built = built.map_err(|e| e.to_string())?;
        if !built.status.success() {
            return Err(format!("it does not build:\n{}", String::from_utf8_lossy(&built.stderr)));
        }
        std::fs::copy(self.target.join("debug/dunlin-sim"), to).map_err(|e| e.to_string())?;
        Ok(())
    }
}

/// What the simulator found.
struct Found {
    seed: u64,
    invariant: String,
}

/// Looks through seeds for the first that breaks one of `by` (or anything, if that is empty).
fn find(
    program: &Path,
    options: &Options,
    (by, with): (&[String], Option<&String>),
    seeds: std::ops::Range<u64>,
) -> Result<Option<Found>, String> {
    let mut sim = Command::new(program);
    sim.arg("--find").arg("--from").arg(seeds.start.to_string());
    sim.arg("--seeds").arg((seeds.end - seeds.start).to_string());
    sim.args(with);
    sim.args(by.iter().flat_map(|invariant| ["--by", invariant]));
    sim.args(options.without.iter().flat_map(|words| ["--without", words]));
    let out = sim.output().map_err(|e| e.to_string())?;
    let text = String::from_utf8_lossy(&out.stdout);
    let mut parts = text.split(": ");
    match (out.status.success(), parts.next().and_then(|s| s.parse().ok()), parts.next()) {
        (true, ..) => Ok(None),
        (_, Some(seed), Some(invariant)) => Ok(Some(Found { seed, invariant: invariant.into() })),
        _ => Err(format!("the simulator failed: {text}{}", String::from_utf8_lossy(&out.stderr))),
    }
}

struct Board<'a> {
    options: &'a Options,
    copy: Copy,
    from: PathBuf,
    clean: PathBuf,
    patched: PathBuf,
}

impl Board<'_> {
    fn look_for(&self, bug: &Bug) -> Result<Option<Found>, String> {
        self.copy.fill(&self.from)?;
        let patched = git(&self.copy.root).args(["apply", "-p1"]).arg(&bug.path).output();
        match patched {
            Ok(out) if out.status.success() => {}
            Ok(out) => return Err(String::from_utf8_lossy(&out.stderr).into_owned()),
            Err(e) => return Err(e.to_string()),
        }
        self.copy.build(&self.patched)?;
        let mut from = 0;
        let with = bug.with.as_ref();
        let by = (&bug.invariants[..], with);
        while let Some(found) = find(&self.patched, self.options, by, from..self.options.seeds)? {
            if find(&self.clean, self.options, (&[], with), found.seed..found.seed + 1)?.is_none() {
                return Ok(Some(found));
            }
            from = found.seed + 1;
        }
        Ok(None)
    }
}

fn tell(line: &str) {
    // That nobody listens is no reason to stop.
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// `cargo xtask bugs`.
pub fn command(options: &Options) -> ExitCode {
    match board(options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            tell(&format!("error: {why}"));
            ExitCode::FAILURE
        }
    }
}

fn board(options: &Options) -> Result<bool, String> {
    let from = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    let from = from.canonicalize().map_err(|e| e.to_string())?;
    let bugs = all(&from)?;
    if let Some(unknown) = options.names.iter().find(|n| bugs.iter().all(|b| b.name != **n)) {
        return Err(format!("no bug is called {unknown}"));
    }
    let root = options.scratch.clone().unwrap_or_else(|| std::env::temp_dir().join("dunlin-bugs"));
    std::fs::create_dir_all(&root).map_err(|e| e.to_string())?;
    let target = options.target.clone().unwrap_or_else(|| root.join("target"));
    let (clean, patched) = (target.join("sim-clean"), target.join("sim-patched"));
    let board = Board { options, copy: Copy { root, target }, from, clean, patched };
    board.copy.fill(&board.from)?;
    board.copy.build(&board.clean)?;
    let mut table = String::from("| bug | found by | seeds | seconds |\n|---|---|---|---|\n");
    let mut good = true;
    for bug in bugs.iter().filter(|b| options.names.is_empty() || options.names.contains(&b.name)) {
        let begun = Instant::now();
        let found = board.look_for(bug);
        let (by, seeds) = match &found {
            Ok(Some(found)) => (found.invariant.as_str(), (found.seed + 1).to_string()),
            Ok(None) => ("**nothing**", format!("> {}", options.seeds)),
            Err(why) => (why.as_str(), "-".into()),
        };
        good &= matches!(found, Ok(Some(_)));
        let row = format!("| `{}` | {by} | {seeds} | {:.0} |", bug.name, begun.elapsed().as_secs_f64());
        tell(&row);
        // Writing to a string does not fail.
        let _ = writeln!(table, "{row}");
    }
    tell(&format!("\n{table}"));
    Ok(good)
}
