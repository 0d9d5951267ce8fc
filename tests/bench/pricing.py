"""Prices of options: our kernels against numpy with scipy's ndtr, numba with math.erfc, torch and QuantLib.

The job of the first rows is a grid: every option under every scenario, each of which moves the forward, shocks the
volatility and has a discount of its own; a matrix of prices comes out. numpy does it twice. As a user writes it: whole
matrices, broadcast, log(F/K) of each entry, which is what the goal of 15 times means (it was set from a prototype whose
numpy, 42 ns, is written so). And as somebody who knows our kernel could: ln(F/K) one addition, a strike at a time in
rows that stay in the cache, no temporary that can be avoided. torch is written as numpy's user writes it, numba with
math.erfc as our loop, QuantLib calls blackFormula for each. Then a flat list, whose options share nothing.

torch and QuantLib are not dependencies: `pip install QuantLib torch` gives their rows. numpy runs without
OPENBLAS_CORETYPE and OPENBLAS_L2_SIZE, which pin a BLAS that nothing here calls. One core.
"""

from __future__ import annotations

import importlib
import math
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numba import njit
from scipy.special import ndtr

from kernels import black76
from kernels.implied_vol import implied_vols
from kernels.layout import CALL, PUT, InstrumentTable, MarketTable, ScenarioTable, empty_pnl_table, tail_mass_of_level
from kernels.normal import exponential
from kernels.option_rows import fill_black76
from kernels.reprice import pnl_table
from tests.bench.rows import Row, checksum, peak_memory_mb, side_by_side

JUMPS = np.array([[4.0, -0.05, 0.1]])
NDTR_GOAL = 15.0


class Grid(NamedTuple):
    """Options [I] of one expiry under scenarios [S]."""

    forward: float
    years: float
    strike: np.ndarray
    vol: np.ndarray
    is_call: np.ndarray
    log_return: np.ndarray
    vol_multiplier: np.ndarray
    discount: np.ndarray


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
    grid = _grid(8 if small else 128, 256 if small else 4_096)
    yield from _grid_against_peers(grid)
    yield from _bare(grid)
    book = _book(1_024 if small else 131_072)
    yield _flat_list(book)
    yield _with_greeks(book)
    yield from _tables(8 if small else 128, 256 if small else 4_096)
    yield _implied(book)


def _book(count: int) -> Book:
    random = np.random.default_rng(7)
    forward = 60_000.0 * np.exp(random.normal(0.0, 0.05, count))
    strike = 60_000.0 * np.exp(random.normal(0.0, 0.2, count))
    vol, years = random.uniform(0.3, 1.2, count), random.uniform(0.01, 1.0, count)
    return Book(forward, strike, vol, years, random.uniform(-0.02, 0.06, count), random.random(count) < 0.5)


def _grid(strikes: int, scenarios: int) -> Grid:
    """Alternating calls and puts."""
    random = np.random.default_rng(13)
    strike = 60_000.0 * np.exp(np.linspace(-0.6, 0.6, strikes))
    log_return, vol_multiplier = random.normal(0.0, 0.04, scenarios), np.exp(random.normal(0.0, 0.2, scenarios))
    discount = np.exp(-0.25 * random.normal(0.03, 0.01, scenarios))
    is_call, vol = np.arange(strikes) % 2 == 0, random.uniform(0.3, 0.9, strikes)
    return Grid(60_000.0, 0.25, strike, vol, is_call, log_return, vol_multiplier, discount)


def _grid_against_peers(grid: Grid) -> Iterator[Row]:
    shape = (len(grid.strike), len(grid.discount))
    out, peer_out = np.empty(shape), np.empty(shape)
    peers: dict[str, Callable[[], Any] | None] = {
        "numpy + scipy ndtr, as a user writes it": lambda: _numpy_of_a_user(grid),
        "numpy + scipy ndtr, all hoisted": lambda: _numpy_hoisted(grid, peer_out),
        "numba math.erfc": lambda: _erfc_grid(*grid, peer_out),
        "torch CPU": _torch_grid(grid), "QuantLib": _quantlib_grid(grid),
    }  # fmt: skip
    for name, peer in peers.items():
        title = f"price in a grid against {name}"
        if peer is None:
            yield Row(name=title, value=None, unit="ns", peer=name, goal="not run: not installed")
            continue
        found = peer()
        timings = side_by_side(lambda: _grid_prices(*grid, out), peer, repeats=9, clock=time.process_time, even=True)
        alike = np.allclose(out, peer_out if found is None else found, rtol=0.0, atol=1e-10 * grid.forward)
        assert alike, name
        goal = {"goal": f">= {NDTR_GOAL:g}x", "ok": timings.ratios[1] >= NDTR_GOAL} if "user" in name else {}
        yield Row(
            name=title, value=_nanoseconds(timings.seconds[0], out.size), unit="ns per option and scenario",
            peer=f"{name}: {_nanoseconds(timings.seconds[1], out.size)} ns", ratio=round(timings.ratios[1], 2),
            size=f"{shape[0]} options x {shape[1]}", memory_mb=peak_memory_mb(), checksum=checksum(out), **goal,
        )  # fmt: skip


