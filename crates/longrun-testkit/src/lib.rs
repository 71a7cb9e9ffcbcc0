//! Simulation, crash tests and oracles for the longrun engine.
//!
//! - [`sim`]: operations in a simulated world of crashes and faults, judged by an oracle that knows the contract. The
//!   program `sim` runs seeds by the hundred thousand.
//! - [`crash`]: real processes on real stores, killed and cut off from power. The program `crash` runs it.

pub mod crash;
pub mod sim;
