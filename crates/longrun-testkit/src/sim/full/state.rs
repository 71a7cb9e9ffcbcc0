//! What changes in the world of one seed, and outlives the process.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use longrun_core::{OperationId, Plan, Revision, Timestamp};
use tokio::time::Instant;

use crate::random::Rng;
use crate::sim::coverage::{Coverage, CrashPoint, Fault, Situation};
use crate::sim::fast::Setting;
use crate::sim::invariants::answers::Answers;
use crate::sim::invariants::outside::Outside;
use crate::sim::invariants::{Verdict, Violation};
use crate::sim::shrink::{Reduction, Trouble};
use crate::sim::trace::Trace;

/// The wall clock when the world begins, in microseconds since 1970.
const EPOCH: i64 = 1_700_000_000_000_000;

/// How often what goes wrong, in a thousand.
#[derive(Clone, Debug)]
pub(super) struct Swarm {
    pub(super) crash: u32,
    pub(super) refuse: u32,
    pub(super) unknown: u32,
    pub(super) reopen: u32,
    pub(super) read_fails: u32,
    /// How often the way to the store or back takes its time, and how many microseconds at most.
    pub(super) slow: (u32, u64),
    /// How often the store stands still when something is to be stored, until the process is stopped.
    pub(super) stalls: u32,
    /// Lives in which a bit of what is stored is flipped.
    pub(super) flips: u32,
    pub(super) full: bool,
    pub(super) jumps: u32,
    pub(super) step_fails: u32,
    pub(super) step_after: u32,
    pub(super) step_final: u32,
    pub(super) step_panics: u32,
    pub(super) step_slow: u32,
    pub(super) saves: u32,
    pub(super) good_from: u32,
    pub(super) undo_fails: u32,
    pub(super) undo_slow: u32,
    pub(super) undo_panics: u32,
    pub(super) undo_good_from: u32,
    pub(super) cancels: u32,
    pub(super) lost_answers: u32,
    pub(super) deadlines: u32,
    pub(super) running_max: usize,
    /// Nodes that own the store one after the other in one life, each while the one before still works.
    pub(super) nodes: u32,
}

impl Swarm {
    pub(super) fn of(rng: &mut Rng, nodes_max: u32) -> Self {
        Self {
            crash: rng.pick(&[10, 30, 80, 200]),
            refuse: rng.rate(150),
            unknown: rng.rate(200),
            reopen: rng.rate(700),
            read_fails: rng.rate(60),
            slow: (rng.rate(300), rng.pick(&[20_000, 400_000, 8_000_000])),
            stalls: rng.rate(20),
            flips: rng.rate(400),
            full: rng.chance(150),
            jumps: rng.pick(&[0, 0, 1, 3]),
            step_fails: rng.rate(500),
            step_after: rng.rate(1000),
            step_final: rng.rate(500),
            step_panics: rng.rate(150),
            step_slow: rng.rate(200),
            saves: rng.rate(600),
            good_from: rng.pick(&[2, 3, 5, 1000]),
            undo_fails: rng.rate(600),
            undo_slow: rng.rate(200),
            undo_panics: rng.rate(200),
            undo_good_from: rng.pick(&[1, 2, 4, 1000]),
            cancels: rng.pick(&[0, 0, 400, 800]),
            lost_answers: rng.rate(400),
            deadlines: 150,
            running_max: rng.pick(&[1, 2, 100]),
            nodes: match nodes_max {
                0 | 1 => 1,
                most if rng.chance(500) => u32::try_from(rng.between(2, u64::from(most))).unwrap_or(most),
                _ => 1,
            },
        }
    }

    /// The same with less.
    fn with(mut self, less: &Reduction) -> Self {
        for trouble in Trouble::ALL.iter().filter(|trouble| less.lacks(**trouble)) {
            match trouble {
                Trouble::OtherNodes => self.nodes = 1,
                Trouble::ClockJumps => self.jumps = 0,
                Trouble::FullDisk => self.full = false,
                Trouble::FailedReads => self.read_fails = 0,
                Trouble::SlowCommits => (self.slow, self.stalls) = ((0, 0), 0),
                Trouble::FlippedBits => self.flips = 0,
                Trouble::FailedReopens => self.reopen = 0,
                Trouble::RefusedCommits => self.refuse = 0,
                Trouble::UnknownCommits => self.unknown = 0,
                Trouble::LostAnswers => self.lost_answers = 0,
                Trouble::Deadlines => self.deadlines = 0,
                Trouble::Cancels => self.cancels = 0,
                Trouble::Checkpoints => self.saves = 0,
                Trouble::SlowSteps => self.step_slow = 0,
                Trouble::StepPanics => self.step_panics = 0,
                Trouble::StepFailures => self.step_fails = 0,
                Trouble::SlowUndos => self.undo_slow = 0,
                Trouble::UndoPanics => self.undo_panics = 0,
                Trouble::UndoFailures => self.undo_fails = 0,
                // Not in this simulation.
                Trouble::Backlog | Trouble::Operators | Trouble::Looks => {}
            }
        }
        self
    }
}

