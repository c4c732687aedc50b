//! The rows of a folder's index: their keys, their bytes, and typed access to them (docs/on-disk.md).

use crate::codec::{decode_state, encode_state};
use crate::ids::{ContentId, DeviceId, NodeId, ROOT};
use crate::kv::{Fault, Read, Tx, View};
use crate::path::Name;
use crate::state::{Content, Place, State};
use alloc::boxed::Box;
use alloc::format;
use alloc::vec::Vec;
use minicbor::{Decode, Encode};

mod again;
mod doubt;
mod local;
mod peer;
mod position;
mod released;
mod totals;

pub(crate) use again::is_again;
pub use doubt::Doubt;
pub use local::{LocalRow, Stamp};
use local::{decode_local, encode_local};
pub use peer::PeerRow;
pub use position::Position;
pub(crate) use released::{all_released, is_released};
pub use totals::{NeedRow, Totals};

/// One node of the tree as this index knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeRow {
    /// What is replicated.
    pub state: State,
    /// The number of its last change in this index; 0 if it was never announced (a blank row).
    pub seq: u64,
    /// The peer that holds exactly this state because it sent it (its number), or 0.
    pub from: u32,
    /// How many nodes that are present are placed (by their top placement) in it.
    pub kids: u32,
    /// Whether it lives or keeps what lives in it.
    pub present: bool,
    /// Where it is shown instead of its top placement, if a loop was cut there.
    pub cut: Option<Position>,
}

impl NodeRow {
    /// Its top placement, if it has one.
    pub fn raw(&self) -> Option<Position> {
        self.state.placed().map(|(_, p)| Position::new(p.value.parent, p.value.name.clone()))
    }

    /// Its place after loops are cut; in the root, if it has none.
    pub fn settled(&self, id: NodeId) -> Option<Position> {
        self.cut.clone().or_else(|| self.raw()).or_else(|| Some(Position::new(ROOT, self.state.lost(id)?)))
    }

    /// The whole top placement.
    pub fn place(&self) -> Option<&Place> {
        self.state.placed().map(|(_, p)| &p.value)
    }
}

#[derive(Encode, Decode)]
struct NodeBytes<'a> {
    #[n(0)]
    seq: u64,
    #[n(1)]
    from: u32,
    #[n(2)]
    kids: u32,
    #[n(3)]
    present: bool,
    #[n(4)]
    cut: Option<Position>,
    #[cbor(n(5), with = "minicbor::bytes")]
    state: &'a [u8],
}

/// The kinds of key. The first byte of every key.
#[derive(Clone, Copy)]
#[repr(u8)]
pub(crate) enum Table {
    Node = b'n',
    Seq = b's',
    Child = b'c',
    Cut = b'x',
    Local = b'l',
    PlaceOf = b'p',
    Inode = b'i',
    Holder = b'h',
    Need = b'd',
    Ready = b'r',
    Waiting = b'w',
    Totals = b't',
    Peer = b'a',
    Life = b'v',
    Change = b'u',
    Moment = b'z',
    Mark = b'm',
    Author = b'o',
    Released = b'f',
    Brake = b'b',
    Doubt = b'q',
    Again = b'g',
}

pub(crate) fn key(table: Table, parts: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::with_capacity(64);
    out.push(table as u8);
    parts.iter().for_each(|p| out.extend_from_slice(p));
    out
}

/// The first key after all that begin with `prefix`.
pub(crate) fn after(prefix: &[u8]) -> Vec<u8> {
    let mut out = prefix.to_vec();
    while let Some(last) = out.pop() {
        if last < 0xff {
            out.push(last + 1);
            return out;
        }
    }
    alloc::vec![0xff; prefix.len() + 1]
}

fn bad(what: &str) -> Fault {
    Fault::damage(format!("a {what} cannot be read"))
}

pub(crate) fn decode<'b, T: Decode<'b, ()>>(bytes: &'b [u8], what: &str) -> Read<T> {
    minicbor::decode(bytes).map_err(|_| bad(what))
}

pub(crate) fn encode<T: Encode<()>>(value: &T) -> Vec<u8> {
    // Most rows fit.
    let mut out = Vec::with_capacity(224);
    // Writing into a Vec cannot fail.
    let done = minicbor::encode(value, &mut out);
    debug_assert!(done.is_ok());
    out
}

