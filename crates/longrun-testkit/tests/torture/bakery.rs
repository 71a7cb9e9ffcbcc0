//! The kind of the example of a server of one's own.

use longrun::{Engine, EngineBuilder, async_trait};
use longrun_testkit::torture::{Fault, Scene, torture};

#[path = "../../../longrun-server/examples/mount/bakery.rs"]
#[allow(dead_code)]
mod example;
use example::{BakeCake, Cake, Shelf};

#[async_trait]
impl Scene for BakeCake {
    type Kind = Self;
    type World = Shelf;
    /// Sorts and layers.
    type Picture = Vec<(String, u8)>;

    fn world(&self) -> Shelf {
        Shelf::default()
    }

    fn register(&self, shelf: &Shelf, builder: EngineBuilder) -> EngineBuilder {
        example::register(builder, shelf)
    }

    async fn request(&self, _: &Shelf, _: &Engine) -> Cake {
        Cake { sort: "plum".to_owned(), layers: 3 }
    }

    async fn look(&self, shelf: &Shelf) -> Self::Picture {
        shelf.cakes().values().map(|cake| (cake.sort.clone(), cake.layers)).collect()
    }
}

#[test]
fn c09_baking_a_cake_survives_every_fault_at_every_step_and_undo() {
    let report = torture(&BakeCake);
    report.assert_clean();
    assert_eq!(report.trials(), 3 * Fault::ALL.len(), "a run, and its undo in two states");
}
