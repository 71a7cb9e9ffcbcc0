//! Proof for operation kinds of your own: every fault at every step and every undo, in virtual time.
//!
//! A [`Scene`] says what is tried: a kind, the world that its steps work on, and how to look at that world.
//! [`torture`] runs the operation twice without faults: what differs by itself is a violation. It then looks for the places that faults
//! lead to, which are runs of steps and undos of them, and tries each [`Fault`] at each of them. Whatever happens, one of two things must
//! hold in the end:
//!
//! - the operation is done with a response, and the world looks as it does after a run without faults;
//! - the operation is done with an error, and the world looks as it did before.
//!
//! It must look so at the moment at which `done` is shown, and stay so: an hour later, and after one more restart. What the operation
//! has in the engine's store is compared too: its response, the rows that it claims, the items that those
//! [refer](longrun::References) to, and the orphans that it has not forgotten.
//!
//! An operation does not end, which is a violation, if in one life of the process three years of virtual time pass before it is done, or
//! 200 runs and undos fail, calls that a fault struck not counted. Steps that wait by failing have that many tries.
//!
//! Also a violation:
//!
//! - another response than without faults;
//! - an accepted cancel that ends with anything but CANCELLED;
//! - a cancel that fails, or an operation that changes after it is done;
//! - a picture, rows and references in which nothing changes, though there are steps: nothing could be found;
//! - a scene that panics, or an engine that does not start again;
//! - indexes of the engine's store that disagree with what they point to;
//! - in [`torture`], a fault that never strikes, since the place was not reached again.
//!
//! Faults strike between the calls of steps and undos, not inside of them: what a step does when it is cut off in the middle, or goes
//! on from a checkpoint, is not tried. Time is virtual: a step may sleep as long as it likes, but must not wait for threads or sockets
//! of its own.
//!
//! ```
//! use longrun::{EngineBuilder, Kind, PlanBuilder, Planned, Step, StepContext, StepResult};
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
//!     async fn look(&self, lights: &Lights) -> Vec<u32> {
//!         lights.lock().unwrap().values().copied().collect()
//!     }
//! }
//!
//! let report = torture(&Lighting);
//! report.assert_clean();
//! println!("{report}");
//! ```
//!
//! What it prints is a matrix: what became of the operation under each fault. `<` is before the call and `>` after it;
//! `undo?` is the undo of a step that may have run and of which nothing more is known. `done` is with a response, `undone` with an
//! error and the world as it was before, `BAD` with a violation. Each violation is told below, with the faults that led to it.
//!
//! ```text
//! illuminate: 54 trials, 0 violations
//!
//!               error   unknown panic   timeout crash<  crash>  repeat  cancel< cancel>
//! run   0 light undone  undone  undone  done    done    done    done    undone  undone
//! run   1 light undone  undone  undone  done    done    done    done    undone  undone
//! undo  0 light undone  undone  undone  undone  undone  undone  undone  undone  undone
//! undo  1 light undone  undone  undone  undone  undone  undone  undone  undone  undone
//! undo? 0 light undone  undone  undone  undone  undone  undone  undone  undone  undone
//! undo? 1 light undone  undone  undone  undone  undone  undone  undone  undone  undone
//! ```
//!
//! In a row of [`torture_pairs`] is what became of all pairs whose first fault it is. `3/4` is three times undone and four times done,
//! `5 BAD` is five with a violation, whatever became of the others, and `-` is not tried.

mod fault;
mod life;
mod report;
mod trial;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use async_trait::async_trait;
pub use fault::{Act, Fault, Point, Strike};
use life::{Control, Seen};
use longrun::{Engine, EngineBuilder, Kind};
use report::Outcome;
pub use report::{Ends, Report, Row, Violation};
use serde_json::Value;
use tokio::runtime::Handle;
use trial::{Reference, Trial};

use crate::panics::message_of;

/// An operation kind, the world that its steps work on, and how to look at it.
#[async_trait]
pub trait Scene: Sync {
    /// The kind that is tried.
    type Kind: Kind;
    /// What the steps work on: what stays when a process dies. A fake of what is outside, or a temporary folder.
    type World: Send + Sync;
    /// What can be seen of the world: all that the operation may change, and nothing that differs from run to run.
    type Picture: PartialEq + Debug;

    /// A new world. Each trial has one. Called outside of a runtime: `tokio::spawn` and the like panic.
    fn world(&self) -> Self::World;

    /// Registers kinds and steps, once for each life of the process: what the steps hold in memory is made here. The environment and the
    /// sweep interval that you set are replaced; your interceptors stand outside of the faults.
    fn register(&self, world: &Self::World, builder: EngineBuilder) -> EngineBuilder;

    /// The request to submit. Create here, through `engine`, what it needs to find, and wait for it; no fault strikes before this
    /// returns.
    async fn request(&self, world: &Self::World, engine: &Engine) -> <Self::Kind as Kind>::Request;

    /// Looks at the world.
    async fn look(&self, world: &Self::World) -> Self::Picture;

    /// Takes out of the body of a row, and out of a response, what differs from run to run: times, numbers of attempts.
    fn normalise(&self, body: &mut Value) {
        let _ = body;
    }
}

