use super::*;
use proptest::prelude::*;

const CONTENT: ContentId = ContentId([7; 32]);

fn device(n: u8) -> DeviceId {
    DeviceId([n; 32])
}

fn bits(count: usize, some: impl IntoIterator<Item = usize>) -> Bits {
    let mut bits = Bits::none(count);
    some.into_iter().for_each(|i| bits.set(i, true));
    bits
}

fn part(count: usize, here: &[usize], coming: &[usize]) -> Holding {
    Holding::Some { here: bits(count, here.iter().copied()), coming: bits(count, coming.iter().copied()) }
}

fn begun(count: usize, peers: &[u8]) -> Schedule {
    let mut schedule = Schedule::new(device(1));
    schedule.present(peers.iter().map(|n| device(*n)).collect());
    schedule.begin(CONTENT, count, Bits::none(count));
    schedule
}

#[test]
fn of_who_has_all_is_asked_what_nobody_else_has() {
    let mut s = begun(6, &[2, 3]);
    s.told(device(2), &CONTENT, Holding::All);
    s.told(device(3), &CONTENT, part(6, &[0, 1], &[2, 3]));
    let mut asked: Vec<usize> = (0..2).map(|_| s.next(device(2), 1).unwrap().first).collect();
    asked.sort_unstable();
    assert_eq!(asked, [4, 5]);
    assert!([0, 1].contains(&s.next(device(3), 1).unwrap().first));
    // Better twice than never.
    assert!(s.next(device(2), 1).is_some());
}

#[test]
fn devices_begin_at_different_places() {
    let first = |me: u8| {
        let mut s = Schedule::new(device(me));
        s.begin(CONTENT, 1000, Bits::none(1000));
        s.told(device(99), &CONTENT, Holding::All);
        s.next(device(99), 4).unwrap().first
    };
    let starts: BTreeSet<usize> = (1..20).map(first).collect();
    assert!(starts.len() > 15, "{starts:?}");
}

#[test]
fn what_a_device_keeps_waiting_for_is_asked_of_another_once_and_only_at_the_end() {
    let mut s = begun(2, &[2, 3, 4]);
    for peer in [2, 3, 4] {
        s.told(device(peer), &CONTENT, Holding::All);
    }
    let slow = s.next(device(2), 2).unwrap();
    let rest = (slow.count == 1).then(|| s.next(device(2), 2).unwrap());
    assert_eq!(s.next(device(3), 2), None);
    (0..SLOW).for_each(|_| s.tick());
    assert_eq!(s.next(device(2), 1), None, "it was asked already");
    let again: BTreeSet<usize> = (0..2).map(|_| s.next(device(3), 4).unwrap().first).collect();
    assert_eq!(again, BTreeSet::from([0, 1]));
    assert_eq!(s.next(device(4), 1), None, "no more than twice");
    assert!(s.came(&CONTENT, 0) && !s.came(&CONTENT, 0) && s.came(&CONTENT, 1));
    [Some(slow), rest].into_iter().flatten().for_each(|run| s.over(device(2), &run));
    assert!(!s.came(&CONTENT, 2), "there is no such block");
}

#[test]
fn who_does_not_give_what_it_said_it_has_is_not_asked_again() {
    let mut s = begun(4, &[2, 3]);
    s.told(device(2), &CONTENT, Holding::All);
    assert!(!s.is_stuck(&CONTENT), "the other one said nothing yet");
    let run = s.next(device(2), 4).unwrap();
    s.refuse(device(2), &CONTENT);
    s.over(device(2), &run);
    s.told(device(2), &CONTENT, Holding::All);
    assert_eq!(s.next(device(2), 4), None);
    s.told(device(3), &CONTENT, Holding::Nothing);
    assert!(s.is_stuck(&CONTENT) && !s.may_grow(&CONTENT));
    s.told(device(3), &CONTENT, part(4, &[], &[1]));
    assert!(s.is_stuck(&CONTENT) && s.may_grow(&CONTENT));
    s.told(device(3), &CONTENT, part(4, &[1], &[]));
    assert!(!s.is_stuck(&CONTENT));
    // As another run of itself it is.
    s.forget(device(2));
    assert_eq!(s.unknown(&device(2), false), [CONTENT]);
    s.told(device(2), &CONTENT, Holding::All);
    assert!(s.next(device(2), 4).is_some());
}

