"""No garbage is collected while numba compiles, and afterwards as before."""

import gc

import pytest
from numba.core import event

from kernels import compiling


def test_collection_stands_still_until_the_outermost_compilation_ends() -> None:
    assert compiling.compiled is not None
    assert gc.isenabled()
    with event.trigger_event("numba:compile"):
        with event.trigger_event("numba:compile"):
            assert not gc.isenabled()
        assert not gc.isenabled()
    assert gc.isenabled()


def test_a_compilation_that_fails_lets_collection_go_on() -> None:
    with pytest.raises(ValueError, match="no such type"), event.trigger_event("numba:compile"):
        raise ValueError("no such type")
    assert gc.isenabled()


def test_collection_that_was_off_stays_off() -> None:
    gc.disable()
    try:
        with event.trigger_event("numba:compile"):
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
