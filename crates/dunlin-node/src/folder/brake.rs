//! What is said of deletes that the brake holds.

use dunlin_core::brake::Held;

/// A number for people.
fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let comma = |i: usize| i > 0 && (digits.len() - i).is_multiple_of(3);
    digits.char_indices().flat_map(|(i, c)| comma(i).then_some(',').into_iter().chain([c])).collect()
}

/// What happened, as one line; `name` is that of the device which did it, where it is known.
pub(super) fn happened(held: &Held, name: Option<&str>) -> String {
    let who = match name {
        _ if held.here => "here".to_owned(),
        Some(name) => format!("by \"{name}\""),
        None => "by other devices".to_owned(),
    };
    let others = if held.several && (held.here || name.is_some()) { " and by others" } else { "" };
    let [deletes, replaced, of] = [held.deletes, held.replaced, held.of].map(grouped);
    let done = grouped(held.done + held.replaced_done);
    let then = match (held.here, held.done + held.replaced_done) {
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
    format!("{what} {who}{others} within a minute{why}; {then}")
}

/// The same with what to do; `folder` is what the command line calls the folder.
pub(super) fn text(held: &Held, name: Option<&str>, folder: &str) -> String {
    let back = match (held.replaced, held.here) {
        (0, true) => "brings the files back",
        (0, false) => "brings the files back everywhere",
        _ => "brings back everywhere what was there; with room on this disk it goes on by itself",
    };
    let happens =
        if held.replaced > 0 { "lets it happen without keeping all of that" } else { "lets it happen" };
    format!("{}: dunlin resume {folder} --accept {happens}, --reject {back}", happened(held, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_is_one_line_with_what_to_do() {
        let mut held = Held { deletes: 5000, of: 5200, ..Held::default() };
        assert_eq!(
            text(&held, Some("laptop"), "'/my dir'"),
            "5,000 of 5,200 files were deleted by \"laptop\" within a minute; nothing of it was applied here: \
             dunlin resume '/my dir' --accept lets it happen, --reject brings the files back everywhere"
        );
        held.done = 1_234_567;
        assert!(
            happened(&held, None)
                .ends_with("1,234,567 of them went to .dunlin/history, the others stay here")
        );
        held.here = true;
        assert!(happened(&held, None).contains(
            "were deleted here within a minute; other devices were told of 1,234,567 of them only"
        ));
    }

    #[test]
    fn of_several_who_did_it_none_is_named_alone() {
        let mut held = Held { deletes: 120, of: 200, several: true, ..Held::default() };
        assert!(
            happened(&held, Some("laptop"))
                .starts_with("120 of 200 files were deleted by \"laptop\" and by others within a minute; ")
        );
        assert!(happened(&held, None).contains("deleted by other devices within"));
        held.here = true;
        assert!(happened(&held, None).contains("deleted here and by others within"));
    }

    #[test]
    fn what_is_overwritten_is_said_with_why_it_is_held() {
        let mut held = Held { replaced: 150, of: 150, ..Held::default() };
        assert_eq!(
            text(&held, Some("laptop"), "d"),
            "150 of 150 files were overwritten by \"laptop\" within a minute, more than the history here has room \
             for; nothing of it was applied here: dunlin resume d --accept lets it happen without keeping all of \
             that, --reject brings back everywhere what was there; with room on this disk it goes on by itself"
        );
        (held.deletes, held.replaced_done) = (20, 70);
        assert!(happened(&held, None).starts_with(
            "20 of 150 files were deleted and 150 overwritten by other devices within a minute, "
        ));
    }
}