fn position_of(key: &[u8], skip: usize) -> Read<Position> {
    let dir = key.get(skip..skip + 16).and_then(NodeId::from_slice).ok_or_else(|| bad("position"))?;
    let name = Name::new(&key[skip + 16..]).map_err(|_| bad("position"))?;
    Ok(Position { dir, name })
}

fn node_at(key: &[u8], skip: usize) -> Read<NodeId> {
    key.get(skip..skip + 16).and_then(NodeId::from_slice).ok_or_else(|| bad("node id"))
}

/// Typed reads.
pub trait Rows: View {
    /// A node's row.
    fn node(&self, id: NodeId) -> Read<Option<NodeRow>> {
        let Some(bytes) = self.get(&key(Table::Node, &[&id.0]))? else { return Ok(None) };
        let b: NodeBytes = decode(&bytes, "node row")?;
        let state = decode_state(b.state).map_err(|_| bad("state"))?;
        Ok(Some(NodeRow { state, seq: b.seq, from: b.from, kids: b.kids, present: b.present, cut: b.cut }))
    }

    /// The nodes settled at a position, of the same name.
    fn settled_at(&self, at: &Position) -> Read<Vec<NodeId>> {
        let prefix = key(Table::Child, &[&at.dir.0, at.name.as_bytes(), &[0]]);
        let pairs = self.range(&prefix, &after(&prefix), usize::MAX)?;
        pairs.iter().map(|(k, _)| node_at(k, prefix.len())).collect()
    }

    /// Up to `limit` present nodes settled in `parent` with their names, after `last`.
    fn settled_in(
        &self,
        parent: NodeId,
        last: Option<&(Name, NodeId)>,
        limit: usize,
    ) -> Read<Vec<(Name, NodeId)>> {
        let prefix = key(Table::Child, &[&parent.0]);
        let from = match last {
            Some((name, id)) => key(Table::Child, &[&parent.0, name.as_bytes(), &[0], &id.0, &[0]]),
            None => prefix.clone(),
        };
        self.children(&from, &after(&prefix), limit)
    }

    /// Up to `limit` present nodes settled in `parent` whose names begin with `stem`, with their names;
    /// after all of the name `last`.
    fn settled_named(
        &self,
        parent: NodeId,
        stem: &[u8],
        last: Option<&Name>,
        limit: usize,
    ) -> Read<Vec<(Name, NodeId)>> {
        let prefix = key(Table::Child, &[&parent.0, stem]);
        let from = match last {
            Some(name) => after(&key(Table::Child, &[&parent.0, name.as_bytes(), &[0]])),
            None => prefix.clone(),
        };
        self.children(&from, &after(&prefix), limit)
    }

    #[doc(hidden)]
    fn children(&self, from: &[u8], to: &[u8], limit: usize) -> Read<Vec<(Name, NodeId)>> {
        let mut out = Vec::new();
        for (k, _) in self.range(from, to, limit)? {
            let name = k.get(17..k.len() - 17).ok_or_else(|| bad("child"))?;
            out.push((Name::new(name).map_err(|_| bad("child"))?, node_at(&k, k.len() - 16)?));
        }
        Ok(out)
    }

    /// The nodes whose placement was cut out of a loop.
    fn cuts(&self) -> Read<Vec<NodeId>> {
        let prefix = [Table::Cut as u8];
        self.range(&prefix, &after(&prefix), usize::MAX)?.iter().map(|(k, _)| node_at(k, 1)).collect()
    }

    /// What is on this disk at a position.
    fn local(&self, at: &Position) -> Read<Option<LocalRow>> {
        match self.get(&key(Table::Local, &[&at.dir.0, at.name.as_bytes()]))? {
            Some(bytes) => decode_local(&bytes).map(Some),
            None => Ok(None),
        }
    }

    /// What is on this disk in a directory, by name.
    fn locals(&self, dir: NodeId) -> Read<Vec<(Name, LocalRow)>> {
        self.locals_after(dir, None, usize::MAX)
    }

    /// Up to `limit` of what is on this disk in a directory, after `last`.
    fn locals_after(&self, dir: NodeId, last: Option<&Name>, limit: usize) -> Read<Vec<(Name, LocalRow)>> {
        let prefix = key(Table::Local, &[&dir.0]);
        let from = last.map_or_else(|| prefix.clone(), |n| key(Table::Local, &[&dir.0, n.as_bytes(), &[0]]));
        let pairs = self.range(&from, &after(&prefix), limit)?;
        pairs.iter().map(|(k, v)| Ok((position_of(k, 1)?.name, decode_local(v)?))).collect()
    }

