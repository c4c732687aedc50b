//! The documents: links lead somewhere, named tests exist, and the map names every module.

use super::source::{Source, files, root};
use super::{caught, hold};
use std::path::Path;

/// Inline pieces of a document, outside code blocks: code spans, and text with them blanked.
fn prose(text: &str) -> (String, Vec<String>) {
    let (mut out, mut spans, mut in_block) = (String::new(), Vec::new(), false);
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            in_block = !in_block;
        } else if !in_block {
            for (i, part) in line.split('`').enumerate() {
                if i % 2 == 0 { out.push_str(part) } else { spans.push(part.to_owned()) }
            }
        }
        out.push('\n');
    }
    (out, spans)
}

/// Where a document's relative links lead: path and fragment, either may be empty.
fn links(text: &str) -> Vec<(String, String)> {
    let (prose, mut out) = (prose(text).0, Vec::new());
    for (at, _) in prose.match_indices("](") {
        let target = prose[at + 2..].split([')', ' ', '\n']).next().unwrap_or_default();
        let (path, fragment) = target.split_once('#').unwrap_or((target, ""));
        if !path.contains("://") && !path.starts_with("mailto:") {
            out.push((path.to_owned(), fragment.to_owned()));
        }
    }
    out
}

/// The fragments that lead to the headings of a document.
fn headings(text: &str) -> Vec<String> {
    let heading = |line: &str| {
        let words = line.trim_start_matches('#').trim().to_lowercase().replace(' ', "-");
        words.chars().filter(|c| c.is_alphanumeric() || matches!(c, '-' | '_')).collect()
    };
    text.lines().filter(|l| l.starts_with('#')).map(heading).collect()
}

fn check_links(documents: &[Source], exists: impl Fn(&Path) -> bool) -> Vec<String> {
    let mut out = Vec::new();
    for d in documents {
        let dir = Path::new(&d.path).parent().unwrap_or(Path::new(""));
        for (path, fragment) in links(&d.text) {
            let to = if path.is_empty() { d.path.clone() } else { plain(&dir.join(&path)) };
            let target = documents.iter().find(|d| d.path == to);
            if !path.is_empty() && !exists(&dir.join(&path)) {
                out.push(format!("{}: the link to {path} leads nowhere", d.path));
            } else if !fragment.is_empty() && !target.is_some_and(|t| headings(&t.text).contains(&fragment)) {
                out.push(format!("{}: {to} has no heading for #{fragment}", d.path));
            }
        }
    }
    out
}

/// The path without `.` and `..`.
fn plain(path: &Path) -> String {
    let mut out: Vec<String> = Vec::new();
    for part in path.to_string_lossy().split('/') {
        match part {
            ".." => drop(out.pop()),
            "." | "" => {}
            part => out.push(part.into()),
        }
    }
    out.join("/")
}

/// The tests a document names: code spans `path.rs::test`.
fn named_tests(text: &str) -> Vec<(String, String)> {
    let named = |span: String| {
        let (path, test) = span.split_once(".rs::")?;
        Some((format!("{path}.rs"), test.to_owned()))
    };
    prose(text).1.into_iter().filter_map(named).collect()
}

/// Whether a source has a test function of this name.
fn has_test(source: &Source, name: &str) -> bool {
    let lines: Vec<&str> = source.text.lines().collect();
    lines.iter().enumerate().any(|(i, line)| {
        line.contains(&format!("fn {name}("))
            && lines[..i]
                .iter()
                .rev()
                .take_while(|l| l.trim_start().starts_with("#["))
                .any(|l| l.contains("test"))
    })
}

fn check_tests(documents: &[Source], sources: &[Source]) -> Vec<String> {
    let mut out = Vec::new();
    for d in documents {
        for (path, test) in named_tests(&d.text) {
            let found = sources.iter().find(|s| s.path == format!("crates/{path}") || s.path == path);
            if !found.is_some_and(|s| has_test(s, &test)) {
                out.push(format!("{}: there is no test {path}::{test}", d.path));
            }
        }
    }
    out
}

/// Every row of the table of promises names a test.
fn check_promises(document: &Source) -> Vec<String> {
    let rows: Vec<&str> = document.text.lines().filter(|l| l.starts_with("| ")).skip(1).collect();
    if rows.is_empty() {
        return vec![format!("{}: no promise found", document.path)];
    }
    let bare = rows.into_iter().filter(|row| named_tests(row).is_empty());
    bare.map(|row| format!("{}: no test holds this: {row}", document.path)).collect()
}

