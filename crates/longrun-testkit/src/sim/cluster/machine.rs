//! A machine: a node runs on it, dies, stands still, and is cut off.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use longrun::{Engine, IdPrefix};
use longrun_store::shared::{Line, SharedStore};
use tokio::sync::Notify;

use super::SWEEP_EVERY;
use super::work::{Actor, Make, Play};
use super::world::{NodeEnvironment, Shared};
use crate::panics::lock;
use crate::sim::coverage::Fault;
use crate::sim::invariants::Violation;

/// What may happen to a machine, in the order of its weights in the swarm.
const TROUBLES: [Fault; 6] =
    [Fault::Crash, Fault::ShutDown, Fault::StandStill, Fault::CutOff, Fault::Mute, Fault::StoreAnswerLost];

/// Microseconds from which on the way to the store counts as slow.
const SLOW: u64 = 100_000;

pub(super) struct Machine {
    shared: Arc<Shared>,
    store: Arc<SharedStore>,
    place: usize,
    inside: Mutex<Inside>,
}

#[derive(Default)]
struct Inside {
    process: Option<Process>,
    /// Trouble is under way.
    busy: bool,
    /// By how many microseconds its clock differs, from this start on.
    offset: i64,
}

struct Process {
    engine: Engine,
    line: Arc<SharedStore>,
    life: Arc<Life>,
}

/// A process, from its start to its end.
#[derive(Default)]
pub(super) struct Life {
    state: Mutex<Standing>,
    changed: Notify,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Standing {
    #[default]
    Goes,
    Still,
    Dead,
}

impl Life {
    fn set(&self, standing: Standing) {
        *lock(&self.state) = standing;
        self.changed.notify_waiters();
    }

    /// Whatever a process does next it does when it goes; a dead one does nothing more.
    pub(super) async fn goes(&self) {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            if *lock(&self.state) == Standing::Goes {
                return;
            }
            changed.await;
        }
    }
}

impl Machine {
    pub(super) fn new(shared: &Arc<Shared>, store: &Arc<SharedStore>, place: usize) -> Arc<Self> {
        let (shared, store) = (Arc::clone(shared), Arc::clone(store));
        Arc::new(Self { shared, store, place, inside: Mutex::default() })
    }

    /// By how many microseconds its clock differs.
    pub(super) fn offset(&self) -> i64 {
        lock(&self.inside).offset
    }

    /// The engine, if the machine is up.
    pub(super) fn engine(&self) -> Option<Engine> {
        lock(&self.inside).process.as_ref().map(|process| process.engine.clone())
    }

    /// The life of its process, if it is up.
    pub(super) fn life(&self) -> Option<Arc<Life>> {
        lock(&self.inside).process.as_ref().map(|process| Arc::clone(&process.life))
    }

    /// Starts a process.
    pub(super) async fn start(&self) {
        let line = Arc::new(self.store.another());
        let life = Arc::<Life>::default();
        let toll = {
            let (shared, life) = (Arc::clone(&self.shared), Arc::clone(&life));
            move || -> std::pin::Pin<Box<dyn Future<Output = ()> + Send>> {
                let (shared, life) = (Arc::clone(&shared), Arc::clone(&life));
                Box::pin(async move {
                    let way = {
                        let mut state = lock(&shared.state);
                        let most = if state.calm { 1000 } else { state.swarm.way };
                        let way = state.rng.below(most + 1);
                        if way >= SLOW {
                            state.coverage.fault(Fault::LineSlow);
                        }
                        way
                    };
                    tokio::time::sleep(Duration::from_micros(way)).await;
                    life.goes().await;
                })
            }
        };
        line.set_toll(toll);
        let running_max = lock(&self.shared.state).swarm.running_max;
        let actor = Actor { shared: Arc::clone(&self.shared), life: Arc::clone(&life), node: Arc::default() };
        let node = Arc::clone(&actor.node);
        let offset = {
            let mut state = lock(&self.shared.state);
            let drift = state.swarm.drift * 1000;
            let size = i64::try_from(state.rng.below(drift + 1)).unwrap_or(0);
            if size > 0 {
                state.coverage.fault(Fault::ClockOff);
            }
            if state.rng.chance(500) { size } else { -size }
        };
        lock(&self.inside).offset = offset;
        let environment = NodeEnvironment { shared: Arc::clone(&self.shared), offset };
        let Ok(prefix) = IdPrefix::new("sim") else { return };
        let started = Engine::builder_shared(Arc::clone(&line) as _)
            .kind(Make)
            .step(Play(actor))
            .operation_prefix(prefix)
            .running_max(running_max)
            .sweep_every(SWEEP_EVERY)
            .environment(environment)
            .start()
            .await;
        match started {
            Ok(engine) => {
                _ = node.set(engine.fence());
                let fence = engine.fence();
                let place = self.place;
                lock(&self.shared.state).note(&format!("machine {place} is node {fence}"));
                lock(&self.inside).process = Some(Process { engine, line, life });
            }
            Err(error) => lock(&self.shared.state).judge(Err(Violation::new("start", error.to_string()))),
        }
    }

