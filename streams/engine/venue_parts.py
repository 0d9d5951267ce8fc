"""Stress of the venue in the stream: what one partition says of its accounts, and how parts become the venue's figures.

Totals by scenario add up, and the two largest losses of all accounts are among the two largest of each partition, so
figures made from parts are those of all accounts together, to the unit (of equal losses the lowest partition's leads).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec
import numpy as np
from msgspec import UNSET

from kernels.venue_losses import NOBODY, VenueLosses, joined
from schemas import log_records as records
from schemas.risk_parameters import VenueStress
from schemas.venue import VenueLossArrays, VenuePart, VenueStressRecord
from streams.engine.tables import Tables
from streams.engine.venue_stress import (
    EQUITY,
    VIEWS,
    Uncovered,
    group_of,
    losses_of,
    rows_named,
    uncovered,
    venue_tables,
    views_of,
)

if TYPE_CHECKING:
    from streams.engine.risk import Risk

VERSION = 1
_WIDE, _PLACES = "<i8", "<i4"


def part_of(state: Risk, asked: VenueStress, tables: Tables, header: records.Header, seq: int) -> VenuePart:
    """The accounts of a partition at the barrier of `header`, to which `tables` belong."""
    book, p = state.book, state.parameters
    group = group_of(book.legs(), book.accounts, book.cash(), book.entry_by_account(), tables, p)
    venue = venue_tables(tables, state.catalogue, p)
    found = [uncovered([group], venue, name) for name in VIEWS]
    named = sorted({a for one in found for losses in (one.scenarios, one.stressed) for a in _accounts(losses)})
    return VenuePart(
        version=VERSION,
        partition=state.partition,
        seq=seq,
        block=header.block,
        time_ms=header.time_ms,
        scenario_digest=state.scenario_digest,
        parameter_version=p.version,
        confidence_e6=asked.confidence_e6,
        fund_usd6=asked.fund_usd6,
        accounts=len(book.accounts),
        unpriced_accounts=losses_of([group], venue.pnl, EQUITY)[1],
        names=tuple(book.accounts[a] for a in named),
        weights=tables.scenarios.weights.astype(_PLACES).tobytes(),
        rows=rows_named(p),
        views=tuple(_arrays(name, one, np.array(named, np.int64)) for name, one in zip(VIEWS, found, strict=True)),
        epoch=state.reporter.epoch or UNSET,
    )


def _accounts(losses: VenueLosses) -> set[int]:
    return {*losses.largest_account.tolist(), *losses.second_account.tolist()} - {NOBODY}


def _arrays(resources: str, found: Uncovered, named: np.ndarray) -> VenueLossArrays:
    """`named`: the accounts that have a name, ascending."""
    both = VenueLosses(*(np.concatenate(pair) for pair in zip(found.scenarios, found.stressed, strict=True)))

    def places(accounts: np.ndarray) -> bytes:
        return np.where(accounts == NOBODY, NOBODY, np.searchsorted(named, accounts)).astype(_PLACES).tobytes()

    return VenueLossArrays(
        resources,
        found.resources_usd6,
        found.uncovered_now_usd6,
        both.total_usd6.astype(_WIDE).tobytes(),
        both.largest_usd6.astype(_WIDE).tobytes(),
        places(both.largest_account),
        both.second_usd6.astype(_WIDE).tobytes(),
        places(both.second_account),
    )


def combined(parts: Sequence[VenuePart], seq: int) -> VenueStressRecord:
    """The venue of the parts of one block, at least one, by partition."""
    first = parts[0]
    weights = np.frombuffer(first.weights, _PLACES).astype(np.int64)
    names = [name for part in parts for name in part.names]
    found = {
        view.resources: _together([part.views[place] for part in parts], parts, names, len(weights))
        for place, view in enumerate(first.views)
    }
    given = first.fund_usd6 > 0
    views, fund_usd6 = views_of(found, weights, first.rows, first.confidence_e6, first.fund_usd6 if given else None)
    return VenueStressRecord(
        version=VERSION,
        partition=0,
        seq=seq,
        block=first.block,
        time_ms=first.time_ms,
        partitions=len(parts),
        accounts=sum(part.accounts for part in parts),
        scenarios=len(weights),
        scenario_digest=first.scenario_digest,
        parameter_version=first.parameter_version,
        confidence_e6=first.confidence_e6,
        fund_usd6=fund_usd6,
        fund_given=given,
        unpriced_accounts=tuple(name for part in parts for name in part.unpriced_accounts),
        views=views,
        epoch=first.epoch,
    )


def _together(
    views: Sequence[VenueLossArrays], parts: Sequence[VenuePart], names: list[str], scenarios: int
) -> Uncovered:
    """One view of all parts; accounts are places in `names`."""
    losses, first = [], 0
    for view, part in zip(views, parts, strict=True):
        losses.append((_losses(view), first))
        first += len(part.names)
    whole = joined(losses, scenarios + len(parts[0].rows))
    return Uncovered(
        VenueLosses(*(column[:scenarios] for column in whole)),
        VenueLosses(*(column[scenarios:] for column in whole)),
        names,
        sum(view.resources_usd6 for view in views),
        sum(view.uncovered_now_usd6 for view in views),
    )


def _losses(view: VenueLossArrays) -> VenueLosses:
    columns = (
        np.frombuffer(raw, kind).astype(np.int64)
        for raw, kind in (
            (view.total_usd6, _WIDE), (view.largest_usd6, _WIDE), (view.largest_account, _PLACES),
            (view.second_usd6, _WIDE), (view.second_account, _PLACES),
        )
    )  # fmt: skip
    return VenueLosses(*columns)


def read_part(raw: bytes) -> VenuePart:
    """A record of venue.parts."""
    return msgspec.json.decode(raw, type=VenuePart)
