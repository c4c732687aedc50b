//! The state of a node for a person.

use super::words::{Style, count, grouped, size};
use dunlin_node::control::{Device, Escaped, Folder, Problem, Resumed, State, Status, Tcp, Verified};
use std::fmt::Write;

/// Problems shown of a folder; the rest is a number.
const PROBLEMS_SHOWN: usize = 10;

/// The whole state, as lines.
pub fn text(status: &Status, style: &Style) -> String {
    let mut out = format!("{}\n", style.bold(&shown(&status.name)));
    if status.folders.is_empty() {
        out.push_str("no folder yet: dunlin share FOLDER shares one, dunlin join TICKET joins one\n");
    }
    for folder in &status.folders {
        folder_text(&mut out, folder, style).ok(); // writing to a string cannot fail
    }
    out
}

fn folder_text(out: &mut String, folder: &Folder, style: &Style) -> std::fmt::Result {
    let holds = format!("{}, {}", count(folder.files, "file", "files"), size(folder.bytes));
    writeln!(
        out,
        "\n{}  {}  {}",
        style.bold(&style.path(&folder.path)),
        state(folder, style),
        style.dim(&holds)
    )?;
    let width = folder.devices.iter().map(|d| shown(&d.name).chars().count()).max().unwrap_or(0);
    for device in &folder.devices {
        device_text(out, device, width, style)?;
    }
    if folder.devices.is_empty() {
        writeln!(out, "  no other device yet: dunlin invite makes an invitation")?;
    }
    if folder.conflicts > 0 {
        let copies = count(folder.conflicts, "conflict copy", "conflict copies");
        writeln!(out, "  {}", style.busy(&format!("{copies}: look for \"conflict\" in the names")))?;
    }
    for problem in folder.problems.iter().take(PROBLEMS_SHOWN) {
        writeln!(out, "  {} {}", style.bad("problem:"), problem_text(problem))?;
    }
    if let Some(more) = folder.problems.len().checked_sub(PROBLEMS_SHOWN).filter(|n| *n > 0) {
        writeln!(out, "  {}", style.bad(&format!("and {}", count(more as u64, "problem", "problems"))))?;
    }
    Ok(())
}

fn state(folder: &Folder, style: &Style) -> String {
    let need = need(folder);
    match folder.state {
        State::Halted if folder.root_lost => {
            style.bad("halted, waiting for its directory to be back, or for you")
        }
        State::Halted => style.bad("halted, waiting for you"),
        State::Error => style.bad("cannot go on"),
        State::Scanning => style.busy(&["looking at the disk", &need].join("")),
        State::Syncing => style.busy(&["syncing", &need].join("")),
        State::Idle if folder.in_sync && folder.devices.iter().any(|d| d.connected) => style.good("in sync"),
        State::Idle if folder.in_sync => style.good("complete, no other device connected"),
        State::Idle => style.busy(&["not in sync", &need].join("")),
    }
}

fn need(folder: &Folder) -> String {
    match to_do(folder.need_files, folder.need_bytes, folder.to_delete) {
        text if text.is_empty() => text,
        text => format!(", {text}"),
    }
}

/// What is still to be done on this device; empty if nothing.
pub(super) fn to_do(files: u64, bytes: u64, deletes: u64) -> String {
    let files = files.saturating_sub(deletes);
    let comes = (files > 0 || bytes > 0)
        .then(|| format!("{} ({}) to come", count(files, "file", "files"), size(bytes)));
    let goes = (deletes > 0).then(|| match comes {
        Some(_) => format!("{} to delete", grouped(deletes)),
        None => format!("{} to delete", count(deletes, "file", "files")),
    });
    comes.into_iter().chain(goes).collect::<Vec<_>>().join(", ")
}

fn device_text(out: &mut String, device: &Device, width: usize, style: &Style) -> std::fmt::Result {
    let state = match (device.connected, device.in_sync) {
        (true, _) if device.holds => style.bad("halted, waits for a person: dunlin resume there"),
        (true, true) => style.good("in sync"),
        (true, false) => style.busy("connected, not in sync"),
        (false, true) => style.dim("away, was in sync"),
        (false, false) => style.dim("away, not in sync"),
    };
    let address =
        device.address.as_deref().map(|a| format!("  {}", style.dim(&shown(a)))).unwrap_or_default();
    let tcp = match device.tcp {
        Some(Tcp::Open) => style.dim(", large files over TCP"),
        Some(Tcp::Fails) => style.dim(", no TCP: all over QUIC"),
        Some(Tcp::Closed) | None => String::new(),
    };
    let name = shown(&device.name);
    let pad = " ".repeat(width.saturating_sub(name.chars().count()));
    writeln!(out, "  {name}{pad}  {state}{address}{tcp}")
}

