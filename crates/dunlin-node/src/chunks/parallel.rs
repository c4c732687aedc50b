//! One file cut by several threads. Each begins in a place of its own as if there were a cut, and is soon
//! where there is one: what it made from there on is what one thread would have made.

use super::Cutter;
use crate::disk::ReadFile;
use dunlin_core::message::Chunk;
use std::io;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

/// Bytes that one thread cuts before it goes on elsewhere.
const SEGMENT: u64 = 16 << 20;
/// Segments that a thread is ahead of who takes the list.
const AHEAD: usize = 4;
/// The most threads for one file.
const THREADS_MAX: usize = 8;

/// How many threads this machine gives to one file.
pub fn threads() -> usize {
    thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX)
}

/// Gives the chunks of a file of `size` bytes to `take`, some at a time and in order, until it returns `false`.
pub fn in_parallel(
    file: &dyn ReadFile,
    size: u64,
    threads: usize,
    take: &mut dyn FnMut(Vec<Chunk>) -> bool,
) -> io::Result<()> {
    in_segments(file, size, threads, SEGMENT, take)
}

type Segment = io::Result<Vec<Chunk>>;

fn in_segments(
    file: &dyn ReadFile,
    size: u64,
    threads: usize,
    segment: u64,
    take: &mut dyn FnMut(Vec<Chunk>) -> bool,
) -> io::Result<()> {
    let count = size.div_ceil(segment);
    let threads = (threads as u64).min(count).max(1);
    thread::scope(|scope| {
        let work = |first: u64| {
            let (give, made) = sync_channel(AHEAD);
            let run = move || {
                let mut at = first;
                while at < count && cut_segment(file, size, at * segment, segment, &give) {
                    at += threads;
                }
            };
            thread::Builder::new().spawn_scoped(scope, run).is_ok().then_some(made)
        };
        // One thread alone would only be waited for.
        let made: Vec<_> = if threads == 1 { vec![None] } else { (0..threads).map(work).collect() };
        let mut at = 0;
        for (number, made) in (0..count).zip(made.iter().cycle()) {
            let end = size.min((number + 1) * segment);
            // Where no thread was to be had, its part is cut here.
            let guess = made.as_ref().map_or(Ok(Vec::new()), next)?;
            at = stitch(file, size, (at, number * segment, end), guess, take)?;
            if at == u64::MAX {
                break;
            }
        }
        Ok(())
    })
}

fn next(made: &Receiver<Segment>) -> Segment {
    made.recv().map_err(|_| io::Error::other("a thread ended"))?
}

/// Cuts from `start` to the first cut that is not in the segment any more; whether more is wanted.
fn cut_segment(file: &dyn ReadFile, size: u64, start: u64, segment: u64, give: &SyncSender<Segment>) -> bool {
    let end = size.min(start + segment);
    let mut cutter = Cutter::new(file, start, size);
    let mut chunks = Vec::new();
    while cutter.at() < end {
        match cutter.cut() {
            Ok(Some(chunk)) => chunks.push(chunk),
            Ok(None) => break,
            Err(e) => {
                // Who takes it may be gone, too.
                let _ = give.send(Err(e));
                return false;
            }
        }
    }
    give.send(Ok(chunks)).is_ok()
}

