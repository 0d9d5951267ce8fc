"""The preset deribit-pm against Deribit's own example and a captured reply (vectors/deribit_portfolio_margin.json)."""

import json
from pathlib import Path

import pytest
from msgspec.structs import replace

from oracles.presets.case import Case, Future, Market, Positions
from oracles.presets.document import AddOnRule, Group, MarginRule, PresetDocument, Row, VolRule, check_document, preset
from oracles.presets.evaluate import evaluate

VECTORS = json.loads((Path(__file__).parent / "vectors" / "deribit_portfolio_margin.json").read_text())["cases"]
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
    document = replace(base, groups=(Group(name="standard", rows=tuple(rows)),), parameters=parameters)
    check_document(document)
    return document


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
    assert coins == pytest.approx(expected["aggregated_standard"], abs=1e-15)
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
    document = replace(base, parameters=everything)
    for name, printed in vector["expected"]["per_instrument_standard"].items():
        size = vector["positions"][name]
        alone = Positions(perp_quantity=size)
        if not name.endswith("PERPETUAL"):
            alone = Positions(futures=tuple(f for f in case.positions.futures if f.quantity == size))
        found = evaluate(replace(case, positions=alone), document)
        assert [pnl / vector["market"]["index"] for pnl in found.scenario_pnl] == pytest.approx(printed, abs=1e-15)


def test_the_document_holds_the_examples_figures() -> None:
    model, p = VECTORS[0]["model"], preset("deribit-pm").parameters
    assert p.vol == VolRule(
        range_up=model["volatility_range_up"], range_down=model["volatility_range_down"],
        short_term_power=model["short_term_vega_power"], long_term_power=model["long_term_vega_power"],
        dte_floor_days=1.0, min_vol_when_shocked_up=model["min_volatility_for_shock_up"],
    )  # fmt: skip
    assert p == replace(document_of(model).parameters, vol=p.vol)
    moves = sorted({row.spot_multiplier for row in preset("deribit-pm").groups[0].rows})
    assert moves == pytest.approx([row.spot_multiplier for row in document_of(model).groups[0].rows])
