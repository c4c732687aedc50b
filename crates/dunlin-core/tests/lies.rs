//! Rows as only a member that lies tells them: every device makes the same of them, and none is held up.
#![allow(clippy::unwrap_used)]

use dunlin_core::codec::encode_state;
use dunlin_core::decide::{Lack, lacks_of};
use dunlin_core::ids::{ContentId, DeviceId, Dot, Incarnation, LifeId, NodeId, ROOT};
use dunlin_core::kv::Memory;
use dunlin_core::merge::{BESIDE_MAX, SEEN_MAX};
use dunlin_core::message::RowBytes;
use dunlin_core::path::Name;
use dunlin_core::rows::{Position, Rows};
use dunlin_core::session::{Speaker, Taken};
use dunlin_core::state::{Content, DotStore, Place, Ranked, State};
use dunlin_core::tree::Work;
use std::time::{Duration, Instant};

const ME: Incarnation = Incarnation([1; 16]);

fn node(n: u8) -> NodeId {
    NodeId([n; 16])
}

fn dot(who: u8, counter: u64) -> Dot {
    Dot { inc: Incarnation([who; 16]), counter }
}

fn file(n: u8, size: u64) -> Content {
    Content::File { id: ContentId([n; 32]), size }
}

fn place(parent: NodeId, name: &str) -> Place {
    Place { parent, name: Name::new(name.as_bytes()).unwrap(), earlier: None }
}

/// A version, placed in the root.
fn version(of: Dot, content: Content) -> State {
    let mut s = State::default();
    s.seen.add(of);
    s.content.insert(of, Ranked::new(1, content));
    s.place.insert(of, Ranked::new(1, place(ROOT, "f")));
    s
}

fn index() -> Memory {
    let mut index = Memory::default();
    let mut work = Work::new(&index);
    let mut totals = work.tx.totals().unwrap();
    totals.inc = ME;
    work.tx.put_totals(&totals);
    let changes = work.finish().unwrap();
    index.apply(changes);
    index
}

fn tell(index: &mut Memory, upto: u64, rows: &[(NodeId, State)], again: bool) -> Taken {
    let from = Speaker { device: DeviceId([9; 32]), inc: Incarnation([9; 16]), life: LifeId([9; 16]) };
    let bytes = |(node, s): &(NodeId, State)| RowBytes { node: *node, state: encode_state(s) };
    let rows: Vec<RowBytes> = rows.iter().map(bytes).collect();
    let mut work = Work::new(index);
    let taken = work.take_rows(&from, upto, &rows, again).unwrap().unwrap();
    let changes = work.finish().unwrap();
    index.apply(changes);
    taken
}

/// What an index holds after rows told one by one, in their order and in the other.
fn both_ways(rows: &[(NodeId, State)]) -> [Memory; 2] {
    let [mut there, mut back] = [index(), index()];
    rows.iter().for_each(|row| drop(tell(&mut there, 0, std::slice::from_ref(row), false)));
    rows.iter().rev().for_each(|row| drop(tell(&mut back, 0, std::slice::from_ref(row), false)));
    [there, back]
}

#[test]
fn sizes_that_no_sum_holds_are_no_trouble() {
    let mut s = version(dot(2, 1), file(1, i64::MAX as u64));
    for n in 3..6 {
        s = s.merge(&version(dot(n, 1), file(n, i64::MAX as u64)));
    }
    let mut index = index();
    tell(&mut index, 1, &[(node(1), s)], false);
    assert_eq!(index.need(node(1)).unwrap().unwrap().bytes, u64::MAX);
}

#[test]
fn a_version_of_a_kind_that_nobody_knows_holds_no_other_back() {
    let unknown = || version(dot(2, 1), Content::Unknown { kind: 77, bytes: vec![1].into() });
    let lacks = |s: State| {
        let mut index = index();
        tell(&mut index, 1, &[(node(1), s)], false);
        (lacks_of(&index, node(1)).unwrap(), index.totals().unwrap().need_files)
    };
    // Alone it is left as it is, and that is not in sync.
    assert_eq!(lacks(unknown()), (vec![], 1));
    let (beside, need) = lacks(unknown().merge(&version(dot(3, 1), file(1, 5))));
    assert!(matches!(&beside[..], [Lack::Create(w)] if w.content == file(1, 5)) && need == 1, "{beside:?}");
    let mut gone = unknown();
    gone.gone.insert(dot(2, 2), gone.seen.clone());
    gone.seen.add(dot(2, 2));
    assert_eq!(lacks(gone), (vec![], 0));
}

