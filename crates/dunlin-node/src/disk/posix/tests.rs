//! Every test of what must be refused runs both ways of resolving paths.

mod adversary;

use super::*;
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::process::Command;
use tempfile::TempDir;

fn p(path: impl AsRef<[u8]>) -> RelPath {
    RelPath::parse(path.as_ref()).unwrap()
}

fn walking(root: &Path) -> PosixDisk {
    PosixDisk::of(Beneath::open_walking(root).unwrap(), root.into()).unwrap()
}

/// An empty folder, and both kinds of handle on it.
fn folder() -> (TempDir, [PosixDisk; 2]) {
    let dir = tempfile::tempdir().unwrap();
    let disks = [PosixDisk::open(dir.path()).unwrap(), walking(dir.path())];
    assert!(!disks[0].beneath_walks(), "this kernel should have openat2");
    (dir, disks)
}

impl PosixDisk {
    fn beneath_walks(&self) -> bool {
        format!("{:?}", self.beneath).contains("walk: true")
    }
}

fn put(disk: &PosixDisk, path: &str, content: &[u8]) {
    disk.create(&p(path)).unwrap().write_at(content, 0).unwrap();
}

fn get(disk: &PosixDisk, path: &str) -> Vec<u8> {
    let file = disk.open(&p(path)).unwrap();
    let mut buf = vec![0; 4096];
    let len = file.read_at(&mut buf, 0).unwrap();
    buf.truncate(len);
    buf
}

fn is_root_user() -> bool {
    rustix::process::geteuid().is_root()
}

/// Runs one ignored test of this binary in a shell that prepares its surroundings; `None` if the
/// preparation is not permitted here.
pub(crate) fn run_prepared(unshare: &[&str], prepare: &str, dir: &Path, test: &str) -> Option<bool> {
    let script = format!("{prepare} || exit 77; exec \"$EXE\" --exact {test} --ignored --nocapture");
    let out = Command::new("unshare")
        .args(unshare)
        .args(["sh", "-c", &script])
        .env("EXE", std::env::current_exe().unwrap())
        .env("DUNLIN_TEST_DIR", dir)
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
    let refused = out.status.code() == Some(77) || text.contains("unshare failed");
    if refused {
        dunlin_testkit::skipped(test, &text);
        return None;
    }
    assert!(!text.contains("running 0 tests"), "{test} does not exist: {text}");
    if !out.status.success() {
        eprintln!("{text}");
    }
    Some(out.status.success())
}

/// The directory the preparation made, in the child process.
pub(crate) fn prepared_dir() -> PathBuf {
    std::env::var_os("DUNLIN_TEST_DIR").expect("run by another test").into()
}

#[test]
fn any_byte_and_any_length_is_a_name() {
    let (_dir, disks) = folder();
    let mut names: Vec<Vec<u8>> = (1..=255).filter(|b| !b"./".contains(b)).map(|b| vec![b]).collect();
    names.extend([vec![b'x'; 255], b"a\nb".to_vec(), b"-rf *".to_vec(), b"...".to_vec()]);
    names.extend([vec![0xff; 255], "\u{e9}".into(), "e\u{301}".into()]);
    names.sort();
    for name in &names {
        put(&disks[0], "first", name);
        disks[1].rename(&p("first"), &p(name), Rename::NoReplace).unwrap();
    }
    let listed = disks[0].list(&RelPath::root()).unwrap();
    assert_eq!(listed.iter().map(|e| e.name.as_bytes()).collect::<Vec<_>>(), names);
    for (entry, disk) in listed.iter().zip(disks.iter().cycle()) {
        let path = RelPath::root().join(&entry.name);
        let stat = entry.stat.unwrap();
        assert_eq!((stat.kind, stat.size), (FileKind::File, entry.name.as_bytes().len() as u64));
        assert_eq!(disk.stat(&path).unwrap(), Some(stat));
        assert_eq!(disk.open(&path).unwrap().stat().unwrap().ino, stat.ino);
        disk.unlink(&path).unwrap();
    }
    assert!(disks[0].list(&RelPath::root()).unwrap().is_empty());
}

