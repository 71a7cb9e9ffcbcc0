//! Every fault at every step of your longrun operations; simulation and crash tests of the engine itself.
//!
//! - [`torture`](mod@torture): for users: every fault at every step and undo of an operation kind of theirs.
//! - `strategies`, with the feature `proptest`: plans, calls and sequences of commands for property tests, for users too.
//! - `sim`, with the feature of that name: operations in simulated worlds of crashes and faults, seeds by the hundred thousand, judged
//!   by an oracle that knows the contract. The program `sim` runs it.
//! - `crash`, with the feature of that name: real processes on real stores, killed and cut off from power. The program `crash` runs it.
//! - `chaos`, with the feature of that name: engines in processes of their own on one PostgreSQL, while everything around them
//!   fails. The program `chaos` runs it.
//!
//! To prove operations of your own, switch the default features off; no database is built. Add `features = ["proptest"]` for `strategies`.
//!
//! ```toml
//! [dev-dependencies]
//! longrun-testkit = { version = "0.1", default-features = false }
//! ```

// For the programs of these names, and their tests: they promise nothing to users.
#[cfg(feature = "chaos")]
#[doc(hidden)]
pub mod chaos;
#[cfg(feature = "crash")]
#[doc(hidden)]
pub mod crash;
mod panics;
// Public for the tests beside it; it promises nothing.
#[doc(hidden)]
pub mod random;
// Looks into the engine's insides and changes with them.
#[cfg(feature = "sim")]
#[doc(hidden)]
pub mod sim;
#[cfg(feature = "proptest")]
pub mod strategies;
pub mod torture;
