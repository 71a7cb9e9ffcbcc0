//! What a seed is about: how bad its world is, and which plans it tries.

use std::time::Duration;

use longrun_core::{
    Backoff, Caller, Claim, IdPrefix, Input, Intent, Json, KindName, Payload, PlanParts, ResourceId,
    ResourceKey, ResourceKind, ResourceStatus, Revision, Row, Source, StepIndex, StepName, StepPolicy,
    StepSpec, Timestamp,
};

use crate::random::Rng;
use crate::sim::invariants::rows::Rows;
use crate::sim::shrink::{CRASHES_MAX, Reduction, STEPS_MAX, Trouble, at_most};

/// One second of virtual time.
pub(super) const SECOND: u64 = 1_000_000;
/// The wall clock when the world begins, in microseconds since 1970.
pub(super) const EPOCH: i64 = 1_700_000_000_000_000;
/// The type of everything here.
const TYPE: &str = "t/T";

/// How often what goes wrong, in a thousand. Every seed switches a random part of it on, at random rates.
#[derive(Clone, Debug)]
pub(super) struct Swarm {
    pub(super) crash: u32,
    pub(super) crashes: u32,
    pub(super) refuse: u32,
    pub(super) unknown_applied: u32,
    pub(super) unknown_lost: u32,
    pub(super) slow: u32,
    pub(super) disk_full: bool,
    pub(super) jumps: u32,
    pub(super) step_fails: u32,
    pub(super) step_after: u32,
    pub(super) step_final: u32,
    pub(super) step_panics: u32,
    pub(super) step_slow: u32,
    pub(super) step_hangs: u32,
    pub(super) late: u32,
    pub(super) saves: u32,
    /// Runs from this one on behave, if the seed says so.
    pub(super) good_from: u32,
    pub(super) undo_fails: u32,
    pub(super) undo_slow: u32,
    /// Undos from this one on behave, if the seed says so.
    pub(super) undo_good_from: u32,
    pub(super) cancels: u32,
    pub(super) verbs: u32,
    pub(super) polls: u32,
    pub(super) deadline: u32,
    pub(super) backlog: u32,
}

impl Swarm {
    pub(super) fn of(rng: &mut Rng) -> Self {
        let crashes = rng.pick(&[0, 1, 1, 2, 2, 3, 4, CRASHES_MAX]);
        Self {
            crash: rng.pick(&[15, 40, 100, 250]),
            crashes,
            refuse: rng.rate(200),
            unknown_applied: rng.rate(200),
            unknown_lost: rng.rate(200),
            slow: rng.rate(300),
            disk_full: rng.chance(80),
            jumps: rng.pick(&[0, 0, 0, 1, 3]),
            step_fails: rng.rate(500),
            step_after: rng.rate(1000),
            step_final: rng.rate(500),
            step_panics: rng.rate(100),
            step_slow: rng.rate(200),
            step_hangs: rng.rate(100),
            late: rng.rate(500),
            saves: rng.rate(600),
            good_from: rng.pick(&[2, 3, 5, 1000]),
            undo_fails: rng.rate(600),
            undo_slow: rng.rate(200),
            undo_good_from: rng.pick(&[1, 2, 4, 1000]),
            cancels: rng.pick(&[0, 0, 300, 700]),
            verbs: rng.pick(&[0, 0, 0, 400, 1000]),
            polls: rng.pick(&[0, 1, 3]),
            deadline: rng.pick(&[0, 0, 300]),
            backlog: rng.pick(&[0, 0, 300]),
        }
    }

