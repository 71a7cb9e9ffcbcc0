//! The lease: several nodes, one store that only the owner of its lease works on.
//!
//! This is the design for stores that several processes share, before there is such a store: what must be compared at each commit,
//! and by whose clock a lease ends. A node may be slow at any time (any other move may come first), and what it has sent may arrive
//! late, even after it has died. Times are what is left of the lease, so that there are finitely many.
//!
//! Pauses, crashes and expiries happen until there have been [`Lease::epochs`] owners; the last one is not disturbed. So it can be
//! asked whether everything ends.

use stateright::{Model, Property};

use crate::{holds, is_refuted};

/// Time for which a lease is given.
const TERM: u8 = 2;
/// Commits that bring an operation to its end.
const LAST: u8 = 2;

type Node = usize;
type Epoch = u8;

/// How a commit is judged by the store, and a lease by the nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rules {
    /// Each commit carries the epoch of its owner, which the store compares. The store's clock says when a lease is over.
    Right,
    /// The store compares revisions only.
    NoFence,
    /// The store compares who owns the lease, not since when.
    FenceByNode,
    /// A new owner does not raise the epoch.
    EpochStays,
    /// Each node asks its own clock whether the lease of another is over; clocks run as they like.
    OwnClocks,
    /// The same, and commits are compared with revisions only.
    OwnClocksNoFence,
}

impl Rules {
    const fn own_clocks(self) -> bool {
        matches!(self, Self::OwnClocks | Self::OwnClocksNoFence)
    }
}

struct Lease {
    nodes: usize,
    operations: usize,
    epochs: Epoch,
    crashes: u8,
    renewals: u8,
    rules: Rules,
}

/// A commit on its way to the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Sent {
    node: Node,
    epoch: Epoch,
    operation: usize,
    expected: u8,
    /// Its sender has died, and nobody waits for the answer.
    orphan: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
