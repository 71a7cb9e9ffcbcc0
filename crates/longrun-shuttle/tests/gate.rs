//! The gate of the store, by itself: the real file, and the real file with mistakes.
//!
//! A committer shows batches before they are durable, as an engine does, and readers read meanwhile.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

mod common;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use common::{WAITS_FOR_EVER, in_many_schedules, is_found};
use shuttle::sync::atomic::{AtomicU64, Ordering};
use shuttle::thread;

/// What the files name.
mod error {
    pub(crate) use longrun_store_on_shuttle::StoreError;
}
mod sync {
    pub(crate) use shuttle::sync::atomic;
}

/// What a committer and a reader do with a gate.
trait AnyGate: Send + Sync + 'static {
    fn make() -> Self;
    fn begin(&self);
    fn settle(&self);
    fn refuse(&self);
    fn fail(&self);
    fn reopen(&self);
    /// The numbers that were read, and whether the reading says that they are of one instant. `None` when there is nothing to read.
    fn read(&self, shown: &[AtomicU64; 2]) -> Option<([u64; 2], bool)>;
}

/// A file of the build script: the gate, or one with a mistake.
macro_rules! gate {
    ($name:ident) => {
        // It is looked at where it is; a mistake may look odd besides.
        #[allow(clippy::all)]
        mod $name {
            include!(concat!(env!("OUT_DIR"), "/", stringify!($name), ".rs"));

            impl crate::AnyGate for Gate {
                fn make() -> Self {
                    Self::new()
                }
                fn begin(&self) {
                    self.begin();
                }
                fn settle(&self) {
                    self.settle();
                }
                fn refuse(&self) {
                    self.refuse();
                }
                fn fail(&self) {
                    self.fail();
                }
                fn reopen(&self) {
                    self.reopen();
                }
                fn read(&self, shown: &[AtomicU64; 2]) -> Option<([u64; 2], bool)> {
                    let read = self.read(|reading| {
                        let numbers = [0, 1].map(|place: usize| shown[place].load(Ordering::SeqCst));
                        Ok((numbers, reading.is_still()))
                    });
                    shuttle::future::block_on(read).ok().map(Result::unwrap)
                }
            }
        }
    };
}

gate!(gate);
gate!(gate_counts_before_it_writes);
gate!(gate_subscribes_after_it_looks);
gate!(gate_forgets_restarts);
gate!(gate_does_not_wait);
gate!(gate_looks_once);

const EARLY: &str = "S11: shown before it was durable";
const TORN: &str = "not of one instant";

/// What becomes of a batch.
#[derive(Clone, Copy)]
enum Batch {
    Durable,
    /// Not applied after all.
    Refused,
    /// The outcome is unknown; when the engine was reopened, it is there.
    UnknownKept,
    /// The same, and it is not.
    UnknownLost,
    /// A mistake: it is said to be durable, and becomes so a moment later.
    SettledEarly,
}

struct World<G> {
    gate: G,
    /// The newest batch, in two places which an engine does not show at the same time.
    shown: [AtomicU64; 2],
    /// Batches that are durable. Not of shuttle: to look is not a move.
    durable: Mutex<BTreeSet<u64>>,
}

impl<G: AnyGate> World<G> {
    fn show(&self, number: u64) {
        self.shown.iter().for_each(|place| place.store(number, Ordering::SeqCst));
    }

    fn sync(&self, number: u64) {
        self.durable.lock().unwrap().insert(number);
    }

    fn commit(&self, number: u64, before: u64, batch: Batch) -> u64 {
        self.gate.begin();
        self.show(number);
        match batch {
            Batch::Durable => {
                self.sync(number);
                self.gate.settle();
                number
            }
            Batch::Refused => {
                self.show(before);
                self.gate.refuse();
                before
            }
            Batch::UnknownKept => {
                self.gate.fail();
                self.sync(number);
                self.gate.reopen();
                number
            }
            Batch::UnknownLost => {
                self.gate.fail();
                self.show(before);
                self.gate.reopen();
                before
            }
            Batch::SettledEarly => {
                self.gate.settle();
                self.show(number);
                self.sync(number);
                number
            }
        }
    }

    /// S11: whatever is read is durable by then, and of one instant if it says so.
    fn read(&self) {
        if let Some((numbers, is_still)) = self.gate.read(&self.shown) {
            let durable = self.durable.lock().unwrap();
            assert!(numbers.iter().all(|number| durable.contains(number)), "{EARLY}");
            assert!(!is_still || numbers[0] == numbers[1], "{TORN}");
        }
    }
}

/// One committer and two readers, who all come to an end.
fn readers_and<G: AnyGate>(batches: &'static [Batch]) -> impl Fn() + Clone + Send + Sync + 'static {
    move || {
        let world = Arc::new(World {
            gate: G::make(),
            shown: [AtomicU64::new(0), AtomicU64::new(0)],
            durable: Mutex::new([0].into()),
        });
        let readers = [0, 1].map(|_| {
            let world = Arc::clone(&world);
            thread::spawn(move || (0..2).for_each(|_| world.read()))
        });
        let mut stored = 0;
        for (number, batch) in (1..).zip(batches) {
            stored = world.commit(number, stored, *batch);
        }
        readers.into_iter().for_each(|reader| reader.join().unwrap());
    }
}

const ALL: &[Batch] =
    &[Batch::Durable, Batch::Refused, Batch::UnknownLost, Batch::Durable, Batch::UnknownKept];

#[test]
fn s11_s39_no_reading_shows_what_is_not_durable_and_none_waits_for_ever() {
    in_many_schedules(readers_and::<gate::Gate>(&[Batch::Durable, Batch::Durable]));
    in_many_schedules(readers_and::<gate::Gate>(&[Batch::Durable, Batch::Refused]));
    in_many_schedules(readers_and::<gate::Gate>(&[Batch::UnknownLost, Batch::Durable]));
    in_many_schedules(readers_and::<gate::Gate>(ALL));
}

#[test]
fn s11_a_batch_that_is_settled_before_it_is_durable_is_found() {
    is_found(EARLY, readers_and::<gate::Gate>(&[Batch::SettledEarly]));
}

#[test]
fn s11_a_reading_that_does_not_wait_is_found() {
    is_found(EARLY, readers_and::<gate_does_not_wait::Gate>(&[Batch::Durable]));
}

#[test]
fn s11_a_reading_that_forgets_that_a_batch_was_taken_back_is_found() {
    is_found(EARLY, readers_and::<gate_forgets_restarts::Gate>(&[Batch::Refused]));
}

#[test]
fn s11_a_reading_that_looks_only_once_whether_it_is_of_one_instant_is_found() {
    is_found(TORN, readers_and::<gate_looks_once::Gate>(&[Batch::Durable]));
}

#[test]
fn s39_a_settled_batch_that_looks_for_waiting_readings_too_early_is_found() {
    is_found(WAITS_FOR_EVER, readers_and::<gate_counts_before_it_writes::Gate>(&[Batch::Durable]));
}

#[test]
fn s39_a_reading_that_subscribes_after_it_looked_is_found() {
    is_found(WAITS_FOR_EVER, readers_and::<gate_subscribes_after_it_looks::Gate>(&[Batch::Durable]));
}
