"""google-api-core's operation future, and its client, against the face of google.longrunning."""

import os

import grpc
from google.api_core import exceptions, operation, operations_v1
from google.api_core.future.polling import DEFAULT_POLLING
from google.longrunning import operations_pb2
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.duration_pb2 import Duration
from google.protobuf.empty_pb2 import Empty
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from yandex.cloud.compute.v1.snapshot_pb2 import Snapshot
from yandex.cloud.compute.v1.snapshot_service_pb2 import (
    CreateSnapshotMetadata,
    CreateSnapshotRequest,
    DeleteSnapshotRequest,
    GetSnapshotRequest,
)
from yandex.cloud.compute.v1.snapshot_service_pb2_grpc import SnapshotServiceStub

from common import CALLER, FOLDER, MIB, PATIENCE, Checks, channel, disk, refusal, until

check = Checks("google-api-core")
connection = channel()
snapshots = SnapshotServiceStub(connection)
client = operations_v1.OperationsClient(connection)
raw = operations_pb2.OperationsStub(connection)

# The one message of our own is read as a client that has never seen its file would: by reflection.
pool = descriptor_pool.DescriptorPool(ProtoReflectionDescriptorDatabase(connection))
OperationMetadata = message_factory.GetMessageClass(pool.FindMessageTypeByName("longrun.v1.OperationMetadata"))


def future(name, result=Snapshot):
    return operation.from_gapic(
        client.get_operation(name),
        client,
        result,
        metadata_type=OperationMetadata,
        polling=DEFAULT_POLLING.with_delay(initial=0.05, maximum=0.2),
    )


def create(disk_id):
    """Only the cloud's own method makes a snapshot; from then on its operation has a name here, too."""
    request = CreateSnapshotRequest(folder_id=FOLDER, disk_id=disk_id, name=disk_id)
    return f"operations/{snapshots.Create(request).id}"


def delete(snapshot_id):
    return f"operations/{snapshots.Delete(DeleteSnapshotRequest(snapshot_id=snapshot_id)).id}"


def snapshot_of(metadata):
    inner = CreateSnapshotMetadata()
    inner.ParseFromString(metadata.metadata.value)
    return inner.snapshot_id


def gone(snapshot_id):
    return refusal(snapshots.Get, GetSnapshotRequest(snapshot_id=snapshot_id)).code == grpc.StatusCode.NOT_FOUND


def copying(running):
    """Its metadata, once the copy has read something."""

    def progress():
        return not running.done() and running.metadata.progress.done > 0 and running.metadata

    return until(progress, "no progress was seen")


def result():
    """a future that ends with a result"""
    disk("google-result", 8)
    running = future(create("google-result"))
    metadata = running.metadata
    check(
        "metadata is longrun.v1.OperationMetadata",
        metadata.created_by == CALLER and metadata.description == "Create snapshot" and metadata.create_time.seconds > 0,
        metadata,
    )
    check(
        "with that of the method inside",
        metadata.metadata.type_url == "type.googleapis.com/yandex.cloud.compute.v1.CreateSnapshotMetadata" and snapshot_of(metadata),
        metadata,
    )
    metadata = copying(running)
    check("and with the progress in bytes", (metadata.progress.total, metadata.progress.unit) == (8 * MIB, 1), metadata)
    unfinished = client.get_operation(running.operation.name)
    made = running.result(timeout=PATIENCE)
    check("before it is done it has no result", unfinished.WhichOneof("result") is None, unfinished)
    check("result() is the snapshot", made.status == Snapshot.READY and made.name == "google-result", made)
    check("done(), no exception(), not cancelled()", running.done() and not running.exception() and not running.cancelled())
    check("cancel() of what is done does nothing", running.cancel() is False)

    packed = client.get_operation(running.operation.name, compression=grpc.Compression.Gzip)
    check("a request that is compressed by gzip is understood", packed == running.operation, packed)

    name = delete(made.id)
    future(name, Empty).result(timeout=PATIENCE)
    client.delete_operation(name)
    answer = refusal(raw.GetOperation, operations_pb2.GetOperationRequest(name=name))
    check("delete_operation of one that is done: then it is NOT_FOUND", answer.code == grpc.StatusCode.NOT_FOUND, answer)


def failed():
    """a future that ends with an error"""
    image = disk("google-fails", 64)
    running = future(create("google-fails"))
    snapshot_id = snapshot_of(copying(running))
    os.truncate(image, 1 * MIB)
    error = running.exception(timeout=PATIENCE)
    check("a disk that is cut in mid-copy: exception() is FAILED_PRECONDITION", error.grpc_status_code == grpc.StatusCode.FAILED_PRECONDITION, error)
    check("why it rolled back is then its error, and no longer in its metadata", not running.metadata.HasField("rollback_cause"), running.metadata)
    check("it was not cancelled()", not running.cancelled())
    check("and the snapshot is gone", gone(snapshot_id))


def cancelled():
    """a future that is cancelled, and waits"""
    disk("google-cancelled", 64)
    name = create("google-cancelled")
    running = future(name)
    snapshot_id = snapshot_of(running.metadata)
    answer = refusal(raw.DeleteOperation, operations_pb2.DeleteOperationRequest(name=name))
    check("delete_operation of one that is not done is FAILED_PRECONDITION", answer.code == grpc.StatusCode.FAILED_PRECONDITION, answer)
    request = operations_pb2.WaitOperationRequest(name=name, timeout=Duration(nanos=1_000_000))
    check("wait_operation with a short time shows it unfinished", not raw.WaitOperation(request).done)
    unfinished = [found.name for found in client.list_operations("operations", "done = false")]
    check("list_operations, done = false, has it", name in unfinished, unfinished)
    check("cancel() is accepted", running.cancel() is True)
    request = operations_pb2.WaitOperationRequest(name=name, timeout=Duration(seconds=PATIENCE))
    ended = raw.WaitOperation(request)
    check("wait_operation ends when it is done", ended.done and ended.error.code == 1, ended)
    error = running.exception(timeout=PATIENCE)
    check("exception() is Cancelled, and cancelled() is true", isinstance(error, exceptions.Cancelled) and running.cancelled(), error)
    check("and the snapshot is gone", gone(snapshot_id))
    done = [found.name for found in client.list_operations("operations", "done = true")]
    unfinished = [found.name for found in client.list_operations("operations", "done=false")]
    check("list_operations, done = true, has it now, and done = false has not", name in done and name not in unfinished)
    everything = client.list_operations("operations", "")
    check("without a filter it has both kinds", name in [found.name for found in everything])
    first = raw.ListOperations(operations_pb2.ListOperationsRequest(name="operations", page_size=1))
    rest = raw.ListOperations(operations_pb2.ListOperationsRequest(name="operations", page_token=first.next_page_token))
    check(
        "pages follow each other",
        len(first.operations) == 1 and rest.operations and rest.operations[0].name != first.operations[0].name,
        first,
    )


def refused():
    """what is refused"""
    try:
        client.get_operation("operations/no-such-operation")
        check("an operation that is not there is NotFound", False, "an answer")
    except exceptions.NotFound as error:
        check("an operation that is not there is NotFound", True)
        check("with details that google-api-core reads", error.reason == "NOT_FOUND" and error.domain == "longrun", error.details)
    answer = refusal(raw.ListOperations, operations_pb2.ListOperationsRequest(name="operations", filter="size > 1"))
    check("an unknown filter is INVALID_ARGUMENT", "filter" in answer.violations, answer)


for part in (result, failed, cancelled, refused):
    check.part(part)
check.finish()
