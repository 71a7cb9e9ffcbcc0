//! The kind of the simulated service: plans and resources as clients ask for them.

use std::time::Duration;

use longrun::{
    Backoff, Code, Found, IdPrefix, Kind, Out, PlanBuilder, Planned, Resource, ResourceId, ResourceStatus,
    Status, StepPolicy, async_trait,
};
use serde::{Deserialize, Serialize};

use super::steps::{Fed, Lone};

/// What a step knows of itself.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Spec {
    /// Which step it is.
    pub(super) place: u16,
    pub(super) feeds_on: Option<u16>,
    /// Steps it waits for, as bits.
    pub(super) after: u16,
}

/// What clients ask for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Request {
    pub(super) steps: Vec<Spec>,
    pub(super) parallel: u16,
    pub(super) no_return: Option<u16>,
    pub(super) runs_max: u32,
    /// What to do to which resource: 0 create, 1 update, 2 delete.
    pub(super) claims: Vec<(u8, u8)>,
}

/// A resource, and what every step gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Thing(pub(super) u64);

impl Resource for Thing {
    const KIND: &'static str = "t.thing";
    const TYPE_URL: &'static str = "t/Thing";
}

fn policy(runs_max: u32) -> StepPolicy {
    let millis = Duration::from_millis;
    StepPolicy {
        timeout: millis(4000),
        grace: millis(500),
        runs_max,
        backoff: Backoff { first: millis(100), longest: millis(3000) },
        undo_backoff: Backoff { first: millis(100), longest: millis(8000) },
        blocked_after: 2,
    }
}

/// The only kind there is.
#[derive(Debug)]
pub(super) struct Make;

#[async_trait]
impl Kind for Make {
    const NAME: &'static str = "t.make";
    type Request = Request;
    type Metadata = u32;
    type Response = Thing;

    async fn plan(&self, request: &Request, plan: &mut PlanBuilder) -> Planned<Self> {
        let mut outs: Vec<Out<Thing>> = Vec::new();
        for spec in &request.steps {
            let policy = policy(request.runs_max);
            let fed = spec.feeds_on.and_then(|on| outs.get(usize::from(on))).cloned();
            let out = match fed {
                Some(on) => {
                    let value = plan.value(spec);
                    plan.step_with::<Fed>((&value, &on), policy)
                }
                None => plan.step_with::<Lone>(*spec, policy),
            };
            for (place, earlier) in outs.iter().enumerate() {
                if spec.after & 1 << place != 0 {
                    plan.after(&out, earlier);
                }
            }
            outs.push(out);
        }
        plan.parallel(request.parallel);
        if let Some(step) = request.no_return.and_then(|step| outs.get(usize::from(step))) {
            plan.point_of_no_return(step);
        }
        let Some(last) = outs.pop() else { return Err(Status::new(Code::InvalidArgument, "no steps")) };
        let parent = ResourceId::new("p")?;
        for (what, which) in &request.claims {
            let id = ResourceId::new(format!("r{which}"))?;
            let found = plan.find::<Thing>(&id).await?;
            match (what, found) {
                (0, _) => plan.create(&id, &parent, "made", &Thing(0), &last)?,
                (1, Some(found)) => plan.update(&found, "changed", ResourceStatus::Ready, &last),
                (_, Some(found)) => self.delete(plan, &found),
                _ => return Err(Status::new(Code::NotFound, "no such thing")),
            }
        }
        Ok((7, last))
    }
}

impl Make {
    fn delete(&self, plan: &mut PlanBuilder, found: &Found<Thing>) {
        plan.delete(found);
    }
}

/// The prefix of operations.
pub(super) fn prefix() -> Result<IdPrefix, longrun::Invalid> {
    IdPrefix::new("sim")
}
