//! Clients of the real engine: they submit with and without keys, ask again, look, cancel, list and wait.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use longrun::{
    Call, Caller, Code, CommandError, Engine, IdempotencyKey, Operation, OperationId, OperationQuery,
    PageRequest, SubmitError,
};

use super::kind::{Make, Request, Spec};
use super::state::Floors;
use super::world::Shared;
use crate::panics::lock;
use crate::random::Rng;
use crate::sim::coverage::{Fault, Situation};
use crate::sim::invariants::Violation;
use crate::sim::invariants::answers::{
    check_cancel, check_complete, check_key, check_key_refused, check_once, check_refusal, check_there,
};
use crate::sim::invariants::commits::check_owner;
use crate::sim::shrink::{OPERATIONS_MAX, STEPS_MAX, at_most};

/// Times that a client asks before it gives up.
const ASKS_MAX: u32 = 30;

/// What a client wants, and how far it has come. Outlives the process.
#[derive(Clone, Debug)]
pub(super) struct Wish {
    pub(super) request: Request,
    pub(super) key: Option<String>,
    pub(super) deadline: Option<Duration>,
    pub(super) begins: Duration,
    pub(super) asks: u32,
    /// The operation that answered the key, if anybody knows.
    pub(super) answered: Option<OperationId>,
    /// The client knows it, too.
    pub(super) id: Option<OperationId>,
    pub(super) cancels: bool,
    pub(super) over: bool,
    pub(super) crashes: u32,
}

fn request(steps_max: Option<u32>, rng: &mut Rng) -> Request {
    let count = at_most(steps_max, rng.between(1, STEPS_MAX as u64));
    let density = rng.pick(&[150, 400, 700]);
    let steps = (0..count).map(|place| {
        let mut after = 0;
        let mut feeds_on = None;
        for on in 0..place {
            if rng.chance(density) {
                if rng.chance(500) { feeds_on = u16::try_from(on).ok() } else { after |= 1 << on }
            }
        }
        Spec { place: u16::try_from(place).unwrap_or(u16::MAX), feeds_on, after }
    });
    let steps = steps.collect();
    let claims = (0..rng.below(3)).map(|_| {
        let what = u8::try_from(rng.pick(&[0, 0, 1, 2])).unwrap_or(0);
        (what, u8::try_from(rng.below(3)).unwrap_or(0))
    });
    let mut claims: Vec<(u8, u8)> = claims.collect();
    claims.sort_by_key(|(_, which)| *which);
    claims.dedup_by_key(|(_, which)| *which);
    Request {
        steps,
        parallel: u16::try_from(rng.between(1, 4)).unwrap_or(1),
        no_return: rng.chance(200).then(|| u16::try_from(rng.below(count)).unwrap_or(0)),
        runs_max: u32::try_from(rng.pick(&[1, 2, 3, 5])).unwrap_or(1),
        claims,
    }
}

/// What the clients of a seed want.
pub(super) fn wishes(shared: &Shared) -> Vec<Wish> {
    let mut state = lock(&shared.state);
    let (cancels, deadlines) = (state.swarm.cancels, state.swarm.deadlines);
    let less = shared.setting.less;
    let rng = &mut state.rng;
    let count = at_most(less.operations, rng.between(1, OPERATIONS_MAX));
    let wish = |place: u64| Wish {
        request: request(less.steps, rng),
        key: rng.chance(600).then(|| format!("key-{place}")),
        deadline: rng.chance(deadlines).then(|| Duration::from_millis(rng.below(8000))),
        begins: Duration::from_millis(rng.below(3000)),
        asks: 0,
        answered: None,
        id: None,
        cancels: rng.chance(cancels),
        over: false,
        crashes: 0,
    };
    (0..count).map(wish).collect()
}

/// A node that serves clients.
#[derive(Clone)]
pub(super) struct Node {
    pub(super) engine: Engine,
    pub(super) number: u32,
}

/// One client, in one life of the process.
pub(super) struct Client {
    pub(super) shared: Arc<Shared>,
    pub(super) life: u32,
    pub(super) current: Arc<std::sync::Mutex<Node>>,
    pub(super) caller: Caller,
    pub(super) wishes: Arc<std::sync::Mutex<Vec<Wish>>>,
    pub(super) place: usize,
}

impl Client {
    fn wish(&self) -> Wish {
        lock(&self.wishes)[self.place].clone()
    }

    /// Changes the wish, as long as this process lives: a dead client learns nothing.
    fn learn(&self, change: impl FnOnce(&mut Wish)) -> bool {
        let alive = lock(&self.shared.state).alive(self.life);
        if alive {
            change(&mut lock(&self.wishes)[self.place]);
        }
        alive
    }

    /// The node that clients ask now.
    fn node(&self) -> Node {
        lock(&self.current).clone()
    }

