//! Invitations, good and bad, and strangers without one.

#![allow(clippy::unwrap_used, reason = "a test")]

use dunlin_core::ids::{FolderId, NodeId};
use dunlin_core::message::{ALPN, ALPN_JOIN};
use dunlin_core::ticket::Ticket;
use dunlin_node::net::transport::{BindOptions, Transport};
use dunlin_testkit::*;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

struct Place {
    _temp: tempfile::TempDir,
    base: PathBuf,
    a: Node,
    ticket: String,
}

impl Place {
    /// A shares a folder with one file.
    fn new() -> Place {
        let temp = tempfile::tempdir().unwrap();
        let base = temp.path().canonicalize().unwrap();
        let mut a = Node::new(&base, "a");
        fs::create_dir(&a.dir).unwrap();
        write(a.path("secret.txt"), b"for members only");
        let ticket = a.share();
        Place { _temp: temp, base, a, ticket }
    }

    fn node(&self, name: &str) -> Node {
        Node::new(&self.base, name)
    }
}

fn parse(ticket: &str) -> Ticket {
    Ticket::parse(ticket).unwrap_or_else(|e| panic!("{ticket}: {e:?}"))
}

/// A join that must fail with exit code 1, two lines, and nothing made; returns what it said.
fn refused(node: &Node, ticket: &str, dir: &Path) -> String {
    let existed = dir.exists();
    let before = listing(node);
    let args: [&OsStr; 5] =
        ["join".as_ref(), ticket.as_ref(), dir.as_os_str(), "--listen".as_ref(), "127.0.0.1:0".as_ref()];
    let (code, out, err) = told(node.command(&args).output().unwrap());
    assert_eq!((code, out.as_str()), (1, ""), "{err}");
    assert_eq!(err.lines().count(), 2, "{err}");
    assert!(err.starts_with("dunlin: ") && err.contains("\nhint: "), "{err}");
    assert_eq!(dir.exists(), existed, "{} was made: {err}", dir.display());
    assert!(!dir.join(".dunlin").exists() || existed, "{err}");
    assert_eq!(listing(node), before, "something was made: {err}");
    err
}

/// What is beside a node's state directory, and what is in that: nothing where it is missing.
fn listing(node: &Node) -> Vec<PathBuf> {
    let entries = |dir: &Path| fs::read_dir(dir).into_iter().flatten().map(|e| e.unwrap().path());
    let mut all: Vec<PathBuf> = entries(node.home.parent().unwrap()).chain(entries(&node.home)).collect();
    all.sort();
    all
}

#[test]
fn an_invitation_is_good_once() {
    let p = Place::new();
    assert!(p.ticket.starts_with("dunlin") && !p.ticket.contains(char::is_whitespace));
    let mut b = p.node("b");
    b.join(&p.ticket);
    settle("joined", &[&p.a, &b]);

    let mut c = p.node("c");
    let said = refused(&c, &p.ticket, &c.dir);
    assert!(said.contains("used"), "{said}");
    let other = if &p.ticket[20..21] == "a" { "b" } else { "a" };
    let typo = format!("{}{other}{}", &p.ticket[..20], &p.ticket[21..]);
    let (short, half) = (&p.ticket[..p.ticket.len() - 1], &p.ticket[..p.ticket.len() / 2]);
    let long = format!("{}a", p.ticket);
    for bad in ["", "garbage", "dunlin", "dunlin!!!", "dunlin\u{e9}", short, half, &long, &typo] {
        let begun = Instant::now();
        let said = refused(&c, bad, &c.dir);
        assert!(said.contains("invitation"), "{bad}: {said}");
        assert!(begun.elapsed() < Duration::from_secs(5), "a bad ticket is seen at once");
    }

    let fresh = parse(&p.a.invite());
    let expired = Ticket { expires: 1, ..fresh.clone() };
    assert!(refused(&c, &expired.to_text(), &c.dir).contains("expired"));
    let foreign = Ticket { folder: FolderId([7; 32]), ..fresh.clone() };
    let wrong = Ticket { secret: NodeId([7; 16]), ..fresh.clone() };
    let foreign = refused(&c, &foreign.to_text(), &c.dir);
    assert_eq!(foreign, refused(&c, &wrong.to_text(), &c.dir), "it is not told which folders there are");
    assert!(foreign.contains("refused"), "{foreign}");

    // None of that spent the fresh one.
    c.join(&fresh.to_text());
    settle("c joined", &[&p.a, &b, &c]);
}

