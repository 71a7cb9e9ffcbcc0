"""Yandex Cloud's Python SDK, unmodified, over TLS with a certificate of our own."""

import uuid

import grpc
import yandexcloud
from google.protobuf.empty_pb2 import Empty
from google.protobuf.field_mask_pb2 import FieldMask
from yandex.cloud.compute.v1.snapshot_pb2 import Snapshot
from yandex.cloud.compute.v1.snapshot_service_pb2 import (
    CreateSnapshotMetadata,
    CreateSnapshotRequest,
    DeleteSnapshotMetadata,
    DeleteSnapshotRequest,
    GetSnapshotRequest,
    ListSnapshotOperationsRequest,
    ListSnapshotsRequest,
    UpdateSnapshotMetadata,
    UpdateSnapshotRequest,
)
from yandex.cloud.compute.v1.snapshot_service_pb2_grpc import SnapshotServiceStub
from yandex.cloud.operation.operation_service_pb2 import CancelOperationRequest, GetOperationRequest
from yandex.cloud.operation.operation_service_pb2_grpc import OperationServiceStub
from yandexcloud.operations import OperationError

from common import CA, CALLER, FOLDER, GRPC, MIB, PATIENCE, STRANGER, TOKEN, Checks, disk, refusal

check = Checks("python-sdk")
sdk = yandexcloud.SDK(iam_token=TOKEN, endpoint=GRPC, root_certificates=CA)
# The addresses come from ApiEndpointService.List, as in the cloud.
snapshots = sdk.client(SnapshotServiceStub)
operations = sdk.client(OperationServiceStub)


def wait(operation, response, metadata):
    return sdk.wait_operation_and_get_result(operation, response, metadata, timeout=PATIENCE)


def create(disk_id, name, **fields):
    return snapshots.Create(CreateSnapshotRequest(folder_id=FOLDER, disk_id=disk_id, name=name, **fields))


def id_of(operation):
    metadata = CreateSnapshotMetadata()
    operation.metadata.Unpack(metadata)
    return metadata.snapshot_id


def get(snapshot_id):
    return snapshots.Get(GetSnapshotRequest(snapshot_id=snapshot_id))


def listed(**fields):
    return snapshots.List(ListSnapshotsRequest(folder_id=FOLDER, **fields))


def delete(snapshot_id):
    return wait(snapshots.Delete(DeleteSnapshotRequest(snapshot_id=snapshot_id)), Empty, DeleteSnapshotMetadata)


def failure(operation):
    """Waits for an operation that must fail, and gives the SDK's error and the operation as it is now."""
    try:
        result = wait(operation, Snapshot, CreateSnapshotMetadata)
    except OperationError as error:
        return error, operations.Get(GetOperationRequest(operation_id=operation.id))
    raise AssertionError(f"did not fail: {result.response}")


def gone(snapshot_id):
    return (
        refusal(get, snapshot_id).code == grpc.StatusCode.NOT_FOUND
        and snapshot_id not in [snapshot.id for snapshot in listed().snapshots]
    )


def life():
    """the life of a snapshot"""
    disk("python-life", 2)
    operation = create("python-life", "python-life", description="by Python", labels={"by": "python"})
    check(
        "an operation has all that it always has",
        operation.id and operation.created_by == CALLER and operation.created_at.seconds and operation.modified_at.seconds,
        operation,
    )
    snapshot_id = id_of(operation)
    check("its metadata has the id of the snapshot at once", bool(snapshot_id), operation)
    status = Snapshot.Status.Name(get(snapshot_id).status)
    check("the snapshot can be seen while it is made", status in ("CREATING", "READY"), status)
    result = wait(operation, Snapshot, CreateSnapshotMetadata)
    made = result.response
    check("create, wait: READY", made.status == Snapshot.READY and made.id == snapshot_id, made)
    check("its metadata is CreateSnapshotMetadata", result.meta.disk_id == "python-life", result.meta)
    check(
        "all its fields are what was asked for",
        (made.folder_id, made.name, made.description, dict(made.labels), made.disk_size, made.source_disk_id)
        == (FOLDER, "python-life", "by Python", {"by": "python"}, 2 * MIB, "python-life")
        and made.storage_size > 0
        and made.created_at.seconds > 0,
        made,
    )
    check("get gives the same", get(snapshot_id) == made, get(snapshot_id))
    check("list has it", snapshot_id in [found.id for found in listed().snapshots])

    request = UpdateSnapshotRequest(snapshot_id=snapshot_id, name="python-other", description="not in the mask")
    request.update_mask.CopyFrom(FieldMask(paths=["name", "labels"]))
    changed = wait(snapshots.Update(request), Snapshot, UpdateSnapshotMetadata)
    check(
        "update changes what its mask names, and nothing else",
        (changed.response.name, changed.response.description, dict(changed.response.labels))
        == ("python-other", "by Python", {})
        and changed.meta.snapshot_id == snapshot_id,
        changed.response,
    )

    removed = delete(snapshot_id)
    check("delete, wait: no error", removed.meta.snapshot_id == snapshot_id, removed.meta)
    check("after that get is NOT_FOUND and list does not have it", gone(snapshot_id))
    history = snapshots.ListOperations(ListSnapshotOperationsRequest(snapshot_id=snapshot_id)).operations
    described = [operation.description for operation in history]
    check(
        "its operations are listed, newest first, each done",
        described == ["Delete snapshot", "Update snapshot", "Create snapshot"]
        and all(operation.done for operation in history),
        described,
    )
    check(
        "the response of a delete is Empty",
        history[0].response.type_url == "type.googleapis.com/google.protobuf.Empty",
        history[0],
    )


