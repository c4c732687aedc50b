//! Who may do what: words that only some files may use.

use super::source::{Source, files, root};
use super::{caught, hold};

/// Words that only some files may use, outside tests.
struct Rule {
    /// Whose files are looked at: a prefix of the path.
    of: &'static str,
    /// The words.
    words: &'static [&'static str],
    /// Who may use them: prefixes of paths, each with the words it may use (none: all) and the reason.
    except: &'static [(&'static str, &'static [&'static str], &'static str)],
    /// The rule.
    why: &'static str,
}

const CORE_IS_PURE: Rule = Rule {
    of: "crates/dunlin-core/src/",
    words: &["std::", "HashMap", "HashSet", "Instant", "SystemTime", "f32", "f64", "rand", "async", "unsafe"],
    except: &[],
    why: "the core has no system, clock, chance, floating point, or order that differs from run to run",
};

const CHANGES_FOLDERS: Rule = Rule {
    of: "crates/dunlin-node/src/",
    words: &[
        ".mkdir(",
        ".rename(",
        ".unlink(",
        ".rmdir(",
        ".symlink(",
        ".open_write(",
        ".set_mode(",
        ".set_mtime(",
        "disk.create(",
        "fs::rename",
        "fs::write",
        "fs::remove",
        "fs::create_dir",
        "File::create",
    ],
    except: &[
        ("crates/dunlin-node/src/disk", &[], "the seam itself"),
        ("crates/dunlin-node/src/apply", &[], "carries out steps"),
        ("crates/dunlin-node/src/stage", &[], "works in the control directory"),
        ("crates/dunlin-node/src/home", &[], "the state directory, never inside a folder"),
        (
            "crates/dunlin-node/src/watch.rs",
            &["disk.create(", ".unlink("],
            "a barrier is a file in the control directory",
        ),
        (
            "crates/dunlin-node/src/node/opening.rs",
            &["fs::create_dir", "fs::rename", "fs::remove"],
            "makes the root a person asked for, and puts a damaged index aside",
        ),
    ],
    why: "only apply, stage and the disk seam change a folder",
};

const NAMES_THE_STORE: Rule = Rule {
    of: "crates/",
    words: &["redb::"],
    except: &[("crates/dunlin-node/src/store", &[], "is the store")],
    why: "only store knows the database",
};

const NAMES_THE_NETWORK: Rule = Rule {
    of: "crates/",
    words: &[
        "UdpSocket",
        "TcpStream",
        "TcpListener",
        "socket2",
        "iroh::endpoint",
        "iroh::Endpoint",
        "noq_proto",
        "Endpoint",
    ],
    except: &[("crates/dunlin-node/src/net", &[], "is the network")],
    why: "only net opens sockets to peers",
};

const PRINTS: Rule = Rule {
    of: "crates/",
    words: &["println!", "print!", "eprintln!", "eprint!", "stdout()", "stderr()", ".print()", "dbg!"],
    except: &[
        ("crates/dunlin/src/render", &[], "prints"),
        ("crates/dunlin-sim/src/main.rs", &["println!", "eprintln!"], "a command for developers"),
        ("crates/dunlin/src/cli.rs", &[".print()"], "help and version are the argument parser's to print"),
        ("crates/dunlin-bench/src/tell.rs", &["stdout()"], "a command for developers"),
        ("crates/dunlin-testkit/src", &["eprintln!"], "is for tests"),
        (
            "crates/dunlin-testkit/src/skip.rs",
            &["stderr()"],
            "says what is skipped past the capture of tests",
        ),
    ],
    why: "only render prints",
};

const UNFINISHED: Rule = Rule {
    of: "",
    words: &[".unwrap()", ".unwrap_err()", "todo!", "unimplemented!", "dbg!"],
    except: &[
        ("xtask/src/tidy", &[], "is compiled for tests only"),
        ("crates/dunlin-testkit/src", &[".unwrap()"], "is for tests"),
    ],
    why: "a failure is handled or passed on, and nothing is left undone",
};

fn check(rule: &Rule, sources: &[Source]) -> Vec<String> {
    let mut out = Vec::new();
    for s in sources.iter().filter(|s| s.path.starts_with(rule.of)) {
        let may = |word: &str| {
            let allows = |(path, words, _): &&(&str, &[&str], &str)| {
                s.path.starts_with(path) && (words.is_empty() || words.contains(&word))
            };
            rule.except.iter().any(|e| allows(&e))
        };
        for (i, line) in s.code_without_tests().lines().enumerate() {
            let uses = |word: &&&str| holds(line, word) && !may(word);
            for word in rule.words.iter().filter(uses) {
                out.push(format!("{}:{}: `{word}`: {}", s.path, i + 1, rule.why));
            }
        }
    }
    out
}

