//! The torture kit: on the kinds of the first page, of the examples and of the snapshot service, and on kinds with mistakes that it
//! has to find.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod bakery;
mod network;
mod planted;
mod provision;
mod references;
mod snapshots;
mod vpc;

use longrun_testkit::torture::Report;

/// Pairs of which the second fault is never met prove nothing: of 100 both struck in more than this.
#[track_caller]
fn assert_both_struck(report: &Report, percent: usize) {
    let (both, trials) = (report.trials_complete(), report.trials());
    println!("both struck in {both} of {trials}");
    assert!(both * 100 > trials * percent, "both struck in {both} of {trials}");
}
