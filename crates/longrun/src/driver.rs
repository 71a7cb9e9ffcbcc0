//! The driver: the one place where decisions meet the world.
//!
//! One task for each operation that runs. It gathers what happened (outcomes, checkpoints, cancels, the clock), lets the
//! execution decide, makes the whole turn durable in one commit, and only then does what follows from it:
//!
//! ```text
//! happened -> Execution::handle -> seal -> Store::commit -> publish -> Execution::next -> run, undo
//!     ^                                                                                      |
//!     +--------------------------------------------------------------------------------------+
//! ```
//!
//! While a commit is under way the steps go on. If it fails, the execution is thrown away and loaded again, and what
//! happened is decided anew: nothing that the store does can lose an outcome or invent one (C22).

use std::collections::{BTreeMap, VecDeque};
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use longrun_core::limits::ENTRY_BYTES_TARGET;
use longrun_core::{
    Applied, Attempt, Backoff, Code, Command, Event, Execution, Fence, Inconsistent, Json, Operation,
    OperationId, Progress, Refusal, Revision, Status, StepIndex, StepReport, Timestamp,
};
use longrun_store::{Cause, Commit, CommitError, Conflict};
use tokio::sync::{mpsc, oneshot, watch};

use crate::context::Stop;
use crate::engine::{Inner, LoadError};
use crate::error::CommandError;
use crate::node::Again;
use crate::perform::{self, Ended};
use crate::references::Errand;
use crate::registry::HoldReason;
use crate::running::Entry;

/// What others tell a driver.
#[derive(Debug)]
pub(crate) enum Message {
    /// A step saves how far it is. The answer is whether that was still of interest.
    Checkpoint {
        step: StepIndex,
        attempt: Attempt,
        checkpoint: Json,
        progress: Option<Progress>,
        reply: oneshot::Sender<bool>,
    },
    /// A step has something done. Refused when the run, or undo, of that number is not on any more.
    Errand { step: StepIndex, attempt: u32, errand: Errand },
    /// A caller or an operator wants something.
    Command { command: Command, reply: oneshot::Sender<Result<Operation, CommandError>> },
}

/// Waits between attempts to reach a store that is away.
pub(crate) const STORE_BACKOFF: Backoff =
    Backoff { first: Duration::from_millis(50), longest: Duration::from_secs(5) };

/// Something that happened, and whom to tell when it is durable.
struct Happened {
    command: Command,
    reply: Reply,
    verdict: Result<(), Refusal>,
}

enum Reply {
    Nobody,
    /// Those who save: all who saved in the same run while the store was away.
    Checkpoint(Vec<oneshot::Sender<bool>>),
    Command(oneshot::Sender<Result<Operation, CommandError>>),
}

/// Why a driver leaves its operation before it is done.
enum Leave {
    /// It only waits for this time; the scheduler comes back to it.
    Parked(Timestamp),
    /// The engine stops.
    Stopping,
    /// This build, or this engine, cannot go on with it.
    Hold(HoldReason),
    /// It belongs to another node.
    Lost,
    /// The operation is gone.
    Gone,
}

pub(crate) struct Driver {
    inner: Arc<Inner>,
    entry: Arc<Entry>,
    execution: Execution,
    inbox: mpsc::Receiver<Message>,
    performing: FuturesUnordered<BoxFuture<'static, Ended>>,
    runs: BTreeMap<StepIndex, (Attempt, watch::Sender<Option<Stop>>)>,
    undos: BTreeMap<StepIndex, (u32, watch::Sender<Option<Stop>>)>,
    /// Ends that came while a commit was under way.
    ended: VecDeque<Ended>,
    /// Checkpoints that came while the store was away: of each run, the newest.
    delayed: VecDeque<Happened>,
    /// What steps have asked for since the last turn.
    errands: VecDeque<(StepIndex, u32, Errand)>,
}

