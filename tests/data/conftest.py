"""Features in shards, and how a refusal of them must read."""

from itertools import pairwise

import numpy as np
import pytest
from safetensors.numpy import save_file

from jaxlin.core import DataError
from jaxlin.data import load


@pytest.fixture(scope="session")
def numbers():
    """A function that draws 100 rows of 7 features of a type."""

    def draw(dtype=np.float16):
        return np.random.default_rng(0).integers(0, 100, (100, 7)).astype(dtype)

    return draw


@pytest.fixture(scope="session")
def series():
    """A function that writes inputs as numbered shards, and their labels, into a folder."""

    def write(folder, inputs, *, name="train", count=4, ending="npy", labels=True):
        folder.mkdir(exist_ok=True)
        edges = np.linspace(0, len(inputs), count + 1).astype(int)
        for number, (low, high) in enumerate(pairwise(edges)):
            stem = folder / f"{name}-{number:05d}-of-{count:05d}"
            classes = np.arange(low, high) % 3
            if ending == "npy":
                np.save(f"{stem}.npy", inputs[low:high])
                if labels:
                    np.save(f"{stem}.labels.npy", classes)
            else:
                tensors = {"features": np.ascontiguousarray(inputs[low:high])}
                save_file(tensors | ({"labels": classes} if labels else {}), f"{stem}.safetensors")
        return folder

    return write


@pytest.fixture(scope="session")
def refused():
    """A function that loads bad data and matches the sentence that must come of it."""

    def load_and_match(path, match, **options):
        with pytest.raises(DataError, match=match) as caught:
            load(path, **options)
        assert "\n" not in str(caught.value)

    return load_and_match
