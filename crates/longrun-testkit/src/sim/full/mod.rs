//! The full simulation: the real engine on a paused clock, over a simulated key-value store.
//!
//! One seed is several lives of a process on one medium. A life ends with a crash at a named point (the runtime with
//! all its tasks is dropped where it stands), with a gentle shutdown, or when everything is done. Faults stop after a
//! while, and then everything has to come to its end.

mod actor;
mod clients;
mod disk;
mod kind;
mod slow;
mod state;
mod steps;
mod world;

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use longrun::{BuildError, Caller, Engine, KvStore, Store};
use longrun_store::intercept::Intercepted;

use self::actor::Actor;
use self::clients::{Client, Node, Wish};
use self::disk::{SECRET, SimKv, at_once};
use self::kind::Make;
use self::slow::Slow;
use self::steps::{Fed, Lone};
use self::world::{Shared, SimEnvironment};
use super::coverage::{Coverage, CrashPoint};
use super::fast::{Outcome, Setting};
use super::invariants::Violation;
use super::invariants::calm::{Calm, check_count, check_counted};
use super::view::check_engine;
use crate::panics::lock;

/// Lives after which a seed is held to hang.
const LIVES_MAX: u32 = 40;

/// How a life ended.
enum End {
    Crashed,
    ShutDown,
    Done,
}

/// Runs one seed.
pub fn run(seed: u64, setting: Setting, coverage: &mut Coverage) -> Outcome {
    let shared = Arc::new(Shared::new(seed, setting));
    let wishes = Arc::new(Mutex::new(clients::wishes(&shared)));
    for life in 1.. {
        let built = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        let Ok(runtime) = built else {
            lock(&shared.state).judge(Err(Violation::new("runtime", "no runtime")));
            break;
        };
        let end = runtime.block_on(async {
            let life = shared.begin_life();
            // What the life before was still told of its end is not for this one.
            _ = at_once(shared.died.notified());
            let end = tokio::select! {
                biased;
                () = shared.died.notified() => End::Crashed,
                end = live(&shared, &wishes, life) => end,
            };
            shared.end_life();
            end
        });
        drop(runtime);
        shared.check_stored();
        shared.name_restart();
        if matches!(end, End::Done) || lock(&shared.state).violation.is_some() {
            break;
        }
        if let Err(violation) = check_count(life + 1, LIVES_MAX, "lives") {
            lock(&shared.state).judge(Err(violation));
            break;
        }
    }
    shared.outcome(coverage)
}

fn fail(shared: &Shared, violation: Violation) -> End {
    lock(&shared.state).judge(Err(violation));
    End::Done
}

