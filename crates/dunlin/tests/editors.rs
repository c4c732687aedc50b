//! How programs save, again and again, while others read on the other device, and save there too.

#![allow(clippy::unwrap_used, reason = "a test")]

use dunlin_testkit::*;
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// A user of a device; what he has in hand lies beside its folder.
fn user(node: &Node, n: u64, ledger: &Arc<Ledger>) -> User {
    let hands = node.dir.with_extension("hands").join(n.to_string());
    User::new(&node.name, &node.dir, &hands, ledger.clone(), Dice::new(n, 0))
}

/// Stops a loop on another thread, also where this one panics.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_file_that_is_replaced_all_the_time_is_always_there_and_whole() {
    let (_temp, a, b) = pair();
    let ledger = Arc::new(Ledger::new());
    let mut writer = user(&a, 1, &ledger);
    let path = b.path("f");
    // What comes along with its row, what is fetched whole, and what is fetched in chunks.
    let version =
        |i: u64| noise(i, if i.is_multiple_of(20) { 2 << 20 } else { 10 + (i as usize % 7) * 9_000 });
    writer.put(&a.path("f"), &version(0)).unwrap();
    settle("the first", &[&a, &b]);
    let (ended, known) = (AtomicBool::new(false), &ledger);
    let (reads, seen, wrong) = std::thread::scope(|s| {
        let reader = s.spawn(|| {
            let (mut reads, mut seen, mut wrong) = (0_u64, BTreeSet::new(), Vec::new());
            while !ended.load(Ordering::Relaxed) {
                reads += 1;
                match fs::read(&path) {
                    Ok(bytes) => {
                        let content = blake3::hash(&bytes);
                        seen.insert(*content.as_bytes());
                        if !known.knows(&content) {
                            wrong.push(format!("read {reads}: {} bytes that are no version", bytes.len()));
                        }
                    }
                    Err(e) => wrong.push(format!("read {reads}: {e}")),
                }
            }
            (reads, seen.len(), wrong)
        });
        let ends = Ends(&ended);
        for i in 1..=200 {
            writer.put(&a.path("f"), &version(i)).unwrap();
            let size = version(i).len() as u64;
            until("it is replaced", PATIENCE, || fs::metadata(&path).is_ok_and(|m| m.len() == size));
        }
        drop(ends);
        reader.join().unwrap()
    });
    settle("the last", &[&a, &b]);
    all_hold(&[&a, &b], "f", &version(200));
    say(&format!("200 replacements under {reads} reads, which saw {seen} of the versions"));
    assert!(wrong.is_empty(), "{} of {reads}: {:?}", wrong.len(), &wrong[..wrong.len().min(5)]);
    assert!(seen > 50, "it was hardly looked at: {seen} versions");
}

type Save = fn(&mut User, &Path, &[u8]) -> io::Result<()>;

/// How editors save.
const EDITORS: &[(&str, Save)] = &[
    ("renamed over", |user, path, bytes| user.put(path, bytes)),
    ("deleted, then renamed", |user, path, bytes| {
        // It is not there if the other device deleted it.
        let _ = user.take(path);
        user.put(path, bytes)
    }),
    ("kept as a backup, then written", |user, path, bytes| {
        let backup = path.with_extension("bak");
        let _ = fs::rename(path, &backup);
        user.overwrite(path, bytes, Duration::ZERO)?;
        let _ = user.take(&backup);
        Ok(())
    }),
    ("cut to nothing, then written", |user, path, bytes| {
        user.overwrite(path, bytes, Duration::from_millis(20))
    }),
    ("written over", |user, path, bytes| user.overwrite(path, bytes, Duration::ZERO)),
];

/// The text of a save: some are a line longer than the one before, some are shorter.
fn text(of: &str, i: usize) -> Vec<u8> {
    format!("{of}, save {i}\n").repeat(1 + i * 37 % 600).into_bytes()
}

const SAVES: usize = 50;

/// Each editor at work on its file on `a`, ten saves a second; `meanwhile` beside them.
fn saves(a: &Node, round: u64, ledger: &Arc<Ledger>, meanwhile: impl FnOnce()) {
    std::thread::scope(|s| {
        for (n, (how, save)) in EDITORS.iter().enumerate() {
            let mut editor = user(a, 10 * round + n as u64, ledger);
            s.spawn(move || {
                let begun = Instant::now();
                for i in 0..SAVES {
                    let bytes = text(&format!("{how} in round {round}"), i);
                    save(&mut editor, &a.path(format!("{n}.txt")), &bytes).unwrap();
                    let next = Duration::from_millis(100) * (i as u32 + 1);
                    std::thread::sleep(next.saturating_sub(begun.elapsed()));
                }
            });
        }
        meanwhile();
    });
}

#[test]
fn whichever_way_editors_save_the_last_save_is_on_both_devices_and_no_conflict() {
    let (_temp, a, b) = pair();
    let ledger = Arc::new(Ledger::new());
    let poller = Poller::new(&b.dir, ledger.clone());
    saves(&a, 1, &ledger, || {});
    let all = settle("saved", &[&a, &b]);
    for (n, (how, _)) in EDITORS.iter().enumerate() {
        all_hold(&[&a, &b], &format!("{n}.txt"), &text(&format!("{how} in round 1"), SAVES - 1));
    }
    assert_eq!(all.len(), EDITORS.len(), "one file each: {:?}", all.keys());
    ledger.judge("saved", &[&all], &[&a, &b]);
    poller.end();
}