    /// What happens to the machine, until it is calm.
    pub(super) async fn trouble(self: Arc<Self>) {
        loop {
            let pause = {
                let mut state = lock(&self.shared.state);
                let most = state.swarm.pause;
                state.rng.below(most)
            };
            tokio::time::sleep(Duration::from_millis(pause)).await;
            if lock(&self.shared.state).calm {
                return;
            }
            lock(&self.inside).busy = true;
            self.one_trouble().await;
            lock(&self.inside).busy = false;
        }
    }

    async fn one_trouble(&self) {
        let (trouble, length) = {
            let mut state = lock(&self.shared.state);
            let weights = state.swarm.troubles;
            let mut drawn = state.rng.below(u64::from(weights.iter().sum::<u32>()));
            let length = Duration::from_millis(state.rng.pick(&[50, 500, 2_000, 5_000, 9_000]));
            let mut trouble = None;
            for (fault, weight) in TROUBLES.into_iter().zip(weights) {
                if trouble.is_none() && drawn < u64::from(weight) {
                    trouble = Some(fault);
                }
                drawn = drawn.saturating_sub(u64::from(weight));
            }
            (trouble, length)
        };
        let Some(trouble) = trouble else { return };
        let (engine, line, life) = {
            let inside = lock(&self.inside);
            let Some(process) = &inside.process else { return };
            (process.engine.clone(), Arc::clone(&process.line), Arc::clone(&process.life))
        };
        {
            let mut state = lock(&self.shared.state);
            if trouble != Fault::StoreAnswerLost {
                // Whether any call is there to lose an answer, the store knows.
                state.coverage.fault(trouble);
            }
            state.note(&format!("machine {}, {length:?}: {}", self.place, trouble.text()));
        }
        match trouble {
            Fault::StandStill => {
                life.set(Standing::Still);
                tokio::time::sleep(length).await;
                life.set(Standing::Goes);
            }
            Fault::CutOff | Fault::Mute => {
                line.set_line(if trouble == Fault::Mute { Line::Mute } else { Line::Cut });
                tokio::time::sleep(length).await;
                line.set_line(Line::Whole);
            }
            Fault::StoreAnswerLost => line.lose_answers(3),
            _ => {
                if trouble == Fault::ShutDown {
                    engine.shutdown(Duration::from_secs(2)).await;
                }
                // A process that is gone holds no engine.
                drop(engine);
                life.set(Standing::Dead);
                line.set_line(Line::Cut);
                lock(&self.inside).process = None;
                tokio::time::sleep(length).await;
                self.start().await;
            }
        }
    }

    /// The trouble is over: everything works, and goes on working.
    pub(super) async fn calm(&self) {
        // What is under way comes to its end by itself.
        while lock(&self.inside).busy {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        if let Some(process) = &lock(&self.inside).process {
            process.line.lose_answers(0);
        }
    }
}
