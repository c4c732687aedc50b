//! Rules of the project that the compiler does not know, each a test. A check is a function from
//! sources to complaints, so that each is also run on a sample that breaks its rule.

mod bugs;
mod docs;
mod imports;
mod programs;
mod purity;
mod sizes;
mod source;

/// Fails with all complaints at once.
fn hold(complaints: &[String]) {
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

/// Fails unless there is exactly one complaint, and it holds `words`.
fn caught(complaints: &[String], words: &str) {
    assert_eq!(complaints.len(), 1, "{complaints:#?}");
    assert!(complaints[0].contains(words), "{complaints:#?}");
}
