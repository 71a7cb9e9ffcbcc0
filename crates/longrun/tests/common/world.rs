//! The world outside the engine: what was asked of it, in order, and what is in effect. It survives crashes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use longrun::{EffectKey, FencingToken, Operation, OperationId, Phase, Store};
use tokio::time::Instant;

use super::script::Script;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    Run,
    Undo,
}

/// One call of a run or an undo.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) number: usize,
    pub(crate) what: What,
    pub(crate) key: EffectKey,
    pub(crate) token: FencingToken,
    pub(crate) act: String,
    pub(crate) at: Instant,
    /// What the call was given of the run before.
    pub(crate) checkpoint: Option<u64>,
    /// When it returned and whether it said yes; `None` when it panicked, was dropped, or has not ended.
    pub(crate) ended: Option<(Instant, bool)>,
}

#[derive(Debug)]
pub(crate) struct World {
    /// Reads the disk itself, faults or not.
    witness: Box<dyn Store>,
    calls: Mutex<Vec<Call>>,
    effects: Mutex<BTreeSet<(OperationId, String)>>,
    crimes: Mutex<Vec<String>>,
}

impl World {
    pub(crate) fn new(witness: impl Store) -> Self {
        Self {
            witness: Box::new(witness),
            calls: Mutex::default(),
            effects: Mutex::default(),
            crimes: Mutex::default(),
        }
    }

    /// At the begin of a call: is what must be durable before it on the disk?
    pub(crate) async fn witness(&self, call: &Call) {
        let stored = self.witness.load(call.key.operation).await.unwrap();
        let crime = match (call.what, stored) {
            (_, None) => Some("C8: the operation is not on the disk"),
            (What::Run, Some(stored)) if stored.attempt(call.key.step).0 != call.token.attempt => {
                Some("C8: the start is not on the disk")
            }
            (What::Run, Some(stored)) if stored.phase() != Phase::Pending => {
                Some("C11: a run while rolling back")
            }
            (What::Undo, Some(stored)) if stored.phase() != Phase::RollingBack => {
                Some("C11: an undo before the decision is on the disk")
            }
            _ => None,
        };
        self.crimes.lock().unwrap().extend(crime.map(|crime| format!("{crime}: {call:?}")));
    }

    pub(crate) fn begin(&self, what: What, key: EffectKey, token: FencingToken, act: &str) -> Call {
        let mut calls = self.calls.lock().unwrap();
        let (number, act, at) = (calls.len(), act.to_owned(), Instant::now());
        let call = Call { number, what, key, token, act, at, checkpoint: None, ended: None };
        calls.push(call.clone());
        call
    }

    pub(crate) fn end(&self, call: &Call, yes: bool) {
        self.calls.lock().unwrap()[call.number].ended = Some((Instant::now(), yes));
    }

    pub(crate) fn note_checkpoint(&self, call: &Call, checkpoint: Option<u64>) {
        self.calls.lock().unwrap()[call.number].checkpoint = checkpoint;
    }

    pub(crate) fn apply(&self, call: &Call) {
        self.effects.lock().unwrap().insert((call.key.operation, call.act.clone()));
    }

    pub(crate) fn revert(&self, call: &Call) {
        self.effects.lock().unwrap().remove(&(call.key.operation, call.act.clone()));
    }

    /// Undos of the same step that began before this one.
    pub(crate) fn undos_before(&self, call: &Call) -> usize {
        let calls = self.calls.lock().unwrap();
        let same = |other: &&Call| other.what == What::Undo && other.key == call.key;
        calls[..call.number].iter().filter(same).count()
    }

    pub(crate) fn calls(&self) -> Vec<Call> {
        self.calls.lock().unwrap().clone()
    }

    pub(crate) fn calls_of(&self, id: OperationId, what: What, act: &str) -> Vec<Call> {
        let of = |call: &Call| call.key.operation == id && call.what == what && call.act == act;
        self.calls().into_iter().filter(of).collect()
    }

