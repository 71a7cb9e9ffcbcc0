//! System calls that fail, and kills at system calls, injected by strace.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::time::Duration;

use anyhow::{anyhow, ensure};

use super::super::child::{self, WriterPlan};
use super::super::cli::StoreChoice;
use super::super::inject::{Injection, Ran};
use super::super::verify::Mode;
use super::{Bench, note};

/// Operations of a writer that has to get through although calls fail.
const OPERATIONS: u64 = 30;
const WITHIN: Duration = Duration::from_secs(60);
/// How long a writer is left to calls that fail for ever.
const HOPELESS: Duration = Duration::from_millis(1500);

/// How often another time is tried of a fault that did not happen.
const TRIES: u32 = 6;

/// How an injected fault goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    /// The call fails once (in each thread): the writer must get through.
    Heals,
    /// It fails from then on: nothing must be acknowledged that does not hold.
    Stays,
    /// The process is killed at it.
    Dies,
}

/// A call, the error it gives, and among which of its times, in the thread that makes it.
type Failing = (&'static str, &'static str, Range<u64>);
/// A call that kills, and the number of the last that may.
type Deadly = (&'static str, u64);

/// The calls that a store makes, by numbers that reach beyond its open.
const fn faults(store: StoreChoice) -> (&'static [Failing], &'static [Deadly]) {
    match store {
        StoreChoice::Sled => (
            &[
                ("fdatasync", "EIO", 6..30),
                ("pwrite64", "EIO", 6..30),
                ("pwrite64", "ENOSPC", 6..30),
                ("sync_file_range", "EIO", 6..30),
            ],
            &[
                ("pwrite64", 40),
                ("fdatasync", 40),
                ("rename,renameat", 2),
                ("fsync", 5),
                ("sync_file_range", 15),
            ],
        ),
        // fjall writes its journal by `write`, as the writer does its facts: only a kill may meet either.
        StoreChoice::Fjall => (
            &[
                ("fdatasync", "EIO", 2..30),
                ("fdatasync", "EIO", 2..30),
                ("fdatasync", "ENOSPC", 2..30),
                ("pwrite64", "EIO", 6..30),
            ],
            &[("write", 400), ("fdatasync", 40), ("rename,renameat", 30), ("fsync", 150), ("ftruncate", 3)],
        ),
        StoreChoice::Redb => (
            &[
                ("fdatasync", "EIO", 12..60),
                ("fdatasync", "ENOSPC", 12..60),
                ("pwrite64", "EIO", 40..400),
                ("pwrite64", "ENOSPC", 40..400),
            ],
            &[("pwrite64", 400), ("fdatasync", 60), ("rename,renameat", 2), ("fsync", 6), ("ftruncate", 3)],
        ),
    }
}

pub(super) fn run(bench: &mut Bench) -> anyhow::Result<()> {
    if !child::strace_works() {
        bench.report.skip("failing system calls", "strace is not installed or may not trace");
        return Ok(());
    }
    let mut cases = Vec::new();
    let (failing, deadly) = faults(bench.campaign.store);
    for (call, error, times) in failing {
        for then in [Then::Heals, Then::Stays] {
            let at = bench.dice.within(times.clone());
            cases.push((*call, format!("error={error}"), at, then));
        }
    }
    for &(call, last) in deadly {
        for _ in 0..3 {
            cases.push((call, "signal=KILL".to_owned(), bench.dice.within(1..last), Then::Dies));
        }
    }
    let mut injected: BTreeMap<(String, String), u64> = BTreeMap::new();
    for (place, (call, fault, at, then)) in cases.into_iter().enumerate() {
        let happened = injected.entry((call.to_owned(), fault.clone())).or_default();
        // A run may be over before the call was made so often: then an earlier one.
        for try_ in 0..TRIES {
            let (call, fault, stays) = (call.to_owned(), fault.clone(), then == Then::Stays);
            let at = (at >> try_).max(1);
            let injection = Injection { call, fault, at, stays, names: BTreeSet::new(), all: false };
            let (inject, result) =
                (injection.text(), one(bench, &format!("{place}-{try_}"), &injection, then));
            // A fault that did not happen was not checked.
            if matches!(result, Ok(0)) {
                continue;
            }
            if let Ok(hits) = &result {
                *happened += hits;
                note(&format!("{inject}: {hits} injected"));
            }
            bench.check(&inject, result.map(|_| ()));
            break;
        }
    }
    for ((call, fault), hits) in injected {
        bench.check(
            &format!("{fault} of {call}"),
            if hits > 0 { Ok(()) } else { Err(anyhow!("it never happened")) },
        );
    }
    Ok(())
}

/// Gives the number of faults that happened.
fn one(bench: &mut Bench, place: &str, injection: &Injection, then: Then) -> anyhow::Result<u64> {
    let ground = bench.ground(&format!("strace-{place}"))?;
    let seed = bench.dice.next();
    let plan = WriterPlan { seed, operations: Some(OPERATIONS), ..WriterPlan::default() };
    let within = if then == Then::Stays { HOPELESS } else { WITHIN };
    let Ran { ended, hits, .. } = injection.run(&ground, plan, within)?;
    let facts = ground.read_facts()?;
    if then == Then::Heals {
        // A fault before the engine is up may end the writer: it reports, and the next start works.
        let ended_well = ended.is_some_and(|status| status.success()) || facts.ready == 0;
        ensure!(ended_well, "the writer did not get through: {ended:?}, {facts:?}");
        ensure!(facts.ready == 0 || facts.done.len() as u64 + 5 >= OPERATIONS, "some did not end: {facts:?}");
    }
    bench.whole(&ground, Mode { look: false, tell: true })?;
    Ok(hits)
}
