//! `longrun op`: operations of a running server.

use clap::{Args, Subcommand};

use super::connection::Connection;
use super::failure::{Exit, Failure};
use super::output;
use super::session::{Listed, Session};
use super::text::escape;
use super::view::{State, View};
use super::wait::{self, Waited};

/// What can be done with operations.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// Shows an operation as it is now.
    Get(Get),
    /// Lists operations, newest first.
    List(List),
    /// Waits until operations are done, and shows what they have come to.
    Wait(Wait),
    /// Asks for an operation to be undone.
    Cancel(Cancel),
}

/// `op get`.
#[derive(Args)]
pub(crate) struct Get {
    /// The operation.
    id: String,
    #[command(flatten)]
    connection: Connection,
}

/// `op list`.
#[derive(Args)]
#[command(after_help = "\
Examples:
  longrun op list --unfinished
  longrun op list --done --json | jq -r '.[] | select(.error) | .id'")]
pub(crate) struct List {
    /// Only those that are on their way: running, rolling back or blocked.
    #[arg(long, conflicts_with = "done")]
    unfinished: bool,
    /// Only those that are done: finished, or wholly undone.
    #[arg(long)]
    done: bool,
    #[command(flatten)]
    limit: Limit,
    #[command(flatten)]
    connection: Connection,
}

/// `op wait`.
#[derive(Args)]
#[command(after_help = "\
On a terminal a bar shows how far each operation has come, and why it rolls back if it does. A server that goes away in the
meantime is waited for, up to a minute. The exit code is 0 when all have succeeded, 1 when one has failed or was cancelled,
3 when --timeout is over or the server is away; of several that apply, the highest.

Examples:
  longrun op wait opr3f... --timeout 10m
  longrun op wait $(longrun op list --unfinished --json | jq -r '.[].id')")]
pub(crate) struct Wait {
    /// The operations.
    #[arg(required = true, value_name = "ID")]
    ids: Vec<String>,
    #[command(flatten)]
    connection: Connection,
}

/// `op cancel`.
#[derive(Args)]
#[command(after_help = "\
A cancelled operation rolls back, and is done when everything is undone. One that is done, or past its point of no return,
stays as it is; what is printed shows it.

With --wait the exit code is 0 when the operation was cancelled and is wholly undone, and 1 when it ended otherwise.

Example:
  longrun op cancel opr3f... --wait")]
pub(crate) struct Cancel {
    /// The operation.
    id: String,
    /// Wait until it is done.
    #[arg(long)]
    wait: bool,
    #[command(flatten)]
    connection: Connection,
}

/// How many items of a list are shown.
#[derive(Args, Clone, Copy, Debug)]
pub(super) struct Limit {
    /// Show so many at most. Standard error tells if there are more.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
}

impl Limit {
    pub(super) fn get(self) -> usize {
        usize::try_from(self.limit).unwrap_or(usize::MAX)
    }

    /// Tells if a list was cut short, or is empty.
    pub(super) fn tell<T>(self, session: &Session, listed: &Listed<T>) {
        if listed.more {
            session.screen.note(&format!("longrun: there are more than these; see --limit {}", self.limit));
        } else if listed.items.is_empty() {
            session.screen.note("longrun: there are none");
        }
    }
}

impl Command {
    const fn connection(&self) -> &Connection {
        match self {
            Self::Get(Get { connection, .. })
            | Self::List(List { connection, .. })
            | Self::Wait(Wait { connection, .. })
            | Self::Cancel(Cancel { connection, .. }) => connection,
        }
    }

    /// Whether what is printed is for programs.
    pub(super) const fn json(&self) -> bool {
        self.connection().json
    }
}

/// Runs a command.
pub(super) async fn run(command: Command) -> Result<Exit, Failure> {
    let session = Session::open(command.connection()).await?;
    let json = command.json();
    match command {
        Command::Get(get) => output::operation(&session.operation(&get.id).await?, json)?,
        Command::List(list) => {
            let filter = filter(list.unfinished, list.done);
            let listed = session.list_operations(filter, list.limit.get()).await?;
            output::operations(&listed.items, json)?;
            list.limit.tell(&session, &listed);
        }
        Command::Wait(wait) => return wait_for(&session, &wait.ids, json).await,
        Command::Cancel(cancel) => return self::cancel(&session, &cancel, json).await,
    }
    Ok(Exit::Done)
}

const fn filter(unfinished: bool, done: bool) -> &'static str {
    match (unfinished, done) {
        (true, _) => "done = false",
        (_, true) => "done = true",
        _ => "",
    }
}

async fn wait_for(session: &Session, ids: &[String], json: bool) -> Result<Exit, Failure> {
    let waited = wait::all_done(session, ids).await;
    let (views, failures): (Vec<_>, Vec<_>) =
        waited.into_iter().map(|Waited { last, failure }| (last, failure)).unzip();
    let views: Vec<View> = views.into_iter().flatten().collect();
    match (ids, views.as_slice()) {
        ([_], [view]) => output::operation(view, json)?,
        ([_], _) => {}
        _ => output::operations(&views, json)?,
    }
    let failures = failures.into_iter().flatten();
    Ok(failures
        .inspect(|failure| output::report(failure, json))
        .map(|failure| failure.exit())
        .fold(Exit::Done, Ord::max))
}

async fn cancel(session: &Session, cancel: &Cancel, json: bool) -> Result<Exit, Failure> {
    let view = View::from(session.cancel(&cancel.id).await?);
    if !cancel.wait {
        if view.done() && !view.was_cancelled() {
            session.screen.note(&format!("longrun: operation {} was done already", escape(view.id())));
        }
        output::operation(&view, json)?;
        return Ok(Exit::Done);
    }
    let Waited { last, failure } = wait::until_done(session, view.id()).await;
    let last = last.unwrap_or(view);
    output::operation(&last, json)?;
    match (last.state(), failure) {
        (State::Cancelled, _) => Ok(Exit::Done),
        (_, Some(failure)) => Err(failure),
        (_, None) => {
            let what = format!("operation {} was not cancelled: it has succeeded", last.id());
            Err(Failure::Ended { what, error: None })
        }
    }
}

/// Shows the operation that a change was accepted as, or waits for it. `show` prints what it has made.
pub(super) async fn accepted(
    session: &Session,
    operation: longrun_api::yandex::cloud::operation::Operation,
    wait: bool,
    json: bool,
    show: impl FnOnce(&View) -> Result<(), Failure>,
) -> Result<Exit, Failure> {
    let view = View::from(operation);
    if !wait {
        output::operation(&view, json)?;
        return Ok(Exit::Done);
    }
    let Waited { last, failure } = wait::until_done(session, view.id()).await;
    let last = last.unwrap_or(view);
    match failure {
        None if !json => show(&last)?,
        _ => output::operation(&last, json)?,
    }
    failure.map_or(Ok(Exit::Done), Err)
}
