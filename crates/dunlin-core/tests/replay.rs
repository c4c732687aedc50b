//! The core against the model: thousands of histories that `docs/model/tree.py` wrote, each line of
//! which says what the device must show afterwards (docs/model/README.md). Users act on a disk, scans
//! find what they did, states travel as bytes, plans are carried out; index and disk must then agree
//! with the model, dot by dot.
#![allow(clippy::unwrap_used)]

use crate::common::*;
use dunlin_core::path::RelPath;
use dunlin_core::plan::Outcome;
use std::collections::BTreeMap;

const HISTORIES: &str = include_str!("corpus/histories.txt");

fn unquote(text: &str) -> RelPath {
    let (mut out, mut bytes) = (Vec::new(), text.bytes());
    while let Some(b) = bytes.next() {
        let mut digit = || (bytes.next().unwrap() as char).to_digit(16).unwrap() as u8;
        out.push(if b == b'%' { digit() << 4 | digit() } else { b });
    }
    RelPath::parse(&out).unwrap()
}

struct Replay {
    devices: BTreeMap<char, Device>,
    contents: Contents,
    line: usize,
}

impl Replay {
    fn who(&mut self, word: &str) -> &mut Device {
        self.devices.get_mut(&word.chars().next().unwrap()).unwrap()
    }

    fn body(&mut self, kind: &str, value: &str) -> Body {
        match kind {
            "dir" => Body::Dir(BTreeMap::new()),
            "link" => Body::Link(value.into()),
            _ => {
                self.contents.insert(content_id(value.as_bytes()), value.into());
                Body::File(value.into())
            }
        }
    }

    fn step(&mut self, words: &[&str]) {
        let line = self.line;
        match *words {
            ["c", r, path, kind, value, _] => {
                let body = self.body(kind, value);
                assert!(self.who(r).disk.create(&unquote(path), body), "line {line}: taken");
            }
            ["e", r, path, kind, value, _] => {
                let (path, body) = (unquote(path), self.body(kind, value));
                let disk = &mut self.who(r).disk;
                let was_file = matches!(disk.inode(&path).unwrap().body, Body::File(_));
                if kind == "file" && was_file && line.is_multiple_of(2) {
                    disk.write(&path, value.as_bytes());
                } else if line.is_multiple_of(3) {
                    disk.remove(&path);
                    assert!(disk.create(&path, body));
                } else {
                    let temp = path.split_last().unwrap().0.join(&name(b"4913"));
                    assert!(disk.create(&temp, body) && disk.rename(&temp, &path));
                }
            }
            ["d", r, path, _] => self.who(r).disk.remove(&unquote(path)),
            ["m", r, path, to, _] => {
                assert!(self.who(r).disk.rename(&unquote(path), &unquote(to)), "line {line}: no move");
            }
            ["r", r, s, _] => {
                let all = |w: &str| if w == "*" { "XYZ".to_string() } else { w.to_string() };
                for a in all(r).chars() {
                    for b in all(s).chars() {
                        let rows = self.devices[&b].rows();
                        self.devices.get_mut(&a).unwrap().hear(&rows);
                    }
                }
                for a in all(r).chars() {
                    self.bring_about(a);
                }
            }
            _ => panic!("line {line}: {words:?}"),
        }
        if words[0] != "r" {
            self.who(words[1]).scan();
            self.bring_about(words[1].chars().next().unwrap());
        }
        let digest = words.last().unwrap();
        for r in if words[1] == "*" { "XYZ" } else { words[1] }.chars() {
            self.check(r, digest);
        }
    }

    /// Plans and carries out until nothing is left to do.
    fn bring_about(&mut self, r: char) {
        let (line, contents) = (self.line, &self.contents);
        let device = self.devices.get_mut(&r).unwrap();
        for _ in 0..200 {
            let plan = device.plan(&|_| true, 100);
            if plan.steps.is_empty() {
                let totals = dunlin_core::rows::Rows::totals(&device.index).unwrap();
                assert_eq!(totals.need_files, 0, "line {line}: {r} is stuck");
                return;
            }
            let mut done = Vec::new();
            for step in plan.steps {
                let outcome = device.carry_out(&step, contents);
                assert!(matches!(outcome, Outcome::Done(..)), "line {line}: {r} cannot {step:#?}");
                done.push((step, outcome));
            }
            device.conclude(&done);
        }
        panic!("line {line}: {r} does not come to an end");
    }

    fn check(&self, r: char, digest: &str) {
        let (line, device) = (self.line, &self.devices[&r]);
        let wanted = device.wanted();
        let mut shown = Vec::new();
        let mut lines: Vec<String> = Vec::new();
        for (path, node, w) in &wanted {
            let (kind, value) = kind_and_value(&w.content, &self.contents);
            let what = format!("{} {kind} {value}", hex(&path.to_bytes()));
            lines.push(format!("{what} {node} {}\n", dot_text(w.dot)));
            shown.push(what);
        }
        lines.sort();
        let hash = |x: [u8; 32], l: &String| *blake3::hash(&[&x[..], l.as_bytes()].concat()).as_bytes();
        let x = lines.iter().fold([0; 32], hash);
        assert_eq!(hex(&x[..4]), digest, "line {line}: the index of {r} shows {wanted:#?}");
        let mut disk: Vec<String> = Vec::new();
        for path in device.disk.paths() {
            let (kind, value) = match &device.disk.inode(&path).unwrap().body {
                Body::Dir(_) => ("dir", "-".into()),
                Body::File(b) => ("file", hex(b)),
                Body::Link(b) => ("link", hex(b)),
            };
            disk.push(format!("{} {kind} {value}", hex(&path.to_bytes())));
        }
        shown.sort();
        disk.sort();
        assert_eq!(shown, disk, "line {line}: the disk of {r} differs from its index");
        device.check_totals();
    }
}

/// Replays one history; `first` is the number of its first line.
fn history(first: usize, lines: &[&str]) {
    let devices = "XYZ".chars().map(|c| (c, Device::new(&c.to_string()))).collect();
    let mut replay = Replay { devices, contents: Contents::new(), line: first };
    for (i, line) in lines.iter().enumerate() {
        let words: Vec<&str> = line.split(' ').collect();
        replay.line = first + i;
        if words[0] != "h" && words[0] != "v" {
            replay.step(&words);
        }
    }
}

/// Histories are independent of each other: every second one on each of two threads.
fn replay(part: usize) {
    let lines: Vec<&str> = HISTORIES.lines().collect();
    let starts: Vec<usize> = (0..lines.len()).filter(|i| lines[*i].starts_with("h ")).collect();
    assert_eq!(starts.len(), 3000, "histories");
    for (i, &from) in starts.iter().enumerate().skip(part).step_by(2) {
        let to = starts.get(i + 1).copied().unwrap_or(lines.len());
        history(from + 1, &lines[from..to]);
    }
}

#[test]
fn even_histories_agree_with_the_model() {
    replay(0);
}

#[test]
fn odd_histories_agree_with_the_model() {
    replay(1);
}
