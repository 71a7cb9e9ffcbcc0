//! Makes a failing seed smaller: fewer operations, fewer steps, fewer crashes, and none of the trouble that it does not
//! need. What is left is usually short enough to read.

use super::campaign::{Mode, run_seed};
use super::coverage::Coverage;
use super::fast::{Kit, Setting};

/// What a seed has, at most.
pub(super) const OPERATIONS_MAX: u64 = 4;
pub(super) const STEPS_MAX: usize = 5;
pub(super) const CRASHES_MAX: u32 = 6;

/// Declares kinds of trouble, with the names that the command line takes.
macro_rules! troubles {
    ($($variant:ident = $name:literal: $text:literal,)*) => {
        /// A kind of trouble that a seed may be run without.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Trouble {
            $(#[doc = $text] $variant,)*
        }

        impl Trouble {
            /// Every one.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The name, as the command line takes it.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

troubles! {
    OtherNodes = "other-nodes": "Other nodes take the store over.",
    ClockJumps = "clock-jumps": "The wall clock jumps.",
    FullDisk = "full-disk": "The disk is full for a while.",
    FailedReads = "failed-reads": "Readings of the store fail.",
    FlippedBits = "flipped-bits": "Bits of what is stored are flipped.",
    FailedReopens = "failed-reopens": "The store cannot be reopened at once.",
    SlowCommits = "slow-commits": "Commits, and what is read, take longer than steps do.",
    RefusedCommits = "refused-commits": "Commits are refused, nothing applied.",
    UnknownCommits = "unknown-commits": "Commits have an unknown outcome.",
    LostAnswers = "lost-answers": "Answers are lost.",
    Deadlines = "deadlines": "Operations have deadlines.",
    Backlog = "backlog": "Operations are accepted and not started at once.",
    Cancels = "cancels": "Clients cancel.",
    Operators = "operators": "Operators step in.",
    Looks = "looks": "Clients look in between.",
    Checkpoints = "checkpoints": "Steps save checkpoints.",
    SlowSteps = "slow-steps": "Steps run into their timeout, hang, or return late.",
    StepPanics = "step-panics": "Steps panic.",
    StepFailures = "step-failures": "Steps fail.",
    SlowUndos = "slow-undos": "Undos run into their timeout.",
    UndoPanics = "undo-panics": "Undos panic.",
    UndoFailures = "undo-failures": "Undos fail.",
}

impl Trouble {
    /// The trouble of a name.
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|trouble| trouble.name() == name)
    }
}

/// What a seed is run with less of. The default is all that the seed has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reduction {
    /// Operations, at most.
    pub operations: Option<u32>,
    /// Steps of each, at most.
    pub steps: Option<u32>,
    /// Crashes, at most.
    pub crashes: Option<u32>,
    /// Kinds of trouble to leave out, as bits.
    without: u32,
}

impl Reduction {
    /// At most so many of each, and every kind of trouble.
    pub const fn of(operations: Option<u32>, steps: Option<u32>, crashes: Option<u32>) -> Self {
        Self { operations, steps, crashes, without: 0 }
    }

    /// Without this, too.
    #[must_use]
    pub const fn without(mut self, trouble: Trouble) -> Self {
        self.without |= 1 << trouble as u32;
        self
    }

    /// Whether this is left out.
    pub const fn lacks(&self, trouble: Trouble) -> bool {
        self.without & 1 << trouble as u32 != 0
    }

    /// The options of the command line that mean the same, each with a blank before it.
    pub fn options(&self) -> String {
        let count = |name: &str, most: Option<u32>| most.map(|most| format!(" --{name} {most}"));
        let counts = [
            count("operations", self.operations),
            count("steps", self.steps),
            count("crashes", self.crashes),
        ];
        let lacking: Vec<&str> = Trouble::ALL
            .iter()
            .filter(|trouble| self.lacks(**trouble))
            .map(|trouble| trouble.name())
            .collect();
        let lacking = (!lacking.is_empty()).then(|| format!(" --without {}", lacking.join(",")));
        counts.into_iter().chain([lacking]).flatten().collect()
    }

    /// The same with one thing less, the boldest first.
    fn smaller(self) -> impl Iterator<Item = Self> {
        let counts = |now: Option<u32>, least: u32, most: u64| {
            least..now.unwrap_or_else(|| u32::try_from(most).unwrap_or(u32::MAX))
        };
        let operations = counts(self.operations, 1, OPERATIONS_MAX)
            .map(move |most| Self { operations: Some(most), ..self });
        let steps =
            counts(self.steps, 1, STEPS_MAX as u64).map(move |most| Self { steps: Some(most), ..self });
        let crashes = counts(self.crashes, 0, u64::from(CRASHES_MAX))
            .map(move |most| Self { crashes: Some(most), ..self });
        let troubles = Trouble::ALL.iter().filter(move |trouble| !self.lacks(**trouble));
        operations.chain(steps).chain(crashes).chain(troubles.map(move |trouble| self.without(*trouble)))
    }
}

/// What was drawn, but no more than may be.
pub(super) fn at_most(most: Option<u32>, drawn: u64) -> u64 {
    most.map_or(drawn, |most| drawn.min(u64::from(most)))
}

/// Seeds that are tried with each thing less: without it chance goes another way, and the next seed may take the place.
const NEIGHBOURS: u64 = 200;

/// A seed that breaks a rule, and how little it needs for that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reproducer {
    /// The seed. It may be another than the one that was found.
    pub seed: u64,
    /// What it can do without.
    pub less: Reduction,
}

/// Looks for the smallest way to break `rule` from `seed` on, which breaks it.
pub fn shrink(mode: Mode, seed: u64, rule: &str, kit: &Kit, setting: Setting) -> Reproducer {
    let mut small = Reproducer { seed, less: setting.less };
    let breaks = |less: Reduction, seed: u64| {
        let setting = Setting { less, show: false, ..setting };
        let outcome = run_seed(mode, seed, kit, setting, &mut Coverage::default());
        outcome.violation.is_some_and(|violation| violation.rule == rule)
    };
    loop {
        let found = small.less.smaller().find_map(|less| {
            let seed =
                (0..NEIGHBOURS).map(|on| small.seed.wrapping_add(on)).find(|seed| breaks(less, *seed))?;
            Some(Reproducer { seed, less })
        });
        match found {
            Some(smaller) => small = smaller,
            None => return small,
        }
    }
}
