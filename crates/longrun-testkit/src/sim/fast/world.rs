//! The world of one seed: virtual time, an event heap, a disk, drivers, clients, and the oracle over all of it.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use longrun_core::{OperationId, Plan, Timestamp};

use super::disk::Disk;
use super::driver::Driver;
use super::scenario::{Draft, EPOCH, Kit, SECOND, Swarm};
use crate::random::Rng;
use crate::sim::coverage::{Coverage, Fault, Situation};
use crate::sim::invariants::answers::Answers;
use crate::sim::invariants::durable::Story;
use crate::sim::invariants::outside::Outside;
use crate::sim::invariants::{Verdict, Violation, calm};
use crate::sim::plant::Plant;
use crate::sim::shrink::Reduction;
use crate::sim::trace::Trace;

/// Events after which a seed is held to hang.
const EVENTS_MAX: u32 = 20_000;
/// Virtual time that everything has to end in once the faults have stopped and the last wait on record is over.
const CALM_MAX: u64 = 120 * SECOND;

/// How seeds are run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Setting {
    /// A mistake to make on purpose.
    pub plant: Option<Plant>,
    /// Judge by what is left and by what clients were told alone, not by the order in which things are done.
    pub outcome_only: bool,
    /// Keep a line about every event.
    pub show: bool,
    /// Nodes that take the store over from each other in the full simulation, at most. Below 2 there is one.
    pub nodes: u32,
    /// What to leave out.
    pub less: Reduction,
}

/// What came of a seed.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// The rule that was broken, if one was.
    pub violation: Option<Violation>,
    /// The digest of all events.
    pub trace: u64,
    /// What happened, if that was asked for.
    pub log: Vec<String>,
}

/// What may happen.
#[derive(Clone, Copy, Debug)]
pub(super) enum Ev {
    Submit,
    Poll,
    Cancel,
    Verb,
    Jump(i64),
    DiskFull(bool),
    Calm,
    Restart,
    TakeUp,
    Land(u32),
    Ack(u32, Landed),
    Settle(u32, bool),
    Wake(u32),
    RowsLater,
    Effect { step: u8, attempt: u32 },
    Return { step: u8, attempt: u32, how: Return },
    Late { step: u8, attempt: u32 },
    Save { step: u8, attempt: u32 },
    Reverse { step: u8, serial: u32 },
    UndoReturn { step: u8, serial: u32 },
}

/// What became of a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Landed {
    Ok,
    Refused,
    Unknown,
    /// A row was not as expected.
    Conflict,
}

/// How a run returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Return {
    Done,
    NotApplied { again: bool },
    Unknown { again: bool },
}

#[derive(Clone, Copy, Debug)]
struct Item {
    at: u64,
    seq: u32,
    /// The life of the process that it belongs to; 0 when it does not.
    boot: u32,
    op: u8,
    ev: Ev,
}

impl PartialEq for Item {
    fn eq(&self, other: &Self) -> bool {
        self.seq == other.seq
    }
}

impl Eq for Item {}

impl PartialOrd for Item {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Item {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.seq).cmp(&(other.at, other.seq))
    }
}

/// One operation, as everybody but the engine sees it.
#[derive(Debug)]
pub(super) struct Op {
    pub(super) id: Option<OperationId>,
    pub(super) draft: Draft,
    pub(super) plan: Option<Arc<Plan>>,
    pub(super) created_at: Timestamp,
    pub(super) story: Story,
    pub(super) outside: Outside,
    pub(super) answers: Answers,
    pub(super) driver: Option<Box<Driver>>,
    /// The client has given it up: it was refused, or never got through.
    pub(super) given_up: bool,
    /// A submit is under way.
    pub(super) submitting: bool,
    pub(super) submits: u32,
    /// When the client asks again.
    pub(super) asks_at: u64,
    pub(super) crashes: u32,
    /// Steps of which a run ended and left unknown what it has done, by their bits.
    pub(super) unsure: u32,
}

