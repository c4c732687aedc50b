//! What is said of deletes that the brake holds.

use crate::control::{Deleter, Holding};
use dunlin_core::brake::Held;

/// A number for people.
fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let comma = |i: usize| i > 0 && (digits.len() - i).is_multiple_of(3);
    digits.char_indices().flat_map(|(i, c)| comma(i).then_some(',').into_iter().chain([c])).collect()
}

/// What is held, for programs; `own` is the name of this device, `others` are those who deleted some, and how many.
pub(super) fn holding(held: &Held, own: &str, others: Vec<(String, u64)>) -> Holding {
    let others = others.into_iter().map(|(device, files)| Deleter { device, here: false, files });
    let mine = (held.mine > 0).then(|| Deleter { device: own.into(), here: true, files: held.mine });
    let (deleted, overwritten, of) = (held.deletes, held.replaced, held.of);
    Holding { deleted, overwritten, of, whose: mine.into_iter().chain(others).collect() }
}

/// Who deleted how many, if that were several.
fn shares(held: &Held, others: &[(String, u64)]) -> Option<String> {
    if !held.several || held.replaced > 0 || others.is_empty() {
        return None;
    }
    let mut all: Vec<(u64, String)> =
        others.iter().map(|(name, files)| (*files, format!("{} by \"{name}\"", grouped(*files)))).collect();
    if held.mine > 0 {
        all.push((held.mine, format!("{} here", grouped(held.mine))));
    }
    all.sort_by_key(|(files, _)| std::cmp::Reverse(*files));
    let known = all.iter().map(|(files, _)| files).sum();
    let mut all: Vec<String> = all.into_iter().map(|(_, text)| text).collect();
    match held.deletes.saturating_sub(known) {
        0 => {}
        more => all.push(format!("{} more", grouped(more))),
    }
    let last = all.pop()?;
    Some(if all.is_empty() { last } else { format!("{} and {last}", all.join(", ")) })
}

/// What happened, as one line; `name` is that of the device which did it, where it is known, and `others` are all others who
/// did, with how many files.
pub(super) fn happened(held: &Held, name: Option<&str>, others: &[(String, u64)]) -> String {
    let who = match name {
        _ if held.here => "here".to_owned(),
        Some(name) => format!("by \"{name}\""),
        None => "by other devices".to_owned(),
    };
    let shares = shares(held, others);
    let and_others = if held.several && (held.here || name.is_some()) { " and by others" } else { "" };
    let [deletes, replaced, of] = [held.deletes, held.replaced, held.of].map(grouped);
    let done = grouped(held.done + held.replaced_done);
    let then = match (held.here, held.done + held.replaced_done) {
        (true, _) if held.theirs_done > 0 => {
            match (held.done + held.replaced_done).saturating_sub(held.theirs_done) {
                0 => "no other device was told of those here".to_owned(),
                told => format!("other devices were told of {} of those here only", grouped(told)),
            }
        }
        (true, 0) => "no other device was told".to_owned(),
        (true, _) => format!("other devices were told of {done} of them only"),
        (false, 0) => "nothing of it was applied here".to_owned(),
        (false, _) => format!("{done} of them went to .dunlin/history, the others stay here"),
    };
    let what = match (held.deletes, held.replaced) {
        (_, 0) => format!("{deletes} of {of} files were deleted"),
        (0, _) => format!("{replaced} of {of} files were overwritten"),
        (..) => format!("{deletes} of {of} files were deleted and {replaced} overwritten"),
    };
    let why = if held.replaced > 0 { ", more than the history here has room for" } else { "" };
    match shares {
        Some(shares) => format!("{what} within a minute, {shares}; {then}"),
        None => format!("{what} {who}{and_others} within a minute{why}; {then}"),
    }
}

/// The same with what to do; `folder` is what the command line calls the folder.
pub(super) fn text(held: &Held, name: Option<&str>, others: &[(String, u64)], folder: &str) -> String {
    let back = match (held.replaced, held.here) {
        (0, true) => "brings the files back",
        (0, false) => "brings the files back everywhere",
        _ => "brings back everywhere what was there; with room on this disk it goes on by itself",
    };
    let happens =
        if held.replaced > 0 { "lets it happen without keeping all of that" } else { "lets it happen" };
    format!("{}: dunlin resume {folder} --accept {happens}, --reject {back}", happened(held, name, others))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_is_one_line_with_what_to_do() {
        let mut held = Held { deletes: 5000, of: 5200, ..Held::default() };
        assert_eq!(
            text(&held, Some("laptop"), &[], "'/my dir'"),
            "5,000 of 5,200 files were deleted by \"laptop\" within a minute; nothing of it was applied here: \
             dunlin resume '/my dir' --accept lets it happen, --reject brings the files back everywhere"
        );
        held.done = 1_234_567;
        assert!(
            happened(&held, None, &[])
                .ends_with("1,234,567 of them went to .dunlin/history, the others stay here")
        );
        held.here = true;
        assert!(happened(&held, None, &[]).contains(
            "were deleted here within a minute; other devices were told of 1,234,567 of them only"
        ));
    }

    #[test]
    fn of_several_who_did_it_none_is_named_alone() {
        let mut held = Held { deletes: 120, of: 200, several: true, ..Held::default() };
        assert!(
            happened(&held, Some("laptop"), &[])
                .starts_with("120 of 200 files were deleted by \"laptop\" and by others within a minute; ")
        );
        assert!(happened(&held, None, &[]).contains("deleted by other devices within"));
        held.here = true;
        assert!(happened(&held, None, &[]).contains("deleted here and by others within"));
    }

    #[test]
    fn of_several_who_did_it_each_is_named_with_how_many() {
        let all = [("b".to_owned(), 190), ("c".to_owned(), 7)];
        let mut held =
            Held { deletes: 307, of: 390, done: 197, here: true, several: true, ..Held::default() };
        (held.mine, held.theirs_done) = (110, 197);
        assert_eq!(
            happened(&held, None, &all),
            "307 of 390 files were deleted within a minute, 190 by \"b\", 110 here and 7 by \"c\"; \
             no other device was told of those here"
        );
        (held.deletes, held.done) = (350, 200);
        assert_eq!(
            happened(&held, None, &all[..1]),
            "350 of 390 files were deleted within a minute, 190 by \"b\", 110 here and 50 more; \
             other devices were told of 3 of those here only"
        );
        (held.here, held.mine) = (false, 0);
        assert_eq!(
            happened(&held, Some("b"), &[("b".to_owned(), 200), ("c".to_owned(), 150)]),
            "350 of 390 files were deleted within a minute, 200 by \"b\" and 150 by \"c\"; \
             200 of them went to .dunlin/history, the others stay here"
        );
    }

    #[test]
    fn what_is_overwritten_is_said_with_why_it_is_held() {
        let mut held = Held { replaced: 150, of: 150, ..Held::default() };
        assert_eq!(
            text(&held, Some("laptop"), &[], "d"),
            "150 of 150 files were overwritten by \"laptop\" within a minute, more than the history here has room \
             for; nothing of it was applied here: dunlin resume d --accept lets it happen without keeping all of \
             that, --reject brings back everywhere what was there; with room on this disk it goes on by itself"
        );
        (held.deletes, held.replaced_done) = (20, 70);
        assert!(happened(&held, None, &[]).starts_with(
            "20 of 150 files were deleted and 150 overwritten by other devices within a minute, "
        ));
    }
}
