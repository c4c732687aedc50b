//! Reaching the node of a state directory: the one that runs, or one run here until Ctrl-C.

mod place;

pub use place::{in_folder, place};

use crate::cli::Globals;
use crate::client::{Client, ClientError};
use crate::failure::Failure;
use crate::render::{Live, Opening, note};
use dunlin_node::NodeOptions;
use dunlin_node::control::{self, AnyPath, JoinRequest};
use dunlin_node::home::{Fresh, Home, HomeError, LockedHome};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UnixListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};

/// How long a node that holds the lock may take until it listens, or from its last answer to its end.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a node may take to end; with what comes before and after it stays below 2 s.
const STOP_TIMEOUT: Duration = Duration::from_millis(1500);

/// What a node that is run in the foreground does first.
#[derive(Debug)]
pub enum Ask {
    /// Shares this directory (absolute).
    Share(PathBuf),
    /// Joins.
    Join(JoinRequest),
    /// Runs what it knows.
    Run,
}

impl Ask {
    async fn put(&self, client: &Client) -> Result<Opening, Failure> {
        Ok(match self {
            Ask::Share(path) => Opening::Shared(client.share(AnyPath(path.clone())).await?),
            Ask::Join(request) => Opening::Joined(client.join(request).await?),
            Ask::Run => Opening::Running(client.status().await?),
        })
    }

    /// What it means that the node was told to end before it did this.
    fn unfinished(&self) -> Result<(), Failure> {
        let what = match self {
            Ask::Run => return Ok(()),
            Ask::Share(_) => "ended before the folder was shared",
            Ask::Join(_) => "ended before the folder was joined; the invitation is still good on this device",
        };
        Err(Failure::failed(what, "give the same command again"))
    }
}

/// Puts `ask` to the node that runs on this state directory, prints the answer and returns; where
/// none runs, runs one until it is told to end. A fresh state directory in which nothing came of it
/// is removed again.
pub async fn host(globals: &Globals, ask: Ask) -> Result<(), Failure> {
    let dir = home_dir(globals)?;
    let fresh = Fresh::look(&dir);
    match take_or_reach(&dir).await {
        Ok(Reached::Free(locked)) => {
            let locked = Arc::new(locked);
            let mut stage = Stage::Nobody;
            let outcome = foreground(&locked, globals, &ask, &mut stage).await;
            if stage == Stage::Nobody {
                fresh.undo(&locked);
            }
            outcome.and_then(|()| if stage == Stage::Asked { Ok(()) } else { ask.unfinished() })
        }
        Ok(Reached::Running(home, _)) if matches!(ask, Ask::Run) => Err(already_runs(&home)),
        Ok(Reached::Running(home, client)) => {
            if let Some(name) = &globals.name {
                home.set_name(name)?;
            }
            if globals.listen.is_some() || globals.no_discovery || globals.name.is_some() {
                note(
                    "a node runs here already; --name, --listen and --no-discovery count when it starts next",
                );
            }
            let opening = ask.put(&client).await?;
            Live::new(globals.json, globals.verbose).open(&opening, false);
            Ok(())
        }
        Err(failure) => {
            fresh.remove_directories();
            Err(failure)
        }
    }
}

/// The node that runs on the state directory of these options; an error where none does.
pub async fn running(globals: &Globals) -> Result<Client, Failure> {
    let Some(home) = Home::find(&home_dir(globals)?)? else { return Err(ClientError::NotRunning.into()) };
    let until = Instant::now() + PATIENCE;
    loop {
        // The path is asked for anew: a node that just starts makes it.
        let client = Client::new(home.socket_path());
        if client.is_there().await? {
            return Ok(client);
        }
        if !home.is_locked()? {
            return Err(ClientError::NotRunning.into());
        }
        if Instant::now() >= until {
            return Err(ClientError::Silent.into());
        }
        sleep(Duration::from_millis(25)).await;
    }
}

/// The folder a FOLDER argument means: an id where it looks like one and no such file exists, else a
/// path; without it, the only one.
pub fn folder_spec(folder: Option<&Path>) -> Result<control::FolderSpec, Failure> {
    let Some(folder) = folder else { return Ok(control::FolderSpec::Only) };
    if let Some(id) = folder.to_str().filter(|text| dunlin_node::home::is_folder_id(text))
        && std::fs::symlink_metadata(folder).is_err()
    {
        return Ok(control::FolderSpec::Id { id: id.to_owned() });
    }
    let path = std::fs::canonicalize(folder).or_else(|_| absolute(folder))?;
    Ok(control::FolderSpec::Path { path: path.into() })
}

/// A path made absolute; it need not exist.
pub fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path).map_err(|e| {
        Failure::failed(format!("cannot tell where the folder is: {e}"), "give an absolute path")
    })
}

fn home_dir(globals: &Globals) -> Result<PathBuf, Failure> {
    Ok(Home::resolve(globals.home.as_deref(), |key| std::env::var_os(key))?)
}

