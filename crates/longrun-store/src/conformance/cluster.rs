//! Several engines on one store: who works on what, and whose commits are taken (C17).

use std::collections::BTreeSet;
use std::thread;

use async_trait::async_trait;
use longrun_core::{Fence, Incarnation, ItemId, ItemKey, KindName, OperationId, Timestamp};

use super::bench::Bench;
use super::sample::{Draft, Live, assert_same, creates, operation_id, resource_key, resource_kind, time};
use super::{StoreFixture, wait};
use crate::cluster::{Asked, Claimed, Cluster, Tidings, Wanted};
use crate::error::{CommitError, Conflict};
use crate::items::Holder;
use crate::store::{Commit, Due, Purge, Store};

/// A store under test that engines share.
#[async_trait]
pub trait ClusterFixture: StoreFixture {
    /// Lets the lease of a node run out, as if it had not been heard of for that long and others had.
    async fn expire(&self, node: Fence);
}

/// A store, and two nodes of it.
struct Nodes<'a> {
    fixture: &'a mut dyn ClusterFixture,
    one: Fence,
    other: Fence,
}

impl<'a> Nodes<'a> {
    fn new(fixture: &'a mut dyn ClusterFixture) -> Self {
        let one = wait(fixture.store().take_over()).unwrap();
        let other = wait(fixture.store().take_over()).unwrap();
        Self { fixture, one, other }
    }

    fn store(&self) -> &dyn Store {
        self.fixture.store()
    }

    fn cluster(&self) -> &dyn Cluster {
        self.store().cluster().expect("several engines can share it")
    }

    fn commit(&self, commit: Commit) -> Result<(), CommitError> {
        wait(self.store().commit(commit))
    }

    /// Accepted by who works on it.
    fn accept(&self, n: u64, node: Fence) -> Live {
        let (live, commit) = Draft::chain(n, 2).accept(node);
        self.commit(commit).unwrap();
        live
    }

    /// Accepted by a node that does not work on it.
    fn leave_to_all(&self, n: u64, node: Fence) -> Live {
        let (live, commit) = Draft { start: false, ..Draft::chain(n, 2) }.accept(node);
        self.commit(commit.by_visitor()).unwrap();
        live
    }

    fn claim(&self, node: Fence, wanted: &Wanted) -> Vec<Claimed> {
        wait(self.cluster().claim(node, wanted)).unwrap()
    }

    fn claim_all(&self, node: Fence) -> Vec<Claimed> {
        self.claim(node, &all())
    }

    /// Claims the only one that there is.
    #[track_caller]
    fn claim_one(&self, node: Fence, id: OperationId) -> Fence {
        let claimed = self.claim_all(node);
        assert_eq!(ids(&claimed), [id]);
        claimed[0].fence
    }

    fn renew(&self, node: Fence, asked: &Asked) -> Tidings {
        wait(self.cluster().renew(node, asked)).unwrap()
    }

    fn quietly_renew(&self, node: Fence) -> Tidings {
        self.renew(node, &Asked::default())
    }

    fn release(&self, held: &[(OperationId, Fence)]) {
        wait(self.cluster().release(held)).unwrap();
    }

    fn expire(&self, node: Fence) {
        wait(self.fixture.expire(node));
    }

    #[track_caller]
    fn fenced(&self, commit: Commit) {
        let id = commit.operation_id();
        let before = wait(self.store().load(id)).unwrap().map(|execution| execution.revision());
        match self.commit(commit) {
            Err(CommitError::Fenced { .. }) => {}
            other => panic!("the commit was to be refused for its fence, not {other:?}"),
        }
        assert_eq!(wait(self.store().load(id)).unwrap().map(|execution| execution.revision()), before);
    }

    #[track_caller]
    fn stored(&self, live: &Live, commit: Commit) {
        self.commit(commit).unwrap();
        assert_same(&wait(self.store().load(live.id())).unwrap().unwrap(), &live.execution);
    }

    /// The operation as it is stored.
    fn load(&self, id: OperationId) -> Live {
        Live { execution: wait(self.store().load(id)).unwrap().unwrap(), now: time(1000) }
    }
}

