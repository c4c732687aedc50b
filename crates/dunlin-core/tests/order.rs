//! The laws of the order in which versions succeed each other, and of merging, over random triples.
//!
//! `ORDER_TRIPLES=10000000` for more; CI takes 100,000 of each.
#![allow(clippy::unwrap_used)]

use dunlin_core::ids::{ContentId, Dot, Incarnation, ROOT};
use dunlin_core::path::Name;
use dunlin_core::state::{Content, DotStore, Mtime, Place, Ranked, State, Vector};
use std::cmp::Ordering;

fn triples() -> u64 {
    std::env::var("ORDER_TRIPLES").ok().and_then(|n| n.parse().ok()).unwrap_or(100_000)
}

/// Numbers from a seed (splitmix64).
struct Chance(u64);

impl Chance {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end
    }
}

const ORDERS: [[usize; 3]; 6] = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];

type Version = (Dot, Ranked<Content>);

/// Few of each part, so that ranks, contents and both are equal often.
fn version(chance: &mut Chance) -> Version {
    let dot = Dot { inc: Incarnation([1 + chance.below(3) as u8; 16]), counter: 1 + chance.below(3) };
    let n = chance.below(4) as u8;
    let content = match chance.below(6) {
        0 => Content::Dir,
        1 => Content::Link(vec![n].into()),
        2 => Content::Unknown { kind: 9 + n, bytes: vec![n].into() },
        _ => Content::File { id: ContentId([n; 32]), size: u64::from(n) },
    };
    (dot, Ranked::new(1 + chance.below(3), content))
}

/// Three, of which two may be the same change, and then of one value.
fn three(chance: &mut Chance) -> [Version; 3] {
    let mut all = [version(chance), version(chance), version(chance)];
    for (i, j) in [(0, 1), (0, 2), (1, 2)] {
        if all[i].0 == all[j].0 {
            all[j] = all[i].clone();
        }
    }
    all
}

/// The versions from the top down, put into a store in this order.
fn ordered(versions: &[&Version]) -> Vec<Version> {
    let mut store = DotStore::default();
    versions.iter().for_each(|(dot, value)| store.insert(*dot, value.clone()));
    let all = store.ordered().into_iter().cloned().collect::<Vec<_>>();
    assert_eq!(store.top(), all.first());
    all
}

/// Which of two is on top.
fn compare(a: &Version, b: &Version) -> Ordering {
    if a.0 == b.0 {
        return Ordering::Equal;
    }
    let top = ordered(&[a, b]).remove(0);
    if top == *a { Ordering::Greater } else { Ordering::Less }
}

#[test]
fn the_order_of_versions_is_total_antisymmetric_and_transitive() {
    let mut chance = Chance(1);
    let mut ties = 0_u64;
    for n in 0..triples() {
        let all = three(&mut chance);
        for [i, j, k] in ORDERS {
            let (a, b, c) = (&all[i], &all[j], &all[k]);
            let (ab, bc, ac) = (compare(a, b), compare(b, c), compare(a, c));
            // Total: only one change is as high as itself.
            assert_eq!(ab == Ordering::Equal, a.0 == b.0, "triple {n}: {all:?}");
            assert_eq!(ab, compare(b, a).reverse(), "triple {n}: not antisymmetric: {all:?}");
            if ab != Ordering::Less && bc != Ordering::Less {
                let least = if ab == Ordering::Equal { bc } else { ab };
                let expected = if bc == Ordering::Equal { ab } else { least };
                assert_eq!(ac, expected, "triple {n}: not transitive: {all:?}");
            }
            ties += u64::from(ab != Ordering::Equal && a.1.rank == b.1.rank);
        }
        // Of three that are three changes, the order of all is the order of each two, however they came.
        if all[0].0 != all[1].0 && all[1].0 != all[2].0 && all[0].0 != all[2].0 {
            let down = ordered(&[&all[0], &all[1], &all[2]]);
            assert!(down.windows(2).all(|w| compare(&w[0], &w[1]) == Ordering::Greater), "triple {n}");
            for [i, j, k] in ORDERS {
                assert_eq!(ordered(&[&all[i], &all[j], &all[k]]), down, "triple {n}: it hangs on the order");
            }
        }
    }
    assert!(ties > triples() / 2, "ranks were hardly ever equal: {ties}");
}

