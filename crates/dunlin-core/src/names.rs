//! What shows under which name: several versions of a node, or several nodes, may want one name.
//!
//! The top of a node's versions keeps its name, the others show as conflict copies; a directory
//! keeps its name against everything else; of same-name siblings the smallest node id keeps it. All
//! others get names derived from what they are, so that every device derives the same ones.

use crate::ids::{Dot, NodeId, Tail};
use crate::kv::{Read, View};
use crate::path::{NAME_MAX, Name};
use crate::rows::{NodeRow, Position, Rows};
use crate::state::{Content, Mtime};
use alloc::collections::BTreeSet;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

/// What stands between the stem of a name and the digits that tell conflict copies apart.
const MARK: &[u8] = b"~conflict-";
/// The fewest digits of a tail, and the number used where the stem had to be cut.
const TAIL_MIN: usize = 5;
const TAIL_CUT: usize = 32;
/// The longest extension (with its dot) that stays at the end of a derived name.
const EXTENSION_MAX: usize = 16;

/// One thing that should be visible.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Where.
    pub at: Position,
    /// Which version of the node; `None` for a directory kept only for what lives in it.
    pub dot: Option<Dot>,
    /// What it is and holds.
    pub content: Content,
    /// Permission bits.
    pub mode: u16,
    /// Modification time (of files).
    pub mtime: Mtime,
    /// Whether it lost its name: touched by a user, it becomes a node of its own.
    pub copy: bool,
}

/// The mode of a directory or file of which none was ever said.
pub(crate) fn default_mode(content: &Content) -> u16 {
    if *content == Content::Dir { 0o755 } else { 0o644 }
}

struct Claim {
    node: NodeId,
    not_dir: bool,
    depth: usize,
    tail: [u8; 32],
    wanted: Wanted,
}

/// Everything that shows because of the nodes settled at `at`, with the names it gets.
pub fn group(view: &dyn View, at: &Position) -> Read<Vec<(NodeId, Wanted)>> {
    group_with(view, at, None)
}

/// The same, where the row of one of them was read already.
fn group_with(
    view: &dyn View,
    at: &Position,
    known: Option<(NodeId, &NodeRow)>,
) -> Read<Vec<(NodeId, Wanted)>> {
    let mut claims = Vec::new();
    for node in view.settled_at(at)? {
        if let Some((_, row)) = known.filter(|(known, _)| *known == node) {
            claims.extend(claims_of(view, node, row, at)?);
        } else if let Some(row) = view.node(node)? {
            claims.extend(claims_of(view, node, &row, at)?);
        }
    }
    claims.sort_by(|a, b| {
        (a.not_dir, a.depth, a.node, a.wanted.dot).cmp(&(b.not_dir, b.depth, b.node, b.wanted.dot))
    });
    let (mut out, mut taken) = (Vec::with_capacity(claims.len()), BTreeSet::new());
    for (i, claim) in claims.into_iter().enumerate() {
        let mut wanted = claim.wanted;
        if i > 0 {
            wanted.at.name = free_name(view, at, &claim.tail, &taken)?;
        }
        taken.insert(wanted.at.name.clone());
        out.push((claim.node, wanted));
    }
    Ok(out)
}

fn claims_of(view: &dyn View, node: NodeId, row: &NodeRow, at: &Position) -> Read<Vec<Claim>> {
    let versions = if row.state.alive() { row.state.versions() } else { Vec::new() };
    let dir_dot = versions.iter().find(|(_, c)| **c == Content::Dir).map(|(d, _)| *d);
    let is_dir = dir_dot.is_some() || shows_below(view, node)?;
    let wanted = |dot: Option<Dot>, content: &Content, copy| Wanted {
        at: at.clone(),
        dot,
        mode: row.state.mode_of(dot).unwrap_or(default_mode(content)),
        mtime: row.state.mtime_of(dot).unwrap_or_default(),
        content: content.clone(),
        copy,
    };
    let mut out = Vec::new();
    if is_dir {
        let mut wanted = wanted(dir_dot, &Content::Dir, false);
        if dir_dot.is_none() {
            wanted.mode = searchable(wanted.mode);
        }
        out.push(Claim { node, not_dir: false, depth: 0, tail: Tail::Dir(node).hash(), wanted });
    }
    let others = versions.iter().filter(|(_, c)| matches!(c, Content::File { .. } | Content::Link(_)));
    for (i, (dot, content)) in others.enumerate() {
        let tail = if i > 0 { Tail::Copy(node, *dot) } else { Tail::File(node) };
        let wanted = wanted(Some(*dot), content, i > 0 || is_dir);
        out.push(Claim { node, not_dir: true, depth: i + usize::from(is_dir), tail: tail.hash(), wanted });
    }
    Ok(out)
}