fn all() -> Wanted {
    Wanted { until: Timestamp::MAX, limit: 10_000, kinds: None, except: Vec::new() }
}

fn ids(claimed: &[Claimed]) -> Vec<OperationId> {
    claimed.iter().map(|claimed| claimed.due.id).collect()
}

/// What nobody works on is claimed oldest first, so many at a time as are wanted, and once.
pub fn a_claim_takes_the_oldest_that_nobody_works_on(fixture: &mut dyn ClusterFixture) {
    let nodes = Nodes::new(fixture);
    for n in [5, 3, 9, 1] {
        nodes.leave_to_all(n, nodes.one);
    }
    nodes.accept(2, nodes.one);
    assert_eq!(nodes.claim(nodes.other, &Wanted { limit: 0, ..all() }), []);
    let two = nodes.claim(nodes.other, &Wanted { limit: 2, ..all() });
    let claimed = |n: u64| Claimed {
        due: Due { at: time(i64::try_from(n).unwrap()), id: operation_id(n) },
        fence: nodes.other,
    };
    assert_eq!(two, [1, 3].map(claimed));
    assert_eq!(nodes.claim_all(nodes.other), [5, 9].map(claimed));
    assert_eq!(nodes.claim_all(nodes.one), []);
}

/// What the node that accepts an operation works on itself belongs to it at once, with its epoch as the fence.
pub fn what_its_owner_accepts_belongs_to_it(fixture: &mut dyn ClusterFixture) {
    let nodes = Nodes::new(fixture);
    let mut live = nodes.accept(1, nodes.one);
    assert_eq!(nodes.claim_all(nodes.other), []);
    assert_eq!(nodes.claim_all(nodes.one), []);
    for step in 0..2 {
        let commit = live.done(nodes.one, step);
        nodes.stored(&live, commit);
    }
    assert!(live.execution.is_done());
    assert_eq!(nodes.claim_all(nodes.other), []);
}

/// S34: only what is of the kinds that are wanted, and is not excepted.
pub fn a_claim_leaves_other_kinds_and_exceptions_alone(fixture: &mut dyn ClusterFixture) {
    let nodes = Nodes::new(fixture);
    (1..=3).for_each(|n| _ = nodes.leave_to_all(n, nodes.one));
    let kind = |name: &str| KindName::new(name).unwrap();
    let of = |kinds: Vec<KindName>| Wanted { kinds: Some(kinds), ..all() };
    assert_eq!(nodes.claim(nodes.one, &of(Vec::new())), []);
    assert_eq!(nodes.claim(nodes.one, &of(vec![kind("sample.other"), kind("sample.mak")])), []);
    let except = vec![operation_id(1), operation_id(3), operation_id(9)];
    let wanted = Wanted { except, ..of(vec![kind("sample.other"), kind("sample.make")]) };
    assert_eq!(ids(&nodes.claim(nodes.one, &wanted)), [operation_id(2)]);
    assert_eq!(ids(&nodes.claim_all(nodes.other)), [1, 3].map(operation_id));
}

/// What waits for its time is claimed when that has come, and not before; until then its time is told.
pub fn what_waits_is_claimed_when_it_is_due(fixture: &mut dyn ClusterFixture) {
    let nodes = Nodes::new(fixture);
    let mut live = nodes.accept(1, nodes.one);
    live.now = time(50);
    let commit = live.fails(nodes.one, 0, true);
    nodes.stored(&live, commit);
    let at = live.execution.due_at().unwrap();
    assert!(at > time(50), "{at}");
    let next_due = |until| wait(nodes.cluster().next_due(until)).unwrap();
    assert_eq!(next_due(time(50)), None, "somebody has it");
    nodes.release(&[(live.id(), nodes.one)]);
    assert_eq!(next_due(time(50)), Some(at));
    assert_eq!(next_due(at), None);
    let before = Timestamp::from_unix_micros(at.unix_micros() - 1).unwrap();
    assert_eq!(next_due(before), Some(at));
    assert_eq!(nodes.claim(nodes.other, &Wanted { until: before, ..all() }), []);
    let claimed = nodes.claim(nodes.other, &Wanted { until: at, ..all() });
    assert_eq!(claimed, [Claimed { due: Due { at, id: live.id() }, fence: nodes.other }]);
    assert_eq!(next_due(time(50)), None);
}