impl Driver {
    pub(crate) fn new(
        inner: Arc<Inner>,
        entry: Arc<Entry>,
        execution: Execution,
        inbox: mpsc::Receiver<Message>,
    ) -> Self {
        entry.publish(execution.operation());
        Self {
            inner,
            entry,
            execution,
            inbox,
            performing: FuturesUnordered::new(),
            runs: BTreeMap::new(),
            undos: BTreeMap::new(),
            ended: VecDeque::new(),
            delayed: VecDeque::new(),
            errands: VecDeque::new(),
        }
    }

    /// Works until the operation is done or has to wait. With `adopt`, what became of its runs is not known. Gives the time
    /// at which the scheduler is to come back to it.
    pub(crate) async fn drive(mut self, adopt: bool) -> Option<Timestamp> {
        let id = self.execution.id();
        match self.work(adopt).await {
            Ok(()) => tracing::debug!("done"),
            Err(Leave::Parked(at)) => return Some(at),
            Err(Leave::Stopping | Leave::Gone) => {}
            Err(Leave::Lost) => {
                tracing::warn!("the operation belongs to another node now, leaving it");
                metrics::counter!("longrun_operations_lost_total").increment(1);
            }
            Err(Leave::Hold(reason)) => self.inner.hold(id, reason),
        }
        None
    }

    async fn work(&mut self, adopt: bool) -> Result<(), Leave> {
        if adopt {
            let committed = self.turn(vec![Happened::quiet(Command::Adopt)]).await?;
            if !committed {
                // An undo that waits is begun without a commit when its time comes.
                self.check_owner(0).await?;
            }
        }
        loop {
            if self.entry.take_changed() {
                self.look_again().await?;
            }
            if self.execution.is_done() {
                return Ok(());
            }
            while let Some((step, attempt, errand)) = self.errands.pop_front() {
                self.run_errand(step, attempt, errand).await;
            }
            // One look at the clock for both: what becomes due between two looks would be seen by neither.
            let now = self.inner.now();
            let stopping = self.inner.is_shutting_down();
            if stopping {
                self.stop_all(Stop::ShuttingDown);
                if self.performing.is_empty() && self.ended.is_empty() && self.delayed.is_empty() {
                    // All of it has ended, as it was told: the next start must not take it for a crash.
                    self.turn(vec![Happened::quiet(Command::Leave)]).await?;
                    return Err(Leave::Stopping);
                }
            } else {
                self.begin(now);
            }
            let happened = self.gather(now, stopping).await?;
            self.turn(happened).await?;
        }
    }

    /// Begins what is on record as started and does not run yet.
    fn begin(&mut self, now: Timestamp) {
        let next = self.execution.next(now);
        if next.stop {
            for (_, stop) in self.runs.values() {
                perform::tell_to_stop(stop, Stop::RollingBack);
            }
        }
        for step in next.run {
            let attempt = self.execution.attempt(step);
            if self.runs.get(&step).is_some_and(|(running, _)| *running == attempt) {
                continue;
            }
            if next.stop {
                // Its start and the decision to roll back went into one commit: it has not begun, and must not (C11).
                let error = Status::new(Code::Aborted, "the operation rolled back before the step began");
                let report = StepReport::Failed { error, applied: Applied::No, retryable: false };
                self.ended.push_back(Ended::Run { step, attempt, report });
                continue;
            }
            let (future, stop) = perform::run(&self.inner, &self.entry, &self.execution, step);
            self.runs.insert(step, (attempt, stop));
            self.performing.push(future);
        }
        // An operator took over a step whose undo is on: it has to end before another begins (C10).
        let mut taken_over = false;
        for (step, (_, stop)) in &self.undos {
            if !self.execution.owes_undo(*step) {
                perform::tell_to_stop(stop, Stop::RollingBack);
                taken_over = true;
            }
        }
        let room = self.execution.plan().map_or(0, |plan| usize::from(plan.parallel()));
        for step in next.undo {
            let failures = self.execution.undo_failures(step);
            if !taken_over && self.undos.len() < room && !self.undos.contains_key(&step) {
                let (future, stop) = perform::undo(&self.inner, &self.entry, &self.execution, step);
                self.undos.insert(step, (failures, stop));
                self.performing.push(future);
            }
        }
    }

