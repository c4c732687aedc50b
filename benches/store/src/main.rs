//! Measures embedded stores as the index of a folder uses them. See README.md.

mod stores;
mod work;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use stores::open;
use work::{Mode, Work};

type Figures = BTreeMap<String, f64>;

/// Commits that a process acknowledges before it is killed.
const KILL_AFTER: usize = 300;
const BATCH: usize = 2_000;
const SINGLES: usize = 500;
const GETS: usize = 100_000;
const SCANS: usize = 5_000;

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let arg = |i: usize| args.get(i).map_or("", String::as_str);
    let mode = || Mode::parse(arg(3));
    let count = || arg(5).parse().expect("a count");
    let dir = PathBuf::from(arg(4));
    match arg(1) {
        "run" => run(arg(2), mode(), &dir, count()),
        "dirty" => dirty(arg(2), mode(), &dir, count()),
        "reopen" => reopen(arg(2), mode(), &dir, count()),
        "compact" => compact(arg(2), &dir),
        "all" => all(arg(2), mode(), &dir, count(), arg(6).parse().expect("repeats")),
        _ => eprintln!("store-bench all STORE,STORE… rows|index DIR COUNT REPEATS"),
    }
}

fn put(name: &str, value: f64) {
    println!("{name} {value}");
}

fn millis(d: Duration) -> f64 {
    d.as_secs_f64() * 1e3
}

/// The load, commits, reads and updates, in one process.
fn run(store: &str, mode: Mode, dir: &Path, count: usize) {
    let mut work = Work::new(mode, count);
    let mut s = open(store, dir);
    let start = Instant::now();
    for from in (0..count).step_by(BATCH) {
        let changes = work.add(from..count.min(from + BATCH));
        s.commit(&changes);
    }
    put("load_s", start.elapsed().as_secs_f64());
    put("load_cpu_s", cpu());
    put("load_rss_mib", peak_rss());
    let written = io_written();
    put("load_io_mib", written);
    put("load_size_mib", size(dir));

    let mut times: Vec<f64> = (0..SINGLES)
        .map(|k| {
            let changes = work.update([work.pick(k, 1)]);
            let start = Instant::now();
            s.commit(&changes);
            millis(start.elapsed())
        })
        .collect();
    times.sort_by(f64::total_cmp);
    put("commit_p50_ms", times[SINGLES / 2]);
    put("commit_p99_ms", times[SINGLES * 99 / 100]);
    put("commit_io_kib", (io_written() - written) * 1024.0 / SINGLES as f64);

    let keys: Vec<Vec<u8>> = (0..GETS).map(|k| work.main_key(work.pick(k, 2))).collect();
    let start = Instant::now();
    s.read(&mut |view| {
        let found = keys.iter().filter(|k| view.get(k).is_some()).count();
        assert!(found == keys.len() || store == "none", "{found} of {} rows found", keys.len());
    });
    put("get_us", start.elapsed().as_secs_f64() * 1e6 / GETS as f64);
    drop(keys);

    let prefixes: Vec<Vec<u8>> = (0..SCANS).map(|k| work.dir_prefix(work.pick(k, 3))).collect();
    let start = Instant::now();
    s.read(&mut |view| {
        let found: usize = prefixes.iter().map(|p| view.scan(p, 100)).sum();
        assert!(found == 100 * SCANS || store == "none", "{found} rows scanned");
    });
    put("scan_us", start.elapsed().as_secs_f64() * 1e6 / SCANS as f64);

    let before = cpu();
    let start = Instant::now();
    let changed = count / 10;
    for from in (0..changed).step_by(BATCH) {
        let picks: Vec<usize> = (from..changed.min(from + BATCH)).map(|k| work.pick(k, 4)).collect();
        let changes = work.update(picks);
        s.commit(&changes);
    }
    put("update_s", start.elapsed().as_secs_f64());
    put("update_cpu_s", cpu() - before);
    put("update_size_mib", size(dir));
    let start = Instant::now();
    drop(s);
    put("close_s", start.elapsed().as_secs_f64());
    put("closed_size_mib", size(dir));
    put("cpu_s", cpu());
    put("rss_mib", peak_rss());
    put("io_mib", io_written());
}

/// Opens and commits single entries until it is killed; prints the number of each after its commit.
fn dirty(store: &str, mode: Mode, dir: &Path, count: usize) {
    let start = Instant::now();
    let mut s = open(store, dir);
    let found = find(&mut *s, &Work::new(mode, 0).main_key(0));
    let mut out = std::io::stdout();
    writeln!(out, "open {} {found}", millis(start.elapsed())).expect("stdout");
    let mut work = Work::new(mode, count);
    for i in count.. {
        s.commit(&work.add(i..i + 1));
        writeln!(out, "{i}").expect("stdout");
        out.flush().expect("stdout");
    }
}

fn find(s: &mut dyn stores::Store, key: &[u8]) -> bool {
    let mut found = false;
    s.read(&mut |view| found = view.get(key).is_some());
    found
}

/// Opens after a kill; `last` is the last acknowledged entry, which must be there.
fn reopen(store: &str, mode: Mode, dir: &Path, last: usize) {
    let start = Instant::now();
    let mut s = open(store, dir);
    let key = Work::new(mode, 0).main_key(last);
    let found = find(&mut *s, &key);
    put("reopen_ms", millis(start.elapsed()));
    put("reopen_rss_mib", peak_rss());
    assert!(found || store == "none", "a committed entry is lost");
}

