//! [`EngineBuilder`]: what is registered, and the limits.

use std::sync::Arc;
use std::time::Duration;

use longrun_core::limits::DURATION_MILLIS_MAX;
use longrun_core::{IdPrefix, Invalid, KindName, StepName};
use longrun_store::{Store, StoreId};
use tokio::sync::Semaphore;

use crate::engine::{Engine, Held};
use crate::environment::{Environment, SystemEnvironment};
use crate::error::{BuildError, ReadError};
use crate::intercept::Interceptor;
use crate::kind::Kind;
use crate::registry::Registry;
use crate::step::Step;

/// The longest time to keep something: a hundred years.
const KEEP_MAX: Duration = Duration::from_secs(100 * 366 * 24 * 60 * 60);
/// The longest time between two sweeps.
const SWEEP_EVERY_MAX: Duration = Duration::from_millis(DURATION_MILLIS_MAX);

/// The limits and times of an engine.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    pub(crate) prefix: Option<IdPrefix>,
    pub(crate) running_max: usize,
    pub(crate) unfinished_max: u64,
    pub(crate) accepting_max: usize,
    pub(crate) retention: Duration,
    pub(crate) key_retention: Duration,
    pub(crate) sweep_every: Duration,
}

/// Collects kinds, steps and settings, and starts an [`Engine`].
#[must_use]
pub struct EngineBuilder {
    store: Arc<dyn Store>,
    environment: Arc<dyn Environment>,
    registry: Registry,
    settings: Settings,
    mistake: Option<BuildError>,
}

impl std::fmt::Debug for EngineBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EngineBuilder")
            .field("store", &self.store)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

impl EngineBuilder {
    pub(crate) fn new(store: Arc<dyn Store>) -> Self {
        let day = Duration::from_secs(24 * 60 * 60);
        Self {
            store,
            environment: Arc::new(SystemEnvironment),
            registry: Registry::default(),
            settings: Settings {
                prefix: IdPrefix::new("opr").ok(),
                running_max: 1024,
                unfinished_max: 10_000_000,
                accepting_max: 4096,
                retention: 30 * day,
                key_retention: 7 * day,
                sweep_every: Duration::from_secs(60),
            },
            mistake: None,
        }
    }

    /// Registers a kind. Its steps are registered on their own.
    pub fn kind<K: Kind>(mut self, kind: K) -> Self {
        match KindName::new(K::NAME) {
            Ok(name) => {
                if self.registry.kinds.insert(name, Arc::new(kind)).is_some() {
                    self.mistake(BuildError::Twice { what: "kind", name: K::NAME });
                }
            }
            Err(invalid) => self.mistake(BuildError::Invalid { name: K::NAME, invalid }),
        }
        self
    }

    /// Registers a step.
    pub fn step<S: Step>(mut self, step: S) -> Self {
        match StepName::new(S::NAME).and_then(|name| S::policy().check().map(|()| name)) {
            Ok(name) => {
                if self.registry.steps.insert(name, Arc::new(step)).is_some() {
                    self.mistake(BuildError::Twice { what: "step", name: S::NAME });
                }
            }
            Err(invalid) => self.mistake(BuildError::Invalid { name: S::NAME, invalid }),
        }
        self
    }

    /// Has every run and every undo go through an interceptor. Of several the first one given is the outermost.
    pub fn interceptor(mut self, interceptor: impl Interceptor) -> Self {
        self.registry.interceptors.push(Arc::new(interceptor));
        self
    }

    /// The 3 characters with which the ids of operations begin. `opr` unless said.
    ///
    /// Ids order by their prefix first and then by time, and lists go by id: the prefix must not be changed on a store
    /// that was used with another, or lists are newest first within each prefix only.
    pub fn operation_prefix(mut self, prefix: IdPrefix) -> Self {
        self.settings.prefix = Some(prefix);
        self
    }

