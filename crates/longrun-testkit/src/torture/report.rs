//! What came of it: a matrix to read.

use std::collections::BTreeMap;
use std::fmt;

use super::fault::{Act, Fault, Point, Strike};
use super::life::Seen;

/// How an operation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
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
}

/// Something that must not be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The faults that led to it. None: it comes of itself.
    pub faults: Vec<Strike>,
    /// What it is.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let faults: Vec<String> = self.faults.iter().map(Strike::to_string).collect();
        match faults.is_empty() {
            true => f.write_str("without a fault")?,
            false => f.write_str(&faults.join(", "))?,
        }
        write!(f, ": {}", self.what)
    }
}

/// What the faults at one place came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Row {
    /// The name of the step.
    pub step: String,
    /// How many trials ended in each way, by the fault: done, undone, with violations.
    pub ends: BTreeMap<Fault, [usize; 3]>,
}

/// What a kind came to.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Report {
    kind: &'static str,
    trials: usize,
    names: BTreeMap<u16, String>,
    rows: BTreeMap<Point, Row>,
    violations: Vec<Violation>,
}

impl Report {
    pub(super) fn new(kind: &'static str) -> Self {
        Self { kind, trials: 0, names: BTreeMap::new(), rows: BTreeMap::new(), violations: Vec::new() }
    }

    pub(super) fn name_steps(&mut self, seen: &Seen) {
        let names = seen.iter().filter(|(point, _)| point.act == Act::Run);
        self.names = names.map(|(point, name)| (point.step.0, name.to_string())).collect();
    }

    pub(super) fn note_without_faults(&mut self, violations: Vec<String>) {
        self.violations.extend(violations.into_iter().map(|what| Violation { faults: Vec::new(), what }));
    }

    pub(super) fn note(&mut self, point: Point, fault: Fault, planned: &[Strike], outcome: Outcome) {
        self.trials += 1;
        let step = self.names.get(&point.step.0).cloned().unwrap_or_default();
        let row = self.rows.entry(point).or_insert_with(|| Row { step, ends: BTreeMap::new() });
        let place = match outcome.end {
            Some(End::Done) if outcome.violations.is_empty() => 0,
            Some(End::Undone) if outcome.violations.is_empty() => 1,
            _ => 2,
        };
        row.ends.entry(fault).or_default()[place] += 1;
        let faults = planned.to_vec();
        let violation = |what| Violation { faults: faults.clone(), what };
        self.violations.extend(outcome.violations.into_iter().map(violation));
    }

    /// How many times the operation was run with faults.
    pub const fn trials(&self) -> usize {
        self.trials
    }

    /// What must not be and was.
    pub fn violations(&self) -> &[Violation] {
        &self.violations
    }

    /// What the faults at each place came to.
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
        let label = |point: &Point, row: &Row| format!("{point} {}", row.step);
        let width = rows.iter().map(|(point, row)| label(point, row).chars().count()).max().unwrap_or(0);
        // Several trials for one place and fault: how many of them were undone, and how many done.
        let text = |ends: &[usize; 3]| match *ends {
            [0, 0, _] => "BAD".to_owned(),
            [_, _, bad] if bad > 0 => format!("{bad} BAD"),
            [_, 0, _] => "done".to_owned(),
            [0, _, _] => "undone".to_owned(),
            [done, undone, _] => format!("{undone}/{done}"),
        };
        write!(f, "{:width$}", "")?;
        Fault::ALL.iter().try_for_each(|fault| write!(f, " {:<7}", fault.name()))?;
        writeln!(f)?;
        for (point, row) in rows {
            write!(f, "{:width$}", label(point, row))?;
            for fault in Fault::ALL {
                write!(f, " {:<7}", row.ends.get(&fault).map_or_else(|| "-".to_owned(), text))?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}
