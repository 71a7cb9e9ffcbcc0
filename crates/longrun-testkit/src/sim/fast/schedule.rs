//! What comes from outside, planned at the beginning: clients, operators, clocks, and the end of all faults.

use longrun_core::Timestamp;

use super::scenario::{Draft, SECOND};
use super::world::{Ev, Op, World};
use crate::sim::invariants::answers::Answers;
use crate::sim::invariants::durable::Story;
use crate::sim::invariants::outside::Outside;
use crate::sim::shrink::at_most;

impl World<'_> {
    /// Everything that comes from outside is planned at the beginning.
    pub(super) fn schedule(&mut self) {
        let ops = if self.rng.chance(250) { 2 } else { 1 };
        for op in 0..at_most(self.less.operations, ops) {
            let op = usize::try_from(op).unwrap_or(0);
            let draft = Draft::of(self.kit, &self.swarm, self.less.steps, &mut self.rng);
            self.add_op(draft);
            let begin = if op == 0 { 0 } else { self.rng.below(6 * SECOND) };
            self.client(begin, op, Ev::Submit);
            if self.rng.chance(self.swarm.cancels) {
                for _ in 0..=self.rng.below(2) {
                    let at = begin + self.short();
                    self.client(at, op, Ev::Cancel);
                }
            }
            if self.rng.chance(self.swarm.verbs) {
                for _ in 0..=self.rng.below(4) {
                    let at = begin + self.rng.below(20 * SECOND);
                    self.client(at, op, Ev::Verb);
                }
            }
            for _ in 0..self.swarm.polls {
                let at = begin + self.short();
                self.client(at, op, Ev::Poll);
            }
        }
        for _ in 0..self.swarm.jumps {
            let at = self.rng.below(10 * SECOND);
            let size = self.rng.pick(&[1, 10, 600, 3600]) * 1_000_000;
            let jump = if self.rng.chance(500) { size } else { -size };
            self.push(at, 0, 0, Ev::Jump(jump));
        }
        if self.swarm.disk_full {
            let from = self.rng.below(3 * SECOND);
            self.push(from, 0, 0, Ev::DiskFull(true));
            let to = from + self.rng.below(10 * SECOND);
            self.push(to, 0, 0, Ev::DiskFull(false));
        }
        let calm = self.rng.between(5, 60) * SECOND;
        self.push(calm, 0, 0, Ev::Calm);
    }

    /// A time that is usually soon: most of what is dangerous happens in the first moments.
    pub(super) fn short(&mut self) -> u64 {
        let span = self.rng.pick(&[SECOND / 20, SECOND / 2, 3 * SECOND, 15 * SECOND]);
        self.rng.below(span)
    }

    fn add_op(&mut self, draft: Draft) {
        // Stands in until the plan is made.
        let story = Story::empty(draft.parts.steps.len());
        let outside = Outside::new(draft.parts.steps.len(), self.strict);
        self.ops.push(Op {
            id: None,
            draft,
            plan: None,
            created_at: Timestamp::MAX,
            story,
            outside,
            answers: Answers::default(),
            driver: None,
            given_up: false,
            submitting: false,
            submits: 0,
            asks_at: 0,
            crashes: 0,
            unsure: 0,
        });
        self.disk.records.push(None);
    }
}
