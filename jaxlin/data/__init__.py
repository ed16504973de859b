"""Data: from a name or a path to arrays that have been checked, once, on the host.

>>> from jaxlin import data
>>> train, validation, test = data.load_splits("digits")
>>> train.inputs.dtype, train.inputs.shape, test.inputs.shape
(dtype('uint8'), (1442, 64), (355, 64))
>>> data.as_images(train.inputs, train.image_shape).shape
(1442, 8, 8)
"""

__all__ = [
    "NAMED",
    "Dataset",
    "Features",
    "Splits",
    "Unlabeled",
    "as_images",
    "conform",
    "fingerprint",
    "flatten_images",
    "load",
    "load_inputs",
    "load_splits",
    "open_features",
    "splits_of",
]

from jaxlin.data.conform import conform
from jaxlin.data.dataset import Dataset, Unlabeled, as_images, fingerprint, flatten_images
from jaxlin.data.features import Features, open_features
from jaxlin.data.named import NAMED
from jaxlin.data.registry import Splits, load, load_inputs, load_splits, splits_of
