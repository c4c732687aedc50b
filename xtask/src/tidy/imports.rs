//! Who may know whom: the crates, the modules of the core, the stages of the node.

use super::source::{Source, files, root};
use super::{caught, hold};

/// The modules of the core, the lowest first. A module may name those before it.
const CORE: &[&str] = &[
    "path", "ids", "blocks", "state", "keeps",
    "codec", // what is replicated, and its bytes; what a disk keeps of it
    "message", "members", "ticket", // what devices say; they know no index
    "kv", "rows", "names", "decide", "tree", "check", // the index and what is derived in it
    "journal", "merge", "life", "change", // what comes in
    "observe", "revert", "plan", "brake",    // what follows
    "schedule", // what is asked of whom
    "session",  // what is said of it to whom
    "runs",     // who said hello
];

/// Names of a higher module that a lower one may use all the same: (from, to, what), with the reason.
const CORE_UPWARD: &[(&str, &str, &str)] = &[
    // The count of conflict copies is kept where local rows are written; what a derived name looks
    // like is one rule, and stays in one file.
    ("rows", "names", "is_conflict_name"),
];

/// What each stage of the node may name of the node; nothing else. Only `engine`, `node`, `session`
/// and `folder` (not listed) put stages together.
const STAGES: &[(&str, &[&str])] = &[
    ("disk", &[]),
    ("net", &[]),
    ("store", &[]),
    ("home", &[]),
    ("control", &[]),
    ("config", &["home"]),
    ("chunks", &["disk"]),
    ("blocks", &["disk"]),
    ("scan", &["blocks", "disk"]),
    ("watch", &["disk"]),
    ("verify", &["disk", "scan", "site"]),
    ("transfer", &["net"]),
    // Of `chunks` only the size from which contents are resumed.
    ("stage", &["chunks", "disk"]),
    ("site", &["blocks", "chunks", "disk", "stage", "store"]),
    ("apply", &["disk", "stage"]),
    // Everything of a folder on this device but the network: what a simulator of whole flocks runs.
    ("engine", &["apply", "control", "disk", "folder", "home", "scan", "site", "stage", "store", "watch"]),
    ("serve", &["blocks", "chunks", "disk", "folder", "net", "transfer"]),
    ("fetch", &["blocks", "chunks", "disk", "engine", "folder", "net", "stage", "transfer"]),
];

/// What the binary may name of the node: the control API, and what it takes to host a node.
const FOR_THE_BINARY: &[&str] = &["control", "home", "start", "Node", "NodeOptions", "StartError"];

/// Which of the project's crates each crate may depend on, by its manifest.
const CRATES: &[(&str, &[&str])] = &[
    ("dunlin-core", &[]),
    ("dunlin-node", &["dunlin-core"]),
    ("dunlin", &["dunlin-node"]),
    ("dunlin-sim", &["dunlin-core", "dunlin-node"]),
];

/// The paths that follow `start` wherever it stands in `code`, a group taken apart.
fn paths_after(code: &str, start: &str) -> Vec<Vec<String>> {
    let word = |c: char| c.is_alphanumeric() || c == '_' || c == '$' || c == ':';
    let mut out = Vec::new();
    for (at, _) in code.match_indices(start) {
        if !code[..at].ends_with(word) {
            read_tree(&code[at + start.len()..], &[], &mut out);
        }
    }
    out
}

/// Reads one path or use tree; returns the rest.
fn read_tree<'a>(text: &'a str, before: &[String], out: &mut Vec<Vec<String>>) -> &'a str {
    let text = text.trim_start();
    if let Some(mut rest) = text.strip_prefix('{') {
        loop {
            rest = rest.trim_start();
            if rest.is_empty() || rest.starts_with('}') {
                return rest.strip_prefix('}').unwrap_or(rest);
            }
            let inner = read_tree(rest, before, out).trim_start();
            let next = inner.find([',', '}']).unwrap_or(inner.len());
            rest = inner[next..].trim_start_matches(',');
        }
    }
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    let mut way = before.to_vec();
    if end > 0 {
        way.push(text[..end].into());
    }
    match text[end..].strip_prefix("::") {
        Some(more) if end > 0 => read_tree(more, &way, out),
        _ => {
            out.push(way);
            &text[end..]
        }
    }
}

/// The paths within the crate that a file names, from the crate's root, with `super` resolved.
fn names(file: &str, code: &str) -> Vec<Vec<String>> {
    let mut out = paths_after(code, "crate::");
    let module: Vec<String> = file.trim_end_matches(".rs").split('/').map(String::from).collect();
    for mut way in paths_after(code, "super::") {
        let mut at = module.clone();
        at.pop();
        while way.first().is_some_and(|w| w == "super") {
            at.pop();
            way.remove(0);
        }
        at.extend(way);
        out.push(at);
    }
    out.retain(|way| !way.is_empty());
    out
}

fn top(file: &str) -> &str {
    file.trim_end_matches(".rs").split('/').next().unwrap_or_default()
}

