//! [`FaultyKv`]: any backend, made to fail on demand.
//!
//! Every fault is asked for by a [`Faults`] handle and happens exactly where it was asked for, so that a test which
//! fails once fails always. Each fault counts how often it fired: a test of a fault that never happened proves nothing.
//!
//! ```
//! use longrun_store::faulty::{CommitFault, FaultyKv};
//! use longrun_store::{Batch, Kv, MemoryKv, Table};
//!
//! let (kv, faults) = FaultyKv::new(MemoryKv::new());
//! faults.fail_commit(1, CommitFault::UnknownLost);
//! let mut batch = Batch::default();
//! batch.put(Table::Meta, b"key".to_vec(), b"value".to_vec());
//! assert!(kv.commit(&batch).is_err());
//! assert!(kv.get(Table::Meta, b"key").unwrap().is_some(), "a reader may see it");
//! kv.reopen().unwrap();
//! assert!(kv.get(Table::Meta, b"key").unwrap().is_none(), "and it is gone");
//! assert_eq!(faults.fired().unknown_lost, 1);
//! ```

// To panic is its work.
#![allow(clippy::panic)]

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::kv::{Batch, Direction, Entry, KeyRange, Kv, KvCapabilities, KvError, Table};
use crate::memory::MemoryKv;

/// What happens to one commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CommitFault {
    /// Nothing is applied, and the backend says so.
    NotApplied,
    /// It is applied, readers see it, and then it is taken back: nothing was applied, says the backend.
    TakenBack,
    /// It is applied and stays; the backend does not know that.
    UnknownApplied,
    /// It is not applied; the backend does not know that.
    UnknownNotApplied,
    /// Readers see it until the backend is reopened; then it is gone, as after the loss of power.
    UnknownLost,
    /// Not applied: the backend found damage.
    Corrupt,
    /// The backend panics before it applies anything.
    PanicBefore,
    /// The backend panics after it has applied everything.
    PanicAfter,
}

/// How readings fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReadFault {
    /// This time only.
    Unavailable,
    /// The backend can no longer be trusted. Goes on until it is reopened.
    Unknown,
    /// The stored bytes are damaged.
    Corrupt,
    /// The backend panics.
    Panic,
}

/// Where a commit stalls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StallAt {
    /// Before anything is applied.
    BeforeApply,
    /// When everything is applied and visible to readers, but not durable.
    BeforeSync,
}

/// How often each fault fired.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Fired {
    /// [`CommitFault::NotApplied`].
    pub not_applied: u64,
    /// [`CommitFault::TakenBack`].
    pub taken_back: u64,
    /// [`CommitFault::UnknownApplied`].
    pub unknown_applied: u64,
    /// [`CommitFault::UnknownNotApplied`].
    pub unknown_not_applied: u64,
    /// [`CommitFault::UnknownLost`].
    pub unknown_lost: u64,
    /// [`CommitFault::Corrupt`].
    pub corrupt: u64,
    /// Both panics of [`CommitFault`].
    pub panics: u64,
    /// Commits refused because the disk was full.
    pub disk_full: u64,
    /// Readings that failed.
    pub reads: u64,
    /// Readings of which one bit was flipped.
    pub flipped_reads: u64,
    /// Bits flipped in what is stored.
    pub flipped_stored: u64,
    /// Reopens that were refused.
    pub reopens: u64,
    /// Commits that stalled.
    pub stalls: u64,
}

#[derive(Debug, Default)]
struct Plan {
    /// Calls of `commit` so far.
    commits: u64,
    /// Calls of `reopen` that went through.
    reopened: u64,
    faults: BTreeMap<u64, CommitFault>,
    disk_full: bool,
    reads: Option<ReadFault>,
    reopens_refused: u64,
    flips: Vec<(Table, Vec<u8>, usize)>,
    stall: Option<StallAt>,
    /// The number of the stall that is on.
    stalls: u64,
    /// A commit stands at the stall.
    stalled: bool,
    /// What a reopen takes back.
    lost: Vec<Batch>,
    history: Vec<Batch>,
    fired: Fired,
}

#[derive(Debug, Default)]
struct Shared {
    plan: Mutex<Plan>,
    changed: Condvar,
}