#[test]
fn who_has_all_is_not_asked_what_it_has_again() {
    let mut s = begun(4, &[2, 3]);
    s.told(device(2), &CONTENT, Holding::All);
    s.told(device(3), &CONTENT, part(4, &[1], &[]));
    assert!(s.unknown(&device(2), true).is_empty() && s.unknown(&device(3), false).is_empty());
    assert_eq!(s.unknown(&device(3), true), [CONTENT]);
    s.refuse(device(3), &CONTENT);
    assert!(s.unknown(&device(3), true).is_empty());
}

/// What happens to a run that is under way.
#[derive(Clone, Debug)]
enum Fate {
    Comes,
    Breaks,
    Lies,
    Waits,
}

fn fates() -> impl Strategy<Value = Vec<(u8, Fate)>> {
    let fate = prop_oneof![
        6 => Just(Fate::Comes), 1 => Just(Fate::Breaks), 1 => Just(Fate::Lies), 2 => Just(Fate::Waits)
    ];
    prop::collection::vec((2u8..6, fate), 0..200)
}

proptest! {
    /// Whatever some devices do, all blocks come as long as one that is honest has them, none is asked twice of one
    /// device at once, or of more than two, and as long as something is missing somebody can be asked.
    #[test]
    fn every_block_is_fetched(count in 1usize..60, held in prop::collection::vec(any::<u64>(), 3), fates in fates()) {
        let mut s = begun(count, &[2, 3, 4, 5]);
        let mut left: BTreeSet<usize> = (0..count).collect();
        // The last has all and is honest; the others have something.
        s.told(device(5), &CONTENT, Holding::All);
        for (peer, some) in (2..5).zip(&held) {
            let here: Vec<usize> = (0..count).filter(|i| some >> i & 1 == 1).collect();
            s.told(device(peer), &CONTENT, part(count, &here, &[]));
        }
        let mut under_way: Vec<(u8, Run)> = Vec::new();
        let honest = (0..4 * count).map(|_| (5, Fate::Comes));
        for (peer, fate) in fates.into_iter().chain(honest) {
            s.tick();
            if under_way.iter().filter(|(p, _)| *p == peer).count() < 4 && let Some(run) = s.next(device(peer), 4) {
                prop_assert!(run.count >= 1 && run.count <= 4 && run.first + run.count <= count);
                for block in run.first..run.first + run.count {
                    let of: Vec<u8> = under_way.iter().filter(|(_, r)| (r.first..r.first + r.count).contains(&block)).map(|(p, _)| *p).collect();
                    prop_assert!(of.len() < TWICE && !of.contains(&peer) && left.contains(&block));
                }
                under_way.push((peer, run));
            }
            let Some(at) = under_way.iter().position(|(p, _)| *p == peer) else { continue };
            let fate = if peer == 5 { Fate::Comes } else { fate };
            if matches!(fate, Fate::Waits) {
                continue;
            }
            let (_, run) = under_way.remove(at);
            match fate {
                Fate::Comes => (run.first..run.first + run.count).for_each(|block| {
                    let new = s.came(&CONTENT, block);
                    assert_eq!(new, left.remove(&block));
                }),
                Fate::Lies => s.refuse(device(peer), &CONTENT),
                _ => {}
            }
            s.over(device(peer), &run);
        }
        // Those that still wait give nothing, and are not waited for without end; one who has all is asked in the end.
        for (peer, run) in under_way {
            s.over(device(peer), &run);
        }
        for _ in 0..2 * SLOW + 2 * count as u64 {
            s.tick();
            while let Some(run) = s.next(device(5), 4) {
                (run.first..run.first + run.count).for_each(|block| { s.came(&CONTENT, block); left.remove(&block); });
                s.over(device(5), &run);
            }
        }
        prop_assert!(left.is_empty(), "{left:?}");
    }
}
