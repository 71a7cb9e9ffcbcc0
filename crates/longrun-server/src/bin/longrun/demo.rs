//! `longrun demo`: the promises of the engine, shown to a person on a real disk image.
//!
//! The service runs in a process of its own, which the demo kills with SIGKILL in the middle of its work. With
//! `--store memory` there is nothing to survive a kill, so there the engine alone is dropped where it stands.

mod disk;
mod host;
mod screen;
mod service;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;
use longrun::store::Durability;
use longrun_snapshot::data::{ChunkFolder, SnapshotId, restore};
use serde_json::Value;

use self::host::Host;
use self::screen::Screen;
use self::service::Request;
use crate::stores::StoreChoice;

pub(crate) use self::service::serve;

/// Bytes a second that a copy may make here, so that there is time to watch it and to get in its way.
const COPY_RATE: u64 = 32 * 1024 * 1024;
/// No wait of the demo is much longer.
const PATIENCE: Duration = Duration::from_secs(30);
const MIB: u64 = 1024 * 1024;

/// What can be said about the demo.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Where operations are kept.
    #[arg(long, value_enum, default_value_t = StoreChoice::Sled)]
    store: StoreChoice,
    /// A folder for the demo's files; a temporary one, removed at the end, unless given.
    #[arg(long)]
    dir: Option<PathBuf>,
}

/// What can be said about the serving process.
#[derive(Args)]
pub(crate) struct ServeArguments {
    /// Where operations are kept.
    #[arg(long, value_enum)]
    pub(crate) store: StoreChoice,
    /// The folder with the demo's files.
    #[arg(long)]
    pub(crate) dir: PathBuf,
}

/// The folders of the demo.
pub(crate) struct Folders {
    pub(crate) data: PathBuf,
    pub(crate) disks: PathBuf,
    pub(crate) chunks: PathBuf,
}

impl Folders {
    pub(crate) fn under(dir: &Path) -> Self {
        Self { data: dir.join("data"), disks: dir.join("disks"), chunks: dir.join("chunks") }
    }
}

