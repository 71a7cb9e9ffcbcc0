//! The service against a model in plain maps: random calls, faults and restarts, and in the end everything as promised.
//!
//! Each seed is a world of its own: three small disks that have chunks in common, two folders, a chunk store and a store
//! that fail now and then, engines that come and go while operations run. What the model expects of a call it knows
//! before; what has come of operations it learns from them alone. A seed decides what is called and what fails, not how
//! threads interleave: one that fails once may need some turns to fail again.
//!
//! `LONGRUN_SEEDS` scales it: one seed here for each 33 of the simulation, at least 60.
#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "../common/mod.rs"]
mod common;
mod known;
mod walk;
mod world;

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use world::{COLLECTED, Tally, World};

const CALLS: usize = 60;

fn seeds() -> u64 {
    let asked = std::env::var("LONGRUN_SEEDS").ok().and_then(|text| text.parse::<u64>().ok());
    asked.map_or(60, |seeds| (seeds / 33).max(60))
}

fn run(seed: u64) -> Tally {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let mut world = World::new(seed).await;
        for _ in 0..CALLS {
            world.turn().await;
        }
        world.finish().await
    })
}

#[test]
fn whatever_is_called_and_whatever_fails_the_service_does_as_the_model() {
    if let Some(seed) = std::env::var("LONGRUN_SEED").ok().and_then(|text| text.parse().ok()) {
        return println!("{:#?}", run(seed));
    }
    let (seeds, next) = (seeds(), AtomicU64::new(0));
    let total = Mutex::new(Tally::new());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::SeqCst);
                    if seed >= seeds {
                        return;
                    }
                    let tally = std::panic::catch_unwind(|| run(seed));
                    let tally = tally
                        .unwrap_or_else(|_| panic!("seed {seed}: run it alone with LONGRUN_SEED={seed}"));
                    for (what, times) in tally {
                        *total.lock().unwrap().entry(what).or_default() += times;
                    }
                }
            });
        }
    });
    let total = total.into_inner().unwrap();
    println!("{seeds} seeds: {total:#?}");
    let never: Vec<_> = total.iter().filter(|(what, times)| **times == 0 && **what != COLLECTED).collect();
    assert!(never.is_empty() && total.len() == 15, "never happened: {never:?} of {total:?}");
}
