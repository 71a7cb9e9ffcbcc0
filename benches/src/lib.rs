//! What the benchmarks share: the workloads, the stores with a meter on them, and the raw engines to compare with.

pub mod kinds;
pub mod memory;
pub mod metered;
pub mod raw;
pub mod recovery;
pub mod report;
pub mod soak;
pub mod stores;
pub mod template;
pub mod workloads;

/// A benchmark that cannot run says why, and no more is done about it.
pub type Result<T, E = anyhow::Error> = std::result::Result<T, E>;
