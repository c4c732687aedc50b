//! A device whose wall clock is wrong, and jumps.

use super::field::{Field, rest};
use dunlin_testkit::Node;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

/// By how much it is wrong.
const WRONG: &[&str] = &["-10y", "+10y", "-1h", "+1h", "+1d", "-40y", "+0"];

fn library() -> Option<PathBuf> {
    let places = ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib"];
    let files = places.iter().map(|dir| Path::new(dir).join("faketime/libfaketimeMT.so.1"));
    files.into_iter().find(|path| path.is_file())
}

/// What a program runs with, to take its offset from a file.
fn wrapper(library: &Path, offset: &Path) -> Vec<OsString> {
    let set = |name: &str, value: &Path| {
        let mut word = OsString::from(name);
        word.push("=");
        word.push(value);
        word
    };
    let mut all: Vec<OsString> = vec!["env".into(), set("LD_PRELOAD", library)];
    all.push(set("FAKETIME_TIMESTAMP_FILE", offset));
    // The clock that only counts is right on every device, and so are the times of files.
    all.extend(["FAKETIME_NO_CACHE=1", "FAKETIME_DONT_FAKE_MONOTONIC=1", "NO_FAKE_STAT=1"].map(Into::into));
    all
}

/// Why no clock can be wrong.
pub fn no_faketime() -> Option<String> {
    let Some(library) = library() else { return Some("libfaketime is not installed".into()) };
    let file = std::env::temp_dir().join(format!("dunlin-clock-probe-{}", std::process::id()));
    let written = std::fs::write(&file, "-30y");
    let all = wrapper(&library, &file);
    let year = Command::new(&all[0]).args(&all[1..]).args(["date", "+%Y"]).output();
    let _ = std::fs::remove_file(&file);
    let year = year.ok().and_then(|o| String::from_utf8(o.stdout).ok()?.trim().parse::<u32>().ok());
    let works = written.is_ok() && year.is_some_and(|year| year < 2010);
    (!works).then(|| "libfaketime does not work here".into())
}

/// One run: the clock of one of two devices jumps as they work, and once across a restart.
pub fn run(field: &mut Field) -> String {
    let offset = field.base().join("offset");
    let turn = |field: &mut Field| {
        let wrong = *field.dice.pick(WRONG);
        std::fs::write(&offset, wrong).expect("an offset");
        wrong
    };
    // An invitation ends at a time of day: he joins with the right one.
    std::fs::write(&offset, "+0").expect("an offset");
    let mut jumps = Vec::new();
    let mut nodes: Vec<Node> = ["a", "b"].map(|name| field.node(name)).into();
    nodes[1].wrapper = wrapper(&library().expect("libfaketime"), &offset);
    field.found(&mut nodes);
    jumps.push(turn(field));
    let pollers = field.watch(&nodes);
    let crowd = field.crowd(&nodes, 60);
    for i in 0..4 {
        rest(&mut field.dice, 1500);
        if i == 2 {
            nodes[1].stop();
        }
        jumps.push(turn(field));
        if i == 2 {
            nodes[1].run();
        }
    }
    crowd.end();
    format!("clock {}, {}", jumps.join(" "), field.judge(&nodes, pollers))
}
