//! What something costs: time of processors, memory, bytes on the wire.

use crate::place::Place;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How often memory is looked at.
const SAMPLE: Duration = Duration::from_millis(50);

/// A control group for each host; gone when dropped. They count every process, those that ended too.
#[derive(Default)]
pub struct Groups {
    base: Option<PathBuf>,
    hosts: Vec<(&'static str, PathBuf)>,
}

/// Where groups can be made: version 1 with `cpuacct`, or version 2.
fn mount() -> Option<&'static Path> {
    static MOUNT: OnceLock<Option<&'static Path>> = OnceLock::new();
    let works = |path: &&Path| {
        let probe = path.join(format!("dunlin-bench-probe-{}", std::process::id()));
        let made = fs::create_dir(&probe).is_ok();
        let counts = cpu_seconds(&probe).is_some();
        let _ = fs::remove_dir(&probe);
        made && counts
    };
    let all = ["/sys/fs/cgroup/cpuacct", "/sys/fs/cgroup/cpu,cpuacct", "/sys/fs/cgroup"].map(Path::new);
    *MOUNT.get_or_init(|| all.into_iter().find(works))
}

/// Removes the groups of runs that were killed.
pub fn remove_stale() {
    for entry in mount().and_then(|path| fs::read_dir(path).ok()).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let pid = name.strip_prefix("dunlin-bench-").and_then(|rest| rest.split('-').next());
        if pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            let below = fs::read_dir(entry.path()).into_iter().flatten().flatten();
            // Files in there are the kernel's; what is in use stays.
            below.for_each(|group| drop(fs::remove_dir(group.path())));
            let _ = fs::remove_dir(entry.path());
        }
    }
}

/// How the time of processors is counted here; nothing where it cannot be.
pub fn how() -> Option<String> {
    mount().map(|path| format!("control groups in {}", path.display()))
}

fn cpu_seconds(group: &Path) -> Option<f64> {
    if let Ok(text) = fs::read_to_string(group.join("cpuacct.usage")) {
        return text.trim().parse::<f64>().ok().map(|ns| ns / 1e9);
    }
    let text = fs::read_to_string(group.join("cpu.stat")).ok()?;
    let used = text.lines().find_map(|line| line.strip_prefix("usage_usec "))?;
    used.parse::<f64>().ok().map(|us| us / 1e6)
}

impl Groups {
    /// New ones, where they can be had.
    pub fn new(names: &[&'static str]) -> Groups {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let Some(mount) = mount() else { return Groups::default() };
        let n = COUNTER.fetch_add(1, Ordering::Relaxed);
        let base = mount.join(format!("dunlin-bench-{}-{n}", std::process::id()));
        let hosts: Vec<_> = names.iter().map(|name| (*name, base.join(name))).collect();
        let made = fs::create_dir(&base).is_ok() && hosts.iter().all(|(_, dir)| fs::create_dir(dir).is_ok());
        let groups = Groups { base: Some(base), hosts };
        if made { groups } else { Groups::default() }
    }

    /// The group of a host.
    pub fn of(&self, name: &str) -> Option<PathBuf> {
        self.hosts.iter().find(|(n, _)| *n == name).map(|(_, dir)| dir.clone())
    }

    /// Seconds of processors used so far, by all.
    pub fn cpu(&self) -> Option<f64> {
        (!self.hosts.is_empty()).then(|| self.hosts.iter().filter_map(|(_, dir)| cpu_seconds(dir)).sum())
    }

    /// The largest memory each living process ever had, for the host where it is most, in bytes.
    fn memory(dirs: &[PathBuf]) -> u64 {
        most(dirs.iter(), "VmHWM:")
    }

    /// The memory of a host's processes now, where it is most, in bytes.
    pub fn resident(&self) -> u64 {
        most(self.hosts.iter().map(|(_, dir)| dir), "VmRSS:")
    }
}

fn most<'a>(dirs: impl Iterator<Item = &'a PathBuf>, what: &str) -> u64 {
    let of = |dir: &PathBuf| {
        let pids = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
        pids.lines().filter_map(|pid| memory_of(pid, what)).sum::<u64>()
    };
    dirs.map(of).max().unwrap_or(0)
}

fn memory_of(pid: &str, what: &str) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(what))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib << 10)
}

impl Drop for Groups {
    fn drop(&mut self) {
        for dir in self.hosts.iter().map(|(_, dir)| dir).chain(&self.base) {
            // The last process may still be leaving.
            for _ in 0..200 {
                if fs::remove_dir(dir).is_ok() || !dir.exists() {
                    break;
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }
}

/// What was measured, by name; names end in their unit.
pub type Values = BTreeMap<String, f64>;

/// Measures from when it is made.
pub struct Meter<'a> {
    place: &'a Place,
    cpu: Option<f64>,
    received: Option<Vec<u64>>,
    memory: Sampler,
}

impl<'a> Meter<'a> {
    /// From now on.
    pub fn new(place: &'a Place) -> Meter<'a> {
        let memory = Sampler::new(place.groups.hosts.iter().map(|(_, dir)| dir.clone()).collect());
        Meter { place, cpu: place.groups.cpu(), received: place.received(), memory }
    }

    /// What was used since, of all but wall time.
    pub fn values(&self) -> Values {
        let mut out = Values::new();
        if let (Some(before), Some(now)) = (self.cpu, self.place.groups.cpu()) {
            out.insert("cpu_s".into(), now - before);
        }
        if let (Some(before), Some(now)) = (&self.received, self.place.received()) {
            let bytes: Vec<u64> = now.iter().zip(before).map(|(n, b)| n - b).collect();
            for (host, bytes) in self.place.hosts.iter().zip(&bytes) {
                out.insert(format!("received_by_{}_mib", host.name), mib(*bytes));
            }
            out.insert("wire_mib".into(), mib(bytes.iter().sum()));
        }
        if self.place.groups.cpu().is_some() {
            out.insert("memory_mib".into(), mib(self.memory.peak()));
        }
        out
    }
}

/// Bytes as MiB.
pub fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// Looks at memory now and then.
struct Sampler {
    dirs: Vec<PathBuf>,
    peak: Arc<AtomicU64>,
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Sampler {
    fn new(dirs: Vec<PathBuf>) -> Sampler {
        let (peak, ends) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (most, over, groups) = (peak.clone(), ends.clone(), dirs.clone());
        let thread = std::thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                let begun = Instant::now();
                most.fetch_max(Groups::memory(&groups), Ordering::Relaxed);
                std::thread::sleep(SAMPLE.saturating_sub(begun.elapsed()));
            }
        });
        Sampler { dirs, peak, ends, thread: Some(thread) }
    }

    fn peak(&self) -> u64 {
        self.peak.fetch_max(Groups::memory(&self.dirs), Ordering::Relaxed);
        self.peak.load(Ordering::Relaxed)
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
