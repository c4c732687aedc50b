//! Real nodes for tests: processes of the program, each with a state directory of its own, that end
//! with the test however that ends; and a comparison of their trees.

#![allow(dead_code, reason = "each test uses a part")]
#![allow(clippy::unwrap_used, reason = "a test")]

use serde_json::Value;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

mod lan;

#[allow(unused_imports, reason = "each test uses a part")]
pub use lan::Lan;

/// What a slow machine may take for what takes a fast one no time.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Asks again and again until `done`; panics with `what` if it is not in time. Returns how long it took.
pub fn until(what: &str, limit: Duration, mut done: impl FnMut() -> bool) -> Duration {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < limit, "{what}: not within {limit:?}");
        std::thread::sleep(Duration::from_millis(2));
    }
    begun.elapsed()
}

/// A device: its state directory, its folder, and while it runs, its process.
pub struct Node {
    pub name: String,
    pub home: PathBuf,
    pub dir: PathBuf,
    /// The network namespace it runs in.
    pub netns: Option<String>,
    pub listen: Option<String>,
    pub discovery: bool,
    /// What to run it with, such as strace.
    pub wrapper: Vec<OsString>,
    child: Option<Child>,
    told: Arc<Mutex<Vec<Value>>>,
    errors: Arc<Mutex<String>>,
}

impl Node {
    /// A device that does not run yet; its folder does not exist yet either.
    pub fn new(base: &Path, name: &str) -> Node {
        Node {
            name: name.to_owned(),
            home: base.join(format!("{name}.state")),
            dir: base.join(name),
            netns: None,
            listen: Some("127.0.0.1:0".to_owned()),
            discovery: true,
            wrapper: Vec::new(),
            child: None,
            told: Arc::default(),
            errors: Arc::default(),
        }
    }

    pub fn path(&self, below: impl AsRef<Path>) -> PathBuf {
        self.dir.join(below)
    }

    /// A command on this device.
    pub fn command(&self, args: &[&OsStr]) -> Command {
        let mut all: Vec<OsString> = Vec::new();
        if let Some(ns) = &self.netns {
            all.extend(["ip", "netns", "exec", ns].map(OsString::from));
        }
        all.push(env!("CARGO_BIN_EXE_dunlin").into());
        all.extend(args.iter().map(OsString::from));
        let mut command = Command::new(&all[0]);
        command.args(&all[1..]).env("DUNLIN_HOME", &self.home).env("HOME", "/nowhere");
        command.env_remove("XDG_STATE_HOME").stdin(Stdio::null());
        command
    }

    /// Runs a command to its end; its exit code, output and errors.
    pub fn asks(&self, args: &[&str]) -> (i32, String, String) {
        let args: Vec<&OsStr> = args.iter().map(OsStr::new).collect();
        told(self.command(&args).output().unwrap())
    }

