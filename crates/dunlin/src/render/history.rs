//! What there was, and what was had again, for a person.

use super::words::{Style, count, size};
use crate::when;
use dunlin_node::control::{
    AnyPath, Beside, Escaped, Fate, History, Item, Problem, Restored, Undone, Version,
};

/// Paths named one by one; the rest is a number.
const NAMED: usize = 20;

fn word(fate: Fate) -> &'static str {
    match fate {
        Fate::Created => "created",
        Fate::Changed => "changed",
        Fate::Moved => "moved",
        Fate::Attributes => "mode or time",
        Fate::Deleted => "deleted",
        Fate::Revived => "brought back",
    }
}

/// What an undo makes of it.
fn remedy(fate: Fate) -> &'static str {
    match fate {
        Fate::Created | Fate::Revived => "removed",
        Fate::Changed => "replaced by what it was",
        Fate::Moved => "moved back",
        Fate::Attributes => "given its mode and time",
        Fate::Deleted => "restored",
    }
}

fn name(text: &str) -> String {
    Escaped(text.as_bytes()).to_string()
}

/// Versions, the newest first.
pub fn list(history: &History, style: &Style) -> String {
    if history.versions.is_empty() {
        return "nothing was changed or deleted, as far back as it is known\n".into();
    }
    let mut out = String::new();
    let by = history.versions.iter().map(|v| name(&v.by).chars().count()).max().unwrap_or(0);
    for v in &history.versions {
        out += &line(v, by, style);
    }
    if history.older > 0 {
        out += &format!(
            "{}\n",
            style.dim(&format!("and {} before: --limit N", count(history.older, "one", "more")))
        );
    }
    out
}

fn line(v: &Version, by: usize, style: &Style) -> String {
    let ended = v.ended.map_or_else(|| "?".into(), when::shown);
    let what = match v.item {
        Item::File => format!("{:>9}  {:16}", size(v.size), v.version.as_deref().unwrap_or("")),
        Item::Directory => format!("{:>9}  {:16}", "directory", ""),
        Item::Link => format!("{:>9}  {:16}", "link", ""),
    };
    let path = Escaped(v.path.as_bytes());
    let was = v.was.as_ref().map(|was| format!("  as {}", Escaped(was.as_bytes()))).unwrap_or_default();
    let written = match v.item {
        Item::Directory => String::new(),
        _ => format!("  {}", style.dim(&format!("written by {}", name(&v.author)))),
    };
    let mut kept: Vec<String> = Vec::new();
    if v.item == Item::File {
        kept.extend(v.here.then(|| "here".into()));
        kept.extend(v.devices.iter().map(|d| name(d)));
    }
    let kept = match (v.item, kept.is_empty()) {
        (Item::File, true) => format!(", {}", style.bad("held by nobody connected")),
        (Item::File, false) => style.dim(&format!(", on {}", kept.join(", "))),
        _ => String::new(),
    };
    let who = name(&v.by);
    let pad = " ".repeat(by.saturating_sub(who.chars().count()));
    let fate = word(v.fate);
    format!("{}  {fate:12}  by {who}{pad}  {what}  {path}{was}{written}{kept}\n", style.dim(&ended))
}

fn paths(all: &[AnyPath], style: &Style, out: &mut String) {
    for path in all.iter().take(NAMED) {
        *out += &format!("  {}\n", Escaped(path.as_bytes()));
    }
    if all.len() > NAMED {
        *out += &format!("  {}\n", style.dim(&format!("and {} more", all.len() - NAMED)));
    }
}

/// What would be done, thing by thing.
fn things(undo: &Undone, style: &Style, out: &mut String) {
    for thing in undo.things.iter().take(NAMED) {
        let path = Escaped(thing.path.as_bytes());
        let at = thing.at.map(|at| format!(", {}", when::shown(at))).unwrap_or_default();
        let by = if thing.by.is_empty() { String::new() } else { format!(" by {}", name(&thing.by)) };
        let was = style.dim(&format!("({}{by}{at})", word(thing.fate)));
        *out += &format!("  {:24} {path}  {was}\n", remedy(thing.fate));
    }
    let more = undo.count.saturating_sub(undo.things.len().min(NAMED) as u64);
    if more > 0 {
        *out += &format!("  {}\n", style.dim(&format!("and {more} more")));
    }
}

