//! Where longrun keeps what must not be lost.
//!
//! Two levels. [`Store`] is what the engine needs, in its own words. [`Kv`] is what an embedded database has to
//! give: ordered keys, a point read, a range scan, one atomic durable batch. [`KvStore`] makes the first of the second,
//! once, for all of them.
//!
//! # The contract
//!
//! - **Atomic.** A commit holds an operation's journal entry, the rows of its resources, its index entries and its
//!   idempotency key. After any crash all of it is there, or none (C7).
//! - **Referential.** What resources share outside the store is kept alive by references, taken and dropped under the
//!   same conditions; the last one dropped leaves an orphan to remove, never a gap.
//! - **Conditional.** It happens only if the operation and the rows are as the commit expects, the key is free, and
//!   the committing owner is the newest (C17). Conditions are declared up front; there are no interactive
//!   transactions.
//! - **Durable.** When it is acknowledged, it survives what [`Durability`] names (C1). Nobody is shown anything
//!   that is not yet durable, not even the newest reader (S11).
//! - **Honest.** A failure says whether nothing was written, or whether that is unknown. What is unknown is
//!   settled by reading, never by blind repetition; after a failed sync the backend is reopened, never trusted (C22).
//! - **Bounded.** Keys, records, batches and pages have limits; a list goes on from a key, never from a count (C19).
//!
//! The contract in executable form is the conformance suite (feature `testing`): run it on any backend.
//!
//! Key layout: [`layout`]. Stored form: [`codec`].

mod cluster;
pub mod codec;
mod committer;
#[cfg(feature = "testing")]
pub mod conformance;
mod error;
#[cfg(feature = "testing")]
pub mod faulty;
mod gate;
#[cfg(feature = "testing")]
pub mod intercept;
mod items;
mod kv;
mod kv_store;
pub mod layout;
mod memory;
mod page;
mod prepare;
mod read;
mod record;
pub mod records;
// What shuttle has in place of tokio is not enough for it.
#[cfg(all(feature = "testing", not(longrun_shuttle)))]
pub mod shared;
mod store;
mod sync;
mod watched;

pub use cluster::{Asked, Claimed, Cluster, Tidings, Wanted};
pub use error::{CommitError, Conflict, SharedCause, StoreError};
pub use items::{Dropped, Holder, Taken};
pub use kv::{
    Batch, Cause, Direction, Durability, Entry, KeyRange, Kv, KvCapabilities, KvError, Table, Write,
};
pub use kv_store::{KvStore, OpenError};
/// For backends, which need no more than this of the core.
pub use longrun_core::with_causes;
pub use memory::MemoryKv;
pub use page::{PageTokenError, PageTokens};
pub use store::{
    Author, Capabilities, Commit, Due, LedgerClaim, LedgerEntry, OperationQuery, Position, Purge, Purged,
    ResourceOrder, ResourceQuery, Slice, Store, StoreId,
};
