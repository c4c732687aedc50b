//! `dunlin demo`.

use crate::cli::Globals;
use crate::failure::Failure;
use crate::host::End;
use crate::render;
use dunlin_node::control::{AnyPath, Event};
use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::{Instant, sleep, timeout};

/// How long each step may take before the demo gives up.
const STEP_TIMEOUT: Duration = Duration::from_secs(20);
/// How long the two nodes may take to end.
const STOP_TIMEOUT: Duration = Duration::from_millis(1700);

/// Tries it on this machine: two nodes, two folders, nothing but loopback.
///
/// Shows them find each other and a file cross, then leaves them to play with until Ctrl-C, and
/// removes everything it made.
#[derive(Debug, clap::Args)]
pub struct Demo {}

impl Demo {
    /// Shows it, stays, cleans up.
    pub async fn run(self, _globals: &Globals) -> Result<(), Failure> {
        let mut end = End::watch(false)?;
        let scratch = Scratch::make()?;
        let mut nodes = Vec::new();
        let outcome = tokio::select! {
            outcome = show(&scratch.0, &mut nodes) => outcome,
            () = end.comes() => Ok(()),
        };
        stop(nodes).await;
        outcome
    }
}

async fn show(scratch: &Path, nodes: &mut Vec<Node>) -> Result<(), Failure> {
    let (one, two) = (scratch.join("one"), scratch.join("two"));
    render::print("Two nodes on this machine, talking over loopback only:");
    let started = Instant::now();
    nodes.push(Node::start(scratch, "one", &["share".as_ref(), one.as_os_str()])?);
    let ticket = nodes[0].until_ready().await?.unwrap_or_default();
    render::step("one", &AnyPath(one.clone()), started.elapsed());
    let started = Instant::now();
    nodes.push(Node::start(scratch, "two", &["join".as_ref(), ticket.as_ref(), two.as_os_str()])?);
    nodes[1].until_ready().await?;
    nodes[1].until_connected().await?;
    render::step("two", &AnyPath(two.clone()), started.elapsed());
    render::print("The second has joined the first and is connected to it. Now a file each way:");
    for (from, to) in [("one", "two"), ("two", "one")] {
        let name = format!("hello from {from}.txt");
        let took = cross(&scratch.join(from).join(&name), &scratch.join(to).join(&name)).await?;
        render::print(&format!("  {from} -> {to}  \"{name}\" in {}", render::millis(took)));
    }
    for node in nodes.iter_mut() {
        node.skip_told().await?;
    }
    render::print("Play with the two folders: what you do in one happens in the other.");
    render::print("Ctrl-C ends the demo and removes both.");
    let [first, second] = nodes.as_mut_slice() else { return Ok(()) };
    tokio::select! {
        failure = first.tell_changes() => Err(failure),
        failure = second.tell_changes() => Err(failure),
    }
}

/// Writes a file and returns how long it took to be at the other place, whole.
async fn cross(from: &Path, to: &Path) -> Result<Duration, Failure> {
    let text = format!("written by the demo, process {}\n", std::process::id());
    fs::write(from, &text).map_err(|e| Failure::system(format!("write {}", from.display()), &e))?;
    let started = Instant::now();
    while fs::read(to).ok().as_deref() != Some(text.as_bytes()) {
        if started.elapsed() > STEP_TIMEOUT {
            return Err(too_long("the file did not cross"));
        }
        sleep(Duration::from_millis(1)).await;
    }
    Ok(started.elapsed())
}

fn too_long(what: &str) -> Failure {
    Failure::failed(
        format!("{what} within {} s", STEP_TIMEOUT.as_secs()),
        "the machine may be very busy; please report it if it happens again",
    )
}

/// A node as a child process. It ends when its standard input does, so it never outlives the demo,
/// however that ends.
struct Node {
    name: &'static str,
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    connected: bool,
}

