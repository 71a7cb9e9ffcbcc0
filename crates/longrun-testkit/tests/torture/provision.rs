//! The kind of the first page of `longrun`.
#![allow(dead_code)] // The program's own `main`.

use longrun::EngineBuilder;
use longrun_testkit::torture::{Fault, Scene, torture};

// Not a module of its own: nothing on the first page is there for others.
include!("../../../longrun/doc/provision.rs");

#[async_trait]
impl Scene for Provision {
    type Kind = Self;
    type World = Cloud;
    /// Machines, and whether they run.
    type Picture = BTreeMap<String, bool>;

    fn world(&self) -> Cloud {
        Cloud::default()
    }

    fn register(&self, cloud: &Cloud, builder: EngineBuilder) -> EngineBuilder {
        builder.kind(Self).step(CreateMachine(cloud.clone())).step(StartMachine(cloud.clone()))
    }

    async fn request(&self, _: &Cloud, _: &Engine) -> String {
        "debian".to_owned()
    }

    async fn look(&self, cloud: &Cloud) -> Self::Picture {
        cloud.0.lock().unwrap().clone()
    }
}

#[test]
fn c09_provisioning_a_machine_survives_every_fault_at_every_step_and_undo() {
    let report = torture(&Provision);
    report.assert_clean();
    assert_eq!(report.trials(), 6 * Fault::ALL.len());
}
