//! A guide for embedders: networks and their subnets, two families of resources, on `longrun`.
//!
//! Read it from the top. A service consists of four things: resources, steps, kinds, and an engine that is told of them. What
//! it does not have is code that rolls back, retries, recovers, or keeps rows and operations in step: that is the engine's.
//! That its steps survive every fault is proved in a few lines, which are at the end.
//! In `vpc/fabric.rs` is a fake of what it works on, in `vpc/story.rs` how it is called. `cargo run -p longrun --example vpc`
//! tells that story.

use longrun::{
    Code, EMPTY_TYPE, EngineBuilder, IdPrefix, Kind, PlanBuilder, Planned, Resource, ResourceId,
    ResourceStatus, Status, Step, StepContext, StepResult, UndoContext, UndoError, UndoResult, Undoable,
    async_trait,
};
use serde::{Deserialize, Serialize};

#[path = "vpc/fabric.rs"]
pub(crate) mod fabric;
#[path = "vpc/story.rs"]
pub(crate) mod story;
use fabric::{Cidr, Fabric};

// 1. RESOURCES are what users see: rows in the store that only operations change. The engine keeps parent, name, status and
// times beside what is declared here, and moves the status: CREATING, READY, DELETING.

/// Its parent is a folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Network {
    pub(crate) id: ResourceId,
    pub(crate) name: String,
    pub(crate) route_table: Option<u16>,
}

impl Resource for Network {
    const KIND: &'static str = "vpc.network";
    const TYPE_URL: &'static str = "type.googleapis.com/example.vpc.Network";
}

/// Its parent is a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Subnet {
    pub(crate) id: ResourceId,
    pub(crate) name: String,
    pub(crate) block: Cidr,
    pub(crate) vlan: Option<u16>,
}

impl Resource for Subnet {
    const KIND: &'static str = "vpc.subnet";
    const TYPE_URL: &'static str = "type.googleapis.com/example.vpc.Subnet";
}

// 2. STEPS are what is done outside, each with its undo. A crash may come between an effect and its record, so both are
// idempotent: all that the fabric gives out, it knows by the id of the owner. `?` says "this may have had an effect": it is
// run again some times, and then undone, with all that was done before it.

struct AllocateRouteTable(Fabric);
struct AllocateVlan(Fabric);
struct RouteBlock(Fabric);
struct Release(Fabric);

#[async_trait]
impl Step for AllocateRouteTable {
    const NAME: &'static str = "vpc.allocate-route-table";
    type Input = Network; // as it was planned
    type Output = Network; // as it came out
    type Checkpoint = (); // a long step saves how far it is, and goes on from there

    async fn run(&self, _: &StepContext<()>, draft: Network) -> StepResult<Network> {
        let route_table = Some(self.0.allocate(&draft.id, 1).await?);
        Ok(Network { route_table, ..draft })
    }

    async fn undo(&self, _: &UndoContext, draft: Network, _: Undoable<Network, ()>) -> UndoResult {
        Ok(self.0.release(&draft.id).await?) // an error means "not yet": it is tried until it works
    }
}

#[async_trait]
impl Step for AllocateVlan {
    const NAME: &'static str = "vpc.allocate-vlan";
    type Input = Subnet;
    type Output = Subnet;
    type Checkpoint = ();

    async fn run(&self, _: &StepContext<()>, draft: Subnet) -> StepResult<Subnet> {
        let vlan = Some(self.0.allocate(&draft.id, 100).await?);
        Ok(Subnet { vlan, ..draft })
    }

    async fn undo(&self, _: &UndoContext, draft: Subnet, _: Undoable<Subnet, ()>) -> UndoResult {
        Ok(self.0.release(&draft.id).await?)
    }
}

#[async_trait]
impl Step for RouteBlock {
    const NAME: &'static str = "vpc.route-block";
    type Input = Subnet;
    type Output = Subnet;
    type Checkpoint = ();

    async fn run(&self, _: &StepContext<()>, subnet: Subnet) -> StepResult<Subnet> {
        self.0.route(&subnet.id, subnet.block).await?;
        Ok(subnet)
    }

    async fn undo(&self, _: &UndoContext, subnet: Subnet, _: Undoable<Subnet, ()>) -> UndoResult {
        Ok(self.0.unroute(&subnet.id).await?)
    }
}

#[async_trait]
impl Step for Release {
    const NAME: &'static str = "vpc.release";
    type Input = ResourceId;
    type Output = ();
    type Checkpoint = ();

