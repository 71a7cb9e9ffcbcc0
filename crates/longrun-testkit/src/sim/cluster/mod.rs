//! The simulation of a cluster: several real engines, alive at the same time, on one store that they share.
//!
//! One seed is one run on a paused clock. Nodes crash and come again, stand still past their leases, lose their lines to the
//! store or only its answers, and shut down gently. Their wall clocks differ from each other, and anew with each start; the
//! store's goes at another pace. After a while the trouble ends, and then every operation has to come to its end. What no node
//! may do is judged against the store itself, which knows whose each operation is.

mod clients;
mod machine;
mod work;
mod world;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use longrun::store::{MemoryKv, Store};
use longrun::{OperationId, OperationQuery, PageRequest, ResourceId, ResourceList, Timestamp};
use longrun_core::Execution;
use longrun_store::Cluster;
use longrun_store::shared::SharedStore;
use tokio::time::Instant;

use self::machine::Machine;
use self::work::Thing;
use self::world::Shared;
use super::coverage::{Coverage, Fault};
use super::fast::{Outcome, Setting};
use super::invariants::answers::{answered, check_key};
use super::invariants::calm::Calm;
use super::invariants::commits::check_indexes;
use super::invariants::durable::Story;
use super::invariants::rows::{self, check_names};
use super::invariants::{Verdict, Violation};
use super::plant::Plant;
use super::view::check_engine;
use crate::panics::lock;

/// How long a node keeps what it has without a renewal.
const LEASE: Duration = Duration::from_secs(3);
/// How often a node removes what is old, and counts what is unfinished.
const SWEEP_EVERY: Duration = Duration::from_secs(5);

/// Runs one seed.
pub fn run(seed: u64, setting: Setting, coverage: &mut Coverage) -> Outcome {
    let shared = Arc::new(Shared::new(seed, setting));
    let built = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    match built {
        Ok(runtime) => {
            let verdict = runtime.block_on(live(&shared));
            drop(runtime);
            lock(&shared.state).judge(verdict);
        }
        Err(_) => lock(&shared.state).judge(Err(Violation::new("runtime", "no runtime"))),
    }
    shared.outcome(coverage)
}

async fn live(shared: &Arc<Shared>) -> Verdict {
    let (start, medium) = (Instant::now(), Arc::new(MemoryKv::new()));
    let plant = shared.setting.plant;
    let pace = if plant == Some(Plant::L1) { 0 } else { lock(&shared.state).swarm.pace };
    if pace != 1000 {
        lock(&shared.state).coverage.fault(Fault::PaceOff);
    }
    let store = SharedStore::over(Arc::clone(&medium), LEASE, move || start.elapsed() * pace / 1000);
    let store = Arc::new(store.map_err(|error| Violation::new("start", error.to_string()))?);
    if plant == Some(Plant::S30) {
        store.forget_fences();
    }
    let witness = Arc::downgrade(shared);
    store.set_witness(move |stored| {
        if let Some(shared) = witness.upgrade() {
            shared.witness(stored);
        }
    });
    shared.begin(start, Arc::clone(&store));
    let (nodes, calm_at) = {
        let mut state = lock(&shared.state);
        (state.swarm.nodes, Duration::from_millis(state.rng.between(4_000, 30_000)))
    };
    let mut machines = Vec::new();
    for place in 0..nodes {
        let machine = Machine::new(shared, &store, place);
        machine.start().await;
        machines.push(machine);
    }
    let machines: Arc<[Arc<Machine>]> = machines.into();
    let clients = clients::begin(shared, &machines);
    for machine in machines.iter() {
        tokio::spawn(Arc::clone(machine).trouble());
    }
    tokio::time::sleep(calm_at).await;
    lock(&shared.state).calm = true;
    // Whatever stands still, is cut off or is gone comes back.
    for machine in machines.iter() {
        machine.calm().await;
    }
    let mut calm = Calm::default();
    let mut pause = Duration::from_millis(100);
    loop {
        tokio::time::sleep(pause).await;
        if lock(&shared.state).violation.is_some() {
            return Ok(());
        }
        let unfinished = answered(store.unfinished().await)?;
        if unfinished == 0 && clients.iter().all(tokio::task::JoinHandle::is_finished) {
            break;
        }
        let due = answered(store.due(Timestamp::MAX, None, 1000).await)?;
        let (latest, drift) = {
            let state = lock(&shared.state);
            (machines.iter().map(|machine| state.wall(machine.offset())).max(), state.swarm.drift)
        };
        calm.pass(pause, &due, latest.unwrap_or(Timestamp::MAX));
        calm.check(2 * Duration::from_millis(drift), || {
            let held: Vec<_> =
                machines.iter().filter_map(|machine| machine.engine()).map(|engine| engine.held()).collect();
            let left = lock(&shared.state).operations.keys().copied().collect::<Vec<_>>();
            let owners = left.iter().filter_map(|id| Some((*id, store.owner(*id)?))).collect::<Vec<_>>();
            format!("{unfinished} operations are not done, owned {owners:?}, held {held:?},")
        })?;
        pause = (pause * 2).min(Duration::from_secs(5));
    }
    // They count what others have ended with their next sweeps.
    tokio::time::sleep(2 * SWEEP_EVERY).await;
    finish(shared, &store, &machines).await?;
    drop(clients);
    check_indexes(&*medium)?;
    answered(shared.trace_medium(&*medium))
}

/// Everything is done: each node says the same, holds nothing, and lists all that anybody was told of.
async fn finish(shared: &Shared, store: &SharedStore, machines: &[Arc<Machine>]) -> Verdict {
    let known: Vec<_> = lock(&shared.state).operations.keys().copied().collect();
    for engine in machines.iter().filter_map(|machine| machine.engine()) {
        check_engine(&engine, &known).await?;
    }
    // A rule about all children of one parent, whichever nodes made them.
    if let Some(engine) = machines.first().and_then(|machine| machine.engine())
        && let Ok(parent) = ResourceId::new("p")
    {
        let page = PageRequest { size: 1000, token: String::new() };
        let listed = answered(engine.list_resources::<Thing>(&ResourceList::of(parent), &page).await)?.items;
        check_names(listed.iter().map(|found| found.row.name.as_str()))?;
    }
    let mut makers: BTreeMap<String, OperationId> = BTreeMap::new();
    for id in known {
        let stored = store.load(id).await.ok().flatten();
        shared.check_end(id, stored.as_ref())?;
        let Some(known) = lock(&shared.state).operations.get(&id).cloned() else { continue };
        known.answers.check_stored(stored.as_ref().map(Execution::operation).as_ref())?;
        let Some(stored) = stored else { continue };
        // What it made nobody else touches.
        let rows = shared.rows(&known.plan).await;
        let story = Story::observed(&known.plan, &stored, None, |_| false);
        rows::check_stored(id, known.plan.claims(), &story, &rows, |_| true)?;
    }
    // Each client has one wish, whoever it asked for it, and however often.
    for operation in answered(store.list_operations(&OperationQuery::All, None, 1000).await)?.items {
        let first = *makers.entry(operation.created_by().to_string()).or_insert(operation.id());
        check_key(first, operation.id())?;
    }
    shared.name_what_was_seen(store);
    Ok(())
}
