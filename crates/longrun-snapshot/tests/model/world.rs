//! One world: the service, the model, and what happens to both.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex};

use longrun::store::faulty::CommitFault;
use longrun::{Call, Code, IdempotencyKey, Operation, OperationId, ResourceId, ResourceStatus, SubmitError};
use longrun_snapshot::data::{CHUNK_BYTES, inspect};
use longrun_snapshot::service::{
    Collected, CreateSnapshotRequest, ListSnapshotOperationsRequest, ListSnapshotsRequest, ServiceError,
    UpdateSnapshotRequest,
};
use longrun_snapshot::{DataPlane, Snapshot, SnapshotService};

use crate::common::chunks::{Verb, When};
use crate::common::time::Dice;
use crate::common::{
    Lab, caller, create_of, data_id, delete_of, done, get_of, list_of, made_by, millis, noise, pass,
};
use crate::known::{Known, State};
use crate::walk::Walk;

const DISKS: [&str; 3] = ["disk-0", "disk-1", "disk-2"];
const FOLDERS: [&str; 2] = ["folder-1", "folder-2"];
const NAMES: [&str; 4] = ["", "aaa", "bbb", "ccc"];
const ORDERS: [&str; 6] = ["", "id desc", "name", "name desc", "createdAt", "createdAt desc"];
const FILTERS: [&str; 4] = ["", "name = aaa", "name != bbb", "name IN (aaa, ccc)"];
const FAULTS: [CommitFault; 5] = [
    CommitFault::NotApplied,
    CommitFault::TakenBack,
    CommitFault::UnknownApplied,
    CommitFault::UnknownNotApplied,
    CommitFault::UnknownLost,
];

pub(crate) struct World {
    lab: Lab,
    dice: Dice,
    plane: DataPlane,
    service: SnapshotService,
    snapshots: BTreeMap<ResourceId, Known>,
    operations: Vec<OperationId>,
    walks: Vec<Walk>,
    stormy: bool,
    keys: u64,
    tally: Tally,
}

/// What happened how often: a test in which nothing happens proves nothing.
pub(crate) type Tally = BTreeMap<&'static str, u64>;

/// What runs that were given up wrote too late. Threads decide whether there is any.
pub(crate) const COLLECTED: &str = "files that nobody knew";

/// Whether the store was away: nothing is known then, and the call is to be repeated.
fn is_outage(error: &ServiceError) -> bool {
    matches!(error.code(), Code::Unavailable | Code::ResourceExhausted)
}

/// How an operation ended, for the tally.
fn ending(done: &Operation) -> &'static str {
    let kind = done.kind().as_str().rsplit('.').next().unwrap();
    match (kind, done.error().map(longrun::Status::code)) {
        ("create", None) => "creates done",
        ("create", Some(Code::Cancelled)) => "creates cancelled",
        ("create", Some(_)) => "creates failed",
        ("delete", None) => "deletes done",
        ("delete", Some(_)) => "deletes cancelled",
        _ => "updates",
    }
}

impl World {
    pub(crate) async fn new(seed: u64) -> Self {
        let lab = Lab::new();
        let mut dice = Dice::new(seed);
        // All of them end with the same short chunk, and two begin with the same long one; in one there are zeros between.
        let (head, tail) = (noise(1, 512), noise(2, 5000));
        lab.disk(DISKS[0], 5000, &[(0, &tail)]);
        lab.disk(DISKS[1], CHUNK_BYTES + 5000, &[(100, &head), (CHUNK_BYTES, &tail)]);
        lab.disk(DISKS[2], 2 * CHUNK_BYTES + 5000, &[(100, &head), (2 * CHUNK_BYTES, &tail)]);
        let plane = Self::new_plane(&lab, &mut dice);
        let service = lab.start_on(plane.clone()).await;
        Self {
            lab,
            dice,
            plane,
            service,
            snapshots: BTreeMap::new(),
            operations: Vec::new(),
            walks: Vec::new(),
            stormy: false,
            keys: 0,
            tally: Tally::new(),
        }
    }