impl Shared {
    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Asks for faults, and tells what became of them. Clones share everything.
#[derive(Clone, Debug)]
pub struct Faults {
    shared: Arc<Shared>,
}

impl Faults {
    /// Lets a commit fail: the `nth` from now, 1 is the next.
    pub fn fail_commit(&self, nth: u64, fault: CommitFault) {
        let mut plan = self.shared.plan();
        let at = plan.commits + nth;
        plan.faults.insert(at, fault);
    }

    /// Refuses every commit for want of space, until switched off.
    pub fn set_disk_full(&self, full: bool) {
        self.shared.plan().disk_full = full;
    }

    /// Lets every reading fail, until switched off.
    pub fn set_reads(&self, fault: Option<ReadFault>) {
        self.shared.plan().reads = fault;
    }

    /// Refuses the next reopens.
    pub fn refuse_reopens(&self, times: u64) {
        self.shared.plan().reopens_refused = times;
    }

    /// Flips one bit of every value that is read under a key, until [`clear_flips`](Self::clear_flips).
    pub fn flip_read(&self, table: Table, key: &[u8], bit: usize) {
        self.shared.plan().flips.push((table, key.to_vec(), bit));
    }

    /// Ends all flips of readings.
    pub fn clear_flips(&self) {
        self.shared.plan().flips.clear();
    }

    /// Lets the next commits stand still until the returned guard is released or dropped.
    #[must_use = "the stall ends when this is dropped"]
    pub fn stall(&self, at: StallAt) -> Stall {
        let mut plan = self.shared.plan();
        plan.stall = Some(at);
        plan.stalls += 1;
        Stall { shared: Arc::clone(&self.shared), number: plan.stalls }
    }

    /// Ends a stall and begins another, with no commit in between that stands at neither: the commit that stands at
    /// the old one goes on, the next one stands at the new one.
    #[must_use = "the stall ends when this is dropped"]
    pub fn stall_again(&self, old: Stall, at: StallAt) -> Stall {
        let mut plan = self.shared.plan();
        plan.stall = Some(at);
        plan.stalls += 1;
        let new = Stall { shared: Arc::clone(&self.shared), number: plan.stalls };
        plan.stalled = false;
        drop(plan);
        self.shared.changed.notify_all();
        drop(old);
        new
    }

    /// How often each fault fired so far.
    pub fn fired(&self) -> Fired {
        self.shared.plan().fired
    }

    /// Calls of `commit` so far.
    pub fn commits(&self) -> u64 {
        self.shared.plan().commits
    }

    /// Reopens that went through.
    pub fn reopened(&self) -> u64 {
        self.shared.plan().reopened
    }

    /// Every batch that took effect for good, oldest first.
    pub fn history(&self) -> Vec<Batch> {
        self.shared.plan().history.clone()
    }
}

/// A store in memory that holds what these batches left.
pub fn rebuild(history: &[Batch]) -> MemoryKv {
    let kv = MemoryKv::new();
    for batch in history {
        // Memory takes everything.
        _ = kv.commit(batch);
    }
    kv
}

/// Commits stand still as long as this lives.
#[derive(Debug)]
pub struct Stall {
    shared: Arc<Shared>,
    number: u64,
}

impl Stall {
    /// Blocks until a commit stands at the stall.
    pub fn wait_reached(&self) {
        let reached = self.shared.changed.wait_while(self.shared.plan(), |plan| !plan.stalled);
        drop(reached);
    }

    /// Lets commits go on.
    pub fn release(self) {}
}

impl Drop for Stall {
    fn drop(&mut self) {
        let mut plan = self.shared.plan();
        if plan.stalls == self.number {
            plan.stall = None;
            plan.stalled = false;
        }
        drop(plan);
        self.shared.changed.notify_all();
    }
}

/// A backend that fails when its [`Faults`] say so.
#[derive(Debug)]
pub struct FaultyKv<K> {
    kv: K,
    shared: Arc<Shared>,
}

impl<K: Kv> FaultyKv<K> {
    /// Wraps a backend. Without faults it does what that does.
    pub fn new(kv: K) -> (Self, Faults) {
        let shared = Arc::new(Shared::default());
        (Self { kv, shared: Arc::clone(&shared) }, Faults { shared })
    }

    /// The backend inside, which never fails.
    pub const fn inner(&self) -> &K {
        &self.kv
    }

