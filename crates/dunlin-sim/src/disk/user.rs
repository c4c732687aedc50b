//! What users and their programs do: anything the system allows, outside of `.dunlin`.

use super::ModelDisk;
use super::errno::{Errno, Result};
use super::events::What;
use super::file::{BLOCK, Who};
use super::tree::{Dir, Id, May, Node, Tree};
use dunlin_core::path::{CONTROL_DIR, NAME_MAX, Name, RelPath};
use dunlin_node::disk::{FileTime, Rename};
use std::io;

/// What a user's programs give new files and directories.
const FILE_MODE: u16 = 0o644;
const DIR_MODE: u16 = 0o755;

/// Acts as the users of a machine, at the folder's path, whether the program lives or not. No link is
/// followed. Paths in `.dunlin` are refused (EPERM).
#[derive(Clone)]
pub struct User {
    disk: ModelDisk,
    anywhere: bool,
}

/// A file that a user's program has open for writing. Closed when dropped.
///
/// What is in it then is one of the whole contents that a crash may leave, and what was in it meanwhile
/// is not (see [`user_data_atomic`](super::Options::user_data_atomic)).
pub struct UserFile {
    disk: ModelDisk,
    number: u64,
}

impl UserFile {
    /// Writes all of `bytes` at `offset`.
    pub fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut tree = self.disk.tree();
        let id = tree.opened(self.number)?;
        tree.write(id, bytes, offset, Who::Writing)?;
        if !bytes.is_empty() {
            tree.tell_written(self.number);
        }
        Ok(())
    }

    /// Sets the length.
    pub fn set_len(&self, len: u64) -> io::Result<()> {
        let mut tree = self.disk.tree();
        let id = tree.opened(self.number)?;
        tree.set_len(id, len, Who::Writing)?;
        tree.tell_open(self.number, What::Modify);
        Ok(())
    }
}

impl Drop for UserFile {
    fn drop(&mut self) {
        let mut tree = self.disk.tree();
        if let Ok(id) = tree.opened(self.number) {
            tree.finished(id);
            tree.close(self.number);
        }
    }
}

impl User {
    pub(super) fn new(disk: ModelDisk) -> User {
        User { disk, anywhere: false }
    }

    /// The same user, who meddles with `.dunlin` too.
    #[must_use]
    pub fn anywhere(self) -> User {
        User { anywhere: true, ..self }
    }

    fn check(&self, path: &RelPath) -> Result<()> {
        let control = path.names().first().is_some_and(|n| n.as_bytes() == CONTROL_DIR);
        if control && !self.anywhere { Err(Errno::PERM) } else { Ok(()) }
    }

    fn act<T>(&self, path: &RelPath, act: impl FnOnce(&mut Tree) -> Result<T>) -> io::Result<T> {
        self.check(path)?;
        Ok(act(&mut self.disk.tree())?)
    }

    /// The same on an entry of a directory.
    fn at<T>(&self, path: &RelPath, act: impl FnOnce(&mut Tree, Id, &Name) -> Result<T>) -> io::Result<T> {
        self.act(path, |tree| {
            let (dir, name) = tree.parent(tree.place, path.names())?;
            act(tree, dir, name)
        })
    }

    /// Creates a file with this content, in one go; fails if anything is there.
    pub fn create(&self, path: &RelPath, bytes: &[u8]) -> io::Result<()> {
        self.at(path, |tree, dir, name| tree.create_whole(dir, name, bytes).map(drop))
    }

    /// Opens an existing file for writing.
    pub fn open_write(&self, path: &RelPath) -> io::Result<UserFile> {
        let number = self.act(path, |tree| tree.open_for_user(path, true))?;
        Ok(UserFile { disk: self.disk.clone(), number })
    }

    /// Truncates an existing file and writes this into it, as many editors do.
    pub fn overwrite_in_place(&self, path: &RelPath, bytes: &[u8]) -> io::Result<()> {
        let file = self.open_write(path)?;
        self.disk.tree().must_have_room(bytes.len())?;
        file.set_len(0)?;
        file.write_at(bytes, 0)
    }

    /// Writes at `offset` into an existing file.
    pub fn write_at(&self, path: &RelPath, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let file = self.open_write(path)?;
        self.disk.tree().must_have_room(bytes.len())?;
        file.write_at(bytes, offset)
    }

    /// Writes at the end of an existing file.
    pub fn append(&self, path: &RelPath, bytes: &[u8]) -> io::Result<()> {
        let file = self.open_write(path)?;
        let end = {
            let tree = self.disk.tree();
            tree.must_have_room(bytes.len())?;
            tree.data(tree.opened(file.number)?)?.len() as u64
        };
        file.write_at(bytes, end)
    }

