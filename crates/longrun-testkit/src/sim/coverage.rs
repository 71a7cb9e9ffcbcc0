//! What a campaign has met: faults that fired, crash points, and situations that a good generator builds.
//!
//! A green run proves nothing about a case that it never built. So everything dangerous has a name and a count.

use std::fmt::Write as _;

use super::campaign::Mode;

/// Declares a list of things that are counted.
macro_rules! counted {
    ($(#[$meta:meta])* $name:ident { $($variant:ident = $text:literal,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name {
            $(#[doc = $text] $variant,)*
        }

        impl $name {
            /// Every one.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// What it is, in words.
            pub const fn text(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }
    };
}

counted! {
    /// A kind of fault that is injected.
    Fault {
        Crash = "the process crashes",
        CrashKeepsCommit = "a crash keeps a commit that was not acknowledged",
        CrashLosesCommit = "a crash loses a commit that was not acknowledged",
        CommitRefused = "a commit is refused, nothing applied",
        CommitUnknownApplied = "a commit of unknown outcome was applied",
        CommitUnknownLost = "a commit of unknown outcome was not applied",
        CommitSlow = "a commit is held up, before it is made or afterwards",
        ReadSlow = "what was read is held up on its way",
        StoreStalls = "the store stands still until the process is stopped",
        DiskFull = "a commit is refused because the disk is full",
        ReopenRefused = "the store cannot be reopened at once",
        ReadFails = "a reading of the store fails",
        BitFlips = "a stored record is read with one bit the other way",
        ClockForward = "the wall clock jumps forward",
        ClockBack = "the wall clock jumps back",
        StepFailsBefore = "a step fails before its effect",
        StepFailsAfter = "a step fails after its effect",
        StepFailsForGood = "a step fails with an error that is not retryable",
        StepPanics = "a step panics",
        StepTimesOut = "a step runs into its timeout",
        StepHangs = "a step does not return until it is stopped",
        LateResult = "a result comes after its step was given up",
        UndoFails = "an undo fails before it reversed anything",
        UndoFailsAfter = "an undo fails after it reversed the effect",
        UndoTimesOut = "an undo runs into its timeout",
        UndoPanics = "an undo panics",
        Cancel = "a client cancels",
        Deadline = "a deadline passes",
        Operator = "an operator steps in",
        AnswerLost = "an answer is lost and the client asks again",
        TakeOver = "another node takes the store over",
        ShutDown = "a node of several shuts down gently",
        StandStill = "a node of several stands still for a while",
        CutOff = "a node is cut off from the store that it shares",
        Mute = "a node reaches the store that it shares, and is not answered",
        StoreAnswerLost = "an answer of the shared store is lost",
        LineSlow = "the line to the shared store is slow",
        ClockOff = "the clock of a node is off",
        PaceOff = "the clock of the shared store goes at another pace",
        StepLong = "a step or an undo outlasts a lease",
    }
}

impl Fault {
    /// Faults that only the simulation of a cluster knows.
    const CLUSTER_ONLY: &'static [Self] = &[
        Self::ShutDown,
        Self::StandStill,
        Self::CutOff,
        Self::Mute,
        Self::StoreAnswerLost,
        Self::LineSlow,
        Self::ClockOff,
        Self::PaceOff,
        Self::StepLong,
    ];
    /// Faults that it knows, and others do too.
    const OF_CLUSTERS: &'static [Self] = &[
        Self::Crash,
        Self::StepFailsAfter,
        Self::StepFailsForGood,
        Self::UndoFails,
        Self::Cancel,
        Self::AnswerLost,
    ];
    /// Faults that only the full simulation knows.
    const FULL_ONLY: &'static [Self] = &[
        Self::ReopenRefused,
        Self::ReadFails,
        Self::ReadSlow,
        Self::StoreStalls,
        Self::BitFlips,
        Self::AnswerLost,
        Self::UndoPanics,
        Self::TakeOver,
    ];
    /// Faults that only the fast simulation knows.
    const FAST_ONLY: &'static [Self] = &[Self::LateResult, Self::Operator];
}

counted! {
    /// A place where a crash may happen.
    CrashPoint {
        BeforeCommit = "before a commit is durable",
        AfterCommit = "after a commit is durable, before it is acknowledged",
        AfterAcknowledgement = "after the acknowledgement, before anything follows from it",
        BeforeEffect = "after a run began, before its effect",
        AfterEffect = "after an effect, before its report",
        BeforeUndo = "after an undo began, before it reverses",
        AfterUndo = "after an undo reversed, before its report",
        BeforeReport = "when a run or an undo returns",
        Recovery = "when what is unfinished is taken up",
        Settling = "while a failed commit is settled",
        Stalled = "while the store stands still",
        Idle = "between two events",
    }
}

