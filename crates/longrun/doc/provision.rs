use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use longrun::{
    Call, Caller, Code, Engine, Kind, KvStore, PlanBuilder, Planned, Step, StepContext, StepError,
    StepResult, UndoContext, UndoResult, Undoable, async_trait,
};

/// A cloud that can be asked twice for the same thing: it knows its machines by name.
#[derive(Clone, Default)]
struct Cloud(Arc<Mutex<BTreeMap<String, bool>>>);

struct CreateMachine(Cloud);

#[async_trait]
impl Step for CreateMachine {
    const NAME: &'static str = "create-machine";
    type Input = String;
    type Output = String;
    type Checkpoint = ();

    async fn run(&self, cx: &StepContext<()>, image: String) -> StepResult<String> {
        // The effect key is the same in every run of this step: a repeat makes no second machine.
        let machine = format!("{image}-{}", cx.effect_key());
        self.0.0.lock().unwrap().insert(machine.clone(), false);
        Ok(machine)
    }

    async fn undo(&self, cx: &UndoContext, image: String, _: Undoable<String, ()>) -> UndoResult {
        self.0.0.lock().unwrap().remove(&format!("{image}-{}", cx.effect_key()));
        Ok(())
    }
}

struct StartMachine(Cloud);

#[async_trait]
impl Step for StartMachine {
    const NAME: &'static str = "start-machine";
    type Input = String;
    type Output = String;
    type Checkpoint = ();

    async fn run(&self, _: &StepContext<()>, machine: String) -> StepResult<String> {
        match self.0.0.lock().unwrap().get_mut(&machine) {
            Some(runs) => *runs = true,
            None => return Err(StepError::not_applied(Code::NotFound, "the machine is gone")),
        }
        Ok(machine)
    }

    async fn undo(&self, _: &UndoContext, machine: String, _: Undoable<String, ()>) -> UndoResult {
        if let Some(runs) = self.0.0.lock().unwrap().get_mut(&machine) {
            *runs = false;
        }
        Ok(())
    }
}

struct Provision;

#[async_trait]
impl Kind for Provision {
    const NAME: &'static str = "example.provision";
    type Request = String;
    type Metadata = String;
    type Response = String;

    async fn plan(&self, image: &String, plan: &mut PlanBuilder) -> Planned<Self> {
        let machine = plan.step::<CreateMachine>(image.clone());
        let started = plan.step::<StartMachine>(&machine);
        Ok((format!("a machine from {image}"), started))
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let cloud = Cloud::default();
    let store = KvStore::memory()?; // on a disk: KvStore::open(SledKv::open("data", SledOptions::default())?)?
    let engine = Engine::builder(store)
        .kind(Provision)
        .step(CreateMachine(cloud.clone()))
        .step(StartMachine(cloud.clone()))
        .start()
        .await?;

    let call = Call::by(Caller::new("alice")?).key("my-request-1".parse()?);
    let accepted = engine.submit::<Provision>(&"debian".to_owned(), call).await?;
    assert!(!accepted.done()); // durable already, and on its way

    let operation = engine.wait_done(accepted.id()).await?;
    let machine: String = operation.response().expect("it worked").decode()?;
    assert_eq!(cloud.0.lock().unwrap().get(&machine), Some(&true));
    Ok(())
}
