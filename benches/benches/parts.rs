//! `cargo bench -p longrun-bench --bench parts`: the parts of an operation's way, each by itself: deciding, encoding, committing,
//! listing, filtering.
// criterion makes undocumented functions; a benchmark that cannot run may panic.
#![allow(missing_docs, clippy::expect_used)]

use std::hint::black_box;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use longrun::core::Fence;
use longrun::store::Store;
use longrun::{KvStore, OperationQuery};
use longrun_snapshot::service::{Filter, Limits};
use longrun_store::Commit;
use longrun_store::conformance::records::Form;
use longrun_store::conformance::sample::Draft;
use tokio::runtime::Runtime;

const FENCE: Fence = Fence(1);
/// Operations in the store that is listed.
const LISTED: u64 = 10_000;

/// The commits of one operation of three steps, from its acceptance to its end.
fn commits(number: u64) -> [Commit; 4] {
    let (mut live, accepted) = Draft::chain(number, 3).accept(FENCE);
    let [first, second, third] = [0, 1, 2].map(|step| live.done(FENCE, step));
    [accepted, first, second, third]
}

fn core(criterion: &mut Criterion) {
    criterion
        .bench_function("core/three steps, accepted to done", |bench| bench.iter(|| commits(black_box(1))));
    let (live, _) = Draft::chain(1, 3).accept(FENCE);
    criterion.bench_function("core/one turn", |bench| {
        bench.iter_batched_ref(|| live.clone(), |live| live.done(FENCE, 0), BatchSize::SmallInput);
    });
}

/// A store in memory, whose commits are done by those who ask for them.
async fn store() -> (KvStore, Fence) {
    let store = KvStore::memory().expect("a store");
    let fence = store.take_over().await.expect("an owner");
    (store, fence)
}

fn commit(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let (store, fence) = runtime.block_on(store());
    assert_eq!(fence, FENCE, "of the first owner");
    let mut number = 0;
    criterion.bench_function("store/four commits of one operation", |bench| {
        bench.iter_batched(
            || {
                number += 1;
                commits(number)
            },
            |commits| {
                runtime.block_on(async {
                    for commit in commits {
                        store.commit(commit).await.expect("a commit");
                    }
                });
            },
            BatchSize::SmallInput,
        );
    });
}

fn codec(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let template = longrun_bench::template::Template::of(longrun_bench::workloads::Workload::Happy);
    let template = runtime.block_on(template).expect("the bytes of an operation");
    let bytes = template.head().expect("its last record");
    let record = Form::Head.decode(&bytes).expect("a record");
    criterion.bench_function("codec/decode a head", |bench| {
        bench.iter(|| Form::Head.decode(black_box(&bytes)).expect("a record"));
    });
    criterion.bench_function("codec/encode a head", |bench| {
        bench.iter(|| black_box(&record).encode().expect("its bytes"));
    });
}

fn list(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let store = runtime.block_on(async {
        let (store, _) = store().await;
        for number in 0..LISTED {
            for commit in commits(number) {
                store.commit(commit).await.expect("a commit");
            }
        }
        store
    });
    criterion.bench_function("store/a page of 100 of 10,000", |bench| {
        bench.iter(|| {
            let page = runtime.block_on(store.list_operations(&OperationQuery::All, None, 100));
            page.expect("a page").items.len()
        });
    });
}

fn filter(criterion: &mut Criterion) {
    let text = r#"name IN ("one", "two", "three") AND name != "two""#;
    criterion.bench_function("filter/parse", |bench| {
        bench.iter(|| Filter::parse(black_box(text), Limits::default()).expect("a filter"));
    });
}

criterion_group!(benches, core, codec, commit, list, filter);
criterion_main!(benches);
