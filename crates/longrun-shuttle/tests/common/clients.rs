// A store and a disk on shuttle, clients and a reader. Included once for each store, which is `store` where it is included.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::{Arc, Mutex};

use longrun_core::{Fence, OperationId};
use shuttle::future::block_on;
use shuttle::sync::atomic::{AtomicBool, Ordering};
use shuttle::thread;

use self::store::conformance::sample::{Draft, Live, creates, operation_id, resource_key};
use self::store::{
    Batch, Commit, CommitError, Conflict, Direction, Durability, Entry, KeyRange, Kv, KvCapabilities,
    KvError, KvStore, Store, Table, Write,
};
use crate::{EARLY, REFUSED_EARLY};

/// What becomes of a batch.
#[derive(Clone, Copy, Debug)]
pub enum Fate {
    Durable,
    NotApplied,
    UnknownKept,
    UnknownLost,
    /// A mistake: it is said to be durable, and is not.
    Forgotten,
}

type Tables = BTreeMap<(usize, Vec<u8>), Vec<u8>>;

/// An engine that shows a batch write by write before it is durable, as [`Kv`] allows it. Its own locks are not shuttle's: no thread
/// is stopped while it holds one.
pub struct Disk {
    shown: Mutex<Tables>,
    durable: Mutex<Tables>,
    /// Of the batches to come. Those after them are durable.
    fates: Mutex<VecDeque<Fate>>,
    /// A place for shuttle to stop a thread at.
    moment: AtomicBool,
}

impl Disk {
    fn new() -> Self {
        let (shown, durable, fates) = (Mutex::default(), Mutex::default(), Mutex::default());
        Self { shown, durable, fates, moment: AtomicBool::new(false) }
    }

    fn pause(&self) {
        self.moment.load(Ordering::SeqCst);
    }

    /// Whether the operation would be there after a crash.
    pub fn holds(&self, id: OperationId) -> bool {
        let key = (Table::Operations.index(), id.as_bytes().to_vec());
        self.durable.lock().unwrap().contains_key(&key)
    }

    fn write(tables: &Mutex<Tables>, write: &Write) {
        let (mut tables, key) = (tables.lock().unwrap(), (write.table.index(), write.key.clone()));
        match &write.value {
            Some(value) => _ = tables.insert(key, value.clone()),
            None => _ = tables.remove(&key),
        }
    }

    /// Shows what is durable.
    fn take_back(&self) {
        let durable = self.durable.lock().unwrap().clone();
        *self.shown.lock().unwrap() = durable;
    }
}

impl Kv for Disk {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, KvError> {
        self.pause();
        Ok(self.shown.lock().unwrap().get(&(table.index(), key.to_vec())).cloned())
    }

    fn scan(
        &self,
        table: Table,
        range: &KeyRange,
        direction: Direction,
        limit: usize,
    ) -> Result<Vec<Entry>, KvError> {
        self.pause();
        if range.is_empty() {
            return Ok(Vec::new());
        }
        let bound = |bound: Bound<&Vec<u8>>| bound.map(Clone::clone);
        let within = (bound(range.from.as_ref()), bound(range.to.as_ref()));
        let tables = self.shown.lock().unwrap();
        let found = tables.iter().filter(|((of, key), _)| *of == table.index() && range_holds(&within, key));
        let found = found.map(|((_, key), value)| (key.clone(), value.clone()));
        Ok(match direction {
            Direction::Forward => found.take(limit).collect(),
            Direction::Backward => found.rev().take(limit).collect(),
        })
    }

    fn commit(&self, batch: &Batch) -> Result<(), KvError> {
        let fate = self.fates.lock().unwrap().pop_front().unwrap_or(Fate::Durable);
        for write in &batch.writes {
            Self::write(&self.shown, write);
            self.pause();
        }
        if let Fate::Durable | Fate::UnknownKept = fate {
            batch.writes.iter().for_each(|write| Self::write(&self.durable, write));
            self.pause();
        }
        match fate {
            Fate::Durable | Fate::Forgotten => Ok(()),
            Fate::NotApplied => {
                self.take_back();
                Err(KvError::NotApplied("no".into()))
            }
            Fate::UnknownKept | Fate::UnknownLost => Err(KvError::Unknown("perhaps".into())),
        }
    }

