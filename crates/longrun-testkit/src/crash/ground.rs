//! The ground that a crash takes away: a store in a folder, with the effects and the facts outside of it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use longrun::{Caller, Engine, Store};
use longrun_folder::OpenError;
use longrun_store::intercept::Intercepted;
use longrun_store::{Durability, Kv, KvStore};

use super::cli::{DurabilityChoice, Place, StoreChoice};
use super::early::EarlyAck;
use super::effects::Effects;
use super::facts::{Facts, Teller};
use super::script::{CALLER, Script, Touch};
use super::stores;

/// Where one store and all that is known about it lie.
#[derive(Clone, Debug)]
pub(crate) struct Ground {
    pub(crate) store: StoreChoice,
    pub(crate) durability: DurabilityChoice,
    /// The folder of the store.
    pub(crate) dir: PathBuf,
    pub(crate) effects: PathBuf,
    pub(crate) facts: PathBuf,
}

impl Ground {
    /// With everything under one folder; the store in `kv`, or on a disk that is mounted elsewhere.
    pub(crate) fn under(root: &Path, dir: PathBuf, store: StoreChoice, durability: DurabilityChoice) -> Self {
        Self { store, durability, dir, effects: root.join("effects"), facts: root.join("facts") }
    }

    /// As named on the command line.
    pub(crate) fn at(place: &Place) -> Self {
        let beside = |name: &str| {
            let mut path = place.dir.clone().into_os_string();
            path.push(name);
            PathBuf::from(path)
        };
        Self {
            store: place.store,
            durability: place.durability,
            dir: place.dir.clone(),
            effects: place.effects.clone().unwrap_or_else(|| beside(".effects")),
            facts: place.facts.clone().unwrap_or_else(|| beside(".facts")),
        }
    }

    /// For a child that works on this ground.
    pub(crate) fn arguments(&self) -> Vec<std::ffi::OsString> {
        vec![
            "--store".into(),
            self.store.name().into(),
            "--durability".into(),
            self.durability.name().into(),
            "--dir".into(),
            self.dir.clone().into(),
            "--effects".into(),
            self.effects.clone().into(),
            "--facts".into(),
            self.facts.clone().into(),
        ]
    }

    pub(crate) fn read_facts(&self) -> anyhow::Result<Facts> {
        Facts::read(&self.facts)
    }

    pub(crate) fn teller(&self) -> anyhow::Result<Teller> {
        Teller::file(&self.facts).with_context(|| format!("cannot write {}", self.facts.display()))
    }

    pub(crate) fn open_effects(&self) -> anyhow::Result<Effects> {
        Effects::open(&self.effects).with_context(|| format!("cannot make {}", self.effects.display()))
    }

    /// Opens the backend. The error keeps its type, for those who look at it.
    pub(crate) fn open_kv(&self) -> Result<Arc<dyn Kv>, OpenError> {
        let durability = match self.durability {
            DurabilityChoice::Power => Durability::PowerLoss,
            DurabilityChoice::Process => Durability::ProcessCrash,
        };
        stores::open(self.store, &self.dir, durability)
    }

    /// Opens all of it.
    pub(crate) fn open(&self) -> anyhow::Result<Opened> {
        let kv = self.open_kv().context("S15: the backend does not open")?;
        let store = KvStore::open(Arc::clone(&kv)).context("S15: the store does not open")?;
        Ok(Opened { kv, store: Arc::new(store) })
    }

    /// Starts an engine on an open store.
    pub(crate) async fn start(&self, store: Arc<dyn Store>) -> anyhow::Result<Engine> {
        let touch = Touch(self.open_effects()?);
        let builder = Engine::builder_shared(store).kind(Script).step(touch);
        builder.start().await.context("the engine does not start")
    }
}

/// An open store, and the backend below it.
pub(crate) struct Opened {
    pub(crate) kv: Arc<dyn Kv>,
    pub(crate) store: Arc<KvStore>,
}

impl Opened {
    /// The store as the engine gets it; with the plant, one that speaks too early.
    pub(crate) fn for_engine(&self, early_ack: Option<&Arc<Teller>>) -> Arc<dyn Store> {
        match early_ack {
            None => Arc::<KvStore>::clone(&self.store),
            Some(teller) => {
                let (store, teller) = (Arc::clone(&self.store), Arc::clone(teller));
                Arc::new(Intercepted(EarlyAck { store, teller }))
            }
        }
    }
}

/// The caller of every operation.
pub(crate) fn caller() -> anyhow::Result<Caller> {
    Ok(Caller::new(CALLER)?)
}