/// Tries each [`Fault`] at each step and at each undo: of a step that was done, and of one that may have run.
///
/// Call it from a plain `#[test]`: each life of the process is a runtime of its own.
///
/// # Panics
///
/// If it is called from within a runtime, as in `#[tokio::test]`. If the first run, which is without faults, does not end with a response:
/// the engine does not start, what has to be there before is not made, the request is refused, the operation fails, or the scene panics.
/// A panic of the scene in any later run is a violation.
#[track_caller]
pub fn torture<S: Scene>(scene: &S) -> Report {
    Bench::new(scene).singles()
}

/// Tries each pair of faults at two different places: the second meets what the first has led to.
///
/// The first fault may keep the operation from the second; [`Report::trials_complete`] counts the trials in which both struck.
///
/// It takes 81 trials for each two places: 1,215 for the six places of two steps, each run, undone, and undone after it may have run. That
/// grows with the square of the steps.
///
/// Call it from a plain `#[test]`.
///
/// # Panics
///
/// As [`torture`] does.
#[track_caller]
pub fn torture_pairs<S: Scene>(scene: &S) -> Report {
    Bench::new(scene).pairs()
}

/// What is known of a scene before faults are tried on it.
struct Bench<'a, S: Scene> {
    scene: &'a S,
    /// A run without faults.
    reference: Reference<S::Picture>,
    /// The places, each with what has to happen before the operation comes to it.
    places: BTreeMap<Point, Option<Strike>>,
    report: Report,
}

impl<'a, S: Scene> Bench<'a, S> {
    #[track_caller]
    fn new(scene: &'a S) -> Self {
        assert!(
            Handle::try_current().is_err(),
            "torture is called from within a runtime, and has runtimes of its own: call it from a plain #[test]"
        );
        let reference = Trial::new(scene, &Arc::new(Control::new(&[]))).reference();
        let report = Report::new(<S::Kind as Kind>::NAME);
        let mut bench = Self { scene, reference, places: BTreeMap::new(), report };
        // Once more: what differs by itself would be laid at the door of the faults.
        let Outcome { mut violations, seen, .. } = bench.attempt(&[]);
        if !seen.is_empty() && bench.reference.shows_nothing() {
            violations.push("nothing that can be seen changes, so nothing could be found".to_owned());
        }
        bench.report.note_without_faults(violations);
        bench.note_places(&seen, None);
        // What leads to an undo: a failure of a later step, the last one if there are several; of the step itself, then it is not
        // known whether it ran; or a cancel at the end of its run, if there is no later one.
        let runs: Vec<Point> = bench.places.keys().copied().collect();
        for fault in [Fault::Unknown, Fault::CancelAfter] {
            for point in runs.iter().rev() {
                let cause = Strike { point: *point, fault };
                // What is wrong with it is told when the same comes again as a trial.
                let Outcome { seen, .. } = bench.attempt(&[cause]);
                bench.note_places(&seen, Some(cause));
            }
        }
        bench
    }

    /// Places that the operation came to, with what led to them.
    fn note_places(&mut self, seen: &Seen, cause: Option<Strike>) {
        self.report.name_steps(seen);
        for point in seen.keys() {
            self.places.entry(*point).or_insert(cause);
        }
    }

    fn singles(mut self) -> Report {
        for (point, cause) in self.places.clone() {
            for &fault in Fault::ALL {
                let strike = Strike { point, fault };
                let planned: Vec<_> = cause.into_iter().chain([strike]).collect();
                let mut outcome = self.attempt(&planned);
                let never = |strike: &Strike| {
                    format!("{strike} ({}) never struck", self.report.name(strike.point.step))
                };
                outcome.violations.extend(outcome.pending.iter().map(never));
                self.report.note(strike, &planned, outcome.pending.is_empty(), &outcome);
            }
        }
        self.report
    }

    fn pairs(mut self) -> Report {
        let places: Vec<(Point, Option<Strike>)> = self.places.clone().into_iter().collect();
        for (place, (first, _)) in places.iter().enumerate() {
            for (second, cause) in &places[place + 1..] {
                for (fault, other) in pairs_of_faults() {
                    let pair = [Strike { point: *first, fault }, Strike { point: *second, fault: other }];
                    let planned: Vec<_> = match first.act {
                        // What leads to the second, where the first has not. At the place of the first it strikes the next run.
                        Act::Run => pair.into_iter().chain(*cause).collect(),
                        // Of two undos what leads to the second leads to the first too, if anything does.
                        _ => cause.iter().copied().chain(pair).collect(),
                    };
                    let outcome = self.attempt(&planned);
                    let complete = !outcome.pending.iter().any(|strike| pair.contains(strike));
                    self.report.note(pair[0], &planned, complete, &outcome);
                }
            }
        }
        self.report
    }

    /// Runs the operation with these faults. A panic is a violation, and does not hide where the operation came to.
    fn attempt(&self, planned: &[Strike]) -> Outcome {
        let control = Arc::new(Control::new(planned));
        let run = || Trial::new(self.scene, &control).run(&self.reference);
        let (end, violations) = catch_unwind(AssertUnwindSafe(run))
            .unwrap_or_else(|panic| (None, vec![format!("the trial panics: {}", message_of(&*panic))]));
        Outcome { end, violations, pending: control.pending(), seen: control.seen() }
    }
}

fn pairs_of_faults() -> impl Iterator<Item = (Fault, Fault)> {
    Fault::ALL.iter().flat_map(|one| Fault::ALL.iter().map(|other| (*one, *other)))
}
