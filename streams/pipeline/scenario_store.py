"""Scenario sets on their compacted topic: chunks under the broker's message limit, manifest last, named by digest."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import threading
import time

import orjson
from aiokafka.errors import KafkaError

from oracles.scenario_set import MAGIC, ScenarioSet
from schemas.topics import SCENARIO_SETS
from streams.engine.scenario_records import set_records
from streams.runtime.broker_access import connected
from streams.runtime.log_reader import LogReader
from streams.runtime.notes import note
from streams.runtime.producer import new_producer
from streams.runtime.settings import RuntimeSettings

FETCH_LIMIT_S = 15.0
WAIT_S, POLL_S = 10.0, 0.5  # for a set that is listed already
HOW = "dpme scenarios publish --config FILE"


class ScenarioSetMissing(Exception):
    """The log names a scenario set whose bytes are not on the broker."""


async def publish_scenario_set(settings: RuntimeSettings, scenario_set: ScenarioSet) -> None:
    """Append the set; publishing it again changes nothing."""
    producer = new_producer(settings)
    await connected(producer, settings)
    try:
        topic = settings.topic(SCENARIO_SETS)
        for record in set_records(scenario_set.to_bytes(), scenario_set.digest):
            await producer.send_and_wait(topic, record.value, key=record.key, partition=0)
    finally:
        await producer.stop()


async def load_scenario_sets(settings: RuntimeSettings) -> dict[str, ScenarioSet]:
    """Every whole set on the topic, by digest (residual banks that sets were drawn from lie there too)."""
    reader = LogReader(settings)
    await reader.start()
    try:
        topic = settings.topic(SCENARIO_SETS)
        low, high = await reader.bounds(topic, 0)
        records = {r.key.decode(): r.value for r in await reader.read(topic, 0, low, high) if r.key and r.value}
    finally:
        await reader.stop()
    found = {}
    for key, value in records.items():
        digest, _, part = key.rpartition("/")
        if part == "manifest":
            count = orjson.loads(value)["chunks"]
            raw = b"".join(records.get(f"{digest}/{number}", b"") for number in range(count))
            if raw.startswith(MAGIC) and hashlib.blake2b(raw, digest_size=32).hexdigest() == digest:
                found[digest] = ScenarioSet.from_bytes(raw)
    return found


class ScenarioSets:
    """Lookup by digest for the engine. What is not known yet is fetched on a thread and loop of its own: rare, and a
    set's bytes are named by their digest, so the lookup is still a pure function."""

    def __init__(self, settings: RuntimeSettings, wait_s: float = WAIT_S) -> None:
        self.settings, self.wait_s = settings, wait_s
        self.known: dict[str, ScenarioSet] = {}
        self._ahead: threading.Thread | None = None

    def __call__(self, digest: str) -> ScenarioSet:
        if self._ahead is not None:
            self._ahead.join()
        ends_s, topic = None, self.settings.topic(SCENARIO_SETS)
        while digest not in self.known:
            self.fetch()
            if digest in self.known:
                break
            if ends_s is None:
                ends_s = time.monotonic() + self.wait_s
                note("waiting_for_scenario_set", digest=digest, topic=topic, publish_it_by=HOW)
            if time.monotonic() >= ends_s:
                raise ScenarioSetMissing(f"scenario set {digest} is not in {topic}: publish it by `{HOW}`")
            time.sleep(POLL_S)
        return self.known[digest]

    def say_if_empty(self) -> None:
        """Without any set blocks are only carried along: positions, but no margins."""
        if not self.known:
            note("no_scenario_set", topic=self.settings.topic(SCENARIO_SETS), no_margins_until=HOW)

    def fetch_ahead(self) -> None:
        """Begin to fetch, and say so in the end if there is none. Lookups wait for it."""
        self._ahead = threading.Thread(target=self._fetch_and_say, name="scenario-sets", daemon=True)
        self._ahead.start()

    def fetch(self) -> None:
        """Take what is on the topic now; nothing while the broker or the topic is away (then a lookup says so)."""
        fetching = threading.Thread(target=self._fetch, name="scenario-sets")
        fetching.start()
        fetching.join()

    def _fetch(self) -> None:
        with contextlib.suppress(KafkaError, OSError, TimeoutError):
            loading = load_scenario_sets(self.settings)
            self.known.update(asyncio.run(asyncio.wait_for(loading, FETCH_LIMIT_S)))

    def _fetch_and_say(self) -> None:
        self._fetch()
        self.say_if_empty()
