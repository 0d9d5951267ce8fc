"""Worst weighted stress loss of accounts.

    loss_r = -sum_i lots_i stress[i, r]          worst = max(0, max_r ceil(weight_r * loss_r)), the first row wins a tie

A pass of its own, before the scenarios: the stress table then stays in the second cache, which every account's rows of
the P&L table would sweep clean. 32 stress rows at a time stay in registers while the legs go by; what is left over from
32 goes in eights, the last few one by one. Sums of integers that may wrap: the same in any order, and exact where the
caller's range check says that they fit.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import int64, types, uint64
from numba.core import cgutils
from numba.extending import intrinsic

from kernels.compiling import borrows, compiled
from kernels.tail_selection import above_mask, lowest_bit

_LANES, _VECTORS = 8, 4
_MILLION = 1_000_000
_NO_LOSS = -(2**63)
_COARSE_BITS, _COARSE_SLACK = 20, 1_000_002  # one weight of at most a million, and ceilings that may be equal
_I32, _I64 = ir.IntType(32), ir.IntType(64)
_VECTOR = ir.VectorType(_I64, _LANES)


def _sums(vectors: int) -> Any:
    """out[k] = -sum_j lots[j] * value[k] of instrument j, k = 0 .. 8 `vectors` - 1.

    Arguments: address of the first value of instrument 0, bytes from an instrument to the next, addresses of the int32
    instruments and of the int64 lots, number of legs, address of the losses.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        base, stride, instruments, lots, legs, out = arguments
        instrument_of = builder.inttoptr(instruments, _I32.as_pointer())
        lots_of = builder.inttoptr(lots, _I64.as_pointer())
        undefined, zeros = ir.Constant(_VECTOR, ir.Undefined), ir.Constant(ir.VectorType(_I32, _LANES), None)
        sums = [cgutils.alloca_once_value(builder, ir.Constant(_VECTOR, None)) for _ in range(vectors)]
        with cgutils.for_range(builder, legs, intp=_I64) as loop:
            instrument = builder.zext(builder.load(builder.gep(instrument_of, [loop.index])), _I64)
            values = builder.inttoptr(builder.add(base, builder.mul(instrument, stride)), _VECTOR.as_pointer())
            first = builder.insert_element(undefined, builder.load(builder.gep(lots_of, [loop.index])), _I32(0))
            quantity = builder.shuffle_vector(first, undefined, zeros)
            for k, total in enumerate(sums):
                value = builder.load(builder.gep(values, [_I64(k)]))
                value.align = 8
                builder.store(builder.sub(builder.load(total), builder.mul(quantity, value)), total)
        place = builder.inttoptr(out, _VECTOR.as_pointer())
        for k, total in enumerate(sums):
            builder.store(builder.load(total), builder.gep(place, [_I64(k)])).align = 8
        return context.get_dummy_value()

    def typed(typing_context: Any, base: Any, stride: Any, instruments: Any, lots: Any, legs: Any, out: Any) -> Any:
        return types.void(*[types.uint64] * 4, types.int64, types.uint64), generate

    return intrinsic(typed)


_many_sums, _eight_sums = _sums(_VECTORS), _sums(1)


@borrows
def stress_losses(instruments, lots, stress, row_losses) -> None:  # type: ignore[no-untyped-def]
    """row_losses[r] = -sum_j lots[j] * stress[instruments[j], r]; int32[N], int64[N], int64[I,R], all C-contiguous."""
    legs, size, r = int64(instruments.shape[0]), row_losses.shape[0], 0
    base, stride, out = uint64(stress.ctypes.data), uint64(8 * size), uint64(row_losses.ctypes.data)
    which, quantities = uint64(instruments.ctypes.data), uint64(lots.ctypes.data)
    while size - r >= _LANES * _VECTORS:
        _many_sums(base + uint64(8 * r), stride, which, quantities, legs, out + uint64(8 * r))
        r += _LANES * _VECTORS
    while size - r >= _LANES:
        _eight_sums(base + uint64(8 * r), stride, which, quantities, legs, out + uint64(8 * r))
        r += _LANES
    for k in range(r, size):
        row_losses[k] = 0
        for j in range(legs):
            row_losses[k] -= lots[j] * stress[instruments[j], k]


@borrows
def _worst(row_losses, weight_e6, coarse):  # type: ignore[no-untyped-def]
    """(largest ceil(weight * loss) but at least 0, its row or -1); ``coarse`` int64[R rounded up to eights] is scratch,
    its entries beyond R the least int64.

    A product of the loss without its last 20 bits fits 64 bits and is at most one weight too small; only rows that are
    that near the largest of these are weighted exactly: the others cannot be worst.
    """
    largest = np.int64(0)
    for r in range(row_losses.shape[0]):
        coarse[r] = (row_losses[r] >> _COARSE_BITS) * weight_e6[r]
        largest = max(largest, coarse[r])
    worst, worst_row = np.int64(0), np.int64(-1)
    for begin in range(0, coarse.shape[0], _LANES):
        near = above_mask(uint64(coarse.ctypes.data + 8 * begin), largest - _COARSE_SLACK - 1)
        while near != uint64(0):
            r = begin + lowest_bit(near)
            near &= near - uint64(1)
            if row_losses[r] <= 0:
                continue
            millions = row_losses[r] // _MILLION  # weight * loss may not fit 64 bits
            rest = row_losses[r] - millions * _MILLION
            weighted = millions * weight_e6[r] + (rest * weight_e6[r] + _MILLION - 1) // _MILLION
            if weighted > worst:
                worst, worst_row = weighted, np.int64(r)
    return worst, worst_row


@borrows
def _fill(  # type: ignore[no-untyped-def]
    account_ptr, leg_instrument, leg_lots, accounts, stress, weight_e6, row_losses, coarse, worst_usd9, worst_row
) -> None:
    for n in range(accounts.shape[0]):
        begin, end = account_ptr[accounts[n]], account_ptr[accounts[n] + 1]
        stress_losses(leg_instrument[begin:end], leg_lots[begin:end], stress, row_losses)
        worst_usd9[n], worst_row[n] = _worst(row_losses, weight_e6, coarse)


@compiled
def worst_stresses(account_ptr, leg_instrument, leg_lots, accounts, stress, weight_e6):  # type: ignore[no-untyped-def]
    """(worst weighted loss in nano-USD int64[N], its row or -1 int32[N]) of each of ``accounts`` [N], in their order.

    ``stress`` int64[I,R], ``weight_e6`` int64[R] within 0..1_000_000. An account whose sums leave int64 (status WIDE)
    gets numbers without a meaning.
    """
    rows = stress.shape[1]
    worst_usd9, worst_row = np.empty(accounts.shape[0], np.int64), np.empty(accounts.shape[0], np.int32)
    coarse = np.empty(-(-rows // _LANES) * _LANES, np.int64)
    coarse[:] = _NO_LOSS
    _fill(
        account_ptr, leg_instrument, leg_lots, accounts, stress, weight_e6, np.empty(rows, np.int64), coarse,
        worst_usd9, worst_row,
    )  # fmt: skip
    return worst_usd9, worst_row
