//! The contract of [`Store`] and of [`Kv`], in executable form.
//!
//! Each function of the modules below is one rule; its documentation is the rule in words. Run all of them on a store
//! with one line, one `#[test]` each, so that one that fails does not hide the others:
//!
//! ```
//! # use std::sync::Arc;
//! use longrun_store::conformance::Reopenable;
//! use longrun_store::{KvStore, MemoryKv};
//!
//! // A fresh, empty store at each call. Memory cannot be opened again, so what is shared here is the engine;
//! // a store on disk shares a folder.
//! fn fresh() -> Reopenable<KvStore> {
//!     let kv = Arc::new(MemoryKv::new());
//!     Reopenable::new(move || KvStore::open(Arc::clone(&kv)).unwrap())
//! }
//!
//! # mod store {
//! # use super::*;
//! longrun_store::store_conformance!(fresh);
//! # }
//!
//! // The same for the engine below it.
//! # mod kv {
//! # use super::*;
//! longrun_store::kv_conformance!(|| {
//!     let kv = Arc::new(MemoryKv::new());
//!     Reopenable::new(move || Arc::clone(&kv))
//! });
//! # }
//! # fn main() {}
//! ```
//!
//! The rules need no async runtime. A store that needs one brings it in its [`StoreFixture`].

// This is a test program that happens to be a library.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod atomic;
mod bench;
pub mod cluster;
pub mod conditions;
pub mod due;
pub mod fencing;
pub mod kv;
pub mod ledger;
pub mod lists;
pub mod loading;
pub mod purging;
pub mod races;
pub mod records;
pub mod references;
pub mod resources;
pub mod restart;
pub mod sample;
mod verify;

use std::fmt;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

use async_trait::async_trait;

use crate::kv::Kv;
use crate::store::Store;

pub use verify::{Counts, verify_indexes};

/// A store under test.
#[async_trait]
pub trait StoreFixture: Send + Sync {
    /// The store.
    fn store(&self) -> &dyn Store;

    /// Closes the store and opens it anew on the same data, as a clean restart of the process does.
    ///
    /// A store that is gone with its process keeps its data aside and shares them.
    async fn reopen(&mut self);
}

/// A backend under test.
pub trait KvFixture: Send {
    /// The backend.
    fn kv(&self) -> &dyn Kv;

    /// Closes the backend and opens it anew on the same data, as a clean restart of the process does.
    fn restart(&mut self);
}

/// A fixture from a closure that opens the store or backend, each time on the same data. What the data need to stay,
/// such as a temporary folder, the closure owns.
pub struct Reopenable<T> {
    open: Box<dyn FnMut() -> T + Send + Sync>,
    /// Taken only while it is reopened.
    value: Option<T>,
}

impl<T> Reopenable<T> {
    /// Opens it for the first time.
    pub fn new(mut open: impl FnMut() -> T + Send + Sync + 'static) -> Self {
        let value = Some(open());
        Self { open: Box::new(open), value }
    }

    /// What is open.
    pub fn value(&self) -> &T {
        self.value.as_ref().expect("it is open but for the time of a reopen")
    }

    /// Drops it, then opens it anew.
    pub fn reopen(&mut self) {
        drop(self.value.take());
        self.value = Some((self.open)());
    }
}

impl<T: fmt::Debug> fmt::Debug for Reopenable<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reopenable").field("value", &self.value).finish_non_exhaustive()
    }
}

#[async_trait]
impl<S: Store> StoreFixture for Reopenable<S> {
    fn store(&self) -> &dyn Store {
        self.value()
    }

    async fn reopen(&mut self) {
        Self::reopen(self);
    }
}

impl<K: Kv> KvFixture for Reopenable<K> {
    fn kv(&self) -> &dyn Kv {
        self.value()
    }

    fn restart(&mut self) {
        self.reopen();
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Runs a future to its end on this thread.
pub fn wait<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
        thread::park();
    }
}

/// Polls a future once: its output, if it is there at the first look. What it has begun goes on.
pub fn begin<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
    let mut context = Context::from_waker(Waker::noop());
    match std::pin::Pin::new(future).poll(&mut context) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}

