"""Golden samples: one value of every message.

`python tests/golden/make_samples.py` writes the files anew: only for a new version or type, never to pass a test.
`earlier/` keeps samples of what was written before fields were added, `v1/` and `v2/` those of earlier versions: they
must stay readable.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from schemas import decisions as d
from schemas import events as e
from schemas import log_records as r
from schemas import refusals
from schemas import venue as v
from schemas.codec import encode
from schemas.margin_batch import SCHEMA, BatchHead, encode_batch
from schemas.risk_parameters import Depeg, DepegStep, PegTo, Reporter, RiskParameters, SpotReporters

FOLDER = Path(__file__).parent
HASH = "0x" + "5a" * 32
RAW_HASH = bytes([0x5A] * 32)
T = 1_700_000_000_000
ONE = 10**9

INPUTS: dict[str, tuple[str, Any]] = {
    "block": ("chain.blocks", e.Block(
        version=1, number=17, hash=HASH, parent_hash="0x" + "0" * 64, time_ms=T, event_count=3, tick_count=2,
        listing_count=9)),
    "block_close": ("chain.blocks", e.BlockClose(version=1, number=17, hash=HASH)),
    "fill": ("account.fills", e.Fill(
        version=1, id="f-1", block=17, time_ms=T, account="alice", instrument="BTC-PERP", lots=-3,
        price_usd9=40_000 * ONE, fee_usd6=1_250)),
    "cash_move": ("account.fills", e.CashMove(
        version=1, id="c-1", block=17, time_ms=T, account="alice", amount_usd6=-5_000_000)),
    "collateral_move": ("account.fills", e.CollateralMove(
        version=1, id="k-1", block=17, time_ms=T, account="alice", instrument="BTC", lots=7, mode="set")),
    "open_orders": ("account.fills", e.OpenOrders(
        version=1, id="o-1", block=17, time_ms=T, account="alice", instrument="BTC-PERP", buy_lots=3,
        buy_price_usd9=39_000 * ONE)),
    "funding": ("account.fills", e.Funding(
        version=1, id="n-1", block=17, time_ms=T, instrument="BTC-PERP", amount_usd9=-4 * ONE)),
    "transfer": ("account.fills", e.Transfer(
        version=1, id="m-1", block=17, time_ms=T, account="alice", to="alice/options", amount_usd6=5_000_000)),
    "transfer_position": ("account.fills", e.Transfer(
        version=1, id="m-2", block=17, time_ms=T, account="alice/options", to="alice", instrument="BTC-PERP", lots=-3,
        price_usd9=40_000 * ONE)),
    "spot": ("oracle.ticks", e.SpotTick(
        version=1, id="t-1", source="pyth", time_ms=T, underlying="BTC", price_usd9=40_000 * ONE)),
    "forward": ("oracle.ticks", e.ForwardTick(
        version=1, id="t-2", source="deribit", time_ms=T, underlying="BTC", expiry_ms=T + 1, price_usd9=40_100 * ONE,
        rate_e9=30_000_000)),
    "quote": ("oracle.ticks", e.QuoteTick(
        version=1, id="t-3", source="deribit", time_ms=T, instrument="BTC-C", mark_usd9=900 * ONE, bid_usd9=890 * ONE)),
    "surface": ("oracle.ticks", e.SurfaceTick(
        version=1, id="t-4", source="dvol", time_ms=T, underlying="BTC", expiry_ms=T + 1, a_e9=-1, b_e9=2, rho_e9=-3,
        m_e9=4, sigma_e9=5)),
    "surface_forward": ("oracle.ticks", e.SurfaceTick(
        version=1, id="t-5", source="dvol", time_ms=T, underlying="BTC", expiry_ms=T + 1, a_e9=-1, b_e9=2, rho_e9=-3,
        m_e9=4, sigma_e9=5, forward_usd9=40_100 * ONE)),
    "underlying": ("instruments", e.UnderlyingListing(version=1, id="u-1", underlying="USDC", stable=True)),
    "underlying_jumps": ("instruments", e.UnderlyingListing(
        version=1, id="u-2", underlying="BTC",
        jumps=e.Jumps(intensity_e6=4_000_000, mean_e9=-50_000_000, stddev_e9=100_000_000))),
    "instrument": ("instruments", e.InstrumentListing(
        version=1, id="i-1", instrument="BTC-C", underlying="BTC", kind="call", lot_exponent=-2, expiry_ms=T + 1,
        strike_usd9=41_000 * ONE)),
    "scenario_set": ("instruments", e.ScenarioSetListing(version=1, id="s-1", digest="5a" * 32)),
    "halt": ("instruments", e.HaltListing(version=1, id="h-1", partition=2, reason="its disk is lost")),
    "model_fit": ("instruments", e.ModelFitListing(
        version=1, id="g-1", underlying="BTC", kind="gjr-skew-t", time_ms=T, omega_e18=250_000_000_000,
        alpha_e12=60_000_000_000, gamma_e12=-20_000_000_000, beta_e12=930_000_000_000)),
    "open_interest": ("instruments", e.OpenInterestListing(
        version=1, id="o-1", underlying="BTC", time_ms=T, open_usd6=24_000_000_000_000_000)),
    "bid": ("auction.bids", e.Bid(
        version=1, id="b-1", block=17, time_ms=T, account="keeper", target="alice", fraction_e6=500_000,
        price_usd6=-2_000_000, state_id="a-7")),
    "parameters": ("instruments", e.ParametersListing(version=1, id="p-1", document={"version": 2})),
}  # fmt: skip

MARGIN = d.Margin(
    nlv_usd6=1, equity_usd6=-2, initial_margin_usd6=3, maintenance_margin_usd6=4, expected_shortfall_usd6=-5,
    stress_loss_usd6=6, short_option_minimum_usd6=7, add_ons_usd6=8, binding="stress", stress="crash -40%",
)  # fmt: skip
POSITION = d.Position("BTC-PERP", -3, 250_000)
CALL = d.Call(
    seq=9, id="17/alice/liquidatable", account="alice", block=17, time_ms=T, from_state="healthy",
    to_state="liquidatable", margin=MARGIN, cure=d.Cure(10, 1_000_000), positions=(POSITION,), cash_usd6=11,
)  # fmt: skip
WARNING = d.MarginWarning(
    seq=1, id="30/alice/IM", account="alice", block=17, time_ms=T, line="IM", trigger="fill", estimate_usd6=12,
    margin=MARGIN, greeks=(d.Greeks("BTC", 1, -2, 3, -4),),
)  # fmt: skip
LIQUIDATION = d.Liquidation(
    seq=2, id="17/alice/flagged", account="alice", block=17, time_ms=T, state="flagged", shortfall_usd6=2,
    margin=MARGIN, positions=(POSITION,), cash_usd6=11,
)  # fmt: skip
RETRACTION = d.Retraction(
    seq=10, id="17/alice/liquidatable/retracted/1", account="alice", block=17, retracts="17/alice/liquidatable", epoch=1
)
CONFIRMED = msgspec.structs.replace(LIQUIDATION, epoch=1, confirmations=2)
COVER = v.Cover(7, "crash -40%", ("alice", "bob"))
VENUE_VIEW = v.View("equity", 9, 0, 1, 2, 3, COVER, COVER, 4, (v.StressedRow("crash -40%", "extreme", 7, ("alice",)),))
LOSSES = v.VenueLossArrays("equity", 9, 0, bytes(16), bytes(16), bytes([255] * 8), bytes(16), bytes([255] * 8))
OUTPUTS: dict[str, Any] = {
    "margin_warnings": d.WarningRecord(1, 2, 3, 17, (WARNING,)),
    "margin_calls": d.CallRecord(1, 2, 3, 17, (CALL,)),
    "liquidations": d.LiquidationRecord(1, 0, 3, 17, (LIQUIDATION,)),
    "block_done": d.BlockDone(
        version=1, partition=2, seq=18, block=17, block_hash=HASH, time_ms=T, accounts=5, events=3, evaluated=True,
        first=1, wide=0, warnings=1, calls=1, state_digest="ab", table_digest="cd", scenario_digest="5a" * 32,
        states={"healthy": 4, "margin_call": 0, "liquidatable": 1, "insolvent": 0}, parameter_version=1,
        stages={"bound_sup": 3, "exact_not_healthy": 1, "exact_traded": 1}, bound=3),
    "margin_calls_retracted": d.CallRecord(1, 2, 4, 16, (RETRACTION,), 1),
    "liquidations_confirmed": d.LiquidationRecord(1, 0, 4, 17, (CONFIRMED,), 1),
    "liquidations_bids": d.LiquidationRecord(1, 0, 5, 17, (), bids=(
        d.RecordedBid("b-1", T, "keeper", "alice", 500_000, -2_000_000, "a-7"),)),
    "block_done_rollback": d.BlockDone(
        version=1, partition=2, seq=19, block=16, block_hash=HASH, time_ms=T, accounts=5, events=0, evaluated=False,
        first=0, wide=0, warnings=0, calls=1, state_digest="ab", table_digest="", scenario_digest="5a" * 32,
        states={"healthy": 5, "margin_call": 0, "liquidatable": 0, "insolvent": 0}, parameter_version=1, epoch=1,
        rollback_from=17, liquidation_depth_blocks=2),
    "quarantined": d.Quarantined(
        1, refusals.LATE_TICK, "time_ms", "tick is 2001 ms older than the last closed block", "oracle.ticks", 0, 42, 0,
        "e30="),
    "venue_part": v.VenuePart(
        version=1, partition=2, seq=1, block=17, time_ms=T, scenario_digest="5a" * 32, parameter_version=1,
        confidence_e6=999_000, fund_usd6=0, accounts=5, unpriced_accounts=(), names=("alice", "bob"),
        weights=(2**30).to_bytes(4, "little"), rows=(v.VenueRow("crash -40%", "extreme"),), views=(LOSSES,)),
    "venue_stress": v.VenueStressRecord(
        version=1, partition=0, seq=1, block=17, time_ms=T, partitions=4, accounts=20, scenarios=1,
        scenario_digest="5a" * 32, parameter_version=1, confidence_e6=999_000, fund_usd6=7, fund_given=False,
        unpriced_accounts=(), views=(VENUE_VIEW,), epoch=1),
    "risk_parameters": RiskParameters(),
    "risk_parameters_oracles": RiskParameters(
        spot_reporters=SpotReporters(reporters=(Reporter(source="a"), Reporter(source="b", weight=2)), quorum=2),
        depeg=Depeg(pegs=(
            PegTo(underlying="stETH", to="ETH", steps=(DepegStep(below_usd6=970_000, factor_share_e6=1),)),))),
}  # fmt: skip

SPOTS = np.array([(0, 0, 40_000 * ONE, 600_000_000), (2, 0, ONE, 0)], r.SPOT_ROW)
EXPIRIES = np.array([(1, 0, 40_100 * ONE, 30_000_000, -1, 2, -3, 4, 5)], r.EXPIRY_ROW)
COINS = np.array([(0, 0, 39_990 * ONE, 0), (2, 1, 940_000_000, 500_000)], r.COLLATERAL_ROW)
COMBINED = np.array([(1, 0, 7, 4, list(RAW_HASH[:16]))], r.CONSENSUS_ROW)
HELD_SPOTS = np.array([(0, 1, 40_000 * ONE, 600_000_000)], r.SPOT_ROW)
COMBINED_SPOT = np.array([(r.spot_place(0), 1, 0, 4, list(RAW_HASH[:16]))], r.CONSENSUS_ROW)
SETTLEMENTS = np.array([(0, 0, 39_000 * ONE)], r.SETTLEMENT_ROW)
ROWS = np.zeros(3, r.EVENT_ROW)
for _row, _values in zip(ROWS, [(1, 0, 4, -3, 7, -5), (2, 1, -1, 0, 0, 9), (4, 0, 2, 8, 0, 0)], strict=True):
    _row["kind"], _row["account"], _row["instrument"], _row["lots"], _row["price_usd9"], _row["cash_usd6"] = _values

FUNDED = np.zeros(1, r.EVENT_ROW)
FUNDED["kind"], FUNDED["account"], FUNDED["instrument"], FUNDED["price_usd9"] = r.FUNDING, r.EVERY_ACCOUNT, 4, -4 * ONE

RECORDS: dict[str, bytes] = {
    "listings": r.pack_listings(
        r.pack_header(r.LISTINGS, 1, 17, 0, r.NO_HASH, entries=1), [{"type": "underlying", "underlying": "Ω"}]),
    "market": r.pack_market(r.pack_header(r.MARKET, 2, 17, T, RAW_HASH, entries=2), r.Market(SPOTS, EXPIRIES)),
    "barrier": r.pack_barrier(
        r.pack_header(r.BARRIER, 3, 17, T, RAW_HASH, entries=4),
        r.Barrier(np.array([3, 0, 1, 0]), r.Market(SPOTS, EXPIRIES), SETTLEMENTS, True)),
    "market_guards": r.pack_market(
        r.pack_header(r.MARKET, 2, 17, T, RAW_HASH, entries=2), r.Market(SPOTS, EXPIRIES, COINS, COMBINED)),
    "market_spot_held": r.pack_market(
        r.pack_header(r.MARKET, 2, 17, T, RAW_HASH, entries=1),
        r.Market(HELD_SPOTS, EXPIRIES[:0], COINS[:0], COMBINED_SPOT)),
    "barrier_guards": r.pack_barrier(
        r.pack_header(r.BARRIER, 3, 17, T, RAW_HASH, entries=4),
        r.Barrier(np.array([3, 0, 1, 0]), r.Market(SPOTS, EXPIRIES, COINS, COMBINED), SETTLEMENTS, True)),
    "events": r.pack_events(
        r.pack_header(r.EVENTS, 3, 17, T, RAW_HASH, entries=3, partition=2), r.Events(["alice", "bób"], ROWS)),
    "rollback": r.pack_rollback(r.pack_header(r.ROLLBACK, 4, 16, T, RAW_HASH), r.Rollback(1, 17)),
    "events_funding": r.pack_events(
        r.pack_header(r.EVENTS, 3, 17, T, RAW_HASH, entries=1, partition=2), r.Events([], FUNDED)),
    "bids": r.pack_bids(
        r.pack_header(r.BIDS, 5, 17, T, RAW_HASH, entries=1),
        [{"id": "b-1", "time_ms": T, "account": "keeper", "target": "alice", "fraction_e6": 1, "price_usd6": -2}]),
    "seal": r.pack_seal(r.pack_header(r.SEAL, 0, 7, 0, r.NO_HASH), r.Seal(2, 8)),
    "fence": r.pack_header(r.FENCE, 0, 0, 0, r.NO_HASH) + b"0123456789abcdef",
}  # fmt: skip
BATCH_HEAD = BatchHead(2, 18, 17, HASH, T)
BATCH_ACCOUNTS = ["alice", "bób"]
BATCH = {name: np.array([n, -n], SCHEMA.field(name).type.to_pandas_dtype()) for n, name in enumerate(SCHEMA.names) if n}


def files() -> dict[str, bytes]:
    """File name -> bytes that the present code writes."""
    found = {f"{name}.json": encode(value) for name, (_, value) in INPUTS.items()}
    found |= {f"{name}.json": encode(value) for name, value in OUTPUTS.items()}
    found |= {f"{name}.bin": value for name, value in RECORDS.items()}
    return found | {"margin_batch.arrow": encode_batch(BATCH_HEAD, BATCH_ACCOUNTS, BATCH)}


if __name__ == "__main__":
    for file_name, content in files().items():
        (FOLDER / file_name).write_bytes(content)
