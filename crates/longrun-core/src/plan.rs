//! Plans: the steps of one operation, as data.
//!
//! A plan is made from the request when the operation is submitted, and stored. A step may use the output of
//! earlier steps only, so a plan is a directed acyclic graph by construction. [`Plan::new`] checks all of it;
//! a plan that exists is valid, whether it was just made or read from a disk.

use std::collections::BTreeSet;

use crate::error::{Inconsistent, PlanError};
use crate::id::{StepIndex, StepName};
use crate::limits::{CLAIM_BYTES_MAX, CLAIMS_MAX, PARALLEL_STEPS_MAX, PLAN_BYTES_MAX, STEPS_MAX};
use crate::payload::Json;
use crate::resource::{Claim, Intent};
use crate::retry::StepPolicy;

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// It is known when the plan is made.
    Literal(Json),
    /// It is the output of a step.
    Output(StepIndex),
}

impl Source {
    /// The step whose output it is.
    pub const fn step(&self) -> Option<StepIndex> {
        match self {
            Self::Literal(_) => None,
            Self::Output(step) => Some(*step),
        }
    }

    /// The value, given the outputs of the steps.
    pub(crate) fn resolve<'a>(
        &'a self,
        output: &dyn Fn(StepIndex) -> Option<&'a Json>,
    ) -> Result<&'a Json, Inconsistent> {
        match self {
            Self::Literal(json) => Ok(json),
            Self::Output(step) => output(*step)
                .ok_or_else(|| Inconsistent::new(format!("the output of step {step} is needed and missing"))),
        }
    }

    /// Bytes that it takes, nearly.
    pub fn byte_len(&self) -> usize {
        match self {
            Self::Literal(json) => 4 + json.bytes().len(),
            Self::Output(_) => 3,
        }
    }
}

/// What a step gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// One value.
    One(Source),
    /// Several, as one array.
    Tuple(Vec<Source>),
}

impl Input {
    /// Its values.
    pub fn sources(&self) -> &[Source] {
        match self {
            Self::One(source) => std::slice::from_ref(source),
            Self::Tuple(sources) => sources,
        }
    }

    /// The value, given the outputs of the steps.
    pub(crate) fn resolve<'a>(
        &'a self,
        output: &dyn Fn(StepIndex) -> Option<&'a Json>,
    ) -> Result<Json, Inconsistent> {
        match self {
            Self::One(source) => source.resolve(output).cloned(),
            Self::Tuple(sources) => {
                let parts: Result<Vec<_>, _> = sources.iter().map(|source| source.resolve(output)).collect();
                Ok(Json::array(parts?))
            }
        }
    }
}

/// One step of a plan: which registered step, what it gets, what it waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepSpec {
    /// The registered name.
    pub name: StepName,
    /// The version of the step's code that made this plan.
    pub version: u32,
    /// Where its input comes from.
    pub input: Input,
    /// Steps that must be done before, beside those whose output it uses.
    pub after: Vec<StepIndex>,
    /// How it is run; `None` is the default policy.
    pub policy: Option<StepPolicy>,
}

/// The parts of a plan before it is checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanParts {
    /// The steps, in the order in which the plan names them.
    pub steps: Vec<StepSpec>,
    /// Where the response comes from.
    pub output: Source,
    /// The step that cannot be undone: once it has started, the operation only goes forward.
    pub point_of_no_return: Option<StepIndex>,
    /// Steps that may run at the same time.
    pub parallel: u16,
    /// What the operation does to resources.
    pub claims: Vec<Claim>,
}

/// A valid plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    parts: PlanParts,
    /// For each step, the steps it waits for.
    needs: Vec<Vec<StepIndex>>,
    /// For each step, the steps that wait for it.
    needed_by: Vec<Vec<StepIndex>>,
}

impl Plan {
    /// Checks the parts of a plan.
    pub fn new(parts: PlanParts) -> Result<Self, PlanError> {
        check_sizes(&parts)?;
        let count = parts.steps.len();
        let mut needs = Vec::with_capacity(count);
        let mut needed_by = vec![Vec::new(); count];
        for (place, step) in parts.steps.iter().enumerate() {
            let mut on: BTreeSet<StepIndex> = step.after.iter().copied().collect();
            on.extend(step.input.sources().iter().filter_map(Source::step));
            check_references(place, on.last(), place)?;
            step.policy.unwrap_or_default().check().map_err(PlanError::Policy)?;
            for earlier in &on {
                // `place` fits: there are at most STEPS_MAX steps.
                needed_by[earlier.place()].push(StepIndex(u16::try_from(place).unwrap_or(u16::MAX)));
            }
            needs.push(on.into_iter().collect());
        }
        let mut final_values = vec![&parts.output];
        final_values.extend(parts.claims.iter().filter_map(|claim| match &claim.intent {
            Intent::Create { becomes, .. } | Intent::Update { becomes, .. } => Some(becomes),
            Intent::Delete { .. } => None,
        }));
        let used_at_the_end =
            final_values.into_iter().filter_map(Source::step).chain(parts.point_of_no_return);
        check_references(count, used_at_the_end.max().as_ref(), count)?;
        check_claims(&parts.claims)?;
        Ok(Self { parts, needs, needed_by })
    }

    /// The steps.
    pub fn steps(&self) -> &[StepSpec] {
        &self.parts.steps
    }

    /// The step at an index. `None` when the plan is shorter.
    pub fn step(&self, step: StepIndex) -> Option<&StepSpec> {
        self.parts.steps.get(step.place())
    }

    /// The policy of a step.
    pub fn policy(&self, step: StepIndex) -> StepPolicy {
        self.step(step).and_then(|spec| spec.policy).unwrap_or_default()
    }