    /// Whether anything of ours is on this disk in a directory.
    fn has_locals(&self, dir: NodeId) -> Read<bool> {
        let prefix = key(Table::Local, &[&dir.0]);
        Ok(!self.range(&prefix, &after(&prefix), 1)?.is_empty())
    }

    /// Where on this disk the versions of a node are.
    fn places_of(&self, node: NodeId) -> Read<Vec<Position>> {
        self.positions(&key(Table::PlaceOf, &[&node.0]), usize::MAX)
    }

    /// Where on this disk an inode was found.
    fn places_of_inode(&self, ino: u64) -> Read<Vec<Position>> {
        self.positions(&key(Table::Inode, &[&ino.to_be_bytes()]), 8)
    }

    /// Where on this disk a content is, at most eight of them.
    fn holders(&self, id: ContentId) -> Read<Vec<Position>> {
        self.positions(&key(Table::Holder, &[&id.0]), 8)
    }

    #[doc(hidden)]
    fn positions(&self, prefix: &[u8], limit: usize) -> Read<Vec<Position>> {
        let pairs = self.range(prefix, &after(prefix), limit)?;
        pairs.iter().map(|(k, _)| position_of(k, prefix.len())).collect()
    }

    /// What a node lacks.
    fn need(&self, node: NodeId) -> Read<Option<NeedRow>> {
        let bytes = self.get(&key(Table::Need, &[&node.0]))?;
        bytes.map(|b| decode(&b, "need")).transpose()
    }

    /// Nodes of one phase that can be worked on, after `last`.
    fn ready(&self, phase: u8, last: Option<NodeId>, limit: usize) -> Read<Vec<NodeId>> {
        let prefix = key(Table::Ready, &[&[phase]]);
        let from = last.map_or_else(|| prefix.clone(), |n| key(Table::Ready, &[&[phase], &n.0, &[0]]));
        self.range(&from, &after(&prefix), limit)?.iter().map(|(k, _)| node_at(k, 2)).collect()
    }

    /// Nodes that wait for a directory.
    fn waiting(&self, dir: NodeId) -> Read<Vec<NodeId>> {
        let prefix = key(Table::Waiting, &[&dir.0]);
        self.range(&prefix, &after(&prefix), usize::MAX)?.iter().map(|(k, _)| node_at(k, 17)).collect()
    }

    /// Rows changed after `seq`, in order: (sequence number, node).
    fn changed_since(&self, seq: u64, limit: usize) -> Read<Vec<(u64, NodeId)>> {
        let from = key(Table::Seq, &[&(seq.saturating_add(1)).to_be_bytes()]);
        let pairs = self.range(&from, &[Table::Seq as u8 + 1], limit)?;
        let mut out = Vec::with_capacity(pairs.len());
        for (k, v) in pairs {
            let number = k.get(1..9).and_then(|b| b.try_into().ok()).ok_or_else(|| bad("sequence"))?;
            out.push((u64::from_be_bytes(number), node_at(&v, 0)?));
        }
        Ok(out)
    }

    /// The counters.
    fn totals(&self) -> Read<Totals> {
        let bytes = self.get(&[Table::Totals as u8])?;
        bytes.map_or(Ok(Totals::default()), |b| decode(&b, "totals"))
    }

    /// What is known of the exchange with a peer.
    fn peer(&self, device: DeviceId) -> Read<Option<PeerRow>> {
        self.get(&key(Table::Peer, &[&device.0]))?.map(|b| decode(&b, "peer")).transpose()
    }

    /// All peers that were ever exchanged with.
    fn peers(&self) -> Read<Vec<(DeviceId, PeerRow)>> {
        let prefix = [Table::Peer as u8];
        let pairs = self.range(&prefix, &after(&prefix), usize::MAX)?;
        let id = |k: &[u8]| DeviceId::from_slice(&k[1..]).ok_or_else(|| bad("peer"));
        pairs.iter().map(|(k, v)| Ok((id(k)?, decode(v, "peer")?))).collect()
    }

    /// What a writer of this index left in doubt.
    fn doubt(&self) -> Read<Option<Doubt>> {
        doubt::doubt(self)
    }