/// The revision of every operation that anybody knows.
pub(super) type Floors = BTreeMap<OperationId, Revision>;

/// How things were when a node lost the store.
#[derive(Debug)]
struct Deposed {
    /// What anybody knew of each operation.
    known: Floors,
    /// Operations of which the rollback was durable.
    rolling_back: BTreeSet<OperationId>,
}

/// One operation, seen from outside.
#[derive(Debug)]
pub(super) struct Op {
    pub(super) plan: Arc<Plan>,
    pub(super) outside: Outside,
    pub(super) answers: Answers,
    pub(super) ended: bool,
    pub(super) crashes: u32,
}

/// What changes.
#[derive(Debug)]
pub(super) struct State {
    pub(super) rng: Rng,
    pub(super) swarm: Swarm,
    pub(super) coverage: Coverage,
    pub(super) trace: Trace,
    pub(super) life: u32,
    /// Nodes that were ever started, in all lives: each has the number of its start.
    pub(super) nodes: u32,
    /// The node that owns the store, and the one that takes it over now.
    pub(super) owner: u32,
    pub(super) starting: u32,
    /// The first node of this life.
    pub(super) first_node: u32,
    /// By node that has lost the store: how things were then.
    deposed: BTreeMap<u32, Deposed>,
    pub(super) crashed: bool,
    /// The life before ended with a crash, and nothing of an operation was stored since.
    pub(super) fresh: bool,
    pub(super) calm: bool,
    pub(super) crashes_left: u32,
    /// Batches with something of an operation that were applied.
    pub(super) changes: u64,
    pub(super) crashes: u32,
    pub(super) full: bool,
    pub(super) reopens_refused: u32,
    pub(super) ops: BTreeMap<OperationId, Op>,
    /// Virtual time before this life, in microseconds.
    pub(super) before: u64,
    pub(super) began: Option<Instant>,
    pub(super) offset: i64,
    /// By how much the clock was set back, in all.
    pub(super) set_back: Duration,
    pub(super) violation: Option<Violation>,
    pub(super) log: Option<Vec<String>>,
}

impl State {
    pub(super) fn new(seed: u64, setting: &Setting) -> Self {
        let mut rng = Rng::new(seed ^ 0x0066_756c_6c00);
        let less = &setting.less;
        let swarm = Swarm::of(&mut rng, setting.nodes).with(less);
        let crashes_left = rng.pick(&[0, 1, 1, 2, 3, 5]);
        let crashes_left = less.crashes.map_or(crashes_left, |most| crashes_left.min(most));
        Self {
            rng,
            swarm,
            coverage: Coverage::default(),
            trace: Trace::default(),
            life: 0,
            nodes: 0,
            owner: 0,
            starting: 0,
            first_node: 1,
            deposed: BTreeMap::new(),
            crashed: true,
            fresh: false,
            calm: false,
            crashes_left,
            changes: 0,
            crashes: 0,
            full: false,
            reopens_refused: 0,
            ops: BTreeMap::new(),
            before: 0,
            began: None,
            offset: 0,
            set_back: Duration::ZERO,
            violation: None,
            log: setting.show.then(Vec::new),
        }
    }

    /// Whether this life of the process still goes on.
    pub(super) const fn alive(&self, life: u32) -> bool {
        self.life == life && !self.crashed
    }

    /// Whether a node is alive and owns the store.
    pub(super) const fn owns(&self, life: u32, node: u32) -> bool {
        self.alive(life) && self.owner == node
    }

    /// The store has a new owner, durably. What the one before still does is late from now on.
    pub(super) fn hand_over(&mut self, rolling_back: BTreeSet<OperationId>) {
        if self.owner == self.starting {
            return;
        }
        if self.owner_was_alive() {
            self.coverage.fault(Fault::TakeOver);
            self.name_take_over();
        }
        let known = self.known();
        self.deposed.insert(self.owner, Deposed { known, rolling_back });
        self.owner = self.starting;
        let owner = self.owner;
        self.note(&format!("node {owner} owns the store"));
        for op in self.ops.values_mut() {
            op.outside.process_died();
        }
    }

    /// The revision of every operation that anybody knows.
    pub(super) fn known(&self) -> Floors {
        let known = |(id, op): (&OperationId, &Op)| Some((*id, op.answers.newest()?.revision()));
        self.ops.iter().filter_map(known).collect()
    }

    /// What anybody knew of an operation when a node lost the store.
    pub(super) fn deposed(&self, node: u32, id: OperationId) -> Option<Revision> {
        self.deposed.get(&node)?.known.get(&id).copied()
    }

    /// Whether it was decided to roll an operation back before a node lost the store.
    pub(super) fn decided_before(&self, node: u32, id: OperationId) -> bool {
        self.deposed.get(&node).is_some_and(|deposed| deposed.rolling_back.contains(&id))
    }

