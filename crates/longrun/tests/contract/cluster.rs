//! Several engines on one store: each answers for all, what one leaves others take up, and of two that believe to work on one
//! operation the store believes one.

use std::sync::Arc;
use std::time::Duration;

use longrun::store::shared::{Line, SharedStore};
use longrun::store::{Cluster, Store};
use longrun::{
    Code, CommandError, Fence, HoldReason, Operation, OperationId, OperationQuery, PageRequest, Phase,
    ReadError, ResourceList, SubmitError, Verb,
};
use tokio::time::Instant;

use crate::common::disk::Knobs;
use crate::common::nodes::{LEASE, Nodes};
use crate::common::script::{Act, Do, Fault, Script, Scripted, Thing, Touch, folder};
use crate::common::world::What;
use crate::common::{call, caller, keyed, millis, pass};

/// A step that takes so long, and has its effect at the end.
fn long(span: u64) -> Script {
    Script::new([Act::new("a").run([Do::Sleep(span), Do::Apply]).limits(3_600_000, 1000)])
}

/// Whose first run takes so long, and the next a second.
fn long_at_first(span: u64) -> Script {
    let runs = [span, 1000].map(|span| vec![Do::Sleep(span), Do::Apply]);
    Script::new([Act::new("a").runs(runs).limits(3_600_000, 1000)])
}

async fn pass_leases(leases: u32) {
    tokio::time::sleep(LEASE * leases).await;
}

#[tokio::test(start_paused = true)]
async fn s30_what_a_dead_node_held_others_take_up_within_two_leases() {
    let mut nodes = Nodes::new(3).await;
    let script =
        Script::chain(&["a", "b"]).with("b", |act| act.runs([vec![Do::Save(7), Do::Hang], vec![Do::Apply]]));
    let ids = [nodes.submit(0, &script).await, nodes.submit(0, &script).await];
    pass(100).await;
    assert_eq!(ids.map(|id| nodes.owner(id)), [Some(0); 2]);
    nodes.crash(0).await;
    let died = Instant::now();
    for id in ids {
        nodes.checked(1, id, &script).await;
        let runs = nodes.world.calls_of(id, What::Run, "b");
        assert_eq!(runs.len(), 2);
        assert_eq!(runs[1].checkpoint, Some(7), "it goes on from its checkpoint");
        assert_eq!(nodes.world.runs(id, "a"), 1, "C9: what is done is not done again");
    }
    assert!(died.elapsed() <= LEASE * 2, "{:?}", died.elapsed());
    assert_eq!(nodes.store.seen().freed, 2);
}

#[tokio::test(start_paused = true)]
async fn c17_s31_a_node_that_was_cut_off_past_its_lease_commits_nothing_more_and_its_step_has_the_lower_token()
 {
    let nodes = Nodes::new(2).await;
    let script = Script::new([Act::new("a")
        .runs([vec![Do::Sleep(20_000), Do::Apply], vec![Do::Sleep(1000), Do::Apply]])
        .limits(3_600_000, 1000)]);
    let id = nodes.submit(0, &script).await;
    nodes.line(0, Line::Cut);
    assert_eq!(nodes.checked(1, id, &script).await.phase(), Phase::Done);
    let runs = nodes.world.calls_of(id, What::Run, "a");
    assert_eq!(runs.len(), 2);
    assert!(runs[1].token > runs[0].token && runs[1].token.epoch > runs[0].token.epoch, "{runs:?}");
    assert!(runs[0].ended.is_none(), "nobody has told the first one");
    let revision = nodes.engine(1).get(id).await.unwrap().revision();
    // The late step ends while its node cannot be heard, and has nothing to say when it can.
    pass(20_000).await;
    assert!(nodes.world.calls_of(id, What::Run, "a")[0].ended.is_some());
    nodes.line(0, Line::Whole);
    pass_leases(2).await;
    let shown = nodes.engine(0).get(id).await.unwrap();
    assert_eq!(shown.revision(), revision, "C5");
    let seen = nodes.store.seen();
    assert_eq!((seen.lapsed, seen.freed), (1, 1));
    // It is a node again.
    let again = nodes.submit(0, &Script::chain(&["a"])).await;
    assert!(nodes.done(1, again).await.response().is_some());
}