    fn owns(&self, node: &Node) -> bool {
        lock(&self.shared.state).owns(self.life, node.number)
    }

    fn chance(&self, permille: u32) -> bool {
        lock(&self.shared.state).rng.chance(permille)
    }

    async fn nap(&self) {
        let micros = {
            let mut state = lock(&self.shared.state);
            let most = state.rng.pick(&[1_000, 50_000, 1_000_000, 4_000_000]);
            state.rng.below(most)
        };
        tokio::time::sleep(Duration::from_micros(micros)).await;
    }

    /// Lives until its wish is over.
    pub(super) async fn live(self) {
        if self.wish().asks == 0 {
            tokio::time::sleep(self.wish().begins).await;
        }
        while self.wish().id.is_none() {
            if self.wish().over {
                return;
            }
            self.submit().await;
            self.nap().await;
        }
        let Some(id) = self.wish().id else { return };
        if self.wish().cancels {
            self.nap().await;
            self.cancel(id).await;
        }
        for _ in 0..3 {
            self.look(id).await;
            self.nap().await;
        }
        loop {
            let floors = self.shared.floors();
            let node = self.node();
            match node.engine.wait(id, Duration::from_secs(30)).await {
                Ok(operation) => {
                    let done = operation.done();
                    self.shared.told(self.life, node.number, &floors, operation);
                    if done {
                        self.met(Situation::WaitSeesEnd);
                        break;
                    }
                }
                Err(longrun::ReadError::NotFound(_)) => self.lost(id),
                Err(error) => self.no_answer("a wait", error.code(), &error),
            }
            tokio::time::sleep(Duration::from_millis(700)).await;
        }
        if self.chance(300) {
            self.cancel(id).await;
        }
        self.learn(|wish| wish.over = true);
    }

    fn met(&self, situation: Situation) {
        lock(&self.shared.state).coverage.met(situation);
    }

    async fn submit(&self) {
        let wish = self.wish();
        let mut call = Call::by(self.caller.clone());
        if let Some(key) = wish.key.as_deref().and_then(|key| IdempotencyKey::new(key).ok()) {
            call = call.key(key);
        }
        if let Some(deadline) = wish.deadline {
            call = call.deadline(deadline);
        }
        self.learn(|wish| wish.asks += 1);
        let floors = self.shared.floors();
        let node = self.node();
        let owned = self.owns(&node);
        let result = node.engine.submit::<Make>(&wish.request, call).await;
        if !lock(&self.shared.state).alive(self.life) {
            return;
        }
        match result {
            Ok(operation) => {
                // A repeat is only read, and anybody may do that.
                let news = wish.key.is_none() || wish.answered.is_none() && wish.asks == 0;
                lock(&self.shared.state).judge(check_owner(owned || !news, "a submit"));
                self.accepted(&wish, &node, &floors, operation);
            }
            Err(error) => self.refused(&wish, &error),
        }
    }

    fn accepted(&self, wish: &Wish, node: &Node, floors: &Floors, operation: Operation) {
        let id = operation.id();
        if let Some(before) = wish.answered.filter(|_| wish.key.is_some()) {
            let crashes = lock(&self.shared.state).crashes;
            self.met(Situation::KeyRepeated);
            if crashes > wish.crashes {
                self.met(Situation::KeyRepeatedAfterCrash);
            }
            lock(&self.shared.state).judge(check_key(before, id));
        }
        self.shared.told(self.life, node.number, floors, operation);
        let crashes = lock(&self.shared.state).crashes;
        let loses = {
            let mut state = lock(&self.shared.state);
            let rate = state.swarm.lost_answers;
            wish.key.is_some() && state.goes_wrong(rate)
        };
        if loses {
            lock(&self.shared.state).coverage.fault(Fault::AnswerLost);
        }
        self.learn(|wish| {
            wish.answered = Some(id);
            wish.crashes = crashes;
            if !loses {
                wish.id = Some(id);
            }
        });
    }

    fn refused(&self, wish: &Wish, error: &SubmitError) {
        let mut state = lock(&self.shared.state);
        state.note(&format!("submit refused: {error}"));
        let again = match error {
            SubmitError::Busy { .. } => {
                state.coverage.met(Situation::ResourceBusy);
                true
            }
            SubmitError::Unknown { .. } => {
                state.coverage.met(Situation::UnknownAccept);
                // Without a key there is no safe way to ask again.
                wish.key.is_some()
            }
            SubmitError::Store(cause) if cause.is_full() => {
                state.coverage.met(Situation::SubmitRefusedFull);
                true
            }
            SubmitError::Store(_) | SubmitError::Read(_) | SubmitError::Changed(_) => true,
            SubmitError::Exists(_) | SubmitError::Refused(_) | SubmitError::Plan(_) => false,
            SubmitError::ShuttingDown => true,
            SubmitError::Fenced => {
                state.coverage.met(Situation::FormerOwnerRefused);
                true
            }
            other => {
                state.judge(Err(Violation::new("submit", format!("{other:?}"))));
                false
            }
        };
        let gives_up = !again || wish.asks >= ASKS_MAX && wish.answered.is_none();
        state.judge(check_key_refused(wish.answered, !again, error));
        drop(state);
        self.learn(|wish| wish.over = gives_up);
    }

