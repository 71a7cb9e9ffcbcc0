//! Mistakes that users make in their steps, each of which has to be found, and where.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use longrun::{
    Code, Engine, EngineBuilder, InterceptedUndo, Interceptor, Kind, PlanBuilder, Planned, Step, StepContext,
    StepError, StepIndex, StepPolicy, StepResult, UndoContext, UndoError, UndoResult, Undoable, async_trait,
};
use longrun_testkit::torture::{Act, Ends, Fault, Point, Report, Scene, Strike, torture};

/// What is wrong with the steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mistake {
    Nothing,
    /// None either: a policy that allows one run only.
    NothingAndRunOnce,
    /// What a step has in its memory tells it that it was called before: a second call makes another thing. It is run once only.
    SecondCallMakesAnother,
    /// Each run makes another thing, whatever the effect key.
    RunsAreNotIdempotent,
    /// An undo takes what it is to remove from the output, and so does nothing where there is none.
    UndoKnowsOutputsOnly,
    /// An undo of what is not there fails, so a second one does.
    UndoIsNotIdempotent,
    /// The same, with a panic.
    UndoPanicsTheSecondTime,
    /// An undo forgets.
    UndoLeavesSomething,
    /// A run has its effect after it has returned, at once or later.
    RunGoesOnInTheBackground(u64),
    /// What is outside is taken for what a step has in its memory.
    TruthInMemory,
    /// A run that finds its own thing says that it has failed, and done nothing. No mistake, as it turns out: the engine undoes
    /// it all the same, since an earlier run may have had its effect.
    TakesItsOwnThingForAnothers,
}

/// What is outside: things by name.
type Things = Arc<Mutex<BTreeMap<String, u16>>>;

struct Make {
    things: Things,
    mistake: Mistake,
    made: AtomicU32,
    asked: Mutex<BTreeSet<String>>,
}

#[async_trait]
impl Step for Make {
    const NAME: &'static str = "make";
    type Input = u16;
    type Output = String;
    type Checkpoint = ();

    async fn run(&self, cx: &StepContext<()>, number: u16) -> StepResult<String> {
        let made = self.made.fetch_add(1, Ordering::Relaxed);
        let name = match self.mistake {
            Mistake::RunsAreNotIdempotent => format!("{}-{made}", cx.effect_key()),
            Mistake::SecondCallMakesAnother
                if !self.asked.lock().unwrap().insert(cx.effect_key().to_string()) =>
            {
                format!("{}-again", cx.effect_key())
            }
            _ => cx.effect_key().to_string(),
        };
        if let Mistake::RunGoesOnInTheBackground(seconds) = self.mistake {
            let (things, late) = (Arc::clone(&self.things), name.clone());
            tokio::spawn(async move {
                if seconds > 0 {
                    tokio::time::sleep(std::time::Duration::from_secs(seconds)).await;
                }
                things.lock().unwrap().insert(late, number);
            });
            return Ok(name);
        }
        let found = self.things.lock().unwrap().insert(name.clone(), number);
        if found.is_some() && self.mistake == Mistake::TakesItsOwnThingForAnothers {
            return Err(StepError::not_applied(Code::AlreadyExists, "there is such a thing").permanent());
        }
        Ok(name)
    }

    async fn undo(&self, cx: &UndoContext, _: u16, outcome: Undoable<String, ()>) -> UndoResult {
        let name = match (self.mistake, outcome) {
            (Mistake::UndoLeavesSomething, _) => return Ok(()),
            (Mistake::UndoKnowsOutputsOnly | Mistake::RunsAreNotIdempotent, Undoable::Done(name)) => name,
            (Mistake::UndoKnowsOutputsOnly, Undoable::MayHaveRun(_)) => return Ok(()),
            (Mistake::TruthInMemory, _) if self.made.load(Ordering::Relaxed) == 0 => return Ok(()),
            _ => cx.effect_key().to_string(),
        };
        let removed = self.things.lock().unwrap().remove(&name);
        if removed.is_none() && self.mistake == Mistake::UndoIsNotIdempotent {
            return Err(UndoError::new(Code::NotFound, "there is no such thing"));
        }
        assert!(removed.is_some() || self.mistake != Mistake::UndoPanicsTheSecondTime);
        Ok(())
    }
}

struct MakeTwo {
    policy: StepPolicy,
}

#[async_trait]
impl Kind for MakeTwo {
    const NAME: &'static str = "make-two";
    type Request = ();
    type Metadata = ();
    type Response = String;

    async fn plan(&self, (): &(), plan: &mut PlanBuilder) -> Planned<Self> {
        let first = plan.step_with::<Make>(1, self.policy);
        let second = plan.step_with::<Make>(2, self.policy);
        plan.after(&second, &first);
        Ok(((), second))
    }
}

