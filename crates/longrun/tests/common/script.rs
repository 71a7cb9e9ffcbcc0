//! Operations whose request says what happens: a plan of acts, each with what its runs and its undos do.

use std::sync::Arc;
use std::time::Duration;

use longrun::{
    Backoff, Code, IdPrefix, Kind, PlanBuilder, Planned, ProgressUnit, Resource, ResourceId, ResourceStatus,
    Step, StepContext, StepError, StepPolicy, StepResult, UndoContext, UndoError, UndoResult, Undoable,
    async_trait,
};
use longrun_core::Status;
use serde::{Deserialize, Serialize};

use super::disk::Life;
use super::world::{What, World};

/// One thing that a run or an undo does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Do {
    /// Has its effect.
    Apply,
    /// Takes its effect back.
    Revert,
    Sleep(u64),
    Save(u64),
    Report(u64, u64),
    Fail(Fault),
    Panic,
    Hang,
    /// Waits until it is told to stop, then fails in a way that allows another run.
    UntilStopped,
    /// Waits until it is told to stop, then goes on.
    WaitForStop,
    /// Gives so many bytes.
    Output(usize),
    /// Panics when it is dropped.
    PanicWhenDropped,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Fault {
    NotApplied,
    Unknown,
    NotAppliedForGood,
    UnknownForGood,
}

impl Fault {
    fn error(self) -> StepError {
        match self {
            Self::NotApplied => StepError::not_applied(Code::Unavailable, "not applied"),
            Self::Unknown => StepError::unknown(Code::Unavailable, "unknown"),
            Self::NotAppliedForGood => StepError::not_applied(Code::FailedPrecondition, "refused"),
            Self::UnknownForGood => StepError::unknown(Code::DataLoss, "broken"),
        }
    }
}

/// A step of the script.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Act {
    pub(crate) name: String,
    pub(crate) after: Vec<String>,
    /// What each run does; the last goes on for ever.
    runs: Vec<Vec<Do>>,
    undos: Vec<Vec<Do>>,
    timeout_ms: u64,
    grace_ms: u64,
    runs_max: u32,
}

impl Act {
    pub(crate) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            after: Vec::new(),
            runs: vec![vec![Do::Apply]],
            undos: vec![vec![Do::Revert]],
            timeout_ms: 60_000,
            grace_ms: 1000,
            runs_max: 3,
        }
    }

    pub(crate) fn after<const N: usize>(mut self, others: [&str; N]) -> Self {
        self.after = others.map(str::to_owned).into();
        self
    }

    pub(crate) fn run<const N: usize>(self, does: [Do; N]) -> Self {
        self.runs([does.to_vec()])
    }

    pub(crate) fn runs<const N: usize>(mut self, runs: [Vec<Do>; N]) -> Self {
        self.runs = runs.into();
        self
    }

    pub(crate) fn undo<const N: usize>(self, does: [Do; N]) -> Self {
        self.undos([does.to_vec()])
    }

    pub(crate) fn undos<const N: usize>(mut self, undos: [Vec<Do>; N]) -> Self {
        self.undos = undos.into();
        self
    }

    /// An undo that fails so often, and then succeeds.
    pub(crate) fn undo_fails(mut self, times: usize) -> Self {
        self.undos = vec![vec![Do::Fail(Fault::Unknown)]; times];
        self.undos.push(vec![Do::Revert]);
        self
    }

    pub(crate) fn limits(mut self, timeout_ms: u64, grace_ms: u64) -> Self {
        (self.timeout_ms, self.grace_ms) = (timeout_ms, grace_ms);
        self
    }

    pub(crate) fn runs_max(mut self, runs: u32) -> Self {
        self.runs_max = runs;
        self
    }

    pub(crate) fn applies(&self) -> bool {
        self.runs.last().is_some_and(|run| run.contains(&Do::Apply))
    }

    fn policy(&self) -> StepPolicy {
        let backoff = Backoff { first: Duration::from_millis(200), longest: Duration::from_secs(10) };
        StepPolicy {
            timeout: Duration::from_millis(self.timeout_ms),
            grace: Duration::from_millis(self.grace_ms),
            runs_max: self.runs_max,
            backoff,
            undo_backoff: backoff,
            blocked_after: 3,
        }
    }

    fn nth(script: &[Vec<Do>], number: usize) -> &[Do] {
        script.get(number).or(script.last()).map_or(&[], Vec::as_slice)
    }
}