    /// Sets the length of a file by its path: written, and never closed.
    pub fn truncate(&self, path: &RelPath, len: u64) -> io::Result<()> {
        self.at(path, |tree, dir, name| {
            let id = tree.step(dir, name)?;
            match tree.inodes[id].node {
                Node::Link(_) => return Err(Errno::LOOP),
                Node::Dir(_) => return Err(Errno::ISDIR),
                Node::Other => return Err(Errno::INVAL),
                Node::File(_) => tree.may(id, May::Write)?,
            }
            tree.set_len(id, len, Who::User)?;
            let name = tree.find(dir, name).map_or_else(|| name.clone(), |f| f.0);
            tree.tell(dir, &name, What::Modify);
            Ok(())
        })
    }

    /// Writes a new file beside `path` (its name with `~tmp` behind it) and renames it over, as other
    /// editors do. `path` need not exist.
    pub fn save_by_rename(&self, path: &RelPath, bytes: &[u8]) -> io::Result<()> {
        self.at(path, |tree, dir, name| {
            let name_bytes = name.as_bytes();
            let kept = &name_bytes[..name_bytes.len().min(NAME_MAX - 4)];
            let temp = Name::new(&[kept, b"~tmp"].concat()).map_err(|_| Errno::NAMETOOLONG)?;
            tree.create_whole(dir, &temp, bytes)?;
            let renamed = tree.rename((dir, &temp), (dir, name), None);
            if renamed.is_err() {
                tree.remove(dir, &temp, false)?;
            }
            renamed
        })
    }

    /// Renames, and replaces what is at `to` as POSIX says.
    pub fn rename(&self, from: &RelPath, to: &RelPath) -> io::Result<()> {
        self.rename_how(from, to, None)
    }

    /// Lets two things change places.
    pub fn exchange(&self, a: &RelPath, b: &RelPath) -> io::Result<()> {
        self.rename_how(a, b, Some(Rename::Exchange))
    }

    fn rename_how(&self, from: &RelPath, to: &RelPath, how: Option<Rename>) -> io::Result<()> {
        self.check(from)?;
        self.act(to, |tree| {
            let from = tree.parent(tree.place, from.names())?;
            tree.may(from.0, May::Search)?;
            let to = tree.parent(tree.place, to.names())?;
            tree.rename(from, to, how)
        })
    }

    /// Removes a file, link or FIFO.
    pub fn unlink(&self, path: &RelPath) -> io::Result<()> {
        self.at(path, |tree, dir, name| tree.remove(dir, name, false))
    }

    /// Removes an empty directory.
    pub fn rmdir(&self, path: &RelPath) -> io::Result<()> {
        self.at(path, |tree, dir, name| tree.remove(dir, name, true))
    }

    /// Removes a thing and all that is in it; of the root, all but `.dunlin`.
    pub fn remove_all(&self, path: &RelPath) -> io::Result<()> {
        self.act(path, |tree| {
            if path.is_root() {
                return tree.clear(tree.place, !self.anywhere);
            }
            let (dir, name) = tree.parent(tree.place, path.names())?;
            tree.remove_tree(dir, name)
        })
    }

    /// Creates a directory.
    pub fn mkdir(&self, path: &RelPath) -> io::Result<()> {
        self.at(path, |tree, dir, name| tree.create(dir, name, Node::Dir(Dir::default()), DIR_MODE).map(drop))
    }

    /// Creates a link with this text.
    pub fn symlink(&self, text: &[u8], path: &RelPath) -> io::Result<()> {
        self.at(path, |tree, dir, name| tree.make_link(dir, name, text))
    }

    /// Sets the permission bits of a file or directory, set-id bits too.
    pub fn chmod(&self, path: &RelPath, mode: u16) -> io::Result<()> {
        self.act(path, |tree| tree.change_mode(tree.place, path.names(), mode & 0o7777, Who::User))
    }

    /// Sets the modification time.
    pub fn set_mtime(&self, path: &RelPath, mtime: FileTime) -> io::Result<()> {
        self.act(path, |tree| tree.change_mtime(tree.place, path.names(), mtime, Who::User))
    }

    /// Gives a file another name.
    pub fn hard_link(&self, from: &RelPath, to: &RelPath) -> io::Result<()> {
        self.check(from)?;
        self.act(to, |tree| {
            let id = tree.walk(tree.place, from.names())?;
            let (dir, name) = tree.parent(tree.place, to.names())?;
            tree.link(id, dir, name)
        })
    }

    /// Creates a FIFO.
    pub fn make_fifo(&self, path: &RelPath) -> io::Result<()> {
        self.at(path, |tree, dir, name| tree.create(dir, name, Node::Other, FILE_MODE).map(drop))
    }

