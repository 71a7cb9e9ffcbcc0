//! Simulation, crash tests and oracles for the longrun engine.
//!
//! - [`torture`](mod@torture): for users: every fault at every step and undo of an operation kind of theirs.
//! - `strategies`, with the feature `proptest`: plans, calls and sequences of acts for property tests, for users too.
//! - The program `sim`: operations in simulated worlds of crashes and faults, seeds by the hundred thousand, judged by an oracle that
//!   knows the contract.
//! - `crash`, with the feature of that name: real processes on real stores, killed and cut off from power. The program `crash` runs it.
//! - `chaos`, with the feature of that name: engines in processes of their own on one PostgreSQL, while everything around them
//!   fails. The program `chaos` runs it.
//!
//! Who wants to prove operations of their own takes it without the default features, and builds no database:
//!
//! ```toml
//! [dev-dependencies]
//! longrun-testkit = { version = "0.1", default-features = false, features = ["proptest"] }
//! ```

#[cfg(feature = "chaos")]
pub mod chaos;
#[cfg(feature = "crash")]
pub mod crash;
// For the program of that name: it looks into the engine's insides and changes with them, so it promises nothing to users.
#[doc(hidden)]
pub mod sim;
#[cfg(feature = "proptest")]
pub mod strategies;
pub mod torture;