/// Goes on from `at`, where the list is so far, through a segment that begins at `start`: cut by cut until there is one
/// that the guess has too, then with the guess. Returns where the list is then; the largest number if no more is wanted.
fn stitch(
    file: &dyn ReadFile,
    size: u64,
    (at, start, end): (u64, u64, u64),
    mut guess: Vec<Chunk>,
    take: &mut dyn FnMut(Vec<Chunk>) -> bool,
) -> io::Result<u64> {
    let mut cutter = Cutter::new(file, at, size);
    let (mut made, mut guessed, mut passed) = (Vec::new(), start, 0);
    loop {
        while guessed < cutter.at() && passed < guess.len() {
            guessed += u64::from(guess[passed].len);
            passed += 1;
        }
        if cutter.at() >= end || (guessed == cutter.at() && passed < guess.len()) {
            break;
        }
        let Some(chunk) = cutter.cut()? else { break };
        made.push(chunk);
        if made.len() == 256 && !take(std::mem::take(&mut made)) {
            return Ok(u64::MAX);
        }
    }
    let mut at = cutter.at();
    if at < end {
        made.extend(guess.drain(passed..).inspect(|chunk| at += u64::from(chunk.len)));
    }
    Ok(if take(made) { at } else { u64::MAX })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chunks::{CHUNK_AVERAGE, CHUNK_MAX, CHUNK_MIN, chunks};
    use crate::disk::{FileKind, Stat};
    use dunlin_core::ids::ContentId;
    use fastcdc::v2020::StreamCDC;

    struct Bytes(Vec<u8>);

    impl ReadFile for Bytes {
        fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
            let rest = usize::try_from(offset).ok().and_then(|at| self.0.get(at..)).unwrap_or_default();
            // Short reads are allowed.
            let n = rest.len().min(buf.len()).min(300_001);
            buf[..n].copy_from_slice(&rest[..n]);
            Ok(n)
        }

        fn stat(&self) -> io::Result<Stat> {
            let (mtime, ctime) = Default::default();
            let size = self.0.len() as u64;
            Ok(Stat { kind: FileKind::File, size, mtime, ctime, btime: None, ino: 1, nlink: 1, mode: 0o600 })
        }
    }

    fn reference(bytes: &[u8]) -> Vec<Chunk> {
        let chunk = |c: fastcdc::v2020::ChunkData| Chunk {
            len: c.length as u32,
            hash: ContentId(*blake3::hash(&c.data).as_bytes()),
        };
        let cut = StreamCDC::new(bytes, CHUNK_MIN, CHUNK_AVERAGE, CHUNK_MAX);
        cut.map(|c| chunk(c.unwrap())).collect()
    }

    fn parallel(bytes: &[u8], threads: usize, segment: u64) -> Vec<Chunk> {
        let (file, mut out) = (Bytes(bytes.to_vec()), Vec::new());
        let take = &mut |some: Vec<Chunk>| {
            out.extend(some);
            true
        };
        in_segments(&file, bytes.len() as u64, threads, segment, take).unwrap();
        out
    }

    fn noise(seed: u64, len: usize) -> Vec<u8> {
        let mut out = vec![0; len];
        blake3::Hasher::new().update(&seed.to_be_bytes()).finalize_xof().fill(&mut out);
        out
    }

    /// Whatever the bytes, the threads and where their parts begin: the list is the one list.
    #[test]
    fn many_threads_make_the_list_that_one_makes() {
        let mut rng = 0x9e37_79b9_7f4a_7c15_u64;
        let mut dice = |below: u64| {
            rng = rng.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (rng >> 33) % below
        };
        for case in 0..60 {
            let mut bytes = Vec::new();
            // Parts without a pattern, holes, a pattern that repeats: in holes no two cuts may ever agree.
            for _ in 0..=dice(4) {
                let len = dice(1 << 20) as usize;
                match dice(4) {
                    0 => bytes.resize(bytes.len() + len, 0),
                    1 => bytes.extend(noise(case, 777).iter().cycle().take(len)),
                    _ => bytes.extend(noise(dice(1 << 30), len)),
                }
            }
            let expected = reference(&bytes);
            let file = Bytes(bytes.clone());
            let serial: Vec<Chunk> = Cutter::new(&file, 0, bytes.len() as u64).map(Result::unwrap).collect();
            assert_eq!(serial, expected, "case {case}");
            for threads in [1, 2, 3, 7] {
                let segment = 1 + dice(1 << 20);
                // A few hundred segments are enough.
                let segment = segment.max(bytes.len() as u64 / 300 + 1);
                assert!(parallel(&bytes, threads, segment) == expected, "{case}: {threads} of {segment}");
            }
        }
    }

    #[test]
    fn nothing_and_little_are_lists_too() {
        assert!(parallel(&[], 4, SEGMENT).is_empty());
        let some = noise(1, 40_000);
        assert_eq!(parallel(&some, 4, SEGMENT), reference(&some));
        let file = Bytes(some.clone());
        assert_eq!(chunks(&file).map(Result::unwrap).collect::<Vec<_>>(), reference(&some));
    }

    #[test]
    fn it_ends_when_no_more_is_wanted_and_where_the_file_is_shorter() {
        let (file, mut times) = (Bytes(noise(2, 8 << 20)), 0);
        let take = &mut |_: Vec<Chunk>| {
            times += 1;
            times < 3
        };
        in_segments(&file, 8 << 20, 3, 1 << 20, take).unwrap();
        assert_eq!(times, 3);
        for threads in [1, 3] {
            let ended = in_segments(&file, 9 << 20, threads, 1 << 20, &mut |_| true);
            assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        }
    }
}
