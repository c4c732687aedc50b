use super::*;
use std::process::{Command, Stdio};

fn home() -> (tempfile::TempDir, Home) {
    let temp = tempfile::tempdir().unwrap();
    let home = Home::open(&temp.path().join("home")).unwrap();
    (temp, home)
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o7777
}

#[test]
fn the_place_is_the_given_one_then_each_variable() {
    let vars = |set: &'static [(&str, &str)]| {
        move |key: &str| set.iter().find(|(k, _)| *k == key).map(|(_, v)| OsString::from(v))
    };
    let at = |given: Option<&str>, set| Home::resolve(given.map(Path::new), vars(set)).unwrap();
    let all = &[("DUNLIN_HOME", "/d"), ("XDG_STATE_HOME", "/x"), ("HOME", "/h")];
    assert_eq!(at(Some("/given"), all), Path::new("/given"));
    assert_eq!(at(None, all), Path::new("/d"));
    assert_eq!(at(None, &[("XDG_STATE_HOME", "/x"), ("HOME", "/h")]), Path::new("/x/dunlin"));
    assert_eq!(
        at(None, &[("DUNLIN_HOME", ""), ("XDG_STATE_HOME", "rel"), ("HOME", "/h")]),
        Path::new("/h/.local/state/dunlin")
    );
    assert!(at(Some("rel"), all).is_absolute());
    assert!(matches!(Home::resolve(None, |_| None), Err(HomeError::NoPlace)));
}

#[test]
fn the_directory_and_its_files_are_private() {
    let (_temp, home) = home();
    assert_eq!(mode(home.dir()), 0o700);
    let locked = home.lock().unwrap();
    locked.device_key().unwrap();
    locked.set_name("x").unwrap();
    let listener = locked.bind_socket().unwrap();
    for file in ["lock", "device.key", "name", "control.sock"] {
        assert_eq!(mode(&home.dir().join(file)), 0o600, "{file}");
    }
    assert_eq!(mode(&locked.folder_dir("0123456789abcdef").unwrap()), 0o700);
    drop((listener, locked));
    assert!(!home.dir().join("control.sock").exists());
}

#[test]
fn a_loosened_file_is_tightened_by_the_next_write() {
    let (_temp, home) = home();
    let lock = home.dir().join("lock");
    fs::write(&lock, "").unwrap();
    fs::set_permissions(&lock, Permissions::from_mode(0o666)).unwrap();
    home.lock().unwrap();
    assert_eq!(mode(&lock), 0o600);
}

#[test]
fn a_directory_open_to_others_or_no_directory_is_refused() {
    let (_temp, home) = home();
    for bits in [0o710, 0o701, 0o740, 0o755, 0o777] {
        fs::set_permissions(home.dir(), Permissions::from_mode(bits)).unwrap();
        assert!(matches!(Home::open(home.dir()), Err(HomeError::Exposed { mode, .. }) if mode == bits));
    }
    fs::set_permissions(home.dir(), Permissions::from_mode(0o700)).unwrap();
    let file = home.dir().join("file");
    fs::write(&file, "").unwrap();
    assert!(matches!(Home::open(&file), Err(HomeError::NotADirectory(_))));
}

#[test]
fn a_foreign_directory_is_refused() {
    if !rustix::process::geteuid().is_root() {
        return; // only root can give a directory away
    }
    let (_temp, home) = home();
    std::os::unix::fs::chown(home.dir(), Some(12345), None).unwrap();
    assert!(matches!(Home::open(home.dir()), Err(HomeError::Foreign { owner: 12345, .. })));
}

#[test]
fn finding_creates_nothing() {
    let temp = tempfile::tempdir().unwrap();
    assert!(Home::find(&temp.path().join("none")).unwrap().is_none());
    assert!(!temp.path().join("none").exists());
}

#[test]
fn the_key_is_made_once_and_never_replaced() {
    let (_temp, home) = home();
    let key = home.lock().unwrap().device_key().unwrap();
    assert_ne!(key, [0; 32]);
    assert_eq!(home.lock().unwrap().device_key().unwrap(), key);
    fs::write(home.dir().join("device.key"), b"short").unwrap();
    assert!(matches!(home.lock().unwrap().device_key(), Err(HomeError::KeyDamaged(_))));
    assert_eq!(fs::read(home.dir().join("device.key")).unwrap(), b"short");
}

#[test]
fn a_given_name_stays_and_a_bad_one_is_refused() {
    let (_temp, home) = home();
    assert!(!home.name().unwrap().is_empty());
    home.set_name(" grüner Laptop ").unwrap();
    assert_eq!(home.name().unwrap(), "grüner Laptop");
    let long = "x".repeat(65);
    for bad in ["", "  ", "a\nb", "a\x1b[31m", "a\u{202e}b", &long] {
        assert!(home.set_name(bad).is_err(), "{bad:?}");
    }
    home.set_name(&"ü".repeat(64)).unwrap();
}

