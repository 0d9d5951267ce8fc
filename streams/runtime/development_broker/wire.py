"""The wire: which requests are spoken (aiokafka's own schemas, one version each), error codes, frames."""

from __future__ import annotations

import struct
from enum import IntEnum
from io import BytesIO
from typing import Any

from aiokafka.protocol import admin, commit, coordination, fetch, group, metadata, offset, produce, transaction
from aiokafka.protocol.api import RequestStruct

REQUESTS: dict[int, type[RequestStruct]] = {
    request.API_KEY: request
    for request in (
        produce.ProduceRequest_v7,
        fetch.FetchRequest_v4,
        offset.OffsetRequest_v2,
        metadata.MetadataRequest_v5,
        commit.OffsetCommitRequest_v3,
        commit.OffsetFetchRequest_v3,
        coordination.FindCoordinatorRequest_v1,
        group.JoinGroupRequest_v5,
        group.HeartbeatRequest_v1,
        group.LeaveGroupRequest_v1,
        group.SyncGroupRequest_v3,
        admin.ApiVersionRequest_v0,
        admin.CreateTopicsRequest_v3,
        admin.DeleteTopicsRequest_v3,
        transaction.InitProducerIdRequest_v0,
        admin.DescribeConfigsRequest_v2,
    )
}
VERSIONS = [(key, request.API_VERSION, request.API_VERSION) for key, request in sorted(REQUESTS.items())]
API_VERSIONS = 18
MAX_REQUEST_BYTES = 100 * 1024 * 1024


class ErrorCode(IntEnum):
    """The protocol's error codes that this broker gives."""

    NONE = 0
    OFFSET_OUT_OF_RANGE = 1
    CORRUPT_MESSAGE = 2
    UNKNOWN_TOPIC_OR_PARTITION = 3
    MESSAGE_TOO_LARGE = 10
    INVALID_TOPIC = 17
    INVALID_REQUIRED_ACKS = 21
    ILLEGAL_GENERATION = 22
    INCONSISTENT_GROUP_PROTOCOL = 23
    INVALID_GROUP_ID = 24
    UNKNOWN_MEMBER_ID = 25
    INVALID_SESSION_TIMEOUT = 26
    REBALANCE_IN_PROGRESS = 27
    UNSUPPORTED_VERSION = 35
    TOPIC_ALREADY_EXISTS = 36
    INVALID_PARTITIONS = 37
    INVALID_REPLICATION_FACTOR = 38
    INVALID_CONFIG = 40
    INVALID_REQUEST = 42
    UNSUPPORTED_FOR_MESSAGE_FORMAT = 43
    OUT_OF_ORDER_SEQUENCE = 45
    INVALID_PRODUCER_EPOCH = 47
    KAFKA_STORAGE_ERROR = 56
    MEMBER_ID_REQUIRED = 79
    FENCED_INSTANCE_ID = 82


class Refusal(Exception):
    """A request, or its part about one partition, that is answered with an error code of the protocol."""

    def __init__(self, code: ErrorCode, reason: str) -> None:
        super().__init__(reason)
        self.code = code


class Unspoken(Exception):
    """Bytes that this broker cannot answer in the protocol; it closes the connection, as Apache Kafka does."""


def decode_request(frame: bytes) -> tuple[int, RequestStruct]:
    """Correlation id and request of one frame (without its length).

    Raises Unspoken for an API or version that is not in VERSIONS (which clients ask for first) and for bytes that do
    not parse. ApiVersions is answered in any version, so that newer clients can step down.
    """
    try:
        key, version, correlation_id, client_id_length = struct.unpack_from(">hhih", frame)
        request = REQUESTS.get(key)
        if key == API_VERSIONS:
            return correlation_id, admin.ApiVersionRequest_v0() if version == 0 else admin.ApiVersionRequest_v2()
        if request is None or request.API_VERSION != version:
            spoken = "not spoken here" if request is None else f"only version {request.API_VERSION} is spoken here"
            raise Unspoken(f"API {key} version {version}: {spoken}")
        body = BytesIO(frame)
        body.seek(10 + max(client_id_length, 0))
        return correlation_id, request.decode(body)
    except (ValueError, TypeError, struct.error, MemoryError) as error:
        raise Unspoken(f"malformed request: {error}") from error


def encode_response(correlation_id: int, response: type, fields: tuple[Any, ...]) -> bytes:
    """One frame, its length in front."""
    body = response(*fields).encode()
    return struct.pack(">ii", len(body) + 4, correlation_id) + body
