//! What outlives the process: time, the medium, the ledger of effects, and what clients were told.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, OnceLock};

use longrun::Environment;
use longrun_core::{Claim, Code, Execution, Operation, OperationId, Phase, Plan, ResourceKey, Timestamp};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::disk::{Inspector, Look, Medium};
use super::state::{Floors, Op, State};
use crate::panics::lock;
use crate::sim::coverage::{Coverage, Fault, Situation};
use crate::sim::fast::Setting;
use crate::sim::invariants::answers::{Answers, check_blocked_as_stored, check_there};
use crate::sim::invariants::commits::check_indexes;
use crate::sim::invariants::durable::{End, Story};
use crate::sim::invariants::outside::Outside;
use crate::sim::invariants::rows;
use crate::sim::plant::Plant;

/// Everything that outlives the process.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) setting: Setting,
    pub(super) state: Mutex<State>,
    pub(super) medium: Arc<Mutex<Medium>>,
    pub(super) died: Notify,
    durable: OnceLock<Inspector>,
    ahead: OnceLock<Inspector>,
}

impl Shared {
    pub(super) fn new(seed: u64, setting: Setting) -> Self {
        Self {
            setting,
            state: Mutex::new(State::new(seed, &setting)),
            medium: Arc::default(),
            died: Notify::new(),
            durable: OnceLock::new(),
            ahead: OnceLock::new(),
        }
    }

    /// A new life begins, inside of a runtime.
    pub(super) fn begin_life(&self) -> u32 {
        let mut state = lock(&self.state);
        state.life += 1;
        state.crashed = false;
        state.began = Some(Instant::now());
        state.first_node = state.nodes + 1;
        let life = state.life;
        state.note("begins");
        life
    }

    /// The life is over, one way or the other. Still inside of its runtime.
    pub(super) fn end_life(&self) {
        let mut state = lock(&self.state);
        state.before = state.virtual_now();
        state.began = None;
        state.fresh = state.crashed;
        state.crashed = true;
        state.full = false;
        for op in state.ops.values_mut() {
            op.outside.process_died();
        }
        drop(state);
        lock(&self.medium).crash();
    }

    /// The oracle's look at what is durable, or at what readers see.
    pub(super) fn inspect(&self, ahead: bool) -> Option<&Inspector> {
        let cell = if ahead { &self.ahead } else { &self.durable };
        if cell.get().is_none() {
            let inspector = Inspector::open(&self.medium, ahead)?;
            _ = cell.set(inspector);
        }
        cell.get()
    }

    /// The operation as a restart would find it.
    pub(super) fn stored(&self, id: OperationId) -> Option<Execution> {
        self.inspect(false)?.load(id)
    }

    /// Tells the harness that the process has died, if it has.
    pub(super) fn check_dead(&self) {
        if lock(&self.state).has_crashed() {
            self.died.notify_one();
        }
    }

    /// The operations of which the decision to roll back is durable, and that are not done.
    pub(super) fn rolling_back(&self) -> BTreeSet<OperationId> {
        let Some(look) = self.inspect(false) else { return BTreeSet::new() };
        let rolls_back =
            |id: &OperationId| look.load(*id).is_some_and(|one| one.phase() == Phase::RollingBack);
        look.unfinished().into_iter().map(|due| due.id).filter(rolls_back).collect()
    }

    /// Remembers an operation when it is met for the first time, by a client or by a step.
    pub(super) fn meet(&self, id: OperationId, stored: Option<&Execution>) {
        let mut state = lock(&self.state);
        let Some(plan) = stored.and_then(Execution::plan).filter(|_| !state.ops.contains_key(&id)) else {
            return;
        };
        let strict = !self.setting.outcome_only;
        let outside = Outside::new(plan.steps().len(), strict);
        let plan = Arc::clone(plan);
        state.ops.insert(id, Op { plan, outside, answers: Answers::default(), ended: false, crashes: 0 });
    }

    /// What is known of every operation when a question is asked.
    pub(super) fn floors(&self) -> Floors {
        lock(&self.state).known()
    }

    /// A client is told how an operation stands, by a node; `floors` is from before it asked.
    pub(super) fn told(&self, life: u32, node: u32, floors: &Floors, answer: Operation) {
        let id = answer.id();
        let stored = self.stored(id);
        self.meet(id, stored.as_ref());
        let mut state = lock(&self.state);
        if !state.alive(life) {
            return;
        }
        state.note(&format!("told {id} {:?} r{}", answer.phase(), answer.revision()));
        if !answer.blocked().is_empty() {
            state.coverage.met(Situation::Blocked);
        }
        // A step that ran into its own timeout ends with the same code.
        let late = answer.error().is_some_and(|error| {
            error.code() == Code::DeadlineExceeded && error.message().contains("its deadline")
        });
        let news =
            state.ops.get(&id).and_then(|op| op.answers.newest()).is_none_or(|told| told.error().is_none());
        if late && news {
            state.coverage.fault(Fault::Deadline);
        }
        let owns = state.owns(life, node);
        let deposed = state.deposed(node, id);
        let strict = !self.setting.outcome_only;
        let durable = stored.as_ref().filter(|_| strict).map(Execution::revision);
        let verdict = match state.ops.get_mut(&id) {
            Some(op) => {
                // Who has lost the store does not know at once: what it has in memory may be as old as that.
                let floor = floors.get(&id).copied();
                let floor = if owns { floor } else { floor.min(deposed) };
                let seen = stored
                    .as_ref()
                    .map_or(Ok(()), |stored| check_blocked_as_stored(&op.plan, stored, &op.outside, &answer));
                seen.and(op.answers.told_after(floor, answer, durable))
            }
            // It was done before anybody looked at it.
            None => check_there(id, stored.is_some()),
        };
        state.judge(verdict);
        drop(state);
        self.check_end(id, stored.as_ref());
    }