#[async_trait]
impl Scene for Mistake {
    type Kind = MakeTwo;
    type World = Things;
    type Picture = BTreeMap<String, u16>;

    fn world(&self) -> Things {
        Things::default()
    }

    fn register(&self, things: &Things, builder: EngineBuilder) -> EngineBuilder {
        let mut policy = StepPolicy::default();
        if matches!(self, Self::NothingAndRunOnce | Self::SecondCallMakesAnother) {
            policy.runs_max = 1;
        }
        let (made, asked) = (AtomicU32::new(0), Mutex::default());
        let step = Make { things: Arc::clone(things), mistake: *self, made, asked };
        builder.kind(MakeTwo { policy }).step(step)
    }

    async fn request(&self, _: &Things, _: &Engine) {}

    async fn look(&self, things: &Things) -> BTreeMap<String, u16> {
        things.lock().unwrap().clone()
    }
}

/// The faults that found something, by what they struck.
fn found(report: &Report, act: Act) -> Vec<Fault> {
    let rows = report.rows().iter().filter(|(point, _)| (point.act == Act::Run) == (act == Act::Run));
    let mut found: Vec<Fault> = rows
        .flat_map(|(_, row)| row.ends.iter().filter(|(_, ends)| ends.bad > 0).map(|(fault, _)| *fault))
        .collect();
    found.sort_unstable();
    found.dedup();
    found
}

#[test]
fn steps_without_a_mistake_are_clean() {
    for none in [Mistake::Nothing, Mistake::NothingAndRunOnce, Mistake::TakesItsOwnThingForAnothers] {
        let report = torture(&none);
        report.assert_clean();
        assert_eq!(report.trials(), 6 * Fault::ALL.len());
    }
}

#[test]
fn each_mistake_is_found_by_the_faults_that_it_does_not_survive() {
    use Fault::*;
    let all = || Fault::ALL.to_vec();
    for (mistake, by_runs, by_undos) in [
        (
            Mistake::RunsAreNotIdempotent,
            vec![Unknown, Panic, Timeout, CrashBefore, CrashAfter, Repeat],
            all(),
        ),
        (Mistake::UndoKnowsOutputsOnly, vec![Unknown, Panic], all()),
        (Mistake::UndoIsNotIdempotent, vec![], vec![Unknown, Panic, Timeout, CrashAfter, Repeat]),
        (Mistake::UndoPanicsTheSecondTime, vec![], vec![Unknown, Panic, Timeout, CrashAfter, Repeat]),
        (Mistake::UndoLeavesSomething, vec![Error, Unknown, Panic, CancelBefore, CancelAfter], all()),
        (Mistake::TruthInMemory, vec![], vec![CrashBefore, CrashAfter]),
        (Mistake::SecondCallMakesAnother, vec![Repeat], vec![]),
    ] {
        let report = torture(&mistake);
        assert_eq!(found(&report, Act::Run), by_runs, "{mistake:?}: {report}");
        assert_eq!(found(&report, Act::Undo), by_undos, "{mistake:?}: {report}");
        let told = report.violations()[0].to_string();
        let place = [" at run 0 (make)", " at run 1 (make)", " at undo 0 (make)"];
        assert!(place.iter().any(|place| told.contains(place)), "{told}");
    }
}

#[test]
fn a_run_that_is_repeated_is_done_also_where_its_policy_allows_no_other() {
    let report = torture(&Mistake::NothingAndRunOnce);
    for step in [StepIndex(0), StepIndex(1)] {
        let ends = &report.rows()[&Point { act: Act::Run, step }].ends;
        assert_eq!(ends[&Fault::Repeat], Ends { done: 1, ..Ends::default() }, "{report}");
        assert_eq!(ends[&Fault::CrashAfter], Ends { done: 1, ..Ends::default() }, "{report}");
        assert_eq!(ends[&Fault::Timeout], Ends { undone: 1, ..Ends::default() }, "{report}");
    }
}

#[tokio::test]
#[should_panic(expected = "call it from a plain #[test]")]
async fn a_call_from_within_a_runtime_is_told_apart() {
    torture(&Mistake::Nothing).assert_clean();
}

#[test]
fn a_run_that_goes_on_in_the_background_is_found_without_any_fault() {
    for seconds in [0, 10] {
        let report = torture(&Mistake::RunGoesOnInTheBackground(seconds));
        let told = report.violations()[0].to_string();
        assert!(
            told.starts_with("without a fault: an hour later the world is not as it should be"),
            "{told}"
        );
    }
}