impl Node {
    fn start(scratch: &Path, name: &'static str, args: &[&std::ffi::OsStr]) -> Result<Node, Failure> {
        let program = std::env::current_exe().map_err(|e| Failure::system("find this program", &e))?;
        let mut child = Command::new(program)
            .arg("--home")
            .arg(scratch.join(format!("{name}.state")))
            .args(["--name", name, "--listen", "127.0.0.1:0", "--json", "--stop-with-stdin"])
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0) // the terminal's Ctrl-C is the demo's to act on
            .kill_on_drop(true)
            .spawn()
            .map_err(|e| Failure::system("start a node", &e))?;
        let Some(stdout) = child.stdout.take() else {
            return Err(Failure::failed("a node has no standard output", "try again"));
        };
        Ok(Node { name, child, lines: BufReader::new(stdout).lines(), connected: false })
    }

    /// The next event; the node's own error where it has ended.
    async fn event(&mut self) -> Result<Event, Failure> {
        match self.lines.next_line().await {
            Ok(Some(line)) => Ok(serde_json::from_str(&line).unwrap_or(Event::Unknown)),
            _ => {
                let mut told = String::new();
                if let Some(stderr) = self.child.stderr.take() {
                    stderr.take(4096).read_to_string(&mut told).await.ok();
                }
                let mut told =
                    told.lines().map(|l| l.trim_start_matches("dunlin: ").trim_start_matches("hint: "));
                let what = told.next().unwrap_or("it did not say why");
                let hint = told.next().unwrap_or("please report it");
                Err(Failure::failed(format!("node {} ended: {what}", self.name), hint))
            }
        }
    }

    /// Waits for the first line; returns the ticket in it.
    async fn until_ready(&mut self) -> Result<Option<String>, Failure> {
        let ready = async {
            loop {
                match self.event().await? {
                    Event::Ready { ticket, .. } => return Ok(ticket),
                    Event::Connected { .. } => self.connected = true,
                    _ => {}
                }
            }
        };
        timeout(STEP_TIMEOUT, ready).await.unwrap_or_else(|_| Err(too_long("a node was not ready")))
    }

    async fn until_connected(&mut self) -> Result<(), Failure> {
        let connected = async {
            while !self.connected {
                self.connected = matches!(self.event().await?, Event::Connected { .. });
            }
            Ok(())
        };
        timeout(STEP_TIMEOUT, connected).await.unwrap_or_else(|_| Err(too_long("the nodes did not connect")))
    }

    /// Drops the events of what the demo told itself.
    async fn skip_told(&mut self) -> Result<(), Failure> {
        while let Ok(event) = timeout(Duration::from_millis(50), self.event()).await {
            event?;
        }
        Ok(())
    }

    /// Prints what is changed here by the other; returns why it ended.
    async fn tell_changes(&mut self) -> Failure {
        loop {
            match self.event().await {
                Ok(Event::Applied { path, kind, .. }) => render::applied(self.name, &path, kind),
                Ok(_) => {}
                Err(failure) => return failure,
            }
        }
    }
}

/// Ends the nodes, at once and in time.
async fn stop(mut nodes: Vec<Node>) {
    for node in &mut nodes {
        drop(node.child.stdin.take());
    }
    let until = Instant::now() + STOP_TIMEOUT;
    for node in &mut nodes {
        if tokio::time::timeout_at(until, node.child.wait()).await.is_err() {
            node.child.kill().await.ok();
        }
    }
}

/// A directory for the demo, removed at its end.
struct Scratch(PathBuf);

impl Scratch {
    fn make() -> Result<Scratch, Failure> {
        let temp = std::env::temp_dir();
        let tried = (0..100).map(|i| temp.join(format!("dunlin-demo-{}-{i}", std::process::id())));
        for path in tried {
            match DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => return Ok(Scratch(path)),
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(Failure::system(format!("create {}", path.display()), &e)),
            }
        }
        Err(Failure::failed(format!("no free name in {}", temp.display()), "set TMPDIR to another directory"))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(e) = fs::remove_dir_all(&self.0) {
            render::note(&format!("cannot remove {}: {e}", self.0.display()));
        }
    }
}
