//! How often an operation allocates on its way from submit to done: a count, which is the same on every machine, where a time
//! is not.

#![allow(clippy::unwrap_used)]

use allocation_counter::measure;
use longrun::{Call, Caller, Engine, KvStore};
use longrun_bench::kinds::{self, Barrier, Happy};

/// Some more than there are today, which is 193 over the memory store, where who commits does the committer's work.
const ALLOCATIONS_MAX: u64 = 210;
/// Operations that are counted together: what happens once in a while, such as a map that grows, is shared by all.
const OPERATIONS: u64 = 100;

#[test]
fn an_operation_of_three_steps_allocates_as_little_as_it_did() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let engine = runtime.block_on(async {
        let builder = Engine::builder(KvStore::memory().unwrap());
        kinds::register(builder, &Barrier::new(true)).start().await.unwrap()
    });
    let call = Call::by(Caller::new("somebody").unwrap());
    let run = |count: u64| {
        for number in 0..count {
            runtime.block_on(async {
                let accepted = engine.submit::<Happy>(&number, call.clone()).await.unwrap();
                let done = engine.wait_done(accepted.id()).await.unwrap();
                assert!(done.response().is_some());
            });
        }
    };
    run(OPERATIONS);
    let counted = measure(|| run(OPERATIONS));
    let each = counted.count_total / OPERATIONS;
    assert!(each <= ALLOCATIONS_MAX, "{each} allocations of {} bytes", counted.bytes_total / OPERATIONS);
}