@njit(nogil=True, error_model="numpy")
def _grid_prices(  # type: ignore[no-untyped-def]
    forward, years, strike, vol, is_call, log_return, vol_multiplier, discount, out
) -> None:
    """The rows of the product's tables without surface and quantisation."""
    moved, stddev, value = np.empty(out.shape[1]), np.empty(out.shape[1]), np.empty(out.shape[1])
    for s in range(out.shape[1]):
        moved[s] = forward * exponential(log_return[s])
    for i in range(out.shape[0]):
        k, call, deviation = strike[i], is_call[i], vol[i] * np.sqrt(years)
        for s in range(out.shape[1]):
            stddev[s] = deviation * vol_multiplier[s]
        fill_black76(black76.log_ratio(k, forward), k, log_return, moved, stddev, value)
        for s in range(out.shape[1]):
            difference = moved[s] - k if call else k - moved[s]
            out[i, s] = discount[s] * (value[s] + (0.0 if difference < 0.0 else difference))


def _numpy_of_a_user(grid: Grid) -> np.ndarray:
    forward, strike = grid.forward * np.exp(grid.log_return), grid.strike[:, None]
    stddev = grid.vol[:, None] * grid.vol_multiplier * np.sqrt(grid.years)
    d1 = np.log(forward / strike) / stddev + 0.5 * stddev
    d2 = d1 - stddev
    sign = np.where(grid.is_call, 1.0, -1.0)[:, None]
    return np.asarray(grid.discount * sign * (forward * ndtr(sign * d1) - strike * ndtr(sign * d2)))


def _numpy_hoisted(grid: Grid, out: np.ndarray) -> None:
    discounted_forward = grid.discount * (grid.forward * np.exp(grid.log_return))
    stddev, d1, d2 = (np.empty_like(grid.discount) for _ in range(3))
    log_moneyness, deviation = np.log(grid.forward / grid.strike), grid.vol * np.sqrt(grid.years)
    for i, sign in enumerate(np.where(grid.is_call, 1.0, -1.0).tolist()):
        np.multiply(grid.vol_multiplier, sign * deviation[i], out=stddev)
        np.add(grid.log_return, log_moneyness[i], out=d1)
        np.divide(d1, stddev, out=d1)
        np.multiply(stddev, 0.5, out=d2)
        np.add(d1, d2, out=d1)
        np.subtract(d1, stddev, out=d2)
        ndtr(d1, out=d1)
        ndtr(d2, out=d2)
        np.multiply(d1, discounted_forward, out=d1)
        np.multiply(d2, grid.discount, out=d2)
        np.multiply(d2, grid.strike[i], out=d2)
        np.subtract(d1, d2, out=out[i])
        if sign < 0.0:
            np.negative(out[i], out=out[i])


@njit(nogil=True, error_model="numpy")
def _erfc_grid(  # type: ignore[no-untyped-def]
    forward, years, strike, vol, is_call, log_return, vol_multiplier, discount, out
) -> None:
    moved = forward * np.exp(log_return)
    for i in range(out.shape[0]):
        k, sign, deviation, log_moneyness = strike[i], 1.0 if is_call[i] else -1.0, vol[i] * np.sqrt(years), 0.0
        log_moneyness = math.log(forward / k)
        for s in range(out.shape[1]):
            stddev = deviation * vol_multiplier[s]
            d1 = (log_moneyness + log_return[s]) / stddev + 0.5 * stddev
            first = 0.5 * math.erfc(-sign * d1 * 0.7071067811865476)
            second = 0.5 * math.erfc(-sign * (d1 - stddev) * 0.7071067811865476)
            out[i, s] = discount[s] * sign * (moved[s] * first - k * second)


def _torch_grid(grid: Grid) -> Callable[[], Any] | None:
    torch = _module("torch")
    if torch is None:
        return None
    torch.set_num_threads(1)
    vol, strike, sign = (
        torch.from_numpy(c)[:, None] for c in (grid.vol, grid.strike, np.where(grid.is_call, 1.0, -1.0))
    )
    log_return, vol_multiplier, discount = (torch.from_numpy(c) for c in grid[-3:])

    def work() -> Any:
        forward = grid.forward * log_return.exp()
        stddev = vol * vol_multiplier * math.sqrt(grid.years)
        d1 = (forward / strike).log() / stddev + 0.5 * stddev
        first, second = torch.special.ndtr(sign * d1), torch.special.ndtr(sign * (d1 - stddev))
        return (discount * sign * (forward * first - strike * second)).numpy()

    return work


