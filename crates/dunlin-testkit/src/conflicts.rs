//! The table of docs/conflicts.md as acts and what they become: run in the simulator and by real nodes.

use std::collections::BTreeMap;

/// A row: what two devices do while they cannot hear each other, and what all show afterwards.
pub struct Row {
    /// What is done on the one, as the document says it.
    pub here: &'static str,
    /// What is done on the other.
    pub there: &'static str,
    /// Acts before, whose outcome both have, separated by `;`. None of it: the two were never connected before.
    pub before: Option<&'static str>,
    /// Acts here and there, before they meet again. At `look` the device has seen what was done so far.
    pub first: (&'static str, &'static str),
    /// Acts here and there after that, before they meet once more.
    pub then: (&'static str, &'static str),
    /// What may show: `path word` for everything, separated by `,`. The word of a file is the number of its
    /// content, of a directory `/`; `m700` asks for these bits, `t5` for this time, `!t5` for another one. A
    /// conflict copy is called `~`. One of them must be what shows.
    pub shows: &'static [&'static str],
}

/// A name in acts and trees that stands for one of 255 bytes.
const LONGEST: &str = "LONG";

/// All rows, in the order of the document.
pub const ROWS: &[Row] = &[
    row("edit", "nothing", "write f 1", "save f 2", "", &["f 2"]),
    row("edit", "edit, other bytes", "write f 1", "save f 2", "save f 3", &["f 2, ~ 3", "f 3, ~ 2"]),
    row("edit", "edit, same bytes", "write f 1", "save f 2", "save f 2", &["f 2"]),
    row("edit", "delete", "write f 1", "save f 2", "remove f", &["f 2"]),
    row("edit", "move", "write f 1", "save f 2", "move f g", &["g 2"]),
    row("edit", "chmod or touch", "write f 1; chmod f 644", "write f 2", "chmod f 700", &["f 2 m700"]),
    row(
        "edit",
        "directory in its place",
        "write f 1",
        "save f 2",
        "remove f; mkdir f; write f/x 3",
        &["f /, f/x 3, ~ 2"],
    ),
    row("move", "delete", "write f 1", "move f g", "remove f", &["g 1"]),
    row("move", "move of the same, elsewhere", "write f 1", "move f g", "move f h", &["g 1", "h 1"]),
    row(
        "move A into B",
        "move B into A",
        "mkdir a; write a/x 1; mkdir b; write b/y 2",
        "move a b/a",
        "move b a/b",
        &["b /, b/a /, b/a/x 1, b/y 2", "a /, a/b /, a/b/y 2, a/x 1"],
    ),
    row(
        "two such loops at once",
        "",
        "mkdir a; write a/x 1; mkdir b; mkdir c; write c/y 2; mkdir d",
        "move a b/a; move c d/c",
        "move b a/b; move d c/d",
        &[
            "b /, b/a /, b/a/x 1, d /, d/c /, d/c/y 2",
            "b /, b/a /, b/a/x 1, c /, c/d /, c/y 2",
            "a /, a/b /, a/x 1, d /, d/c /, d/c/y 2",
            "a /, a/b /, a/x 1, c /, c/d /, c/y 2",
        ],
    ),
    row(
        "move A into B, and B into C",
        "move C into A",
        "mkdir a; write a/x 1; mkdir b; write b/y 2; mkdir c; write c/z 3",
        "move b c/b; move a c/b/a",
        "move c a/c",
        &[
            "c /, c/b /, c/b/a /, c/b/a/x 1, c/b/y 2, c/z 3",
            "a /, a/c /, a/c/b /, a/c/b/y 2, a/c/z 3, a/x 1",
            "b /, b/a /, b/a/c /, b/a/c/z 3, b/a/x 1, b/y 2",
        ],
    ),
    row(
        "two names exchanged",
        "edit of one of them",
        "write f 1; write g 2",
        "exchange f g",
        "save f 3",
        &["f 2, g 1, ~ 3", "f 3, g 1, ~ 2"],
    ),
    row(
        "three names gone round",
        "edit of one of them",
        "write f 1; write g 2; write h 3",
        "move f aside; move h f; move g h; move aside g",
        "save f 4",
        &["f 3, g 1, h 2, ~ 4", "f 4, g 1, h 2, ~ 3"],
    ),
    row(
        "move of a directory",
        "delete of it",
        "mkdir d; write d/x 1; write d/y 2",
        "move d e",
        "remove d",
        &["e /"],
    ),
    row(
        "move out of a directory",
        "delete of it",
        "mkdir d; write d/x 1; write d/y 2",
        "move d/x x",
        "remove d",
        &["x 1"],
    ),
    row(
        "move of a directory",
        "creation and edit in it",
        "mkdir d; write d/x 1; write d/y 2",
        "move d e",
        "write d/z 3; save d/x 4",
        &["e /, e/x 4, e/y 2, e/z 3"],
    ),
    row(
        "delete of a directory",
        "edit or creation in it",
        "mkdir d; write d/x 1; write d/y 2",
        "remove d",
        "save d/x 3; write d/z 4",
        &["d /, d/x 3, d/z 4"],
    ),
    row("delete", "delete", "write f 1; write g 2", "remove f", "remove f", &["g 2"]),
    row(
        "delete",
        "the same bytes written or moved there again",
        "write f 1",
        "remove f",
        "remove f; look; write f 1",
        &["f 1"],
    ),
    row("delete", "created anew, same name", "write f 1", "remove f", "remove f; write f 2", &["f 2"]),
    row(
        "chmod",
        "touch",
        "write f 1; chmod f 644",
        "chmod f 700",
        "touch f 1000000000",
        &["f 1 m700 t1000000000"],
    ),
    row("chmod", "chmod, other bits", "write f 1", "chmod f 700", "chmod f 755", &["f 1 m700", "f 1 m755"]),
    Row {
        here: "touch of the file that keeps the name",
        there: "its conflict copy",
        before: Some("write f 1"),
        first: ("save f 2", "save f 3"),
        then: ("touch f 1000000000", ""),
        shows: &["f 2 t1000000000, ~ 3 !t1000000000", "f 3 t1000000000, ~ 2 !t1000000000"],
    },
    row("create", "create, same name, other bytes", "", "write f 2", "write f 3", &["f 2, ~ 3", "f 3, ~ 2"]),
    row("create", "create, same name and bytes", "", "write f 2", "write f 2", &["f 2"]),
    row("create a file", "create a directory, same name", "", "write f 2", "mkdir f", &["f /, ~ 2"]),
    row(
        "create a directory",
        "create a directory, same name",
        "",
        "mkdir d; write d/x 2",
        "mkdir d; write d/y 3",
        &["d /, d/x 2, d/y 3"],
    ),
    row(
        "a name of up to 255 bytes",
        "the same, other bytes",
        "",
        "write LONG 2",
        "write LONG 3",
        &["LONG 2, ~ 3", "LONG 3, ~ 2"],
    ),
    Row {
        here: "a folder with files",
        there: "first join, same files",
        before: None,
        first: ("mkdir d; write d/x 1; touch d/x 5", "mkdir d; write d/x 1; touch d/x 5"),
        then: ("", ""),
        shows: &["d /, d/x 1 t5"],
    },
    Row {
        here: "a folder with files",
        there: "first join, other files",
        before: None,
        first: ("write f 1; write g 2", "write f 3; write h 4"),
        then: ("", ""),
        shows: &["f 1, g 2, h 4, ~ 3"],
    },
];

