//! From a path to a folder that runs: the checks of a root, its marker, its index, its threads.

use super::{Open, Shared, Unopened, cannot, uniting};
use crate::config::Config;
use crate::control::{ApiError, Event};
use crate::disk::known::KnownDisk;
use crate::disk::posix::PosixDisk;
use crate::disk::probe::probe;
use crate::engine::{Engine, Input, Pulse, Start, note_damage};
use crate::folder::{Folder, advice, known, lock, ranges, verify};
use crate::home::{random_bytes, write_atomic};
use crate::site::Site;
use crate::stage::{Stage, control, give_up_reserve, hold_reserve, root_trouble, write_marker};
use crate::store::{Index, OpenError, Store, begin};
use crate::watch::{Watched, Watcher};
use dunlin_core::ids::{DeviceId, FolderId, Incarnation, LifeId};
use dunlin_core::kv::{Fault, Read};
use dunlin_core::members::members;
use dunlin_core::path::Escaped;
use dunlin_core::plan::Fetch;
use dunlin_core::tree::Work;
use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// Inputs that wait for an engine.
const INPUTS: usize = 64;

pub(super) fn shown(path: &Path) -> String {
    Escaped(path.as_os_str().as_bytes()).to_string()
}

/// Checks that `path` may become a folder's root, and returns it with all links resolved. Creates
/// nothing: a missing directory needs only a parent.
pub(super) fn check_root(shared: &Shared, path: &Path) -> Result<PathBuf, ApiError> {
    let real = match std::fs::canonicalize(path) {
        Ok(real) => {
            if !real.is_dir() {
                let what = format!("{} is not a directory", shown(path));
                return Err(ApiError::failed(what, "name a directory, or one that does not exist yet"));
            }
            real
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => missing_root(path)?,
        Err(e) => return Err(cannot(&format!("use {}", shown(path)), e)),
    };
    check_overlap(shared, &real)?;
    if real.is_dir() {
        check_access(&real)?;
    }
    if real.join(".dunlin").is_dir() && !shared.folders().iter().any(|f| f.path == real) {
        hold(&real)?;
    }
    Ok(real)
}

/// Holds a root as long as what is returned lives: two nodes in one folder would each take what the other
/// does for its user's work.
fn hold(root: &Path) -> Result<File, ApiError> {
    use rustix::fs::{FlockOperation, flock};
    let control =
        File::open(root.join(".dunlin")).map_err(|e| cannot(&format!("open {}", shown(root)), e))?;
    match flock(&control, FlockOperation::NonBlockingLockExclusive) {
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let what = format!("{} is in use by another node, with another state directory", shown(root));
            Err(ApiError::failed(what, "stop that node, or choose another directory"))
        }
        // Where a file system has no locks, nobody is kept out.
        _ => Ok(control),
    }
}

fn missing_root(path: &Path) -> Result<PathBuf, ApiError> {
    let hint = "create its parent first";
    let nowhere = || ApiError::failed(format!("{} cannot be created", shown(path)), hint);
    if std::fs::symlink_metadata(path).is_ok() {
        return Err(ApiError::failed(format!("{} is a dangling link", shown(path)), "name a directory"));
    }
    let (parent, name) = path.parent().zip(path.file_name()).ok_or_else(nowhere)?;
    let parent = std::fs::canonicalize(parent)
        .map_err(|_| ApiError::failed(format!("{} does not exist", shown(parent)), hint))?;
    if !parent.is_dir() {
        return Err(ApiError::failed(format!("{} is not a directory", shown(&parent)), hint));
    }
    check_access(&parent)?;
    Ok(parent.join(name))
}

pub(super) fn check_access(dir: &Path) -> Result<(), ApiError> {
    use rustix::fs::{Access, access};
    access(dir, Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK).map_err(|e| {
        let what = format!("{} cannot be read and written: {}", shown(dir), std::io::Error::from(e));
        ApiError::failed(what, "choose a directory of yours, or change its permissions")
    })
}

