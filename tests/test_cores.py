"""Rows that threads share: the sums of parts are those of the whole, and errors come through."""

import numpy as np
import pytest

from jaxlin import cores
from jaxlin.passes import open_rows


@pytest.fixture
def three(monkeypatch):
    monkeypatch.setattr(cores, "PART_BYTES", 1)
    monkeypatch.setattr(cores, "blas_threads", lambda: 3)


def test_parts_are_about_even_and_no_more_than_pay(three, monkeypatch):
    assert cores.parts_of(8, 1) == [slice(0, 2), slice(2, 5), slice(5, 8)]
    assert cores.parts_of(2, 1) == [slice(0, 1), slice(1, 2)]
    monkeypatch.setattr(cores, "PART_BYTES", 100)
    assert cores.parts_of(8, 24) == [slice(0, 8)]
    assert len(cores.parts_of(9, 24)) == 2


def test_what_a_thread_raises_is_raised_and_overflow_is_quiet(three, recwarn):
    def doubled(value):
        if value < 0:
            raise ValueError("negative")
        return value * 2

    with cores.sharing(3) as each, np.errstate(over="ignore"):
        assert list(each(doubled, np.full(3, 1e308))) == [np.inf] * 3
        with pytest.raises(ValueError, match="negative"):
            each(doubled, [1, 2, -1])
    assert not recwarn.list


def test_sums_over_rows_are_those_of_one_thread(three):
    rng = np.random.default_rng(0)
    rows = open_rows(rng.normal(size=(10, 4)), 3, host=True)
    scores, counts = rng.normal(size=(3, 10)), rng.uniform(size=10)

    def rowwise(xp, scores, counts, anchor, twice):
        return twice * scores * counts, ((scores * counts).sum(1), anchor * counts.sum())

    one = rowwise(np, scores, counts, 0.5, 2.0)
    sums = rows.total(lambda *given: rowwise(*given)[1], (scores, counts, 0.5), 2.0)
    products, totals, again = rows.transpose_total(rowwise, (scores, counts, 0.5), 2.0)
    # ten numbers of size 1: a few rounding errors of 1e-16
    np.testing.assert_allclose(sums[0], one[1][0], atol=1e-14)
    np.testing.assert_allclose(sums[1], 0.5 * counts.sum(), atol=1e-14)
    np.testing.assert_allclose(again[0], one[1][0], atol=1e-14)
    np.testing.assert_allclose(products, one[0] @ rows.inputs, atol=1e-14)
    np.testing.assert_allclose(totals, one[0].sum(1), atol=1e-14)
