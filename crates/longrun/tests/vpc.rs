//! The service of the embedder's guide, `examples/vpc.rs`, in virtual time: each method, its races, faults and crashes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "common/disk.rs"]
#[allow(dead_code)]
mod disk;
#[path = "common/time.rs"]
#[allow(dead_code)]
mod time;
#[path = "../examples/vpc.rs"]
#[allow(dead_code)]
mod vpc;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use disk::{Knobs, SlowStore};
use futures_util::future::join_all;
use longrun::store::conformance::verify_indexes;
use longrun::store::intercept::Intercepted;
use longrun::store::{MemoryKv, Store};
use longrun::{
    Call, Caller, Code, Engine, Kind, KvStore, Operation, OperationId, OperationQuery, PageRequest, Resource,
    ResourceId, ResourceList, ResourceStatus, SubmitError,
};
use time::VirtualTime;
use tokio::time::Instant;
use vpc::fabric::{Cidr, Fabric, Mood};
use vpc::{
    CreateNetwork, CreateSubnet, DeleteNetwork, DeleteSubnet, Network, NewNetwork, NewSubnet, Rename, Subnet,
    Target, UpdateNetwork, UpdateSubnet,
};

type Answer = Result<Operation, SubmitError>;

struct Rig {
    memory: Arc<MemoryKv>,
    store: Arc<dyn Store>,
    knobs: Arc<Knobs>,
    time: VirtualTime,
    fabric: Fabric,
    engine: Option<Engine>,
}

async fn start(store: &Arc<dyn Store>, time: &VirtualTime, fabric: &Fabric) -> Engine {
    let builder = Engine::builder_shared(Arc::clone(store)).environment(time.clone());
    vpc::register(builder, fabric).start().await.unwrap()
}

impl Rig {
    async fn new() -> Self {
        let (memory, knobs) = (Arc::new(MemoryKv::new()), Arc::<Knobs>::default());
        let inner = Arc::new(KvStore::open_inline(Arc::clone(&memory), [7; 32]).unwrap());
        let slow = SlowStore { store: inner, knobs: Arc::clone(&knobs) };
        let store: Arc<dyn Store> = Arc::new(Intercepted(slow));
        let (time, fabric) = (VirtualTime::new(), Fabric::default());
        let engine = Some(start(&store, &time, &fabric).await);
        Self { memory, store, knobs, time, fabric, engine }
    }

    /// The process dies, and another takes its place.
    async fn restart(&mut self) {
        self.engine = None;
        self.engine = Some(start(&self.store, &self.time, &self.fabric).await);
    }

    fn engine(&self) -> &Engine {
        self.engine.as_ref().unwrap()
    }

    async fn call<K: Kind>(&self, request: K::Request) -> Answer {
        self.engine().submit::<K>(&request, Call::by(caller())).await
    }

    async fn create_network(&self) -> Answer {
        self.call::<CreateNetwork>(NewNetwork { folder: folder(), name: "net".to_owned() }).await
    }

    async fn create_subnet(&self, network: &ResourceId, block: &str) -> Answer {
        let (network, block) = (network.clone(), Cidr::try_from(block.to_owned()).unwrap());
        self.call::<CreateSubnet>(NewSubnet { network, name: block.into(), block }).await
    }

    async fn delete_network(&self, id: &ResourceId) -> Answer {
        self.call::<DeleteNetwork>(Target { id: id.clone() }).await
    }

    async fn delete_subnet(&self, id: &ResourceId) -> Answer {
        self.call::<DeleteSubnet>(Target { id: id.clone() }).await
    }

    async fn done(&self, id: OperationId) -> Operation {
        self.engine().wait_done(id).await.unwrap()
    }

    /// Waits for success, and gives the resource.
    async fn made(&self, answer: Answer) -> ResourceId {
        let operation = self.done(answer.unwrap().id()).await;
        assert!(operation.response().is_some(), "{operation:?}");
        target(&operation)
    }