/// What an operation does to a resource.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Touch {
    Create(String),
    CreateNew,
    Update(String),
    Delete(String),
}

/// How the kind plans.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Manner {
    #[default]
    Plan,
    Refuse,
    Panic,
    /// Takes a second of virtual time.
    Slow,
}

/// The request of a scripted operation.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Script {
    pub(crate) acts: Vec<Act>,
    parallel: Option<u16>,
    no_return: Option<String>,
    touches: Vec<Touch>,
    manner: Manner,
}

impl Script {
    pub(crate) fn new<const N: usize>(acts: [Act; N]) -> Self {
        Self { acts: acts.into(), ..Self::default() }
    }

    /// Acts that only have their effects, one after the other.
    pub(crate) fn chain(names: &[&str]) -> Self {
        let mut acts: Vec<Act> = Vec::new();
        for name in names {
            let mut act = Act::new(name);
            act.after = acts.last().map(|last| last.name.clone()).into_iter().collect();
            acts.push(act);
        }
        Self { acts, ..Self::default() }
    }

    /// The same with one act changed.
    pub(crate) fn with(mut self, name: &str, change: impl FnOnce(Act) -> Act) -> Self {
        let place = self.acts.iter().position(|act| act.name == name).unwrap();
        let act = self.acts.remove(place);
        let after = act.after.clone();
        let mut act = change(act);
        act.after = after;
        self.acts.insert(place, act);
        self
    }

    pub(crate) fn parallel(mut self, steps: u16) -> Self {
        self.parallel = Some(steps);
        self
    }

    pub(crate) fn no_return(mut self, act: &str) -> Self {
        self.no_return = Some(act.to_owned());
        self
    }

    pub(crate) fn touch(mut self, touch: Touch) -> Self {
        self.touches.push(touch);
        self
    }

    pub(crate) fn manner(mut self, manner: Manner) -> Self {
        self.manner = manner;
        self
    }

    pub(crate) fn needs(&self, name: &str) -> Vec<String> {
        let act = self.acts.iter().find(|act| act.name == name);
        let mut needs = act.map(|act| act.after.clone()).unwrap_or_default();
        if self.no_return.as_deref() == Some(name) {
            needs = self.acts.iter().map(|act| act.name.clone()).take_while(|other| other != name).collect();
        }
        needs
    }
}

/// The resource of the scripts, and the output of every act.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Thing {
    pub(crate) text: String,
}

impl Thing {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self { text: text.into() }
    }
}

impl Resource for Thing {
    const KIND: &'static str = "test.thing";
    const TYPE_URL: &'static str = "type.googleapis.com/test.Thing";
}

pub(crate) fn thing_id(id: &str) -> ResourceId {
    ResourceId::new(id).unwrap()
}

pub(crate) fn folder() -> ResourceId {
    thing_id("folder")
}

/// What the caller of a scripted operation learns at once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Told {
    pub(crate) things: Vec<String>,
}

pub(crate) struct Scripted;

#[async_trait]
impl Kind for Scripted {
    const NAME: &'static str = "test.scripted";
    const RESPONSE_TYPE: &'static str = Thing::TYPE_URL;
    type Request = Script;
    type Metadata = Told;
    type Response = Thing;

    async fn plan(&self, script: &Script, plan: &mut PlanBuilder) -> Planned<Self> {
        match script.manner {
            Manner::Plan => {}
            Manner::Refuse => return Err(Status::new(Code::InvalidArgument, "no")),
            Manner::Panic => std::panic::panic_any("the kind panics"),
            Manner::Slow => tokio::time::sleep(Duration::from_secs(1)).await,
        }
        let mut outs = std::collections::BTreeMap::new();
        let mut last = None;
        for act in &script.acts {
            let out = plan.step_with::<Play>(act.clone(), act.policy());
            for other in &act.after {
                plan.after(&out, &outs[other]);
            }
            outs.insert(act.name.clone(), out.clone());
            last = Some(out);
        }
        let Some(last) = last else { return Err(Status::new(Code::InvalidArgument, "an empty script")) };
        if let Some(steps) = script.parallel {
            plan.parallel(steps);
        }
        if let Some(act) = &script.no_return {
            plan.point_of_no_return(&outs[act]);
        }
        let mut told = Told::default();
        for touch in &script.touches {
            let id = match touch {
                Touch::Create(id) | Touch::Update(id) | Touch::Delete(id) => thing_id(id),
                Touch::CreateNew => plan.new_id(IdPrefix::new("thg")?),
            };
            let found = plan.find::<Thing>(&id).await?;
            let missing = || Status::new(Code::NotFound, "no such thing");
            match touch {
                Touch::Create(_) | Touch::CreateNew => {
                    plan.create(&id, &folder(), "made", &Thing::new("in the making"), &last)?;
                }
                Touch::Update(_) => {
                    plan.update(&found.ok_or_else(missing)?, "changed", ResourceStatus::Ready, &last);
                }
                Touch::Delete(_) => plan.delete(&found.ok_or_else(missing)?),
            }
            told.things.push(id.to_string());
        }
        Ok((told, last))
    }
}