/// Runs the demo. True when every check passed.
pub(crate) async fn run(arguments: Arguments) -> Result<bool> {
    let temporary = tempfile::tempdir().context("cannot make a temporary folder")?;
    let dir = arguments.dir.clone().unwrap_or_else(|| temporary.path().to_owned());
    let folders = Folders::under(&dir);
    for folder in [&folders.data, &folders.disks, &folders.chunks] {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let host = match arguments.store {
        StoreChoice::Memory => Host::memory(&dir).await?,
        store => Host::process(&dir, store).await?,
    };
    let mut demo = Demo { screen: Screen::new(), host, folders };
    demo.screen.title(&format!("longrun demo on {}", demo.host.describe()));
    demo.crash_and_resume().await?;
    demo.cancel().await?;
    demo.failure().await?;
    demo.host.stop().await?;
    Ok(demo.screen.finish())
}

struct Demo {
    screen: Screen,
    host: Host,
    folders: Folders,
}

impl Demo {
    /// A create survives a kill, goes on from its checkpoint, and gives back the disk.
    async fn crash_and_resume(&mut self) -> Result<()> {
        self.screen.stage("a", "a snapshot of a 256 MiB disk image is asked for");
        let image = self.folders.disks.join("root-disk.raw");
        let written = disk::make(&image, 256 * MIB, 1)?;
        self.screen.say(&format!(
            "made {}: 256 MiB, {} MiB of it data, the rest holes",
            image.display(),
            written / MIB
        ));

        // Another key each time, as the folder may have been used before.
        let key = format!("demo-{}", std::time::SystemTime::UNIX_EPOCH.elapsed()?.as_micros());
        let create = Request::create("root-disk", "before-upgrade", Some(&key));
        let accepted = self.host.call(&create).await?;
        self.screen.json("create answers at once", &accepted);
        let operation = text(&accepted, "/id")?;
        let snapshot = text(&accepted, "/metadata/snapshotId")?;
        self.screen.check("create returned with done: false", accepted["done"] == Value::Bool(false));
        self.screen.check("metadata holds the snapshot's id", !snapshot.is_empty());
        let shown = self.host.call(&Request::Snapshot { id: snapshot.clone() }).await?;
        self.screen.json("the snapshot shows already", &shown);
        self.screen.check("the snapshot reads CREATING", shown["status"] == "CREATING");

        self.screen.stage("b", &format!("{} in the middle of the copy", self.host.describe_kill()));
        let killed_at = self.watch_until(&operation, 0.4).await?;
        self.host.kill().await?;
        self.screen.say(&format!("killed at {} MiB", killed_at / MIB));
        self.host.start().await?;
        let after = self.host.call(&Request::Get { id: operation.clone() }).await?;
        self.screen.json("after the restart, from disk", &after);
        self.screen.check("the operation is there, not done", after["done"] == Value::Bool(false));
        self.screen.check("it has no error", after.get("error").is_none());
        let checkpoint = self.host.left_at(&operation);
        self.screen.say(&format!("its last checkpoint is at {} MiB", checkpoint / MIB));
        self.screen.check("a checkpoint was saved", checkpoint > 0);

        let repeat = self.host.call(&create).await?;
        self.screen
            .check("(e) the same idempotency key gives the same operation", repeat["id"] == accepted["id"]);
        let other = Request::create("root-disk", "another-name", Some(&key));
        let refused = self.host.call(&other).await?;
        self.screen.json("the same key with another request", &refused);
        self.screen.check("(e) the same key with another request is refused", refused["error"]["code"] == 6);

        self.watch_to_the_end(&operation).await?;
        let reads = self.host.call(&Request::Reads { disk: "root-disk".to_owned() }).await?;
        let lowest = reads["lowest"].as_u64().context("nothing was read from the disk after the restart")?;
        self.screen
            .say(&format!("the lowest offset read from the disk since the restart is {} MiB", lowest / MIB));
        self.screen.check("it went on from the checkpoint, not from zero", lowest >= checkpoint);
        let done = self.host.call(&Request::Get { id: operation.clone() }).await?;
        self.screen.json("done", &done);
        self.screen.check("done: true with a response and no error", is_success(&done));
        let shown = self.host.call(&Request::Snapshot { id: snapshot.clone() }).await?;
        self.screen.check("the snapshot reads READY", shown["status"] == "READY");
        self.screen.check("disk_size is the size of the disk", shown["diskSize"] == 256 * MIB);
        let stored = shown["storageSize"].as_u64().unwrap_or(0);
        self.screen.check("holes cost nothing", stored > 0 && stored <= written + MIB);

        let restored = self.folders.disks.join("restored.raw");
        let chunks = ChunkFolder::open(&self.folders.chunks)?;
        let id: SnapshotId = snapshot.parse()?;
        restore(&chunks, &id, &restored, &mut |_| true)?;
        let equal = disk::digest(&image)? == disk::digest(&restored)?;
        self.screen.check("the restored bytes equal the disk's", equal);
        let repeat = self.host.call(&create).await?;
        self.screen.check("(e) the key still gives the same operation, now done", repeat == done);
        Ok(())
    }

    /// A create that is cancelled in the middle leaves nothing.
    async fn cancel(&mut self) -> Result<()> {
        self.screen.stage("c", "a create is cancelled in the middle of the copy");
        disk::make(&self.folders.disks.join("data-disk.raw"), 128 * MIB, 2)?;
        let before = disk::files_under(&self.folders.chunks)?;
        let accepted = self.host.call(&Request::create("data-disk", "", None)).await?;
        let (operation, snapshot) = (text(&accepted, "/id")?, text(&accepted, "/metadata/snapshotId")?);
        self.watch_until(&operation, 0.3).await?;
        let cancelled = self.host.call(&Request::Cancel { id: operation.clone() }).await?;
        self.screen.json("cancel answers", &cancelled);
        self.screen.check("error has code 1, CANCELLED", cancelled["error"]["code"] == 1);
        self.screen.check("done is still false: it rolls back", cancelled["done"] == Value::Bool(false));
        self.rolled_back(&operation, &snapshot, 1, &before).await
    }

    /// A disk that fails in the middle of a create: the cause is in `error`, and nothing is left.
    async fn failure(&mut self) -> Result<()> {
        self.screen.stage("d", "the disk fails in the middle of the copy");
        let image = self.folders.disks.join("bad-disk.raw");
        disk::make(&image, 128 * MIB, 3)?;
        let before = disk::files_under(&self.folders.chunks)?;
        let accepted = self.host.call(&Request::create("bad-disk", "", None)).await?;
        let (operation, snapshot) = (text(&accepted, "/id")?, text(&accepted, "/metadata/snapshotId")?);
        self.watch_until(&operation, 0.3).await?;
        disk::cut(&image, 40 * MIB)?;
        self.screen.say("the image is cut to 40 MiB under the copy");
        // The disk that changed its size is FAILED_PRECONDITION.
        self.rolled_back(&operation, &snapshot, 9, &before).await?;
        let done = self.host.call(&Request::Get { id: operation }).await?;
        let message = done["error"]["message"].as_str().unwrap_or_default();
        self.screen.check(
            "error names the disk and the cause",
            message.contains("bad-disk") && message.contains("size"),
        );
        Ok(())
    }

    /// Waits for the end of a rollback and looks for what should be gone.
    async fn rolled_back(
        &mut self,
        operation: &str,
        snapshot: &str,
        code: u64,
        before: &BTreeSet<PathBuf>,
    ) -> Result<()> {
        let wait = Request::Wait { id: operation.to_owned(), millis: millis(PATIENCE) };
        let done = self.host.call(&wait).await?;
        self.screen.json("when everything is undone", &done);
        self.screen.check("done: true", done["done"] == Value::Bool(true));
        self.screen.check(&format!("error has code {code}"), done["error"]["code"] == code);
        self.screen.check("no response", done.get("response").is_none());
        let gone = self.host.call(&Request::Snapshot { id: snapshot.to_owned() }).await?;
        self.screen.check("the snapshot is gone", gone["error"]["code"] == 5);
        let left = disk::files_under(&self.folders.chunks)?;
        self.screen.check("so are its chunks", left == *before);
        Ok(())
    }

    /// Shows the progress of a copy until it has come to a share of the whole. Gives the bytes done.
    async fn watch_until(&mut self, operation: &str, share: f64) -> Result<u64> {
        let begun = std::time::Instant::now();
        loop {
            ensure!(begun.elapsed() < PATIENCE, "operation {operation} makes no progress");
            let (done, total, ended) = self.progress(operation).await?;
            ensure!(!ended, "operation {operation} ended before it could be disturbed");
            self.screen.progress(done, total);
            #[allow(clippy::cast_precision_loss)] // A share needs no more than 52 bits.
            if total > 0 && done as f64 >= total as f64 * share {
                self.screen.progress_pause();
                return Ok(done);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Shows the progress of an operation until it is done.
    async fn watch_to_the_end(&mut self, operation: &str) -> Result<()> {
        let begun = std::time::Instant::now();
        loop {
            ensure!(begun.elapsed() < PATIENCE, "operation {operation} does not end");
            let (done, total, ended) = self.progress(operation).await?;
            if ended {
                self.screen.progress_end();
                return Ok(());
            }
            self.screen.progress(done, total);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn progress(&mut self, operation: &str) -> Result<(u64, u64, bool)> {
        let answer = self.host.call(&Request::Progress { id: operation.to_owned() }).await?;
        let number = |name: &str| answer[name].as_u64().unwrap_or(0);
        Ok((number("done"), number("total"), answer["ended"] == Value::Bool(true)))
    }
}

fn is_success(operation: &Value) -> bool {
    operation["done"] == Value::Bool(true)
        && operation.get("response").is_some()
        && operation.get("error").is_none()
}

fn text(value: &Value, pointer: &str) -> Result<String> {
    let found = value.pointer(pointer).and_then(Value::as_str);
    found.map(str::to_owned).with_context(|| format!("{pointer} is missing in {value}"))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// What a store survives, in words.
pub(crate) const fn survives(durability: Durability) -> &'static str {
    match durability {
        Durability::PowerLoss => "survives a loss of power",
        Durability::ProcessCrash => "survives a crash of the process",
        _ => "survives nothing",
    }
}