    /// The names from the root down to where `dir` is on this disk; `None` if it is not.
    fn disk_path(&self, dir: NodeId) -> Read<Option<Vec<Name>>> {
        let (mut names, mut at) = (Vec::new(), dir);
        while at != crate::ids::ROOT {
            if at == crate::ids::PARKED {
                names.extend([Name::new(b"swap"), Name::new(crate::path::CONTROL_DIR)].into_iter().flatten());
                break;
            }
            let Some(up) = self.dir_position(at)? else { return Ok(None) };
            names.push(up.name);
            at = up.dir;
            if names.len() > 4096 {
                return Err(Fault::damage("directories form a loop"));
            }
        }
        names.reverse();
        Ok(Some(names))
    }

    /// Where the directory of a node is on this disk.
    fn dir_position(&self, node: NodeId) -> Read<Option<Position>> {
        for at in self.places_of(node)? {
            if self.local(&at)?.is_some_and(|l| l.content == Content::Dir) {
                return Ok(Some(at));
            }
        }
        Ok(None)
    }

    /// Whether the directory of a node is on this disk (the root always is).
    fn is_on_disk(&self, dir: NodeId) -> Read<bool> {
        Ok(dir == crate::ids::ROOT || dir == crate::ids::PARKED || self.dir_position(dir)?.is_some())
    }
}

impl<V: View + ?Sized> Rows for V {}

impl Tx<'_> {
    /// Writes a node's row; derived tables are kept by `tree`.
    pub(crate) fn put_node(&mut self, id: NodeId, row: &NodeRow) {
        let state = encode_state(&row.state);
        let b = NodeBytes {
            seq: row.seq,
            from: row.from,
            kids: row.kids,
            present: row.present,
            cut: row.cut.clone(),
            state: &state,
        };
        self.put(key(Table::Node, &[&id.0]), encode(&b));
    }

    pub(crate) fn put_child(&mut self, at: &Position, id: NodeId) {
        self.put(key(Table::Child, &[&at.dir.0, at.name.as_bytes(), &[0], &id.0]), Vec::new());
    }

    pub(crate) fn remove_child(&mut self, at: &Position, id: NodeId) {
        self.remove(key(Table::Child, &[&at.dir.0, at.name.as_bytes(), &[0], &id.0]));
    }

    pub(crate) fn set_cut(&mut self, id: NodeId, cut: bool) {
        let key = key(Table::Cut, &[&id.0]);
        if cut { self.put(key, Vec::new()) } else { self.remove(key) }
    }

    pub(crate) fn put_seq(&mut self, seq: u64, id: NodeId) {
        self.put(key(Table::Seq, &[&seq.to_be_bytes()]), id.0.to_vec());
    }

    pub(crate) fn remove_seq(&mut self, seq: u64) {
        self.remove(key(Table::Seq, &[&seq.to_be_bytes()]));
    }

    /// Writes (or, with `None`, removes) what is on this disk at a position, with its indexes and totals.
    pub(crate) fn put_local(&mut self, at: &Position, row: Option<&LocalRow>) -> Read<()> {
        let old = self.local(at)?;
        let mut totals = self.totals()?;
        if let Some(old) = &old {
            self.count_local(&mut totals, at, old, false);
        }
        let main = key(Table::Local, &[&at.dir.0, at.name.as_bytes()]);
        match row {
            Some(row) => {
                self.put(main, encode_local(row));
                self.count_local(&mut totals, at, row, true);
            }
            None => self.remove(main),
        }
        self.put_totals(&totals);
        Ok(())
    }

    fn count_local(&mut self, totals: &mut Totals, at: &Position, row: &LocalRow, add: bool) {
        let place: [&[u8]; 2] = [&at.dir.0, at.name.as_bytes()];
        let mut keys: Vec<Box<[u8]>> = alloc::vec![
            key(Table::PlaceOf, &[&row.node.0, place[0], place[1]]).into(),
            key(Table::Inode, &[&row.stamp.ino.to_be_bytes(), place[0], place[1]]).into(),
        ];
        let one = if add { 1 } else { u64::MAX };
        match &row.content {
            Content::Dir | Content::Unknown { .. } => {}
            Content::Link(_) => totals.files = totals.files.wrapping_add(one),
            Content::File { id, size } => {
                totals.files = totals.files.wrapping_add(one);
                totals.bytes = totals.bytes.wrapping_add(one.wrapping_mul(*size));
                if row.damaged.is_none() {
                    keys.push(key(Table::Holder, &[&id.0, place[0], place[1]]).into());
                }
            }
        }
        if crate::names::is_conflict_name(&at.name) {
            totals.conflicts = totals.conflicts.wrapping_add(one);
        }
        for k in keys {
            if add { self.put(k.into(), Vec::new()) } else { self.remove(k.into()) }
        }
    }
}
