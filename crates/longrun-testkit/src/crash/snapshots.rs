//! `crash snapshots`: the snapshot service killed at its system calls, one after the other.
//!
//! Small disks that have a chunk in common; the first create in an empty chunk folder, another create, a delete, and two creates
//! and a delete at the same time. strace kills the process when a thread makes its first, its second, its third … call of each
//! sort, until it runs through untouched. Calls are counted in each thread by itself, so the one that comes to the number first is
//! hit. Then a new process lets the engine finish, and looks: each READY snapshot gives its disk back, after a collection nothing
//! is left over in the chunk folder, and every index and count agrees.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use longrun::sled::{SledKv, SledOptions};
use longrun::{Call, Engine, Operation, OperationQuery, PageRequest, ResourceStatus};
use longrun_snapshot::data::{ChunkFolder, ChunkStore, DiskFolder, ManifestReader};
use longrun_snapshot::service::{
    CreateSnapshotRequest, DeleteSnapshotRequest, GetSnapshotRequest, Limits, ListSnapshotsRequest,
};
use longrun_snapshot::{DataPlane, Snapshot, SnapshotService};
use longrun_store::KvStore;
use longrun_store::conformance::verify_indexes;
use rustix::process::Signal;
use tempfile::TempDir;

use super::child::{Victim, strace_works};
use super::cli::{SnapshotCampaign, SnapshotChild};
use super::ground::caller;
use super::report::{Report, say};

/// The calls by which anything is written.
const CALLS: [&str; 14] = [
    "openat",
    "write",
    "pwrite64",
    "fsync",
    "fdatasync",
    "sync_file_range",
    "ftruncate",
    "rename",
    "linkat",
    "mkdir",
    "unlink",
    "unlinkat",
    "rmdir",
    "lseek",
];
/// The first one finds an empty chunk folder, and claims it.
const SCRIPTS: [&str; 4] = ["first", "create", "delete", "together"];
const FOLDER: &str = "folder";
/// A disk is so many chunks of its own after the one that all have in common.
const CHUNK: usize = 4 << 20;
const WITHIN: Duration = Duration::from_secs(60);

/// Runs the test.
pub(crate) fn run(campaign: &SnapshotCampaign, seed: u64) -> anyhow::Result<ExitCode> {
    let mut report = Report::new("snapshots", seed);
    if !strace_works() {
        report.skip("kills at system calls", "strace is not installed or may not trace");
        return Ok(report.end());
    }
    let mut root = TempDir::with_prefix("longrun-snapshots-")?;
    let template = root.path().join("template");
    let empty = root.path().join("empty");
    make_disks(&empty)?;
    make_disks(&template)?;
    // With a store: a store that is killed as it is made is no matter of this test.
    for (dir, script) in [(&empty, "open"), (&template, "first")] {
        let ended =
            child(dir, script, None)?.wait(WITHIN)?.with_context(|| format!("{script} takes too long"))?;
        ensure!(ended.success(), "{script} fails by itself: {ended}");
    }
    let mut runs = 0;
    for script in SCRIPTS {
        let before = report.kills;
        for (place, call) in CALLS.into_iter().enumerate() {
            let mut untouched = 0;
            // With steps of several, each sort of call begins elsewhere, so that the seeds cover all of them.
            let first = 1 + (seed + place as u64) % campaign.every;
            for at in (first..).step_by(usize::try_from(campaign.every)?) {
                let dir = root.path().join(format!("{script}-{call}-{at}"));
                copy(if script == "first" { &empty } else { &template }, &dir)?;
                runs += 1;
                if one(&dir, script, call, at)? {
                    report.checked += 1;
                    report.kills += 1;
                    untouched = 0;
                } else {
                    untouched += 1;
                }
                match verify(&dir) {
                    Ok(()) => fs::remove_dir_all(&dir)?,
                    Err(what) => {
                        root.disable_cleanup(true);
                        report.violation(
                            format!("{script}, killed at {call} {at}: {what:#}"),
                            at,
                            Some(&dir),
                        );
                    }
                }
                // Threads share the work as it comes: one untouched run may be luck.
                if untouched >= 2 || report.violations.len() >= campaign.violations_max {
                    break;
                }
            }
        }
        say(&format!("  {script}: {runs} runs so far, {} of them killed", report.kills));
        if report.kills == before {
            report.violation(format!("{script} was never killed, so it was not checked"), 0, None);
        }
    }
    Ok(report.end())
}

