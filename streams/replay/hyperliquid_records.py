"""Hyperliquid `node_fills`: one JSON object a line, a block each, parsed to typed fills."""

from __future__ import annotations

import datetime
from collections import defaultdict
from decimal import Decimal
from pathlib import Path
from typing import NamedTuple

import msgspec
from msgspec import Struct

from streams.replay.files import ReplayError, decimal, read_lines

WANTED = "Hyperliquid node_fills (.jsonl or .jsonl.gz: block_time, block_number, events)"
LINK_PRICE_TOLERANCE = Decimal("0.005")
STABLE_PRICE_TOLERANCE = Decimal("0.05")
QUOTE_TOKEN = "USDC"


class RecordedFill(Struct):
    """One side of a trade as the venue recorded it, under its names. Numbers are decimal text."""

    coin: str
    px: str
    sz: str
    side: str
    time: int
    startPosition: str
    fee: str
    tid: int
    feeToken: str


class RecordedBlock(Struct):
    """One line of the file. Other fields are ignored."""

    block_time: str
    block_number: int
    events: list[tuple[str, RecordedFill]]


class CoinFill(NamedTuple):
    """One side of a trade. `size` is signed (bought positive); `start` is the position or balance before it."""

    account: str
    coin: str
    price: Decimal
    size: Decimal
    start: Decimal
    fee: Decimal
    fee_in_usd: bool
    trade: int
    fee_token: str


class FillBlock(NamedTuple):
    """A recorded block with its fills in recorded order."""

    number: int
    time_ms: int
    fills: list[CoinFill]


def read_blocks(path: Path, limit: int | None = None) -> list[FillBlock]:
    """Blocks of one file, contiguous and in time order; ReplayError otherwise."""
    decoder = msgspec.json.Decoder(RecordedBlock)
    blocks: list[FillBlock] = []
    for line, text in enumerate(read_lines(path), start=1):
        if limit is not None and len(blocks) >= limit:
            break
        try:
            recorded = decoder.decode(text)
        except msgspec.DecodeError as error:
            raise ReplayError(f"{path} line {line} is no recorded block ({error}): {WANTED} are expected") from error
        blocks.append(_typed_block(recorded, path, line))
        _check_order(blocks, path, line)
    if not any(block.fills for block in blocks):
        raise ReplayError(f"{path} holds no fills: {WANTED} are expected")
    return blocks


def is_spot(coin: str) -> bool:
    """Spot pairs are named @index, or BASE/QUOTE; a colon marks a builder's perpetual market."""
    return coin.startswith("@") or "/" in coin


def lot_exponents(blocks: list[FillBlock]) -> dict[str, int]:
    """Coin -> exponent of the smallest power of ten that all its traded sizes are multiples of (never above 0)."""
    exponents: dict[str, int] = {}
    for block in blocks:
        for fill in block.fills:
            exponent = fill.size.normalize().as_tuple().exponent
            exponents[fill.coin] = min(exponents.get(fill.coin, 0), int(exponent))
    return exponents


def spot_tokens(blocks: list[FillBlock]) -> dict[str, str]:
    """Spot coin -> its token, seen where a buyer's fee was taken in coin; the coin's own name if never seen."""
    tokens: dict[str, str] = {}
    for block in blocks:
        for fill in block.fills:
            if is_spot(fill.coin):
                tokens.setdefault(fill.coin, fill.coin)
                if not fill.fee_in_usd:
                    tokens[fill.coin] = fill.fee_token
    return tokens


def linked_perpetuals(blocks: list[FillBlock], tokens: dict[str, str]) -> dict[str, str]:
    """Spot coin -> perpetual of the same asset, where name and recorded prices say so.

    The name: the token, without a bridge's U or H before it or 0 behind it, is or begins the perpetual's name. The
    prices: against the perpetual's last recorded price, the median spot fill is off by at most LINK_PRICE_TOLERANCE.
    """
    perpetuals = sorted({fill.coin for block in blocks for fill in block.fills if not is_spot(fill.coin)})
    candidates = {coin: [name for name in perpetuals if _same_name(token, name)] for coin, token in tokens.items()}
    links = {}
    for coin, names in sorted(candidates.items()):
        for name in names:
            basis = spot_basis(blocks, coin, name)
            if basis and basis[len(basis) // 2] <= LINK_PRICE_TOLERANCE:
                links[coin] = name
                break
    return links


def spot_basis(blocks: list[FillBlock], coin: str, perpetual: str) -> list[Decimal]:
    """Sorted |spot price / last perpetual price - 1| of every spot fill that has a perpetual fill before it."""
    last: Decimal | None = None
    found = []
    for block in blocks:
        for fill in block.fills:
            if fill.coin == perpetual:
                last = fill.price
            elif fill.coin == coin and last is not None:
                found.append(abs(fill.price / last - 1))
    return sorted(found)


def _same_name(token: str, perpetual: str) -> bool:
    stems = {token, token.rstrip("0")} | ({token[1:]} if token[0] in "UH" else set())
    return any(perpetual == stem or (len(stem) >= 4 and perpetual.startswith(stem)) for stem in stems)


def stable_coins(blocks: list[FillBlock], tokens: dict[str, str]) -> set[str]:
    """Spot coins whose token has USD in its name and whose median price is one dollar within 5 %."""
    medians = _median_prices(blocks)
    return {
        coin for coin, token in tokens.items() if "USD" in token and abs(medians[coin] - 1) <= STABLE_PRICE_TOLERANCE
    }


def _median_prices(blocks: list[FillBlock]) -> dict[str, Decimal]:
    prices: dict[str, list[Decimal]] = defaultdict(list)
    for block in blocks:
        for fill in block.fills:
            prices[fill.coin].append(fill.price)
    return {coin: sorted(found)[len(found) // 2] for coin, found in prices.items()}


def _typed_block(recorded: RecordedBlock, path: Path, line: int) -> FillBlock:
    try:
        # nanoseconds are recorded; datetime takes microseconds, the pipeline milliseconds
        moment = datetime.datetime.fromisoformat(recorded.block_time[:26]).replace(tzinfo=datetime.UTC)
    except ValueError as error:
        raise ReplayError(f"{path} line {line}: block_time {recorded.block_time!r} is no time") from error
    time_ms = int(moment.timestamp()) * 1000 + moment.microsecond // 1000
    fills = [_typed_fill(account, fill, path, line) for account, fill in recorded.events]
    return FillBlock(recorded.block_number, time_ms, fills)


def _typed_fill(account: str, fill: RecordedFill, path: Path, line: int) -> CoinFill:
    if fill.side not in ("A", "B"):
        raise ReplayError(f"{path} line {line}: side {fill.side!r} is neither A (sold) nor B (bought)")
    price, size, start, fee = (decimal(text, path, line) for text in (fill.px, fill.sz, fill.startPosition, fill.fee))
    if price <= 0 or size <= 0:
        raise ReplayError(f"{path} line {line}: a fill of size {fill.sz} at price {fill.px}; both must be above zero")
    signed = size if fill.side == "B" else -size
    in_usd = fill.feeToken == QUOTE_TOKEN
    return CoinFill(account, fill.coin, price, signed, start, fee, in_usd, fill.tid, fill.feeToken)


def _check_order(blocks: list[FillBlock], path: Path, line: int) -> None:
    if len(blocks) < 2:
        return
    before, last = blocks[-2:]
    if last.number != before.number + 1:
        raise ReplayError(f"{path} line {line}: block {last.number} follows {before.number}; blocks must be contiguous")
    if last.time_ms < before.time_ms:
        raise ReplayError(f"{path} line {line}: block {last.number} is older than the block before it")
