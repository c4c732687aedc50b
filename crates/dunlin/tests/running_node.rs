//! The commands against a node that runs already: what they ask it, print and exit with. The node is a
//! fake behind the real control server, on a real state directory.

#![allow(clippy::unwrap_used, reason = "a test")]

use dunlin_node::control::{
    AnyPath, Api, ApiError, Device, Event, Fate, Folder, FolderSpec, History, HistoryRequest, Item,
    JoinRequest, Joined, Problem, RestoreRequest, Restored, Resumed, Shared, State, Status, Undo,
    UndoRequest, Undone, United, Verified, Version, serve,
};
use dunlin_node::home::Home;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::{broadcast, oneshot};

#[derive(Default)]
struct Fake {
    folders: Vec<Folder>,
    asked: Mutex<Vec<String>>,
}

impl Fake {
    fn hear(&self, what: String) {
        self.asked.lock().unwrap().push(what);
    }

    fn pick(&self, spec: &FolderSpec) -> Result<usize, ApiError> {
        spec.pick(self.folders.iter().map(|f| (f.id.as_str(), f.path.as_path())))
    }
}

impl Api for Fake {
    async fn share(&self, path: PathBuf) -> Result<Shared, ApiError> {
        self.hear(format!("share {path:?}"));
        let (device, name, folder) = ("dd".to_owned(), "laptop".to_owned(), "ff".to_owned());
        Ok(Shared { device, name, folder, path: path.into(), ticket: "dunlin1ticket".into() })
    }
    async fn join(&self, request: JoinRequest) -> Result<Joined, ApiError> {
        self.hear(format!("join {:?} {:?} {}", request.ticket, request.path.0, request.below));
        if request.ticket == "used" {
            return Err(ApiError::failed("the invitation\x1b was used\nbefore", "ask for a fresh one"));
        }
        Ok(Joined { device: "dd".into(), name: "laptop".into(), folder: "ff".into(), path: request.path })
    }
    async fn invite(&self, folder: FolderSpec) -> Result<String, ApiError> {
        self.pick(&folder).map(|i| format!("dunlin1for{i}"))
    }
    async fn status(&self) -> Result<Status, ApiError> {
        Ok(Status { device: "dd".into(), name: "laptop".into(), folders: self.folders.clone() })
    }
    async fn wait(&self, folder: FolderSpec, copies: u32) -> Result<(), ApiError> {
        let i = self.pick(&folder)?;
        match self.folders[i].state {
            State::Halted => Err(ApiError::failed("the folder is halted", "dunlin status says why")),
            _ if self.folders[i].in_sync && copies == 1 => Ok(()),
            _ => std::future::pending().await,
        }
    }
    async fn verify(&self, folder: FolderSpec) -> Result<Verified, ApiError> {
        let damaged = self.pick(&folder)? as u64;
        let left = Problem { path: PathBuf::from("x\x1b").into(), why: "damaged".into() };
        let problems = if damaged > 1 { vec![left] } else { Vec::new() };
        Ok(Verified {
            files: 51_931,
            bytes: 1_200_000_000,
            changed: 0,
            damaged,
            repaired: 1.min(damaged),
            problems,
        })
    }
    async fn history(&self, request: HistoryRequest) -> Result<History, ApiError> {
        self.hear(format!("history {} {:?} {}", self.pick(&request.folder)?, request.path.0, request.limit));
        let version = |path: &str, item, by: &str| Version {
            path: PathBuf::from(path).into(),
            was: (by == "laptop").then(|| PathBuf::from("once\x1b").into()),
            version: (item == Item::File).then(|| "0123456789abcdef".into()),
            item,
            size: 1234,
            modified: None,
            author: by.into(),
            ended: Some(1_795_000_000),
            by: by.into(),
            fate: Fate::Deleted,
            here: false,
            devices: if by == "nas" { vec!["nas".into(), "pc\x1b".into()] } else { Vec::new() },
        };
        let versions = vec![
            version("a\x1b", Item::File, "nas"),
            version("b", Item::File, "laptop"),
            version("c", Item::Directory, "nas"),
        ];
        Ok(History { versions, older: 7 })
    }
    async fn restore(&self, request: RestoreRequest) -> Result<Restored, ApiError> {
        let RestoreRequest { folder, path, at, version, to } = request;
        let to = to.map(|to| to.0);
        self.hear(format!("restore {} {:?} {at:?} {version:?} {to:?}", self.pick(&folder)?, path.0));
        let lacking = if path.as_bytes() == b"lost" { vec![path] } else { Vec::new() };
        Ok(Restored { restored: 2, bytes: 5, lacking, ..Restored::default() })
    }
    async fn versions(&self, _request: RestoreRequest) -> Result<dunlin_node::control::HandedOut, ApiError> {
        Ok(dunlin_node::control::HandedOut::default())
    }
    async fn content(
        &self,
        _request: dunlin_node::control::ContentRequest,
    ) -> Result<dunlin_node::control::Bytes, ApiError> {
        Err(ApiError::failed("it is gone", "look elsewhere"))
    }
    async fn undo(&self, request: UndoRequest) -> Result<Undone, ApiError> {
        let UndoRequest { folder, since, by, dry_run, partial, .. } = request;
        self.hear(format!("undo {} {since:?} {by:?} {dry_run} {partial}", self.pick(&folder)?));
        let path = AnyPath::from(b"gone".to_vec());
        Ok(Undone {
            by: Some("nas".into()),
            count: 1,
            things: vec![Undo { path, fate: Fate::Deleted, by: "nas".into(), at: None }],
            whose: vec![("nas".into(), 1)],
            fates: vec![(Fate::Deleted, 1)],
            done: !dry_run,
            ..Undone::default()
        })
    }
    async fn resume(&self, folder: FolderSpec, accept: bool) -> Result<Resumed, ApiError> {
        let i = self.pick(&folder)?;
        if self.folders[i].state != State::Halted {
            return Err(ApiError::failed("no deletes are held", "dunlin status shows how the folder is"));
        }
        let (folder, path) = (self.folders[i].id.clone(), self.folders[i].path.clone());
        Ok(Resumed { folder, path, accepted: accept, files: 5000, overwritten: 0 })
    }
    async fn unite(&self, folder: FolderSpec) -> Result<United, ApiError> {
        let i = self.pick(&folder)?;
        if self.folders[i].state != State::Halted {
            return Err(ApiError::failed("it is not halted", "dunlin status shows how the folder is"));
        }
        Ok(United { folder: self.folders[i].id.clone(), path: self.folders[i].path.clone() })
    }
    fn events(&self) -> broadcast::Receiver<Event> {
        broadcast::channel(1).1
    }
}