    fn stop_all(&self, reason: Stop) {
        let undos = self.undos.values().map(|(_, stop)| stop);
        for stop in self.runs.values().map(|(_, stop)| stop).chain(undos) {
            perform::tell_to_stop(stop, reason);
        }
    }

    /// Waits until something happens, and takes everything that has happened by then.
    async fn gather(&mut self, now: Timestamp, stopping: bool) -> Result<Vec<Happened>, Leave> {
        let mut happened = Vec::new();
        if self.delayed.is_empty() && self.ended.is_empty() {
            let next = self.execution.next(now);
            if self.performing.is_empty() && next.run.is_empty() && next.undo.is_empty() {
                return self.park(next.wake_at);
            }
            // What a wait ends for would not be started any more.
            let wake_at = next.wake_at.filter(|_| !self.inner.is_shutting_down());
            let wait = wake_at.map(|at| at.since(now));
            tokio::select! {
                biased;
                Some(ended) = self.performing.next(), if !self.performing.is_empty() => {
                    happened.push(self.happened(ended));
                }
                Some(message) = self.inbox.recv() => happened.extend(self.received(message)),
                () = self.entry.look_again.notified() => return Ok(happened),
                () = sleep(wait) => happened.push(Happened::quiet(Command::Resume)),
                () = self.inner.shutting_down.wait(), if !stopping => return Ok(happened),
            }
        }
        // Whatever else is there already goes into the same commit, as far as it fits.
        let mut bytes: usize = happened.iter().map(Happened::byte_len).sum();
        while bytes < ENTRY_BYTES_TARGET {
            let Some(more) = self.already() else { break };
            bytes += more.byte_len();
            happened.push(more);
        }
        Ok(happened)
    }

    /// Something that has happened already, if anything has.
    fn already(&mut self) -> Option<Happened> {
        if let Some(checkpoint) = self.delayed.pop_front() {
            return Some(checkpoint);
        }
        match self.ended.pop_front().or_else(|| self.performing.next().now_or_never().flatten()) {
            Some(ended) => Some(self.happened(ended)),
            None => loop {
                let message = self.inbox.try_recv().ok()?;
                if let Some(happened) = self.received(message) {
                    return Some(happened);
                }
            },
        }
    }

    /// What a message says has happened; what it has to have done waits for the end of the turn.
    fn received(&mut self, message: Message) -> Option<Happened> {
        match message {
            Message::Checkpoint { step, attempt, checkpoint, progress, reply } => Some(Happened {
                command: Command::Checkpoint { step, attempt, checkpoint, progress },
                reply: Reply::Checkpoint(vec![reply]),
                verdict: Ok(()),
            }),
            Message::Command { command, reply } => {
                Some(Happened { command, reply: Reply::Command(reply), verdict: Ok(()) })
            }
            Message::Errand { step, attempt, errand } => {
                self.errands.push_back((step, attempt, errand));
                None
            }
        }
    }

    /// Does what a step asked for. Its end is not looked at before, so nothing that it asked for comes after its undo.
    async fn run_errand(&mut self, step: StepIndex, attempt: u32, Errand(errand): Errand) {
        let runs = self.runs.get(&step).is_some_and(|(running, _)| running.0 == attempt);
        let undoes = self.undos.get(&step).is_some_and(|(failures, _)| {
            perform::undo_attempt(self.execution.attempt(step), *failures) == attempt
        });
        let done = errand((runs || undoes).then(|| Arc::clone(&self.inner)));
        self.beside(done).await;
    }