/// Disks `a` and `b` begin with the same chunk.
fn make_disks(dir: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(dir.join("disks"))?;
    fs::create_dir_all(dir.join("chunks"))?;
    for (name, own) in [("a", 1_u8), ("b", 2), ("c", 3)] {
        let mut bytes = vec![7; CHUNK];
        bytes.extend(std::iter::repeat_n(own, CHUNK / 64));
        fs::write(dir.join(format!("disks/{name}.raw")), bytes)?;
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), &target)?;
        }
    }
    Ok(())
}

/// Runs a script; with `trace`, under strace with an injection.
fn child(dir: &Path, script: &str, inject: Option<(&str, u64)>) -> anyhow::Result<Victim> {
    let exe = std::env::current_exe().context("this program is not found")?;
    let mut command = match inject {
        None => Command::new(exe),
        Some((call, at)) => {
            let mut command = Command::new("strace");
            // With -D it is strace that is the grandchild: the process itself is killed and waited for.
            command.args(["-D", "-f", "-o", "/dev/null"]);
            command.args(["-e", &format!("trace={call}"), "-e"]);
            command.arg(format!("inject={call}:signal=KILL:when={at}")).arg(exe);
            command
        }
    };
    command.args(["snapshot-child", "--script", script, "--dir"]).arg(dir);
    Victim::spawn(command.stdout(Stdio::null()).stderr(Stdio::null()))
}

/// Runs a script and kills it at a call. False if it came to its end, as it made no such call; it has none of its own but success.
fn one(dir: &Path, script: &str, call: &str, at: u64) -> anyhow::Result<bool> {
    let mut victim = child(dir, script, Some((call, at)))?;
    match victim.wait(WITHIN)? {
        Some(status) if status.signal() == Some(Signal::KILL.as_raw()) => Ok(true),
        Some(status) => {
            ensure!(status.success(), "{script} fails by itself, at {call} {at}: {status}");
            Ok(false)
        }
        None => bail!("{script} hangs at {call} {at}"),
    }
}

/// In a process of its own, as it opens the store.
fn verify(dir: &Path) -> anyhow::Result<()> {
    let exe = std::env::current_exe().context("this program is not found")?;
    let mut command = Command::new(exe);
    command.args(["snapshot-child", "--script", "verify", "--dir"]).arg(dir);
    let output = command.output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout).trim());
    Ok(())
}