    /// The steps that `step` waits for, ascending.
    pub fn needs(&self, step: StepIndex) -> &[StepIndex] {
        self.needs.get(step.place()).map_or(&[], Vec::as_slice)
    }

    /// The steps that wait for `step`, ascending.
    pub fn needed_by(&self, step: StepIndex) -> &[StepIndex] {
        self.needed_by.get(step.place()).map_or(&[], Vec::as_slice)
    }

    /// Where the response comes from.
    pub const fn output(&self) -> &Source {
        &self.parts.output
    }

    /// The step from which the operation only goes forward.
    pub const fn point_of_no_return(&self) -> Option<StepIndex> {
        self.parts.point_of_no_return
    }

    /// Steps that may run at the same time.
    pub const fn parallel(&self) -> u16 {
        self.parts.parallel
    }

    /// What the operation does to resources.
    pub fn claims(&self) -> &[Claim] {
        &self.parts.claims
    }

    /// The parts, as they are stored.
    pub const fn parts(&self) -> &PlanParts {
        &self.parts
    }

    /// Every index of the plan, ascending.
    pub fn indices(&self) -> impl DoubleEndedIterator<Item = StepIndex> + use<> {
        // Cannot be cut: there are at most STEPS_MAX steps.
        (0..u16::try_from(self.parts.steps.len()).unwrap_or(u16::MAX)).map(StepIndex)
    }
}

/// The last of the steps that `step` depends on must come before `limit`.
fn check_references(step: usize, last: Option<&StepIndex>, limit: usize) -> Result<(), PlanError> {
    match last {
        Some(last) if last.place() >= limit => Err(PlanError::BadReference { step, on: last.place() }),
        _ => Ok(()),
    }
}

fn check_sizes(parts: &PlanParts) -> Result<(), PlanError> {
    let steps = parts.steps.len();
    if steps > STEPS_MAX {
        return Err(PlanError::TooManySteps { steps });
    }
    if !(1..=PARALLEL_STEPS_MAX).contains(&parts.parallel) {
        let rule = format!("must be 1 to {PARALLEL_STEPS_MAX}");
        return Err(PlanError::Policy(crate::error::Invalid::new("parallel", rule)));
    }
    let bytes = parts.output.byte_len()
        + parts
            .steps
            .iter()
            .map(|step| {
                let policy = if step.policy.is_some() { 40 } else { 1 };
                let input: usize = step.input.sources().iter().map(Source::byte_len).sum();
                step.name.as_str().len() + 8 + input + 3 * step.after.len() + policy
            })
            .sum::<usize>();
    if bytes > PLAN_BYTES_MAX { Err(PlanError::TooLarge { bytes }) } else { Ok(()) }
}

fn check_claims(claims: &[Claim]) -> Result<(), PlanError> {
    if claims.len() > CLAIMS_MAX {
        return Err(PlanError::TooManyClaims { claims: claims.len() });
    }
    let bytes: usize = claims.iter().map(Claim::byte_len).sum();
    if bytes > CLAIM_BYTES_MAX {
        return Err(PlanError::ClaimsTooLarge { bytes });
    }
    let mut seen = BTreeSet::new();
    for claim in claims {
        claim.check()?;
        if !seen.insert(&claim.key) {
            return Err(PlanError::RepeatedClaim(claim.key.clone()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(input: Source) -> StepSpec {
        let input = Input::One(input);
        StepSpec { name: StepName::new("s").unwrap(), version: 1, input, after: Vec::new(), policy: None }
    }

    fn literal() -> Source {
        Source::Literal(Json::encode("input", &1).unwrap())
    }

    fn parts(steps: Vec<StepSpec>) -> PlanParts {
        PlanParts { steps, output: literal(), point_of_no_return: None, parallel: 1, claims: Vec::new() }
    }

    #[test]
    fn edges_go_both_ways() {
        let mut pair = step(literal());
        pair.input = Input::Tuple(vec![Source::Output(StepIndex(0)), Source::Output(StepIndex(1))]);
        let mut last = step(Source::Output(StepIndex(2)));
        last.after = vec![StepIndex(0)];
        let plan = Plan::new(parts(vec![step(literal()), step(literal()), pair, last])).unwrap();
        assert_eq!(plan.needs(StepIndex(3)), [StepIndex(0), StepIndex(2)]);
        assert_eq!(plan.needed_by(StepIndex(0)), [StepIndex(2), StepIndex(3)]);
    }

    #[test]
    fn bad_plans_are_refused_by_name() {
        assert!(Plan::new(parts(vec![])).is_ok());
        let nothing = PlanParts { output: Source::Output(StepIndex(0)), ..parts(vec![]) };
        assert!(Plan::new(nothing).is_err());
        let own = parts(vec![step(Source::Output(StepIndex(0)))]);
        assert_eq!(Plan::new(own), Err(PlanError::BadReference { step: 0, on: 0 }));
        let many = parts(vec![step(literal()); STEPS_MAX + 1]);
        assert_eq!(Plan::new(many), Err(PlanError::TooManySteps { steps: STEPS_MAX + 1 }));
        assert!(Plan::new(parts(vec![step(literal()); STEPS_MAX])).is_ok());
        let large = Source::Literal(Json::encode("x", &"x".repeat(30_000)).unwrap());
        let large = parts(vec![step(large.clone()), step(large.clone()), step(large)]);
        assert!(matches!(Plan::new(large), Err(PlanError::TooLarge { .. })));
        let mut output = parts(vec![step(literal())]);
        output.output = Source::Output(StepIndex(1));
        assert_eq!(Plan::new(output), Err(PlanError::BadReference { step: 1, on: 1 }));
    }
}
