//! What runs now, and how much may.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use longrun_core::{Fence, Operation, OperationId, Progress, StepIndex, Timestamp};
use tokio::sync::{Notify, mpsc};
use tokio::task::AbortHandle;

use crate::driver::Message;
use crate::engine::lock;

/// An operation that a driver works on.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) inbox: mpsc::Sender<Message>,
    /// With what the operation is committed. `None` while it is only kept from being taken up.
    pub(crate) fence: Option<Fence>,
    /// It is in the store, and belongs to this engine there.
    is_owned: AtomicBool,
    /// Somebody else has changed it in the store.
    changed: AtomicBool,
    /// Wakes the driver to see to that.
    pub(crate) look_again: Notify,
    shown: Mutex<Shown>,
    /// What each of its steps that run reported since.
    progress: Mutex<BTreeMap<StepIndex, Arc<Mutex<Option<Progress>>>>>,
    task: Mutex<Option<AbortHandle>>,
}

/// What is known of an operation that runs, without asking the store.
#[derive(Clone, Debug, Default)]
#[expect(clippy::large_enum_variant, reason = "each entry has one, and shows an operation most of the time")]
pub(crate) enum Shown {
    /// Nothing: no driver has it yet, or none ever will, because it is done, or not there.
    #[default]
    Nothing,
    /// What its last durable commit left.
    Operation(Operation),
    /// A driver is about to commit, and shows then what that leaves.
    Committing,
}

/// The operations that run.
#[derive(Debug, Default)]
pub(crate) struct Running {
    entries: Mutex<HashMap<OperationId, Arc<Entry>>>,
}

impl Running {
    /// Enters an operation, and with what it is committed; `None` when it is there already.
    pub(crate) fn enter(
        &self,
        id: OperationId,
        fence: Option<Fence>,
    ) -> Option<(Arc<Entry>, mpsc::Receiver<Message>)> {
        let mut entries = lock(&self.entries);
        if entries.contains_key(&id) {
            return None;
        }
        let (inbox, messages) = mpsc::channel(16);
        let entry = Arc::new(Entry {
            inbox,
            fence,
            is_owned: AtomicBool::new(false),
            changed: AtomicBool::new(false),
            look_again: Notify::new(),
            shown: Mutex::default(),
            progress: Mutex::default(),
            task: Mutex::default(),
        });
        entries.insert(id, Arc::clone(&entry));
        Some((entry, messages))
    }

    pub(crate) fn leave(&self, id: OperationId) {
        lock(&self.entries).remove(&id);
    }

    pub(crate) fn contains(&self, id: OperationId) -> bool {
        lock(&self.entries).contains_key(&id)
    }

    pub(crate) fn len(&self) -> usize {
        lock(&self.entries).len()
    }

    /// Everything that is worked on, with what it is committed.
    pub(crate) fn holds(&self) -> Vec<(OperationId, Fence)> {
        let entries = lock(&self.entries);
        let mut holds: Vec<_> =
            entries.iter().filter_map(|(id, entry)| entry.fence.map(|fence| (*id, fence))).collect();
        holds.sort_unstable();
        holds
    }

    /// The operations among these that no driver works on.
    pub(crate) fn without(&self, ids: BTreeSet<OperationId>) -> Vec<OperationId> {
        let entries = lock(&self.entries);
        let runs = |id: &OperationId| entries.get(id).is_some_and(|entry| entry.fence.is_some());
        ids.into_iter().filter(|id| !runs(id)).collect()
    }

    /// Has the driver of an operation look at the store again.
    pub(crate) fn look_again(&self, id: OperationId) {
        if let Some(entry) = self.entry(id) {
            entry.changed.store(true, Ordering::SeqCst);
            entry.look_again.notify_one();
        }
    }

    /// Drops the driver of an operation where it stands, if that is committed with this fence and was in the store.
    pub(crate) fn abort(&self, id: OperationId, fence: Fence) -> bool {
        self.abort_if(id, |entry| entry.fence == Some(fence) && entry.is_owned())
    }

