//! A chunk store whose calls can be counted, held and made to fail, before or after their effect.

use std::io::{self, ErrorKind};
use std::sync::{Arc, Condvar, Mutex};

use longrun_snapshot::data::{
    BoxError, ByteStream, ChunkError, ChunkFolder, ChunkName, ChunkStore, Draft, IsLive, Owner, RunName,
    SnapshotId, Subject, SweepError, Swept,
};
use tokio::sync::Notify;

/// What is asked of the chunk store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Verb {
    Put,
    Find,
    Get,
    Sync,
    Quarantine,
    Remove,
    Sweep,
    BeginDraft,
    AppendDraft,
    SyncDraft,
    ReadDraft,
    Seal,
    ReadManifest,
    Discard,
    Snapshots,
}

/// Whether the effect of a call is still to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    Before,
    After,
}

/// Whether a call goes on, or the kind of error that it ends with.
pub(crate) type Rule = dyn Fn(Verb, When) -> Result<(), ErrorKind> + Send + Sync;

/// The rule in force. Without one all calls go on.
#[derive(Default)]
pub(crate) struct Switch {
    rule: Mutex<Option<Arc<Rule>>>,
    doors: Mutex<Vec<Arc<Door>>>,
}

impl std::fmt::Debug for Switch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Switch")
    }
}

impl Switch {
    pub(crate) fn on(&self, rule: impl Fn(Verb, When) -> Result<(), ErrorKind> + Send + Sync + 'static) {
        *self.rule.lock().unwrap() = Some(Arc::new(rule));
    }

    pub(crate) fn off(&self) {
        *self.rule.lock().unwrap() = None;
    }

    /// Lets everybody go on: a test that failed must not wait for those whom it holds.
    pub(crate) fn open_all(&self) {
        for door in self.doors.lock().unwrap().drain(..) {
            door.open();
        }
    }

    fn ask(&self, verb: Verb, when: When) -> Result<(), ChunkError> {
        let rule = self.rule.lock().unwrap().clone();
        rule.map_or(Ok(()), |rule| rule(verb, when)).map_err(|kind| {
            ChunkError::of_io("do what the test forbids to", Subject::Store, None, io::Error::from(kind))
        })
    }

    fn around<T>(&self, verb: Verb, call: impl FnOnce() -> Result<T, ChunkError>) -> Result<T, ChunkError> {
        self.ask(verb, When::Before)?;
        let result = call()?;
        self.ask(verb, When::After)?;
        Ok(result)
    }

    fn around_sweep<T>(
        &self,
        verb: Verb,
        call: impl FnOnce() -> Result<T, SweepError>,
    ) -> Result<T, SweepError> {
        self.ask(verb, When::Before)?;
        let result = call()?;
        self.ask(verb, When::After)?;
        Ok(result)
    }
}

/// Holds those who ask for one thing until it is opened.
#[derive(Default)]
pub(crate) struct Door {
    /// Whether somebody stands there, and whether it is open.
    state: Mutex<(bool, bool)>,
    changed: Condvar,
    arrived: Notify,
}

impl Door {
    /// A closed one for calls of `verb`.
    pub(crate) fn at(switch: &Switch, verb: Verb, when: When) -> Arc<Self> {
        let door = Arc::new(Self::default());
        let held = Arc::clone(&door);
        switch.doors.lock().unwrap().push(Arc::clone(&door));
        switch.on(move |asked, now| {
            if (asked, now) == (verb, when) {
                held.stand();
            }
            Ok(())
        });
        door
    }

    fn stand(&self) {
        let mut state = self.state.lock().unwrap();
        state.0 = true;
        self.arrived.notify_one();
        drop(self.changed.wait_while(state, |(_, open)| !*open).unwrap());
    }

    pub(crate) fn open(&self) {
        self.state.lock().unwrap().1 = true;
        self.changed.notify_all();
    }

    /// Waits until somebody stands at it. From then on virtual time stands still until it is opened.
    pub(crate) async fn somebody(&self) {
        loop {
            let arrived = self.arrived.notified();
            if self.state.lock().unwrap().0 {
                return;
            }
            arrived.await;
        }
    }
}