    /// Flips one bit of a stored value. False when there is no such bit.
    pub fn flip_stored(&self, table: Table, key: &[u8], bit: usize) -> Result<bool, KvError> {
        let Some(mut value) = self.kv.get(table, key)? else { return Ok(false) };
        if !flip(&mut value, bit) {
            return Ok(false);
        }
        let mut batch = Batch::default();
        batch.put(table, key.to_vec(), value);
        self.kv.commit(&batch)?;
        self.shared.plan().fired.flipped_stored += 1;
        Ok(true)
    }

    /// Stands still while it is asked to.
    fn stall(&self, at: StallAt) {
        let mut plan = self.shared.plan();
        if plan.stall != Some(at) {
            return;
        }
        plan.fired.stalls += 1;
        plan.stalled = true;
        self.shared.changed.notify_all();
        let number = plan.stalls;
        let goes_on =
            self.shared.changed.wait_while(plan, |plan| plan.stall.is_some() && plan.stalls == number);
        drop(goes_on);
    }

    /// The fault of the commit that begins now.
    fn begin(&self) -> Result<Option<CommitFault>, KvError> {
        let mut plan = self.shared.plan();
        plan.commits += 1;
        let number = plan.commits;
        if plan.disk_full {
            plan.fired.disk_full += 1;
            return Err(KvError::NotApplied(io::Error::from(io::ErrorKind::StorageFull).into()));
        }
        let fault = plan.faults.remove(&number);
        let fired = &mut plan.fired;
        match fault {
            None => {}
            Some(CommitFault::NotApplied) => fired.not_applied += 1,
            Some(CommitFault::TakenBack) => fired.taken_back += 1,
            Some(CommitFault::UnknownApplied) => fired.unknown_applied += 1,
            Some(CommitFault::UnknownNotApplied) => fired.unknown_not_applied += 1,
            Some(CommitFault::UnknownLost) => fired.unknown_lost += 1,
            Some(CommitFault::Corrupt) => fired.corrupt += 1,
            Some(CommitFault::PanicBefore | CommitFault::PanicAfter) => fired.panics += 1,
        }
        Ok(fault)
    }

    /// What brings back what a batch is about to change.
    fn inverse(&self, batch: &Batch) -> Result<Batch, KvError> {
        let mut inverse = Batch::default();
        for write in batch.writes.iter().rev() {
            match self.kv.get(write.table, &write.key)? {
                Some(value) => inverse.put(write.table, write.key.clone(), value),
                None => inverse.remove(write.table, write.key.clone()),
            }
        }
        Ok(inverse)
    }

    fn apply(&self, batch: &Batch) -> Result<(), KvError> {
        self.kv.commit(batch)?;
        self.shared.plan().history.push(batch.clone());
        Ok(())
    }

    fn fail(&self, batch: &Batch, fault: CommitFault) -> Result<(), KvError> {
        let cause = || injected("commit");
        match fault {
            CommitFault::NotApplied => Err(KvError::NotApplied(cause())),
            CommitFault::Corrupt => Err(KvError::Corrupt(cause())),
            CommitFault::UnknownNotApplied => Err(KvError::Unknown(cause())),
            CommitFault::UnknownApplied => {
                self.apply(batch)?;
                self.stall(StallAt::BeforeSync);
                Err(KvError::Unknown(cause()))
            }
            CommitFault::TakenBack => {
                let inverse = self.inverse(batch)?;
                self.kv.commit(batch)?;
                self.stall(StallAt::BeforeSync);
                self.kv.commit(&inverse)?;
                Err(KvError::NotApplied(cause()))
            }
            CommitFault::UnknownLost => {
                let inverse = self.inverse(batch)?;
                self.kv.commit(batch)?;
                self.shared.plan().lost.push(inverse);
                self.stall(StallAt::BeforeSync);
                Err(KvError::Unknown(cause()))
            }
            CommitFault::PanicBefore => panic!("injected panic before the batch"),
            CommitFault::PanicAfter => {
                self.apply(batch)?;
                panic!("injected panic after the batch")
            }
        }
    }

