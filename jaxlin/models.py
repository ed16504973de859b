"""A trained classifier: parameters, the preprocessing they expect, and what they are for.

A model is saved as safetensors (no code can hide in it) with its description in the metadata.
"""

__all__ = ["FORMAT_VERSION", "Model", "load", "save", "score_function", "scores"]

import json
import struct
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxlin._dtypes import accumulator
from jaxlin.core import DataError, LinearParams, RowSource
from jaxlin.data.pixels import PixelRange
from jaxlin.precision import jit, product
from jaxlin.prefetch import prefetch
from jaxlin.preprocess import Preprocessing, apply, fold
from jaxlin.scores import linear

FORMAT_VERSION = 2
READ_VERSIONS = ("1", "2")
"""Version 1 lacks the range of the pixels."""


class Model(NamedTuple):
    """All that is needed to classify, and nothing of the training data.

    >>> plain = Preprocessing("none", np.zeros(2), np.ones(2))
    >>> model = Model(LinearParams(np.eye(2), np.zeros(2)), plain, ("cat", "dog"), None, "softmax")
    >>> model.expects  # 2 features, which are no pictures
    (2, None, None)
    """

    params: LinearParams
    preprocessing: Preprocessing
    class_names: tuple[str, ...]
    image_shape: tuple[int, ...] | None
    loss: str
    """The name of the loss it was trained with, as on the command line."""
    pixels: PixelRange | None = None
    """The range of the numbers it was fitted on; `None` in files that do not tell it."""

    @property
    def expects(self) -> tuple[int, tuple[int, ...] | None, PixelRange | None]:
        """What inputs must be like: the arguments of `jaxlin.data.conform` after the data."""
        return self.params.weights.shape[1], self.image_shape, self.pixels


def score_function(preprocessing: Preprocessing, *, precision: str = "highest") -> Callable:
    """`score(params, inputs)` on raw inputs: the linear scores of the preprocessed inputs.

    Integer inputs (pixels) are never expanded into a preprocessed copy: shift and scale are
    folded into the parameters, which costs K * D instead of N * D operations a batch and has the
    same gradient. Floating inputs are shifted first, because a mean that is large against the
    spread would cancel digits. `precision` is that of the product, see `jaxlin.precision`.

    >>> score = score_function(Preprocessing("center", np.ones(2), np.ones(2)))
    >>> score(LinearParams(jnp.eye(2), jnp.zeros(2)), jnp.array([[1.0, 3.0]])).tolist()
    [[0.0, 2.0]]
    """

    def score(params: LinearParams, inputs: ArrayLike) -> jax.Array:
        inputs = jnp.asarray(inputs)
        if jnp.issubdtype(inputs.dtype, jnp.integer):
            params = fold(preprocessing, params)
        else:
            inputs = apply(preprocessing, inputs).astype(params.weights.dtype)
        if precision == "highest":
            return linear(params, inputs)
        products = product(inputs, params.weights, precision)
        return products + jnp.broadcast_to(params.bias, products.shape)

    return score


def scores(model: Model, inputs: RowSource, *, rows: int = 4096) -> np.ndarray:
    """Scores (N, K) of raw inputs (N, D), in blocks of `rows`.

    The last block is filled up with zeros, so that a row's scores do not depend on how many
    other rows there are.

    Raises:
      DataError: `inputs` have another number of features than the model.

    >>> plain = Preprocessing("none", np.zeros(2), np.ones(2))
    >>> model = Model(LinearParams(np.eye(2), np.zeros(2)), plain, ("cat", "dog"), None, "softmax")
    >>> scores(model, np.array([[1.0, 3.0]])).tolist()
    [[1.0, 3.0]]
    """
    features = model.params.weights.shape[1]
    if inputs.ndim != 2 or inputs.shape[1] != features:
        raise DataError(
            f"The inputs have shape {inputs.shape}, and the model wants {features} features an "
            "example. Evaluate it on data of the shape it was trained on."
        )
    dtype = accumulator(np.asarray(model.params.bias).dtype)
    out = np.empty((len(inputs), len(model.params.bias)), dtype)
    starts = range(0, len(inputs), rows)
    ahead = map if isinstance(inputs, np.ndarray) else prefetch
    for start, block in ahead(lambda i: (i, np.asarray(inputs[i : i + rows])), starts):
        filled = np.zeros((rows, features), block.dtype)
        filled[: len(block)] = block
        out[start : start + rows] = _block_scores(model.params, model.preprocessing, filled)[
            : len(block)
        ]
    return out


def _block_scores(
    params: LinearParams, preprocessing: Preprocessing, block: np.ndarray
) -> np.ndarray:
    arrays = (jnp.asarray(preprocessing.shift), jnp.asarray(preprocessing.scale))
    return np.asarray(_jitted_scores(preprocessing.kind, params, arrays, block))


@partial(jit, static_argnums=0)
def _jitted_scores(
    kind: str, params: LinearParams, arrays: tuple[jax.Array, jax.Array], block: jax.Array
) -> jax.Array:
    return score_function(Preprocessing(kind, *arrays))(params, block)


