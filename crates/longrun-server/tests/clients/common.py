"""What the checks in Python have in common: where the server is, disks, and how a check is reported.

The environment comes from run.sh: CLIENT_GRPC and CLIENT_HTTP are host:port, CLIENT_CA a certificate as PEM, CLIENT_DISKS the
folder of the disks, CLIENT_TOKEN the token of CLIENT_CALLER, who may write in the folder CLIENT_FOLDER, and CLIENT_STRANGER that of
somebody who may not see it.
"""

import os
import pathlib
import sys
import time
import traceback

import grpc
from google.rpc import error_details_pb2, status_pb2

GRPC = os.environ["CLIENT_GRPC"]
CA = pathlib.Path(os.environ["CLIENT_CA"]).read_bytes()
DISKS = pathlib.Path(os.environ["CLIENT_DISKS"])
TOKEN = os.environ["CLIENT_TOKEN"]
STRANGER = os.environ["CLIENT_STRANGER"]
FOLDER = os.environ["CLIENT_FOLDER"]
CALLER = os.environ["CLIENT_CALLER"]

MIB = 1024 * 1024
# Seconds that anything may take on a busy machine.
PATIENCE = 60


def disk(name, mebibytes=1):
    """Makes a disk without holes. Each MiB is different, so that each is a chunk, or chunks, of its own."""
    path = DISKS / f"{name}.raw"
    with open(path, "wb") as file:
        for _ in range(mebibytes):
            file.write(os.urandom(64 * 1024) * 16)
    return path


def channel(token=TOKEN):
    """A channel over TLS; with a token unless it is None."""
    credentials = grpc.ssl_channel_credentials(CA)
    if token is not None:
        credentials = grpc.composite_channel_credentials(credentials, grpc.access_token_call_credentials(token))
    return grpc.secure_channel(GRPC, credentials)


def until(holds, what):
    """Asks again until it holds: there is nothing to wait on in a client that polls."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        found = holds()
        if found:
            return found
        time.sleep(0.02)
    raise TimeoutError(what)


class Refusal:
    """Why a call was refused: its code, its message, the details by type, and both kinds of metadata."""

    def __init__(self, error):
        self.code = error.code()
        self.message = error.details()
        self.trailers = dict(error.trailing_metadata() or ())
        self.headers = dict(error.initial_metadata() or ())
        status = status_pb2.Status.FromString(self.trailers.get("grpc-status-details-bin", b""))
        self.status = status
        self.violations = {}
        self.reason = None
        self.request_id = None
        for detail in status.details:
            bad, info, request = error_details_pb2.BadRequest(), error_details_pb2.ErrorInfo(), error_details_pb2.RequestInfo()
            if detail.Unpack(bad):
                self.violations = {one.field: one.description for one in bad.field_violations}
            elif detail.Unpack(info):
                self.reason = info.reason
            elif detail.Unpack(request):
                self.request_id = request.request_id

    def __repr__(self):
        return f"{self.code.name} {self.message!r} {self.reason} {self.violations} {self.trailers}"


def refusal(call, *args, **kwargs):
    """The refusal of a call that must be refused."""
    try:
        answer = call(*args, **kwargs)
    except grpc.RpcError as error:
        return Refusal(error)
    raise AssertionError(f"was not refused: {answer}")


class Checks:
    """Prints a line for each check. A script goes on after one that failed, for what the next ones say."""

    def __init__(self, client):
        self.client = client
        self.failed = False

    def __call__(self, what, holds, found=""):
        if holds:
            print(f"ok {self.client}: {what}", flush=True)
        else:
            self.failed = True
            print(f"FAILED {self.client}: {what}; found: {str(found).strip()}", flush=True)

    def part(self, part):
        """Runs some checks that need each other. An error ends them, and counts as a failed check."""
        try:
            part()
        except Exception as error:  # Whatever a client throws is a finding.
            traceback.print_exc()
            self(part.__doc__, False, f"{type(error).__name__}: {error}")

    def finish(self):
        sys.exit(1 if self.failed else 0)