#[test]
fn an_expired_invitation_is_refused_by_the_inviter_too() {
    let mut p = Place::new();
    let fresh = parse(&p.ticket);
    p.a.stop();
    let config = p.a.home.join("folders").join(fresh.folder.to_string()).join("folder.json");
    let text = fs::read_to_string(&config).unwrap();
    let aged = text.replace(&fresh.expires.to_string(), "1000000000");
    assert_ne!(text, aged);
    fs::write(&config, aged).unwrap();
    p.a.run();
    until("a runs", PATIENCE, || p.a.asks(&["status"]).0 == 0);
    // Without any open invitation guests are not heard at all.
    let b = p.node("b");
    let said = refused(&b, &p.ticket, &b.dir);
    eprintln!("without an open invitation: {said}");
    // With another one they are.
    let other = parse(&p.a.invite());
    let ticket = Ticket { addresses: other.addresses, ..fresh };
    let said = refused(&b, &ticket.to_text(), &b.dir);
    assert!(said.contains("expired") || said.contains("refused"), "{said}");
}

#[test]
fn an_unreachable_inviter_costs_nothing_but_time() {
    let mut p = Place::new();
    p.a.kill();
    let mut b = p.node("b");
    let begun = Instant::now();
    let said = refused(&b, &p.ticket, &b.dir);
    let took = begun.elapsed();
    assert!(said.contains("reached"), "{said}");
    assert!((14..18).contains(&took.as_secs()), "15 s, but {took:?}");
    p.a.run();
    // Another port, found by discovery: the ticket is good all the same.
    b.join(&p.ticket);
    settle("joined later", &[&p.a, &b]);
}

#[test]
fn a_join_that_is_ended_while_it_waits_leaves_nothing() {
    let mut p = Place::new();
    p.a.kill();
    let mut b = p.node("b");
    // Its state directory is made with what leads to it, and goes with that.
    b.home = p.base.join("made/for/b.state");
    for signal in ["INT", "TERM"] {
        let args = ["join".as_ref(), p.ticket.as_ref(), b.dir.as_os_str(), "--listen".as_ref()];
        let mut command = b.command(&[&args[..], &["127.0.0.1:0".as_ref()]].concat());
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        until("it has a key", PATIENCE, || b.home.join("device.key").exists());
        until("it runs", PATIENCE, || b.asks(&["status"]).0 == 0);
        let sent = Command::new("kill").args(["-s", signal, &child.id().to_string()]).status().unwrap();
        assert!(sent.success());
        let (code, out, err) = told(child.wait_with_output().unwrap());
        assert_eq!((code, out.as_str()), (1, ""), "{err}");
        assert!(err.contains("ended before"), "{err}");
        assert!(!p.base.join("made").exists() && !b.dir.exists(), "{err}");
    }
    p.a.run();
    b.join(&p.ticket);
    settle("joined later", &[&p.a, &b]);
}

#[test]
fn a_share_that_fails_leaves_what_was_there() {
    let p = Place::new();
    let b = p.node("b");
    let (strange, broken) = (p.base.join("strange"), p.base.join("broken"));
    fs::create_dir(&strange).unwrap();
    write(strange.join(".dunlin"), b"not a directory");
    fs::create_dir_all(broken.join(".dunlin")).unwrap();
    write(broken.join(".dunlin/stage"), b"not a directory");
    let taken = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let any = "127.0.0.1:0".to_owned();
    let (missing, new) = (p.base.join("no/parent"), p.base.join("new"));
    for had_home in [false, true] {
        if had_home {
            fs::create_dir(&b.home).unwrap();
            set_mode(&b.home, 0o700);
        }
        let below =
            |dir: &Path| fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect::<BTreeSet<_>>();
        let all = || (listing(&b), below(&strange), below(&broken), below(&broken.join(".dunlin")));
        let before = all();
        for (dir, listen) in [(&missing, &any), (&strange, &any), (&broken, &any), (&new, &taken)] {
            let args = ["share".as_ref(), dir.as_os_str(), "--listen".as_ref(), listen.as_ref()];
            let (code, _, err) = told(b.command(&args).output().unwrap());
            assert_eq!(code, 1, "{}: {err}", dir.display());
            assert_eq!(all(), before, "{}: {err}", dir.display());
        }
    }
    // A device that has a key keeps it, whatever fails.
    fs::write(b.home.join("device.key"), [8; 32]).unwrap();
    let (code, _, err) = b.asks(&["join", "garbage", "--listen", "127.0.0.1:0"]);
    assert_eq!(code, 1, "{err}");
    assert_eq!(fs::read(b.home.join("device.key")).unwrap(), [8; 32]);
}