    fn note(&mut self, what: &'static str, times: u64) {
        *self.tally.entry(what).or_default() += times;
    }

    fn new_plane(lab: &Lab, dice: &mut Dice) -> DataPlane {
        lab.plane().delete_grace(millis(*[0, 50, 5_000].get(dice.below(3)).unwrap()))
    }

    pub(crate) async fn turn(&mut self) {
        match self.dice.below(100) {
            0..18 => self.create().await,
            18..31 => self.update().await,
            31..43 => self.delete().await,
            43..49 => self.cancel().await,
            49..55 => self.get().await,
            55..60 => self.list().await,
            60..68 => self.walk().await,
            68..71 => self.list_operations().await,
            71..77 => self.restart().await,
            77..82 => self.weather(),
            82..86 => self.collect().await,
            86..89 => self.rewrite_a_disk(),
            89..94 => self.await_one().await,
            _ => {
                let span = self.dice.below(500);
                pass(span as u64).await;
            }
        }
    }

    /// A call under a key of its own, which may be repeated.
    fn new_call(&mut self) -> Call {
        self.keys += 1;
        Call::by(caller()).key(IdempotencyKey::new(format!("key-{}", self.keys)).unwrap())
    }

    /// The state of a snapshot as its operation tells it.
    async fn refresh(&mut self, id: &ResourceId) {
        if let Some(holder) = self.snapshots[id].holder() {
            let operation = self.operation(holder).await;
            self.snapshots.get_mut(id).unwrap().learn(&operation);
        }
        if self.snapshots[id].state == State::Gone {
            self.moved(id, |_| true);
        }
    }

    async fn operation(&self, id: OperationId) -> Operation {
        for _ in 0..100 {
            match self.service.get_operation(&caller(), id.as_str()).await {
                Err(error) if is_outage(&error) => pass(10).await,
                found => return found.unwrap(),
            }
        }
        panic!("the store does not come back");
    }

    /// A snapshot does not stay what and where it is in these lists.
    fn moved(&mut self, id: &ResourceId, list: impl Fn(&Walk) -> bool) {
        for walk in self.walks.iter_mut().filter(|walk| list(walk)) {
            walk.stays.remove(id);
        }
    }

    fn some_snapshot(&mut self) -> Option<ResourceId> {
        let ids: Vec<_> = self.snapshots.keys().cloned().collect();
        self.dice.pick(&ids)
    }

    fn image(&self, disk: &str) -> Arc<Vec<u8>> {
        Arc::new(std::fs::read(self.lab.image(disk)).unwrap())
    }

    async fn create(&mut self) {
        let (disk, folder) = (self.dice.pick(&DISKS).unwrap(), self.dice.pick(&FOLDERS).unwrap());
        let labels = BTreeMap::from([("key".to_owned(), format!("v{}", self.dice.below(3)))]);
        let request = CreateSnapshotRequest {
            folder_id: folder.to_owned(),
            name: self.dice.pick(&NAMES).unwrap().to_owned(),
            labels: if self.dice.one_in(2) { labels } else { BTreeMap::new() },
            ..create_of(disk)
        };
        let (image, call) = (self.image(disk), self.new_call());
        let accepted = loop {
            match self.service.create(call.clone(), &request).await {
                Err(error) if is_outage(&error) => pass(20).await,
                accepted => break accepted.unwrap(),
            }
        };
        let known = Known {
            folder: folder.to_owned(),
            disk: disk.to_owned(),
            name: request.name,
            description: request.description,
            labels: request.labels,
            image,
            state: State::Creating(accepted.id()),
        };
        self.operations.push(accepted.id());
        let new = self.snapshots.insert(made_by(&accepted), known).is_none();
        assert!(new, "an id was given out twice");
    }