def lists():
    """filters and pages"""
    disk("python-lists")
    names = [f"python-list-{number}" for number in range(3)]
    begun = [create("python-lists", name) for name in names]
    ids = {wait(operation, Snapshot, CreateSnapshotMetadata).response.id for operation in begun}

    def named(text):
        return sorted(snapshot.name for snapshot in listed(filter=text).snapshots)

    check('filter name = "x"', named('name = "python-list-1"') == names[1:2], named('name = "python-list-1"'))
    check('filter name IN ("x", "y")', named('name IN ("python-list-0", "python-list-2")') == [names[0], names[2]])
    check('filter name != "x"', names[1] not in named('name != "python-list-1"') and names[0] in named('name != "python-list-1"'))
    pages, token = [], ""
    while True:
        page = listed(page_size=2, page_token=token)
        pages.append([snapshot.id for snapshot in page.snapshots])
        token = page.next_page_token
        if not token:
            break
    seen = [snapshot_id for page in pages for snapshot_id in page]
    check(
        "pages of two, with tokens, have all of them once, in the order of ids",
        ids <= set(seen) and seen == sorted(set(seen)) and all(len(page) == 2 for page in pages[:-1]),
        pages,
    )
    newest = [snapshot.created_at.ToNanoseconds() for snapshot in listed(order_by="createdAt desc").snapshots]
    check("order_by createdAt desc", newest == sorted(newest, reverse=True), newest)
    for operation in [snapshots.Delete(DeleteSnapshotRequest(snapshot_id=snapshot_id)) for snapshot_id in ids]:
        wait(operation, Empty, DeleteSnapshotMetadata)


def failed():
    """a create that fails"""
    image = disk("python-fails", 64)
    operation = create("python-fails", "python-fails")
    image.unlink()
    error, now = failure(operation)
    check("a disk that vanishes: the wait ends with an OperationError", f"Error code: {now.error.code}." in str(error), error)
    # Depends on whether the copy had opened it.
    check("its code says why", now.error.code in (5, 9), now.error)
    check("it is done, with an error and no response", now.done and now.WhichOneof("result") == "error", now)
    check("and the snapshot is gone", gone(id_of(operation)))


def cancelled():
    """a create that is cancelled"""
    disk("python-cancelled", 64)
    operation = create("python-cancelled", "python-cancelled")
    snapshot_id = id_of(operation)
    check("a snapshot that is being made is CREATING", get(snapshot_id).status == Snapshot.CREATING, get(snapshot_id))
    answer = operations.Cancel(CancelOperationRequest(operation_id=operation.id))
    check("cancel shows the operation", answer.id == operation.id and answer.metadata == operation.metadata, answer)
    error, now = failure(operation)
    check("cancelled: the wait ends with an OperationError", "Error code: 1." in str(error), error)
    check("its code is CANCELLED, and it is done", now.done and now.error.code == 1, now)
    check("and the snapshot is gone", gone(snapshot_id))
    again = operations.Cancel(CancelOperationRequest(operation_id=operation.id))
    check("cancel of what is done leaves it as it is", again == now, again)