fn check_overlap(shared: &Shared, real: &Path) -> Result<(), ApiError> {
    let home = std::fs::canonicalize(shared.home.dir()).unwrap_or_else(|_| shared.home.dir().to_path_buf());
    let overlaps = |other: &Path| real.starts_with(other) || other.starts_with(real);
    let hint = "choose a directory beside it";
    if overlaps(&home) {
        let what = format!("{} lies inside or around the state directory {}", shown(real), shown(&home));
        return Err(ApiError::failed(what, hint));
    }
    for folder in shared.folders() {
        if folder.path != real && overlaps(&folder.path) {
            let what =
                format!("{} lies inside or around the shared folder {}", shown(real), shown(&folder.path));
            return Err(ApiError::failed(what, hint));
        }
    }
    // Its root may be another file system that is not mounted just now.
    if let Some((id, there)) = lock(&shared.unopened).iter().find(|(_, there)| overlaps(&there.path)) {
        let what = format!("the folder {} belongs there and is halted: {}", shown(&there.path), there.why);
        let state = home.join("folders").join(id.to_string());
        let hint =
            format!("bring it back; or forget it for good: stop the node and remove {}", shown(&state));
        return Err(ApiError::failed(what, hint));
    }
    Ok(())
}

/// Opens a folder that this home knows. It must be where it was; nothing is created. While it cannot
/// be opened, status says why.
pub(super) fn open_known(shared: &Arc<Shared>, id: &str) -> Result<(), ApiError> {
    let Some(id) = FolderId::from_hex(id) else { return Ok(()) };
    let dir = shared.home.folder_dir(&id.to_string()).map_err(|e| cannot("open a folder's state", e))?;
    let mut unopened = Unopened { path: dir.clone(), why: String::new(), members: BTreeMap::new() };
    let opened = match Config::load(id, &dir) {
        Ok(None) => return Ok(()),
        Ok(Some(config)) => {
            unopened.path = config.path.clone();
            unopened.members = members(id, &config.statements, verify);
            open(shared, config, dir).map(|_| ())
        }
        Err(e) => Err(cannot("open a folder's state", e)),
    };
    if let Err(e) = &opened {
        lock(&shared.unopened).insert(id, Unopened { why: format!("{}: {}", e.message, e.hint), ..unopened });
    }
    opened
}

/// Makes the root (where missing) and its marker, and opens it as a new folder; `key` is the folder's
/// own where it was made here. What was made goes again should that fail.
pub(super) fn open_new(
    shared: &Arc<Shared>,
    config: Config,
    key: Option<&[u8; 32]>,
) -> Result<Arc<Folder>, ApiError> {
    let keep = "keep the folder's state";
    let mut made = Made(Vec::new());
    let state = shared.home.dir().join("folders").join(config.id.to_string());
    made.unless_there(&state, |dir| std::fs::remove_dir_all(dir));
    let dir = shared.home.folder_dir(&config.id.to_string()).map_err(|e| cannot(keep, e))?;
    if let Some(key) = key {
        write_atomic(&dir.join("folder.key"), key).map_err(|e| cannot("keep the folder's key", e))?;
    }
    if !config.path.exists() {
        // Only while nobody put anything there.
        made.unless_there(&config.path, |dir| std::fs::remove_dir(dir));
        std::fs::create_dir(&config.path)
            .map_err(|e| cannot(&format!("create {}", shown(&config.path)), e))?;
    }
    let disk =
        PosixDisk::open(&config.path).map_err(|e| cannot(&format!("open {}", shown(&config.path)), e))?;
    let control = config.path.join(".dunlin");
    made.unless_there(&control, |dir| std::fs::remove_dir_all(dir));
    made.unless_there(&control.join("folder"), |marker| std::fs::remove_file(marker));
    for dir in ["stage", "swap", "history"] {
        made.unless_there(&control.join(dir), |dir| std::fs::remove_dir(dir));
    }
    write_marker(&disk, &config.marker())
        .map_err(|e| cannot(&format!("write into {}", shown(&config.path)), e))?;
    config.save(&dir).map_err(|e| cannot(keep, e))?;
    let folder = open(shared, config, dir)?;
    made.0.clear();
    Ok(folder)
}

/// What was made for a folder that does not exist yet, and how it is removed when this is dropped.
struct Made(Vec<(PathBuf, Remove)>);

type Remove = fn(&Path) -> std::io::Result<()>;

