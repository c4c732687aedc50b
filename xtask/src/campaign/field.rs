//! Where a run takes place: devices, their users, and the judgement that ends it.

use dunlin_testkit::{
    Crowd, Dice, Ledger, Node, Poller, Tree, User, accept, can, identical, is_root, settle_within, until,
};
use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a flock may take to come to rest on a machine that does other things too.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The place of one run.
pub struct Field {
    /// What everything in this run follows from.
    pub seed: u64,
    /// Chance, for the trouble.
    pub dice: Dice,
    /// What users wrote.
    pub ledger: Arc<Ledger>,
    temp: Option<tempfile::TempDir>,
    base: PathBuf,
    /// Users so far.
    users: Cell<u64>,
}

impl Field {
    /// A new place; removed with it.
    pub fn new(seed: u64) -> Field {
        let temp = tempfile::Builder::new().prefix("dunlin-campaign-").tempdir().expect("a directory");
        let base = temp.path().canonicalize().expect("its path");
        Field {
            seed,
            dice: Dice::new(seed, 0),
            ledger: Arc::new(Ledger::new()),
            temp: Some(temp),
            base,
            users: Cell::new(0),
        }
    }

    /// Does not remove it; where it is.
    pub fn keep(&mut self) -> &Path {
        if let Some(temp) = self.temp.take() {
            let _ = temp.keep();
        }
        &self.base
    }

    /// The directory of the run.
    pub fn base(&self) -> &Path {
        &self.base
    }

    /// A device below the directory of the run, that does not run yet.
    pub fn node(&self, name: &str) -> Node {
        Node::new(&self.base, name)
    }

    /// A new user of a device. What he has in hand lies beside the folder.
    pub fn user(&self, node: &Node) -> User {
        self.users.set(self.users.get() + 1);
        let dice = Dice::new(self.seed, self.users.get());
        let hands = node.dir.with_extension("hands").join(self.users.get().to_string());
        User::new(&node.name, &node.dir, &hands, self.ledger.clone(), dice)
    }

    /// The first shares, the others join, all come to rest.
    pub fn found(&self, nodes: &mut [Node]) {
        let (first, others) = nodes.split_first_mut().expect("a device");
        let mut ticket = first.share();
        for other in others {
            other.join(&ticket);
            ticket = first.invite();
        }
        settle_within("founded", &nodes.iter().collect::<Vec<_>>(), PATIENCE);
    }

    /// Users of all these devices at work.
    pub fn crowd(&self, nodes: &[Node], pause_ms: u64) -> Crowd {
        let users = nodes.iter().map(|node| self.user(node)).collect();
        Crowd::begin(users, Duration::from_millis(pause_ms))
    }

    /// Each thing one user does on one of these devices, so many in all.
    pub fn work(&self, nodes: &[&Node], times: usize) {
        let mut users: Vec<User> = nodes.iter().map(|node| self.user(node)).collect();
        for i in 0..times {
            let user = i % users.len();
            users[user].act();
        }
    }

    /// A look at all that shows on these devices, until it is ended.
    pub fn watch(&self, nodes: &[Node]) -> Vec<Poller> {
        nodes.iter().map(|node| Poller::new(&node.dir, self.ledger.clone())).collect()
    }

    /// The end of a run: at rest, alike, nothing lost, nothing shown that nobody wrote, no panic.
    pub fn judge(&self, nodes: &[Node], pollers: Vec<Poller>) -> String {
        let all: Vec<&Node> = nodes.iter().collect();
        let tree = self.come_to_rest(&all);
        let hashed: u64 = pollers.into_iter().map(Poller::end).sum();
        let found = self.ledger.judge("at the end", &[&tree], &all);
        for node in nodes {
            no_panic(node);
        }
        format!(
            "{} contents ({} in the tree, {} only in a history), {hashed} looked at",
            found.written, found.in_trees, found.only_in_history
        )
    }

    /// All say that they are in sync, and are alike. Panics if not, at once if all wait for nothing but what nobody
    /// holds.
    pub fn come_to_rest(&self, nodes: &[&Node]) -> Tree {
        let begun = Instant::now();
        for node in nodes {
            node.until_connected(nodes.len() - 1, PATIENCE);
        }
        let mut waiting = 0;
        while begun.elapsed() < PATIENCE {
            // What users deleted they meant.
            for node in nodes {
                let _ = accept(node);
            }
            if nodes.iter().all(|node| node.asks(&["wait", "--timeout", "4"]).0 == 0) {
                return identical("at the end", nodes);
            }
            let orphans = nodes.iter().map(|node| orphans(node)).collect::<Option<Vec<_>>>();
            waiting = if orphans.is_some() { waiting + 1 } else { 0 };
            if let (Some(orphans), 5..) = (orphans, waiting) {
                let most = orphans.into_iter().max().unwrap_or(0);
                panic!("ORPHANED: {most} versions are wanted that nobody holds: {:#}", nodes[0].folder());
            }
        }
        settle_within("at the end", nodes, Duration::from_secs(2))
    }
}

/// How many versions a device waits for that no device holds any more, if it waits for nothing else.
///
/// A version that its only holder removed before anybody else had it, while others moved or edited what it is a
/// version of, once stayed wanted for good; `crates/dunlin-core/tests/unheard.rs` holds that it is withdrawn.
fn orphans(node: &Node) -> Option<usize> {
    let folder = node.folder();
    let (problems, need) = (folder["problems"].as_array()?, folder["need_files"].as_u64()? as usize);
    let orphan = |p: &serde_json::Value| {
        p["why"].as_str().is_some_and(|why| why.starts_with("no connected device holds this version"))
    };
    (need > 0 && problems.len() == need && problems.iter().all(orphan)).then_some(need)
}

/// A thread of a node that panicked is a failure, even if the rest goes on.
pub fn no_panic(node: &Node) {
    assert!(!node.panicked(), "{} panicked: {}", node.name, node.errors());
}

/// A folder whose index could not be read or written is halted and says why; it goes on by itself.
pub fn heal(node: &Node) -> &'static str {
    let folder = node.folder();
    if folder["state"] != "error" && folder["state"] != "halted" {
        return "";
    }
    assert!(folder["problems"].as_array().is_some_and(|all| !all.is_empty()), "it says why: {folder}");
    let open = || !["error", "halted"].iter().any(|state| node.folder()["state"] == *state);
    until("it is opened again", PATIENCE, open);
    ", halted by it and gone on"
}

/// `kill -9`, after a look at what it said.
pub fn kill(node: &mut Node) {
    no_panic(node);
    node.kill();
}

/// A moment.
pub fn rest(dice: &mut Dice, most_ms: u64) {
    std::thread::sleep(Duration::from_millis(dice.below(most_ms)));
}

/// Why strace cannot be used.
pub fn no_strace() -> Option<String> {
    let args = ["-f", "-qq", "-o", "/dev/null", "-e", "inject=close:error=EIO:when=1000", "true"];
    (!can("campaign", "strace", &args)).then(|| "strace does not work here".into())
}

/// Why network namespaces cannot be used.
pub fn no_namespaces() -> Option<String> {
    let name = format!("dunlin-probe-{}", std::process::id());
    let made = is_root() && can("campaign", "ip", &["netns", "add", &name]);
    let gone = made && can("campaign", "ip", &["netns", "delete", &name]);
    (!gone).then(|| "no network namespaces can be made here".into())
}