    /// Operations that run at the same time; 1024 unless said. Others wait on disk, oldest first. One that only waits
    /// for its next try does not count.
    pub fn running_max(mut self, operations: usize) -> Self {
        self.settings.running_max = operations;
        self
    }

    /// Operations that may be unfinished before more are refused with RESOURCE_EXHAUSTED; 10 million unless said. Where engines
    /// share the store, those of all nodes count, as they were at the last [sweep](Self::sweep_every).
    pub fn unfinished_max(mut self, operations: u64) -> Self {
        self.settings.unfinished_max = operations;
        self
    }

    /// Requests that may be planned and committed at the same time, before more are refused with RESOURCE_EXHAUSTED; 4096
    /// unless said. It bounds the memory that a burst of requests takes while the store is slow.
    pub fn accepting_max(mut self, requests: usize) -> Self {
        self.settings.accepting_max = requests;
        self
    }

    /// How long done operations are kept; 30 days unless said, at most a hundred years (C20).
    pub fn retention(mut self, retention: Duration) -> Self {
        self.settings.retention = retention;
        self
    }

    /// How long an idempotency key is remembered after its operation is gone; 7 days unless said, at most a hundred
    /// years (C15).
    pub fn key_retention(mut self, retention: Duration) -> Self {
        self.settings.key_retention = retention;
        self
    }

    /// How often to look for what is no longer kept; a minute unless said, at most 366 days.
    pub fn sweep_every(mut self, interval: Duration) -> Self {
        self.settings.sweep_every = interval;
        self
    }

    /// Another clock and another source of randomness.
    pub fn environment(mut self, environment: impl Environment) -> Self {
        self.environment = Arc::new(environment);
        self
    }

    /// Which store the engine will be one of.
    pub fn store_id(&self) -> StoreId {
        self.store.id()
    }

    fn mistake(&mut self, mistake: BuildError) {
        self.mistake.get_or_insert(mistake);
    }

    /// Looks at every unfinished operation in the store, and lists those that an engine with these kinds and steps could not
    /// finish or could not undo. Changes nothing and takes nothing over: for a new version, before it starts.
    pub async fn preflight(&self) -> Result<Vec<Held>, ReadError> {
        let held = crate::scheduler::preflight(self.store.as_ref(), &self.registry).await;
        held.map_err(ReadError::Store)
    }

    /// Takes the store over and starts. New work is taken at once; what is unfinished is taken up in the background. Where
    /// engines share the store, it becomes one more node of it, and takes up what no other works on.
    pub async fn start(self) -> Result<Engine, BuildError> {
        if let Some(mistake) = self.mistake {
            return Err(mistake);
        }
        if self.settings.running_max == 0 {
            return Err(Invalid::new("running_max", "must be at least 1").into());
        }
        if !(1..=Semaphore::MAX_PERMITS).contains(&self.settings.accepting_max) {
            return Err(Invalid::new("accepting_max", "must be at least 1, and a number of requests").into());
        }
        if self.settings.sweep_every.is_zero() || self.settings.sweep_every > SWEEP_EVERY_MAX {
            return Err(
                Invalid::new("sweep_every", "must be longer than nothing and at most 366 days").into()
            );
        }
        let kept = [("retention", self.settings.retention), ("key_retention", self.settings.key_retention)];
        if let Some((field, _)) = kept.into_iter().find(|(_, time)| *time > KEEP_MAX) {
            return Err(Invalid::new(field, "must be at most a hundred years").into());
        }
        let runtime = tokio::runtime::Handle::try_current().map_err(|_| BuildError::NoRuntime)?;
        let fence = self.store.take_over().await?;
        // Before anything new is taken, so that nothing is counted twice.
        let left = crate::scheduler::look_at_what_is_left(self.store.as_ref()).await?;
        let Self { store, environment, registry, settings, .. } = self;
        Ok(Engine::start(runtime, store, environment, registry, settings, fence, left))
    }
}
