//! Two creates and a delete that have chunks in common, stopped at every call to the chunk store.
//!
//! Each stop is tried in several ways: what the stopped process had on its hands never happens, or happens when the next
//! engine is through with everything; one create is cancelled after the stop, or is not; the creates begin at once, or when
//! the delete has given up its references. Afterwards every snapshot that is there verifies and gives its disk back, and
//! after the next collection no chunk is left over.
//!
//! The store of operations is in memory here, and is not damaged by the stop: its own crashes are tested where it lives.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use longrun::{Code, Operation, ResourceId};
use longrun_snapshot::data::{CHUNK_BYTES, inspect};
use longrun_snapshot::service::Collected;
use tokio::sync::Notify;
use tokio::time::Instant;

use common::chunks::{Switch, Verb};
use common::disks::Gate;
use common::{Lab, call, caller, create_of, data_id, delete_of, done, get_of, made, made_by, noise};

/// What becomes of the calls of a process that was stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Afterlife {
    /// They never happen.
    Dead,
    /// They happen when everything is over.
    Late,
}

#[derive(Clone, Copy, Debug)]
struct Case {
    /// Calls count twice: before their effect, and after it.
    stop_at: u64,
    afterlife: Afterlife,
    cancel: bool,
    delete_first: bool,
}

/// Stops a process at one of its calls: from then on none goes on until it is known what becomes of them.
#[derive(Default)]
struct Stop {
    passed: AtomicU64,
    stopped: Notify,
    fate: Mutex<Option<Result<(), ErrorKind>>>,
    decided: Condvar,
}

impl Stop {
    /// The gate opens when chunks are about to be removed.
    fn at(self: &Arc<Self>, switch: &Switch, number: u64, gate: &Arc<Gate>) {
        let (stop, gate) = (Arc::clone(self), Arc::clone(gate));
        switch.on(move |verb, _| {
            if verb == Verb::Remove {
                gate.open();
            }
            if stop.passed.fetch_add(1, Ordering::SeqCst) < number {
                return Ok(());
            }
            stop.stopped.notify_one();
            let undecided = |fate: &mut Option<_>| fate.is_none();
            let fate = stop.decided.wait_while(stop.fate.lock().unwrap(), undecided).unwrap();
            fate.unwrap()
        });
    }

    fn decide(&self, fate: Result<(), ErrorKind>) {
        *self.fate.lock().unwrap() = Some(fate);
        self.decided.notify_all();
    }
}

/// A case that failed must not wait for those whom it holds.
struct Release(Arc<Stop>);

impl Drop for Release {
    fn drop(&mut self) {
        self.0.decide(Ok(()));
    }
}

fn lab() -> Lab {
    let lab = Lab::new();
    // The first and the second have their last chunk in common, the second and the third their first.
    let (first, last, other) = (noise(1, 512), noise(2, 5000), noise(3, 3000));
    lab.disk("old", 5000, &[(0, &last)]);
    lab.disk("both", CHUNK_BYTES + 5000, &[(0, &first), (CHUNK_BYTES, &last)]);
    lab.disk("new", CHUNK_BYTES + 3000, &[(0, &first), (CHUNK_BYTES, &other)]);
    lab
}

/// What the process that was stopped leaves.
struct Left {
    creates: [Operation; 2],
    delete: Operation,
    /// False when everything was over before the stop.
    stopped: bool,
}

/// The process that is stopped.
async fn stopped_process(lab: &Lab, stop: &Arc<Stop>, case: Case) -> Left {
    let service = lab.start().await;
    let old = made(&service, &create_of("old")).await;
    stop.at(&lab.switch, case.stop_at, &lab.gate);
    if case.delete_first {
        lab.gate.close_at(0);
    }
    let creates = [
        service.create(call(), &create_of("both")).await.unwrap(),
        service.create(call(), &create_of("new")).await.unwrap(),
    ];
    let delete = service.delete(call(), &delete_of(&old.id)).await.unwrap();
    let all = async {
        for operation in creates.iter().chain([&delete]) {
            done(&service, operation).await;
        }
    };
    let stopped = tokio::select! {
        () = stop.stopped.notified() => true,
        () = all => false,
    };
    Left { creates, delete, stopped }
}

