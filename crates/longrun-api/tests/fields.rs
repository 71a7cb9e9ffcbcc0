//! Every message, enum and method of the protocol, with its numbers, against the published APIs. What is below was written out
//! from their description, not from our files.

#![allow(clippy::unwrap_used)]

use std::fmt::Write;

use longrun_api::DESCRIPTORS;
use prost_reflect::{DescriptorPool, EnumDescriptor, FieldDescriptor, MessageDescriptor};

/// `name`, and `number field type` for each of its fields.
const MESSAGES: &str = "\
google.longrunning.CancelOperationRequest
  1 name string
google.longrunning.DeleteOperationRequest
  1 name string
google.longrunning.GetOperationRequest
  1 name string
google.longrunning.ListOperationsRequest
  1 filter string
  2 page_size int32
  3 page_token string
  4 name string
google.longrunning.ListOperationsResponse
  1 operations repeated google.longrunning.Operation
  2 next_page_token string
google.longrunning.Operation
  1 name string
  2 metadata google.protobuf.Any
  3 done bool
  4 error google.rpc.Status, one of result
  5 response google.protobuf.Any, one of result
google.longrunning.WaitOperationRequest
  1 name string
  2 timeout google.protobuf.Duration
google.rpc.BadRequest
  1 field_violations repeated google.rpc.BadRequest.FieldViolation
google.rpc.BadRequest.FieldViolation
  1 field string
  2 description string
google.rpc.ErrorInfo
  1 reason string
  2 domain string
  3 metadata map<string, string>
google.rpc.RequestInfo
  1 request_id string
  2 serving_data string
google.rpc.RetryInfo
  1 retry_delay google.protobuf.Duration
google.rpc.Status
  1 code int32
  2 message string
  3 details repeated google.protobuf.Any
yandex.cloud.compute.v1.CreateSnapshotMetadata
  1 snapshot_id string
  2 disk_id string
yandex.cloud.compute.v1.CreateSnapshotRequest
  1 folder_id string
  2 disk_id string
  3 name string
  4 description string
  6 labels map<string, string>
  7 hardware_generation yandex.cloud.compute.v1.HardwareGeneration
yandex.cloud.compute.v1.DeleteSnapshotMetadata
  1 snapshot_id string
yandex.cloud.compute.v1.DeleteSnapshotRequest
  1 snapshot_id string
yandex.cloud.compute.v1.Generation2HardwareFeatures
yandex.cloud.compute.v1.GetSnapshotRequest
  1 snapshot_id string
yandex.cloud.compute.v1.HardwareGeneration
  1 legacy_features yandex.cloud.compute.v1.LegacyHardwareFeatures, one of features
  2 generation2_features yandex.cloud.compute.v1.Generation2HardwareFeatures, one of features
yandex.cloud.compute.v1.KMSKey
  1 key_id string
  2 version_id string
yandex.cloud.compute.v1.LegacyHardwareFeatures
  1 pci_topology yandex.cloud.compute.v1.PCITopology
yandex.cloud.compute.v1.ListSnapshotOperationsRequest
  1 snapshot_id string
  2 page_size int64
  3 page_token string
yandex.cloud.compute.v1.ListSnapshotOperationsResponse
  1 operations repeated yandex.cloud.operation.Operation
  2 next_page_token string
yandex.cloud.compute.v1.ListSnapshotsRequest
  1 folder_id string
  2 page_size int64
  3 page_token string
  4 filter string
  5 order_by string
yandex.cloud.compute.v1.ListSnapshotsResponse
  1 snapshots repeated yandex.cloud.compute.v1.Snapshot
  2 next_page_token string
yandex.cloud.compute.v1.Snapshot
  1 id string
  2 folder_id string
  3 created_at google.protobuf.Timestamp
  4 name string
  5 description string
  6 labels map<string, string>
  7 storage_size int64
  8 disk_size int64
  9 product_ids repeated string
  10 status yandex.cloud.compute.v1.Snapshot.Status
  11 source_disk_id string
  12 hardware_generation yandex.cloud.compute.v1.HardwareGeneration
  13 kms_key yandex.cloud.compute.v1.KMSKey
yandex.cloud.compute.v1.UpdateSnapshotMetadata
  1 snapshot_id string
yandex.cloud.compute.v1.UpdateSnapshotRequest
  1 snapshot_id string
  2 update_mask google.protobuf.FieldMask
  3 name string
  4 description string
  5 labels map<string, string>
yandex.cloud.endpoint.ApiEndpoint
  1 id string
  2 address string
yandex.cloud.endpoint.GetApiEndpointRequest
  1 api_endpoint_id string
yandex.cloud.endpoint.ListApiEndpointsRequest
  1 page_size int64
  2 page_token string
yandex.cloud.endpoint.ListApiEndpointsResponse
  1 endpoints repeated yandex.cloud.endpoint.ApiEndpoint
  2 next_page_token string
yandex.cloud.operation.CancelOperationRequest
  1 operation_id string
yandex.cloud.operation.GetOperationRequest
  1 operation_id string
yandex.cloud.operation.Operation
  1 id string
  2 description string
  3 created_at google.protobuf.Timestamp
  4 created_by string
  5 modified_at google.protobuf.Timestamp
  6 done bool
  7 metadata google.protobuf.Any
  8 error google.rpc.Status, one of result
  9 response google.protobuf.Any, one of result
";

const ENUMS: &str = "\
yandex.cloud.compute.v1.PCITopology
  0 PCI_TOPOLOGY_UNSPECIFIED
  1 PCI_TOPOLOGY_V1
  2 PCI_TOPOLOGY_V2
