//! A panic, too, has a seed: of the core, of the oracle, and of any task of the engine, which would go on without it.
//!
//! A seed is one thread, so what panics on that thread is of that seed. Panics that a simulated step has on purpose are raised by
//! `resume_unwind`, which no hook hears.

use std::cell::RefCell;
use std::panic;
use std::sync::Once;

thread_local! {
    static FIRST: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// From now on this thread's first panic is kept.
pub(super) fn watch() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            FIRST.with_borrow_mut(|first| _ = first.get_or_insert_with(|| info.to_string()));
            before(info);
        }));
    });
    FIRST.take();
}

/// The first panic since, if there was one.
pub(super) fn seen() -> Option<String> {
    FIRST.take()
}