    /// The same, if it is committed with an earlier fence than this one, which the operation has now.
    pub(crate) fn abort_before(&self, id: OperationId, fence: Fence) -> bool {
        self.abort_if(id, |entry| entry.fence.is_some_and(|earlier| earlier < fence))
    }

    fn abort_if(&self, id: OperationId, is_lost: impl FnOnce(&Entry) -> bool) -> bool {
        let entry = self.entry(id).filter(|entry| is_lost(entry));
        let task = entry.and_then(|entry| lock(&entry.task).take());
        task.as_ref().inspect(|task| task.abort()).is_some()
    }

    pub(crate) fn inbox(&self, id: OperationId) -> Option<mpsc::Sender<Message>> {
        lock(&self.entries).get(&id).map(|entry| entry.inbox.clone())
    }

    /// The operation, as far as it runs and is known.
    pub(crate) fn shown(&self, id: OperationId) -> Shown {
        self.entry(id).map(|entry| lock(&entry.shown).clone()).unwrap_or_default()
    }

    fn entry(&self, id: OperationId) -> Option<Arc<Entry>> {
        lock(&self.entries).get(&id).cloned()
    }

    /// The operation as its last durable commit left it.
    pub(crate) fn operation(&self, id: OperationId) -> Option<Operation> {
        match self.shown(id) {
            Shown::Operation(operation) => Some(operation),
            Shown::Nothing | Shown::Committing => None,
        }
    }

    /// Whether its last durable commit was its end.
    pub(crate) fn is_done(&self, id: OperationId) -> bool {
        let is_done = |shown: &Shown| matches!(shown, Shown::Operation(operation) if operation.done());
        self.entry(id).is_some_and(|entry| is_done(&lock(&entry.shown)))
    }

    /// What the first of its steps that run and report has reported.
    pub(crate) fn progress(&self, id: OperationId) -> Option<Progress> {
        lock(&self.entry(id)?.progress).values().find_map(|progress| *lock(progress))
    }

    /// Drops every driver where it stands.
    pub(crate) fn abort_all(&self) {
        let mut entries: Vec<_> =
            lock(&self.entries).iter().map(|(id, entry)| (*id, Arc::clone(entry))).collect();
        // In an order that a simulation can repeat (L9).
        entries.sort_unstable_by_key(|(id, _)| *id);
        for (_, entry) in entries {
            if let Some(task) = lock(&entry.task).take() {
                task.abort();
            }
        }
    }
}

impl Entry {
    /// The operation is in the store, and belongs to this engine there.
    pub(crate) fn own(&self) {
        self.is_owned.store(true, Ordering::SeqCst);
    }

    fn is_owned(&self) -> bool {
        self.is_owned.load(Ordering::SeqCst)
    }

    pub(crate) fn is_changed(&self) -> bool {
        self.changed.load(Ordering::SeqCst)
    }

    /// It is looked at now.
    pub(crate) fn take_changed(&self) -> bool {
        self.changed.swap(false, Ordering::SeqCst)
    }

    pub(crate) fn set_task(&self, task: AbortHandle) {
        *lock(&self.task) = Some(task);
    }

    pub(crate) fn publish(&self, operation: Operation) {
        *lock(&self.shown) = Shown::Operation(operation);
    }

    pub(crate) fn unpublish(&self) {
        *lock(&self.shown) = Shown::Committing;
    }

    /// Where a run of the step that begins now reports to.
    pub(crate) fn begin_progress(&self, step: StepIndex) -> Arc<Mutex<Option<Progress>>> {
        let progress = Arc::default();
        lock(&self.progress).insert(step, Arc::clone(&progress));
        progress
    }

    /// Forgets what steps reported that do not run any more.
    pub(crate) fn keep_progress(&self, runs: impl Fn(StepIndex) -> bool) {
        lock(&self.progress).retain(|step, _| runs(*step));
    }
}