    /// Checks the answer to a call that needs the snapshot for itself. True if it was accepted.
    async fn was_accepted(
        &mut self,
        id: &ResourceId,
        before: State,
        result: &Result<Operation, ServiceError>,
    ) -> bool {
        // What it was before the call, now that the call is over: its operation may have ended meanwhile.
        let was = self.snapshots[id].holder();
        self.refresh(id).await;
        let now = self.snapshots[id].state;
        match result {
            Ok(_) => assert_eq!(now, State::Ready, "{before:?}"),
            Err(error @ ServiceError::Submit(SubmitError::Busy { holder, .. })) => {
                assert_eq!(Some(*holder), was, "{before:?}: {error}");
                self.note("busy", 1);
            }
            Err(error) if error.code() == Code::NotFound => assert_eq!(now, State::Gone, "{before:?}"),
            Err(error) => panic!("{before:?}: {error:?}"),
        }
        result.is_ok()
    }

    async fn update(&mut self) {
        let Some(id) = self.some_snapshot() else { return };
        let (name, description) = (self.dice.pick(&NAMES).unwrap(), format!("d{}", self.dice.below(9)));
        let request = UpdateSnapshotRequest {
            snapshot_id: id.to_string(),
            update_mask: self.dice.one_in(2).then(|| vec!["name".to_owned(), "labels".to_owned()]),
            name: name.to_owned(),
            description: description.clone(),
            ..UpdateSnapshotRequest::default()
        };
        let (before, call) = (self.snapshots[&id].state, self.new_call());
        let result = loop {
            match self.service.update(call.clone(), &request).await {
                Err(error) if is_outage(&error) => pass(20).await,
                result => break result,
            }
        };
        if !self.was_accepted(&id, before, &result).await {
            return;
        }
        self.moved(&id, Walk::is_by_name);
        let known = self.snapshots.get_mut(&id).unwrap();
        if request.update_mask.is_some() {
            (known.name, known.labels) = (name.to_owned(), BTreeMap::new());
        } else {
            known.description = description;
            if !name.is_empty() {
                known.name = name.to_owned();
            }
        }
        let operation = result.unwrap();
        assert!(operation.done(), "an update is done when it is accepted");
        known.check(&id, &operation.response().unwrap().decode().unwrap());
        self.operations.push(operation.id());
    }

    async fn delete(&mut self) {
        let Some(id) = self.some_snapshot() else { return };
        let (before, call) = (self.snapshots[&id].state, self.new_call());
        let result = loop {
            match self.service.delete(call.clone(), &delete_of(&id)).await {
                Err(error) if is_outage(&error) => pass(20).await,
                result => break result,
            }
        };
        if self.was_accepted(&id, before, &result).await {
            let operation = result.unwrap();
            self.snapshots.get_mut(&id).unwrap().state = State::Deleting(operation.id());
            self.operations.push(operation.id());
            self.moved(&id, |_| true);
            if self.dice.one_in(4) {
                self.cancel_one(operation.id()).await;
            }
        }
    }

    async fn cancel(&mut self) {
        let last = self.operations.len().saturating_sub(6);
        if let Some(id) = self.dice.pick(&self.operations[last..]) {
            self.cancel_one(id).await;
        }
    }

    async fn cancel_one(&self, id: OperationId) {
        match self.service.cancel_operation(&caller(), id.as_str()).await {
            Err(error) => assert!(is_outage(&error), "{error:?}"),
            Ok(operation) => {
                assert_eq!(operation.id(), id);
                assert!(operation.done() || operation.kind().as_str() != "compute.snapshot.update");
            }
        }
    }

    async fn get(&mut self) {
        let Some(id) = self.some_snapshot() else { return };
        self.refresh(&id).await;
        let known = self.snapshots[&id].clone();
        match self.service.get(&caller(), &get_of(&id)).await {
            Ok(shown) => known.check(&id, &shown),
            Err(error) if is_outage(&error) => {}
            Err(error) => {
                assert_eq!(error.code(), Code::NotFound, "{error:?}");
                assert_ne!(known.state, State::Ready, "{id} is lost");
                self.refresh(&id).await;
                assert_eq!(self.snapshots[&id].state, State::Gone, "gone before its operation is done");
            }
        }
    }

    fn some_list(&mut self) -> ListSnapshotsRequest {
        ListSnapshotsRequest {
            page_size: 1 + self.dice.below(4) as i64,
            order_by: self.dice.pick(&ORDERS).unwrap().to_owned(),
            filter: self.dice.pick(&FILTERS).unwrap().to_owned(),
            ..list_of(self.dice.pick(&FOLDERS).unwrap())
        }
    }

