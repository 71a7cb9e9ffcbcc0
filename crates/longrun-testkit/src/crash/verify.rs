//! Verification: opens what a crash has left, and compares it with what was acknowledged.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use longrun::{Call, Engine, OperationId, Store, SubmitError};
use longrun_store::conformance::verify_indexes;
use serde::{Deserialize, Serialize};

use super::census::Census;
use super::cli::VerifyArgs;
use super::facts::{Fact, Facts, outcome};
use super::ground::{Ground, Opened, caller};
use super::oracle;
use super::script::{End, Request, Script};

/// All that is unfinished has to end in this time.
const END_WITHIN: Duration = Duration::from_secs(60);
/// Keys that are tried with another request.
const KEYS_REUSED: usize = 5;

/// What was seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Seen {
    /// Facts that were compared.
    pub(crate) acknowledged: u64,
    /// Operations in the store.
    pub(crate) operations: u64,
    /// Operations that were unfinished when the store was opened.
    pub(crate) unfinished: u64,
    /// Unfinished operations that the engine took up and ended.
    pub(crate) resumed: u64,
    /// Of those, the ones that rolled back.
    pub(crate) rolled_back: u64,
    /// Idempotency keys that were sent again.
    pub(crate) keys: u64,
}

impl Seen {
    pub(crate) fn add(&mut self, other: Self) {
        self.acknowledged += other.acknowledged;
        self.operations += other.operations;
        self.unfinished += other.unfinished;
        self.resumed += other.resumed;
        self.rolled_back += other.rolled_back;
        self.keys += other.keys;
    }
}

/// Looks at a ground, and unless `look`, has everything finished and looks again.
pub(crate) async fn verify(ground: &Ground, args: Mode) -> anyhow::Result<(Seen, Vec<String>)> {
    let opened = ground.open()?;
    let mut seen = Seen::default();
    let mut wrong = look(ground, &opened, &mut seen).await?;
    if !args.look && wrong.is_empty() {
        wrong = finish(ground, &opened, args, &mut seen).await?;
    }
    Ok((seen, wrong))
}

/// How to verify.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Mode {
    /// Start no engine.
    pub(crate) look: bool,
    /// Tell what ended.
    pub(crate) tell: bool,
}

impl From<&VerifyArgs> for Mode {
    fn from(args: &VerifyArgs) -> Self {
        Self { look: args.look, tell: args.tell }
    }
}

/// Compares the store, as it lies there, with the facts and the effects.
pub(crate) async fn look(ground: &Ground, opened: &Opened, seen: &mut Seen) -> anyhow::Result<Vec<String>> {
    let effects = ground.open_effects()?;
    let mut wrong = compare(opened, &ground.read_facts()?, &effects.all()?, seen).await?;
    wrong.extend(effects.all_broken()?);
    Ok(wrong)
}

/// Compares a store with facts and effects.
pub(crate) async fn compare(
    opened: &Opened,
    facts: &Facts,
    effects: &BTreeMap<OperationId, BTreeSet<u16>>,
    seen: &mut Seen,
) -> anyhow::Result<Vec<String>> {
    let census = Census::take(opened.store.as_ref()).await?;
    let mut wrong = oracle::violations(&census, facts, effects);
    if let Err(problems) = verify_indexes(opened.kv.as_ref()) {
        wrong.extend(problems.into_iter().map(|problem| format!("S12: {problem}")));
    }
    seen.acknowledged = facts.acknowledged();
    seen.operations = census.operations.len() as u64;
    seen.unfinished = census.unfinished().count() as u64;
    Ok(wrong)
}

/// Starts an engine, which must take up and end all by itself.
async fn finish(
    ground: &Ground,
    opened: &Opened,
    args: Mode,
    seen: &mut Seen,
) -> anyhow::Result<Vec<String>> {
    let before = Census::take(opened.store.as_ref()).await?;
    let store: Arc<dyn Store> = opened.for_engine(None);
    let engine = ground.start(Arc::clone(&store)).await?;
    let mut wrong = Vec::new();
    let deadline = Instant::now() + END_WITHIN;
    let teller = ground.teller()?;
    for entry in before.unfinished() {
        let id = entry.operation.id();
        let operation = engine.wait(id, deadline.saturating_duration_since(Instant::now())).await?;
        let Some(outcome) = outcome(&operation) else {
            wrong.push(format!("L2: {id} does not end: {:?}, {:?}", operation.blocked(), engine.held()));
            continue;
        };
        seen.resumed += 1;
        seen.rolled_back += u64::from(operation.error().is_some());
        if args.tell {
            teller.tell(&Fact::Done { id, outcome });
        }
    }
    seen.keys = send_again(&engine, &before, &mut wrong).await?;
    engine.shutdown(Duration::from_secs(10)).await;
    let after = Census::take(store.as_ref()).await?;
    if after.operations.len() != before.operations.len() {
        wrong.push(format!(
            "S35: {} operations have become {}",
            before.operations.len(),
            after.operations.len()
        ));
    }
    wrong.extend(look(ground, opened, &mut Seen::default()).await?);
    Ok(wrong)
}

/// The same key gives the same operation, and another request with it gives none.
async fn send_again(engine: &Engine, census: &Census, wrong: &mut Vec<String>) -> anyhow::Result<u64> {
    let mut sent = 0;
    for entry in census.operations.values() {
        let id = entry.operation.id();
        let call = || Ok::<_, anyhow::Error>(Call::by(caller()?).key(entry.request.key()?));
        match engine.submit::<Script>(&entry.request, call()?).await {
            Ok(same) if same.id() == id => {}
            Ok(other) => wrong.push(format!("S35: the key of {id} gives {}", other.id())),
            Err(error) => wrong.push(format!("S35: the key of {id} gives {error}")),
        }
        if sent < KEYS_REUSED as u64 {
            let end = if entry.request.end == End::Well { End::Badly } else { End::Well };
            let changed = Request { end, ..entry.request.clone() };
            match engine.submit::<Script>(&changed, call()?).await {
                Err(SubmitError::KeyReused(other)) if other == id => {}
                other => wrong.push(format!("S35: another request with the key of {id} gives {other:?}")),
            }
        }
        sent += 1;
    }
    Ok(sent)
}
