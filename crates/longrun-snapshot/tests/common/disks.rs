//! Disks that hold their readers and fail, where a test wants it.

use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex};

use longrun_snapshot::data::{DiskError, DiskFolder, DiskId, DiskInfo, DiskRead, DiskSource};
use tokio::sync::Notify;

/// Holds readers at an offset until it is opened, and notes how far they came.
#[derive(Default)]
pub(crate) struct Gate {
    state: Mutex<State>,
    changed: Condvar,
    arrived: Notify,
}

#[derive(Default)]
struct State {
    closed_at: Option<u64>,
    fails_at: Option<u64>,
    waiting: bool,
    lowest: Option<u64>,
}

impl Gate {
    pub(crate) fn close_at(&self, offset: u64) {
        let mut state = self.state.lock().unwrap();
        (state.closed_at, state.waiting, state.lowest) = (Some(offset), false, None);
    }

    pub(crate) fn open(&self) {
        self.state.lock().unwrap().closed_at = None;
        self.changed.notify_all();
    }

    /// From here on the disk cannot be read.
    pub(crate) fn fail_at(&self, offset: u64) {
        self.state.lock().unwrap().fails_at = Some(offset);
    }

    /// The lowest offset that was read since it was closed.
    pub(crate) fn lowest(&self) -> Option<u64> {
        self.state.lock().unwrap().lowest
    }

    /// Waits until a reader stands at the gate. From then on virtual time stands still until it is opened.
    pub(crate) async fn reader(&self) {
        loop {
            let arrived = self.arrived.notified();
            if self.state.lock().unwrap().waiting {
                return;
            }
            arrived.await;
        }
    }

    fn pass(&self, offset: u64, end: u64) -> Result<(), u64> {
        let mut state = self.state.lock().unwrap();
        state.lowest = Some(state.lowest.map_or(offset, |lowest| lowest.min(offset)));
        while state.closed_at.is_some_and(|closed_at| offset >= closed_at) {
            state.waiting = true;
            self.arrived.notify_one();
            state = self.changed.wait(state).unwrap();
        }
        state.fails_at.filter(|at| *at < end).map_or(Ok(()), |at| Err(at.max(offset)))
    }
}

/// A folder of disks behind a gate.
pub(crate) struct GatedDisks(pub(crate) DiskFolder, pub(crate) Arc<Gate>);

impl DiskSource for GatedDisks {
    fn open(&self, disk: &DiskId) -> Result<Box<dyn DiskRead>, DiskError> {
        Ok(Box::new(GatedDisk(Box::new(self.0.open(disk)?), Arc::clone(&self.1))))
    }
}

struct GatedDisk(Box<dyn DiskRead>, Arc<Gate>);

impl DiskRead for GatedDisk {
    fn info(&self) -> &DiskInfo {
        self.0.info()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), DiskError> {
        self.1.pass(offset, offset + buffer.len() as u64).map_err(|offset| DiskError::Read {
            disk: self.0.info().id.clone(),
            offset,
            source: std::io::Error::other("a bad sector"),
        })?;
        self.0.read_at(offset, buffer)
    }

    fn next_data(&self, offset: u64) -> Result<Option<Range<u64>>, DiskError> {
        self.0.next_data(offset)
    }

    fn check_unchanged(&self) -> Result<(), DiskError> {
        self.0.check_unchanged()
    }
}