enum Doing {
    #[default]
    Nothing,
    /// It has read an operation at this revision, and works on it.
    Works { operation: usize, revision: u8 },
    /// It waits for an answer.
    Waits,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Memory {
    /// The epoch in which it believes to own the lease.
    epoch: Option<Epoch>,
    doing: Doing,
    /// What is left of the newest lease, by its own clock.
    own_rest: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    owner: Option<Node>,
    epoch: Epoch,
    /// How often it was claimed: the epoch, where each claim raises it.
    claims: Epoch,
    /// What is left of the lease, by the store's clock.
    rest: u8,
    revisions: Vec<u8>,
    /// Who has committed in each epoch of the store, and in which epoch of their own.
    committed: Vec<Option<(Node, Epoch)>>,
    nodes: Vec<Memory>,
    /// In order, as it does not matter which was sent first.
    sent: Vec<Sent>,
    crashes: u8,
    renewals: u8,
    /// Two owners have committed in one epoch.
    two_owners: bool,
    /// A commit was taken from a node that had lost the lease.
    late_taken: bool,
    /// A commit was refused because it came from one.
    late_refused: bool,
    /// A lease was taken from its owner before it was over.
    deposed_early: bool,
    /// One that was begun by another owner was finished.
    adopted: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Move {
    Claims(Node),
    Renews(Node),
    Reads(Node, usize),
    Sends(Node),
    Arrives(Sent),
    StoreClock,
    OwnClock(Node),
    Dies(Node),
}

impl Lease {
    const fn small(rules: Rules) -> Self {
        Self { nodes: 2, operations: 1, epochs: 3, crashes: 1, renewals: 1, rules }
    }

    /// The owner of the last epoch is not disturbed any more.
    const fn is_calm(&self, state: &State) -> bool {
        state.claims == self.epochs
    }

    /// Whether a node takes the lease to be over.
    fn is_over(&self, state: &State, node: Node) -> bool {
        state.owner.is_none()
            || if self.rules.own_clocks() { state.nodes[node].own_rest == 0 } else { state.rest == 0 }
    }

    fn claim(&self, state: &mut State, node: Node) {
        state.deposed_early |= state.owner.is_some() && state.rest > 0;
        state.claims += 1;
        let stays = self.rules == Rules::EpochStays && state.owner.is_some();
        state.epoch += u8::from(!stays);
        state.owner = Some(node);
        state.rest = TERM;
        state.nodes.iter_mut().for_each(|node| node.own_rest = TERM);
        state.nodes[node].epoch = Some(state.epoch);
        state.nodes[node].doing = Doing::Nothing;
    }

    fn is_taken(&self, state: &State, sent: &Sent) -> bool {
        let fits = match self.rules {
            Rules::NoFence | Rules::OwnClocksNoFence => true,
            Rules::FenceByNode => state.owner == Some(sent.node),
            Rules::Right | Rules::EpochStays | Rules::OwnClocks => state.epoch == sent.epoch,
        };
        fits && state.revisions[sent.operation] == sent.expected
    }

    fn arrive(&self, state: &mut State, sent: &Sent) {
        let is_late = state.owner != Some(sent.node) || state.epoch != sent.epoch;
        let taken = self.is_taken(state, sent);
        if taken {
            let by = (sent.node, sent.epoch);
            let before = state.committed[usize::from(state.epoch)].replace(by);
            state.two_owners |= before.is_some_and(|before| before != by);
            state.late_taken |= is_late;
            state.revisions[sent.operation] += 1;
            state.adopted |= state.revisions[sent.operation] == LAST && self.begun_by_another(state, by);
        } else {
            state.late_refused |= is_late;
        }
        if !sent.orphan {
            state.nodes[sent.node].doing = Doing::Nothing;
            if !taken && state.epoch != sent.epoch {
                // It is told that it has lost the lease.
                state.nodes[sent.node].epoch = None;
            }
        }
    }

    fn begun_by_another(&self, state: &State, by: (Node, Epoch)) -> bool {
        self.operations == 1 && state.committed.iter().flatten().any(|other| *other != by)
    }
}

impl Model for Lease {
    type State = State;
    type Action = Move;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            owner: None,
            epoch: 0,
            claims: 0,
            rest: 0,
            revisions: vec![0; self.operations],
            committed: vec![None; usize::from(self.epochs) + 1],
            nodes: vec![Memory::default(); self.nodes],
            sent: Vec::new(),
            crashes: self.crashes,
            renewals: self.renewals,
            two_owners: false,
            late_taken: false,
            late_refused: false,
            deposed_early: false,
            adopted: false,
        }]
    }

    fn actions(&self, state: &State, moves: &mut Vec<Move>) {
        let calm = self.is_calm(state);
        for (node, memory) in state.nodes.iter().enumerate() {
            // What it has sent is answered, or it has died, before it claims anew.
            let is_free = memory.doing != Doing::Waits;
            // An owner that has died has forgotten that it is one, and waits as others do.
            let knows = state.owner == Some(node) && memory.epoch.is_some();
            if is_free && !calm && !knows && self.is_over(state, node) {
                moves.push(Move::Claims(node));
            }
            if let Some(epoch) = memory.epoch {
                let holds = state.owner == Some(node) && state.epoch == epoch;
                if holds && state.renewals > 0 && state.rest > 0 && state.rest < TERM && !calm {
                    moves.push(Move::Renews(node));
                }
                if memory.doing == Doing::Nothing {
                    let unfinished = (0..self.operations).filter(|place| state.revisions[*place] < LAST);
                    moves.extend(unfinished.map(|place| Move::Reads(node, place)));
                }
            }
            if let Doing::Works { .. } = memory.doing {
                moves.push(Move::Sends(node));
            }
            if self.rules.own_clocks() && memory.own_rest > 0 && !calm {
                moves.push(Move::OwnClock(node));
            }
            if state.crashes > 0 && memory.epoch.is_some() && !calm {
                moves.push(Move::Dies(node));
            }
        }
        if state.rest > 0 && !calm {
            moves.push(Move::StoreClock);
        }
        moves.extend(state.sent.iter().copied().map(Move::Arrives));
    }

    fn next_state(&self, before: &State, action: Move) -> Option<State> {
        let mut state = before.clone();
        match action {
            Move::Claims(node) => self.claim(&mut state, node),
            Move::Renews(node) => {
                state.renewals -= 1;
                state.rest = TERM;
                state.nodes[node].own_rest = TERM;
            }
            Move::Reads(node, operation) => {
                let revision = state.revisions[operation];
                state.nodes[node].doing = Doing::Works { operation, revision };
            }
            Move::Sends(node) => {
                let Memory { epoch, doing, .. } = &mut state.nodes[node];
                if let (Some(epoch), Doing::Works { operation, revision: expected }) = (*epoch, *doing) {
                    state.sent.push(Sent { node, epoch, operation, expected, orphan: false });
                    state.sent.sort_unstable();
                    *doing = Doing::Waits;
                }
            }
            Move::Arrives(sent) => {
                let place = state.sent.iter().position(|other| *other == sent)?;
                state.sent.remove(place);
                self.arrive(&mut state, &sent);
            }
            Move::StoreClock => state.rest -= 1,
            Move::OwnClock(node) => state.nodes[node].own_rest -= 1,
            Move::Dies(node) => {
                state.crashes -= 1;
                state.nodes[node] = Memory { own_rest: state.nodes[node].own_rest, ..Memory::default() };
                for sent in &mut state.sent {
                    sent.orphan |= sent.node == node;
                }
                state.sent.sort_unstable();
            }
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = vec![
            Property::always(ONE_OWNER, |_, state: &State| !state.two_owners),
            Property::always(NO_LATE_WRITE, |_, state: &State| !state.late_taken),
            Property::always(ENDS, |model: &Self, state: &State| {
                let mut moves = Vec::new();
                model.actions(state, &mut moves);
                !moves.is_empty() || state.revisions.iter().all(|revision| *revision == LAST)
            }),
            Property::sometimes("a late commit is refused", |_, state: &State| state.late_refused),
            Property::sometimes("a new owner finishes what another began", |model: &Self, state: &State| {
                model.operations > 1 || state.adopted
            }),
            Property::sometimes("the owner dies with a commit on its way", |_, state: &State| {
                state.sent.iter().any(|sent| sent.orphan)
            }),
        ];
        if !self.rules.own_clocks() || self.rules == Rules::OwnClocksNoFence {
            properties.push(Property::always(STORE_CLOCK, |_, state: &State| !state.deposed_early));
        }
        properties
    }
}

