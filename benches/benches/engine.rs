//! `cargo bench -p longrun-bench`: operations of three steps from submit to done, one and 256 in flight.
// criterion makes undocumented functions; a benchmark that cannot run may panic.
#![allow(missing_docs, clippy::expect_used)]

use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use longrun::KvStore;
use longrun::fjall::{FjallKv, FjallOptions};
use longrun::redb::{RedbKv, RedbOptions};
use longrun::sled::{SledKv, SledOptions};
use longrun_bench::{engine, happy};
use tempfile::TempDir;

/// A fresh store of that name, and the folder that must outlive it.
fn open(store: &str) -> (KvStore, TempDir) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path();
    let store = match store {
        "memory" => KvStore::memory(),
        "sled" => KvStore::open(SledKv::open(path, SledOptions::default()).expect("sled")),
        "fjall" => KvStore::open(FjallKv::open(path, FjallOptions::default()).expect("fjall")),
        _ => KvStore::open(RedbKv::open(path, RedbOptions::default()).expect("redb")),
    };
    (store.expect("a store"), folder)
}

fn happy_path(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let mut group = criterion.benchmark_group("happy");
    group.sample_size(10).measurement_time(Duration::from_secs(5)).throughput(Throughput::Elements(1));
    for concurrency in [1, 256] {
        for store in ["memory", "sled", "fjall", "redb"] {
            group.bench_with_input(
                BenchmarkId::new(store, concurrency),
                &concurrency,
                |bench, &concurrency| {
                    let (store, _folder) = open(store);
                    let engine = runtime.block_on(async { engine(store).await }).expect("an engine");
                    bench.iter_custom(|count| {
                        let began = Instant::now();
                        runtime
                            .block_on(happy(&engine, count, concurrency))
                            .expect("operations that end well");
                        began.elapsed()
                    });
                },
            );
        }
    }
    group.finish();
}

criterion_group!(benches, happy_path);
criterion_main!(benches);