#[test]
fn folder_ids_never_lead_out() {
    let (_temp, home) = home();
    let locked = home.lock().unwrap();
    for bad in ["", "..", "../../../../etc/passwd", "0123456789ABCDEF", "0123456789abcde/"] {
        assert!(locked.folder_dir(bad).is_err(), "{bad:?}");
    }
    locked.folder_dir("fedcba9876543210").unwrap();
    locked.folder_dir("0123456789abcdef").unwrap();
    fs::write(home.dir().join("folders/stray"), "").unwrap();
    assert_eq!(locked.folder_ids().unwrap(), ["0123456789abcdef", "fedcba9876543210"]);
}

#[test]
fn a_second_node_is_refused_and_told_who_holds_it() {
    let (_temp, home) = home();
    let first = home.lock().unwrap();
    assert!(home.is_locked().unwrap());
    match home.lock() {
        Err(HomeError::Locked { pid, .. }) => assert_eq!(pid, Some(std::process::id())),
        other => panic!("{other:?}"),
    }
    drop(first);
    assert!(!home.is_locked().unwrap());
    home.lock().unwrap();
}

#[test]
fn the_lock_and_socket_of_a_killed_node_are_no_obstacle() {
    let (_temp, home) = home();
    let mut holder = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "home::tests::holds_a_lock_until_killed", "--ignored", "--nocapture"])
        .env("DUNLIN_TEST_LOCK", home.dir())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let until = Instant::now() + Duration::from_secs(20);
    while !home.dir().join("control.sock").exists() {
        assert!(Instant::now() < until, "the holder never locked");
        std::thread::sleep(Duration::from_millis(10));
    }
    match home.lock() {
        Err(HomeError::Locked { pid, .. }) => assert_eq!(pid, Some(holder.id())),
        other => panic!("{other:?}"),
    }
    holder.kill().unwrap();
    holder.wait().unwrap();
    assert!(home.dir().join("control.sock").exists(), "nobody cleaned up");
    home.lock().unwrap().bind_socket().unwrap();
}

#[test]
#[ignore = "the child process of the test above"]
fn holds_a_lock_until_killed() {
    let Some(dir) = std::env::var_os("DUNLIN_TEST_LOCK") else { return };
    let locked = Home::open(Path::new(&dir)).unwrap().lock().unwrap();
    let _listener = locked.bind_socket().unwrap();
    std::thread::sleep(Duration::from_secs(60));
}

#[test]
fn a_long_path_has_its_socket_elsewhere_and_a_link_to_it() {
    let temp = tempfile::tempdir().unwrap();
    let home = Home::open(&temp.path().join("long".repeat(30))).unwrap();
    let locked = home.lock().unwrap();
    let runtime = temp.path().as_os_str().to_owned();
    let listener = locked.bind_socket_with(|_| Some(runtime.clone())).unwrap();
    let path = home.socket_path();
    assert!(path.starts_with(temp.path().join("dunlin")), "{path:?}");
    assert!(path.as_os_str().len() <= 100);
    std::os::unix::net::UnixStream::connect(&path).unwrap();
    assert_eq!(mode(&path), 0o600);
    assert_eq!(mode(path.parent().unwrap()), 0o700);
    drop((listener, locked));
    assert!(!path.exists());
    assert!(fs::symlink_metadata(home.dir().join("control.sock")).is_err());

    let locked = home.lock().unwrap();
    let _listener = locked.bind_socket_with(|_| None).unwrap();
    assert!(home.socket_path().starts_with("/tmp"));
    std::os::unix::net::UnixStream::connect(home.socket_path()).unwrap();
}

#[test]
fn an_atomic_write_replaces_whole_and_leaves_nothing_else() {
    let (_temp, home) = home();
    let path = home.dir().join("f");
    write_atomic(&path, b"one").unwrap();
    write_atomic(&path, b"two").unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"two");
    assert_eq!(fs::read_dir(home.dir()).unwrap().count(), 1);
    fs::create_dir(home.dir().join("d")).unwrap();
    assert!(write_atomic(&home.dir().join("d"), b"x").is_err());
    assert_eq!(fs::read_dir(home.dir()).unwrap().count(), 2);
    fs::write(home.dir().join(".f.1-1.new"), "left by a killed writer").unwrap();
    home.lock().unwrap();
    assert!(!home.dir().join(".f.1-1.new").exists());
    remove_durably(&path).unwrap();
    remove_durably(&path).unwrap();
    assert!(!path.exists());
}
