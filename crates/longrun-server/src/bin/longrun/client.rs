//! The program as a client of a running server: `longrun op ...` and `longrun snapshot ...`.
//!
//! ```text
//! op, snapshot    what was asked, turned into calls     wait, progress    until an operation is done
//! session         calls: deadline, retries, headers     view              an operation of either dialect
//! failure         what went wrong, and the exit code    output, text      tables and JSON, nothing unescaped
//! ```
//!
//! Results go to standard output, everything else to standard error. Nothing that a server says reaches a terminal
//! unescaped.

mod address;
mod connection;
mod failure;
mod op;
mod output;
mod progress;
mod session;
mod snapshot;
mod text;
mod view;
mod wait;

use std::io::Write;
use std::process::ExitCode;

use clap_complete::Shell;

use self::failure::{Exit, Failure};

pub(crate) use self::op::Command as OpCommand;
pub(crate) use self::snapshot::Command as SnapshotCommand;

/// What a script can rely on; stands at the end of the program's help.
pub(crate) const EXIT_CODES: &str = "\
Exit codes:
  0  done: the call succeeded, and so did the operation where it was waited for
  1  failed: the call was refused, or the operation that was waited for ended in an error
  2  usage: the arguments make no sense, or a file that they name cannot be read
  3  unreachable: no connection, no answer in time, or --timeout was over before the operation was done;
     what became of the request is not known. Repeat it with the same --idempotency-key

Standard output has the result, standard error everything else.";

/// Which shell to complete for.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  longrun completions bash > ~/.local/share/bash-completion/completions/longrun
  longrun completions zsh  > ~/.zfunc/_longrun
  longrun completions fish > ~/.config/fish/completions/longrun.fish")]
pub(crate) struct Completions {
    /// The shell.
    shell: Shell,
}

/// Runs a command on operations.
pub(crate) async fn op(command: OpCommand) -> ExitCode {
    let json = command.json();
    ended(op::run(command).await, json)
}

/// Runs a command on a server's snapshots.
pub(crate) async fn snapshot(command: SnapshotCommand) -> ExitCode {
    let json = command.json();
    ended(snapshot::run(command).await, json)
}

/// Prints the completions of a program for a shell.
pub(crate) fn completions(arguments: &Completions, mut program: clap::Command) -> ExitCode {
    let mut script = Vec::new();
    let name = program.get_name().to_owned();
    clap_complete::generate(arguments.shell, &mut program, name, &mut script);
    let written = std::io::stdout().write_all(&script).map_err(Failure::Output);
    ended(written.map(|()| Exit::Done), false)
}

fn ended(result: Result<Exit, Failure>, json: bool) -> ExitCode {
    let exit = result.unwrap_or_else(|failure| {
        output::report(&failure, json);
        failure.exit()
    });
    ExitCode::from(exit as u8)
}