fn folder(id: &str, path: &Path, state: State, in_sync: bool) -> Folder {
    Folder {
        id: id.into(),
        path: path.to_path_buf().into(),
        state,
        in_sync,
        files: 1,
        bytes: 2,
        need_files: u64::from(!in_sync),
        need_bytes: 0,
        to_delete: 0,
        conflicts: 0,
        held: None,
        root_lost: false,
        problems: vec![Problem { path: PathBuf::from("x").into(), why: "locked".into() }],
        devices: vec![Device {
            id: "ee".into(),
            name: "nas".into(),
            connected: true,
            in_sync,
            address: None,
            tcp: None,
            holds: false,
        }],
    }
}

struct Node {
    temp: tempfile::TempDir,
    fake: Arc<Fake>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Node {
    /// Starts a node with folders `0`, `1`, … below its directory.
    fn start(folders: &[(State, bool)]) -> Node {
        let temp = tempfile::tempdir().unwrap();
        let base = temp.path().canonicalize().unwrap();
        let folders = folders.iter().enumerate().map(|(i, (state, in_sync))| {
            let path = base.join(i.to_string());
            std::fs::create_dir(&path).unwrap();
            folder(&format!("{i:032x}"), &path, *state, *in_sync)
        });
        let fake = Arc::new(Fake { folders: folders.collect(), asked: Mutex::default() });
        let locked = Home::open(&temp.path().join("home")).unwrap().lock().unwrap();
        let listener = locked.bind_socket().unwrap();
        listener.set_nonblocking(true).unwrap();
        let (stop, stopped) = oneshot::channel();
        let api = fake.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = tokio::net::UnixListener::from_std(listener).unwrap();
                serve(api, listener, async { stopped.await.unwrap_or_default() }).await;
            });
            drop(locked);
        });
        Node { temp, fake, stop: Some(stop), thread: Some(thread) }
    }

    fn dunlin(&self, args: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dunlin"));
        command.args(args).env("DUNLIN_HOME", self.temp.path().join("home")).env("HOME", "/nowhere");
        command.current_dir(self.temp.path()).output().unwrap()
    }

    /// Runs a command and returns its exit code, output and errors.
    fn told(&self, args: &[&str]) -> (i32, String, String) {
        let output = self.dunlin(args);
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    }

    fn path(&self, below: &str) -> PathBuf {
        self.temp.path().join(below)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        drop(self.stop.take());
        self.thread.take().map(std::thread::JoinHandle::join);
    }
}

