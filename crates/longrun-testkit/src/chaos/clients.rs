//! Clients: they ask any node, and when it does not answer, another.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::task::JoinSet;

use super::node::{Ask, Shown, Told};
use super::process::Node;
use super::work::Request;
use crate::crash::dice::Dice;
use crate::panics::lock;

/// What clients were told.
#[derive(Debug, Default)]
pub(super) struct History {
    /// By key: what was asked, and the operation that was acknowledged; `None` if no answer came.
    pub(super) keys: BTreeMap<String, (Request, Option<String>)>,
    /// By operation: what the cancel of it was answered.
    pub(super) cancels: BTreeMap<String, Shown>,
    /// What contradicts itself.
    pub(super) violations: Vec<String>,
    pub(super) counts: BTreeMap<&'static str, u64>,
}

impl History {
    fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }
}

pub(super) struct Clients {
    stop: Arc<AtomicBool>,
    history: Arc<Mutex<History>>,
    tasks: JoinSet<()>,
}

/// One client.
struct Client {
    nodes: Vec<Arc<Node>>,
    dice: Dice,
    next: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    history: Arc<Mutex<History>>,
}

impl Clients {
    pub(super) fn start(nodes: &[Arc<Node>], clients: usize, seed: u64) -> Self {
        let (stop, history, next) = (Arc::default(), Arc::default(), Arc::default());
        let mut tasks = JoinSet::new();
        for number in 0..clients as u64 {
            let client = Client {
                nodes: nodes.to_vec(),
                dice: Dice::new(seed.wrapping_mul(1000).wrapping_add(number)),
                next: Arc::clone(&next),
                stop: Arc::clone(&stop),
                history: Arc::clone(&history),
            };
            tasks.spawn(client.work());
        }
        Self { stop, history, tasks }
    }

    /// Lets each end what it is at.
    pub(super) async fn stop(mut self) -> History {
        self.stop.store(true, Ordering::SeqCst);
        while self.tasks.join_next().await.is_some() {}
        std::mem::take(&mut *lock(&self.history))
    }
}

impl Client {
    async fn work(mut self) {
        while !self.stop.load(Ordering::SeqCst) {
            if self.dice.one_in(20) {
                self.list().await;
            } else {
                self.one_operation().await;
            }
        }
    }

    fn node(&mut self) -> Arc<Node> {
        let place = self.dice.within(0..self.nodes.len() as u64);
        Arc::clone(&self.nodes[usize::try_from(place).unwrap_or_default()])
    }

    async fn one_operation(&mut self) {
        let number = self.next.fetch_add(1, Ordering::SeqCst);
        let key = format!("key-{number}");
        let steps = u16::try_from(self.dice.within(1..4)).unwrap_or(1);
        let fails_at =
            self.dice.one_in(4).then(|| u16::try_from(self.dice.within(0..steps.into())).unwrap_or(0));
        let millis = if self.dice.one_in(8) { self.dice.within(500..4000) } else { self.dice.within(0..60) };
        let request = Request { name: key.clone(), steps, fails_at, millis };
        lock(&self.history).keys.insert(key.clone(), (request.clone(), None));
        let Some(id) = self.submit(&key, &request).await else { return };
        // Another submit of the same, elsewhere, is the same operation.
        if self.dice.one_in(5) {
            _ = self.submit(&key, &request).await;
        }
        if self.dice.one_in(4) {
            let told = self.ask(Ask::Cancel { id: id.clone() }).await;
            let mut history = lock(&self.history);
            match told {
                Some(Told::Operation(shown)) => {
                    history.count("cancels");
                    check(&shown, &mut history);
                    if !shown.done && shown.error.is_none() {
                        history.violations.push(format!("C13: a cancel did nothing: {shown:?}"));
                    }
                    history.cancels.insert(id.clone(), shown);
                }
                _ => history.count("cancels without an answer"),
            }
        }
        self.wait(&id).await;
    }

    /// Until it is acknowledged, or there is no time left.
    async fn submit(&mut self, key: &str, request: &Request) -> Option<String> {
        loop {
            let ask = Ask::Submit { key: key.to_owned(), request: request.clone() };
            if let Some(Told::Operation(shown)) = self.ask(ask).await {
                let mut history = lock(&self.history);
                history.count("submits");
                let known = history.keys.get_mut(key).and_then(|(_, id)| id.replace(shown.id.clone()));
                if known.is_some_and(|known| known != shown.id) {
                    history
                        .violations
                        .push(format!("C15: {key} is two operations, one of them {}", shown.id));
                }
                return Some(shown.id);
            }
            lock(&self.history).count("submits without an answer");
            if self.stop.load(Ordering::SeqCst) {
                return None;
            }
        }
    }

    /// At any node, until it is done or there is no time left. What is done stays as it is.
    async fn wait(&mut self, id: &str) {
        while !self.stop.load(Ordering::SeqCst) {
            let ask = Ask::Wait { id: id.to_owned(), millis: 2000 };
            match self.ask(ask).await {
                Some(Told::Operation(shown)) if shown.done => {
                    let again = self.ask(Ask::Wait { id: id.to_owned(), millis: 0 }).await;
                    let mut history = lock(&self.history);
                    history.count("waits to the end");
                    check(&shown, &mut history);
                    let cancel = history.cancels.get(id).cloned();
                    if let Some(cancel) = cancel.filter(|cancel| cancel.error != shown.error) {
                        history.violations.push(format!(
                            "C13: a cancel was answered with {cancel:?}, the end is {shown:?}"
                        ));
                    }
                    if let Some(Told::Operation(again)) = again
                        && again != shown
                    {
                        history.violations.push(format!("C5: {id} was {shown:?} and is {again:?}"));
                    }
                    return;
                }
                Some(Told::Operation(shown)) => check(&shown, &mut lock(&self.history)),
                _ => {}
            }
        }
    }

    /// Pages at several nodes: newest first, and nothing twice.
    async fn list(&mut self) {
        let (mut token, mut last) = (String::new(), None::<String>);
        for _ in 0..3 {
            let Some(Told::Page(items, next)) = self.ask(Ask::List { token }).await else { return };
            let mut history = lock(&self.history);
            history.count("pages");
            for shown in items {
                if last.as_ref().is_some_and(|last| *last <= shown.id) {
                    history.violations.push(format!("C19: {} comes after {last:?} in a list", shown.id));
                }
                check(&shown, &mut history);
                last = Some(shown.id);
            }
            if next.is_empty() {
                return;
            }
            token = next;
        }
    }

    async fn ask(&mut self, ask: Ask) -> Option<Told> {
        match self.node().ask(ask).await {
            Ok(Ok(told)) => Some(told),
            _ => {
                tokio::time::sleep(Duration::from_millis(self.dice.within(20..200))).await;
                None
            }
        }
    }
}

/// C2: done has one of error and response; what is not done has no response.
fn check(shown: &Shown, history: &mut History) {
    let fits = if shown.done { shown.response != shown.error.is_some() } else { !shown.response };
    if !fits {
        history.violations.push(format!("C2: {shown:?}"));
    }
}