/// The process that comes after it.
async fn next_process(lab: &Lab, stop: &Stop, case: Case, left: &Left) {
    let service = lab.start().await;
    if case.cancel {
        service.cancel_operation(&caller(), left.creates[0].id().as_str()).await.unwrap();
    }
    let mut snapshots = Vec::new();
    for (create, disk) in left.creates.iter().zip(["both", "new"]) {
        let create = done(&service, create).await;
        match create.error() {
            None => snapshots.push((made_by(&create), disk)),
            Some(error) => assert_eq!((error.code(), case.cancel, disk), (Code::Cancelled, true, "both")),
        }
    }
    let deleted: Operation = done(&service, &left.delete).await;
    assert!(deleted.response().is_some(), "{deleted:?}");
    // What is late comes now, and is over before the collection.
    stop.decide(Ok(()));
    drop(service);
    lab.settle().await;
    let service = lab.start().await;
    let Collected { orphans, references, .. } = service.collect().await.unwrap();
    assert_eq!((orphans, references), (0, 0), "every operation removes its own");
    check(lab, &service, &snapshots).await;
    assert_exact(lab, &snapshots);
    for (id, _) in &snapshots {
        let delete = service.delete(call(), &delete_of(id)).await.unwrap();
        assert!(done(&service, &delete).await.response().is_some());
    }
    lab.assert_nothing_left();
}

/// Runs one case. False when everything was over before the stop.
///
/// Each process has a runtime of its own: virtual time stands still in one whose threads are held, and the second may have to
/// wait before it tries again what a late call of the first has spoilt.
fn run(case: Case) -> bool {
    let stop = Arc::new(Stop::default());
    let _release = Release(Arc::clone(&stop));
    let runtime =
        || tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let process = runtime();
    let (mut lab, left, took) = process.block_on(async {
        let began = Instant::now();
        let lab = lab();
        let left = stopped_process(&lab, &stop, case).await;
        (lab, left, began.elapsed())
    });
    process.shutdown_background();
    lab.gate.open();
    if case.afterlife == Afterlife::Dead {
        stop.decide(Err(ErrorKind::BrokenPipe));
    }
    // Calls of the next process are not held.
    lab.switch = Arc::default();
    runtime().block_on(async {
        // The clock goes on where it was.
        tokio::time::advance(took).await;
        next_process(&lab, &stop, case, &left).await;
    });
    left.stopped
}

async fn check(
    lab: &Lab,
    service: &longrun_snapshot::SnapshotService,
    snapshots: &[(ResourceId, &'static str)],
) {
    for (id, disk) in snapshots {
        let verified = service.verify(&caller(), &get_of(id)).await.unwrap();
        assert_eq!((verified.damage, verified.operation), (None, None), "{disk}");
        assert!(lab.restored(service, id).await == std::fs::read(lab.image(disk)).unwrap(), "{disk}");
    }
}

/// There are the chunks and manifests of the snapshots, and nothing else.
fn assert_exact(lab: &Lab, snapshots: &[(ResourceId, &'static str)]) {
    let mut expected = BTreeSet::new();
    for (id, _) in snapshots {
        expected.insert(format!("manifests/{id}"));
        for entry in inspect(&*lab.chunks, &data_id(id)).unwrap().entries {
            let name = entry.unwrap().name.to_string();
            expected.insert(format!("chunks/{}/{name}", &name[..2]));
        }
    }
    assert_eq!(lab.files().into_keys().collect::<BTreeSet<_>>(), expected);
    let counts = lab.counts();
    assert_eq!((counts.items, counts.orphans, counts.unfinished), (expected.len() - snapshots.len(), 0, 0));
}

#[test]
fn c07_whatever_call_a_process_stops_at_no_chunk_is_missing_and_none_is_left_over() {
    let (next, last) = (AtomicU64::new(0), AtomicU64::new(u64::MAX));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::SeqCst);
                    if number >= last.load(Ordering::SeqCst) {
                        return;
                    }
                    let mut stopped = false;
                    for (afterlife, cancel, delete_first) in [
                        (Afterlife::Dead, false, false),
                        (Afterlife::Dead, true, false),
                        (Afterlife::Late, true, false),
                        (Afterlife::Late, false, false),
                        (Afterlife::Late, false, true),
                    ] {
                        stopped |= try_one(Case { stop_at: number, afterlife, cancel, delete_first });
                    }
                    if !stopped {
                        last.fetch_min(number, Ordering::SeqCst);
                    }
                }
            });
        }
    });
    let stops = last.into_inner();
    println!("{stops} stops");
    assert!((50..1000).contains(&stops), "{stops} are not all");
}

fn try_one(case: Case) -> bool {
    std::panic::catch_unwind(|| run(case)).unwrap_or_else(|_| panic!("{case:?}"))
}
