//! The limits of every request, each at its bound and one beyond; and which fields an update writes.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;

use longrun::core::limits::STATUS_MESSAGE_BYTES_MAX;
use longrun::{Code, PageRequest, ResourceId, ResourceStatus, Status, Timestamp};
use longrun_snapshot::Snapshot;
use longrun_snapshot::service::{
    CreateSnapshotRequest, DeleteSnapshotRequest, GetSnapshotRequest, LABELS_MAX, Limits,
    ListSnapshotOperationsRequest, ListSnapshotsRequest, UpdateSnapshotRequest, VIOLATIONS_MAX, Violations,
};
use proptest::prelude::*;

type Labels = BTreeMap<String, String>;

fn x(count: usize) -> String {
    "x".repeat(count)
}

/// As many characters, more bytes.
fn wide(count: usize) -> String {
    "я".repeat(count)
}

fn labels<const N: usize>(pairs: [(&str, &str); N]) -> Labels {
    pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).into()
}

fn numbered(count: usize) -> Labels {
    (0..count).map(|number| (format!("key-{number}"), String::new())).collect()
}

fn get() -> GetSnapshotRequest {
    GetSnapshotRequest { snapshot_id: x(1) }
}

fn list() -> ListSnapshotsRequest {
    ListSnapshotsRequest { folder_id: x(1), ..ListSnapshotsRequest::default() }
}

fn create() -> CreateSnapshotRequest {
    CreateSnapshotRequest { folder_id: x(1), disk_id: x(1), ..CreateSnapshotRequest::default() }
}

fn update() -> UpdateSnapshotRequest {
    UpdateSnapshotRequest { snapshot_id: x(1), ..UpdateSnapshotRequest::default() }
}

fn delete() -> DeleteSnapshotRequest {
    DeleteSnapshotRequest { snapshot_id: x(1) }
}

fn list_operations() -> ListSnapshotOperationsRequest {
    ListSnapshotOperationsRequest { snapshot_id: x(1), ..ListSnapshotOperationsRequest::default() }
}

fn checked<T>(result: Result<T, Violations>) -> Result<(), Violations> {
    result.map(drop)
}

fn get_with(set: impl FnOnce(&mut GetSnapshotRequest)) -> Result<(), Violations> {
    let mut request = get();
    set(&mut request);
    request.check()
}

fn list_with(set: impl FnOnce(&mut ListSnapshotsRequest)) -> Result<(), Violations> {
    let mut request = list();
    set(&mut request);
    checked(request.check(Limits::documented()))
}

fn create_with(set: impl FnOnce(&mut CreateSnapshotRequest)) -> Result<(), Violations> {
    let mut request = create();
    set(&mut request);
    request.check(Limits::documented())
}

fn update_with(set: impl FnOnce(&mut UpdateSnapshotRequest)) -> Result<(), Violations> {
    let mut request = update();
    set(&mut request);
    checked(request.check(Limits::documented()))
}

fn delete_with(set: impl FnOnce(&mut DeleteSnapshotRequest)) -> Result<(), Violations> {
    let mut request = delete();
    set(&mut request);
    request.check()
}

fn list_operations_with(set: impl FnOnce(&mut ListSnapshotOperationsRequest)) -> Result<(), Violations> {
    let mut request = list_operations();
    set(&mut request);
    checked(request.check())
}

fn fields(violations: &Violations) -> Vec<&str> {
    violations.iter().map(|violation| violation.field.as_str()).collect()
}

/// The name of a rule, the field it is about, values that keep it, values that break it.
type Rule<'a, T> = (&'a str, &'a str, Vec<T>, Vec<T>);

/// Holds every value of a rule against a request that is right in everything else.
fn hold<T: std::fmt::Debug>(
    (rule, field, good, bad): Rule<'_, T>,
    request: impl Fn(&T) -> Result<(), Violations>,
) {
    for value in good {
        assert_eq!(request(&value), Ok(()), "{rule}: {value:?}");
    }
    for value in bad {
        let Err(violations) = request(&value) else { panic!("{rule}: {value:?} was taken") };
        assert_eq!(fields(&violations), [field], "{rule}: {value:?}");
    }
}

