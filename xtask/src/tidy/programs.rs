//! Each crate has one program of tests, `tests/all.rs`: what it does not name would never run.

use super::source::{Source, files};
use super::{caught, hold};

/// Files of tests that no program names.
fn check(sources: &[Source]) -> Vec<String> {
    let mut out = Vec::new();
    for s in sources {
        let Some((home, name)) = s.path.split_once("/tests/") else { continue };
        let Some(all) = sources.iter().find(|a| a.path == format!("{home}/tests/all.rs")) else { continue };
        let module = name.trim_end_matches(".rs");
        if !module.contains('/')
            && module != "all"
            && !all.code().lines().any(|l| l == format!("mod {module};"))
        {
            out.push(format!("{}: {} does not name it, so nothing runs it", s.path, all.path));
        }
    }
    out
}

#[test]
fn every_file_of_tests_is_run() {
    hold(&check(&files("rs")));
    let all = || Source::sample("crates/x/tests/all.rs", "mod a;\n// mod b;\n");
    let with = |path: &str| check(&[all(), Source::sample(path, "")]);
    hold(&with("crates/x/tests/a.rs"));
    hold(&with("crates/x/tests/shared/mod.rs"));
    caught(&with("crates/x/tests/b.rs"), "b.rs");
}