    async fn network(&self) -> ResourceId {
        self.made(self.create_network().await).await
    }

    async fn list<R: Resource>(&self, parent: &ResourceId) -> Vec<(ResourceStatus, R)> {
        let all = PageRequest { size: 1000, token: String::new() };
        let page =
            self.engine().list_resources::<R>(&ResourceList::of(parent.clone()), &all).await.unwrap().items;
        page.into_iter().map(|found| (found.row.status, found.body)).collect()
    }

    async fn status<R: Resource>(&self, id: &ResourceId) -> Option<ResourceStatus> {
        self.engine().resource::<R>(id).await.unwrap().map(|found| found.row.status)
    }

    /// Everything is READY, every subnet has a network, blocks do not overlap, and the fabric has what the rows say:
    /// nothing more, nothing less.
    async fn check(&self) {
        verify_indexes(&*self.memory).unwrap();
        let (mut numbers, mut routes, mut networks) = (BTreeMap::new(), BTreeMap::new(), 0);
        for (status, network) in self.list::<Network>(&folder()).await {
            assert_eq!(status, ResourceStatus::Ready);
            numbers.insert(network.id.clone(), network.route_table.unwrap());
            networks += 1;
            let subnets = self.list::<Subnet>(&network.id).await;
            for (place, (status, subnet)) in subnets.iter().enumerate() {
                assert_eq!(*status, ResourceStatus::Ready);
                numbers.insert(subnet.id.clone(), subnet.vlan.unwrap());
                routes.insert(subnet.id.clone(), subnet.block);
                assert!(!subnets[..place].iter().any(|(_, other)| other.block.overlaps(subnet.block)));
            }
        }
        assert_eq!(numbers.len(), networks + routes.len());
        let fabric = self.fabric.state();
        assert_eq!((&fabric.numbers, &fabric.routes), (&numbers, &routes), "the fabric and the rows differ");
    }
}

fn caller() -> Caller {
    Caller::new("ann").unwrap()
}

fn folder() -> ResourceId {
    ResourceId::new("home").unwrap()
}

fn target(operation: &Operation) -> ResourceId {
    operation.metadata().decode::<Target>().unwrap().id
}

fn code(answer: &Answer) -> Option<Code> {
    answer.as_ref().err().map(SubmitError::code)
}

async fn pass(millis: u64) {
    tokio::time::sleep(Duration::from_millis(millis)).await;
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let bits = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (bits ^ (bits >> 31)) % bound
    }
}

/// Seeds tried; more with `LONGRUN_VPC_SEEDS`.
fn seeds() -> u64 {
    std::env::var("LONGRUN_VPC_SEEDS").map_or(20, |text| text.parse().unwrap())
}

#[tokio::test(start_paused = true)]
async fn create_shows_the_resource_at_once_and_ready_in_the_end() {
    let rig = Rig::new().await;
    let accepted = rig.create_network().await.unwrap();
    let id = target(&accepted);
    assert!(!accepted.done());
    assert_eq!(rig.status::<Network>(&id).await, Some(ResourceStatus::Creating));
    let early = rig.create_subnet(&id, "10.0.0.0/24").await;
    assert_eq!(code(&early), Some(Code::FailedPrecondition), "its network is not READY yet");
    let network: Network = rig.done(accepted.id()).await.response().unwrap().decode().unwrap();
    assert_eq!(network, Network { id: id.clone(), name: "net".to_owned(), route_table: Some(1) });
    assert_eq!(rig.status::<Network>(&id).await, Some(ResourceStatus::Ready));

    let began = Instant::now();
    let blocks = ["10.0.0.0/24", "10.0.1.0/24", "10.0.2.0/23"];
    let subnets = join_all(blocks.map(|block| rig.create_subnet(&id, block))).await;
    for subnet in subnets {
        rig.made(subnet).await;
    }
    assert!(began.elapsed() < Duration::from_millis(150), "two steps of 50 ms, all subnets in parallel");
    let subnets = rig.list::<Subnet>(&id).await;
    assert_eq!(subnets.iter().filter_map(|(_, subnet)| subnet.vlan).sum::<u16>(), 100 + 101 + 102);
    rig.check().await;
}

