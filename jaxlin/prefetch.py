"""Reading ahead: the next piece is read in a thread while the caller works on this one."""

__all__ = ["prefetch"]

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Piece = TypeVar("Piece")


def prefetch(read: Callable[[Item], Piece], items: Iterable[Item]) -> Iterator[Piece]:
    """`read(item)` for each of `items`, in order, one piece ahead of the caller.

    At most two pieces exist beside what the caller keeps: the one handed out and the one being
    read. What `read` raises is raised where its piece was asked for. Closing the iterator waits for
    the read under way and starts no other.

    >>> list(prefetch(lambda n: n * n, range(4)))
    [0, 1, 4, 9]
    """
    with ThreadPoolExecutor(1, thread_name_prefix="jaxlin-prefetch") as reader:
        waiting = None
        for item in items:
            following = reader.submit(read, item)
            if waiting is not None:
                piece, waiting = waiting.result(), None
                yield piece
                del piece
            waiting = following
            del following
        if waiting is not None:
            yield waiting.result()
