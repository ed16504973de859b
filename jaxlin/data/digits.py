"""The handwritten digits that come with scikit-learn: 1,797 grey pictures of 8 x 8 pixels.

They need no download and no file, so the first run works anywhere. Pixels are uint8 from 0 to 16,
as in the source. The set has no split of its own; here every fifth example of each class (its
5th, 10th, 15th, ... in the order of the file) is a test example: 1,442 to train, 355 to test, the
same for everybody, stratified by construction.

Source: E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine
Learning Repository (1998), the test part, as in `sklearn.datasets.load_digits`.
"""

__all__ = ["CLASS_NAMES", "load"]

import numpy as np

from jaxlin.data.dataset import Dataset
from jaxlin.data.validate import build

CLASS_NAMES = tuple("0123456789")


def load(split: str) -> Dataset:
    """The `"train"` or `"test"` part of the digits.

    >>> load("train").inputs.shape, load("test").inputs.shape
    ((1442, 64), (355, 64))
    """
    from sklearn.datasets import load_digits  # the import takes seconds: only when asked

    inputs, labels = load_digits(return_X_y=True)
    rows = np.flatnonzero(_is_test(labels) == (split == "test"))
    return build(
        inputs[rows].astype(np.uint8),
        labels[rows],
        class_names=CLASS_NAMES,
        image_shape=(8, 8),
        name="digits",
        file="digits",
        split=split,
        white=16,
    )


def _is_test(labels: np.ndarray) -> np.ndarray:
    is_test = np.zeros(len(labels), bool)
    for label in range(len(CLASS_NAMES)):
        is_test[np.flatnonzero(labels == label)[4::5]] = True
    return is_test