    /// Starts the node in the foreground.
    pub fn start(&mut self, args: &[&OsStr]) {
        assert!(self.child.is_none(), "{} runs already", self.name);
        let mut all: Vec<OsString> = Vec::new();
        if let Some(ns) = &self.netns {
            all.extend(["ip", "netns", "exec", ns].map(OsString::from));
        }
        all.extend(self.wrapper.iter().cloned());
        all.push(env!("CARGO_BIN_EXE_dunlin").into());
        all.extend(["--json", "--stop-with-stdin", "--name", &self.name].map(OsString::from));
        if let Some(listen) = &self.listen {
            all.extend(["--listen", listen].map(OsString::from));
        }
        if !self.discovery {
            all.push("--no-discovery".into());
        }
        all.extend(args.iter().map(OsString::from));
        let mut command = Command::new(&all[0]);
        command.args(&all[1..]).env("DUNLIN_HOME", &self.home).env("HOME", "/nowhere");
        // The pipe to its standard input ends with this process, and the node with it.
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        (self.told, self.errors) = Default::default();
        let (out, told) = (child.stdout.take().unwrap(), self.told.clone());
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                told.lock().unwrap().push(serde_json::from_str(&line).unwrap());
            }
        });
        let (mut err, errors) = (child.stderr.take().unwrap(), self.errors.clone());
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(n @ 1..) = err.read(&mut buffer) {
                errors.lock().unwrap().push_str(&String::from_utf8_lossy(&buffer[..n]));
            }
        });
        self.child = Some(child);
    }

    /// Waits for the first line, which is `ready` (of a run, for its first folder).
    fn until_ready(&mut self) -> Value {
        let begun = Instant::now();
        loop {
            if let Some(first) = self.told.lock().unwrap().first() {
                assert_eq!(first["event"], "ready", "{first}");
                return first.clone();
            }
            if let Some(status) = self.child.as_mut().unwrap().try_wait().unwrap() {
                panic!("{} ended with {status}: {}", self.name, self.errors());
            }
            assert!(begun.elapsed() < PATIENCE, "{} is not ready", self.name);
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Shares its folder; returns the invitation.
    pub fn share(&mut self) -> String {
        self.start(&["share".as_ref(), self.dir.clone().as_os_str()]);
        self.until_ready()["ticket"].as_str().unwrap().to_owned()
    }

    pub fn join(&mut self, ticket: &str) {
        self.start(&["join".as_ref(), ticket.as_ref(), self.dir.clone().as_os_str()]);
        self.until_ready();
    }

    pub fn invite(&self) -> String {
        let (code, out, err) = self.asks(&["invite"]);
        assert_eq!(code, 0, "{err}");
        out.trim().to_owned()
    }

    pub fn run(&mut self) {
        self.start(&["run".as_ref()]);
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Ends it as a user would, and sees that it does so in time and clean.
    pub fn stop(&mut self) {
        let mut child = self.child.take().unwrap();
        let begun = Instant::now();
        // `kill` and not a call: this crate forbids unsafe code and needs no other system crate.
        let sent = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
        assert!(sent.success());
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            if begun.elapsed() > Duration::from_secs(20) {
                child.kill().unwrap();
                child.wait().unwrap();
                panic!("{} does not end on SIGTERM", self.name);
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        assert!(status.success(), "{} ended with {status}: {}", self.name, self.errors());
        // 2 s are promised; half a second more for a busy machine.
        assert!(begun.elapsed() < Duration::from_millis(2500), "{} took {:?}", self.name, begun.elapsed());
    }

    pub fn status(&self) -> Value {
        let (code, out, err) = self.asks(&["status", "--json"]);
        assert_eq!(code, 0, "status of {}: {err}", self.name);
        serde_json::from_str(&out).unwrap()
    }

    /// The status of its only folder.
    pub fn folder(&self) -> Value {
        self.status()["folders"][0].clone()
    }

    /// Its id, without asking it.
    pub fn id(&self) -> String {
        self.status()["device"].as_str().unwrap().to_owned()
    }

    /// How many other devices it is connected to; 0 while it starts.
    pub fn connections(&self) -> usize {
        let (code, out, _) = self.asks(&["status", "--json"]);
        let Ok(status) = serde_json::from_str::<Value>(&out) else { return 0 };
        let devices = status["folders"][0]["devices"].as_array().cloned().unwrap_or_default();
        if code == 0 { devices.iter().filter(|d| d["connected"] == true).count() } else { 0 }
    }

    pub fn until_connected(&self, to: usize, limit: Duration) -> Duration {
        let begun = Instant::now();
        while self.connections() < to {
            assert!(
                begun.elapsed() < limit,
                "{} is not connected to {to} after {limit:?}: {:#}",
                self.name,
                self.status()
            );
            std::thread::sleep(Duration::from_millis(2));
        }
        begun.elapsed()
    }

    /// `dunlin wait`; panics with the state of the node if it fails.
    pub fn wait(&self) {
        let (code, _, err) = self.asks(&["wait", "--timeout", "40"]);
        assert_eq!(code, 0, "wait of {}: {err}{:#}", self.name, self.folder());
    }

    /// The events of a kind that it told since its start.
    pub fn events(&self, kind: &str) -> Vec<Value> {
        self.told.lock().unwrap().iter().filter(|e| e["event"] == kind).cloned().collect()
    }

    pub fn errors(&self) -> String {
        // Asked for while a test fails: what was told before a panic still counts.
        self.errors.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if std::thread::panicking() && self.child.is_some() {
            eprintln!("{} said: {}", self.name, self.errors());
        }
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

pub fn told(output: Output) -> (i32, String, String) {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
}

/// What a path is, as far as devices keep it identical.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Thing {
    Dir { mode: u32 },
    File { mode: u32, mtime: (i64, i64), size: u64, hash: blake3::Hash },
    Link { text: Vec<u8> },
}

pub type Tree = BTreeMap<Vec<u8>, Thing>;

/// Everything below `root`, but what is dunlin's and what is left alone.
pub fn tree(root: &Path) -> Tree {
    let mut out = Tree::new();
    collect(root, &[], &mut out);
    out
}

fn collect(dir: &Path, prefix: &[u8], out: &mut Tree) {
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let name = entry.file_name().into_vec();
        if prefix.is_empty() && name == b".dunlin" {
            continue;
        }
        let path = [prefix, &name].concat();
        let meta = fs::symlink_metadata(entry.path()).unwrap();
        let mode = meta.mode() & 0o777;
        if meta.is_dir() {
            collect(&entry.path(), &[&path[..], b"/"].concat(), out);
            out.insert(path, Thing::Dir { mode });
        } else if meta.is_symlink() {
            out.insert(
                path,
                Thing::Link { text: fs::read_link(entry.path()).unwrap().into_os_string().into_vec() },
            );
        } else if meta.is_file() {
            let mut hasher = blake3::Hasher::new();
            let mut file = fs::File::open(entry.path()).unwrap();
            let mut buffer = vec![0; 1 << 16];
            loop {
                match file.read(&mut buffer).unwrap() {
                    0 => break,
                    n => hasher.update(&buffer[..n]),
                };
            }
            let mtime = (meta.mtime(), meta.mtime_nsec());
            out.insert(path, Thing::File { mode, mtime, size: meta.len(), hash: hasher.finalize() });
        }
    }
}

/// The differences of two trees, as lines; a few of them.
pub fn differences(a: &Tree, b: &Tree) -> Vec<String> {
    let paths: std::collections::BTreeSet<&Vec<u8>> = a.keys().chain(b.keys()).collect();
    let differ = paths.into_iter().filter(|p| a.get(*p) != b.get(*p));
    let line = |p: &Vec<u8>| format!("{}: {:?} | {:?}", p.escape_ascii(), a.get(p), b.get(p));
    differ.take(12).map(line).collect()
}

/// All connected and in sync by their own words, and then at once identical on the disk.
pub fn settle(what: &str, nodes: &[&Node]) -> Tree {
    for node in nodes {
        node.until_connected(nodes.len() - 1, PATIENCE);
    }
    for node in nodes {
        node.wait();
    }
    identical(what, nodes)
}

/// Two nodes that have joined and are in sync.
pub fn pair() -> (tempfile::TempDir, Node, Node) {
    let temp = tempfile::tempdir().unwrap();
    let base = temp.path().canonicalize().unwrap();
    let [mut a, mut b] = ["a", "b"].map(|n| Node::new(&base, n));
    b.join(&a.share());
    settle("joined", &[&a, &b]);
    (temp, a, b)
}

/// Identical on the disk, now.
pub fn identical(what: &str, nodes: &[&Node]) -> Tree {
    let first = tree(&nodes[0].dir);
    for other in &nodes[1..] {
        let different = differences(&first, &tree(&other.dir));
        if different.is_empty() {
            continue;
        }
        // Whether they become alike later tells a lie of `wait` from a divergence.
        let begun = Instant::now();
        let alike = loop {
            if tree(&nodes[0].dir) == tree(&other.dir) {
                break format!("alike {:?} later", begun.elapsed());
            }
            if begun.elapsed() > Duration::from_secs(5) {
                break "for good".to_owned();
            }
        };
        panic!(
            "{what}: {} and {} differ although in sync ({alike}):\n{}\n{:#}\n{:#}",
            nodes[0].name,
            other.name,
            different.join("\n"),
            nodes[0].folder(),
            other.folder()
        );
    }
    first
}

pub fn write(path: impl AsRef<Path>, text: impl AsRef<[u8]>) {
    fs::write(&path, text).unwrap_or_else(|e| panic!("{}: {e}", path.as_ref().display()));
}

pub fn name(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}

/// Bytes that no compression and no luck makes alike.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut out);
    out
}

pub fn set_mtime(path: &Path, secs: i64, nanos: u32) {
    let at = if secs >= 0 {
        SystemTime::UNIX_EPOCH + Duration::new(secs.unsigned_abs(), nanos)
    } else {
        SystemTime::UNIX_EPOCH - Duration::from_secs(secs.unsigned_abs()) + Duration::new(0, nanos)
    };
    fs::File::open(path).unwrap().set_modified(at).unwrap();
}

pub fn set_mode(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

pub fn is_root() -> bool {
    fs::metadata("/proc/self").unwrap().uid() == 0
}

/// Whether a program is there and can do what is asked of it; says loudly when not.
pub fn can(what: &str, program: &str, args: &[&str]) -> bool {
    let ok = Command::new(program).args(args).output().is_ok_and(|o| o.status.success());
    if !ok {
        eprintln!("SKIPPED: {what}: `{program} {}` does not work here", args.join(" "));
    }
    ok
}

/// The files whose name holds `conflict`, in a tree.
pub fn conflicts(tree: &Tree) -> Vec<String> {
    let is = |p: &&Vec<u8>| p.windows(8).any(|w| w == b"conflict");
    tree.keys().filter(is).map(|p| p.escape_ascii().to_string()).collect()
}
