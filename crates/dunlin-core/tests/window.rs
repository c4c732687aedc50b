//! How much of what is lacking one plan looks at.
#![allow(clippy::unwrap_used)]

use dunlin_core::ids::{ContentId, Dot, Incarnation, NodeId, ROOT};
use dunlin_core::kv::Memory;
use dunlin_core::path::Name;
use dunlin_core::plan::{Action, Lacked, Outcome, Plan, Window, plan};
use dunlin_core::rows::Stamp;
use dunlin_core::state::{Content, Mtime, Place, Ranked, State};
use dunlin_core::tree::Work;
use std::collections::BTreeSet;

/// An index that lacks so many files.
fn lacking(files: u8) -> (Memory, Vec<NodeId>) {
    let (mut index, mut nodes) = (Memory::default(), Vec::new());
    let mut work = Work::new(&index);
    for n in 1..=files {
        let (mut s, dot) = (State::default(), Dot { inc: Incarnation([1; 16]), counter: n.into() });
        let name = Name::new(&[b'a' + n]).unwrap();
        let node = NodeId::created(ROOT, &name, 0);
        s.seen.add(dot);
        s.place.insert(dot, Ranked::new(1, Place { parent: ROOT, name, earlier: None }));
        s.content.insert(dot, Ranked::new(1, Content::File { id: ContentId([n; 32]), size: 1 }));
        s.mode.insert(dot, Ranked::new(1, 0o644));
        s.mtime.insert(dot, Ranked::new(1, Mtime { secs: 1, nanos: 0 }));
        work.hear(node, &s, 0).unwrap();
        nodes.push(node);
    }
    let changes = work.finish().unwrap();
    index.apply(changes);
    nodes.sort();
    (index, nodes)
}

fn steps(plan: &Plan) -> Vec<NodeId> {
    plan.steps.iter().map(|s| s.node).collect()
}

#[test]
fn what_is_lacked_is_told_by_how_it_begins() {
    let (mut index, _) = lacking(3);
    let beginnings = |index: &Memory| {
        let lacked = Lacked::of(index).unwrap();
        (0..6).filter(|n| lacked.has([*n; 8])).collect::<Vec<u8>>()
    };
    assert_eq!(beginnings(&index), [1, 2, 3]);
    let (none, all) = (BTreeSet::new(), |_: &ContentId| true);
    let step = plan(&index, &Window::new(&all, &none, 1)).unwrap().steps.remove(0);
    let Action::Place { content: Content::File { id, .. }, .. } = &step.action else { panic!("{step:?}") };
    let mut work = Work::new(&index);
    work.conclude(&step, &Outcome::Done(Stamp::default(), None)).unwrap();
    let changes = work.finish().unwrap();
    index.apply(changes);
    let rest: Vec<u8> = [1, 2, 3].into_iter().filter(|n| *n != id.0[0]).collect();
    assert_eq!(beginnings(&index), rest, "what is in place may go");
}

#[test]
fn what_was_staged_is_planned_first_and_each_thing_once() {
    let (index, nodes) = lacking(9);
    let (none, all) = (BTreeSet::new(), |_: &ContentId| true);
    let first: BTreeSet<NodeId> = [nodes[7], nodes[4]].into();
    let window = |fetches| Window { fetches, first: &first, ..Window::new(&all, &none, 20) };
    // Where no more is asked for, only that is looked at.
    assert_eq!(steps(&plan(&index, &window(0)).unwrap()), [nodes[4], nodes[7]]);
    let mut met = steps(&plan(&index, &window(20)).unwrap());
    assert_eq!(met[..2], [nodes[4], nodes[7]]);
    met.sort();
    assert_eq!(met, nodes);
    // What is being worked on is not.
    let window = Window { fetches: 0, first: &first, ..Window::new(&all, &first, 20) };
    assert!(steps(&plan(&index, &window).unwrap()).is_empty());
}

#[test]
fn no_more_is_asked_for_than_there_is_room_for() {
    let (index, nodes) = lacking(9);
    let (skip, staged) = (BTreeSet::new(), |_: &ContentId| false);
    let asked = |fetches| {
        let window = Window { fetches, ..Window::new(&staged, &skip, 20) };
        let plan = plan(&index, &window).unwrap();
        plan.fetches.iter().map(|f| f.node).collect::<Vec<_>>()
    };
    assert_eq!(asked(3), nodes[..3]);
    assert!(asked(0).is_empty());
}

#[test]
fn that_nothing_was_untangled_is_said() {
    let (index, _) = lacking(2);
    let (skip, staged) = (BTreeSet::new(), |_: &ContentId| false);
    let tangled =
        |untangle| plan(&index, &Window { untangle, ..Window::new(&staged, &skip, 20) }).unwrap().tangled;
    assert!(tangled(false) && !tangled(true));
}
