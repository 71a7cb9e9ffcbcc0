//! The test that the guide for embedders shows, word for word.

use super::vpc::guide::fabric::Fabric;
use super::vpc::guide::{CreateNetwork, NewNetwork, register};

use std::collections::BTreeMap;

use longrun::{Engine, EngineBuilder, ResourceId, async_trait};
use longrun_testkit::torture::{Scene, torture};

/// A network is created.
struct Creation;

#[async_trait]
impl Scene for Creation {
    type Kind = CreateNetwork;
    type World = Fabric; // what stays when the process dies
    type Picture = BTreeMap<ResourceId, u16>; // all that the operation may change of it

    fn world(&self) -> Fabric {
        Fabric::default()
    }

    fn register(&self, fabric: &Fabric, builder: EngineBuilder) -> EngineBuilder {
        register(builder, fabric)
    }

    async fn request(&self, _: &Fabric, _: &Engine) -> NewNetwork {
        NewNetwork { folder: ResourceId::new("home").unwrap(), name: "net".to_owned() }
    }

    async fn look(&self, fabric: &Fabric) -> Self::Picture {
        fabric.state().numbers.clone()
    }
}

#[test]
fn creating_a_network_survives_every_fault() {
    torture(&Creation).assert_clean();
}

#[test]
fn the_guide_shows_this_test() {
    let guide = include_str!("../../../longrun/examples/vpc.rs");
    let shown: Vec<&str> = guide.lines().filter_map(|line| line.strip_prefix("//     ")).collect();
    let run: Vec<&str> = include_str!("network.rs").lines().filter(|line| !line.is_empty()).collect();
    assert!(run.windows(shown.len()).any(|part| part == shown), "{shown:#?}");
    assert!(shown.first().is_some_and(|line| line.starts_with("use ")) && shown.last() == Some(&"}"));
}