#[test]
fn a_request_with_nothing_but_its_ids_is_right() {
    assert_eq!(get().check(), Ok(()));
    assert_eq!(create().check(Limits::documented()), Ok(()));
    assert_eq!(delete().check(), Ok(()));
    assert!(update().check(Limits::documented()).unwrap().is_empty());
    let first_hundred = PageRequest { size: 100, token: String::new() };
    let all = list().check(Limits::documented()).unwrap();
    assert!(all.filter.is_everything());
    assert_eq!((all.page, all.order_by.to_string().as_str()), (first_hundred.clone(), "id asc"));
    assert_eq!(list_operations().check(), Ok(first_hundred));
}

fn id_rule(field: &str) -> Rule<'_, String> {
    let odd = ["a b", "../x", "a.b", "a\n", "a/"].map(str::to_owned);
    let bad = [x(0), x(51), wide(1), wide(51)].into_iter().chain(odd).collect();
    ("ids are 1 to 50 letters, digits, '-' and '_'", field, vec![x(1), x(50), "aZ0-_".to_owned()], bad)
}

#[test]
fn ids() {
    hold(id_rule("snapshot_id"), |id| get_with(|request| request.snapshot_id.clone_from(id)));
    hold(id_rule("folder_id"), |id| list_with(|request| request.folder_id.clone_from(id)));
    hold(id_rule("folder_id"), |id| create_with(|request| request.folder_id.clone_from(id)));
    hold(id_rule("disk_id"), |id| create_with(|request| request.disk_id.clone_from(id)));
    hold(id_rule("snapshot_id"), |id| update_with(|request| request.snapshot_id.clone_from(id)));
    hold(id_rule("snapshot_id"), |id| delete_with(|request| request.snapshot_id.clone_from(id)));
    hold(id_rule("snapshot_id"), |id| list_operations_with(|request| request.snapshot_id.clone_from(id)));
}

#[test]
fn pages() {
    let sizes =
        || ("page_size is 0 to 1000", "page_size", vec![0, 1, 1000], vec![-1, 1001, i64::MIN, i64::MAX]);
    hold(sizes(), |size| list_with(|request| request.page_size = *size));
    hold(sizes(), |size| list_operations_with(|request| request.page_size = *size));
    let tokens = || {
        let (good, bad) = (vec![x(0), x(100), wide(100)], vec![x(101), wide(101)]);
        ("page_token is at most 100 characters", "page_token", good, bad)
    };
    hold(tokens(), |token| list_with(|request| request.page_token.clone_from(token)));
    hold(tokens(), |token| list_operations_with(|request| request.page_token.clone_from(token)));
}

#[test]
fn a_page_is_what_was_asked_for() {
    let request = ListSnapshotsRequest { page_size: 7, page_token: x(9), ..list() };
    let page = request.check(Limits::documented()).unwrap().page;
    assert_eq!(page, PageRequest { size: 7, token: x(9) });
}

fn name_rule() -> Rule<'static, String> {
    let good = ["", "abc", "a-1", "a--9", "z00"].map(str::to_owned);
    let bad = [
        "a", "ab", "Abc", "aBc", "abC", "1bc", "-bc", "ab-", "a_c", "a.c", "a c", " abc", "abc ", "abc\n",
        "äbc", "abü", "aяc", "\0\0\0", "abc\0",
    ]
    .map(str::to_owned);
    let ends = |middle| format!("a{}9", "-".repeat(middle));
    (
        "a name is empty or [a-z][-a-z0-9]{1,61}[a-z0-9]",
        "name",
        [good.to_vec(), vec![x(63), ends(1), ends(61)]].concat(),
        [bad.to_vec(), vec![x(64), ends(62), wide(32)]].concat(),
    )
}

