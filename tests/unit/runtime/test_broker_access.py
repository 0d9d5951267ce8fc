"""What keeps a client out is told by its field. (With SASL and TLS: tests/integration/test_secured_broker.py.)"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from streams.runtime.broker_access import BrokerUnreachable, obstacle
from streams.runtime.kafka_process import free_port
from streams.runtime.log_reader import LogReader
from streams.runtime.security import BrokerSecurity
from streams.runtime.settings import RuntimeSettings


@asynccontextmanager
async def one_that_hangs_up() -> AsyncIterator[str]:
    """A server that ends every connection at once."""
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    async with server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def test_nobody_there() -> None:
    address = f"127.0.0.1:{free_port()}"
    found = await obstacle(address, BrokerSecurity())
    assert found is not None
    assert found.text == f"no broker answers at {address}: is it running there? (field bootstrap, or --broker)"
    assert not found.lasting


@pytest.mark.parametrize("protocol", ["PLAINTEXT", "SSL"])
async def test_one_that_hangs_up(protocol: str) -> None:
    async with one_that_hangs_up() as address:
        found = await obstacle(f"127.0.0.1:{free_port()},{address}", BrokerSecurity(protocol))  # type: ignore[arg-type]
        assert found is not None
        assert not found.lasting
        alone = await obstacle(address, BrokerSecurity(protocol))  # type: ignore[arg-type]
        assert alone is not None
        assert alone.text.startswith("field security_protocol (or bootstrap): ")
        assert alone.text.endswith(f"{address} ends a connection by {protocol}")


async def test_a_client_that_cannot_start_says_why_and_leaves_nothing_open(caplog: pytest.LogCaptureFixture) -> None:
    async with one_that_hangs_up() as address:
        reader = LogReader(RuntimeSettings(bootstrap=address))
        with pytest.raises(BrokerUnreachable, match=r"^field security_protocol"):
            await reader.start()
        assert reader.consumer._closed
