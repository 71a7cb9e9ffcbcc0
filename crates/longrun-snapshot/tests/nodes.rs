//! Several engines on one store and one chunk folder: copies change hands, and chunks stay right whoever makes and removes them.
//!
//! Time is virtual; a limit on the rate of copies makes them last.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use longrun::{Code, Engine, Operation, ResourceId, ResourceStatus, Timestamp};
use longrun_snapshot::SnapshotService;
use longrun_snapshot::data::CHUNK_BYTES;
use longrun_snapshot::service::Limits;
use longrun_store::shared::{Line, SharedStore};
use longrun_store::{Cluster, Store, Wanted};
use tokio::time::Instant;

use common::{Lab, call, caller, create_of, delete_of, done, get_of, made, made_by, noise, pass, status};

const LEASE: Duration = Duration::from_secs(3);

struct Nodes {
    lab: Lab,
    store: SharedStore,
    lines: Vec<Arc<SharedStore>>,
    services: Vec<Option<SnapshotService>>,
}

impl Nodes {
    /// With a disk of so many chunks, of which one is copied in a second.
    async fn new(nodes: usize, chunks: u64) -> Self {
        let lab = Lab::new();
        let places: Vec<(u64, Vec<u8>)> =
            (0..chunks).map(|index| (index * CHUNK_BYTES, noise(index, 4096))).collect();
        let places: Vec<(u64, &[u8])> = places.iter().map(|(offset, bytes)| (*offset, &bytes[..])).collect();
        lab.disk("disk-1", chunks * CHUNK_BYTES, &places);
        let start = Instant::now();
        let store = SharedStore::new(LEASE, move || start.elapsed()).unwrap();
        let mut rig = Self { lab, store, lines: Vec::new(), services: Vec::new() };
        for _ in 0..nodes {
            rig.join().await;
        }
        rig
    }

    async fn join(&mut self) {
        let line = Arc::new(self.store.another());
        let plane = self.lab.plane().copy_rate(NonZeroU64::new(CHUNK_BYTES).unwrap());
        let builder = Engine::builder_shared(Arc::clone(&line) as _).environment(self.lab.time.clone());
        let builder = SnapshotService::register(builder, &plane, Limits::documented());
        let engine = builder.start().await.unwrap();
        self.lines.push(line);
        self.services.push(Some(SnapshotService::new(engine, plane, Limits::documented())));
    }

    fn service(&self, node: usize) -> &SnapshotService {
        self.services[node].as_ref().unwrap()
    }

    async fn create(&self, node: usize) -> (Operation, ResourceId) {
        let operation = self.service(node).create(call(), &create_of("disk-1")).await.unwrap();
        let id = made_by(&operation);
        (operation, id)
    }

    async fn delete(&self, node: usize, id: &ResourceId) {
        let accepted = self.service(node).delete(call(), &delete_of(id)).await.unwrap();
        let done = done(self.service(node), &accepted).await;
        assert!(done.response().is_some(), "{:?}", done.error());
    }

    async fn assert_whole(&self, node: usize, id: &ResourceId) {
        assert_eq!(status(self.service(node), id).await, Some(ResourceStatus::Ready));
        let verified = self.service(node).verify(&caller(), &get_of(id)).await.unwrap();
        assert!(verified.damage.is_none(), "{verified:?}");
        let restored = self.lab.restored(self.service(node), id).await;
        assert!(restored == std::fs::read(self.lab.image("disk-1")).unwrap());
    }

    /// What nobody refers to goes at the next collection, and then there is nothing.
    async fn assert_nothing_left(&self) {
        for node in 0..self.services.len() {
            if let Some(service) = &self.services[node] {
                let collected = service.collect().await.unwrap();
                assert_eq!((collected.failed, collected.references), (0, 0), "{collected:?}");
            }
        }
        assert_eq!(self.lab.files(), BTreeMap::new());
    }
}

#[tokio::test(start_paused = true)]
async fn c08_s31_a_copy_whose_node_is_cut_off_goes_on_at_another_from_its_checkpoint() {
    for dies in [true, false] {
        let mut nodes = Nodes::new(2, 8).await;
        let (accepted, id) = nodes.create(0).await;
        pass(4500).await;
        let copied = nodes.service(1).engine().get(accepted.id()).await.unwrap().progress().unwrap();
        assert!(copied.done >= 3 * CHUNK_BYTES, "{copied:?}");
        nodes.lines[0].set_line(Line::Cut);
        if dies {
            nodes.services[0] = None;
        }
        // Lets everything pass, and notes how far back somebody reads.
        nodes.lab.gate.close_at(u64::MAX);
        let finished = done(nodes.service(1), &accepted).await;
        assert!(finished.response().is_some(), "{:?}", finished.error());
        assert!(nodes.lab.gate.lowest().unwrap() >= 3 * CHUNK_BYTES, "it did not begin anew");
        nodes.assert_whole(1, &id).await;
        // What the other goes on doing, or had in hand, harms nothing.
        nodes.lines[0].set_line(Line::Whole);
        pass(20_000).await;
        nodes.assert_whole(1, &id).await;
        nodes.delete(1, &id).await;
        nodes.assert_nothing_left().await;
    }
}

