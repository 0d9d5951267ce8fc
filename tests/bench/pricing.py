"""Prices of options: our kernels against numpy with scipy's ndtr, numba with math.erfc, torch and QuantLib.

Twice: a flat list of options with a logarithm, a root and a discount of each (all peers), and the grid of strikes under
scenarios that margins need, where these are hoisted out of the loop for both sides (numpy, a strike at a time). numpy
runs without OPENBLAS_CORETYPE and OPENBLAS_L2_SIZE, which pin a BLAS that nothing here calls. One core.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numba import njit
from scipy.special import ndtr

from kernels import black76
from kernels.implied_vol import implied_vols
from kernels.layout import CALL, PUT, InstrumentTable, MarketTable, ScenarioTable, empty_pnl_table, tail_mass_of_level
from kernels.reprice import pnl_table
from tests.bench.rows import Row, checksum, peak_memory_mb, side_by_side

JUMPS = np.array([[4.0, -0.05, 0.1]])
NDTR_GOAL = 15.0


class Book(NamedTuple):
    """Options as flat arrays: forward, strike, vol, years, rate, is_call."""

    forward: np.ndarray
    strike: np.ndarray
    vol: np.ndarray
    years: np.ndarray
    rate: np.ndarray
    is_call: np.ndarray


def rows(small: bool) -> Iterator[Row]:
    """All rows of the part."""
    book = _book(1_024 if small else 131_072)
    yield from _against_peers(book)
    yield from _bare(8 if small else 128, 256 if small else 4_096)
    yield _with_greeks(book)
    yield from _tables(8 if small else 128, 256 if small else 4_096)
    yield _implied(book)


def _book(count: int) -> Book:
    random = np.random.default_rng(7)
    forward = 60_000.0 * np.exp(random.normal(0.0, 0.05, count))
    strike = 60_000.0 * np.exp(random.normal(0.0, 0.2, count))
    vol, years = random.uniform(0.3, 1.2, count), random.uniform(0.01, 1.0, count)
    return Book(forward, strike, vol, years, random.uniform(-0.02, 0.06, count), random.random(count) < 0.5)


def _against_peers(book: Book) -> Iterator[Row]:
    count = len(book.forward)
    out, peer_out = np.empty(count), np.empty(count)

    def ours() -> None:
        black76.prices(*book, out)

    def scipy() -> None:
        peer_out[:] = _ndtr_prices(book)

    def erfc() -> None:
        _erfc_prices(*book, peer_out)

    peers: dict[str, Callable[[], Any] | None] = {
        "numpy + scipy ndtr": scipy, "numba math.erfc": erfc, "torch CPU": _torch_prices(book),
        "QuantLib": _quantlib_prices(book),
    }  # fmt: skip
    for name, peer in peers.items():
        title = f"price of an option against {name}"
        if peer is None:
            yield Row(name=title, value=None, unit="ns", peer=name, goal="not run: not installed")
            continue
        timings = side_by_side(ours, peer)
        yield Row(
            name=title, value=_nanoseconds(timings.seconds[0], count), unit="ns", ratio=round(timings.ratios[1], 2),
            peer=f"{name}: {_nanoseconds(timings.seconds[1], count)} ns",
            size=f"{count} options, own logarithm and discount", memory_mb=peak_memory_mb(), checksum=checksum(out),
        )  # fmt: skip


def _ndtr_prices(book: Book) -> np.ndarray:
    stddev = book.vol * np.sqrt(book.years)
    d1 = np.log(book.forward / book.strike) / stddev + 0.5 * stddev
    sign = np.where(book.is_call, 1.0, -1.0)
    value = sign * (book.forward * ndtr(sign * d1) - book.strike * ndtr(sign * (d1 - stddev)))
    return np.asarray(np.exp(-book.rate * book.years) * value)


@njit(nogil=True, error_model="numpy")
def _erfc_prices(forward, strike, vol, years, rate, is_call, out) -> None:  # type: ignore[no-untyped-def]
    for i in range(out.shape[0]):
        stddev = vol[i] * math.sqrt(years[i])
        d1 = math.log(forward[i] / strike[i]) / stddev + 0.5 * stddev
        sign = 1.0 if is_call[i] else -1.0
        first = 0.5 * math.erfc(-sign * d1 * 0.7071067811865476)
        second = 0.5 * math.erfc(-sign * (d1 - stddev) * 0.7071067811865476)
        out[i] = math.exp(-rate[i] * years[i]) * sign * (forward[i] * first - strike[i] * second)


def _torch_prices(book: Book) -> Callable[[], Any] | None:
    torch = _module("torch")
    if torch is None:
        return None
    torch.set_num_threads(1)
    forward, strike, vol, years, rate = (torch.from_numpy(column) for column in book[:5])
    sign = torch.from_numpy(np.where(book.is_call, 1.0, -1.0))

    def work() -> Any:
        stddev = vol * years.sqrt()
        d1 = (forward / strike).log() / stddev + 0.5 * stddev
        first, second = torch.special.ndtr(sign * d1), torch.special.ndtr(sign * (d1 - stddev))
        return (-rate * years).exp() * sign * (forward * first - strike * second)

    return work


def _quantlib_prices(book: Book) -> Callable[[], Any] | None:
    quantlib = _module("QuantLib")
    if quantlib is None:
        return None
    stddev, discount = book.vol * np.sqrt(book.years), np.exp(-book.rate * book.years)
    kinds = [quantlib.Option.Call if call else quantlib.Option.Put for call in book.is_call]
    cases = list(zip(kinds, book.strike.tolist(), book.forward.tolist(), stddev.tolist(), discount.tolist()))

    def work() -> Any:
        return [quantlib.blackFormula(*case) for case in cases]

    return work


def _module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


@njit(nogil=True, error_model="numpy")
def _bare_values(log_moneyness, stddev, smaller, out) -> None:  # type: ignore[no-untyped-def]
    """The pricing kernel and nothing else: no logarithm, surface, discount or quantisation."""
    for i in range(out.shape[0]):
        for s in range(out.shape[1]):
            out[i, s] = smaller[i, s] * black76.out_of_the_money_value_bounded(log_moneyness[i, s], stddev[i, s])


@njit(nogil=True, error_model="numpy")
def _bare_pairs(log_moneyness, stddev, forward, strike, calls, puts) -> None:  # type: ignore[no-untyped-def]
    """A call and its put from one value, each with its own intrinsic value."""
    for i in range(calls.shape[0]):
        for s in range(calls.shape[1]):
            difference = forward[s] - strike[i]
            smaller = forward[s] if difference < 0.0 else strike[i]
            value = smaller * black76.out_of_the_money_value_bounded(log_moneyness[i, s], stddev[i, s])
            calls[i, s] = value + (0.0 if difference < 0.0 else difference)
            puts[i, s] = value + (-difference if difference < 0.0 else 0.0)


def _bare(strikes: int, scenarios: int) -> Iterator[Row]:
    """What the tables' inner loop costs by itself, alone and for a pair."""
    random = np.random.default_rng(13)
    forward = 60_000.0 * np.exp(random.normal(0.0, 0.04, scenarios))
    strike = 60_000.0 * np.exp(np.linspace(-0.6, 0.6, strikes))
    log_strike = np.log(strike[:, None] / forward)
    log_moneyness = np.abs(log_strike)
    stddev, smaller = random.uniform(0.02, 0.5, log_moneyness.shape), np.minimum(forward, strike[:, None])
    out, calls, puts = (np.empty_like(stddev) for _ in range(3))
    peer_out = np.empty_like(stddev)

    def scipy() -> None:
        for i in range(strikes):
            d1 = -log_strike[i] / stddev[i] + 0.5 * stddev[i]
            peer_out[i] = forward * ndtr(d1) - strike[i] * ndtr(d1 - stddev[i])

    timings = side_by_side(
        lambda: _bare_values(log_moneyness, stddev, smaller, out),
        lambda: _bare_pairs(log_moneyness, stddev, forward, strike, calls, puts),
        scipy,
    )
    assert np.allclose(calls, peer_out, rtol=0.0, atol=1e-10 * 60_000.0)
    parity = bool(np.allclose(calls - puts, forward - strike[:, None], rtol=0.0, atol=1e-10 * 60_000.0))
    once, twice = _nanoseconds(timings.seconds[0], out.size), _nanoseconds(timings.seconds[1], 2 * out.size)
    common = {"unit": "ns per option and scenario", "memory_mb": peak_memory_mb()}
    size = f"{strikes} strikes x {scenarios}"
    yield Row(
        name="bare pricing kernel against numpy + scipy ndtr (aim 2.2)", value=once, size=size, checksum=checksum(out),
        peer=f"numpy + scipy ndtr: {_nanoseconds(timings.seconds[2], out.size)} ns", ratio=round(timings.ratios[2], 2),
        goal=f">= {NDTR_GOAL:g}x", ok=timings.ratios[2] >= NDTR_GOAL, **common,
    )  # fmt: skip
    yield Row(
        name="bare pricing kernel, a call and its put (aim 1.0)", value=twice, size=size, peer="times the cost of one",
        ratio=round(timings.ratios[1], 2), goal="parity", ok=parity, checksum=checksum(calls, puts), **common,
    )  # fmt: skip


