"""Group testing: from "the gradient is wrong somewhere" to the entries that are.

A block of coordinates is tested with one directional derivative, along fixed random signs on the
block and 0 elsewhere. With the signs kept, the disagreement of a block is the sum of those of its
two halves, so halving and following the larger one reaches a wrong entry in log2(n) rounds.
Blocks grow finer, hence shorter, so their steps grow and their error bars shrink on the way.

Source: group testing by binary splitting, Dorfman (1943), Annals of Mathematical Statistics 14,
  436-440, and Hwang (1972), JASA 67, 605-608.
"""

__all__ = ["find_entries"]

from collections.abc import Callable

import numpy as np

WIDTH = 4  # blocks followed at a time


def find_entries(
    test: Callable[[list[np.ndarray], np.ndarray], np.ndarray],
    root: np.ndarray,
    signs: np.ndarray,
    *,
    budget: int,
    rng: np.random.Generator,
    width: int = WIDTH,
) -> list[int]:
    """Entries in `root` that a test points at.

    Args:
      test: `(blocks, signs) -> excess`, (len(blocks),): how far each block is beyond what is
        allowed, 0 where it is not.
      root: the entries to search, in an order in which neighbours belong together.
      signs: (n,), of the direction that disagreed.
      budget: tests that may be made.
      rng: draws fresh signs where the errors of a block cancel.

    Returns:
      Single entries with a positive excess, the largest first.
    """
    blocks, found, spent = [root], [], 0
    while blocks and spent < budget:
        singles = [block for block in blocks if len(block) == 1]
        found += [int(block[0]) for block in singles]
        parents = [block for block in blocks if len(block) > 1]
        if not parents:
            break
        halves = [half for block in parents for half in np.array_split(block, 2)]
        excess = test(halves, signs)
        spent += len(halves)
        if not (excess > 0).any():  # kinks, or errors that cancel: try other signs once
            signs = signs * np.where(rng.random(len(signs)) < 0.5, -1, 1)
            excess = test(halves, signs)
            spent += len(halves)
        order = np.argsort(-excess, kind="stable")
        blocks = [halves[i] for i in order[:width] if excess[i] > 0]
    return found
