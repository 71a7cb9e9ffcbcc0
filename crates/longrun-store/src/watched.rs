//! Stands between the store and a backend: a panic becomes an error, and a backend that says it can no longer be
//! trusted is taken at its word.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crate::gate::Gate;
use crate::kv::{Batch, Direction, Entry, KeyRange, Kv, KvCapabilities, KvError, Table};

pub(crate) struct Watched {
    kv: Arc<dyn Kv>,
    gate: Arc<Gate>,
}

impl Watched {
    pub(crate) fn new(kv: Arc<dyn Kv>, gate: Arc<Gate>) -> Self {
        Self { kv, gate }
    }

    /// After [`KvError::Unknown`] nothing more is read until the backend was reopened.
    fn reading<T>(&self, read: impl FnOnce() -> Result<T, KvError>) -> Result<T, KvError> {
        let restarts = self.gate.restarts();
        let result = contained(read);
        if let Err(error @ KvError::Unknown(_)) = &result {
            tracing::error!(cause = ?std::error::Error::source(error), "a reading says that the store has to be reopened");
            self.gate.distrust(restarts);
        }
        result
    }
}

impl Kv for Watched {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, KvError> {
        self.reading(|| self.kv.get(table, key))
    }

    fn scan(
        &self,
        table: Table,
        range: &KeyRange,
        direction: Direction,
        limit: usize,
    ) -> Result<Vec<Entry>, KvError> {
        self.reading(|| self.kv.scan(table, range, direction, limit))
    }

    fn commit(&self, batch: &Batch) -> Result<(), KvError> {
        contained(|| self.kv.commit(batch))
    }

    fn reopen(&self) -> Result<(), KvError> {
        contained(|| self.kv.reopen())
    }

    fn capabilities(&self) -> KvCapabilities {
        self.kv.capabilities()
    }
}

/// What a panic left behind is as unknown as what a failed sync left behind.
fn contained<T>(call: impl FnOnce() -> Result<T, KvError>) -> Result<T, KvError> {
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|panic| {
        let message = message(panic.as_ref());
        Err(KvError::Unknown(format!("the backend panicked: {message}").into()))
    })
}

fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("without a message")
}

#[cfg(test)]
mod tests {
    use std::error::Error;
    use std::panic::panic_any;

    use super::*;

    #[test]
    fn what_a_panic_of_the_backend_said_is_told() {
        let told = |panic: fn()| {
            let error = contained::<()>(|| {
                panic();
                Ok(())
            });
            error.unwrap_err().source().map(ToString::to_string).unwrap_or_default()
        };
        assert_eq!(told(|| panic_any("a text")), "the backend panicked: a text");
        assert_eq!(told(|| panic_any("made up".to_owned())), "the backend panicked: made up");
        assert_eq!(told(|| panic_any(7)), "the backend panicked: without a message");
    }
}
