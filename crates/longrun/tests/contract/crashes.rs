//! A crash at every commit, before and after it is applied; then again at every commit of the recovery.

use longrun::{Operation, Verb};

use crate::common::script::{Act, Do, Fault, Script, Touch};
use crate::common::{Rig, caller, keyed, millis, pass};

/// What a client does besides submitting, after so many milliseconds.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Also {
    Nothing,
    CancelAt(u64),
}

struct Scenario {
    /// Operations that are there before.
    before: Option<Script>,
    script: Script,
    also: Also,
    /// Whether it succeeds; `None` when that depends on who wins.
    succeeds: Option<bool>,
}

impl Scenario {
    fn new(script: Script, succeeds: bool) -> Self {
        Self { before: None, script, also: Also::Nothing, succeeds: Some(succeeds) }
    }

    async fn rig(&self) -> Rig {
        let rig = Rig::with(|builder| builder.running_max(2)).await;
        if let Some(before) = &self.before {
            rig.play(before).await;
        }
        rig
    }

    /// The client: repeats what it was not told of.
    async fn client(&self, rig: &Rig) -> Operation {
        let accepted = rig.try_submit(&self.script, keyed("k")).await.unwrap();
        if let Also::CancelAt(at) = self.also {
            pass(at).await;
            rig.cancel(accepted.id()).await;
        }
        rig.done(accepted.id()).await
    }

    /// The client until it has what it wants or the process dies.
    async fn attempt(&self, rig: &Rig) -> Option<Operation> {
        let life = std::sync::Arc::clone(&rig.life);
        tokio::select! {
            biased;
            () = life.died() => None,
            done = self.client(rig) => Some(done),
        }
    }

    async fn check(&self, rig: &Rig, done: &Operation) {
        rig.check(done, &self.script);
        if let Some(succeeds) = self.succeeds {
            assert_eq!(done.response().is_some(), succeeds, "{done:?}");
        }
        let row = rig
            .engine()
            .resource::<crate::common::script::Thing>(&crate::common::script::thing_id("t"))
            .await;
        let row = row.unwrap().map(|found| (found.row.operation, found.row.status, found.body.text));
        assert!(
            row.as_ref().is_none_or(|row| row.0.is_none() && row.1 == longrun::ResourceStatus::Ready),
            "{row:?}"
        );
        assert_eq!(rig.engine().held(), []);
        assert!(rig.keys(longrun::store::Table::Due).is_empty(), "L1");
        assert_eq!(
            rig.keys(longrun::store::Table::Operations).len(),
            1 + usize::from(self.before.is_some()),
            "C15"
        );
        if self.before.is_some() && done.error().is_some() {
            assert_eq!(row.unwrap().2, "made", "C4: the before-image");
        }
    }

    /// Crashes at each commit in turn; with `twice`, also at each commit after that.
    async fn run(&self, twice: bool) {
        let mut crashes = 0;
        for after in [false, true] {
            for first in 1.. {
                let mut rig = self.rig().await;
                rig.life.crash_at(first, after);
                if let Some(done) = self.attempt(&rig).await {
                    self.check(&rig, &done).await;
                    break;
                }
                crashes += 1;
                rig.restart().await;
                let done = self.client(&rig).await;
                self.check(&rig, &done).await;
                if twice {
                    crashes += self.again(first, after).await;
                }
            }
        }
        assert!(crashes >= 4, "the crashes were never met");
    }

    async fn again(&self, first: u64, after: bool) -> u64 {
        let mut crashes = 0;
        for second_after in [false, true] {
            for second in 1.. {
                let mut rig = self.rig().await;
                rig.life.crash_at(first, after);
                assert!(self.attempt(&rig).await.is_none());
                rig.crash().await;
                let store = rig.mount();
                rig.life.crash_at(second, second_after);
                // The take-over itself may die.
                match rig.builder(store).start().await {
                    Ok(engine) => rig.put(engine),
                    Err(_) => {
                        rig.restart().await;
                        self.check(&rig, &self.client(&rig).await).await;
                        continue;
                    }
                }
                if let Some(done) = self.attempt(&rig).await {
                    self.check(&rig, &done).await;
                    break;
                }
                crashes += 1;
                rig.restart().await;
                let done = self.client(&rig).await;
                self.check(&rig, &done).await;
            }
        }
        crashes
    }
}

fn t() -> String {
    "t".to_owned()
}

fn steps() -> Script {
    Script::new([
        Act::new("a").undo([Do::Sleep(5), Do::Revert]),
        Act::new("b").run([Do::Sleep(5), Do::Save(1), Do::Apply]),
        Act::new("c").after(["a", "b"]).run([Do::Apply, Do::Sleep(10)]),
    ])
}

#[tokio::test(start_paused = true)]
async fn c01_c07_c08_success_survives_a_crash_at_every_commit() {
    Scenario::new(steps().touch(Touch::Create(t())), true).run(false).await;
    let again =
        steps().with("a", |act| act.runs([vec![Do::Apply, Do::Fail(Fault::Unknown)], vec![Do::Apply]]));
    Scenario::new(again, true).run(false).await;
}

