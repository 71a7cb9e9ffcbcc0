//! Every plan of up to three steps, every way in which its runs and undos may end, a cancel at every moment, and crashes at every moment
//! and at every two; plans of up to two steps also with a gentle stop, or a crash, and a clock that is set back. After each command all
//! checks of the workbench are made.
//!
//! By itself it visits plans of up to two steps. `cargo test --release -p longrun-core --test exhaustive -- --ignored` visits those of
//! three, in two minutes, with one crash and at most one wait that ends while another step is at work. `LONGRUN_CRASHES=2` gives them
//! two crashes, `LONGRUN_WAKES=9` as many such waits as can come, `LONGRUN_WAKES=0` none.
// It says what it has visited, and is told how far to go.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, clippy::disallowed_methods)]

mod common;

use std::collections::BTreeSet;
use std::time::Duration;

use common::*;
use longrun_core::{Applied, Command, Phase, StepIndex, Timestamp};

/// What may still go wrong from here on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Budget {
    crashes: u8,
    cancels: u8,
    undo_failures: u8,
    /// Past the point of no return, where steps are run until they are done.
    failures: u8,
    /// Ends of a wait while another step is run or undone.
    wakes: u8,
    /// Gentle stops, after which another process goes on.
    stops: u8,
    /// Times that the clock is set back by an hour, to before the acceptance.
    set_backs: u8,
}

impl Budget {
    /// So many crashes and wakes, one cancel, and the failures that every visit tries. No stop, and no clock that is set back.
    fn of(crashes: u8, wakes: u8) -> Self {
        Self { crashes, cancels: 1, undo_failures: 1, failures: 2, wakes, stops: 0, set_backs: 0 }
    }
}

/// More than any history here has.
const ALL_WAKES: u8 = 9;

/// What was visited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    plans: u64,
    states: u64,
    /// Crashes that were the first, and crashes that were the second.
    crashes: [u64; 2],
    stops: u64,
    set_backs: u64,
    cancels: u64,
    responses: u64,
    errors: u64,
}

