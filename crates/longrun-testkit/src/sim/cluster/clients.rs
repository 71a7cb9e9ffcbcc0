//! Clients of the nodes: each asks whichever it comes to, and another when that does not answer.

use std::sync::Arc;
use std::time::Duration;

use longrun::{Call, Caller, Code, Engine, IdempotencyKey, Operation, OperationId, SubmitError};
use tokio::task::JoinHandle;

use super::machine::Machine;
use super::work::{Make, Request};
use super::world::Shared;
use crate::panics::lock;
use crate::sim::coverage::{Fault, Situation};
use crate::sim::invariants::answers::{check_cancel, check_key, check_key_refused, check_refusal};
use crate::sim::plant::Plant;
use crate::sim::shrink::at_most;

/// Each is a caller of its own, and has one wish, under one key.
struct Client {
    shared: Arc<Shared>,
    machines: Arc<[Arc<Machine>]>,
    caller: Caller,
}

/// Begins all clients of a seed.
pub(super) fn begin(shared: &Arc<Shared>, machines: &Arc<[Arc<Machine>]>) -> Vec<JoinHandle<()>> {
    let count = {
        let mut state = lock(&shared.state);
        let drawn = state.rng.between(2, 8);
        at_most(shared.setting.less.operations, drawn)
    };
    let client = |place: u64| {
        let caller = Caller::new(format!("client-{place}")).ok()?;
        let (shared, machines) = (Arc::clone(shared), Arc::clone(machines));
        Some(tokio::spawn(Client { shared, machines, caller }.live()))
    };
    (0..count).filter_map(client).collect()
}

impl Client {
    /// A node that is up.
    async fn engine(&self) -> Engine {
        loop {
            let place = {
                let mut state = lock(&self.shared.state);
                usize::try_from(state.rng.below(self.machines.len() as u64)).unwrap_or(0)
            };
            if let (Some(engine), Some(life)) = (self.machines[place].engine(), self.machines[place].life()) {
                // One that stands still does not answer, and is left after a while.
                if tokio::time::timeout(Duration::from_millis(300), life.goes()).await.is_ok() {
                    return engine;
                }
            }
            self.pause(100).await;
        }
    }

    async fn pause(&self, most: u64) {
        let millis = lock(&self.shared.state).rng.below(most) + 1;
        tokio::time::sleep(Duration::from_millis(millis)).await;
    }

    fn request(&self) -> Request {
        let steps_max = self.shared.setting.less.steps;
        let mut state = lock(&self.shared.state);
        let rng = &mut state.rng;
        let count = at_most(steps_max, rng.between(1, 4));
        let steps =
            (0..count).map(|place| (0..place).filter(|_| rng.chance(400)).fold(0, |bits, on| bits | 1 << on));
        let steps = steps.collect();
        let parallel = u16::try_from(rng.between(1, 3)).unwrap_or(1);
        let name = rng.chance(400).then(|| u8::try_from(rng.below(3)).unwrap_or(0));
        Request { steps, parallel, name }
    }

    async fn live(self) {
        self.pause(6000).await;
        let request = self.request();
        let Some(id) = self.submit(&request).await else { return };
        let cancels = {
            let mut state = lock(&self.shared.state);
            let rate = state.swarm.cancels;
            state.rng.chance(rate)
        };
        if cancels {
            self.pause(3000).await;
            self.cancel(id).await;
        }
        self.wait(id).await;
    }

    /// Asks until some node has accepted it, under one key. Who has an answer asks once more now and then, as if it had got lost.
    async fn submit(&self, request: &Request) -> Option<OperationId> {
        let mut answered = None;
        for asks in 0..u32::MAX {
            let engine = self.engine().await;
            // Another key would be another wish.
            let plant = self.shared.setting.plant == Some(Plant::S35);
            let key = if plant { format!("key-{asks}") } else { "key".to_owned() };
            let call = Call::by(self.caller.clone()).key(IdempotencyKey::new(&*key).ok()?);
            let before = self.shared.of_caller(&self.caller).await;
            let asked =
                tokio::time::timeout(Duration::from_secs(5), engine.submit::<Make>(request, call)).await;
            match asked {
                Ok(Ok(operation)) => {
                    let id = operation.id();
                    let repeats = self.accepted(answered, id, asks);
                    self.shared.told(None, operation).await;
                    answered = Some(id);
                    if !repeats {
                        return answered;
                    }
                }
                Ok(Err(SubmitError::Refused(status))) if status.code() == Code::AlreadyExists => {
                    let verdict = check_key_refused(answered.or(before.first().copied()), true, &status);
                    lock(&self.shared.state).judge(verdict);
                    return answered;
                }
                Ok(Err(error)) => {
                    let may = [Code::Unavailable, Code::Aborted];
                    let verdict = check_refusal("a submit", error.code(), &may, &error);
                    lock(&self.shared.state).judge(verdict);
                }
                Err(_) => lock(&self.shared.state).coverage.fault(Fault::AnswerLost),
            }
            self.pause(500).await;
        }
        None
    }

    /// Whether it asks once more.
    fn accepted(&self, answered: Option<OperationId>, id: OperationId, asks: u32) -> bool {
        let mut state = lock(&self.shared.state);
        state.note(&format!("accepted {id} after {asks} asks"));
        if let Some(before) = answered {
            state.coverage.met(Situation::KeyRepeated);
            state.judge(check_key(before, id));
        }
        state.goes_wrong(200)
    }

    async fn cancel(&self, id: OperationId) {
        lock(&self.shared.state).coverage.fault(Fault::Cancel);
        loop {
            let engine = self.engine().await;
            let floor = self.shared.floor(id);
            match tokio::time::timeout(Duration::from_secs(5), engine.cancel(id, &self.caller)).await {
                Ok(Ok(operation)) => {
                    self.cancelled(&operation);
                    return self.shared.told(floor, operation).await;
                }
                Ok(Err(error)) => {
                    let verdict = check_refusal("a cancel", error.code(), &[Code::Unavailable], &error);
                    lock(&self.shared.state).judge(verdict);
                }
                Err(_) => lock(&self.shared.state).coverage.fault(Fault::AnswerLost),
            }
            self.pause(500).await;
        }
    }

    /// A cancel was answered. No plan here has a point of no return.
    fn cancelled(&self, answer: &Operation) {
        let mut state = lock(&self.shared.state);
        state.judge(check_cancel(answer, false));
        if answer.error().is_some_and(|error| error.code() == Code::Cancelled) {
            state.coverage.met(Situation::CancelWins);
        }
    }

    async fn wait(&self, id: OperationId) {
        loop {
            let engine = self.engine().await;
            let floor = self.shared.floor(id);
            let long = Duration::from_secs(if lock(&self.shared.state).rng.chance(500) { 4 } else { 1 });
            let asked = engine.wait(id, long);
            let answer: Result<Operation, _> = match tokio::time::timeout(long * 2, asked).await {
                Ok(answer) => answer,
                Err(_) => continue,
            };
            match answer {
                Ok(operation) => {
                    let done = operation.done();
                    self.shared.told(floor, operation).await;
                    if done {
                        lock(&self.shared.state).coverage.met(Situation::WaitSeesEnd);
                        return;
                    }
                }
                Err(error) => {
                    let verdict = check_refusal("a wait", error.code(), &[Code::Unavailable], &error);
                    lock(&self.shared.state).judge(verdict);
                }
            }
            self.pause(300).await;
        }
    }
}
