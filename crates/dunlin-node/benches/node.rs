//! What the stages of the node cost by themselves: `cargo bench -p dunlin-node`. The index and the file lie
//! in the directory for temporary files: on a disk, commits cost what the disk takes to be durable.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use dunlin_core::kv::View;
use dunlin_core::path::RelPath;
use dunlin_core::rows::Position;
use dunlin_node::blocks::Lists;
use dunlin_node::disk::Disk;
use dunlin_node::disk::posix::PosixDisk;
use dunlin_node::scan::{ToHash, hash_all};
use dunlin_node::store::{Index, Store};
use std::hint::black_box;

/// Bytes of the file that is chunked and hashed.
const SIZE: usize = 32 << 20;
/// Rows of one commit.
const ROWS: u64 = 1_000;

/// Bytes without a pattern.
fn noise(len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    blake3::Hasher::new().finalize_xof().fill(&mut out);
    out
}

fn contents(c: &mut Criterion) {
    let temp = tempfile::tempdir().expect("a directory");
    std::fs::write(temp.path().join("large"), noise(SIZE)).expect("a file");
    let disk = PosixDisk::open(temp.path()).expect("a root");
    let path = RelPath::parse(b"large").expect("a path");
    let name = path.names()[0].clone();
    let at = Position::new(dunlin_core::ids::ROOT, name);
    let file = ToHash { at, path: path.clone(), size: SIZE as u64, force: false };
    let mut group = c.benchmark_group("contents");
    group.sample_size(20).throughput(Throughput::Bytes(SIZE as u64));
    group.bench_function("hash", |b| {
        b.iter(|| black_box(hash_all(&disk, &Lists::default(), std::slice::from_ref(&file))))
    });
    group.bench_function("chunk", |b| {
        let open = disk.open(&path).expect("open");
        b.iter(|| dunlin_node::chunks::chunks(open.as_ref()).filter(Result::is_ok).count());
    });
    group.finish();
}

fn index(c: &mut Criterion) {
    let temp = tempfile::tempdir().expect("a directory");
    let Ok(store) = Store::open(&temp.path().join("index")) else { return };
    let key = |n: u64| [&b"n"[..], &n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes()].concat();
    let mut next = 0;
    let mut commit = |rows: u64| {
        let changes = (next..next + rows).map(|n| (key(n), Some(vec![7; 200]))).collect();
        next += rows;
        store.commit(changes).expect("a commit");
    };
    (0..20).for_each(|_| commit(ROWS));
    let mut group = c.benchmark_group("index");
    group.sample_size(20);
    group.bench_function("commit one row, durable", |b| b.iter(|| commit(1)));
    group.throughput(Throughput::Elements(ROWS));
    group.bench_function("commit a thousand rows, durable", |b| b.iter(|| commit(ROWS)));
    let snapshot = store.snapshot().expect("a snapshot");
    group.bench_function("get a thousand rows", |b| {
        b.iter(|| (0..ROWS).filter(|n| matches!(snapshot.get(&key(*n)), Ok(Some(_)))).count());
    });
    group.finish();
}

criterion_group!(benches, contents, index);
criterion_main!(benches);
