//! Power cuts: the file system of one of two devices stops at some moment and loses what was not durable.
//!
//! The user of that device is careful: he makes durable what he writes. What he did and had not made
//! durable at the cut counts for nothing. A careless user's empty file is not told from an edit yet.

use super::field::{Field, kill, no_panic, rest};
use dunlin_testkit::{Crowd, Node, Poller};
use dunlin_testkit::{Journal, Mount};
use std::time::Duration;

/// Cuts of one run.
const CUTS: usize = 5;

/// What lies on the file system that is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layout {
    Both,
    Root,
    State,
}

/// One run: the seed says what is cut, with which journal and options.
pub fn run(field: &mut Field) -> String {
    let nth = field.seed.saturating_sub(1);
    let layout = [Layout::Both, Layout::Root, Layout::State][(nth % 3) as usize];
    let journal = [Journal::Lost, Journal::Flushed][(nth / 3 % 2) as usize];
    let options = ["auto_da_alloc", "noauto_da_alloc"][(nth / 6 % 2) as usize];
    let mut disk = Mount::ext4(&field.base().join("image"), &field.base().join("disk"), 256, options);
    let mut nodes = vec![field.node("a"), field.node("b")];
    let mut on_disk = Node::new(&field.base().join("disk"), "b");
    let b = &mut nodes[1];
    if layout != Layout::State {
        b.dir = std::mem::take(&mut on_disk.dir);
    }
    if layout != Layout::Root {
        b.home = std::mem::take(&mut on_disk.home);
    }
    field.found(&mut nodes);
    let mut pollers = field.watch(&nodes[..1]);
    let other = field.crowd(&nodes[..1], 80);
    for _ in 0..CUTS {
        one(field, &mut nodes[1], &disk, layout, journal);
        disk.revive(options);
        nodes[1].run();
    }
    other.end();
    pollers.extend(field.watch(&nodes[1..]));
    let done = field.judge(&nodes, pollers);
    nodes.clear();
    format!("{layout:?} {journal:?} {options}, {CUTS} cuts, {done}")
}

/// Work, and then a cut; ends with everything dead that was on that disk.
fn one(field: &mut Field, node: &mut Node, disk: &Mount, layout: Layout, journal: Journal) {
    let poller = Poller::new(&node.dir, field.ledger.clone());
    let mut user = field.user(node);
    user.careful = layout != Layout::State;
    user.longest = 200_000;
    let user = Crowd::begin(vec![user], Duration::from_millis(40));
    std::thread::sleep(Duration::from_millis(100));
    rest(&mut field.dice, 1200);
    // The power takes all at once, or the disk goes first.
    let at_once = field.dice.one_in(2);
    if at_once {
        no_panic(node);
        node.signal("STOP");
    }
    disk.cut(journal);
    if at_once {
        node.kill();
    } else {
        rest(&mut field.dice, 100);
        kill(node);
    }
    user.end();
    poller.end();
    if layout != Layout::State {
        field.ledger.power_cut(&node.name);
    }
}
