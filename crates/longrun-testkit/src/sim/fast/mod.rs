//! The fast simulation: the pure core, a simulated log on a simulated disk, and a loop over events in virtual time.
//!
//! No runtime, no codec: tens of thousands of seeds a second. The driver in here follows the rules of the engine's
//! driver (a turn is durable first and has its consequences afterwards; what is not known after a crash is adopted;
//! what only waits is left to the order of due work), so what holds here holds for the decisions of the core and for
//! these rules. Whether the engine keeps them is for [`full`](super::full) to see.

mod clients;
mod commits;
mod disk;
mod driver;
mod life;
mod names;
mod scenario;
mod schedule;
mod steps;
mod turns;
mod world;

pub use scenario::Kit;
pub use world::{Outcome, Setting, run};