/// Makes a `#[test]` of each rule of the contract of [`Store`](crate::Store).
///
/// The argument is a function or closure without arguments that gives a fresh, empty [`StoreFixture`].
#[macro_export]
macro_rules! store_conformance {
    ($make:expr) => {
        $crate::__conformance_tests! { $make;
            atomic::an_accepted_operation_is_there_with_its_rows_and_its_key,
            atomic::a_finished_operation_and_its_rows_change_together,
            atomic::a_rolled_back_operation_takes_its_rows_with_it,
            atomic::an_update_that_rolls_back_restores_the_row,
            atomic::a_delete_that_succeeds_removes_the_row,
            atomic::a_commit_that_is_refused_for_its_revision_writes_nothing,
            atomic::a_commit_that_is_refused_for_a_row_writes_nothing,
            atomic::a_commit_that_is_refused_for_its_key_writes_nothing,
            atomic::a_commit_that_is_fenced_off_writes_nothing,
            atomic::a_record_that_is_too_large_is_refused_and_nothing_is_written,
            atomic::the_largest_operation_that_is_accepted_can_be_read_again,
            atomic::an_operation_that_is_done_at_once_is_stored_whole,
            conditions::an_operation_is_created_once,
            conditions::a_stale_revision_is_refused,
            conditions::a_revision_from_the_future_is_refused,
            conditions::an_operation_that_is_not_there_cannot_go_on,
            conditions::an_operation_that_is_done_cannot_go_on,
            conditions::an_operation_that_is_done_cannot_be_created_again,
            conditions::the_same_commit_twice_is_a_conflict,
            conditions::a_row_that_exists_cannot_be_created,
            conditions::a_row_that_is_not_there_cannot_be_changed,
            conditions::a_row_that_another_operation_holds_is_refused_with_its_holder,
            conditions::a_row_of_another_revision_is_refused,
            conditions::a_row_that_was_given_free_can_be_claimed_again,
            conditions::a_key_that_is_taken_is_refused_with_its_first_operation,
            conditions::a_taken_key_is_told_before_a_busy_row,
            conditions::a_resource_that_must_be_ready_is_looked_at_in_the_commit,
            conditions::a_parent_that_must_be_childless_is_looked_at_in_the_commit,
            conditions::of_a_child_and_the_end_of_its_parent_one_is_refused,
            conditions::children_that_must_be_as_they_were_are_looked_at_in_the_commit,
            conditions::of_racing_children_that_rely_on_there_being_no_other_one_is_accepted,
            fencing::each_owner_gets_a_higher_fence,
            fencing::fences_go_on_rising_after_a_restart,
            fencing::an_older_owner_commits_nothing_more,
            fencing::an_older_owner_is_told_that_it_is_one,
            fencing::an_older_owner_purges_nothing_more,
            fencing::a_fence_that_was_never_given_out_is_refused,
            fencing::a_new_owner_goes_on_where_the_old_one_stopped,
            races::one_of_many_racing_commits_wins,
            races::one_of_many_racing_creations_wins,
            races::one_of_many_racing_claims_of_a_row_wins,
            races::one_of_many_racing_claims_of_a_key_wins,
            races::neighbours_of_a_refused_commit_are_stored,
            races::commits_of_many_operations_are_all_stored,
            races::a_load_during_commits_never_goes_back,
            races::an_acknowledged_commit_is_seen_by_the_next_reading,
            races::a_taken_over_store_takes_nothing_from_the_race,
            loading::what_is_not_there_is_none,
            loading::a_success_loads_the_same_after_each_commit,
            loading::retries_load_the_same_after_each_commit,
            loading::a_rollback_loads_the_same_after_each_commit,
            loading::a_blocked_undo_and_an_operator_load_the_same_after_each_commit,
            loading::an_abandoned_rollback_loads_the_same_after_each_commit,
            loading::an_adoption_loads_the_same_after_each_commit,
            loading::parallel_steps_load_the_same_after_each_commit,
            loading::an_operation_that_waits_to_start_loads_the_same,
            loading::a_deadline_loads_the_same_after_each_commit,
            loading::a_checkpoint_takes_the_place_of_the_one_before,
            loading::checkpoints_around_other_turns_load_the_same,
            loading::a_loaded_operation_goes_on_like_the_one_in_memory,
            loading::a_long_journal_loads_whole,
            due::each_unfinished_operation_has_one_place,
            due::the_oldest_comes_first,
            due::pages_cover_all_of_it_once,
            due::the_bound_is_inclusive,
            due::times_at_both_ends_of_the_calendar_keep_their_order,
            due::an_operation_that_runs_keeps_its_place,
            due::an_operation_that_waits_moves_to_when_it_wakes,
            due::an_operation_that_is_done_has_no_place,
            due::an_operation_of_the_backlog_is_due_at_once,
            lists::operations_come_newest_first,
            lists::pages_of_operations_cover_all_of_them_once,
            lists::an_item_that_stays_is_listed_once_while_others_come,
            lists::an_item_that_stays_is_listed_once_while_others_go,
            lists::the_operation_at_the_end_of_a_page_may_go,
            lists::a_page_has_no_more_than_was_asked_for,
            lists::the_last_page_says_so,
            lists::a_listed_operation_is_as_it_is_loaded,
            lists::operations_of_a_resource_are_its_own,
            lists::operations_of_a_resource_are_listed_when_it_is_gone,
            lists::operations_of_a_resource_are_paged,
            lists::an_id_that_begins_like_another_is_another,
            resources::a_row_that_is_not_there_is_none,
            resources::rows_of_a_parent_come_by_id,
            resources::pages_of_rows_cover_all_of_them_once,
            resources::a_row_that_stays_is_listed_once_while_others_come_and_go,
            resources::rows_of_another_parent_never_show,
            resources::rows_of_another_kind_never_show,
            resources::a_filter_gives_what_filtering_all_would,
            resources::a_row_that_is_gone_is_not_listed,
            resources::a_listed_row_is_as_it_is_read,
            resources::rows_come_by_name_and_by_creation_both_ways,
            resources::rows_of_one_name_are_found_by_it,
            resources::a_row_that_is_renamed_moves_and_others_stay,
            resources::long_and_strange_names_are_listed_once,
            references::the_first_reference_begins_a_life_that_others_share,
            references::a_reference_is_taken_once,
            references::the_last_drop_leaves_an_orphan,
            references::an_item_that_lives_again_has_another_life,
            references::references_are_dropped_a_part_at_a_time,
            references::only_who_holds_the_resource_takes_and_drops,
            references::an_older_owner_changes_no_references,
            references::racing_takes_and_drops_keep_the_count,
            references::what_is_confirmed_is_told_for_one_life,
            references::what_is_not_confirmed_any_more_is_told_to_nobody,
            references::references_to_some_items_are_dropped_and_others_stay,
            references::references_are_listed_in_pages_each_once,
            references::each_holder_is_listed_once_whatever_it_holds,
            references::references_of_a_resource_are_dropped_as_gone_only_when_it_is_gone,
            ledger::a_key_that_nobody_used_is_unknown,
            ledger::a_key_names_its_first_operation_and_its_request,
            ledger::a_key_outlives_its_operation,
            ledger::a_key_goes_when_its_time_has_come_and_is_free_again,
            ledger::the_key_of_an_operation_that_is_there_never_goes,
            purging::only_what_is_done_goes,
            purging::only_what_is_old_enough_goes,
            purging::the_age_is_that_of_the_end,
            purging::one_operation_goes_alone,
            purging::a_purge_is_bounded_and_says_when_there_is_more,
            purging::what_was_purged_is_in_no_list,
            purging::rows_stay,
            purging::a_purge_with_nothing_to_do_does_nothing,
            purging::a_limit_of_any_size_is_taken,
            purging::what_was_purged_stays_gone_after_a_restart,
            restart::everything_is_there_after_a_restart,
            restart::the_page_secret_stays,
            restart::the_id_of_a_store_stays_and_is_not_its_secret,
            restart::positions_outlive_a_restart,
            restart::what_it_promises_stays,
        }
    };
}

