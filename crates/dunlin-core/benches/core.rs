//! What the core costs by itself: `cargo bench -p dunlin-core`. Its index is in memory.

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use dunlin_core::codec::{decode_state, encode_state};
use dunlin_core::ids::FolderId;
use dunlin_core::message::{frame, read_message};
use dunlin_core::path::RelPath;
use dunlin_core::session::Receipt;
use std::hint::black_box;

#[path = "../tests/common/mod.rs"]
mod common;

use common::{Body, Device};

/// Files in the folder.
const FILES: usize = 1_000;

/// A device with some directories of files that it does not know yet.
fn device() -> Device {
    let mut device = Device::new("a");
    let path = |text: String| RelPath::parse(text.as_bytes()).expect("a path");
    for i in 0..FILES {
        let dir = i / 100;
        if i % 100 == 0 {
            device.disk.create(&path(format!("d{dir}")), Body::Dir(Default::default()));
        }
        device.disk.create(&path(format!("d{dir}/file {i}")), Body::File(format!("{i}").into_bytes()));
    }
    device
}

fn core(c: &mut Criterion) {
    let new = device();
    let mut known = new.clone();
    known.scan();
    let rows = known.rows();
    let mut hearer = Device::new("b");
    hearer.hear(&rows);
    // The directories are made, so that all files can be planned.
    let dirs = hearer.plan(&|_| false, FILES).steps;
    let made: Vec<_> =
        dirs.into_iter().map(|s| (s.clone(), hearer.carry_out(&s, &Default::default()))).collect();
    hearer.conclude(&made);
    assert!(hearer.plan(&|_| true, FILES).steps.len() >= FILES / 2, "files are planned");
    let states: Vec<_> = rows.iter().map(|(_, bytes)| decode_state(bytes).expect("a state")).collect();
    let mut group = c.benchmark_group("core");
    group.throughput(Throughput::Elements(rows.len() as u64));
    group.bench_function("encode states", |b| {
        b.iter(|| states.iter().map(|state| encode_state(state).len()).sum::<usize>());
    });
    group.bench_function("decode states", |b| {
        b.iter(|| rows.iter().filter(|(_, bytes)| decode_state(bytes).is_ok()).count());
    });
    group.bench_function("observe, in memory", |b| {
        b.iter_batched(|| new.clone(), |mut device| device.scan(), BatchSize::LargeInput);
    });
    group.bench_function("merge rows, in memory", |b| {
        b.iter_batched(|| Device::new("b"), |mut device| device.hear(&rows), BatchSize::LargeInput);
    });
    group.bench_function("plan a window", |b| {
        b.iter(|| black_box(hearer.plan(&|_| true, FILES)).steps.len());
    });
    group.finish();
    let framed = frame(&Receipt { received: 1, ..Receipt::default() }.told(FolderId([7; 32])));
    c.bench_function("core/read a message", |b| b.iter(|| read_message(black_box(&framed[4..])).is_ok()));
}

criterion_group!(benches, core);
criterion_main!(benches);
