//! What can happen next, and what comes of it.

use longrun_core::{Applied, Attempt, Code, Command, Operation, Status, StepIndex, StepReport};

use super::real::{Disk, Real, caller, json};
use super::{Act, Asked, Cancel, Commit, Driver, Ended, Failed, Mistake, Process, State};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Move {
    Submits,
    Cancels(usize),
    /// The effect of a run is there from now on, or that of an undo is gone.
    Acts(Act),
    Ends(Act, Result<(), Failed>),
    /// The driver decides what has happened: ends before messages, or the other way round.
    Decides {
        messages_first: bool,
    },
    /// The scheduler takes the operation up.
    TakesUp,
    /// The commit under way is stored.
    Stores,
    /// It is told that it is.
    Confirms,
    /// It is told that nothing was stored.
    Refuses,
    /// It is told that the outcome is unknown. The store is read.
    Doubts,
    Waits,
    Crashes,
    Restarts,
}

fn index(step: usize) -> StepIndex {
    StepIndex(u16::try_from(step).unwrap())
}

fn error(message: &str) -> Status {
    Status::new(Code::Unavailable, message)
}

fn command_of(ended: &Ended) -> Command {
    let (step, number) = (index(ended.act.step), ended.act.number);
    if ended.act.undo {
        let result = ended.result.map_err(|_| error("not yet"));
        return Command::UndoReport { step, failures: number, result };
    }
    let failed = |applied| StepReport::Failed { error: error("for good"), applied, retryable: false };
    let report = match ended.result {
        Ok(()) => StepReport::Done(json("made")),
        Err(Failed::MayHaveRun) => failed(Applied::Unknown),
        Err(Failed::NotApplied | Failed::NeverBegan) => failed(Applied::No),
    };
    Command::Report { step, attempt: Attempt(number), report }
}

fn cancel() -> Command {
    Command::Cancel { by: caller() }
}

/// What a client is told.
fn told(operation: &Operation) -> Asked {
    match (operation.response(), operation.error()) {
        (Some(_), _) => Asked::TooLate,
        (None, Some(_)) => Asked::Cancelled,
        (None, None) => Asked::GoesOn,
    }
}

impl Driver {
    fn new(live: Real, adopted: bool) -> Self {
        Self { live, adopted, acts: vec![], ended: vec![], inbox: vec![], commit: None, cancelled: false }
    }

    fn decides(&self) -> bool {
        self.commit.is_none() && (!self.adopted || !self.ended.is_empty() || !self.inbox.is_empty())
    }
}

impl Cancel {
    pub fn all_moves(&self, state: &State, moves: &mut Vec<Move>) {
        let up = !matches!(state.process, Process::Down | Process::Holds);
        let there = state.disk.is_some() || state.process == Process::Rests;
        if up && there && matches!(state.submit, Asked::NotYet | Asked::Lost) {
            moves.push(Move::Submits);
        }
        let reachable = matches!(state.process, Process::Rests | Process::Drives(_));
        if reachable && state.submit == Asked::GoesOn && state.disk.is_some() {
            let asks = |asked: &Asked| matches!(asked, Asked::NotYet | Asked::Lost);
            let clients = state.cancels.iter().enumerate().filter(|(_, asked)| asks(asked));
            moves.extend(clients.map(|(client, _)| Move::Cancels(client)));
        }
        match &state.process {
            Process::Down => moves.push(Move::Restarts),
            Process::Rests => {
                if state.disk.as_ref().is_some_and(|disk| !disk.is_done()) {
                    moves.push(Move::TakesUp);
                }
            }
            Process::Accepts(commit) | Process::Commands(commit) => self.moves_of(state, commit, moves),
            Process::Drives(driver) => self.moves_of_driver(state, driver, moves),
            Process::Holds => {}
        }
        if up && state.met.crashes < self.crashes {
            moves.push(Move::Crashes);
        }
    }