#[test]
fn what_has_no_place_is_found_in_the_root() {
    let mut lost = version(dot(2, 1), Content::Dir);
    lost.place = DotStore::default();
    let mut inside = version(dot(3, 1), file(1, 5));
    inside.place.insert(dot(3, 1), Ranked::new(1, place(node(1), "f")));
    for index in both_ways(&[(node(1), lost), (node(2), inside)]) {
        let name = Name::new(format!("lost-{}", node(1)).as_bytes()).unwrap();
        let at = Position::new(ROOT, name);
        assert_eq!(index.settled_at(&at).unwrap(), [node(1)]);
        let made = lacks_of(&index, node(1)).unwrap();
        assert!(matches!(&made[..], [Lack::Create(w)] if w.at == at), "{made:?}");
    }
}

fn absurd(from: u16, count: usize) -> State {
    let mut s = version(dot(2, 1), file(from as u8, 5));
    for i in 0..count as u16 {
        let mut inc = [7; 16];
        inc[..2].copy_from_slice(&(from + i).to_be_bytes());
        s.seen.add(Dot { inc: Incarnation(inc), counter: 5 });
    }
    s
}

#[test]
fn of_states_that_are_too_large_together_all_keep_the_same() {
    let parts = [absurd(0, SEEN_MAX / 2), absurd(2_000, SEEN_MAX - 10), absurd(4_000, SEEN_MAX - 10)];
    let rows: Vec<(NodeId, State)> = parts.into_iter().map(|s| (node(1), s)).collect();
    let [there, back] = both_ways(&rows);
    let kept = there.node(node(1)).unwrap().unwrap().state;
    assert_eq!(Some(&kept), back.node(node(1)).unwrap().map(|r| r.state).as_ref());
    assert_eq!(kept.seen.entries().len(), SEEN_MAX - 9);
}

#[test]
fn a_state_that_is_too_large_is_not_taken_at_all() {
    let mut many = version(dot(2, 1), file(0, 5));
    for n in 0..BESIDE_MAX as u64 {
        many.content.insert(dot(3, n + 1), Ranked::new(1, file(n as u8, n)));
        many.seen.add(dot(3, n + 1));
    }
    for s in [absurd(0, SEEN_MAX), many] {
        let mut index = index();
        assert_eq!(tell(&mut index, 1, &[(node(1), s)], false).news, []);
        assert_eq!(index.node(node(1)).unwrap(), None);
    }
}

/// Two directories in each other, by changes of one number.
#[test]
fn a_loop_of_equal_ages_is_cut_at_the_same_place() {
    let dir = |parent| {
        let mut s = version(dot(2, 1), Content::Dir);
        s.place.insert(dot(2, 1), Ranked::new(1, place(node(parent), "d")));
        s
    };
    let [there, back] = both_ways(&[(node(1), dir(2)), (node(2), dir(1))]);
    assert_eq!(there.cuts().unwrap(), [node(2)]);
    assert_eq!(back.cuts().unwrap(), [node(2)]);
}

#[test]
fn another_place_for_a_change_of_others_is_looked_at_for_loops() {
    let mut index = index();
    let mut s = version(dot(2, 1), Content::Dir);
    tell(&mut index, 1, &[(node(1), s.clone())], false);
    s.place.insert(dot(2, 1), Ranked::new(2, place(node(1), "d")));
    tell(&mut index, 2, &[(node(1), s)], false);
    assert_eq!(index.cuts().unwrap(), [node(1)]);
}

#[test]
fn a_row_about_changes_never_made_keeps_no_other_back_and_comes_again() {
    let mut index = index();
    let mut forged = version(dot(2, 1), file(1, 5));
    forged.seen.add(Dot { inc: ME, counter: 9 });
    let plain = version(dot(2, 2), file(2, 5));
    let taken = tell(&mut index, 7, &[(node(1), forged), (node(2), plain.clone())], false);
    assert_eq!((taken.foretold, &taken.news[..], taken.receipt.received), (true, &[node(2)][..], 0));
    assert_eq!(index.node(node(1)).unwrap(), None);
    // Nor do rows after it count as received, until all are told anew.
    assert_eq!(tell(&mut index, 9, &[(node(3), plain.clone())], true).receipt.received, 0);
    assert_eq!(tell(&mut index, 9, &[(node(4), plain)], false).receipt.received, 9);
}

