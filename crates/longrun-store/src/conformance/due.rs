//! The order of work: every unfinished operation has one place in it.

use longrun_core::{OperationId, Timestamp};

use super::bench::Bench;
use super::sample::{Draft, Live, operation_id, time};
use super::{StoreFixture, wait};
use crate::store::Due;

fn ids(due: &[Due]) -> Vec<OperationId> {
    due.iter().map(|due| due.id).collect()
}

/// An operation at every stage: accepted, running, waiting, rolling back, blocked, done.
fn stages(bench: &Bench<'_>) -> Vec<Live> {
    let fence = bench.fence;
    let mut lives: Vec<_> = (1..=6).map(|n| bench.accept(Draft::chain(n, 2))).collect();
    let commit = lives[1].checkpoint(fence, 0, 1);
    bench.stored(&lives[1], commit);
    let commit = lives[2].fails(fence, 0, true);
    bench.stored(&lives[2], commit);
    let commit = lives[3].cancel(fence);
    bench.stored(&lives[3], commit);
    let commit = lives[4].fails(fence, 0, false);
    bench.stored(&lives[4], commit);
    let commit = lives[4].undo_fails(fence, 0);
    bench.stored(&lives[4], commit);
    for step in 0..2 {
        let commit = lives[5].done(fence, step);
        bench.stored(&lives[5], commit);
    }
    lives
}

/// L2: whatever is not done has exactly one place, whatever is done has none, also after a restart.
pub fn each_unfinished_operation_has_one_place(fixture: &mut dyn StoreFixture) {
    let mut bench = Bench::new(fixture);
    let lives = stages(&bench);
    for _ in 0..2 {
        let due = bench.due();
        for live in &lives {
            let places: Vec<_> = due.iter().filter(|due| due.id == live.id()).map(|due| due.at).collect();
            assert_eq!(places, live.execution.due_at().into_iter().collect::<Vec<_>>());
        }
        assert_eq!(due.len(), lives.len() - 1);
        bench.restart();
    }
}

/// In the order of their times, then of their ids.
pub fn the_oldest_comes_first(fixture: &mut dyn StoreFixture) {
    let bench = Bench::new(fixture);
    for n in [5, 3, 9, 1] {
        bench.accept(Draft::chain(n, 1));
    }
    // Two of the same time.
    let mut twin = Draft::chain(7, 1);
    twin.header.created_at = time(3);
    bench.accept(twin);
    let due = bench.due();
    assert!(due.is_sorted());
    assert_eq!(ids(&due), [1, 3, 7, 5, 9].map(operation_id));
}

/// Page after page, each place is given out once.
pub fn pages_cover_all_of_it_once(fixture: &mut dyn StoreFixture) {
    let bench = Bench::new(fixture);
    for n in 0..17 {
        let mut draft = Draft::chain(n, 1);
        draft.header.created_at = time(i64::try_from(n).unwrap() / 4);
        bench.accept(draft);
    }
    let all = bench.due();
    assert_eq!(all.len(), 17);
    for limit in [1, 2, 3, 4, 16, 17, 18] {
        let mut paged: Vec<Due> = Vec::new();
        loop {
            let page = wait(bench.store().due(Timestamp::MAX, paged.last().copied(), limit)).unwrap();
            assert!(page.len() <= limit);
            if page.is_empty() {
                break;
            }
            paged.extend(page);
            assert!(paged.len() <= all.len(), "pages of {limit}: {paged:?}");
        }
        assert_eq!(paged, all, "pages of {limit}");
    }
    assert_eq!(wait(bench.store().due(Timestamp::MAX, None, 0)).unwrap(), []);
}