#[test]
fn paths_longer_than_the_kernel_takes_at_once() {
    let (dir, disks) = folder();
    let mut path = RelPath::root();
    for _ in 0..40 {
        path = path.join(&Name::new(&[b'd'; 255]).unwrap());
        disks[0].mkdir(&path, 0o755).unwrap();
    }
    let file = path.join(&Name::new(b"f").unwrap());
    for disk in &disks {
        disk.create(&file).unwrap().write_at(b"deep", 0).unwrap();
        assert_eq!(disk.open(&file).unwrap().stat().unwrap().size, 4);
        assert_eq!(disk.list(&path).unwrap().len(), 1);
        disk.set_mode(&file, 0o640).unwrap();
        disk.unlink(&file).unwrap();
    }
    while let Some((parent, _)) = path.split_last() {
        disks[1].rmdir(&path).unwrap();
        path = parent;
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn a_fifo_neither_blocks_nor_opens() {
    let (dir, disks) = folder();
    fs::mknodat(fs::CWD, dir.path().join("fifo"), FileType::Fifo, Mode::RWXU, 0).unwrap();
    for disk in &disks {
        assert_eq!(disk.open(&p("fifo")).err().unwrap().kind(), ErrorKind::InvalidInput);
        assert_eq!(disk.open_write(&p("fifo")).err().unwrap().kind(), ErrorKind::InvalidInput);
        assert_eq!(disk.sync_file(&p("fifo")).unwrap_err().kind(), ErrorKind::InvalidInput);
        assert_eq!(disk.set_mode(&p("fifo"), 0o600).unwrap_err().kind(), ErrorKind::InvalidInput);
        assert_eq!(disk.stat(&p("fifo")).unwrap().unwrap().kind, FileKind::Other);
        assert_eq!(disk.open(&RelPath::root()).err().unwrap().kind(), ErrorKind::InvalidInput);
    }
}

#[test]
fn renames_refuse_or_exchange_but_never_replace() {
    let (_dir, disks) = folder();
    for disk in &disks {
        disk.mkdir(&p("d"), 0o755).unwrap();
        put(disk, "a", b"a");
        put(disk, "d/b", b"b");
        let taken = disk.rename(&p("a"), &p("d/b"), Rename::NoReplace).unwrap_err();
        assert_eq!(taken.kind(), ErrorKind::AlreadyExists);
        disk.rename(&p("a"), &p("d/b"), Rename::Exchange).unwrap();
        assert_eq!((get(disk, "a"), get(disk, "d/b")), (b"b".to_vec(), b"a".to_vec()));
        let absent = disk.rename(&p("a"), &p("d/c"), Rename::Exchange).unwrap_err();
        assert_eq!(absent.kind(), ErrorKind::NotFound);
        // A file against a directory, and a link against either, exchange as well.
        disk.symlink(b"nowhere", &p("l")).unwrap();
        disk.rename(&p("l"), &p("d"), Rename::Exchange).unwrap();
        assert_eq!(disk.read_link(&p("d")).unwrap(), b"nowhere");
        assert_eq!(get(disk, "l/b"), b"a");
        let root = disk.rename(&p("a"), &RelPath::root(), Rename::Exchange).unwrap_err();
        assert_eq!(root.raw_os_error(), Some(Errno::BUSY.raw_os_error()));
        assert!(disk.create(&p("a")).is_err());
        for file in ["a", "l/b", "d"] {
            disk.unlink(&p(file)).unwrap();
        }
        disk.rmdir(&p("l")).unwrap();
        assert!(disk.list(&RelPath::root()).unwrap().is_empty());
    }
}

#[test]
fn times_are_kept_exactly_before_1970_too() {
    let (dir, disks) = folder();
    let access = |path: &str| std::fs::symlink_metadata(dir.path().join(path)).unwrap().atime_nsec();
    put(&disks[0], "f", b"");
    disks[0].mkdir(&p("d"), 0o755).unwrap();
    disks[0].symlink(b"f", &p("l")).unwrap();
    let times = [(0, 0), (-1, 999_999_999), (-86_400 * 365, 1), (4_000_000_000, 123_456_789)];
    for (secs, nanos) in times {
        let mtime = FileTime { secs, nanos };
        for (path, disk) in ["f", "d", "l"].iter().flat_map(|path| disks.iter().map(move |d| (path, d))) {
            disk.set_mtime(&p("f"), FileTime::default()).unwrap();
            let before = access(path);
            disk.set_mtime(&p(path), mtime).unwrap();
            assert_eq!(disk.stat(&p(path)).unwrap().unwrap().mtime, mtime, "{path}");
            assert_eq!(access(path), before, "the access time stays");
        }
        // The link was changed, not its target.
        assert_eq!(disks[0].stat(&p("f")).unwrap().unwrap().mtime, FileTime::default());
        let file = disks[0].open_write(&p("f")).unwrap();
        file.set_mtime(mtime).unwrap();
        assert_eq!(file.stat().unwrap().mtime, mtime);
    }
    // What the kernel would take for "now" and "leave it".
    for nanos in [1_000_000_000, (1 << 30) - 1, (1 << 30) - 2, u32::MAX] {
        let error = disks[0].set_mtime(&p("f"), FileTime { secs: 0, nanos }).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    }
}

#[test]
fn set_id_bits_are_never_set() {
    let (dir, disks) = folder();
    for disk in &disks {
        let file = disk.create(&p("f")).unwrap();
        assert_eq!(file.stat().unwrap().mode, 0o600);
        file.set_mode(0o7755).unwrap();
        assert_eq!(file.stat().unwrap().mode, 0o755);
        disk.set_mode(&p("f"), 0o6711).unwrap();
        assert_eq!(disk.stat(&p("f")).unwrap().unwrap().mode, 0o711);
        disk.mkdir(&p("d"), 0o7777).unwrap();
        assert_eq!(disk.stat(&p("d")).unwrap().unwrap().mode, 0o777);
        // Nor inherited from a directory that hands on its group.
        std::fs::set_permissions(dir.path().join("d"), PermissionsExt::from_mode(0o2775)).unwrap();
        disk.mkdir(&p("d/e"), 0o750).unwrap();
        assert_eq!(disk.stat(&p("d/e")).unwrap().unwrap().mode, 0o750);
        disk.rmdir(&p("d/e")).unwrap();
        disk.rmdir(&p("d")).unwrap();
        disk.unlink(&p("f")).unwrap();
    }
}

#[test]
fn a_mode_of_nothing_can_be_set_and_taken_back() {
    let (_dir, disks) = folder();
    for disk in &disks {
        disk.mkdir(&p("d"), 0).unwrap();
        put(disk, "f", b"");
        for path in ["d", "f"] {
            disk.set_mode(&p(path), 0).unwrap();
            assert_eq!(disk.stat(&p(path)).unwrap().unwrap().mode, 0);
            disk.set_mode(&p(path), 0o755).unwrap();
        }
        disk.rmdir(&p("d")).unwrap();
        disk.unlink(&p("f")).unwrap();
    }
}

/// The umask belongs to the whole process, so this runs in one of its own.
#[test]
fn modes_are_exact_under_any_umask() {
    let dir = tempfile::tempdir().unwrap();
    let test = "disk::posix::tests::umask_child";
    let ran = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--ignored"])
        .env("DUNLIN_TEST_DIR", dir.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&ran.stdout);
    assert!(ran.status.success() && text.contains("1 passed"), "{text}");
}

#[test]
#[ignore = "run by modes_are_exact_under_any_umask"]
fn umask_child() {
    let dir = prepared_dir();
    for (disk, umask) in [PosixDisk::open(&dir).unwrap(), walking(&dir)].iter().zip([0o077, 0o777]) {
        rustix::process::umask(Mode::from_raw_mode(umask));
        for mode in [0o777, 0o755, 0o700, 0o070, 0o007, 0] {
            disk.mkdir(&p("d"), mode).unwrap();
            assert_eq!(disk.stat(&p("d")).unwrap().unwrap().mode, mode);
            disk.rmdir(&p("d")).unwrap();
        }
        let file = disk.create(&p("f")).unwrap();
        assert_eq!(file.stat().unwrap().mode, 0o600);
        disk.unlink(&p("f")).unwrap();
    }
}

#[test]
fn files_are_read_and_written_at_offsets() {
    let (_dir, [disk, _]) = folder();
    let file = disk.create(&p("f")).unwrap();
    file.write_at(b"world", 6).unwrap();
    file.write_at(b"hello ", 0).unwrap();
    assert_eq!(get(&disk, "f"), b"hello world");
    file.set_len(5).unwrap();
    file.sync_data().unwrap();
    disk.sync_file(&p("f")).unwrap();
    disk.sync_dir(&RelPath::root()).unwrap();
    disk.sync_all().unwrap();
    let again = disk.open_write(&p("f")).unwrap();
    assert_eq!(again.stat().unwrap().size, 5);
    assert_eq!(again.read_at(&mut [0; 8], 5).unwrap(), 0);
    let space = disk.space().unwrap();
    assert_ne!(space.files, Some(0));
    assert!(space.free > 0 && space.free < space.total);
}

#[test]
fn what_is_not_there_is_none() {
    let (dir, disks) = folder();
    put(&disks[0], "f", b"");
    symlink("/", dir.path().join("l")).unwrap();
    for disk in &disks {
        for path in ["no", "no/x", "f/x", "l/etc"] {
            assert_eq!(disk.stat(&p(path)).unwrap(), None, "{path}");
        }
        assert_eq!(disk.stat(&RelPath::root()).unwrap().unwrap().kind, FileKind::Dir);
        assert_eq!(disk.list(&p("no")).unwrap_err().kind(), ErrorKind::NotFound);
        assert!(disk.list(&p("f")).is_err());
        assert_eq!(disk.stat(&p("l")).unwrap().unwrap().kind, FileKind::Link);
        assert!(disk.stat(&p("f")).unwrap().unwrap().btime.is_some());
    }
}

#[test]
fn link_texts_are_kept_to_the_byte() {
    let (_dir, disks) = folder();
    for disk in &disks {
        // File systems may have less room than the kernel: XFS ends at 1,023 bytes.
        for text in [&b"/etc/passwd"[..], b"../../\xff\n", &[b'x'; 1000]] {
            disk.symlink(text, &p("l")).unwrap();
            assert_eq!(disk.read_link(&p("l")).unwrap(), text);
            disk.unlink(&p("l")).unwrap();
        }
        assert!(disk.symlink(&[b'x'; 4096], &p("l")).is_err());
        assert!(disk.symlink(b"", &p("l")).is_err());
    }
}

#[test]
fn knows_when_its_root_was_moved_away() {
    let outer = tempfile::tempdir().unwrap();
    let (here, there) = (outer.path().join("here"), outer.path().join("there"));
    std::fs::create_dir(&here).unwrap();
    let disk = PosixDisk::open(&here).unwrap();
    let first = disk.root_identity().unwrap();
    assert_eq!((first.in_place, first.ino), (true, std::fs::metadata(&here).unwrap().ino()));
    std::fs::rename(&here, &there).unwrap();
    assert!(!disk.root_identity().unwrap().in_place);
    std::fs::create_dir(&here).unwrap();
    assert_eq!(disk.root_identity().unwrap(), RootIdentity { in_place: false, ..first });
    // The handle stays with the directory, not with the path.
    put(&disk, "f", b"");
    assert!(there.join("f").exists() && !here.join("f").exists());
    assert!(PosixDisk::open(&there.join("f")).is_err());
}

#[test]
fn a_listing_does_not_stop_at_a_buffer() {
    let (dir, disks) = folder();
    for n in 0..5000 {
        std::fs::write(dir.path().join(format!("{n:0200}")), b"").unwrap();
    }
    for disk in &disks {
        let listed = disk.list(&RelPath::root()).unwrap();
        assert_eq!(listed.len(), 5000);
        assert!(listed.is_sorted_by(|a, b| a.name < b.name));
        assert!(listed.iter().all(|e| e.stat.is_ok()));
    }
}

#[test]
#[ignore = "a measurement: cargo test --release -- --ignored --nocapture listing_speed"]
fn listing_speed() {
    let (dir, disks) = folder();
    for n in 0..100_000 {
        std::fs::write(dir.path().join(format!("file-{n}")), b"").unwrap();
    }
    for disk in disks.iter().chain(&disks) {
        let start = std::time::Instant::now();
        let listed = disk.list(&RelPath::root()).unwrap();
        eprintln!("{} entries in {:?}", listed.len(), start.elapsed());
    }
}

#[test]
fn not_even_root_follows_a_mount() {
    let (dir, _) = folder();
    for made in ["m", "b", "plain"] {
        std::fs::create_dir(dir.path().join(made)).unwrap();
    }
    for made in ["plain/f", "onefile"] {
        std::fs::write(dir.path().join(made), b"under").unwrap();
    }
    let prepare = "cd \"$DUNLIN_TEST_DIR\" && mount -t tmpfs none m && echo x > m/f && mkdir m/d \
                   && mount --bind plain b && mount --bind /etc/hostname onefile";
    let flags: &[&str] = if is_root_user() { &["-m"] } else { &["-Urm"] };
    let ran = run_prepared(flags, prepare, dir.path(), "disk::posix::tests::mount_child");
    assert_ne!(ran, Some(false));
}

#[test]
#[ignore = "run by not_even_root_follows_a_mount"]
fn mount_child() {
    let dir = prepared_dir();
    let xdev = Some(Errno::XDEV.raw_os_error());
    for disk in [PosixDisk::open(&dir).unwrap(), walking(&dir)] {
        let kinds: Vec<_> = disk
            .list(&RelPath::root())
            .unwrap()
            .into_iter()
            .map(|e| (e.name, e.stat.unwrap().kind))
            .collect();
        let kind = |name: &str| kinds.iter().find(|(n, _)| n.as_bytes() == name.as_bytes()).unwrap().1;
        // A bind mount has the device of its own file system: only the mount tells.
        for mount in ["m", "b", "onefile"] {
            assert_eq!(kind(mount), FileKind::Mount, "{mount}");
            assert_eq!(disk.stat(&p(mount)).unwrap().unwrap().kind, FileKind::Mount);
            assert_eq!(disk.set_mode(&p(mount), 0o777).unwrap_err().raw_os_error(), xdev);
            assert_eq!(disk.set_mtime(&p(mount), FileTime::default()).unwrap_err().raw_os_error(), xdev);
            assert!(disk.rename(&p(mount), &p("new"), Rename::NoReplace).is_err());
        }
        assert_eq!(kind("plain"), FileKind::Dir);
        assert_eq!(disk.open(&p("onefile")).err().unwrap().raw_os_error(), xdev);
        for mount in ["m", "b"] {
            let inside = p(format!("{mount}/f"));
            assert_eq!(disk.list(&p(mount)).unwrap_err().raw_os_error(), xdev);
            // An error, not absence.
            assert_eq!(disk.stat(&inside).unwrap_err().raw_os_error(), xdev);
            assert_eq!(disk.open(&inside).err().unwrap().raw_os_error(), xdev);
            assert_eq!(disk.unlink(&inside).unwrap_err().raw_os_error(), xdev);
            assert_eq!(disk.mkdir(&p(format!("{mount}/n")), 0o755).unwrap_err().raw_os_error(), xdev);
        }
        // A folder that is a mount point itself is a directory like any other.
        let inner = PosixDisk::open(&dir.join("m")).unwrap();
        assert_eq!(inner.stat(&RelPath::root()).unwrap().unwrap().kind, FileKind::Dir);
        assert_eq!(inner.stat(&p("d")).unwrap().unwrap().kind, FileKind::Dir);
    }
}

/// A directory that may be read but not entered. No directory is like that to root, so root runs this
/// as somebody else.
#[test]
fn entries_without_metadata_are_listed_with_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("d")).unwrap();
    std::fs::write(dir.path().join("d/f"), b"").unwrap();
    for (path, mode) in [("d", 0o444), (".", 0o755)] {
        std::fs::set_permissions(dir.path().join(path), PermissionsExt::from_mode(mode)).unwrap();
    }
    let exe = std::env::current_exe().unwrap();
    let mut child = Command::new(if is_root_user() { "setpriv".as_ref() } else { exe.as_os_str() });
    if is_root_user() {
        child.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&exe);
    }
    child.args(["--exact", "disk::posix::tests::unsearchable_child", "--ignored"]);
    match child.env("DUNLIN_TEST_DIR", dir.path()).output() {
        Ok(ran) => {
            let text = String::from_utf8_lossy(&ran.stdout);
            assert!(ran.status.success() && text.contains("1 passed"), "{text}{ran:?}");
        }
        Err(e) => dunlin_testkit::skipped("setpriv", &e.to_string()),
    }
    std::fs::set_permissions(dir.path().join("d"), PermissionsExt::from_mode(0o755)).unwrap();
}

#[test]
#[ignore = "run by entries_without_metadata_are_listed_with_the_reason"]
fn unsearchable_child() {
    let dir = prepared_dir();
    for disk in [PosixDisk::open(&dir).unwrap(), walking(&dir)] {
        let listed = disk.list(&p("d")).unwrap();
        assert_eq!(listed.len(), 1);
        assert_eq!(listed[0].stat, Err(Errno::ACCESS.raw_os_error()));
        // Not absent either: unknown.
        assert_eq!(disk.stat(&p("d/f")).unwrap_err().kind(), ErrorKind::PermissionDenied);
    }
}