/// S32: what waits for nothing is due at once, also when the clock of the node that accepted it was ahead. What waits is not.
pub fn what_waits_for_nothing_is_taken_whatever_the_clock_shows(fixture: &mut dyn ClusterFixture) {
    let nodes = Nodes::new(fixture);
    let mut live = nodes.accept(1, nodes.one);
    live.now = time(50);
    let commit = live.fails(nodes.one, 0, true);
    nodes.stored(&live, commit);
    nodes.release(&[(live.id(), nodes.one)]);
    for n in [40, 45, 60] {
        nodes.leave_to_all(n, nodes.one);
    }
    let early = |limit| Wanted { until: time(40), limit, ..all() };
    let except = Wanted { except: vec![operation_id(60)], kinds: Some(Vec::new()), ..early(9) };
    assert_eq!(nodes.claim(nodes.other, &except), []);
    assert_eq!(ids(&nodes.claim(nodes.other, &early(2))), [40, 45].map(operation_id));
    assert_eq!(ids(&nodes.claim(nodes.other, &early(9))), [60].map(operation_id));
    assert_eq!(ids(&nodes.claim_all(nodes.other)), [live.id()], "it waits");
}

/// C17: of many nodes that claim at the same time, each operation goes to one.
pub fn of_racing_claims_each_operation_goes_to_one(fixture: &mut dyn ClusterFixture) {
    let nodes = Nodes::new(fixture);
    let more = [wait(nodes.store().take_over()).unwrap(), wait(nodes.store().take_over()).unwrap()];
    for round in 0..5 {
        let new: BTreeSet<_> =
            (0..20).map(|n| nodes.leave_to_all(round * 100 + n + 1, nodes.one).id()).collect();
        let claim = |node: Fence| {
            let mut claimed = Vec::new();
            loop {
                let some = nodes.claim(node, &Wanted { limit: 3, ..all() });
                if some.is_empty() {
                    return claimed;
                }
                claimed.extend(some);
            }
        };
        let claim = &claim;
        let claimed: Vec<_> = thread::scope(|scope| {
            let racing = [nodes.one, nodes.other, more[0], more[1]];
            let threads = racing.map(|node| scope.spawn(move || claim(node)));
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(claimed.len(), new.len(), "none twice");
        assert_eq!(ids(&claimed).into_iter().collect::<BTreeSet<_>>(), new);
    }
}

/// C17: it is its owner's from the claim on until that lets it go, and nobody's then.
pub fn who_owns_an_operation_is_told(fixture: &mut dyn ClusterFixture) {
    let nodes = Nodes::new(fixture);
    let mut live = nodes.accept(1, nodes.one);
    let id = live.id();
    let owns = |fence| match wait(nodes.store().check_owner(id, fence)) {
        Ok(()) => true,
        Err(CommitError::Fenced { held, .. }) if held == fence => false,
        Err(error) => panic!("{error:?}"),
    };
    assert!(owns(nodes.one) && !owns(nodes.other));
    nodes.release(&[(id, nodes.one)]);
    assert!(!owns(nodes.one) && !owns(nodes.other));
    let claimed = nodes.claim_one(nodes.other, id);
    assert!(owns(claimed) && !owns(nodes.one));
    // Also when it claims anew what it had, by its new fence only.
    nodes.release(&[(id, claimed)]);
    let again = nodes.claim_one(nodes.other, id);
    assert!(owns(again) && !owns(claimed));
    // A visitor changes nothing in that, nor does the end: what was read before is still by whom it was.
    let commit = live.cancel(nodes.one).by_visitor();
    nodes.stored(&live, commit);
    assert!(owns(again) && !owns(nodes.one));
    let commit = live.adopt(again);
    nodes.stored(&live, commit);
    while !live.execution.is_done() {
        let commit = live.undone(again, 0);
        nodes.stored(&live, commit);
    }
    assert!(owns(again) && !owns(claimed) && !owns(nodes.one));
    let purge =
        Purge { only: None, done_until: Timestamp::MAX, keys_expire_at: time(9), now: time(9), limit: 9 };
    wait(nodes.store().purge(nodes.other, purge)).unwrap();
    assert!(!owns(again), "it is gone");
}

/// C17, S30: each claim gives a higher fence than the operation had before, whoever claims, and from then on nothing is taken
/// with an earlier one.
pub fn each_claim_has_a_higher_fence(fixture: &mut dyn ClusterFixture) {
    let nodes = Nodes::new(fixture);
    let mut live = nodes.leave_to_all(1, nodes.other);
    let mut last = nodes.other;
    for (n, node) in (0..).zip([nodes.one, nodes.other, nodes.other, nodes.one, nodes.one]) {
        let fence = nodes.claim_one(node, live.id());
        assert!(fence > last && fence >= node, "{fence} after {last}");
        nodes.fenced(live.clone().adopt(last));
        nodes.fenced(live.clone().cancel(Fence(fence.0 + 1)));
        let commit = if n == 0 { live.adopt(fence) } else { live.checkpoint(fence, 0, n) };
        nodes.stored(&live, commit);
        nodes.release(&[(live.id(), fence)]);
        last = fence;
    }
    let newer = wait(nodes.store().take_over()).unwrap();
    assert!(nodes.claim_one(newer, live.id()) > last);
}

/// What was released nobody commits until it is claimed; what others have by now is not released.
pub fn what_was_released_belongs_to_nobody(fixture: &mut dyn ClusterFixture) {
    let nodes = Nodes::new(fixture);
    let mut live = nodes.accept(1, nodes.one);
    nodes.release(&[]);
    nodes.release(&[(live.id(), Fence(nodes.one.0 + 100)), (operation_id(7), nodes.one)]);
    let commit = live.checkpoint(nodes.one, 0, 1);
    nodes.stored(&live, commit);
    nodes.release(&[(live.id(), nodes.one)]);
    nodes.fenced(live.clone().checkpoint(nodes.one, 0, 2));
    let fence = nodes.claim_one(nodes.other, live.id());
    nodes.release(&[(live.id(), nodes.one)]);
    let commit = live.checkpoint(fence, 0, 3);
    nodes.stored(&live, commit);
    assert_eq!(nodes.claim_all(nodes.one), []);
}

/// A node that leaves gives everything back, and nothing that it commits as an owner is taken any more.
pub fn a_node_that_leaves_gives_everything_back(fixture: &mut dyn ClusterFixture) {
    let nodes = Nodes::new(fixture);
    let lives = [1, 2, 3].map(|n| nodes.accept(n, nodes.one));
    let kept = nodes.accept(4, nodes.other);
    wait(nodes.cluster().leave(nodes.one)).unwrap();
    for live in &lives {
        nodes.fenced(live.clone().checkpoint(nodes.one, 0, 1));
    }
    nodes.fenced(Draft::chain(5, 1).accept(nodes.one).1);
    assert_eq!(nodes.claim_all(nodes.one), [], "it is gone");
    let purge = Purge { only: None, done_until: time(9), keys_expire_at: time(9), now: time(9), limit: 9 };
    let purged = wait(nodes.store().purge(nodes.one, purge));
    assert!(matches!(purged, Err(CommitError::Fenced { .. })), "{purged:?}");
    let claimed = nodes.claim_all(nodes.other);
    assert_eq!(ids(&claimed), [1, 2, 3].map(operation_id));
    for (mut live, claimed) in lives.into_iter().chain([kept]).zip(claimed) {
        let commit = live.checkpoint(claimed.fence, 0, 2);
        nodes.stored(&live, commit);
    }
    wait(nodes.cluster().leave(nodes.one)).unwrap();
}

/// S30, S31: what a node held whose lease has run out goes to others, and its late commits change nothing. When it is heard of
/// again it learns what it has lost.
pub fn a_lease_that_has_run_out_frees_what_the_node_held(fixture: &mut dyn ClusterFixture) {
    let nodes = Nodes::new(fixture);
    let lives = [1, 2].map(|n| nodes.accept(n, nodes.one));
    nodes.quietly_renew(nodes.one);
    nodes.expire(nodes.one);
    assert_eq!(nodes.quietly_renew(nodes.other).freed, 2);
    for live in &lives {
        nodes.fenced(live.clone().checkpoint(nodes.one, 0, 1));
    }
    let fence = nodes.claim(nodes.other, &Wanted { limit: 1, ..all() })[0].fence;
    for live in &lives {
        nodes.fenced(live.clone().checkpoint(nodes.one, 0, 1));
    }
    let mut adopted = lives[0].clone();
    let commit = adopted.adopt(fence);
    nodes.stored(&adopted, commit);
    let holds = lives.each_ref().map(|live| (live.id(), nodes.one));
    let asked = Asked { holds: Some(holds.to_vec()), ..Asked::default() };
    let tidings = nodes.renew(nodes.one, &asked);
    assert!(tidings.lapsed);
    assert_eq!(tidings.lost.into_iter().collect::<BTreeSet<_>>(), holds.iter().map(|(id, _)| *id).collect());
    // It is a node again, and works on.
    assert!(nodes.claim_one(nodes.one, lives[1].id()) > nodes.one);
    nodes.accept(3, nodes.one);
    assert!(!nodes.quietly_renew(nodes.one).lapsed);
}

/// A node whose lease has run out keeps exactly that of which it is not told that it lost it.
pub fn a_node_that_lapsed_keeps_what_it_is_not_told_to_have_lost(fixture: &mut dyn ClusterFixture) {
    let nodes = Nodes::new(fixture);
    let lives = [1, 2].map(|n| nodes.accept(n, nodes.one));
    nodes.expire(nodes.one);
    let holds = lives.each_ref().map(|live| (live.id(), nodes.one)).to_vec();
    let tidings = nodes.renew(nodes.one, &Asked { holds: Some(holds), ..Asked::default() });
    assert!(tidings.lapsed);
    let claimable = ids(&nodes.claim_all(nodes.other));
    for mut live in lives {
        let lost = tidings.lost.contains(&live.id());
        assert_eq!(claimable.contains(&live.id()), lost);
        let commit = live.checkpoint(nodes.one, 0, 1);
        if lost {
            nodes.fenced(commit);
        } else {
            nodes.stored(&live, commit);
        }
    }
}

/// A node that renews its lease keeps what it has, whatever becomes of others.
pub fn a_node_that_renews_keeps_what_it_has(fixture: &mut dyn ClusterFixture) {
    let nodes = Nodes::new(fixture);
    let mut live = nodes.accept(1, nodes.one);
    for n in 0..5 {
        for node in [nodes.one, nodes.other] {
            assert_eq!(nodes.quietly_renew(node), Tidings::default());
        }
        nodes.expire(nodes.other);
        let tidings = nodes.quietly_renew(nodes.one);
        assert_eq!(tidings, Tidings::default(), "the other had nothing");
        assert!(nodes.quietly_renew(nodes.other).lapsed);
        assert_eq!(nodes.claim_all(nodes.other), []);
        let commit = live.checkpoint(nodes.one, 0, n);
        nodes.stored(&live, commit);
    }
}

/// What a visitor changes is told to who works on the operation: once, and to nobody else. Its own next commit is a conflict, and
/// when it has looked again it goes on with the fence that it has.
pub fn a_visitors_change_is_told_to_the_owner_once(fixture: &mut dyn ClusterFixture) {
    let nodes = Nodes::new(fixture);
    let mut live = nodes.accept(1, nodes.one);
    let stale = live.clone().checkpoint(nodes.one, 0, 1);
    let commit = live.cancel(nodes.other).by_visitor();
    nodes.stored(&live, commit);
    assert_eq!(nodes.quietly_renew(nodes.other).changed, []);
    let conflict = nodes.commit(stale);
    assert!(
        matches!(conflict, Err(CommitError::Conflict(Conflict::Operation { .. }))),
        "the owner is told that it is not as it was, not {conflict:?}"
    );
    assert_eq!(nodes.quietly_renew(nodes.one).changed, [live.id()]);
    assert_eq!(nodes.quietly_renew(nodes.one).changed, []);
    assert_eq!(nodes.claim_all(nodes.other), [], "it belongs to whom it did");
    let mut loaded = nodes.load(live.id());
    let commit = loaded.fails_without_effect(nodes.one, 0);
    nodes.stored(&loaded, commit);
    assert!(loaded.execution.is_done());
}

/// Of what belongs to nobody nobody is told, nor one who has it later: he reads it then.
pub fn a_visitors_change_of_what_is_free_is_told_to_nobody(fixture: &mut dyn ClusterFixture) {
    let nodes = Nodes::new(fixture);
    let mut live = nodes.accept(1, nodes.one);
    nodes.release(&[(live.id(), nodes.one)]);
    let commit = live.cancel(nodes.one).by_visitor();
    nodes.stored(&live, commit);
    let fence = nodes.claim_one(nodes.other, live.id());
    for node in [nodes.one, nodes.other] {
        assert_eq!(nodes.quietly_renew(node).changed, []);
    }
    let commit = live.fails_without_effect(fence, 0);
    nodes.stored(&live, commit);
}

/// A visitor may bring an operation to its end; then it is nobody's, and its owner is told.
pub fn a_visitor_may_end_an_operation(fixture: &mut dyn ClusterFixture) {
    let nodes = Nodes::new(fixture);
    let mut live = nodes.leave_to_all(1, nodes.one);
    let fence = nodes.claim_one(nodes.one, live.id());
    let commit = live.cancel(nodes.other).by_visitor();
    nodes.stored(&live, commit);
    assert!(live.execution.is_done());
    assert_eq!(nodes.quietly_renew(nodes.one).changed, [live.id()]);
    let asked = Asked { holds: Some(vec![(live.id(), fence)]), ..Asked::default() };
    assert_eq!(nodes.renew(nodes.one, &asked).lost, [live.id()]);
    assert_eq!(nodes.claim_all(nodes.other), []);
}

/// Of the operations whose ends are awaited, those are told that are done, or not there.
pub fn ends_that_are_awaited_are_told(fixture: &mut dyn ClusterFixture) {
    let nodes = Nodes::new(fixture);
    let [mut live, going] = [1, 2].map(|n| nodes.accept(n, nodes.one));
    let gone = operation_id(3);
    let asked = Asked { awaited: vec![live.id(), going.id(), gone], holds: None };
    assert_eq!(nodes.renew(nodes.other, &asked).ended, [gone]);
    for step in 0..2 {
        let commit = live.done(nodes.one, step);
        nodes.stored(&live, commit);
    }
    for node in [nodes.one, nodes.other, nodes.other] {
        let ended: BTreeSet<_> = nodes.renew(node, &asked).ended.into_iter().collect();
        assert_eq!(ended, BTreeSet::from([live.id(), gone]));
    }
}

/// What a node says that it holds is all that it holds: the rest is freed, and what it has not is told.
pub fn what_a_node_does_not_know_to_hold_is_freed(fixture: &mut dyn ClusterFixture) {
    let nodes = Nodes::new(fixture);
    (1..=5).for_each(|n| _ = nodes.leave_to_all(n, nodes.one));
    let claimed = nodes.claim(nodes.one, &Wanted { limit: 4, ..all() });
    let (kept, of_another) = (claimed[0], operation_id(5));
    nodes.claim_one(nodes.other, of_another);
    let holds = vec![
        (kept.due.id, kept.fence),
        (claimed[1].due.id, Fence(claimed[1].fence.0 + 1)),
        (of_another, nodes.one),
        (operation_id(9), nodes.one),
    ];
    let tidings = nodes.renew(nodes.one, &Asked { holds: Some(holds), ..Asked::default() });
    let lost: BTreeSet<_> = tidings.lost.into_iter().collect();
    assert_eq!(lost, [2, 5, 9].map(operation_id).into());
    assert!(!tidings.lapsed);
    // It has the second with another fence than it says: what it works on is an earlier claim, and of the later one it does not
    // know.
    assert_eq!(ids(&nodes.claim_all(nodes.other)), [2, 3, 4].map(operation_id));
    let mut live = nodes.load(kept.due.id);
    let commit = live.adopt(kept.fence);
    nodes.stored(&live, commit);
}

/// Who has what is durable, and so is who has left.
pub fn who_has_what_is_known_after_a_restart(fixture: &mut dyn ClusterFixture) {
    let nodes = Nodes::new(fixture);
    (1..=2).for_each(|n| _ = nodes.leave_to_all(n, nodes.one));
    let claimed = nodes.claim(nodes.one, &Wanted { limit: 1, ..all() });
    let mut live = nodes.load(claimed[0].due.id);
    let commit = live.adopt(claimed[0].fence);
    nodes.stored(&live, commit);
    wait(nodes.fixture.reopen());
    assert_eq!(ids(&nodes.claim_all(nodes.other)), [operation_id(2)]);
    let commit = live.checkpoint(claimed[0].fence, 0, 1);
    nodes.stored(&live, commit);
    wait(nodes.cluster().leave(nodes.one)).unwrap();
    wait(nodes.fixture.reopen());
    nodes.fenced(live.clone().checkpoint(claimed[0].fence, 0, 2));
    assert_eq!(ids(&nodes.claim_all(nodes.other)), [operation_id(1)]);
}

/// References are taken and dropped with the fence of the operation that holds the resource, and by who works on it.
pub fn references_go_with_the_fence_of_the_operation(fixture: &mut dyn ClusterFixture) {
    let nodes = Nodes::new(fixture);
    let (live, commit) = Draft::chain(1, 1).with(creates("a", "folder")).accept(nodes.one);
    nodes.commit(commit).unwrap();
    let item = ItemKey { kind: resource_kind(), id: ItemId::new([7]).unwrap() };
    let take = |fence: Fence| {
        let holder = Holder { fence, operation: live.id(), resource: resource_key("a") };
        wait(nodes.store().take_references(holder, vec![item.clone()], Incarnation(7)))
    };
    let drop_all = |fence: Fence| {
        let holder = Holder { fence, operation: live.id(), resource: resource_key("a") };
        wait(nodes.store().drop_references(holder, 10))
    };
    take(nodes.one).unwrap();
    nodes.release(&[(live.id(), nodes.one)]);
    assert!(matches!(take(nodes.one), Err(CommitError::Fenced { .. })));
    let fence = nodes.claim_one(nodes.one, live.id());
    assert!(fence > nodes.one);
    assert!(matches!(take(nodes.one), Err(CommitError::Fenced { .. })));
    assert!(matches!(drop_all(nodes.one), Err(CommitError::Fenced { .. })));
    assert_eq!(take(fence).unwrap().len(), 1);
    assert_eq!(drop_all(fence).unwrap().references, 1);
}

/// The number of those that are unfinished is known, nearly: it is right when nothing goes on.
pub fn the_unfinished_are_counted(fixture: &mut dyn ClusterFixture) {
    let nodes = Nodes::new(fixture);
    let count = || wait(nodes.cluster().unfinished()).unwrap();
    assert_eq!(count(), 0);
    let mut live = nodes.accept(1, nodes.one);
    nodes.leave_to_all(2, nodes.other);
    assert_eq!(count(), 2);
    for step in 0..2 {
        let commit = live.done(nodes.one, step);
        nodes.stored(&live, commit);
    }
    assert_eq!(count(), 1);
}

/// The epoch of the store is that of the node that came last.
pub fn the_epoch_is_that_of_the_newest_node(fixture: &mut dyn ClusterFixture) {
    let nodes = Nodes::new(fixture);
    let epoch = || wait(nodes.cluster().epoch()).unwrap();
    assert_eq!(epoch(), nodes.other);
    wait(nodes.cluster().leave(nodes.other)).unwrap();
    assert_eq!(epoch(), nodes.other, "it never goes back");
    let newest = wait(nodes.store().take_over()).unwrap();
    assert!(newest > nodes.other);
    assert_eq!(epoch(), newest);
}

/// A lease is as long as the store says, and not nothing.
pub fn a_lease_has_a_length(fixture: &mut dyn ClusterFixture) {
    let bench = Bench::new(fixture);
    let lease = bench.store().cluster().unwrap().lease();
    assert!(!lease.is_zero() && lease == bench.store().cluster().unwrap().lease());
    assert!(bench.store().capabilities().multi_process);
}
