"""Run folders: their predictions, pictures and page, and reading them back."""

__all__ = [
    "load_run",
    "loss_values",
    "probabilities",
    "read_records",
    "say_reading",
    "trained_on",
    "write_pictures",
    "write_predictions",
]

import csv
import io
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from jaxlin import losses, models
from jaxlin.core import DataError
from jaxlin.data import Dataset, as_images
from jaxlin.data.telling import reading_lines
from jaxlin.metrics import predicted_classes
from jaxlin.models import Model
from jaxlin.precision import jit
from jaxlin.runs.output import say, write_text

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def load_run(folder: Path) -> tuple[models.Model, dict]:
    """The model and the configuration of a run folder.

    Raises:
      DataError: not a run folder, or one of its files is broken.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"{folder}: there is no such run folder. Train one with `jaxlin train`.")
    model = models.load(folder / "model.safetensors")
    return model, read_json(folder / "config.json")


def trained_on(folder: Path) -> str | None:
    """The fingerprint of the rows that a run was trained on, validation rows among them."""
    for name in ("results.json", "sweep.json"):
        if (folder / name).is_file():
            return read_json(folder / name).get("data", {}).get("fingerprint")
    return None


def say_reading(parts: list, model: models.Model, *, quiet: bool = False) -> None:
    """What was noted while data for a model were read, and what its file lacks; on stderr."""
    for line in reading_lines(parts):
        say(line, quiet=quiet)
    if model.pixels is None:
        say(
            "note        the model does not tell the range of the pixels it was trained on (it is "
            "of an older version): inputs are taken as they are. Train again to have them checked.",
            quiet=quiet,
        )


def read_json(path: Path) -> dict:
    """The JSON object in a run's file, or a sentence."""
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise DataError(f"{path}: is missing, so this is no complete run folder.") from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DataError(f"{path}: not a JSON file ({error}). Train again.") from None
    if not isinstance(value, dict):
        raise DataError(f"{path}: expected a JSON object, got {type(value).__name__}.")
    return value


def read_records(path: Path) -> list[dict]:
    """The records of a `metrics.jsonl`; a torn last line, from a killed run, is left out."""
    records = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return records


def probabilities(scores: np.ndarray) -> np.ndarray:
    """Softmax of scores (N, K) in float64, on the host."""
    shifted = scores.astype(np.float64) - scores.max(axis=1, keepdims=True)
    exponentials = np.exp(shifted)
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def loss_values(loss: Callable[..., Any], scores: Any, labels: Any) -> np.ndarray:
    """Of each row, (N,)."""
    return np.asarray(_loss_compiled(jnp.asarray(scores), jnp.asarray(labels, np.int32), loss=loss))


@partial(jit, static_argnames="loss")
def _loss_compiled(scores: jax.Array, labels: jax.Array, *, loss: Callable[..., Any]) -> jax.Array:
    return loss(scores, labels)


def safe_cell(text: str) -> str:
    """Text that a spreadsheet will not run as a formula."""
    return f"'{text}" if text.startswith(_FORMULA) else text


def write_predictions(
    path: Path, model: Model, data: Dataset, scores: np.ndarray, *, split: str
) -> None:
    """`predictions.csv`: row, true and predicted class, and the winner's probability or score.

    A row with a score that is not a number has no predicted class: the cell is empty.
    """
    confidence = probabilities(scores) if model.loss == "softmax" else scores
    column = "probability" if model.loss == "softmax" else "score"
    predicted = predicted_classes(scores)
    best = np.take_along_axis(confidence, scores.argmax(axis=1)[:, None], axis=1)[:, 0]
    best = np.where(predicted < 0, np.nan, best)
    names = [*(safe_cell(name) for name in model.class_names), ""]  # the last one is number -1
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["split", "row", "label", "predicted", column])
        writer.writerows(
            [split, row, names[label], names[guess], f"{value:.6g}"]
            for row, (label, guess, value) in enumerate(
                zip(data.labels, predicted, best, strict=True)
            )
        )


def write_pictures(
    out: Path,
    model: Model,
    data: Dataset,
    scores: np.ndarray,
    *,
    split: str,
    results: dict,
    config: dict,
) -> None:
    """`curves.png`, `templates.png`, `confusion.png` and `report.html` of a run folder."""
    from jaxlin.plots import training as plots
    from jaxlin.plots.style import save
    from jaxlin.report.training import training_page

    records = read_records(out / "metrics.jsonl")
    names = model.class_names
    solved = bool(records) and "lower_bound" in records[0]
    save((plots.bounds if solved else plots.curves)(records), out / "curves.png")
    templates = confusion = None
    if model.image_shape is not None and len(names) <= 100:
        pictures = as_images(np.asarray(model.params.weights), model.image_shape)
        templates = plots.templates(pictures, names)
        save(templates, out / "templates.png")
    matrix = results[split].get("confusion")
    if matrix is not None and len(names) <= 100:
        accuracy = results[split]["accuracy"]
        title = f"{100 * accuracy:.1f} % of {results[split]['n']:,} {split} examples are right"
        confusion = plots.confusion(np.array(matrix), names, title=title)
        save(confusion, out / "confusion.png")
    page = training_page(
        results=results,
        config=config,
        environment=read_json(out / "env.json"),
        records=records,
        templates=templates,
        confusion=confusion,
        mistakes=worst_mistakes(model, data, scores, config),
        split=split,
    )
    write_text(out / "report.html", page)


def worst_mistakes(
    model: Model, data: Dataset, scores: np.ndarray, config: dict, *, count: int = 24
) -> list[Any]:
    """The `count` examples of highest loss among those that are given a wrong class."""
    from jaxlin.report.training import Mistake

    loss = losses.named(config["loss"], margin=config["margin"])
    values = loss_values(loss, scores, data.labels)
    guesses = predicted_classes(scores)
    wrong = np.flatnonzero((guesses != data.labels) & (guesses >= 0))
    worst = wrong[np.argsort(-values[wrong], kind="stable")][:count]
    shares = probabilities(scores[worst]) if len(worst) else np.zeros((0, scores.shape[1]))
    return [
        Mistake(
            int(row),
            model.class_names[data.labels[row]],
            model.class_names[guesses[row]],
            f"probability {share[guesses[row]]:.2f}"
            if model.loss == "softmax"
            else f"score {scores[row, guesses[row]]:.2f}",
            picture_png(data, row),
        )
        for row, share in zip(worst, shares, strict=True)
    ]


def picture_png(data: Dataset, row: int) -> bytes | None:
    """One example as a PNG; pixels that are not 0..255 are stretched to that range."""
    if data.image_shape is None:
        return None
    pixels = np.asarray(as_images(data.inputs[row], data.image_shape), np.float64)
    low, high = (0, 255) if data.inputs.max() > 16 else (0, 16)
    if data.inputs.dtype != np.uint8:
        low, high = pixels.min(), max(pixels.max(), pixels.min() + 1e-12)
    grey = np.clip((pixels - low) / (high - low) * 255, 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(grey).save(buffer, format="PNG")
    return buffer.getvalue()
