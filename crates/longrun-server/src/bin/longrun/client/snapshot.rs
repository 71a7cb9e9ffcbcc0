//! `longrun snapshot`: snapshots of a running server.

use std::collections::BTreeMap;

use clap::{ArgGroup, Args, Subcommand};
use longrun_api::well_known::FieldMask;
use longrun_api::yandex::cloud::compute::v1::{
    CreateSnapshotRequest, DeleteSnapshotRequest, ListSnapshotsRequest, Snapshot, UpdateSnapshotRequest,
};

use super::connection::Connection;
use super::failure::{Exit, Failure};
use super::op::{Limit, accepted};
use super::output;
use super::session::{Key, Session};
use super::view::View;

/// What can be done with the snapshots of a server.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// Asks a server for a snapshot of a disk.
    Create(Create),
    /// Shows a snapshot of a server.
    Get(Get),
    /// Lists the snapshots of a folder.
    List(List),
    /// Changes the name, description or labels of a snapshot. What is not named stays.
    Update(Update),
    /// Deletes a snapshot.
    Delete(Delete),
    /// Lists the operations of a snapshot, newest first; also of one that is gone.
    Operations(Operations),
}

/// `snapshot create`.
#[derive(Args)]
#[command(after_help = "\
Prints the operation, whose metadata has the snapshot's id at once; with --wait the snapshot when it is ready. An operation
that fails or is cancelled leaves nothing behind.

Examples:
  longrun snapshot create --folder b1g --disk root-disk --name before-upgrade --label env=prod --wait
  operation=$(longrun snapshot create --folder b1g --disk root-disk --json | jq -r .id)")]
pub(crate) struct Create {
    /// The folder that the snapshot is to be in.
    #[arg(long, env = "LONGRUN_FOLDER")]
    folder: String,
    /// The disk.
    #[arg(long)]
    disk: String,
    /// Its name; need not be unique.
    #[arg(long, default_value = "", hide_default_value = true)]
    name: String,
    /// Its description.
    #[arg(long, default_value = "", hide_default_value = true, value_name = "TEXT")]
    description: String,
    /// A label; may be given more than once.
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    labels: Vec<(String, String)>,
    #[command(flatten)]
    change: Change,
    #[command(flatten)]
    connection: Connection,
}

/// `snapshot get`.
#[derive(Args)]
pub(crate) struct Get {
    /// The snapshot.
    id: String,
    #[command(flatten)]
    connection: Connection,
}

/// `snapshot list`.
#[derive(Args)]
#[command(after_help = "\
Examples:
  longrun snapshot list --folder b1g --order-by 'createdAt desc' --limit 10
  longrun snapshot list --folder b1g --filter 'name IN (\"before-upgrade\", \"nightly\")'")]
pub(crate) struct List {
    /// The folder.
    #[arg(long, env = "LONGRUN_FOLDER")]
    folder: String,
    /// Only some: conditions on the name with =, !=, IN or NOT IN, joined by AND.
    #[arg(long, default_value = "", hide_default_value = true, value_name = "CONDITION")]
    filter: String,
    /// By id, name or createdAt, then asc or desc.
    #[arg(long, default_value = "", hide_default_value = true, value_name = "FIELD [DIRECTION]")]
    order_by: String,
    #[command(flatten)]
    limit: Limit,
    #[command(flatten)]
    connection: Connection,
}

/// `snapshot update`.
#[derive(Args)]
#[command(
    group(ArgGroup::new("changed").required(true).multiple(true)
        .args(["name", "description", "labels", "clear_labels"])),
    after_help = "\
Examples:
  longrun snapshot update fd8... --name nightly --description '' --wait
  longrun snapshot update fd8... --label env=prod --label tier=1
  longrun snapshot update fd8... --clear-labels"
)]
pub(crate) struct Update {
    /// The snapshot.
    id: String,
    /// The new name; an empty one takes it away.
    #[arg(long)]
    name: Option<String>,
    /// The new description; an empty one takes it away.
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// A label; may be given more than once. All labels that the snapshot had are replaced by those given.
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    labels: Vec<(String, String)>,
    /// Take all labels away.
    #[arg(long, conflicts_with = "labels")]
    clear_labels: bool,
    #[command(flatten)]
    change: Change,
    #[command(flatten)]
    connection: Connection,
}

/// `snapshot delete`.
#[derive(Args)]
pub(crate) struct Delete {
    /// The snapshot.
    id: String,
    #[command(flatten)]
    change: Change,
    #[command(flatten)]
    connection: Connection,
}

