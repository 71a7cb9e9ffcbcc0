//! [`SnapshotService`]: the methods of the API, for one caller at a time.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use longrun::store::{CommitError, PageTokenError, StoreError};
use longrun::{
    Call, Caller, Code, CommandError, Engine, EngineBuilder, Found, Incarnation, Invalid, ItemKey, Kind,
    Operation, OperationId, OperationQuery, Page, PageRequest, ReadError, Resource, ResourceId, ResourceKey,
    ResourceList, ResourceOrder, ResourceStatus, Status, StepError, SubmitError,
};
use serde::Deserialize;

use super::{
    CreateSnapshotRequest, DeleteSnapshotRequest, GetSnapshotRequest, Limits, ListSnapshotOperationsRequest,
    ListSnapshotsRequest, OrderField, UpdateSnapshotRequest, Violations,
};
use crate::data::{
    self, BadId, ChunkError, ChunkName, ChunkStore, DamagedPlace, ReadBackError, SnapshotId, Summary, Verdict,
};
use crate::operations::{CreateSnapshot, DeleteSnapshot, FindSnapshot, Finding, UpdateSnapshot, not_found};
use crate::plane::{DataPlane, blocking, item};
use crate::snapshot::Snapshot;
use crate::steps::{CopyDisk, Grace, RemoveSnapshot, StopOnDrop, VerifyCopy};

/// Damaged places that are named in a snapshot's damage.
const PLACES_NAMED: usize = 5;

/// What a caller wants to do in a folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// See snapshots and their operations.
    Read,
    /// Create, change and delete snapshots, and cancel operations.
    Write,
}

/// Decides what callers may do. Without one, everybody may do everything.
pub trait Access: Send + Sync + 'static {
    /// Whether the caller may do this in the folder.
    fn may(&self, caller: &Caller, folder: &ResourceId, action: Action) -> bool;
}

/// A folder has had its share of changes. The same request may be accepted later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the folder has had its share of changes for now")]
pub struct Throttled {
    /// After how long it may be asked for again.
    pub retry_after: Duration,
}

/// Decides whether a folder may have more of its changes accepted now, so that one that sends too many leaves room for the
/// others. Without one, all are.
pub trait Admission: Send + Sync + 'static {
    /// Admits one change to the folder, or says after how long it may be asked for again.
    fn admit(&self, folder: &ResourceId) -> Result<(), Throttled>;
}

struct Everybody;

impl Access for Everybody {
    fn may(&self, _: &Caller, _: &ResourceId, _: Action) -> bool {
        true
    }
}

impl Admission for Everybody {
    fn admit(&self, _: &ResourceId) -> Result<(), Throttled> {
        Ok(())
    }
}

/// The snapshot service. Cheap to clone.
///
/// What a caller may not see does not exist for it: the answers are the same.
#[derive(Clone)]
pub struct SnapshotService {
    pub(super) engine: Engine,
    pub(super) plane: DataPlane,
    limits: Limits,
    access: Arc<dyn Access>,
    admission: Arc<dyn Admission>,
}

impl fmt::Debug for SnapshotService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SnapshotService").field("engine", &self.engine).finish_non_exhaustive()
    }
}

