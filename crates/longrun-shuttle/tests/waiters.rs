//! Those who wait for the end of an operation, by themselves: the real file of the engine, and the real file with mistakes.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

mod common;

use std::sync::Arc;

use common::{WAITS_FOR_EVER, in_many_schedules, is_found};
use longrun_core::OperationId;
use shuttle::sync::atomic::{AtomicBool, Ordering};
use shuttle::thread;

/// What the files name.
mod engine {
    use std::sync::PoisonError;

    use shuttle::sync::{Mutex, MutexGuard};

    pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
        mutex.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the operation looks like at its end.
const END: u32 = 7;

const NOT_OF_WHAT: &str = "L6: told, and not of what";
const EARLY: &str = "S11: told before it was durable";

/// What a driver and those who wait do.
trait AnyWaiters: Default + Send + Sync + 'static {
    fn wake(&self, id: OperationId);
    /// As [`Engine::wait`](../../longrun/src/engine.rs): registers, looks, and waits if it has to.
    fn wait(&self, id: OperationId, is_done: &AtomicBool) -> Option<u32>;
    /// Looks and registers in the other order.
    fn wait_wrongly(&self, id: OperationId, is_done: &AtomicBool) -> Option<u32>;
    /// Registers, and goes away.
    fn give_up(&self, id: OperationId);
    fn entries(&self) -> usize;
}

/// A file of the build script: the waiters, or those with a mistake.
macro_rules! waiters {
    ($name:ident) => {
        // It is looked at where it is; a mistake may look odd besides.
        #[allow(clippy::all)]
        mod $name {
            include!(concat!(env!("OUT_DIR"), "/", stringify!($name), ".rs"));

            use std::sync::atomic::Ordering;

            use shuttle::future::block_on;
            use shuttle::sync::atomic::AtomicBool;

            impl crate::AnyWaiters for Waiters<u32> {
                fn wake(&self, id: OperationId) {
                    let moment = AtomicBool::new(false);
                    self.wake(id, || {
                        // A place to be stopped at.
                        moment.load(Ordering::SeqCst);
                        crate::END
                    });
                }
                fn wait(&self, id: OperationId, is_done: &AtomicBool) -> Option<u32> {
                    let end = self.register(id);
                    if is_done.load(Ordering::SeqCst) { Some(crate::END) } else { block_on(end.notified()) }
                }
                fn wait_wrongly(&self, id: OperationId, is_done: &AtomicBool) -> Option<u32> {
                    if is_done.load(Ordering::SeqCst) {
                        return Some(crate::END);
                    }
                    block_on(self.register(id).notified())
                }
                fn give_up(&self, id: OperationId) {
                    drop(self.register(id));
                }
                fn entries(&self) -> usize {
                    lock(&self.ends).len()
                }
            }
        }
    };
}

waiters!(waiters);
waiters!(waiters_tell_before_they_keep);
waiters!(waiters_subscribe_when_they_wait);
waiters!(waiters_take_the_entry_of_others);

/// How those who take part behave.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mistake {
    None,
    /// They are told before the end is durable.
    ToldEarly,
    /// They look before they register.
    LookFirst,
}

/// A driver ends an operation. Two wait for it, one gives up waiting.
fn an_end<W: AnyWaiters>(mistake: Mistake) -> impl Fn() + Clone + Send + Sync + 'static {
    move || {
        let id = OperationId::parse("opr00000000000000000").unwrap();
        let world = Arc::new((W::default(), AtomicBool::new(false)));
        let waits = [0, 1].map(|_| {
            let world = Arc::clone(&world);
            thread::spawn(move || {
                let (waiters, is_done) = &*world;
                let end = match mistake {
                    Mistake::LookFirst => waiters.wait_wrongly(id, is_done),
                    _ => waiters.wait(id, is_done),
                };
                assert_eq!(end, Some(END), "{NOT_OF_WHAT}");
                assert!(is_done.load(Ordering::SeqCst), "{EARLY}");
            })
        });
        let gives_up = {
            let world = Arc::clone(&world);
            thread::spawn(move || world.0.give_up(id))
        };
        let (waiters, is_done) = &*world;
        if mistake == Mistake::ToldEarly {
            waiters.wake(id);
        }
        is_done.store(true, Ordering::SeqCst);
        waiters.wake(id);
        waits.into_iter().chain([gives_up]).for_each(|one| one.join().unwrap());
        assert_eq!(waiters.entries(), 0, "L7: an entry is left");
    }
}

#[test]
fn s39_l6_whoever_waits_is_told_of_the_end_also_when_it_comes_between_look_and_wait() {
    in_many_schedules(an_end::<waiters::Waiters<u32>>(Mistake::None));
}

#[test]
fn s39_a_wait_that_looks_before_it_registers_is_found() {
    is_found(WAITS_FOR_EVER, an_end::<waiters::Waiters<u32>>(Mistake::LookFirst));
}

#[test]
fn s39_a_wait_that_subscribes_after_it_looked_is_found() {
    is_found(WAITS_FOR_EVER, an_end::<waiters_subscribe_when_they_wait::Waiters<u32>>(Mistake::None));
}

#[test]
fn l6_waiters_that_are_told_before_the_end_is_durable_are_found() {
    is_found(EARLY, an_end::<waiters::Waiters<u32>>(Mistake::ToldEarly));
}

#[test]
fn l6_waiters_that_are_told_before_the_end_is_kept_for_them_are_found() {
    is_found(NOT_OF_WHAT, an_end::<waiters_tell_before_they_keep::Waiters<u32>>(Mistake::None));
}

#[test]
fn l6_one_who_leaves_and_takes_the_entry_of_others_is_found() {
    is_found(WAITS_FOR_EVER, an_end::<waiters_take_the_entry_of_others::Waiters<u32>>(Mistake::None));
}
