//! The real state machine, as a part of a state that can be compared: two are the same when they look the same.

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use longrun_core::{
    Acceptance, Caller, Command, Entry, Event, Execution, Finished, Header, IdPrefix, Input, Json, KindName,
    Operation, OperationId, Payload, Plan, PlanParts, Revision, Source, StepIndex, StepName, StepSpec,
    Timestamp, Turn,
};

/// Steps of the plan, one after the other.
pub const STEPS: usize = 2;

pub fn born() -> Timestamp {
    Timestamp::from_unix_millis(1_000_000).unwrap()
}

pub fn json(text: &str) -> Json {
    Json::encode("model", text).unwrap()
}

pub fn caller() -> Caller {
    Caller::new("alice").unwrap()
}

fn header() -> Header {
    let payload = |text| Payload::new("type.test/Thing", json(text)).unwrap();
    Header {
        id: OperationId::generate(IdPrefix::new("mdl").unwrap(), born(), 7),
        kind: KindName::new("model.make").unwrap(),
        kind_version: 1,
        description: String::new(),
        created_at: born(),
        created_by: caller(),
        request: payload("request"),
        metadata: payload("metadata"),
        response_type: "type.test/Thing".into(),
        resources: Vec::new(),
        deadline: None,
        idempotency: None,
    }
}

fn plan(no_return: Option<usize>) -> Plan {
    let index = |place: usize| StepIndex(u16::try_from(place).unwrap());
    let step = |place: usize| StepSpec {
        name: StepName::new(format!("step-{place}")).unwrap(),
        version: 1,
        input: Input::One(match place.checked_sub(1) {
            None => Source::Literal(json("given")),
            Some(before) => Source::Output(index(before)),
        }),
        after: Vec::new(),
        policy: None,
    };
    Plan::new(PlanParts {
        steps: (0..STEPS).map(step).collect(),
        output: Source::Output(index(STEPS - 1)),
        point_of_no_return: no_return.map(index),
        parallel: 1,
        claims: Vec::new(),
    })
    .unwrap()
}

/// An operation and what tells it from others: what its `Debug` form shows, in 128 bits.
#[derive(Clone)]
pub struct Real {
    execution: Arc<Execution>,
    picture: u128,
}

impl Real {
    pub fn accept(no_return: Option<usize>) -> (Self, Turn) {
        let acceptance = Acceptance { header: header(), plan: plan(no_return), start: true };
        let (execution, turn) = Execution::accept(acceptance).unwrap();
        (Self::new(execution), turn)
    }

    fn new(execution: Execution) -> Self {
        // FNV-1a: among some hundred thousand pictures no two have the same.
        let picture = format!("{execution:?}")
            .bytes()
            .fold(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d_u128, |hash, byte| {
                (hash ^ u128::from(byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b)
            });
        Self { execution: Arc::new(execution), picture }
    }

    pub fn execution(&self) -> &Execution {
        &self.execution
    }

    pub fn operation(&self) -> Operation {
        self.execution.operation()
    }

    /// Decides commands, one after the other, and ends the turn. `None` when nothing follows from them.
    pub fn turn(&self, commands: &[Command], at_rest: bool, now: Timestamp) -> Option<(Self, Turn)> {
        let (mut execution, mut events) = (Execution::clone(&self.execution), Vec::<Event>::new());
        for command in commands {
            // A refusal is an answer too: what was asked for comes too late, and the operation shows it.
            _ = if at_rest {
                execution.handle_at_rest(command, now, &mut events)
            } else {
                execution.handle(command, now, &mut events)
            };
        }
        if events.is_empty() {
            return None;
        }
        let turn = execution.seal(events, now).unwrap();
        Some((Self::new(execution), turn))
    }
}

impl PartialEq for Real {
    fn eq(&self, other: &Self) -> bool {
        self.picture == other.picture
    }
}

impl Eq for Real {}

impl Hash for Real {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.picture.hash(hasher);
    }
}

impl fmt::Debug for Real {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} at revision {}", self.execution.phase(), self.execution.revision())
    }
}

/// What is stored: the journal, and what comes of it when it is read.
#[derive(Clone, Debug)]
pub struct Disk {
    head: (Arc<Header>, Arc<Plan>),
    journal: BTreeMap<Revision, Entry>,
    finished: Option<Arc<Finished>>,
    read: Real,
}

impl PartialEq for Disk {
    fn eq(&self, other: &Self) -> bool {
        self.read == other.read
    }
}

impl Eq for Disk {}

impl Hash for Disk {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.read.hash(hasher);
    }
}

impl Disk {
    /// What is there once a turn is stored, read back by the real rules: from what the turn stores, not from what lives. `None` when
    /// that makes no sense.
    pub fn after(before: Option<&Self>, live: &Real, turn: &Turn) -> Option<Self> {
        let head = match before {
            Some(disk) => disk.head.clone(),
            None => (Arc::clone(live.execution.header()), Arc::clone(live.execution.plan()?)),
        };
        let mut journal = before.map(|disk| disk.journal.clone()).unwrap_or_default();
        journal.insert(turn.entry.first, turn.entry.clone());
        let finished = live.execution.finished().cloned();
        let (header, plan) = (Arc::clone(&head.0), Arc::clone(&head.1));
        let read = match &finished {
            Some(finished) => {
                let (revision, at) = (turn.entry.revision, turn.entry.at);
                Execution::restore_finished(header, revision, at, Arc::clone(finished))
            }
            None => Execution::restore(header, plan, journal.values().cloned()).ok()?,
        };
        Some(Self { head, journal, finished, read: Real::new(read) })
    }

    pub const fn read(&self) -> &Real {
        &self.read
    }

    pub fn revision(&self) -> Revision {
        self.read.execution.revision()
    }

    pub fn is_done(&self) -> bool {
        self.finished.is_some()
    }
}