    /// Nothing is on and nothing can begin. Leaves the operation to the scheduler, unless somebody has just written.
    fn park(&mut self, wake_at: Option<Timestamp>) -> Result<Vec<Happened>, Leave> {
        if let Ok(message) = self.inbox.try_recv() {
            return Ok(self.received(message).into_iter().collect());
        }
        if self.entry.is_changed() {
            return Ok(Vec::new());
        }
        let nothing = || Leave::Hold(HoldReason::Engine("nothing is left to do".into()));
        Err(wake_at.map_or_else(nothing, Leave::Parked))
    }

    fn happened(&mut self, ended: Ended) -> Happened {
        Happened::quiet(match ended {
            Ended::Run { step, attempt, report } => {
                if self.runs.get(&step).is_some_and(|(running, _)| *running == attempt) {
                    self.runs.remove(&step);
                }
                match report {
                    // It was told to stop because the engine does. It stays on record as started, is run again after
                    // the next start, and that it stopped counts as no failure of its own.
                    StepReport::Failed { .. } if self.inner.is_shutting_down() => Command::Resume,
                    report => Command::Report { step, attempt, report },
                }
            }
            Ended::Undo { step, failures, result } => {
                self.undos.remove(&step);
                match result {
                    Err(_) if self.inner.is_shutting_down() => Command::Resume,
                    result => Command::UndoReport { step, failures, result },
                }
            }
        })
    }

    /// Decides what happened and makes it durable. Returns when it is; an outage of the store is waited out. True when something
    /// of it was committed; false when there was nothing to decide, or nothing any more after a commit that failed.
    async fn turn(&mut self, mut happened: Vec<Happened>) -> Result<bool, Leave> {
        let mut failures = 0;
        let mut is_ours = false;
        while !is_ours {
            let now = self.inner.now();
            let mut events = Vec::new();
            // A step that is started now would not be run before the next start.
            let stopping = self.inner.is_shutting_down();
            for one in &mut happened {
                one.verdict = if stopping {
                    self.execution.handle_at_rest(&one.command, now, &mut events)
                } else {
                    self.execution.handle(&one.command, now, &mut events)
                };
            }
            if events.is_empty() {
                break;
            }
            let expected = self.execution.revision().next();
            is_ours = match self.commit(events, now).await? {
                Ok(()) => true,
                Err(error) => {
                    failures += 1;
                    self.settle(error, expected, failures, &mut happened).await?
                }
            };
        }
        self.entry.publish(self.execution.operation());
        self.entry.keep_progress(|step| self.runs.contains_key(&step));
        if self.execution.is_done() {
            if is_ours {
                self.inner.ended(&self.execution);
            } else {
                self.inner.ended_elsewhere(&self.execution);
            }
        }
        for one in happened {
            one.answer(&self.execution);
        }
        Ok(is_ours)
    }

    /// Seals the turn and commits it. Steps go on meanwhile.
    async fn commit(&mut self, events: Vec<Event>, now: Timestamp) -> Result<Result<(), CommitError>, Leave> {
        trace(&events);
        let turn = self.execution.seal(events, now).map_err(held)?;
        let commit = Commit::new(&self.execution, turn, self.fence());
        let store = Arc::clone(&self.inner.store);
        // A list may show the turn as soon as it is durable, so what was before must not be shown any more (S11).
        self.entry.unpublish();
        Ok(self.beside(store.commit(commit)).await)
    }