fn problem_text(problem: &Problem) -> String {
    match problem.path.as_bytes() {
        b"" => shown(&problem.why),
        path => format!("{}: {}", Escaped(path), shown(&problem.why)),
    }
}

/// What reading all files again found, as lines.
pub fn verified(found: &Verified, style: &Style) -> String {
    let mut out = format!("verified {}, {}; ", count(found.files, "file", "files"), size(found.bytes));
    out += &match found.damaged {
        0 => style.good("no damage"),
        n => format!("{n} damaged, {} repaired", found.repaired),
    };
    if found.changed > 0 {
        out += &format!("; {} being changed", found.changed);
    }
    out.push('\n');
    for problem in found.problems.iter().take(PROBLEMS_SHOWN) {
        out += &format!("{} {}\n", style.bad("problem:"), problem_text(problem));
    }
    if let Some(more) = found.problems.len().checked_sub(PROBLEMS_SHOWN).filter(|n| *n > 0) {
        out += &format!("and {}\n", count(more as u64, "problem", "problems"));
    }
    out
}

/// What became of deletes and edits that were held, as one line.
pub fn resumed(done: &Resumed, style: &Style) -> String {
    let some = |n: u64, one: &str, more: &str| {
        format!("{} {}", count(n, "file", "files"), if n == 1 { one } else { more })
    };
    let (deleted, overwritten) = (done.files.saturating_sub(done.overwritten), done.overwritten);
    let what = match (done.accepted, deleted, overwritten) {
        (false, ..) => some(done.files, "comes back", "come back"),
        (true, _, 0) => some(deleted, "is deleted", "are deleted"),
        (true, 0, _) => some(overwritten, "is overwritten", "are overwritten"),
        (true, ..) => {
            let (deleted, edits) =
                (some(deleted, "is deleted", "are deleted"), some(overwritten, "is", "are"));
            format!("{deleted} and {edits} overwritten")
        }
    };
    format!("{} goes on: {what} on every device", style.path(&done.path))
}

/// What keeps a folder from being in sync, as one line; `None` if nothing does.
pub fn lacking(folder: &Folder) -> Option<String> {
    if folder.in_sync && folder.problems.is_empty() {
        return None;
    }
    let style = Style::of(false);
    let mut line = format!("{} {}", style.path(&folder.path), state(folder, &style));
    let behind = folder.devices.iter().filter(|d| d.connected && !d.in_sync).map(|d| shown(&d.name));
    let behind: Vec<String> = behind.collect();
    if !behind.is_empty() {
        line += &format!(", {} behind", behind.join(" and "));
    }
    if let Some(first) = folder.problems.first() {
        line += &format!(", {}", problem_text(first));
    }
    Some(line)
}