    fn moves_of(&self, state: &State, commit: &Commit, moves: &mut Vec<Move>) {
        moves.push(if commit.stored { Move::Confirms } else { Move::Stores });
        let met = &state.met;
        if met.refused + met.unknown_taken + met.unknown_lost < self.faults {
            moves.push(Move::Doubts);
            if !commit.stored {
                moves.push(Move::Refuses);
            }
        }
    }

    fn moves_of_driver(&self, state: &State, driver: &Driver, moves: &mut Vec<Move>) {
        if driver.decides() {
            moves.push(Move::Decides { messages_first: false });
            if !driver.ended.is_empty() && !driver.inbox.is_empty() {
                moves.push(Move::Decides { messages_first: true });
            }
        }
        if let Some(commit) = &driver.commit {
            self.moves_of(state, commit, moves);
        }
        for &act in &driver.acts {
            if act.acted {
                moves.push(Move::Ends(act, Ok(())));
            } else {
                moves.push(Move::Acts(act));
            }
            let may_fail = if act.undo {
                state.met.undo_failures < self.undo_failures
            } else {
                state.met.step_failures < self.step_failures
            };
            // Past the point of no return a run is made until it is done, with waits that are not of interest here.
            if may_fail && (act.undo || self.no_return.is_none_or(|step| act.step < step)) {
                moves.push(Move::Ends(act, Err(Failed::MayHaveRun)));
                if !act.undo && !act.acted {
                    moves.push(Move::Ends(act, Err(Failed::NotApplied)));
                }
            }
        }
        let idle = driver.acts.is_empty() && driver.commit.is_none() && !driver.decides();
        if idle && driver.live.execution().next(state.now).wake_at.is_some() {
            moves.push(Move::Waits);
        }
    }

    pub fn make(&self, state: &mut State, action: Move) {
        match action {
            Move::Submits => self.submit(state),
            Move::Cancels(client) => self.cancel(state, client),
            Move::Acts(act) => {
                state.world[act.step] = !act.undo;
                let acts = &mut state.driver().acts;
                acts.iter_mut().filter(|other| **other == act).for_each(|act| act.acted = true);
            }
            Move::Ends(act, result) => {
                if result.is_err() {
                    let met = &mut state.met;
                    *(if act.undo { &mut met.undo_failures } else { &mut met.step_failures }) += 1;
                }
                let driver = state.driver();
                driver.acts.retain(|other| *other != act);
                driver.ended.push(Ended { act, result });
            }
            Move::Decides { messages_first } => self.decide(state, messages_first),
            Move::TakesUp => {
                let live = state.disk.as_ref().unwrap().read().clone();
                state.process = Process::Drives(Box::new(Driver::new(live, false)));
            }
            Move::Stores => {
                let commit = state.commit().clone();
                // The store compares what it has with what the turn was made for.
                let next = state.disk.as_ref().map_or(1, |disk| disk.revision().0 + 1);
                let fits = |_: &Disk| commit.live.execution().revision().0 == next;
                match commit.disk.filter(fits) {
                    Some(disk) => {
                        state.ended_twice |= state.disk.as_ref().is_some_and(Disk::is_done);
                        state.disk = Some(disk);
                        state.commit().stored = true;
                    }
                    None => state.process = Process::Holds,
                }
            }
            Move::Confirms => self.confirmed(state),
            Move::Refuses => {
                state.met.refused += 1;
                self.failed(state);
            }
            Move::Doubts => self.doubted(state),
            Move::Waits => {
                let now = state.now;
                let driver = state.driver();
                let at = driver.live.execution().next(now).wake_at.unwrap();
                state.now = at.max(now);
                self.decide(state, false);
            }
            Move::Crashes => {
                state.met.crashes += 1;
                let stored = match &state.process {
                    Process::Accepts(commit) | Process::Commands(commit) => commit.stored,
                    Process::Drives(driver) => driver.commit.as_ref().is_some_and(|commit| commit.stored),
                    _ => false,
                };
                state.met.crashes_after_commit += u8::from(stored);
                state.process = Process::Down;
                let everybody = state.cancels.iter_mut().chain([&mut state.submit]);
                everybody.filter(|asked| **asked == Asked::Waits).for_each(|asked| *asked = Asked::Lost);
            }
            Move::Restarts => state.process = Process::Rests,
        }
    }