#[tokio::test(start_paused = true)]
async fn create_subnet_is_refused_for_a_bad_block_and_for_a_network_that_is_not_there() {
    let rig = Rig::new().await;
    let network = rig.network().await;
    assert_eq!(code(&rig.create_subnet(&folder(), "10.0.0.0/24").await), Some(Code::NotFound));
    for block in ["10.0.0.1/24", "10.0.0.0/33", "10.0.0.0", "fe80::/10", "", "10.0.0.0/-1"] {
        let request = serde_json::json!({"network": network, "name": "", "block": block});
        let request = longrun::Json::encode("request", &request).unwrap();
        let refused = rig.engine().submit_json(CreateSubnet::NAME, request, Call::by(caller())).await;
        assert_eq!(code(&refused), Some(Code::InvalidArgument), "{block}");
    }
    rig.check().await;
}

#[tokio::test(start_paused = true)]
async fn update_gives_another_name_at_once_and_only_to_what_is_there_and_free() {
    let rig = Rig::new().await;
    let network = rig.network().await;
    let subnet = rig.made(rig.create_subnet(&network, "10.0.0.0/24").await).await;
    let rename = |id: &ResourceId| Rename { id: id.clone(), name: "new".to_owned() };
    let operation = rig.call::<UpdateNetwork>(rename(&network)).await.unwrap();
    assert_eq!(operation.response().unwrap().decode::<Network>().unwrap().name, "new");
    let operation = rig.call::<UpdateSubnet>(rename(&subnet)).await.unwrap();
    assert_eq!(operation.response().unwrap().decode::<Subnet>().unwrap().name, "new");
    let found = rig.engine().resource::<Subnet>(&subnet).await.unwrap().unwrap();
    assert_eq!((found.row.name.as_str(), found.body.vlan), ("new", Some(100)));
    assert_eq!(code(&rig.call::<UpdateNetwork>(rename(&subnet)).await), Some(Code::NotFound));
    let deleting = rig.delete_subnet(&subnet).await.unwrap();
    assert_eq!(code(&rig.call::<UpdateSubnet>(rename(&subnet)).await), Some(Code::Aborted));
    rig.done(deleting.id()).await;
    assert_eq!(code(&rig.call::<UpdateSubnet>(rename(&subnet)).await), Some(Code::NotFound));
    rig.check().await;
}

#[tokio::test(start_paused = true)]
async fn delete_removes_row_and_effects_and_list_and_list_operations_tell_of_it() {
    let rig = Rig::new().await;
    let network = rig.network().await;
    let subnet = rig.made(rig.create_subnet(&network, "10.0.0.0/24").await).await;
    let other = rig.made(rig.create_subnet(&network, "10.0.1.0/24").await).await;
    assert_eq!(rig.list::<Network>(&folder()).await.len(), 1);
    assert_eq!(rig.list::<Subnet>(&network).await.len(), 2);
    rig.made(rig.delete_subnet(&subnet).await).await;
    assert_eq!(code(&rig.delete_subnet(&subnet).await), Some(Code::NotFound));
    assert_eq!(rig.list::<Subnet>(&network).await.len(), 1);
    rig.check().await;
    rig.made(rig.delete_subnet(&other).await).await;
    rig.made(rig.delete_network(&network).await).await;
    assert_eq!(rig.list::<Network>(&folder()).await, []);
    for (key, kinds) in [
        (Network::key(&network).unwrap(), [DeleteNetwork::NAME, CreateNetwork::NAME]),
        (Subnet::key(&subnet).unwrap(), [DeleteSubnet::NAME, CreateSubnet::NAME]),
    ] {
        let query = OperationQuery::OfResource(key);
        let page = rig.engine().list_operations(&query, &PageRequest::default()).await.unwrap();
        assert_eq!(page.items.iter().map(|item| item.kind().as_str()).collect::<Vec<_>>(), kinds);
    }
    rig.check().await;
}

