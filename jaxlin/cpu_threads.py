"""The cores of a CPU: how many of them BLAS takes, and rows in NumPy that threads share.

Two threads of BLAS that have little to do spin while they wait for each other, and stop a busy
machine: a factorization of 3,072 unknowns takes 0.14 s on two idle cores and up to 0.57 s beside
other work, 0.18 s on one. One large symmetric product gains from both cores in any case (0.41
instead of 0.76 s, and 0.83 instead of 1.2 s on busy cores), and so do eigenvectors (0.76 instead of
1.11 s of 2,048 features).

How many threads BLAS has is one number for the whole process. Fits that overlap in time, each in a
thread of its own, are counted: the first to come makes BLAS quiet, the last to go gives back what
it had.

NumPy lets other threads run while it works on an array, but each of many small operations must wait
for its turn to begin: rows are shared in as few and as large parts as can be, one for each core.

A process that was forked has none of the threads of its parent. BLAS starts its own anew; those of
JAX are missed for good, and what waits for them waits forever.
"""

__all__ = [
    "all_blas_threads",
    "blas_threads",
    "check_not_forked",
    "parts_of",
    "quiet_blas",
    "sharing",
]

import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
from threadpoolctl import ThreadpoolController

PART_BYTES = 1 << 20
"""A thread of its own pays for no less."""
MOST_THREADS = 8
"""More wait for each other."""


class _Blas:
    """Who asks BLAS to be quiet, who needs all of its threads, and what it had before."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        # the threads inside each context, once for each time
        self.quiet: list[int] = []
        self.loud: list[int] = []
        self.controller: Any = None
        self.limit: Any = None
        self.threads = 0

    def begin(self) -> None:
        """Find the libraries, once."""
        if self.controller is None:
            self.controller = ThreadpoolController()
            found = self.controller.select(user_api="blas").info()
            self.threads = max((library["num_threads"] for library in found), default=1)

    def settle(self) -> None:
        """One thread while anyone asks for quiet and nobody for all; else what BLAS had."""
        hushed = bool(self.quiet) and not self.loud
        if hushed and self.limit is None:
            self.limit = self.controller.limit(limits=1, user_api="blas")
        elif not hushed and self.limit is not None:
            self.limit.restore_original_limits()
            self.limit = None

    @contextmanager
    def inside(self, threads: list[int]) -> Iterator[None]:
        """The calling thread is one of `threads`, which is `quiet` or `loud`."""
        own = threading.get_ident()
        with self.lock:
            self.begin()
            threads.append(own)
            self.settle()
        try:
            yield
        finally:
            with self.lock:
                threads.remove(own)
                self.settle()

    def leave_to(self, thread: int) -> None:
        """Only this thread is left of all that were inside."""
        for threads in (self.quiet, self.loud):
            threads[:] = [inside for inside in threads if inside == thread]
        self.settle()


_blas = _Blas()
_begun, _orphan = threading.Event(), threading.Event()
"""JAX has computed here; it had in the parent from which this process was forked."""


@contextmanager
def quiet_blas() -> Iterator[None]:
    """A context in which BLAS has one thread, and what rounds to 0 is no error of NumPy's.

    Only small factorizations run there. However many threads are inside at once, BLAS has again
    what it had when the last one leaves.
    """
    with _blas.inside(_blas.quiet), np.errstate(under="ignore"):
        yield


def all_blas_threads() -> AbstractContextManager[None]:
    """A context, also inside the quiet one, in which BLAS has as many threads as before it."""
    return _blas.inside(_blas.loud)


def blas_threads() -> int:
    """As many as BLAS had when it was first asked for."""
    with _blas.lock:
        _blas.begin()
        return _blas.threads


def check_not_forked() -> None:
    """Called where JAX begins to compute.

    Raises:
      RuntimeError: JAX had computed in the parent from which this process was forked: it would
        wait forever for threads that only the parent has.
    """
    if _orphan.is_set():
        raise RuntimeError(
            "this process was forked from one in which JAX had computed. JAX's threads are not in "
            'it, and a fit would wait for them forever. Start processes by "spawn" or '
            '"forkserver" (joblib\'s default, loky, will do), or fork before JAX computes.'
        )
    _begun.set()


def _before_fork() -> None:
    bridge = sys.modules.get("jax._src.xla_bridge")
    if getattr(bridge, "_backends", None):  # opened by whatever else uses JAX
        _begun.set()
    _blas.lock.acquire()


def _in_child() -> None:
    if _begun.is_set():
        _orphan.set()
    _blas.leave_to(threading.get_ident())
    _blas.lock.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork, after_in_parent=_blas.lock.release, after_in_child=_in_child
    )


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

        def each(function: Callable[..., Any], *lists: Iterable[Any]) -> list[Any]:
            (first, *others) = zip(*lists, strict=True)
            later = [pool.submit(function, *given) for given in others]
            return [function(*first), *(found.result() for found in later)]

        yield each
