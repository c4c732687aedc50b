//! When two names are one to a file system.

use dunlin_core::path::Name;
use std::borrow::Cow;

/// How a file system looks names up. What it stores is the name as it was given, but where it decomposes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Names {
    /// Byte by byte, as on Linux.
    #[default]
    Exact,
    /// Letters without regard to their case.
    CaseBlind,
    /// Without regard to whether accents are composed with their letters (for what is in a table of
    /// common Latin letters).
    NfdBlind,
    /// The same, and what is stored is decomposed, as on HFS+.
    Decomposes,
}

impl Names {
    /// Whether both name the same entry.
    pub fn same(self, a: &Name, b: &Name) -> bool {
        if self == Names::Exact || a == b {
            return a == b;
        }
        // Nearly all names are that; only their case can differ.
        if a.as_bytes().is_ascii() && b.as_bytes().is_ascii() {
            return self == Names::CaseBlind && a.as_bytes().eq_ignore_ascii_case(b.as_bytes());
        }
        match (std::str::from_utf8(a.as_bytes()), std::str::from_utf8(b.as_bytes())) {
            (Ok(a), Ok(b)) if self == Names::CaseBlind => {
                a.chars().flat_map(char::to_lowercase).eq(b.chars().flat_map(char::to_lowercase))
            }
            (Ok(a), Ok(b)) => a.chars().flat_map(decompose).eq(b.chars().flat_map(decompose)),
            // What is no text has no letters.
            _ => false,
        }
    }
}

impl Names {
    /// The name under which an entry is stored.
    pub fn stored(self, name: &Name) -> Cow<'_, Name> {
        match std::str::from_utf8(name.as_bytes()) {
            Ok(text) if self == Names::Decomposes && !text.is_ascii() => {
                let text: String = text.chars().flat_map(decompose).collect();
                // Longer than a name may be it is kept as it is: no name of a workload is.
                Name::new(text.as_bytes()).map_or(Cow::Borrowed(name), Cow::Owned)
            }
            _ => Cow::Borrowed(name),
        }
    }
}

/// For each combining mark the letters it is composed with, and what they are composed to.
const COMPOSED: &[(char, &str, &str)] = &[
    ('\u{300}', "AEIOUaeiou", "ÀÈÌÒÙàèìòù"),
    ('\u{301}', "AEIOUYaeiouy", "ÁÉÍÓÚÝáéíóúý"),
    ('\u{302}', "AEIOUaeiou", "ÂÊÎÔÛâêîôû"),
    ('\u{303}', "ANOano", "ÃÑÕãñõ"),
    ('\u{308}', "AEIOUaeiouy", "ÄËÏÖÜäëïöüÿ"),
    ('\u{30a}', "Aa", "Åå"),
    ('\u{327}', "Cc", "Çç"),
];

fn decompose(c: char) -> impl Iterator<Item = char> {
    let found = COMPOSED.iter().find_map(|(mark, letters, composed)| {
        let at = composed.chars().position(|x| x == c)?;
        Some((letters.chars().nth(at)?, *mark))
    });
    let (first, mark) = found.map_or((c, None), |(letter, mark)| (letter, Some(mark)));
    std::iter::once(first).chain(mark)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_one_or_two() {
        let same = |how: Names, a: &str, b: &str| {
            how.same(&Name::new(a.as_bytes()).unwrap(), &Name::new(b.as_bytes()).unwrap())
        };
        for (a, b, exact, case, nfd) in [
            ("a", "a", true, true, true),
            ("a", "A", false, true, false),
            ("\u{e9}", "e\u{301}", false, false, true),
            ("\u{c9}x", "\u{e9}X", false, true, false),
            ("a", "b", false, false, false),
        ] {
            assert_eq!(same(Names::Exact, a, b), exact, "{a} {b}");
            assert_eq!(same(Names::CaseBlind, a, b), case, "{a} {b}");
            assert_eq!(same(Names::NfdBlind, a, b), nfd, "{a} {b}");
        }
        let raw = |b: &[u8]| Name::new(b).unwrap();
        assert!(!Names::CaseBlind.same(&raw(b"\xffa"), &raw(b"\xffA")));
    }
}
