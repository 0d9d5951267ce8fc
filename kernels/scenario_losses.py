"""Losses of an account in every scenario: int32 quantities times int32 rows of the P&L table, summed in int64.

One 64-byte load takes 16 scenarios of a row as eight 64-bit lanes. A lane holds two values: the product of its low half
and, after a shift by 32 bits, of its high half are one instruction each (``vpmuldq``; both halves sign-extended), so no
value is widened by itself: five vector instructions for 16 products against six, and half the loads. The price is an
order: within 16 scenarios the even ones come first, then the odd ones. An expected shortfall does not depend on the
order of its scenarios, so the weights are brought into the same order (``in_loss_order``) and nothing else changes.

A sweep adds up to four rows and asks the cache for the rows of the next sweep, line by line. The first sweep takes the
rows that are left over from four and writes, the others add. The last ``S % 16`` scenarios are scalar, in their order.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types, uint64
from numba.core import cgutils
from numba.extending import intrinsic

from kernels.compiling import borrows, compiled

_BLOCK, _LANES, _ROWS = 16, 8, 4
_I8, _I32, _I64 = ir.IntType(8), ir.IntType(32), ir.IntType(64)
_VECTOR = ir.VectorType(_I64, _LANES)
_SECOND_LEVEL = 2  # of the cache: that is where the rows of the next sweep are asked for


def _constant(value: int) -> Any:
    return ir.Constant(_I64, value)


def _broadcast(builder: Any, value: Any) -> Any:
    undefined, zeros = ir.Constant(_VECTOR, ir.Undefined), ir.Constant(ir.VectorType(_I32, _LANES), None)
    first = builder.insert_element(undefined, value, ir.Constant(_I32, 0))
    return builder.shuffle_vector(first, undefined, zeros)


def _products(builder: Any, address: Any, quantity: Any) -> tuple[Any, Any]:
    """quantity * (even values, odd values) of the 16 int32 at the address."""
    half = ir.Constant(_VECTOR, [_constant(32)] * _LANES)
    values = builder.load(builder.inttoptr(address, _VECTOR.as_pointer()))
    values.align = 4
    even, odd = builder.ashr(builder.shl(values, half), half), builder.ashr(values, half)
    return builder.mul(quantity, even), builder.mul(quantity, odd)


def _prefetch(builder: Any, address: Any) -> None:
    kinds = ir.FunctionType(ir.VoidType(), [_I8.as_pointer(), _I32, _I32, _I32])
    function = cgutils.get_or_insert_function(builder.module, kinds, "llvm.prefetch.p0i8")
    hints = [ir.Constant(_I32, hint) for hint in (0, _SECOND_LEVEL, 1)]  # to read, how near, data
    builder.call(function, [builder.inttoptr(address, _I8.as_pointer()), *hints])


def _sweep(rows: int, adds: bool) -> Any:
    """out[s] = (out[s] if `adds` else 0) - sum over `rows` rows of quantity * value, for whole blocks of scenarios.

    Arguments: address of the rows' addresses (the next sweep's follow), address of their int32 quantities, number of
    blocks, address of the losses.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        addresses, quantities, blocks, out = arguments
        address_of = builder.inttoptr(addresses, _I64.as_pointer())
        quantity_of = builder.inttoptr(quantities, _I32.as_pointer())
        at = [builder.load(builder.gep(address_of, [_constant(j)])) for j in range(2 * rows)]
        found = [builder.load(builder.gep(quantity_of, [_constant(j)])) for j in range(rows)]
        quantity = [_broadcast(builder, builder.sext(value, _I64)) for value in found]
        with cgutils.for_range(builder, blocks, intp=_I64) as loop:
            offset = builder.shl(loop.index, _constant(6))
            sums = _products(builder, builder.add(at[0], offset), quantity[0])
            for j in range(1, rows):
                pair = _products(builder, builder.add(at[j], offset), quantity[j])
                sums = builder.add(sums[0], pair[0]), builder.add(sums[1], pair[1])
            for j in range(rows, 2 * rows):
                _prefetch(builder, builder.add(at[j], offset))
            place = builder.inttoptr(builder.add(out, builder.shl(loop.index, _constant(7))), _VECTOR.as_pointer())
            for half in range(2):
                _subtract(builder, builder.gep(place, [_constant(half)]), sums[half], adds)
        return context.get_dummy_value()

    def typed(typing_context: Any, rows: Any, quantities: Any, blocks: Any, out: Any) -> Any:
        return types.void(types.uint64, types.uint64, types.int64, types.uint64), generate

    return intrinsic(typed)


def _subtract(builder: Any, place: Any, value: Any, adds: bool) -> None:
    """*place = (*place or 0) - value."""
    if adds:
        before = builder.load(place)
        before.align = 8
        value = builder.sub(before, value)
    else:
        value = builder.neg(value)
    builder.store(value, place).align = 8


_first_1, _first_2, _first_3, _first_4 = (_sweep(rows, False) for rows in range(1, _ROWS + 1))
_next_4 = _sweep(_ROWS, True)


@borrows
def _whole_blocks(values, instruments, shifted, addresses, losses) -> None:  # type: ignore[no-untyped-def]
    legs, size = instruments.shape[0], losses.shape[0]
    blocks, base = size // _BLOCK, uint64(values.ctypes.data)
    for j in range(legs):
        addresses[j] = base + uint64(instruments[j]) * uint64(4 * size)
    for j in range(legs, legs + _ROWS):
        addresses[j] = addresses[0]  # what the last sweep asks the cache for is there
    rows, quantities = uint64(addresses.ctypes.data), uint64(shifted.ctypes.data)
    out = uint64(losses.ctypes.data)
    first = (legs - 1) % _ROWS + 1
    if first == 1:
        _first_1(rows, quantities, blocks, out)
    elif first == 2:
        _first_2(rows, quantities, blocks, out)
    elif first == 3:
        _first_3(rows, quantities, blocks, out)
    else:
        _first_4(rows, quantities, blocks, out)
    for j in range(first, legs, _ROWS):
        _next_4(rows + uint64(8 * j), quantities + uint64(4 * j), blocks, out)


@borrows
def accumulate(values, instruments, shifted, addresses, losses) -> None:  # type: ignore[no-untyped-def]
    """losses = -sum_j shifted[j] * values[instruments[j]], in loss order (the module's head).

    Args:
        values: int32[I,S], C-contiguous; ``instruments`` int32[N]; ``shifted`` int32[>= N].
        addresses: uint64[>= N + 4], scratch. ``losses``: int64[S]. Sums may wrap on the way, the result is exact where
            it fits: two's complement.
    """
    size = losses.shape[0]
    if instruments.shape[0] == 0:
        losses[:] = 0
        return
    _whole_blocks(values, instruments, shifted, addresses, losses)
    for s in range(size - size % _BLOCK, size):
        losses[s] = 0
        for j in range(instruments.shape[0]):
            losses[s] -= np.int64(shifted[j]) * np.int64(values[instruments[j], s])


@compiled
def in_loss_order(weights):  # type: ignore[no-untyped-def]
    """A copy of the weights [S] in the order of the losses of ``accumulate``: once a call, not once an account."""
    out, size = weights.copy(), weights.shape[0]
    for begin in range(0, size - size % _BLOCK, _BLOCK):
        for k in range(_LANES):
            out[begin + k] = weights[begin + 2 * k]
            out[begin + _LANES + k] = weights[begin + 2 * k + 1]
    return out


@compiled
def address_room(legs):  # type: ignore[no-untyped-def]
    """Scratch of ``accumulate`` for accounts of at most so many legs."""
    return np.empty(legs + _ROWS, np.uint64)