/// `snapshot operations`.
#[derive(Args)]
pub(crate) struct Operations {
    /// The snapshot.
    id: String,
    #[command(flatten)]
    limit: Limit,
    #[command(flatten)]
    connection: Connection,
}

/// What every change can be told.
#[derive(Args)]
struct Change {
    /// Wait until the operation is done.
    #[arg(long)]
    wait: bool,
    /// Repeating a request with its key gives the operation of the first, and does nothing else. A fresh key is made if none is
    /// given.
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
}

impl Change {
    fn key(&self) -> Result<Key, Failure> {
        Key::new(self.idempotency_key.as_deref())
    }
}

impl Command {
    const fn connection(&self) -> &Connection {
        match self {
            Self::Create(Create { connection, .. })
            | Self::Get(Get { connection, .. })
            | Self::List(List { connection, .. })
            | Self::Update(Update { connection, .. })
            | Self::Delete(Delete { connection, .. })
            | Self::Operations(Operations { connection, .. }) => connection,
        }
    }

    /// Whether what is printed is for programs.
    pub(super) const fn json(&self) -> bool {
        self.connection().json
    }
}

/// Runs a command.
pub(super) async fn run(command: Command) -> Result<Exit, Failure> {
    // Before anything is sent, whatever is wrong with the arguments is told.
    let request = Request::of(&command)?;
    let session = Session::open(command.connection()).await?;
    let json = command.json();
    match request {
        Request::Create(key, request, wait) => {
            let operation = session.create(&key, request).await?;
            accepted(&session, operation, wait, json, show_made).await
        }
        Request::Update(key, request, wait) => {
            let operation = session.update(&key, request).await?;
            accepted(&session, operation, wait, json, show_made).await
        }
        Request::Delete(key, request, wait) => {
            let operation = session.delete(&key, request).await?;
            accepted(&session, operation, wait, json, |view| output::operation(view, false)).await
        }
        Request::Get(id) => {
            output::snapshot(&session.snapshot(&id).await?, json)?;
            Ok(Exit::Done)
        }
        Request::List(request, limit) => {
            let listed = session.list_snapshots(&request, limit.get()).await?;
            output::snapshots(&listed.items, json)?;
            limit.tell(&session, &listed);
            Ok(Exit::Done)
        }
        Request::Operations(id, limit) => {
            let listed = session.snapshot_operations(&id, limit.get()).await?;
            output::operations(&listed.items, json)?;
            limit.tell(&session, &listed);
            Ok(Exit::Done)
        }
    }
}

/// A command as the call that it stands for. `bool`: whether its operation is waited for.
enum Request {
    Create(Key, CreateSnapshotRequest, bool),
    Update(Key, UpdateSnapshotRequest, bool),
    Delete(Key, DeleteSnapshotRequest, bool),
    Get(String),
    List(ListSnapshotsRequest, Limit),
    Operations(String, Limit),
}

impl Request {
    fn of(command: &Command) -> Result<Self, Failure> {
        Ok(match command {
            Command::Create(create) => {
                Self::Create(create.change.key()?, create.request()?, create.change.wait)
            }
            Command::Update(update) => {
                Self::Update(update.change.key()?, update.request()?, update.change.wait)
            }
            Command::Delete(delete) => {
                let request = DeleteSnapshotRequest { snapshot_id: delete.id.clone() };
                Self::Delete(delete.change.key()?, request, delete.change.wait)
            }
            Command::Get(get) => Self::Get(get.id.clone()),
            Command::List(list) => Self::List(list.request(), list.limit),
            Command::Operations(operations) => Self::Operations(operations.id.clone(), operations.limit),
        })
    }
}

impl Create {
    fn request(&self) -> Result<CreateSnapshotRequest, Failure> {
        Ok(CreateSnapshotRequest {
            folder_id: self.folder.clone(),
            disk_id: self.disk.clone(),
            name: self.name.clone(),
            description: self.description.clone(),
            labels: labels(&self.labels)?,
            hardware_generation: None,
        })
    }
}

impl List {
    fn request(&self) -> ListSnapshotsRequest {
        ListSnapshotsRequest {
            folder_id: self.folder.clone(),
            filter: self.filter.clone(),
            order_by: self.order_by.clone(),
            ..ListSnapshotsRequest::default()
        }
    }
}