/// The child: does one script.
pub(crate) async fn run_child(args: &SnapshotChild) -> anyhow::Result<ExitCode> {
    let place = Place::open(&args.dir).await?;
    let result = match args.script.as_str() {
        "open" => Ok(()),
        "first" | "create" => place.create("a").await.map(drop),
        "delete" => place.delete().await,
        "together" => {
            let (created, other, deleted) =
                tokio::join!(place.create("b"), place.create("c"), place.delete());
            created.and(other).map(drop).and(deleted)
        }
        "verify" => place.verify().await,
        other => bail!("no script {other}"),
    };
    if let Err(error) = &result {
        say(&format!("{error:#}"));
    }
    let ended = place.service.engine().shutdown(Duration::from_secs(10)).await;
    ensure!(ended || result.is_err(), "the engine does not shut down");
    Ok(if result.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A service on a folder.
struct Place {
    dir: PathBuf,
    kv: Arc<SledKv>,
    chunks: Arc<dyn ChunkStore>,
    service: SnapshotService,
}

impl Place {
    async fn open(dir: &Path) -> anyhow::Result<Self> {
        let kv = Arc::new(SledKv::open(dir.join("store"), SledOptions::default().cache_bytes(16 << 20))?);
        let chunks = ChunkFolder::open(dir.join("chunks"))?;
        let plane = DataPlane::new(DiskFolder::new(dir.join("disks")), chunks);
        let chunks = Arc::clone(plane.chunks());
        let limits = Limits::default();
        let builder = Engine::builder(KvStore::open(Arc::clone(&kv))?);
        let engine = SnapshotService::register(builder, &plane, limits).start().await?;
        Ok(Self { dir: dir.to_owned(), kv, chunks, service: SnapshotService::new(engine, plane, limits) })
    }

    async fn create(&self, disk: &str) -> anyhow::Result<Operation> {
        let request = CreateSnapshotRequest {
            folder_id: FOLDER.to_owned(),
            disk_id: disk.to_owned(),
            name: format!("of-{disk}"),
            ..CreateSnapshotRequest::default()
        };
        let accepted = self.service.create(Call::by(caller()?), &request).await?;
        let done = self.service.engine().wait_done(accepted.id()).await?;
        ensure!(done.response().is_some(), "the create failed: {:?}", done.error());
        Ok(done)
    }

    /// Deletes the snapshot that was there first.
    async fn delete(&self) -> anyhow::Result<()> {
        let first = self.snapshots().await?.into_iter().find(|snapshot| snapshot.name == "of-a");
        let request = DeleteSnapshotRequest { snapshot_id: first.context("no snapshot")?.id.to_string() };
        let accepted = self.service.delete(Call::by(caller()?), &request).await?;
        let done = self.service.engine().wait_done(accepted.id()).await?;
        ensure!(done.response().is_some(), "the delete failed: {:?}", done.error());
        Ok(())
    }

    async fn snapshots(&self) -> anyhow::Result<Vec<Snapshot>> {
        let request =
            ListSnapshotsRequest { folder_id: FOLDER.to_owned(), ..ListSnapshotsRequest::default() };
        Ok(self.service.list(&caller()?, &request).await?.items)
    }

    /// Waits for the end of what the last process left, and looks at everything.
    async fn verify(&self) -> anyhow::Result<()> {
        let all =
            self.service.engine().list_operations(&OperationQuery::All, &PageRequest::default()).await?.items;
        for operation in all {
            let done = tokio::time::timeout(WITHIN, self.service.engine().wait_done(operation.id())).await;
            let done = done.with_context(|| format!("L2: {} does not end", operation.id()))??;
            ensure!(done.response().is_some(), "nobody made {} fail: {:?}", done.id(), done.error());
        }
        let snapshots = self.snapshots().await?;
        for snapshot in &snapshots {
            ensure!(snapshot.status == ResourceStatus::Ready, "{} is {}", snapshot.id, snapshot.status);
            let request = GetSnapshotRequest { snapshot_id: snapshot.id.to_string() };
            let verified = self.service.verify(&caller()?, &request).await?;
            ensure!(verified.damage.is_none(), "S25: {} is damaged: {:?}", snapshot.id, verified.damage);
            let target = self.dir.join("restored.raw");
            self.service.restore(&caller()?, &request, target.clone()).await?;
            let disk = self.dir.join(format!("disks/{}.raw", snapshot.source_disk_id));
            ensure!(fs::read(&target)? == fs::read(disk)?, "S25: {} is another disk", snapshot.id);
        }
        self.service.collect().await?;
        self.check_chunks(&snapshots)?;
        let counts = verify_indexes(self.kv.as_ref()).map_err(|wrong| anyhow::anyhow!("S12: {wrong:?}"))?;
        ensure!(counts.orphans == 0, "{} orphans are left", counts.orphans);
        Ok(())
    }

    /// In the chunk folder is what the manifests say, and nothing else.
    fn check_chunks(&self, snapshots: &[Snapshot]) -> anyhow::Result<()> {
        // The mark that says whose the folder is.
        let mut expected = BTreeSet::from(["owner".to_owned()]);
        for snapshot in snapshots {
            let id = snapshot.id.as_str().parse()?;
            expected.insert(snapshot.id.to_string());
            for entry in ManifestReader::open(&*self.chunks, &id)? {
                expected.insert(entry?.name.to_string());
            }
        }
        let mut found = BTreeSet::new();
        files_under(&self.dir.join("chunks"), &mut found)?;
        ensure!(found == expected, "S25: {:?} in the chunk folder", found.symmetric_difference(&expected));
        Ok(())
    }
}

/// The names of all files.
fn files_under(folder: &Path, found: &mut BTreeSet<String>) -> anyhow::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            files_under(&entry.path(), found)?;
        } else {
            found.insert(entry.file_name().to_string_lossy().into_owned());
        }
    }
    Ok(())
}
