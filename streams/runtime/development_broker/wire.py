"""The wire: which requests are spoken (aiokafka's own schemas, one version each) and how they are framed."""

from __future__ import annotations

import struct
from io import BytesIO
from typing import Any

from aiokafka.errors import BrokerResponseError, MemberIdRequired
from aiokafka.protocol import admin, commit, coordination, fetch, group, metadata, offset, produce, transaction
from aiokafka.protocol.api import RequestStruct
from aiokafka.protocol.types import Array, Bytes, String

SPOKEN: tuple[type[RequestStruct], ...] = (
    produce.ProduceRequest_v7, fetch.FetchRequest_v4, offset.OffsetRequest_v2, metadata.MetadataRequest_v5,
    commit.OffsetCommitRequest_v3, commit.OffsetFetchRequest_v3, coordination.FindCoordinatorRequest_v1,
    group.JoinGroupRequest_v5, group.HeartbeatRequest_v1, group.LeaveGroupRequest_v1, group.SyncGroupRequest_v3,
    admin.ApiVersionRequest_v0, admin.CreateTopicsRequest_v3, admin.DeleteTopicsRequest_v3,
    transaction.InitProducerIdRequest_v0, admin.DescribeConfigsRequest_v2,
)
REQUESTS = {request.API_KEY: request for request in SPOKEN}
VERSIONS = [(key, request.API_VERSION, request.API_VERSION) for key, request in sorted(REQUESTS.items())]
API_VERSIONS = admin.ApiVersionRequest_v0.API_KEY
MAX_FRAME_BYTES = 100 * 1024 * 1024  # Apache Kafka's socket.request.max.bytes


class NewerApiVersions(admin.ApiVersionRequest_v0):
    """ApiVersions in a version that is not spoken: answered by UNSUPPORTED_VERSION in the form of version 0."""

    API_VERSION = 1


class Unspoken(Exception):
    """Bytes that cannot be answered in the protocol: the connection is closed, as Apache Kafka does."""


def decode_request(frame: bytes) -> tuple[int, RequestStruct]:
    """Correlation id and request of one frame (without its length).

    Raises Unspoken for bytes that do not parse and for an API or version that is not in VERSIONS, which clients ask
    for first. ApiVersions itself is taken in any version, so that newer clients can step down.
    """
    try:
        key, version, correlation_id, client_id_length = struct.unpack_from(">hhih", frame)
        if key == API_VERSIONS:
            return correlation_id, NewerApiVersions() if version else admin.ApiVersionRequest_v0()
        request = REQUESTS.get(key)
        if request is None or version != request.API_VERSION:
            raise Unspoken(f"API {key} version {version} is not supported: use Apache Kafka for it")
        return correlation_id, request.decode(BytesIO(frame[10 + max(client_id_length, 0):]))
    except (ValueError, TypeError, struct.error) as error:
        raise Unspoken(f"malformed request: {error}") from error


def encode_response(correlation_id: int, response: Any, fields: tuple[Any, ...]) -> bytes:
    """One frame, its length in front."""
    body = response(*fields).encode()
    return struct.pack(">ii", len(body) + 4, correlation_id) + body


def refusal(request: Any, error: BrokerResponseError) -> tuple[Any, ...]:
    """A refusal of a whole request in the form of its response: the error's code, and a member's id where it has one."""
    member_id = error.args[0] if isinstance(error, MemberIdRequired) else getattr(request, "member_id", "")
    filled = {"error_code": error.errno, "member_id": member_id}
    empty: dict[Any, Any] = {Array: [], String: "", Bytes: b""}
    schema = request.RESPONSE_TYPE.SCHEMA
    return tuple(
        filled.get(name, empty.get(kind if isinstance(kind, type) else type(kind), 0))
        for name, kind in zip(schema.names, schema.fields)
    )
