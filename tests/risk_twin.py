"""The slow, obvious twin of the risk engine at a barrier: dictionaries and Python integers over the same tables."""

from __future__ import annotations

from collections import defaultdict
from fractions import Fraction
from math import ceil

from schemas import log_records as records
from schemas.catalogue import Catalogue
from schemas.decisions import BINDING_TERMS
from schemas.risk_parameters import Concentration, RiskParameters
from streams.engine.tables import Tables


class TwinBook:
    """Cash, lots and entry costs by account, from the records of account.log."""

    def __init__(self) -> None:
        self.catalogue = Catalogue()
        self.cash: dict[str, int] = defaultdict(int)
        self.lots: dict[str, dict[int, int]] = defaultdict(lambda: defaultdict(int))
        self.entry: dict[str, dict[int, int]] = defaultdict(lambda: defaultdict(int))

    def read(self, raw: bytes) -> int:
        """Take one record; returns its kind."""
        header = records.read_header(raw)
        if header.kind == records.LISTINGS:
            for listing in records.read_listings(raw):
                self.catalogue.apply(listing)
        elif header.kind == records.EVENTS:
            events = records.read_events(raw, header)
            for row in events.rows:
                if row["kind"] == records.FUNDING:
                    self._fund(int(row["instrument"]), int(row["price_usd9"]))
                else:
                    self._event(events.names[row["account"]], row)
        elif header.kind == records.BARRIER:
            for row in records.read_barrier(raw, header).settlements:
                self._settle(int(row["expiry"]), int(row["price_usd9"]))
        return header.kind

    def _event(self, account: str, row: object) -> None:
        kind, index, lots = (int(row[name]) for name in ("kind", "instrument", "lots"))  # type: ignore[index]
        self.cash[account] += int(row["cash_usd6"])  # type: ignore[index]
        if kind == records.CASH:
            return
        held = self.lots[account]
        if kind == records.FILL:
            value = self._usd6(index, lots, int(row["price_usd9"]))  # type: ignore[index]
            if self.catalogue.instruments[index].kind in ("perpetual", "future"):
                self.entry[account][index] += value
            else:
                self.cash[account] -= value
        held[index] = lots if kind == records.COLLATERAL_SET else held[index] + lots
        if held[index] == 0:
            self.cash[account] -= self.entry[account].pop(index, 0)

    def _fund(self, index: int, amount_usd9: int) -> None:
        for account, held in self.lots.items():
            self.cash[account] -= self._usd6(index, held.get(index, 0), amount_usd9)

    def _usd6(self, index: int, lots: int, price_usd9: int) -> int:
        return round(Fraction(lots * price_usd9) * Fraction(10) ** (self.catalogue.instruments[index].lot_exponent - 3))

    def _settle(self, expiry: int, price_usd9: int) -> None:
        for account in list(self.lots):
            for index, lots in list(self.lots[account].items()):
                instrument = self.catalogue.instruments[index]
                if instrument.expiry != expiry:
                    continue
                sign = {"call": 1, "put": -1}.get(instrument.kind)
                payoff = price_usd9 if sign is None else max(0, sign * (price_usd9 - instrument.strike_usd9))
                self.cash[account] += self._usd6(index, lots, payoff) - self.entry[account].pop(index, 0)
                del self.lots[account][index]