fn shown(text: &str) -> String {
    Escaped(text.as_bytes()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use dunlin_node::control::AnyPath;

    fn device(name: &str, connected: bool, in_sync: bool, address: Option<&str>) -> Device {
        let (id, address) = ("ab".into(), address.map(str::to_owned));
        Device { id, name: name.into(), connected, in_sync, address, tcp: None, holds: false }
    }

    fn folder(path: &str, state: State, in_sync: bool) -> Folder {
        Folder {
            id: "f".into(),
            path: AnyPath(path.into()),
            state,
            in_sync,
            files: 1204,
            bytes: 3_400_000_000,
            need_files: 0,
            need_bytes: 0,
            to_delete: 0,
            conflicts: 0,
            held: None,
            root_lost: false,
            problems: Vec::new(),
            devices: Vec::new(),
        }
    }

    fn status(folders: Vec<Folder>) -> Status {
        Status { device: "d".into(), name: "laptop".into(), folders }
    }

    #[test]
    fn a_status_of_many_kinds() {
        let mut good = folder("/home/ada/Sync", State::Idle, true);
        good.devices =
            vec![device("desktop", true, true, Some("192.168.1.7:9000")), device("nas", false, false, None)];
        good.devices.push(Device { tcp: Some(Tcp::Closed), ..good.devices[0].clone() });
        good.devices.push(Device { tcp: Some(Tcp::Open), ..good.devices[0].clone() });
        good.devices.push(Device { in_sync: false, holds: true, ..good.devices[0].clone() });
        good.devices.push(Device { tcp: Some(Tcp::Fails), ..good.devices[0].clone() });
        let mut busy = folder("/srv/photos", State::Syncing, false);
        (busy.need_files, busy.need_bytes, busy.conflicts) = (3, 12_345_678, 1);
        busy.devices = vec![device("desktop\x1b[2J", true, false, None)];
        busy.problems = vec![
            Problem { path: AnyPath::from(b"a\n\xff".to_vec()), why: "permission denied".into() },
            Problem { path: AnyPath::from(Vec::new()), why: "too many directories to watch".into() },
        ];
        let alone = folder("/alone", State::Idle, true);
        let text = text(&status(vec![good, busy, alone]), &Style::plain("/home/ada"));
        insta::assert_snapshot!(text, @r#"
        laptop

        ~/Sync  in sync  1,204 files, 3.4 GB
          desktop  in sync  192.168.1.7:9000
          nas      away, not in sync
          desktop  in sync  192.168.1.7:9000
          desktop  in sync  192.168.1.7:9000, large files over TCP
          desktop  halted, waits for a person: dunlin resume there  192.168.1.7:9000
          desktop  in sync  192.168.1.7:9000, no TCP: all over QUIC

        /srv/photos  syncing, 3 files (12.3 MB) to come  1,204 files, 3.4 GB
          desktop\u{1b}[2J  connected, not in sync
          1 conflict copy: look for "conflict" in the names
          problem: a\u{a}\xff: permission denied
          problem: too many directories to watch

        /alone  complete, no other device connected  1,204 files, 3.4 GB
          no other device yet: dunlin invite makes an invitation
        "#);
    }

    #[test]
    fn no_folder_is_said() {
        insta::assert_snapshot!(text(&status(Vec::new()), &Style::plain("/h")), @r#"
        laptop
        no folder yet: dunlin share FOLDER shares one, dunlin join TICKET joins one
        "#);
    }

    #[test]
    fn many_problems_are_cut() {
        let mut bad = folder("/f", State::Halted, false);
        bad.problems =
            (0..13).map(|i| Problem { path: AnyPath(i.to_string().into()), why: "w".into() }).collect();
        let text = text(&status(vec![bad]), &Style::plain("/h"));
        assert_eq!(text.matches("problem:").count(), 10);
        assert!(text.contains("halted, waiting for you") && text.contains("and 3 problems"), "{text}");
    }

    #[test]
    fn what_was_decided_is_one_line() {
        let done = |accepted, files, overwritten| {
            let (folder, path) = ("f".into(), AnyPath("/f".into()));
            let done = Resumed { folder, path, accepted, files, overwritten };
            resumed(&done, &Style::plain("/h"))
        };
        assert_eq!(done(true, 5000, 0), "/f goes on: 5,000 files are deleted on every device");
        assert_eq!(done(true, 1, 1), "/f goes on: 1 file is overwritten on every device");
        let both = "/f goes on: 2 files are deleted and 1 file is overwritten on every device";
        assert_eq!(done(true, 3, 1), both);
        assert_eq!(done(false, 1, 0), "/f goes on: 1 file comes back on every device");
    }

    #[test]
    fn what_is_lacking_is_one_line() {
        assert_eq!(lacking(&folder("/f", State::Idle, true)), None);
        let mut busy = folder("/f", State::Syncing, false);
        (busy.need_files, busy.need_bytes) = (1, 10);
        busy.devices = vec![device("nas", true, false, None)];
        let line = lacking(&busy).unwrap();
        assert_eq!(line, "/f syncing, 1 file (10 bytes) to come, nas behind");
        (busy.need_files, busy.to_delete) = (1201, 1200);
        assert!(
            lacking(&busy).unwrap().starts_with("/f syncing, 1 file (10 bytes) to come, 1,200 to delete,")
        );
        (busy.need_bytes, busy.need_files) = (0, 1200);
        assert!(lacking(&busy).unwrap().starts_with("/f syncing, 1,200 files to delete,"));
    }
}