    /// The number of a node that starts now.
    pub(super) const fn next_node(&mut self) -> u32 {
        self.nodes += 1;
        self.starting = self.nodes;
        self.nodes
    }

    /// Whether the owner before is still at work: it was started in this life.
    const fn owner_was_alive(&self) -> bool {
        self.owner >= self.first_node
    }

    /// Whether a run is on, and whether an undo is.
    fn at_work(&self) -> (bool, bool) {
        let unfinished = || self.ops.values().filter(|op| !op.ended);
        let runs = unfinished().any(|op| op.outside.places.iter().any(|place| place.live.is_some()));
        (runs, unfinished().any(|op| op.outside.undoing() > 0))
    }

    fn name(&mut self, met: &[(bool, Situation)]) {
        for (_, situation) in met.iter().filter(|(met, _)| *met) {
            self.coverage.met(*situation);
        }
    }

    pub(super) fn name_shutdown(&mut self) {
        let (runs, undoes) = self.at_work();
        self.name(&[(runs, Situation::ShutDownWhileRunning), (undoes, Situation::ShutDownWhileUndoing)]);
    }

    /// The disk has filled, if it has.
    pub(super) fn name_full(&mut self) {
        let (runs, undoes) = self.at_work();
        let full = self.full;
        self.name(&[
            (full && runs, Situation::FullWhileRunning),
            (full && undoes, Situation::FullWhileUndoing),
        ]);
    }

    fn name_take_over(&mut self) {
        use Situation as S;
        let (runs, undoes) = self.at_work();
        let again = self.owner > self.first_node;
        self.name(&[
            (runs, S::TakenOverWhileRunning),
            (undoes, S::TakenOverWhileUndoing),
            (again, S::TakenOverAgain),
        ]);
    }

    pub(super) const fn has_crashed(&self) -> bool {
        self.crashed
    }

    pub(super) fn goes_wrong(&mut self, permille: u32) -> bool {
        !self.calm && self.rng.chance(permille)
    }

    /// Virtual time since the world began, in microseconds.
    pub(super) fn virtual_now(&self) -> u64 {
        let since = self.began.map_or(Duration::ZERO, |began| began.elapsed());
        self.before + u64::try_from(since.as_micros()).unwrap_or(0)
    }

    pub(super) fn note(&mut self, line: &str) {
        let now = self.virtual_now();
        self.trace.add(now);
        self.trace.add_bytes(line.as_bytes());
        self.coverage.events += 1;
        if let Some(log) = &mut self.log {
            log.push(format!("{now:>12} life {} {line}", self.life));
        }
    }

    /// What the wall clock shows.
    pub(super) fn wall(&self) -> Timestamp {
        let micros = EPOCH + i64::try_from(self.virtual_now()).unwrap_or(0) + self.offset;
        Timestamp::from_unix_micros(micros).unwrap_or(Timestamp::MAX)
    }

    pub(super) fn judge(&mut self, verdict: Verdict) {
        if let Err(violation) = verdict {
            self.violation.get_or_insert(violation);
        }
    }

    pub(super) fn jump(&mut self, micros: i64) {
        self.offset += micros;
        self.set_back += Duration::from_micros(micros.min(0).unsigned_abs());
        self.coverage.fault(if micros > 0 { Fault::ClockForward } else { Fault::ClockBack });
    }

    /// A place where the process may crash. True when it did: then it does nothing more.
    pub(super) fn crash_point(&mut self, point: CrashPoint) -> bool {
        if self.crashed || self.crashes_left == 0 || self.calm {
            return self.crashed;
        }
        self.coverage.visit(point);
        let crashes = self.rng.chance(self.swarm.crash);
        if crashes {
            self.crash(point);
        }
        crashes
    }

    pub(super) fn crash(&mut self, point: CrashPoint) {
        self.crashes_left -= 1;
        self.crashes += 1;
        self.crashed = true;
        self.coverage.crash(point);
        self.coverage.fault(Fault::Crash);
        self.name_crash(point);
        self.note(&format!("crash {}", point.text()));
    }

    fn name_crash(&mut self, point: CrashPoint) {
        use Situation as S;
        let mut met = Vec::new();
        match point {
            CrashPoint::BeforeEffect => met.push(S::CrashStartedNotApplied),
            CrashPoint::AfterEffect => met.push(S::CrashEffectNotReported),
            _ => {}
        }
        if self.fresh && self.ops.values().any(|op| !op.ended) {
            met.push(S::CrashDuringRecovery);
        }
        for op in self.ops.values().filter(|op| !op.ended) {
            match (op.outside.undoing(), op.outside.steps_undone()) {
                (0, _) => {}
                (_, 1) => met.push(S::CrashDuringFirstUndo),
                _ => met.push(S::CrashDuringSecondUndo),
            }
            if op.outside.places.iter().filter(|place| place.live.is_some()).count() > 1 {
                met.push(S::CrashTwoRunning);
            }
        }
        for situation in met {
            self.coverage.met(situation);
        }
    }
}
