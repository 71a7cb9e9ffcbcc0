//! The `longrun` program.

mod chunk_folder;
mod client;
mod demo;
mod serve;
mod stores;

use std::process::ExitCode;
use std::time::Duration;

use clap::{CommandFactory, Parser, Subcommand};

/// Long-running operations that survive crashes and roll back completely.
#[derive(Parser)]
#[command(name = "longrun", version, about, after_help = client::EXIT_CODES)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Serve(serve::Options),
    /// Shows the engine at work on a real disk image: crash, resume, cancel, failure, repeat.
    Demo(demo::Arguments),
    /// Looks at the operations of a running server, waits for them, and cancels them.
    #[command(subcommand)]
    Op(client::OpCommand),
    /// Works with the snapshots of a running server, and looks into a chunk folder, also while a server uses it.
    #[command(subcommand)]
    Snapshot(SnapshotCommand),
    /// Prints completions for a shell.
    Completions(client::Completions),
    /// Serves the demo over standard input and output, one JSON object a line.
    #[command(hide = true)]
    DemoServe(demo::ServeArguments),
}

#[derive(Subcommand)]
enum SnapshotCommand {
    #[command(flatten)]
    Served(client::SnapshotCommand),
    #[command(flatten)]
    Stored(chunk_folder::Command),
}

/// How long work on threads of its own, such as a sweep of the chunk folder, may hold up the end of the program. What is
/// cut off is as after a crash: nothing is lost.
const LAST_THREADS: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let level = if matches!(arguments.command, Command::Serve(_)) { "info" } else { "error" };
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| level.into()),
        )
        .init();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            report(&anyhow::Error::new(error).context("cannot start"));
            return ExitCode::FAILURE;
        }
    };
    let exit = runtime.block_on(run(arguments));
    runtime.shutdown_timeout(LAST_THREADS);
    exit
}

async fn run(arguments: Arguments) -> ExitCode {
    let result = match arguments.command {
        Command::Serve(options) => serve::run(options).await.map(|()| true),
        Command::Demo(arguments) => demo::run(arguments).await,
        Command::Op(command) => return client::op(command).await,
        Command::Snapshot(SnapshotCommand::Served(command)) => return client::snapshot(command).await,
        Command::Snapshot(SnapshotCommand::Stored(command)) => chunk_folder::run(&command),
        Command::Completions(arguments) => return client::completions(&arguments, Arguments::command()),
        Command::DemoServe(arguments) => demo::serve(arguments).await.map(|()| true),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            report(&error);
            ExitCode::FAILURE
        }
    }
}

#[allow(clippy::print_stderr)] // The last word of a program goes to its standard error.
fn report(error: &anyhow::Error) {
    eprintln!("longrun: {error:#}");
}
