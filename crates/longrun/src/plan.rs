//! [`PlanBuilder`]: plans with data flow that the compiler checks.

use std::marker::PhantomData;
use std::sync::Arc;

use longrun_core::limits::{CONDITIONS_MAX, PAGE_SIZE_MAX, PARALLEL_STEPS_DEFAULT, STEPS_MAX};
use longrun_core::{
    Caller, Claim, Code, Condition, IdPrefix, Input, Intent, Invalid, Json, Payload, PlanError, PlanParts,
    ResourceId, ResourceKey, ResourceKind, ResourceStatus, Row, Source, Status, StepIndex, StepName,
    StepPolicy, StepSpec, Timestamp,
};
use longrun_store::{ResourceQuery, Store};

use crate::engine::Inner;
use crate::environment::Environment;
use crate::kind::Resource;
use crate::step::{Step, Value};
use crate::turns::{Family, Turn, Turns};

/// Children that one plan looks at, at most.
const CHILDREN_MAX: usize = 10_000;

/// A value that will be known when the operation runs: the output of a step, or a literal.
#[derive(Debug)]
pub struct Out<T> {
    source: Source,
    value: PhantomData<fn() -> T>,
}

impl<T> Clone for Out<T> {
    fn clone(&self) -> Self {
        Self::of(self.source.clone())
    }
}

impl<T> Out<T> {
    const fn of(source: Source) -> Self {
        Self { source, value: PhantomData }
    }

    pub(crate) fn into_source(self) -> Source {
        self.source
    }
}

/// What can be the input of a step that takes a `T`: a `T`, an [`Out<T>`], or, where `T` is a tuple, a tuple of
/// those handles.
pub trait IntoInput<T> {
    /// The input as the plan keeps it.
    fn into_input(self) -> Result<Input, Invalid>;
}

impl<T: Value> IntoInput<T> for T {
    fn into_input(self) -> Result<Input, Invalid> {
        Ok(Input::One(Source::Literal(Json::encode("input", &self)?)))
    }
}

impl<T> IntoInput<T> for &Out<T> {
    fn into_input(self) -> Result<Input, Invalid> {
        Ok(Input::One(self.source.clone()))
    }
}

macro_rules! tuple_inputs {
    ($(($($handle:ident: $type:ident),+);)*) => {
        $(impl<$($type),+> IntoInput<($($type,)+)> for ($(&Out<$type>,)+) {
            fn into_input(self) -> Result<Input, Invalid> {
                let ($($handle,)+) = self;
                Ok(Input::Tuple(vec![$($handle.source.clone()),+]))
            }
        })*
    };
}

tuple_inputs! {
    (a: A, b: B);
    (a: A, b: B, c: C);
    (a: A, b: B, c: C, d: D);
    (a: A, b: B, c: C, d: D, e: E);
    (a: A, b: B, c: C, d: D, e: E, f: F);
}

/// A resource that is there: its row, and what the row holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found<R> {
    /// The row.
    pub row: Row,
    /// The resource.
    pub body: R,
}

impl<R: Resource> Found<R> {
    /// Decodes a row.
    pub fn of(row: Row) -> Result<Self, Status> {
        let body = row
            .body
            .decode()
            .map_err(|error| Status::new(Code::DataLoss, format!("{} does not decode: {error}", row.key)))?;
        Ok(Self { row, body })
    }
}

/// Collects the plan of one operation.
///
/// A plan may have no steps: then the operation is done in the commit that accepts it.
///
/// Mistakes, such as too many steps, do not show here: they are kept, and refuse the operation when it is submitted.
#[derive(Debug)]
pub struct PlanBuilder {
    store: Arc<dyn Store>,
    environment: Arc<dyn Environment>,
    turns: Arc<Turns>,
    turn: Option<Turn>,
    now: Timestamp,
    caller: Caller,
    description: String,
    steps: Vec<StepSpec>,
    claims: Vec<Claim>,
    conditions: Vec<Condition>,
    point_of_no_return: Option<StepIndex>,
    parallel: u16,
    mistake: Option<PlanError>,
}