/// FNV-1a, of 128 bits: among millions of states no two have the same.
fn digest(text: &str) -> u128 {
    text.bytes().fold(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d, |hash, byte| {
        (hash ^ u128::from(byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b)
    })
}

struct Visit {
    /// Digests of the states.
    seen: BTreeSet<u128>,
    crashes: u8,
    counts: Counts,
}

impl Visit {
    /// Visits all that can come of a state. It ends, as each command uses up a run, an undo or a budget.
    fn all_from(&mut self, bench: &Bench, budget: Budget) {
        if !self.seen.insert(digest(&format!("{:?} {:?} {budget:?}", bench.live, bench.now))) {
            return;
        }
        self.counts.states += 1;
        if bench.live.is_done() {
            let operation = bench.live.operation();
            match operation.response() {
                Some(_) => self.counts.responses += 1,
                None => self.counts.errors += 1,
            }
            return;
        }
        self.counts.cancels += u64::from(budget.cancels > 0);
        let next = bench.next();
        let mut moves = 0;
        let mut go_at = |now: Timestamp, command: Command, budget: Budget| {
            let mut after = bench.clone();
            after.now = now;
            after.tell(command);
            // Only for those who look back.
            after.turns.clear();
            after.said.clear();
            moves += 1;
            self.all_from(&after, budget);
        };
        let mut go = |command, budget| go_at(bench.now, command, budget);
        let forward = u8::from(bench.ledger.is_past_no_return());
        for &StepIndex(step) in &next.run {
            go(bench.reports_done(step), budget);
            if let Some(failures) = budget.failures.checked_sub(forward) {
                let budget = Budget { failures, ..budget };
                let why = format!("step {step} failed");
                for retryable in [false, true] {
                    for applied in [Applied::No, Applied::Unknown] {
                        go(bench.reports_failure(step, &why, applied, retryable), budget);
                    }
                }
            }
        }
        for &StepIndex(step) in &next.undo {
            go(bench.reports_undo(step, Ok(())), budget);
            if let Some(undo_failures) = budget.undo_failures.checked_sub(1) {
                go(bench.reports_undo(step, Err(error("not yet"))), Budget { undo_failures, ..budget });
            }
        }
        if let Some(cancels) = budget.cancels.checked_sub(1) {
            go(cancel(), Budget { cancels, ..budget });
        }
        if let Some(at) = next.wake_at {
            let busy = !next.run.is_empty() || !next.undo.is_empty();
            if let Some(wakes) = budget.wakes.checked_sub(u8::from(busy)) {
                go_at(at.max(bench.now), Command::Resume, Budget { wakes, ..budget });
            }
        }
        assert!(moves > 0, "L1: nothing is left to do, and it is not done: {:?}", bench.live);
        if let Some(crashes) = budget.crashes.checked_sub(1) {
            let mut after = bench.clone();
            after.crash();
            self.counts.crashes[usize::from(self.crashes - budget.crashes)] += 1;
            self.all_from(&after, Budget { crashes, ..budget });
        }
        if let Some(stops) = budget.stops.checked_sub(1) {
            let mut after = bench.clone();
            after.try_tell_at_rest(&Command::Leave).unwrap();
            after.crash();
            self.counts.stops += 1;
            self.all_from(&after, Budget { stops, ..budget });
        }
        if let Some(set_backs) = budget.set_backs.checked_sub(1) {
            let mut after = bench.clone();
            after.now = after.now.saturating_sub(Duration::from_secs(3600));
            self.counts.set_backs += 1;
            self.all_from(&after, Budget { set_backs, ..budget });
        }
    }
}

/// Each way in which steps may need each other, run at once or one by one, without a point of no return and with each.
fn plans(steps: u16) -> Vec<Draft> {
    let pairs: Vec<(u16, u16)> =
        (0..steps).flat_map(|step| (0..step).map(move |before| (step, before))).collect();
    let mut drafts = Vec::new();
    for edges in 0_u32..1 << pairs.len() {
        let needs: Vec<Vec<u16>> = (0..steps)
            .map(|step| {
                let edges = pairs.iter().enumerate().filter(|(place, _)| edges >> place & 1 == 1);
                edges.filter(|(_, (of, _))| *of == step).map(|(_, (_, before))| *before).collect()
            })
            .collect();
        let needs: Vec<&[u16]> = needs.iter().map(Vec::as_slice).collect();
        for parallel in 1..=steps {
            let draft = || Draft::of(&needs).parallel(parallel).three_claims();
            drafts.push(draft());
            drafts.extend((0..steps).map(|step| draft().no_return(step)));
        }
    }
    drafts
}

fn visit(steps: u16, budget: Budget) -> Counts {
    let mut visit = Visit { seen: BTreeSet::new(), crashes: budget.crashes, counts: Counts::default() };
    for draft in plans(steps) {
        visit.seen.clear();
        visit.counts.plans += 1;
        let bench = draft.accept();
        assert_eq!(bench.live.phase(), Phase::Pending);
        visit.all_from(&bench, budget);
    }
    println!("plans of {steps} steps, {budget:?}: {:?}", visit.counts);
    visit.counts
}

fn check(steps: u16, budget: Budget) {
    let counts = visit(steps, budget);
    assert!(counts.responses > 0 && counts.errors > 0 && counts.cancels > 0);
    assert!(counts.crashes[..usize::from(budget.crashes)].iter().all(|crashes| *crashes > 0));
    assert_eq!((counts.stops > 0, counts.set_backs > 0), (budget.stops > 0, budget.set_backs > 0));
}

#[test]
fn l1_every_plan_of_two_steps_ends_clean_whatever_happens_and_wherever_it_crashes_twice() {
    check(1, Budget::of(2, ALL_WAKES));
    check(2, Budget::of(2, ALL_WAKES));
}

#[test]
fn l1_every_plan_of_two_steps_ends_clean_wherever_it_is_stopped_and_whenever_the_clock_is_set_back() {
    for (crashes, stops) in [(1, 0), (0, 1)] {
        for steps in [1, 2] {
            check(steps, Budget { stops, set_backs: 1, ..Budget::of(crashes, ALL_WAKES) });
        }
    }
}

#[test]
#[ignore = "two minutes in a release build"]
fn l1_every_plan_of_three_steps_ends_clean_whatever_happens_and_wherever_it_crashes() {
    let given = |name| std::env::var(name).map_or(1, |text| text.parse().unwrap());
    check(3, Budget::of(given("LONGRUN_CRASHES"), given("LONGRUN_WAKES")));
}
