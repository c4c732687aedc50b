//! The canonical bytes of a node's state: what is stored, sent, relayed and hashed (docs/protocol.md).
//!
//! CBOR arrays, lengths always given: `[incs, seen, place, content, mode, mtime, gone]`, where `incs`
//! lists the incarnations once, sorted, and everything else names them by index. A dot is two
//! numbers, `index, counter`. A value may be followed by elements that a newer program wrote; they are
//! kept byte for byte. Decoding is bounded by the length of its input and validates everything.

use crate::ids::{ContentId, Dot, Incarnation, NodeId};
use crate::path::Name;
use crate::state::{COUNTER_MAX, Content, DotStore, Mtime, Place, Ranked, State, Vector};
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::convert::Infallible;
use core::fmt;
use minicbor::{Decoder, Encoder, decode};

/// The longest link text in bytes (Linux `PATH_MAX` less the final NUL).
pub const LINK_MAX: usize = 4095;

/// The longest state taken from others, in bytes. With what one message holds beside it, a frame is
/// never too long for who gets it next.
pub const STATE_MAX: usize = 256 << 10;

/// Why bytes are not a state (or message).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed(pub &'static str);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "malformed: {}", self.0)
    }
}

impl core::error::Error for Malformed {}

impl From<decode::Error> for Malformed {
    fn from(_: decode::Error) -> Malformed {
        Malformed("not the expected CBOR")
    }
}

type Enc<'a> = Encoder<&'a mut Vec<u8>>;
type Written = Result<(), minicbor::encode::Error<Infallible>>;

/// Writes the canonical bytes of `state`.
pub fn encode_state(state: &State) -> Vec<u8> {
    let mut out = Vec::with_capacity(160);
    let incs = incarnations(state);
    // Writing into a Vec has no error to give; the result type is `Infallible` inside.
    let done = write_state(&mut Encoder::new(&mut out), state, &incs);
    debug_assert!(done.is_ok());
    out
}

fn incarnations(state: &State) -> Vec<Incarnation> {
    let mut incs: Vec<Incarnation> = state.seen.entries().iter().map(|e| e.0).collect();
    let mut add = |d: Dot| incs.push(d.inc);
    state.place.entries().iter().for_each(|e| add(e.0));
    state.content.entries().iter().for_each(|e| add(e.0));
    state.mode.entries().iter().for_each(|e| add(e.0));
    state.mtime.entries().iter().for_each(|e| add(e.0));
    for (dot, seen) in state.gone.entries() {
        incs.push(dot.inc);
        incs.extend(seen.entries().iter().map(|e| e.0));
    }
    incs.sort_unstable();
    incs.dedup();
    incs
}

fn write_state(e: &mut Enc<'_>, s: &State, incs: &[Incarnation]) -> Written {
    e.array(7)?.array(incs.len() as u64)?;
    for inc in incs {
        e.bytes(&inc.0)?;
    }
    write_vector(e, &s.seen, incs)?;
    write_store(e, &s.place, incs, 3, |e, p| {
        e.bytes(&p.parent.0)?.bytes(p.name.as_bytes())?;
        match &p.earlier {
            None => e.null()?.ok(),
            Some((parent, name)) => e.array(2)?.bytes(&parent.0)?.bytes(name.as_bytes())?.ok(),
        }
    })?;
    write_store(e, &s.content, incs, 2, write_content)?;
    write_store(e, &s.mode, incs, 1, |e, m| e.u16(*m)?.ok())?;
    write_store(e, &s.mtime, incs, 2, |e, t| e.i64(t.secs)?.u32(t.nanos)?.ok())?;
    e.array(s.gone.entries().len() as u64)?;
    for (dot, seen) in s.gone.entries() {
        e.array(3)?.u64(index(incs, dot.inc))?.u64(dot.counter)?;
        write_vector(e, seen, incs)?;
    }
    Ok(())
}

fn write_content(e: &mut Enc<'_>, c: &Content) -> Written {
    match c {
        Content::Dir => e.u8(1)?.null()?.ok(),
        Content::File { id, size } => e.u8(2)?.array(2)?.bytes(&id.0)?.u64(*size)?.ok(),
        Content::Link(text) => e.u8(3)?.bytes(text)?.ok(),
        Content::Unknown { kind, bytes } => {
            e.u8(*kind)?;
            e.writer_mut().extend_from_slice(bytes);
            Ok(())
        }
    }
}

