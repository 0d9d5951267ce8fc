"""Records of the public topics, for the gateway."""

from __future__ import annotations

import numpy as np

from schemas import decisions
from schemas.codec import encode
from schemas.margin_batch import MONEY_COLUMNS, BatchHead, encode_batch

MARGIN = decisions.Margin(1, 2, 3, 4, 5, 6, 7, 8, "stress", "spot -20 %")


def calls(record_seq: int, first: int, count: int = 1, partition: int = 0) -> bytes:
    events = tuple(
        decisions.Call(seq, f"c{seq}", f"account-{seq}", 7, 7000, "healthy", "margin_call", MARGIN)
        for seq in range(first, first + count)
    )
    return encode(decisions.CallRecord(1, partition, record_seq, 7, events))


def block_done(seq: int, partition: int = 0) -> bytes:
    numbers = dict.fromkeys(("accounts", "events", "first", "wide", "warnings", "calls", "parameter_version"), 0)
    digests = dict.fromkeys(("state_digest", "table_digest", "scenario_digest"), "")
    done = decisions.BlockDone(1, partition, seq, seq, "0x", 0, evaluated=True, states={}, **numbers, **digests)
    return encode(done)


def batch(seq: int, accounts: list[str], nlv_usd6: list[int], partition: int = 0) -> bytes:
    columns = {name: np.array(nlv_usd6, np.int64) for name in (*MONEY_COLUMNS, "keyframe_block")}
    columns |= {name: np.ones(len(accounts), np.int8) for name in ("binding", "stress_row", "state")}
    columns["wide"] = np.zeros(len(accounts), bool)
    return encode_batch(BatchHead(partition, seq, 10 * seq, "0xab", 1000 * seq), accounts, columns)