#[test]
fn a_picture_that_shows_nothing_is_found() {
    struct Blind;

    #[async_trait]
    impl Scene for Blind {
        type Kind = MakeTwo;
        type World = Things;
        type Picture = ();

        fn world(&self) -> Things {
            Things::default()
        }

        fn register(&self, things: &Things, builder: EngineBuilder) -> EngineBuilder {
            Mistake::UndoLeavesSomething.register(things, builder)
        }

        async fn request(&self, _: &Things, _: &Engine) {}

        async fn look(&self, _: &Things) {}
    }

    let report = torture(&Blind);
    let told = report.violations()[0].to_string();
    assert!(told.contains("nothing that can be seen changes"), "{told}");
}

#[test]
fn a_look_that_panics_under_one_fault_is_found_by_its_name() {
    /// Notes that the second step is undone: after it was done, or after it may have been.
    struct Note(Act, Arc<AtomicBool>);

    #[async_trait]
    impl Interceptor for Note {
        async fn undo(&self, undo: &InterceptedUndo<'_>) -> UndoResult {
            let act =
                if matches!(undo.outcome(), Undoable::Done(_)) { Act::Undo } else { Act::UndoMayHaveRun };
            if act == self.0 && undo.effect_key().step == StepIndex(1) {
                self.1.store(true, Ordering::Relaxed);
            }
            undo.call().await
        }
    }

    /// Cannot be looked at after that undo.
    struct Fragile(Act);

    #[async_trait]
    impl Scene for Fragile {
        type Kind = MakeTwo;
        type World = (Things, Arc<AtomicBool>);
        type Picture = BTreeMap<String, u16>;

        fn world(&self) -> Self::World {
            Self::World::default()
        }

        fn register(&self, (things, broken): &Self::World, builder: EngineBuilder) -> EngineBuilder {
            let note = Note(self.0, Arc::clone(broken));
            Mistake::Nothing.register(things, builder).interceptor(note)
        }

        async fn request(&self, _: &Self::World, _: &Engine) {}

        async fn look(&self, (things, broken): &Self::World) -> BTreeMap<String, u16> {
            assert!(!broken.load(Ordering::Relaxed), "it is broken");
            things.lock().unwrap().clone()
        }
    }

    // Both faults also look for places, before any trial counts.
    for (act, fault) in [(Act::UndoMayHaveRun, Fault::Unknown), (Act::Undo, Fault::CancelAfter)] {
        let report = torture(&Fragile(act));
        let strike = Strike { point: Point { act: Act::Run, step: StepIndex(1) }, fault };
        let told: Vec<_> = report.violations().iter().filter(|told| told.faults[0].0 == strike).collect();
        assert_eq!(
            told[0].to_string(),
            format!("{strike} (make): the trial panics: it is broken"),
            "{report}"
        );
        assert_eq!(report.trials(), 6 * Fault::ALL.len(), "and no place is missed: {report}");
        assert!(found(&report, Act::Run).contains(&fault), "{report}");
        assert!(!found(&report, Act::Run).contains(&Fault::Error), "{report}");
    }
}

#[test]
fn the_engines_of_dead_processes_are_dropped() {
    /// Counts those that are alive.
    struct Counted(Arc<AtomicU32>);

    impl Drop for Counted {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::Relaxed);
        }
    }

    #[async_trait]
    impl Step for Counted {
        const NAME: &'static str = "counted";
        type Input = ();
        type Output = ();
        type Checkpoint = ();

        async fn run(&self, _: &StepContext<()>, (): ()) -> StepResult<()> {
            Ok(())
        }

        async fn undo(&self, _: &UndoContext, (): (), _: Undoable<(), ()>) -> UndoResult {
            Ok(())
        }
    }

    /// Registers one step more, of which there is one while a process lives.
    struct Counting(Arc<AtomicU32>);

    #[async_trait]
    impl Scene for Counting {
        type Kind = MakeTwo;
        type World = Things;
        type Picture = BTreeMap<String, u16>;

        fn world(&self) -> Things {
            Things::default()
        }

        fn register(&self, things: &Things, builder: EngineBuilder) -> EngineBuilder {
            assert_eq!(self.0.fetch_add(1, Ordering::Relaxed), 0, "the process before is not gone");
            Mistake::Nothing.register(things, builder).step(Counted(Arc::clone(&self.0)))
        }

        async fn request(&self, _: &Things, _: &Engine) {}

        async fn look(&self, things: &Things) -> BTreeMap<String, u16> {
            things.lock().unwrap().clone()
        }
    }

    let alive = Arc::new(AtomicU32::new(0));
    torture(&Counting(Arc::clone(&alive))).assert_clean();
    assert_eq!(alive.load(Ordering::Relaxed), 0);
}
