//! Simulation, crash tests and oracles for the longrun engine.
//!
//! - [`sim`]: operations in a simulated world of crashes and faults, judged by an oracle that knows the contract. The
//!   program `sim` runs seeds by the hundred thousand.
//! - [`torture`](mod@torture): for users: every fault at every step and undo of an operation kind of theirs.
//! - [`crash`]: real processes on real stores, killed and cut off from power. The program `crash` runs it.

pub mod crash;
pub mod sim;
pub mod torture;