yandex.cloud.compute.v1.Snapshot.Status
  0 STATUS_UNSPECIFIED
  1 CREATING
  2 READY
  3 ERROR
  4 DELETING
";

/// The path of each method, with the names of what it takes and gives.
const METHODS: &str = "\
/google.longrunning.Operations/CancelOperation google.longrunning.CancelOperationRequest google.protobuf.Empty
/google.longrunning.Operations/DeleteOperation google.longrunning.DeleteOperationRequest google.protobuf.Empty
/google.longrunning.Operations/GetOperation google.longrunning.GetOperationRequest google.longrunning.Operation
/google.longrunning.Operations/ListOperations google.longrunning.ListOperationsRequest google.longrunning.ListOperationsResponse
/google.longrunning.Operations/WaitOperation google.longrunning.WaitOperationRequest google.longrunning.Operation
/yandex.cloud.compute.v1.SnapshotService/Create yandex.cloud.compute.v1.CreateSnapshotRequest yandex.cloud.operation.Operation
/yandex.cloud.compute.v1.SnapshotService/Delete yandex.cloud.compute.v1.DeleteSnapshotRequest yandex.cloud.operation.Operation
/yandex.cloud.compute.v1.SnapshotService/Get yandex.cloud.compute.v1.GetSnapshotRequest yandex.cloud.compute.v1.Snapshot
/yandex.cloud.compute.v1.SnapshotService/List yandex.cloud.compute.v1.ListSnapshotsRequest yandex.cloud.compute.v1.ListSnapshotsResponse
/yandex.cloud.compute.v1.SnapshotService/ListOperations yandex.cloud.compute.v1.ListSnapshotOperationsRequest yandex.cloud.compute.v1.ListSnapshotOperationsResponse
/yandex.cloud.compute.v1.SnapshotService/Update yandex.cloud.compute.v1.UpdateSnapshotRequest yandex.cloud.operation.Operation
/yandex.cloud.endpoint.ApiEndpointService/Get yandex.cloud.endpoint.GetApiEndpointRequest yandex.cloud.endpoint.ApiEndpoint
/yandex.cloud.endpoint.ApiEndpointService/List yandex.cloud.endpoint.ListApiEndpointsRequest yandex.cloud.endpoint.ListApiEndpointsResponse
/yandex.cloud.operation.OperationService/Cancel yandex.cloud.operation.CancelOperationRequest yandex.cloud.operation.Operation
/yandex.cloud.operation.OperationService/Get yandex.cloud.operation.GetOperationRequest yandex.cloud.operation.Operation
";

fn pool() -> DescriptorPool {
    DescriptorPool::decode(DESCRIPTORS).unwrap()
}

/// Neither protobuf's own nor ours, which nobody else has published.
fn is_published(package: &str) -> bool {
    !matches!(package, "google.protobuf" | "longrun.v1")
}

fn field(field: &FieldDescriptor) -> String {
    let mut text = format!("  {} {} ", field.number(), field.name());
    let kind = field.kind();
    match kind.as_message().filter(|_| field.is_map()) {
        Some(entry) => {
            let (key, value) = (entry.map_entry_key_field().kind(), entry.map_entry_value_field().kind());
            write!(text, "map<{key:?}, {value:?}>").unwrap();
        }
        None if field.is_list() => write!(text, "repeated {kind:?}").unwrap(),
        None => write!(text, "{kind:?}").unwrap(),
    }
    if let Some(choice) = field.containing_oneof() {
        write!(text, ", one of {}", choice.name()).unwrap();
    }
    text + "\n"
}

fn message(message: &MessageDescriptor) -> String {
    let mut fields: Vec<_> = message.fields().collect();
    fields.sort_by_key(FieldDescriptor::number);
    format!("{}\n{}", message.full_name(), fields.iter().map(field).collect::<String>())
}

fn values(of: &EnumDescriptor) -> String {
    let values: String =
        of.values().map(|value| format!("  {} {}\n", value.number(), value.name())).collect();
    format!("{}\n{values}", of.full_name())
}

fn sorted(texts: impl Iterator<Item = String>) -> String {
    let mut texts: Vec<String> = texts.collect();
    texts.sort();
    texts.concat()
}

#[test]
fn the_messages_are_those_of_the_published_apis() {
    let pool = pool();
    let published =
        |message: &MessageDescriptor| !message.is_map_entry() && is_published(message.package_name());
    let ours = sorted(pool.all_messages().filter(published).map(|found| message(&found)));
    assert_eq!(ours, MESSAGES);
}

#[test]
fn the_enums_are_those_of_the_published_apis() {
    let pool = pool();
    let ours = pool.all_enums().filter(|found| is_published(found.package_name()));
    assert_eq!(sorted(ours.map(|found| values(&found))), ENUMS);
}

#[test]
fn the_methods_are_those_of_the_published_apis_and_all_of_them_unary() {
    let pool = pool();
    let methods = pool.services().flat_map(|service| {
        let path = |method: prost_reflect::MethodDescriptor| {
            assert!(!method.is_client_streaming() && !method.is_server_streaming());
            let (input, output) = (method.input(), method.output());
            let service = method.parent_service().full_name().to_owned();
            format!("/{service}/{} {} {}\n", method.name(), input.full_name(), output.full_name())
        };
        service.methods().map(path).collect::<Vec<_>>()
    });
    assert_eq!(sorted(methods), METHODS);
}

#[test]
fn the_field_of_a_create_that_others_have_given_up_is_not_used_again() {
    let create = pool().get_message_by_name("yandex.cloud.compute.v1.CreateSnapshotRequest").unwrap();
    let reserved: Vec<_> = create.reserved_ranges().map(|range| (range.start, range.end)).collect();
    assert_eq!(reserved, [(5, 6)]);
}