fn write_vector(e: &mut Enc<'_>, v: &Vector, incs: &[Incarnation]) -> Written {
    e.array(2 * v.entries().len() as u64)?;
    for &(inc, counter) in v.entries() {
        e.u64(index(incs, inc))?.u64(counter)?;
    }
    Ok(())
}

/// `fields` is how many elements `write` adds to an entry.
fn write_store<T: Clone>(
    e: &mut Enc<'_>,
    store: &DotStore<Ranked<T>>,
    incs: &[Incarnation],
    fields: u64,
    write: impl Fn(&mut Enc<'_>, &T) -> Written,
) -> Written {
    e.array(store.entries().len() as u64)?;
    for (dot, v) in store.entries() {
        let more = count_items(&v.rest).unwrap_or(0);
        e.array(3 + fields + more)?.u64(index(incs, dot.inc))?.u64(dot.counter)?.u64(v.rank)?;
        write(e, &v.value)?;
        if more > 0 {
            e.writer_mut().extend_from_slice(&v.rest);
        }
    }
    Ok(())
}

fn index(incs: &[Incarnation], inc: Incarnation) -> u64 {
    incs.binary_search(&inc).map_or(0, |i| i as u64)
}

fn count_items(bytes: &[u8]) -> Result<u64, Malformed> {
    let (mut d, mut n) = (Decoder::new(bytes), 0);
    while d.position() < bytes.len() {
        d.skip()?;
        n += 1;
    }
    Ok(n)
}

/// Reads a state; the whole of `bytes` must be one.
pub fn decode_state(bytes: &[u8]) -> Result<State, Malformed> {
    let mut d = Decoder::new(bytes);
    if length(&mut d)? != 7 {
        return Err(Malformed("a state has seven parts"));
    }
    let incs = read_incarnations(&mut d)?;
    let state = State {
        seen: read_vector(&mut d, &incs)?,
        place: read_store(&mut d, bytes, &incs, 3, read_place)?,
        content: read_store(&mut d, bytes, &incs, 2, |d| read_content(d, bytes))?,
        mode: read_store(&mut d, bytes, &incs, 1, |d| {
            let m = d.u16()?;
            if m > 0o777 { Err(Malformed("a mode is above 0777")) } else { Ok(m) }
        })?,
        mtime: read_store(&mut d, bytes, &incs, 2, |d| {
            let t = Mtime { secs: d.i64()?, nanos: d.u32()? };
            if t.nanos > 999_999_999 { Err(Malformed("nanoseconds above a second")) } else { Ok(t) }
        })?,
        gone: read_gone(&mut d, &incs)?,
    };
    if d.position() != bytes.len() {
        return Err(Malformed("bytes after the state"));
    }
    check_covered(&state)?;
    Ok(state)
}

/// Every dot that stands must have been seen, else merging would depend on the order.
fn check_covered(s: &State) -> Result<(), Malformed> {
    let ok = s.place.entries().iter().all(|e| s.seen.covers(e.0))
        && s.content.entries().iter().all(|e| s.seen.covers(e.0))
        && s.mode.entries().iter().all(|e| s.seen.covers(e.0))
        && s.mtime.entries().iter().all(|e| s.seen.covers(e.0))
        && s.gone.entries().iter().all(|e| s.seen.covers(e.0) && s.seen.includes(&e.1));
    if ok { Ok(()) } else { Err(Malformed("a dot that was not seen")) }
}

fn length(d: &mut Decoder<'_>) -> Result<u64, Malformed> {
    d.array()?.ok_or(Malformed("an array without a length"))
}

fn read_incarnations(d: &mut Decoder<'_>) -> Result<Vec<Incarnation>, Malformed> {
    let mut incs = Vec::new();
    for _ in 0..length(d)? {
        let inc = Incarnation::from_slice(d.bytes()?).ok_or(Malformed("an incarnation has 16 bytes"))?;
        if incs.last().is_some_and(|last| *last >= inc) {
            return Err(Malformed("incarnations out of order"));
        }
        incs.push(inc);
    }
    Ok(incs)
}

fn read_dot(d: &mut Decoder<'_>, incs: &[Incarnation]) -> Result<Dot, Malformed> {
    let at = usize::try_from(d.u64()?).map_err(|_| Malformed("an index out of range"))?;
    let inc = *incs.get(at).ok_or(Malformed("an index out of range"))?;
    Ok(Dot { inc, counter: counter(d)? })
}

fn counter(d: &mut Decoder<'_>) -> Result<u64, Malformed> {
    match d.u64()? {
        0 => Err(Malformed("a counter of zero")),
        n if n > COUNTER_MAX => Err(Malformed("a counter out of range")),
        n => Ok(n),
    }
}

fn read_vector(d: &mut Decoder<'_>, incs: &[Incarnation]) -> Result<Vector, Malformed> {
    let (len, mut out, mut last) = (length(d)?, Vector::default(), None);
    if len % 2 != 0 {
        return Err(Malformed("a vector of odd length"));
    }
    for _ in 0..len / 2 {
        let dot = read_dot(d, incs)?;
        if last.is_some_and(|l| l >= dot.inc) {
            return Err(Malformed("a vector out of order"));
        }
        last = Some(dot.inc);
        out.add(dot);
    }
    Ok(out)
}

fn read_store<'b, T: Clone>(
    d: &mut Decoder<'b>,
    bytes: &'b [u8],
    incs: &[Incarnation],
    fields: u64,
    read: impl Fn(&mut Decoder<'b>) -> Result<T, Malformed>,
) -> Result<DotStore<Ranked<T>>, Malformed> {
    let (mut out, mut last) = (DotStore::default(), None);
    for _ in 0..length(d)? {
        let more = length(d)?.checked_sub(3 + fields).ok_or(Malformed("an entry too short"))?;
        let dot = read_dot(d, incs)?;
        if last.is_some_and(|l| l >= dot) {
            return Err(Malformed("dots out of order"));
        }
        last = Some(dot);
        let rank = d.u64()?;
        if rank > COUNTER_MAX {
            return Err(Malformed("a rank out of range"));
        }
        let value = read(d)?;
        let start = d.position();
        for _ in 0..more {
            d.skip()?;
        }
        out.insert(dot, Ranked { rank, value, rest: bytes[start..d.position()].into() });
    }
    Ok(out)
}

fn read_node(d: &mut Decoder<'_>) -> Result<NodeId, Malformed> {
    NodeId::from_slice(d.bytes()?).ok_or(Malformed("a node id has 16 bytes"))
}

fn read_name(d: &mut Decoder<'_>) -> Result<Name, Malformed> {
    Name::new(d.bytes()?).map_err(|_| Malformed("not a name"))
}

fn read_place(d: &mut Decoder<'_>) -> Result<Place, Malformed> {
    let (parent, name) = (read_node(d)?, read_name(d)?);
    let earlier = if d.datatype()? == minicbor::data::Type::Null {
        d.null()?;
        None
    } else if length(d)? == 2 {
        Some((read_node(d)?, read_name(d)?))
    } else {
        return Err(Malformed("an earlier place has two parts"));
    };
    let place = Place { parent, name, earlier };
    check_place(&place)?;
    Ok(place)
}

/// `.dunlin` under the root is ours, on every device; nothing replicated may live there.
fn check_place(p: &Place) -> Result<(), Malformed> {
    let reserved = |parent: NodeId, name: &Name| {
        parent == crate::ids::PARKED
            || (parent == crate::ids::ROOT && name.as_bytes() == crate::path::CONTROL_DIR)
    };
    if reserved(p.parent, &p.name) || p.earlier.as_ref().is_some_and(|(p, n)| reserved(*p, n)) {
        return Err(Malformed("a place inside the control directory"));
    }
    Ok(())
}

fn read_content<'b>(d: &mut Decoder<'b>, bytes: &'b [u8]) -> Result<Content, Malformed> {
    match d.u8()? {
        1 => {
            d.null()?;
            Ok(Content::Dir)
        }
        2 if length(d)? == 2 => {
            let id = ContentId::from_slice(d.bytes()?).ok_or(Malformed("a content id has 32 bytes"))?;
            let size = d.u64()?;
            if size > i64::MAX as u64 {
                Err(Malformed("a size out of range"))
            } else {
                Ok(Content::File { id, size })
            }
        }
        2 => Err(Malformed("a file has two parts")),
        3 => {
            let text = d.bytes()?;
            if text.is_empty() || text.len() > LINK_MAX || text.contains(&0) {
                return Err(Malformed("not the text of a link"));
            }
            Ok(Content::Link(text.into()))
        }
        kind => {
            let start = d.position();
            d.skip()?;
            Ok(Content::Unknown { kind, bytes: Box::from(&bytes[start..d.position()]) })
        }
    }
}

