//! Deterministic simulation of operations under faults, with an oracle that knows the contract.
//!
//! A seed is a world: its virtual time, its store with what goes wrong there, its nodes, clients and effects. [`campaign`] runs many.
//!
//! - [`fast`]: the pure core and a simulated log. Tens of thousands of seeds a second.
//! - [`full`]: the whole engine, on a paused clock, over a simulated key-value store.
//! - [`cluster`]: several engines, alive at the same time, on a store that they share.
//! - [`invariants`]: the oracle.
//! - [`coverage`]: what was met; [`plant`]: mistakes made on purpose, to see that the oracle catches them.
//! - [`campaign`]: many seeds, one report; [`shrink`]: what a failing seed can do without.

pub mod campaign;
pub mod cluster;
pub mod coverage;
pub mod fast;
pub mod full;
pub mod invariants;
pub mod plant;
pub mod shrink;
mod trace;
mod view;
mod watched;