/// Three devices that edit, move and delete one file and hear of each other: what each holds at the end.
fn histories(chance: &mut Chance) -> [State; 3] {
    let mut states: [State; 3] = Default::default();
    let mut given = [0_u64; 3];
    for _ in 0..3 + chance.below(9) {
        let (who, other) = (chance.below(3) as usize, chance.below(3) as usize);
        let s = &mut states[who];
        given[who] += 1;
        let dot = Dot { inc: Incarnation([1 + who as u8; 16]), counter: given[who] };
        let name = |n: u64| Name::new(format!("n{n}").as_bytes()).unwrap();
        match chance.below(8) {
            0..3 => {
                let heard = states[other].clone();
                states[who] = states[who].merge(&heard);
                given[who] -= 1;
                continue;
            }
            3 if !s.is_blank() => s.gone.insert(dot, s.seen.clone()),
            4 if !s.place.is_empty() => {
                let was = s.placed().unwrap().1.value.clone();
                let rank = s.place.next_rank(|_| true);
                let earlier = Some((was.parent, was.name));
                s.place = DotStore::default();
                s.place.insert(
                    dot,
                    Ranked::new(rank, Place { parent: ROOT, name: name(chance.below(3)), earlier }),
                );
            }
            _ => {
                let n = chance.below(4);
                if s.place.is_empty() {
                    let at = Place { parent: ROOT, name: name(n), earlier: None };
                    s.place.insert(dot, Ranked::new(1, at));
                }
                let rank = s.content.next_rank(|_| true);
                let content = Content::File { id: ContentId([n as u8; 32]), size: n };
                (s.content, s.mtime) = Default::default();
                s.content.insert(dot, Ranked::new(rank, content));
                s.mtime.insert(dot, Ranked::new(rank, Mtime { secs: n as i64, nanos: 0 }));
            }
        }
        states[who].seen.add(dot);
    }
    states
}

fn has_seen(a: &State, b: &State) -> bool {
    a.seen.includes(&b.seen)
}

#[test]
fn merging_is_a_join_of_an_order_in_which_none_is_before_itself() {
    let mut chance = Chance(2);
    let (mut deleted, mut beside) = (0_u64, 0_u64);
    for n in 0..triples() {
        let all = histories(&mut chance);
        let whole = all[0].merge(&all[1]).merge(&all[2]);
        for [i, j, k] in ORDERS {
            let (a, b, c) = (&all[i], &all[j], &all[k]);
            let ab = a.merge(b);
            assert_eq!(ab, b.merge(a), "triple {n}: {all:?}");
            assert_eq!(a.merge(a), *a, "triple {n}");
            assert_eq!(ab.merge(c), a.merge(&b.merge(c)), "triple {n}: {all:?}");
            assert_eq!(ab.merge(c), whole, "triple {n}: {all:?}");
            // What both have seen of each other is the same; who has seen all of another has all it has.
            if has_seen(a, b) {
                assert_eq!(ab, *a, "triple {n}: {all:?}");
                assert!(!has_seen(b, a) || a == b, "triple {n}: not antisymmetric: {all:?}");
                assert!(!has_seen(b, c) || has_seen(a, c), "triple {n}: not transitive: {all:?}");
            }
            assert!(has_seen(&ab, a) && has_seen(&ab, b), "triple {n}: no upper bound");
            // A delete that has seen a version takes it from everybody, unless it was moved by one it had not seen.
            for (dot, _) in whole.content.entries() {
                let takes = |seen: &Vector| seen.covers(*dot) && !moved(&whole, seen);
                let taken = whole.gone.entries().iter().any(|(_, seen)| takes(seen));
                assert_eq!(whole.shows(*dot), !taken, "triple {n}: {all:?}");
            }
        }
        deleted += u64::from(!whole.is_blank() && !whole.alive());
        beside += u64::from(whole.versions().len() > 1);
    }
    assert!(
        deleted > triples() / 50 && beside > triples() / 50,
        "{deleted} deleted, {beside} with two versions"
    );
}

fn moved(s: &State, seen: &Vector) -> bool {
    s.place.entries().iter().any(|(dot, at)| at.value.earlier.is_some() && !seen.covers(*dot))
}
