//! What is printed: results on standard output, as tables or JSON; everything else on standard error.

use std::io::{self, Write};

use comfy_table::presets::NOTHING;
use comfy_table::{ContentArrangement, Table};
use longrun_api::well_known::Any;
use longrun_api::yandex::cloud::compute::v1::{Snapshot, snapshot::Status};
use serde::Serialize;
use serde_json::Value;

use super::failure::{Failure, summary};
use super::text::{bytes, escape, escape_json, percent, second, shorten, time};
use super::view::View;

/// Characters of an error in a table. All of it is in the card of its operation.
const ERROR_WIDTH: usize = 60;

/// Prints an operation.
pub(super) fn operation(view: &View, json: bool) -> Result<(), Failure> {
    if json { print_json(&view.operation) } else { print(&operation_card(view)) }
}

/// Prints operations.
pub(super) fn operations(views: &[View], json: bool) -> Result<(), Failure> {
    if json {
        return print_json(&views.iter().map(|view| &view.operation).collect::<Vec<_>>());
    }
    print(&operations_table(views))
}

/// Prints a snapshot.
pub(super) fn snapshot(snapshot: &Snapshot, json: bool) -> Result<(), Failure> {
    if json { print_json(snapshot) } else { print(&snapshot_card(snapshot)) }
}

/// Prints snapshots.
pub(super) fn snapshots(snapshots: &[Snapshot], json: bool) -> Result<(), Failure> {
    if json { print_json(&snapshots) } else { print(&snapshots_table(snapshots)) }
}

/// Says on standard error why a command did not do what it was asked for.
pub(super) fn report(failure: &Failure, json: bool) {
    let lines = failure.lines();
    if lines.is_empty() {
        return;
    }
    match to_json(&failure.status()) {
        Ok(text) if json => note(&text),
        _ => note(&format!("longrun: {}", lines.join("\n"))),
    }
}

/// Says something beside the result. The text is fit for a terminal already.
pub(super) fn note(text: &str) {
    // Where nobody can be told, nobody can be told that either.
    let _ = writeln!(io::stderr(), "{text}");
}

fn print(text: &str) -> Result<(), Failure> {
    if text.is_empty() {
        return Ok(());
    }
    writeln!(io::stdout(), "{text}").map_err(Failure::Output)
}

fn print_json(value: &impl Serialize) -> Result<(), Failure> {
    print(&to_json(value)?)
}

fn to_json(value: &impl Serialize) -> Result<String, Failure> {
    let json = serde_json::to_string_pretty(value);
    json.map(|json| escape_json(&json)).map_err(|error| Failure::BadAnswer(error.to_string()))
}

fn operation_card(view: &View) -> String {
    let operation = &view.operation;
    card(&[
        ("ID", view.id().to_owned()),
        ("State", view.phase()),
        ("Progress", view.progress_words().unwrap_or_default()),
        ("Description", operation.description.clone()),
        ("Created", time(operation.created_at)),
        ("Created by", operation.created_by.clone()),
        ("Modified", time(operation.modified_at)),
        ("Metadata", operation.metadata.as_ref().map(message).unwrap_or_default()),
        ("Response", view.response().map(message).unwrap_or_default()),
    ])
}

fn operations_table(views: &[View]) -> String {
    let row = |view: &View| {
        let operation = &view.operation;
        let share = view.progress().and_then(|progress| percent(progress.done, progress.total));
        let share = share.map(|percent| format!(" {percent} %")).unwrap_or_default();
        let error = view.error().map(summary).unwrap_or_default();
        [
            view.id().to_owned(),
            format!("{}{share}", view.state().words()),
            second(operation.created_at),
            operation.created_by.clone(),
            operation.description.clone(),
            shorten(&error, ERROR_WIDTH).into_owned(),
        ]
    };
    table(["ID", "STATE", "CREATED", "BY", "DESCRIPTION", "ERROR"], views.iter().map(row))
}

fn snapshot_card(snapshot: &Snapshot) -> String {
    let labels = snapshot.labels.iter().map(|(key, value)| format!("{key}={value}"));
    let size = |size: i64| format!("{} ({size} bytes)", bytes(size));
    card(&[
        ("ID", snapshot.id.clone()),
        ("Name", snapshot.name.clone()),
        ("Status", status(snapshot)),
        ("Description", snapshot.description.clone()),
        ("Labels", labels.collect::<Vec<_>>().join(" ")),
        ("Folder", snapshot.folder_id.clone()),
        ("Disk", snapshot.source_disk_id.clone()),
        ("Disk size", size(snapshot.disk_size)),
        ("Stored", size(snapshot.storage_size)),
        ("Created", time(snapshot.created_at)),
        ("Products", snapshot.product_ids.join(" ")),
    ])
}

fn snapshots_table(snapshots: &[Snapshot]) -> String {
    let row = |snapshot: &Snapshot| {
        [
            snapshot.id.clone(),
            snapshot.name.clone(),
            status(snapshot),
            snapshot.source_disk_id.clone(),
            bytes(snapshot.disk_size),
            bytes(snapshot.storage_size),
            second(snapshot.created_at),
        ]
    };
    let header = ["ID", "NAME", "STATUS", "DISK", "DISK SIZE", "STORED", "CREATED"];
    table(header, snapshots.iter().map(row))
}

fn status(snapshot: &Snapshot) -> String {
    // A number that this build has no name for is shown as it came.
    Status::try_from(snapshot.status)
        .map_or_else(|_| snapshot.status.to_string(), |status| status.as_str_name().to_owned())
}

