//! Who belongs to a folder, and which deletes were accepted: what a set of signed statements amounts to.
//!
//! The creator is admitted by the folder's own key, everyone else by a member. The order in which
//! statements arrive does not matter.

use crate::ids::{DeviceId, DotRange, FolderId};
use crate::message::{Claim, RANGES_MAX, RELEASES_MAX, Release, Statement};
use crate::state::COUNTER_MAX;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;

/// The role of a member who may do everything.
pub const ROLE_ALL: u8 = 1;
/// The role in a claim that is about no member.
pub const ROLE_NONE: u8 = 0;

/// The members and their names. `verify` checks a signature: (key, claim, signature).
pub fn members(
    folder: FolderId,
    statements: &[Statement],
    verify: impl Fn(&DeviceId, &[u8], &[u8]) -> bool,
) -> BTreeMap<DeviceId, String> {
    let claims: Vec<Claim> = statements
        .iter()
        .filter_map(|s| {
            let claim: Claim = minicbor::decode(&s.claim).ok()?;
            let fits = claim.folder == folder && claim.name.len() <= crate::message::DEVICE_NAME_MAX;
            (fits && verify(&claim.by, &s.claim, &s.signature)).then_some(claim)
        })
        .collect();
    let mut out: BTreeMap<DeviceId, String> = BTreeMap::new();
    loop {
        let before = out.len();
        for c in &claims {
            let may = c.by.0 == folder.0 || out.contains_key(&c.by);
            if may && c.role == ROLE_ALL {
                // Of several statements about one device the same one counts everywhere.
                let name = out.entry(c.device).or_insert_with(|| c.name.clone());
                if c.name < *name {
                    name.clone_from(&c.name);
                }
            }
        }
        if out.len() == before {
            return out;
        }
    }
}

/// A release with the statement it came as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Released {
    /// As it was signed.
    pub statement: Statement,
    /// What it releases.
    pub release: Release,
}

/// The release that a statement claims; nothing is said of who signed it.
pub fn claimed_release(statement: &Statement) -> Option<(Claim, Release)> {
    let claim: Claim = minicbor::decode(&statement.claim).ok()?;
    let release = claim.release.clone()?;
    Some((claim, release))
}

/// The releases that count and are kept, the newest first: signed by a member, and the highest numbers of
/// them; without those that a newer one says again. Whoever has heard the same statements keeps the same ones,
/// whatever came first.
pub fn releases(
    folder: FolderId,
    members: &BTreeMap<DeviceId, String>,
    statements: &[Statement],
    verify: impl Fn(&DeviceId, &[u8], &[u8]) -> bool,
) -> Vec<Released> {
    let sound = |r: &Release| {
        let sound = |r: &DotRange| 0 < r.first && r.first <= r.last && r.last <= COUNTER_MAX;
        r.number <= COUNTER_MAX && (1..=RANGES_MAX).contains(&r.ranges.len()) && r.ranges.iter().all(sound)
    };
    let distinct: BTreeSet<&Statement> = statements.iter().collect();
    let mut all = Vec::new();
    for s in distinct {
        let Some((claim, release)) = claimed_release(s) else { continue };
        let fits = claim.folder == folder && claim.role == ROLE_NONE && claim.name.is_empty();
        let may = fits && members.contains_key(&claim.by) && claim.device == claim.by && sound(&release);
        if may && claim.after.is_empty() && verify(&claim.by, &s.claim, &s.signature) {
            all.push(Released { statement: s.clone(), release });
        }
    }
    all.sort_by(|a, b| (b.release.number, &b.statement).cmp(&(a.release.number, &a.statement)));
    let mut out: Vec<Released> = Vec::new();
    for r in all {
        let says =
            |wanted: &DotRange| out.iter().any(|o| o.release.ranges.iter().any(|r| r.includes(wanted)));
        if out.len() < RELEASES_MAX && !r.release.ranges.iter().all(says) {
            out.push(r);
        }
    }
    out
}

