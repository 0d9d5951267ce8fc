"""The questions that `dpme query` asks: latest, as of a block, one account, free SELECTs. Answers are plain dicts.

A block counts as done once every partition has said so: `latest` is the newest such block, and a margin as of block N
is the account's newest at or before N (a block may be skipped by `evaluate`).
"""

from __future__ import annotations

import re
from typing import Any

import orjson

from schemas.margin_batch import MONEY_COLUMNS
from streams.sink.errors import QueryRefused, StoreEmpty
from streams.sink.store import Store

ROWS_MAX = 100_000
_MARGIN = (
    "account, block, time_ms, toString(state) AS state, "
    + ", ".join(MONEY_COLUMNS)
    + ", toString(binding) AS binding, stress_row, wide, nlv_usd6 - initial_margin_usd6 AS headroom_usd6"
)
_EVENTS = {
    "margin_calls": "block, seq, id, from_state, to_state, nlv_usd6, initial_margin_usd6, maintenance_margin_usd6, "
    "binding, stress, cure_deposit_usd6, cure_close_fraction_e6",
    "margin_warnings": "block, seq, id, line, trigger, estimate_usd6, nlv_usd6, initial_margin_usd6, "
    "maintenance_margin_usd6, binding, stress",
    "liquidations": "block, seq, id, state, shortfall_usd6, nlv_usd6, maintenance_margin_usd6, positions",
}
_VENUE = (
    "block", "time_ms", "partitions", "accounts", "scenarios", "scenario_digest", "parameter_version", "confidence_e6",
    "fund_usd6",
)  # fmt: skip
_VIEW = (
    "resources", "resources_usd6", "uncovered_now_usd6", "uncovered_mean_usd6", "fund_quantile_usd6",
    "fund_shortfall_usd6", "exhausted_probability_e6",
)  # fmt: skip
# A later rollback to a block below retracts a row.
_OF_CHAIN = (  # of the chain as it is now; {database}: where the tables are
    "NOT arrayExists(mark -> mark.1 = log_partition AND mark.2 > epoch AND mark.3 < block, "
    "(SELECT groupArray((log_partition, epoch, block)) FROM {database}.blocks_done WHERE rollback_from >= 0))"
)
_READING = re.compile(r"\s*(SELECT|WITH|FROM|SHOW|DESCRIBE|DESC|EXISTS|EXPLAIN)\b", re.IGNORECASE)
_WRAPPED = re.compile(r"\s*(SELECT|WITH|FROM)\b", re.IGNORECASE)


def latest(store: Store, limit: int = 20, partitions: int | None = None) -> dict[str, Any]:
    """Margins at the newest block that all partitions have done: the least NLV for its IM first."""
    _first, last = _blocks(store, partitions)
    return _margins_at(store, last, limit)


def asof(store: Store, block: int, limit: int = 20, partitions: int | None = None) -> dict[str, Any]:
    """Margins as of `block`. Raises QueryRefused for a block outside of what is stored and done."""
    first, last = _blocks(store, partitions)
    if not first <= block <= last:
        raise QueryRefused(f"block {block} is not in the store: it has blocks {first} to {last}")
    return _margins_at(store, block, limit)


def account(store: Store, name: str, limit: int = 20) -> dict[str, Any]:
    """The last margins of an account, newest first, and everything that was said of it."""
    parameters: dict[str, str | int] = {"name": name, "limit": _checked_limit(limit)}
    of_chain = _OF_CHAIN.format(database=store.database)
    margins = store.query(
        f"SELECT {_MARGIN} FROM {store.database}.margins WHERE account = {{name:String}} AND {of_chain} "
        "ORDER BY block DESC LIMIT {limit:UInt32}",
        parameters,
    )
    if not margins:
        _blocks(store, None)
        raise QueryRefused(f"account {name!r} has no margin in the store: `dpme query latest` names accounts")
    events = {
        table: store.query(
            f"SELECT {columns} FROM {store.database}.{table} WHERE account = {{name:String}} AND retracts = '' "
            f"AND id NOT IN (SELECT retracts FROM {store.database}.{table} WHERE account = {{name:String}}) "
            "ORDER BY block DESC, seq DESC LIMIT {limit:UInt32}",
            parameters,
        )
        for table, columns in _EVENTS.items()
    }
    return {"account": name, "margins": margins, **events}


def venue(store: Store, block: int | None = None) -> dict[str, Any]:
    """The venue under stress, as it was last said at or before `block` (None: ever), in the form of `dpme stress`.

    Raises StoreEmpty where nothing was said of it.
    """
    of_chain, until = _OF_CHAIN.format(database=store.database), "" if block is None else "AND block <= {block:Int64}"
    rows = store.query(
        f"SELECT * FROM {store.database}.venue_stress WHERE {of_chain} {until} "
        "ORDER BY record_seq DESC, resources LIMIT 2",
        {} if block is None else {"block": block},
    )
    if not rows:
        raise StoreEmpty(
            "nothing is stored of the venue as a whole: risk parameters with `venue_stress` ask for it "
            "(infra/docs/venue_stress.md), with each scenario set that takes effect"
        )
    shared = {name: rows[0][name] for name in _VENUE}
    unpriced = orjson.loads(rows[0]["unpriced_accounts"])
    fund = {"fund_given": bool(rows[0]["fund_given"]), "unpriced_accounts": unpriced}
    return {**shared, **fund, "views": [_view(row) for row in rows]}