/// A message in one line: its type and its id, or all that it has of plain values.
fn message(any: &Any) -> String {
    let name = any.name().rsplit('.').next().unwrap_or_default();
    let Ok(Value::Object(mut fields)) = serde_json::to_value(any) else { return name.to_owned() };
    fields.remove("@type");
    if let Some(id) = fields.remove("id") {
        fields = [("id".to_owned(), id)].into_iter().collect();
    }
    let plain = |value: &Value| match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
        _ => None,
    };
    let fields = fields.iter().filter_map(|(key, value)| Some(format!(" {key}={}", plain(value)?)));
    format!("{name}{}", fields.collect::<String>())
}

/// Names and values below each other, those without a value left out.
fn card(rows: &[(&str, String)]) -> String {
    let mut table = bare();
    for (name, value) in rows.iter().filter(|(_, value)| !value.is_empty()) {
        table.add_row([*name, &*escape(value)]);
    }
    finish(table)
}

/// A table; nothing if it has no rows, so that a script counts none.
fn table<const N: usize>(header: [&str; N], rows: impl Iterator<Item = [String; N]>) -> String {
    let mut table = bare();
    table.set_header(header);
    for row in rows {
        table.add_row(row.iter().map(|cell| escape(cell).into_owned()));
    }
    if table.is_empty() { String::new() } else { finish(table) }
}

fn bare() -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table
}

fn finish(mut table: Table) -> String {
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.trim_fmt()
}

#[cfg(test)]
mod tests {
    use longrun_api::well_known::Timestamp;
    use longrun_api::yandex::cloud::compute::v1::CreateSnapshotMetadata;

    use super::super::view::tests::{error, google};
    use super::*;

    fn example() -> Snapshot {
        Snapshot {
            id: "fd8a".to_owned(),
            folder_id: "b1g".to_owned(),
            created_at: Some(Timestamp { seconds: 1_535_567_475, nanos: 311_000_000 }),
            name: "before-upgrade".to_owned(),
            labels: [("env", "prod"), ("tier", "1")].map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
            storage_size: 1_500_000,
            disk_size: 268_435_456,
            status: Status::Ready.into(),
            source_disk_id: "epd".to_owned(),
            ..Snapshot::default()
        }
    }

    #[test]
    fn snapshots_in_a_table() {
        let strange = Snapshot { id: "fd8b".to_owned(), status: 77, ..Snapshot::default() };
        assert_eq!(
            snapshots_table(&[example(), strange]),
            "\
ID    NAME            STATUS  DISK  DISK SIZE   STORED    CREATED
fd8a  before-upgrade  READY   epd   256.00 MiB  1.43 MiB  2018-08-29T18:31:15Z
fd8b                  77            0 B         0 B"
        );
        assert_eq!(snapshots_table(&[]), "");
    }

    #[test]
    fn a_snapshot_in_a_card() {
        assert_eq!(
            snapshot_card(&example()),
            "\
ID         fd8a
Name       before-upgrade
Status     READY
Labels     env=prod tier=1
Folder     b1g
Disk       epd
Disk size  256.00 MiB (268435456 bytes)
Stored     1.43 MiB (1500000 bytes)
Created    2018-08-29T18:31:15.311Z"
        );
    }

    #[test]
    fn operations_in_a_table() {
        let views = [
            google(false, None),
            google(false, Some(error(1, "cancelled"))),
            google(true, Some(error(9, &"the disk changed its size ".repeat(9)))),
        ];
        assert_eq!(
            operations_table(&views.map(View::from)),
            "\
ID    STATE         CREATED               BY   DESCRIPTION      ERROR
opr1  running 39 %  2018-08-29T18:31:15Z  ann  Create snapshot
opr1  rolling back  2018-08-29T18:31:15Z  ann  Create snapshot  CANCELLED: cancelled
opr1  failed        2018-08-29T18:31:15Z  ann  Create snapshot  FAILED_PRECONDITION: the disk changed its size the disk cha…"
        );
    }

    #[test]
    fn an_operation_in_a_card() {
        let mut view = View::from(google(false, None));
        let metadata = CreateSnapshotMetadata { snapshot_id: "fd8a".to_owned(), disk_id: "epd".to_owned() };
        view.operation.metadata = Some(Any::pack(&metadata));
        assert_eq!(
            operation_card(&view),
            "\
ID           opr1
State        running
Progress     39 %, 100.00 MiB of 256.00 MiB
Description  Create snapshot
Created      2018-08-29T18:31:15.311Z
Created by   ann
Modified     2018-08-29T18:31:20Z
Metadata     CreateSnapshotMetadata diskId=epd snapshotId=fd8a"
        );
    }

    #[test]
    fn a_message_in_a_line() {
        assert_eq!(message(&Any::pack(&example())), "Snapshot id=fd8a");
        let empty = Any { type_url: "t/google.protobuf.Empty".to_owned(), ..Any::default() };
        assert_eq!(message(&empty), "Empty");
    }

    #[test]
    fn what_a_server_says_does_nothing_to_a_terminal() {
        let hostile = "\u{1b}[2J\n\u{9b}\u{202e}";
        let snapshot = Snapshot {
            id: hostile.to_owned(),
            labels: [(hostile.to_owned(), hostile.to_owned())].into(),
            ..example()
        };
        let mut view = View::from(google(true, Some(error(9, hostile))));
        view.operation.metadata = Some(Any::pack(&snapshot));
        view.operation.created_by = hostile.to_owned();
        for shown in [
            snapshot_card(&snapshot),
            snapshots_table(std::slice::from_ref(&snapshot)),
            operation_card(&view),
            operations_table(std::slice::from_ref(&view)),
            to_json(&snapshot).unwrap(),
            to_json(&view.operation).unwrap(),
        ] {
            let active = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
            assert!(!shown.contains(active), "{shown:?}");
        }
        assert_eq!(snapshots_table(&[snapshot]).lines().count(), 2);
    }
}