impl Made {
    /// To be asked before it is made.
    fn unless_there(&mut self, path: &Path, remove: Remove) {
        if std::fs::symlink_metadata(path).is_err() {
            self.0.push((path.to_path_buf(), remove));
        }
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        for (path, remove) in self.0.iter().rev() {
            // What stays does no harm; the error that led here is what is told.
            let _ = remove(path);
        }
    }
}

/// Why an index could not be used; what is damaged leaves a mark.
fn damaged(dir: &Path, what: &str, e: std::io::Error) -> ApiError {
    if let Some(fault) = e.get_ref().and_then(|e| e.downcast_ref::<Fault>()) {
        note_damage(dir, fault);
    }
    cannot(what, e)
}

fn open(shared: &Arc<Shared>, config: Config, dir: PathBuf) -> Result<Arc<Folder>, ApiError> {
    let path = config.path.clone();
    let what = format!("open the folder {}", shown(&path));
    let hint = || advice(&path, config.id);
    let gone = |e| ApiError::failed(cannot(&what, e).message, hint());
    let posix = Arc::new(PosixDisk::open(&path).map_err(gone)?);
    let disk = posix.clone();
    if let Some(why) = root_trouble(disk.as_ref(), &config.marker()) {
        return Err(ApiError::failed(format!("{}: {why}", shown(&path)), hint()));
    }
    let held = hold(&path)?;
    give_up_reserve(disk.as_ref()).map_err(|e| cannot(&what, e))?;
    let stage = Stage::open(disk.clone()).map_err(|e| cannot(&what, e))?;
    // What it drops must never be taken for a change: nothing begins before that is known.
    let found = probe(disk.as_ref(), &control(&[])).map_err(|e| cannot(&what, e))?;
    let disk = Arc::new(KnownDisk::new(disk, &found));
    let store = open_index(shared, config.id, &dir).map_err(|e| {
        ApiError::failed(format!("cannot {what}: {e}"), "see docs/on-disk.md on rebuilding an index")
    })?;
    let watcher = Arc::new(Watcher::new().map_err(|e| cannot("watch for changes", e))?);
    let site = Arc::new(Site::new(disk.clone(), stage, Box::new(store)));
    let (life, fresh) = (random_16(&what)?, random_16(&what)?);
    let own = Incarnation::new(shared.device, life);
    let begun = site.begin_life(LifeId(life), own, Incarnation::new(shared.device, fresh));
    begun.map_err(|e| damaged(&dir, &what, e))?;
    let all = members(config.id, &config.statements, verify);
    // Weak: a node that has ended is not to live on in its folders.
    let node = Arc::downgrade(shared);
    let (inputs, received) = mpsc::channel(INPUTS);
    let (wants, wanted) = mpsc::unbounded_channel();
    let folder = Arc::new(Folder {
        id: config.id,
        secret: shared.secret.clone(),
        path,
        dir,
        site: site.clone(),
        config: Mutex::new(config),
        members: watch::channel(all).0,
        inputs,
        pulse: watch::channel(Pulse { scanning: true, ..Pulse::default() }).0,
        wants,
        verifying: tokio::sync::Mutex::default(),
        problems: Mutex::default(),
        recent: Mutex::default(),
        gathering: Mutex::default(),
        events: shared.events.clone(),
        is_mute: AtomicBool::new(false),
        others: Box::new(move || node.upgrade().map_or_else(Vec::new, |node| node.folders())),
        peers: Mutex::default(),
        peers_changed: watch::channel(0).0,
    });
    let fresh = (shared.device, random_16(&what)?);
    let engine = engine(&folder, Watched { watcher: watcher.clone(), disk: posix }, fresh).map_err(|e| {
        note_damage(&folder.dir, &e);
        cannot(&what, e)
    })?;
    start(shared, &folder, engine, (received, wanted), watcher, held)
        .map_err(|e| cannot("start a thread", e))?;
    // Without it all is as well, until the disk is full at a start.
    let _ = hold_reserve(site.disk.as_ref());
    shared.event(Event::Ready {
        device: shared.device.to_string(),
        folder: folder.id.to_string(),
        path: folder.path.clone().into(),
        ticket: None,
    });
    shared.raise();
    Ok(folder)
}