    /// After a commit that failed: finds out where the operation stands. True when the turn is durable after all; false
    /// when it has to be decided again.
    async fn settle(
        &mut self,
        error: CommitError,
        expected: Revision,
        failures: u32,
        happened: &mut [Happened],
    ) -> Result<bool, Leave> {
        let away = Away::of(&error);
        match &error {
            CommitError::Fenced { .. } => return Err(self.fenced_off()),
            CommitError::TooLarge { .. } | CommitError::Unreadable(_) => return Err(unreadable(&error)),
            CommitError::Conflict(_) => {}
            _ => {
                tracing::warn!(error = away.cause, failures, "the store did not take a turn, trying again");
                refuse_callers(happened, &error, &away);
                self.pause(failures, &away).await?;
            }
        }
        let stored = self.load(failures, &away).await?;
        if stored.revision().next() != expected {
            // Somebody wrote it, and if that was the next owner, what it has started is not for this one to run.
            self.check_owner(failures).await?;
        }
        let is_another_revision = matches!(error, CommitError::Conflict(Conflict::Operation { .. }));
        let is_conflict = matches!(error, CommitError::Conflict(_));
        if is_conflict
            && stored.revision() < expected
            && !(is_another_revision && self.inner.cluster().is_some())
        {
            // It is as this turn found it, and yet the turn does not fit: deciding again would end the same way.
            return Err(Leave::Hold(HoldReason::Unreadable(away.cause)));
        }
        // An unknown commit happened if what is stored is what it was to leave. If not, all is decided again: what is in it already
        // is refused then (C9).
        let happened_after_all = matches!(error, CommitError::Unknown(_)) && stored == self.execution;
        self.go_on_with(stored);
        Ok(happened_after_all)
    }

    /// Whether this engine still owns the operation: then nobody else has begun what was read before. An outage of the store is waited
    /// out.
    async fn check_owner(&mut self, mut tries: u32) -> Result<(), Leave> {
        loop {
            let store = Arc::clone(&self.inner.store);
            let (id, fence) = (self.execution.id(), self.fence());
            match self.beside(store.check_owner(id, fence)).await {
                Ok(()) => return Ok(()),
                Err(CommitError::Fenced { .. }) => return Err(self.fenced_off()),
                Err(error @ CommitError::Unreadable(_)) => return Err(unreadable(&error)),
                Err(error) => {
                    let away = Away::of(&error);
                    tracing::warn!(error = away.cause, "the store does not say who owns what, trying again");
                    tries += 1;
                    self.pause(tries, &away).await?;
                }
            }
        }
    }

    /// Waits for the store. Steps go on meanwhile.
    async fn beside<T>(&mut self, asked: impl Future<Output = T>) -> T {
        let mut asked = std::pin::pin!(asked);
        loop {
            tokio::select! {
                biased;
                answer = &mut asked => return answer,
                Some(ended) = self.performing.next(), if !self.performing.is_empty() => self.ended.push_back(ended),
            }
        }
    }

    /// What this engine commits the operation with.
    fn fence(&self) -> Fence {
        self.entry.fence.unwrap_or(self.inner.fence)
    }

    /// Another engine owns the operation now, or the whole store.
    fn fenced_off(&self) -> Leave {
        if self.inner.cluster().is_some() {
            return Leave::Lost;
        }
        self.inner.lose();
        Leave::Stopping
    }

    /// The operation as it is stored; an outage of the store is waited out.
    async fn load(&mut self, mut tries: u32, away: &Away) -> Result<Execution, Leave> {
        loop {
            let (inner, id) = (Arc::clone(&self.inner), self.execution.id());
            match self.beside(inner.load_to_run(id)).await {
                Ok(Some(stored)) => return Ok(stored),
                Ok(None) => return Err(Leave::Gone),
                Err(LoadError::Hold(reason)) => return Err(Leave::Hold(reason)),
                Err(LoadError::Unavailable(error)) => {
                    tracing::warn!(
                        error = longrun_core::with_causes(&error),
                        "the store cannot be read, trying again"
                    );
                    tries += 1;
                    self.pause(tries, away).await?;
                }
            }
        }
    }

    fn go_on_with(&mut self, stored: Execution) {
        self.execution = stored;
        self.entry.publish(self.execution.operation());
    }

