//! A peer that dies, freezes or is cut off in the middle of a large file.

use super::field::{Field, kill, rest};
use dunlin_testkit::{Lan, Node, until};
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

/// Of the large file, in bytes.
const SIZE: usize = 96 << 20;

/// One run: two hosts, a file on its way from one to the other, and trouble while it is.
pub fn run(field: &mut Field) -> String {
    let lan = Lan::new(&["a", "b"]);
    let mut nodes: Vec<Node> = ["a", "b"].map(|name| field.node(name)).into();
    for (i, node) in nodes.iter_mut().enumerate() {
        lan.address(&node.name, &format!("10.78.0.{}/24", i + 1));
        node.netns = Some(lan.ns(&node.name));
        node.listen = None;
    }
    field.found(&mut nodes);
    let pollers = field.watch(&nodes);
    let bytes = dunlin_testkit::noise(field.seed, SIZE);
    field.user(&nodes[0]).put(&nodes[0].path("large"), &bytes).expect("a large file");
    let (mut troubles, mut at) = (Vec::new(), 0);
    while troubles.len() < 3 && !nodes[1].path("large").exists() {
        at += 4 << 20;
        until("some more of it", Duration::from_secs(60), || {
            staged(&nodes[1]) >= at || nodes[1].path("large").exists()
        });
        rest(&mut field.dice, 60);
        if !nodes[1].path("large").exists() {
            // Each kind once, in an order that the seed says.
            let kind = (field.seed + troubles.len() as u64) % 3;
            troubles.push(trouble(field, &mut nodes, &lan, kind));
        }
        at = at.max(staged(&nodes[1]));
    }
    let done = field.judge(&nodes, pollers);
    nodes.clear();
    format!("{}, {done}", troubles.join(" and "))
}

/// What of contents on their way is on the disk, in bytes.
fn staged(node: &Node) -> u64 {
    let Ok(entries) = std::fs::read_dir(node.path(".dunlin/stage")) else { return 0 };
    entries.filter_map(|e| e.ok()?.metadata().ok()).map(|m| m.blocks() * 512).sum()
}

fn trouble(field: &mut Field, nodes: &mut [Node], lan: &Lan, kind: u64) -> String {
    let one = field.dice.below(2) as usize;
    let node = &mut nodes[one];
    let what = match kind {
        0 => {
            kill(node);
            rest(&mut field.dice, 1500);
            node.run();
            "killed"
        }
        1 => {
            node.signal("STOP");
            rest(&mut field.dice, 6000);
            node.signal("CONT");
            "frozen"
        }
        _ => {
            lan.on(&node.name, &["link", "set", "eth0", "down"]);
            rest(&mut field.dice, 6000);
            lan.on(&node.name, &["link", "set", "eth0", "up"]);
            "cut off"
        }
    };
    format!("{} {what}", node.name)
}