/// The step that plays an act.
pub(crate) struct Play {
    pub(crate) world: Arc<World>,
    pub(crate) life: Arc<Life>,
}

/// What an act is about to do; shared by runs and undos.
enum Played {
    Over(Thing),
    Failed(Fault),
    Stopped,
}

struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            std::panic::panic_any("a destructor panics");
        }
    }
}

#[async_trait]
impl Step for Play {
    const NAME: &'static str = "play";
    type Input = Act;
    type Output = Thing;
    type Checkpoint = u64;

    async fn run(&self, cx: &StepContext<u64>, act: Act) -> StepResult<Thing> {
        self.life.alive().await;
        let call = self.world.begin(What::Run, cx.effect_key(), cx.fencing_token(), &act.name);
        self.world.witness(&call).await;
        self.world.note_checkpoint(&call, cx.checkpoint()?);
        let mut output = Thing::new(act.name.clone());
        let mut bombs = Vec::new();
        let mut played = None;
        for what in Act::nth(&act.runs, cx.attempt().0 as usize - 1) {
            self.life.alive().await;
            match what {
                Do::Apply => self.world.apply(&call),
                Do::Revert => self.world.revert(&call),
                Do::Sleep(millis) => tokio::time::sleep(Duration::from_millis(*millis)).await,
                Do::Save(number) => cx.save(number).await?,
                Do::Report(done, total) => cx.report(*done, *total, ProgressUnit::Items),
                Do::Fail(fault) => played = Some(Played::Failed(*fault)),
                Do::Panic => std::panic::panic_any("the act panics"),
                Do::Hang => std::future::pending().await,
                Do::UntilStopped => {
                    _ = cx.stopped().await;
                    played = Some(Played::Stopped);
                }
                Do::WaitForStop => _ = cx.stopped().await,
                Do::Output(bytes) => output = Thing::new("x".repeat(*bytes)),
                Do::PanicWhenDropped => bombs.push(Bomb),
            }
            if played.is_some() {
                break;
            }
        }
        self.life.alive().await;
        bombs.into_iter().for_each(std::mem::forget);
        match played.unwrap_or(Played::Over(output)) {
            Played::Over(output) => {
                self.world.end(&call, true);
                Ok(output)
            }
            Played::Failed(fault) => {
                self.world.end(&call, false);
                Err(fault.error())
            }
            Played::Stopped => {
                self.world.end(&call, false);
                Err(StepError::unknown(Code::Aborted, "told to stop"))
            }
        }
    }

    async fn undo(&self, cx: &UndoContext, act: Act, outcome: Undoable<Thing, u64>) -> UndoResult {
        self.life.alive().await;
        let call = self.world.begin(What::Undo, cx.effect_key(), cx.fencing_token(), &act.name);
        self.world.witness(&call).await;
        if let Undoable::MayHaveRun(checkpoint) = outcome {
            self.world.note_checkpoint(&call, checkpoint);
        }
        let number = self.world.undos_before(&call);
        for what in Act::nth(&act.undos, number) {
            self.life.alive().await;
            match what {
                Do::Revert => self.world.revert(&call),
                Do::Sleep(millis) => tokio::time::sleep(Duration::from_millis(*millis)).await,
                Do::Fail(_) => {
                    self.world.end(&call, false);
                    return Err(UndoError::new(Code::Unavailable, "the undo fails"));
                }
                Do::Panic => std::panic::panic_any("the undo panics"),
                Do::Hang => std::future::pending().await,
                Do::WaitForStop => _ = cx.stopped().await,
                other => std::panic::panic_any(format!("not for an undo: {other:?}")),
            }
        }
        self.life.alive().await;
        self.world.end(&call, true);
        Ok(())
    }
}