    /// Somebody else has written to the operation: what runs here goes on, as far as that lets it.
    async fn look_again(&mut self) -> Result<(), Leave> {
        let away = Away::of(&CommitError::Unavailable("the store cannot be read".into()));
        let stored = self.load(0, &away).await?;
        if stored.revision() > self.execution.revision() {
            self.check_owner(0).await?;
            tracing::debug!(revision = %stored.revision(), "changed by another node");
            self.go_on_with(stored);
            if self.execution.is_done() {
                self.inner.ended_elsewhere(&self.execution);
            }
        }
        Ok(())
    }

    /// Waits before the store is asked again. Steps go on meanwhile.
    async fn pause(&mut self, failures: u32, away: &Away) -> Result<(), Leave> {
        let wait = STORE_BACKOFF.delay(failures, self.inner.environment.random());
        let until = tokio::time::Instant::now() + wait;
        loop {
            tokio::select! {
                biased;
                Some(ended) = self.performing.next(), if !self.performing.is_empty() => self.ended.push_back(ended),
                // Nobody is kept waiting for a store that is away, but a step that wants to save has time.
                Some(message) = self.inbox.recv() => match message {
                    Message::Command { reply, .. } => {
                        _ = reply.send(Err(CommandError::Store(CommitError::Unavailable(away.cause()))));
                    }
                    other => {
                        if let Some(checkpoint) = self.received(other) {
                            delay(&mut self.delayed, checkpoint);
                        }
                    }
                },
                // What was not stored is unknown to the next start, as after a crash.
                () = self.inner.shutting_down.wait() => return Err(Leave::Stopping),
                () = tokio::time::sleep_until(until) => return Ok(()),
            }
        }
    }
}

/// Why the store is away, for all who ask meanwhile.
struct Away {
    cause: String,
    kind: ErrorKind,
}

impl Away {
    fn of(error: &CommitError) -> Self {
        let kind = if error.is_full() { ErrorKind::StorageFull } else { ErrorKind::Other };
        Self { cause: longrun_core::with_causes(error), kind }
    }

    fn cause(&self) -> Cause {
        std::io::Error::new(self.kind, self.cause.clone()).into()
    }
}

/// Keeps a checkpoint for when the store is back. It takes the place of an earlier one of the same run, as it would on
/// disk: once it is durable, what came before it is saved too. Those who gave up waiting are forgotten.
fn delay(delayed: &mut VecDeque<Happened>, mut newer: Happened) {
    let run_of = |one: &Happened| match one.command {
        Command::Checkpoint { step, attempt, .. } => Some((step, attempt)),
        _ => None,
    };
    let run = run_of(&newer);
    if let Some(place) = delayed.iter().position(|one| run.is_some() && run_of(one) == run)
        && let Some(Happened { command: Command::Checkpoint { progress: told, .. }, reply, .. }) =
            delayed.remove(place)
    {
        if let Command::Checkpoint { progress, .. } = &mut newer.command {
            *progress = progress.or(told);
        }
        if let (Reply::Checkpoint(replies), Reply::Checkpoint(earlier)) = (&mut newer.reply, reply) {
            replies.extend(earlier.into_iter().filter(|reply| !reply.is_closed()));
        }
    }
    delayed.push_back(newer);
}

/// Callers do not wait for a store that is away: they are told, and may ask again. What they asked is dropped. If the
/// commit happened after all, it is in it; that is why they are told when its outcome is unknown.
fn refuse_callers(happened: &mut [Happened], error: &CommitError, away: &Away) {
    for one in happened {
        if let Reply::Command(_) = one.reply {
            one.command = Command::Resume;
        }
        if let Some(reply) = one.reply.take_caller() {
            let error = match error {
                CommitError::Unknown(_) => CommitError::Unknown(away.cause()),
                _ => CommitError::Unavailable(away.cause()),
            };
            _ = reply.send(Err(CommandError::Store(error)));
        }
    }
}

impl Reply {
    /// The caller who waits for an answer; nobody does afterwards.
    fn take_caller(&mut self) -> Option<oneshot::Sender<Result<Operation, CommandError>>> {
        match std::mem::replace(self, Self::Nobody) {
            Self::Command(reply) => Some(reply),
            other => {
                *self = other;
                None
            }
        }
    }
}

