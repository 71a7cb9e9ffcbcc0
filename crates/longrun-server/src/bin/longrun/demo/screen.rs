//! What the demo shows to a person.

#![allow(clippy::print_stdout)] // Showing things on standard output is its purpose.

use std::io::{IsTerminal, stdout};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::Value;

pub(super) struct Screen {
    passed: usize,
    failed: usize,
    bar: Option<ProgressBar>,
    /// The last tenth that was shown where no bar can be drawn.
    tenth: u64,
}

impl Screen {
    pub(super) const fn new() -> Self {
        Self { passed: 0, failed: 0, bar: None, tenth: 0 }
    }

    pub(super) fn title(&self, text: &str) {
        println!("{text}");
    }

    pub(super) fn stage(&self, letter: &str, text: &str) {
        println!("\n({letter}) {text}");
    }

    pub(super) fn say(&self, text: &str) {
        println!("    {text}");
    }

    pub(super) fn json(&self, what: &str, value: &Value) {
        println!("    {what}:");
        let text = serde_json::to_string_pretty(value).unwrap_or_else(|_| value.to_string());
        for line in text.lines() {
            println!("      {line}");
        }
    }

    pub(super) fn check(&mut self, what: &str, holds: bool) {
        let verdict = if holds { "ok  " } else { "FAIL" };
        println!("  {verdict} {what}");
        if holds {
            self.passed += 1;
        } else {
            self.failed += 1;
        }
    }

    /// Shows how far a copy is: as a bar on a terminal, else a line for each tenth.
    pub(super) fn progress(&mut self, done: u64, total: u64) {
        if total == 0 {
            return;
        }
        if stdout().is_terminal() {
            let bar = self.bar.get_or_insert_with(|| new_bar(total));
            bar.set_length(total);
            bar.set_position(done);
        } else {
            let tenth = done.saturating_mul(10) / total;
            if tenth != self.tenth {
                println!("    {:>3} %  {} of {} MiB", tenth * 10, done >> 20, total >> 20);
                self.tenth = tenth;
            }
        }
    }

    /// Leaves the bar as it is and ends it.
    pub(super) fn progress_pause(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.abandon();
        }
        self.tenth = 0;
    }

    pub(super) fn progress_end(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish();
        }
        self.tenth = 0;
    }

    /// Shows the count. True when every check passed.
    pub(super) fn finish(&self) -> bool {
        println!("\ndemo: {} checks passed, {} failed", self.passed, self.failed);
        self.failed == 0
    }
}

fn new_bar(total: u64) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stdout());
    let style = ProgressStyle::with_template("    {bar:40} {bytes} of {total_bytes}, {binary_bytes_per_sec}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}
