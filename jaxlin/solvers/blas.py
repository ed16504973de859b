"""How many threads BLAS takes.

Two that have little to do spin while they wait for each other, and stop a busy machine: a
factorization of 3,072 unknowns takes 0.14 s on two idle cores and up to 0.57 s beside other work,
0.18 s on one. One large symmetric product gains from both cores in any case (0.41 instead of
0.76 s, and 0.83 instead of 1.2 s on busy cores), and so do eigenvectors (0.76 instead of 1.11 s of
2,048 features).
"""

__all__ = ["all_blas_threads", "blas_threads", "quiet_blas"]

from functools import cache

from threadpoolctl import ThreadpoolController


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
