//! The kinds of the embedder's guide.

use std::collections::BTreeMap;

use longrun::{Call, Caller, Engine, EngineBuilder, Kind, ResourceId, async_trait};
use longrun_testkit::torture::{Act, Fault, Scene, torture, torture_pairs};

use super::assert_both_struck;

#[path = "../../../longrun/examples/vpc.rs"]
// Its story runs on other stores where there are some.
#[allow(dead_code, unexpected_cfgs)]
pub(crate) mod guide;
use guide::fabric::{Cidr, Fabric};
use guide::{
    CreateNetwork, CreateSubnet, DeleteNetwork, DeleteSubnet, NewNetwork, NewSubnet, Rename, Target,
    UpdateNetwork, UpdateSubnet,
};

/// What the fabric has given out and routes, by owner.
type Picture = (BTreeMap<ResourceId, u16>, Vec<(ResourceId, Cidr)>);

fn picture(fabric: &Fabric) -> Picture {
    let state = fabric.state();
    (state.numbers.clone(), state.routes.iter().map(|(owner, block)| (owner.clone(), *block)).collect())
}

async fn made<K: Kind<Metadata = Target>>(engine: &Engine, request: K::Request) -> ResourceId {
    let accepted = engine.submit::<K>(&request, Call::by(Caller::new("ann").unwrap())).await.unwrap();
    let done = engine.wait_done(accepted.id()).await.unwrap();
    assert!(done.response().is_some(), "{done:?}");
    done.metadata().decode::<Target>().unwrap().id
}

fn new_network() -> NewNetwork {
    NewNetwork { folder: ResourceId::new("home").unwrap(), name: "net".to_owned() }
}

async fn network(engine: &Engine) -> ResourceId {
    made::<CreateNetwork>(engine, new_network()).await
}

async fn new_subnet(engine: &Engine) -> NewSubnet {
    let block = Cidr::try_from("10.0.0.0/24".to_owned()).unwrap();
    NewSubnet { network: network(engine).await, name: "sub".to_owned(), block }
}

async fn subnet(engine: &Engine) -> ResourceId {
    let new = new_subnet(engine).await;
    made::<CreateSubnet>(engine, new).await
}

/// Declares a scene: all of them differ in the kind and in what is asked for.
macro_rules! scene {
    ($kind:ident, $engine:ident, $request:expr) => {
        #[async_trait]
        impl Scene for $kind {
            type Kind = Self;
            type World = Fabric;
            type Picture = Picture;

            fn world(&self) -> Fabric {
                Fabric::default()
            }

            fn register(&self, fabric: &Fabric, builder: EngineBuilder) -> EngineBuilder {
                guide::register(builder, fabric)
            }

            async fn request(&self, _: &Fabric, $engine: &Engine) -> <Self as Kind>::Request {
                $request
            }

            async fn look(&self, fabric: &Fabric) -> Picture {
                picture(fabric)
            }
        }
    };
}

scene!(CreateNetwork, _engine, new_network());
scene!(CreateSubnet, engine, new_subnet(engine).await);
scene!(DeleteNetwork, engine, Target { id: network(engine).await });
scene!(DeleteSubnet, engine, Target { id: subnet(engine).await });
scene!(UpdateNetwork, engine, Rename { id: network(engine).await, name: "other".to_owned() });
scene!(UpdateSubnet, engine, Rename { id: subnet(engine).await, name: "other".to_owned() });

#[test]
fn c09_creating_and_deleting_survives_every_fault_at_every_step_and_undo() {
    let report = torture(&CreateNetwork);
    report.assert_clean();
    assert_eq!(report.trials(), 3 * Fault::ALL.len(), "a run, and its undo in two states");
    let report = torture(&CreateSubnet);
    report.assert_clean();
    assert_eq!(report.trials(), 6 * Fault::ALL.len());
    // What is past its point of no return is not undone: it goes on until it is done.
    for report in [torture(&DeleteNetwork), torture(&DeleteSubnet)] {
        report.assert_clean();
        assert_eq!(report.trials(), Fault::ALL.len());
        assert!(report.rows().keys().all(|point| point.act == Act::Run));
    }
}

#[test]
fn c09_creating_a_subnet_survives_every_pair_of_faults() {
    let report = torture_pairs(&CreateSubnet);
    report.assert_clean();
    assert_eq!(report.trials(), 15 * Fault::ALL.len() * Fault::ALL.len(), "pairs of six places");
    // Nothing comes to the place of the second where the first has the operation rolled back before it, and a step is undone once.
    assert_both_struck(&report, 40);
}

#[test]
fn a_kind_without_steps_has_nothing_to_torture_and_says_so() {
    for report in [torture(&UpdateNetwork), torture(&UpdateSubnet)] {
        assert_eq!((report.trials(), report.violations().len()), (0, 0));
        assert!(std::panic::catch_unwind(|| report.assert_clean()).is_err());
    }
}

#[test]
fn the_report_is_a_matrix() {
    let text = torture(&CreateSubnet).to_string();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "vpc.subnet.create: 54 trials, 0 violations");
    let cells = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let faults = ["error", "unknown", "panic", "timeout", "crash<", "crash>", "repeat", "cancel<", "cancel>"];
    assert_eq!(cells(lines[2]), faults);
    let rows: Vec<_> = lines[3..].iter().map(|line| cells(line)).collect();
    let run = ["undone", "undone", "undone", "done", "done", "done", "done", "undone", "undone"];
    let expected = [
        ("run", "0", "vpc.allocate-vlan", run),
        ("run", "1", "vpc.route-block", run),
        ("undo", "0", "vpc.allocate-vlan", ["undone"; 9]),
        ("undo", "1", "vpc.route-block", ["undone"; 9]),
        ("undo?", "0", "vpc.allocate-vlan", ["undone"; 9]),
        ("undo?", "1", "vpc.route-block", ["undone"; 9]),
    ];
    let expected: Vec<Vec<String>> = expected
        .iter()
        .map(|(act, step, name, ends)| {
            [*act, *step, *name].iter().chain(ends).map(|cell| (*cell).to_owned()).collect()
        })
        .collect();
    assert_eq!(rows, expected, "{text}");
}
