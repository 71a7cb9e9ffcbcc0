//! Proof for operation kinds of your own: every fault at every step and every undo, in virtual time.
//!
//! A [`Scene`] says what is tried: a kind, the world that its steps work on, and how to look at that world.
//! [`torture`] runs the operation once without faults, finds out which steps it has and which are undone, and then once for each
//! [`Fault`] at each of them. Whatever happens, one of two things must hold in the end:
//!
//! - the operation is done with a response, and the world looks as it does after a run without faults;
//! - the operation is done with an error, and the world looks as it did before.
//!
//! It must look so at the moment at which `done` is shown, and stay so: an hour later, and after one more restart. The rows that the
//! operation claims are looked at too, and need no picture of yours.
//!
//! ```
//! use longrun::{Code, EngineBuilder, Kind, PlanBuilder, Planned, Step, StepContext, StepResult};
//! use longrun::{Engine, UndoContext, UndoResult, Undoable, async_trait};
//! use longrun_testkit::torture::{Scene, torture};
//! use std::collections::BTreeMap;
//! use std::sync::{Arc, Mutex};
//!
//! /// What is outside: lights, by the key of the effect that has lit them.
//! type Lights = Arc<Mutex<BTreeMap<String, u32>>>;
//!
//! struct Light(Lights);
//!
//! #[async_trait]
//! impl Step for Light {
//!     const NAME: &'static str = "light";
//!     type Input = u32;
//!     type Output = ();
//!     type Checkpoint = ();
//!
//!     async fn run(&self, cx: &StepContext<()>, colour: u32) -> StepResult<()> {
//!         self.0.lock().unwrap().insert(cx.effect_key().to_string(), colour);
//!         Ok(())
//!     }
//!
//!     async fn undo(&self, cx: &UndoContext, _: u32, _: Undoable<(), ()>) -> UndoResult {
//!         self.0.lock().unwrap().remove(&cx.effect_key().to_string());
//!         Ok(())
//!     }
//! }
//!
//! struct Illuminate;
//!
//! #[async_trait]
//! impl Kind for Illuminate {
//!     const NAME: &'static str = "illuminate";
//!     type Request = Vec<u32>;
//!     type Metadata = ();
//!     type Response = ();
//!
//!     async fn plan(&self, colours: &Vec<u32>, plan: &mut PlanBuilder) -> Planned<Self> {
//!         let lit: Vec<_> = colours.iter().map(|colour| plan.step::<Light>(*colour)).collect();
//!         Ok(((), lit.into_iter().last().unwrap()))
//!     }
//! }
//!
//! struct Lighting;
//!
//! #[async_trait]
//! impl Scene for Lighting {
//!     type Kind = Illuminate;
//!     type World = Lights;
//!     type Picture = Vec<u32>;
//!
//!     fn world(&self) -> Lights {
//!         Lights::default()
//!     }
//!
//!     fn register(&self, lights: &Lights, builder: EngineBuilder) -> EngineBuilder {
//!         builder.kind(Illuminate).step(Light(lights.clone()))
//!     }
//!
//!     async fn request(&self, _: &Lights, _: &Engine) -> Vec<u32> {
//!         vec![1, 2]
//!     }
//!
//!     fn look(&self, lights: &Lights) -> Vec<u32> {
//!         lights.lock().unwrap().values().copied().collect()
//!     }
//! }
//!
//! let report = torture(&Lighting);
//! report.assert_clean();
//! println!("{report}");
//! ```
//!
//! What it prints is a matrix: what became of the operation under each fault.
//!
//! ```text
//! illuminate: 32 trials, 0 violations
//!
//!                 error   unknown panic   timeout crash<  crash>  repeat  cancel
//! run  0 light    undone  undone  undone  done    done    done    done    undone
//! run  1 light    undone  undone  undone  done    done    done    done    undone
//! undo 0 light    undone  undone  undone  undone  undone  undone  undone  undone
//! undo 1 light    undone  undone  undone  undone  undone  undone  undone  undone
//! ```

mod fault;
mod life;
mod report;
mod trial;

use std::collections::BTreeMap;
use std::fmt::Debug;

