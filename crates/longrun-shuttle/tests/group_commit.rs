//! The whole store on shuttle: the committer in its thread, clients that commit, readers, batches that fail, an owner that takes over. The
//! real store, and the real store with mistakes in its committer.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::panic)]

mod common;

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use common::{in_many_schedules, is_found};
use longrun_core::Fence;
use longrun_store_on_shuttle::conformance::sample::Draft;
use longrun_store_on_shuttle::{CommitError, Store};
use shuttle::future::block_on;
use shuttle::sync::atomic::{AtomicBool, Ordering};
use shuttle::thread;
use sound::{Fate, opened, rivals};

const EARLY: &str = "S9: acknowledged before it was durable";
const REFUSED_EARLY: &str = "refused for what is not durable";

/// The clients of a store.
macro_rules! clients {
    ($name:ident, $store:path) => {
        mod $name {
            use $store as store;
            include!("common/clients.rs");
        }
    };
}

/// A store of the build script, with a mistake.
macro_rules! mistaken {
    ($name:ident) => {
        // It is looked at where it is.
        #[allow(unused, missing_docs, clippy::all)]
        mod $name {
            include!(concat!(env!("OUT_DIR"), "/", stringify!($name), "/lib.rs"));
        }
    };
}

clients!(sound, longrun_store_on_shuttle);
mistaken!(store_answers_before_it_writes);
clients!(answers_before_it_writes, crate::store_answers_before_it_writes);
mistaken!(store_refuses_at_once);
clients!(refuses_at_once, crate::store_refuses_at_once);

#[test]
fn s11_group_commit_answers_each_by_itself_and_shows_nothing_that_is_not_durable() {
    in_many_schedules(rivals(&[]));
}

#[test]
fn s11_s33_the_same_when_batches_are_refused_or_of_unknown_outcome() {
    in_many_schedules(rivals(&[Fate::NotApplied]));
    in_many_schedules(rivals(&[Fate::UnknownKept]));
    in_many_schedules(rivals(&[Fate::UnknownLost, Fate::NotApplied]));
}

#[test]
fn s09_a_disk_that_forgets_what_it_acknowledged_is_found() {
    is_found(EARLY, rivals(&[Fate::Forgotten]));
}

#[test]
fn s09_a_committer_that_answers_before_it_writes_is_found() {
    is_found(EARLY, answers_before_it_writes::rivals(&[]));
}

#[test]
fn s11_a_committer_that_refuses_for_what_is_not_durable_yet_is_found() {
    is_found(REFUSED_EARLY, refuses_at_once::rivals(&[]));
}

#[test]
fn s30_after_another_owner_has_taken_over_no_commit_of_the_old_one_happens() {
    // Of all schedules, and so not of shuttle.
    let late = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&late);
    in_many_schedules(move || {
        let (store, disk, fence) = opened(&[]);
        let taken = Arc::new(AtomicBool::new(false));
        let clients = [1, 2].map(|n| {
            let (store, disk, taken) = (Arc::clone(&store), Arc::clone(&disk), Arc::clone(&taken));
            let count = Arc::clone(&count);
            thread::spawn(move || {
                let (live, commit) = Draft::chain(n, 1).accept(fence);
                let is_late = taken.load(Ordering::SeqCst);
                count.fetch_add(usize::from(is_late), Ordering::SeqCst);
                let answer = block_on(store.commit(commit));
                assert_eq!(
                    disk.holds(live.id()),
                    answer.is_ok(),
                    "refused, and it is there, or the other way round"
                );
                assert!(
                    !is_late || matches!(answer, Err(CommitError::Fenced { .. })),
                    "a late write: {answer:?}"
                );
            })
        });
        assert_eq!(block_on(store.take_over()).unwrap(), Fence(fence.0 + 1));
        taken.store(true, Ordering::SeqCst);
        clients.into_iter().for_each(|client| client.join().unwrap());
    });
    assert!(late.load(Ordering::SeqCst) > 0, "no commit came after the take-over");
}