/// Admitted, and then it cannot be done here: the key stays, and the invitation is good for it.
#[test]
fn an_invitation_that_was_honoured_in_vain_is_good_on_the_same_device() {
    let p = Place::new();
    let mut b = p.node("b");
    fs::create_dir_all(b.path(".dunlin")).unwrap();
    write(b.path(".dunlin/stage"), b"not a directory");
    let args = ["join".as_ref(), p.ticket.as_ref(), b.dir.as_os_str()];
    let (code, _, err) = told(b.command(&args).output().unwrap());
    assert_eq!(code, 1, "{err}");
    assert_eq!(fs::read_dir(b.home.join("folders")).map_or(0, Iterator::count), 0, "{err}");
    let key = fs::read(b.home.join("device.key")).unwrap();
    fs::remove_file(b.path(".dunlin/stage")).unwrap();
    b.join(&p.ticket);
    assert_eq!(fs::read(b.home.join("device.key")).unwrap(), key);
    settle("joined", &[&p.a, &b]);
}

/// The node heard the inviter when nobody asked for it, and the inviter says no more by itself for 20 s.
#[test]
fn an_inviter_that_moved_is_found_by_a_node_that_runs_already() {
    let mut p = Place::new();
    p.a.stop();
    p.a.run();
    until("a runs", PATIENCE, || p.a.asks(&["status"]).0 == 0);
    let mut b = p.node("b");
    b.run();
    until("b runs", PATIENCE, || b.asks(&["status"]).0 == 0);
    // Until the first questions of both are over.
    std::thread::sleep(Duration::from_millis(2_500));
    let begun = Instant::now();
    let args = ["join".as_ref(), p.ticket.as_ref(), b.dir.as_os_str()];
    let (code, _, err) = told(b.command(&args).output().unwrap());
    assert_eq!(code, 0, "{err}");
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    settle("joined", &[&p.a, &b]);
}