use async_trait::async_trait;
pub use fault::{Act, Fault, Point, Strike};
use longrun::{Engine, EngineBuilder, Kind};
pub use report::{End, Report, Row, Violation};
use trial::{Reference, Trial};

/// An operation kind, the world that its steps work on, and how to look at it.
#[async_trait]
pub trait Scene: Sync {
    /// The kind that is tried.
    type Kind: Kind;
    /// What the steps work on: what stays when a process dies. A fake of what is outside, or a temporary folder.
    type World: Send + Sync;
    /// What can be seen of the world: all that the operation may change, and nothing that differs from run to run.
    type Picture: PartialEq + Debug;

    /// A new world. Each trial has one.
    fn world(&self) -> Self::World;

    /// Registers kinds and steps. Called for each life of the process: whatever the steps hold in memory is made here.
    fn register(&self, world: &Self::World, builder: EngineBuilder) -> EngineBuilder;

    /// What is asked for. What has to be there before is made here, by operations on the engine; they meet no fault.
    async fn request(&self, world: &Self::World, engine: &Engine) -> <Self::Kind as Kind>::Request;

    /// Looks at the world.
    fn look(&self, world: &Self::World) -> Self::Picture;
}

/// Tries each [`Fault`] at each step, and at each undo that a failure of a later step leads to.
pub fn torture<S: Scene>(scene: &S) -> Report {
    Bench::new(scene).singles()
}

/// Tries each pair of faults at two different places: the second meets what the first has led to. It may never come to it; then it
/// counts as one.
pub fn torture_pairs<S: Scene>(scene: &S) -> Report {
    Bench::new(scene).pairs()
}

/// What is known of a scene before faults are tried on it.
struct Bench<'a, S: Scene> {
    scene: &'a S,
    /// A run without faults.
    reference: Reference<S::Picture>,
    /// The places, each with what has to fail before the operation comes to it.
    places: BTreeMap<Point, Option<Strike>>,
    report: Report,
}

impl<'a, S: Scene> Bench<'a, S> {
    fn new(scene: &'a S) -> Self {
        let (reference, seen, changed) = Trial::new(scene, &[]).reference();
        let mut report = Report::new(<S::Kind as Kind>::NAME);
        report.note_without_faults(changed);
        let mut places: BTreeMap<Point, Option<Strike>> =
            seen.keys().filter(|point| point.act == Act::Run).map(|point| (*point, None)).collect();
        report.name_steps(&seen);
        // Of several failures that lead to an undo, the last one: then most has been done that has to be undone.
        let runs: Vec<Point> = places.keys().copied().collect();
        for run in runs {
            let failure = Strike { point: run, fault: Fault::Unknown };
            for point in Trial::new(scene, &[failure]).seen().into_keys() {
                if point.act == Act::Undo {
                    places.insert(point, Some(failure));
                }
            }
        }
        Self { scene, reference, places, report }
    }

    fn singles(mut self) -> Report {
        for (point, cause) in self.places.clone() {
            for fault in Fault::ALL {
                let planned: Vec<_> = cause.into_iter().chain([Strike { point, fault }]).collect();
                self.attempt(point, fault, &planned, true);
            }
        }
        self.report
    }

    fn pairs(mut self) -> Report {
        let places: Vec<(Point, Option<Strike>)> = self.places.clone().into_iter().collect();
        for (place, (first, cause)) in places.iter().enumerate() {
            for (second, _) in &places[place + 1..] {
                for (fault, other) in Fault::ALL.iter().flat_map(|one| Fault::ALL.map(|other| (*one, other)))
                {
                    let pair = [Strike { point: *first, fault }, Strike { point: *second, fault: other }];
                    // What leads to the first is not planned twice at the place of the second.
                    let cause = cause.filter(|cause| cause.point != *second);
                    let planned: Vec<_> = cause.into_iter().chain(pair).collect();
                    self.attempt(*first, fault, &planned, false);
                }
            }
        }
        self.report
    }

    fn attempt(&mut self, point: Point, fault: Fault, planned: &[Strike], all_must_fire: bool) {
        let outcome = Trial::new(self.scene, planned).run(&self.reference, all_must_fire);
        self.report.note(point, fault, planned, outcome);
    }
}