#[test]
fn names() {
    hold(name_rule(), |name| create_with(|request| request.name.clone_from(name)));
    hold(name_rule(), |name| update_with(|request| request.name.clone_from(name)));
}

fn description_rule() -> Rule<'static, String> {
    let good = vec![x(0), x(256), wide(256), "any\nthing \u{1f980}".to_owned()];
    ("a description is at most 256 characters", "description", good, vec![x(257), wide(257)])
}

#[test]
fn descriptions() {
    hold(description_rule(), |text| create_with(|request| request.description.clone_from(text)));
    hold(description_rule(), |text| update_with(|request| request.description.clone_from(text)));
}

fn hold_labels(rule: impl Fn() -> Rule<'static, Labels>) {
    hold(rule(), |labels| create_with(|request| request.labels.clone_from(labels)));
    hold(rule(), |labels| update_with(|request| request.labels.clone_from(labels)));
}

#[test]
fn labels_are_at_most_64() {
    assert_eq!(LABELS_MAX, 64);
    hold_labels(|| {
        (
            "labels are at most 64",
            "labels",
            vec![numbered(0), numbered(64)],
            vec![numbered(65), numbered(999)],
        )
    });
}

#[test]
fn label_keys_are_1_to_63_and_begin_with_a_letter() {
    for good in ["k", "k-_0z", "k-", "k__", &x(63)] {
        assert_eq!(create_with(|request| request.labels = labels([(good, "")])), Ok(()), "{good:?}");
        assert_eq!(update_with(|request| request.labels = labels([(good, "")])), Ok(()), "{good:?}");
    }
    let long = format!("labels[\"{}\"]", x(64));
    for (bad, field) in [
        ("", "labels[\"\"]"),
        ("K", "labels[\"K\"]"),
        ("kEy", "labels[\"kEy\"]"),
        ("1k", "labels[\"1k\"]"),
        ("-k", "labels[\"-k\"]"),
        ("_k", "labels[\"_k\"]"),
        ("k.k", "labels[\"k.k\"]"),
        ("k k", "labels[\"k k\"]"),
        ("ключ", "labels[\"\\u{43a}\\u{43b}\\u{44e}\\u{447}\"]"),
        (&x(64), &long),
    ] {
        let violations = create_with(|request| request.labels = labels([(bad, "")])).unwrap_err();
        assert_eq!(fields(&violations), [field]);
        assert!(violations.to_string().contains("the key must be 1 to 63 of a-z, 0-9, '-', '_', beginning"));
        assert_eq!(update_with(|request| request.labels = labels([(bad, "")])), Err(violations));
    }
}

#[test]
fn label_values_are_at_most_63() {
    hold_labels(|| {
        let good = ["", "0", "-", "_", "-_0-9a-z", &x(63)].map(|value| labels([("key", value)]));
        let bad =
            ["V", "vAl", ".", "a b", "é", " ", "\n", &x(64), &wide(32)].map(|value| labels([("key", value)]));
        ("a label's value is [-_0-9a-z]{0,63}", "labels[\"key\"]", good.to_vec(), bad.to_vec())
    });
}

#[test]
fn filters_are_at_most_1000_characters() {
    let filter = |chars: usize| format!("name = abc{}", " ".repeat(chars - 10));
    let rule =
        ("a filter is at most 1000 characters", "filter", vec![x(0), filter(1000)], vec![filter(1001)]);
    hold(rule, |text| list_with(|request| request.filter.clone_from(text)));
    // Of 1001 characters only the length is said, of 1000 what is wrong with them.
    let said = |chars| list_with(|request| request.filter = wide(chars)).unwrap_err().to_string();
    assert_eq!(said(1001), "invalid request: filter: must be at most 1000 characters");
    assert_eq!(said(1000), "invalid request: filter: at character 1: expected the field name");
}

