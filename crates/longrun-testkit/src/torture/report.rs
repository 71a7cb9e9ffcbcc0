//! What came of it: a matrix to read.

use std::collections::BTreeMap;
use std::fmt;

use longrun::{StepIndex, StepName};

use super::fault::{Fault, Point, Strike};
use super::life::Seen;

/// How an operation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// With a response.
    Done,
    /// With an error, and everything undone.
    Undone,
}

/// What one trial came to.
pub(super) struct Outcome {
    /// `None`: it did not end.
    pub(super) end: Option<End>,
    pub(super) violations: Vec<String>,
    /// What was planned and did not come to pass.
    pub(super) pending: Vec<Strike>,
    /// Where the operation came to.
    pub(super) seen: Seen,
}

/// Something that must not be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The faults that led to it, each with the name of its step. None: it comes of itself.
    pub faults: Vec<(Strike, String)>,
    /// What it is.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let faults = self.faults.iter().map(|(strike, step)| format!("{strike} ({step})"));
        let faults: Vec<String> = faults.collect();
        let faults = if faults.is_empty() { "without a fault".to_owned() } else { faults.join(", ") };
        write!(f, "{faults}: {}", self.what)
    }
}

/// How the trials of one fault at one place ended; of [pairs](super::torture_pairs) those whose first fault it is. Each trial counts once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ends {
    /// With a response, and no violation.
    pub done: usize,
    /// With an error, everything undone, and no violation.
    pub undone: usize,
    /// With a violation.
    pub bad: usize,
}

/// How the trials of all faults at one place ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Row {
    /// The name of the step.
    pub step: String,
    /// How they ended, by the fault.
    pub ends: BTreeMap<Fault, Ends>,
}

/// How all trials of a kind ended: a matrix, and its violations.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Report {
    kind: &'static str,
    trials: usize,
    trials_complete: usize,
    /// The steps.
    names: BTreeMap<StepIndex, StepName>,
    rows: BTreeMap<Point, Row>,
    violations: Vec<Violation>,
}

impl Report {
    pub(super) fn new(kind: &'static str) -> Self {
        Self {
            kind,
            trials: 0,
            trials_complete: 0,
            names: BTreeMap::new(),
            rows: BTreeMap::new(),
            violations: Vec::new(),
        }
    }

    pub(super) fn name_steps(&mut self, seen: &Seen) {
        self.names.extend(seen.iter().map(|(point, name)| (point.step, name.clone())));
    }

    pub(super) fn note_without_faults(&mut self, violations: Vec<String>) {
        let violation = |what| Violation { faults: Vec::new(), what };
        self.violations.extend(violations.into_iter().map(violation));
    }

    /// The name of a step.
    pub(super) fn name(&self, step: StepIndex) -> String {
        self.names.get(&step).map(StepName::to_string).unwrap_or_default()
    }

    /// Notes a trial of a fault. `complete`: all that was to strike in it did.
    pub(super) fn note(&mut self, strike: Strike, planned: &[Strike], complete: bool, outcome: &Outcome) {
        self.trials += 1;
        self.trials_complete += usize::from(complete);
        let Strike { point, fault } = strike;
        let step = self.name(point.step);
        let row = self.rows.entry(point).or_insert_with(|| Row { step, ends: BTreeMap::new() });
        let ends = row.ends.entry(fault).or_default();
        match outcome.end {
            Some(End::Done) if outcome.violations.is_empty() => ends.done += 1,
            Some(End::Undone) if outcome.violations.is_empty() => ends.undone += 1,
            _ => ends.bad += 1,
        }
        let named = |strike: &Strike| (*strike, self.name(strike.point.step));
        let faults: Vec<_> = planned.iter().map(named).collect();
        let violation = |what: &String| Violation { faults: faults.clone(), what: what.clone() };
        self.violations.extend(outcome.violations.iter().map(violation));
    }

    /// How many times the operation was run with faults. Not counted: those without faults, and those that look for places.
    pub const fn trials(&self) -> usize {
        self.trials
    }

    /// In how many of them all their faults struck. Of [pairs](super::torture_pairs) the first may keep the operation from the place
    /// of the second.
    pub const fn trials_complete(&self) -> usize {
        self.trials_complete
    }

    /// What must not be and was. The matrix counts trials, of which one may have several.
    pub fn violations(&self) -> &[Violation] {
        &self.violations
    }

    /// The matrix: how the trials ended, by place and fault.
    pub const fn rows(&self) -> &BTreeMap<Point, Row> {
        &self.rows
    }

    /// Panics with the whole report if there is a violation, and if nothing was tried: a kind without steps has nothing to torture.
    #[track_caller]
    pub fn assert_clean(&self) {
        assert!(self.violations.is_empty() && self.trials > 0, "{self}");
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, trials, rows, violations, .. } = self;
        writeln!(f, "{kind}: {trials} trials, {} violations", violations.len())?;
        if rows.is_empty() {
            writeln!(f, "\nit has no steps: there is nothing to torture")?;
        } else {
            self.matrix(f)?;
        }
        violations.iter().try_for_each(|violation| writeln!(f, "\n{violation}"))
    }
}

impl Report {
    fn matrix(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = &self.rows;
        writeln!(f)?;
        let label = |point: &Point, row: &Row| format!("{:<5} {} {}", point.act.name(), point.step, row.step);
        let width = rows.iter().map(|(point, row)| label(point, row).chars().count()).max().unwrap_or(0);
        // Of several trials for one place and fault: how many were undone, and how many done.
        let text = |ends: &Ends| match *ends {
            Ends { done: 0, undone: 0, .. } => "BAD".to_owned(),
            Ends { bad, .. } if bad > 0 => format!("{bad} BAD"),
            Ends { undone: 0, .. } => "done".to_owned(),
            Ends { done: 0, .. } => "undone".to_owned(),
            Ends { done, undone, .. } => format!("{undone}/{done}"),
        };
        write!(f, "{:width$}", "")?;
        Fault::ALL.iter().try_for_each(|fault| write!(f, " {:<7}", fault.name()))?;
        writeln!(f)?;
        for (point, row) in rows {
            write!(f, "{:width$}", label(point, row))?;
            for fault in Fault::ALL {
                write!(f, " {:<7}", row.ends.get(fault).map_or_else(|| "-".to_owned(), text))?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}
