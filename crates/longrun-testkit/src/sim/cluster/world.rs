//! What the nodes have in common: time, chance, the ledger of effects, and what clients were told.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock};

use longrun::{Caller, Environment, Fence, Operation, OperationId, OperationQuery, Timestamp};
use longrun_core::{Execution, Phase, Plan};
use longrun_store::shared::SharedStore;
use longrun_store::{Direction, KeyRange, Kv, KvError, Store, Table};
use tokio::time::Instant;

use crate::panics::lock;
use crate::random::Rng;
use crate::sim::coverage::{Coverage, Fault, Situation};
use crate::sim::fast::{Outcome, Setting};
use crate::sim::invariants::answers::{Answers, check_blocked_as_stored, check_there};
use crate::sim::invariants::durable::{End, Story};
use crate::sim::invariants::outside::Outside;
use crate::sim::invariants::rows::Rows;
use crate::sim::invariants::{Verdict, Violation};
use crate::sim::plant::Plant;
use crate::sim::shrink::Trouble;
use crate::sim::trace::Trace;

/// The wall clock when the world begins, in microseconds since 1970.
const EPOCH: i64 = 1_700_000_000_000_000;

/// How bad the world is. Rates are in a thousand.
#[derive(Clone, Debug)]
pub(super) struct Swarm {
    pub(super) nodes: usize,
    /// How often each kind of trouble comes to a node, against the others.
    pub(super) troubles: [u32; 6],
    /// Microseconds that the way to the store takes, at most.
    pub(super) way: u64,
    /// Milliseconds between two troubles of a node, at most.
    pub(super) pause: u64,
    /// Milliseconds by which clocks differ, at most.
    pub(super) drift: u64,
    /// How fast the store's clock goes, in thousandths of the nodes' own.
    pub(super) pace: u32,
    pub(super) step_fails: u32,
    pub(super) step_final: u32,
    pub(super) step_long: u32,
    pub(super) saves: u32,
    pub(super) undo_fails: u32,
    pub(super) cancels: u32,
    pub(super) running_max: usize,
}

impl Swarm {
    fn of(rng: &mut Rng, setting: &Setting) -> Self {
        let less = setting.less;
        let mut troubles = [(); 6].map(|()| if rng.chance(500) { rng.pick(&[1, 3, 10]) } else { 0 });
        if less.lacks(Trouble::UnknownCommits) {
            (troubles[4], troubles[5]) = (0, 0);
        }
        if less.lacks(Trouble::RefusedCommits) {
            troubles[3] = 0;
        }
        if less.crashes == Some(0) {
            troubles[0] = 0;
        }
        let rate = |rng: &mut Rng, trouble: Trouble, most: u32| {
            let rate = rng.rate(most);
            if less.lacks(trouble) { 0 } else { rate }
        };
        let nodes = rng.between(2, u64::from(setting.nodes.clamp(2, 5)));
        Self {
            nodes: usize::try_from(nodes).unwrap_or(2),
            troubles,
            way: rng.pick(&[0, 1_000, 20_000, 200_000]),
            pause: rng.pick(&[1_000, 4_000, 10_000]),
            drift: if less.lacks(Trouble::ClockJumps) {
                0
            } else {
                rng.pick(&[0, 10, 2_000, 60_000, 300_000])
            },
            pace: if less.lacks(Trouble::ClockJumps) {
                1000
            } else {
                rng.pick(&[1000, 1000, 990, 1010, 900, 1100])
            },
            step_fails: rate(rng, Trouble::StepFailures, 400),
            step_final: rng.rate(500),
            step_long: rate(rng, Trouble::SlowSteps, 400),
            saves: rate(rng, Trouble::Checkpoints, 800),
            undo_fails: rate(rng, Trouble::UndoFailures, 500),
            cancels: rng.pick(&[0, 300, 800]),
            running_max: rng.pick(&[1, 2, 100]),
        }
    }
}

/// An operation, as the world knows it.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) plan: Arc<Plan>,
    pub(super) outside: Outside,
    pub(super) answers: Answers,
    /// Its end is stored.
    pub(super) is_over: bool,
    /// Its end was judged.
    pub(super) ended: bool,
}

pub(super) struct State {
    pub(super) rng: Rng,
    pub(super) swarm: Swarm,
    pub(super) calm: bool,
    pub(super) operations: BTreeMap<OperationId, Known>,
    pub(super) coverage: Coverage,
    pub(super) violation: Option<Violation>,
    began: Option<Instant>,
    trace: Trace,
    log: Option<Vec<String>>,
}