/// Of all that is stored for one node and its versions: rows and bytes.
fn weight(index: &Memory) -> (usize, usize) {
    (index.0.len(), index.0.iter().map(|(k, v)| k.len() + v.len()).sum())
}

/// A state with `count` versions that stand beside each other, by changes of as many incarnations.
fn crowd(from: u32, count: u32) -> State {
    let mut s = State::default();
    for n in from..from + count {
        let mut inc = [7; 16];
        inc[..4].copy_from_slice(&n.to_be_bytes());
        let (of, mut id) = (Dot { inc: Incarnation(inc), counter: 1 }, [0; 32]);
        id[..4].copy_from_slice(&n.to_be_bytes());
        s.seen.add(of);
        s.content.insert(of, Ranked::new(1, Content::File { id: ContentId(id), size: u64::from(n) }));
        s.place.insert(of, Ranked::new(1, place(ROOT, "f")));
    }
    s
}

/// What came of so many versions of one file, told in rows of `each`.
struct Told {
    index: Memory,
    took: Duration,
    /// Rows that were news, to be told to others.
    news: usize,
    /// Bytes of one row.
    row: usize,
}

fn told(versions: u32, each: u32) -> Told {
    let mut told = Told { index: index(), took: Duration::ZERO, news: 0, row: 0 };
    let mut rows = Vec::new();
    for from in (0..versions).step_by(each as usize) {
        rows.push((node(1), crowd(from, each)));
        // As many as a message holds.
        if rows.len() == 64 || from + each >= versions {
            told.row = encode_state(&rows[0].1).len();
            let begun = Instant::now();
            told.news += tell(&mut told.index, u64::from(from), &rows, false).news.len();
            told.took += begun.elapsed();
            rows.clear();
        }
    }
    told
}

/// What is past the bound is refused: it is in no row, is no news for others, and costs no more the more there was.
/// By single versions a million take one and a half minutes: `LIES_SINGLE=1000000`.
#[test]
fn a_million_versions_of_one_file_are_bounded_and_not_spread() {
    let single = std::env::var("LIES_SINGLE").ok().and_then(|n| n.parse().ok()).unwrap_or(20_000);
    for (each, versions) in [(1, single), (50, 1_000_000), (BESIDE_MAX as u32, 1_000_000), (1_000, 1_000_000)]
    {
        let (few, many) = (told(versions / 10, each), told(versions, each));
        let state = many.index.node(node(1)).unwrap().map(|r| r.state).unwrap_or_default();
        let (kept, (rows, bytes)) = (state.content.entries().len(), weight(&many.index));
        println!(
            "{versions} versions, {each} a row: {} rows were news, {kept} versions are kept, {rows} rows, {bytes} bytes, {:?}",
            many.news, many.took
        );
        // Rows that do not fit beside what there is, or by themselves, are no news. Those that are as large as can be
        // take each other's place, as edits do.
        let expected = match each as usize {
            0..BESIDE_MAX => BESIDE_MAX / each as usize..=BESIDE_MAX / each as usize,
            BESIDE_MAX => 1..=(versions / each) as usize,
            _ => 0..=0,
        };
        assert!(expected.contains(&many.news), "{} rows were news, {each} versions a row", many.news);
        assert!(kept <= BESIDE_MAX, "{kept} versions, {each} a row");
        // What is stored is what was taken, as it is now and as it was before each change; nothing of what was refused.
        assert!(rows < 20 + 2 * many.news, "{rows} rows of {} that were news", many.news);
        assert!(bytes < (32 << 10) + 2 * many.row * many.news, "{bytes} bytes of {} rows", many.news);
        // What others are told of is one row, as it is now.
        assert!(many.index.changed_since(0, 1_000).unwrap().len() <= 1);
        assert!(encode_state(&state).len() <= dunlin_core::codec::STATE_MAX);
        // Ten times as many take ten times as long, not a hundred times.
        let least = Duration::from_millis(50);
        assert!(many.took < 30 * few.took.max(least), "{:?}, and {:?} for a tenth", many.took, few.took);
    }
}