counted! {
    /// A situation that has to be met sometimes.
    Situation {
        CrashStartedNotApplied = "crash between start record and effect",
        CrashEffectNotReported = "crash between effect and report",
        CrashDuringFirstUndo = "crash during the first undo",
        CrashDuringSecondUndo = "crash during a second or later undo",
        CrashDuringRecovery = "crash during the recovery from a crash",
        CrashTwoRunning = "crash while two or more steps run",
        CrashBeforeAcceptDurable = "crash before an accepted operation is durable",
        CrashBeforeAcceptAnswered = "crash after an accept is durable, before its answer",
        CrashHoldingDecision = "crash with the decision to roll back in a commit under way",
        CrashHoldingEnd = "crash with the end of an operation in a commit under way",
        CrashAfterDecision = "crash after the decision to roll back, before the first undo",
        RestartWaitingAgain = "restart while a step waits to be run again",
        RestartUndoWaiting = "restart while an undo waits to be tried again",
        RestartRollingBack = "restart while rolling back",
        RestartPastNoReturn = "restart past the point of no return",
        RestartAfterDeadline = "restart after the deadline has passed",
        UnknownApplied = "unknown commit which was applied",
        UnknownNotApplied = "unknown commit which was not applied",
        UnknownDecision = "unknown commit with the decision to roll back",
        UnknownAccept = "unknown commit of a new operation",
        EndedWhileCommitting = "a run ends while a commit is under way",
        CancelWithLastOutcome = "cancel in the same turn as the last outcome",
        CancelWins = "cancel decides the operation",
        CancelTooLate = "cancel of an operation that is done",
        CancelPastNoReturn = "cancel past the point of no return",
        CancelRollingBack = "cancel of an operation that rolls back",
        CancelAtRest = "cancel of an operation that nothing runs",
        StartAndDecision = "start of a step and decision to roll back in one commit",
        DecisionAndEnd = "decision to roll back and end in one commit",
        DoneAfterDecision = "a run is done although the rollback is decided",
        RollbackWaitsForRun = "rollback decided while a run is on",
        DeadlineWhileRunning = "deadline passes while a step runs",
        FailsPastNoReturn = "a run fails past the point of no return",
        Blocked = "an operation shows as blocked",
        TakenOver = "an operator takes an undo over",
        Abandoned = "an operator abandons a rollback",
        RetryNow = "an operator has waits cut short",
        LateResultRefused = "a late result is refused",
        UndoOfDone = "undo of a step that is done",
        UndoOfUnknown = "undo of a step that may have run",
        TwoUndosAtOnce = "two undos at the same time",
        CheckpointReturned = "a checkpoint is handed to a later run",
        ClockBackWhileWaiting = "the clock goes back while an operation waits",
        ResourceBusy = "an operation is refused because its resource is held",
        ResourceAgain = "an operation takes a resource that another let go",
        RunAgainAfterUnknown = "a step whose outcome was unknown runs again and is done",
        DoneAfterCrash = "done with a response after a crash",
        UndoneAfterCrashes = "rolled back after two or more crashes",
        KeyRepeated = "a repeat under an idempotency key finds its operation",
        KeyRepeatedAfterCrash = "a repeat under an idempotency key after a crash",
        WaitSeesEnd = "a waiter is told of the end",
        ListDuringChange = "a list is read page by page while operations change",
        SubmitRefusedFull = "a submit is refused because the disk is full",
        FullWhileRunning = "the disk fills while a step runs",
        DoneBesideDamage = "an operation is done while the record of another is damaged",
        FullWhileUndoing = "the disk fills while an undo is on",
        ShutDownWhileRunning = "a gentle shutdown while a step runs",
        ShutDownWhileUndoing = "a gentle shutdown while an undo is on",
        TakenOverWhileRunning = "another node takes over while a step runs",
        TakenOverWhileUndoing = "another node takes over while an undo is on",
        TakenOverAgain = "a third node takes over from the second",
        FormerOwnerRefused = "a former owner is asked, and says that it is one",
        LateEffectRefused = "a late effect of a former owner is refused by its token",
        LateEffectFirst = "a late effect of a former owner comes before the new owner's run",
        LateCommitRefused = "a late commit of a node that lost its operation is refused",
        TakenFromTheDead = "an operation is taken from a node whose lease has run out",
        StrayFreed = "an operation is freed that its node does not know to hold",
        LeaseLapsed = "a node comes back after its lease has run out",
        VisitorTold = "a node is told that another has changed its operation",
        DoneByAnother = "done with a response, by another node than began it",
        UndoneByAnother = "rolled back, by another node than began it",
        AnswerOfTheStoreLost = "the store does what a node asks, and its answer is lost",
        StoreOutOfReach = "a node does not reach the store",
    }
}