#[test]
fn orders_are_at_most_100_characters() {
    let order = |chars: usize| format!("id{}desc", " ".repeat(chars - 6));
    let rule = ("an order is at most 100 characters", "order_by", vec![x(0), order(100)], vec![order(101)]);
    hold(rule, |text| list_with(|request| request.order_by.clone_from(text)));
    let said = |chars| list_with(|request| request.order_by = wide(chars)).unwrap_err().to_string();
    assert_eq!(said(101), "invalid request: order_by: must be at most 100 characters");
    let fields = "expected one of the fields id, name, createdAt";
    assert_eq!(said(100), format!("invalid request: order_by: at character 1: {fields}"));
}

#[test]
fn the_profile_of_today_takes_more_names_and_labels() {
    let (documented, today) = (Limits::documented(), Limits::today());
    assert_eq!(Limits::default(), documented);
    for name in ["a", "a1", "a_b", "my_disk-1"] {
        assert!(today.is_name(name) && !documented.is_name(name), "{name}");
    }
    for name in ["abc", &x(63)] {
        assert!(today.is_name(name) && documented.is_name(name), "{name}");
    }
    for name in ["", "_", "a_", "_a", "1", "A", &x(64)] {
        assert!(!today.is_name(name) && !documented.is_name(name), "{name}");
    }
    let with = |key: &str, value: &str| CreateSnapshotRequest { labels: labels([(key, value)]), ..create() };
    for request in [with("k./\\@-_", ""), with("key", "./\\@-_")] {
        assert_eq!(request.check(today), Ok(()));
        assert!(request.check(documented).is_err());
    }
    for request in [with(".k", ""), with("k:k", ""), with("key", "V"), with(&x(64), ""), with("key", &x(64))]
    {
        assert!(request.check(today).is_err());
    }
    // A filter can ask for every name that there can be.
    let request = ListSnapshotsRequest { filter: "name = a_b".to_owned(), ..list() };
    assert_eq!(request.check(today).unwrap().filter.exact_name(), Some("a_b"));
    assert!(request.check(documented).is_err());
}

#[test]
fn all_violations_come_at_once_in_the_order_of_the_fields() {
    let request = CreateSnapshotRequest {
        folder_id: String::new(),
        disk_id: x(51),
        name: "Name".to_owned(),
        description: x(257),
        labels: labels([("Key", "Value"), ("fine", "fine"), ("key", "Value")]),
    };
    let violations = request.check(Limits::documented()).unwrap_err();
    let wrong = [
        "folder_id",
        "disk_id",
        "name",
        "description",
        "labels[\"Key\"]",
        "labels[\"Key\"]",
        "labels[\"key\"]",
    ];
    assert_eq!(fields(&violations), wrong);
    assert_eq!(violations.total(), 7);
    assert_eq!(
        Status::from(violations).message(),
        "invalid request: folder_id: must not be empty; disk_id: must be at most 50 characters; name: must be empty, \
         or 3 to 63 of a-z, 0-9, '-', beginning with a letter, ending with a letter or digit; description: must be at \
         most 256 characters; labels[\"Key\"]: the key must be 1 to 63 of a-z, 0-9, '-', '_', beginning with a letter; \
         labels[\"Key\"]: the value must be at most 63 of a-z, 0-9, '-', '_'; labels[\"key\"]: the value must be at \
         most 63 of a-z, 0-9, '-', '_'",
    );

    let request = ListSnapshotsRequest {
        folder_id: String::new(),
        page_size: -1,
        page_token: x(101),
        filter: "name".to_owned(),
        order_by: "size".to_owned(),
    };
    let violations = request.check(Limits::documented()).unwrap_err();
    assert_eq!(fields(&violations), ["folder_id", "page_size", "page_token", "filter", "order_by"]);

    let request = UpdateSnapshotRequest {
        snapshot_id: x(51),
        update_mask: Some(["name", "size", "labels", "", "description"].map(str::to_owned).into()),
        name: "N".to_owned(),
        description: x(257),
        labels: numbered(65),
    };
    let violations = request.check(Limits::documented()).unwrap_err();
    let wrong = ["snapshot_id", "update_mask[1]", "update_mask[3]", "name", "description", "labels"];
    assert_eq!(fields(&violations), wrong);

    let request = ListSnapshotOperationsRequest { snapshot_id: x(0), page_size: 1001, page_token: x(101) };
    assert_eq!(fields(&request.check().unwrap_err()), ["snapshot_id", "page_size", "page_token"]);
}

