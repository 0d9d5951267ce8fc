"""How kernels are compiled: one set of options, none of them free to change a bit of a result.

A cold start waits for every function, so what costs compile time and buys no speed is left out:

* ``compiled``: cached on disk, without the global lock, without an address for C callers.
* ``inlined``: the same for the parts of inner loops. LLVM inlines the function once it is compiled, and vectorises the
  loop around it; numba's own inlining types and lowers it again at each use.
* ``borrows``: without counted references. Numba counts the references to every array, atomically; what it cannot prove
  needless stays in the code, some ninety counts an account in the loops over accounts: a fifth of the time of an
  expected shortfall, and one cache line that all threads write. A function that `borrows` takes arrays as they are: its
  caller holds them, and it may allocate none, nor return one.

Assigning an array to a slice, ``np.where``, ``np.sort`` and their like compile up to two seconds of other code (texts
of errors, broadcasting, comparisons), so kernels write such things as loops: see ``kernels.loops``.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any, Protocol, TypeVar, cast

from numba import njit
from numba.core import event
from numba.core.dispatcher import Dispatcher

Function = TypeVar("Function", bound=Callable[..., object])


class _Compiler(Protocol):
    def __call__(self, function: Function, /) -> Dispatcher[Function]: ...


def _compiler(**options: bool) -> _Compiler:
    found = cast(Any, njit)(cache=True, nogil=True, error_model="numpy", no_cfunc_wrapper=True, **options)
    return cast(_Compiler, found)


compiled = _compiler()
inlined = _compiler(forceinline=True)
borrows = _compiler(_nrt=False)


class _PausedCollection(event.Listener):
    """No garbage collection while numba compiles: it keeps nearly all it makes until the end, and going through that
    again and again took a sixth of a cold start. Compilations nest, and numba runs one at a time."""

    def __init__(self) -> None:
        self._depth = 0
        self._was_enabled = False

    def on_start(self, event: Any) -> None:
        if self._depth == 0:
            self._was_enabled = gc.isenabled()
            gc.disable()
        self._depth += 1

    def on_end(self, event: Any) -> None:
        self._depth -= 1
        if self._depth == 0 and self._was_enabled:
            gc.enable()


event.register("numba:compile", _PausedCollection())
