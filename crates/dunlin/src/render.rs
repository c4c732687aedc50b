//! Everything the command prints. What comes from elsewhere (names, paths, messages) is escaped here,
//! so that no file name steers a terminal.

mod history;
mod live;
mod status;
mod words;

pub use live::{Live, Opening};
pub use status::lacking;
pub use words::size;

use crate::failure::Failure;
use dunlin_node::control::{
    AnyPath, Change, Escaped, History, Restored, Resumed, Status, Undone, United, Verified,
};
use std::io::{IsTerminal, Write};
use std::time::Duration;
use words::Style;

/// Prints one line to standard output. A reader that has gone is no error: the command goes on.
pub fn print(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).ok();
}

/// Prints a remark to standard error.
pub fn note(text: &str) {
    writeln!(std::io::stderr(), "note: {}", Escaped(text.as_bytes())).ok();
}

/// Prints an error as its two lines, to standard error.
pub fn failure(failure: &Failure) {
    let mut err = std::io::stderr().lock();
    let style = Style::of(err.is_terminal());
    let message = Escaped(failure.message.as_bytes());
    let hint = Escaped(failure.hint.as_bytes());
    writeln!(err, "{} {message}\n{} {hint}", style.bad("dunlin:"), style.dim("hint:")).ok();
}

/// Prints the state of the node.
pub fn status(status: &Status, json: bool) {
    if json {
        print_json(status);
    } else {
        let style = Style::of(std::io::stdout().is_terminal());
        print(status::text(status, &style).trim_end());
    }
}

/// Prints what reading all files again found.
pub fn verified(found: &Verified, json: bool) {
    if json {
        print_json(found);
    } else {
        let style = Style::of(std::io::stdout().is_terminal());
        print(status::verified(found, &style).trim_end());
    }
}

/// Prints what there was.
pub fn history(history: &History, json: bool) {
    lines(history, json, history::list);
}

/// Prints what was restored.
pub fn restored(restored: &Restored, json: bool) {
    lines(restored, json, history::restored);
}

/// Prints what an undo will take back.
pub fn to_undo(undo: &Undone) {
    lines(undo, false, history::undo);
}

/// Prints what an undo took back, or would.
pub fn undone(undone: &Undone, json: bool) {
    lines(undone, json, history::undo);
}

fn lines<T: serde::Serialize>(told: &T, json: bool, text: impl Fn(&T, &Style) -> String) {
    if json {
        print_json(told);
    } else {
        let style = Style::of(std::io::stdout().is_terminal());
        print(text(told, &style).trim_end());
    }
}

/// Prints an invitation.
pub fn ticket(ticket: &str, json: bool) {
    if json { print_json(&serde_json::json!({ "ticket": ticket })) } else { print(ticket) }
}

/// Prints that a folder goes on with the directory that is there.
pub fn united(done: &United, json: bool) {
    if json {
        print_json(done);
    } else {
        let path = Style::of(std::io::stdout().is_terminal()).path(&done.path);
        print(&format!("{path} goes on with what is there, united with what the others have"));
    }
}

/// Prints what became of deletes that were held.
pub fn resumed(done: &Resumed, json: bool) {
    if json {
        print_json(done);
    } else {
        print(&status::resumed(done, &Style::of(std::io::stdout().is_terminal())));
    }
}

/// Prints that a node of the demo has its folder.
pub fn step(name: &str, folder: &AnyPath, took: Duration) {
    let style = Style::of(std::io::stdout().is_terminal());
    let took = style.dim(&format!("ready in {}", millis(took)));
    print(&format!("  {}  {}  {took}", style.bold(name), style.path(folder)));
}

/// Prints a change that a node of the demo made.
pub fn applied(name: &str, path: &AnyPath, kind: Change) {
    print(&format!("  {name}: {} {}", live::change(kind), Escaped(path.as_bytes())));
}

/// A time as whole milliseconds.
pub fn millis(took: Duration) -> String {
    format!("{} ms", took.as_millis())
}

fn print_json(value: &impl serde::Serialize) {
    // The types of the API have string keys and no map, so this cannot fail.
    if let Ok(line) = serde_json::to_string(value) {
        print(&line);
    }
}