    /// If the end of an operation is durable: what is left of it?
    pub(super) fn check_end(&self, id: OperationId, stored: Option<&Execution>) {
        let Some(stored) = stored.filter(|stored| stored.phase() == Phase::Done) else { return };
        let beside_damage = lock(&self.medium).damaged().is_some_and(|damaged| damaged != id);
        let mut state = lock(&self.state);
        let Some(op) = state.ops.get_mut(&id).filter(|op| !op.ended) else { return };
        op.ended = true;
        let story = Story::observed(&op.plan, stored, None, |_| false);
        let verdict = op.outside.check_end(&story);
        let (crashes, end) = (op.crashes, story.end);
        state.judge(verdict);
        state.coverage.operations += 1;
        if beside_damage {
            state.coverage.met(Situation::DoneBesideDamage);
        }
        match end {
            Some(End::Succeeded) if crashes > 0 => state.coverage.met(Situation::DoneAfterCrash),
            Some(End::RolledBack) if crashes > 1 => state.coverage.met(Situation::UndoneAfterCrashes),
            _ => {}
        }
    }

    /// Nothing runs: what is stored must bear out what clients were told, rows must go with their operations, and indexes with both.
    pub(super) fn check_stored(&self) {
        // Before the first commit there is no store.
        if self.inspect(false).is_some() {
            let verdict = check_indexes(&Look::durable(&self.medium));
            lock(&self.state).judge(verdict);
        }
        let ids: Vec<OperationId> = lock(&self.state).ops.keys().copied().collect();
        for id in ids {
            let stored = self.stored(id);
            let mut state = lock(&self.state);
            let Some(op) = state.ops.get(&id) else { continue };
            let verdict = op.answers.check_stored(stored.as_ref().map(Execution::operation).as_ref());
            let plan = Arc::clone(&op.plan);
            state.judge(verdict);
            drop(state);
            let Some(execution) = &stored else { continue };
            let rows = self.rows(&plan);
            let story = Story::observed(&plan, execution, None, |_| false);
            let alone =
                |key: &ResourceKey| self.inspect(false).is_some_and(|look| look.operations_of(key) == [id]);
            let verdict = rows::check_stored(id, plan.claims(), &story, &rows, alone);
            lock(&self.state).judge(verdict);
            self.check_end(id, stored.as_ref());
        }
    }

    /// The rows that a plan claims.
    fn rows(&self, plan: &Plan) -> rows::Rows {
        let look = self.inspect(false);
        let row = |claim: &Claim| Some((claim.key.clone(), look?.row(&claim.key)?));
        plan.claims().iter().filter_map(row).collect()
    }

    /// Names what the next life will find; its `fresh` says whether this one has crashed.
    pub(super) fn name_restart(&self) {
        let due = self.inspect(false).map(|look| look.unfinished()).unwrap_or_default();
        for id in due.into_iter().map(|due| due.id) {
            let Some(stored) = self.stored(id) else { continue };
            let next = stored.next(Timestamp::MIN);
            let no_return = stored.plan().and_then(|plan| plan.point_of_no_return());
            let past = no_return.is_some_and(|step| stored.attempt(step).0 > 0);
            let waits = next.wake_at.is_some();
            let mut state = lock(&self.state);
            let crashed = u32::from(state.fresh);
            if let Some(op) = state.ops.get_mut(&id) {
                op.crashes += crashed;
            }
            let coverage = &mut state.coverage;
            for (met, situation) in [
                (next.stop, Situation::RestartRollingBack),
                (next.stop && waits, Situation::RestartUndoWaiting),
                (!next.stop && waits && stored.header().deadline.is_none(), Situation::RestartWaitingAgain),
                (past, Situation::RestartPastNoReturn),
            ] {
                if met {
                    coverage.met(situation);
                }
            }
        }
    }

    /// What came of the seed.
    pub(super) fn outcome(&self, coverage: &mut Coverage) -> crate::sim::fast::Outcome {
        let mut state = lock(&self.state);
        state.coverage.seeds = 1;
        coverage.merge(&state.coverage);
        crate::sim::fast::Outcome {
            violation: state.violation.take(),
            trace: state.trace.digest(),
            log: state.log.take().unwrap_or_default(),
        }
    }
}

/// The environment of the engine: virtual time that may jump, and chance that repeats.
#[derive(Debug)]
pub(super) struct SimEnvironment(pub(super) Arc<Shared>);

impl Environment for SimEnvironment {
    fn now(&self) -> Timestamp {
        let mut state = lock(&self.0.state);
        let panics = self.0.setting.plant == Some(Plant::Panic) && state.rng.chance(1);
        let now = state.wall();
        drop(state);
        assert!(!panics, "planted");
        now
    }

    fn random(&self) -> u64 {
        lock(&self.0.state).rng.bits()
    }
}