    /// The same with less.
    pub(super) fn with(mut self, less: &Reduction) -> Self {
        self.crashes = less.crashes.map_or(self.crashes, |most| self.crashes.min(most));
        for trouble in Trouble::ALL.iter().filter(|trouble| less.lacks(**trouble)) {
            match trouble {
                Trouble::ClockJumps => self.jumps = 0,
                Trouble::FullDisk => self.disk_full = false,
                Trouble::SlowCommits => self.slow = 0,
                Trouble::RefusedCommits => self.refuse = 0,
                Trouble::UnknownCommits => (self.unknown_applied, self.unknown_lost) = (0, 0),
                Trouble::Deadlines => self.deadline = 0,
                Trouble::Backlog => self.backlog = 0,
                Trouble::Cancels => self.cancels = 0,
                Trouble::Operators => self.verbs = 0,
                Trouble::Looks => self.polls = 0,
                Trouble::Checkpoints => self.saves = 0,
                Trouble::SlowSteps => (self.step_slow, self.step_hangs, self.late) = (0, 0, 0),
                Trouble::StepPanics => self.step_panics = 0,
                Trouble::StepFailures => self.step_fails = 0,
                Trouble::SlowUndos => self.undo_slow = 0,
                Trouble::UndoFailures => self.undo_fails = 0,
                // Not in this simulation.
                Trouble::OtherNodes
                | Trouble::FailedReads
                | Trouble::FlippedBits
                | Trouble::FailedReopens
                | Trouble::LostAnswers
                | Trouble::UndoPanics => {}
            }
        }
        self
    }
}

/// Names and values that every seed uses: made once for each thread.
#[derive(Debug)]
pub struct Kit {
    pub(super) kind: KindName,
    pub(super) caller: Caller,
    pub(super) prefix: IdPrefix,
    pub(super) steps: Vec<StepName>,
    pub(super) literal: Json,
    pub(super) payload: Payload,
    pub(super) response_type: bytestring::ByteString,
    pub(super) parent: ResourceId,
    keys: Vec<ResourceKey>,
}

impl Kit {
    /// Makes them.
    pub fn new() -> Result<Self, longrun_core::Invalid> {
        let literal = Json::encode("literal", &7)?;
        let names: Result<Vec<_>, _> = (0..STEPS_MAX).map(|step| StepName::new(format!("s{step}"))).collect();
        let kind = ResourceKind::new("t.thing")?;
        let key = |id: &str| ResourceId::new(id).map(|id| ResourceKey { kind: kind.clone(), id });
        Ok(Self {
            kind: KindName::new("t.make")?,
            caller: Caller::new("client")?,
            prefix: IdPrefix::new("sim")?,
            steps: names?,
            payload: Payload::new(TYPE, literal.clone())?,
            literal,
            response_type: TYPE.into(),
            parent: ResourceId::new("p")?,
            keys: vec![key("old")?, key("bad")?, key("new")?, key("other")?],
        })
    }

    /// Rows that are there before anything happens: one READY, one ERROR.
    pub(super) fn rows(&self) -> Rows {
        let statuses = [ResourceStatus::Ready, ResourceStatus::Error];
        let row = |(key, status): (&ResourceKey, ResourceStatus)| {
            let at = Timestamp::UNIX_EPOCH;
            let row = Row {
                key: key.clone(),
                parent: self.parent.clone(),
                name: "was".to_owned(),
                status,
                revision: Revision(3),
                created_at: at,
                modified_at: at,
                operation: None,
                body: self.payload.clone(),
            };
            (key.clone(), row)
        };
        self.keys.iter().zip(statuses).map(row).collect()
    }
}

/// What an operation does to one resource; the row is looked up when it is submitted.
#[derive(Clone, Copy, Debug)]
pub(super) enum Wish {
    Create(usize),
    Update(usize),
    Delete(usize),
}

/// A plan to be, without its claims.
#[derive(Clone, Debug)]
pub(super) struct Draft {
    pub(super) parts: PlanParts,
    pub(super) wishes: Vec<Wish>,
    pub(super) deadline: Option<Duration>,
    pub(super) start: bool,
}

fn step(place: u64) -> StepIndex {
    StepIndex(u16::try_from(place).unwrap_or(0))
}

