//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Crashes real stores under a real engine, and looks at what is left.
#[derive(Debug, Parser)]
#[command(name = "crash", version)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Kills the process with SIGKILL at random moments, during open and recovery too; or at every system call
    Kill(KillCampaign),
    /// Cuts the power of a disk at random moments (root, loop devices, mkfs.ext4 and python3 needed)
    Power(Campaign),
    /// Damaged and foreign files, a second process, a full disk, failing system calls
    Faults(Campaign),
    /// Each system call that changes the store fails, in each way, at each of its times (strace needed)
    Errors(ErrorCampaign),
    /// The snapshot service, killed at its system calls, one after the other (strace needed)
    Snapshots(SnapshotCampaign),
    /// Power cuts without a disk: the calls of a run are recorded, and what was not synced is dropped, torn or reordered
    /// (strace needed)
    Replay(ReplayCampaign),
    /// Checks a store against the facts that were told about it, and lets the engine finish what is unfinished
    Verify(VerifyArgs),
    /// Works on a store and prints a line for each acknowledged fact
    #[command(hide = true)]
    Writer(WriterArgs),
    /// Does one script with snapshots
    #[command(hide = true)]
    SnapshotChild(SnapshotChild),
}

/// How a test is run.
#[derive(Clone, Debug, Args)]
pub(crate) struct Campaign {
    /// The store
    #[arg(long, value_enum, default_value_t = StoreChoice::Sled)]
    pub(crate) store: StoreChoice,
    /// Rounds that count: those in which something was acknowledged
    #[arg(long, default_value_t = 20)]
    pub(crate) rounds: u64,
    /// Everything random follows from it; drawn from the clock unless said
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// What the store is told to survive
    #[arg(long, value_enum, default_value_t = DurabilityChoice::Power)]
    pub(crate) durability: DurabilityChoice,
    /// Plants a fault that must be found: an acknowledgement before the commit returned
    #[arg(long)]
    pub(crate) early_ack: bool,
    /// Ends after so many violations
    #[arg(long, default_value_t = 5)]
    pub(crate) violations_max: usize,
}

/// How processes are killed.
#[derive(Clone, Debug, Args)]
pub(crate) struct KillCampaign {
    #[command(flatten)]
    pub(crate) campaign: Campaign,
    /// Not at random: at the first, the second, the third … time that a thread makes each call that changes the store,
    /// while it is created, while it works, while it recovers (strace needed)
    #[arg(long, conflicts_with_all = ["rounds", "durability", "early_ack"])]
    pub(crate) every_call: bool,
    /// With --every-call: only the first call, the one so many after it, and so on
    #[arg(long, default_value_t = 1, requires = "every_call", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) every: u64,
    /// With --every-call: only so many calls of each sort, from the first to the last of a run without faults
    #[arg(long, conflicts_with = "every", requires = "every_call", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) positions: Option<u64>,
}

/// How system calls fail.
#[derive(Clone, Debug, Args)]
pub(crate) struct ErrorCampaign {
    /// The store
    #[arg(long, value_enum, default_value_t = StoreChoice::Sled)]
    pub(crate) store: StoreChoice,
    /// Only the first call of each sort, the one so many after it, and so on
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) every: u64,
    /// Only so many calls of each sort, from the first to the last of a run without faults
    #[arg(long, visible_alias = "rounds", conflicts_with = "every", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) positions: Option<u64>,
    /// What the writer does follows from it
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,
    /// Ends after so many violations
    #[arg(long, default_value_t = 5)]
    pub(crate) violations_max: usize,
}

/// How recorded runs are cut.
#[derive(Clone, Debug, Args)]
pub(crate) struct ReplayCampaign {
    /// The store
    #[arg(long, value_enum, default_value_t = StoreChoice::Sled)]
    pub(crate) store: StoreChoice,
    /// States that are built and opened
    #[arg(long, visible_alias = "rounds", default_value_t = 5000)]
    pub(crate) states: usize,
    /// What is dropped where follows from it, and from the run that was recorded; drawn from the clock unless said
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// What the store is told to survive
    #[arg(long, value_enum, default_value_t = DurabilityChoice::Power)]
    pub(crate) durability: DurabilityChoice,
    /// Plants a fault that must be found: an acknowledgement before the commit returned
    #[arg(long)]
    pub(crate) early_ack: bool,
    /// Operations of each run. After some hundreds fjall writes tables, after some thousands sled begins a segment
    #[arg(long, default_value_t = 40)]
    pub(crate) operations: u64,
    /// After every so many-th state an engine finishes what is unfinished; 0 for never
    #[arg(long, default_value_t = 100)]
    pub(crate) finish_every: u64,
    /// Ends after so many violations
    #[arg(long, default_value_t = 5)]
    pub(crate) violations_max: usize,
}

/// How the snapshot service is killed.
#[derive(Clone, Debug, Args)]
pub(crate) struct SnapshotCampaign {
    /// Only every so many-th call; another seed takes others
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) every: u64,
    /// With which call to begin, when not every one has its turn
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// Ends after so many violations
    #[arg(long, default_value_t = 5)]
    pub(crate) violations_max: usize,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct SnapshotChild {
    #[arg(long)]
    pub(crate) script: String,
    #[arg(long)]
    pub(crate) dir: PathBuf,
}

/// Where a store is.
#[derive(Clone, Debug, Args)]
pub(crate) struct Place {
    #[arg(long, value_enum, default_value_t = StoreChoice::Sled)]
    pub(crate) store: StoreChoice,
    /// What the store is told to survive
    #[arg(long, value_enum, default_value_t = DurabilityChoice::Power)]
    pub(crate) durability: DurabilityChoice,
    /// The folder of the store
    #[arg(long)]
    pub(crate) dir: PathBuf,
    /// The folder of the effects; beside the store unless said
    #[arg(long)]
    pub(crate) effects: Option<PathBuf>,
    /// The file of the facts; beside the store unless said
    #[arg(long)]
    pub(crate) facts: Option<PathBuf>,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct VerifyArgs {
    #[command(flatten)]
    pub(crate) place: Place,
    /// Only look: start no engine
    #[arg(long)]
    pub(crate) look: bool,
    /// Tell what ended to the file of facts
    #[arg(long)]
    pub(crate) tell: bool,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct WriterArgs {
    #[command(flatten)]
    pub(crate) place: Place,
    /// Number of the first request: larger than all before
    #[arg(long, default_value_t = 0)]
    pub(crate) first: u64,
    /// Ends by itself after so many operations
    #[arg(long)]
    pub(crate) operations: Option<u64>,
    /// Operations in flight
    #[arg(long, default_value_t = 12)]
    pub(crate) inflight: u64,
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,
    /// Says "accepted" before it is
    #[arg(long)]
    pub(crate) early_ack: bool,
    /// Ends when its standard input does, so that it never outlives who started it
    #[arg(long)]
    pub(crate) leash: bool,
}

/// Stores that can be crashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum StoreChoice {
    Sled,
    Fjall,
    Redb,
}

impl StoreChoice {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Sled => "sled",
            Self::Fjall => "fjall",
            Self::Redb => "redb",
        }
    }
}

/// What an acknowledged commit is to survive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum DurabilityChoice {
    /// The loss of power
    Power,
    /// The end of the process. A plant for `power` and `replay`, which must find it
    Process,
}

impl DurabilityChoice {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Power => "power",
            Self::Process => "process",
        }
    }
}
