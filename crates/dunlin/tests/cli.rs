//! The command as a program: exit codes, the two lines of an error, a node in the foreground and its
//! end.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

struct Place {
    temp: tempfile::TempDir,
}

impl Place {
    fn new() -> Place {
        Place { temp: tempfile::tempdir().unwrap() }
    }

    fn home(&self) -> PathBuf {
        self.temp.path().join("home")
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dunlin"));
        command.args(args).env("DUNLIN_HOME", self.home()).env("HOME", self.temp.path());
        command.current_dir(self.temp.path()).env_remove("XDG_STATE_HOME").stdin(Stdio::null());
        command
    }

    fn dunlin(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// Runs a command that must fail; returns what it says on standard error, checked to be one line
    /// and a hint.
    fn fails(&self, code: i32, args: &[&str]) -> String {
        let output = self.dunlin(args);
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{args:?}: {told}");
        assert!(output.stdout.is_empty(), "{args:?} prints errors to standard error only");
        let lines: Vec<&str> = told.lines().collect();
        assert_eq!(lines.len(), 2, "{args:?}: {told}");
        assert!(lines[0].starts_with("dunlin: ") && lines[1].starts_with("hint: "), "{told}");
        assert!(lines[0].len() > 10 && lines[1].len() > 8, "{told}");
        assert!(!told.contains('\x1b'), "no colours but on a terminal");
        told
    }

    fn run(&self, args: &[&str]) -> Running {
        let mut child = self.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut first = String::new();
        stdout.read_line(&mut first).unwrap();
        Running { child, first, _stdout: stdout }
    }
}

struct Running {
    child: Child,
    first: String,
    _stdout: BufReader<std::process::ChildStdout>,
}

impl Running {
    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
    }

