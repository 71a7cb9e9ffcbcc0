//! Leases and claims: several nodes on one store, as longrun-postgres and longrun's `node.rs` have it.
//!
//! | in the store | what becomes of it |
//! |---|---|
//! | a node's lease | renewed by the node; it runs out by the store's clock; then another node takes away what it holds |
//! | an operation's owner | the node that claimed it; nobody once it is given back, taken away or done |
//! | an operation's fence | its own; each claim raises it, to the node's epoch at least |
//! | an operation's record | written by its owner, if owner, fence and revision are as expected; by a visitor, if the revision is |
//!
//! An operation is one step. A node that claims it records that it adopts it, asks the world outside for the effect, and records the
//! end. If a visitor has cancelled it, the effect is undone instead. The world remembers the newest token that it met and refuses all
//! before it; a token is the fence of the claim and the number of the run.
//!
//! A node does at once what is next. What it sends arrives at any time, in any order, also when the node has lost the operation, given
//! it up or died: one that stands still is one whose messages are late. A lease has no length here, that of a living node may run
//! out at any time.
//!
//! Up to so many times ([`Lease::faults`]) the lease of a living node runs out, a node dies, stops its work on an operation, or does not
//! hear what it has claimed. All else leads forwards. So it comes to an end, and there everything must be done.
//!
//! Left out: a commit whose answer is lost, which is in the model of the cancel; a node that leaves, which is as if it gave back
//! everything; the word that a visitor was there, by which an owner only learns sooner what its next commit would tell it.

use stateright::{Model, Property};

use crate::{holds, is_refuted};

/// By its number. That is the order in which they joined, so its epoch is one more.
type Node = usize;
type Fence = u8;

/// Who may write what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rules {
    Right,
    /// The store compares revisions only.
    NoFence,
    /// The store compares who owns the operation, not by which claim.
    FenceByNode,
    /// A claim gives the operation the epoch of its node, whatever it had before.
    FenceIsEpoch,
    /// A claim does not raise the fence.
    FenceStays,
    /// What is given back is free, whoever has claimed it since.
    GiveBackWithoutFence,
    /// The store compares owner and fence, and no revision: who owns it may write what it likes.
    NoRevision,
    /// The world outside takes every effect.
    NoTokens,
    /// A node that renews its lease does not say what it holds.
    NoCensus,
    /// A node asks its own clock whether the lease of another is over; clocks run as they like.
    OwnClocks,
    /// The same, and it counts as a mistake.
    OwnClocksRefuted,
}

struct Lease {
    nodes: usize,
    operations: usize,
    faults: u8,
    rules: Rules,
}

/// What an operation is committed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Claim {
    node: Node,
    fence: Fence,
    /// Which claim of the operation it is. Nobody knows it but this model, which judges by it.
    number: u8,
}

/// What is stored of an operation, beside its owner and its fence.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Record {
    revision: u8,
    cancelled: bool,
    done: bool,
}

impl Record {
    const fn next(self) -> Self {
        Self { revision: self.revision + 1, ..self }
    }

    const fn wanted(self) -> Effect {
        if self.cancelled { Effect::Undo } else { Effect::Run }
    }
}

/// What the world is asked for. As a number of a run, an undo's is higher.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Effect {
    Run,
    Undo,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Operation {
    owner: Option<Node>,
    fence: Fence,
    record: Record,
    /// The newest token that the world has met.
    met: Option<(Fence, Effect)>,
    /// Its effect is there.
    there: bool,
    /// How often it was claimed, which is the number of the newest claim.
    claims: u8,
    /// The number of the claim of the newest turn.
    last_turn: u8,
    /// The number of the newest claim that the world has heard of.
    last_effect: u8,
}

impl Operation {
    /// Whether it belongs to somebody by this claim, by the only judge who counts claims.
    fn is_of(&self, claim: Claim) -> bool {
        self.owner == Some(claim.node) && self.claims == claim.number
    }

    /// The same, as the store sees it.
    fn is_held(&self, claim: Claim) -> bool {
        self.owner == Some(claim.node) && self.fence == claim.fence
    }
}

/// What a node knows of an operation that it works on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Driver {
    claim: Claim,
    /// As it was read, or written by this driver.
    known: Record,
    /// That it works on it is on record.
    adopted: bool,
    /// What the world has done for it.
    acted: Option<Effect>,
}