fn read_gone(d: &mut Decoder<'_>, incs: &[Incarnation]) -> Result<DotStore<Vector>, Malformed> {
    let (mut out, mut last) = (DotStore::default(), None);
    for _ in 0..length(d)? {
        if length(d)? != 3 {
            return Err(Malformed("a delete has three parts"));
        }
        let dot = read_dot(d, incs)?;
        if last.is_some_and(|l| l >= dot) {
            return Err(Malformed("dots out of order"));
        }
        last = Some(dot);
        out.insert(dot, read_vector(d, incs)?);
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::ROOT;
    use alloc::vec;

    fn sample() -> State {
        let (a, b) = (Incarnation([1; 16]), Incarnation([2; 16]));
        let (da, db) = (Dot { inc: a, counter: 7 }, Dot { inc: b, counter: 1 });
        let name = |n: &[u8]| Name::new(n).unwrap();
        let mut s = State::default();
        s.seen.add(da);
        s.seen.add(db);
        let place =
            Place { parent: ROOT, name: name(b"x\xff"), earlier: Some((NodeId([3; 16]), name(b"y"))) };
        s.place.insert(da, Ranked::new(2, place));
        s.content.insert(da, Ranked::new(1, Content::File { id: ContentId([9; 32]), size: 12 }));
        s.content.insert(db, Ranked::new(1, Content::Link(b"../z".as_slice().into())));
        s.mode.insert(da, Ranked::new(1, 0o644));
        s.mtime.insert(da, Ranked::new(1, Mtime { secs: -1, nanos: 999_999_999 }));
        let mut seen = Vector::default();
        seen.add(da);
        s.gone.insert(db, seen);
        s
    }

    #[test]
    fn states_round_trip() {
        let s = sample();
        assert_eq!(decode_state(&encode_state(&s)).unwrap(), s);
        assert_eq!(decode_state(&encode_state(&State::default())).unwrap(), State::default());
    }

    #[test]
    fn every_truncation_and_every_flipped_byte_is_refused_or_a_state() {
        let bytes = encode_state(&sample());
        for n in 0..bytes.len() {
            assert!(decode_state(&bytes[..n]).is_err(), "cut at {n}");
            for bit in 0..8 {
                let mut bad = bytes.clone();
                bad[n] ^= 1 << bit;
                if let Ok(s) = decode_state(&bad) {
                    assert_eq!(decode_state(&encode_state(&s)).unwrap(), s);
                }
            }
        }
    }

    #[test]
    fn what_a_newer_program_added_is_kept() {
        let mut s = sample();
        let dot = Dot { inc: Incarnation([1; 16]), counter: 7 };
        s.mode.insert(dot, Ranked { rank: 1, value: 0o600, rest: vec![0x63, b'n', b'e', b'w', 0x05].into() });
        s.content.insert(dot, Ranked::new(1, Content::Unknown { kind: 77, bytes: vec![0x18, 0x2a].into() }));
        assert_eq!(decode_state(&encode_state(&s)).unwrap(), s);
    }

    #[test]
    fn forged_values_are_refused() {
        for f in [
            (|s: &mut State| {
                s.mode.insert(Dot { inc: Incarnation([1; 16]), counter: 7 }, Ranked::new(1, 0o4755))
            }) as fn(&mut State),
            |s| s.mode.insert(Dot { inc: Incarnation([1; 16]), counter: 8 }, Ranked::new(1, 0o755)),
            |s| {
                s.mode.insert(
                    Dot { inc: Incarnation([1; 16]), counter: 7 },
                    Ranked::new(COUNTER_MAX + 1, 0o755),
                )
            },
            |s| s.seen.add(Dot { inc: Incarnation([1; 16]), counter: u64::MAX }),
            |s| {
                let place = Place { parent: ROOT, name: Name::new(b".dunlin").unwrap(), earlier: None };
                s.place.insert(Dot { inc: Incarnation([1; 16]), counter: 7 }, Ranked::new(1, place));
            },
        ] {
            let mut s = sample();
            f(&mut s);
            assert!(decode_state(&encode_state(&s)).is_err());
        }
    }
}
