//! C7, S9, S14: whatever batch was the last to become durable, records and indexes agree, all that was acknowledged is
//! there, and the work can be finished.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;
#[path = "common/scenario.rs"]
mod scenario;

use common::Bench;
use longrun_core::{Applied, Command, Execution, Fence, Intent, Phase, StepReport, Timestamp};
use longrun_store::conformance::sample::{Live, json, time};
use longrun_store::conformance::{verify_indexes, wait};
use longrun_store::faulty::rebuild;
use longrun_store::{Batch, Commit, Holder, KvStore, MemoryKv, Purge, Store};
use scenario::{Scenario, everything};

fn history() -> (Vec<Batch>, Vec<(usize, String)>) {
    let bench = Bench::inline();
    let mut scenario = Scenario::new(&bench.store, &bench.faults, bench.fence);
    scenario.run();
    let seen = std::mem::take(&mut scenario.seen);
    (bench.faults.history(), seen)
}

fn open(history: &[Batch]) -> (std::sync::Arc<MemoryKv>, KvStore) {
    let kv = std::sync::Arc::new(rebuild(history));
    let store = KvStore::open_inline(std::sync::Arc::clone(&kv), [9; 32]).unwrap();
    (kv, store)
}

#[test]
fn c7_records_and_indexes_agree_after_every_batch() {
    let (history, _) = history();
    assert!(history.len() > 40, "{}", history.len());
    let mut most = longrun_store::conformance::Counts::default();
    for k in 0..=history.len() {
        let counts =
            verify_indexes(&rebuild(&history[..k])).unwrap_or_else(|problems| panic!("{k}: {problems:#?}"));
        most.unfinished = most.unfinished.max(counts.unfinished);
        most.finished = most.finished.max(counts.finished);
        most.entries = most.entries.max(counts.entries);
        most.rows = most.rows.max(counts.rows);
        most.keys = most.keys.max(counts.keys);
    }
    // The scenario had something of everything.
    assert!(most.unfinished >= 4 && most.finished >= 3 && most.entries >= 4, "{most:?}");
    assert!(most.rows >= 6 && most.keys >= 4, "{most:?}");
}

#[test]
fn s9_what_was_acknowledged_is_there_after_every_batch() {
    let (history, seen) = history();
    assert!(seen.is_sorted_by_key(|(batches, _)| *batches));
    for (batches, expected) in seen {
        let (_, store) = open(&history[..batches]);
        assert_eq!(everything(&store), expected, "after {batches} batches");
    }
}

/// What a driver would do next, if every run and every undo goes well.
fn next_command(execution: &Execution, now: Timestamp) -> Command {
    let next = execution.next(now);
    if let Some(&step) = next.undo.first() {
        return Command::UndoReport { step, failures: execution.undo_failures(step), result: Ok(()) };
    }
    match next.run.first() {
        Some(&step) if next.stop => {
            let error = longrun_store::conformance::sample::failure("told to stop");
            let report = StepReport::Failed { error, applied: Applied::Unknown, retryable: true };
            Command::Report { step, attempt: execution.attempt(step), report }
        }
        Some(&step) => {
            let report = StepReport::Done(json("done after the crash"));
            Command::Report { step, attempt: execution.attempt(step), report }
        }
        None => Command::Resume,
    }
}

/// What the steps of a service would do: what goes refers to nothing any more.
fn drop_references(store: &KvStore, fence: Fence, execution: &Execution) {
    for claim in execution.plan().unwrap().claims() {
        let goes = match claim.intent {
            Intent::Create { .. } => execution.phase() == Phase::RollingBack,
            Intent::Update { .. } => false,
            Intent::Delete { .. } => true,
        };
        let holder = Holder { fence, operation: execution.id(), resource: claim.key.clone() };
        while goes && wait(store.drop_references(holder.clone(), 2)).unwrap().more {}
    }
}

#[test]
fn l2_the_work_can_be_finished_after_every_batch() {
    let (history, _) = history();
    for k in 0..=history.len() {
        let (kv, store) = open(&history[..k]);
        let fence = wait(store.take_over()).unwrap();
        let mut turns = 0;
        // From the index of what is due, as after a restart.
        while let Some(due) = wait(store.due(Timestamp::MAX, None, 1)).unwrap().first().copied() {
            let mut live =
                Live { execution: wait(store.load(due.id)).unwrap().unwrap(), now: time(10_000 + turns) };
            drop_references(&store, fence, &live.execution);
            let command = next_command(&live.execution, live.now);
            let commit: Commit = live.turn(fence, &[command]);
            wait(store.commit(commit)).unwrap();
            turns += 1;
            assert!(turns < 200, "{k}: {due:?}");
        }
        verify_indexes(kv.as_ref()).unwrap_or_else(|problems| panic!("{k}: {problems:#?}"));
        // Retention ends it all.
        let purge = Purge {
            only: None,
            done_until: Timestamp::MAX,
            keys_expire_at: time(20_000),
            now: Timestamp::MAX,
            limit: 5,
        };
        for _ in 0..20 {
            if !wait(store.purge(fence, purge)).unwrap().more {
                break;
            }
        }
        wait(store.purge(fence, purge)).unwrap();
        let counts = verify_indexes(kv.as_ref()).unwrap();
        assert_eq!((counts.unfinished, counts.finished, counts.entries, counts.keys), (0, 0, 0, 0), "{k}");
    }
}

#[test]
fn a_torn_batch_is_found() {
    // A backend that applies half of a batch breaks its contract. The checker must say so, or it proves nothing.
    let (history, _) = history();
    let mut found = 0;
    for (k, batch) in history.iter().enumerate().skip(2) {
        // A purge cut between two operations is a smaller purge; inside of its first one it is torn like any other.
        let purges = batch.writes[0].value.is_none();
        let cuts = if purges { 1..2 } else { 1..batch.writes.len() };
        for cut in cuts {
            let mut torn = history[..k].to_vec();
            torn.push(Batch { writes: batch.writes[..cut].to_vec() });
            let kv = rebuild(&torn);
            // Cut off was nothing but the removal of what was not there, or what is written at the end anyway.
            let whole = rebuild(&history[..=k]);
            if dump(&kv) == dump(&whole) {
                continue;
            }
            let result = verify_indexes(&kv);
            assert!(result.is_err(), "batch {k} cut at {cut} of {:?}", batch.writes);
            found += 1;
        }
    }
    assert!(found > 80, "{found}");
}

fn dump(kv: &MemoryKv) -> Vec<Vec<longrun_store::Entry>> {
    use longrun_store::{Direction, KeyRange, Kv, Table};
    let all = |table| kv.scan(table, &KeyRange::prefix(b""), Direction::Forward, usize::MAX).unwrap();
    Table::ALL.into_iter().map(all).collect()
}