    /// Those that are READY and that a list has to show.
    async fn expected(&mut self, request: &ListSnapshotsRequest) -> BTreeSet<ResourceId> {
        let ids: Vec<_> = self.snapshots.keys().cloned().collect();
        for id in &ids {
            self.refresh(id).await;
        }
        let passes = |name: &str| match request.filter.as_str() {
            "" => true,
            "name = aaa" => name == "aaa",
            "name != bbb" => name != "bbb",
            _ => name == "aaa" || name == "ccc",
        };
        let shown = |known: &Known| {
            known.state == State::Ready && known.folder == request.folder_id && passes(&known.name)
        };
        ids.into_iter().filter(|id| shown(&self.snapshots[id])).collect()
    }

    /// A whole list at once.
    async fn list(&mut self) {
        let mut request = self.some_list();
        let expected = self.expected(&request).await;
        let mut found = Vec::new();
        loop {
            match self.service.list(&caller(), &request).await {
                Err(error) => {
                    assert!(is_outage(&error), "{error:?}");
                    return;
                }
                Ok(page) => {
                    found.extend(page.items);
                    request.page_token = page.next_token;
                }
            }
            if request.page_token.is_empty() {
                break;
            }
        }
        let key = |one: &Snapshot| match request.order_by.split(' ').next().unwrap() {
            "name" => (one.name.clone(), 0, one.id.clone()),
            "createdAt" => (String::new(), one.created_at.unix_micros(), one.id.clone()),
            _ => (String::new(), 0, one.id.clone()),
        };
        let keys: Vec<_> = found.iter().map(key).collect();
        let descending = request.order_by.ends_with("desc");
        let in_order = |pair: &[_]| if descending { pair[0] > pair[1] } else { pair[0] < pair[1] };
        assert!(keys.windows(2).all(in_order), "{request:?}: {keys:?}");
        for shown in &found {
            let known = self.snapshots.get(&shown.id).unwrap_or_else(|| panic!("{shown:?}"));
            known.check(&shown.id, shown);
        }
        let found: BTreeSet<_> = found.into_iter().map(|shown| shown.id).collect();
        assert!(found.is_superset(&expected), "{request:?}: {found:?} without some of {expected:?}");
    }

    /// Begins to read a list page by page, or reads a page.
    async fn walk(&mut self) {
        if self.walks.len() < 3 && self.dice.one_in(2) {
            let request = self.some_list();
            let stays = self.expected(&request).await;
            self.walks.push(Walk::new(request, stays));
            return;
        }
        if self.walks.is_empty() {
            return;
        }
        let place = self.dice.below(self.walks.len());
        match self.walks[place].step(&self.service).await {
            Ok(true) => {
                drop(self.walks.remove(place));
                self.note("walks", 1);
            }
            Ok(false) => {}
            Err(error) => assert!(is_outage(&error), "{error:?}"),
        }
    }

    async fn list_operations(&mut self) {
        let Some(id) = self.some_snapshot() else { return };
        let mut request = ListSnapshotOperationsRequest {
            snapshot_id: id.to_string(),
            page_size: 2,
            ..ListSnapshotOperationsRequest::default()
        };
        let mut found = Vec::new();
        loop {
            match self.service.list_operations(&caller(), &request).await {
                Err(error) => return assert!(is_outage(&error), "{error:?}"),
                Ok(page) => {
                    found.extend(page.items);
                    request.page_token = page.next_token;
                }
            }
            if request.page_token.is_empty() {
                break;
            }
        }
        // Those of one millisecond are in any order.
        let at: Vec<_> = found.iter().map(|operation| operation.created_at().unix_millis()).collect();
        assert!(at.windows(2).all(|pair| pair[0] >= pair[1]));
        assert!(found.iter().any(|operation| operation.kind().as_str() == "compute.snapshot.create"));
        assert!(found.iter().all(|operation| self.operations.contains(&operation.id())));
    }

