//! `cargo bench -p longrun-bench --bench engine`: operations of three steps from submit to done, one and 256 in flight.
// criterion makes undocumented functions; a benchmark that cannot run may panic.
#![allow(missing_docs, clippy::expect_used)]

use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use longrun_bench::stores::StoreName;
use longrun_bench::workloads::{Load, Longrun, Workload};

fn happy_path(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let mut group = criterion.benchmark_group("happy");
    group.sample_size(10).measurement_time(Duration::from_secs(5)).throughput(Throughput::Elements(1));
    for concurrency in [1, 256] {
        for store in StoreName::ALL {
            let id = BenchmarkId::new(store.name(), concurrency);
            group.bench_with_input(id, &concurrency, |bench, &concurrency| {
                let folder = tempfile::tempdir().expect("a folder");
                let load = Load { workload: Workload::Happy, concurrency, stored: 0, steps: 3 };
                let path = folder.path().join("store");
                let longrun = runtime.block_on(Longrun::start(store, &path, load)).expect("an engine");
                bench.iter_custom(|count| {
                    let began = Instant::now();
                    runtime.block_on(longrun.times(count)).expect("operations that end well");
                    began.elapsed()
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, happy_path);
criterion_main!(benches);
