//! Some work on each of a few things, on several threads.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        OnceLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
};

/// Why work ended early.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Broken<E> {
    /// It was told to.
    Stopped,
    /// It panicked, with this message.
    Panicked(String),
    /// It failed.
    Failed(E),
}

/// How many threads work on the chunks of one copy: one more than cores, as one waits for the medium. Each has some 10 MiB of
/// memory.
pub(super) fn worker_count() -> usize {
    static COUNT: OnceLock<usize> = OnceLock::new();
    *COUNT.get_or_init(|| thread::available_parallelism().map_or(3, |cores| cores.get() + 1).clamp(2, 4))
}

/// Does `work` on each item and returns the results in the items' order. The calling thread is one of the `workers`.
///
/// `stop` is looked at before each item. After an error or a panic no item is begun any more, and of several errors that
/// of the first item is returned. All threads have ended on return.
pub(super) fn in_parallel<I: Sync, T: Send, E: Send>(
    items: &[I],
    workers: usize,
    stop: &AtomicBool,
    work: impl Fn(&I) -> Result<T, E> + Sync,
) -> Result<Vec<T>, Broken<E>> {
    let (next, ended) = (AtomicUsize::new(0), AtomicBool::new(false));
    let worker = || {
        let mut done = Vec::new();
        while !ended.load(Ordering::Relaxed) {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(at) else { break };
            match one(item, stop, &work) {
                Ok(result) => done.push((at, result)),
                Err(broken) => {
                    ended.store(true, Ordering::Relaxed);
                    return Err((at, broken));
                }
            }
        }
        Ok(done)
    };
    let ends = thread::scope(|scope| {
        let helper = |_| thread::Builder::new().name("chunks".into()).spawn_scoped(scope, worker).ok();
        // No more threads to be had: fewer do the same work.
        let helpers: Vec<_> = (1..workers.min(items.len())).map_while(helper).collect();
        let mut ends = vec![worker()];
        ends.extend(helpers.into_iter().map(|helper| {
            helper.join().unwrap_or_else(|panic| Err((usize::MAX, Broken::Panicked(message_of(&*panic)))))
        }));
        ends
    });
    let (mut done, mut broken) = (Vec::with_capacity(items.len()), None);
    for end in ends {
        match end {
            Ok(some) => done.extend(some),
            Err((at, why)) if broken.as_ref().is_none_or(|(first, _)| at < *first) => {
                broken = Some((at, why));
            }
            Err(_) => {}
        }
    }
    if let Some((_, why)) = broken {
        return Err(why);
    }
    done.sort_unstable_by_key(|(at, _)| *at);
    Ok(done.into_iter().map(|(_, result)| result).collect())
}

fn one<I, T, E>(item: &I, stop: &AtomicBool, work: impl Fn(&I) -> Result<T, E>) -> Result<T, Broken<E>> {
    if stop.load(Ordering::Relaxed) {
        return Err(Broken::Stopped);
    }
    // Whatever the work shares with others is behind locks, or not used again after an error.
    match catch_unwind(AssertUnwindSafe(|| work(item))) {
        Ok(result) => result.map_err(Broken::Failed),
        Err(panic) => Err(Broken::Panicked(message_of(&*panic))),
    }
}

fn message_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without a text").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    static NO: AtomicBool = AtomicBool::new(false);

    #[test]
    fn results_are_in_order() {
        let items: Vec<u64> = (0..100).collect();
        for workers in [0, 1, 2, 4, 1000] {
            let doubled = in_parallel(&items, workers, &NO, |item| Ok::<_, ()>(item * 2));
            assert_eq!(doubled, Ok(items.iter().map(|item| item * 2).collect()));
        }
        assert_eq!(in_parallel(&[], 4, &NO, |_: &u64| Ok::<u64, ()>(1)), Ok(vec![]));
    }

    #[test]
    fn the_first_error_counts_and_ends_it() {
        let begun = AtomicUsize::new(0);
        let items: Vec<u64> = (0..1000).collect();
        let end = in_parallel(&items, 4, &NO, |&item| {
            begun.fetch_add(1, Ordering::Relaxed);
            if item >= 3 { Err(item) } else { Ok(()) }
        });
        assert_eq!(end, Err(Broken::Failed(3)));
        assert!(begun.load(Ordering::Relaxed) < 20);
    }

    #[test]
    fn a_panic_is_an_error_on_any_thread() {
        for workers in [1, 4] {
            let end = in_parallel(&[1, 2, 3, 4], workers, &NO, |&item: &i32| {
                assert!(item != 4, "oh {item}");
                Ok::<_, ()>(())
            });
            assert_eq!(end, Err(Broken::Panicked("oh 4".into())));
        }
    }

    #[test]
    fn it_stops_between_items() {
        let (stop, begun) = (AtomicBool::new(false), AtomicUsize::new(0));
        let end = in_parallel(&[(); 10], 1, &stop, |()| {
            stop.store(begun.fetch_add(1, Ordering::Relaxed) == 4, Ordering::Relaxed);
            Ok::<_, ()>(())
        });
        assert_eq!((end, begun.into_inner()), (Err(Broken::Stopped), 5));
    }
}
