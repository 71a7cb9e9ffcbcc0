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

fn skipped(text: &str) -> bool {
    let skipped = text.lines().find(|line| line.starts_with("SKIPPED power"));
    if let Some(line) = skipped {
        eprintln!("{line}");
        let last = text.lines().last().unwrap_or_default();
        assert!(last.starts_with("0 checked, 0 violations: SKIPPED, "), "{text}");
    }
    skipped.is_some()
}

#[test]
fn kills_lose_nothing() {
    let rounds = number("LONGRUN_KILLS", 10);
    let (output, text) = crash(&["kill", "--store", "sled", "--rounds", &rounds]);
    assert!(output.status.success(), "{text}");
    assert!(text.trim_end().ends_with(&format!("{rounds} checked, 0 violations")), "{text}");
}

#[test]
fn kills_lose_nothing_on_fjall_and_redb() {
    for store in ["fjall", "redb"] {
        let (output, text) = crash(&["kill", "--store", store, "--rounds", "5"]);
        assert!(output.status.success(), "{text}");
        assert!(text.trim_end().ends_with("5 checked, 0 violations"), "{text}");
    }
}

#[test]
fn power_cuts_lose_nothing() {
    let rounds = number("LONGRUN_POWER_CUTS", 3);
    let (output, text) = crash(&["power", "--store", "sled", "--rounds", &rounds]);
    assert!(output.status.success(), "{text}");
    if !skipped(&text) {
        assert!(text.trim_end().ends_with(&format!("{rounds} checked, 0 violations")), "{text}");
    }
}

#[test]
fn faults_lose_nothing() {
    let (output, text) = crash(&["faults", "--store", "sled"]);
    assert!(output.status.success(), "{text}");
    assert!(text.trim_end().ends_with(" checked, 0 violations"), "{text}");
}

/// Does `kill` see? An acknowledgement before the commit returned is lost in about one kill of four.
#[test]
fn an_early_acknowledgement_is_caught_by_kills() {
    let (output, text) = crash(&["kill", "--early-ack", "--rounds", "60", "--violations-max", "1"]);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("VIOLATION kill: S9"), "{text}");
    forget(&text);
}

/// Does `power` see? Without syncs the newest commits are not on the disk.
#[test]
fn missing_syncs_are_caught_by_power_cuts() {
    let arguments = ["power", "--durability", "process", "--rounds", "10", "--violations-max", "1"];
    let (output, text) = crash(&arguments);
    if skipped(&text) {
        return;
    }
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("VIOLATION power: S"), "{text}");
    forget(&text);
}

/// Removes what was kept of a violation that had to be.
fn forget(text: &str) {
    for kept in text.lines().filter_map(|line| line.split_once("kept: ")) {
        let folder = std::path::Path::new(kept.1.trim_end_matches(')'));
        assert!(folder.starts_with(std::env::temp_dir()), "{folder:?}");
        _ = std::fs::remove_dir_all(folder);
    }
}

/// Of a test that strace is needed for. A runner without it must be seen to leave it out.
fn without_strace(text: &str) -> bool {
    let skipped = text.lines().find(|line| line.starts_with("SKIPPED") && line.contains("strace"));
    if let Some(line) = skipped {
        eprintln!("{line}");
        let last = text.lines().last().unwrap_or_default();
        assert!(last.starts_with("0 checked, 0 violations: SKIPPED, "), "{text}");
    }
    skipped.is_some()
}

/// S16: whatever part of what was not synced is left of a run, what was acknowledged is there.
#[test]
fn s16_any_part_of_unsynced_writes_leaves_what_was_acknowledged() {
    let states = number("LONGRUN_STATES", 300);
    for store in ["sled", "fjall", "redb"] {
        let (output, text) = crash(&["replay", "--store", store, "--states", &states]);
        assert!(output.status.success(), "{text}");
        if !without_strace(&text) {
            assert!(text.trim_end().ends_with(&format!("{states} checked, 0 violations")), "{text}");
        }
    }
}

/// Does `replay` see? Without syncs, what was acknowledged is only in the kernel.
#[test]
fn s09_missing_syncs_are_caught_by_replay() {
    for store in ["sled", "fjall", "redb"] {
        let arguments = ["replay", "--store", store, "--durability", "process", "--states", "700"];
        let (output, text) = crash(&[&arguments[..], &["--violations-max", "2"]].concat());
        if without_strace(&text) {
            return;
        }
        assert_eq!(output.status.code(), Some(1), "{text}");
        // What is found first depends on what was lost: an index that disagrees is as good.
        assert!(text.contains(": S"), "{text}");
        forget(&text);
    }
}

/// And an acknowledgement before the commit returned is in the record before its sync.
#[test]
fn s09_an_early_acknowledgement_is_caught_by_replay() {
    let (output, text) = crash(&["replay", "--early-ack", "--states", "700", "--violations-max", "1"]);
    if without_strace(&text) {
        return;
    }
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains(": S9: "), "{text}");
    forget(&text);
}

/// So many positions among each store's calls of each sort, and nothing is wrong after any.
#[track_caller]
fn assert_clean(command: &[&str], positions: &str) {
    for store in ["sled", "fjall", "redb"] {
        let (output, text) = crash(&[command, &["--store", store, "--positions", positions]].concat());
        assert!(output.status.success(), "{text}");
        if !without_strace(&text) {
            assert!(text.trim_end().ends_with(" checked, 0 violations"), "{text}");
        }
    }
}

/// S13: a call that fails takes nothing back that was acknowledged, whichever it is and however it fails.
#[test]
fn s13_calls_that_fail_lose_nothing() {
    assert_clean(&["errors"], "1");
}

/// S14, S15: a kill at any call of a creation or of a recovery leaves a store that opens, as one at any other.
#[test]
fn s14_s15_kills_at_calls_leave_a_store_that_opens() {
    assert_clean(&["kill", "--every-call"], "2");
}