#[tokio::test(start_paused = true)]
async fn c17_s30_a_late_commit_is_refused_and_its_driver_leaves_the_operation_to_its_new_owner() {
    let nodes = Nodes::new(2).await;
    let mut saves: Vec<_> = (0..100).flat_map(|number| [Do::Save(number), Do::Sleep(50)]).collect();
    saves.push(Do::Apply);
    let script =
        Script::new([Act::new("a").runs([saves, vec![Do::Sleep(1000), Do::Apply]]).limits(600_000, 1000)]);
    let id = nodes.submit(0, &script).await;
    // It has just not reached the store, and saves before it asks again.
    pass(820).await;
    nodes.line(0, Line::Cut);
    pass(10).await;
    nodes.store.expire(nodes.engine(0).fence());
    nodes.line(0, Line::Whole);
    nodes.checked(1, id, &script).await;
    let runs = nodes.world.calls_of(id, What::Run, "a");
    assert_eq!(runs.len(), 2);
    assert!(runs[0].ended.is_none() && runs[1].checkpoint.is_some(), "{runs:?}");
    let seen = nodes.store.seen();
    assert_eq!((seen.late, seen.freed), (1, 1));
    assert_eq!(nodes.engine(0).held(), []);
}

#[tokio::test(start_paused = true)]
async fn c17_a_step_of_an_operation_that_is_lost_is_dropped_when_its_node_learns_of_it() {
    let nodes = Nodes::new(2).await;
    let script = long_at_first(60_000);
    let id = nodes.submit(0, &script).await;
    nodes.line(0, Line::Cut);
    nodes.checked(1, id, &script).await;
    nodes.line(0, Line::Whole);
    pass(60_000).await;
    let runs = nodes.world.calls_of(id, What::Run, "a");
    assert!(runs[0].ended.is_none(), "it was dropped: {runs:?}");
    assert_eq!(nodes.store.seen().late, 0, "it did not come to a commit");
}

#[tokio::test(start_paused = true)]
async fn c13_any_node_cancels_and_no_undo_begins_before_the_runs_elsewhere_have_ended() {
    let nodes = Nodes::new(3).await;
    let script = Script::new([
        Act::new("a"),
        Act::new("b")
            .after(["a"])
            .run([Do::Apply, Do::WaitForStop, Do::Sleep(500), Do::Fail(Fault::Unknown)])
            .limits(600_000, 5000),
    ]);
    let id = nodes.submit(0, &script).await;
    pass(100).await;
    let cancelled = nodes.cancel(1, id).await;
    let at = Instant::now();
    assert_eq!(cancelled.phase(), Phase::RollingBack);
    assert_eq!(cancelled.error().unwrap().code(), Code::Cancelled);
    assert_eq!(nodes.cancel(2, id).await.revision(), cancelled.revision(), "twice is once");
    assert_eq!(nodes.engine(0).get(id).await.unwrap().phase(), Phase::RollingBack, "S38");
    let done = nodes.checked(2, id, &script).await;
    assert_eq!(done.error().unwrap().code(), Code::Cancelled);
    assert!(at.elapsed() < millis(2000), "{:?}", at.elapsed());
    let run = &nodes.world.calls_of(id, What::Run, "b")[0];
    assert!(!run.ended.unwrap().1);
    assert!(nodes.world.calls_of(id, What::Undo, "b")[0].at >= run.ended.unwrap().0);
    assert_eq!(nodes.store.seen().told, 1);
}