#[tokio::test(start_paused = true)]
async fn a_network_with_subnets_is_not_deleted_whatever_their_status() {
    let rig = Rig::new().await;
    let network = rig.network().await;
    let refused = async |status| {
        let subnet = &rig.list::<Subnet>(&network).await[0];
        assert_eq!(subnet.0, status);
        let refused = rig.delete_network(&network).await.unwrap_err().status();
        assert_eq!(refused.code(), Code::FailedPrecondition);
        assert!(refused.message().ends_with("has subnets: delete them first, and wait for that"));
        subnet.1.id.clone()
    };
    let creating = rig.create_subnet(&network, "10.0.0.0/24").await.unwrap();
    refused(ResourceStatus::Creating).await;
    rig.done(creating.id()).await;
    let subnet = refused(ResourceStatus::Ready).await;
    let deleting = rig.delete_subnet(&subnet).await.unwrap();
    refused(ResourceStatus::Deleting).await;
    rig.done(deleting.id()).await;
    // A create that rolls back holds it up to its end, too.
    let cancelled = rig.create_subnet(&network, "10.0.0.0/24").await.unwrap();
    pass(20).await;
    rig.engine().cancel(cancelled.id(), &caller()).await.unwrap();
    refused(ResourceStatus::Deleting).await;
    rig.done(cancelled.id()).await;
    rig.made(rig.delete_network(&network).await).await;
    rig.check().await;
}

#[tokio::test(start_paused = true)]
async fn of_a_subnet_and_the_end_of_its_network_exactly_one_wins() {
    let rig = Rig::new().await;
    let mut random = Random(1);
    let (mut subnets, mut ends) = (0, 0);
    for _ in 0..500 {
        Knobs::set(&rig.knobs.commit_ms, 0);
        Knobs::set(&rig.knobs.answer_ms, 0);
        let network = rig.network().await;
        Knobs::set(&rig.knobs.commit_ms, random.below(3));
        Knobs::set(&rig.knobs.answer_ms, random.below(3));
        let (one, other) = (random.below(4), random.below(4));
        let (create, delete) = tokio::join!(
            async {
                pass(one).await;
                rig.create_subnet(&network, "10.0.0.0/24").await
            },
            async {
                pass(other).await;
                rig.delete_network(&network).await
            },
        );
        match (code(&create), code(&delete)) {
            (None, Some(Code::FailedPrecondition)) => {
                rig.made(create).await;
                assert_eq!(rig.status::<Network>(&network).await, Some(ResourceStatus::Ready));
                subnets += 1;
            }
            (Some(Code::FailedPrecondition), None) => {
                rig.made(delete).await;
                assert_eq!(rig.list::<Subnet>(&network).await, []);
                assert_eq!(rig.status::<Network>(&network).await, None);
                ends += 1;
            }
            both => panic!("{both:?}"),
        }
    }
    assert!(subnets > 50 && ends > 50, "each wins sometimes: {subnets}, {ends}");
    rig.check().await;
}