fn problems(all: &[Problem], style: &Style, out: &mut String) {
    for p in all.iter().take(NAMED) {
        *out += &format!("  {} {}: {}\n", style.bad("problem:"), Escaped(p.path.as_bytes()), name(&p.why));
    }
}

/// What was restored.
pub fn restored(done: &Restored, style: &Style) -> String {
    let things = format!("restored {}", count(done.restored, "item", "items"));
    let to = done.to.as_ref().map(|to| format!(", to {}", style.path(to))).unwrap_or_default();
    let mut out = format!("{}, {}{to}\n", style.good(&things), size(done.bytes));
    if !done.lacking.is_empty() {
        out += &format!("{}\n", style.bad("held by nobody connected:"));
        paths(&done.lacking, style, &mut out);
    }
    problems(&done.problems, style, &mut out);
    problems(&done.blocked, style, &mut out);
    out
}

/// What an undo takes back.
pub fn undo(undo: &Undone, style: &Style) -> String {
    let verb = if undo.done { "taken back" } else { "to take back" };
    let mut whose: Vec<String> =
        undo.whose.iter().map(|(by, n)| format!("{} by {}", count(*n, "item", "items"), name(by))).collect();
    if whose.is_empty() {
        let by = undo.by.as_deref().map(|by| format!(" by {}", name(by))).unwrap_or_default();
        whose.push(format!("{}{by}", count(undo.count, "item", "items")));
    }
    let when = match undo.between {
        Some((from, to)) if from == to => format!(", {}", when::shown(from)),
        Some((from, to)) => format!(", {} to {}", when::shown(from), when::shown(to)),
        None => String::new(),
    };
    let mut out = format!("{verb}: {}{when}\n", style.bold(&whose.join(", ")));
    if undo.brought_back {
        let what = "that was an undo, or a copy of what was: what it had brought back goes again";
        out += &format!("  {}\n", style.busy(what));
    }
    for (fate, n) in &undo.fates {
        out += &format!("  {} {}: {}\n", count(*n, "item", "items"), word(*fate), style.bold(remedy(*fate)));
    }
    if !undo.done {
        things(undo, style, &mut out);
    }
    if !undo.left.is_empty() {
        out += &format!("{}\n", style.busy("changed since, and left as it is:"));
        paths(&undo.left, style, &mut out);
    }
    if !undo.lacking.is_empty() {
        out += &format!("{}\n", style.bad("held by nobody connected:"));
        paths(&undo.lacking, style, &mut out);
    }
    if let Some(some) = &undo.beside {
        beside(some, style, &mut out);
    }
    problems(&undo.problems, style, &mut out);
    out
}

/// What an undo leaves as it is, though it may have been part of the same.
fn beside(beside: &Beside, style: &Style, out: &mut String) {
    if !beside.left.is_empty() {
        let items = count(beside.left.len() as u64, "item", "items");
        *out += &format!("{}\n", style.busy(&format!("changed about then, and left as it is: {items}")));
        paths(&beside.left, style, out);
        *out += &format!("  this takes it back, too: {} --keep-new\n", beside.command);
    }
    if beside.before > 0 {
        let items = count(beside.before, "item", "items");
        let secs = beside.before_s;
        *out += &format!(
            "had been changed already, up to {secs} s earlier: {items}; these earlier changes stay\n"
        );
        *out += &format!("  this takes them back, too: {} --keep-new\n", beside.command);
    }
    if beside.made > 0 {
        let items = count(beside.made, "item", "items");
        *out += &format!("added about then, and kept: {items}\n");
        *out += &format!("  this removes it, too: {}\n", beside.command);
    }
}