const fn row(
    here: &'static str,
    there: &'static str,
    before: &'static str,
    this: &'static str,
    that: &'static str,
    shows: &'static [&'static str],
) -> Row {
    Row { here, there, before: Some(before), first: (this, that), then: ("", ""), shows }
}

/// The acts of a row's text, each as its words; the paths in a directory of their own if one is named.
pub fn acts(text: &str, below: Option<&str>) -> Vec<Vec<String>> {
    let paths = |verb: &str| if matches!(verb, "move" | "exchange") { 2 } else { 1 };
    let word = |(i, word): (usize, &str), verb: &str| match below {
        _ if i == 0 || i > paths(verb) => word.to_owned(),
        None => long(word),
        Some(dir) => format!("{dir}/{}", long(word)),
    };
    let act = |act: &str| {
        let verb = act.split_whitespace().next().unwrap_or_default();
        act.split_whitespace().enumerate().map(|w| word(w, verb)).collect()
    };
    text.split(';').map(str::trim).filter(|a| !a.is_empty()).map(act).collect()
}

fn long(path: &str) -> String {
    path.replace(LONGEST, &"l".repeat(255))
}

/// What shows at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// The number of a file's content, or `/`.
    pub word: String,
    /// Its bits.
    pub mode: u32,
    /// Its time in seconds since 1970.
    pub secs: i64,
}