    async fn run(&self, _: &StepContext<()>, owner: ResourceId) -> StepResult<()> {
        Ok(self.0.release(&owner).await?)
    }

    async fn undo(&self, _: &UndoContext, _: ResourceId, _: Undoable<(), ()>) -> UndoResult {
        Err(UndoError::new(Code::Internal, "plans make this their point of no return"))
    }
}

// 3. KINDS are the calls that change something. Asked for a plan, a kind looks at the request and decides which rows the
// operation claims and which steps it takes, or refuses with an error. It changes nothing: the plan is stored, then acted on.

pub(crate) struct CreateNetwork;
pub(crate) struct UpdateNetwork;
pub(crate) struct DeleteNetwork;
pub(crate) struct CreateSubnet;
pub(crate) struct UpdateSubnet;
pub(crate) struct DeleteSubnet;

/// What updates and deletions are asked about, and what all callers learn at once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Target {
    pub(crate) id: ResourceId,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct NewNetwork {
    pub(crate) folder: ResourceId,
    pub(crate) name: String,
}

#[async_trait]
impl Kind for CreateNetwork {
    const NAME: &'static str = "vpc.network.create";
    const RESPONSE_TYPE: &'static str = Network::TYPE_URL;
    type Request = NewNetwork;
    type Metadata = Target;
    type Response = Network;

    async fn plan(&self, new: &NewNetwork, plan: &mut PlanBuilder) -> Planned<Self> {
        let id = plan.new_id(IdPrefix::new("net")?);
        let draft = Network { id: id.clone(), name: new.name.clone(), route_table: None };
        // `made` stands for what the step will put out. Until then the row shows the draft; if it fails, the row goes.
        let made = plan.step::<AllocateRouteTable>(draft.clone());
        plan.create(&id, &new.folder, &new.name, &draft, &made)?;
        Ok((Target { id }, made))
    }
}

#[derive(Serialize, Deserialize)]
pub(crate) struct NewSubnet {
    pub(crate) network: ResourceId,
    pub(crate) name: String,
    pub(crate) block: Cidr,
}

#[async_trait]
impl Kind for CreateSubnet {
    const NAME: &'static str = "vpc.subnet.create";
    const RESPONSE_TYPE: &'static str = Subnet::TYPE_URL;
    type Request = NewSubnet;
    type Metadata = Target;
    type Response = Subnet;

    async fn plan(&self, new: &NewSubnet, plan: &mut PlanBuilder) -> Planned<Self> {
        // If this is no longer so when the operation is accepted, it is planned anew.
        plan.get_ready::<Network>(&new.network).await?;
        // Blocks must not overlap: a rule about all subnets of a network. Whoever asks for the same children waits until the
        // one before is accepted, and then sees it. Claiming the network's row instead would also keep the others out, but
        // with an error, and until the fabric has done its work.
        for other in plan.children::<Subnet>(&new.network).await? {
            if other.body.block.overlaps(new.block) {
                let message = format!("{:?} overlaps subnet {}", new.block, other.body.id);
                return Err(Status::new(Code::FailedPrecondition, message));
            }
        }
        let id = plan.new_id(IdPrefix::new("sub")?);
        let draft = Subnet { id: id.clone(), name: new.name.clone(), block: new.block, vlan: None };
        let tagged = plan.step::<AllocateVlan>(draft.clone());
        let routed = plan.step::<RouteBlock>(&tagged); // takes its output, so it waits for it
        plan.create(&id, &new.network, &new.name, &draft, &routed)?;
        Ok((Target { id }, routed))
    }
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Rename {
    pub(crate) id: ResourceId,
    pub(crate) name: String,
}

#[async_trait]
impl Kind for UpdateNetwork {
    const NAME: &'static str = "vpc.network.update";
    const RESPONSE_TYPE: &'static str = Network::TYPE_URL;
    type Request = Rename;
    type Metadata = Target;
    type Response = Network;

    async fn plan(&self, Rename { id, name }: &Rename, plan: &mut PlanBuilder) -> Planned<Self> {
        let found = plan.get::<Network>(id).await?;
        let renamed = plan.value(&Network { name: name.clone(), ..found.body.clone() });
        plan.update(&found, name, ResourceStatus::Ready, &renamed);
        Ok((Target { id: id.clone() }, renamed)) // nothing to do outside: done at once
    }
}

#[async_trait]
impl Kind for UpdateSubnet {
    const NAME: &'static str = "vpc.subnet.update";
    const RESPONSE_TYPE: &'static str = Subnet::TYPE_URL;
    type Request = Rename;
    type Metadata = Target;
    type Response = Subnet;

