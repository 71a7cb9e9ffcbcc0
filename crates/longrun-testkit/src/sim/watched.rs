//! A panic, too, has a seed: of the core, of the oracle, and of any task of the engine, which would go on without it.
//!
//! A seed is one thread, so what panics on that thread is of that seed. Panics that a simulated step has on purpose are raised by
//! `resume_unwind`, which no hook hears, and end with their step.

use std::cell::RefCell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

thread_local! {
    static FIRST: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Runs something. With what its first panic said, wherever on this thread that was caught.
pub(super) fn watched<T: Default>(run: impl FnOnce() -> T) -> (T, Option<String>) {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            FIRST.with_borrow_mut(|first| _ = first.get_or_insert_with(|| info.to_string()));
            before(info);
        }));
    });
    FIRST.take();
    let ran = panic::catch_unwind(AssertUnwindSafe(run));
    let unheard = ran.is_err().then(|| "a panic that no hook has heard".to_owned());
    (ran.unwrap_or_default(), FIRST.take().or(unheard))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s28_a_panic_is_told_whoever_catches_it() {
        assert_eq!(watched(|| 7), (7, None));
        // A step's, on purpose, which its driver catches.
        let planned = || panic::catch_unwind(|| panic::resume_unwind(Box::new("planned"))).is_err();
        assert_eq!(watched(planned), (true, None));
        let (went_on, what) = watched(|| panic::catch_unwind(|| panic!("in a task")).is_err());
        assert!(went_on && what.unwrap().contains("in a task"));
        let (none, what) = watched(|| -> u32 { panic!("of the oracle") });
        assert!(none == 0 && what.unwrap().contains("of the oracle"));
        let (none, what) = watched(|| -> u32 { panic::resume_unwind(Box::new("caught by nobody")) });
        assert!(none == 0 && what.is_some());
    }
}
