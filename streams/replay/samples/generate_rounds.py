"""Generated Chainlink rounds: a seeded walk, told at the heartbeat or when it has deviated enough."""

from __future__ import annotations

import numpy as np

SEED = 20240129
START_S = 1_700_000_015  # on the slot grid
SLOT_S, HEARTBEAT_S, STAKED_HEARTBEAT_S = 12, 3_600, 86_400
DEVIATION = 0.005
DAYS = 12
SLOT_VOLATILITY = 0.00878 / (3_600 / SLOT_S) ** 0.5  # ETH's hourly volatility, a slot
CRASH_AT, CRASH_SLOTS, CRASH = 0.55, 900, -0.08  # three hours, past the middle
FIRST_ROUND, FIRST_STAKED_ROUND = 1_000, 500


def rounds() -> tuple[list[dict[str, object]], list[dict[str, object]]]:
    """ETH/USD and stETH/ETH rounds, newest first and an unset round of zeros last, as the recorded files have them."""
    generator = np.random.default_rng(SEED)
    slots = DAYS * 86_400 // SLOT_S
    moves = SLOT_VOLATILITY * generator.standard_normal(slots)
    crash = round(CRASH_AT * slots)
    moves[crash : crash + CRASH_SLOTS] += np.log(1 + CRASH) / CRASH_SLOTS
    prices = 2_000.0 * np.exp(np.cumsum(moves))
    told, last_s, last = [], 0, 0.0
    for slot in range(slots):
        time_s = START_S + slot * SLOT_S
        if time_s - last_s >= HEARTBEAT_S or abs(prices[slot] / last - 1) >= DEVIATION:
            told.append((time_s, round(float(prices[slot]) * 10**8)))
            last_s, last = time_s, float(prices[slot])
    told.insert(50, (told[49][0], told[49][1] + 10**6))  # a slot with two rounds: the later one counts
    ratios = np.clip(0.9992 + 0.0004 * generator.standard_normal(DAYS + 1), 0.99, 1.0)
    staked = [
        (START_S - 7_200 + day * STAKED_HEARTBEAT_S, round(float(r) * 10**9) * 10**9) for day, r in enumerate(ratios)
    ]
    return _rows(told, FIRST_ROUND, unset=True), _rows(staked, FIRST_STAKED_ROUND, unset=False)


def _rows(told: list[tuple[int, int]], first: int, *, unset: bool) -> list[dict[str, object]]:
    rows = [(first + i, answer, time_s) for i, (time_s, answer) in enumerate(told)][::-1]
    if unset:
        rows.append((first - 1, 0, 0))
    return [
        {"": i, "round": number, "answer": answer, "start": time_s, "update": time_s, "answeredInRound": number}
        for i, (number, answer, time_s) in enumerate(rows)
    ]