def save(path: Path, model: Model) -> None:
    """Write `model` as safetensors, and read it back to see that it is what was meant.

    >>> import tempfile
    >>> plain = Preprocessing("none", np.zeros(2), np.ones(2))
    >>> model = Model(LinearParams(np.eye(2), np.zeros(2)), plain, ("cat", "dog"), None, "softmax")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save(Path(folder) / "model.safetensors", model)
    ...     load(Path(folder) / "model.safetensors").class_names
    ('cat', 'dog')
    """
    from safetensors.numpy import save as to_bytes

    parts = {
        "weights": model.params.weights,
        "bias": model.params.bias,
        "shift": model.preprocessing.shift,
        "scale": model.preprocessing.scale,
    }
    # safetensors writes the buffer of a strided array as it lies: garbage, without an error.
    tensors = {name: np.ascontiguousarray(np.asarray(value)) for name, value in parts.items()}
    metadata = {
        "format": "jaxlin",
        "format_version": str(FORMAT_VERSION),
        "classes": json.dumps(list(model.class_names)),
        "preprocessing": model.preprocessing.kind,
        "image_shape": json.dumps(None if model.image_shape is None else list(model.image_shape)),
        "loss": model.loss,
        "pixels": json.dumps(None if model.pixels is None else model.pixels._asdict()),
    }
    part = Path(path).with_name(Path(path).name + ".part")
    part.write_bytes(_sorted_header(to_bytes(tensors, metadata=metadata)))
    again, _ = _read(part)
    if any(not np.array_equal(again[name], tensors[name]) for name in tensors):
        raise OSError(f"{path}: what was written differs from the model. Is the disk sound?")
    part.replace(path)


def _sorted_header(content: bytes) -> bytes:
    """The same file with its header's keys in order: equal models give equal bytes."""
    size = struct.unpack("<Q", content[:8])[0]
    header = json.dumps(json.loads(content[8 : 8 + size]), sort_keys=True, separators=(",", ":"))
    padded = header.encode().ljust(-(-len(header.encode()) // 8) * 8)
    return struct.pack("<Q", len(padded)) + padded + content[8 + size :]


def load(path: Path) -> Model:
    """Read a model that `save` wrote.

    Raises:
      DataError: not such a file, or of a newer format, or its parts do not fit together.

    >>> load("missing.safetensors")
    Traceback (most recent call last):
    jaxlin.core.DataError: missing.safetensors: there is no such model file...
    """
    path = Path(path)
    tensors, metadata = _read(path)
    if metadata.get("format") != "jaxlin":
        raise DataError(
            f"{path}: not a jaxlin model (its metadata has no `format: jaxlin`). Give a "
            "`model.safetensors` that `jaxlin train` wrote."
        )
    written = metadata.get("format_version", "")
    if written not in READ_VERSIONS:
        raise DataError(
            f"{path}: has format version {written!r}, and this jaxlin reads versions up to "
            f"{FORMAT_VERSION}. Use the jaxlin that wrote it, or train again."
        )
    try:
        classes = tuple(map(str, json.loads(metadata["classes"])))
        shape = json.loads(metadata["image_shape"])
        weights, bias = tensors["weights"], tensors["bias"]
        shift, scale = tensors["shift"], tensors["scale"]
        sizes = (len(classes), shift.shape[0])
        fits = weights.shape == sizes and bias.shape == sizes[:1] and scale.shape == shift.shape
        finite = all(np.isfinite(tensors[name]).all() for name in ("weights", "bias", "scale"))
        loss, kind = metadata["loss"], metadata["preprocessing"]
        pixels = json.loads(metadata.get("pixels", "null"))
        pixels = None if pixels is None else PixelRange(**pixels)
    except (KeyError, TypeError, IndexError, json.JSONDecodeError) as error:
        raise DataError(f"{path}: is incomplete ({error}). Train again.") from None
    if not fits or not finite:
        raise DataError(
            f"{path}: weights {weights.shape}, bias {bias.shape}, {len(classes)} classes and "
            f"{shift.shape[0]} features do not fit together, or are not finite. Train again."
        )
    return Model(
        LinearParams(weights, bias),
        Preprocessing(kind, shift, scale),
        classes,
        None if shape is None else tuple(map(int, shape)),
        loss,
        pixels,
    )


def _read(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """Tensors and metadata; every way in which the file can be broken is a `DataError`."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise DataError(f"{path}: there is no such model file. Train one with `jaxlin train`.")
    try:
        with path.open("rb") as file:
            size = struct.unpack("<Q", file.read(8))[0]
        if size > min(path.stat().st_size, 100_000_000):
            raise DataError(f"{path}: not a safetensors file (its header lies). Train again.")
        with safe_open(path, framework="numpy") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, struct.error, OSError) as error:
        raise DataError(
            f"{path}: not a readable safetensors file ({error}). Train again."
        ) from None
