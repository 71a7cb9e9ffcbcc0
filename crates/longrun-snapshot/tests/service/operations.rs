//! ListOperations, and Get and Cancel of operations.

use longrun::{Code, Operation};
use longrun_snapshot::SnapshotService;
use longrun_snapshot::service::{ListSnapshotOperationsRequest, UpdateSnapshotRequest};

use crate::common::{Lab, call, caller, create_of, delete_of, done, made_by, pass};

/// A snapshot that was created, renamed three times and deleted; its operations, oldest first.
async fn history(lab: &Lab) -> (SnapshotService, String, Vec<Operation>) {
    lab.tiny_disk("disk-1", 1);
    let service = lab.start().await;
    let create = service.create(call(), &create_of("disk-1")).await.unwrap();
    let id = made_by(&create);
    let mut operations = vec![done(&service, &create).await];
    for name in ["one", "two", "three"] {
        pass(1).await;
        let request = UpdateSnapshotRequest {
            snapshot_id: id.to_string(),
            name: name.to_owned(),
            ..UpdateSnapshotRequest::default()
        };
        operations.push(service.update(call(), &request).await.unwrap());
    }
    pass(1).await;
    let delete = service.delete(call(), &delete_of(&id)).await.unwrap();
    operations.push(done(&service, &delete).await);
    (service, id.to_string(), operations)
}

fn request(id: &str, page_size: i64, page_token: &str) -> ListSnapshotOperationsRequest {
    ListSnapshotOperationsRequest { snapshot_id: id.to_owned(), page_size, page_token: page_token.to_owned() }
}

#[tokio::test(start_paused = true)]
async fn operations_are_listed_newest_first_also_when_the_snapshot_is_gone() {
    let lab = Lab::new();
    let (service, id, mut expected) = history(&lab).await;
    expected.reverse();
    let page = service.list_operations(&caller(), &request(&id, 0, "")).await.unwrap();
    assert_eq!(page.items, expected);
    assert_eq!(page.next_token, "");
    let kinds: Vec<_> = page.items.iter().map(|operation| operation.kind().as_str()).collect();
    let update = "compute.snapshot.update";
    assert_eq!(kinds, ["compute.snapshot.delete", update, update, update, "compute.snapshot.create"]);
}

#[tokio::test(start_paused = true)]
async fn operations_are_listed_in_pages() {
    let lab = Lab::new();
    let (service, id, mut expected) = history(&lab).await;
    expected.reverse();
    for size in 1..=6 {
        let (mut found, mut token, mut pages) = (Vec::new(), String::new(), 0);
        loop {
            let page = service.list_operations(&caller(), &request(&id, size, &token)).await.unwrap();
            assert!(page.next_token.len() <= 100);
            (pages, token) = (pages + 1, page.next_token);
            found.extend(page.items);
            if token.is_empty() {
                break;
            }
        }
        assert_eq!((found, pages), (expected.clone(), 5_usize.div_ceil(usize::try_from(size).unwrap())));
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_belongs_to_its_snapshot() {
    let lab = Lab::new();
    let (service, id, _) = history(&lab).await;
    let create = service.create(call(), &create_of("disk-1")).await.unwrap();
    let token = service.list_operations(&caller(), &request(&id, 1, "")).await.unwrap().next_token;
    let other = request(made_by(&create).as_str(), 1, &token);
    assert_eq!(service.list_operations(&caller(), &other).await.unwrap_err().code(), Code::InvalidArgument);
    let error = service.list_operations(&caller(), &request("fd8never", 0, "")).await.unwrap_err();
    assert_eq!(error.code(), Code::NotFound);
}

#[tokio::test(start_paused = true)]
async fn an_operation_can_be_asked_for_as_long_as_it_is_kept() {
    let lab = Lab::new();
    let (service, _, operations) = history(&lab).await;
    for operation in &operations {
        let id = operation.id();
        assert_eq!(service.get_operation(&caller(), id.as_str()).await.unwrap(), *operation);
        // It is done: a cancel changes nothing and is no error.
        assert_eq!(service.cancel_operation(&caller(), id.as_str()).await.unwrap(), *operation);
    }
    for id in ["", "opr", "opr00000000000000000", &"x".repeat(1000), "../etc/passwd"] {
        for error in [
            service.get_operation(&caller(), id).await.unwrap_err(),
            service.cancel_operation(&caller(), id).await.unwrap_err(),
        ] {
            assert_eq!(error.code(), Code::NotFound);
            assert_eq!(error.to_string(), "NOT_FOUND: the operation does not exist");
        }
    }
}
