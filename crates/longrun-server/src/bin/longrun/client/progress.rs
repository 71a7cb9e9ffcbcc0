//! [`Screen`]: what is shown while an operation is waited for.

use std::io::{IsTerminal, stderr};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use longrun_api::longrun::v1::progress::Unit;

use super::output;
use super::text::escape;
use super::view::View;

// `wide_msg` is cut where the terminal ends. All of the phase is shown at the end.
const BYTES: &str =
    "{prefix}  {bar:24} {binary_bytes} of {binary_total_bytes}, {binary_bytes_per_sec}  {wide_msg}";
const ITEMS: &str = "{prefix}  {bar:24} {pos} of {len}  {wide_msg}";
const NOTHING: &str = "{prefix}  {spinner} {wide_msg}";

/// Standard error, as somebody watches it or not.
#[derive(Debug)]
pub(super) struct Screen {
    /// Where bars are drawn. Nowhere if no terminal is there, or what is printed is for programs.
    bars: Option<MultiProgress>,
    /// Nothing is said beside the result and the error.
    quiet: bool,
}

impl Screen {
    pub(super) fn new(json: bool) -> Self {
        let drawn = !json && stderr().is_terminal();
        Self { bars: drawn.then(MultiProgress::new), quiet: json }
    }

    /// Whether somebody watches.
    pub(super) const fn is_watched(&self) -> bool {
        self.bars.is_some()
    }

    /// Says something beside the result, above the bars. The text is fit for a terminal already.
    pub(super) fn note(&self, text: &str) {
        match &self.bars {
            _ if self.quiet => {}
            Some(bars) => bars.suspend(|| output::note(text)),
            None => output::note(text),
        }
    }

    /// A bar for an operation.
    pub(super) fn bar(&self, id: &str) -> Bar {
        let bar = self.bars.as_ref().map(|bars| {
            let bar = bars.add(ProgressBar::no_length());
            bar.set_style(style(NOTHING));
            bar.set_prefix(escape(id).into_owned());
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        Bar { bar, template: NOTHING }
    }
}

/// The bar of one operation, if it is drawn.
pub(super) struct Bar {
    bar: Option<ProgressBar>,
    template: &'static str,
}

impl Bar {
    /// Shows where the operation stands.
    pub(super) fn show(&mut self, view: &View) {
        let Some(bar) = &self.bar else { return };
        let template = template(view);
        if template != self.template {
            bar.set_style(style(template));
            self.template = template;
        }
        if let Some(progress) = view.progress() {
            bar.set_length(progress.total.unsigned_abs());
            bar.set_position(progress.done.clamp(0, progress.total).unsigned_abs());
        }
        bar.set_message(escape(&view.phase()).into_owned());
    }
}

impl Drop for Bar {
    /// What the operation has come to is printed as the result; the bar has done its work.
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn template(view: &View) -> &'static str {
    match view.progress().map(|progress| progress.unit()) {
        Some(Unit::Bytes) => BYTES,
        Some(Unit::Items | Unit::Unspecified) => ITEMS,
        None => NOTHING,
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

#[cfg(test)]
mod tests {
    use indicatif::ProgressDrawTarget;

    use super::super::view::tests::{error, google};
    use super::*;

    #[test]
    fn the_templates_are_templates() {
        for template in [BYTES, ITEMS, NOTHING] {
            assert!(ProgressStyle::with_template(template).is_ok(), "{template}");
        }
    }

    #[test]
    fn a_bar_shows_how_far_an_operation_is_and_why_it_goes_back() {
        let bars = MultiProgress::with_draw_target(ProgressDrawTarget::hidden());
        let screen = Screen { bars: Some(bars), quiet: false };
        let mut bar = screen.bar("opr1");
        bar.show(&View::from(google(false, None)));
        let inner = bar.bar.clone().unwrap();
        assert_eq!((bar.template, inner.position(), inner.length()), (BYTES, 100 << 20, Some(256 << 20)));
        assert_eq!((inner.prefix(), inner.message()), ("opr1".to_owned(), "running".to_owned()));
        bar.show(&View::from(google(false, Some(error(9, "the \u{1b}[2Jdisk changed")))));
        assert_eq!(
            inner.message(),
            r"rolling back because of FAILED_PRECONDITION: the \u{1b}[2Jdisk changed"
        );
        // How far it had come makes room for why it goes back.
        assert_eq!(bar.template, NOTHING);
        drop(bar);
        assert!(inner.is_finished());
    }

    #[test]
    fn nobody_watches_json() {
        assert!(!Screen::new(true).is_watched());
    }
}