/// Starts the threads and tasks of a folder; from now on it is open.
fn start(
    shared: &Arc<Shared>,
    folder: &Arc<Folder>,
    engine: Engine,
    (inputs, wanted): (mpsc::Receiver<Input>, mpsc::UnboundedReceiver<Vec<Fetch>>),
    watcher: Arc<Watcher>,
    held: File,
) -> std::io::Result<()> {
    // Held until it is in there: the engine may fail at once, and is to be found then.
    let mut folders = lock(&shared.folders);
    watch_thread(folder.clone(), watcher.clone())?;
    let (handle, running, failed) =
        (tokio::runtime::Handle::current(), folder.clone(), shared.failed.clone());
    let run = move || {
        if !crate::engine::run(engine, &running, inputs, handle) {
            // Nobody listens any more when the node ends.
            let _ = failed.send(running);
        }
    };
    let engine = std::thread::Builder::new().name("engine".into()).spawn(run)?;
    let tasks = vec![
        tokio::spawn(crate::fetch::run(folder.clone(), wanted)),
        tokio::spawn(super::api::tell_states(folder.clone())),
        tokio::spawn(super::disagreeing::watch(folder.clone(), shared.failed.clone())),
    ];
    folders.insert(folder.id, Open { folder: folder.clone(), engine, watcher, tasks, _held: held });
    lock(&shared.unopened).remove(&folder.id);
    Ok(())
}

fn engine(folder: &Arc<Folder>, watched: Watched, fresh: (DeviceId, [u8; 16])) -> Read<Engine> {
    let start = {
        let config = lock(&folder.config);
        let members = folder.members.borrow();
        let others = members.len() > 1;
        Start {
            marker: config.marker(),
            others,
            joining: config.joining,
            fresh,
            history: config.history,
            limits: config.brake.limits(),
            released: ranges(&known(&config, &members)),
            now: std::time::Instant::now(),
        }
    };
    Engine::new(folder.site.clone(), folder.clone(), Box::new(watched), start)
}

/// Opens the index; a damaged one is put aside, and a new one unites.
fn open_index(shared: &Shared, id: FolderId, dir: &Path) -> Result<Store, OpenError> {
    let (path, mark) = (dir.join("index.redb"), dir.join("index.damaged"));
    let unite = dir.join(uniting::MARK);
    if mark.exists() {
        put_aside(&path)?;
        std::fs::remove_file(&mark)?;
    }
    let random = random_bytes()?;
    let index = std::array::from_fn(|i| random[i]);
    let open = || {
        let store = Store::open(&path)?;
        store.belongs_to(id)?;
        begin(&store, shared.device, index)?;
        if unite.exists() {
            let snapshot = store.snapshot()?;
            let mut work = Work::new(&snapshot);
            work.renew(Incarnation::new(shared.device, index), true)?;
            store.commit(work.finish()?)?;
            // Should it stay, both are united once more.
            let _ = std::fs::remove_file(&unite);
        }
        Ok(store)
    };
    let store = match open() {
        Err(OpenError::Damaged(_)) => {
            put_aside(&path)?;
            open()?
        }
        other => other?,
    };
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    Ok(store)
}

fn random_16(what: &str) -> Result<[u8; 16], ApiError> {
    let random = random_bytes().map_err(|e| cannot(what, e))?;
    Ok(std::array::from_fn(|i| random[i]))
}

fn put_aside(path: &Path) -> std::io::Result<()> {
    match std::fs::rename(path, path.with_extension("damaged.redb")) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Nothing but a hint or the end of the folder wakes it.
fn watch_thread(folder: Arc<Folder>, watcher: Arc<Watcher>) -> std::io::Result<()> {
    let run = move || {
        while !watcher.has_ended() {
            match watcher.read(Duration::MAX) {
                Ok(hints) if hints.is_empty() => {}
                Ok(hints) => {
                    if folder.inputs.blocking_send(Input::Hints(hints)).is_err() {
                        return;
                    }
                }
                // Without its watcher the folder is looked through now and then, like after an overflow.
                Err(_) => {
                    let _ = folder.inputs.blocking_send(Input::Hints(vec![crate::watch::Hint::Overflow]));
                    std::thread::sleep(Duration::from_secs(10));
                }
            }
        }
    };
    std::thread::Builder::new().name("watcher".into()).spawn(run).map(|_| ())
}
