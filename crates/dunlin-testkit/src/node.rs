//! A device as a process of the program.

use crate::{PATIENCE, in_netns, program, told};
use serde_json::Value;
use std::ffi::{OsStr, OsString};
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// A device: its state directory, its folder, and while it runs, its process.
pub struct Node {
    /// The name others know it by.
    pub name: String,
    /// Its state directory.
    pub home: PathBuf,
    /// Its folder.
    pub dir: PathBuf,
    /// The network namespace it runs in.
    pub netns: Option<String>,
    /// Where it listens; none: the default.
    pub listen: Option<String>,
    /// Whether it looks for others on the network.
    pub discovery: bool,
    /// What to run it with, such as strace.
    pub wrapper: Vec<OsString>,
    /// What stands before all else, such as a control group to enter.
    pub before: Vec<OsString>,
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
            before: Vec::new(),
            child: None,
            told: Arc::default(),
            errors: Arc::default(),
        }
    }

    /// A path in its folder.
    pub fn path(&self, below: impl AsRef<Path>) -> PathBuf {
        self.dir.join(below)
    }

    /// A command on this device.
    pub fn command(&self, args: &[&OsStr]) -> Command {
        let mut all: Vec<OsString> = Vec::new();
        if let Some(ns) = &self.netns {
            all.extend(in_netns(ns).map(OsString::from));
        }
        all.push(program().into());
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
        let mut all = self.before.clone();
        if let Some(ns) = &self.netns {
            all.extend(in_netns(ns).map(OsString::from));
        }
        all.extend(self.wrapper.iter().cloned());
        all.push(program().into());
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

    /// Joins with an invitation.
    pub fn join(&mut self, ticket: &str) {
        self.start(&["join".as_ref(), ticket.as_ref(), self.dir.clone().as_os_str()]);
        self.until_ready();
    }

    /// A new invitation.
    pub fn invite(&self) -> String {
        let (code, out, err) = self.asks(&["invite"]);
        assert_eq!(code, 0, "{err}");
        out.trim().to_owned()
    }

    /// Starts it again.
    pub fn run(&mut self) {
        self.start(&["run".as_ref()]);
    }

    /// The same, until it answers.
    pub fn run_until_it_answers(&mut self) {
        self.run();
        let begun = Instant::now();
        while self.asks(&["status"]).0 != 0 {
            assert!(begun.elapsed() < PATIENCE, "{} does not answer", self.name);
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// The process; of the wrapper, if there is one.
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

    /// Whether it was started, and neither stopped nor killed since.
    pub fn runs(&self) -> bool {
        self.child.is_some()
    }

    /// Whether its process runs (or the wrapper's).
    pub fn lives(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// Sends it a signal, such as `STOP`.
    pub fn signal(&self, name: &str) {
        let pid = self.pid().to_string();
        assert!(Command::new("kill").args([&format!("-{name}"), &pid]).status().unwrap().success());
    }

    /// Whether a part of it panicked since its start; the rest may go on.
    pub fn panicked(&self) -> bool {
        self.errors().contains("panicked at")
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

    /// What it says of itself.
    pub fn status(&self) -> Value {
        let (code, out, err) = self.asks(&["status", "--json"]);
        assert_eq!(code, 0, "status of {}: {err}", self.name);
        serde_json::from_str(&out).unwrap()
    }

    /// The status of its only folder.
    pub fn folder(&self) -> Value {
        self.status()["folders"][0].clone()
    }

    /// Changes a setting of its only folder; it is started anew for that.
    pub fn set(&mut self, what: &str, settings: &Value) {
        self.stop();
        let mut folders = std::fs::read_dir(self.home.join("folders")).expect("folders");
        let path = folders.next().expect("one").expect("a folder").path().join("folder.json");
        let read = std::fs::read(&path).expect("its configuration");
        let mut config: Value = serde_json::from_slice(&read).expect("JSON");
        config[what] = settings.clone();
        std::fs::write(path, config.to_string()).expect("its configuration");
        self.run();
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

    /// Waits until it is connected to so many others.
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
        self.wait_for(Duration::from_secs(40));
    }

    /// The same with another patience.
    pub fn wait_for(&self, limit: Duration) {
        let (code, _, err) = self.asks(&["wait", "--timeout", &limit.as_secs().to_string()]);
        assert_eq!(code, 0, "wait of {}: {err}{:#}", self.name, self.folder());
    }

    /// The same until so many devices hold the same, this one among them.
    pub fn wait_for_copies(&self, copies: usize) {
        let (code, _, err) = self.asks(&["wait", "--timeout", "40", "--copies", &copies.to_string()]);
        assert_eq!(code, 0, "wait of {}: {err}{:#}", self.name, self.folder());
    }

    /// The events of a kind that it told since its start.
    pub fn events(&self, kind: &str) -> Vec<Value> {
        self.told.lock().unwrap().iter().filter(|e| e["event"] == kind).cloned().collect()
    }

    /// What it wrote to its standard error since its start.
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
