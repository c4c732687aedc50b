//! The project's files, and Rust text without comments, strings and tests.

use std::fs;
use std::path::{Path, PathBuf};

/// A file of the project.
pub struct Source {
    /// Its path from the project's root, with slashes.
    pub path: String,
    /// Its text.
    pub text: String,
}

impl Source {
    /// A made-up file.
    pub fn sample(path: &str, text: &str) -> Source {
        Source { path: path.into(), text: text.into() }
    }

    /// The text with comments, string and character literals blanked out; lines stay lines.
    pub fn code(&self) -> String {
        blank(&self.text)
    }

    /// The same without tests; empty for a file of tests.
    pub fn code_without_tests(&self) -> String {
        if self.is_test() { String::new() } else { cut_tests(&self.code()) }
    }

    /// Whether the whole file is tests.
    pub fn is_test(&self) -> bool {
        self.path.contains("/tests/") || self.path.ends_with("/tests.rs")
    }

    /// The path below `crates/<name>/src/`, if it is there.
    pub fn within(&self, name: &str) -> Option<&str> {
        self.path.strip_prefix("crates/")?.strip_prefix(name)?.strip_prefix("/src/")
    }
}

/// The project's root.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

/// All files of the project with this extension, in order.
pub fn files(extension: &str) -> Vec<Source> {
    let (root, mut out) = (root(), Vec::new());
    let mut todo = vec![root.clone()];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() {
                if !name.starts_with('.') && name != "target" {
                    todo.push(path);
                }
            } else if path.extension().is_some_and(|e| e == extension) {
                let text = fs::read_to_string(&path).unwrap();
                let path = path.strip_prefix(&root).unwrap().to_string_lossy().into_owned();
                out.push(Source { path, text });
            }
        }
    }
    out.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(!out.is_empty(), "no .{extension} file found below {}", root.display());
    out
}

/// Where the thing that begins at `at` ends: behind the brace that closes it, or its semicolon.
pub fn end_of_item(code: &str, at: usize) -> usize {
    let (mut braces, mut others) = (0i32, 0i32);
    for (i, c) in code[at..].char_indices() {
        match c {
            '(' | '[' => others += 1,
            ')' | ']' => others -= 1,
            '{' => braces += 1,
            '}' => {
                braces -= 1;
                if braces <= 0 {
                    return at + i + 1;
                }
            }
            ';' if braces == 0 && others == 0 => return at + i + 1,
            _ => {}
        }
    }
    code.len()
}

fn cut_tests(code: &str) -> String {
    let (mut out, mut rest) = (String::new(), code);
    while let Some(at) = rest.find("#[cfg(test)]") {
        let end = end_of_item(rest, at + "#[cfg(test)]".len());
        out.push_str(&rest[..at]);
        out.extend(rest[at..end].chars().filter(|c| *c == '\n'));
        rest = &rest[end..];
    }
    out + rest
}

fn blank(text: &str) -> String {
    let all: Vec<char> = text.chars().collect();
    let (mut out, mut i) = (String::with_capacity(text.len()), 0);
    while i < all.len() {
        let end = match literal_end(&all, i) {
            Some(end) => end,
            None => {
                out.push(all[i]);
                i += 1;
                continue;
            }
        };
        out.extend(all[i..end].iter().map(|c| if *c == '\n' { '\n' } else { ' ' }));
        i = end;
    }
    out
}

/// Where the comment or literal that begins at `i` ends, if one does.
fn literal_end(all: &[char], i: usize) -> Option<usize> {
    let at = |k: usize| all.get(k).copied().unwrap_or('\0');
    let word = |c: char| c.is_alphanumeric() || c == '_';
    match at(i) {
        '/' if at(i + 1) == '/' => Some(find(all, i, |k| at(k) == '\n')),
        '/' if at(i + 1) == '*' => Some(block_end(all, i)),
        '"' => Some(string_end(all, i + 1)),
        'r' if i == 0 || !word(at(i - 1)) || (at(i - 1) == 'b' && (i == 1 || !word(at(i - 2)))) => {
            let quote = find(all, i + 1, |k| at(k) != '#');
            let hashes = quote - i - 1;
            let closes = |k: usize| at(k) == '"' && (1..=hashes).all(|n| at(k + n) == '#');
            (at(quote) == '"').then(|| find(all, quote + 1, closes) + hashes + 1)
        }
        '\'' if at(i + 1) == '\\' => Some(find(all, i + 3, |k| at(k) == '\'') + 1),
        '\'' if at(i + 2) == '\'' => Some(i + 3),
        _ => None,
    }
    .map(|end| end.min(all.len()))
}

fn find(all: &[char], from: usize, is: impl Fn(usize) -> bool) -> usize {
    (from..all.len()).find(|k| is(*k)).unwrap_or(all.len())
}

fn string_end(all: &[char], from: usize) -> usize {
    let mut k = from;
    while k < all.len() && all[k] != '"' {
        k += if all[k] == '\\' { 2 } else { 1 };
    }
    k + 1
}

fn block_end(all: &[char], from: usize) -> usize {
    let (mut k, mut depth) = (from, 0);
    while k + 1 < all.len() {
        match (all[k], all[k + 1]) {
            ('/', '*') => (depth, k) = (depth + 1, k + 2),
            ('*', '/') => (depth, k) = (depth - 1, k + 2),
            _ => k += 1,
        }
        if depth == 0 {
            return k;
        }
    }
    all.len()
}

#[test]
fn comments_literals_and_tests_are_no_code() {
    let text = r##"
a // println!
/* b /* c */ d */ e "f\"g" r#"h"i"# b"j" 'k' '\'' 'life fn l<'m>()
#[cfg(test)]
mod tests { fn n() { o } }
#[cfg(test)]
mod more;
p
"##;
    let code = Source::sample("x.rs", text).code_without_tests();
    let words: Vec<&str> = code.split_whitespace().collect();
    assert_eq!(words, ["a", "e", "b", "'life", "fn", "l<'m>()", "p"]);
    assert_eq!(code.lines().count(), text.lines().count());
    assert_eq!(Source::sample("crates/x/src/y/tests.rs", "a").code_without_tests(), "");
}
