"""Connecting to the broker, and what to say where it does not let us in: the field of the configuration that is wrong.

aiokafka's clients only say that they could not bootstrap; the reason is asked for by one connection more.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import Any, NamedTuple

from aiokafka.conn import collect_hosts, create_conn
from aiokafka.errors import (
    IllegalSaslStateError,
    KafkaConnectionError,
    KafkaError,
    SaslAuthenticationFailed,
    UnsupportedSaslMechanismError,
)
from aiokafka.protocol.metadata import MetadataRequest

from streams.runtime.security import BrokerSecurity
from streams.runtime.settings import RuntimeSettings

ASK_LIMIT_S = 5.0
_OTHER_NAME = {62, 64}  # X509_V_ERR_HOSTNAME_MISMATCH, X509_V_ERR_IP_ADDRESS_MISMATCH


class BrokerUnreachable(KafkaConnectionError):
    """No broker lets us in; the message names the field."""

    def __str__(self) -> str:
        return str(self.args[0])


class Obstacle(NamedTuple):
    """Why no broker lets us in. lasting: waiting does not help, the configuration or the broker must change."""

    text: str
    lasting: bool


async def connected(client: Any, settings: RuntimeSettings) -> None:
    """Start a producer or consumer of aiokafka. Raises BrokerUnreachable; the client is closed then."""
    try:
        await client.start()
    except KafkaConnectionError as error:
        await client.stop()
        found = await obstacle(settings.bootstrap, settings.security)
        raise BrokerUnreachable(found.text if found else str(error)) from error


async def obstacle(bootstrap: str, security: BrokerSecurity) -> Obstacle | None:
    """What stands between us and every broker of the list; None where one of them lets us in."""
    hosts = collect_hosts(bootstrap)
    found = await asyncio.gather(*(_obstacle_at(host, port, security) for host, port, _ in hosts))
    obstacles = [one for one in found if one is not None]
    if len(obstacles) < len(hosts):
        return None
    return next((one for one in obstacles if one.lasting), obstacles[0])


async def _obstacle_at(host: str, port: int, security: BrokerSecurity) -> Obstacle | None:
    options = {"request_timeout_ms": int(ASK_LIMIT_S * 1e3), **security.client_options()}
    try:
        connection = await create_conn(host, port, **options)
        try:
            await connection.send(MetadataRequest([]))  # the first request that a listener refuses to a stranger
        finally:
            connection.close()
    except (OSError, KafkaError, TimeoutError) as error:
        return _explained(error, f"{host}:{port}", security)
    return None


def _explained(error: Exception, at: str, security: BrokerSecurity) -> Obstacle:
    if isinstance(error, ssl.SSLCertVerificationError):
        return Obstacle(_of_certificate(error, at, security), lasting=True)
    if isinstance(error, SaslAuthenticationFailed):
        user = f"user {security.username!r} with this password ({security.mechanism})"
        return Obstacle(f"fields sasl_username, sasl_password: the broker at {at} refuses {user}", lasting=True)
    if isinstance(error, UnsupportedSaslMechanismError):
        return Obstacle(f"field sasl_mechanism: the broker at {at} does not take {security.mechanism}", lasting=True)
    if isinstance(error, IllegalSaslStateError):
        wrong = f"the broker at {at} wants no user there, {security.protocol} is wrong"
        return Obstacle(f"field security_protocol: {wrong}", lasting=True)
    if isinstance(error, ssl.SSLError | KafkaConnectionError | ConnectionResetError):  # it may also just be ending
        closed = f"what listens at {at} ends a connection by {security.protocol}"
        return Obstacle(f"field security_protocol (or bootstrap): {closed}", lasting=False)
    return Obstacle(f"no broker answers at {at}: is it running there? (field bootstrap, or --broker)", lasting=False)


def _of_certificate(error: ssl.SSLCertVerificationError, at: str, security: BrokerSecurity) -> str:
    if error.verify_code in _OTHER_NAME:
        return f"field bootstrap: the certificate of the broker at {at} is for another name: {error.verify_message}"
    signer = security.ca_file or "this system's authorities"
    return f"field ca_file: the certificate of the broker at {at} does not pass {signer}: {error.verify_message}"