impl Happened {
    const fn quiet(command: Command) -> Self {
        Self { command, reply: Reply::Nobody, verdict: Ok(()) }
    }

    fn byte_len(&self) -> usize {
        match &self.command {
            Command::Report { report: StepReport::Done(output), .. } => output.bytes().len(),
            Command::Checkpoint { checkpoint, .. } => checkpoint.bytes().len(),
            Command::Report { report: StepReport::Failed { error, .. }, .. } => 2 * error.byte_len(),
            Command::UndoReport { result: Err(error), .. } => error.byte_len(),
            _ => 256,
        }
    }

    /// Tells whoever asked, now that it is durable.
    fn answer(self, execution: &Execution) {
        match (self.reply, self.verdict) {
            (Reply::Nobody, Ok(())) => {}
            (Reply::Nobody, Err(refusal)) => tracing::debug!(%refusal, "a late report is ignored"),
            (Reply::Checkpoint(replies), verdict) => {
                for reply in replies {
                    _ = reply.send(verdict.is_ok());
                }
            }
            (Reply::Command(reply), verdict) => {
                let answer = verdict.map(|()| execution.operation()).map_err(CommandError::Refused);
                _ = reply.send(answer);
            }
        }
    }
}

/// What is stored, or was to be, is beyond what trying again could mend.
fn unreadable(error: &CommitError) -> Leave {
    Leave::Hold(HoldReason::Unreadable(longrun_core::with_causes(error)))
}

fn held(error: Inconsistent) -> Leave {
    Leave::Hold(HoldReason::Engine(error.to_string()))
}

async fn sleep(wait: Option<Duration>) {
    match wait {
        // A wall clock may be set forward meanwhile: look at it again every minute.
        Some(wait) => tokio::time::sleep(wait.min(Duration::from_secs(60))).await,
        None => std::future::pending().await,
    }
}

/// What went wrong, where clients are not told: a failure of the service itself.
fn own_failure(error: &Status) -> Option<&str> {
    let is_own = matches!(error.code(), Code::Internal | Code::Unknown | Code::Unavailable | Code::DataLoss);
    is_own.then(|| error.message())
}

fn trace(events: &[Event]) {
    for event in events {
        match event {
            Event::RollbackDecided { cause, .. } => {
                let message = own_failure(cause);
                tracing::info!(cause = %cause.code(), message, "rolling back");
            }
            Event::UndoFailed { step, error, again_at, .. } => {
                metrics::counter!("longrun_undo_failures_total").increment(1);
                let message = own_failure(error);
                tracing::warn!(%step, error = %error.code(), message, %again_at, "an undo failed and will be tried again");
            }
            Event::StepFailedForNow { step, error, again_at, .. } => {
                let message = own_failure(error);
                tracing::debug!(%step, error = %error.code(), message, %again_at, "a step failed and will be run again");
            }
            _ => {}
        }
    }
}

/// Gives back what a driver holds, however it ends: by itself, by a panic, or dropped in mid-flight.
pub(crate) struct Lease {
    inner: Arc<Inner>,
    is_over: bool,
    /// The operation, once it is entered among those that run, and with what it is committed.
    pub(crate) entered: Option<(OperationId, Fence)>,
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.give_back(None);
    }
}

impl Lease {
    /// A slot was taken for it.
    pub(crate) const fn new(inner: Arc<Inner>, entered: Option<(OperationId, Fence)>) -> Self {
        Self { inner, is_over: false, entered }
    }

    /// Gives back what is held, and then has the scheduler come back at `due`. Not before: a look in between would pass
    /// over an operation that still runs, and forget it.
    pub(crate) fn end(mut self, due: Option<Timestamp>) {
        self.give_back(due);
        if let Some(due) = due.filter(|_| self.inner.cluster().is_none()) {
            self.inner.slots.note_due(due);
        }
    }