/// What shows as a directory only for what is in it may know but the mode of the file that it was: whoever may read that may
/// search it, or nobody could reach what is in it.
fn searchable(mode: u16) -> u16 {
    if mode & 0o111 == 0 { mode | (mode & 0o444) >> 2 } else { mode }
}

/// Whether a living node is settled somewhere below `node`: then it shows as a directory, whatever it
/// is by its content. A cut loop may leave dead nodes with nothing living below: those do not count.
fn shows_below(view: &dyn View, node: NodeId) -> Read<bool> {
    // While a batch is being put together its loops are not cut yet, hence `met`.
    let (mut todo, mut met) = (alloc::vec![node], BTreeSet::new());
    while let Some(dir) = todo.pop() {
        if !met.insert(dir) {
            continue;
        }
        let mut last: Option<(Name, NodeId)> = None;
        loop {
            let page = view.settled_in(dir, last.as_ref(), 64)?;
            for (_, child) in &page {
                match view.node(*child)? {
                    Some(row) if row.state.alive() => return Ok(true),
                    _ => todo.push(*child),
                }
            }
            match page.into_iter().next_back() {
                Some(end) => last = Some(end),
                None => break,
            }
        }
    }
    Ok(false)
}

/// The shortest derived name that nothing else in the directory has.
fn free_name(view: &dyn View, at: &Position, tail: &[u8; 32], taken: &BTreeSet<Name>) -> Read<Name> {
    let digits = hex(tail);
    let mut name = at.name.clone();
    for k in TAIL_MIN..=digits.len() {
        name = derive(&at.name, &digits, k);
        let sibling = Position::new(at.dir, name.clone());
        if !taken.contains(&name) && !shows_anything(view, &sibling)? {
            return Ok(name);
        }
    }
    // 64 digits of a hash collide with nothing.
    Ok(name)
}

fn hex(bytes: &[u8]) -> String {
    let digit = |n: u8| char::from(b"0123456789abcdef"[usize::from(n & 15)]);
    bytes.iter().flat_map(|b| [digit(b >> 4), digit(*b)]).collect()
}

