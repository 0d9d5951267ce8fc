"""Whatever a packed record or an input event holds comes back; catalogue and parameters survive a checkpoint."""

from __future__ import annotations

from typing import get_args

import msgspec
import numpy as np
import pytest
from engine_worlds import listings
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas import log_records as r
from schemas.catalogue import Catalogue
from schemas.codec import decode_inputs, encode
from schemas.events import INPUT_TYPES, ParametersListing
from schemas.quantities import divide_half_even, divide_up, notional_usd6
from schemas.risk_parameters import RiskParameters, parameters_digest, parameters_document, parse_parameters

INT64 = st.integers(-(2**63), 2**63 - 1)
U32 = st.integers(0, 2**32 - 1)


def rows_of(dtype: np.dtype) -> st.SearchStrategy[np.ndarray]:
    """Rows of any bytes."""
    return st.binary(max_size=4 * dtype.itemsize).map(
        lambda raw: np.frombuffer(raw[: len(raw) // dtype.itemsize * dtype.itemsize], dtype)
    )


HEADERS = st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1), INT64, st.binary(min_size=32, max_size=32))


@given(HEADERS, rows_of(r.SPOT_ROW), rows_of(r.EXPIRY_ROW), rows_of(r.SETTLEMENT_ROW), st.lists(U32), st.booleans())
def test_barrier(
    head: tuple, spots: np.ndarray, expiries: np.ndarray, settled: np.ndarray, counts: list[int], evaluate: bool
) -> None:
    header = r.pack_header(r.BARRIER, *head, entries=len(counts))
    raw = r.pack_barrier(header, r.Barrier(np.array(counts, np.int64), r.Market(spots, expiries), settled, evaluate))
    found = r.read_barrier(raw, r.read_header(raw))
    assert found.counts.tolist() == counts
    assert found.evaluate is evaluate
    for one, other in ((found.market.spots, spots), (found.market.expiries, expiries), (found.settlements, settled)):
        assert one.tobytes() == other.tobytes()
    assert r.read_header(raw)[3:] == (*head, r.VERSION)


NAMES = st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=64), max_size=5)


@given(HEADERS, NAMES, rows_of(r.EVENT_ROW))
def test_events(head: tuple, names: list[str], rows: np.ndarray) -> None:
    header = r.pack_header(r.EVENTS, *head, entries=len(rows), partition=3)
    raw = r.pack_events(header, r.Events(names, rows))
    found = r.read_events(raw, r.read_header(raw))
    assert found.names == names
    assert found.rows.tobytes() == rows.tobytes()
    assert (len(raw) - rows.nbytes) % 8 == 0


@pytest.mark.parametrize("topic", INPUT_TYPES)
@given(data=st.data())
@settings(max_examples=40)
def test_input_events(topic: str, data: st.DataObject) -> None:
    union = INPUT_TYPES[topic]
    kinds = [t for t in get_args(union) if t is not ParametersListing] or [union]
    fields = data.draw(st.sampled_from(kinds))
    value = data.draw(st.builds(msgspec.convert, plain_of(fields), st.just(fields)))
    ((found, refusal, _),) = decode_inputs(topic, encode(value))
    assert refusal is None
    assert found == value
    found_in_array = decode_inputs(topic, b"[" + encode(value) + b"," + encode(value) + b"]")
    assert [event for event, _, _ in found_in_array] == [value, value]


def plain_of(kind: type) -> st.SearchStrategy[dict]:
    """Plain dicts that fit a type, by its own JSON schema's bounds."""
    schema = msgspec.json.schema(kind)
    return _value_of(schema, schema["$defs"])


def _value_of(part: dict, named: dict) -> st.SearchStrategy:
    if "$ref" in part:
        part = named[part["$ref"].rsplit("/", 1)[1]]
    if "properties" in part:
        required = {name: _value_of(p, named) for name, p in part["properties"].items() if name in part["required"]}
        optional = {name: _value_of(p, named) for name, p in part["properties"].items() if name not in part["required"]}
        return st.fixed_dictionaries(required, optional=optional)
    if "enum" in part:
        return st.sampled_from(part["enum"])
    if "anyOf" in part:
        return st.one_of([_value_of(p, named) for p in part["anyOf"]])
    if part["type"] == "integer":
        low = part.get("minimum", part.get("exclusiveMinimum", -(2**63) - 1) + 1)
        high = part.get("maximum", part.get("exclusiveMaximum", 2**63) - 1)
        return st.integers(low, high)
    if "pattern" in part:
        limit = part.get("maxLength", 1_000)
        return st.from_regex(part["pattern"].replace("$", r"\Z")).filter(lambda text: len(text) <= limit)
    if "additionalProperties" in part and "properties" not in part and part["additionalProperties"]:
        values = _value_of(part["additionalProperties"], named)
        names = st.text(st.characters(min_codepoint=33, max_codepoint=122), min_size=1, max_size=9)
        size = {"min_size": part.get("minProperties", 0), "max_size": part.get("maxProperties", 5)}
        return st.dictionaries(names, values, **size)
    return {"null": st.none(), "boolean": st.booleans()}.get(part["type"], st.text(min_size=1, max_size=64))


def test_catalogue_comes_back_from_its_listings() -> None:
    catalogue = Catalogue.from_listings(listings())
    twin = Catalogue.from_listings(catalogue.to_listings())
    assert twin.instruments == catalogue.instruments
    assert twin.underlyings == catalogue.underlyings
    assert twin.expiries == catalogue.expiries
    assert all(np.array_equal(a, b) for a, b in zip(twin.columns(), catalogue.columns(), strict=True))
    assert twin.to_listings() == catalogue.to_listings()


def test_parameters_come_back_and_differ_by_content() -> None:
    parameters = RiskParameters()
    assert parse_parameters(parameters_document(parameters)) == parameters
    assert len(parameters.stress_rows) >= 50
    other = RiskParameters(rearm_ratio_e6=1_060_000)
    assert other.version == parameters.version
    assert parameters_digest(other) != parameters_digest(parameters)


@given(INT64, st.integers(1, 2**40))
def test_rounding(numerator: int, denominator: int) -> None:
    up, even = divide_up(numerator, denominator), divide_half_even(numerator, denominator)
    assert 0 <= up * denominator - numerator < denominator
    assert abs(2 * (even * denominator - numerator)) <= denominator
    assert divide_half_even(-numerator, denominator) == -even


@given(st.integers(-(2**40), 2**40), st.integers(1, 10**17), st.integers(-12, 6))
def test_both_sides_of_a_trade_pay_opposite_amounts(lots: int, price_usd9: int, exponent: int) -> None:
    assert notional_usd6(lots, price_usd9, exponent) == -notional_usd6(-lots, price_usd9, exponent)