fn compact(store: &str, dir: &Path) {
    let mut s = open(store, dir);
    let start = Instant::now();
    s.compact();
    put("compact_s", start.elapsed().as_secs_f64());
    drop(s);
    put("compact_size_mib", size(dir));
    put("compact_rss_mib", peak_rss());
}

/// Every store in turn, as often as asked; prints each figure's median and its extremes.
fn all(stores: &str, mode: Mode, dir: &Path, count: usize, repeats: usize) {
    let stores: Vec<&str> = stores.split(',').collect();
    let mut seen: BTreeMap<(String, usize), Vec<f64>> = BTreeMap::new();
    for round in 0..repeats {
        for (number, store) in stores.iter().enumerate() {
            let at = dir.join(store);
            let _ = std::fs::remove_dir_all(&at);
            std::fs::create_dir_all(&at).expect("a directory");
            let mut figures = child("run", store, mode, &at, count);
            figures.append(&mut killed(store, mode, &at, count));
            if round == 0 {
                figures.append(&mut child("compact", store, mode, &at, count));
            }
            eprintln!("{round} {store} {figures:?}");
            for (name, value) in figures {
                seen.entry((name, number)).or_default().push(value);
            }
            let _ = std::fs::remove_dir_all(&at);
        }
    }
    println!("| | {} |\n|---|{}", stores.join(" | "), "---:|".repeat(stores.len()));
    let names: std::collections::BTreeSet<&String> = seen.keys().map(|k| &k.0).collect();
    for name in names {
        let cells: Vec<String> = (0..stores.len())
            .map(|number| {
                let mut v = seen.get(&(name.clone(), number)).cloned().unwrap_or_default();
                v.sort_by(f64::total_cmp);
                let at = |i: usize| v.get(i).copied().unwrap_or(f64::NAN);
                format!("{:.2} ({:.2}–{:.2})", at(v.len() / 2), at(0), at(v.len().wrapping_sub(1)))
            })
            .collect();
        println!("| {name} | {} |", cells.join(" | "));
    }
}

fn command(what: &str, store: &str, mode: Mode, dir: &Path, count: usize) -> Child {
    let exe = std::env::current_exe().expect("this program");
    let mut command = Command::new(exe);
    command.args([what, store, mode.name()]).arg(dir).arg(count.to_string());
    command.stdout(Stdio::piped()).spawn().expect("a process")
}

fn child(what: &str, store: &str, mode: Mode, dir: &Path, count: usize) -> Figures {
    let mut child = command(what, store, mode, dir, count);
    let mut text = String::new();
    child.stdout.take().expect("a pipe").read_to_string(&mut text).expect("text");
    assert!(child.wait().expect("a status").success(), "{what} {store} failed");
    let pair = |line: &str| {
        let (name, value) = line.split_once(' ')?;
        Some((name.to_owned(), value.parse().ok()?))
    };
    text.lines().filter_map(pair).collect()
}

/// Opens the store cleanly closed, kills the process amid commits, and opens it again.
fn killed(store: &str, mode: Mode, dir: &Path, count: usize) -> Figures {
    let mut child_ = command("dirty", store, mode, dir, count);
    let mut lines = BufReader::new(child_.stdout.take().expect("a pipe")).lines();
    let opened = lines.next().expect("a line").expect("text");
    let mut last = 0;
    for line in lines.by_ref().take(KILL_AFTER) {
        last = line.expect("text").parse().expect("a number");
    }
    child_.kill().expect("a kill"); // SIGKILL
    for line in lines {
        last = line.expect("text").parse().unwrap_or(last);
    }
    child_.wait().expect("a status");
    let mut figures = child("reopen", store, mode, dir, last);
    let clean = opened.split(' ').nth(1).and_then(|t| t.parse().ok());
    figures.insert("open_clean_ms".into(), clean.expect("a time"));
    figures
}

/// What the directory takes on the disk, in MiB.
fn size(dir: &Path) -> f64 {
    use std::os::unix::fs::MetadataExt;
    let mut sum = 0.0;
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        // A store may remove a file just now.
        let Ok(meta) = entry.metadata() else { continue };
        sum += if meta.is_dir() { size(&entry.path()) } else { meta.blocks() as f64 / 2048.0 };
    }
    sum
}

/// Seconds of CPU of this process so far, its own and the kernel's for it.
fn cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("procfs");
    let rest = stat.rsplit(')').next().expect("a field");
    let ticks = |i: usize| rest.split_whitespace().nth(i).and_then(|t| t.parse::<f64>().ok());
    // Fields 14 and 15 of proc(5), in ticks of which Linux shows 100 in a second.
    (ticks(11).expect("utime") + ticks(12).expect("stime")) / 100.0
}

fn field(file: &str, name: &str) -> f64 {
    let text = std::fs::read_to_string(file).expect("procfs");
    let line = text.lines().find_map(|l| l.strip_prefix(name)).expect("the field");
    line.split_whitespace().next().and_then(|t| t.parse().ok()).expect("a number")
}

fn peak_rss() -> f64 {
    field("/proc/self/status", "VmHWM:") / 1024.0
}

/// MiB that this process caused to be written.
fn io_written() -> f64 {
    field("/proc/self/io", "write_bytes:") / 1_048_576.0
}