#[tokio::test(start_paused = true)]
async fn of_blocks_that_overlap_exactly_one_wins() {
    let rig = Rig::new().await;
    let mut random = Random(2);
    let nested = ["10.0.0.0/16", "10.0.7.0/24", "10.0.7.0/24", "10.0.7.128/25", "0.0.0.0/0", "10.0.6.0/23"];
    let mut winners = BTreeMap::<&str, usize>::new();
    for _ in 0..200 {
        let network = rig.network().await;
        Knobs::set(&rig.knobs.commit_ms, random.below(3));
        Knobs::set(&rig.knobs.answer_ms, random.below(3));
        let waits = nested.map(|block| (block, random.below(4)));
        let answers = join_all(waits.map(|(block, wait)| {
            let (rig, network) = (&rig, &network);
            async move {
                pass(wait).await;
                (block, rig.create_subnet(network, block).await)
            }
        }))
        .await;
        let (won, lost): (Vec<_>, Vec<_>) = answers.into_iter().partition(|(_, answer)| answer.is_ok());
        // All of them hold 10.0.7.128/25.
        assert_eq!(won.len(), 1, "{won:?}");
        assert!(lost.iter().all(|(_, answer)| code(answer) == Some(Code::FailedPrecondition)));
        for (block, answer) in won {
            *winners.entry(block).or_default() += 1;
            let id = rig.made(answer).await;
            // When it is gone its block is free.
            rig.made(rig.delete_subnet(&id).await).await;
            rig.made(rig.create_subnet(&network, block).await).await;
        }
    }
    assert_eq!(winners.len(), 5, "each wins sometimes: {winners:?}");
    rig.check().await;
}

