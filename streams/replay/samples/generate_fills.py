"""Generated node fills: invented accounts trade perpetuals and spot coins through a falling market."""

from __future__ import annotations

import datetime
import json
from collections import defaultdict
from decimal import ROUND_DOWN, Decimal
from typing import NamedTuple

import numpy as np

SEED = 20251027
BLOCKS, ACCOUNTS, TRADES_MEAN = 240, 60, 2.0
FIRST_BLOCK = 1_000
START = datetime.datetime(2025, 10, 27, 17, 0, 0, tzinfo=datetime.UTC)
BLOCK_MS = 80
BLOCK_VOLATILITY = 0.0003
FALL_FIRST, FALL_LAST, FALL = 90, 150, -0.05  # blocks; log move of the common factor
CALM_SHARE = 0.3  # of trades without a position before them
TAKER_FEE = Decimal("0.00045")


class Coin(NamedTuple):
    """What is traded: decimals of sizes and prices; `token` of spot coins; `beta` to the common factor."""

    name: str
    price: float
    decimals: int
    price_decimals: int
    beta: float
    token: str = ""


COINS = (
    Coin("BTC", 115_000.0, 5, 0, 1.0),
    Coin("ETH", 4_200.0, 4, 1, 1.2),
    Coin("SOL", 202.0, 2, 2, 1.4),
    Coin("HYPE", 47.0, 2, 3, 1.6),
    Coin("PUMP", 0.0048, 0, 7, 2.0),
    Coin("ADA", 0.67, 0, 5, 1.3),
    Coin("LINK", 18.5, 1, 3, 1.2),
    Coin("@107", 47.0, 2, 3, 1.6, "HYPE"),
    Coin("@142", 115_000.0, 5, 0, 1.0, "UBTC"),
    Coin("@166", 1.0, 2, 5, 0.0, "USDT0"),
)
LINKED = {"@107": "HYPE", "@142": "BTC"}


class Tape:
    """Positions so far, and the trades that come of them."""

    def __init__(self) -> None:
        self.generator = np.random.default_rng(SEED)
        self.prices = {coin.name: coin.price for coin in COINS}
        self.positions: dict[tuple[str, str], Decimal] = {}
        self.trade = 5_000_000
        self.accounts = [f"0xgenerated{i:03d}" for i in range(ACCOUNTS)]

    def move(self, block: int) -> None:
        """One step of a common factor and own noise; linked coins follow their perpetual."""
        drift = FALL / (FALL_LAST - FALL_FIRST) if FALL_FIRST <= block < FALL_LAST else 0.0
        common = drift + BLOCK_VOLATILITY * self.generator.standard_normal()
        for coin in COINS:
            noise = BLOCK_VOLATILITY * self.generator.standard_normal() * (1.0 if coin.beta else 0.1)
            base = LINKED.get(coin.name)
            if base is None:
                self.prices[coin.name] *= float(np.exp(coin.beta * common + noise))
            else:
                self.prices[coin.name] = self.prices[base]

    def start_position(self, account: str, coin: Coin) -> Decimal:
        """The position before an account's first trade; one account holds more lots than 31 bits count."""
        key = (account, coin.name)
        if key not in self.positions:
            usd = 20_000.0 * float(np.exp(self.generator.standard_normal()))
            side = 1.0 if coin.token or self.generator.random() < 0.6 else -1.0
            if coin.name == "PUMP" and account == self.accounts[0]:
                usd, side = 15_000_000.0, 1.0
            flat = self.generator.random() < CALM_SHARE and usd < 1_000_000.0
            self.positions[key] = Decimal(0) if flat else self._size(coin, side * usd)
        return self.positions[key]

    def trades(self, time_ms: int) -> list[list[object]]:
        """The events of one block."""
        events: list[list[object]] = []
        for _ in range(self.generator.poisson(TRADES_MEAN)):
            coin = COINS[self.generator.integers(len(COINS))]
            buyer, seller = (self.accounts[i] for i in self.generator.choice(ACCOUNTS, 2, replace=False))
            size = self._size(coin, 3_000.0 * float(np.exp(self.generator.standard_normal())))
            if coin.token:  # nobody sells a coin that he has not got
                held = self.start_position(seller, coin).quantize(Decimal(1).scaleb(-coin.decimals), ROUND_DOWN)
                size = min(size, held)
            if size > 0:
                self.trade += 1
                events += [self._side(buyer, coin, size, "B", time_ms), self._side(seller, coin, size, "A", time_ms)]
        return events

    def _side(self, account: str, coin: Coin, size: Decimal, side: str, time_ms: int) -> list[object]:
        start = self.start_position(account, coin)
        price = Decimal(f"{self.prices[coin.name]:.{coin.price_decimals}f}")
        fee_in_coin = bool(coin.token) and side == "B"
        fee = (size if fee_in_coin else size * price) * TAKER_FEE if side == "B" else Decimal(0)
        self.positions[account, coin.name] = start + (size if side == "B" else -size) - (fee if fee_in_coin else 0)
        kind = {"B": "Buy", "A": "Sell"} if coin.token else {"B": "Open Long", "A": "Open Short"}
        fill = {
            "coin": coin.name, "px": str(price), "sz": str(size), "side": side, "time": time_ms,
            "startPosition": str(start), "dir": kind[side], "closedPnl": "0.0", "crossed": side == "B",
            "fee": str(fee.normalize()), "tid": self.trade, "feeToken": coin.token if fee_in_coin else "USDC",
        }  # fmt: skip
        return [account, fill]

    def _size(self, coin: Coin, usd: float) -> Decimal:
        return Decimal(f"{usd / self.prices[coin.name]:.{coin.decimals}f}")


def lines() -> str:
    """One JSON object a block."""
    tape = Tape()
    found = []
    times: dict[int, int] = defaultdict(int)
    for block in range(BLOCKS):
        moment = START + datetime.timedelta(milliseconds=BLOCK_MS * block)
        times[block] = int(moment.timestamp() * 1000)
        tape.move(block)
        stamp = moment.strftime("%Y-%m-%dT%H:%M:%S.%f") + "000"
        row = {"local_time": stamp, "block_time": stamp, "block_number": FIRST_BLOCK + block}
        found.append(json.dumps({**row, "events": tape.trades(times[block])}, separators=(",", ":")))
    return "\n".join(found) + "\n"