    /// Waits for the end; returns the exit code and how long it took.
    fn end(&mut self) -> (Option<i32>, Duration) {
        let started = Instant::now();
        while started.elapsed() < Duration::from_secs(10) {
            if let Some(status) = self.child.try_wait().unwrap() {
                return (status.code(), started.elapsed());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("it does not end");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

#[test]
fn version_and_help_are_successes() {
    let place = Place::new();
    let version = place.dunlin(&["--version"]);
    assert!(version.status.success());
    assert_eq!(String::from_utf8(version.stdout).unwrap(), format!("dunlin {}\n", env!("CARGO_PKG_VERSION")));
    for args in [&["--help"][..], &["help"], &["share", "--help"], &["help", "wait"]] {
        let help = place.dunlin(args);
        assert!(help.status.success() && help.stdout.len() > 100, "{args:?}");
    }
    assert!(!place.home().exists());
}

#[test]
fn wrong_usage_is_2() {
    let place = Place::new();
    for args in [
        &[][..],
        &["frobnicate"],
        &["share"],
        &["join"],
        &["share", "a", "b"],
        &["--listen", "x", "run"],
        &["run", "--name", ""],
        &["run", "--name", "a\nb"],
        &["--home", "", "run"],
        &["wait", "--copies", "0"],
        &["wait", "--timeout", "soon"],
        &["wait", "--timeout=-1"],
        &["wait", "--timeout", "inf"],
        &["wait", "--timeout", "1e300"],
    ] {
        place.fails(2, args);
    }
    assert!(!place.home().exists(), "wrong usage creates nothing");
}

#[test]
fn what_needs_a_node_says_so_and_creates_nothing() {
    let place = Place::new();
    for args in [
        &["status"][..],
        &["status", "--json"],
        &["invite"],
        &["invite", "/tmp"],
        &["wait"],
        &["wait", "--timeout", "1"],
        &["--home", "elsewhere", "status"],
    ] {
        let told = place.fails(1, args);
        assert!(told.contains("no node is running") && told.contains("dunlin run"), "{told}");
    }
    assert!(!place.home().exists() && !place.temp.path().join("elsewhere").exists());
}

#[test]
fn a_node_stays_up_without_folders_and_says_so() {
    let place = Place::new();
    let mut node = place.run(&["run", "--listen", "127.0.0.1:0", "--name", "grey \"one\""]);
    assert!(
        node.first.contains("Running as \"grey \"one\"\"") && node.first.contains("no folder"),
        "{}",
        node.first
    );
    let status = place.dunlin(&["status", "--json"]);
    let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!(status["name"], "grey \"one\"");
    assert_eq!(status["folders"], serde_json::json!([]));
    let human = place.dunlin(&["status"]);
    assert!(human.status.success() && String::from_utf8_lossy(&human.stdout).contains("no folder yet"));

    let told = place.fails(1, &["run"]);
    assert!(told.contains("already runs") && told.contains(&node.child.id().to_string()), "{told}");
    place.fails(1, &["wait"]);
    place.fails(1, &["invite", "--json"]);

    node.signal("INT");
    let (code, took) = node.end();
    assert_eq!(code, Some(0));
    assert!(took < Duration::from_secs(2), "{took:?}");
    place.fails(1, &["status"]);
    assert!(!place.home().join("control.sock").exists());
}

#[test]
fn every_end_is_clean_and_a_kill_is_no_obstacle() {
    let place = Place::new();
    for signal in ["TERM", "HUP", "INT"] {
        let mut node = place.run(&["run", "--json", "--listen", "127.0.0.1:0"]);
        let first: serde_json::Value = serde_json::from_str(&node.first).unwrap();
        assert_eq!(first["event"], "note");
        node.signal(signal);
        assert_eq!(node.end().0, Some(0), "{signal}");
    }
    let mut node = place.run(&["run", "--listen", "127.0.0.1:0"]);
    node.signal("KILL");
    node.end();
    place.fails(1, &["status"]);
    let node = place.run(&["run", "--listen", "127.0.0.1:0"]);
    assert!(node.first.contains("Running"));
}

#[test]
fn a_node_may_end_with_its_standard_input() {
    let place = Place::new();
    let mut command = place.command(&["run", "--stop-with-stdin", "--listen", "127.0.0.1:0"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let stdin = child.stdin.take();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut first = String::new();
    stdout.read_line(&mut first).unwrap();
    assert!(child.try_wait().unwrap().is_none());
    drop(stdin);
    let mut node = Running { child, first, _stdout: stdout };
    assert_eq!(node.end().0, Some(0));
}

#[test]
fn a_name_is_kept_for_later_runs() {
    let place = Place::new();
    for args in
        [&["run", "--name", "heron", "--listen", "127.0.0.1:0"][..], &["run", "--listen", "127.0.0.1:0"]]
    {
        let mut node = place.run(args);
        assert!(node.first.contains("\"heron\""), "{}", node.first);
        node.signal("TERM");
        node.end();
    }
}

#[test]
fn a_state_directory_open_to_others_is_refused() {
    let place = Place::new();
    std::fs::create_dir(place.home()).unwrap();
    std::fs::set_permissions(place.home(), std::fs::Permissions::from_mode(0o755)).unwrap();
    for args in [&["run"][..], &["status"], &["share", "f"]] {
        let told = place.fails(1, args);
        assert!(told.contains("open to other users") && told.contains("chmod 700"), "{told}");
    }
    assert!(!place.temp.path().join("f").exists());
    std::fs::remove_dir(place.home()).unwrap();
    std::fs::write(place.home(), "").unwrap();
    assert!(place.fails(1, &["run"]).contains("not a directory"));
}

#[test]
fn a_long_state_directory_works_whatever_the_environment_of_the_client() {
    let place = Place::new();
    let home = place.temp.path().join("h".repeat(120));
    let home = home.to_str().unwrap();
    let runtime = place.temp.path().join("runtime");
    std::fs::create_dir(&runtime).unwrap();
    let mut command = place.command(&["--home", home, "run", "--listen", "127.0.0.1:0"]);
    let mut child = command.env("XDG_RUNTIME_DIR", &runtime).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut first = String::new();
    stdout.read_line(&mut first).unwrap();
    let mut node = Running { child, first, _stdout: stdout };
    let mut status = place.command(&["--home", home, "status"]);
    assert!(status.env_remove("XDG_RUNTIME_DIR").output().unwrap().status.success());
    node.signal("TERM");
    assert_eq!(node.end().0, Some(0));
    assert_eq!(entries(&runtime.join("dunlin")), 0, "no socket stays behind");
}

fn entries(dir: &Path) -> usize {
    std::fs::read_dir(dir).map_or(0, Iterator::count)
}

#[test]
fn a_reader_that_closes_its_end_does_not_end_the_node() {
    let place = Place::new();
    let mut child =
        place.command(&["run", "--listen", "127.0.0.1:0"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut byte = [0];
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_exact(&mut byte).unwrap();
    drop(stdout);
    assert!(place.dunlin(&["status"]).status.success());
    let status = Command::new("kill").args(["-s", "TERM", &child.id().to_string()]).status().unwrap();
    assert!(status.success());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}