    fn reopen(&self) -> Result<(), KvError> {
        self.take_back();
        Ok(())
    }

    fn capabilities(&self) -> KvCapabilities {
        KvCapabilities::new("disk on shuttle", Durability::PowerLoss, usize::MAX, usize::MAX)
    }
}

fn range_holds((from, to): &(Bound<Vec<u8>>, Bound<Vec<u8>>), key: &Vec<u8>) -> bool {
    use std::ops::RangeBounds;
    (from.clone(), to.clone()).contains(key)
}

/// A store whose committer has a thread, on a disk.
pub fn opened(fates: &[Fate]) -> (Arc<KvStore>, Arc<Disk>, Fence) {
    let disk = Arc::new(Disk::new());
    let store = KvStore::open(Arc::clone(&disk)).unwrap();
    let fence = block_on(store.take_over()).unwrap();
    disk.fates.lock().unwrap().extend(fates);
    (Arc::new(store), disk, fence)
}

/// What a client was told, checked at the moment at which it was.
fn check(disk: &Disk, id: OperationId, rival: Option<OperationId>, answer: &Result<(), CommitError>) {
    match answer {
        Ok(()) => assert!(disk.holds(id), "{EARLY}"),
        Err(CommitError::Conflict(Conflict::Resource { holder, .. })) => {
            assert!(!disk.holds(id));
            assert_eq!(*holder, rival);
            assert!(rival.is_some_and(|rival| disk.holds(rival)), "{REFUSED_EARLY}");
        }
        Err(CommitError::Unavailable(_)) => assert!(!disk.holds(id), "C22: refused, and it is there"),
        Err(CommitError::Unknown(_)) => {}
        Err(error) => panic!("{error}"),
    }
}

/// Two operations that want the same resource, one that wants none, and a reader.
pub fn rivals(fates: &'static [Fate]) -> impl Fn() + Clone + Send + Sync + 'static {
    move || {
        let (store, disk, fence) = opened(fates);
        let ids = [1, 2, 3].map(operation_id);
        let wanted = |n: u64| Draft::chain(n, 1).with(creates("r", "folder"));
        let drafts = [wanted(1), wanted(2), Draft::chain(3, 1)];
        let rivals = [Some(ids[1]), Some(ids[0]), None];
        let clients: Vec<_> = drafts
            .into_iter()
            .zip(rivals)
            .map(|(draft, rival)| {
                let (store, disk) = (Arc::clone(&store), Arc::clone(&disk));
                thread::spawn(move || {
                    let (live, commit): (Live, Commit) = draft.accept(fence);
                    let answer = block_on(store.commit(commit));
                    check(&disk, live.id(), rival, &answer);
                    answer
                })
            })
            .collect();
        let reader = {
            let (store, disk) = (Arc::clone(&store), Arc::clone(&disk));
            thread::spawn(move || read(&store, &disk, ids))
        };
        let answers: Vec<_> = clients.into_iter().map(|client| client.join().unwrap()).collect();
        reader.join().unwrap();
        let accepted = answers[..2].iter().filter(|answer| answer.is_ok()).count();
        assert!(accepted <= 1, "both have the resource");
        let whole = fates.iter().all(|fate| matches!(fate, Fate::Durable));
        assert!(!whole || accepted == 1 && answers[2].is_ok(), "refused without a reason: {answers:?}");
    }
}

/// S11: what a reader sees is durable by then. C7: with the row its operation is there.
fn read(store: &KvStore, disk: &Disk, ids: [OperationId; 3]) {
    if let Ok(Some(row)) = block_on(store.resource(&resource_key("r"))) {
        let holder = row.operation.unwrap();
        assert!(disk.holds(holder), "S11: a row was shown before it was durable");
        assert!(!matches!(block_on(store.load(holder)), Ok(None)), "C7: a row without its operation");
    }
    for id in ids {
        if let Ok(Some(_)) = block_on(store.load(id)) {
            assert!(disk.holds(id), "S11: an operation was shown before it was durable");
        }
    }
}