/// How many may run, and what the scheduler has to know.
#[derive(Debug)]
pub(crate) struct Slots {
    state: Mutex<SlotState>,
    /// Wakes the scheduler.
    pub(crate) changed: Notify,
}

#[derive(Debug)]
struct SlotState {
    free: usize,
    closed: bool,
    /// There may be operations in the store that are due and do not run. Stays until a whole look has found none.
    backlog: bool,
    /// The same, said since the look began: it may have missed them.
    noted: bool,
    /// There are, as far as is known, and no newer one is to come before them. A hint alone does not say so: to have what is submitted
    /// wait for each would make a hint to other nodes of it, and so for ever.
    waiting: bool,
    /// When the next one that waits is due, as far as is known.
    next_due: Option<Timestamp>,
    /// The earliest such time that was said since the look began.
    noted_due: Option<Timestamp>,
    /// When the newest operation that may wait for a slot alone was accepted. Later than the clock shows if that was set back.
    newest_at_once: Timestamp,
}

impl Slots {
    /// With `backlog`, operations wait in the store already: the newest of them was accepted at `newest`.
    pub(crate) const fn new(free: usize, backlog: bool, newest: Timestamp) -> Self {
        let state = SlotState {
            free,
            closed: false,
            backlog,
            noted: false,
            waiting: backlog,
            next_due: None,
            noted_due: None,
            newest_at_once: newest,
        };
        Self { state: Mutex::new(state), changed: Notify::const_new() }
    }

    /// A slot for a new operation; none while older ones wait, so that nobody is overtaken (L3).
    pub(crate) fn take_if_nothing_waits(&self) -> bool {
        let mut state = lock(&self.state);
        let granted = state.free > 0 && !state.waiting && !state.closed;
        state.free -= usize::from(granted);
        granted
    }

    /// A slot for the scheduler.
    pub(crate) fn take(&self) -> bool {
        let mut state = lock(&self.state);
        let granted = state.free > 0 && !state.closed;
        state.free -= usize::from(granted);
        granted
    }

    /// As many slots as are free, and at most `most`, for the scheduler. Where nothing is known to wait, half of them are left to
    /// what is submitted meanwhile.
    pub(crate) fn take_some(&self, most: usize) -> usize {
        let mut state = lock(&self.state);
        let free = if state.waiting { state.free } else { state.free.div_ceil(2) };
        let granted = if state.closed { 0 } else { free.min(most) };
        state.free -= granted;
        granted
    }

    /// Those of them that it had no use for. It knows that itself.
    pub(crate) fn put_back(&self, slots: usize) {
        lock(&self.state).free += slots;
    }

    pub(crate) fn give_back(&self) {
        lock(&self.state).free += 1;
        self.changed.notify_one();
    }

    /// This operation may be due at once, and nobody is at it.
    pub(crate) fn note_work_on(&self, id: OperationId) {
        let mut state = lock(&self.state);
        state.newest_at_once = state.newest_at_once.max(id.time());
        state.note_work();
        self.changed.notify_one();
    }

    /// Something in the store is due.
    pub(crate) fn note_work(&self) {
        lock(&self.state).note_work();
        self.changed.notify_one();
    }

    /// Something in the store may be due, or another node may have taken it up: it is time for a look.
    pub(crate) fn note_hint(&self) {
        let mut state = lock(&self.state);
        (state.backlog, state.noted) = (true, true);
        self.changed.notify_one();
    }

    /// The look had no room for all that may be due: what gets free is not for newer ones.
    pub(crate) fn note_no_room(&self) {
        lock(&self.state).waiting = true;
    }

    /// Something in the store will be due at this time.
    pub(crate) fn note_due(&self, at: Timestamp) {
        let mut state = lock(&self.state);
        state.next_due = earliest(state.next_due, Some(at));
        state.noted_due = earliest(state.noted_due, Some(at));
        self.changed.notify_one();
    }

