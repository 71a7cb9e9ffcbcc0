//! The crash tests, in small numbers; `LONGRUN_KILLS` and `LONGRUN_POWER_CUTS` ask for more.
//!
//! The program is run as a user runs it. What this machine cannot do, it says; see the output with `--nocapture`.

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

use std::process::{Command, Output};

fn crash(arguments: &[&str]) -> (Output, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_crash")).args(arguments).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    println!("crash {}\n{text}{}", arguments.join(" "), String::from_utf8_lossy(&output.stderr));
    (output, text)
}

fn number(name: &str, default: u64) -> String {
    std::env::var(name).unwrap_or_else(|_| default.to_string())
}

/// Whether the program could try nothing here, for want of `why`. It has to say so, and to end with 3.
fn skipped((output, text): &(Output, String), why: &str) -> bool {
    let skipped = text.lines().find(|line| line.starts_with("SKIPPED") && line.contains(why));
    if let Some(line) = skipped {
        eprintln!("{line}");
        let last = text.lines().last().unwrap_or_default();
        assert!(last.starts_with("0 checked, 0 violations: SKIPPED, "), "{text}");
    }
    assert_eq!(output.status.code() == Some(3), skipped.is_some(), "{text}");
    skipped.is_some()
}

#[track_caller]
fn assert_clean((output, text): &(Output, String), checked: &str) {
    assert!(output.status.success(), "{text}");
    assert!(text.trim_end().ends_with(&format!("{checked}, 0 violations")), "{text}");
}

/// A fault that was planted was found. What was kept of it is removed.
#[track_caller]
fn assert_caught((output, text): &(Output, String), what: &str) {
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains(what), "{text}");
    forget(text);
}

#[test]
fn kills_lose_nothing() {
    let rounds = number("LONGRUN_KILLS", 10);
    assert_clean(&crash(&["kill", "--store", "sled", "--rounds", &rounds]), &format!("{rounds} checked"));
}

#[test]
fn kills_lose_nothing_on_fjall_and_redb() {
    for store in ["fjall", "redb"] {
        assert_clean(&crash(&["kill", "--store", store, "--rounds", "5"]), "5 checked");
    }
}

#[test]
fn power_cuts_lose_nothing() {
    let rounds = number("LONGRUN_POWER_CUTS", 3);
    let run = crash(&["power", "--store", "sled", "--rounds", &rounds]);
    if !skipped(&run, "power") {
        assert_clean(&run, &format!("{rounds} checked"));
    }
}

#[test]
fn faults_lose_nothing() {
    assert_clean(&crash(&["faults", "--store", "sled"]), " checked");
}

/// Does `kill` see? An acknowledgement before the commit returned is lost in about one kill of four.
#[test]
fn an_early_acknowledgement_is_caught_by_kills() {
    let run = crash(&["kill", "--early-ack", "--rounds", "60", "--violations-max", "1"]);
    assert_caught(&run, "VIOLATION kill: S9");
}

/// Does `power` see? Without syncs the newest commits are not on the disk.
#[test]
fn missing_syncs_are_caught_by_power_cuts() {
    let arguments = ["power", "--durability", "process", "--rounds", "10", "--violations-max", "1"];
    let run = crash(&arguments);
    if !skipped(&run, "power") {
        assert_caught(&run, "VIOLATION power: S");
    }
}

/// Removes what was kept of a violation that had to be.
fn forget(text: &str) {
    for kept in text.lines().filter_map(|line| line.split_once("kept: ")) {
        let folder = std::path::Path::new(kept.1.trim_end_matches(')'));
        assert!(folder.starts_with(std::env::temp_dir()), "{folder:?}");
        _ = std::fs::remove_dir_all(folder);
    }
}

/// S16: whatever part of what was not synced is left of a run, what was acknowledged is there.
#[test]
fn s16_any_part_of_unsynced_writes_leaves_what_was_acknowledged() {
    let states = number("LONGRUN_STATES", 300);
    for store in ["sled", "fjall", "redb"] {
        let run = crash(&["replay", "--store", store, "--states", &states]);
        if !skipped(&run, "strace") {
            assert_clean(&run, &format!("{states} checked"));
        }
    }
}

/// Does `replay` see? Without syncs, what was acknowledged is only in the kernel.
#[test]
fn s09_missing_syncs_are_caught_by_replay() {
    for store in ["sled", "fjall", "redb"] {
        let arguments = ["replay", "--store", store, "--durability", "process", "--states", "700"];
        let run = crash(&[&arguments[..], &["--violations-max", "2"]].concat());
        if !skipped(&run, "strace") {
            // What is found first depends on what was lost: an index that disagrees is as good.
            assert_caught(&run, ": S");
        }
    }
}

/// And an acknowledgement before the commit returned is in the record before its sync.
#[test]
fn s09_an_early_acknowledgement_is_caught_by_replay() {
    let run = crash(&["replay", "--early-ack", "--states", "700", "--violations-max", "1"]);
    if !skipped(&run, "strace") {
        assert_caught(&run, ": S9: ");
    }
}

/// So many positions among each store's calls of each sort, and nothing is wrong after any.
#[track_caller]
fn assert_clean_on_every_store(command: &[&str], positions: &str) {
    for store in ["sled", "fjall", "redb"] {
        let run = crash(&[command, &["--store", store, "--positions", positions]].concat());
        if !skipped(&run, "strace") {
            assert_clean(&run, " checked");
        }
    }
}

/// S13: a call that fails takes nothing back that was acknowledged, whichever it is and however it fails.
#[test]
fn s13_calls_that_fail_lose_nothing() {
    assert_clean_on_every_store(&["errors"], "1");
}

/// S14, S15: a kill at any call of a creation or of a recovery leaves a store that opens, as one at any other.
#[test]
fn s14_s15_kills_at_calls_leave_a_store_that_opens() {
    assert_clean_on_every_store(&["kill", "--every-call"], "2");
}
