"""Records of the public topics as the engine writes them."""

from __future__ import annotations

import numpy as np

from schemas import decisions
from schemas.codec import encode
from schemas.margin_batch import MONEY_COLUMNS, BatchHead, encode_batch

HASH = "0x" + "ab" * 32


def margin_batch(seq: int, block: int, accounts: list[str], nlv_usd6: list[int], partition: int = 0) -> bytes:
    """IM is 100 USD and MM 80 USD for everybody; the state follows from NLV."""
    nlv = np.array(nlv_usd6, np.int64)
    columns = {name: np.zeros(len(accounts), np.int64) for name in (*MONEY_COLUMNS, "keyframe_block")}
    columns |= {"nlv_usd6": nlv, "equity_usd6": nlv + 5}
    columns["initial_margin_usd6"] += 100_000_000
    columns["maintenance_margin_usd6"] += 80_000_000
    columns |= {"binding": np.ones(len(accounts), np.int8), "stress_row": np.full(len(accounts), 3, np.int16)}
    columns["state"] = np.where(nlv < 80_000_000, 2, np.where(nlv < 100_000_000, 1, 0)).astype(np.int8)
    columns["wide"] = np.zeros(len(accounts), bool)
    return encode_batch(BatchHead(partition, seq, block, HASH, 1000 * block), accounts, columns)


def block_done(
    seq: int, block: int, accounts: int, partition: int = 0, evaluated: bool = True, halted: str = ""
) -> bytes:
    return encode(
        decisions.BlockDone(
            version=1,
            partition=partition,
            seq=seq,
            block=block,
            block_hash=HASH,
            time_ms=1000 * block,
            accounts=accounts,
            events=2,
            evaluated=evaluated,
            first=1,
            wide=0,
            warnings=0,
            calls=1,
            states={"healthy": accounts},
            state_digest="aa",
            table_digest="bb",
            scenario_digest="cc",
            parameter_version=1,
            halted=halted,
        )
    )


MARGIN = decisions.Margin(
    nlv_usd6=90_000_000,
    equity_usd6=95_000_000,
    initial_margin_usd6=100_000_000,
    maintenance_margin_usd6=80_000_000,
    expected_shortfall_usd6=80_000_000,
    stress_loss_usd6=-3,
    short_option_minimum_usd6=0,
    add_ons_usd6=7,
    binding="expected_shortfall",
    stress="spot -20 %",
)
POSITIONS = (decisions.Position("BTC-PERP", -5, 12), decisions.Position("ETH-1-C", 2, -2))


def call_record(seq: int, block: int, first_event: int, accounts: list[str], partition: int = 0) -> bytes:
    events = tuple(
        decisions.Call(
            seq=first_event + k,
            id=f"call-{first_event + k}",
            account=account,
            block=block,
            time_ms=1000 * block,
            from_state="healthy",
            to_state="margin_call",
            margin=MARGIN,
            cure=decisions.Cure(10_000_000, 125_000) if k % 2 == 0 else None,
            positions=POSITIONS,
            cash_usd6=-17,
        )
        for k, account in enumerate(accounts)
    )
    return encode(decisions.CallRecord(1, partition, seq, block, events))


def warning_record(seq: int, block: int, first_event: int, account: str) -> bytes:
    greeks = (decisions.Greeks("BTC", 1, 2, 3, -4),)
    event = decisions.MarginWarning(
        first_event, f"w-{first_event}", account, block, 1000 * block, "initial", "tick", 99, MARGIN, greeks
    )
    return encode(decisions.WarningRecord(1, 0, seq, block, (event,)))


def liquidation_record(seq: int, block: int, first_event: int, account: str) -> bytes:
    event = decisions.Liquidation(
        first_event, f"l-{first_event}", account, block, 1000 * block, "flagged", 4, MARGIN, POSITIONS, 9
    )
    return encode(decisions.LiquidationRecord(1, 0, seq, block, (event,)))


def quarantined(offset: int, index: int = 0, reason: str = "malformed") -> bytes:
    return encode(decisions.Quarantined(1, reason, "", "not JSON", "account.fills", 2, offset, index, "AAE="))
