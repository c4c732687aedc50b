//! A model of one machine's file system with one folder on it.
//!
//! To the program it is a [`Disk`](dunlin_node::disk::Disk) and a [`Watch`](dunlin_node::watch::Watch)
//! that behaves as the real one on Linux, down to the kinds of errors. Besides, it knows what is durable:
//! [`ModelDisk::crash`] leaves any of the states that a power cut may leave. What users do goes through
//! [`User`].

mod errno;
mod events;
mod file;
mod handles;
mod image;
mod journal;
mod names;
mod outside;
mod program;
mod tree;
mod user;
mod view;

use crate::chance::Chance;
use dunlin_core::path::RelPath;
use dunlin_node::disk::{FileTime, Rename};
use dunlin_node::watch::Hint;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tree::Tree;

pub use image::Image;
pub use names::Names;
pub use user::{User, UserFile};
pub use view::Thing;

/// How a model disk is.
#[derive(Clone, Debug)]
pub struct Options {
    /// Granularity of the times that files are stamped with, in nanoseconds.
    pub tick_ns: u64,
    /// Size of the file system in bytes.
    pub space: u64,
    /// Bytes of the file system that others have, beyond that.
    pub others: u64,
    /// Inodes it has; `u64::MAX` for one that does not count them.
    pub files: u64,
    /// How names are looked up.
    pub names: Names,
    /// The number of an inode that is gone is given to the next one.
    pub reuse_inodes: bool,
    /// After a crash a user's file has some whole content that the user wrote, or is not there if it was
    /// new: so that it stays known which contents there are.
    pub user_data_atomic: bool,
    /// Permission bits hinder nobody.
    pub as_root: bool,
    /// Permission bits are kept as they are set.
    pub modes: bool,
    /// There are symbolic links.
    pub links: bool,
    /// Times that are set are rounded down to the granularity too.
    pub rounds: bool,
    /// The program's calls follow links on the way of a path, as if it opened paths without care.
    pub follows: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            tick_ns: 4_000_000,
            space: 1 << 30,
            others: 0,
            files: 1 << 20,
            names: Names::Exact,
            reuse_inodes: false,
            user_data_atomic: true,
            as_root: false,
            modes: true,
            links: true,
            rounds: false,
            follows: false,
        }
    }
}

impl Options {
    fn blocks(&self) -> u64 {
        self.space / file::BLOCK as u64
    }
}

/// What goes wrong with the program's calls (never with a user's): one in so many, 0 for never.
#[derive(Clone, Debug)]
pub struct Faults {
    /// Where the chance comes from.
    pub chance: Chance,
    /// Reads of files and links fail with EIO.
    pub read_eio: u32,
    /// Listings and looks at metadata fail with EIO.
    pub list_eio: u32,
    /// Writes and changes of names and metadata fail with EIO.
    pub write_eio: u32,
    /// What takes room fails with ENOSPC.
    pub write_enospc: u32,
    /// Syncs fail with EIO, and make nothing durable.
    pub sync_eio: u32,
    /// So many listings from now on break off: what comes after the middle is named and cannot be looked at.
    pub short_lists: u32,
}

impl Default for Faults {
    fn default() -> Faults {
        let chance = Chance::new(0, "no faults");
        Faults {
            chance,
            read_eio: 0,
            list_eio: 0,
            write_eio: 0,
            write_enospc: 0,
            sync_eio: 0,
            short_lists: 0,
        }
    }
}

/// A call that the program is about to make.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // They are the calls of the trait, with their paths.
pub enum Effect {
    List(RelPath),
    Stat(RelPath),
    Open(RelPath),
    Read(RelPath),
    ReadLink(RelPath),
    Create(RelPath),
    OpenWrite(RelPath),
    Write(RelPath),
    SetLen(RelPath),
    Mkdir(RelPath),
    Symlink(RelPath),
    Rename { from: RelPath, to: RelPath, how: Rename },
    Unlink(RelPath),
    Rmdir(RelPath),
    SetMode(RelPath),
    SetMtime(RelPath),
    SyncFile(RelPath),
    SyncDir(RelPath),
    SyncAll,
}

impl Effect {
    /// Whether it changes anything that a crash or another look could tell; not so for a sync.
    pub fn changes(&self) -> bool {
        use Effect::*;
        !matches!(
            self,
            List(_)
                | Stat(_)
                | Open(_)
                | Read(_)
                | ReadLink(_)
                | OpenWrite(_)
                | SyncFile(_)
                | SyncDir(_)
                | SyncAll
        )
    }
}

/// The program's calls so far, failed ones included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Directories listed.
    pub lists: u64,
    /// Looks at metadata, of paths and of open files.
    pub stats: u64,
    /// Files opened.
    pub opens: u64,
    /// Reads of files and links.
    pub reads: u64,
    /// Files, directories and links made.
    pub creates: u64,
    /// Writes into files, and changes of their length.
    pub writes: u64,
    /// Renames.
    pub renames: u64,
    /// Files, links and directories removed.
    pub removes: u64,
    /// Modes and times set.
    pub metas: u64,
    /// Syncs of files, directories, and of everything.
    pub syncs: u64,
    /// Directories watched.
    pub watches: u64,
}