def idempotency():
    """idempotency keys"""
    disk("python-key")
    key = [("idempotency-key", str(uuid.uuid4()))]
    request = CreateSnapshotRequest(folder_id=FOLDER, disk_id="python-key", name="python-key")
    first = snapshots.Create(request, metadata=key)
    check("the same key gives the same operation", snapshots.Create(request, metadata=key).id == first.id)
    made = wait(first, Snapshot, CreateSnapshotMetadata).response
    repeated = snapshots.Create(request, metadata=key)
    check("and later that operation as it is then", repeated.id == first.id and repeated.done, repeated)
    other = CreateSnapshotRequest(folder_id=FOLDER, disk_id="python-key", name="python-other")
    refused = refusal(snapshots.Create, other, metadata=key)
    check("for another request the key is refused", refused.reason == "IDEMPOTENCY_KEY_REUSED", refused)
    check(
        "a read does not look at it",
        snapshots.Get(GetSnapshotRequest(snapshot_id=made.id), metadata=key) == made
        and operations.Get(GetOperationRequest(operation_id=first.id), metadata=key) == repeated,
    )
    delete(made.id)


def foreign():
    """what belongs to others"""
    disk("python-foreign")
    operation = create("python-foreign", "python-foreign")
    made = wait(operation, Snapshot, CreateSnapshotMetadata).response
    stranger = yandexcloud.SDK(iam_token=STRANGER, endpoint=GRPC, root_certificates=CA)
    theirs, their_operations = stranger.client(SnapshotServiceStub), stranger.client(OperationServiceStub)

    def answer(method, request):
        found = refusal(method, request, metadata=[("x-request-id", "the-same")])
        return found.code, found.message, found.status.SerializeToString(deterministic=True)

    missing = answer(theirs.Get, GetSnapshotRequest(snapshot_id="fd8nosuchsnapshot000"))
    found = [answer(method, request(snapshot_id=made.id)) for method, request in (
        (theirs.Get, GetSnapshotRequest),
        (theirs.Update, UpdateSnapshotRequest),
        (theirs.Delete, DeleteSnapshotRequest),
        (theirs.ListOperations, ListSnapshotOperationsRequest),
    )]
    check("a snapshot of others is answered like one that is not there, to the byte", all(one == missing for one in found), found)
    missing = answer(their_operations.Get, GetOperationRequest(operation_id="opr00000000000000000"))
    found = [answer(method, request(operation_id=operation.id)) for method, request in (
        (their_operations.Get, GetOperationRequest),
        (their_operations.Cancel, CancelOperationRequest),
    )]
    check("and so is an operation of others", all(one == missing for one in found), found)
    delete(made.id)


def refused():
    """what is refused"""
    bad = refusal(create, "", "No Name", description="x" * 257, labels={"Key": "v"})
    check(
        "all violations at once, as BadRequest",
        bad.code == grpc.StatusCode.INVALID_ARGUMENT
        and {"disk_id", "name", "description"} <= set(bad.violations)
        and any(field.startswith("labels") for field in bad.violations),
        bad,
    )
    check("the status in the details is that of the call", (bad.status.code, bad.status.message) == (3, bad.message), bad)
    missing = refusal(snapshots.Get, GetSnapshotRequest(snapshot_id="fd8nosuchsnapshot000"), metadata=[("x-request-id", "asked-1")])
    check(
        "the id of a request comes back in the trailers and in the details",
        missing.trailers.get("x-request-id") == missing.trailers.get("x-server-trace-id") == missing.request_id == "asked-1",
        missing,
    )
    check("no headers come before an error", "x-request-id" not in missing.headers, missing.headers)
    none = refusal(create, "python-no-such-disk", "python-none")
    check("a disk that is not there is NOT_FOUND", none.code == grpc.StatusCode.NOT_FOUND, none)
    for text in ("size = 1", 'name = "x', "name LIKE 'x'"):
        answer = refusal(listed, filter=text)
        check(f"filter {text} is INVALID_ARGUMENT", "filter" in answer.violations, answer)
    answer = refusal(listed, page_token="garbled")
    check("a garbled token is INVALID_ARGUMENT", answer.code == grpc.StatusCode.INVALID_ARGUMENT, answer)
    answer = refusal(listed, page_size=1001)
    check("page_size 1001 is INVALID_ARGUMENT", "page_size" in answer.violations, answer)

    stranger = yandexcloud.SDK(iam_token="no-such-token", endpoint=GRPC, root_certificates=CA)
    answer = refusal(stranger.client(SnapshotServiceStub).List, ListSnapshotsRequest(folder_id=FOLDER))
    check("a wrong token is UNAUTHENTICATED", answer.code == grpc.StatusCode.UNAUTHENTICATED, answer)


for part in (life, lists, failed, cancelled, idempotency, foreign, refused):
    check.part(part)
check.finish()