    fn submit(&self, state: &mut State) {
        if state.disk.is_some() {
            // Its key is known.
            state.submit = Asked::GoesOn;
            return;
        }
        let (live, turn) = Real::accept(self.no_return);
        state.submit = Asked::Waits;
        let disk = Disk::after(None, &live, &turn);
        let commit = Commit { disk, live, stored: false, clients: vec![], ended: vec![], adopts: false };
        state.process = Process::Accepts(Box::new(commit));
    }

    fn cancel(&self, state: &mut State, client: usize) {
        state.cancels[client] = Asked::Waits;
        if let Process::Drives(driver) = &mut state.process {
            driver.inbox.push(client);
            return;
        }
        let disk = state.disk.as_ref().unwrap();
        match disk.read().turn(&[cancel()], true, state.now) {
            None => state.cancels[client] = told(&disk.read().operation()),
            Some((live, turn)) => {
                let disk = Disk::after(Some(disk), &live, &turn);
                let commit =
                    Commit { disk, live, stored: false, clients: vec![client], ended: vec![], adopts: false };
                state.process = Process::Commands(Box::new(commit));
            }
        }
    }

    /// One turn of the driver: all that has happened, one commit.
    fn decide(&self, state: &mut State, messages_first: bool) {
        let now = state.now;
        let driver = state.driver();
        let adopts = !driver.adopted;
        let (ended, mut clients) = (std::mem::take(&mut driver.ended), std::mem::take(&mut driver.inbox));
        let mut commands: Vec<Command> = ended.iter().map(command_of).collect();
        if adopts {
            commands = vec![Command::Adopt];
        }
        if self.mistake == Mistake::CancelInMemory {
            driver.cancelled |= !clients.is_empty();
            let told: Vec<usize> = std::mem::take(&mut clients);
            if driver.cancelled && !ended.is_empty() {
                commands.insert(0, cancel());
            }
            told.into_iter().for_each(|client| state.cancels[client] = Asked::Cancelled);
        } else {
            let asked = clients.iter().map(|_| cancel());
            let place = if messages_first { 0 } else { commands.len() };
            commands.splice(place..place, asked);
        }
        if commands.is_empty() {
            commands.push(Command::Resume);
        }
        let driver = state.driver();
        match driver.live.turn(&commands, false, now) {
            None => {
                driver.adopted = true;
                let answer = told(&driver.live.operation());
                clients.into_iter().for_each(|client| state.cancels[client] = answer);
                self.begin(state);
            }
            Some((live, turn)) => {
                let disk = Disk::after(state.disk.as_ref(), &live, &turn);
                if self.mistake == Mistake::AnswersBeforeDurable {
                    let answer = told(&live.operation());
                    clients.drain(..).for_each(|client| state.cancels[client] = answer);
                }
                let commit = Commit { disk, live: live.clone(), stored: false, clients, ended, adopts };
                let driver = state.driver();
                driver.commit = Some(Box::new(commit));
                if self.mistake == Mistake::ActsBeforeDurable {
                    driver.live = live;
                    self.begin(state);
                }
            }
        }
    }

    /// Begins what is on record as started, and not on.
    fn begin(&self, state: &mut State) {
        let now = state.now;
        let cancelled = state.is_cancelled_for_a_client();
        let driver = state.driver();
        let next = driver.live.execution().next(now);
        let mut began = false;
        for step in next.run {
            let number = driver.live.execution().attempt(step).0;
            let act = Act { step: usize::from(step.0), undo: false, number, acted: false };
            if driver.knows(act) {
                continue;
            }
            if next.stop {
                driver.ended.push(Ended { act, result: Err(Failed::NeverBegan) });
            } else {
                driver.acts.push(act);
                began = true;
            }
        }
        for step in next.undo {
            let number = driver.live.execution().undo_failures(step);
            let act = Act { step: usize::from(step.0), undo: true, number, acted: false };
            if !driver.knows(act) {
                driver.acts.push(act);
            }
        }
        state.began_after_cancel |= began && cancelled;
        if state.driver().commit.is_none() && state.driver().live.execution().is_done() {
            state.leave();
        }
    }

