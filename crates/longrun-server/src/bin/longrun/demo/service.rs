//! The service of the demo: an engine with the snapshot service, asked in JSON.

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use longrun::{Call, Caller, Engine, OperationId, Status, Store, Timestamp};
use longrun_snapshot::data::{ChunkFolder, DiskFolder, DiskId};
use longrun_snapshot::service::{CreateSnapshotRequest, GetSnapshotRequest, Limits};
use longrun_snapshot::{DataPlane, SnapshotService};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};

use super::disk::{Lowest, WatchedDisks};
use super::{COPY_RATE, Folders, ServeArguments, survives};

/// What can be asked.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "call", rename_all = "snake_case")]
pub(super) enum Request {
    Create { request: CreateSnapshotRequest, key: Option<String> },
    Get { id: String },
    Cancel { id: String },
    Wait { id: String, millis: u64 },
    Progress { id: String },
    Snapshot { id: String },
    Reads { disk: String },
    Stop,
}

impl Request {
    pub(super) fn create(disk: &str, name: &str, key: Option<&str>) -> Self {
        let request = CreateSnapshotRequest {
            folder_id: "demo-folder".to_owned(),
            disk_id: disk.to_owned(),
            name: name.to_owned(),
            description: String::new(),
            labels: BTreeMap::new(),
        };
        Self::Create { request, key: key.map(str::to_owned) }
    }
}

/// What a new service found in its store.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Greeting {
    /// The store, and what it survives.
    pub(super) store: String,
    /// The bytes that each unfinished operation had copied at its last checkpoint.
    pub(super) unfinished: BTreeMap<String, u64>,
}

/// A running service.
pub(super) struct Service {
    snapshots: SnapshotService,
    lowest: Lowest,
}

impl Service {
    pub(super) async fn start(store: Arc<dyn Store>, folders: &Folders) -> Result<(Self, Greeting)> {
        let greeting = greet(store.as_ref()).await?;
        let lowest = Lowest::default();
        let disks = WatchedDisks { disks: DiskFolder::new(&folders.disks), lowest: Arc::clone(&lowest) };
        let chunks = ChunkFolder::open(&folders.chunks)?;
        let rate = NonZeroU64::new(COPY_RATE).context("a copy rate")?;
        let plane = DataPlane::new(disks, chunks).copy_rate(rate);
        let limits = Limits::default();
        let builder = SnapshotService::register(Engine::builder_shared(store), &plane, limits);
        let snapshots = SnapshotService::new(builder.start().await?, plane, limits);
        Ok((Self { snapshots, lowest }, greeting))
    }

    /// Answers a request; an error is answered as the API would, under `error`.
    pub(super) async fn answer(&self, request: Request) -> Value {
        let answer = match request {
            Request::Create { request, key } => self.create(&request, key).await,
            Request::Get { id } => self.get(&id).await,
            Request::Cancel { id } => self.cancel(&id).await,
            Request::Wait { id, millis } => self.wait(&id, Duration::from_millis(millis)).await,
            Request::Progress { id } => self.progress(&id).await,
            Request::Snapshot { id } => self.snapshot(&id).await,
            Request::Reads { disk } => Ok(self.reads(&disk)),
            Request::Stop => {
                Ok(json!({ "stopped": self.snapshots.engine().shutdown(Duration::from_secs(10)).await }))
            }
        };
        answer.unwrap_or_else(|status| json!({ "error": status }))
    }

    async fn create(&self, request: &CreateSnapshotRequest, key: Option<String>) -> Result<Value, Status> {
        let mut call = Call::by(caller()?);
        if let Some(key) = key {
            call = call.key(key.parse()?);
        }
        let operation = self.snapshots.create(call, request).await;
        Ok(json!(operation.map_err(|error| error.status())?))
    }

    async fn get(&self, id: &str) -> Result<Value, Status> {
        let operation = self.snapshots.get_operation(&caller()?, id).await;
        Ok(json!(operation.map_err(|error| error.status())?))
    }

    async fn cancel(&self, id: &str) -> Result<Value, Status> {
        let operation = self.snapshots.cancel_operation(&caller()?, id).await;
        Ok(json!(operation.map_err(|error| error.status())?))
    }

    async fn wait(&self, id: &str, timeout: Duration) -> Result<Value, Status> {
        let operation = self.snapshots.engine().wait(OperationId::parse(id)?, timeout).await;
        Ok(json!(operation.map_err(|error| error.status())?))
    }

    async fn progress(&self, id: &str) -> Result<Value, Status> {
        let found = self.snapshots.get_operation(&caller()?, id).await;
        let operation = found.map_err(|error| error.status())?;
        let (done, total) = operation.progress().map_or((0, 0), |progress| (progress.done, progress.total));
        Ok(json!({ "done": done, "total": total, "ended": operation.done() }))
    }

    async fn snapshot(&self, id: &str) -> Result<Value, Status> {
        let request = GetSnapshotRequest { snapshot_id: id.to_owned() };
        let found = self.snapshots.get(&caller()?, &request).await;
        Ok(json!(found.map_err(|error| error.status())?))
    }

    fn reads(&self, disk: &str) -> Value {
        let lowest = self.lowest.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let lowest = disk.parse::<DiskId>().ok().and_then(|disk| lowest.get(&disk).copied());
        json!({ "lowest": lowest })
    }
}

fn caller() -> Result<Caller, Status> {
    Ok(Caller::new("demo-user")?)
}

/// Looks at what is unfinished before an engine takes it up.
async fn greet(store: &dyn Store) -> Result<Greeting> {
    let mut unfinished = BTreeMap::new();
    for due in store.due(Timestamp::MAX, None, 100).await? {
        if let Some(execution) = store.load(due.id).await? {
            let done = execution.operation().progress().map_or(0, |progress| progress.done);
            unfinished.insert(due.id.to_string(), done);
        }
    }
    let capabilities = store.capabilities();
    let store = format!("{} ({})", capabilities.name, survives(capabilities.durability));
    Ok(Greeting { store, unfinished })
}

/// The serving process: a greeting, then an answer for each request, one JSON object a line.
pub(crate) async fn serve(arguments: ServeArguments) -> Result<()> {
    let folders = Folders::under(&arguments.dir);
    let store = arguments.store.open(&folders.data)?;
    let (service, greeting) = Service::start(store, &folders).await?;
    let mut output = tokio::io::stdout();
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    write_line(&mut output, &json!(greeting)).await?;
    while let Some(line) = lines.next_line().await? {
        let request: Request = serde_json::from_str(&line).context("a request that is none")?;
        let stop = matches!(request, Request::Stop);
        write_line(&mut output, &service.answer(request).await).await?;
        if stop {
            break;
        }
    }
    Ok(())
}

async fn write_line(output: &mut tokio::io::Stdout, value: &Value) -> Result<()> {
    output.write_all(format!("{value}\n").as_bytes()).await?;
    Ok(output.flush().await?)
}
