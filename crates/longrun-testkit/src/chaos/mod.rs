//! Chaos: engines in processes of their own, which share one PostgreSQL, while everything around them fails.
//!
//! ```sh
//! cargo run --release -p longrun-testkit --bin chaos -- --nodes 3 --seconds 90
//! ```
//!
//! | fault | how |
//! |---|---|
//! | a node is killed | SIGKILL, and started anew a little later |
//! | a node is paused beyond its lease | SIGSTOP, and SIGCONT when others have taken up its work |
//! | the database crashes | `pg_ctl stop -m immediate`, and started anew |
//! | connections are cut after a statement was sent | by a proxy between each node and the database |
//!
//! Meanwhile clients submit with idempotency keys, and repeat what was not answered at another node; they cancel, wait and
//! list, each at any node. Steps have effects in a world that takes fencing tokens. At the end the faults stop, everything
//! must be done within a minute, and the judge looks at what the database and the world hold: what was acknowledged must be
//! there, cancels too.
//!
//! A fault that never struck makes it fail: nothing would have been tried. So does a node that ends by itself.

// This is a test program that happens to be a library.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, clippy::print_stderr)]

mod clients;
mod faults;
mod judge;
mod node;
mod process;
mod proxy;
mod work;
mod world;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::{Args, Parser, Subcommand};
use longrun_postgres::testing::PrivateServer;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::crash::dice::Dice;
use crate::crash::report::NOTHING_TRIED;

/// Everything must be done so soon after the last fault.
const DONE_WITHIN: Duration = Duration::from_secs(60);

#[derive(Debug, Parser)]
#[command(about = "Engines on one PostgreSQL, while everything around them fails")]
struct Cli {
    #[command(flatten)]
    options: Options,
    #[command(subcommand)]
    part: Option<Part>,
}

#[derive(Clone, Debug, Args)]
struct Options {
    /// Engines, each in a process of its own.
    #[arg(long, default_value_t = 3)]
    nodes: usize,
    /// How long faults strike.
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    /// Clients that submit at the same time.
    #[arg(long, default_value_t = 24)]
    clients: usize,
    /// The lease of each node, in milliseconds.
    #[arg(long, default_value_t = 2000)]
    lease_millis: u64,
    /// What is drawn is drawn from this. The processes run as they like, so a seed does not repeat a run.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[derive(Debug, Subcommand)]
enum Part {
    /// One node: requests on standard input, answers on standard output, one line of JSON each.
    #[command(hide = true)]
    Node(node::Options),
}

/// The program.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let ended = runtime.context("no runtime").and_then(|runtime| {
        runtime.block_on(async {
            match cli.part {
                Some(Part::Node(options)) => node::run(options).await.map(|()| ExitCode::SUCCESS),
                None => run(&cli.options).await,
            }
        })
    });
    ended.unwrap_or_else(|error| {
        eprintln!("chaos: {error:#}");
        ExitCode::FAILURE
    })
}

async fn run(options: &Options) -> Result<ExitCode> {
    ensure!(options.nodes >= 2, "one node alone is no company");
    let server = match PrivateServer::start() {
        Ok(server) => Arc::new(Mutex::new(server)),
        Err(missing) => {
            println!("SKIPPED: {missing}");
            println!("0 checked, 0 violations: SKIPPED, {missing}");
            return Ok(ExitCode::from(NOTHING_TRIED));
        }
    };
    let address = server.lock().await.address();
    world::World::make(&address).await?;
    let mut proxies = Vec::new();
    let mut nodes = Vec::new();
    for number in 0..options.nodes {
        let proxy = proxy::Proxy::start(server.lock().await.folder(), number).await?;
        let lease = Duration::from_millis(options.lease_millis);
        nodes.push(Arc::new(process::Node::new(number, proxy.address(), address.clone(), lease)));
        proxies.push(proxy);
    }
    for node in &nodes {
        node.start().await?;
    }
    world::World::watch(&address).await?;
    println!("{} nodes on one PostgreSQL, {} s, seed {}", options.nodes, options.seconds, options.seed);

    let clients = clients::Clients::start(&nodes, options.clients, options.seed);
    let mut faults = faults::Faults::new(options, Arc::clone(&server), &nodes, proxies);
    let until = Instant::now() + Duration::from_secs(options.seconds);
    let mut dice = Dice::new(options.seed);
    while Instant::now() < until {
        faults.strike(&mut dice).await?;
    }
    faults.end().await?;
    let calm = Instant::now();
    let history = clients.stop().await;
    let verdict = judge::Judge::new(&address, &history).wait_and_judge(calm).await?;
    for node in &nodes {
        node.kill().await;
    }
    let wrong = faults.report();
    verdict.report();
    for what in &wrong {
        println!("violation: {what}");
    }
    let violations = verdict.violations.len() + wrong.len();
    println!("{} checked, {violations} violations", verdict.checked);
    Ok(if violations == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