/// Somebody saves the same files on the other device meanwhile: one copy for each of his saves at most, and
/// nothing is lost.
#[test]
fn whichever_way_editors_save_what_is_saved_elsewhere_meanwhile_is_not_lost() {
    let (_temp, a, b) = pair();
    let ledger = Arc::new(Ledger::new());
    saves(&a, 2, &ledger, || {});
    settle("saved", &[&a, &b]);
    let poller = Poller::new(&b.dir, ledger.clone());
    let mut other = user(&b, 7, &ledger);
    let mut theirs = 0;
    saves(&a, 3, &ledger, || {
        for i in 0..4 {
            std::thread::sleep(Duration::from_millis(900));
            for n in 0..EDITORS.len() {
                // Where it was just deleted he makes it anew.
                other.put(&b.path(format!("{n}.txt")), &text("elsewhere", 100 * n + i)).unwrap();
                theirs += 1;
            }
        }
    });
    let all = settle("saved on both", &[&a, &b]);
    let found = ledger.judge("saved on both", &[&all], &[&a, &b]);
    poller.end();
    let copies = conflicts(&all).len();
    say(&format!(
        "{theirs} saves met {} of another device: {copies} copies, {found:?}",
        SAVES * EDITORS.len()
    ));
    assert!(copies <= theirs, "{copies} copies of {theirs} saves");
}

const PAGE: usize = 4096;
const PAGES: u64 = 64;

/// A file as a database has it: pages with their version, number and sum.
fn pages(version: u64) -> Vec<u8> {
    let page = |n: u64| {
        let mut page = [&version.to_le_bytes()[..], &n.to_le_bytes()].concat();
        page.extend(noise(version * PAGES + n, PAGE - 16 - 32));
        let sum = blake3::hash(&page);
        page.extend(sum.as_bytes());
        page
    };
    (0..PAGES).flat_map(page).collect()
}

/// The version whose pages these all are.
fn version_of(bytes: &[u8]) -> Result<u64, String> {
    let number = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    if bytes.len() != PAGE * PAGES as usize {
        return Err(format!("{} bytes", bytes.len()));
    }
    let version = number(0);
    for n in 0..PAGES {
        let at = n as usize * PAGE;
        let end = at + PAGE - 32;
        if blake3::hash(&bytes[at..end]).as_bytes()[..] != bytes[end..end + 32] {
            return Err(format!("page {n} is torn"));
        }
        if (number(at), number(at + 8)) != (version, n) {
            return Err(format!("page 0 is of version {version}, page {n} of {}", number(at)));
        }
    }
    Ok(version)
}

/// Every copy that shows is the file as it was at one moment between two writes of its program, never half of one
/// write and half of the next.
#[test]
fn every_copy_of_a_file_that_a_program_writes_to_all_the_time_is_of_one_moment() {
    let (_temp, a, b) = pair();
    let versions: Vec<Vec<u8>> = (0..40).map(pages).collect();
    write(a.path("db"), &versions[0]);
    settle("the first", &[&a, &b]);
    let (ended, shown, path) = (AtomicBool::new(false), AtomicUsize::new(0), b.path("db"));
    let (torn, writes) = std::thread::scope(|s| {
        let reader = s.spawn(|| {
            let (mut seen, mut torn) = (BTreeSet::new(), BTreeSet::new());
            while !ended.load(Ordering::Relaxed) {
                let bytes = fs::read(&path).unwrap();
                if seen.insert(*blake3::hash(&bytes).as_bytes()) {
                    shown.fetch_add(1, Ordering::Relaxed);
                    torn.extend(version_of(&bytes).err());
                }
                std::thread::sleep(Duration::from_millis(2));
            }
            torn
        });
        let ends = Ends(&ended);
        let file = fs::File::options().write(true).open(a.path("db")).unwrap();
        let (begun, mut writes) = (Instant::now(), 0);
        // While a write comes in every look at it nothing of it is told: it rests for some milliseconds now and then, the
        // longer the slower the machine turns out to be.
        while shown.load(Ordering::Relaxed) < 5 {
            assert!(begun.elapsed() < PATIENCE, "only {shown:?} were shown");
            // As one call each.
            writes += 1;
            let all = &versions[writes % versions.len()];
            assert_eq!(file.write_at(all, 0).unwrap(), all.len());
            std::thread::sleep(Duration::from_millis(writes as u64 % 6 * (3 + writes as u64 / 200)));
        }
        file.write_all_at(&versions[7], 0).unwrap();
        drop(file);
        settle("at rest", &[&a, &b]);
        drop(ends);
        (reader.join().unwrap(), writes)
    });
    all_hold(&[&a, &b], "db", &versions[7]);
    say(&format!(
        "{writes} writes of {PAGES} pages; the other device showed {shown:?} copies, {} torn",
        torn.len()
    ));
    assert!(torn.is_empty(), "{torn:?}");
}
