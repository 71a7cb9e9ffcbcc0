//! The PostgreSQL store of the longrun engine: any number of engines on one database.
//!
//! ```no_run
//! use longrun_postgres::{PostgresOptions, PostgresStore};
//!
//! # async fn example() -> Result<(), longrun_postgres::OpenError> {
//! let store = PostgresStore::open(PostgresOptions::new("postgres://longrun@db.example/longrun")).await?;
//! // let engine = Engine::builder(store).kind(...).start().await?;
//! # Ok(())
//! # }
//! ```
//!
//! An operation that is part of a transaction of the service's own, with a store that it shares with its engine:
//!
//! ```ignore
//! let store = Arc::new(PostgresStore::open(options).await?);
//! let engine = Engine::builder_shared(store.clone()).kind(Provision).start().await?;
//!
//! let mut transaction = client.transaction().await?;
//! transaction.execute("INSERT INTO orders ...", &[]).await?;
//! let draft = engine.draft::<Provision>(&request, call).await?;
//! if let Some(commit) = draft.commit() {
//!     store.submit_in(&mut transaction, commit.clone()).await.map_err(|error| draft.refused(error))?;
//! }
//! transaction.commit().await?; // and with that, and only with that, it starts
//! ```
//!
//! # What it is
//!
//! - **Tables that people can query.** `longrun.operations`, `longrun.steps`, `longrun.resources`, `longrun.idempotency`,
//!   `longrun.nodes`: what one filters on has a column, payloads are `jsonb`. See `migrations/` for all of them. They are for
//!   reading: whoever writes to them by hand breaks what the engine relies on.
//! - **Group commit.** The commits of a process that come while the server is busy go into one statement, conditional on the
//!   revision of each operation, the fence of its owner and the rows that it changes (C7, C17).
//! - **Unknown outcomes are settled.** Each batch moves its committer's row on. When the answer to one is lost, the same row,
//!   moved once more, tells what became of it, and shuts it out if it is still under way (S33, C22).
//! - **Nodes.** Each engine has a lease, judged by the database's clock; what a dead node held is taken up by another within
//!   two lease times; what it still commits afterwards is refused. See [`Cluster`](longrun_store::Cluster).
//! - **Your transaction.** [`PostgresStore::submit_in`] accepts an operation in a transaction of the service's own: it starts if,
//!   and only if, that transaction commits.
//!
//! # What it needs
//!
//! PostgreSQL 12 or newer. It works in READ COMMITTED with row locks; there is no procedural code in the database, and neither
//! advisory locks nor an extension. A pooler in front of it has to keep the state of sessions: one that deals out connections by
//! transaction does not. `SKIP LOCKED` keeps nodes out of each other's way, and NOTIFY tells them sooner of what others did; both can
//! be turned off ([`skip_locked`](PostgresOptions::skip_locked), [`hints`](PostgresOptions::hints)) for what speaks the protocol of
//! PostgreSQL and does not have them.

mod batch;
mod cluster;
mod committer;
mod conflicts;
mod error;
mod items;
mod options;
mod purge;
mod read;
mod schema;
mod store;
#[cfg(feature = "testing")]
pub mod testing;
mod values;
mod wire;

pub use error::OpenError;
pub use options::PostgresOptions;
pub use store::PostgresStore;
/// What [`PostgresStore::submit_in`] takes a transaction of.
pub use tokio_postgres;