impl PlanBuilder {
    pub(crate) fn new(inner: &Inner, now: Timestamp, caller: Caller) -> Self {
        Self {
            store: Arc::clone(&inner.store),
            environment: Arc::clone(&inner.environment),
            turns: Arc::clone(&inner.turns),
            turn: None,
            now,
            caller,
            description: String::new(),
            steps: Vec::new(),
            claims: Vec::new(),
            conditions: Vec::new(),
            point_of_no_return: None,
            parallel: PARALLEL_STEPS_DEFAULT,
            mistake: None,
        }
    }

    /// Adds a step, with its own policy. It runs as soon as what its input needs is done.
    pub fn step<S: Step>(&mut self, input: impl IntoInput<S::Input>) -> Out<S::Output> {
        self.step_with::<S>(input, S::policy())
    }

    /// Adds a step with another policy.
    pub fn step_with<S: Step>(
        &mut self,
        input: impl IntoInput<S::Input>,
        policy: StepPolicy,
    ) -> Out<S::Output> {
        let index = StepIndex(u16::try_from(self.steps.len()).unwrap_or(u16::MAX));
        let policy = (policy != StepPolicy::default()).then_some(policy);
        match (StepName::new(S::NAME), input.into_input()) {
            _ if self.steps.len() >= STEPS_MAX => {
                self.mistake(PlanError::TooManySteps { steps: self.steps.len() + 1 });
            }
            (Ok(name), Ok(input)) => {
                self.steps.push(StepSpec { name, version: S::VERSION, input, after: Vec::new(), policy });
            }
            (Err(invalid), _) | (_, Err(invalid)) => self.mistake(PlanError::Policy(invalid)),
        }
        Out::of(Source::Output(index))
    }

    /// A value that is known now, for where a handle is needed.
    pub fn value<T: Value>(&mut self, value: &T) -> Out<T> {
        match Json::encode("value", value) {
            Ok(json) => Out::of(Source::Literal(json)),
            Err(invalid) => {
                self.mistake(PlanError::Policy(invalid));
                Out::of(Source::Output(StepIndex(u16::MAX)))
            }
        }
    }

    /// Makes the step of `later` wait for the step of `earlier`, which must have been added before it, although it does
    /// not use its output. Undo goes in the reverse order.
    pub fn after<A, B>(&mut self, later: &Out<A>, earlier: &Out<B>) {
        match (later.source.step(), earlier.source.step()) {
            (Some(later), Some(earlier)) => {
                if let Some(spec) = self.steps.get_mut(later.place()) {
                    spec.after.push(earlier);
                }
            }
            _ => self.mistake(PlanError::Policy(Invalid::new("after", "must order two steps"))),
        }
    }

    /// From the start of this step on, the operation only goes forward: it can be neither cancelled nor rolled back. The
    /// step waits for all that were added before it, so that none of them can still fail.
    pub fn point_of_no_return<T>(&mut self, step: &Out<T>) {
        let Some(step) = step.source.step().filter(|_| self.point_of_no_return.is_none()) else {
            let rule = "must be one step, named once";
            return self.mistake(PlanError::Policy(Invalid::new("point_of_no_return", rule)));
        };
        if let Some(spec) = self.steps.get_mut(step.place()) {
            spec.after = (0..step.0).map(StepIndex).collect();
            self.point_of_no_return = Some(step);
        }
    }

    /// How many steps may run at the same time: 1 to 64, 8 unless said.
    pub const fn parallel(&mut self, steps: u16) {
        self.parallel = steps;
    }

    /// What people read about the operation, unless the caller said something else.
    pub fn describe(&mut self, description: impl Into<String>) {
        self.description = description.into();
    }

    /// The time of acceptance.
    pub const fn now(&self) -> Timestamp {
        self.now
    }

    /// Who asks.
    pub const fn caller(&self) -> &Caller {
        &self.caller
    }