#[test]
fn share_and_join_are_handed_over_and_printed() {
    let node = Node::start(&[]);
    let (code, out, err) = node.told(&["share", "my dir", "--json"]);
    let path = node.path("my dir");
    let ready = serde_json::json!({
        "event": "ready", "device": "dd", "folder": "ff", "path": path, "ticket": "dunlin1ticket"
    });
    assert_eq!((code, err.as_str()), (0, ""));
    assert_eq!(out.lines().count(), 1);
    assert_eq!(serde_json::from_str::<serde_json::Value>(&out).unwrap(), ready);

    let (_, out, _) = node.told(&["share", "my dir"]);
    let line = format!(
        "Sharing {0} as \"laptop\". On another device:   dunlin join dunlin1ticket '{0}'\n",
        path.display()
    );
    assert_eq!(out, line);

    let (code, out, _) = node.told(&["--json", "join", " dunlin1x\n", "there"]);
    assert_eq!(code, 0);
    let ready: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(ready["event"], "ready");
    assert!(ready.get("ticket").is_none());
    node.told(&["join", "dunlin1x"]);
    let asked = node.fake.asked.lock().unwrap().clone();
    assert_eq!(asked[2], format!("join \"dunlin1x\" {:?} false", node.path("there")));
    assert!(asked[3].ends_with("true"), "without FOLDER, a folder below the present directory: {}", asked[3]);
}

#[test]
fn what_the_node_refuses_is_two_lines_and_harmless() {
    let node = Node::start(&[]);
    let (code, out, err) = node.told(&["join", "used", "f"]);
    assert_eq!((code, out.as_str()), (1, ""));
    assert_eq!(err, "dunlin: the invitation\\u{1b} was used\\u{a}before\nhint: ask for a fresh one\n");
}

#[test]
fn options_of_a_start_are_said_to_come_too_late() {
    let node = Node::start(&[]);
    let (code, _, err) = node.told(&["share", "f", "--listen", "127.0.0.1:1"]);
    assert_eq!(code, 0);
    assert!(err.starts_with("note: a node runs here already"), "{err}");
}

#[test]
fn folders_are_named_by_path_or_id_or_not_at_all() {
    let node = Node::start(&[(State::Idle, true), (State::Idle, true)]);
    let ticket = |args: &[&str]| node.told(args);
    let id = format!("{:032x}", 1);
    assert_eq!(ticket(&["invite", &id]).1, "dunlin1for1\n");
    assert_eq!(ticket(&["invite", "1"]).1, "dunlin1for1\n");
    assert_eq!(ticket(&["invite", "0/../1/"]).1, "dunlin1for1\n");
    assert_eq!(ticket(&["invite", "./0", "--json"]).1, "{\"ticket\":\"dunlin1for0\"}\n");
    std::os::unix::fs::symlink("1", node.path("link")).unwrap();
    assert_eq!(ticket(&["invite", "link"]).1, "dunlin1for1\n");
    let (code, out, err) = ticket(&["invite"]);
    assert_eq!((code, out.as_str()), (2, ""));
    assert!(err.contains("several folders") && err.contains("\nhint: "), "{err}");
    assert_eq!(ticket(&["wait"]).0, 2);
    assert_eq!(ticket(&["invite", "other"]).0, 1);
    assert_eq!(Node::start(&[(State::Idle, true)]).told(&["invite"]).1, "dunlin1for0\n");
}