    async fn restart(&mut self) {
        let running = self.snapshots.values().filter(|known| known.holder().is_some()).count();
        self.note("engines lost with work on their hands", u64::from(running > 0));
        if self.dice.one_in(2) {
            self.service.engine().shutdown(millis(100)).await;
        }
        if self.dice.one_in(2) {
            // Another process: it knows nothing of what the one before still has on its hands.
            self.plane = Self::new_plane(&self.lab, &mut self.dice);
        }
        self.service = Self::start(&self.lab, &self.plane).await;
        let creates = self.snapshots.values().filter(|known| matches!(known.state, State::Creating(_)));
        let creates: Vec<_> = creates.filter_map(Known::holder).collect();
        if self.dice.one_in(2)
            && let Some(id) = self.dice.pick(&creates)
        {
            // While those before may still write for it.
            self.cancel_one(id).await;
        }
    }

    async fn start(lab: &Lab, plane: &DataPlane) -> SnapshotService {
        loop {
            match lab.try_start_on(plane.clone()).await {
                Ok(service) => return service,
                // The store is away.
                Err(_) => pass(20).await,
            }
        }
    }

    /// Begins or ends a time of faults.
    fn weather(&mut self) {
        self.stormy = !self.stormy;
        if !self.stormy {
            self.lab.switch.off();
            return;
        }
        for _ in 0..=self.dice.below(3) {
            let (nth, fault) = (1 + self.dice.below(12), self.dice.pick(&FAULTS).unwrap());
            self.lab.faults.fail_commit(nth as u64, fault);
        }
        self.note("storms", 1);
        let dice = Mutex::new(Dice::new(self.dice.next()));
        let mud = self.dice.one_in(2);
        let sides = self.dice.pick(&[3, 6, 20]).unwrap();
        self.lab.switch.on(move |verb, when| {
            if mud {
                // Writing takes so long that others get between.
                if when == When::Before
                    && matches!(verb, Verb::Put | Verb::BeginDraft | Verb::Seal | Verb::Remove)
                {
                    std::thread::sleep(millis(3));
                }
                return Ok(());
            }
            let mut dice = dice.lock().unwrap();
            if !dice.one_in(if when == When::Before { sides } else { 2 * sides }) {
                return Ok(());
            }
            Err(dice.pick(&[ErrorKind::PermissionDenied, ErrorKind::StorageFull]).unwrap())
        });
    }

    async fn collect(&mut self) {
        match self.service.collect().await {
            Ok(collected) => self.note_collected(&collected),
            Err(error) => assert!(is_outage(&error), "{error:?}"),
        }
    }

    fn note_collected(&mut self, collected: &Collected) {
        let Collected { swept, unknown_snapshots, .. } = collected;
        self.note(COLLECTED, swept.removed + swept.temporaries + *unknown_snapshots as u64);
    }

    /// Writes other bytes to a disk that is not being copied.
    fn rewrite_a_disk(&mut self) {
        let disk = self.dice.pick(&DISKS).unwrap();
        let copied = |known: &&Known| known.disk == disk && matches!(known.state, State::Creating(_));
        if self.snapshots.values().any(|known| copied(&known)) {
            return;
        }
        let file = std::fs::OpenOptions::new().write(true).open(self.lab.image(disk)).unwrap();
        let places = file.metadata().unwrap().len() / 4096;
        let place = self.dice.next() % places * 4096;
        file.write_all_at(&noise(self.dice.next() % 3, 512), place).unwrap();
    }

    async fn await_one(&mut self) {
        if let Some(id) = self.dice.pick(&self.operations) {
            loop {
                match self.service.engine().wait_done(id).await {
                    Ok(done) => return assert!(done.done()),
                    Err(error) => assert_eq!(error.code(), Code::Unavailable, "{error:?}"),
                }
                pass(10).await;
            }
        }
    }

