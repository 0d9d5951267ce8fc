"""Idempotent producer whose request timeout and delivery limit are two numbers.

aiokafka has one number for both; Java's client calls them request.timeout.ms and delivery.timeout.ms. Kept apart, a
frozen broker costs one short request timeout, while a record may still wait long for a leader to come back.
"""

from __future__ import annotations

from aiokafka import AIOKafkaProducer

from schemas.topics import RECORD_BYTES_MAX
from streams.runtime.settings import RuntimeSettings


def new_producer(settings: RuntimeSettings) -> AIOKafkaProducer:
    """A producer with acks=all, idempotence and no linger; not yet started. Must be called inside a running loop."""
    producer = AIOKafkaProducer(
        **settings.client_options(),
        acks="all",
        enable_idempotence=True,
        linger_ms=0,
        max_request_size=RECORD_BYTES_MAX,
        request_timeout_ms=settings.request_timeout_ms,
        metadata_max_age_ms=settings.metadata_age_ms,
    )
    # No public setting separates them: the first bounds the wait for room in a partition's batch, the second the wait
    # while no leader is known. tests/integration checks that both attributes still exist.
    producer._request_timeout_ms = int(settings.delivery_limit_s * 1e3)
    producer._message_accumulator._batch_ttl = settings.delivery_limit_s
    return producer