    /// The scheduler is about to look through the store: at least up to the time of acceptance that this gives, whatever the clock
    /// shows.
    pub(crate) fn begin_look(&self) -> Timestamp {
        let mut state = lock(&self.state);
        (state.noted, state.noted_due) = (false, None);
        state.newest_at_once
    }

    /// The scheduler has taken up all that is due, and found this time to be the next at which something is. What was
    /// noted meanwhile counts too: the look may have passed it by. The next look goes as far as `newest`, unless something was noted
    /// meanwhile; with `None`, as far as this one.
    pub(crate) fn end_look(&self, next_due: Option<Timestamp>, newest: Option<Timestamp>) {
        let mut state = lock(&self.state);
        if let Some(newest) = newest.filter(|_| !state.noted) {
            state.newest_at_once = newest;
        }
        state.waiting = state.noted;
        state.end(next_due);
    }

    /// The same where engines share the store, and there was room for more. What was stored meanwhile for whoever takes it up is looked for
    /// at once, and does not hold newer ones back: under load there would be one in each look.
    pub(crate) fn end_look_with_room(&self, next_due: Option<Timestamp>) {
        let mut state = lock(&self.state);
        state.waiting = false;
        state.end(next_due);
    }

    pub(crate) fn next_due(&self) -> Option<Timestamp> {
        lock(&self.state).next_due
    }

    pub(crate) fn has_backlog(&self) -> bool {
        lock(&self.state).backlog
    }

    pub(crate) fn free(&self) -> usize {
        lock(&self.state).free
    }

    pub(crate) fn close(&self) {
        lock(&self.state).closed = true;
        self.changed.notify_one();
    }
}

impl SlotState {
    const fn note_work(&mut self) {
        (self.backlog, self.noted, self.waiting) = (true, true, true);
    }

    fn end(&mut self, next_due: Option<Timestamp>) {
        self.backlog = self.noted;
        self.next_due = earliest(next_due, self.noted_due);
    }
}

fn earliest(one: Option<Timestamp>, other: Option<Timestamp>) -> Option<Timestamp> {
    one.into_iter().chain(other).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn l3_a_newer_one_waits_while_older_ones_are_known_to() {
        let slots = Slots::new(1, false, Timestamp::MIN);
        slots.note_work();
        assert!(!slots.take_if_nothing_waits());
        slots.begin_look();
        slots.note_work();
        slots.end_look(None, None);
        assert!(!slots.take_if_nothing_waits(), "it was said while the look was under way");
        slots.begin_look();
        slots.end_look(None, None);
        assert!(!slots.has_backlog() && slots.take_if_nothing_waits());
    }

    #[test]
    fn l3_where_engines_share_a_store_what_a_look_had_no_room_for_comes_first() {
        let slots = Slots::new(1, false, Timestamp::MIN);
        slots.note_hint();
        assert!(slots.has_backlog() && slots.take_if_nothing_waits(), "a hint says that it is time to look");
        slots.begin_look();
        assert_eq!(slots.take_some(256), 0);
        slots.note_no_room();
        slots.give_back();
        assert!(!slots.take_if_nothing_waits());
        assert_eq!(slots.take_some(256), 1);
        slots.put_back(1);
        slots.begin_look();
        slots.note_work();
        slots.end_look_with_room(None);
        assert!(slots.has_backlog() && slots.take_if_nothing_waits(), "the next look comes at once");
    }

    #[test]
    fn a_look_without_cause_leaves_room_for_what_comes() {
        let slots = Slots::new(5, false, Timestamp::MIN);
        slots.note_hint();
        assert_eq!((slots.take_some(256), slots.free()), (3, 2));
        slots.note_no_room();
        assert_eq!((slots.take_some(1), slots.take_some(256), slots.take_some(256)), (1, 1, 0));
        slots.close();
        slots.put_back(5);
        assert_eq!(slots.take_some(256), 0);
    }
}