impl Counts {
    /// All calls that changed something or made it durable.
    pub fn changes(&self) -> u64 {
        self.creates + self.writes + self.renames + self.removes + self.metas + self.syncs
    }
}

type Hook = Box<dyn FnMut(Effect) + Send>;

/// Who is told of the program's calls. Taken out while it runs.
#[derive(Default)]
struct Hooked {
    hook: Option<Hook>,
    /// Counts how often it was set.
    set: u64,
}

struct Shared {
    tree: Mutex<Tree>,
    hook: Mutex<Hooked>,
}

/// One machine's file system. Clones are handles to the same disk, for the same life of the program.
#[derive(Clone)]
pub struct ModelDisk {
    shared: Arc<Shared>,
    life: u64,
}

impl ModelDisk {
    /// An empty folder.
    pub fn new(options: Options) -> ModelDisk {
        let mut tree = Tree::new(options);
        tree.outside.dir = tree.options.follows.then(|| tree.new_root());
        let shared = Shared { tree: Mutex::new(tree), hook: Mutex::default() };
        ModelDisk { shared: Arc::new(shared), life: 0 }
    }

    fn tree(&self) -> MutexGuard<'_, Tree> {
        // A panic fails the simulation; what it left is only looked at.
        let mut tree = self.shared.tree.lock().unwrap_or_else(PoisonError::into_inner);
        tree.outside.follows = false;
        tree
    }

    /// Tells the hook of a call, with nothing locked.
    fn before(&self, effect: impl FnOnce() -> Effect) {
        let hooked = || self.shared.hook.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut hook, set) = {
            let mut hooked = hooked();
            let Some(hook) = hooked.hook.take() else { return };
            (hook, hooked.set)
        };
        hook(effect());
        let mut hooked = hooked();
        if hooked.set == set {
            hooked.hook = Some(hook);
        }
    }

    /// Sets the machine's clock, which may jump.
    pub fn set_now(&self, t: FileTime) {
        self.tree().now = t;
    }

    /// Sets the size of the file system in bytes, and its number of inodes.
    pub fn set_quota(&self, space: u64, files: u64) {
        let mut tree = self.tree();
        (tree.options.space, tree.options.files) = (space, files);
    }

    /// Sets how much of the file system others have, in bytes.
    pub fn set_others(&self, bytes: u64) {
        self.tree().options.others = bytes;
    }

    /// Sets what goes wrong from now on.
    pub fn set_faults(&self, faults: Faults) {
        self.tree().faults = faults;
    }

    /// The next so many listings break off in the middle.
    pub fn list_short(&self, lists: u32) {
        self.tree().faults.short_lists = lists;
    }

    /// Sets who is told of each call of the program before it is made. Nothing is locked meanwhile: the
    /// hook may do what users do. What the program does from within it is not told.
    pub fn set_hook(&self, hook: Option<Hook>) {
        let mut hooked = self.shared.hook.lock().unwrap_or_else(PoisonError::into_inner);
        hooked.hook = hook;
        hooked.set += 1;
    }

    /// The program dies: its calls fail with EIO from now on, open files and clones included.
    pub fn halt(&self) {
        self.tree().halt();
    }

    /// A handle to the folder at its path, for the next life of the program. Older ones stay dead.
    pub fn restart(&self) -> ModelDisk {
        let mut tree = self.tree();
        tree.halt();
        tree.lives += 1;
        tree.alive = Some(tree.lives);
        tree.held = tree.place;
        ModelDisk { shared: self.shared.clone(), life: tree.lives }
    }

    /// The power goes: the program is dead, and of what was not durable some is lost.
    pub fn crash(&self, chance: &mut Chance) {
        let mut tree = self.tree();
        tree.halt();
        tree.crash(chance);
    }

    /// What the program's watcher would read now, each place once.
    pub fn take_events(&self) -> Vec<Hint> {
        let mut tree = self.tree();
        if tree.alive == Some(self.life) { tree.events.take() } else { Vec::new() }
    }

    /// Whether the watcher would read anything.
    pub fn events_pending(&self) -> bool {
        let tree = self.tree();
        tree.alive == Some(self.life) && tree.events.pending()
    }

    /// The queue of events overflows.
    pub fn lose_events(&self) {
        self.tree().events.lose();
    }

    /// The program's calls so far.
    pub fn counts(&self) -> Counts {
        self.tree().counts
    }

    /// Acts as the users of this machine.
    pub fn user(&self) -> User {
        User::new(self.clone())
    }
}

impl Tree {
    fn halt(&mut self) {
        self.alive = None;
        for id in self.handles.end_program() {
            self.inodes[id].opens -= 1;
            self.release(id);
        }
        self.events = events::Events::default();
        for inode in &mut self.inodes {
            if let Some(dir) = inode.dir_mut() {
                dir.watch = None;
            }
        }
    }
}