fn shows_anything(view: &dyn View, at: &Position) -> Read<bool> {
    for node in view.settled_at(at)? {
        if let Some(row) = view.node(node)?
            && !claims_of(view, node, &row, at)?.is_empty()
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// `stem~conflict-digits.extension`, at most 255 bytes.
fn derive(name: &Name, digits: &str, k: usize) -> Name {
    let (stem, extension) = split_extension(name.as_bytes());
    let build = |stem: &[u8], digits: &str| [stem, MARK, digits.as_bytes(), extension].concat();
    let mut bytes = build(stem, &digits[..k]);
    if bytes.len() > NAME_MAX {
        let digits = &digits[..k.max(TAIL_CUT)];
        let room = NAME_MAX - MARK.len() - digits.len() - extension.len();
        bytes = build(cut(stem, room), digits);
    }
    // A stem of a name and hexadecimal digits hold nothing that a name must not.
    Name::new(&bytes).unwrap_or_else(|_| name.clone())
}

/// The first `room` bytes, less a character that would be cut in two.
fn cut(stem: &[u8], room: usize) -> &[u8] {
    let mut end = room.min(stem.len());
    while end > 0 && stem.get(end).is_some_and(|b| b & 0xc0 == 0x80) {
        end -= 1;
    }
    &stem[..end]
}

fn split_extension(name: &[u8]) -> (&[u8], &[u8]) {
    match name.iter().rposition(|&b| b == b'.') {
        Some(dot) if dot > 0 && (2..=EXTENSION_MAX).contains(&(name.len() - dot)) => name.split_at(dot),
        _ => (name, b""),
    }
}

/// The stem, digits and extension of a name of the derived form.
fn parse_derived(name: &Name) -> Option<(Vec<u8>, String, Vec<u8>)> {
    let name = name.as_bytes();
    let mark = name.windows(MARK.len()).rposition(|w| w == MARK)?;
    let tail = &name[mark + MARK.len()..];
    let hex = |b: &&u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
    let (digits, extension) = tail.split_at(tail.iter().take_while(hex).count());
    let whole = extension.is_empty() || extension[0] == b'.';
    if digits.len() < TAIL_MIN || !whole {
        return None;
    }
    let digits = core::str::from_utf8(digits).ok()?.to_string();
    Some((name[..mark].to_vec(), digits, extension.to_vec()))
}

/// Whether a name has the form of a conflict copy's.
pub fn is_conflict_name(name: &Name) -> bool {
    parse_derived(name).is_some()
}

/// The names whose derived names may depend on whether `at` is taken.
pub(crate) fn bases(view: &dyn View, at: &Position) -> Read<Vec<Position>> {
    let Some((stem, digits, extension)) = parse_derived(&at.name) else { return Ok(Vec::new()) };
    if digits.len() < TAIL_CUT {
        let name = Name::new(&[stem, extension].concat());
        return Ok(name.into_iter().map(|n| Position::new(at.dir, n)).collect());
    }
    // The stem may have been cut: every name that begins with it may be the one.
    let mut out = Vec::new();
    let mut last: Option<Name> = None;
    loop {
        let page = view.settled_named(at.dir, &stem, last.as_ref(), 64)?;
        for (name, _) in &page {
            if Some(name) != last.as_ref() {
                out.push(Position::new(at.dir, name.clone()));
                last = Some(name.clone());
            }
        }
        if page.is_empty() {
            return Ok(out);
        }
    }
}

/// What shows of one node.
pub fn wanted(view: &dyn View, node: NodeId) -> Read<Vec<Wanted>> {
    let Some(row) = view.node(node)? else { return Ok(Vec::new()) };
    let (true, Some(at)) = (row.present, row.settled(node)) else { return Ok(Vec::new()) };
    Ok(group_with(view, &at, Some((node, &row)))?
        .into_iter()
        .filter(|(n, _)| *n == node)
        .map(|(_, w)| w)
        .collect())
}

/// The names that something of a directory has on this disk or is to have.
pub fn names_in(view: &dyn View, dir: NodeId) -> Read<BTreeSet<Name>> {
    let mut out: BTreeSet<Name> = view.locals(dir)?.into_iter().map(|(name, _)| name).collect();
    let mut last: Option<(Name, NodeId)> = None;
    loop {
        let page = view.settled_in(dir, last.as_ref(), 64)?;
        let mut settled: Vec<&Name> = page.iter().map(|(name, _)| name).collect();
        settled.dedup();
        for name in settled {
            let shown = group(view, &Position::new(dir, name.clone()))?;
            out.extend(shown.into_iter().map(|(_, w)| w.at.name));
        }
        match page.into_iter().next_back() {
            Some(end) => last = Some(end),
            None => return Ok(out),
        }
    }
}

/// What shows at a position.
pub fn visible_at(view: &dyn View, at: &Position) -> Read<Option<(NodeId, Wanted)>> {
    let here = |all: Vec<(NodeId, Wanted)>| all.into_iter().find(|(_, w)| w.at == *at);
    if let Some(found) = here(group(view, at)?) {
        return Ok(Some(found));
    }
    for base in bases(view, at)? {
        if let Some(found) = here(group(view, &base)?) {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;

    fn name(n: &str) -> Name {
        Name::new(n.as_bytes()).unwrap()
    }

    #[test]
    fn the_extension_stays_at_the_end() {
        let digits = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
        for (from, to) in [
            ("a", "a~conflict-01234"),
            ("a.txt", "a~conflict-01234.txt"),
            (".bashrc", ".bashrc~conflict-01234"),
            ("a.tar.gz", "a.tar~conflict-01234.gz"),
            ("a.", "a.~conflict-01234"),
            ("a.a-very-long-extension", "a.a-very-long-extension~conflict-01234"),
        ] {
            let derived = derive(&name(from), digits, 5);
            assert_eq!(derived, name(to));
            let (stem, tail, ext) = parse_derived(&derived).unwrap();
            assert_eq!(([stem, ext].concat(), tail.as_str()), (from.as_bytes().to_vec(), "01234"));
        }
    }

    #[test]
    fn long_names_are_cut_between_characters_and_stay_names() {
        let digits = "0123456789abcdef".repeat(4);
        for stem in ["x".repeat(251), "é".repeat(125), "日".repeat(83)] {
            let derived = derive(&name(&format!("{stem}.txt")), &digits, 5);
            assert!(derived.as_bytes().len() <= NAME_MAX);
            assert!(core::str::from_utf8(derived.as_bytes()).is_ok());
            assert_eq!(parse_derived(&derived).unwrap().1.len(), TAIL_CUT);
        }
    }

    #[test]
    fn a_name_is_derived_even_when_every_number_of_digits_is_taken() {
        let tail = [0xab; 32];
        let at = Position::new(crate::ids::ROOT, name("a.txt"));
        let all = |n: usize| (TAIL_MIN..=n).map(|k| derive(&at.name, &"ab".repeat(32), k)).collect();
        let view = crate::kv::Memory::default();
        assert_eq!(
            free_name(&view, &at, &tail, &all(63)).unwrap().as_bytes().len(),
            "a~conflict-.txt".len() + 64
        );
        assert_eq!(
            free_name(&view, &at, &tail, &all(64)).unwrap().as_bytes().len(),
            "a~conflict-.txt".len() + 64
        );
    }

    #[test]
    fn ordinary_names_are_no_conflict_names() {
        for n in ["a", "a~conflict-", "a~conflict-1234", "a~conflict-xyzzy", "conflict"] {
            assert!(!is_conflict_name(&name(n)), "{n}");
        }
    }
}
