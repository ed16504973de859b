import numpy as np
import pytest

from jaxlin import preprocess
from jaxlin.core import Batch


@pytest.fixture(scope="session")
def digits_of():
    """(training, validation) sizes -> two disjoint parts of digits, and the first's statistics."""
    from jaxlin.data import load

    data = load("digits")
    order = np.random.default_rng(0).permutation(len(data.labels))

    def parts(training, validation):
        rows = order[:training], order[training : training + validation]
        batches = [Batch(data.inputs[r], data.labels[r].astype(np.int32)) for r in rows]
        return (*batches, preprocess.fit(batches[0].inputs, "standardize"))

    return parts