impl Situation {
    /// Situations that only the simulation of a cluster builds.
    const CLUSTER_ONLY: &'static [Self] = &[
        Self::LateCommitRefused,
        Self::TakenFromTheDead,
        Self::StrayFreed,
        Self::LeaseLapsed,
        Self::VisitorTold,
        Self::DoneByAnother,
        Self::UndoneByAnother,
        Self::AnswerOfTheStoreLost,
        Self::StoreOutOfReach,
    ];
    /// Situations that it builds, and others do too.
    const OF_CLUSTERS: &'static [Self] = &[
        Self::LateEffectRefused,
        Self::LateEffectFirst,
        Self::CheckpointReturned,
        Self::CancelWins,
        Self::WaitSeesEnd,
        Self::KeyRepeated,
    ];
    /// Situations that only the full simulation builds.
    const FULL_ONLY: &'static [Self] = &[
        Self::KeyRepeated,
        Self::KeyRepeatedAfterCrash,
        Self::WaitSeesEnd,
        Self::ListDuringChange,
        Self::SubmitRefusedFull,
        Self::FullWhileRunning,
        Self::FullWhileUndoing,
        Self::DoneBesideDamage,
        Self::ShutDownWhileRunning,
        Self::ShutDownWhileUndoing,
        Self::TakenOverWhileRunning,
        Self::TakenOverWhileUndoing,
        Self::TakenOverAgain,
        Self::FormerOwnerRefused,
        Self::LateEffectRefused,
        Self::LateEffectFirst,
    ];
    /// Situations that only the fast simulation names: it sees the turns of the core.
    const FAST_ONLY: &'static [Self] = &[
        Self::CrashBeforeAcceptDurable,
        Self::CrashBeforeAcceptAnswered,
        Self::CrashHoldingDecision,
        Self::CrashHoldingEnd,
        Self::CrashAfterDecision,
        Self::RestartAfterDeadline,
        Self::UnknownDecision,
        Self::EndedWhileCommitting,
        Self::CancelWithLastOutcome,
        Self::CancelRollingBack,
        Self::CancelAtRest,
        Self::StartAndDecision,
        Self::DecisionAndEnd,
        Self::DoneAfterDecision,
        Self::RollbackWaitsForRun,
        Self::DeadlineWhileRunning,
        Self::FailsPastNoReturn,
        Self::TakenOver,
        Self::Abandoned,
        Self::RetryNow,
        Self::LateResultRefused,
        Self::ClockBackWhileWaiting,
        Self::ResourceAgain,
        Self::RunAgainAfterUnknown,
    ];
    /// Situations of the full simulation that need several nodes.
    const OF_NODES: &'static [Self] = &[
        Self::TakenOverWhileRunning,
        Self::TakenOverWhileUndoing,
        Self::TakenOverAgain,
        Self::FormerOwnerRefused,
        Self::LateEffectRefused,
        Self::LateEffectFirst,
    ];
}

/// Counts of everything that was met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Coverage {
    faults: [u64; Fault::ALL.len()],
    points: [u64; CrashPoint::ALL.len()],
    visited: [u64; CrashPoint::ALL.len()],
    situations: [u64; Situation::ALL.len()],
    /// Seeds.
    pub seeds: u64,
    /// Events, or calls, that were simulated.
    pub events: u64,
    /// Commits that took effect.
    pub commits: u64,
    /// Operations that came to their end.
    pub operations: u64,
}

impl Default for Coverage {
    fn default() -> Self {
        Self {
            faults: [0; Fault::ALL.len()],
            points: [0; CrashPoint::ALL.len()],
            visited: [0; CrashPoint::ALL.len()],
            situations: [0; Situation::ALL.len()],
            seeds: 0,
            events: 0,
            commits: 0,
            operations: 0,
        }
    }
}

impl Coverage {
    /// A fault fired.
    pub const fn fault(&mut self, fault: Fault) {
        self.faults[fault as usize] += 1;
    }

    /// A place was passed where the process could crash: faults were on, and it had crashes left.
    pub const fn visit(&mut self, point: CrashPoint) {
        self.visited[point as usize] += 1;
    }