    /// The weather clears, everything comes to its end, and the world is as the model.
    pub(crate) async fn finish(mut self) -> Tally {
        self.lab.switch.off();
        if self.dice.one_in(2) {
            self.restart().await;
        }
        for id in self.operations.clone() {
            let done = loop {
                match self.service.engine().wait_done(id).await {
                    Ok(done) => break done,
                    Err(error) => assert_eq!(error.code(), Code::Unavailable, "{error:?}"),
                }
                pass(10).await;
            };
            if let Some(error) = done.error() {
                let expected = [Code::Cancelled, Code::ResourceExhausted, Code::Unavailable];
                // Of runs that another one overtook, or that lost the store.
                let also = [Code::Aborted, Code::Unknown];
                assert!([&expected[..], &also[..]].concat().contains(&error.code()), "{error:?}");
            }
            self.note(ending(&done), 1);
        }
        for walk in &mut self.walks {
            while !walk.step(&self.service).await.unwrap() {}
        }
        assert_eq!(self.service.engine().held(), []);
        // Nobody is left who writes: neither this engine nor those before it.
        let Self { lab, plane, service, snapshots, operations, tally, .. } = self;
        drop((plane, service));
        lab.settle().await;
        let plane = lab.plane();
        let mut world = Self {
            service: Self::start(&lab, &plane).await,
            plane,
            snapshots,
            operations,
            walks: Vec::new(),
            lab,
            dice: Dice::new(0),
            stormy: false,
            keys: 0,
            tally,
        };
        world.compare().await;
        world.tally
    }

    async fn compare(&mut self) {
        let mut names = BTreeSet::new();
        let (mut ready, mut references) = (BTreeSet::new(), 0);
        for folder in FOLDERS {
            let request = ListSnapshotsRequest { page_size: 1000, ..list_of(folder) };
            let expected = self.expected(&request).await;
            let found = self.service.list(&caller(), &request).await.unwrap().items;
            let ids: BTreeSet<_> = found.iter().map(|shown| shown.id.clone()).collect();
            assert_eq!(ids, expected);
            for shown in found {
                let known = &self.snapshots[&shown.id];
                known.check(&shown.id, &shown);
                assert_eq!(shown.status, ResourceStatus::Ready);
                let verified = self.service.verify(&caller(), &get_of(&shown.id)).await.unwrap();
                assert_eq!(verified.damage, None, "{}", shown.id);
                assert!(self.lab.restored(&self.service, &shown.id).await == *known.image, "{}", shown.id);
                let entries = inspect(&*self.lab.chunks, &data_id(&shown.id)).unwrap().entries;
                let own: BTreeSet<_> = entries.map(|entry| entry.unwrap().name.to_string()).collect();
                references += own.len();
                names.extend(own);
                ready.insert(shown.id.to_string());
            }
        }
        let collected = self.service.collect().await.unwrap();
        self.note_collected(&collected);
        let fired = self.lab.faults.fired();
        let unknown = fired.unknown_applied + fired.unknown_not_applied + fired.unknown_lost;
        self.note("commits refused", fired.not_applied + fired.taken_back);
        self.note("commits of unknown outcome", unknown);
        self.note("READY in the end", ready.len() as u64);
        self.note("shared references", (references - names.len()) as u64);
        let mut expected: BTreeSet<_> =
            names.iter().map(|name| format!("chunks/{}/{name}", &name[..2])).collect();
        expected.extend(ready.iter().map(|id| format!("manifests/{id}")));
        assert_eq!(self.lab.files().into_keys().collect::<BTreeSet<_>>(), expected);
        let counts = self.lab.counts();
        assert_eq!((counts.rows, counts.unfinished, counts.orphans), (ready.len(), 0, 0));
        assert_eq!((counts.items, counts.references), (names.len(), references));
        assert_eq!(counts.finished, self.operations.len());
        for id in &ready {
            let request = delete_of(&ResourceId::new(id).unwrap());
            let delete = loop {
                // A commit may still be to fail.
                match self.service.delete(Call::by(caller()), &request).await {
                    Err(error) if is_outage(&error) => pass(20).await,
                    delete => break delete.unwrap(),
                }
            };
            assert!(done(&self.service, &delete).await.response().is_some());
        }
        self.lab.assert_nothing_left();
    }
}