/// S44: what is due at the bound is given out, what is due a microsecond later is not.
pub fn the_bound_is_inclusive(fixture: &mut dyn StoreFixture) {
    let bench = Bench::new(fixture);
    bench.accept(Draft::chain(1, 1));
    bench.accept(Draft::chain(2, 1));
    let micros = |at: i64, more| Timestamp::from_unix_micros(time(at).unix_micros() + more).unwrap();
    let until = |at| ids(&wait(bench.store().due(at, None, 10)).unwrap());
    assert_eq!(until(micros(1, -1)), []);
    assert_eq!(until(time(1)), [operation_id(1)]);
    assert_eq!(until(micros(2, -1)), [operation_id(1)]);
    assert_eq!(until(time(2)), [1, 2].map(operation_id));
    // After the end there is nothing, and that is no error.
    let after = Due { at: time(9), id: operation_id(9) };
    assert_eq!(wait(bench.store().due(time(1), Some(after), 10)).unwrap(), []);
}

/// Times before 1970 come first, and the last instant of the calendar is reached.
pub fn times_at_both_ends_of_the_calendar_keep_their_order(fixture: &mut dyn StoreFixture) {
    let bench = Bench::new(fixture);
    let times = [
        Timestamp::MIN,
        Timestamp::from_unix_micros(-1).unwrap(),
        Timestamp::UNIX_EPOCH,
        Timestamp::from_unix_micros(1).unwrap(),
        Timestamp::MAX,
    ];
    for (n, at) in [4, 2, 0, 3, 1].map(|place| (place as u64, times[place])) {
        let mut draft = Draft::chain(n, 1);
        draft.header.created_at = at;
        bench.accept(draft);
    }
    assert_eq!(bench.due().iter().map(|due| due.at).collect::<Vec<_>>(), times);
    for (n, at) in times.into_iter().enumerate() {
        assert_eq!(wait(bench.store().due(at, None, 10)).unwrap().len(), n + 1, "until {at}");
    }
}

/// While it runs, an operation keeps its place: a crash finds it there.
pub fn an_operation_that_runs_keeps_its_place(fixture: &mut dyn StoreFixture) {
    let bench = Bench::new(fixture);
    let mut live = bench.accept(Draft::chain(1, 3));
    let place = [Due { at: time(1), id: live.id() }];
    for step in 0..2 {
        assert_eq!(bench.due(), place);
        live.now = time(100 + i64::from(step));
        let commit = live.checkpoint(bench.fence, step, 1);
        bench.stored(&live, commit);
        assert_eq!(bench.due(), place);
        let commit = live.done(bench.fence, step);
        bench.stored(&live, commit);
    }
    assert_eq!(bench.due(), place);
}

/// While it waits for a time, an operation stands at that time; when it goes on, it is back at its old place.
pub fn an_operation_that_waits_moves_to_when_it_wakes(fixture: &mut dyn StoreFixture) {
    let bench = Bench::new(fixture);
    let mut live = bench.accept(Draft::chain(1, 1)).at(50);
    let commit = live.fails(bench.fence, 0, true);
    bench.stored(&live, commit);
    let due = bench.due();
    assert_eq!(ids(&due), [live.id()]);
    assert!(due[0].at > time(50), "{due:?}");
    assert_eq!(wait(bench.store().due(time(50), None, 10)).unwrap(), []);
    live.now = due[0].at;
    let commit = live.resume(bench.fence);
    bench.stored(&live, commit);
    assert_eq!(bench.due(), [Due { at: time(1), id: live.id() }]);
}

/// What is done, one way or the other, is nobody's work any more.
pub fn an_operation_that_is_done_has_no_place(fixture: &mut dyn StoreFixture) {
    let bench = Bench::new(fixture);
    bench.finished(Draft::chain(1, 1), 9);
    let mut live = bench.accept(Draft::chain(2, 1));
    let commit = live.fails(bench.fence, 0, false);
    bench.stored(&live, commit);
    let commit = live.undo_fails(bench.fence, 0);
    bench.stored(&live, commit);
    assert_eq!(ids(&bench.due()), [live.id()]);
    let commit = live.undone(bench.fence, 0);
    bench.stored(&live, commit);
    assert_eq!(bench.due(), []);
}

/// What was accepted without being started is due at once.
pub fn an_operation_of_the_backlog_is_due_at_once(fixture: &mut dyn StoreFixture) {
    let bench = Bench::new(fixture);
    let live = bench.accept(Draft { start: false, ..Draft::chain(3, 2) });
    assert_eq!(bench.due(), [Due { at: time(3), id: live.id() }]);
}