/// Whether this is what a row may become.
pub fn is_documented(row: &Row, shown: &BTreeMap<String, Shown>) -> bool {
    let named: BTreeMap<String, &Shown> = shown.iter().map(|(path, s)| (nickname(path), s)).collect();
    // Two copies under one nickname would hide each other.
    named.len() == shown.len() && row.shows.iter().any(|expected| fits(expected, &named))
}

fn nickname(path: &str) -> String {
    let (dir, name) = path.rsplit_once('/').map_or(("", path), |(dir, name)| (dir, name));
    let name = if name.contains("~conflict-") { "~" } else { name };
    let path = if dir.is_empty() { name.to_owned() } else { format!("{dir}/{name}") };
    path.replace(&"l".repeat(255), LONGEST)
}

fn fits(expected: &str, shown: &BTreeMap<String, &Shown>) -> bool {
    let entries: Vec<Vec<&str>> = expected.split(',').map(|e| e.split_whitespace().collect()).collect();
    let fits = |entry: &Vec<&str>| {
        let Some((path, rest)) = entry.split_first() else { return false };
        let Some(s) = shown.get(*path) else { return false };
        rest.iter().all(|word| match word.split_at(1) {
            ("m", bits) => u32::from_str_radix(bits, 8) == Ok(s.mode),
            ("t", secs) => secs.parse() == Ok(s.secs),
            ("!", time) => time.trim_start_matches('t').parse() != Ok(s.secs),
            _ => *word == s.word,
        })
    };
    entries.len() == shown.len() && entries.iter().all(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_documented_fits() {
        let shown = |text: &str| -> BTreeMap<String, Shown> {
            let entry = |e: &str| {
                let words: Vec<&str> = e.split_whitespace().collect();
                (words[0].to_owned(), Shown { word: words[1].to_owned(), mode: 0o700, secs: 7 })
            };
            text.split(',').filter(|e| !e.is_empty()).map(entry).collect()
        };
        let edit = ROWS.iter().find(|r| r.there == "edit, other bytes").unwrap();
        assert!(is_documented(edit, &shown("f 2,f~conflict-12345 3")));
        assert!(is_documented(edit, &shown("f 3,f~conflict-12345 2")));
        for wrong in [
            "",
            "f 2",
            "f 2,f~conflict-12345 2",
            "f 2,g 3",
            "f 2,f~conflict-1 3,f~conflict-2 3",
            "f 2,f~conflict-1 3,g 1",
        ] {
            assert!(!is_documented(edit, &shown(wrong)), "{wrong}");
        }
        let timed = |t: &'static str| Row { shows: Box::leak(Box::new([t])), ..row("", "", "", "", "", &[]) };
        assert!(is_documented(&timed("f 2 m700 t7 !t8"), &shown("f 2")));
        for wrong in ["f 2 m755", "f 2 t8", "f 2 !t7"] {
            assert!(!is_documented(&timed(wrong), &shown("f 2")), "{wrong}");
        }
    }
}