#[test]
fn the_folder_is_checked_before_the_ticket_is_used() {
    let p = Place::new();
    let mut b = p.node("b");
    let base = &p.base;
    write(base.join("file"), b"x");
    fs::create_dir_all(base.join("around/inner")).unwrap();
    std::os::unix::fs::symlink("nowhere", base.join("dangling")).unwrap();
    for (dir, word) in [
        (base.join("file"), "not a directory"),
        (base.join("no/parent"), "does not exist"),
        (base.join("file/below"), "not a directory"),
        (base.join("dangling"), "dangling"),
        (b.home.join("inside"), "state directory"),
        (b.home.clone(), "state directory"),
        (base.clone(), "state directory"),
    ] {
        let said = refused(&b, &p.ticket, &dir);
        assert!(said.to_lowercase().contains(word), "{}: {said}", dir.display());
    }

    // The same with a node that shares folders already.
    let shared = base.join("shared");
    b.start(&["share".as_ref(), shared.as_os_str()]);
    until("b runs", PATIENCE, || b.asks(&["status"]).0 == 0 && shared.join(".dunlin/folder").exists());
    let inner = base.join("around/inner");
    let (code, _, err) = told(b.command(&["share".as_ref(), inner.as_os_str()]).output().unwrap());
    assert_eq!(code, 0, "{err}");
    for (dir, word) in [
        (shared.join("inside"), "shared folder"),
        (base.clone(), "state directory"),
        (shared.clone(), "shared folder already"),
        (base.join("around"), "shared folder"),
    ] {
        let args = ["join".as_ref(), p.ticket.as_ref(), dir.as_os_str()];
        let (code, _, err) = told(b.command(&args).output().unwrap());
        assert!(code == 1 && err.contains(word), "{}: {err}", dir.display());
        let args = ["share".as_ref(), dir.as_os_str()];
        let (code, _, err) = told(b.command(&args).output().unwrap());
        // To share the same folder once more is one more invitation.
        assert_eq!(code, i32::from(dir != shared), "{}: {err}", dir.display());
    }

    // And the ticket is good still.
    let dir = base.join("good");
    let args = ["join".as_ref(), p.ticket.as_ref(), dir.as_os_str(), "--json".as_ref()];
    let (code, out, err) = told(b.command(&args).output().unwrap());
    assert_eq!(code, 0, "{err}");
    assert!(out.starts_with(r#"{"event":"ready""#), "{out}");
    until("the file arrives", PATIENCE, || fs::read(dir.join("secret.txt")).is_ok());
}

#[test]
fn a_folder_without_permission_is_refused_before_the_ticket_is_used() {
    let drop = ["--reuid=65534", "--regid=65534", "--clear-groups"];
    if !is_root() || !can("permissions", "setpriv", &[&drop[..], &["true"]].concat()) {
        skipped("permissions", "not root, or no setpriv");
        return;
    }
    let p = Place::new();
    let mut b = p.node("b");
    let (locked, readable) = (p.base.join("locked"), p.base.join("readable"));
    for (dir, mode) in [(&p.base, 0o755), (&locked, 0o700), (&readable, 0o755), (&b.home, 0o700)] {
        fs::create_dir_all(dir).unwrap();
        set_mode(dir, mode);
    }
    assert!(Command::new("chown").arg("65534:65534").arg(&b.home).status().unwrap().success());
    // The program may lie where nobody else may go: a copy.
    let program = p.base.join("dunlin-copy");
    fs::copy(env!("CARGO_BIN_EXE_dunlin"), &program).unwrap();
    for dir in [&locked, &readable, &locked.join("new"), &readable.join("new")] {
        let mut command = Command::new("setpriv");
        command.args(drop).arg(&program).args(["join", &p.ticket]).arg(dir);
        command.args(["--listen", "127.0.0.1:0"]).env("DUNLIN_HOME", &b.home).env("HOME", "/nowhere");
        let (code, _, err) = told(command.current_dir("/").output().unwrap());
        assert_eq!(code, 1, "{err}");
        assert_eq!(fs::read_dir(&b.home).unwrap().count(), 0, "a key was made: {err}");
        assert!(err.to_lowercase().contains("permission denied"), "{}: {err}", dir.display());
    }
    assert!(Command::new("chown").arg("-R").arg("0:0").arg(&b.home).status().unwrap().success());
    b.join(&p.ticket);
    settle("joined", &[&p.a, &b]);
}

/// Makes `thief` a device that got hold of b's state of the folder, but not of its key.
fn steal(b: &Node, thief: &Node, id: &str) {
    fs::create_dir_all(thief.path(".dunlin")).unwrap();
    let (from, to) = (b.home.join("folders").join(id), thief.home.join("folders").join(id));
    fs::create_dir_all(&to).unwrap();
    let hex = |p: &Path| p.to_str().unwrap().bytes().map(|b| format!("{b:02x}")).collect::<String>();
    let config = fs::read_to_string(from.join("folder.json")).unwrap();
    let config = config
        .replace(&hex(&b.dir), &hex(&thief.dir))
        .replace(b.dir.to_str().unwrap(), thief.dir.to_str().unwrap());
    fs::write(to.join("folder.json"), config).unwrap();
    fs::copy(b.home.join("addresses.json"), thief.home.join("addresses.json")).unwrap();
    fs::copy(b.path(".dunlin/folder"), thief.path(".dunlin/folder")).unwrap();
    for dir in [&thief.home, &thief.home.join("folders"), &to] {
        set_mode(dir, 0o700);
    }
    write(thief.path("planted"), b"by the thief");
}

#[test]
fn a_stranger_gets_nothing() {
    let p = Place::new();
    let mut b = p.node("b");
    b.join(&p.ticket);
    settle("joined", &[&p.a, &b]);
    let id = p.a.folder()["id"].as_str().unwrap().to_owned();
    b.stop(); // so that it writes its addresses
    let mut thief = p.node("thief");
    steal(&b, &thief, &id);
    b.run();
    thief.run();
    p.a.until_connected(1, PATIENCE);
    write(p.a.path("more.txt"), b"written while the thief knocks");
    settle("members", &[&p.a, &b]);
    until("the thief runs", PATIENCE, || thief.asks(&["status"]).0 == 0);
    let status = thief.status();
    assert_eq!(status["folders"][0]["path"], thief.dir.to_str().unwrap(), "{status}");
    // Long enough for many attempts.
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(3) {
        assert_eq!(thief.connections(), 0);
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(tree(&thief.dir).len(), 1, "{:?}", tree(&thief.dir));
    assert!(!p.a.path("planted").exists() && !b.path("planted").exists());
    assert_eq!(p.a.folder()["devices"].as_array().unwrap().len(), 1, "no member more");

    // And one that speaks the protocol: no stream, no word.
    let there = parse(&p.a.invite());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let mut bind = BindOptions::new([9; 32], vec![ALPN.to_vec(), ALPN_JOIN.to_vec()]);
        bind.listen = Some("127.0.0.1:0".parse().unwrap());
        let transport = Transport::bind(bind).await.unwrap();
        let wait = Duration::from_secs(5);
        let conn = transport.connect(there.inviter.0, &there.addresses, ALPN, wait).await.unwrap();
        let answer = tokio::time::timeout(wait, conn.accept_bi()).await.unwrap();
        assert!(answer.is_err(), "a stranger was given a stream");
        let reason = format!("{:?}", conn.close_reason());
        assert!(reason.contains("code: 1") && !reason.contains(&id), "{reason}");
        transport.close().await;
    });
}
