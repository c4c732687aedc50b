//! A small disk that somebody else fills and frees, while users work on both devices.

use super::field::{Field, heal, rest};
use dunlin_testkit::Mount;
use dunlin_testkit::{Crowd, Node};
use std::io::Write;
use std::path::Path;
use std::time::Duration;

/// One run; every second one has the state directory on the small disk, too.
pub fn run(field: &mut Field) -> String {
    let state_too = field.seed.is_multiple_of(2);
    let megabytes = 24 + field.dice.below(24);
    let place = field.base().join("disk");
    let disk = Mount::memory(&place, &format!("size={megabytes}m"));
    let small = Node::new(&place, "b");
    let mut nodes = vec![field.node("a"), field.node("b")];
    nodes[1].dir = small.dir.clone();
    if state_too {
        nodes[1].home = small.home.clone();
    }
    field.found(&mut nodes);
    let pollers = field.watch(&nodes);
    let mut users = vec![field.user(&nodes[0]), field.user(&nodes[1])];
    users[1].longest = 300_000;
    let crowd = Crowd::begin(users, Duration::from_millis(80));
    let filler = place.join("filler");
    for _ in 0..6 {
        rest(&mut field.dice, 500);
        fill(&filler, field.dice.below(400_000));
        rest(&mut field.dice, 1500);
        // It heals by what others free, or by a larger disk, which then is full again.
        if field.dice.one_in(2) {
            let _ = std::fs::remove_file(&filler);
        } else {
            disk.remount(&format!("size={}m", megabytes + field.dice.below(24)));
        }
    }
    crowd.end();
    let _ = std::fs::remove_file(&filler);
    disk.remount("size=2000m");
    let halted = heal(&nodes[1]);
    let done = field.judge(&nodes, pollers);
    nodes.clear();
    format!("{megabytes} MB{}{halted}, {done}", if state_too { " with the state" } else { "" })
}

/// Takes all that is free, but so many bytes.
fn fill(path: &Path, leave: u64) {
    let Ok(mut file) = std::fs::File::options().create(true).append(true).open(path) else { return };
    let block = [7; 1 << 16];
    while file.write_all(&block).is_ok() {}
    let len = file.metadata().map_or(0, |m| m.len());
    // Where it cannot be cut back, it is as full as can be.
    let _ = file.set_len(len.saturating_sub(leave));
}
