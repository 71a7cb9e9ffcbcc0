//! The `longrun` program.

mod demo;
mod serve;
mod snapshot;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Long-running operations that survive crashes and roll back completely.
#[derive(Parser)]
#[command(version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Serve(serve::Options),
    /// Shows the engine at work on a real disk image: crash, resume, cancel, failure, repeat.
    Demo(demo::Arguments),
    /// Looks at snapshots in a chunk folder, also while a server uses it: what is in them, whether they are whole, and the disk
    /// back.
    #[command(subcommand)]
    Snapshot(snapshot::Command),
    /// Serves the demo over standard input and output, one JSON object a line.
    #[command(hide = true)]
    DemoServe(demo::ServeArguments),
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let level = if matches!(arguments.command, Command::Serve(_)) { "info" } else { "error" };
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| level.into()),
        )
        .init();
    let result = match arguments.command {
        Command::Serve(options) => serve::run(options).await.map(|()| true),
        Command::Demo(arguments) => demo::run(arguments).await,
        Command::Snapshot(command) => snapshot::run(&command),
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
