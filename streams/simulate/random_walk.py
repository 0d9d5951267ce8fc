"""Prices and volatility levels of the demo world: a correlated random walk with jumps, one crash, and its recovery.

A minute of recorded history passes in a second of the demo's, so that a minute of watching shows what an hour would.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from streams.replay.volatility import HOURLY_CORRELATION, HOURLY_VOLATILITY, STABLE_NOISE

TICKS_PER_BLOCK = 4
HISTORY_SECONDS_PER_BLOCK = 60
JUMP_PROBABILITY, JUMP_SIZE = 0.04, 0.006  # an underlying's, in a block; size is the scale of a Laplace law
CRASH_FIRST_BLOCKS = (21, 24)  # where it may begin; over by block 30
CRASH_LENGTHS = (3, 6)  # blocks
CRASH_DEPTHS = (0.12, 0.20)  # of the first underlying's price
CRASH_BETAS = np.array([1.0, 1.15, 1.40])
RECOVERY_SHARE, RECOVERY_BLOCKS = 0.45, 20
LEVERAGE = 3.0  # log volatility falls by this times the log return
LEVEL_NOISE, LEVEL_REVERSION = 0.004, 0.01  # a block
STABLE_REVERSION = 0.2

FloatArray = npt.NDArray[np.float64]


class Crash(NamedTuple):
    """First block, length in blocks, and log return of each underlying over the whole crash."""

    first: int
    length: int
    log_return: FloatArray


class Step(NamedTuple):
    """One block: log of price over start at each tick [ticks, U], stablecoin's price, log volatility level [U]."""

    log_price: FloatArray
    stable_usd: float
    log_level: FloatArray


def walk(seed: int, blocks: int) -> Iterator[Step]:
    """Steps of blocks 1, 2, ... without end; `blocks` only brings the crash forward in worlds of less than 60."""
    generator = np.random.default_rng([seed, 1])
    crash = draw_crash(generator, blocks)
    log_price, log_level, stable = np.zeros(3), np.zeros(3), 0.0
    number = 0
    while True:
        number += 1
        returns = _diffusion(generator) + _jumps(generator)
        returns += _crash_return(crash, number) / TICKS_PER_BLOCK
        path = log_price + np.cumsum(returns, axis=0)
        log_level = (1.0 - LEVEL_REVERSION) * log_level - LEVERAGE * (path[-1] - log_price)
        log_level = log_level + LEVEL_NOISE * generator.standard_normal(3)
        log_price = path[-1]
        stable = (1.0 - STABLE_REVERSION) * stable + STABLE_NOISE * generator.standard_normal() / 3.0
        yield Step(path, 1.0 + stable, log_level.clip(-1.0, 1.2))


def draw_crash(generator: np.random.Generator, blocks: int) -> Crash:
    """The crash of a world of so many blocks: over by block 30; shorter worlds have it earlier."""
    first = int(generator.integers(CRASH_FIRST_BLOCKS[0], CRASH_FIRST_BLOCKS[1] + 1))
    length = int(generator.integers(CRASH_LENGTHS[0], CRASH_LENGTHS[1] + 1))
    depth = generator.uniform(*CRASH_DEPTHS)
    return Crash(max(1, min(first, blocks * 2 // 5)), length, np.log1p(-depth) * CRASH_BETAS)


def _diffusion(generator: np.random.Generator) -> FloatArray:
    """Log returns of a block's ticks, [ticks, U]."""
    scale = HOURLY_VOLATILITY * np.sqrt(HISTORY_SECONDS_PER_BLOCK / 3600 / TICKS_PER_BLOCK)
    factor = np.linalg.cholesky(HOURLY_CORRELATION)
    normals = generator.standard_normal((TICKS_PER_BLOCK, len(scale)))
    found: FloatArray = np.einsum("ts,us->tu", normals, factor) * scale
    return found


def _jumps(generator: np.random.Generator) -> FloatArray:
    """Now and then a jump of one underlying at one of the ticks, [ticks, U]."""
    found = np.zeros((TICKS_PER_BLOCK, len(HOURLY_VOLATILITY)))
    happens = generator.random(found.shape[1]) < JUMP_PROBABILITY
    sizes = generator.laplace(0.0, JUMP_SIZE, found.shape[1])
    ticks = generator.integers(0, TICKS_PER_BLOCK, found.shape[1])
    found[ticks[happens], np.flatnonzero(happens)] = sizes[happens]
    return found


def _crash_return(crash: Crash, number: int) -> FloatArray:
    """What the crash adds to a block's log returns, and its recovery afterwards, [U]."""
    since = number - crash.first
    if 0 <= since < crash.length:
        return crash.log_return / crash.length
    if 0 <= since - crash.length < RECOVERY_BLOCKS:
        return -RECOVERY_SHARE * crash.log_return / RECOVERY_BLOCKS
    return np.zeros(len(crash.log_return))