#[test]
fn violations_are_a_status_of_bounded_length() {
    for count in [1, 40, 64, 65, 128, 5000] {
        let labels = (0..count).map(|number| (format!("{}{number:05}", wide(99)), "V".to_owned())).collect();
        let violations = create_with(|request| request.labels = labels).unwrap_err();
        let total = 2 * count + usize::from(count > LABELS_MAX);
        assert_eq!(violations.total(), total);
        assert_eq!(violations.iter().len(), total.min(VIOLATIONS_MAX));

        let status = Status::from(violations.clone());
        assert_eq!(status.code(), Code::InvalidArgument);
        assert_eq!(status.message(), violations.to_string(), "not cut");
        assert!(status.message().len() <= STATUS_MESSAGE_BYTES_MAX);
        // What is shown is shown whole, and the rest is counted.
        let mut parts: Vec<_> = status.message()["invalid request: ".len()..].split("; ").collect();
        let all: Vec<_> = violations.iter().map(ToString::to_string).collect();
        let rest = parts.pop_if(|last| last.starts_with("and "));
        assert_eq!(parts, all[..parts.len()]);
        let expected = (parts.len() < total).then(|| format!("and {} more", total - parts.len()));
        assert_eq!(rest, expected.as_deref());
    }
}

#[test]
fn the_count_of_what_is_not_shown_always_fits() {
    // Keys of every length, so that the message is full to every degree before the count.
    for length in 1..60 {
        let labels = (100..164).map(|number| (format!("{}{number}", "K".repeat(length)), String::new()));
        let violations = create_with(|request| request.labels = labels.collect()).unwrap_err();
        assert!(violations.to_string().ends_with(" more"));
        assert_eq!(Status::from(violations.clone()).message(), violations.to_string(), "not cut");
    }
}

