"""The preset deribit-pm against Deribit's own example and a captured reply (vectors/deribit_portfolio_margin.json)."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from oracles.presets.case import Case, Expiry, Future, Market, Option, Positions
from oracles.presets.document import AddOnRule, Group, MarginRule, PresetDocument, Row, VolRule, check_document, preset
from oracles.presets.evaluate import evaluate
from oracles.presets.exact import evaluate_exactly

VECTORS = json.loads((Path(__file__).parent / "vectors" / "deribit_portfolio_margin.json").read_text())["cases"]
EXTENDED_MOVES = (0.34, 0.67, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0)  # support.deribit.com, Portfolio Margin
EXPIRY_MS = {"BTC-28JUN24": 1_719_561_600_000}  # 08:00 UTC


def document_of(model: dict) -> PresetDocument:
    """The shipped document with the figures of the reply's model."""
    coin = "btc" if "annualised_move_risk_btc" in model else "eth"
    buckets, reach = model["buckets_per_side"], model["price_range"]
    rows = [
        Row(name=f"{step}/{buckets}", reason="price bucket", spot_multiplier=1 + reach * step / buckets)
        for step in range(-buckets, buckets + 1)
    ]
    add_ons = AddOnRule(
        roll_annualised=model[f"annualised_move_risk_{coin}"], roll_minimum=model[f"min_annualised_move_{coin}"],
        gain_share=model[f"pnl_offset_{coin}"], gain_limit_usd=model[f"max_offsetable_pnl_{coin}"],
    )  # fmt: skip
    base = preset("deribit-pm")
    margin = MarginRule(im_loss_factor=1.0, mm_loss_factor=model["mm_factor"])
    parameters = replace(base.parameters, add_ons=add_ons, margin=margin)
    extended = Group(name="extended", rows=tuple(extended_rows(reach, model[f"extended_dampener_{coin}"])))
    document = replace(base, groups=(Group(name="standard", rows=tuple(rows)), extended), parameters=parameters)
    check_document(document)
    return document


def extended_rows(reach: float, dampener_usd: float) -> Iterator[Row]:
    """Far moves: of the P&L in USD the fraction range / move counts, in coins at the edge of the range."""
    for multiplier in EXTENDED_MOVES:
        move = multiplier - 1
        weight = multiplier * reach / (abs(move) * (1 + (reach if move > 0 else -reach)))
        dampener = (abs(move) / reach - 1) * dampener_usd
        yield Row(
            name=f"x {multiplier}", reason="extended table", spot_multiplier=multiplier, vol_shock="up", weight=weight,
            dampener_usd=dampener,
        )  # fmt: skip


