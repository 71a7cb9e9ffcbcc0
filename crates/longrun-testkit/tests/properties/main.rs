//! Properties of the whole engine, over the memory store, in virtual time; and an example of how the strategies are used.
#![allow(unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod lists;
mod model;
mod service;
mod world;

use longrun_core::{Acceptance, Execution, Header, IdPrefix, Json, KindName, OperationId, Payload, Plan};
use longrun_core::{Caller, Command, StepReport, Timestamp};
use longrun_testkit::strategies::{PlanShape, bodies, commands, plans};
use model::{Met, Model};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};
use service::{Fate, Request};
use world::World;

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

/// What is asked for: a plan, what becomes of each step, and something to remember.
fn requests() -> impl Strategy<Value = Request> {
    let fate = prop_oneof![
        8 => Just(Fate::Succeeds),
        1 => Just(Fate::FailsWithoutEffect),
        1 => Just(Fate::FailsWithEffect),
        1 => Just(Fate::SucceedsAtTheSecondTry),
        1 => Just(Fate::UndoneAtTheSecondTry),
    ];
    (plans(4), proptest::collection::vec(fate, 4), bodies()).prop_map(|(shape, fates, body)| Request {
        shape,
        fates,
        body,
    })
}

proptest! {
    #![proptest_config(config(192))]

    /// S1 to S6, S8, S35 to S38, S43: whatever is done to an engine, every answer is one that the model allows, crashes included. In the
    /// end everything is done, with all effects or with none (S25, L1, L2), and the store's indexes agree (S12).
    #[test]
    fn s01_s02_s03_s04_s05_s06_s35_s36_s37_s38_s43_every_answer_is_one_that_the_model_allows(
        commands in commands(requests(), 24),
    ) {
        let (mut world, mut model) = (World::new(), Model::default());
        for command in &commands {
            model.apply(&mut world, command);
        }
        model.end(&mut world);
    }
}

/// A guard against strategies that never come to what they are for. The same cases each time.
#[test]
fn the_strategies_come_to_all_that_they_are_for() {
    let mut cases = TestRunner::new_with_rng(config(1), TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let mut all = Met::default();
    for _ in 0..96 {
        let commands = commands(requests(), 24).new_tree(&mut cases).unwrap().current();
        let (mut world, mut model) = (World::new(), Model::after(all));
        commands.iter().for_each(|command| model.apply(&mut world, command));
        model.end(&mut world);
        all = model.met;
    }
    let text = format!("{all:?}");
    assert!(!text.contains(": 0,") && !text.ends_with(": 0 }"), "never met: {text}");
    println!("{text}");
}

fn execution(shape: &PlanShape) -> Execution {
    let payload = |text: &str| Payload::new("type.test/Thing", Json::encode("test", text).unwrap()).unwrap();
    let born = Timestamp::from_unix_millis(1_000_000).unwrap();
    let header = Header {
        id: OperationId::generate(IdPrefix::new("tst").unwrap(), born, 7),
        kind: KindName::new("test.make").unwrap(),
        kind_version: 1,
        description: String::new(),
        created_at: born,
        created_by: Caller::new("alice").unwrap(),
        request: payload("request"),
        metadata: payload("metadata"),
        response_type: "type.test/Thing".into(),
        resources: Vec::new(),
        deadline: None,
        idempotency: None,
    };
    let plan = Plan::new(shape.parts("step")).expect("the shape of a valid plan");
    Execution::accept(Acceptance { header, plan, start: true }).unwrap().0
}

proptest! {
    #![proptest_config(config(512))]

    /// L1: any plan of the strategy is valid, and comes to its end step by step, never with more at a time than it allows.
    #[test]
    fn l1_every_plan_of_the_strategy_is_accepted_and_runs_to_its_end(shape in plans(16)) {
        let mut execution = execution(&shape);
        let now = execution.header().created_at;
        for _ in 0..shape.steps.len() {
            let next = execution.next(now);
            prop_assert!((1..=usize::from(shape.parallel)).contains(&next.run.len()), "{next:?}");
            // The last of them, so that the others are passed by.
            let step = *next.run.last().unwrap();
            let report = StepReport::Done(Json::encode("output", &step.0).unwrap());
            let command = Command::Report { step, attempt: execution.attempt(step), report };
            let mut events = Vec::new();
            execution.handle(&command, now, &mut events).unwrap();
            execution.seal(events, now).unwrap();
        }
        prop_assert!(execution.is_done());
    }
}

proptest! {
    #![proptest_config(config(128))]

    /// The same through the builder and the engine: it succeeds with every effect there.
    #[test]
    fn l1_s25_every_plan_of_the_strategy_runs_through_the_engine(shape in plans(8)) {
        let (mut world, steps) = (World::new(), shape.steps.len());
        let request = Request { shape, fates: Vec::new(), body: serde_json::Value::Null };
        let operation = world.submit_and_wait(&request);
        prop_assert!(operation.response().is_some(), "{operation:?}");
        prop_assert_eq!(world.effects_of(operation.id()), steps);
    }
}