pub(super) struct Shared {
    pub(super) setting: Setting,
    pub(super) state: Mutex<State>,
    store: OnceLock<Arc<SharedStore>>,
}

impl State {
    pub(super) fn judge(&mut self, verdict: Verdict) {
        if let Err(violation) = verdict {
            self.violation.get_or_insert(violation);
        }
    }

    /// What a clock shows that differs by so many microseconds.
    pub(super) fn wall(&self, offset: i64) -> Timestamp {
        let since = self.began.map_or(0, |began| i64::try_from(began.elapsed().as_micros()).unwrap_or(0));
        Timestamp::from_unix_micros(EPOCH + since + offset).unwrap_or(Timestamp::MAX)
    }

    pub(super) fn note(&mut self, line: &str) {
        let now = self.began.map_or(0, |began| u64::try_from(began.elapsed().as_micros()).unwrap_or(0));
        self.trace.add(now);
        self.trace.add_bytes(line.as_bytes());
        self.coverage.events += 1;
        if let Some(log) = &mut self.log {
            log.push(format!("{now:>12} {line}"));
        }
    }

    pub(super) fn goes_wrong(&mut self, permille: u32) -> bool {
        !self.calm && self.rng.chance(permille)
    }
}

impl Shared {
    pub(super) fn new(seed: u64, setting: Setting) -> Self {
        let mut rng = Rng::new(seed);
        let state = State {
            swarm: Swarm::of(&mut rng, &setting),
            rng,
            calm: false,
            operations: BTreeMap::new(),
            coverage: Coverage::default(),
            violation: None,
            began: None,
            trace: Trace::default(),
            log: setting.show.then(Vec::new),
        };
        Self { setting, state: Mutex::new(state), store: OnceLock::new() }
    }

    pub(super) fn begin(&self, start: Instant, store: Arc<SharedStore>) {
        lock(&self.state).began = Some(start);
        _ = self.store.set(store);
    }

    /// The operation as it is stored, past all trouble.
    pub(super) async fn stored(&self, id: OperationId) -> Option<Execution> {
        self.store.get()?.load(id).await.ok().flatten()
    }

    /// Sees what each commit leaves, at once.
    pub(super) fn witness(&self, stored: &Execution) {
        let mut state = lock(&self.state);
        if let Some(plan) = stored.plan() {
            state.operations.entry(stored.id()).or_insert_with(|| Known {
                plan: Arc::clone(plan),
                outside: Outside::new(plan.steps().len(), !self.setting.outcome_only),
                answers: Answers::default(),
                is_over: false,
                ended: false,
            });
        }
        let Some(known) = state.operations.get_mut(&stored.id()) else { return };
        known.is_over = stored.phase() == Phase::Done;
        let verdict = known.outside.sees_decision(stored);
        state.judge(verdict);
    }

    /// The operations that a caller has made, as they are stored, past all trouble.
    pub(super) async fn of_caller(&self, caller: &Caller) -> Vec<OperationId> {
        let Some(store) = self.store.get() else { return Vec::new() };
        let all = store.list_operations(&OperationQuery::All, None, 1000).await;
        let all = all.map(|slice| slice.items).unwrap_or_default();
        all.iter().filter(|one| one.created_by() == caller).map(Operation::id).collect()
    }

    /// The rows that a plan claims.
    pub(super) async fn rows(&self, plan: &Plan) -> Rows {
        let mut rows = Rows::new();
        for claim in plan.claims() {
            let Some(store) = self.store.get() else { break };
            if let Ok(Some(row)) = store.resource(&claim.key).await {
                rows.insert(claim.key.clone(), row);
            }
        }
        rows
    }

    /// Whether a node works on an operation, as the store sees it, and with this fence.
    pub(super) fn owns(&self, node: Fence, id: OperationId, fence: Fence) -> bool {
        self.store.get().is_some_and(|store| store.owner(id) == Some((Some(node), fence)))
    }

