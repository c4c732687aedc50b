//! File systems of one's own: in memory, and ext4 in a file, whose power can be cut.

use crate::{can, is_root, until};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Asks the kernel to forget a file system as a power cut would (`FS_IOC_SHUTDOWN`). This workspace has
/// no unsafe code, and the call is no safe one: another program makes it.
const SHUTDOWN: &str = "import fcntl, os, struct, sys
fcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), 0x8004587d, struct.pack('I', int(sys.argv[2])))";

/// What a power cut does to the journal.
#[derive(Clone, Copy, Debug)]
pub enum Journal {
    /// It reaches the disk before the power fails.
    Flushed,
    /// What of it was in memory is gone.
    Lost,
}

/// A mounted file system; unmounted when dropped.
pub struct Mount {
    at: PathBuf,
    image: Option<PathBuf>,
}

/// Why nothing can be mounted.
pub fn no_mounts() -> Option<String> {
    // Several tests of one process may ask at once.
    static COUNTER: AtomicU32 = AtomicU32::new(0);
    let (id, n) = (std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed));
    let dir = std::env::temp_dir().join(format!("dunlin-mount-probe-{id}-{n}"));
    let path = dir.to_string_lossy().into_owned();
    let made = is_root() && std::fs::create_dir(&dir).is_ok();
    let works = made && can("campaign", "mount", &["-t", "tmpfs", "none", &path]);
    let clean = works && can("campaign", "umount", &[&path]);
    let _ = std::fs::remove_dir(&dir);
    (!clean).then(|| "file systems cannot be mounted here (it takes root)".into())
}

/// Why no power can be cut.
pub fn no_power_cuts() -> Option<String> {
    let tools = can("campaign", "mkfs.ext4", &["-V"]) && can("campaign", "python3", &["-c", "import fcntl"]);
    no_mounts().or((!tools).then(|| "mkfs.ext4 and python3 are needed".into()))
}

fn run(program: &str, args: &[&str]) -> bool {
    Command::new(program).args(args).output().is_ok_and(|output| output.status.success())
}

impl Mount {
    /// A file system in memory.
    pub fn memory(at: &Path, options: &str) -> Mount {
        std::fs::create_dir_all(at).expect("a mount point");
        let mount = Mount { at: at.into(), image: None };
        assert!(run("mount", &["-t", "tmpfs", "-o", options, "none", &mount.path()]), "mount a tmpfs");
        mount
    }

    /// A fresh ext4 of so many MB in a file.
    pub fn ext4(image: &Path, at: &Path, megabytes: u64, options: &str) -> Mount {
        std::fs::create_dir_all(at).expect("a mount point");
        let file = std::fs::File::create(image).expect("an image");
        file.set_len(megabytes << 20).expect("its size");
        let path = image.to_string_lossy();
        assert!(run("mkfs.ext4", &["-q", "-F", &path]), "mkfs.ext4");
        let mount = Mount { at: at.into(), image: Some(image.into()) };
        mount.mount(options);
        mount
    }

    fn path(&self) -> String {
        self.at.to_string_lossy().into_owned()
    }

    /// Mounts the image.
    pub fn mount(&self, options: &str) {
        let image = self.image.as_ref().expect("an image").to_string_lossy();
        let options = format!("loop,{options}");
        assert!(run("mount", &["-t", "ext4", "-o", &options, &image, &self.path()]), "mount {image}");
    }

    /// After a cut: what is on the disk, mounted anew. From a copy, since somebody else's mount namespace may
    /// hold the old file system, and then the kernel would hand out that one again.
    pub fn revive(&mut self, options: &str) {
        self.umount();
        let old = self.image.take().expect("an image");
        let lives = old.extension().map_or(0, |e| e.len());
        let new = old.with_extension("x".repeat(lives + 1));
        let (from, to) = (old.to_string_lossy(), new.to_string_lossy());
        assert!(run("cp", &["--sparse=always", &from, &to]), "copy the image");
        std::fs::remove_file(&old).expect("the old image");
        self.image = Some(new);
        self.mount(options);
    }

    /// Unmounts it, as soon as nothing uses it any more.
    pub fn umount(&self) {
        until("unmounted", Duration::from_secs(20), || run("umount", &[&self.path()]));
    }

    /// Unmounts it whatever uses it.
    pub fn detach(&self) {
        assert!(run("umount", &["-l", &self.path()]), "umount -l");
    }

    /// Changes options, such as the size.
    pub fn remount(&self, options: &str) {
        // A size below what is used is refused, which is as good as no change.
        let _ = run("mount", &["-o", &format!("remount,{options}"), &self.path()]);
    }

    /// From now on nothing reaches the disk.
    pub fn cut(&self, journal: Journal) {
        let flag = match journal {
            Journal::Flushed => "1",
            Journal::Lost => "2",
        };
        assert!(run("python3", &["-c", SHUTDOWN, &self.path(), flag]), "FS_IOC_SHUTDOWN");
    }
}

/// Unmounts whatever is mounted there, whoever uses it.
pub fn unmount(at: &Path) {
    while run("umount", &["-l", &at.to_string_lossy()]) {}
}

impl Drop for Mount {
    fn drop(&mut self) {
        unmount(&self.at);
    }
}