#[test]
fn hostile_keys_are_escaped_and_cut() {
    for key in ["\n\r\0\u{1b}[31m", "\"]: fine\u{202e}", "\\", &"\u{10ffff}".repeat(1_000_000), &x(1_000_000)]
    {
        let violations = create_with(|request| request.labels = labels([(key, "")])).unwrap_err();
        let field = violations.iter().next().unwrap().field.clone();
        assert!(field.len() <= 100, "{field}");
        assert!(field.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{field}");
        // The only quotes that are not escaped are the two around the key.
        assert_eq!(field.replace("\\\\", "").replace("\\\"", "").matches('"').count(), 2, "{field}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// No text at all makes a check panic, and what it says is always short and plain.
    #[test]
    fn any_text_is_checked(texts in prop::collection::vec(any::<String>(), 6), size in any::<i64>()) {
        let [folder_id, disk_id, name, description, key, value] = <[String; 6]>::try_from(texts).unwrap();
        let create = CreateSnapshotRequest {
            folder_id: folder_id.clone(), disk_id, name: name.clone(), description: description.clone(),
            labels: labels([(&key, &value)]),
        };
        let list = ListSnapshotsRequest {
            folder_id, page_size: size, page_token: name, filter: description, order_by: key,
        };
        let limits = Limits::documented();
        for violations in [create.check(limits).err(), list.check(limits).err()].into_iter().flatten() {
            let text = violations.to_string();
            prop_assert!(text.len() <= STATUS_MESSAGE_BYTES_MAX);
            prop_assert!(text.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{text}");
        }
    }
}

// Updates.

fn snapshot(name: &str, description: &str, labels: Labels) -> Snapshot {
    Snapshot {
        id: ResourceId::new("fd8one").unwrap(),
        folder_id: ResourceId::new("folder").unwrap(),
        created_at: Timestamp::from_unix_millis(1_700_000_000_000).unwrap(),
        name: name.to_owned(),
        description: description.to_owned(),
        labels,
        storage_size: 1,
        disk_size: 2,
        product_ids: vec!["product".to_owned()],
        status: ResourceStatus::Ready,
        source_disk_id: "disk".to_owned(),
        damage: None,
    }
}

fn updated(mask: Option<&[&str]>, name: &str, description: &str, new: Labels) -> Snapshot {
    let request = UpdateSnapshotRequest {
        update_mask: mask.map(|paths| paths.iter().map(|path| (*path).to_owned()).collect()),
        name: name.to_owned(),
        description: description.to_owned(),
        labels: new,
        ..update()
    };
    let before = snapshot("old", "old", labels([("old", "old")]));
    request.check(Limits::documented()).unwrap().apply(&before)
}

#[test]
fn a_mask_names_what_is_written_and_resets_what_has_no_value() {
    let old = || labels([("old", "old")]);
    let new = || labels([("new", "new")]);
    assert_eq!(updated(Some(&["name"]), "new", "new", new()), snapshot("new", "old", old()));
    assert_eq!(updated(Some(&["description"]), "new", "new", new()), snapshot("old", "new", old()));
    // Replaced whole, not merged.
    assert_eq!(updated(Some(&["labels"]), "new", "new", new()), snapshot("old", "old", new()));
    assert_eq!(
        updated(Some(&["name", "labels"]), "", "new", Labels::new()),
        snapshot("", "old", Labels::new())
    );
    assert_eq!(updated(Some(&["name", "name"]), "new", "", new()), snapshot("new", "old", old()));
}

#[test]
fn without_a_mask_the_fields_with_a_value_are_written() {
    let (old, new) = (|| labels([("old", "old")]), || labels([("new", "new")]));
    for mask in [None, Some([].as_slice())] {
        assert_eq!(updated(mask, "new", "", Labels::new()), snapshot("new", "old", old()));
        assert_eq!(updated(mask, "", "new", new()), snapshot("old", "new", new()));
        assert_eq!(updated(mask, "", "", Labels::new()), snapshot("old", "old", old()));
    }
}

#[test]
fn other_paths_than_the_three_are_refused_without_echo() {
    for path in [
        "",
        " ",
        "Name",
        "name ",
        "names",
        "labels.key",
        "name,description",
        "*",
        "id",
        "status",
        "update_mask",
    ] {
        let mask = Some(vec!["name".to_owned(), path.to_owned()]);
        let violations = update_with(|request| request.update_mask = mask).unwrap_err();
        let said = "invalid request: update_mask[1]: must be name, description or labels";
        assert_eq!(violations.to_string(), said);
    }
}

#[test]
fn values_that_are_not_written_may_be_anything() {
    let wrong = |mask: &[&str]| {
        let mask = Some(mask.iter().map(|path| (*path).to_owned()).collect());
        let request = UpdateSnapshotRequest {
            update_mask: mask,
            name: "N".to_owned(),
            description: x(257),
            labels: numbered(65),
            ..update()
        };
        let violations = request.check(Limits::documented()).unwrap_err();
        fields(&violations).into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(wrong(&["name"]), ["name"]);
    assert_eq!(wrong(&["description"]), ["description"]);
    assert_eq!(wrong(&["labels"]), ["labels"]);
    assert_eq!(wrong(&["labels", "name"]), ["name", "labels"]);
}

fn some_labels() -> impl Strategy<Value = Labels> {
    prop::collection::btree_map("[a-zA]{0,2}", "[a-z0-9A]{0,2}", 0..3)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Field by field, said as plainly as it can be: what is written, whether that is allowed, what comes out.
    #[test]
    fn updates_are_as_in_a_naive_model(
        mask in prop::option::of(prop::collection::vec(prop_oneof![
            4 => Just("name"), 4 => Just("description"), 4 => Just("labels"), 1 => Just("size"), 1 => Just(""),
        ], 0..4)),
        name in prop_oneof![Just(String::new()), "[a-z]{3,5}", "[A-Z]"],
        description in prop_oneof![Just(String::new()), ".{1,5}", "x{250,260}"],
        new in some_labels(),
        old in ("[a-z]{3}", ".{0,5}", some_labels()),
    ) {
        let (named, listed) = match &mask {
            Some(paths) if !paths.is_empty() => (true, paths.as_slice()),
            _ => (false, [].as_slice()),
        };
        let written = |path: &str, has_value: bool| if named { listed.contains(&path) } else { has_value };
        let write_name = written("name", !name.is_empty());
        let write_description = written("description", !description.is_empty());
        let write_labels = written("labels", !new.is_empty());
        let wrong_path = listed.iter().any(|path| ["size", ""].contains(path));
        let wrong_name = write_name && name.len() == 1;
        let wrong_description = write_description && description.chars().count() > 256;
        let wrong_label = |(key, value): (&String, &String)| key.is_empty() || (key.clone() + value).contains('A');
        let wrong = [wrong_path, wrong_name, wrong_description, write_labels && new.iter().any(wrong_label)];

        let request = UpdateSnapshotRequest {
            update_mask: mask.as_ref().map(|paths| paths.iter().map(|path| (*path).to_owned()).collect()),
            name: name.clone(), description: description.clone(), labels: new.clone(), ..update()
        };
        let before = snapshot(&old.0, &old.1, old.2);
        let change = request.check(Limits::documented());
        prop_assert_eq!(change.is_ok(), wrong == [false; 4]);
        if let Ok(change) = change {
            let mut after = before.clone();
            if write_name { after.name = name }
            if write_description { after.description = description }
            if write_labels { after.labels = new }
            prop_assert_eq!(change.is_empty(), !(write_name || write_description || write_labels));
            prop_assert_eq!(&change.apply(&before), &after);
            prop_assert_eq!(change.apply(&after), after);
        }
    }
}

// What is stored.

#[test]
fn stored_requests_read_back_and_do_without_what_is_optional() {
    let request =
        CreateSnapshotRequest { name: "abc".to_owned(), labels: labels([("key", "value")]), ..create() };
    let json = r#"{"folderId":"x","diskId":"x","name":"abc","description":"","labels":{"key":"value"}}"#;
    assert_eq!(serde_json::to_string(&request).unwrap(), json);
    assert_eq!(serde_json::from_str::<CreateSnapshotRequest>(json).unwrap(), request);
    let bare = serde_json::from_str::<CreateSnapshotRequest>(r#"{"folderId":"x","diskId":"x"}"#).unwrap();
    assert_eq!(bare, create());

    let request = UpdateSnapshotRequest { update_mask: Some(vec!["name".to_owned()]), ..update() };
    let json = r#"{"snapshotId":"x","updateMask":["name"],"name":"","description":"","labels":{}}"#;
    assert_eq!(serde_json::to_string(&request).unwrap(), json);
    assert_eq!(serde_json::from_str::<UpdateSnapshotRequest>(json).unwrap(), request);
    assert_eq!(serde_json::from_str::<UpdateSnapshotRequest>(r#"{"snapshotId":"x"}"#).unwrap(), update());

    let json = r#"{"snapshotId":"x"}"#;
    assert_eq!(serde_json::to_string(&delete()).unwrap(), json);
    assert_eq!(serde_json::from_str::<DeleteSnapshotRequest>(json).unwrap(), delete());
    assert!(serde_json::from_str::<DeleteSnapshotRequest>(r#"{"snapshotId":"x","force":true}"#).is_err());
}