#[tokio::test(start_paused = true)]
async fn s38_any_node_shows_at_once_what_another_has_stored() {
    let nodes = Nodes::new(2).await;
    let script = Script::chain(&["a"])
        .touch(Touch::Create("t".into()))
        .with("a", |act| act.run([Do::Sleep(1000), Do::Apply]));
    let id = nodes.submit(0, &script).await;
    for node in [1, 0] {
        let shown = nodes.engine(node).get(id).await.unwrap();
        assert_eq!((shown.id(), shown.phase()), (id, Phase::Pending));
        let page = PageRequest::default();
        let listed = nodes.engine(node).list_operations(&OperationQuery::All, &page).await.unwrap();
        assert_eq!(listed.items.iter().map(Operation::id).collect::<Vec<_>>(), [id]);
    }
    nodes.done(0, id).await;
    for node in [1, 0] {
        assert!(nodes.engine(node).get(id).await.unwrap().done());
        let (list, page) = (ResourceList::of(folder()), PageRequest::default());
        let listed = nodes.engine(node).list_resources::<Thing>(&list, &page);
        assert_eq!(listed.await.unwrap().items.len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn l6_who_waits_at_another_node_is_told_of_the_end_soon() {
    let nodes = Nodes::new(2).await;
    let id = nodes.submit(0, &long(10_000)).await;
    let began = Instant::now();
    nodes.done(1, id).await;
    assert!(began.elapsed() < millis(10_300), "{:?}", began.elapsed());
    let unknown = nodes.engine(1).wait(OperationId::parse("opr00000000000000000").unwrap(), millis(1)).await;
    assert!(matches!(unknown, Err(ReadError::NotFound(_))));
}

#[tokio::test(start_paused = true)]
async fn l6_who_waits_is_told_although_the_node_that_ran_it_died() {
    let mut nodes = Nodes::new(3).await;
    let script = Script::new([Act::new("a").runs([vec![Do::Hang], vec![Do::Apply]]).limits(3_600_000, 1000)]);
    let id = nodes.submit(0, &script).await;
    let engine = nodes.engine(2).clone();
    let waiting = tokio::spawn(async move { engine.wait(id, millis(3_600_000)).await });
    pass(1000).await;
    nodes.crash(0).await;
    assert!(waiting.await.unwrap().unwrap().done());
    nodes.checked(1, id, &script).await;
}

#[tokio::test(start_paused = true)]
async fn l6_who_waits_at_a_node_that_was_overtaken_is_told() {
    let nodes = Nodes::new(2).await;
    let script = long_at_first(600_000);
    let id = nodes.submit(0, &script).await;
    nodes.line(0, Line::Cut);
    let engine = nodes.engine(0).clone();
    // It has the operation, as far as it knows, and need not ask anybody to wait for it.
    let waits = tokio::spawn(async move { engine.wait(id, millis(300_000)).await });
    nodes.checked(1, id, &script).await;
    assert!(!waits.is_finished());
    nodes.line(0, Line::Whole);
    let healed = Instant::now();
    assert!(waits.await.unwrap().unwrap().done());
    assert!(healed.elapsed() < millis(30_000), "{:?}", healed.elapsed());
}

#[tokio::test(start_paused = true)]
async fn s34_a_node_leaves_kinds_alone_that_it_does_not_know() {
    let mut nodes = Nodes::new(1).await;
    let old = nodes.another();
    let builder = nodes.bare(old);
    nodes.start(old, builder).await;
    let script = long(60_000);
    let id = nodes.submit(0, &script).await;
    nodes.crash(0).await;
    pass_leases(4).await;
    assert_eq!(nodes.owner(id), None, "it waits for a node that knows it");
    assert_eq!(nodes.engine(old).held(), []);
    assert_eq!(nodes.engine(old).get(id).await.unwrap().phase(), Phase::Pending, "it is shown");
    let new = nodes.join().await;
    assert_eq!(nodes.owned(id).await, new);
    nodes.checked(old, id, &script).await;
}

#[tokio::test(start_paused = true)]
async fn s34_c18_a_node_gives_back_what_it_cannot_run_and_another_takes_it() {
    let mut nodes = Nodes::new(1).await;
    let script = long(60_000);
    let id = nodes.submit(0, &script).await;
    let old = nodes.another();
    // The kind, and not its step.
    let builder = nodes.bare(old).kind(Scripted);
    nodes.start(old, builder).await;
    nodes.crash(0).await;
    pass_leases(4).await;
    let held = nodes.engine(old).held();
    assert!(
        matches!(&held[..], [held] if held.operation == id && matches!(held.reason, HoldReason::UnknownStep(_)))
    );
    assert_eq!(nodes.owner(id), None);
    let claimed = nodes.store.seen().claimed;
    pass_leases(10).await;
    assert_eq!(nodes.store.seen().claimed, claimed, "it does not try again and again");
    let new = nodes.join().await;
    assert_eq!(nodes.owned(id).await, new);
    nodes.checked(old, id, &script).await;
}

#[tokio::test(start_paused = true)]
async fn c22_an_outage_longer_than_the_lease_pauses_everything_and_nothing_fails() {
    let nodes = Nodes::new(3).await;
    let script = Script::chain(&["a", "b"]).with("a", |act| act.run([Do::Sleep(20_000), Do::Apply]));
    let mut ids = Vec::new();
    for node in 0..3 {
        ids.push(nodes.submit(node, &script).await);
    }
    pass(1000).await;
    (0..3).for_each(|node| nodes.line(node, Line::Cut));
    pass(60_000).await;
    for node in 0..3 {
        let error = nodes.engine(node).get(ids[0]).await.unwrap_err();
        assert_eq!(error.code(), Code::Unavailable);
        let error = nodes.engine(node).submit::<Scripted>(&script, call()).await.unwrap_err();
        assert!(matches!(error, SubmitError::Store(_)) && error.code() == Code::Unavailable, "{error:?}");
        let error = nodes.engine(node).cancel(ids[node], &caller()).await.unwrap_err();
        assert!(matches!(error, CommandError::Store(_)), "{error:?}");
    }
    (0..3).for_each(|node| nodes.line(node, Line::Whole));
    for id in ids {
        assert!(nodes.checked(0, id, &script).await.response().is_some());
        assert_eq!((nodes.world.runs(id, "a"), nodes.world.runs(id, "b")), (1, 1), "none was interrupted");
    }
    assert_eq!(nodes.store.seen().freed, 0);
}

#[tokio::test(start_paused = true)]
async fn s32_a_claim_that_is_never_answered_costs_no_node_its_lease() {
    let nodes = Nodes::new(2).await;
    let script = long(20_000);
    let ids = [nodes.submit(0, &script).await, nodes.submit(1, &script).await];
    pass(100).await;
    nodes.nodes[0].store.keep_claims_waiting(1);
    // Both are told that there is something to take up.
    let visitor = nodes.engine(1).draft::<Scripted>(&script, call()).await.unwrap();
    nodes.store.commit(visitor.commit().unwrap().clone()).await.unwrap();
    pass(1500).await;
    assert_eq!(nodes.store.seen().unanswered, 1, "it waits for its claim");
    // Now a renewal has to say what the node holds, for which it must know what became of the claim.
    nodes.line(0, Line::Cut);
    pass(1000).await;
    nodes.line(0, Line::Whole);
    pass_leases(2).await;
    assert_eq!(nodes.store.seen().lapsed, 0);
    assert_eq!(ids.map(|id| nodes.owner(id)), [Some(0), Some(1)]);
    for id in ids.into_iter().chain([visitor.operation().id()]) {
        nodes.checked(1, id, &script).await;
        assert_eq!(nodes.world.runs(id, "a"), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn s30_a_node_that_lapsed_and_lost_nothing_goes_on() {
    let nodes = Nodes::new(1).await;
    let script = long(20_000);
    let id = nodes.submit(0, &script).await;
    nodes.store.expire(nodes.engine(0).fence());
    assert!(nodes.checked(0, id, &script).await.response().is_some());
    assert_eq!(nodes.world.runs(id, "a"), 1);
    assert_eq!(nodes.store.seen().lapsed, 1);
}

#[tokio::test(start_paused = true)]
async fn s33_a_commit_of_unknown_outcome_is_settled_by_what_is_stored() {
    for commits in 1..8 {
        let nodes = Nodes::new(2).await;
        let script = Script::chain(&["a", "b", "c"])
            .with("a", |act| act.run([Do::Sleep(100), Do::Save(1), Do::Apply]))
            .with("b", |act| act.run([Do::Sleep(100), Do::Save(1), Do::Apply]));
        pass(10).await;
        nodes.nodes[0].store.lose_answers(commits);
        let id = nodes.submit(0, &script).await;
        assert!(nodes.checked(1, id, &script).await.response().is_some());
        for act in ["a", "b", "c"] {
            assert_eq!(nodes.world.runs(id, act), 1, "{commits} answers lost");
        }
        assert_eq!(nodes.store.seen().unanswered, u64::from(commits.min(6)));
    }
}

#[tokio::test(start_paused = true)]
async fn s33_a_cancel_from_elsewhere_is_not_taken_for_the_own_commit() {
    // While the owner saves, and learns nothing of what became of it, another node cancels.
    let lose_answer = |store: &SharedStore| store.lose_answers(1);
    let lose_commit = |store: &SharedStore| store.lose_commits(1);
    let cut = |store: &SharedStore| store.set_line(Line::Cut);
    for fails in [cut, lose_answer, lose_commit] as [fn(&SharedStore); 3] {
        let nodes = Nodes::new(2).await;
        let script = Script::new([Act::new("a")
            .run([Do::Sleep(100), Do::Apply, Do::Save(1), Do::Sleep(100), Do::Save(2), Do::Sleep(60_000)])
            .limits(600_000, 1000)]);
        let id = nodes.submit(0, &script).await;
        pass(150).await;
        fails(&nodes.nodes[0].store);
        pass(60).await;
        nodes.cancel(1, id).await;
        nodes.line(0, Line::Whole);
        let done = nodes.checked(1, id, &script).await;
        assert_eq!(done.error().unwrap().code(), Code::Cancelled);
        let undos = nodes.world.calls_of(id, What::Undo, "a");
        assert_eq!(
            undos.iter().map(|undo| undo.checkpoint).collect::<Vec<_>>(),
            [Some(2)],
            "what it was told is saved"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn l5_a_shutdown_hands_over_at_once() {
    let nodes = Nodes::new(2).await;
    let script = Script::new([
        Act::new("a").run([Do::Sleep(500), Do::Apply]),
        Act::new("b").after(["a"]).runs([vec![Do::UntilStopped], vec![Do::Apply]]),
    ]);
    let ids = [nodes.submit(0, &script).await, nodes.submit(0, &script).await];
    pass(1000).await;
    let began = Instant::now();
    assert!(nodes.engine(0).shutdown(millis(10_000)).await);
    assert!(began.elapsed() < millis(100), "{:?}", began.elapsed());
    for id in ids {
        nodes.checked(1, id, &script).await;
        assert_eq!(nodes.world.runs(id, "b"), 2);
    }
    assert!(began.elapsed() < millis(1500), "{:?}", began.elapsed());
    let wait = Duration::ZERO;
    assert!(nodes.engine(0).wait(ids[0], wait).await.unwrap().done(), "it still reads");
}

#[tokio::test(start_paused = true)]
async fn l5_a_shutdown_keeps_its_time_although_a_step_hangs_or_the_store_is_away() {
    for away in [false, true] {
        let nodes = Nodes::new(2).await;
        let script =
            Script::new([Act::new("a").runs([vec![Do::Hang], vec![Do::Apply]]).limits(600_000, 60_000)]);
        let id = nodes.submit(0, &script).await;
        pass(100).await;
        if away {
            nodes.line(0, Line::Cut);
        }
        let began = Instant::now();
        assert!(!nodes.engine(0).shutdown(millis(2000)).await);
        assert!(began.elapsed() <= millis(2000), "{:?}", began.elapsed());
        nodes.checked(1, id, &script).await;
        let limit = if away { LEASE * 2 + millis(2000) } else { millis(3500) };
        assert!(began.elapsed() < limit, "{:?}", began.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn c12_what_waits_for_its_next_try_goes_on_at_another_node() {
    let mut nodes = Nodes::new(2).await;
    let script = Script::chain(&["a", "b"])
        .with("b", |act| act.run([Do::Fail(Fault::UnknownForGood)]))
        .with("a", |act| act.undo_fails(4));
    let id = nodes.submit(0, &script).await;
    pass(300).await;
    nodes.crash(0).await;
    let done = nodes.checked(1, id, &script).await;
    assert_eq!(done.error().unwrap().code(), Code::DataLoss);
    assert_eq!(nodes.world.undos(id, "a"), 5);
}

#[tokio::test(start_paused = true)]
async fn l3_what_one_node_has_no_room_for_another_runs() {
    let nodes = Nodes::with(2, |builder| builder.running_max(1)).await;
    let script = long(10_000);
    let mut ids = Vec::new();
    for _ in 0..4 {
        ids.push(nodes.submit(0, &script).await);
    }
    let began = Instant::now();
    for id in ids {
        nodes.checked(0, id, &script).await;
    }
    assert!(began.elapsed() < millis(23_000), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn c15_racing_repeats_at_two_nodes_make_one_operation() {
    let nodes = Nodes::new(2).await;
    let script = long(1000);
    let (one, other) = tokio::join!(
        nodes.engine(0).submit::<Scripted>(&script, keyed("k")),
        nodes.engine(1).submit::<Scripted>(&script, keyed("k")),
    );
    assert_eq!(one.unwrap().id(), other.unwrap().id());
}

#[tokio::test(start_paused = true)]
async fn c12_an_operator_steps_in_at_any_node() {
    let nodes = Nodes::new(2).await;
    let script = Script::chain(&["a", "b"])
        .with("b", |act| act.run([Do::Fail(Fault::UnknownForGood)]))
        .with("a", |act| act.undo_fails(100));
    let id = nodes.submit(0, &script).await;
    pass(60_000).await;
    assert!(!nodes.engine(1).get(id).await.unwrap().blocked().is_empty());
    let undos = nodes.world.undos(id, "a");
    nodes.engine(1).intervene(id, &caller(), Verb::RetryNow, "").await.unwrap();
    pass(1500).await;
    assert!(nodes.world.undos(id, "a") > undos, "it is tried at once");
    let shown = nodes.engine(0).intervene(id, &caller(), Verb::Abandon, "enough").await.unwrap();
    assert!(shown.done() && shown.was_abandoned());
    assert!(nodes.done(1, id).await.was_abandoned());
}

#[tokio::test(start_paused = true)]
async fn the_limit_of_the_unfinished_is_that_of_all_nodes() {
    let nodes = Nodes::with(2, |builder| builder.unfinished_max(3).sweep_every(millis(1000))).await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(nodes.submit(0, &long(5000)).await);
    }
    pass(1100).await;
    let refused = nodes.engine(1).submit::<Scripted>(&long(1), call()).await.unwrap_err();
    assert!(matches!(refused, SubmitError::Overloaded { limit: 3 }), "{refused:?}");
    for id in ids {
        nodes.done(1, id).await;
    }
    pass(1100).await;
    nodes.submit(1, &long(1)).await;
}

#[tokio::test(start_paused = true)]
async fn each_node_has_its_epoch_and_the_store_that_of_the_newest() {
    let mut nodes = Nodes::new(2).await;
    assert_eq!((nodes.engine(0).fence(), nodes.engine(1).fence()), (Fence(1), Fence(2)));
    assert_eq!(nodes.engine(0).store_epoch().await.unwrap(), Fence(2));
    nodes.join().await;
    assert_eq!(nodes.engine(0).store_epoch().await.unwrap(), Fence(3));
    assert!(nodes.store.cluster().is_some());
}

#[tokio::test(start_paused = true)]
async fn s32_clocks_that_differ_take_nothing_from_anybody() {
    let mut nodes = Nodes::new(3).await;
    nodes.nodes[0].time.skew(-90_000);
    nodes.nodes[2].time.skew(90_000);
    let script = long(20_000);
    let mut ids = Vec::new();
    for node in 0..3 {
        ids.push(nodes.submit(node, &script).await);
    }
    pass_leases(3).await;
    assert_eq!(ids.iter().map(|id| nodes.owner(*id)).collect::<Vec<_>>(), [0, 1, 2].map(Some));
    for id in &ids {
        nodes.checked(1, *id, &script).await;
        assert_eq!(nodes.world.runs(*id, "a"), 1);
    }
    // Whichever dies, another goes on with what it left as soon as its lease is over.
    for node in [0, 2] {
        let script = long(10_000);
        let id = nodes.submit(node, &script).await;
        let crashed = Instant::now();
        nodes.crash(node).await;
        nodes.checked(1, id, &script).await;
        let took = crashed.elapsed();
        assert!(took < millis(10_000) + 3 * LEASE, "{took:?}, node {node}");
    }
}

#[tokio::test(start_paused = true)]
async fn c20_every_node_removes_what_is_old() {
    let nodes = Nodes::with(2, |builder| builder.retention(millis(1000)).sweep_every(millis(500))).await;
    let id = nodes.submit(0, &long(10)).await;
    nodes.done(1, id).await;
    pass(3000).await;
    for node in 0..2 {
        assert!(matches!(nodes.engine(node).get(id).await, Err(ReadError::NotFound(_))));
    }
    assert_eq!(nodes.engine(1).sweep().await.unwrap(), 0);
}

#[tokio::test(start_paused = true)]
async fn c01_c15_a_draft_becomes_an_operation_when_somebody_stores_it() {
    let nodes = Nodes::new(2).await;
    let script = long(1000).touch(Touch::Create("t".into()));
    let draft = nodes.engine(0).draft::<Scripted>(&script, keyed("k")).await.unwrap();
    let id = draft.operation().id();
    assert!(!draft.operation().done());
    pass(5000).await;
    assert!(matches!(nodes.engine(0).get(id).await, Err(ReadError::NotFound(_))), "nothing is stored");
    let late = nodes.engine(1).draft::<Scripted>(&script, keyed("k")).await.unwrap();
    nodes.store.commit(draft.commit().unwrap().clone()).await.unwrap();
    assert_eq!(nodes.engine(1).get(id).await.unwrap().id(), id);
    // The same call again is the same operation, however it comes.
    let refused = nodes.store.commit(late.commit().unwrap().clone()).await.unwrap_err();
    assert!(matches!(late.refused(refused), SubmitError::Store(_)));
    let again = nodes.engine(1).draft::<Scripted>(&script, keyed("k")).await.unwrap();
    assert!(again.commit().is_none() && again.operation().id() == id);
    assert_eq!(nodes.engine(0).submit::<Scripted>(&script, keyed("k")).await.unwrap().id(), id);
    let other = nodes.engine(1).draft::<Scripted>(&long(1), keyed("k")).await;
    assert!(matches!(other, Err(SubmitError::KeyReused(reused)) if reused == id));
    let busy = nodes.engine(1).draft::<Scripted>(&script, call()).await.unwrap();
    let refused = nodes.store.commit(busy.commit().unwrap().clone()).await.unwrap_err();
    assert!(matches!(busy.refused(refused), SubmitError::Busy { holder, .. } if holder == id));
    nodes.checked(1, id, &script).await;
}

#[tokio::test(start_paused = true)]
async fn c01_a_draft_that_is_never_stored_leaves_nothing() {
    let nodes = Nodes::with(1, |builder| builder.unfinished_max(1).running_max(1)).await;
    for _ in 0..5 {
        nodes.engine(0).draft::<Scripted>(&long(1), keyed("k")).await.unwrap();
    }
    let id = nodes.submit(0, &long(1)).await;
    nodes.checked(0, id, &long(1)).await;
    assert!(nodes.engine(0).shutdown(millis(1000)).await);
}

/// It is told that a visitor has changed its operation, and reads what is stored when another has taken it and undoes.
#[tokio::test(start_paused = true)]
async fn c17_s30_what_the_next_owner_undoes_the_former_does_not_although_it_was_told_to_look() {
    let mut nodes = Nodes::new(1).await;
    let former = nodes.another();
    let knobs = Arc::new(Knobs::default());
    // With no room for what others leave.
    let builder = nodes.builder_with_knobs(former, &knobs).running_max(1);
    nodes.start(former, builder).await;
    let script = Script::new([Act::new("a")
        .run([Do::Apply, Do::Sleep(600_000)])
        .undo([Do::Sleep(20_000), Do::Revert])
        .limits(3_600_000, 1000)]);
    let id = nodes.submit(former, &script).await;
    pass(100).await;
    Knobs::set(&knobs.load_ms, 5000);
    nodes.cancel(0, id).await;
    let (_, fence) = nodes.store.owner(id).unwrap();
    nodes.store.release(&[(id, fence)]).await.unwrap();
    nodes.checked(0, id, &script).await;
    let undos = nodes.world.calls_of(id, What::Undo, "a");
    assert_eq!(undos.len(), 1, "{undos:?}");
    assert!(undos[0].token.epoch > fence);
}

#[tokio::test(start_paused = true)]
async fn c17_what_a_node_claims_while_its_own_overtaken_driver_runs_goes_on_with_a_new_one() {
    let nodes = Nodes::new(1).await;
    let script = long_at_first(60_000);
    let id = nodes.submit(0, &script).await;
    pass(100).await;
    let (_, fence) = nodes.store.owner(id).unwrap();
    nodes.store.release(&[(id, fence)]).await.unwrap();
    let began = Instant::now();
    nodes.checked(0, id, &script).await;
    assert!(began.elapsed() < millis(4000), "{:?}", began.elapsed());
    pass(60_000).await;
    let runs = nodes.world.calls_of(id, What::Run, "a");
    assert!(runs.len() == 2 && runs[0].ended.is_none(), "{runs:?}");
}
