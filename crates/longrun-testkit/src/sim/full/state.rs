//! What changes in the world of one seed, and outlives the process.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use longrun_core::{OperationId, Plan};
use tokio::time::Instant;

use crate::sim::coverage::{Coverage, CrashPoint, Fault, Situation};
use crate::sim::invariants::answers::Answers;
use crate::sim::invariants::outside::Outside;
use crate::sim::invariants::{Verdict, Violation};
use crate::sim::rng::{Rng, Trace};

/// How often what goes wrong, in a thousand.
#[derive(Clone, Debug)]
pub(super) struct Swarm {
    pub(super) crash: u32,
    pub(super) refuse: u32,
    pub(super) unknown: u32,
    pub(super) reopen: u32,
    pub(super) read_fails: u32,
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
    pub(super) running_max: usize,
}

impl Swarm {
    pub(super) fn of(rng: &mut Rng) -> Self {
        Self {
            crash: rng.pick(&[10, 30, 80, 200]),
            refuse: rng.rate(150),
            unknown: rng.rate(200),
            reopen: rng.rate(700),
            read_fails: rng.rate(60),
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
            running_max: rng.pick(&[1, 2, 100]),
        }
    }
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
    pub(super) crashed: bool,
    pub(super) calm: bool,
    pub(super) crashes_left: u32,
    pub(super) crashes: u32,
    pub(super) full: bool,
    pub(super) reopens_refused: u32,
    pub(super) ops: BTreeMap<OperationId, Op>,
    /// Virtual time before this life, in microseconds.
    pub(super) before: u64,
    pub(super) began: Option<Instant>,
    pub(super) offset: i64,
    pub(super) violation: Option<Violation>,
    pub(super) log: Option<Vec<String>>,
}

impl State {
    pub(super) fn new(seed: u64, shows: bool) -> Self {
        let mut rng = Rng::new(seed ^ 0x0066_756c_6c00);
        let swarm = Swarm::of(&mut rng);
        let crashes_left = rng.pick(&[0, 1, 1, 2, 3, 5]);
        Self {
            rng,
            swarm,
            coverage: Coverage::default(),
            trace: Trace::default(),
            life: 0,
            crashed: true,
            calm: false,
            crashes_left,
            crashes: 0,
            full: false,
            reopens_refused: 0,
            ops: BTreeMap::new(),
            before: 0,
            began: None,
            offset: 0,
            violation: None,
            log: shows.then(Vec::new),
        }
    }

    /// Whether this life of the process still goes on.
    pub(super) const fn alive(&self, life: u32) -> bool {
        self.life == life && !self.crashed
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

    pub(super) fn note(&mut self, fact: u64, line: impl FnOnce() -> String) {
        let now = self.virtual_now();
        self.trace.add(now ^ fact << 40);
        self.coverage.events += 1;
        if let Some(log) = &mut self.log {
            log.push(format!("{now:>12} life {} {}", self.life, line()));
        }
    }

    pub(super) fn judge(&mut self, verdict: Verdict) {
        if let Err(violation) = verdict {
            self.violation.get_or_insert(violation);
        }
    }

    pub(super) fn jump(&mut self, micros: i64) {
        self.offset += micros;
        self.coverage.fault(if micros > 0 { Fault::ClockForward } else { Fault::ClockBack });
    }

    /// A place where the process may crash. True when it did: then it does nothing more.
    pub(super) fn crash_point(&mut self, point: CrashPoint) -> bool {
        self.coverage.visit(point);
        let rate = self.swarm.crash;
        if self.crashed || self.crashes_left == 0 || !self.goes_wrong(rate) {
            return self.crashed;
        }
        self.crash(point);
        true
    }

    pub(super) fn crash(&mut self, point: CrashPoint) {
        self.crashes_left -= 1;
        self.crashes += 1;
        self.crashed = true;
        self.coverage.crash(point);
        self.coverage.fault(Fault::Crash);
        self.name_crash(point);
        self.note(1, || format!("crash {}", point.text()));
    }

    fn name_crash(&mut self, point: CrashPoint) {
        use Situation as S;
        let mut met = Vec::new();
        match point {
            CrashPoint::BeforeEffect => met.push(S::CrashStartedNotApplied),
            CrashPoint::AfterEffect => met.push(S::CrashEffectNotReported),
            CrashPoint::Recovery => met.push(S::CrashDuringRecovery),
            _ => {}
        }
        for op in self.ops.values_mut().filter(|op| !op.ended) {
            op.crashes += 1;
            match (op.outside.undoing(), op.outside.undos()) {
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
