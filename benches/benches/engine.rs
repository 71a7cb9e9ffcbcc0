//! `cargo bench -p longrun-bench`: operations of three steps from submit to done, one and 256 in flight.
// criterion makes undocumented functions; a benchmark that cannot run may panic.
#![allow(missing_docs, clippy::expect_used)]

use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use longrun::KvStore;
use longrun::sled::{SledKv, SledOptions};
use longrun_bench::{engine, happy};

fn happy_path(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let mut group = criterion.benchmark_group("happy");
    group.sample_size(10).measurement_time(Duration::from_secs(5)).throughput(Throughput::Elements(1));
    for concurrency in [1, 256] {
        group.bench_with_input(
            BenchmarkId::new("memory", concurrency),
            &concurrency,
            |bench, &concurrency| {
                let engine = runtime
                    .block_on(async { engine(KvStore::memory().expect("a store")).await })
                    .expect("an engine");
                bench.iter_custom(|count| {
                    let began = Instant::now();
                    runtime.block_on(happy(&engine, count, concurrency)).expect("operations that end well");
                    began.elapsed()
                });
            },
        );
        group.bench_with_input(BenchmarkId::new("sled", concurrency), &concurrency, |bench, &concurrency| {
            let folder = tempfile::tempdir().expect("a folder");
            let kv = SledKv::open(folder.path(), SledOptions::default()).expect("sled");
            let engine = runtime
                .block_on(async { engine(KvStore::open(kv).expect("a store")).await })
                .expect("an engine");
            bench.iter_custom(|count| {
                let began = Instant::now();
                runtime.block_on(happy(&engine, count, concurrency)).expect("operations that end well");
                began.elapsed()
            });
        });
    }
    group.finish();
}

criterion_group!(benches, happy_path);
criterion_main!(benches);
