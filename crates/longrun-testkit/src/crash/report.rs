//! What a test prints: its counts, its violations, and the line that says how it went.

use std::fmt;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use super::verify::Seen;

/// Rounds of which, at any seed, some meet each of what they are there for.
const ROUNDS_THAT_MEET_ALL: u64 = 50;
/// The exit code when nothing could be tried on this machine: it must not be taken for success.
pub(crate) const NOTHING_TRIED: u8 = 3;

/// The counts of one test.
#[derive(Debug)]
pub(crate) struct Report {
    name: &'static str,
    seed: u64,
    began: Instant,
    pub(crate) checked: u64,
    /// Rounds that acknowledged nothing.
    pub(crate) idle: u64,
    pub(crate) kills: u64,
    /// Kills or cuts before the engine was up, or while verification recovered.
    pub(crate) in_open: u64,
    pub(crate) acknowledged: u64,
    pub(crate) seen: Seen,
    pub(crate) violations: Vec<String>,
    pub(crate) skipped: Vec<String>,
}

impl Report {
    pub(crate) fn new(name: &'static str, seed: u64) -> Self {
        Self {
            name,
            seed,
            began: Instant::now(),
            checked: 0,
            idle: 0,
            kills: 0,
            in_open: 0,
            acknowledged: 0,
            seen: Seen::default(),
            violations: Vec::new(),
            skipped: Vec::new(),
        }
    }

    pub(crate) const fn name(&self) -> &'static str {
        self.name
    }

    /// A violation, with what is needed to look into it.
    pub(crate) fn violation(&mut self, what: impl fmt::Display, round: u64, kept: Option<&Path>) {
        let kept = kept.map(|path| format!("; kept: {}", path.display())).unwrap_or_default();
        let line = format!("VIOLATION {}: {what} (round {round}, seed {}{kept})", self.name, self.seed);
        say(&line);
        self.violations.push(line);
    }

    /// Something that this machine cannot do. Loud, since what was not done was not checked.
    pub(crate) fn skip(&mut self, what: &str, reason: impl fmt::Display) {
        let line = format!("SKIPPED {what}: {reason}");
        say(&line);
        self.skipped.push(line);
    }

    /// Of a test at random moments: so many rounds meet everything that it is there for.
    pub(crate) fn demand_all(&mut self) {
        if self.checked < ROUNDS_THAT_MEET_ALL || !self.violations.is_empty() {
            return;
        }
        let Seen { resumed, rolled_back, .. } = self.seen;
        let met = [
            ("hit during an open or a recovery", self.in_open),
            ("resumed", resumed),
            ("rolled back", rolled_back),
        ];
        for (what, _) in met.into_iter().filter(|(_, count)| *count == 0) {
            self.violation(format!("nothing was {what}, so that was not checked"), 0, None);
        }
    }

    /// Prints the counts and the last line.
    pub(crate) fn end(&self) -> ExitCode {
        let Seen { acknowledged, operations, unfinished, resumed, rolled_back, keys } = self.seen;
        say(&format!(
            "{}: {} rounds counted, {} idle, {} kills or cuts ({} during open or recovery), \
             {} facts acknowledged; looked at: {acknowledged} facts, {operations} operations; \
             {unfinished} found unfinished, {resumed} resumed to their end ({rolled_back} of them rolled back), \
             {keys} keys sent again; seed {}, {:.1} s",
            self.name,
            self.checked,
            self.idle,
            self.kills,
            self.in_open,
            self.acknowledged,
            self.seed,
            self.began.elapsed().as_secs_f64(),
        ));
        for line in &self.skipped {
            say(line);
        }
        // Who reads the last line alone must see it too.
        let but = match (self.checked, self.skipped.first()) {
            (0, None) => ": FAILED, nothing was checked".to_owned(),
            (0, Some(skipped)) => format!(": {}", skipped.replacen("SKIPPED ", "SKIPPED, ", 1)),
            (_, None) => String::new(),
            (_, Some(_)) => ", and not all was tried: SKIPPED".to_owned(),
        };
        say(&format!("{} checked, {} violations{but}", self.checked, self.violations.len()));
        match (self.checked, self.skipped.len(), self.violations.len()) {
            (0, 1.., 0) => ExitCode::from(NOTHING_TRIED),
            (1.., _, 0) => ExitCode::SUCCESS,
            _ => ExitCode::FAILURE,
        }
    }
}

/// A line for whoever runs the test. Nobody has to be listening.
pub(crate) fn say(line: &str) {
    _ = writeln!(std::io::stdout(), "{line}");
}