#[test]
fn waiting_ends_when_it_can() {
    let node = Node::start(&[(State::Idle, true), (State::Syncing, false), (State::Halted, false)]);
    assert_eq!(node.told(&["wait", "0"]).0, 0);
    assert_eq!(node.told(&["wait", "0", "--timeout", "5", "--copies", "1"]).0, 0);
    let (code, _, err) = node.told(&["wait", "2"]);
    assert_eq!(code, 1);
    assert!(err.contains("halted"), "{err}");
    let started = Instant::now();
    let (code, _, err) = node.told(&["wait", "1", "--timeout", "0.3"]);
    assert_eq!(code, 1);
    assert!(err.contains("after 0.3 s: ") && err.contains("1 file") && err.contains("nas behind"), "{err}");
    assert!(started.elapsed() >= Duration::from_millis(300));
    let (code, _, err) = node.told(&["wait", "0", "--timeout", "0.1", "--copies", "2"]);
    assert_eq!(code, 1);
    assert!(err.contains("with 2 copies"), "{err}");
}

#[test]
fn verifying_says_what_it_found_and_fails_where_damage_is_left() {
    let node = Node::start(&[(State::Idle, true), (State::Idle, true), (State::Idle, true)]);
    let all = "verified 51,931 files, 1.2 GB";
    assert_eq!(node.told(&["verify", "0"]), (0, format!("{all}; no damage\n"), String::new()));
    assert_eq!(node.told(&["verify", "1"]), (0, format!("{all}; 1 damaged, 1 repaired\n"), String::new()));
    let (code, out, err) = node.told(&["verify", "2"]);
    assert_eq!(code, 1);
    assert_eq!(out, format!("{all}; 2 damaged, 1 repaired\nproblem: x\\u{{1b}}: damaged\n"));
    assert!(err.starts_with("dunlin: 1 file is damaged or cannot be read\nhint: "), "{err}");
    let (code, out, _) = node.told(&["verify", "2", "--json"]);
    let found: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, found["damaged"].as_u64(), out.lines().count()), (1, Some(2), 1));
    assert_eq!(node.told(&["verify"]).0, 2);
}

#[test]
fn deletes_that_are_held_are_decided_about() {
    let node = Node::start(&[(State::Halted, false), (State::Idle, true)]);
    let there = node.path("0").canonicalize().unwrap();
    let told = node.told(&["resume", "0", "--accept"]);
    assert_eq!(
        told,
        (0, format!("{} goes on: 5,000 files are deleted on every device\n", there.display()), String::new())
    );
    let (code, out, _) = node.told(&["resume", "0", "--reject", "--json"]);
    let done: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &done["accepted"], &done["files"]), (0, &false.into(), &5000.into()));
    let (code, _, err) = node.told(&["resume", "1", "--reject"]);
    assert_eq!((code, err.starts_with("dunlin: no deletes are held\nhint: ")), (1, true), "{err}");
    let united = node.told(&["resume", "0", "--unite"]);
    let line = format!("{} goes on with what is there, united with what the others have\n", there.display());
    assert_eq!(united, (0, line, String::new()));
    assert_eq!(node.told(&["resume", "1", "--unite"]).0, 1);
    let both = ["resume", "0", "--unite", "--accept"];
    for wrong in [
        &["resume", "0"][..],
        &["resume", "0", "--accept", "--reject"],
        &["resume", "--accept"],
        &["resume", "--unite"],
        &both,
    ] {
        assert_eq!(node.told(wrong).0, 2, "{wrong:?}");
    }
}

#[test]
fn status_is_json_on_one_line_or_plain_text() {
    let node = Node::start(&[(State::Idle, true)]);
    let (code, out, _) = node.told(&["status", "--json"]);
    assert_eq!((code, out.lines().count()), (0, 1));
    let status: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(status["folders"][0]["devices"][0]["address"], serde_json::Value::Null);
    assert_eq!(status["folders"][0]["problems"][0]["why"], "locked");
    let (_, out, _) = node.told(&["status"]);
    assert!(out.starts_with("laptop\n") && out.contains("problem: x: locked"), "{out}");
    assert!(!out.contains('\x1b'));
}