impl Update {
    /// The mask names what was given, so that an empty value empties the field instead of leaving it.
    fn request(&self) -> Result<UpdateSnapshotRequest, Failure> {
        let given = [
            ("name", self.name.is_some()),
            ("description", self.description.is_some()),
            ("labels", self.clear_labels || !self.labels.is_empty()),
        ];
        let paths = given.iter().filter(|(_, given)| *given).map(|(path, _)| (*path).to_owned());
        Ok(UpdateSnapshotRequest {
            snapshot_id: self.id.clone(),
            update_mask: Some(FieldMask { paths: paths.collect() }),
            name: self.name.clone().unwrap_or_default(),
            description: self.description.clone().unwrap_or_default(),
            labels: labels(&self.labels)?,
        })
    }
}

/// Reads `KEY=VALUE`. Whether both keep their rules, the server says, which names all that is wrong at once.
fn label(text: &str) -> Result<(String, String), &'static str> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("must be KEY=VALUE"),
    }
}

fn labels(given: &[(String, String)]) -> Result<BTreeMap<String, String>, Failure> {
    let mut labels = BTreeMap::new();
    for (key, value) in given {
        if labels.insert(key.clone(), value.clone()).is_some() {
            return Err(Failure::Usage(format!("--label: {key} is given twice")));
        }
    }
    Ok(labels)
}

/// Prints the snapshot that an operation has made or changed.
fn show_made(view: &View) -> Result<(), Failure> {
    match view.response().and_then(|response| response.unpack::<Snapshot>()) {
        Some(snapshot) => output::snapshot(&snapshot, false),
        None => output::operation(view, false),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Program {
        #[command(subcommand)]
        command: Command,
    }

    fn parse(arguments: &[&str]) -> Result<Command, clap::Error> {
        let arguments = std::iter::once("snapshot").chain(arguments.iter().copied());
        Program::try_parse_from(arguments).map(|program| program.command)
    }

    fn update(arguments: &[&str]) -> UpdateSnapshotRequest {
        match Request::of(&parse(&[&["update", "fd8"], arguments].concat()).unwrap()) {
            Ok(Request::Update(_, request, _)) => request,
            _ => panic!("no update"),
        }
    }

    #[test]
    fn the_mask_names_what_was_given() {
        let paths = |arguments: &[&str]| update(arguments).update_mask.unwrap().paths;
        assert_eq!(paths(&["--name", "n"]), ["name"]);
        assert_eq!(paths(&["--description", "", "--name", ""]), ["name", "description"]);
        assert_eq!(paths(&["--label", "a=b"]), ["labels"]);
        assert_eq!(paths(&["--clear-labels", "--name", "n"]), ["name", "labels"]);
        let request = update(&["--label", "a=b", "--label", "c="]);
        assert_eq!(request.labels, [("a", "b"), ("c", "")].map(|(k, v)| (k.into(), v.into())).into());
        assert_eq!(update(&["--clear-labels"]).labels, BTreeMap::new());
    }

    #[test]
    fn an_update_of_nothing_and_one_that_contradicts_itself_are_refused() {
        assert!(parse(&["update", "fd8"]).is_err());
        assert!(parse(&["update", "fd8", "--wait"]).is_err());
        assert!(parse(&["update", "fd8", "--clear-labels", "--label", "a=b"]).is_err());
    }

    #[test]
    fn labels_are_read() {
        let label = |text| label(text).map_err(|_| ());
        assert_eq!(label("a=b"), Ok(("a".to_owned(), "b".to_owned())));
        assert_eq!(label("a="), Ok(("a".to_owned(), String::new())));
        assert_eq!(label("a=b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
        assert_eq!((label("a"), label("=b"), label("")), (Err(()), Err(()), Err(())));
        let twice = parse(&["create", "--folder", "f", "--disk", "d", "--label", "a=1", "--label", "a=2"]);
        assert!(matches!(Request::of(&twice.unwrap()), Err(Failure::Usage(_))));
    }

    #[test]
    fn a_create_takes_its_fields() {
        let command = parse(&[
            "create",
            "--folder",
            "f",
            "--disk",
            "d",
            "--name",
            "n",
            "--description",
            "t",
            "--label",
            "a=b",
        ]);
        let Ok(Request::Create(_, request, wait)) = Request::of(&command.unwrap()) else {
            panic!("no create")
        };
        let expected = CreateSnapshotRequest {
            folder_id: "f".to_owned(),
            disk_id: "d".to_owned(),
            name: "n".to_owned(),
            description: "t".to_owned(),
            labels: [("a".to_owned(), "b".to_owned())].into(),
            hardware_generation: None,
        };
        assert_eq!((request, wait), (expected, false));
    }
}