/// Whether `line` holds `word` as a word of its own.
fn holds(line: &str, word: &str) -> bool {
    let inside = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        let begins = !word.starts_with(inside) || !line[..at].ends_with(inside);
        let ends = !word.ends_with(inside) || !line[at + word.len()..].starts_with(inside);
        begins && ends
    })
}

/// Exceptions that nothing needs any more.
fn idle_exceptions(rule: &Rule, sources: &[Source]) -> Vec<String> {
    let mut out = Vec::new();
    for (path, words, _) in rule.except {
        let mut code = sources.iter().filter(|s| s.path.starts_with(path)).map(Source::code).peekable();
        if code.peek().is_none() {
            out.push(format!("{path} is gone: take its exception away"));
            continue;
        }
        let code: String = code.collect();
        let idle = words.iter().filter(|w| !code.contains(**w));
        out.extend(idle.map(|w| format!("{path} no longer uses `{w}`: take its exception away")));
    }
    out
}

fn holds_everywhere(rule: &Rule) {
    let sources = files("rs");
    hold(&check(rule, &sources));
    hold(&idle_exceptions(rule, &sources));
}

fn sample(rule: &Rule, path: &str, text: &str) -> Vec<String> {
    check(rule, &[Source::sample(path, text)])
}

#[test]
fn the_core_is_pure() {
    holds_everywhere(&CORE_IS_PURE);
    let lib = std::fs::read_to_string(root().join("crates/dunlin-core/src/lib.rs")).unwrap();
    assert!(lib.contains("\n#![no_std]\n"), "the core is #![no_std]");
    let path = "crates/dunlin-core/src/x.rs";
    caught(&sample(&CORE_IS_PURE, path, "use std::fs;"), "std::");
    caught(&sample(&CORE_IS_PURE, path, "fn a(b: f64) {}"), "f64");
    caught(&sample(&CORE_IS_PURE, path, "use x::HashMap;"), "HashMap");
    hold(&sample(&CORE_IS_PURE, path, "// std::\nuse no_std::x;\n#[cfg(test)]\nmod tests { use std::fs; }"));
}

#[test]
fn only_apply_and_stage_change_a_folder() {
    holds_everywhere(&CHANGES_FOLDERS);
    let path = "crates/dunlin-node/src/scan.rs";
    caught(&sample(&CHANGES_FOLDERS, path, "disk.unlink(&path)?;"), ".unlink(");
    caught(&sample(&CHANGES_FOLDERS, path, "std::fs::write(path, b)?;"), "fs::write");
    caught(&sample(&CHANGES_FOLDERS, "crates/dunlin-node/src/folder.rs", "disk.rmdir(&p)?;"), ".rmdir(");
    caught(&idle_exceptions(&CHANGES_FOLDERS, &only_but(&CHANGES_FOLDERS, "watch.rs")), "watch.rs");
}

/// A file for each exception of the rule that uses its words, except one.
fn only_but(rule: &Rule, without: &str) -> Vec<Source> {
    let files = rule.except.iter().filter(|e| !e.0.ends_with(without));
    files
        .map(|(path, words, _)| Source::sample(path, &words.join(" ")))
        .chain([Source::sample("x", "")])
        .collect()
}

#[test]
fn only_store_names_the_database() {
    holds_everywhere(&NAMES_THE_STORE);
    caught(&sample(&NAMES_THE_STORE, "crates/dunlin-node/src/engine.rs", "use redb::Database;"), "redb");
}

#[test]
fn only_net_opens_sockets_to_peers() {
    holds_everywhere(&NAMES_THE_NETWORK);
    let path = "crates/dunlin-node/src/node.rs";
    caught(&sample(&NAMES_THE_NETWORK, path, "let s = tokio::net::UdpSocket::bind(a);"), "UdpSocket");
    hold(&sample(&NAMES_THE_NETWORK, path, "use iroh::SecretKey;"));
}

#[test]
fn only_render_prints() {
    holds_everywhere(&PRINTS);
    caught(&sample(&PRINTS, "crates/dunlin-node/src/node.rs", "println!();"), "println!");
    caught(&sample(&PRINTS, "crates/dunlin/src/main.rs", "writeln!(std::io::stderr(), x)"), "stderr()");
    caught(&sample(&PRINTS, "crates/dunlin/src/cli.rs", "eprintln!();"), "eprintln!");
    hold(&sample(&PRINTS, "crates/dunlin-node/tests/x.rs", "println!();"));
}

#[test]
fn nothing_is_unwrapped_or_left_undone() {
    holds_everywhere(&UNFINISHED);
    caught(&sample(&UNFINISHED, "crates/dunlin/src/main.rs", "a().unwrap();"), ".unwrap()");
    caught(&sample(&UNFINISHED, "crates/dunlin/src/main.rs", "fn a() { todo!() }"), "todo!");
    hold(&sample(&UNFINISHED, "crates/dunlin/src/main.rs", "a.unwrap_or(1); b.unwrap_or_else(c);"));
}