def _with_greeks(book: Book) -> Row:
    count = len(book.forward)
    out, price = np.empty((6, count)), np.empty(count)
    timings = side_by_side(lambda: black76.greeks_table(*book, out), lambda: black76.prices(*book, price))
    return Row(
        name="price, delta, gamma, vega, theta, rho", value=_nanoseconds(timings.seconds[0], count), unit="ns",
        peer="price alone", ratio=round(timings.ratios[1], 2), size=f"{count} options", memory_mb=peak_memory_mb(),
        checksum=checksum(out), ok=bool((out[0] == price).all()), goal="the same price bits",
    )  # fmt: skip


def _tables(strikes: int, scenarios: int) -> Iterator[Row]:
    """The scenario P&L table: surface, shocks, price, quantisation; calls only, pairs, and pairs under Merton."""
    market, table = _market(), _scenarios(scenarios)
    works, outs, sizes = [], [], []
    for kinds, jumps in (((CALL, PUT), False), ((CALL,), False), ((CALL, PUT), True)):
        instruments = _instruments(strikes, kinds)
        chosen = market._replace(jumps=JUMPS) if jumps else market
        out = empty_pnl_table(len(instruments.kind), scenarios)
        works.append(lambda i=instruments, m=chosen, o=out: pnl_table(i, m, table, o))
        outs.append(out)
        sizes.append(len(instruments.kind) * scenarios)
    timings = side_by_side(*works)
    calls_alike = bool((outs[0].values[::2] == outs[1].values).all())
    names = ("P&L table, a call and its put together", "P&L table, calls alone", "P&L table under Merton, pairs")
    for n, name in enumerate(names):
        per_option = timings.ratios[n] * sizes[0] / sizes[n]
        yield Row(
            name=name, value=_nanoseconds(timings.seconds[n], sizes[n]), unit="ns per option and scenario",
            peer="times the cost of the first" if n else "", ratio=round(per_option, 2) if n else None,
            goal="the same call bits" if n == 1 else "", ok=calls_alike if n == 1 else None,
            size=f"{len(outs[n].exponent)} options x {scenarios}", memory_mb=peak_memory_mb(),
            checksum=checksum(outs[n].values, outs[n].exponent),
        )  # fmt: skip


