//! Shapes of plans.

use longrun_core::{Input, Json, PlanParts, Source, StepIndex, StepName, StepSpec};
use proptest::prelude::*;
use serde::{Deserialize, Serialize};

/// Which steps a plan has, and what orders them. What [`plans`] draws is always valid. Can be a request, or a part
/// of one: its kind makes the steps.
///
/// ```
/// # use longrun::{Out, PlanBuilder, Step, StepContext, StepResult, UndoContext, UndoResult, Undoable, async_trait};
/// # use longrun_testkit::strategies::PlanShape;
/// # struct First;
/// # #[async_trait]
/// # impl Step for First {
/// #     const NAME: &'static str = "first";
/// #     type Input = u16;
/// #     type Output = u16;
/// #     type Checkpoint = ();
/// #     async fn run(&self, _: &StepContext<()>, place: u16) -> StepResult<u16> { Ok(place) }
/// #     async fn undo(&self, _: &UndoContext, _: u16, _: Undoable<u16, ()>) -> UndoResult { Ok(()) }
/// # }
/// # struct Then;
/// # #[async_trait]
/// # impl Step for Then {
/// #     const NAME: &'static str = "then";
/// #     type Input = (u16, u16);
/// #     type Output = u16;
/// #     type Checkpoint = ();
/// #     async fn run(&self, _: &StepContext<()>, (place, _): (u16, u16)) -> StepResult<u16> { Ok(place) }
/// #     async fn undo(&self, _: &UndoContext, _: (u16, u16), _: Undoable<u16, ()>) -> UndoResult { Ok(()) }
/// # }
/// fn build(shape: &PlanShape, plan: &mut PlanBuilder) -> Vec<Out<u16>> {
///     let mut outs: Vec<Out<u16>> = Vec::new();
///     for (place, step) in (0..).zip(&shape.steps) {
///         outs.push(match step.feeds_on {
///             None => plan.step::<First>(place),
///             Some(on) => {
///                 let place = plan.value(&place);
///                 plan.step::<Then>((&place, &outs[usize::from(on)]))
///             }
///         });
///     }
///     shape.apply_to(plan, &outs);
///     outs
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanShape {
    /// The steps. At least one.
    pub steps: Vec<StepShape>,
    /// How many run at the same time, at most.
    pub parallel: u16,
    /// The step from whose start there is no way back.
    pub point_of_no_return: Option<u16>,
}

/// What a step needs. All places are before its own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepShape {
    /// The step whose output it uses.
    pub feeds_on: Option<u16>,
    /// Steps that it waits for besides. The point of no return waits for all before it, too.
    pub after: Vec<u16>,
}

impl PlanShape {
    /// The same for the pure core: step number `n` is named by `name` and `n`, and takes a text if it feeds on none.
    ///
    /// Panics if `name` cannot begin the name of a step.
    #[allow(clippy::expect_used)] // A test that names its steps wrongly is to fail.
    pub fn parts(&self, name: &str) -> PlanParts {
        let given = || Source::Literal(Json::encode("input", "given").expect("a text is JSON"));
        let needs = |place: u16, step: &StepShape| match self.point_of_no_return {
            // It waits for all that were added before it, so that none of them can still fail.
            Some(no_return) if no_return == place => (0..place).map(StepIndex).collect(),
            _ => step.after.iter().copied().map(StepIndex).collect(),
        };
        let spec = |(place, step): (u16, &StepShape)| StepSpec {
            name: StepName::new(format!("{name}-{place}")).expect("a name of a step"),
            version: 1,
            input: Input::One(step.feeds_on.map_or_else(given, |on| Source::Output(StepIndex(on)))),
            after: needs(place, step),
            policy: None,
        };
        let steps: Vec<StepSpec> = (0..).zip(&self.steps).map(spec).collect();
        let last = u16::try_from(steps.len()).unwrap_or(u16::MAX).saturating_sub(1);
        PlanParts {
            steps,
            output: Source::Output(StepIndex(last)),
            point_of_no_return: self.point_of_no_return.map(StepIndex),
            parallel: self.parallel,
            claims: Vec::new(),
        }
    }

    /// Tells a builder what a plan has besides its steps and their inputs: what else orders them, how many run at the same time, and
    /// the point of no return. `outs` are what it gave for them, one for each.
    pub fn apply_to<T>(&self, plan: &mut longrun::PlanBuilder, outs: &[longrun::Out<T>]) {
        for (step, out) in self.steps.iter().zip(outs) {
            for earlier in step.after.iter().filter_map(|place| outs.get(usize::from(*place))) {
                plan.after(out, earlier);
            }
        }
        plan.parallel(self.parallel);
        if let Some(out) = self.point_of_no_return.and_then(|place| outs.get(usize::from(place))) {
            plan.point_of_no_return(out);
        }
    }
}

/// Plans of one to `steps_max` steps, 16 at most. A third of them have a point of no return.
pub fn plans(steps_max: usize) -> impl Strategy<Value = PlanShape> {
    let step = (any::<bool>(), any::<u16>(), any::<u16>(), any::<u16>());
    let steps = proptest::collection::vec(step, 1..=steps_max.clamp(1, 16));
    let no_return = prop_oneof![2 => Just(None), 1 => any::<u16>().prop_map(Some)];
    (steps, 1..=4_u16, no_return).prop_map(|(drawn, parallel, no_return)| {
        let steps: Vec<StepShape> = (0..).zip(drawn).map(|(place, drawn)| step_at(place, drawn)).collect();
        let count = u16::try_from(steps.len()).unwrap_or(u16::MAX);
        PlanShape { steps, parallel, point_of_no_return: no_return.map(|drawn| drawn % count) }
    })
}

/// Any numbers make a step that fits its place; smaller ones a plainer one.
fn step_at(place: u16, (feeds, on, some, others): (bool, u16, u16, u16)) -> StepShape {
    let feeds_on = (feeds && place > 0).then(|| on % place.max(1));
    // Both: so that most are waited for by few.
    let waits_for = some & others;
    let after = (0..place).filter(|earlier| waits_for & 1 << earlier != 0 && Some(*earlier) != feeds_on);
    StepShape { feeds_on, after: after.collect() }
}
