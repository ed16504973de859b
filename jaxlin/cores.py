"""The cores of a CPU: how many of them BLAS takes, and rows in NumPy that threads share.

Two threads of BLAS that have little to do spin while they wait for each other, and stop a busy
machine: a factorization of 3,072 unknowns takes 0.14 s on two idle cores and up to 0.57 s beside
other work, 0.18 s on one. One large symmetric product gains from both cores in any case (0.41
instead of 0.76 s, and 0.83 instead of 1.2 s on busy cores), and so do eigenvectors (0.76 instead of
1.11 s of 2,048 features).

NumPy lets other threads run while it works on an array, but each of many small operations must wait
for its turn to begin: rows are shared in as few and as large parts as can be, one for each core.
"""

__all__ = ["all_blas_threads", "blas_threads", "parts_of", "quiet_blas", "sharing"]

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache, partial
from itertools import pairwise

import numpy as np
from threadpoolctl import ThreadpoolController

PART_BYTES = 1 << 20
"""A thread of its own pays for no less."""
MOST_THREADS = 8
"""More wait for each other."""


def quiet_blas():
    """A context in which BLAS has one thread: only small factorizations run there."""
    return _controller()[0].limit(limits=1, user_api="blas")


def all_blas_threads():
    """A context, also inside the quiet one, in which BLAS has as many threads as at first."""
    return _controller()[0].limit(limits=blas_threads(), user_api="blas")


def blas_threads() -> int:
    """As many as BLAS had when it was first asked for."""
    return _controller()[1]


@cache
def _controller() -> tuple[ThreadpoolController, int]:
    controller = ThreadpoolController()
    found = [library["num_threads"] for library in controller.select(user_api="blas").info()]
    return controller, max(found, default=1)


def parts_of(size: int, row_bytes: int) -> list[slice]:
    """The rows of each thread, about as many in all; few rows are one part.

    >>> parts_of(10, 8)
    [slice(0, 10, None)]
    """
    count = min(size * row_bytes // PART_BYTES, blas_threads(), MOST_THREADS)
    if count <= 1:
        return [slice(0, size)]
    edges = np.linspace(0, size, count + 1).astype(int)
    return [slice(*ends) for ends in pairwise(edges.tolist())]


@contextmanager
def sharing(count: int) -> Iterator[Callable]:
    """`map` over lists of this length, by a thread for each entry.

    >>> with sharing(3) as each:
    ...     list(each(lambda one, other: one + other, [1, 2, 3], [10, 20, 30]))
    [11, 22, 33]
    """
    if count == 1:
        yield map
        return
    quiet = partial(np.seterr, over="ignore", invalid="ignore")  # a thread has its own
    with ThreadPoolExecutor(count - 1, "jaxlin-rows", initializer=quiet) as pool:

        def each(function, *lists):
            (first, *others) = zip(*lists, strict=True)
            later = [pool.submit(function, *given) for given in others]
            return [function(*first), *(found.result() for found in later)]

        yield each