/// The claims by which `by` accepts the deletes in `ranges`, given the releases known. Each takes over known
/// ones that it touches, so that those need not be kept.
pub fn accept(folder: FolderId, by: DeviceId, ranges: &[DotRange], known: &[Released]) -> Vec<Claim> {
    let before = known.iter().map(|r| r.release.number).max().unwrap_or(0);
    let wanted: Vec<DotRange> = ranges.iter().map(|r| joined(*r, known)).collect();
    let claim = |(i, some): (usize, &[DotRange])| Claim {
        folder,
        device: by,
        name: String::new(),
        by,
        role: ROLE_NONE,
        after: Vec::new(),
        release: Some(Release { number: (before + 1 + i as u64).min(COUNTER_MAX), ranges: some.to_vec() }),
    };
    wanted.chunks(RANGES_MAX).enumerate().map(claim).collect()
}

/// A range with all known ones that overlap it or stand next to it.
fn joined(mut range: DotRange, known: &[Released]) -> DotRange {
    loop {
        let touches = |r: &&DotRange| {
            r.inc == range.inc
                && r.first <= range.last.saturating_add(1)
                && range.first <= r.last.saturating_add(1)
        };
        let near = known.iter().flat_map(|k| &k.release.ranges).filter(touches);
        let wider = DotRange {
            inc: range.inc,
            first: near.clone().map(|r| r.first).min().map_or(range.first, |f| f.min(range.first)),
            last: near.map(|r| r.last).max().map_or(range.last, |l| l.max(range.last)),
        };
        if wider == range {
            return range;
        }
        range = wider;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Incarnation;
    use alloc::string::ToString;
    use alloc::vec;
    use proptest::prelude::*;

    fn admit(folder: u8, device: u8, by: u8) -> Statement {
        let claim = Claim {
            folder: FolderId([folder; 32]),
            device: DeviceId([device; 32]),
            name: device.to_string(),
            by: DeviceId([by; 32]),
            role: ROLE_ALL,
            after: vec![],
            release: None,
        };
        Statement { claim: minicbor::to_vec(&claim).unwrap(), signature: vec![by] }
    }

    fn who(statements: &[Statement]) -> Vec<u8> {
        let verify = |by: &DeviceId, _: &[u8], signature: &[u8]| signature == [by.0[0]];
        members(FolderId([9; 32]), statements, verify).keys().map(|d| d.0[0]).collect()
    }

    #[test]
    fn membership_passes_from_the_creator_in_any_order() {
        let chain = [admit(9, 1, 9), admit(9, 2, 1), admit(9, 3, 2)];
        assert_eq!(who(&chain), [1, 2, 3]);
        assert_eq!(who(&[chain[2].clone(), chain[1].clone(), chain[0].clone()]), [1, 2, 3]);
    }

    #[test]
    fn strangers_forgers_and_other_folders_admit_nobody() {
        assert_eq!(who(&[admit(9, 1, 9), admit(9, 2, 5)]), [1]);
        assert_eq!(who(&[admit(9, 1, 9), admit(8, 2, 1)]), [1]);
        let mut forged = admit(9, 2, 1);
        forged.signature = vec![7];
        assert_eq!(who(&[admit(9, 1, 9), forged]), [1]);
        assert_eq!(who(&[admit(9, 1, 2), admit(9, 2, 1)]), [0u8; 0]);
    }
    fn range(inc: u8, first: u64, last: u64) -> DotRange {
        DotRange { inc: Incarnation([inc; 16]), first, last }
    }

    fn signed(claim: &Claim) -> Statement {
        Statement { claim: minicbor::to_vec(claim).unwrap(), signature: vec![claim.by.0[0]] }
    }

    fn release(by: u8, number: u64, ranges: &[DotRange]) -> Statement {
        let one = [range(0, 1, 1)];
        let mut claim = accept(FolderId([9; 32]), DeviceId([by; 32]), &one, &[]).remove(0);
        claim.release = Some(Release { number, ranges: ranges.to_vec() });
        signed(&claim)
    }

    fn kept(statements: &[Statement]) -> Vec<Released> {
        let members = [1, 2].map(|d| (DeviceId([d; 32]), String::new())).into();
        let verify = |by: &DeviceId, _: &[u8], signature: &[u8]| signature == [by.0[0]];
        releases(FolderId([9; 32]), &members, statements, verify)
    }

    fn numbers(statements: &[Statement]) -> Vec<u64> {
        kept(statements).iter().map(|r| r.release.number).collect()
    }

    #[test]
    fn only_members_release_deletes() {
        let good = release(1, 1, &[range(5, 1, 9)]);
        assert_eq!(numbers(core::slice::from_ref(&good)), [1]);
        let mut forged = release(2, 2, &[range(5, 10, 19)]);
        forged.signature = vec![7];
        let stranger = release(3, 3, &[range(5, 20, 29)]);
        let mut of_another = claimed_release(&good).unwrap().0;
        of_another.folder = FolderId([8; 32]);
        let folders_key = release(9, 4, &[range(5, 30, 39)]);
        let all = [forged, stranger, signed(&of_another), folders_key];
        assert_eq!(numbers(&all), [0u64; 0]);
        for bad in [range(5, 0, 1), range(5, 3, 2), range(5, 1, COUNTER_MAX + 1)] {
            assert_eq!(numbers(&[release(1, 1, &[bad])]), [0u64; 0]);
        }
        assert_eq!(numbers(&[release(1, COUNTER_MAX + 1, &[range(5, 1, 9)]), release(1, 1, &[])]), [0u64; 0]);
        assert_eq!(
            numbers(&[release(1, 1, &(0..17).map(|i| range(i, 1, 2)).collect::<Vec<_>>())]),
            [0u64; 0]
        );
    }

    #[test]
    fn a_release_admits_nobody_and_an_admission_releases_nothing() {
        let claim = accept(FolderId([9; 32]), DeviceId([1; 32]), &[range(5, 1, 9)], &[]).remove(0);
        assert_eq!(
            who(&[admit(9, 1, 9), signed(&Claim { device: DeviceId([4; 32]), ..claim.clone() })]),
            [1]
        );
        assert_eq!(numbers(&[signed(&Claim { role: ROLE_ALL, ..claim })]), [0u64; 0]);
        // Admissions are written as before there were releases.
        assert_eq!(admit(9, 2, 1).claim[0], 0x80 | 6);
    }

    #[test]
    fn the_newest_releases_are_kept_and_what_a_newer_one_says_again_is_not() {
        let many: Vec<Statement> =
            (1..=300).map(|n| release(1, n, &[range(5, 10 * n, 10 * n + 1)])).collect();
        let numbers = numbers(&many);
        assert_eq!((numbers.len(), numbers[0], numbers[255]), (RELEASES_MAX, 300, 45));
        let all = kept(&many[..3]);
        // It reaches the one before and the one after, and takes over both.
        let next = accept(FolderId([9; 32]), DeviceId([2; 32]), &[range(5, 12, 29), range(6, 1, 1)], &all);
        let ranges = next[0].release.clone().unwrap();
        assert_eq!((ranges.number, &ranges.ranges[..]), (4, &[range(5, 10, 31), range(6, 1, 1)][..]));
        let both = [&many[..3], &[signed(&next[0])]].concat();
        assert_eq!(kept(&both).iter().map(|r| r.release.number).collect::<Vec<_>>(), [4]);
        let wide: Vec<DotRange> = (0..40).map(|i| range(i, 1, 2)).collect();
        let claims = accept(FolderId([9; 32]), DeviceId([2; 32]), &wide, &[]);
        assert_eq!(kept(&claims.iter().map(signed).collect::<Vec<_>>()).len(), 3);
    }

    proptest! {
        /// What is kept of statements that came bit by bit is what is kept of all at once.
        #[test]
        fn what_came_first_does_not_matter(
            all in prop::collection::vec((1u8..3, 0u64..6, 1u8..3, 1u64..6, 0u64..4), 0..12),
            cut in 0usize..12,
        ) {
            let all: Vec<Statement> = all
                .into_iter()
                .map(|(by, number, inc, first, more)| release(by, number, &[range(inc, first, first + more)]))
                .collect();
            let (a, b) = all.split_at(cut.min(all.len()));
            let of = |s: &[Statement]| kept(s).into_iter().map(|r| r.statement).collect::<Vec<_>>();
            prop_assert_eq!(of(&[of(b), of(a)].concat()), of(&all));
        }
    }
}
