"""Reading ahead: order, overlap, no more pieces than promised, and errors where they belong."""

import gc
import threading
import weakref

import numpy as np
import pytest

from jaxlin.prefetch import prefetch


def test_pieces_come_in_order():
    assert list(prefetch(lambda n: n * n, range(10))) == [n * n for n in range(10)]
    assert list(prefetch(lambda n: n, [])) == []


def test_the_next_piece_is_read_while_the_caller_works():
    read = [threading.Event() for _ in range(4)]

    def reader(number):
        read[number].set()
        return number

    pieces = prefetch(reader, range(4))
    for number in range(3):
        assert next(pieces) == number
        assert read[number + 1].wait(5)  # without anybody asking for it
    pieces.close()


def test_no_more_than_two_pieces_exist():
    alive = weakref.WeakSet()

    class Piece:
        def __init__(self, number):
            alive.add(self)
            most.append(len(alive))

    most = []
    for piece in prefetch(Piece, range(20)):
        del piece
        gc.collect()
    assert max(most) <= 2


def test_an_error_is_raised_where_its_piece_is_asked_for():
    def reader(number):
        if number == 2:
            raise ValueError("two")
        return number

    pieces = prefetch(reader, range(5))
    assert [next(pieces), next(pieces)] == [0, 1]
    with pytest.raises(ValueError, match="two"):
        next(pieces)


def test_closing_stops_the_reading():
    asked, before = [], set(threading.enumerate())
    pieces = prefetch(lambda n: asked.append(n) or n, range(1000))
    next(pieces)
    pieces.close()
    assert len(asked) <= 2
    new = set(threading.enumerate()) - before
    assert not [thread for thread in new if thread.name.startswith("jaxlin-prefetch")]


def test_arrays_pass_through_untouched():
    arrays = [np.arange(3), np.arange(4)]
    for got, own in zip(prefetch(lambda i: arrays[i], range(2)), arrays, strict=True):
        assert got is own