impl Driver {
    /// What it sends next, and then waits for the answer. Nothing once all is done.
    fn next(&self) -> Option<What> {
        if self.known.done {
            None
        } else if !self.adopted {
            Some(What::Commit(self.known.next()))
        } else if self.acted == Some(self.known.wanted()) {
            Some(What::Commit(Record { done: true, ..self.known.next() }))
        } else {
            Some(What::Effect(self.known.wanted()))
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Term {
    Valid,
    /// It has run out by the store's clock, and nobody has taken away anything.
    RanOut,
    /// The store does not know the node any more.
    Gone,
}

/// A node, and of its lease what the store knows.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Memory {
    alive: bool,
    lease: Term,
    drivers: Vec<Option<Driver>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Author {
    Owner(Claim),
    Visitor,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum What {
    /// What is to be stored, where the revision before it is.
    Commit(Record),
    Effect(Effect),
    GiveBack,
}

/// Something on its way to the store or to the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Sent {
    operation: usize,
    by: Author,
    what: What,
}

/// The caller who cancels the first operation, by way of a node that does not own it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Visitor {
    NotYet,
    Waits,
    Acknowledged,
    TooLate,
}

/// What must never be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Wrong {
    late_commit: bool,
    turns_mixed: bool,
    late_effect: bool,
    owner_refused: bool,
    taken_early: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    operations: Vec<Operation>,
    nodes: Vec<Memory>,
    visitor: Visitor,
    /// In order, as it does not matter which was sent first.
    sent: Vec<Sent>,
    /// As many may still happen.
    faults: u8,
    wrong: Wrong,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Move {
    Claims(Node, usize),
    ClaimsUnheard(Node, usize),
    GivesBack(Node, usize),
    Cancels,
    Arrives(Sent),
    LeaseRunsOut(Node),
    IsTakenForDead(Node),
    Renews(Node),
    Dies(Node),
}

impl State {
    fn send(&mut self, operation: usize, by: Author, what: What) {
        self.sent.push(Sent { operation, by, what });
        self.sent.sort_unstable();
    }

    /// The driver that waits for the answer to what was sent by a claim, if it is still there.
    fn driver_of(&self, operation: usize, claim: Claim) -> Option<Driver> {
        self.nodes[claim.node].drivers[operation].filter(|driver| driver.claim == claim)
    }

    /// The driver sends what is next, or leaves.
    fn go_on(&mut self, operation: usize, driver: Driver) {
        let next = driver.next();
        self.nodes[driver.claim.node].drivers[operation] = next.map(|_| driver);
        if let Some(what) = next {
            self.send(operation, Author::Owner(driver.claim), what);
        }
    }

    fn is_done(&self) -> bool {
        self.operations.iter().all(|operation| operation.record.done)
    }

    /// Whether the store knows something of the operation that the node does not.
    fn is_news(&self, node: Node, operation: usize, rules: Rules) -> bool {
        let (driver, operation) = (self.nodes[node].drivers[operation], &self.operations[operation]);
        let is_stray = operation.owner == Some(node) && rules != Rules::NoCensus;
        driver.map_or(is_stray, |driver| !operation.is_held(driver.claim))
    }
}

impl Lease {
    const fn small(rules: Rules) -> Self {
        Self { nodes: 2, operations: 1, faults: 2, rules }
    }

    const fn own_clocks(&self) -> bool {
        matches!(self.rules, Rules::OwnClocks | Rules::OwnClocksRefuted)
    }

    fn claim(&self, operation: &mut Operation, node: Node) -> Claim {
        let epoch = Fence::try_from(node + 1).unwrap();
        operation.fence = match self.rules {
            Rules::FenceStays => operation.fence,
            Rules::FenceIsEpoch => epoch,
            _ => epoch.max(operation.fence + 1),
        };
        operation.owner = Some(node);
        operation.claims += 1;
        Claim { node, fence: operation.fence, number: operation.claims }
    }

    /// Whether who wrote this owns the operation, as far as the store looks.
    fn may_write(&self, operation: &Operation, by: Author) -> bool {
        let Author::Owner(claim) = by else { return true };
        match self.rules {
            Rules::NoFence => true,
            Rules::FenceByNode => operation.owner == Some(claim.node),
            _ => operation.owner.is_some() && operation.fence == claim.fence,
        }
    }

    fn is_taken(&self, operation: &Operation, by: Author, writes: Record) -> bool {
        let follows = operation.record.next().revision == writes.revision;
        let may_overwrite = self.rules == Rules::NoRevision && by != Author::Visitor;
        self.may_write(operation, by) && !operation.record.done && (follows || may_overwrite)
    }

    fn arrive(&self, state: &mut State, sent: Sent) {
        match (sent.by, sent.what) {
            (by, What::Commit(writes)) => self.store(state, sent.operation, by, writes),
            (Author::Owner(claim), What::Effect(effect)) => self.act(state, sent.operation, claim, effect),
            (Author::Owner(claim), What::GiveBack) => {
                let operation = &mut state.operations[sent.operation];
                if operation.fence == claim.fence || self.rules == Rules::GiveBackWithoutFence {
                    state.wrong.taken_early |= operation.owner.is_some() && !operation.is_of(claim);
                    operation.owner = None;
                }
            }
            (Author::Visitor, _) => {}
        }
    }

    fn store(&self, state: &mut State, place: usize, by: Author, writes: Record) {
        let operation = &mut state.operations[place];
        let taken = self.is_taken(operation, by, writes);
        // Of what is done it hears that the revision is another.
        let lost = !self.may_write(operation, by) && !operation.record.done;
        if taken {
            operation.record = writes;
        }
        let Author::Owner(claim) = by else {
            // Where somebody else was faster it looks again.
            state.visitor = if taken { Visitor::Acknowledged } else { Visitor::NotYet };
            return;
        };
        if taken {
            state.wrong.late_commit |= !operation.is_of(claim);
            state.wrong.turns_mixed |= claim.number < operation.last_turn;
            operation.last_turn = claim.number;
            if writes.done {
                operation.owner = None;
            }
        }
        let known = operation.record;
        let Some(driver) = state.driver_of(place, claim) else { return };
        if lost {
            state.nodes[claim.node].drivers[place] = None;
        } else {
            state.go_on(place, Driver { known, adopted: driver.adopted || taken, ..driver });
        }
    }

    fn act(&self, state: &mut State, place: usize, claim: Claim, effect: Effect) {
        let operation = &mut state.operations[place];
        let token = Some((claim.fence, effect));
        let taken = token >= operation.met || self.rules == Rules::NoTokens;
        if taken {
            state.wrong.late_effect |= claim.number < operation.last_effect;
            operation.met = operation.met.max(token);
            operation.there = effect == Effect::Run;
            operation.last_effect = operation.last_effect.max(claim.number);
        } else {
            state.wrong.owner_refused |= operation.is_of(claim);
        }
        let Some(driver) = state.driver_of(place, claim) else { return };
        if taken {
            state.go_on(place, Driver { acted: Some(effect), ..driver });
        } else {
            // It is told that it is late.
            state.nodes[claim.node].drivers[place] = None;
        }
    }

    /// It says what it holds. What is not its own it leaves; what it has and does not know is free.
    fn renew(&self, state: &mut State, node: Node) {
        state.nodes[node].lease = Term::Valid;
        for place in 0..self.operations {
            if state.is_news(node, place, self.rules) {
                state.nodes[node].drivers[place] = None;
                let operation = &mut state.operations[place];
                operation.owner =
                    operation.owner.filter(|owner| *owner != node || self.rules == Rules::NoCensus);
            }
        }
    }

    /// Another node, with the renewal of its own lease, takes away what it holds.
    fn take_for_dead(state: &mut State, node: Node) {
        if state.nodes[node].lease == Term::Valid {
            state.faults -= 1;
            state.wrong.taken_early = true;
        }
        state.nodes[node].lease = Term::Gone;
        for operation in &mut state.operations {
            operation.owner = operation.owner.filter(|owner| *owner != node);
        }
    }
}

impl Model for Lease {
    type State = State;
    type Action = Move;

    /// All operations belong to the node that has accepted them, whichever that is.
    fn init_states(&self) -> Vec<State> {
        let accepted_by = |node: Node| {
            let nothing = Memory { alive: true, lease: Term::Valid, drivers: vec![None; self.operations] };
            let mut state = State {
                operations: vec![Operation::default(); self.operations],
                nodes: vec![nothing; self.nodes],
                visitor: Visitor::NotYet,
                sent: Vec::new(),
                faults: self.faults,
                wrong: Wrong::default(),
            };
            for place in 0..self.operations {
                let claim = self.claim(&mut state.operations[place], node);
                state.go_on(place, Driver { claim, known: Record::default(), adopted: true, acted: None });
            }
            state
        };
        (0..self.nodes).map(accepted_by).collect()
    }

    fn actions(&self, state: &State, moves: &mut Vec<Move>) {
        moves.extend(state.sent.iter().copied().map(Move::Arrives));
        if state.visitor == Visitor::NotYet {
            moves.push(Move::Cancels);
        }
        if state.is_done() {
            return;
        }
        let disturbed = state.faults > 0;
        let alive = state.nodes.iter().filter(|node| node.alive).count();
        for (node, memory) in state.nodes.iter().enumerate() {
            let has_ended =
                memory.lease == Term::RanOut || self.own_clocks() && memory.lease == Term::Valid && disturbed;
            if has_ended && alive > usize::from(memory.alive) {
                moves.push(Move::IsTakenForDead(node));
            }
            if memory.lease == Term::Valid && (!memory.alive || disturbed) {
                moves.push(Move::LeaseRunsOut(node));
            }
            if !memory.alive {
                continue;
            }
            if disturbed && alive > 1 {
                moves.push(Move::Dies(node));
            }
            let mut places = 0..self.operations;
            if memory.lease != Term::Valid || places.any(|place| state.is_news(node, place, self.rules)) {
                moves.push(Move::Renews(node));
            }
            for (place, operation) in state.operations.iter().enumerate() {
                // A lease that has run out is not asked for: the node is known as long as nobody took it for dead.
                if operation.owner.is_none() && !operation.record.done && memory.lease != Term::Gone {
                    moves.push(Move::Claims(node, place));
                    if disturbed {
                        moves.push(Move::ClaimsUnheard(node, place));
                    }
                }
                if disturbed && memory.drivers[place].is_some() {
                    moves.push(Move::GivesBack(node, place));
                }
            }
        }
    }

    fn next_state(&self, before: &State, action: Move) -> Option<State> {
        let mut state = before.clone();
        match action {
            Move::Claims(node, place) => {
                let claim = self.claim(&mut state.operations[place], node);
                if state.nodes[node].drivers[place].take().is_some() {
                    // One that has lost it and did not know. The new claim is given back.
                    state.send(place, Author::Owner(claim), What::GiveBack);
                } else {
                    let known = state.operations[place].record;
                    state.go_on(place, Driver { claim, known, adopted: false, acted: None });
                }
            }
            Move::ClaimsUnheard(node, place) => {
                state.faults -= 1;
                self.claim(&mut state.operations[place], node);
            }
            Move::GivesBack(node, place) => {
                state.faults -= 1;
                let driver = state.nodes[node].drivers[place].take()?;
                state.send(place, Author::Owner(driver.claim), What::GiveBack);
            }
            Move::Cancels => {
                let record = state.operations[0].record;
                if record.done {
                    state.visitor = Visitor::TooLate;
                } else {
                    state.visitor = Visitor::Waits;
                    let writes = Record { cancelled: true, ..record.next() };
                    state.send(0, Author::Visitor, What::Commit(writes));
                }
            }
            Move::Arrives(sent) => {
                let place = state.sent.iter().position(|other| *other == sent)?;
                state.sent.remove(place);
                self.arrive(&mut state, sent);
            }
            Move::LeaseRunsOut(node) => {
                state.faults -= u8::from(state.nodes[node].alive);
                state.nodes[node].lease = Term::RanOut;
            }
            Move::IsTakenForDead(node) => Self::take_for_dead(&mut state, node),
            Move::Renews(node) => self.renew(&mut state, node),
            Move::Dies(node) => {
                state.faults -= 1;
                state.nodes[node].alive = false;
                state.nodes[node].drivers.fill(None);
            }
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = vec![
            Property::always(NO_LATE_COMMIT, |_, state: &State| !state.wrong.late_commit),
            Property::always(ONE_AFTER_ANOTHER, |_, state: &State| !state.wrong.turns_mixed),
            Property::always(NO_LATE_EFFECT, |_, state: &State| !state.wrong.late_effect),
            Property::always(OWNER_IS_HEARD, |_, state: &State| !state.wrong.owner_refused),
            Property::always(CANCEL_IS_KEPT, |_, state: &State| {
                state.visitor != Visitor::Acknowledged || state.operations[0].record.cancelled
            }),
            Property::always(AS_PROMISED, |_, state: &State| {
                let done = |operation: &&Operation| operation.record.done;
                let promised = |operation: &Operation| operation.there != operation.record.cancelled;
                state.operations.iter().filter(done).all(promised)
            }),
            Property::always(ENDS, |model: &Self, state: &State| {
                let mut moves = Vec::new();
                model.actions(state, &mut moves);
                !moves.is_empty() || state.is_done()
            }),
        ];
        if self.rules != Rules::OwnClocks {
            properties.push(Property::always(CLAIM_LASTS, |_, state: &State| !state.wrong.taken_early));
        }
        properties.extend(situations());
        properties
    }
}

/// What is on its way by owners and former owners, and where to.
fn by_owners(state: &State) -> impl Iterator<Item = (Claim, What, &Operation)> {
    state.sent.iter().filter_map(|sent| match sent.by {
        Author::Owner(claim) => Some((claim, sent.what, &state.operations[sent.operation])),
        Author::Visitor => None,
    })
}

/// What has to be met, so that the properties above say something.
fn situations() -> Vec<Property<Lease>> {
    vec![
        Property::sometimes("a late commit is refused", |model: &Lease, state: &State| {
            by_owners(state).any(|(claim, what, operation)| {
                let What::Commit(writes) = what else { return false };
                !operation.is_of(claim) && !model.is_taken(operation, Author::Owner(claim), writes)
            })
        }),
        Property::sometimes("a late commit is refused by its fence alone", |model: &Lease, state: &State| {
            by_owners(state).any(|(claim, what, operation)| {
                let What::Commit(writes) = what else { return false };
                let follows = operation.record.next().revision == writes.revision && !operation.record.done;
                follows && !model.may_write(operation, Author::Owner(claim))
            })
        }),
        Property::sometimes("an owner has not seen a visitor's cancel", |model: &Lease, state: &State| {
            by_owners(state).any(|(claim, what, operation)| {
                let What::Commit(writes) = what else { return false };
                let by = Author::Owner(claim);
                model.may_write(operation, by) && !model.is_taken(operation, by, writes)
            })
        }),
        Property::sometimes("a late effect is refused", |_, state: &State| {
            by_owners(state).any(|(claim, what, operation)| {
                let What::Effect(effect) = what else { return false };
                Some((claim.fence, effect)) < operation.met
            })
        }),
        Property::sometimes("a late give-back finds another's claim", |_, state: &State| {
            by_owners(state).any(|(claim, what, operation)| {
                what == What::GiveBack && operation.owner.is_some() && !operation.is_of(claim)
            })
        }),
        Property::sometimes("one whose lease has run out commits what nobody took", |_, state: &State| {
            by_owners(state).any(|(claim, what, operation)| {
                let ran_out = state.nodes[claim.node].lease == Term::RanOut;
                ran_out && matches!(what, What::Commit(_)) && operation.is_of(claim)
            })
        }),
        Property::sometimes("a node dies with something on its way", |_, state: &State| {
            by_owners(state).any(|(claim, _, _)| !state.nodes[claim.node].alive)
        }),
        Property::sometimes("two nodes believe to work on one operation", |_, state: &State| {
            state.nodes.iter().filter(|node| node.drivers[0].is_some()).count() > 1
        }),
        Property::sometimes("a living node has what it does not know", |_, state: &State| {
            state.nodes.iter().enumerate().any(|(node, memory)| {
                memory.alive && memory.drivers[0].is_none() && state.operations[0].owner == Some(node)
            })
        }),
        Property::sometimes("a third claim finishes it", |_, state: &State| {
            state.operations[0].record.done && state.operations[0].last_turn >= 3
        }),
        Property::sometimes("a cancel comes too late", |_, state: &State| state.visitor == Visitor::TooLate),
        Property::sometimes("a cancel is acknowledged between two owners", |_, state: &State| {
            let operation = &state.operations[0];
            state.visitor == Visitor::Acknowledged && operation.owner.is_none() && !operation.record.done
        }),
    ]
}

const NO_LATE_COMMIT: &str = "S31: no commit by a claim that is over is taken";
const ONE_AFTER_ANOTHER: &str = "S30: after a turn of a claim there is none of an earlier one";
const NO_LATE_EFFECT: &str = "S31: the world takes no effect of a claim before one that it has heard of";
const OWNER_IS_HEARD: &str = "S31: the world does not refuse whom the operation belongs to";
const CLAIM_LASTS: &str = "S32: a claim lasts as long as its node wants and its lease, by the store's clock";
const CANCEL_IS_KEPT: &str = "S10: a cancel that was acknowledged is not lost";
const AS_PROMISED: &str = "S25: an effect is there when all is done, and not when it was cancelled";
const ENDS: &str = "L1: every operation is claimed until it is done";

#[test]
fn s30_s31_s32_an_operation_goes_from_claim_to_claim_until_it_is_done() {
    let small = || Lease::small(Rules::Right);
    holds("lease of two nodes", small());
    holds("lease of three nodes", Lease { nodes: 3, ..small() });
}

#[test]
#[ignore = "a minute in a release build"]
fn s30_s31_s32_more_nodes_operations_and_faults() {
    let small = || Lease::small(Rules::Right);
    holds("lease of two nodes, two operations", Lease { operations: 2, ..small() });
    holds("lease of two nodes, three faults", Lease { faults: 3, ..small() });
    holds("lease of three nodes, three faults", Lease { nodes: 3, faults: 3, ..small() });
}

#[test]
fn s30_s31_a_store_that_does_not_compare_the_fence_is_refuted() {
    is_refuted("no fence", Lease::small(Rules::NoFence), NO_LATE_COMMIT);
    is_refuted("no fence", Lease::small(Rules::NoFence), ONE_AFTER_ANOTHER);
}

#[test]
fn s31_a_fence_by_node_instead_of_claim_is_refuted() {
    is_refuted("fence by node", Lease::small(Rules::FenceByNode), NO_LATE_COMMIT);
}

#[test]
fn s31_the_epoch_of_the_node_as_the_fence_of_the_operation_is_refuted() {
    is_refuted("the fence is the epoch", Lease::small(Rules::FenceIsEpoch), OWNER_IS_HEARD);
    is_refuted("the fence is the epoch", Lease::small(Rules::FenceIsEpoch), NO_LATE_EFFECT);
    is_refuted("the fence is the epoch", Lease::small(Rules::FenceIsEpoch), NO_LATE_COMMIT);
}

#[test]
fn s30_s31_a_claim_that_does_not_raise_the_fence_is_refuted() {
    is_refuted("the fence stays", Lease::small(Rules::FenceStays), NO_LATE_COMMIT);
    is_refuted("the fence stays", Lease::small(Rules::FenceStays), ONE_AFTER_ANOTHER);
    is_refuted("the fence stays", Lease::small(Rules::FenceStays), NO_LATE_EFFECT);
}

#[test]
fn s32_a_give_back_that_does_not_compare_the_fence_is_refuted() {
    is_refuted("give-back without fence", Lease::small(Rules::GiveBackWithoutFence), CLAIM_LASTS);
}

#[test]
fn s10_an_owner_that_overwrites_the_cancel_of_a_visitor_is_refuted() {
    is_refuted("no revision", Lease::small(Rules::NoRevision), CANCEL_IS_KEPT);
}

#[test]
fn s25_s31_a_world_that_takes_late_effects_is_refuted() {
    is_refuted("no tokens", Lease::small(Rules::NoTokens), NO_LATE_EFFECT);
    is_refuted("no tokens", Lease::small(Rules::NoTokens), AS_PROMISED);
}

#[test]
fn l1_a_node_that_does_not_say_what_it_holds_is_refuted() {
    is_refuted("no census", Lease::small(Rules::NoCensus), ENDS);
}

#[test]
fn s32_a_lease_judged_by_the_nodes_own_clocks_is_refuted() {
    is_refuted("own clocks", Lease::small(Rules::OwnClocksRefuted), CLAIM_LASTS);
}

/// The clock decides who waits, the fence who writes: clocks that run as they like do no harm to what is stored.
#[test]
fn s32_with_the_fence_clocks_that_drift_change_nothing_that_is_stored() {
    holds("own clocks", Lease::small(Rules::OwnClocks));
}