def margin(book: TwinBook, account: str, tables: Tables, p: RiskParameters) -> dict[str, object]:
    """The decision of streams/engine/margin.py, term by term; money in micro-USD."""
    lots = {i: q for i, q in book.lots[account].items() if q}
    mark, haircut, notional = tables.columns_usd9.tolist()
    base = book.cash[account] - sum(book.entry[account].values())
    equity = base + sum(q * mark[i] for i, q in lots.items()) // 1_000
    nlv = base + sum(q * (haircut[i] if q > 0 else mark[i]) for i, q in lots.items()) // 1_000
    linear = [i for i in lots if book.catalogue.instruments[i].kind in ("perpetual", "future")]
    gain = max(0, _up(sum(lots[i] * mark[i] for i in linear), 1_000) - sum(book.entry[account].values()))
    nlv -= _up(gain * (1_000_000 - p.unrealised_gain_share_e6), 1_000_000)
    shortfall = expected_shortfall(lots, tables)
    stress, row = worst_stress(lots, tables)
    net: dict[int, int] = defaultdict(int)
    for i, q in lots.items():
        if tables.option_expiry[i] >= 0:
            net[int(tables.option_expiry[i])] += q * notional[i]
    short = _up(sum(max(0, -v) for v in net.values()) * p.short_option_minimum_e6, 1_000_000)
    charge = _up(sum(abs(q) * notional[i] for i, q in lots.items()) * p.gross_notional_charge_e6, 1_000_000)
    charge += sum(concentration(rule, lots, book.catalogue, tables) for rule in p.concentration)
    degraded = 0
    if tables.degraded_usd9 is not None:
        degraded = sum(abs(q) * int(tables.degraded_usd9[i]) for i, q in lots.items())
    charge += degraded
    risk = max(shortfall, stress, short)
    maintenance = _up(risk + charge, 1_000)
    initial = _up(_up(risk * p.initial_margin_multiplier_e6, 1_000_000) + charge, 1_000)
    line = _up(risk + charge - degraded, 1_000)  # degraded oracles liquidate nobody
    state = 3 if equity < 0 else 2 if nlv < line else 1 if nlv < initial else 0
    return {
        "nlv_usd6": nlv, "equity_usd6": equity, "initial_margin_usd6": initial, "maintenance_margin_usd6": maintenance,
        "expected_shortfall_usd6": _up(shortfall, 1_000), "stress_loss_usd6": _up(stress, 1_000),
        "short_option_minimum_usd6": _up(short, 1_000), "add_ons_usd6": _up(charge, 1_000),
        "binding": [shortfall, stress, short].index(risk), "stress_row": row, "state": state,
    }  # fmt: skip


def concentration(rule: Concentration, lots: dict[int, int], catalogue: Catalogue, tables: Tables) -> int:
    """The size bracket by bracket, nano-USD."""
    mark, _, notional = tables.columns_usd9.tolist()
    size = 0
    for i, q in lots.items():
        listed = catalogue.instruments[i]
        if catalogue.underlyings[listed.underlying].symbol != rule.underlying:
            continue
        if rule.scope == "collateral" and listed.kind == "spot":
            size += max(0, q) * mark[i]
        elif rule.scope == "derivatives" and listed.kind != "spot":
            size += abs(q) * notional[i]
    charge, before = 0, 0
    for tier in rule.tiers:
        charge += _up(max(0, size - tier.above_usd6 * 1_000) * (tier.rate_e6 - before), 1_000_000)
        before = tier.rate_e6
    return charge


def expected_shortfall(lots: dict[int, int], tables: Tables) -> int:
    """Mean of the worst tail mass, from the sorted losses; rounded up, nano-USD."""
    values, exponent = tables.pnl.values, tables.pnl.exponent
    weights = tables.scenarios.weights.tolist()
    losses = [
        (-sum(q * (int(values[i, s]) << int(exponent[i])) for i, q in lots.items()), weights[s])
        for s in range(len(weights))
    ]
    left, total = tables.tail_mass, 0
    for loss, weight in sorted(losses, reverse=True):
        taken = min(weight, left)
        total, left = total + taken * loss, left - taken
    return ceil(Fraction(total, tables.tail_mass))


def worst_stress(lots: dict[int, int], tables: Tables) -> tuple[int, int]:
    """Largest weighted loss over the rows, at least 0, and its row (the first of equals, -1 for none)."""
    worst, worst_row = 0, -1
    for r, weight in enumerate(tables.stress_weight_e6.tolist()):
        loss = _up(-sum(q * int(tables.stress[i, r]) for i, q in lots.items()) * weight, 1_000_000)
        if loss > worst:
            worst, worst_row = loss, r
    return worst, worst_row


def _up(numerator: int, denominator: int) -> int:
    return -(-numerator // denominator)


assert BINDING_TERMS == ("expected_shortfall", "stress", "short_option_minimum")
