//! [`Report`]: what a run came to, as one line of JSON.

use std::time::Duration;

use serde::Serialize;

use crate::Result;
use crate::metered::Counts;

/// How long each of many took.
#[derive(Debug, Default)]
pub struct Times(Vec<Duration>);

impl Times {
    /// Adds one.
    pub fn push(&mut self, time: Duration) {
        self.0.push(time);
    }

    /// Adds others.
    pub fn append(&mut self, mut other: Self) {
        self.0.append(&mut other.0);
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The time that so many of a hundred do not exceed, in milliseconds.
    pub fn percentile(&mut self, percent: usize) -> f64 {
        self.0.sort_unstable();
        let place = self.0.len() * percent / 100;
        self.0.get(place.min(self.0.len().saturating_sub(1))).map_or(f64::NAN, |time| millis(*time))
    }
}

/// A time in milliseconds.
pub fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// What a run came to.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// `longrun`, or `raw` for an engine by its own API.
    pub peer: &'static str,
    /// The version of this workspace.
    pub version: &'static str,
    /// What was run.
    pub workload: &'static str,
    /// Over which store.
    pub store: &'static str,
    /// How many at a time.
    pub concurrency: usize,
    /// Operations, or readings, a second.
    pub ops_per_s: f64,
    /// The median time of one, in milliseconds.
    pub p50_ms: f64,
    /// The time that 99 of 100 do not exceed, in milliseconds.
    pub p99_ms: f64,
    /// The most memory that the process has had, in MiB.
    pub rss_mib: f64,
    /// What an acknowledged commit survives.
    pub durability: &'static str,
    /// Commits of one operation.
    pub commits_per_op: f64,
    /// Bytes of keys and values that one operation writes.
    pub bytes_per_op: f64,
    /// Durable batches a second.
    pub syncs_per_s: f64,
}

/// Operations and the counts of what they cost, over a time.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cost {
    /// Operations that came to their end.
    pub operations: u64,
    /// What the store was asked for meanwhile.
    pub counts: Counts,
    /// The time.
    pub time: Duration,
}

impl Cost {
    /// Something per operation.
    #[allow(clippy::cast_precision_loss)] // Counts are far below 2^52.
    pub fn per_operation(&self, count: u64) -> f64 {
        if self.operations == 0 { 0.0 } else { count as f64 / self.operations as f64 }
    }

    /// Something a second.
    #[allow(clippy::cast_precision_loss)] // As above.
    pub fn per_second(&self, count: u64) -> f64 {
        count as f64 / self.time.as_secs_f64()
    }
}

/// The most memory that the process has had, or what it has now, in MiB. Linux only.
pub fn memory_mib(line: MemoryLine) -> Result<f64> {
    let name = match line {
        MemoryLine::Peak => "VmHWM:",
        MemoryLine::Now => "VmRSS:",
    };
    let status = std::fs::read_to_string("/proc/self/status")?;
    let kib = status.lines().find_map(|line| line.strip_prefix(name));
    let kib = kib.and_then(|rest| rest.split_whitespace().next()).and_then(|kib| kib.parse::<f64>().ok());
    Ok(kib.unwrap_or(f64::NAN) / 1024.0)
}

/// Which memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryLine {
    /// The most there was.
    Peak,
    /// What there is.
    Now,
}