    async fn plan(&self, Rename { id, name }: &Rename, plan: &mut PlanBuilder) -> Planned<Self> {
        let found = plan.get::<Subnet>(id).await?;
        let renamed = plan.value(&Subnet { name: name.clone(), ..found.body.clone() });
        plan.update(&found, name, ResourceStatus::Ready, &renamed);
        Ok((Target { id: id.clone() }, renamed))
    }
}

#[async_trait]
impl Kind for DeleteNetwork {
    const NAME: &'static str = "vpc.network.delete";
    const RESPONSE_TYPE: &'static str = EMPTY_TYPE;
    type Request = Target;
    type Metadata = Target;
    type Response = ();

    async fn plan(&self, target: &Target, plan: &mut PlanBuilder) -> Planned<Self> {
        // Childless also when it is accepted, or it is planned anew.
        if !plan.is_childless::<Subnet>(&target.id).await? {
            let message = format!("network {} has subnets: delete them first, and wait for that", target.id);
            return Err(Status::new(Code::FailedPrecondition, message));
        }
        let found = plan.get::<Network>(&target.id).await?;
        plan.delete(&found); // refused with ABORTED while another operation has claimed it
        let released = plan.step::<Release>(target.id.clone());
        plan.point_of_no_return(&released); // its number may be another's at once: from here on there is only forward
        Ok((target.clone(), released))
    }
}

#[async_trait]
impl Kind for DeleteSubnet {
    const NAME: &'static str = "vpc.subnet.delete";
    const RESPONSE_TYPE: &'static str = EMPTY_TYPE;
    type Request = Target;
    type Metadata = Target;
    type Response = ();

    async fn plan(&self, target: &Target, plan: &mut PlanBuilder) -> Planned<Self> {
        let found = plan.get::<Subnet>(&target.id).await?;
        plan.delete(&found);
        let released = plan.step::<Release>(target.id.clone());
        plan.point_of_no_return(&released);
        Ok((target.clone(), released))
    }
}

// 4. THE ENGINE is told of them all. Reading needs no code: see the story for get, list and listOperations.

pub(crate) fn register(builder: EngineBuilder, fabric: &Fabric) -> EngineBuilder {
    builder
        .kind(CreateNetwork)
        .kind(UpdateNetwork)
        .kind(DeleteNetwork)
        .kind(CreateSubnet)
        .kind(UpdateSubnet)
        .kind(DeleteSubnet)
        .step(AllocateRouteTable(fabric.clone()))
        .step(AllocateVlan(fabric.clone()))
        .step(RouteBlock(fabric.clone()))
        .step(Release(fabric.clone()))
}

// 5. THE PROOF is a test of yours: every fault at every step and every undo of a kind, in virtual time. It takes a dev-dependency,
// `longrun-testkit = { version = "0.1", default-features = false }`. All kinds of this guide are proved so, in
// `longrun-testkit/tests/torture` of the repository; this one with exactly these lines, beside a `use` of what is above. What has to be
// there before, such as the network of a subnet, `request` makes by operations of its own.
//
//     use std::collections::BTreeMap;
//
//     use longrun::{Engine, EngineBuilder, ResourceId, async_trait};
//     use longrun_testkit::torture::{Scene, torture};
//
//     /// A network is created.
//     struct Creation;
//
//     #[async_trait]
//     impl Scene for Creation {
//         type Kind = CreateNetwork;
//         type World = Fabric; // what stays when the process dies
//         type Picture = BTreeMap<ResourceId, u16>; // all that the operation may change of it
//
//         fn world(&self) -> Fabric {
//             Fabric::default()
//         }
//
//         fn register(&self, fabric: &Fabric, builder: EngineBuilder) -> EngineBuilder {
//             register(builder, fabric)
//         }
//
//         async fn request(&self, _: &Fabric, _: &Engine) -> NewNetwork {
//             NewNetwork { folder: ResourceId::new("home").unwrap(), name: "net".to_owned() }
//         }
//
//         async fn look(&self, fabric: &Fabric) -> Self::Picture {
//             fabric.state().numbers.clone()
//         }
//     }
//
//     #[test]
//     fn creating_a_network_survives_every_fault() {
//         torture(&Creation).assert_clean();
//     }

#[tokio::main(flavor = "current_thread")]
async fn main() -> story::Outcome {
    story::tell(&story::print).await
}
