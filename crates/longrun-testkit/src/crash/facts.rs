//! Facts: what the writer was told by the engine, one line each, written only after the engine had said it.
//!
//! The lines go to a file outside of the store, each with a single `write`. What was written when the process died is
//! in the kernel, so it counts: whatever a line says must still hold after any crash.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::Path;

use anyhow::{Context, bail};
use longrun::{Operation, OperationId, Phase};

/// Something the engine has acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fact {
    /// The engine is up.
    Ready,
    /// A submit returned. The key is `?` where it is not known.
    Accepted { id: OperationId, key: String },
    /// A reader was shown this much.
    Seen { id: OperationId, revision: u64, phase: Phase },
    /// A cancel returned, and the operation will not succeed.
    Cancelled { id: OperationId },
    /// Somebody who waited was told the outcome: `ok`, or `error` and its code.
    Done { id: OperationId, outcome: String },
    /// A submit was refused. Promises nothing.
    Refused { code: String },
}

/// The outcome of an operation in a word or two; `None` while it is not done.
pub(crate) fn outcome(operation: &Operation) -> Option<String> {
    if !operation.done() {
        return None;
    }
    Some(match operation.error() {
        None => "ok".to_owned(),
        Some(error) => format!("error {}", error.code()),
    })
}

const fn phase_name(phase: Phase) -> &'static str {
    match phase {
        Phase::Pending => "pending",
        Phase::RollingBack => "rolling-back",
        Phase::Done => "done",
    }
}

impl fmt::Display for Fact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ready => f.write_str("ready"),
            Self::Accepted { id, key } => write!(f, "accepted {id} {key}"),
            Self::Seen { id, revision, phase } => write!(f, "seen {id} {revision} {}", phase_name(*phase)),
            Self::Cancelled { id } => write!(f, "cancelled {id}"),
            Self::Done { id, outcome } => write!(f, "done {id} {outcome}"),
            Self::Refused { code } => write!(f, "refused {code}"),
        }
    }
}

impl Fact {
    fn parse(line: &str) -> anyhow::Result<Self> {
        let words: Vec<_> = line.splitn(3, ' ').collect();
        let id = |text: &str| OperationId::parse(text).map_err(anyhow::Error::from);
        Ok(match words[..] {
            ["ready"] => Self::Ready,
            ["accepted", of, key] => Self::Accepted { id: id(of)?, key: key.to_owned() },
            ["seen", of, rest] => {
                let (revision, phase) = rest.split_once(' ').context("no phase")?;
                let phases = [Phase::Pending, Phase::RollingBack, Phase::Done];
                let phase = phases.into_iter().find(|known| phase_name(*known) == phase);
                Self::Seen { id: id(of)?, revision: revision.parse()?, phase: phase.context("no phase")? }
            }
            ["cancelled", of] => Self::Cancelled { id: id(of)? },
            ["done", of, outcome] => Self::Done { id: id(of)?, outcome: outcome.to_owned() },
            ["refused", ..] => Self::Refused { code: words[1..].join(" ") },
            _ => bail!("not a fact: {line}"),
        })
    }
}

/// Writes facts to a descriptor, each with one `write` and no buffer.
#[derive(Debug)]
pub(crate) struct Teller(File);

impl Teller {
    /// To the standard output.
    pub(crate) fn stdout() -> io::Result<Self> {
        Ok(Self(File::from(io::stdout().as_fd().try_clone_to_owned()?)))
    }

    /// To the end of a file.
    pub(crate) fn file(path: &Path) -> io::Result<Self> {
        Ok(Self(File::options().create(true).append(true).open(path)?))
    }

    /// For the standard output of a child.
    pub(crate) fn into_file(self) -> File {
        self.0
    }

    /// Tells. A fact that cannot be written is no fact, so there is nothing to do about an error.
    pub(crate) fn tell(&self, fact: &Fact) {
        let line = format!("{fact}\n");
        _ = (&self.0).write_all(line.as_bytes());
    }
}

/// Everything that was told about one store.
#[derive(Clone, Debug, Default)]
pub(crate) struct Facts {
    pub(crate) ready: u64,
    pub(crate) refused: BTreeMap<String, u64>,
    pub(crate) accepted: BTreeMap<OperationId, String>,
    pub(crate) seen: BTreeMap<OperationId, (u64, Phase)>,
    pub(crate) cancelled: BTreeSet<OperationId>,
    pub(crate) done: BTreeMap<OperationId, String>,
    /// Facts that contradict each other.
    pub(crate) contradictions: Vec<String>,
}

impl Facts {
    /// Reads a file of facts. A last line without an end was being written when the process died.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        let text = match std::fs::read_to_string(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            other => other.with_context(|| format!("cannot read {}", path.display()))?,
        };
        let mut facts = Self::default();
        for line in text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')) {
            facts.add_line(line)?;
        }
        Ok(facts)
    }

    /// Adds what one line tells.
    pub(crate) fn add_line(&mut self, line: &str) -> anyhow::Result<()> {
        self.add(Fact::parse(line)?);
        Ok(())
    }

    fn add(&mut self, fact: Fact) {
        match fact {
            Fact::Ready => self.ready += 1,
            Fact::Refused { code } => *self.refused.entry(code).or_default() += 1,
            Fact::Accepted { id, key } => _ = self.accepted.insert(id, key),
            Fact::Cancelled { id } => _ = self.cancelled.insert(id),
            Fact::Seen { id, revision, phase } => {
                let seen = self.seen.entry(id).or_insert((revision, phase));
                *seen = (seen.0.max(revision), seen.1.max(phase));
            }
            Fact::Done { id, outcome } => {
                let before = self.done.insert(id, outcome.clone());
                if let Some(before) = before.filter(|before| *before != outcome) {
                    self.contradictions.push(format!("S3: {id} was done {before}, then done {outcome}"));
                }
            }
        }
    }

    /// How many facts bind the store.
    pub(crate) fn acknowledged(&self) -> u64 {
        (self.accepted.len() + self.cancelled.len() + self.done.len()) as u64
    }
}