fn check_core(sources: &[Source]) -> Vec<String> {
    let rank = |module: &str| CORE.iter().position(|m| *m == module);
    let mut out = Vec::new();
    for s in sources {
        let Some(file) = s.within("dunlin-core").filter(|f| *f != "lib.rs") else { continue };
        let from = top(file);
        let Some(mine) = rank(from) else {
            out.push(format!("{}: {from} has no place in the order of the core's modules", s.path));
            continue;
        };
        for way in names(file, &s.code_without_tests()) {
            let (to, what) = (way[0].as_str(), way.get(1).map_or("", String::as_str));
            let goes_down = rank(to).is_none_or(|r| r <= mine);
            if !goes_down && !CORE_UPWARD.contains(&(from, to, what)) {
                out.push(format!("{}: {from} is below {to} and must not name {}", s.path, way.join("::")));
            }
        }
    }
    out
}

fn check_stages(sources: &[Source]) -> Vec<String> {
    let mut out = Vec::new();
    for s in sources {
        let Some(file) = s.within("dunlin-node") else { continue };
        let Some((stage, may)) = STAGES.iter().find(|(stage, _)| *stage == top(file)) else { continue };
        for way in names(file, &s.code_without_tests()) {
            if way[0] != *stage && !may.contains(&way[0].as_str()) {
                out.push(format!("{}: the stage {stage} must not name {}", s.path, way.join("::")));
            }
        }
    }
    out
}

fn check_binary(sources: &[Source]) -> Vec<String> {
    let mut out = Vec::new();
    for s in sources.iter().filter(|s| s.within("dunlin").is_some()) {
        let code = s.code();
        for way in paths_after(&code, "dunlin_node::") {
            if !way.first().is_some_and(|w| FOR_THE_BINARY.contains(&w.as_str())) {
                out.push(format!("{}: the binary must not name dunlin_node::{}", s.path, way.join("::")));
            }
        }
        if code.contains("dunlin_core") {
            out.push(format!("{}: the binary must not name the core", s.path));
        }
    }
    out
}

/// `manifest` is the text of a crate's Cargo.toml. Dev-dependencies are free: tests forge tickets and
/// messages with the core.
fn check_manifest(name: &str, may: &[&str], manifest: &str) -> Vec<String> {
    let ours = |line: &&str| line.starts_with("dunlin");
    let shipped = manifest.split("[dev-dependencies]").next().unwrap_or(manifest);
    let named = shipped.lines().filter(ours).filter_map(|l| l.split(['.', ' ', '=']).next());
    let forbidden = named.filter(|d| !may.contains(d));
    forbidden.map(|d| format!("{name} must not depend on {d}")).collect()
}

#[test]
fn crates_depend_downwards_only() {
    for (name, may) in CRATES {
        let manifest = std::fs::read_to_string(root().join("crates").join(name).join("Cargo.toml")).unwrap();
        hold(&check_manifest(name, may, &manifest));
    }
    caught(
        &check_manifest("dunlin-core", &[], "[dependencies]\ndunlin-node.workspace = true\n"),
        "dunlin-node",
    );
    hold(&check_manifest(
        "dunlin",
        &[],
        "[dependencies]\n[dev-dependencies]\ndunlin-core.workspace = true\n",
    ));
}

#[test]
fn modules_of_the_core_name_lower_ones_only() {
    hold(&check_core(&files("rs")));
    for (from, to, what) in CORE_UPWARD {
        let path = root().join("crates/dunlin-core/src").join(from).with_extension("rs");
        let used = std::fs::read_to_string(path).unwrap().contains(&format!("{to}::{what}"));
        assert!(used, "{from} no longer uses {to}::{what}: take it off the list");
    }
    let bad = |file: &str, text: &str| {
        check_core(&[Source::sample(&format!("crates/dunlin-core/src/{file}"), text)])
    };
    caught(&bad("ids.rs", "use crate::{path::Name, tree::Work};"), "tree::Work");
    caught(&bad("state.rs", "fn a() { super::plan::plan() }"), "plan::plan");
    caught(&bad("rows.rs", "use crate::names::group;"), "names::group");
    caught(&bad("clock.rs", ""), "no place");
    hold(&bad("plan.rs", "use crate::tree::Work;"));
    hold(&bad("ids.rs", "#[cfg(test)] mod tests { use crate::plan::plan; }"));
}

#[test]
fn stages_of_the_node_know_each_other_by_the_table_only() {
    hold(&check_stages(&files("rs")));
    let bad = |file: &str, text: &str| {
        check_stages(&[Source::sample(&format!("crates/dunlin-node/src/{file}"), text)])
    };
    caught(&bad("scan.rs", "use crate::{disk::Disk, store::Store};"), "store::Store");
    caught(&bad("net/beacon.rs", "use super::super::folder::Folder;"), "folder::Folder");
    hold(&bad("net/beacon.rs", "use super::addrs;"));
    caught(&bad("engine.rs", "use crate::{apply, net, scan, store};"), "net");
    hold(&bad("node.rs", "use crate::{apply, net, scan, store};"));
}

#[test]
fn the_binary_reads_the_node_through_its_control_api() {
    hold(&check_binary(&files("rs")));
    let bad = |text: &str| check_binary(&[Source::sample("crates/dunlin/src/x.rs", text)]);
    caught(&bad("use dunlin_node::{control::Event, store::Store};"), "store::Store");
    caught(&bad("use dunlin_core::ids::NodeId;"), "the core");
}
