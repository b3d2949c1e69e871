"""Loading many modules at once."""

from __future__ import annotations

import gc

import pytest

from learnae.imports import loading_modules


def test_loading__leaves_the_collector_as_it_was() -> None:
    """The garbage collector rests while modules load, and works again afterwards, also after an error."""
    with loading_modules():
        assert not gc.isenabled()
        with loading_modules():
            pass
        assert not gc.isenabled(), "the outer one is not over yet"
    assert gc.isenabled()
    with pytest.raises(ImportError), loading_modules():
        raise ImportError("no such part")
    assert gc.isenabled()
    gc.unfreeze()  # What this test run has made so far may be collected.