    async fn cancel(&self, id: OperationId) {
        let before = self.shared.stored(id);
        {
            let mut state = lock(&self.shared.state);
            state.coverage.fault(Fault::Cancel);
            let done = before.as_ref().is_some_and(longrun_core::Execution::is_done);
            if done {
                state.coverage.met(Situation::CancelTooLate);
            }
        }
        let floors = self.shared.floors();
        let node = self.node();
        match node.engine.cancel(id, &self.caller).await {
            Ok(operation) => {
                let no_return = self.past_no_return(id);
                let won = operation.error().is_some_and(|error| error.code() == Code::Cancelled);
                {
                    let mut state = lock(&self.shared.state);
                    if state.alive(self.life) {
                        if won && !operation.done() {
                            state.coverage.met(Situation::CancelWins);
                        } else if no_return && !operation.done() {
                            state.coverage.met(Situation::CancelPastNoReturn);
                        }
                        state.judge(check_cancel(&operation, no_return));
                    }
                }
                self.shared.told(self.life, node.number, &floors, operation);
            }
            Err(CommandError::Fenced) => self.met(Situation::FormerOwnerRefused),
            Err(CommandError::NotFound(_)) => self.lost(id),
            Err(error) => self.no_answer("a cancel", error.code(), &error),
        }
    }

    /// No answer says so by the right code, unless the record that was wanted is damaged.
    fn no_answer(&self, what: &str, code: Code, error: &impl Debug) {
        let damaged = lock(&self.shared.medium).is_damaged();
        let mut state = lock(&self.shared.state);
        if state.alive(self.life) && !damaged {
            let may = [Code::Unavailable, Code::ResourceExhausted];
            state.judge(check_refusal(what, code, &may, error));
        }
    }

    /// Whether the operation has passed its point of no return by now. It may be done since the answer was given.
    fn past_no_return(&self, id: OperationId) -> bool {
        let Some(stored) = self.shared.stored(id) else { return false };
        let plan = lock(&self.shared.state).ops.get(&id).map(|op| Arc::clone(&op.plan));
        let Some(step) = plan.and_then(|plan| plan.point_of_no_return()) else { return false };
        let at_end = stored.finished().and_then(|finished| finished.attempts.get(step.place()).copied());
        at_end.unwrap_or_else(|| stored.attempt(step).0) > 0
    }

    fn lost(&self, id: OperationId) {
        let mut state = lock(&self.shared.state);
        if state.alive(self.life) {
            state.judge(check_there(id, false));
        }
    }

    async fn look(&self, id: OperationId) {
        if self.chance(500) {
            let floors = self.shared.floors();
            let node = self.node();
            match node.engine.get(id).await {
                Ok(operation) => self.shared.told(self.life, node.number, &floors, operation),
                Err(longrun::ReadError::NotFound(_)) => self.lost(id),
                Err(error) => self.no_answer("a get", error.code(), &error),
            }
        } else {
            self.list(id).await;
        }
    }

    /// Reads the whole list, page by page: what is there throughout is there once (C19).
    async fn list(&self, id: OperationId) {
        let mut seen = Vec::new();
        let (changes, known) = {
            let state = lock(&self.shared.state);
            (state.changes, state.ops.keys().copied().collect::<Vec<_>>())
        };
        let mut page = PageRequest { size: 1, token: String::new() };
        for _ in 0..50 {
            let floors = self.shared.floors();
            let node = self.node();
            let found = match node.engine.list_operations(&OperationQuery::All, &page).await {
                Ok(found) => found,
                Err(error) => return self.no_answer("a list", error.code(), &error),
            };
            for operation in found.items {
                seen.push(operation.id());
                lock(&self.shared.state).judge(check_once(&seen));
                self.shared.told(self.life, node.number, &floors, operation);
            }
            if found.next_token.is_empty() {
                break;
            }
            page.token = found.next_token;
            tokio::time::sleep(Duration::from_micros(300)).await;
        }
        // A list leaves out what cannot be read.
        let misread = lock(&self.shared.medium).misread();
        let there = known.into_iter().chain([id]).filter(|id| misread != Some(*id));
        let mut state = lock(&self.shared.state);
        if state.alive(self.life) {
            if seen.len() > 1 && state.changes != changes {
                state.coverage.met(Situation::ListDuringChange);
            }
            state.judge(check_complete(&there.collect::<Vec<_>>(), &seen));
        }
    }
}