/// Makes a `#[test]` of each rule of the contract of [`Cluster`](crate::Cluster), for a store that engines share. Such a store
/// keeps [those of every store](crate::store_conformance) too.
///
/// The argument is a function or closure without arguments that gives a fresh, empty
/// [`ClusterFixture`](crate::conformance::cluster::ClusterFixture).
#[macro_export]
macro_rules! cluster_conformance {
    ($make:expr) => {
        $crate::__conformance_tests! { $make;
            cluster::a_claim_takes_the_oldest_that_nobody_works_on,
            cluster::what_its_owner_accepts_belongs_to_it,
            cluster::a_claim_leaves_other_kinds_and_exceptions_alone,
            cluster::what_waits_is_claimed_when_it_is_due,
            cluster::what_waits_for_nothing_is_taken_whatever_the_clock_shows,
            cluster::of_racing_claims_each_operation_goes_to_one,
            cluster::who_owns_an_operation_is_told,
            cluster::each_claim_has_a_higher_fence,
            cluster::what_was_released_belongs_to_nobody,
            cluster::a_node_that_leaves_gives_everything_back,
            cluster::a_lease_that_has_run_out_frees_what_the_node_held,
            cluster::a_node_that_lapsed_keeps_what_it_is_not_told_to_have_lost,
            cluster::a_node_that_renews_keeps_what_it_has,
            cluster::a_visitors_change_is_told_to_the_owner_once,
            cluster::a_visitors_change_of_what_is_free_is_told_to_nobody,
            cluster::a_visitor_may_end_an_operation,
            cluster::ends_that_are_awaited_are_told,
            cluster::what_a_node_does_not_know_to_hold_is_freed,
            cluster::who_has_what_is_known_after_a_restart,
            cluster::references_go_with_the_fence_of_the_operation,
            cluster::the_unfinished_are_counted,
            cluster::the_epoch_is_that_of_the_newest_node,
            cluster::a_lease_has_a_length,
        }
    };
}

