"""Account events as rows of account.log: which accounts an event moves, and what of it goes to each."""

from __future__ import annotations

from schemas import log_records as records
from schemas import refusals
from schemas.catalogue import Catalogue, Instrument
from schemas.refusals import Refusal

OWNER_SEPARATOR = "/"
FUNDING_SHARE = 10  # one funding moves at most a tenth of the index

Row = tuple[int, int, int, int, int]  # kind, instrument, lots, price_usd9, cash_usd6


def owner_of(account: str) -> str:
    """Owner of an account: its name up to the first `/`; each subaccount OWNER/SUB is margined alone."""
    return account.split(OWNER_SEPARATOR, 1)[0]


def accounts_of(event: dict) -> tuple[str | None, ...]:
    """Accounts that get a row of this event, in their order; None stands for every account there is."""
    if event["type"] == "funding":
        return (None,)
    if event["type"] == "transfer":
        return event["account"], event["to"]
    if event["type"] == "open_orders":
        return event["account"], event["account"]
    return (event["account"],)


def event_rows(event: dict, catalogue: Catalogue) -> list[tuple[str | None, Row]]:
    """Rows of an accepted event, one for each of `accounts_of`."""
    kind = event["type"]
    index = -1 if event.get("instrument") is None else catalogue.instrument_index[event["instrument"]]
    if kind == "transfer":
        return [(event["account"], _side(event, index, -1)), (event["to"], _side(event, index, 1))]
    if kind == "open_orders":
        kinds = (("buy", records.BUY_ORDERS), ("sell", records.SELL_ORDERS))
        return [(event["account"], (kind, index, *side_of(event, side), -fee_of(event, side))) for side, kind in kinds]
    if kind == "funding":
        return [(None, (records.FUNDING, index, 0, event["amount_usd9"], 0))]
    if kind == "cash_move":
        return [(event["account"], (records.CASH, -1, 0, 0, event["amount_usd6"]))]
    if kind == "fill":
        row = (records.FILL, index, event["lots"], event["price_usd9"], -event.get("fee_usd6", 0))
        return [(event["account"], row)]
    moved = records.COLLATERAL_SET if event.get("mode") == "set" else records.COLLATERAL_ADD
    return [(event["account"], (moved, index, event["lots"], 0, 0))]


def _side(event: dict, index: int, sign: int) -> Row:
    """One side of a transfer: cash, coins, or a position that is closed here and opened there at one price."""
    if index < 0:
        return records.CASH, -1, 0, 0, sign * event["amount_usd6"]
    price_usd9 = event.get("price_usd9")
    if price_usd9 is None:
        return records.COLLATERAL_ADD, index, sign * event["lots"], 0, 0
    return records.FILL, index, sign * event["lots"], price_usd9, 0


def side_of(event: dict, side: str) -> tuple[int, int]:
    """Lots and worst price of one side of open orders."""
    lots = event.get(f"{side}_lots", 0)
    return lots, (event.get(f"{side}_price_usd9") or 0) if lots else 0


def fee_of(event: dict, side: str) -> int:
    """Fee of one side of open orders; nothing is open, nothing is paid."""
    return (event.get(f"{side}_fee_usd6") or 0) if event.get(f"{side}_lots", 0) else 0


def transfer_refusal(event: dict) -> Refusal | None:
    """Why a transfer is none, whatever is listed."""
    if event["to"] == event["account"] or owner_of(event["to"]) != owner_of(event["account"]):
        detail = f"{event['to']} is not another subaccount of {owner_of(event['account'])}"
        return Refusal(refusals.TRANSFER_REFUSED, detail, "to")
    cash, lots = event.get("amount_usd6", 0), event.get("lots", 0)
    if (event.get("instrument") is None) != (lots == 0) or (cash != 0) == (lots != 0):
        return Refusal(refusals.TRANSFER_REFUSED, "either amount_usd6, or instrument and lots", "amount_usd6")
    return None


def kind_refusal(event: dict, instrument: Instrument) -> Refusal | None:
    """Why an event is not one of an instrument of this kind."""
    is_coin = instrument.kind == "spot"
    if event["type"] == "collateral_move" and not is_coin:
        detail = f"{instrument.symbol} is a {instrument.kind}, no collateral"
        return Refusal(refusals.WRONG_KIND, detail, "instrument")
    if event["type"] == "open_orders" and is_coin:
        return Refusal(refusals.WRONG_KIND, f"{instrument.symbol} is a coin: it is not traded here", "instrument")
    if event["type"] == "funding" and instrument.kind != "perpetual":
        return Refusal(refusals.WRONG_KIND, f"{instrument.symbol} is a {instrument.kind}, no perpetual", "instrument")
    if event["type"] == "transfer" and is_coin != (event.get("price_usd9") is None):
        return Refusal(refusals.TRANSFER_REFUSED, "contracts move at a price, coins without one", "price_usd9")
    return None


def funding_refusal(event: dict, spot_usd9: int) -> Refusal | None:
    """A funding beyond any venue's cap: it would reach every holder, so a slip must not pass."""
    if abs(event["amount_usd9"]) * FUNDING_SHARE > spot_usd9:
        return Refusal(refusals.OUT_OF_RANGE, f"more than 1/{FUNDING_SHARE} of the index {spot_usd9}", "amount_usd9")
    return None
