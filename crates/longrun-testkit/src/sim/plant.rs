//! Planted faults: known mistakes of an engine or a store, to see that the oracle catches them.
//!
//! They live in the simulated driver, the simulated store and the simulated world only, clocks and chance among it. A simulation
//! that does not find what was put there on purpose would not find what was put there by accident.

use std::fmt;

use super::campaign::Mode;

/// A mistake that is made on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Plant {
    /// S9: a new operation is acknowledged before it is durable.
    S9,
    /// S10: a cancel is kept in memory only, until something else is stored.
    S10,
    /// S11: readers are shown a turn before it is durable.
    S11,
    /// S15: what is damaged is read as if nothing were, as its checksum fits.
    S15,
    /// S17: after a restart a step that is done runs again, with another output.
    S17,
    /// S18: what follows from a turn begins before the turn is durable.
    S18,
    /// S19: the start of a step is not stored.
    S19,
    /// S20: only steps that are done are undone, not those that may have run.
    S20,
    /// S21: steps are undone in the order in which they ran.
    S21,
    /// S22: the decision to roll back becomes durable only with the record of the first undo.
    S22,
    /// S23: a step whose start was stored together with the decision to roll back is begun nevertheless.
    S23,
    /// S25: the undos of an operation that another node took change nothing outside, and say that they did.
    S25,
    /// S29: the result of a run that was given up counts for the run after it.
    S29,
    /// S30: the store takes commits without a look at their fences.
    S30,
    /// S31: the outside world does not look at the fencing tokens of those that have lost the store.
    S31,
    /// S33: a commit of unknown outcome is taken for applied, without reading back.
    S33,
    /// S35: a client asks again under another key, as if keys were forgotten.
    S35,
    /// S44: an undo that has failed is tried again at once.
    S44,
    /// L1: no lease ever runs out, as the clock of the store stands still.
    L1,
    /// L9: a seed is not all that chance comes from. Only who runs it twice can see that.
    L9,
    /// C7: resource rows are written in a second commit.
    C7,
    /// A task of the engine panics, which the engine survives: it begins another.
    Panic,
}

impl Plant {
    /// Every one.
    pub const ALL: &'static [Self] = &[
        Self::S9,
        Self::S10,
        Self::S11,
        Self::S15,
        Self::S17,
        Self::S18,
        Self::S19,
        Self::S20,
        Self::S21,
        Self::S22,
        Self::S23,
        Self::S25,
        Self::S29,
        Self::S30,
        Self::S31,
        Self::S33,
        Self::S35,
        Self::S44,
        Self::L1,
        Self::L9,
        Self::C7,
        Self::Panic,
    ];

    /// Whether the simulation can make it. The full one runs the real engine, so its store and its world may lie, nobody else.
    pub const fn is_for(self, mode: Mode) -> bool {
        match mode {
            Mode::Fast => !matches!(
                self,
                Self::S15 | Self::S25 | Self::S30 | Self::S31 | Self::S35 | Self::L1 | Self::Panic
            ),
            Mode::Full => matches!(self, Self::S15 | Self::S22 | Self::S31 | Self::Panic),
            Mode::Cluster => {
                matches!(self, Self::S25 | Self::S30 | Self::S31 | Self::S35 | Self::L1 | Self::Panic)
            }
        }
    }

    /// The name, as the command line takes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::S9 => "S9",
            Self::S10 => "S10",
            Self::S11 => "S11",
            Self::S15 => "S15",
            Self::S17 => "S17",
            Self::S18 => "S18",
            Self::S19 => "S19",
            Self::S20 => "S20",
            Self::S21 => "S21",
            Self::S22 => "S22",
            Self::S23 => "S23",
            Self::S25 => "S25",
            Self::S29 => "S29",
            Self::S30 => "S30",
            Self::S31 => "S31",
            Self::S33 => "S33",
            Self::S35 => "S35",
            Self::S44 => "S44",
            Self::L1 => "L1",
            Self::L9 => "L9",
            Self::C7 => "C7",
            Self::Panic => "panic",
        }
    }

    /// The plant of a name.
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|plant| plant.name().eq_ignore_ascii_case(name))
    }
}

impl fmt::Display for Plant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
