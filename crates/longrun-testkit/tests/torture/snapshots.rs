//! The kinds of the snapshot service, on a real folder.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use longrun::{Call, Caller, Engine, EngineBuilder, Kind, ResourceId, async_trait};
use longrun_snapshot::data::{ChunkFolder, DiskFolder};
use longrun_snapshot::operations::{CreateSnapshot, DeleteSnapshot, FindSnapshot, Finding, UpdateSnapshot};
use longrun_snapshot::service::{
    CreateSnapshotRequest, DeleteSnapshotRequest, Limits, UpdateSnapshotRequest,
};
use longrun_snapshot::{CreateSnapshotMetadata, DataPlane, Snapshot, SnapshotService};
use longrun_testkit::torture::{Act, Fault, Scene, torture, torture_pairs};
use tempfile::TempDir;

use super::assert_both_struck;

/// Three chunks, the last of which is a hole.
const DISK: u64 = 9 << 20;
/// One chunk: of two faults it is the order that matters, and there are many pairs.
const SMALL_DISK: u64 = 1 << 20;

/// A folder with a disk.
struct Place(TempDir);

impl Place {
    fn new(disk_bytes: u64) -> Self {
        // In memory, if the machine has a folder for that: only processes die here, and a disk would be waited for at each sync.
        let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        std::fs::create_dir(folder.path().join("disks")).unwrap();
        let disk = File::create(folder.path().join("disks/disk-1.raw")).unwrap();
        disk.set_len(disk_bytes).unwrap();
        for (place, text) in [(0, "one"), (disk_bytes / 2, "two")] {
            disk.write_all_at(text.as_bytes(), place).unwrap();
        }
        Self(folder)
    }

    fn plane(&self) -> DataPlane {
        let chunks = ChunkFolder::open(self.0.path().join("store")).unwrap();
        DataPlane::new(DiskFolder::new(self.0.path().join("disks")), chunks)
    }

    /// All files of the chunk store. Of the names of chunks, without the incarnation, which differs from run to run.
    fn files(&self) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        let mut folders: Vec<PathBuf> = vec![self.0.path().join("store")];
        while let Some(folder) = folders.pop() {
            for entry in folder.read_dir().unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    found.insert(name(path.strip_prefix(self.0.path()).unwrap()));
                }
            }
        }
        // It says whose the folder is since the first life.
        found.remove("store/owner");
        found
    }
}

fn name(path: &Path) -> String {
    let name = path.to_str().unwrap();
    match name.strip_prefix("store/chunks/") {
        Some(chunk) => chunk.split('-').next().unwrap().to_owned(),
        None => name.to_owned(),
    }
}

fn new_snapshot() -> CreateSnapshotRequest {
    CreateSnapshotRequest {
        folder_id: "home".to_owned(),
        disk_id: "disk-1".to_owned(),
        ..CreateSnapshotRequest::default()
    }
}

async fn snapshot(engine: &Engine) -> String {
    let call = Call::by(Caller::new("ann").unwrap());
    let accepted = engine.submit::<CreateSnapshot>(&new_snapshot(), call).await.unwrap();
    let done = engine.wait_done(accepted.id()).await.unwrap();
    assert!(done.response().is_some(), "{done:?}");
    done.metadata().decode::<CreateSnapshotMetadata>().unwrap().snapshot_id.to_string()
}

/// Each with the bytes of its disk.
struct Create(u64);
struct Delete(u64);
struct Update(u64);
struct Find(u64);

macro_rules! scene {
    ($scene:ident, $kind:ty, $engine:ident, $request:expr) => {
        #[async_trait]
        impl Scene for $scene {
            type Kind = $kind;
            type World = Place;
            type Picture = BTreeSet<String>;

            fn world(&self) -> Place {
                Place::new(self.0)
            }

            fn register(&self, place: &Place, builder: EngineBuilder) -> EngineBuilder {
                SnapshotService::register(builder, &place.plane(), Limits::documented())
            }

            async fn request(&self, _: &Place, $engine: &Engine) -> <$kind as Kind>::Request {
                $request
            }

            async fn look(&self, place: &Place) -> BTreeSet<String> {
                place.files()
            }
        }
    };
}

scene!(Create, CreateSnapshot, _engine, new_snapshot());
scene!(Delete, DeleteSnapshot, engine, DeleteSnapshotRequest { snapshot_id: snapshot(engine).await });
scene!(
    Update,
    UpdateSnapshot,
    engine,
    UpdateSnapshotRequest {
        snapshot_id: snapshot(engine).await,
        name: "other".to_owned(),
        ..UpdateSnapshotRequest::default()
    }
);
scene!(Find, FindSnapshot, engine, {
    let snapshot_id = snapshot(engine).await;
    let found = engine.resource::<Snapshot>(&ResourceId::new(snapshot_id.clone()).unwrap()).await.unwrap();
    let revision = found.unwrap().row.revision.0;
    Finding { snapshot_id, damage: Some("a chunk is missing".to_owned()), revision, storage_size: None }
});

#[test]
fn c09_a_create_survives_every_fault_at_every_step_and_undo() {
    let report = torture(&Create(DISK));
    println!("{report}");
    report.assert_clean();
    assert_eq!(report.trials(), 6 * Fault::ALL.len(), "copy and verify, and the undo of each in two states");
}

#[test]
fn c09_a_delete_survives_every_fault_at_every_step_and_undo() {
    let report = torture(&Delete(DISK));
    println!("{report}");
    report.assert_clean();
    assert!(report.rows().keys().any(|point| point.act != Act::Run), "the grace can be cancelled");
}

#[test]
fn c09_a_create_survives_every_pair_of_faults() {
    let report = torture_pairs(&Create(SMALL_DISK));
    println!("{report}");
    report.assert_clean();
    assert_both_struck(&report, 40);
    assert_eq!(report.trials(), 15 * Fault::ALL.len() * Fault::ALL.len(), "pairs of six places");
}

#[test]
fn c09_a_delete_survives_every_pair_of_faults() {
    let report = torture_pairs(&Delete(SMALL_DISK));
    println!("{report}");
    report.assert_clean();
    assert_both_struck(&report, 25);
    assert!(report.trials() > Fault::ALL.len() * Fault::ALL.len(), "pairs of a run and more");
}

/// Both write a row, in the commit that accepts them: nothing is between two steps. Once one has a step, its trials are owed.
#[test]
fn an_update_and_a_finding_have_no_steps() {
    for report in [torture(&Update(DISK)), torture(&Find(DISK))] {
        assert_eq!((report.trials(), report.violations().len()), (0, 0), "{report}");
    }
}
