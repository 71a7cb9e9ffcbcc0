//! B28: what is stored is damaged, too new, or of a kind that nobody knows.

use std::sync::Arc;

use longrun::Code;
use longrun::store::{Batch, Kv, MemoryKv, Table};
use longrun_api::google::longrunning;
use longrun_api::yandex::cloud::operation::{CancelOperationRequest, GetOperationRequest};
use longrun_store::conformance::records::reseal;

use crate::client::bearer;
use crate::log;
use crate::refusal::Want;
use crate::server::{Server, Setup};

/// Changes the stored head of an operation.
fn change(kv: &MemoryKv, id: &str, change: impl FnOnce(&mut Vec<u8>)) {
    let key = id.as_bytes();
    let mut value = kv.get(Table::Operations, key).unwrap().unwrap();
    change(&mut value);
    let mut batch = Batch::default();
    batch.put(Table::Operations, key.to_vec(), value);
    kv.commit(&batch).unwrap();
}

/// Two operations that are done, the second of which is then changed where it is stored. Gives what is left, and their ids.
async fn damaged(how: impl FnOnce(&mut Vec<u8>)) -> (Arc<MemoryKv>, String, String) {
    let server = Server::new().await;
    let whole = server.snapshot("folder-a", "whole", &[]).await.0.id;
    let damaged = server.snapshot("folder-a", "damaged", &[]).await.0.id;
    let kv = server.end().await;
    change(&kv, &damaged, how);
    (kv, whole, damaged)
}

async fn refused(how: impl FnOnce(&mut Vec<u8>), want: Want) {
    let (kv, whole, damaged) = damaged(how).await;
    let server = Server::with(Setup { kv: Some(kv), ..Setup::default() }).await;
    let before = server.state();
    let counted = format!("longrun_api_calls_total{{code={},reason={}}}", want.code.name(), want.reason);
    let count = log::counter(&counted);
    let get = GetOperationRequest { operation_id: damaged.clone() };
    want.grpc(server.operations().get(bearer(get)).await, "crc");
    let cancel = CancelOperationRequest { operation_id: damaged.clone() };
    let refusal = want.grpc(server.operations().cancel(bearer(cancel)).await, "crc");
    assert!(!refusal.request_id.is_empty());
    let refusal = want.rest(&server.get(&format!("/operations/{damaged}")).await, "crc");
    assert!(log::counter(&counted) >= count + 3);
    // The id of the request finds the cause in the log.
    let log = log::text();
    let line = log.lines().find(|line| line.contains(&refusal.request_id)).expect("a line in the log");
    assert!(line.contains("ERROR") && line.contains("cause"), "{line}");
    // The others are there, in lists and by name, and new ones run.
    let all = longrunning::ListOperationsRequest::default();
    let listed = server.longrunning().list_operations(bearer(all)).await.unwrap().into_inner().operations;
    let names: Vec<_> = listed.iter().map(|operation| operation.name.clone()).collect();
    assert_eq!(names, [format!("operations/{whole}")]);
    assert_eq!(server.get(&format!("/operations/{whole}")).await.status, 200);
    assert_eq!(server.state(), before, "nothing is deleted");
    server.snapshot("folder-a", "new", &[]).await;
    server.lives().await;
}

#[tokio::test]
async fn b28_a_flipped_bit_in_a_stored_record_is_data_loss_for_its_reader_and_nobody_else() {
    let want = Want::new(Code::DataLoss, 500, "DAMAGED");
    refused(|record| *record.last_mut().unwrap() ^= 1, want).await;
}

#[tokio::test]
async fn b28_a_record_of_a_future_version_is_unimplemented_for_its_reader_and_nobody_else() {
    let want = Want::new(Code::Unimplemented, 501, "TOO_NEW");
    let future = |record: &mut Vec<u8>| {
        record[2..4].copy_from_slice(&u16::MAX.to_be_bytes());
        reseal(record);
    };
    refused(future, want).await;
}

#[tokio::test]
async fn b28_an_operation_of_a_kind_that_is_not_registered_is_kept_and_shown_and_others_go_on() {
    let server = Server::new().await;
    let done = server.snapshot("folder-a", "done", &[]).await.0.id;
    server.gate.close();
    let held = server.create("folder-a", "held", &[]).await.id;
    let cut = crate::server::copy(&server.kv);
    server.end().await;
    let count = log::counter("longrun_operations_held_total{}");
    let server = Server::with(Setup { kv: Some(cut), no_kinds: true, ..Setup::default() }).await;
    let before = server.state();
    // It has begun when it has looked at what is due.
    tokio::time::timeout(crate::server::PATIENCE, async {
        while server.snapshots.engine().held().is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("it is held");
    assert!(log::counter("longrun_operations_held_total{}") > count);
    for id in [&done, &held] {
        let get = GetOperationRequest { operation_id: id.clone() };
        let shown = server.operations().get(bearer(get)).await.unwrap().into_inner();
        assert_eq!((&shown.id, shown.done), (id, id == &done));
        assert_eq!(server.get(&format!("/operations/{id}")).await.status, 200);
    }
    // What is asked for anew is the fault of the service.
    let create = crate::client::create("folder-a", "new");
    let refused = server.snapshots_client().create(bearer(create)).await.unwrap_err();
    assert!(matches!(refused.code(), tonic::Code::Internal | tonic::Code::Unimplemented), "{refused:?}");
    assert_eq!(server.state(), before, "nothing is deleted");
    let kv = server.end().await;
    // The right build finishes it.
    let server = Server::with(Setup { kv: Some(kv), ..Setup::default() }).await;
    server.done(&held).await;
    server.lives().await;
}