const ONE_OWNER: &str = "S30: at most one owner commits in an epoch";
const NO_LATE_WRITE: &str = "S31: the late write of a node that lost the lease changes nothing";
const STORE_CLOCK: &str = "S32: no lease is taken before it is over by the store's clock";
const ENDS: &str = "L1: every operation is adopted until it is done";

#[test]
fn s30_s31_s32_two_nodes_never_commit_in_one_epoch_and_everything_is_adopted() {
    let small = || Lease::small(Rules::Right);
    holds("lease of two nodes", Lease { epochs: 5, crashes: 2, renewals: 2, ..small() });
    holds("lease of three nodes", Lease { nodes: 3, epochs: 4, ..small() });
    holds("lease of two nodes, two operations", Lease { operations: 2, ..small() });
}

#[test]
#[ignore = "a minute in a release build"]
fn s30_s31_s32_three_nodes_and_two_operations() {
    let large = Lease { nodes: 3, operations: 2, epochs: 4, crashes: 2, ..Lease::small(Rules::Right) };
    holds("lease of three nodes, two operations", large);
}

#[test]
fn s30_a_store_that_does_not_compare_the_fence_is_refuted() {
    is_refuted("no fence", Lease::small(Rules::NoFence), NO_LATE_WRITE);
    is_refuted("no fence", Lease::small(Rules::NoFence), ONE_OWNER);
}

#[test]
fn s30_an_owner_that_does_not_raise_the_epoch_is_refuted() {
    is_refuted("the epoch stays", Lease::small(Rules::EpochStays), ONE_OWNER);
}

#[test]
fn s31_a_fence_by_node_instead_of_epoch_is_refuted() {
    is_refuted("fence by node", Lease::small(Rules::FenceByNode), NO_LATE_WRITE);
}

#[test]
fn s32_a_lease_judged_by_the_nodes_own_clocks_is_refuted() {
    is_refuted("own clocks, no fence", Lease::small(Rules::OwnClocksNoFence), STORE_CLOCK);
    is_refuted("own clocks, no fence", Lease::small(Rules::OwnClocksNoFence), NO_LATE_WRITE);
}

/// The clock decides who waits, the fence who writes: clocks that run as they like do no harm to what is stored.
#[test]
fn s32_with_the_fence_clocks_that_drift_change_nothing_that_is_stored() {
    holds("own clocks, with the fence", Lease::small(Rules::OwnClocks));
}