/// Every row of the tables of cases names its test and a figure, or says that it is open, and why.
fn check_cases(document: &Source) -> Vec<String> {
    let section = document.text.split("\n## ").find(|part| part.starts_with("Cases\n"));
    let table_row = |line: &&str| line.starts_with("| ") && !line.starts_with("| case |");
    let rows: Vec<&str> = section.into_iter().flat_map(str::lines).filter(table_row).collect();
    if rows.is_empty() {
        return vec![format!("{}: no case found", document.path)];
    }
    let bad = rows.into_iter().filter(|row| {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        let [case, test, figure] = &cells[..] else { return true };
        let open = test.strip_prefix("open: ").is_some_and(|why| !why.is_empty());
        let held = !named_tests(test).is_empty() && !figure.is_empty();
        case.is_empty() || !(open || held)
    });
    bad.map(|row| format!("{}: neither a test with a figure nor open: {row}", document.path)).collect()
}

/// The map names each module of each crate, and no file that is not there.
fn check_map(map: &Source, sources: &[Source]) -> Vec<String> {
    let spans = prose(&map.text).1;
    let mut out = Vec::new();
    for s in sources {
        let module = ["dunlin-core", "dunlin-node", "dunlin", "dunlin-sim", "dunlin-bench"]
            .iter()
            .find_map(|c| s.within(c));
        let unnamed = module.filter(|m| !m.contains('/') && !spans.iter().any(|span| span == m));
        if unnamed.is_some() {
            out.push(format!("{}: the map does not name {}", map.path, s.path));
        }
    }
    let is_file = |span: &&String| span.ends_with(".rs") && !span.contains([' ', '*', '<']);
    for span in spans.iter().filter(is_file) {
        if !sources.iter().any(|s| s.path == *span || s.path.ends_with(&format!("/{span}"))) {
            out.push(format!("{}: there is no file {span}", map.path));
        }
    }
    out
}

fn document(path: &str) -> Source {
    let found = files("md").into_iter().find(|d| d.path == path);
    found.unwrap_or_else(|| panic!("{path} is missing"))
}

#[test]
fn links_lead_somewhere() {
    hold(&check_links(&files("md"), |path| root().join(path).exists()));
    let text = "[x](b.md#c) `[no](code.md)` [w](https://x/y) [s](#a-b)\n```\n[n](o.md)\n```\n# A, b!\n";
    let d = [Source::sample("docs/a.md", text), Source::sample("docs/b.md", "## c\n")];
    hold(&check_links(&d, |path| path == Path::new("docs/b.md")));
    caught(&check_links(&d, |_| false), "b.md");
    caught(&check_links(&[Source::sample("a.md", "[x](#gone)")], |_| true), "#gone");
}

#[test]
fn named_tests_exist() {
    let (documents, sources) = (files("md"), files("rs"));
    hold(&check_tests(&documents, &sources));
    let source = Source::sample("crates/x/tests/y.rs", "fn helper() {}\n#[test]\n#[ignore]\nfn holds() {}\n");
    let named = |test: &str| Source::sample("a.md", &format!("`x/tests/y.rs::{test}`"));
    hold(&check_tests(&[named("holds")], std::slice::from_ref(&source)));
    caught(&check_tests(&[named("helper")], std::slice::from_ref(&source)), "helper");
    caught(&check_tests(&[named("gone")], &[source]), "gone");
}

#[test]
fn every_promise_names_its_test() {
    hold(&check_promises(&document("docs/promises.md")));
    let table = "| promise | test |\n|---|---|\n| held | `a.rs::b` |\n| hoped | none |\n";
    caught(&check_promises(&Source::sample("p.md", table)), "hoped");
    caught(&check_promises(&Source::sample("p.md", "")), "no promise");
}

#[test]
fn every_case_names_its_test_or_is_open() {
    hold(&check_cases(&document("docs/reliability.md")));
    let cases =
        |row: &str| Source::sample("c.md", &format!("# R\n\n## Cases\n\n| case | test | figure |\n{row}\n"));
    hold(&check_cases(&cases("| met | `a.rs::b` | 3 seeds |")));
    hold(&check_cases(&cases("| later | open: there is no brake yet | |")));
    caught(&check_cases(&cases("| hoped | soon | 1 |")), "hoped");
    caught(&check_cases(&cases("| blind | `a.rs::b` | |")), "blind");
    caught(&check_cases(&cases("| mute | open: | |")), "mute");
    caught(&check_cases(&Source::sample("c.md", "| no case | `a.rs::b` | 1 |")), "no case found");
}

#[test]
fn the_map_is_of_this_house() {
    let sources = files("rs");
    hold(&check_map(&document("ARCHITECTURE.md"), &sources));
    let sources = [Source::sample("crates/dunlin/src/a.rs", "")];
    caught(&check_map(&Source::sample("m.md", ""), &sources), "does not name");
    caught(&check_map(&Source::sample("m.md", "`a.rs` `b.rs`"), &sources), "no file b.rs");
}