    fn before_read(&self) -> Result<(), KvError> {
        let fault = {
            let mut plan = self.shared.plan();
            let Some(fault) = plan.reads else { return Ok(()) };
            plan.fired.reads += 1;
            fault
        };
        let cause = injected("read");
        match fault {
            ReadFault::Unavailable => Err(KvError::NotApplied(cause)),
            ReadFault::Unknown => Err(KvError::Unknown(cause)),
            ReadFault::Corrupt => Err(KvError::Corrupt(cause)),
            ReadFault::Panic => panic!("injected panic in a reading"),
        }
    }

    fn after_read(&self, table: Table, key: &[u8], value: &mut [u8]) {
        let mut plan = self.shared.plan();
        let bits = plan.flips.iter().filter(|(t, k, _)| *t == table && k == key).map(|(_, _, bit)| *bit);
        let flipped = bits.collect::<Vec<_>>().into_iter().filter(|bit| flip(value, *bit)).count();
        plan.fired.flipped_reads += flipped as u64;
    }
}

fn injected(what: &str) -> crate::kv::Cause {
    io::Error::other(format!("injected: {what}")).into()
}

fn flip(value: &mut [u8], bit: usize) -> bool {
    let Some(byte) = value.get_mut(bit / 8) else { return false };
    *byte ^= 1 << (bit % 8);
    true
}

impl<K: Kv> Kv for FaultyKv<K> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, KvError> {
        self.before_read()?;
        let mut value = self.kv.get(table, key)?;
        if let Some(value) = &mut value {
            self.after_read(table, key, value);
        }
        Ok(value)
    }

    fn scan(
        &self,
        table: Table,
        range: &KeyRange,
        direction: Direction,
        limit: usize,
    ) -> Result<Vec<Entry>, KvError> {
        self.before_read()?;
        let mut entries = self.kv.scan(table, range, direction, limit)?;
        for (key, value) in &mut entries {
            self.after_read(table, key, value);
        }
        Ok(entries)
    }

    fn commit(&self, batch: &Batch) -> Result<(), KvError> {
        let fault = self.begin()?;
        self.stall(StallAt::BeforeApply);
        if let Some(fault) = fault {
            return self.fail(batch, fault);
        }
        self.apply(batch)?;
        self.stall(StallAt::BeforeSync);
        Ok(())
    }

    fn reopen(&self) -> Result<(), KvError> {
        let lost = {
            let mut plan = self.shared.plan();
            if plan.reopens_refused > 0 {
                plan.reopens_refused -= 1;
                plan.fired.reopens += 1;
                return Err(KvError::Unknown(injected("reopen")));
            }
            plan.reopened += 1;
            if plan.reads == Some(ReadFault::Unknown) {
                plan.reads = None;
            }
            std::mem::take(&mut plan.lost)
        };
        self.kv.reopen()?;
        for inverse in lost.iter().rev() {
            self.kv.commit(inverse)?;
        }
        Ok(())
    }

    fn capabilities(&self) -> KvCapabilities {
        self.kv.capabilities()
    }
}

/// A backend that takes less than the one inside, to see what a store makes of that.
#[derive(Debug)]
pub struct Small<K> {
    kv: K,
    capabilities: KvCapabilities,
}

impl<K: Kv> Small<K> {
    /// Takes at most so many bytes of keys and values in one batch.
    pub fn batches(kv: K, batch_bytes_max: usize) -> Self {
        let capabilities = KvCapabilities { batch_bytes_max, ..kv.capabilities() };
        Self { kv, capabilities }
    }

    /// Says that it takes values of at most so many bytes.
    pub fn values(kv: K, value_bytes_max: usize) -> Self {
        let capabilities = KvCapabilities { value_bytes_max, ..kv.capabilities() };
        Self { kv, capabilities }
    }
}

impl<K: Kv> Kv for Small<K> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, KvError> {
        self.kv.get(table, key)
    }

    fn scan(
        &self,
        table: Table,
        range: &KeyRange,
        direction: Direction,
        limit: usize,
    ) -> Result<Vec<Entry>, KvError> {
        self.kv.scan(table, range, direction, limit)
    }

    fn commit(&self, batch: &Batch) -> Result<(), KvError> {
        if batch.byte_len() > self.capabilities.batch_bytes_max {
            return Err(KvError::NotApplied("the batch is too large for this backend".into()));
        }
        self.kv.commit(batch)
    }

    fn reopen(&self) -> Result<(), KvError> {
        self.kv.reopen()
    }

    fn capabilities(&self) -> KvCapabilities {
        self.capabilities
    }
}
