"""How functions of inner loops are compiled: without counted references.

Numba counts the references to every array, atomically; what it cannot prove needless stays in the code, some ninety
counts an account in the loops over accounts: a fifth of the time of an expected shortfall, and one cache line that all
threads write. A function that `borrows` takes arrays as they are: its caller holds them, and it may allocate none.
"""

from __future__ import annotations

from typing import Any

from numba import njit

borrows: Any = njit(cache=True, nogil=True, error_model="numpy", _nrt=False)  # type: ignore[call-overload]
