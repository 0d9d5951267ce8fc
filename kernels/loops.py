"""Loops that numpy has functions for, where compiled code has no use for the generality that those bring along.

Assigning an array to a slice compiles the text of its errors with it (2 s once, 0.3 s for each shape), sorting 1.4
s of pivots for any order of any type; these take a fraction. Floats without NaN, or integers.
"""

from __future__ import annotations

from kernels.compiling import borrows


@borrows
def assign(out, values) -> None:  # type: ignore[no-untyped-def]
    """out[k] = values[k] for all k of ``out``."""
    for k in range(out.shape[0]):
        out[k] = values[k]


@borrows
def sort(values) -> None:  # type: ignore[no-untyped-def]
    """Ascending, in place: heap sort, so that no input is slow. Williams (1964), with Floyd's heap (1964)."""
    size = values.shape[0]
    for step in range(size // 2 + size):
        if step < size // 2:  # each parent, from the last one, sinks to its place
            root, end = size // 2 - 1 - step, size
        else:  # the largest goes behind the heap, what was there sinks
            end = size // 2 + size - 1 - step
            values[0], values[end] = values[end], values[0]
            root = 0
        value = values[root]
        child = 2 * root + 1
        while child < end:
            if child + 1 < end and values[child] < values[child + 1]:
                child += 1
            if not value < values[child]:
                break
            values[root] = values[child]
            root, child = child, 2 * child + 1
        values[root] = value
