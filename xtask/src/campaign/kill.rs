//! `kill -9` of any of three nodes at any moment, while their users work.

use super::field::{Field, kill, rest};
use dunlin_testkit::Node;

/// Kills of one run.
const KILLS: usize = 20;

/// One run.
pub fn run(field: &mut Field) -> String {
    let mut nodes: Vec<Node> = ["a", "b", "c"].map(|name| field.node(name)).into();
    field.found(&mut nodes);
    let pollers = field.watch(&nodes);
    let crowd = field.crowd(&nodes, 60);
    for _ in 0..KILLS {
        // Often so soon that the one before is still starting.
        let most = *field.dice.pick(&[30, 300, 300, 900]);
        rest(&mut field.dice, most);
        let one = field.dice.below(3) as usize;
        kill(&mut nodes[one]);
        rest(&mut field.dice, 120);
        nodes[one].run();
    }
    crowd.end();
    format!("{KILLS} kills, {}", field.judge(&nodes, pollers))
}