def _quantlib_grid(grid: Grid) -> Callable[[], Any] | None:
    quantlib = _module("QuantLib")
    if quantlib is None:
        return None
    forward = (grid.forward * np.exp(grid.log_return)).tolist()
    multiplier, discount = grid.vol_multiplier.tolist(), grid.discount.tolist()
    deviation = (grid.vol * np.sqrt(grid.years)).tolist()
    kinds = [quantlib.Option.Call if call else quantlib.Option.Put for call in grid.is_call]

    def work() -> Any:
        return [
            [quantlib.blackFormula(kind, k, f, v * m, d) for f, m, d in zip(forward, multiplier, discount)]
            for kind, k, v in zip(kinds, grid.strike.tolist(), deviation)
        ]

    return work


def _module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def _flat_list(book: Book) -> Row:
    count = len(book.forward)
    out = np.empty(count)
    timings = side_by_side(lambda: black76.prices(*book, out), lambda: _ndtr_prices(book), clock=time.process_time)
    assert np.allclose(out, _ndtr_prices(book), rtol=0.0, atol=1e-10 * 60_000.0)
    ours, peer = (_nanoseconds(seconds, count) for seconds in timings.seconds)
    return Row(
        name="price of a flat list against numpy + scipy ndtr", value=ours, unit="ns",
        peer=f"numpy + scipy ndtr: {peer} ns", ratio=round(timings.ratios[1], 2),
        size=f"{count} options, own logarithm and discount", memory_mb=peak_memory_mb(), checksum=checksum(out),
    )  # fmt: skip


def _ndtr_prices(book: Book) -> np.ndarray:
    stddev = book.vol * np.sqrt(book.years)
    d1 = np.log(book.forward / book.strike) / stddev + 0.5 * stddev
    sign = np.where(book.is_call, 1.0, -1.0)
    value = sign * (book.forward * ndtr(sign * d1) - book.strike * ndtr(sign * (d1 - stddev)))
    return np.asarray(np.exp(-book.rate * book.years) * value)


@njit(nogil=True, error_model="numpy")
def _bare_values(log_strike, strike, log_return, moved, stddev, out) -> None:  # type: ignore[no-untyped-def]
    """The pricing kernel and nothing else: no logarithm, surface, discount or quantisation."""
    for i in range(out.shape[0]):
        fill_black76(log_strike[i], strike[i], log_return, moved, stddev, out[i])


@njit(nogil=True, error_model="numpy")
def _bare_pairs(log_strike, strike, log_return, moved, stddev, calls, puts) -> None:  # type: ignore[no-untyped-def]
    """A call and its put from one value, each with its own intrinsic value."""
    value = np.empty(calls.shape[1])
    for i in range(calls.shape[0]):
        fill_black76(log_strike[i], strike[i], log_return, moved, stddev, value)
        for s in range(calls.shape[1]):
            difference = moved[s] - strike[i]
            calls[i, s] = value[s] + (0.0 if difference < 0.0 else difference)
            puts[i, s] = value[s] + (-difference if difference < 0.0 else 0.0)


def _bare(grid: Grid) -> Iterator[Row]:
    """What the tables' inner loop costs by itself, alone and for a pair."""
    forward, strike = grid.forward * np.exp(grid.log_return), grid.strike
    stddev = 0.5 * np.sqrt(grid.years) * grid.vol_multiplier
    out, calls, puts = (np.empty((len(strike), len(stddev))) for _ in range(3))
    inputs = (np.log(strike / grid.forward), strike, grid.log_return, forward, stddev)
    timings = side_by_side(
        lambda: _bare_values(*inputs, out), lambda: _bare_pairs(*inputs, calls, puts), clock=time.process_time
    )
    parity = bool(np.allclose(calls - puts, forward - strike[:, None], rtol=0.0, atol=1e-10 * 60_000.0))
    once, twice = _nanoseconds(timings.seconds[0], out.size), _nanoseconds(timings.seconds[1], 2 * out.size)
    common = {"unit": "ns per option and scenario", "memory_mb": peak_memory_mb()}
    size = f"{len(strike)} strikes x {len(stddev)}"
    yield Row(name="bare pricing kernel (aim 2.2)", value=once, size=size, checksum=checksum(out), **common)
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