    fn give_back(&mut self, due: Option<Timestamp>) {
        if std::mem::replace(&mut self.is_over, true) {
            return;
        }
        if let Some((id, fence)) = self.entered {
            // One that is done belongs to nobody.
            let is_left = self.inner.cluster().is_some() && !self.inner.running.is_done(id);
            self.inner.running.leave(id);
            if is_left {
                self.inner.give_back(id, fence, due.map_or(Again::Now, Again::At));
            }
        }
        self.inner.slots.give_back();
    }
}

/// Runs a driver to its end, keeping its panics from everybody else (S28).
pub(crate) async fn guard(
    inner: &Arc<Inner>,
    id: OperationId,
    work: impl Future<Output = Option<Timestamp>>,
) -> Option<Timestamp> {
    let result = std::panic::AssertUnwindSafe(work).catch_unwind().await;
    result.unwrap_or_else(|_| {
        inner.hold(id, HoldReason::Engine("its driver panicked".to_owned()));
        None
    })
}

/// For the scheduler: takes up an operation that is in the store.
pub(crate) async fn take_up(
    inner: &Arc<Inner>,
    entry: &Arc<Entry>,
    id: OperationId,
    inbox: mpsc::Receiver<Message>,
) -> Option<Timestamp> {
    let execution = match inner.load_to_run(id).await {
        Ok(Some(execution)) if !execution.is_done() => {
            // Its end will be counted here.
            inner.settled(id);
            execution
        }
        Ok(_) => return None,
        Err(LoadError::Hold(reason)) => {
            inner.hold(id, reason);
            return None;
        }
        Err(LoadError::Unavailable(error)) => {
            tracing::warn!(
                error = longrun_core::with_causes(&error),
                "an operation cannot be read, trying again later"
            );
            if inner.cluster().is_some() {
                // It is given back, and asked for again then.
                return Some(inner.now().saturating_add(STORE_BACKOFF.longest));
            }
            inner.look_again_later(id);
            return None;
        }
    };
    Driver::new(Arc::clone(inner), Arc::clone(entry), execution, inbox).drive(true).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checkpoint(step: u16, value: u32, progress: Option<u64>) -> (Happened, oneshot::Receiver<bool>) {
        let (reply, saved) = oneshot::channel();
        let command = Command::Checkpoint {
            step: StepIndex(step),
            attempt: Attempt(1),
            checkpoint: Json::encode("checkpoint", &value).unwrap(),
            progress: progress.map(|done| Progress {
                done,
                total: 10,
                unit: longrun_core::ProgressUnit::Items,
            }),
        };
        (Happened { command, reply: Reply::Checkpoint(vec![reply]), verdict: Ok(()) }, saved)
    }

    #[test]
    fn of_the_checkpoints_of_one_run_the_newest_is_kept_during_an_outage_and_all_who_wait_are_told() {
        let mut delayed = VecDeque::new();
        let mut waiting = Vec::new();
        for value in 0..1000 {
            for step in 0..2 {
                let (happened, saved) = checkpoint(step, value, (value == 5).then_some(5));
                delay(&mut delayed, happened);
                // Most give up, as a save does that is dropped by a timeout.
                if value % 400 == 0 {
                    waiting.push(saved);
                }
            }
        }
        assert_eq!(delayed.len(), 2);
        for one in delayed {
            let Command::Checkpoint { checkpoint, progress, .. } = &one.command else { panic!("another") };
            assert_eq!(checkpoint.decode::<u32>().unwrap(), 999);
            assert_eq!(progress.map(|progress| progress.done), Some(5), "told once, it stays");
            let Reply::Checkpoint(replies) = one.reply else { panic!("nobody is told") };
            assert!(replies.len() <= 4, "{} replies are kept", replies.len());
            replies.into_iter().for_each(|reply| _ = reply.send(true));
        }
        for mut saved in waiting {
            assert_eq!(saved.try_recv(), Ok(true));
        }
    }
}