#[tokio::test(start_paused = true)]
async fn c04_c10_c11_rollback_survives_a_crash_at_every_commit() {
    let bad = steps()
        .with("c", |act| act.run([Do::Apply, Do::Fail(Fault::UnknownForGood)]).undo_fails(2))
        .touch(Touch::Create(t()));
    Scenario::new(bad, false).run(false).await;
}

#[tokio::test(start_paused = true)]
async fn c13_s10_a_cancel_survives_a_crash_at_every_commit() {
    for at in [0, 3, 7, 12] {
        let script = steps().touch(Touch::Create(t()));
        Scenario { also: Also::CancelAt(at), succeeds: None, ..Scenario::new(script, false) }
            .run(false)
            .await;
    }
}

#[tokio::test(start_paused = true)]
async fn c07_update_and_delete_survive_a_crash_at_every_commit() {
    let made = || Some(Script::chain(&["made"]).touch(Touch::Create(t())));
    let bad = |act: Act| act.run([Do::Apply, Do::Fail(Fault::UnknownForGood)]);
    for touch in [Touch::Update(t()), Touch::Delete(t())] {
        let good = steps().touch(touch);
        Scenario { before: made(), ..Scenario::new(good.clone(), true) }.run(false).await;
        Scenario { before: made(), ..Scenario::new(good.with("c", bad), false) }.run(false).await;
    }
    // Past the point of no return it only goes forward.
    let delete = steps()
        .with("c", |act| act.runs([vec![Do::Apply, Do::Fail(Fault::UnknownForGood)], vec![Do::Apply]]))
        .no_return("c")
        .touch(Touch::Delete(t()));
    Scenario { before: made(), ..Scenario::new(delete.clone(), true) }.run(false).await;
    for at in [3, 12] {
        let script = delete.clone();
        Scenario { before: made(), also: Also::CancelAt(at), succeeds: None, script }.run(false).await;
    }
}

#[tokio::test(start_paused = true)]
async fn l2_s14_recovery_survives_a_crash_at_every_commit_too() {
    let script = Script::chain(&["a", "b"]).touch(Touch::Create(t()));
    Scenario::new(script.clone(), true).run(true).await;
    let bad = script.with("b", |act| act.run([Do::Apply, Do::Fail(Fault::UnknownForGood)]).undo_fails(1));
    Scenario::new(bad.clone(), false).run(true).await;
    let slow = Script::chain(&["a", "b"]).with("b", |act| act.run([Do::Apply, Do::Sleep(20)]));
    Scenario { also: Also::CancelAt(10), succeeds: None, ..Scenario::new(slow, false) }.run(true).await;
}

#[tokio::test(start_paused = true)]
async fn c08_a_step_that_had_started_is_run_again_going_forward_and_undone_rolling_back() {
    for cancels in [false, true] {
        let mut rig = Rig::new().await;
        let script = Script::chain(&["a", "b", "c"]).with("b", |act| act.run([Do::Apply, Do::Sleep(1000)]));
        let accepted = rig.submit(&script).await;
        pass(500).await;
        if cancels {
            let engine = rig.engine().clone();
            let id = accepted.id();
            // The decision is durable, and then it dies before the first undo.
            rig.life.crash_at(2, false);
            _ = tokio::time::timeout(millis(2000), async move { engine.cancel(id, &caller()).await }).await;
        }
        rig.restart().await;
        let done = rig.done(accepted.id()).await;
        rig.check(&done, &script);
        assert_eq!(rig.world.runs(done.id(), "b"), if cancels { 1 } else { 2 });
        assert_eq!(rig.world.undos(done.id(), "b"), usize::from(cancels));
        assert_eq!(rig.world.undos(done.id(), "c"), 0, "S20");
    }
}

#[tokio::test(start_paused = true)]
async fn a_step_that_kills_its_process_again_and_again_is_given_up_and_undone() {
    let mut rig = Rig::new().await;
    let script =
        Script::chain(&["a", "b"]).with("b", |act| act.run([Do::Apply, Do::Hang]).limits(3_600_000, 1000));
    let accepted = rig.submit(&script).await;
    let mut crashes = 0;
    while !rig.get(accepted.id()).await.done() {
        let runs = rig.world.runs(accepted.id(), "b");
        for _ in 0..600 {
            pass(100).await;
            if rig.world.runs(accepted.id(), "b") > runs || rig.get(accepted.id()).await.done() {
                break;
            }
        }
        rig.restart().await;
        pass(1).await;
        crashes += 1;
        assert!(crashes < 40, "a crash loop without end");
    }
    rig.check(&rig.get(accepted.id()).await, &script);
}

#[tokio::test(start_paused = true)]
async fn an_operators_verb_survives_a_crash() {
    let mut rig = Rig::new().await;
    let script = Script::new([Act::new("a")
        .run([Do::Apply, Do::Fail(Fault::UnknownForGood)])
        .undo([Do::Fail(Fault::Unknown)])]);
    let accepted = rig.submit(&script).await;
    pass(10_000).await;
    rig.engine().intervene(accepted.id(), &caller(), Verb::Abandon, "enough").await.unwrap();
    rig.restart().await;
    assert!(rig.get(accepted.id()).await.was_abandoned());
}