pub(super) struct World<'a> {
    pub(super) kit: &'a Kit,
    pub(super) plant: Option<Plant>,
    pub(super) strict: bool,
    pub(super) rng: Rng,
    pub(super) swarm: Swarm,
    pub(super) less: Reduction,
    pub(super) cov: &'a mut Coverage,
    pub(super) now: u64,
    pub(super) offset: i64,
    /// By how much the clock was set back, in all.
    set_back: u64,
    queue: BinaryHeap<Reverse<Item>>,
    seq: u32,
    pub(super) boot: u32,
    pub(super) up: bool,
    pub(super) calm: bool,
    pub(super) calm_at: u64,
    /// When the last wait on record was over, as far as is known. Kept only from `CALM_MAX` after the faults on.
    waited_at: u64,
    pub(super) crashes_left: u32,
    pub(super) full: bool,
    pub(super) disk: Disk,
    pub(super) ops: Vec<Op>,
    pub(super) clients_left: u32,
    pub(super) tickets: u32,
    pub(super) trace: Trace,
    pub(super) violation: Option<Violation>,
    /// A restart has not been followed by a commit yet.
    pub(super) fresh: bool,
    log: Option<Vec<String>>,
}

/// Runs one seed.
pub fn run(seed: u64, kit: &Kit, setting: Setting, cov: &mut Coverage) -> Outcome {
    let mut world = World::new(seed, kit, setting, cov);
    world.live();
    let World { violation, trace, log, .. } = world;
    Outcome { violation, trace: trace.digest(), log: log.unwrap_or_default() }
}

impl<'a> World<'a> {
    fn new(seed: u64, kit: &'a Kit, setting: Setting, cov: &'a mut Coverage) -> Self {
        let chance = if setting.plant == Some(Plant::L9) { RandomState::new().hash_one(seed) } else { seed };
        let mut rng = Rng::new(chance);
        let less = setting.less;
        let swarm = Swarm::of(&mut rng).with(&less);
        let crashes_left = swarm.crashes;
        let mut world = Self {
            kit,
            plant: setting.plant,
            strict: !setting.outcome_only,
            rng,
            swarm,
            less,
            cov,
            now: 0,
            offset: 0,
            set_back: 0,
            queue: BinaryHeap::with_capacity(32),
            seq: 0,
            boot: 1,
            up: true,
            calm: false,
            calm_at: u64::MAX,
            waited_at: 0,
            crashes_left,
            full: false,
            disk: Disk { records: Vec::new(), rows: kit.rows() },
            ops: Vec::with_capacity(2),
            clients_left: 0,
            tickets: 0,
            trace: Trace::default(),
            violation: None,
            fresh: false,
            log: setting.show.then(Vec::new),
        };
        world.schedule();
        world
    }

    pub(super) fn client(&mut self, at: u64, op: usize, ev: Ev) {
        self.clients_left += 1;
        self.push(at, 0, op, ev);
    }

    pub(super) fn push(&mut self, at: u64, boot: u32, op: usize, ev: Ev) {
        self.seq += 1;
        let op = u8::try_from(op).unwrap_or(0);
        self.queue.push(Reverse(Item { at, seq: self.seq, boot, op, ev }));
    }

    /// Plans something that ends with the process.
    pub(super) fn later(&mut self, delay: u64, op: usize, ev: Ev) {
        self.push(self.now + delay, self.boot, op, ev);
    }

    /// Plans something that a client does later.
    pub(super) fn client_later(&mut self, delay: u64, op: usize, ev: Ev) {
        self.client(self.now + delay, op, ev);
    }

    pub(super) fn ticket(&mut self) -> u32 {
        self.tickets += 1;
        self.tickets
    }

    /// What the wall clock shows.
    pub(super) fn wall(&self) -> Timestamp {
        let micros = EPOCH + i64::try_from(self.now).unwrap_or(i64::MAX / 2) + self.offset;
        Timestamp::from_unix_micros(micros).unwrap_or(Timestamp::MAX)
    }

    pub(super) fn fail(&mut self, violation: Violation) {
        self.violation.get_or_insert(violation);
    }

    pub(super) fn judge(&mut self, verdict: Verdict) {
        if let Err(violation) = verdict {
            self.fail(violation);
        }
    }

    /// True in `permille` of a thousand cases, as long as faults happen.
    pub(super) fn goes_wrong(&mut self, permille: u32) -> bool {
        !self.calm && self.rng.chance(permille)
    }