def _instruments(strikes: int, kinds: tuple[int, ...]) -> InstrumentTable:
    count = strikes * len(kinds)
    strike = np.repeat(np.round(60_000.0 * np.exp(np.linspace(-0.6, 0.6, strikes)), -1), len(kinds))
    expiry = np.repeat(np.arange(strikes, dtype=np.int32) % 4, len(kinds)).astype(np.int32)
    return InstrumentTable(
        np.tile(np.array(kinds, np.int8), strikes), np.zeros(count, np.int32), expiry, strike, np.full(count, 0.01),
        np.ones(count), np.ones(count, np.bool_),
    )  # fmt: skip


def _market() -> MarketTable:
    years = np.array([7.0, 30.0, 90.0, 365.0]) / 365.0
    svi = np.stack([0.2 * years, 0.1 * np.sqrt(years), np.full(4, -0.3), np.zeros(4), np.full(4, 0.2)], axis=1)
    forward = 60_000.0 * np.exp(0.05 * years)
    return MarketTable(np.array([60_000.0]), forward, svi, np.full(4, 0.03), years, np.zeros(4, np.int32))


def _scenarios(count: int) -> ScenarioTable:
    random = np.random.default_rng(11)
    log_return, level, skew, rate = (random.normal(0.0, scale, (1, count)) for scale in (0.04, 0.1, 0.1, 0.01))
    weights = np.full(count, 2**30 // count, np.int32)
    option_row = np.zeros(1, np.int32)
    return ScenarioTable(
        log_return, option_row, level, skew, rate, weights, tail_mass_of_level(990_000), 1 / (365 * 24)
    )


def _implied(book: Book) -> Row:
    count = len(book.forward)
    price, vol, status = np.empty(count), np.empty(count), np.empty(count, np.int8)
    is_call = book.strike >= book.forward
    columns = (book.forward, book.strike)
    black76.prices(*columns, book.vol, book.years, np.zeros(count), is_call, price)
    (seconds,), _ = side_by_side(lambda: implied_vols(price, *columns, book.years, is_call, vol, status))
    carried = price > 1e-10 * book.forward  # below, the price's own rounding shows
    worst = float(np.abs(vol / book.vol - 1.0)[carried].max())
    return Row(
        name="implied volatility", value=_nanoseconds(seconds, count), unit="ns", goal="worst relative error < 1e-12",
        ok=worst < 1e-12, peer=f"worst {worst:.1e}", size=f"{count} out-of-the-money options",
        memory_mb=peak_memory_mb(), checksum=checksum(vol),
    )  # fmt: skip


def _nanoseconds(seconds: float, count: int) -> float:
    return round(seconds / count * 1e9, 3)
