//! The simulation as a test: a few seconds by default, as long as you like with `LONGRUN_SEEDS`.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::process::Command;

use longrun_testkit::sim::campaign::{Campaign, Failure, Mode, Report, run_seed};
use longrun_testkit::sim::coverage::{Coverage, CrashPoint, Fault, Situation};
use longrun_testkit::sim::fast::{Kit, Setting};
use longrun_testkit::sim::plant::Plant;
use longrun_testkit::sim::shrink::{Trouble, shrink};

/// Seeds of the fast simulation: `LONGRUN_SEEDS`, or enough for a few seconds. The full one takes a twentieth.
fn seeds() -> u64 {
    std::env::var("LONGRUN_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(20_000)
}

/// Nodes over one store, in the full simulation.
const NODES: u32 = 3;

fn campaign(mode: Mode, seeds: u64, setting: Setting) -> Campaign {
    Campaign {
        mode,
        from: 0,
        seeds,
        threads: 2,
        setting,
        check_determinism: setting.plant.is_none_or(|plant| plant == Plant::L9),
        violations_max: 1,
    }
}

#[track_caller]
fn assert_clean(campaign: &Campaign) -> Report {
    let report = campaign.run().unwrap();
    if let Some(Failure { seed, violation }) = report.failures.first() {
        let command = campaign.command(*seed, violation.rule, campaign.setting.less);
        panic!("seed {seed}: {violation}\nsee it: {command} --show");
    }
    assert!(report.twice > 0, "L9 was not looked at");
    report
}

/// A planted fault has to be caught within so many seeds.
#[track_caller]
fn assert_caught(mode: Mode, plant: Plant, outcome_only: bool, within: u64) -> String {
    let setting = Setting { plant: Some(plant), outcome_only, nodes: NODES, ..Setting::default() };
    let report = campaign(mode, within, setting).run().unwrap();
    let failure =
        report.failures.first().unwrap_or_else(|| panic!("{plant} was not caught in {within} seeds"));
    failure.violation.rule.to_owned()
}

#[test]
fn the_core_holds_in_a_world_of_crashes() {
    // The rarest situation comes about once in 3,000 seeds, and each has to be met.
    let seeds = seeds().max(50_000);
    let report = assert_clean(&campaign(Mode::Fast, seeds, Setting::default()));
    assert_eq!(report.coverage.never_fired(Mode::Fast, 1), Vec::<Fault>::new());
    assert!(report.coverage.crashes() > seeds / 2, "{}", report.coverage.table());
    assert_eq!(report.coverage.seldom_met(Mode::Fast, 1, 1), Vec::<Situation>::new());
}

#[test]
fn the_engine_holds_in_a_world_of_crashes() {
    let count = seeds().div_ceil(20);
    let report = assert_clean(&campaign(Mode::Full, count, Setting { nodes: NODES, ..Setting::default() }));
    assert!(report.coverage.crashes() > count / 2, "{}", report.coverage.table());
    assert!(report.coverage.operations > count / 2, "{}", report.coverage.table());
}

#[test]
fn s30_the_engines_hold_that_share_a_store() {
    let count = seeds().div_ceil(20).max(1000);
    let report = assert_clean(&campaign(Mode::Cluster, count, Setting { nodes: 5, ..Setting::default() }));
    assert!(report.coverage.operations > count, "{}", report.coverage.table());
    assert_eq!(report.coverage.never_fired(Mode::Cluster, 5), Vec::<Fault>::new());
    assert_eq!(report.coverage.seldom_met(Mode::Cluster, 5, 10), Vec::<Situation>::new());
}

#[test]
fn s22_a_late_decision_to_roll_back_is_caught_when_the_undo_begins() {
    assert_eq!(assert_caught(Mode::Fast, Plant::S22, false, 500), "S22");
}

#[test]
fn s22_a_late_decision_to_roll_back_is_caught_by_what_is_left_of_it() {
    // Without any rule about the order of calls: the operation is done, and the effect of a step is missing.
    assert_eq!(assert_caught(Mode::Fast, Plant::S22, true, 20_000), "S25");
}

#[test]
fn s22_a_store_that_lies_about_the_decision_is_caught_under_the_real_engine() {
    // Some seeds show first that a client was told of what is not durable.
    let setting = Setting { plant: Some(Plant::S22), nodes: NODES, ..Setting::default() };
    let campaign = Campaign { violations_max: usize::MAX, ..campaign(Mode::Full, 300, setting) };
    let failures = campaign.run().unwrap().failures;
    assert!(failures.iter().any(|failure| failure.violation.rule == "S22"), "{failures:?}");
}

#[test]
fn s22_a_store_that_lies_about_the_decision_leaves_a_broken_world_behind() {
    let rule = assert_caught(Mode::Full, Plant::S22, true, 3_000);
    assert!(["S25", "S11", "C3"].contains(&rule.as_str()), "{rule}");
}

#[test]
fn s35_a_wish_that_becomes_two_operations_is_caught_at_another_node() {
    assert_eq!(assert_caught(Mode::Cluster, Plant::S35, true, 300), "S35");
}

#[test]
fn s15_damage_that_no_checksum_finds_is_caught() {
    assert_eq!(assert_caught(Mode::Full, Plant::S15, true, 3_000), "C5");
}

#[test]
fn s31_a_world_that_takes_late_effects_is_caught_by_what_is_left_of_it() {
    assert_eq!(assert_caught(Mode::Full, Plant::S31, true, 3_000), "S25");
    assert_eq!(assert_caught(Mode::Cluster, Plant::S31, true, 3_000), "S25");
}

#[test]
fn s28_a_panic_that_the_engine_survives_is_caught() {
    assert_eq!(assert_caught(Mode::Full, Plant::Panic, true, 300), "panic");
    assert_eq!(assert_caught(Mode::Cluster, Plant::Panic, true, 300), "panic");
}

#[test]
fn a_violation_is_made_smaller() {
    let kit = Kit::new().unwrap();
    for (mode, seeds) in [(Mode::Fast, 500), (Mode::Full, 300)] {
        let setting = Setting { plant: Some(Plant::S22), ..Setting::default() };
        let report = campaign(mode, seeds, setting).run().unwrap();
        let failure = report.failures.first().unwrap();
        let small = shrink(mode, failure.seed, "S22", &kit, setting);
        // One operation with one step, no crash, and one reason to roll back.
        assert_eq!(
            (small.less.operations, small.less.steps, small.less.crashes),
            (Some(1), Some(1), Some(0))
        );
        let left: Vec<_> = Trouble::ALL.iter().filter(|trouble| !small.less.lacks(**trouble)).collect();
        assert!(left.len() <= 1, "{left:?}");
        let setting = Setting { less: small.less, ..setting };
        let again = run_seed(mode, small.seed, &kit, setting, &mut Coverage::default());
        assert_eq!(again.violation.unwrap().rule, "S22");
    }
}

#[test]
fn every_planted_fault_is_caught() {
    for plant in Plant::ALL.iter().filter(|plant| plant.is_for(Mode::Fast)) {
        let rule = assert_caught(Mode::Fast, *plant, false, 5_000);
        let direct = match plant {
            // What is shown before it is durable is seen at once.
            Plant::S9 | Plant::S10 | Plant::S11 => "S11",
            Plant::S18 | Plant::S19 => "S19",
            Plant::S20 => "S25",
            plant => plant.name(),
        };
        assert_eq!(rule, direct, "{plant}");
    }
}

#[test]
fn every_planted_fault_is_caught_where_nodes_share_a_store() {
    for plant in Plant::ALL.iter().filter(|plant| plant.is_for(Mode::Cluster)) {
        // By the order of calls, too, what is not undone may show before the end: as soon as what it rests on is undone.
        let outcome_only = *plant == Plant::S25;
        let rule = assert_caught(Mode::Cluster, *plant, outcome_only, 3_000);
        let direct = match plant {
            // What is left of a late effect is seen, not that it was late.
            Plant::S31 => "S25",
            plant => plant.name(),
        };
        assert_eq!(rule, direct, "{plant}");
    }
}

#[test]
fn planted_faults_are_caught_by_what_clients_and_the_world_see() {
    for plant in [Plant::S9, Plant::S10, Plant::S18, Plant::S20, Plant::S21, Plant::S29, Plant::C7] {
        assert_caught(Mode::Fast, plant, true, 20_000);
    }
}

#[test]
fn l9_the_same_seed_goes_the_same_way() {
    for mode in [Mode::Fast, Mode::Full, Mode::Cluster] {
        let campaign = campaign(mode, 200, Setting::default());
        let (one, two) = (campaign.run().unwrap(), campaign.run().unwrap());
        assert_eq!(one.coverage, two.coverage);
    }
}

#[test]
fn l9_the_command_that_is_given_shows_that_a_seed_goes_two_ways() {
    let sim = |options: &str| {
        let output =
            Command::new(env!("CARGO_BIN_EXE_sim")).args(options.split_whitespace()).output().unwrap();
        assert!(!output.status.success());
        String::from_utf8(output.stdout).unwrap()
    };
    let found = sim("--seeds 1000 --plant L9 --check-determinism");
    let (_, command) = found.split_once("L9: the same seed went two ways -- reproduce: sim ").unwrap();
    let again = sim(command.lines().next().unwrap());
    assert!(again.contains("L9: the same seed went two ways"), "{again}");
}

#[test]
fn everything_that_is_counted_has_words() {
    let texts: Vec<&str> = Fault::ALL.iter().map(|one| one.text()).collect();
    let texts = texts.into_iter().chain(CrashPoint::ALL.iter().map(|one| one.text()));
    let texts: Vec<&str> = texts.chain(Situation::ALL.iter().map(|one| one.text())).collect();
    assert!(Situation::ALL.len() >= 60);
    assert_eq!(texts.iter().collect::<std::collections::BTreeSet<_>>().len(), texts.len());
}
