"""Rows that threads share, BLAS that fits share, and what a fork leaves of both.

The sums of parts are those of the whole, and errors come through.
"""

import gc
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from jaxlin import cpu_threads
from jaxlin.passes import open_rows


def blas():
    return max(found["num_threads"] for found in threadpool_info() if found["user_api"] == "blas")


@pytest.fixture
def two():
    cpu_threads.blas_threads()  # as other tests find it
    with threadpool_limits(2, user_api="blas"):
        if blas() != 2:
            pytest.skip("BLAS was built for one thread")
        yield


@pytest.fixture
def three(monkeypatch):
    monkeypatch.setattr(cpu_threads, "PART_BYTES", 1)
    monkeypatch.setattr(cpu_threads, "blas_threads", lambda: 3)


def test_parts_are_about_even_and_no_more_than_pay(three, monkeypatch):
    assert cpu_threads.parts_of(8, 1) == [slice(0, 2), slice(2, 5), slice(5, 8)]
    assert cpu_threads.parts_of(2, 1) == [slice(0, 1), slice(1, 2)]
    monkeypatch.setattr(cpu_threads, "PART_BYTES", 100)
    assert cpu_threads.parts_of(8, 24) == [slice(0, 8)]
    assert len(cpu_threads.parts_of(9, 24)) == 2


def test_what_a_thread_raises_is_raised_and_overflow_is_quiet(three, recwarn):
    gc.collect()  # what earlier tests left open says so when it goes
    recwarn.clear()

    def doubled(value):
        if value < 0:
            raise ValueError("negative")
        return value * 2

    with cpu_threads.sharing(3) as each, np.errstate(over="ignore"):
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


@pytest.mark.parametrize("context", [cpu_threads.quiet_blas, cpu_threads.all_blas_threads])
def test_contexts_that_overlap_leave_blas_as_it_was(two, context):
    """The first to come leaves first: what the second found must not be what is left."""
    with (
        cpu_threads.quiet_blas()
        if context is cpu_threads.all_blas_threads
        else threadpool_limits(2)
    ):
        before, first, second = blas(), context(), context()
        first.__enter__()
        second.__enter__()
        inside = blas()
        first.__exit__(None, None, None)
        assert blas() == inside == 3 - before  # 1 and 2
        second.__exit__(None, None, None)
        assert blas() == before
    assert blas() == 2


def test_fits_in_threads_leave_blas_as_it_was(two):
    """Each enters before any leaves, in every order that the threads happen to take."""
    enter, leave, seen = threading.Barrier(6), threading.Barrier(6), []

    def fit():
        for _ in range(20):
            enter.wait()
            with cpu_threads.quiet_blas():
                seen.append(blas())
                with cpu_threads.all_blas_threads():
                    pass
                leave.wait()

    threads = [threading.Thread(target=fit) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert blas() == 2
    assert len(seen) == 120


def test_all_threads_are_those_that_the_user_allows(two):
    with threadpool_limits(1, user_api="blas"), cpu_threads.quiet_blas():
        with cpu_threads.all_blas_threads():
            assert blas() == 1
        assert blas() == 1
    assert blas() == 2


FORKS = """
import os, signal, threading, warnings
warnings.simplefilter("ignore")  # JAX says at each fork what this is about
import numpy as np
from jaxlin import cpu_threads
from jaxlin.estimators import SoftmaxClassifier
from jaxlin.passes import open_rows
from threadpoolctl import threadpool_info
x, y = np.arange(12.0).reshape(6, 2) % 5, np.arange(6) % 3

def child(job):
    read, write = os.pipe()
    if pid := os.fork():
        os.close(write)
        with os.fdopen(read) as answer:
            said = answer.read()
        os.waitpid(pid, 0)
        return said
    signal.alarm(600)  # one that waits forever is ended
    try:
        said = f"gave {job()}"
    except BaseException as error:
        said = f"{type(error).__name__}: {error}"
    os.write(write, said.encode())
    os._exit(0)

def jax_itself():
    import jax
    jax.numpy.ones(3) + 1

def pieces():
    return SoftmaxClassifier().partial_fit(x, y, classes=[0, 1, 2]).n_iter_

def device():
    return open_rows(x, 3, host=False).scores(np.ones((3, 2)), np.zeros(3)).shape

def small():
    return SoftmaxClassifier().fit(x, y).converged_

def threads():
    return max(found["num_threads"] for found in threadpool_info() if found["user_api"] == "blas")

def nested():
    with cpu_threads.quiet_blas():
        return threads()

jobs = pieces, device, small
print(*map(child, jobs), sep=" | ")
for begin in (jax_itself, pieces):
    print(child(lambda: (begin(), " | ".join(map(child, jobs)))[1]))
inside, leave = threading.Event(), threading.Event()

def fit():
    with cpu_threads.quiet_blas():
        inside.set()
        leave.wait()

thread, before = threading.Thread(target=fit), threads()
thread.start()
inside.wait()
print(child(threads) == f"gave {before}", child(nested), threads())
with cpu_threads.quiet_blas():
    print(child(threads))
leave.set()
thread.join()
print(threads() == before)
"""


@pytest.mark.skipif(not hasattr(os, "register_at_fork"), reason="no fork on this system")
def test_a_forked_child_does_what_it_can_and_says_what_it_cannot():
    """Of a parent that has not computed it can do all, later what NumPy does; it never waits."""
    said = subprocess.run(
        [sys.executable, "-c", FORKS],
        cwd=Path(__file__).parents[1],
        env={**os.environ, "OMP_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "2"},
        capture_output=True,
        text=True,
    )
    assert said.returncode == 0, said.stderr
    fresh, *later, nested, held, left = said.stdout.splitlines()
    assert fresh == "gave 1 | gave (3, 6) | gave True"
    assert len(later) == 2
    for line in later:
        *refused, small = line.removeprefix("gave ").split(" | ")
        for sentence in refused:
            assert sentence.startswith("RuntimeError: this process was forked")
            assert '"spawn" or "forkserver"' in sentence
        assert (len(refused), small) == (2, "gave True")
    assert (nested, held, left) == ("True gave 1 1", "gave 1", "True")