enum Reached {
    Free(LockedHome),
    Running(Home, Client),
}

async fn take_or_reach(dir: &Path) -> Result<Reached, Failure> {
    let until = Instant::now() + PATIENCE;
    loop {
        let home = Home::open(dir)?;
        let refused = match home.lock() {
            Ok(locked) => return Ok(Reached::Free(locked)),
            Err(e @ HomeError::Locked { .. }) => e,
            // Another command made it, failed, and took it away again.
            Err(e @ HomeError::Io { .. }) if !home.dir().exists() => e,
            Err(e) => return Err(e.into()),
        };
        let client = Client::new(home.socket_path());
        if client.is_there().await? {
            return Ok(Reached::Running(home, client));
        }
        if Instant::now() >= until {
            return Err(refused.into());
        }
        sleep(Duration::from_millis(25)).await;
    }
}

fn already_runs(home: &Home) -> Failure {
    match home.lock() {
        Err(e) => e.into(),
        Ok(_) => Failure::failed("the node that ran here has just ended", "try again"),
    }
}

/// How far a node that was started for a command got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Nobody knows of it: what was made for it may go.
    Nobody,
    /// Another device may know its key, although it does not do what was asked.
    Somebody,
    /// It does what was asked.
    Asked,
}

async fn foreground(
    locked: &Arc<LockedHome>,
    globals: &Globals,
    ask: &Ask,
    stage: &mut Stage,
) -> Result<(), Failure> {
    let mut end = End::watch(globals.stop_with_stdin)?;
    if let Some(name) = &globals.name {
        locked.set_name(name)?;
    }
    // Before the start, so that a client which finds the lock held soon finds somebody listening.
    let listener = listen(locked)?;
    let client = Client::new(locked.socket_path());
    let options =
        NodeOptions { home: locked.clone(), listen: globals.listen, discovery: !globals.no_discovery };
    let node = tokio::select! {
        node = dunlin_node::start(options) => node?,
        () = end.comes() => return Ok(()),
    };
    let (stop, stopped) = oneshot::channel::<()>();
    let mut served = tokio::spawn(control::serve(node.clone(), listener, async {
        stopped.await.ok();
    }));
    let outcome = tokio::select! {
        outcome = live(&client, globals, ask, stage) => outcome,
        () = end.comes() => Ok(()),
        _ = &mut served => Ok(()), // a client asked for the end
    };
    drop(stop);
    let deadline = Instant::now() + STOP_TIMEOUT;
    if !served.is_finished() {
        tokio::time::timeout_at(deadline, served).await.ok();
    }
    // What is not done by then is what a kill would leave undone too: the next start resumes it.
    tokio::time::timeout_at(deadline, node.stop()).await.ok();
    if *stage == Stage::Nobody && !node.is_nobody() {
        *stage = Stage::Somebody;
    }
    outcome
}

/// Does what was asked, then prints what happens until the node ends.
async fn live(client: &Client, globals: &Globals, ask: &Ask, stage: &mut Stage) -> Result<(), Failure> {
    let mut events = client.events().await?; // first, so that none is missed
    let opening = ask.put(client).await?;
    *stage = Stage::Asked;
    let mut live = Live::new(globals.json, globals.verbose);
    live.know(&client.status().await?);
    live.open(&opening, true);
    while let Some((event, line)) = events.next().await? {
        live.show(&event, &line);
    }
    Ok(())
}

fn listen(locked: &LockedHome) -> Result<UnixListener, Failure> {
    let listener = locked.bind_socket()?;
    listener
        .set_nonblocking(true)
        .and_then(|()| UnixListener::from_std(listener))
        .map_err(|e| Failure::system("listen on the control socket", &e))
}

/// What ends a command that runs in the foreground.
#[derive(Debug)]
pub struct End {
    signals: [Signal; 3],
    stdin: Option<oneshot::Receiver<()>>,
}

impl End {
    /// Watches for SIGINT, SIGTERM and SIGHUP from now on, and for the end of standard input if asked.
    pub fn watch(stdin: bool) -> Result<End, Failure> {
        let watch = |kind| signal(kind).map_err(|e| Failure::system("watch for signals", &e));
        Ok(End {
            signals: [
                watch(SignalKind::interrupt())?,
                watch(SignalKind::terminate())?,
                watch(SignalKind::hangup())?,
            ],
            stdin: stdin.then(stdin_end),
        })
    }

    /// Returns when the first of them came.
    pub async fn comes(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.signals;
        let stdin = async {
            match &mut self.stdin {
                Some(ended) => drop(ended.await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
            () = stdin => {}
        }
    }
}

/// A thread of its own: a read of the runtime's would hold up its end.
fn stdin_end() -> oneshot::Receiver<()> {
    let (ended, watch) = oneshot::channel();
    std::thread::spawn(move || {
        let mut buf = [0; 512];
        while matches!(std::io::stdin().read(&mut buf), Ok(n) if n > 0) {}
        ended.send(()).ok();
    });
    watch
}