    /// A new id for a resource.
    pub fn new_id(&self, prefix: IdPrefix) -> ResourceId {
        prefix.new_resource_id(self.now, self.environment.random())
    }

    /// Looks up a resource. If the operation [updates](Self::update) or [deletes](Self::delete) it, it is accepted only if
    /// the resource is still the same then; if it only relies on it, say so with [`require_ready`](Self::require_ready), or
    /// take [`get_ready`](Self::get_ready).
    pub async fn find<R: Resource>(&self, id: &ResourceId) -> Result<Option<Found<R>>, Status> {
        let row =
            self.store.resource(&key::<R>(id)?).await.map_err(|error| crate::error::store_status(&error))?;
        row.map(Found::of).transpose()
    }

    /// Demands that a resource which the operation relies on, but does not hold, is READY when the operation is accepted. The
    /// request is planned anew if that has changed meanwhile.
    pub fn require_ready<R: Resource>(&mut self, found: &Found<R>) {
        self.conditions.push(Condition::Ready(found.row.key.clone()));
    }

    /// Looks up a resource that has to be there: an error NOT_FOUND, fit for the caller, if it is not.
    pub async fn get<R: Resource>(&self, id: &ResourceId) -> Result<Found<R>, Status> {
        let missing = || Status::new(Code::NotFound, format!("{} {id} not found", R::KIND));
        self.find(id).await?.ok_or_else(missing)
    }

    /// Looks up a resource that has to be there and READY, such as the parent of what is made, and
    /// [demands](Self::require_ready) that it is so still when the operation is accepted. An error NOT_FOUND or
    /// FAILED_PRECONDITION, fit for the caller, if it is not.
    pub async fn get_ready<R: Resource>(&mut self, id: &ResourceId) -> Result<Found<R>, Status> {
        let found = self.get::<R>(id).await?;
        if found.row.status != ResourceStatus::Ready {
            let message = format!("{} is {}, it must be READY", found.row.key, found.row.status);
            return Err(Status::new(Code::FailedPrecondition, message));
        }
        self.require_ready(&found);
        Ok(found)
    }

    /// All resources of type `R` that belong to a parent, those included that are being made or removed: for a rule about all
    /// of them together, such as names that differ, a quota, or ranges that do not overlap.
    ///
    /// Requests that ask for the same children take turns: none of them is planned between this look and the moment in which
    /// the operation is accepted or refused. So the rule holds if every kind that could break it asks. Where engines share the
    /// store, a request is planned anew if any of the children has changed in that moment. The children of one
    /// parent only can be asked for, and 10,000 at most.
    pub async fn children<R: Resource>(&mut self, parent: &ResourceId) -> Result<Vec<Found<R>>, Status> {
        let family = Family { kind: ResourceKind::new(R::KIND)?, parent: parent.clone() };
        match &self.turn {
            None => self.turn = Some(self.turns.take(family.clone()).await),
            Some(turn) if turn.family == family => {}
            // Two who take the same two in another order would wait for each other.
            Some(_) => {
                let message = "a plan may look at the children of one parent only";
                return Err(Status::new(Code::Internal, message));
            }
        }
        let query = ResourceQuery::new(family.kind, family.parent);
        let (mut children, mut after) = (Vec::new(), None);
        loop {
            let page = self.store.list_resources(&query, after.as_ref(), PAGE_SIZE_MAX).await;
            let page = page.map_err(|error| crate::error::store_status(&error))?;
            for row in page.items {
                children.push(Found::of(row)?);
            }
            after = page.next;
            if after.is_none() {
                self.rely_on(&query, &children);
                return Ok(children);
            }
            if children.len() >= CHILDREN_MAX {
                let message = format!("{parent} has more than {CHILDREN_MAX} of {}", R::KIND);
                return Err(Status::new(Code::ResourceExhausted, message));
            }
        }
    }