    /// A client is told how an operation stands; `floor` is what was known of it before he asked.
    pub(super) async fn told(&self, floor: Option<longrun_core::Revision>, answer: Operation) {
        let id = answer.id();
        let stored = self.stored(id).await;
        let mut state = lock(&self.state);
        state.note(&format!("told {id} {:?} r{}", answer.phase(), answer.revision()));
        let durable = stored.as_ref().map(Execution::revision);
        let verdict = match state.operations.get_mut(&id) {
            Some(known) => {
                let seen = stored.as_ref().map_or(Ok(()), |stored| {
                    check_blocked_as_stored(&known.plan, stored, &known.outside, &answer)
                });
                seen.and(known.answers.told_after(floor, answer, durable))
            }
            // It was done before anybody looked at it.
            None => check_there(id, stored.is_some()),
        };
        state.judge(verdict);
        drop(state);
        let verdict = self.check_end(id, stored.as_ref());
        lock(&self.state).judge(verdict);
    }

    /// What anybody was told of it so far.
    pub(super) fn floor(&self, id: OperationId) -> Option<longrun_core::Revision> {
        let state = lock(&self.state);
        state.operations.get(&id)?.answers.newest().map(Operation::revision)
    }

    /// If the end of an operation is stored: what is left of it?
    pub(super) fn check_end(&self, id: OperationId, stored: Option<&Execution>) -> Verdict {
        let Some(stored) = stored.filter(|stored| stored.phase() == Phase::Done) else { return Ok(()) };
        let mut state = lock(&self.state);
        let Some(known) = state.operations.get_mut(&id).filter(|known| !known.ended) else { return Ok(()) };
        known.ended = true;
        let story = Story::observed(&known.plan, stored, None, |_| false);
        let verdict = known.outside.check_end(&story);
        let adopted = known.outside.is_adopted();
        state.coverage.operations += 1;
        match story.end {
            Some(End::Succeeded) if adopted => state.coverage.met(Situation::DoneByAnother),
            Some(End::RolledBack) if adopted => state.coverage.met(Situation::UndoneByAnother),
            _ => {}
        }
        verdict
    }

    /// What the store has seen of the nodes.
    pub(super) fn name_what_was_seen(&self, store: &SharedStore) {
        use Situation as S;
        let (seen, coverage) = (store.seen(), &mut lock(&self.state).coverage);
        for (count, situation) in [
            (seen.late, S::LateCommitRefused),
            (seen.freed, S::TakenFromTheDead),
            (seen.strays, S::StrayFreed),
            (seen.lapsed, S::LeaseLapsed),
            (seen.told, S::VisitorTold),
            (seen.unanswered, S::AnswerOfTheStoreLost),
            (seen.cut_off, S::StoreOutOfReach),
        ] {
            (0..count).for_each(|_| coverage.met(situation));
        }
        (0..seen.unanswered).for_each(|_| coverage.fault(Fault::StoreAnswerLost));
        coverage.commits += seen.commits;
    }

    /// What is left in the store belongs to what happened, to the byte.
    pub(super) fn trace_medium(&self, medium: &dyn Kv) -> Result<(), KvError> {
        let mut state = lock(&self.state);
        for table in Table::ALL {
            for (key, value) in medium.scan(table, &KeyRange::prefix(&[]), Direction::Forward, usize::MAX)? {
                state.trace.add_bytes(&key);
                state.trace.add_bytes(&value);
            }
        }
        Ok(())
    }

    /// What came of the seed.
    pub(super) fn outcome(&self, coverage: &mut Coverage) -> Outcome {
        let mut state = lock(&self.state);
        state.coverage.seeds = 1;
        coverage.merge(&state.coverage);
        Outcome {
            violation: state.violation.take(),
            trace: state.trace.digest(),
            log: state.log.take().unwrap_or_default(),
        }
    }
}

/// The environment of one node: virtual time by a clock of its own, and chance that repeats.
pub(super) struct NodeEnvironment {
    pub(super) shared: Arc<Shared>,
    /// By how many microseconds its clock differs.
    pub(super) offset: i64,
}

impl std::fmt::Debug for NodeEnvironment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NodeEnvironment").field("offset", &self.offset).finish_non_exhaustive()
    }
}

impl Environment for NodeEnvironment {
    fn now(&self) -> Timestamp {
        let mut state = lock(&self.shared.state);
        let panics = self.shared.setting.plant == Some(Plant::Panic) && state.rng.chance(1);
        let now = state.wall(self.offset);
        drop(state);
        assert!(!panics, "planted");
        now
    }

    fn random(&self) -> u64 {
        lock(&self.shared.state).rng.bits()
    }
}