    /// A crash happened.
    pub const fn crash(&mut self, point: CrashPoint) {
        self.points[point as usize] += 1;
    }

    /// A situation was met.
    pub const fn met(&mut self, situation: Situation) {
        self.situations[situation as usize] += 1;
    }

    /// How often a fault fired.
    pub const fn fault_count(&self, fault: Fault) -> u64 {
        self.faults[fault as usize]
    }

    /// How often a situation was met.
    pub const fn met_count(&self, situation: Situation) -> u64 {
        self.situations[situation as usize]
    }

    /// Crashes in all.
    pub fn crashes(&self) -> u64 {
        self.points.iter().sum()
    }

    /// Places that were passed where the process could crash, whether it did or not.
    pub fn crash_points(&self) -> u64 {
        self.visited.iter().sum()
    }

    /// Adds what another has counted.
    pub fn merge(&mut self, other: &Self) {
        let add = |mine: &mut [u64], theirs: &[u64]| {
            for (mine, theirs) in mine.iter_mut().zip(theirs) {
                *mine += theirs;
            }
        };
        add(&mut self.faults, &other.faults);
        add(&mut self.points, &other.points);
        add(&mut self.visited, &other.visited);
        add(&mut self.situations, &other.situations);
        self.seeds += other.seeds;
        self.events += other.events;
        self.commits += other.commits;
        self.operations += other.operations;
    }

    /// Faults that never fired, of those that the mode knows.
    pub fn never_fired(&self, mode: Mode, nodes: u32) -> Vec<Fault> {
        let known = Fault::ALL.iter().filter(|fault| match mode {
            Mode::Full => !Fault::FAST_ONLY.contains(fault) && !Fault::CLUSTER_ONLY.contains(fault),
            Mode::Fast => !Fault::FULL_ONLY.contains(fault) && !Fault::CLUSTER_ONLY.contains(fault),
            Mode::Cluster => Fault::OF_CLUSTERS.contains(fault) || Fault::CLUSTER_ONLY.contains(fault),
        });
        let known = known.filter(|fault| nodes > 1 || **fault != Fault::TakeOver);
        known.filter(|fault| self.fault_count(**fault) == 0).copied().collect()
    }

    /// Places where no crash ever happened.
    pub fn never_crashed(&self, mode: Mode) -> Vec<CrashPoint> {
        let foreign: &[CrashPoint] = match mode {
            Mode::Fast => &[CrashPoint::Stalled, CrashPoint::Idle],
            Mode::Full => &[CrashPoint::AfterAcknowledgement, CrashPoint::Settling],
            // Crashes come when they come.
            Mode::Cluster => CrashPoint::ALL,
        };
        let known = CrashPoint::ALL.iter().filter(|one| !foreign.contains(one));
        known.filter(|one| self.points[**one as usize] == 0).copied().collect()
    }

    /// Situations that were met fewer than `often` times, of those that the mode knows.
    pub fn seldom_met(&self, mode: Mode, nodes: u32, often: u64) -> Vec<Situation> {
        let known = Situation::ALL.iter().filter(|one| match mode {
            Mode::Full => !Situation::FAST_ONLY.contains(one) && !Situation::CLUSTER_ONLY.contains(one),
            Mode::Fast => !Situation::FULL_ONLY.contains(one) && !Situation::CLUSTER_ONLY.contains(one),
            Mode::Cluster => Situation::CLUSTER_ONLY.contains(one) || Situation::OF_CLUSTERS.contains(one),
        });
        let known = known.filter(|one| nodes > 1 || !Situation::OF_NODES.contains(one));
        let known = known.filter(|one| nodes > 2 || **one != Situation::TakenOverAgain);
        known.filter(|one| self.met_count(**one) < often).copied().collect()
    }

    /// The counts as a table for people.
    pub fn table(&self) -> String {
        let mut text = String::new();
        let mut part = |title: &str, rows: &mut dyn Iterator<Item = (&'static str, u64)>| {
            _ = writeln!(text, "{title}");
            for (name, count) in rows {
                _ = writeln!(text, "  {count:>12}  {name}");
            }
        };
        part("faults that fired", &mut Fault::ALL.iter().map(|one| (one.text(), self.faults[*one as usize])));
        part(
            "crashes by place",
            &mut CrashPoint::ALL.iter().map(|one| (one.text(), self.points[*one as usize])),
        );
        part(
            "situations",
            &mut Situation::ALL.iter().map(|one| (one.text(), self.situations[*one as usize])),
        );
        text
    }
}
