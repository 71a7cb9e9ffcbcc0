//! What an engine may answer: a simple model of it, which remembers every answer.

use std::collections::BTreeMap;
use std::time::Duration;

use longrun::{
    Code, CommandError, Engine, Operation, OperationId, OperationQuery, PageRequest, Phase, ReadError,
    SubmitError,
};
use longrun_testkit::strategies::{CallShape, Command};

use crate::service::{Make, Request};
use crate::world::{RETENTION, World};

/// An operation, as far as the answers have told.
#[derive(Debug)]
struct Known {
    id: OperationId,
    request: Request,
    call: CallShape,
    first: Operation,
    last: Operation,
    /// It was removed from the record.
    gone: bool,
}

/// What a case has come to, to be sure that cases do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Met {
    pub responses: usize,
    pub errors: usize,
    pub cancelled: usize,
    pub past_no_return: usize,
    pub crashed_under_way: usize,
    pub repeats: usize,
    pub keys_reused: usize,
    pub keys_outlived: usize,
    pub purged: usize,
    pub kept: usize,
    pub not_done_to_forget: usize,
}

#[derive(Debug, Default)]
pub struct Model {
    pub met: Met,
    known: Vec<Known>,
    /// Which operation a caller's key made.
    keys: BTreeMap<(u8, u8), usize>,
}

impl Known {
    /// One more answer about it.
    fn learn(&mut self, operation: &Operation) {
        let (first, last) = (&self.first, &self.last);
        let ends = (operation.response().is_some(), operation.error().is_some());
        match operation.phase() {
            Phase::Done => assert!(ends.0 != ends.1, "S1: done with both or neither: {operation:?}"),
            Phase::RollingBack => assert!(!ends.0 && ends.1, "S2: {operation:?}"),
            Phase::Pending => assert!(!ends.0 && !ends.1, "S2: {operation:?}"),
        }
        assert!(!last.done() || operation == last, "S3: done is final: {last:?} became {operation:?}");
        assert!(operation.phase() >= last.phase(), "S4: {last:?} became {operation:?}");
        assert!(last.error().is_none() || operation.error() == last.error(), "S8: another cause");
        assert!(operation.created_at() <= operation.modified_at(), "S5");
        assert!(operation.modified_at() >= last.modified_at(), "S5: modified_at went back");
        assert!(operation.revision() >= last.revision(), "S5: the revision went back");
        let fixed = |operation: &Operation| {
            let payloads = [operation.request().json().clone(), operation.metadata().json().clone()];
            (operation.id(), operation.created_at(), operation.created_by().clone(), payloads)
        };
        assert_eq!(fixed(operation), fixed(first), "S6");
        self.last = operation.clone();
    }
}

impl Model {
    /// For one case more.
    pub fn after(met: Met) -> Self {
        Self { met, ..Self::default() }
    }

    pub fn apply(&mut self, world: &mut World, command: &Command<Request>) {
        match command {
            Command::Submit { call, request } => self.submit(world, *call, request),
            Command::Repeat(which) => {
                if let Some(place) = which.pick(&self.places()).copied() {
                    let (call, request) = (self.known[place].call, self.known[place].request.clone());
                    self.submit(world, call, &request);
                }
            }
            Command::Cancel(which) => {
                if let Some(known) = which.pick(&self.places()).copied() {
                    self.cancel(world, known);
                }
            }
            Command::Wait(which) => {
                if let Some(place) = which.pick(&self.places()).copied() {
                    let id = self.known[place].id;
                    let waited = world.with(async |engine| engine.wait(id, Duration::from_secs(5)).await);
                    self.looked(place, waited);
                }
            }
            Command::Get(which) => {
                if let Some(place) = which.pick(&self.places()).copied() {
                    self.get(world, place);
                }
            }
            Command::List { page_size } => self.list(world, *page_size),
            Command::Forget(which) => {
                if let Some(place) = which.pick(&self.places()).copied() {
                    self.forget(world, place);
                }
            }
            Command::Pass(wait) => world.with(async |_: &Engine| tokio::time::sleep(*wait).await),
            Command::Purge => self.purge(world),
            Command::Crash => {
                let under_way = self.known.iter().any(|known| !known.last.done());
                self.met.crashed_under_way += usize::from(under_way);
                world.crash();
                // S9, S10: all that was acknowledged is there.
                self.places().into_iter().for_each(|place| self.get(world, place));
            }
        }
    }

    fn places(&self) -> Vec<usize> {
        (0..self.known.len()).collect()
    }

    fn submit(&mut self, world: &World, call: CallShape, request: &Request) {
        let ask = async |engine: &Engine| engine.submit::<Make>(request, call.call()).await;
        let answer = world.with(async |engine| {
            if call.key.is_none() {
                return ask(engine).await;
            }
            // Two at the same time, of which one is late.
            let (answer, other) = tokio::join!(ask(engine), ask(engine));
            let id = |answer: &Result<Operation, _>| answer.as_ref().ok().map(Operation::id);
            assert_eq!(id(&answer), id(&other), "S35: two operations of one key");
            answer
        });
        let used = call.key.and_then(|key| self.keys.get(&(call.caller, key)).copied());
        let Some(place) = used else {
            let operation = answer.unwrap();
            let id = operation.id();
            assert!(self.known.iter().all(|known| known.id != id), "S35: the id of another");
            assert_eq!(operation.request().decode::<Request>().unwrap(), *request, "S6");
            assert_eq!(operation.metadata().decode::<serde_json::Value>().unwrap(), request.body, "S6");
            let place = self.known.len();
            if let Some(key) = call.key {
                self.keys.insert((call.caller, key), place);
            }
            let (first, last) = (operation.clone(), operation);
            self.known.push(Known { id, request: request.clone(), call, first, last, gone: false });
            // S38: who has it accepted finds it.
            return self.get(world, place);
        };
        let known = &mut self.known[place];
        match answer {
            Ok(operation) => {
                assert!(known.request == *request && !known.gone, "S35: {operation:?} for another request");
                known.learn(&operation);
                self.met.repeats += 1;
            }
            Err(SubmitError::KeyReused(id)) => {
                assert!(id == known.id && known.request != *request, "S35");
                self.met.keys_reused += 1;
            }
            Err(SubmitError::KeyOutlived(id)) => {
                self.met.keys_outlived += 1;
                assert!(id == known.id && known.gone && known.request == *request, "S35, S43");
            }
            Err(error) => panic!("S35: {error}"),
        }
    }

