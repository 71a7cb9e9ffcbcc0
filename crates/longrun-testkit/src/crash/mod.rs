//! Crash tests of real stores under the real engine: the program `crash`.
//!
//! A writer, in a process of its own, keeps operations in flight: each has three steps with an effect outside of the
//! store, and makes, changes or deletes a resource; some fail, some are cancelled. It tells each thing that the engine
//! acknowledged, after it did. Then the ground gives way under it, and a verifier opens what is left.
//!
//! ```text
//! crash kill   --rounds 200     SIGKILL at random moments, in recovery too
//! crash kill   --every-call     the same at every system call: in creation, work and recovery
//! crash power  --rounds 50      power cuts: ext4 on a loop device, stopped by an ioctl
//! crash faults                  damaged files, a second process, a full disk, some failing system calls
//! crash errors --every 1        each system call on the store fails, in each way, each time
//! crash replay --states 5000    power cuts without a disk: recorded writes dropped, torn, reordered
//! crash snapshots               the snapshot service, killed at every system call
//! ```
//!
//! All but the last take `--store sled`, `fjall` or `redb`.
//!
//! Each ends with a line `N checked, M violations`, and fails if M is not 0. A round counts only if something was
//! acknowledged in it. What a machine cannot do is reported as `SKIPPED`, loudly; if that is all of it, the program ends with 3.
//!
//! # What is compared
//!
//! | | |
//! |---|---|
//! | S9, S10, S11 | what was accepted, cancelled, done or shown to a reader is still so, before any engine starts |
//! | S13 | the same if the power is lost after a sync that failed: `errors` looks at such states as `replay` does |
//! | S12 | every index agrees with the records, by [`verify_indexes`](longrun_store::conformance::verify_indexes) |
//! | S15 | the store opens, or says why not; it never shows less in silence |
//! | S16 | whatever part of what was not synced is left, the store opens, with all that was acknowledged |
//! | S17, S25 | a done operation has all of its effects, or none, and the response that its steps made |
//! | S18, S19, S21, S23 | no step without its record, none after an undo; undos in reverse order |
//! | S35 | each idempotency key still gives its operation, and refuses another request |
//! | S41, S42 | each resource is what the operations on it made of it, held by the one that is unfinished |
//! | L2 | what is unfinished is taken up and ends, without a call from outside |
//! | L8 | a full disk refuses, pauses and heals; nothing fails and nothing has to be restarted |
//!
//! # Does it see?
//!
//! Two faults can be planted. `--durability process` takes away the syncs, which `power` and `replay` must find; `--early-ack` tells
//! "accepted" before the commit has returned, which `kill` and `replay` must find.

mod census;
mod child;
mod cli;
pub(crate) mod dice;
mod disk;
mod each;
mod early;
mod effects;
mod facts;
mod faults;
mod ground;
mod inject;
mod kill;
mod oracle;
mod power;
mod replay;
pub(crate) mod report;
mod rounds;
mod script;
mod snapshots;
mod stores;
mod trace;
mod verify;
mod writer;

use std::io::Write;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::Parser;

use cli::{Campaign, Cli, Command, KillCampaign};
use each::Positions;
use ground::Ground;
use report::say;

/// How the program ends when it could not do what it was told: none of the codes of a violation, or of a wrong command line.
const FAILED: u8 = 4;

/// The program: does what the command line says.
pub fn main() -> ExitCode {
    let command = Cli::parse().command;
    match dispatch(&command) {
        Ok(code) => code,
        Err(error) => {
            // What a writer says on its standard output is taken for a fact.
            match command {
                Command::Writer(_) => _ = writeln!(std::io::stderr(), "FAILED: {error:#}"),
                _ => say(&format!("FAILED: {error:#}")),
            }
            ExitCode::from(FAILED)
        }
    }
}

fn dispatch(command: &Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Kill(KillCampaign { campaign, every_call: false, .. }) => {
            kill::run(campaign, seed(campaign))
        }
        Command::Kill(KillCampaign { campaign, every, positions, .. }) => {
            each::kill(campaign, Positions::of(*every, *positions), seed(campaign))
        }
        Command::Errors(campaign) => each::errors(campaign),
        Command::Power(campaign) => power::run(campaign, seed(campaign)),
        Command::Faults(campaign) => faults::run(campaign, seed(campaign)),
        Command::Replay(campaign) => replay::run(campaign, campaign.seed.unwrap_or_else(clock)),
        Command::Snapshots(campaign) => snapshots::run(campaign, campaign.seed.unwrap_or(0)),
        Command::SnapshotChild(args) => runtime()?.block_on(snapshots::run_child(args)),
        Command::Writer(args) => {
            runtime()?.block_on(writer::run(args))?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Verify(args) => {
            let (seen, wrong) = runtime()?.block_on(verify::verify(&Ground::at(&args.place), args.into()))?;
            for what in &wrong {
                say(&format!("VIOLATION {}", what.replace('\n', " ")));
            }
            say(&format!("counts {}", serde_json::to_string(&seen)?));
            say(&format!("{} checked, {} violations", seen.operations, wrong.len()));
            Ok(if wrong.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
    }
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()
}

/// The seed that was given, or one from the clock.
fn seed(campaign: &Campaign) -> u64 {
    campaign.seed.unwrap_or_else(clock)
}

fn clock() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::from(now.subsec_nanos()) ^ now.as_secs() << 20
}
