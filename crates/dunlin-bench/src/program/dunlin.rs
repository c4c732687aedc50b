//! Dunlin: nodes as the tests run them.

use super::{Nodes, Program, first_line};
use crate::place::{Place, has_namespaces};
use crate::tell::Limit;
use dunlin_testkit::{Node, program};

/// The release build.
pub struct Dunlin;

impl Program for Dunlin {
    fn name(&self) -> &'static str {
        "dunlin"
    }

    fn version(&self) -> Result<String, String> {
        first_line(&program(), "--version")
    }

    fn durability(&self) -> &'static str {
        "each file and its name durable before it is recorded; the index at each commit"
    }

    fn sees_changes(&self) -> bool {
        true
    }

    fn set_up<'p>(&'p self, place: &'p Place) -> Result<Box<dyn Nodes + 'p>, String> {
        let node = |host: &crate::place::Host| {
            let mut node = Node::new(&host.state, host.name);
            node.dir.clone_from(&host.dir);
            node.before = host.wrapper(false);
            if has_namespaces() {
                node.listen = None;
            } else {
                // Nothing but loopback, and nobody is looked for.
                node.discovery = false;
            }
            node
        };
        Ok(Box::new(Flock { nodes: place.hosts.iter().map(node).collect(), place, joined: false }))
    }
}

struct Flock<'p> {
    nodes: Vec<Node>,
    place: &'p Place,
    /// Whether the others are members already.
    joined: bool,
}

impl Nodes for Flock<'_> {
    fn start_first(&mut self, limit: Limit) -> Result<(), String> {
        if self.joined {
            self.nodes[0].run();
            return Ok(());
        }
        self.nodes[0].share();
        // In sync with nobody else: it has looked at everything.
        limit.until("dunlin has indexed", || self.nodes[0].asks(&["wait", "--timeout", "2"]).0 == 0)
    }

    fn start_others(&mut self, _limit: Limit) -> Result<(), String> {
        for i in 1..self.nodes.len() {
            if self.joined {
                self.nodes[i].run();
                continue;
            }
            let inviter = (0..i).find(|j| self.place.knows(*j, i)).unwrap_or(0);
            let ticket = self.nodes[inviter].invite();
            self.nodes[i].join(&ticket);
        }
        self.joined = true;
        Ok(())
    }

    fn run_once(&mut self, _limit: Limit) -> Result<(), String> {
        Ok(())
    }

    fn stop(&mut self, limit: Limit) -> Result<(), String> {
        for node in self.nodes.iter_mut().filter(|node| node.runs()) {
            node.signal("TERM");
            limit.until("dunlin ends", || !node.lives())?;
            node.kill();
        }
        Ok(())
    }

    fn check(&mut self) -> Result<(), String> {
        for node in self.nodes.iter_mut().filter(|node| node.runs()) {
            if !node.lives() || node.panicked() {
                return Err(format!("dunlin {} died: {}", node.name, node.errors()));
            }
        }
        Ok(())
    }
}