    pub(crate) fn runs(&self, id: OperationId, act: &str) -> usize {
        self.calls_of(id, What::Run, act).len()
    }

    pub(crate) fn undos(&self, id: OperationId, act: &str) -> usize {
        self.calls_of(id, What::Undo, act).len()
    }

    pub(crate) fn effects(&self, id: OperationId) -> Vec<String> {
        let effects = self.effects.lock().unwrap();
        effects.iter().filter(|(operation, _)| *operation == id).map(|(_, act)| act.clone()).collect()
    }

    /// Most calls that were under way at one moment.
    pub(crate) fn most_at_once(&self, what: What) -> usize {
        let mut changes = BTreeMap::<Instant, (usize, usize)>::new();
        for call in self.calls().iter().filter(|call| call.what == what) {
            changes.entry(call.at).or_default().0 += 1;
            if let Some((at, _)) = call.ended {
                changes.entry(at).or_default().1 += 1;
            }
        }
        let (mut now, mut most) = (0, 0);
        for (began, ended) in changes.into_values() {
            // Those that ended at the same moment made room for those that began.
            now = now + began - ended;
            most = most.max(now);
        }
        most
    }

    /// World as promised, or world as before; and on the way there no law was broken.
    pub(crate) fn check(&self, operation: &Operation, script: &Script) {
        let id = operation.id();
        assert!(operation.done(), "{id} is not done");
        assert_ne!(operation.error().is_some(), operation.response().is_some(), "C2");
        self.check_laws(id, script);
        let effects = self.effects(id);
        if operation.response().is_some() {
            let mut promised: Vec<_> =
                script.acts.iter().filter(|act| act.applies()).map(|act| act.name.clone()).collect();
            promised.sort();
            assert_eq!(effects, promised, "the world is not as promised");
        } else if !operation.was_abandoned() {
            assert_eq!(effects, [""; 0], "C4: something is left");
        }
    }

    /// What may never happen, whatever the end.
    pub(crate) fn check_laws(&self, id: OperationId, script: &Script) {
        assert_eq!(*self.crimes.lock().unwrap(), [""; 0]);
        let calls: Vec<_> = self.calls().into_iter().filter(|call| call.key.operation == id).collect();
        let first_undo = calls.iter().position(|call| call.what == What::Undo).unwrap_or(calls.len());
        let late = calls[first_undo..].iter().find(|call| call.what == What::Run);
        assert!(late.is_none(), "C11: a run began after an undo: {late:?}");
        for undo in calls.iter().filter(|call| call.what == What::Undo) {
            let ran = calls[..first_undo].iter().any(|call| call.key == undo.key);
            assert!(ran || undo.checkpoint.is_none(), "S20: an undo of what never ran has a checkpoint");
            for other in script.acts.iter().filter(|other| script.needs(&other.name).contains(&undo.act)) {
                self.check_undone_before(undo, &calls, &other.name);
            }
        }
        for (place, call) in calls.iter().enumerate() {
            let same = calls[..place].iter().filter(|other| other.key == call.key);
            for other in same {
                assert!(other.token < call.token, "a token did not grow: {other:?} then {call:?}");
            }
        }
    }

    fn check_undone_before(&self, undo: &Call, calls: &[Call], dependent: &str) {
        let of = |call: &&Call| call.act == dependent;
        if !calls.iter().any(|call| call.act == dependent && call.what == What::Run) {
            return;
        }
        let mut of = calls.iter().filter(of);
        let undone = |call: &&Call| {
            call.what == What::Undo && call.number < undo.number && call.ended.is_some_and(|end| end.1)
        };
        let failed = |call: &Call| matches!(call.ended, Some((_, false)));
        let failed_cleanly = of.clone().filter(|call| call.what == What::Run).all(failed);
        let undone = of.any(|call| undone(&call));
        assert!(undone || failed_cleanly, "C10: {} was undone before {dependent}", undo.act);
    }
}
