//! What is done to an engine.

use std::fmt::Debug;
use std::time::Duration;

use proptest::prelude::*;
use proptest::sample::Index;

use super::call::{CallShape, calls};
use super::list::page_sizes;

/// One of the operations that were submitted so far.
#[derive(Clone, Copy, Debug)]
pub struct Which(Index);

impl Which {
    /// The one that is meant; `None` when there is none.
    pub fn pick<T>(self, all: &[T]) -> Option<&T> {
        (!all.is_empty()).then(|| self.0.get(all))
    }
}

/// What a client does, or fate.
#[derive(Clone, Debug)]
pub enum Command<R> {
    /// Asks for an operation.
    Submit {
        /// Who asks, and with which key.
        call: CallShape,
        /// For what.
        request: R,
    },
    /// Asks once more for what was asked for before, with the same key, if it had one. Two requests that are drawn are hardly ever the
    /// same.
    Repeat(Which),
    /// Cancels one.
    Cancel(Which),
    /// Waits for the end of one.
    Wait(Which),
    /// Looks at one.
    Get(Which),
    /// Lists all, in pages of so many.
    List {
        /// The size of a page.
        page_size: usize,
    },
    /// Removes one from the record, if it is done.
    Forget(Which),
    /// Lets time pass, and so steps run.
    Pass(Duration),
    /// Lets so much time pass that what is done is no longer kept, and has it removed.
    Purge,
    /// The process dies. Another opens the store.
    Crash,
}

/// Up to `commands_max` commands, one after the other. Requests are yours.
pub fn commands<R: Clone + Debug>(
    requests: impl Strategy<Value = R>,
    commands_max: usize,
) -> impl Strategy<Value = Vec<Command<R>>> {
    let which = || any::<Index>().prop_map(Which);
    let command = prop_oneof![
        6 => (calls(), requests).prop_map(|(call, request)| Command::Submit { call, request }),
        2 => which().prop_map(Command::Repeat),
        3 => which().prop_map(Command::Cancel),
        2 => which().prop_map(Command::Wait),
        2 => which().prop_map(Command::Get),
        1 => page_sizes().prop_map(|page_size| Command::List { page_size }),
        1 => which().prop_map(Command::Forget),
        3 => (0..200_u64).prop_map(|millis| Command::Pass(Duration::from_millis(millis))),
        1 => Just(Command::Purge),
        2 => Just(Command::Crash),
    ];
    proptest::collection::vec(command, 0..=commands_max)
}