/// It is told by the store before it seals: what it copied may not be what the run that is believed copies.
#[tokio::test(start_paused = true)]
async fn c17_s31_a_copy_that_was_overtaken_and_does_not_know_it_seals_nothing() {
    let nodes = Nodes::new(2, 4).await;
    let (accepted, id) = nodes.create(0).await;
    let engine = nodes.service(0).engine();
    // The last bytes are stored, and the run waits for its rate before it ends.
    loop {
        let shown = engine.get(accepted.id()).await.unwrap();
        assert!(!shown.done());
        if shown.progress().is_some_and(|progress| progress.done == 4 * CHUNK_BYTES) {
            break;
        }
        pass(10).await;
    }
    // Somebody else has it, from one moment to the next, and does nothing.
    let other = nodes.store.another();
    let node = other.take_over().await.unwrap();
    let (_, fence) = nodes.store.owner(accepted.id()).unwrap();
    other.release(&[(accepted.id(), fence)]).await.unwrap();
    let wanted = Wanted { until: Timestamp::MAX, limit: 1, kinds: None, except: Vec::new() };
    assert_eq!(other.claim(node, &wanted).await.unwrap().len(), 1);
    pass(1500).await;
    assert_eq!(nodes.store.owner(accepted.id()).unwrap().0, Some(node));
    assert_eq!(nodes.store.seen().late, 1, "it came to its end, and was refused");
    let sealed: Vec<_> =
        nodes.lab.files().into_keys().filter(|path| path.starts_with("manifests/")).collect();
    assert_eq!(sealed, [""; 0]);
    other.leave(node).await.unwrap();
    assert!(done(nodes.service(1), &accepted).await.response().is_some());
    nodes.assert_whole(1, &id).await;
    nodes.delete(1, &id).await;
    nodes.assert_nothing_left().await;
}

#[tokio::test(start_paused = true)]
async fn nodes_make_and_remove_snapshots_of_the_same_chunks_beside_each_other() {
    let mut nodes = Nodes::new(2, 2).await;
    let mut kept = Vec::new();
    for round in 0..3 {
        // Two that are made at the same time, a third that is cancelled from elsewhere, and one of the last round goes.
        let of = |node: usize| nodes.create(node % 2);
        let (one, other, cancelled) = (of(round).await, of(round + 1).await, of(round).await);
        pass(700).await;
        nodes.service((round + 1) % 2).engine().cancel(cancelled.0.id(), &caller()).await.unwrap();
        if let Some(id) = kept.pop() {
            nodes.delete(round % 2, &id).await;
        }
        for (operation, id) in [one, other] {
            assert!(done(nodes.service(round % 2), &operation).await.response().is_some());
            kept.push(id);
        }
        let undone = done(nodes.service(round % 2), &cancelled.0).await;
        assert_eq!(undone.error().unwrap().code(), Code::Cancelled);
        nodes.service((round + 1) % 2).collect().await.unwrap();
        for id in &kept {
            nodes.assert_whole(round % 2, id).await;
        }
    }
    // The chunks are those of the store, not of the node that came last.
    nodes.join().await;
    made(nodes.service(2), &create_of("disk-1")).await;
    for (node, id) in kept.iter().enumerate() {
        nodes.delete(node % 2, id).await;
    }
    let rest = nodes.service(0).list(&caller(), &common::list_of(common::FOLDER)).await.unwrap();
    for snapshot in rest.items {
        nodes.delete(0, &snapshot.id).await;
    }
    nodes.assert_nothing_left().await;
}

#[tokio::test(start_paused = true)]
async fn c17_a_copy_that_changed_hands_more_often_than_nodes_came_shuts_nobody_out_of_the_chunks() {
    let nodes = Nodes::new(2, 16).await;
    let (accepted, id) = nodes.create(0).await;
    // Taken away and claimed anew: the fence rises, and the epoch does not.
    for _ in 0..4 {
        pass(1500).await;
        let (_, fence) = nodes.store.owner(accepted.id()).unwrap();
        nodes.store.release(&[(accepted.id(), fence)]).await.unwrap();
    }
    pass(1500).await;
    let epoch = nodes.service(0).engine().store_epoch().await.unwrap();
    assert!(nodes.store.owner(accepted.id()).unwrap().1 > epoch);
    assert!(done(nodes.service(1), &accepted).await.response().is_some());
    for node in 0..2 {
        nodes.assert_whole(node, &id).await;
        nodes.service(node).collect().await.unwrap();
    }
    nodes.delete(0, &id).await;
    nodes.assert_nothing_left().await;
}