    fn cancel(&mut self, world: &World, place: usize) {
        let known = &mut self.known[place];
        let (id, by) = (known.id, known.call.by());
        match world.with(async |engine| engine.cancel(id, &by).await) {
            Ok(operation) => {
                assert!(!known.gone);
                let goes_on = operation.phase() == Phase::Pending;
                assert!(
                    !goes_on || known.request.shape.point_of_no_return.is_some(),
                    "S24: a cancel that was passed over"
                );
                let is_ours = operation.error().is_some_and(|error| error.code() == Code::Cancelled);
                self.met.cancelled += usize::from(is_ours);
                self.met.past_no_return += usize::from(goes_on);
                known.learn(&operation);
            }
            Err(CommandError::NotFound(_)) => assert!(known.gone, "S9: it is lost"),
            Err(error) => panic!("{error}"),
        }
    }

    fn get(&mut self, world: &World, place: usize) {
        let id = self.known[place].id;
        let found = world.with(async |engine| engine.get(id).await);
        self.looked(place, found);
    }

    fn looked(&mut self, place: usize, found: Result<Operation, ReadError>) {
        let known = &mut self.known[place];
        match found {
            Ok(operation) => {
                assert!(!known.gone, "S43: what was removed is back");
                known.learn(&operation);
            }
            Err(ReadError::NotFound(_)) => assert!(known.gone, "S9, S38, S43: {known:?} is lost"),
            Err(error) => panic!("{error}"),
        }
    }

    /// S36, S37: every one that is there, once, newest first.
    fn list(&mut self, world: &World, size: usize) {
        let listed = world.with(async |engine| {
            let (mut listed, mut token) = (Vec::new(), String::new());
            loop {
                let page = PageRequest { size, token };
                let page = engine.list_operations(&OperationQuery::All, &page).await.unwrap();
                assert!(page.items.len() <= size);
                listed.extend(page.items);
                token = page.next_token;
                if token.is_empty() {
                    return listed;
                }
            }
        });
        assert!(listed.is_sorted_by(|one, next| one.id() > next.id()), "S37: not in order, or twice");
        let mut expected: Vec<_> =
            self.known.iter().filter(|known| !known.gone).map(|known| known.id).collect();
        expected.sort_unstable_by(|one, other| other.cmp(one));
        let found: Vec<_> = listed.iter().map(Operation::id).collect();
        assert_eq!(found, expected, "S36");
        for operation in &listed {
            let known = self.known.iter_mut().find(|known| known.id == operation.id()).unwrap();
            known.learn(operation);
        }
    }

    fn forget(&mut self, world: &World, place: usize) {
        self.get(world, place);
        let known = &mut self.known[place];
        let id = known.id;
        match world.with(async |engine| engine.forget(id).await) {
            Ok(()) => {
                assert!(!known.gone);
                known.gone = true;
            }
            Err(CommandError::NotFound(_)) => assert!(known.gone),
            Err(CommandError::NotDone(_)) => {
                assert!(!known.last.done(), "S43");
                self.met.not_done_to_forget += 1;
            }
            Err(error) => panic!("{error}"),
        }
        assert!(!known.gone || known.last.done(), "S43: one that is not done was removed");
    }

    /// S43: what is done and old goes, and nothing else. Half the time for which it is kept passes, so that some of it stays.
    fn purge(&mut self, world: &World) {
        world.with(async |_: &Engine| tokio::time::sleep(RETENTION / 2 + Duration::from_secs(60)).await);
        self.places().into_iter().for_each(|place| self.get(world, place));
        let now = world.now();
        let removed = world.with(async |engine| engine.sweep().await).unwrap();
        let old = |known: &&mut Known| {
            let is_old = known.last.modified_at().saturating_add(RETENTION) <= now;
            !known.gone && known.last.done() && is_old
        };
        let mut expected = 0;
        for known in self.known.iter_mut().filter(old) {
            known.gone = true;
            expected += 1;
        }
        assert_eq!(removed, expected, "S43");
        self.met.purged += removed;
        self.met.kept += self.known.iter().filter(|known| !known.gone).count();
        self.places().into_iter().for_each(|place| self.get(world, place));
    }

    /// L1: without further trouble everything is done; S25: with every effect, or with none.
    pub fn end(&mut self, world: &mut World) {
        world.with(async |_: &Engine| tokio::time::sleep(Duration::from_secs(3600)).await);
        self.places().into_iter().for_each(|place| self.get(world, place));
        for known in &self.known {
            assert!(known.last.done(), "L1: {:?}", known.last);
            let succeeded = known.last.response().is_some();
            *(if succeeded { &mut self.met.responses } else { &mut self.met.errors }) += 1;
            let steps = if succeeded { known.request.shape.steps.len() } else { 0 };
            assert_eq!(world.effects_of(known.id), steps, "S25: {:?}", known.last);
        }
        self.list(world, 3);
        world.verify();
    }
}