def _view(row: dict[str, Any]) -> dict[str, Any]:
    covers = {
        f"cover_{count}": {
            "uncovered_usd6": row[f"cover_{count}_usd6"],
            "scenario": row[f"cover_{count}_scenario"],
            "accounts": orjson.loads(row[f"cover_{count}_accounts"]),
        }
        for count in (1, 2)
    }
    return {**{name: row[name] for name in _VIEW}, **covers, "rows": orjson.loads(row["rows"])}


def sql(store: Store, text: str, limit: int = 1000) -> dict[str, Any]:
    """Rows of one reading statement. chDB runs several statements of one text, so a `;` inside is refused."""
    statement = text.strip().rstrip(";").strip()
    if ";" in statement:
        raise QueryRefused("one statement at a time: there is a ';' inside (write char(59) in a string)")
    if not _READING.match(statement):
        raise QueryRefused("only reading is allowed: SELECT, WITH, SHOW, DESCRIBE, EXISTS or EXPLAIN")
    if _WRAPPED.match(statement):  # a subquery can be nothing but a SELECT
        statement = f"SELECT * FROM (\n{statement}\n) LIMIT {_checked_limit(limit)}"
    return {"rows": store.query(statement)}


def _blocks(store: Store, partitions: int | None) -> tuple[int, int]:
    """First block that any partition has, newest that all have done and whose margins are all here.

    blocks.done and margin.batches are two logs: a block may be reported before its margins have been stored. A halted
    partition holds the newest block back.
    """
    held = f"SELECT log_partition, max((epoch, block)) AS newest FROM {store.database}.margins GROUP BY log_partition"
    awaited = (
        "SELECT log_partition, record_seq, block, halted, "
        "evaluated AND accounts > 0 AND (epoch, block) > newest AS awaited "
        f"FROM {store.database}.blocks_done LEFT JOIN ({held}) AS held USING log_partition"
    )
    found = store.query(
        "SELECT log_partition, min(block) AS first, argMaxIf(block, record_seq, halted = '') AS last, "
        f"minIf(block, awaited) AS missing, countIf(awaited) AS late FROM ({awaited}) GROUP BY log_partition"
    )
    if not found:
        raise StoreEmpty("the store has no block yet: start `dpme demo` or a replay with this --data, or wait a second")
    if partitions is not None and len(found) < partitions:
        raise StoreEmpty(f"only {len(found)} of {partitions} partitions have done a block yet: wait a second")
    first = min(row["first"] for row in found)
    last = min(row["missing"] - 1 if row["late"] else row["last"] for row in found)
    if last < first:
        raise StoreEmpty("the margins of the first block are not stored yet: wait a second")
    return first, last


def _margins_at(store: Store, block: int, limit: int) -> dict[str, Any]:
    at = (
        f"FROM {store.database}.margins WHERE (log_partition, block, epoch) IN "
        "(SELECT log_partition, newest.1, newest.2 FROM (SELECT log_partition, max((block, epoch)) AS newest "
        f"FROM {store.database}.margins WHERE block <= {{block:Int64}} GROUP BY log_partition))"
    )
    parameters: dict[str, str | int] = {"block": block, "limit": _checked_limit(limit)}
    counts = store.query(f"SELECT toString(state) AS state, count() AS accounts {at} GROUP BY state", parameters)
    nearest = "ORDER BY nlv_usd6 / greatest(initial_margin_usd6, 1), account LIMIT {limit:UInt32}"
    rows = store.query(f"SELECT {_MARGIN} {at} {nearest}", parameters)
    done = store.query(
        "SELECT argMax(block_hash, epoch) AS block_hash, argMax(time_ms, epoch) AS time_ms "
        f"FROM {store.database}.blocks_done "
        "WHERE block = {block:Int64} AND halted = ''",
        parameters,
    )
    halted = store.query(
        f"SELECT log_partition AS partition, block, halted AS reason FROM {store.database}.blocks_done "
        "WHERE halted != '' ORDER BY block, partition"
    )
    return {
        "block": block,
        **done[0],
        "accounts": sum(row["accounts"] for row in counts),
        "states": {row["state"]: row["accounts"] for row in counts},
        "halted": halted,
        "margins": rows,
    }


def _checked_limit(limit: int) -> int:
    if not 1 <= limit <= ROWS_MAX:
        raise QueryRefused(f"limit {limit} is outside 1 to {ROWS_MAX}")
    return limit