def case_of(vector: dict) -> Case:
    """Positions are coins at their own price; what is asked beside the risk matrix is an input."""
    index, expected, held = vector["market"]["index"], vector["expected"], vector["positions"]
    perpetual = next(name for name in held if name.endswith("PERPETUAL"))
    other = expected.get("mmp_margin", 0.0) + expected.get("open_orders_margin", 0.0) + expected.get("spot_margin", 0.0)
    futures = [
        Future(seconds_to_expiry=(EXPIRY_MS[name] - vector["valuation_time_ms"]) // 1000, quantity=size,
               price=vector["market"]["marks"][name])
        for name, size in held.items() if name != perpetual
    ]  # fmt: skip
    positions = Positions(perp_quantity=held[perpetual], futures=tuple(futures), other_initial_margin=other * index)
    return Case(
        id=vector["id"],
        positions=positions,
        market=Market(spot=index, perp_price=vector["market"]["marks"][perpetual]),
    )


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["id"])
def test_the_risk_matrix_and_the_margins(vector: dict) -> None:
    document, case, expected = document_of(vector["model"]), case_of(vector), vector["expected"]
    found, index = evaluate(case, document), vector["market"]["index"]
    coins = [pnl / index for pnl in found.scenario_pnl]
    assert coins[:9] == pytest.approx(expected["aggregated_standard"], abs=1e-15)
    assert coins[9:] == expected["aggregated_extended"]  # the dampener takes all of it
    assert found.risk / index == pytest.approx(expected["worst_case"], rel=1e-12)
    assert found.binding.startswith("standard: -4/4" if expected["worst_case_bucket"] == 1 else "standard: 4/4")
    assert found.roll / index == pytest.approx(expected["roll_shock"], rel=1e-12)
    assert (found.risk + found.roll) / index == pytest.approx(expected["risk_matrix_margin"], abs=1e-9)
    assert found.initial_requirement / index == pytest.approx(expected["initial_margin"], abs=1e-9)
    assert found.maintenance_requirement / index == pytest.approx(expected["maintenance_margin"], abs=1e-9)


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["id"])
def test_every_instrument_alone(vector: dict) -> None:
    base, case = document_of(vector["model"]), case_of(vector)
    everything = replace(base.parameters, add_ons=replace(base.parameters.add_ons, gain_share=1.0, gain_limit_usd=None))
    groups = [replace(g, rows=tuple(replace(row, dampener_usd=0.0) for row in g.rows)) for g in base.groups]
    document, expected = replace(base, parameters=everything, groups=tuple(groups)), vector["expected"]
    for name, printed in expected["per_instrument_standard"].items():
        size = vector["positions"][name]
        alone = Positions(perp_quantity=size)
        if not name.endswith("PERPETUAL"):
            alone = Positions(futures=tuple(f for f in case.positions.futures if f.quantity == size))
        found = evaluate(replace(case, positions=alone), document)
        coins = [pnl / vector["market"]["index"] for pnl in found.scenario_pnl]
        assert coins == pytest.approx([*printed, *expected["per_instrument_extended"][name]], abs=1e-15)


def test_the_document_holds_the_examples_figures() -> None:
    model, p = VECTORS[0]["model"], preset("deribit-pm").parameters
    assert p.vol == VolRule(
        range_up=model["volatility_range_up"], range_down=model["volatility_range_down"],
        short_term_power=model["short_term_vega_power"], long_term_power=model["long_term_vega_power"],
        dte_floor_days=1.0, min_vol_when_shocked_up=model["min_volatility_for_shock_up"],
    )  # fmt: skip
    assert p == replace(document_of(model).parameters, vol=p.vol)
    standard, extended = preset("deribit-pm").groups
    moves = sorted({row.spot_multiplier for row in standard.rows})
    assert moves == pytest.approx([row.spot_multiplier for row in document_of(model).groups[0].rows])
    for row, own in zip(extended.rows, document_of(model).groups[1].rows, strict=True):
        assert (row.spot_multiplier, row.vol_shock) == (own.spot_multiplier, "up")
        assert (row.weight, row.dampener_usd) == pytest.approx((own.weight, own.dampener_usd), rel=1e-12)


def test_short_options_far_out_of_the_money_meet_the_extended_table() -> None:
    """500 short calls at twice the price: the main table hardly sees them, a move of +300 % does."""
    call = Option(seconds_to_expiry=30 * 86_400, strike=130_000.0, type="call", quantity=-500.0, mark_vol=0.6)
    market = Market(spot=65_000.0, perp_price=65_000.0)
    expiries = (Expiry(seconds_to_expiry=30 * 86_400, forward=65_000.0),)
    case = Case(id="far", positions=Positions(options=(call,)), market=market, expiries=expiries)
    found = evaluate(case, preset("deribit-pm"))
    assert found.risks["extended table"] > 5 * found.risks["risk matrix"] > 0
    assert found.binding.startswith("extended table: spot +")
    exact = evaluate_exactly(case, preset("deribit-pm"))
    below = found.initial_margin_balance - exact.initial_margin_balance_usd6 / 1e6
    assert 0 <= below <= exact.bound_usd6 / 1e6