impl Draft {
    /// A random plan of 1 to 5 steps.
    pub(super) fn of(kit: &Kit, swarm: &Swarm, steps_max: Option<u32>, rng: &mut Rng) -> Self {
        let count = at_most(steps_max, rng.between(1, STEPS_MAX as u64));
        let millis = Duration::from_millis;
        let policy = StepPolicy {
            timeout: millis(4000),
            grace: millis(500),
            runs_max: rng.pick(&[1, 2, 3, 5]),
            backoff: Backoff { first: millis(100), longest: millis(3000) },
            undo_backoff: Backoff { first: millis(100), longest: millis(8000) },
            blocked_after: 2,
        };
        // From a chain to steps that know nothing of each other.
        let density = rng.pick(&[150, 400, 700]);
        let steps = (0..count).map(|place| {
            let mut sources = Vec::new();
            let mut after = Vec::new();
            for on in 0..place {
                if rng.chance(density) {
                    if rng.chance(500) {
                        sources.push(Source::Output(step(on)));
                    } else {
                        after.push(step(on));
                    }
                }
            }
            let input = match sources.len() {
                0 => Input::One(Source::Literal(kit.literal.clone())),
                1 if rng.chance(500) => Input::One(sources.remove(0)),
                _ => Input::Tuple(sources),
            };
            let name = kit.steps[usize::try_from(place).unwrap_or(0)].clone();
            StepSpec { name, version: 1, input, after, policy: Some(policy) }
        });
        let mut steps: Vec<_> = steps.collect();
        let mut no_return = None;
        if rng.chance(200) {
            let place = rng.below(count);
            // As the engine's builder does it: it waits for all that were added before it.
            steps[usize::try_from(place).unwrap_or(0)].after = (0..place).map(step).collect();
            no_return = Some(step(place));
        }
        let output = if rng.chance(800) {
            Source::Output(step(rng.below(count)))
        } else {
            Source::Literal(kit.literal.clone())
        };
        let parts = PlanParts {
            steps,
            output,
            point_of_no_return: no_return,
            parallel: u16::try_from(rng.between(1, 4)).unwrap_or(1),
            claims: Vec::new(),
        };
        let mut wishes = Vec::new();
        for _ in 0..rng.below(3) {
            let wish = match rng.below(4) {
                0 | 1 => Wish::Create(2 + usize::try_from(rng.below(2)).unwrap_or(0)),
                2 => Wish::Update(usize::try_from(rng.below(3)).unwrap_or(0)),
                _ => Wish::Delete(usize::try_from(rng.below(3)).unwrap_or(0)),
            };
            wishes.push(wish);
        }
        let deadline = rng.chance(swarm.deadline).then(|| Duration::from_micros(rng.below(8 * SECOND)));
        Self { parts, wishes, deadline, start: !rng.chance(swarm.backlog) }
    }

    /// The claims, from the rows as they are now. An error when one cannot be had; true when it is because it is held.
    pub(super) fn claims(&self, kit: &Kit, rows: &Rows) -> Result<Vec<Claim>, bool> {
        let mut claims: Vec<Claim> = Vec::new();
        for wish in &self.wishes {
            let (Wish::Create(key) | Wish::Update(key) | Wish::Delete(key)) = *wish;
            let key = kit.keys[key].clone();
            if claims.iter().any(|claim| claim.key == key) {
                continue;
            }
            let row = rows.get(&key);
            if row.is_some_and(|row| row.operation.is_some()) {
                return Err(true);
            }
            let becomes = self.parts.output.clone();
            let before = row.cloned().map(Box::new);
            let intent = match (wish, before) {
                (Wish::Create(_), None) => {
                    let (parent, body) = (kit.parent.clone(), kit.payload.clone());
                    Intent::Create { parent, name: "made".to_owned(), body, becomes }
                }
                (Wish::Update(_), Some(before)) => {
                    let status = ResourceStatus::Ready;
                    Intent::Update { before, name: "changed".to_owned(), status, becomes }
                }
                (Wish::Delete(_), Some(before)) => Intent::Delete { before },
                _ => return Err(false),
            };
            claims.push(Claim { key, intent });
        }
        Ok(claims)
    }
}