/// A chunk folder under a switch.
#[derive(Debug)]
pub(crate) struct Doubled {
    inner: Arc<ChunkFolder>,
    switch: Arc<Switch>,
}

impl Doubled {
    pub(crate) const fn new(inner: Arc<ChunkFolder>, switch: Arc<Switch>) -> Self {
        Self { inner, switch }
    }
}

impl ChunkStore for Doubled {
    fn claim(&self, owner: &Owner, epoch: u64) -> Result<(), ChunkError> {
        self.inner.claim(owner, epoch)
    }

    fn put(&self, name: &ChunkName, plain: &[u8]) -> Result<u64, ChunkError> {
        self.switch.around(Verb::Put, || self.inner.put(name, plain))
    }

    fn find(&self, name: &ChunkName) -> Result<Option<u64>, ChunkError> {
        self.switch.around(Verb::Find, || self.inner.find(name))
    }

    fn get(&self, name: &ChunkName) -> Result<Vec<u8>, ChunkError> {
        self.switch.around(Verb::Get, || self.inner.get(name))
    }

    fn sync(&self, names: &[ChunkName]) -> Result<(), ChunkError> {
        self.switch.around(Verb::Sync, || self.inner.sync(names))
    }

    fn quarantine(&self, name: &ChunkName) -> Result<(), ChunkError> {
        self.switch.around(Verb::Quarantine, || self.inner.quarantine(name))
    }

    fn remove(&self, names: &[ChunkName]) -> Result<(), ChunkError> {
        self.switch.around(Verb::Remove, || self.inner.remove(names))
    }

    fn sweep(&self, is_live: &mut IsLive<'_>) -> Result<Swept, SweepError> {
        self.switch.around_sweep(Verb::Sweep, || self.inner.sweep(is_live))
    }

    fn begin_draft(&self, snapshot: &SnapshotId, run: &RunName) -> Result<Box<dyn Draft>, ChunkError> {
        let draft = self.switch.around(Verb::BeginDraft, || self.inner.begin_draft(snapshot, run))?;
        Ok(Box::new(DoubledDraft { inner: draft, switch: Arc::clone(&self.switch) }))
    }

    fn read_draft(&self, snapshot: &SnapshotId, run: &RunName) -> Result<Option<ByteStream>, ChunkError> {
        self.switch.around(Verb::ReadDraft, || self.inner.read_draft(snapshot, run))
    }

    fn seal(&self, snapshot: &SnapshotId, run: &RunName) -> Result<(), ChunkError> {
        self.switch.around(Verb::Seal, || self.inner.seal(snapshot, run))
    }

    fn read_manifest(&self, snapshot: &SnapshotId) -> Result<Option<ByteStream>, ChunkError> {
        self.switch.around(Verb::ReadManifest, || self.inner.read_manifest(snapshot))
    }

    fn discard_drafts(&self, snapshot: &SnapshotId) -> Result<bool, ChunkError> {
        self.switch.around(Verb::Discard, || self.inner.discard_drafts(snapshot))
    }

    fn discard(&self, snapshot: &SnapshotId) -> Result<(), ChunkError> {
        self.switch.around(Verb::Discard, || self.inner.discard(snapshot))
    }

    fn snapshots(
        &self,
        see: &mut dyn FnMut(&[SnapshotId]) -> Result<(), BoxError>,
    ) -> Result<(), SweepError> {
        self.switch.around_sweep(Verb::Snapshots, || self.inner.snapshots(see))
    }
}

#[derive(Debug)]
struct DoubledDraft {
    inner: Box<dyn Draft>,
    switch: Arc<Switch>,
}

impl Draft for DoubledDraft {
    fn append(&mut self, bytes: &[u8]) -> Result<(), ChunkError> {
        self.switch.around(Verb::AppendDraft, || self.inner.append(bytes))
    }

    fn sync(&mut self) -> Result<(), ChunkError> {
        self.switch.around(Verb::SyncDraft, || self.inner.sync())
    }
}
