//! Ratchets: what is too long already may only shrink.

use super::source::{Source, end_of_item, files};
use super::{caught, hold};

/// The most lines of a file.
const FILE_MAX: usize = 500;
/// The most lines of a function, its signature included.
const FUNCTION_MAX: usize = 70;

/// Files that are longer, with their length.
const LONG_FILES: &[(&str, usize)] = &[("crates/dunlin-core/tests/common/mod.rs", 548)];

/// Functions that are longer, with their length.
const LONG_FUNCTIONS: &[(&str, usize)] = &[
    ("crates/dunlin-core/tests/common/mod.rs::carry_out", 71),
    ("crates/dunlin-core/tests/properties.rs::act", 73),
];

/// What is longer than `max` and not known to be, or longer than known; and what is known too long.
fn ratchet(what: &str, max: usize, known: &[(&str, usize)], found: &[(String, usize)]) -> Vec<String> {
    let mut out = Vec::new();
    for (name, lines) in found.iter().filter(|f| f.1 > max) {
        match known.iter().find(|(n, _)| n == name) {
            None => out.push(format!("{name}: {lines} lines; a {what} has at most {max}")),
            Some((_, was)) if lines > was => {
                out.push(format!("{name}: {lines} lines; it had {was} and may only shrink"));
            }
            // A little room, so that not every line taken away is a change of this list.
            Some((_, was)) if lines + was / 20 < *was => {
                out.push(format!("{name}: {lines} lines, no longer {was}: lower it in the list"));
            }
            Some(_) => {}
        }
    }
    let is_long = |name: &str| found.iter().any(|(n, lines)| n == name && *lines > max);
    let over = known.iter().filter(|(name, _)| !is_long(name));
    out.extend(over.map(|(name, _)| format!("{name} is not too long any more: take it off the list")));
    out
}

fn lengths(sources: &[Source]) -> Vec<(String, usize)> {
    sources.iter().map(|s| (s.path.clone(), s.text.lines().count())).collect()
}

/// Functions as `path::name`, with their lines.
fn functions(s: &Source) -> Vec<(String, usize)> {
    let code = s.code();
    let word = |c: char| c.is_alphanumeric() || c == '_';
    let mut out = Vec::new();
    for (at, _) in code.match_indices("fn ") {
        let name: String = code[at + 3..].chars().take_while(|c| word(*c)).collect();
        if !name.is_empty() && !code[..at].ends_with(word) {
            let text = &code[at..end_of_item(&code, at)];
            out.push((format!("{}::{name}", s.path), text.lines().count()));
        }
    }
    out
}

#[test]
fn files_are_short() {
    hold(&ratchet("file", FILE_MAX, LONG_FILES, &lengths(&files("rs"))));
}

#[test]
fn functions_are_short() {
    let all: Vec<_> = files("rs").iter().flat_map(functions).collect();
    assert!(all.len() > 500, "only {} functions found", all.len());
    hold(&ratchet("function", FUNCTION_MAX, LONG_FUNCTIONS, &all));
}

#[test]
fn the_ratchet_turns_one_way() {
    let found = |lines| [("a.rs".to_owned(), lines)];
    caught(&ratchet("file", 500, &[], &found(501)), "at most 500");
    caught(&ratchet("file", 500, &[("a.rs", 600)], &found(601)), "may only shrink");
    caught(&ratchet("file", 500, &[("a.rs", 600)], &found(520)), "lower it");
    caught(&ratchet("file", 500, &[("a.rs", 600)], &found(500)), "take it off");
    caught(&ratchet("file", 500, &[("b.rs", 600)], &found(1)), "take it off");
    hold(&ratchet("file", 500, &[("a.rs", 600)], &found(590)));
}

#[test]
fn functions_are_measured() {
    let text =
        "fn a(b: [u8; 2]) -> u8 {\n  \"}\";\n  1\n}\ntrait T {\n  fn c(&self)\n  where Self: Sized;\n}\n";
    let found = functions(&Source::sample("x.rs", text));
    assert_eq!(found, [("x.rs::a".to_owned(), 4), ("x.rs::c".to_owned(), 2)]);
    let long = format!("fn long() {{\n{}}}\n", "x;\n".repeat(69));
    caught(&ratchet("function", 70, &[], &functions(&Source::sample("x.rs", &long))), "x.rs::long: 71");
}