    fn confirmed(&self, state: &mut State) {
        let commit = state.take_commit();
        let answer = told(&commit.live.operation());
        commit.clients.iter().for_each(|client| state.cancels[*client] = answer);
        match &mut state.process {
            Process::Accepts(_) => {
                state.submit = Asked::GoesOn;
                state.process = Process::Drives(Box::new(Driver::new(commit.live, true)));
                self.begin(state);
            }
            Process::Drives(driver) => {
                driver.live = commit.live;
                driver.adopted = true;
                self.begin(state);
            }
            _ => state.process = Process::Rests,
        }
    }

    /// Nothing was stored: those who asked are told, what happened is decided anew.
    fn failed(&self, state: &mut State) {
        let commit = state.take_commit();
        commit.clients.iter().for_each(|client| state.cancels[*client] = Asked::Lost);
        match &mut state.process {
            Process::Accepts(_) => {
                state.submit = Asked::Lost;
                state.process = Process::Rests;
            }
            Process::Drives(driver) => {
                let newer = std::mem::replace(&mut driver.ended, commit.ended);
                driver.ended.extend(newer);
                if driver.ended.is_empty() && driver.adopted && driver.acts.is_empty() {
                    // It looks at what there is to do, as it does after each turn.
                    self.decide(state, false);
                }
            }
            _ => state.process = Process::Rests,
        }
    }

    fn doubted(&self, state: &mut State) {
        let stored = state.commit().stored;
        *(if stored { &mut state.met.unknown_taken } else { &mut state.met.unknown_lost }) += 1;
        match self.mistake {
            Mistake::UnknownIsTaken => return self.confirmed(state),
            Mistake::UnknownIsRepeated => return self.failed(state),
            _ => {}
        }
        if !stored {
            return self.failed(state);
        }
        // The store is read, and it turns out that it happened. A driver has told those who asked that it does not know.
        if let Process::Drives(_) = &state.process {
            let mut clients = std::mem::take(&mut state.commit().clients);
            clients.drain(..).for_each(|client| state.cancels[client] = Asked::Lost);
        }
        let read = state.disk.as_ref().unwrap().read().clone();
        state.commit().live = read;
        self.confirmed(state);
    }
}

impl Driver {
    /// Whether it is on, or has ended and that is not decided yet.
    fn knows(&self, act: Act) -> bool {
        let same = |other: &Act| Act { acted: false, ..*other } == Act { acted: false, ..act };
        self.acts.iter().any(same) || self.ended.iter().any(|ended| same(&ended.act))
    }
}

impl State {
    fn driver(&mut self) -> &mut Driver {
        let Process::Drives(driver) = &mut self.process else { panic!("nothing drives") };
        driver
    }

    fn commit(&mut self) -> &mut Commit {
        match &mut self.process {
            Process::Accepts(commit) | Process::Commands(commit) => commit,
            Process::Drives(driver) => driver.commit.as_mut().unwrap(),
            _ => panic!("no commit is under way"),
        }
    }

    fn take_commit(&mut self) -> Commit {
        let commit = self.commit().clone();
        if let Process::Drives(driver) = &mut self.process {
            driver.commit = None;
        }
        commit
    }

    /// The operation is done. What came too late is answered by what is stored.
    fn leave(&mut self) {
        let answer = told(&self.driver().live.operation());
        let clients = std::mem::take(&mut self.driver().inbox);
        clients.into_iter().for_each(|client| self.cancels[client] = answer);
        self.process = Process::Rests;
    }
}