#[tokio::test(start_paused = true)]
async fn a_fabric_that_fails_leaves_nothing_behind() {
    for mood in [Mood::Refuses, Mood::LosesTheAnswer] {
        for broken in ["allocate", "route"] {
            let rig = Rig::new().await;
            let network = rig.network().await;
            rig.fabric.state().mood =
                Some(Box::new(move |call| if call == broken { mood } else { Mood::Well }));
            let failed = rig.create_subnet(&network, "10.0.0.0/24").await.unwrap();
            let failed = rig.done(failed.id()).await;
            assert_eq!(failed.error().unwrap().message(), format!("the fabric failed to {broken}"));
            assert_eq!(rig.status::<Subnet>(&target(&failed)).await, None);
            if broken == "allocate" {
                let failed = rig.done(rig.create_network().await.unwrap().id()).await;
                assert_eq!(failed.error().unwrap().code(), Code::Unknown);
            }
            rig.check().await;
            assert_eq!(rig.fabric.state().numbers.len(), 1, "the network's");
            // The block is free again, and so is the VLAN.
            rig.fabric.state().mood = None;
            let subnet = rig.made(rig.create_subnet(&network, "10.0.0.0/24").await).await;
            assert_eq!(rig.fabric.state().numbers[&subnet], 100);
            rig.check().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_undo_and_a_deletion_go_on_until_the_fabric_is_well_again() {
    let rig = Rig::new().await;
    let network = rig.network().await;
    let subnet = rig.made(rig.create_subnet(&network, "10.0.0.0/24").await).await;
    rig.fabric.state().mood = Some(Box::new(|call| match call {
        "allocate" => Mood::Well,
        _ => Mood::Refuses,
    }));
    let failing = rig.create_subnet(&network, "10.0.1.0/24").await.unwrap();
    let deleting = rig.delete_subnet(&subnet).await.unwrap();
    pass(60 * 60 * 1000).await;
    for id in [failing.id(), deleting.id()] {
        let waiting = rig.engine().get(id).await.unwrap();
        assert!(!waiting.done() && !waiting.blocked().is_empty(), "{waiting:?}");
    }
    rig.fabric.state().mood = None;
    assert!(rig.done(failing.id()).await.error().is_some());
    assert!(rig.done(deleting.id()).await.response().is_some());
    rig.check().await;
}

#[tokio::test(start_paused = true)]
async fn a_crash_at_any_time_is_followed_by_the_same_end() {
    for millis in (0..110).step_by(5) {
        let mut rig = Rig::new().await;
        let network = rig.network().await;
        let old = rig.made(rig.create_subnet(&network, "10.0.0.0/24").await).await;
        let created = rig.create_subnet(&network, "10.0.1.0/24").await.unwrap();
        let deleted = rig.delete_subnet(&old).await.unwrap();
        let cancelled = rig.create_subnet(&network, "10.0.2.0/24").await.unwrap();
        pass(millis / 2).await;
        rig.engine().cancel(cancelled.id(), &caller()).await.unwrap();
        pass(millis - millis / 2).await;
        rig.restart().await;
        assert!(rig.done(created.id()).await.response().is_some());
        assert!(rig.done(deleted.id()).await.response().is_some());
        assert_eq!(rig.done(cancelled.id()).await.error().unwrap().code(), Code::Cancelled);
        assert_eq!(rig.list::<Subnet>(&network).await.len(), 1);
        rig.check().await;
    }
}

/// One call of a random sequence, with what is known of the ids that there are.
async fn any_call(rig: &Rig, random: &mut Random, networks: &[ResourceId], subnets: &[ResourceId]) -> Answer {
    let nobody = folder();
    let one = |random: &mut Random, ids: &[ResourceId]| match ids.len() {
        0 => nobody.clone(),
        count => ids[usize::try_from(random.below(count as u64)).unwrap()].clone(),
    };
    match random.below(10) {
        0 => rig.create_network().await,
        1 => rig.delete_network(&one(random, networks)).await,
        2..=5 => {
            let block = format!("10.0.{}.0/2{}", random.below(8) * 32, random.below(5));
            let Ok(block) = Cidr::try_from(block) else { return rig.create_network().await };
            rig.create_subnet(&one(random, networks), &String::from(block)).await
        }
        6 | 7 => rig.delete_subnet(&one(random, subnets)).await,
        8 => rig.call::<UpdateSubnet>(Rename { id: one(random, subnets), name: "again".to_owned() }).await,
        _ => rig.call::<UpdateNetwork>(Rename { id: one(random, networks), name: "again".to_owned() }).await,
    }
}

#[tokio::test(start_paused = true)]
async fn after_any_calls_faults_cancels_and_crashes_the_fabric_has_what_the_rows_say() {
    let (mut ends, mut refusals) = (BTreeMap::new(), BTreeMap::<Code, usize>::new());
    for seed in 0..seeds() {
        let (mut rig, mut random) = (Rig::new().await, Random(seed));
        let mut moods = Random(seed + 1_000_000);
        rig.fabric.state().mood = Some(Box::new(move |_| match moods.below(10) {
            0 | 1 => Mood::Refuses,
            2 | 3 => Mood::LosesTheAnswer,
            _ => Mood::Well,
        }));
        Knobs::set(&rig.knobs.commit_ms, seed % 3);
        let (mut networks, mut subnets, mut accepted) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..200 {
            let answer = any_call(&rig, &mut random, &networks, &subnets).await;
            match &answer {
                Ok(operation) => {
                    accepted.push(operation.id());
                    match operation.kind().as_str() {
                        CreateNetwork::NAME => networks.push(target(operation)),
                        CreateSubnet::NAME => subnets.push(target(operation)),
                        _ => {}
                    }
                    if random.below(5) == 0 {
                        pass(random.below(120)).await;
                        rig.engine().cancel(operation.id(), &caller()).await.unwrap();
                    }
                }
                Err(error) => *refusals.entry(error.code()).or_default() += 1,
            }
            match random.below(20) {
                0 => rig.restart().await,
                1..=4 => pass(random.below(2000)).await,
                _ => pass(random.below(50)).await,
            }
        }
        for id in accepted {
            let done = rig.done(id).await;
            let end = (done.kind().to_string(), done.error().map(longrun::Status::code));
            *ends.entry(end).or_insert(0) += 1;
        }
        rig.check().await;
    }
    let refused: Vec<_> = refusals.keys().copied().collect();
    assert_eq!(refused, [Code::NotFound, Code::FailedPrecondition, Code::Aborted], "{refusals:?}");
    for kind in [CreateNetwork::NAME, CreateSubnet::NAME] {
        for end in [None, Some(Code::Cancelled), Some(Code::Unknown)] {
            assert!(ends.contains_key(&(kind.to_owned(), end)), "{kind} never ended with {end:?}: {ends:?}");
        }
    }
}
