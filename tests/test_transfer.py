"""Arrays that are put on the device are copies of what they were, whatever their layout."""

import jax
import ml_dtypes
import numpy as np
import pytest

from jaxlin import transfer
from jaxlin.transfer import aligned, to_device

PLAIN = np.random.default_rng(0).normal(size=(37, 12))
LAYOUTS = {
    "rows": PLAIN,
    "columns": np.asfortranarray(PLAIN),
    "every other": PLAIN[::2, 1::3],
    "backward": PLAIN[::-1],
    "one row": PLAIN[:1],
    "no row": PLAIN[:0],
    "flat": PLAIN[0],
}


@pytest.mark.parametrize("large", [0, 1 << 30])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64, ml_dtypes.bfloat16])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_is_placed_is_the_array_and_a_copy(layout, dtype, large, monkeypatch):
    monkeypatch.setattr(transfer, "LARGE", large)
    array = LAYOUTS[layout].astype(dtype, order="K")
    with jax.enable_x64(True):
        placed = to_device(array)
    assert placed.dtype == array.dtype
    before = array.copy()
    array[...] = 7
    np.testing.assert_array_equal(np.asarray(placed), before)


@pytest.mark.parametrize("shape", [(3,), (5, 7)])
def test_memory_is_aligned(shape):
    for dtype in (np.uint8, np.float64):
        found = aligned(shape, dtype)
        assert (found.shape, found.dtype) == (shape, dtype)
        assert found.ctypes.data % 64 == 0


def test_jax_takes_the_copy_over(monkeypatch):
    """The memory that was filled is the memory that is computed with."""
    taken = []
    monkeypatch.setattr(transfer, "LARGE", 0)
    monkeypatch.setattr(
        transfer, "aligned", lambda *wanted: taken.append(aligned(*wanted)) or taken[0]
    )
    placed = to_device(np.ones((100, 8), np.float32))
    assert placed.unsafe_buffer_pointer() == taken[0].ctypes.data


def test_a_failing_copy_is_told(monkeypatch):
    monkeypatch.setattr(transfer, "LARGE", 0)

    def fails(*_):
        raise MemoryError("no memory")

    monkeypatch.setattr(np, "copyto", fails)
    with pytest.raises(MemoryError, match="no memory"):
        to_device(np.ones((100, 8)))