/// Opens the store, as often as that takes.
async fn open(shared: &Arc<Shared>, life: u32) -> Arc<dyn Store> {
    loop {
        // A process that died while it started does not try again.
        dead(shared, life).await;
        let kv = SimKv { shared: Arc::clone(shared), life };
        if let Ok(store) = KvStore::open_inline(kv, SECRET) {
            return Arc::new(Intercepted(Slow {
                store,
                shared: Arc::clone(shared),
                stalled: AtomicBool::new(false),
            }));
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Starts a node, which takes the store over, as often as that takes.
async fn start(shared: &Arc<Shared>, life: u32, store: &Arc<dyn Store>, number: u32) -> Result<Node, String> {
    loop {
        dead(shared, life).await;
        let running_max = lock(&shared.state).swarm.running_max;
        let actor = Actor { shared: Arc::clone(shared), life, node: number };
        let prefix = kind::prefix().map_err(|error| error.to_string())?;
        let started = Engine::builder_shared(Arc::clone(store))
            .kind(Make)
            .step(Lone(actor.clone()))
            .step(Fed(actor))
            .operation_prefix(prefix)
            .running_max(running_max)
            .environment(SimEnvironment(Arc::clone(shared)))
            .start()
            .await;
        match started {
            Ok(engine) => return Ok(Node { engine, number }),
            Err(BuildError::Store(_)) => {}
            Err(error) => return Err(error.to_string()),
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Other nodes take the store over, one after the other, while those before them still work and do not know.
async fn take_over(shared: Arc<Shared>, life: u32, store: Arc<dyn Store>, current: Arc<Mutex<Node>>) {
    // Former engines keep working until they are dropped.
    let mut former = Vec::new();
    let count = lock(&shared.state).swarm.nodes;
    for _ in 1..count {
        let wait = {
            let mut state = lock(&shared.state);
            let most = state.rng.pick(&[100_000, 1_000_000, 8_000_000]);
            state.rng.below(most)
        };
        tokio::time::sleep(Duration::from_micros(wait)).await;
        if lock(&shared.state).calm {
            break;
        }
        let number = lock(&shared.state).next_node();
        match start(&shared, life, &store, number).await {
            Ok(node) => former.push(std::mem::replace(&mut *lock(&current), node)),
            Err(error) => return lock(&shared.state).judge(Err(Violation::new("start", error))),
        }
    }
    // Until the life is over: tasks end with the runtime.
    std::future::pending::<()>().await;
    drop(former);
}

/// Pending for ever when the process is dead; the harness is told.
async fn dead(shared: &Shared, life: u32) {
    if !lock(&shared.state).alive(life) {
        shared.check_dead();
        std::future::pending::<()>().await;
    }
}

async fn live(shared: &Arc<Shared>, wishes: &Arc<Mutex<Vec<Wish>>>, life: u32) -> End {
    let number = lock(&shared.state).next_node();
    wear(shared, life);
    let store = open(shared, life).await;
    if life > 1 && lock(&shared.state).crash_point(CrashPoint::Recovery) {
        return End::Crashed;
    }
    let current = match start(shared, life, &store, number).await {
        Ok(node) => Arc::new(Mutex::new(node)),
        Err(error) => return fail(shared, Violation::new("start", error)),
    };
    let Ok(caller) = Caller::new("client") else { return End::Done };
    let count = lock(wishes).len();
    for place in 0..count {
        let client = Client {
            shared: Arc::clone(shared),
            life,
            current: Arc::clone(&current),
            caller: caller.clone(),
            wishes: Arc::clone(wishes),
            place,
        };
        if !client_over(wishes, place) {
            tokio::spawn(client.live());
        }
    }
    tokio::spawn(chaos(Arc::clone(shared), life));
    tokio::spawn(take_over(Arc::clone(shared), life, store, Arc::clone(&current)));
    watch(shared, wishes, life, &current).await
}

fn client_over(wishes: &Mutex<Vec<Wish>>, place: usize) -> bool {
    lock(wishes)[place].over
}

/// Sees whether everything is done, whether the time for faults is over, and whether it is time to stop gently.
async fn watch(shared: &Arc<Shared>, wishes: &Mutex<Vec<Wish>>, life: u32, current: &Mutex<Node>) -> End {
    let (calm_at, shutdown) = {
        let mut state = lock(&shared.state);
        let calm_at = state.rng.between(5, 40) * 1_000_000;
        (calm_at, state.goes_wrong(200))
    };
    let stops_at = tokio::time::Instant::now() + Duration::from_millis(u64::from(life) * 1500);
    let mut calm_time = Calm::default();
    let mut pause = Duration::from_millis(100);
    loop {
        tokio::time::sleep(pause).await;
        dead(shared, life).await;
        let calm = {
            let mut state = lock(&shared.state);
            if state.violation.is_some() {
                return End::Done;
            }
            if state.virtual_now() > calm_at && !state.calm {
                state.calm = true;
                state.full = false;
            }
            state.calm
        };
        if shutdown && !calm && tokio::time::Instant::now() > stops_at {
            lock(&shared.state).name_shutdown();
            let engine = lock(current).engine.clone();
            engine.shutdown(Duration::from_secs(2)).await;
            dead(shared, life).await;
            return End::ShutDown;
        }
        let all_over = lock(wishes).iter().all(|wish| wish.over);
        let left = shared.inspect(false).map_or_else(Vec::new, |look| look.unfinished());
        let unfinished = left.len();
        let is_damaged = lock(&shared.medium).is_damaged();
        let (counted, number) = {
            let current = lock(current);
            (current.engine.unfinished(), current.number)
        };
        if !is_damaged && lock(&shared.state).owns(life, number) {
            lock(&shared.state).judge(check_counted(counted, unfinished));
        }
        // What became of a commit that was not answered may have to be found out.
        if all_over && left.is_empty() && counted == 0 && !is_damaged {
            let engine = lock(current).engine.clone();
            lock(&shared.state).calm = true;
            let known: Vec<_> = lock(&shared.state).ops.keys().copied().collect();
            let verdict = check_engine(&engine, &known).await;
            lock(&shared.state).judge(verdict);
            return End::Done;
        }
        if calm {
            let (now, set_back) = {
                let state = lock(&shared.state);
                (state.wall(), state.set_back)
            };
            calm_time.pass(pause, &left, now);
            pause = (pause * 2).min(Duration::from_secs(10));
            let verdict = calm_time.check(set_back, || {
                let held = lock(current).engine.held();
                format!(
                    "{unfinished} operations are not done, {counted} counted, clients over {all_over}, held {held:?},"
                )
            });
            if let Err(violation) = verdict {
                return fail(shared, violation);
            }
        }
    }
}

/// In some lives a bit of what is stored flips, before the store is opened or later. After a while somebody stops the process and
/// puts it right; that end is no crash, and none of the places where one may happen.
fn wear(shared: &Arc<Shared>, life: u32) {
    let (at, lasts) = {
        let mut state = lock(&shared.state);
        let rate = state.swarm.flips;
        if !state.goes_wrong(rate) {
            return;
        }
        (state.rng.pick(&[0, 0, 1_000_000, 4_000_000]), state.rng.below(8_000_000))
    };
    if at == 0 {
        flip(shared, life);
    }
    let shared = Arc::clone(shared);
    tokio::spawn(async move {
        if at > 0 {
            tokio::time::sleep(Duration::from_micros(at)).await;
            flip(&shared, life);
        }
        tokio::time::sleep(Duration::from_micros(lasts)).await;
        shared.died.notify_one();
    });
}

fn flip(shared: &Shared, life: u32) {
    let mut state = lock(&shared.state);
    if state.alive(life)
        && !state.calm
        && let Some(what) = lock(&shared.medium).flip(&mut state.rng)
    {
        state.note(&what);
    }
}

/// What the outside world does to the process: clocks that jump, disks that fill, and the power switch.
async fn chaos(shared: Arc<Shared>, life: u32) {
    let (jumps, fills) = {
        let mut state = lock(&shared.state);
        let fills = state.swarm.full && state.goes_wrong(500);
        (state.swarm.jumps, fills)
    };
    for round in 0..=jumps {
        let (wait, length, jump) = {
            let mut state = lock(&shared.state);
            let wait = state.rng.below(5_000_000);
            let length = state.rng.below(6_000_000);
            let size = state.rng.pick(&[1, 10, 600, 3600]) * 1_000_000;
            (wait, length, if state.rng.chance(500) { size } else { -size })
        };
        tokio::time::sleep(Duration::from_micros(wait)).await;
        {
            let mut state = lock(&shared.state);
            if state.calm || !state.alive(life) {
                return;
            }
            if round > 0 {
                state.jump(jump);
                continue;
            }
            if state.crash_point(CrashPoint::Idle) {
                drop(state);
                shared.check_dead();
                return;
            }
            state.full = fills;
            state.name_full();
        }
        if fills {
            tokio::time::sleep(Duration::from_micros(length)).await;
            lock(&shared.state).full = false;
        }
    }
}
