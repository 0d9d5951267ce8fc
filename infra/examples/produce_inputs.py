"""A producer of one's own: lists a perpetual, gives it a price, books a deposit and a trade, and closes a block.

    python infra/examples/produce_inputs.py [BOOTSTRAP [PREFIX]]      (127.0.0.1:9092 dpme.)

Needs aiokafka only. Topics must exist (`dpme run topics --config FILE`). Sending it all again changes nothing.
"""

import asyncio
import json
import sys

from aiokafka import AIOKafkaProducer

NOW_MS = 1_700_000_000_000  # of your chain, in milliseconds of the Unix epoch
USD9, USD6 = 10**9, 10**6  # prices are nano-USD, money is micro-USD, all of them integers


def event(event_type: str, **fields: object) -> dict:
    return {"type": event_type, "version": 1, **fields}


RECORDS = [
    # topic, one event or an array of events
    ("instruments", event("underlying", id="u-ETH", underlying="ETH")),
    ("instruments", event("instrument", id="i-ETH-PERP", instrument="ETH-PERP", underlying="ETH", kind="perpetual",
                          lot_exponent=-3)),
    ("oracle.ticks", event("spot", id="t-1", source="my-oracle", time_ms=NOW_MS - 500, underlying="ETH",
                           price_usd9=2_000 * USD9)),
    ("account.fills", [
        event("cash_move", id="c-1", block=1, time_ms=NOW_MS - 400, account="alice", amount_usd6=1_000 * USD6),
        event("fill", id="f-1", block=1, time_ms=NOW_MS - 300, account="alice", instrument="ETH-PERP", lots=250,
              price_usd9=2_001 * USD9, fee_usd6=100_000),
    ]),
    # the block says how many account events name it: it closes when they have come
    ("chain.blocks", event("block", number=1, hash="0x" + "01" * 32, parent_hash="0x" + "00" * 32, time_ms=NOW_MS,
                           event_count=2)),
]  # fmt: skip


async def main(bootstrap: str = "127.0.0.1:9092", prefix: str = "dpme.") -> None:
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all", enable_idempotence=True)
    await producer.start()
    try:
        for topic, record in RECORDS:
            sent = await producer.send_and_wait(prefix + topic, json.dumps(record).encode())
            print(f"{sent.topic} {sent.partition} {sent.offset}")
    finally:
        await producer.stop()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