    /// The content of a file.
    pub fn read(&self, path: &RelPath) -> io::Result<Vec<u8>> {
        self.act(path, |tree| {
            let number = tree.open_for_user(path, false)?;
            let data = tree.opened(number).and_then(|id| Ok(tree.data(id)?.to_vec()));
            tree.close(number);
            data
        })
    }

    /// The names in a directory.
    pub fn list(&self, dir: &RelPath) -> io::Result<Vec<Name>> {
        self.act(dir, |tree| {
            let id = tree.walk_dir(tree.place, dir.names())?;
            tree.may(id, May::Read)?;
            Ok(tree.inodes[id].dir().map(|d| d.entries.keys().cloned().collect()).unwrap_or_default())
        })
    }

    /// Whether anything is there.
    pub fn exists(&self, path: &RelPath) -> bool {
        let tree = self.disk.tree();
        tree.walk(tree.place, path.names()).is_ok()
    }

    /// Everything in the folder is gone, `.dunlin` included, as when its disk is not mounted.
    pub fn wipe_root(&self) -> io::Result<()> {
        let mut tree = self.disk.tree();
        let place = tree.place;
        Ok(tree.clear_as_root(place)?)
    }

    /// Moves the folder away and makes an empty directory in its place. The program's handle stays with
    /// the folder. Durable at once: the directory above is not of this disk.
    pub fn replace_root(&self) -> io::Result<()> {
        let mut tree = self.disk.tree();
        if tree.away.is_some() {
            return Err(Errno::EXIST.into());
        }
        let watch = tree.watch_of(tree.place);
        tree.events.dir(watch);
        tree.away = Some(tree.place);
        tree.place = tree.new_root();
        Ok(())
    }

    /// Undoes [`User::replace_root`]; what was made in between is gone.
    pub fn bring_root_back(&self) -> io::Result<()> {
        let mut tree = self.disk.tree();
        let back = tree.away.take().ok_or(Errno::NOENT)?;
        let place = tree.place;
        tree.clear_as_root(place)?;
        tree.drop_root(place);
        tree.place = back;
        let watch = tree.watch_of(back);
        tree.events.dir(watch);
        Ok(())
    }
}

impl Tree {
    /// Users' contents are whole: they write nothing for which there is no room.
    fn must_have_room(&self, len: usize) -> Result<()> {
        let blocks = len.div_ceil(BLOCK) as u64 + 1;
        if len > 0 && self.blocks + blocks > self.options.blocks() { Err(Errno::NOSPC) } else { Ok(()) }
    }

    fn create_whole(&mut self, dir: Id, name: &Name, bytes: &[u8]) -> Result<Id> {
        self.must_have_room(bytes.len())?;
        let name = &*self.options.names.stored(name);
        let id = self.create(dir, name, Node::File(Default::default()), FILE_MODE)?;
        if !bytes.is_empty() {
            self.write(id, bytes, 0, Who::User)?;
            self.tell(dir, name, What::Modify);
        }
        self.made_whole(id);
        self.tell(dir, name, What::Other);
        Ok(id)
    }

    fn open_for_user(&mut self, path: &RelPath, writes: bool) -> Result<u64> {
        let held = std::mem::replace(&mut self.held, self.place);
        let opened = self.open(path, writes, false);
        self.held = held;
        opened
    }

    fn remove_tree(&mut self, dir: Id, name: &Name) -> Result<()> {
        let id = self.step(dir, name)?;
        let is_dir = self.inodes[id].dir().is_some();
        if is_dir {
            self.clear(id, false)?;
        }
        self.remove(dir, name, is_dir)
    }

    fn clear(&mut self, dir: Id, but_control: bool) -> Result<()> {
        self.may(dir, May::Read)?;
        let entries = self.inodes[dir].dir().map(|d| &d.entries);
        let names: Vec<Name> = entries.into_iter().flat_map(|e| e.keys().cloned()).collect();
        for name in names.iter().filter(|n| !but_control || n.as_bytes() != CONTROL_DIR) {
            self.remove_tree(dir, name)?;
        }
        Ok(())
    }

    fn clear_as_root(&mut self, dir: Id) -> Result<()> {
        let as_root = std::mem::replace(&mut self.options.as_root, true);
        let cleared = self.clear(dir, false);
        self.options.as_root = as_root;
        cleared
    }

    /// A root that is nowhere any more; a program may still hold it.
    fn drop_root(&mut self, id: Id) {
        self.inodes[id].nlink = 0;
        self.end_watch(id);
        self.release(id);
    }
}
