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
    let (deletes, of) = (grouped(held.deletes), grouped(held.of));
    let then = match (held.here, held.done) {
        (true, 0) => "no other device was told".to_owned(),
        (true, done) => format!("other devices were told of {} of them only", grouped(done)),
        (false, 0) => "nothing of it was applied here".to_owned(),
        (false, done) => format!("{} of them went to .dunlin/history, the others stay here", grouped(done)),
    };
    format!("{deletes} of {of} files were deleted {who} within a minute; {then}")
}

/// The same with what to do; `folder` is what the command line calls the folder.
pub(super) fn text(held: &Held, name: Option<&str>, folder: &str) -> String {
    let back = if held.here { "brings the files back" } else { "brings the files back everywhere" };
    format!("{}: dunlin resume {folder} --accept lets it happen, --reject {back}", happened(held, name))
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
}