/// Why the service did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServiceError {
    /// The request breaks rules: all of them are named.
    #[error(transparent)]
    Invalid(#[from] Violations),
    /// There is no such thing, or the caller may not see it, or not do that with it.
    #[error(transparent)]
    Refused(Status),
    /// The folder has had its share of changes. The same request may be accepted later.
    #[error(transparent)]
    Throttled(#[from] Throttled),
    /// The operation was not accepted.
    #[error(transparent)]
    Submit(#[from] SubmitError),
    /// Something could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The operation did not take a cancel.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// The chunk store failed, or the machine.
    #[error("the data of snapshots could not be read or written: {0}")]
    Data(Status),
}

impl ServiceError {
    /// The code that a service answers with.
    pub fn code(&self) -> Code {
        match self {
            Self::Invalid(_) => Code::InvalidArgument,
            Self::Throttled(_) => Code::ResourceExhausted,
            Self::Refused(status) | Self::Data(status) => status.code(),
            Self::Submit(error) => error.code(),
            Self::Read(error) => error.code(),
            Self::Command(error) => error.code(),
        }
    }

    /// As a status, causes included.
    pub fn status(&self) -> Status {
        match self {
            Self::Invalid(violations) => violations.clone().into(),
            Self::Throttled(_) => Status::new(self.code(), self.to_string()),
            Self::Refused(status) | Self::Data(status) => status.clone(),
            Self::Submit(error) => error.status(),
            Self::Read(error) => error.status(),
            Self::Command(error) => error.status(),
        }
    }
}

impl From<StepError> for ServiceError {
    fn from(error: StepError) -> Self {
        Self::Data(error.status().clone())
    }
}

impl From<StoreError> for ServiceError {
    fn from(error: StoreError) -> Self {
        Self::Read(error.into())
    }
}

impl From<CommitError> for ServiceError {
    fn from(error: CommitError) -> Self {
        Self::Command(CommandError::Store(error))
    }
}

/// What a [verification](SnapshotService::verify) has shown.
#[derive(Debug)]
pub struct Verification {
    /// What is whole, and what is not. `None` when not even the manifest can be read.
    pub verdict: Option<Verdict>,
    /// What is damaged, in words; `None` when nothing is.
    pub damage: Option<String>,
    /// The operation that put it on record, if that changed the snapshot.
    pub operation: Option<Operation>,
    /// Why it could not be put on record, for example because the snapshot is being deleted. Verify it again later.
    pub unrecorded: Option<SubmitError>,
}

impl SnapshotService {
    /// Registers the service's kinds and steps with an engine.
    pub fn register(builder: EngineBuilder, plane: &DataPlane, limits: Limits) -> EngineBuilder {
        let plane = plane.of_store(builder.store_id());
        builder
            .kind(CreateSnapshot { plane: plane.clone(), limits })
            .kind(UpdateSnapshot { limits })
            .kind(DeleteSnapshot { plane: plane.clone() })
            .kind(FindSnapshot)
            .step(CopyDisk(plane.clone()))
            .step(VerifyCopy(plane.clone()))
            .step(Grace)
            .step(RemoveSnapshot(plane))
    }

    /// The service on an engine with which it is [registered](Self::register).
    pub fn new(engine: Engine, plane: DataPlane, limits: Limits) -> Self {
        let plane = plane.of_store(engine.store_id());
        Self { engine, plane, limits, access: Arc::new(Everybody), admission: Arc::new(Everybody) }
    }

    /// With somebody who decides what callers may do.
    #[must_use]
    pub fn access(mut self, access: impl Access) -> Self {
        self.access = Arc::new(access);
        self
    }

    /// With somebody who decides how many changes a folder may have accepted.
    #[must_use]
    pub fn admission(mut self, admission: impl Admission) -> Self {
        self.admission = Arc::new(admission);
        self
    }

    /// The engine.
    pub const fn engine(&self) -> &Engine {
        &self.engine
    }

    /// One snapshot.
    pub async fn get(&self, caller: &Caller, request: &GetSnapshotRequest) -> Result<Snapshot, ServiceError> {
        request.check()?;
        Ok(Snapshot::of(self.find(caller, &request.snapshot_id, Action::Read).await?))
    }

    /// The snapshots of a folder.
    pub async fn list(
        &self,
        caller: &Caller,
        request: &ListSnapshotsRequest,
    ) -> Result<Page<Snapshot>, ServiceError> {
        let wanted = request.check(self.limits)?;
        let nothing = || Page { items: Vec::new(), next_token: String::new() };
        // An id that no folder can have is the id of an empty one.
        let Ok(folder) = ResourceId::new(&request.folder_id) else { return Ok(nothing()) };
        self.permit(caller, &folder, Action::Read)?;
        if wanted.filter.is_nothing() {
            // No page of such a list has a next one.
            let foreign = || ReadError::PageToken(PageTokenError::NotOurs).into();
            return if wanted.page.token.is_empty() { Ok(nothing()) } else { Err(foreign()) };
        }
        let order = match wanted.order_by.field {
            OrderField::Id => ResourceOrder::Id,
            OrderField::Name => ResourceOrder::Name,
            OrderField::CreatedAt => ResourceOrder::Creation,
        };
        let mut list = ResourceList::of(folder).order(order).descending(wanted.order_by.descending);
        if let Some(name) = wanted.filter.exact_name() {
            list = list.name(name);
        } else if !wanted.filter.is_everything() {
            let filter = wanted.filter.clone();
            list = list.filter(filter.to_string(), move |row| filter.matches(&row.name));
        }
        let page = self.engine.list_resources::<Snapshot>(&list, &wanted.page).await?;
        Ok(Page { items: page.items.into_iter().map(Snapshot::of).collect(), next_token: page.next_token })
    }

    /// Makes a snapshot of a disk.
    pub async fn create(
        &self,
        call: Call,
        request: &CreateSnapshotRequest,
    ) -> Result<Operation, ServiceError> {
        request.check(self.limits)?;
        let folder = ResourceId::new(&request.folder_id);
        let folder = folder.map_err(|invalid| ServiceError::Submit(SubmitError::Invalid(invalid)))?;
        self.permit(call.caller(), &folder, Action::Write)?;
        self.admit(&folder)?;
        self.claim_chunks().await?;
        Ok(self.engine.submit::<CreateSnapshot>(request, call).await?)
    }

    /// Changes a snapshot's name, description or labels.
    pub async fn update(
        &self,
        call: Call,
        request: &UpdateSnapshotRequest,
    ) -> Result<Operation, ServiceError> {
        request.check(self.limits)?;
        match self.find_to_write(&call, &request.snapshot_id).await {
            Err(error) => self.repeated::<UpdateSnapshot>(request, &call, error).await,
            Ok(()) => Ok(self.engine.submit::<UpdateSnapshot>(request, call).await?),
        }
    }

    /// Deletes a snapshot.
    pub async fn delete(
        &self,
        call: Call,
        request: &DeleteSnapshotRequest,
    ) -> Result<Operation, ServiceError> {
        request.check()?;
        match self.find_to_write(&call, &request.snapshot_id).await {
            Err(error) => self.repeated::<DeleteSnapshot>(request, &call, error).await,
            Ok(()) => Ok(self.engine.submit::<DeleteSnapshot>(request, call).await?),
        }
    }

    /// The operations of a snapshot, newest first; also when it is gone, for as long as they are kept.
    pub async fn list_operations(
        &self,
        caller: &Caller,
        request: &ListSnapshotOperationsRequest,
    ) -> Result<Page<Operation>, ServiceError> {
        let page = request.check()?;
        let Ok(id) = ResourceId::new(&request.snapshot_id) else { return Err(missing()) };
        let kind = longrun::core::ResourceKind::new(Snapshot::KIND).map_err(ReadError::from)?;
        let query = OperationQuery::OfResource(ResourceKey { kind, id });
        let found = self.engine.list_operations(&query, &page).await?;
        // All operations of a snapshot are of its folder.
        let folder = match found.items.first() {
            Some(operation) => folder_of(operation),
            None => self.found(&request.snapshot_id).await?.map(|found| found.row.parent),
        };
        match folder {
            Some(folder) if self.access.may(caller, &folder, Action::Read) => Ok(found),
            _ => Err(missing()),
        }
    }

    /// The operations that the caller may see, newest first; only those that are done, or are not, if that is asked for. A page
    /// may be short, or empty, although more follow.
    pub async fn list_all_operations(
        &self,
        caller: &Caller,
        done: Option<bool>,
        page: &PageRequest,
    ) -> Result<Page<Operation>, ServiceError> {
        let sees = |operation: &Operation| {
            done.is_none_or(|done| operation.done() == done)
                && folder_of(operation).is_some_and(|folder| self.access.may(caller, &folder, Action::Read))
        };
        // A token of one caller is of no use to another.
        let filter = format!("{:?} sees, done {done:?}", caller.as_str());
        Ok(self.engine.filter_operations(&OperationQuery::All, page, &filter, sees).await?)
    }

    /// An operation of a snapshot.
    pub async fn get_operation(&self, caller: &Caller, id: &str) -> Result<Operation, ServiceError> {
        let Ok(id) = OperationId::parse(id) else { return Err(no_operation()) };
        let operation = match self.engine.get(id).await {
            Err(ReadError::NotFound(_)) => return Err(no_operation()),
            found => found?,
        };
        match folder_of(&operation) {
            Some(folder) if self.access.may(caller, &folder, Action::Read) => Ok(operation),
            _ => Err(no_operation()),
        }
    }

    /// Cancels an operation of a snapshot, if it is not too late. The answer shows it as it is.
    pub async fn cancel_operation(&self, caller: &Caller, id: &str) -> Result<Operation, ServiceError> {
        let operation = self.operation_to_write(caller, id).await?;
        Ok(self.engine.cancel(operation.id(), caller).await?)
    }

    /// Removes a done operation of a snapshot from the record before its time.
    pub async fn forget_operation(&self, caller: &Caller, id: &str) -> Result<(), ServiceError> {
        let operation = self.operation_to_write(caller, id).await?;
        Ok(self.engine.forget(operation.id()).await?)
    }

    /// An operation that the caller may see and change.
    async fn operation_to_write(&self, caller: &Caller, id: &str) -> Result<Operation, ServiceError> {
        let operation = self.get_operation(caller, id).await?;
        if let Some(folder) = folder_of(&operation) {
            self.permit(caller, &folder, Action::Write)?;
        }
        Ok(operation)
    }

    /// Reads the whole of a snapshot. Damage goes on record, READY becomes ERROR; so does it that damage is gone.
    pub async fn verify(
        &self,
        caller: &Caller,
        request: &GetSnapshotRequest,
    ) -> Result<Verification, ServiceError> {
        request.check()?;
        let found = self.find_complete(caller, &request.snapshot_id, Action::Write).await?;
        self.verify_found(caller, found).await
    }

    /// The same for a snapshot that was found.
    pub(super) async fn verify_found(
        &self,
        caller: &Caller,
        found: Found<Snapshot>,
    ) -> Result<Verification, ServiceError> {
        self.claim_chunks().await?;
        let (chunks, id) = (Arc::clone(&self.plane.chunks), data_id(&found.row.key.id)?);
        let stop = Arc::new(AtomicBool::new(false));
        let _stop_on_drop = StopOnDrop(Arc::clone(&stop));
        let _turn = self.plane.turn().await;
        let (engine, runtime) = (self.engine.clone(), tokio::runtime::Handle::current());
        let read = move || {
            let unconfirm = |items: &[_]| runtime.block_on(engine.unconfirm(items));
            let mut tell = |place: &DamagedPlace| take_out_of_use(&*chunks, &place.name, &unconfirm);
            let mut go_on = |_| !stop.load(Ordering::Relaxed);
            let verdict = data::find_damage(&*chunks, &id, &mut go_on, &mut tell);
            let storage_size = data::inspect(&*chunks, &id).ok().map(|found| found.summary.stored_bytes);
            (verdict, storage_size)
        };
        let (verdict, storage_size) = blocking(read).await?;
        let (verdict, damage) = match verdict {
            Ok(verdict) if verdict.damaged == 0 => (Some(verdict), None),
            Ok(verdict) => {
                let damage = describe(&verdict);
                (Some(verdict), Some(damage))
            }
            Err(error) if error.is_damage() => (None, Some(error.to_string())),
            Err(error) => return Err(crate::plane::read_back_error(&error).into()),
        };
        let is_news = match found.row.status {
            ResourceStatus::Ready => damage.is_some(),
            _ => damage != found.body.damage || damage.is_none(),
        };
        let (mut operation, mut unrecorded) = (None, None);
        if is_news {
            let (snapshot_id, revision) = (found.row.key.id.to_string(), found.row.revision.0);
            let finding = Finding { snapshot_id, damage: damage.clone(), revision, storage_size };
            match self.engine.submit::<FindSnapshot>(&finding, Call::by(caller.clone())).await {
                Ok(recorded) => operation = Some(recorded),
                // It is gone, or has changed: what was read is not what is there.
                Err(error @ SubmitError::Refused(_)) => return Err(error.into()),
                Err(error) => unrecorded = Some(error),
            }
        }
        Ok(Verification { verdict, damage, operation, unrecorded })
    }

    /// Gives the disk back as a sparse raw file, in place of a file of that name.
    pub async fn restore(
        &self,
        caller: &Caller,
        request: &GetSnapshotRequest,
        target: PathBuf,
    ) -> Result<Summary, ServiceError> {
        request.check()?;
        let found = self.find_complete(caller, &request.snapshot_id, Action::Read).await?;
        self.claim_chunks().await?;
        let (chunks, id) = (Arc::clone(&self.plane.chunks), data_id(&found.row.key.id)?);
        let stop = Arc::new(AtomicBool::new(false));
        let _stop_on_drop = StopOnDrop(Arc::clone(&stop));
        let _turn = self.plane.turn().await;
        let read = move || data::restore(&*chunks, &id, &target, &mut |_| !stop.load(Ordering::Relaxed));
        let restored: Result<Summary, ReadBackError> = blocking(read).await?;
        if restored.as_ref().is_err_and(ReadBackError::is_damage) {
            // What is missing of a snapshot that is being deleted is not damaged.
            self.find_complete(caller, &request.snapshot_id, Action::Read).await?;
        }
        Ok(restored.map_err(|error| crate::plane::read_back_error(&error))?)
    }

    /// Makes sure that the chunk store is that of the engine's store: an empty one that is nobody's becomes so. FAILED_PRECONDITION
    /// if it is another's, or if the engine's store is older than the last that has used it.
    ///
    /// Everything that touches chunks asks for this by itself; called at a start it tells at once that folders were mixed up.
    pub async fn claim_chunks(&self) -> Result<(), ServiceError> {
        Ok(self.plane.claim(&self.engine).await?)
    }

    fn permit(&self, caller: &Caller, folder: &ResourceId, action: Action) -> Result<(), ServiceError> {
        if self.access.may(caller, folder, action) {
            return Ok(());
        }
        let status = Status::new(Code::PermissionDenied, "the caller may not do this in the folder");
        Err(ServiceError::Refused(status))
    }

    fn admit(&self, folder: &ResourceId) -> Result<(), ServiceError> {
        Ok(self.admission.admit(folder)?)
    }

    async fn found(&self, id: &str) -> Result<Option<Found<Snapshot>>, ServiceError> {
        // An id that no snapshot can have is the id of no snapshot.
        let Ok(id) = ResourceId::new(id) else { return Ok(None) };
        Ok(self.engine.resource::<Snapshot>(&id).await?)
    }

    /// A snapshot that the caller may see and do this with.
    async fn find(&self, caller: &Caller, id: &str, action: Action) -> Result<Found<Snapshot>, ServiceError> {
        let found = self.found(id).await?;
        let seen = found.filter(|found| self.access.may(caller, &found.row.parent, Action::Read));
        let found = seen.ok_or_else(missing)?;
        self.permit(caller, &found.row.parent, action)?;
        Ok(found)
    }

    /// The same for a snapshot whose data is to be read: it must not be being made or removed.
    async fn find_complete(
        &self,
        caller: &Caller,
        id: &str,
        action: Action,
    ) -> Result<Found<Snapshot>, ServiceError> {
        let found = self.find(caller, id, action).await?;
        if matches!(found.row.status, ResourceStatus::Ready | ResourceStatus::Error) {
            return Ok(found);
        }
        let why = format!("the snapshot is {}, not READY", found.row.status);
        Err(ServiceError::Refused(Status::new(Code::FailedPrecondition, why)))
    }

    /// The same for a snapshot that is to be changed: its folder must have room for a change.
    async fn find_to_write(&self, call: &Call, id: &str) -> Result<(), ServiceError> {
        let found = self.find(call.caller(), id, Action::Write).await?;
        self.admit(&found.row.parent)
    }

    /// Answers a call for a snapshot that is not there, or not for this caller: it may be the repeat of one that has removed
    /// it. Only the caller's own past is looked at, so the answer cannot tell the two apart.
    async fn repeated<K: Kind>(
        &self,
        request: &K::Request,
        call: &Call,
        refused: ServiceError,
    ) -> Result<Operation, ServiceError> {
        if refused.code() != Code::NotFound {
            return Err(refused);
        }
        let Some(operation) = self.engine.repeated::<K>(request, call).await? else { return Err(refused) };
        match folder_of(&operation) {
            Some(folder) if self.access.may(call.caller(), &folder, Action::Read) => Ok(operation),
            _ => Err(refused),
        }
    }
}

fn missing() -> ServiceError {
    ServiceError::Refused(not_found())
}

fn no_operation() -> ServiceError {
    ServiceError::Refused(Status::new(Code::NotFound, "the operation does not exist"))
}

/// The folder whose callers may see an operation; `None` for an operation of something else.
fn folder_of(operation: &Operation) -> Option<ResourceId> {
    /// What the metadata of all kinds here have, and all that is read of them: this is asked for every operation shown.
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct InFolder {
        folder_id: ResourceId,
    }
    operation.metadata().decode::<InFolder>().ok().map(|metadata| metadata.folder_id)
}

fn data_id(id: &ResourceId) -> Result<SnapshotId, ServiceError> {
    let invalid = |error: BadId| ReadError::Invalid(Invalid::new("snapshot_id", error.to_string()));
    Ok(id.as_str().parse().map_err(invalid)?)
}

/// Takes it back that items are confirmed, durably.
type Unconfirm<'a> = dyn Fn(&[(ItemKey, Incarnation)]) -> Result<(), CommitError> + 'a;

/// Takes a chunk that was found damaged or missing out of use, so that the next copy that has its bytes writes it anew.
fn take_out_of_use(chunks: &dyn ChunkStore, name: &ChunkName, unconfirm: &Unconfirm<'_>) {
    // Read again: it may have been the reading that failed.
    let is_there = match chunks.get(name) {
        Err(ChunkError::Damaged { .. }) => true,
        Err(ChunkError::Missing { .. }) => false,
        _ => return,
    };
    let told = |error: &dyn std::error::Error| {
        tracing::error!(%error, cause = ?error, chunk = %name, "a damaged chunk could not be taken out of use");
    };
    let (Ok(item), Ok(life)) = (item(&name.digest), name.incarnation.as_str().parse()) else { return };
    // Before anybody can write it anew: who shares what is written then reads it back himself.
    if let Err(error) = unconfirm(&[(item, life)]) {
        return told(&error);
    }
    if is_there && let Err(error) = chunks.quarantine(name) {
        told(&error);
    }
}

fn describe(verdict: &Verdict) -> String {
    let named = verdict.places.iter().take(PLACES_NAMED).map(ToString::to_string).collect::<Vec<_>>();
    let more = verdict.damaged.saturating_sub(named.len() as u64);
    let more = if more > 0 { format!("; and {more} more") } else { String::new() };
    format!("{} damaged: {}{more}", verdict.damaged, named.join("; "))
}
