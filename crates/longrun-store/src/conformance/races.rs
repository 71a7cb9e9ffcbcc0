//! Many at once. What these rules ask for holds in every order; the threads only see to it that there are several.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use longrun_core::Revision;

use super::bench::Bench;
use super::sample::{Draft, Live, creates, deletes, updates};
use super::{StoreFixture, wait};
use crate::error::{CommitError, Conflict};
use crate::store::{Commit, OperationQuery};

const RACERS: u64 = 8;

/// All at once, as nearly as threads can.
fn race(bench: &Bench<'_>, commits: Vec<Commit>) -> Vec<Result<(), CommitError>> {
    let barrier = Barrier::new(commits.len());
    let run = |commit| {
        barrier.wait();
        wait(bench.store().commit(commit))
    };
    let run = &run;
    thread::scope(|scope| {
        let threads: Vec<_> = commits.into_iter().map(|commit| scope.spawn(move || run(commit))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

/// The place of the one that won; every other was refused by a conflict.
#[track_caller]
fn winner(results: &[Result<(), CommitError>]) -> usize {
    let won: Vec<_> = (0..results.len()).filter(|place| results[*place].is_ok()).collect();
    assert_eq!(won.len(), 1, "{results:?}");
    let conflicts = results.iter().filter(|result| matches!(result, Err(CommitError::Conflict(_)))).count();
    assert_eq!(conflicts, results.len() - 1, "{results:?}");
    won[0]
}

/// Of many turns that follow the same revision exactly one happens, and it is the one that is shown.
pub fn one_of_many_racing_commits_wins(fixture: &mut dyn StoreFixture) {
    let bench = Bench::new(fixture);
    let mut live = bench.accept(Draft::chain(1, 2));
    for _ in 0..10 {
        let mut racers: Vec<_> = (0..RACERS).map(|_| live.clone()).collect();
        let commits = racers.iter_mut().enumerate();
        let commits = commits.map(|(n, racer)| racer.checkpoint(bench.fence, 0, n as u64)).collect();
        live = racers.swap_remove(winner(&race(&bench, commits)));
        bench.check(&live);
    }
    assert_eq!(live.execution.revision(), Revision(11));
}

/// Of many operations with the same id exactly one is created.
pub fn one_of_many_racing_creations_wins(fixture: &mut dyn StoreFixture) {
    let bench = Bench::new(fixture);
    let drafts = (1..=8).map(|steps| Draft::chain(1, steps).with(creates("a", "folder")));
    let (mut lives, commits): (Vec<Live>, Vec<_>) = drafts.map(|draft| draft.accept(bench.fence)).unzip();
    let won = lives.swap_remove(winner(&race(&bench, commits)));
    bench.check(&won);
    assert_eq!(bench.due().len(), 1);
}

/// Of many operations that claim the same free resource exactly one gets it; the others are not there.
pub fn one_of_many_racing_claims_of_a_row_wins(fixture: &mut dyn StoreFixture) {
    let bench = Bench::new(fixture);
    let before = bench.resource(1, "a", "folder");
    let draft = |n: u64| {
        let claim = if n.is_multiple_of(2) { updates(before.clone()) } else { deletes(before.clone()) };
        Draft::chain(10 + n, 1).with(claim)
    };
    let (lives, commits): (Vec<Live>, Vec<_>) = (0..RACERS).map(|n| draft(n).accept(bench.fence)).unzip();
    let won = winner(&race(&bench, commits));
    assert_eq!(bench.row("a").unwrap().operation, Some(lives[won].id()));
    for (place, live) in lives.iter().enumerate() {
        assert_eq!(bench.is_there(live.id()), place == won);
    }
}

/// C15: two racing submits with the same key make one operation, and every loser learns which.
pub fn one_of_many_racing_claims_of_a_key_wins(fixture: &mut dyn StoreFixture) {
    let bench = Bench::new(fixture);
    let draft = |n: u64| Draft::chain(10 + n, 1).with(creates(&format!("r{n}"), "folder")).with_key(1);
    let (lives, commits): (Vec<Live>, Vec<_>) = (0..RACERS).map(|n| draft(n).accept(bench.fence)).unzip();
    let results = race(&bench, commits);
    let won = lives[winner(&results)].id();
    for error in results.into_iter().filter_map(Result::err) {
        match error {
            CommitError::Conflict(Conflict::Idempotency(entry)) => assert_eq!(entry.operation, won),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(bench.ids(&OperationQuery::All, 100), [won]);
    assert_eq!(bench.rows("folder", None, None, 100).items.len(), 1);
}

/// A commit that is refused takes nothing from those beside it.
pub fn neighbours_of_a_refused_commit_are_stored(fixture: &mut dyn StoreFixture) {
    let bench = Bench::new(fixture);
    let mut live = bench.accept(Draft::chain(1, 2));
    let mut stale = live.clone();
    let commit = live.done(bench.fence, 0);
    bench.stored(&live, commit);
    let mut lives = Vec::new();
    let mut commits = Vec::new();
    for n in 0..RACERS {
        let (live, commit) =
            Draft::chain(10 + n, 1).with(creates(&format!("r{n}"), "folder")).accept(bench.fence);
        lives.push(live);
        commits.push(commit);
        commits.push(stale.clone().checkpoint(bench.fence, 0, n));
    }
    commits.push(stale.done(bench.fence, 0));
    let results = race(&bench, commits);
    let stored = results.iter().filter(|result| result.is_ok()).count();
    assert_eq!(stored, lives.len(), "{results:?}");
    for live in lives.iter().chain([&live]) {
        bench.check(live);
    }
}

/// Commits of different operations do not get in each other's way.
pub fn commits_of_many_operations_are_all_stored(fixture: &mut dyn StoreFixture) {
    let bench = Bench::new(fixture);
    let run = |n: u64| {
        let id = format!("r{n}");
        let (mut live, commit) = Draft::chain(10 + n, 3).with(creates(&id, "folder")).accept(bench.fence);
        wait(bench.store().commit(commit)).unwrap();
        for step in 0..3 {
            let commit = live.checkpoint(bench.fence, step, 1);
            wait(bench.store().commit(commit)).unwrap();
            let commit = live.done(bench.fence, step);
            wait(bench.store().commit(commit)).unwrap();
        }
        live
    };
    let run = &run;
    let lives: Vec<Live> = thread::scope(|scope| {
        let threads: Vec<_> = (0..RACERS).map(|n| scope.spawn(move || run(n))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    for live in &lives {
        bench.check(live);
    }
    assert_eq!(bench.ids(&OperationQuery::All, 3).len(), lives.len());
    assert_eq!(bench.row_ids("folder", None, 3).len(), lives.len());
    assert_eq!(bench.due(), []);
}

/// S11, S39: while commits go on, an operation is always read as one of them left it, and never as it was before one that
/// somebody has seen.
pub fn a_load_during_commits_never_goes_back(fixture: &mut dyn StoreFixture) {
    const ROUNDS: u64 = 40;
    let bench = Bench::new(fixture);
    let live = bench.accept(Draft::chain(1, 3));
    let id = live.id();
    let ended = AtomicBool::new(false);
    let look = || {
        let mut last = Revision(1);
        let mut loads = 0;
        loop {
            let over = ended.load(Ordering::SeqCst);
            let loaded = wait(bench.store().load(id)).unwrap().unwrap();
            assert!(loaded.revision() >= last, "{} after {last}", loaded.revision());
            last = loaded.revision();
            let listed = wait(bench.store().list_operations(&OperationQuery::All, None, 10)).unwrap();
            let listed = listed.items.iter().find(|operation| operation.id() == id).unwrap();
            assert!(listed.revision() >= last, "{} after {last}", listed.revision());
            last = listed.revision();
            loads += 1;
            if over && loads > 1 {
                return last;
            }
        }
    };
    thread::scope(|scope| {
        let readers: Vec<_> = (0..3).map(|_| scope.spawn(look)).collect();
        let mut live = live;
        for step in 0..3 {
            for n in 0..ROUNDS {
                let commit = live.checkpoint(bench.fence, step, n);
                wait(bench.store().commit(commit)).unwrap();
            }
            let commit = live.done(bench.fence, step);
            wait(bench.store().commit(commit)).unwrap();
        }
        ended.store(true, Ordering::SeqCst);
        for reader in readers {
            assert_eq!(reader.join().unwrap(), live.execution.revision());
        }
    });
}

/// S38: after a commit is acknowledged everybody sees it, whatever else goes on.
pub fn an_acknowledged_commit_is_seen_by_the_next_reading(fixture: &mut dyn StoreFixture) {
    let bench = Bench::new(fixture);
    let run = |n: u64| {
        for round in 0..20 {
            let id = format!("r{n}-{round}");
            let draft = Draft::chain(100 + n * 100 + round, 1).with(creates(&id, &format!("folder-{n}")));
            let (live, commit) = draft.accept(bench.fence);
            wait(bench.store().commit(commit)).unwrap();
            assert!(bench.is_there(live.id()));
            assert!(bench.row(&id).is_some());
            assert!(bench.row_ids(&format!("folder-{n}"), None, 100).contains(&id));
            assert!(bench.due().iter().any(|due| due.id == live.id()));
        }
    };
    let run = &run;
    thread::scope(|scope| {
        for n in 0..4 {
            scope.spawn(move || run(n));
        }
    });
}

/// C17: whatever is acknowledged to an old owner is there for the new one, and nothing comes after it has taken over.
pub fn a_taken_over_store_takes_nothing_from_the_race(fixture: &mut dyn StoreFixture) {
    let bench = Bench::new(fixture);
    let run = |n: u64| {
        let mut acknowledged = Vec::new();
        for round in 0.. {
            let (live, commit) = Draft::chain(100 + n * 1000 + round, 1).accept(bench.fence);
            match wait(bench.store().commit(commit)) {
                Ok(()) => acknowledged.push(live.id()),
                Err(CommitError::Fenced { .. }) => break,
                Err(other) => panic!("{other:?}"),
            }
        }
        acknowledged
    };
    let run = &run;
    thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|n| scope.spawn(move || run(n))).collect();
        bench.replaced();
        let mut seen = bench.ids(&OperationQuery::All, 1000);
        seen.sort_unstable();
        let mut acknowledged: Vec<_> =
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
        acknowledged.sort_unstable();
        assert_eq!(seen, acknowledged);
    });
}