#[test]
fn a_second_run_is_refused() {
    let node = Node::start(&[]);
    let (code, _, err) = node.told(&["run"]);
    assert_eq!(code, 1);
    assert!(err.contains("already runs") && err.contains(&std::process::id().to_string()), "{err}");
}

#[test]
fn paths_of_the_history_are_found_in_their_folder() {
    let node = Node::start(&[(State::Idle, true), (State::Idle, true)]);
    let (code, out, err) = node.told(&["history", "0/sub/../a", "--limit", "9"]);
    assert_eq!((code, err.as_str()), (0, ""));
    // The times are local: they are not compared.
    let lines: Vec<&str> = out.lines().map(|l| l.split_once("  ").map_or(l, |(_, rest)| rest)).collect();
    let expected = [
        "deleted       by nas        1.2 kB  0123456789abcdef  a\\u{1b}  written by nas, on nas, pc\\u{1b}",
        "deleted       by laptop     1.2 kB  0123456789abcdef  b  as once\\u{1b}  written by laptop, held by nobody connected",
        "deleted       by nas     directory                    c",
        "and 7 more before: --limit N",
    ];
    assert_eq!(lines, expected);
    let path = |below: &str| node.path(below).display().to_string();
    let (code, out, _) = node.told(&["restore", &path("1/x"), "--to", "1/y/z", "--version", "0123"]);
    assert_eq!((code, out), (0, format!("restored 2 items, 5 bytes, to {}\n", path("1/y/z"))));
    assert_eq!(node.told(&["restore", "some/x", "--folder", "1", "--at", "@1795000000"]).0, 0);
    let (code, out, err) = node.told(&["restore", "1/lost"]);
    let said =
        format!("restored 2 items, 5 bytes, to {}\nheld by nobody connected:\n  lost\n", path("1/lost"));
    assert_eq!((code, out), (1, said));
    assert!(err.contains("no connected device has 1 of them"), "{err}");
    let asked = node.fake.asked.lock().unwrap().clone();
    let expected = [
        r#"history 0 "a" 9"#,
        r#"restore 1 "x" None Some("0123") Some("y/z")"#,
        r#"restore 1 "some/x" Some(1795000000) None None"#,
        r#"restore 1 "lost" None None None"#,
    ];
    assert_eq!(asked, expected);
    // Which folder a bare path is in must be said, and one outside of all is none.
    for (args, exit) in [
        (&["history", "x"][..], 2),
        (&["history", "/etc/passwd"], 1),
        (&["restore", "../../x", "--folder", "0"], 1),
        (&["restore", "0/x", "--to", "1/x"], 2),
        (&["restore", "0/x", "--at", "soon"], 2),
        (&["restore", "0/x", "--at", "1h", "--version", "0123"], 2),
        (&["undo", "--since", "3000-01-01", "0"], 2),
    ] {
        let (code, out, err) = node.told(args);
        assert_eq!((code, out.as_str()), (exit, ""), "{args:?}: {err}");
        assert_eq!(err.lines().count(), 2, "{err}");
    }
}

#[test]
fn an_undo_says_beforehand_what_it_will_do() {
    let node = Node::start(&[(State::Idle, true)]);
    let (code, out, _) = node.told(&["undo", "--by", "nas"]);
    let what = "1 item by nas\n  1 item deleted: restored\n";
    let said = format!("to take back: {what}  restored                 gone  (deleted by nas)\n");
    assert_eq!((code, out), (0, format!("{said}taken back: {what}")));
    assert_eq!(node.told(&["undo", "--dry-run", "--since", "@5"]), (0, said, String::new()));
    let (_, out, _) = node.told(&["undo", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&json["done"], &json["fates"][0][0]), (&true.into(), &"deleted".into()));
    let asked = node.fake.asked.lock().unwrap().clone();
    let expected = [
        r#"undo 0 None Some("nas") true false"#,
        r#"undo 0 None Some("nas") false false"#,
        "undo 0 Some(5) None true false",
        "undo 0 None None false false",
    ];
    assert_eq!(asked, expected);
}
