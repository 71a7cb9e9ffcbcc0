"""Reflection, as grpcurl uses it, and health. What the server says of its messages is held against the official ones."""

import importlib

import grpc
from google.longrunning import operations_pb2
from google.protobuf import descriptor_pool, message_factory
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from common import FOLDER, Checks, channel, refusal

check = Checks("reflection")
connection = channel()
# Whoever looks around or asks for health need not be known.
nobody = channel(token=None)
database = ProtoReflectionDescriptorDatabase(nobody)
pool = descriptor_pool.DescriptorPool(database)

SERVICES = [
    "google.longrunning.Operations",
    "yandex.cloud.compute.v1.SnapshotService",
    "yandex.cloud.endpoint.ApiEndpointService",
    "yandex.cloud.operation.OperationService",
]

# Fields that the official files have since got, and that nothing here means. Messages with them are understood without them.
LATER = {
    "google.longrunning.ListOperationsRequest.return_partial_success",
    "google.longrunning.ListOperationsResponse.unreachable",
    "yandex.cloud.compute.v1.Generation2HardwareFeatures.secure_boot_template_id",
    "yandex.cloud.compute.v1.Generation2HardwareFeatures.vtpm_enabled",
}


def services():
    """the list of services"""
    found = set(database.get_services())
    expected = {*SERVICES, "grpc.health.v1.Health"}
    check("every service is listed", expected <= found, found)
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    newer = nobody.stream_stream(
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        reflection_pb2.ServerReflectionRequest.SerializeToString,
        reflection_pb2.ServerReflectionResponse.FromString,
    )
    answer = next(newer(iter([request])))
    # Both versions have the same messages.
    listed = {service.name for service in answer.list_services_response.service}
    check("and so it is by version v1", expected <= listed, answer)


def call():
    """a call by reflection alone"""
    service = pool.FindServiceByName("yandex.cloud.compute.v1.SnapshotService")
    method = service.FindMethodByName("List")
    request = message_factory.GetMessageClass(method.input_type)
    response = message_factory.GetMessageClass(method.output_type)
    path = f"/{service.full_name}/{method.name}"
    stub = connection.unary_unary(path, request.SerializeToString, response.FromString)
    answer = stub(request(folder_id=FOLDER, page_size=5))
    check("a list, called by what reflection says", answer.DESCRIPTOR.full_name.endswith("ListSnapshotsResponse"), answer)
    stub = nobody.unary_unary(path, request.SerializeToString, response.FromString)
    answer = refusal(stub, request(folder_id=FOLDER))
    check("without a token it is UNAUTHENTICATED", answer.code == grpc.StatusCode.UNAUTHENTICATED, answer)


def differences(ours, official):
    """What of a message of ours is not as in the official one, where there may be more."""
    known = {field.number: field for field in official.fields}
    for field in ours.fields:
        twin = known.get(field.number)
        if twin is None:
            yield f"{field.full_name} = {field.number} is not there"
            continue
        for aspect in ("name", "json_name", "type", "is_repeated", "has_presence"):
            if getattr(field, aspect) != getattr(twin, aspect):
                yield f"{field.full_name}: {aspect} is {getattr(field, aspect)}, not {getattr(twin, aspect)}"
        for kind in ("message_type", "enum_type", "containing_oneof"):
            mine, other = getattr(field, kind), getattr(twin, kind)
            if (mine and mine.full_name) != (other and other.full_name):
                yield f"{field.full_name}: {kind} differs"
    for number in known.keys() - {field.number for field in ours.fields}:
        if known[number].full_name not in LATER:
            yield f"{known[number].full_name} = {number} is missing here"
    for enum in ours.enum_types:
        mine = {value.name: value.number for value in enum.values}
        if mine != {value.name: value.number for value in official.enum_types_by_name[enum.name].values}:
            yield f"{enum.full_name} has other values"
    for nested in ours.nested_types:
        yield from differences(nested, official.nested_types_by_name[nested.name])


def official():
    """our messages against the official ones"""
    modules = {
        "google.longrunning.Operations": operations_pb2,
        "yandex.cloud.compute.v1.SnapshotService": importlib.import_module("yandex.cloud.compute.v1.snapshot_service_pb2"),
        "yandex.cloud.endpoint.ApiEndpointService": importlib.import_module("yandex.cloud.endpoint.api_endpoint_service_pb2"),
        "yandex.cloud.operation.OperationService": importlib.import_module("yandex.cloud.operation.operation_service_pb2"),
    }
    theirs = descriptor_pool.Default()
    seen = set()

    def compare(message):
        if message.full_name in seen:
            return
        seen.add(message.full_name)
        yield from differences(message, theirs.FindMessageTypeByName(message.full_name))
        for field in message.fields:
            if field.message_type and not field.message_type.GetOptions().map_entry:
                yield from compare(field.message_type)

    for name in modules:
        mine, other = pool.FindServiceByName(name), theirs.FindServiceByName(name)
        found = []
        for method in mine.methods:
            twin = other.methods_by_name.get(method.name)
            if twin is None:
                found.append(f"{method.full_name} is not there")
                continue
            for side in ("input_type", "output_type"):
                ours = getattr(method, side)
                if ours.full_name != getattr(twin, side).full_name:
                    found.append(f"{method.full_name}: {side} differs")
                found.extend(compare(ours))
        check(f"every method and message of {name} is as in the official files", not found, found)


def health():
    """health"""
    stub = health_pb2_grpc.HealthStub(nobody)
    for name in ("", *SERVICES):
        answer = stub.Check(health_pb2.HealthCheckRequest(service=name))
        check(f"health of {name or 'all'} is SERVING", answer.status == health_pb2.HealthCheckResponse.SERVING, answer)
    answer = refusal(stub.Check, health_pb2.HealthCheckRequest(service="no.such.Service"))
    check("health of an unknown service is NOT_FOUND", answer.code == grpc.StatusCode.NOT_FOUND, answer)


for part in (services, call, official, health):
    check.part(part)
check.finish()