    fn live(&mut self) {
        let mut events = 0;
        while let Some(Reverse(item)) = self.queue.pop() {
            if self.violation.is_some() || (self.clients_left == 0 && self.settled()) {
                break;
            }
            let of_client = matches!(item.ev, Ev::Submit | Ev::Poll | Ev::Cancel | Ev::Verb);
            self.clients_left -= u32::from(of_client);
            if item.boot != 0 && item.boot != self.boot {
                continue;
            }
            self.now = self.now.max(item.at);
            events += 1;
            self.trace.add(item.at ^ u64::from(item.op) << 56);
            self.trace.add(self.rng.clone().bits());
            let verdict = self.check_time(events);
            self.judge(verdict);
            if self.violation.is_some() {
                break;
            }
            self.step(usize::from(item.op), item.ev);
        }
        self.cov.events += u64::from(events);
        self.cov.seeds += 1;
        if self.violation.is_none() {
            self.judge(calm::check_goes_on(self.settled()));
            self.check_restored();
        }
    }

    /// Everything has to be done after so many events, and after so long since the last wait on record was over.
    fn check_time(&mut self, events: u32) -> Verdict {
        calm::check_count(events, EVENTS_MAX, "events")?;
        let left = || "an operation is not done".to_owned();
        let since = self.now.saturating_sub(self.calm_at);
        calm::check_time(
            Duration::from_micros(since),
            Duration::from_micros(CALM_MAX + self.set_back),
            left,
        )?;
        if since <= CALM_MAX {
            return Ok(());
        }
        // A clock that was set back makes waits long.
        let wall = self.wall();
        let stories = self.ops.iter().map(|op| &op.story).filter(|story| story.end.is_none());
        let waits = stories.flat_map(|story| &story.lines).filter_map(|line| line.not_before);
        if let Some(until) = waits.max() {
            let over_for = u64::try_from(wall.since(until).as_micros()).unwrap_or(u64::MAX);
            self.waited_at = self.waited_at.max(self.now.saturating_sub(over_for));
        }
        let since = self.now.saturating_sub(self.waited_at);
        calm::check_time(Duration::from_micros(since), Duration::from_micros(CALM_MAX), left)
    }

    fn step(&mut self, op: usize, ev: Ev) {
        let wall = self.wall();
        if let Some(log) = &mut self.log {
            let (revision, next) = match &self.ops[op].driver {
                Some(driver) => (driver.execution.revision().0, format!("{:?}", driver.execution.next(wall))),
                None => (0, String::new()),
            };
            log.push(format!("{:>12} operation {op} {ev:?} {} r{revision} {next}", self.now, wall));
        }
        match ev {
            Ev::Submit => self.on_submit(op),
            Ev::Poll => self.on_poll(op),
            Ev::Cancel => self.on_cancel(op),
            Ev::Verb => self.on_verb(op),
            Ev::Jump(by) => self.on_jump(by),
            Ev::DiskFull(full) => self.full = full && !self.calm,
            Ev::Calm => self.on_calm(),
            Ev::Restart => self.on_restart(),
            Ev::TakeUp => self.on_take_up(op),
            Ev::Land(ticket) => self.on_land(op, ticket),
            Ev::Ack(ticket, landed) => self.on_ack(op, ticket, landed),
            Ev::Settle(ticket, unknown) => self.on_settle(op, ticket, unknown),
            Ev::Wake(ticket) => self.on_wake(op, ticket),
            Ev::RowsLater => self.on_rows_later(op),
            Ev::Effect { step, attempt } => self.on_effect(op, step.into(), attempt),
            Ev::Return { step, attempt, how } => self.on_return(op, step.into(), attempt, how),
            Ev::Late { step, attempt } => self.on_late(op, step.into(), attempt),
            Ev::Save { step, attempt } => self.on_save(op, step.into(), attempt),
            Ev::Reverse { step, serial } => self.on_reverse(op, step.into(), serial),
            Ev::UndoReturn { step, serial } => self.on_undo_return(op, step.into(), serial),
        }
    }

    /// Every operation is done, or was never taken.
    fn settled(&self) -> bool {
        self.ops.iter().enumerate().all(|(op, one)| match &self.disk.records[op] {
            Some(record) => record.is_done() && one.driver.is_none(),
            None => one.given_up,
        })
    }

    fn on_jump(&mut self, by: i64) {
        if self.calm {
            return;
        }
        self.offset += by;
        self.set_back += by.min(0).unsigned_abs();
        self.cov.fault(if by > 0 { Fault::ClockForward } else { Fault::ClockBack });
        let waits = |op: &Op| op.story.is_waiting();
        if by < 0 && self.ops.iter().any(waits) {
            self.cov.met(Situation::ClockBackWhileWaiting);
        }
    }

    fn on_calm(&mut self) {
        self.calm = true;
        self.full = false;
        self.calm_at = self.now;
    }
}
