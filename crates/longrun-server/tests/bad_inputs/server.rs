//! A server in this process on free ports, what it keeps in memory, and disks that can be held.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use longrun::store::{Batch, Direction, Entry, KeyRange, Kv, MemoryKv, Table};
use longrun::{Caller, Engine, KvStore};
use longrun_server::auth::{Anonymous, Tokens};
use longrun_server::listen::{Limits, Listener};
use longrun_server::quota::FolderRate;
use longrun_server::{Faces, grpc, rest};
use longrun_snapshot::data::{ChunkFolder, DiskError, DiskFolder, DiskId, DiskInfo, DiskRead, DiskSource};
use longrun_snapshot::{DataPlane, SnapshotService};
use tokio::sync::watch;

/// Longer than anything here takes; a test that waits for so long has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Bytes of the one disk, `disk-1`.
const DISK_BYTES: usize = 64 * 1024;

/// Those who have tokens: alice and bob a folder each, `eyes` may only look into alice's.
pub(crate) const TOKENS: &str =
    "alice-token alice folder-a\nbob-token bob folder-b\neyes-token eyes folder-a=read";

/// How a server is to be.
#[derive(Default)]
pub(crate) struct Setup {
    pub(crate) tokens: Option<&'static str>,
    pub(crate) rate: Option<u32>,
    pub(crate) limits: Limits,
    pub(crate) body_time: Option<Duration>,
    /// What an earlier server left behind.
    pub(crate) kv: Option<Arc<MemoryKv>>,
    /// Without the kinds of the snapshot service.
    pub(crate) no_kinds: bool,
}

pub(crate) struct Server {
    pub(crate) grpc: SocketAddr,
    pub(crate) http: SocketAddr,
    pub(crate) kv: Arc<MemoryKv>,
    pub(crate) snapshots: SnapshotService,
    pub(crate) gate: Gate,
    stop: watch::Sender<bool>,
    _folder: tempfile::TempDir,
}

impl Server {
    pub(crate) async fn new() -> Self {
        Self::with(Setup::default()).await
    }

    pub(crate) async fn with_tokens() -> Self {
        Self::with(Setup { tokens: Some(TOKENS), ..Setup::default() }).await
    }

    pub(crate) async fn with(setup: Setup) -> Self {
        crate::log::capture();
        let folder = tempfile::tempdir().unwrap();
        let disks = folder.path().join("disks");
        std::fs::create_dir(&disks).unwrap();
        std::fs::write(disks.join("disk-1.raw"), vec![7; DISK_BYTES]).unwrap();
        let gate = Gate::default();
        let source = Held { disks: DiskFolder::new(&disks), gate: gate.clone() };
        let plane = DataPlane::new(source, ChunkFolder::open(folder.path().join("chunks")).unwrap());
        let kv = setup.kv.unwrap_or_default();
        let store = KvStore::open(Arc::clone(&kv)).unwrap();
        let limits = longrun_snapshot::service::Limits::default();
        let mut builder = Engine::builder(store);
        if !setup.no_kinds {
            builder = SnapshotService::register(builder, &plane, limits);
        }
        let mut snapshots = SnapshotService::new(builder.start().await.unwrap(), plane, limits);
        if let Some(rate) = setup.rate {
            snapshots = snapshots.admission(FolderRate::per_second(NonZeroU32::new(rate).unwrap()));
        }
        let mut faces = match setup.tokens {
            None => {
                let anonymous = Anonymous::as_caller(Caller::new("anonymous").unwrap());
                Faces::of_snapshots(snapshots.clone(), anonymous)
            }
            Some(text) => {
                let tokens = Tokens::parse(text).unwrap();
                Faces::of_snapshots(snapshots.clone().access(tokens.clone()), tokens)
            }
        };
        if let Some(time) = setup.body_time {
            faces = faces.body_time(time);
        }
        let bind = || Listener::bind(SocketAddr::from(([127, 0, 0, 1], 0)), None, setup.limits);
        let (grpc_face, http_face) = (bind().await.unwrap(), bind().await.unwrap());
        let (grpc, http) = (grpc_face.address().unwrap(), http_face.address().unwrap());
        let (routes, _health) = grpc::routes(&faces).await.unwrap();
        let stop = watch::Sender::new(false);
        tokio::spawn(grpc_face.serve(routes, until(stop.subscribe())));
        tokio::spawn(http_face.serve(rest::router(&faces), until(stop.subscribe())));
        Self { grpc, http, kv, snapshots, gate, stop, _folder: folder }
    }

    /// Everything that is stored.
    pub(crate) fn state(&self) -> Vec<(Table, Entry)> {
        let all = KeyRange::prefix(b"");
        let of = |table| self.kv.scan(table, &all, Direction::Forward, usize::MAX).unwrap();
        Table::ALL
            .into_iter()
            .flat_map(|table| of(table).into_iter().map(move |entry| (table, entry)))
            .collect()
    }

    /// Ends the server and gives what it has stored.
    pub(crate) async fn end(self) -> Arc<MemoryKv> {
        self.gate.open();
        self.snapshots.engine().shutdown(PATIENCE).await;
        Arc::clone(&self.kv)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // What stands at the gate is on a thread that the runtime waits for.
        self.gate.open();
        self.stop.send_replace(true);
    }
}

async fn until(mut stop: watch::Receiver<bool>) {
    _ = stop.wait_for(|stop| *stop).await;
}

/// While it is closed, reads of disks stand still.
#[derive(Clone, Default)]
pub(crate) struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    pub(crate) fn close(&self) {
        *self.0.0.lock().unwrap() = true;
    }

    pub(crate) fn open(&self) {
        *self.0.0.lock().unwrap() = false;
        self.0.1.notify_all();
    }

    fn pass(&self) {
        let closed = self.0.0.lock().unwrap();
        drop(self.0.1.wait_while(closed, |closed| *closed).unwrap());
    }
}

/// Disks behind a gate.
struct Held {
    disks: DiskFolder,
    gate: Gate,
}

impl DiskSource for Held {
    fn open(&self, disk: &DiskId) -> Result<Box<dyn DiskRead>, DiskError> {
        let disk = DiskSource::open(&self.disks, disk)?;
        Ok(Box::new(HeldDisk { disk, gate: self.gate.clone() }))
    }
}

struct HeldDisk {
    disk: Box<dyn DiskRead>,
    gate: Gate,
}

impl DiskRead for HeldDisk {
    fn info(&self) -> &DiskInfo {
        self.disk.info()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), DiskError> {
        self.gate.pass();
        self.disk.read_at(offset, buffer)
    }

    fn next_data(&self, offset: u64) -> Result<Option<Range<u64>>, DiskError> {
        self.disk.next_data(offset)
    }

    fn check_unchanged(&self) -> Result<(), DiskError> {
        self.disk.check_unchanged()
    }
}

/// What a store has in it now, as after a crash.
pub(crate) fn copy(kv: &MemoryKv) -> Arc<MemoryKv> {
    let copy = MemoryKv::new();
    for table in Table::ALL {
        let mut batch = Batch::default();
        for (key, value) in kv.scan(table, &KeyRange::prefix(b""), Direction::Forward, usize::MAX).unwrap() {
            batch.put(table, key, value);
        }
        copy.commit(&batch).unwrap();
    }
    Arc::new(copy)
}