/// Makes a `#[test]` of each rule of the contract of [`Kv`](crate::Kv).
///
/// The argument is a function or closure without arguments that gives a fresh, empty [`KvFixture`].
#[macro_export]
macro_rules! kv_conformance {
    ($make:expr) => {
        $crate::__conformance_tests! { $make;
            kv::an_empty_backend_holds_nothing,
            kv::what_was_put_is_got,
            kv::the_later_write_of_a_key_wins,
            kv::a_removed_key_is_gone,
            kv::removing_what_is_not_there_changes_nothing,
            kv::an_empty_value_is_a_value,
            kv::an_empty_batch_changes_nothing,
            kv::keys_of_any_bytes_are_kept_in_order,
            kv::a_key_is_not_its_prefix,
            kv::tables_do_not_mix,
            kv::a_batch_over_all_tables_is_applied_whole,
            kv::the_largest_record_is_kept,
            kv::a_batch_of_the_largest_size_is_taken,
            kv::a_scan_goes_both_ways,
            kv::a_scan_keeps_its_limit,
            kv::bounds_are_kept,
            kv::empty_and_inverted_ranges_hold_nothing,
            kv::a_prefix_holds_its_keys_and_no_others,
            kv::many_keys_are_scanned_in_pages,
            kv::a_restart_shows_the_same,
            kv::a_reopen_shows_the_same_and_goes_on,
            kv::readings_during_commits_see_what_was_written,
            kv::writes_of_a_batch_come_into_sight_in_order,
            kv::an_acknowledged_batch_is_seen_by_every_thread,
            kv::a_reopen_during_readings_harms_nothing,
            kv::what_it_promises_is_enough,
        }
    };
}

/// One test for each rule.
#[doc(hidden)]
#[macro_export]
macro_rules! __conformance_tests {
    ($make:expr; $($module:ident::$rule:ident,)*) => {
        $(
            #[test]
            fn $rule() {
                $crate::conformance::$module::$rule(&mut ($make)());
            }
        )*
    };
}