    /// Turns are taken among the requests of this engine. Where others plan too, the commit looks whether it is still so.
    fn rely_on<R>(&mut self, query: &ResourceQuery, children: &[Found<R>]) {
        let is_condition = |condition: &Condition| matches!(condition, Condition::Children { .. });
        if self.store.cluster().is_none() || self.conditions.iter().any(is_condition) {
            return;
        }
        let children = children.iter().map(|found| (found.row.key.id.clone(), found.row.revision)).collect();
        let (kind, parent) = (query.kind.clone(), query.parent.clone());
        self.conditions.push(Condition::Children { kind, parent, children });
    }

    /// Whether no resource of type `R` belongs to a parent, not even one that is being made or removed. If so, that has to be
    /// true still when the operation is accepted, or the request is planned anew: with this a parent is deleted.
    pub async fn is_childless<R: Resource>(&mut self, parent: &ResourceId) -> Result<bool, Status> {
        let (kind, parent) = (ResourceKind::new(R::KIND)?, parent.clone());
        let children =
            self.store.list_resources(&ResourceQuery::new(kind.clone(), parent.clone()), None, 1).await;
        let children = children.map_err(|error| crate::error::store_status(&error))?;
        let childless = children.items.is_empty() && children.next.is_none();
        if childless {
            self.conditions.push(Condition::Childless { kind, parent });
        }
        Ok(childless)
    }

    /// Creates a resource: it shows at once, as CREATING, with `body`, and when the operation succeeds, as READY, with the
    /// value of `becomes`. If the operation rolls back, the row goes.
    pub fn create<R: Resource>(
        &mut self,
        id: &ResourceId,
        parent: &ResourceId,
        name: impl Into<String>,
        body: &R,
        becomes: &Out<R>,
    ) -> Result<(), Status> {
        let body = Payload::encode("resource", R::TYPE_URL, body)?;
        let (parent, name, becomes) = (parent.clone(), name.into(), becomes.source.clone());
        let intent = Intent::Create { parent, name, body, becomes };
        self.claims.push(Claim { key: key::<R>(id)?, intent });
        Ok(())
    }

    /// Changes a resource: it stays as it is until the operation succeeds, then takes this name, status and value. If the
    /// operation rolls back, it is as before.
    pub fn update<R: Resource>(
        &mut self,
        found: &Found<R>,
        name: impl Into<String>,
        status: ResourceStatus,
        becomes: &Out<R>,
    ) {
        let (before, name, becomes) = (Box::new(found.row.clone()), name.into(), becomes.source.clone());
        let intent = Intent::Update { before, name, status, becomes };
        self.claims.push(Claim { key: found.row.key.clone(), intent });
    }

    /// Deletes a resource: it shows as DELETING at once and goes when the operation succeeds. If the operation rolls back,
    /// it is as before.
    pub fn delete<R: Resource>(&mut self, found: &Found<R>) {
        let intent = Intent::Delete { before: Box::new(found.row.clone()) };
        self.claims.push(Claim { key: found.row.key.clone(), intent });
    }

    fn mistake(&mut self, mistake: PlanError) {
        self.mistake.get_or_insert(mistake);
    }

    /// The parts of the plan, or the first mistake.
    pub(crate) fn finish(self, output: Source) -> Result<Finished, PlanError> {
        if let Some(mistake) = self.mistake {
            return Err(mistake);
        }
        if self.conditions.len() > CONDITIONS_MAX {
            let rule = format!("must be at most {CONDITIONS_MAX}");
            return Err(PlanError::Claim(Invalid::new("conditions", rule)));
        }
        let parts = PlanParts {
            steps: self.steps,
            output,
            point_of_no_return: self.point_of_no_return,
            parallel: self.parallel,
            claims: self.claims,
        };
        Ok(Finished { parts, conditions: self.conditions, description: self.description, turn: self.turn })
    }
}

/// What a kind made of a request.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) parts: PlanParts,
    pub(crate) conditions: Vec<Condition>,
    pub(crate) description: String,
    pub(crate) turn: Option<Turn>,
}

/// The key of a resource of type `R`.
pub(crate) fn key<R: Resource>(id: &ResourceId) -> Result<ResourceKey, Status> {
    Ok(R::key(id)?)
}
