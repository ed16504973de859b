"""Measure a trained classifier on data with labels."""

__all__ = ["Options", "run"]

from dataclasses import dataclass
from pathlib import Path

import tyro


@dataclass(frozen=True, kw_only=True)
class Options:
    """Measure a trained classifier on data with labels.

    Without --data: on the test set that the run was trained beside. A named set is measured on
    its test part, a file or a folder on all its rows (of a folder or an archive that has a test
    part, on that).
    """

    run: tyro.conf.Positional[Path]
    """The run folder."""
    data: str | None = None
    """digits, mnist, fashion-mnist, cifar10; or an .npz, features in a .npy or .safetensors, a
    folder of pictures or of features."""
    data_dir: Path | None = None
    """The folder that holds the files of a named data set."""
    labels: Path | None = None
    """The labels of features (without it: those beside them, say `labels.npy`)."""
    json: bool = False
    """Print one JSON object on stdout."""


def run(options: Options) -> int:
    """Print accuracy and loss of a run on a data set."""
    from jaxlin import losses, models
    from jaxlin.cli.measuring import measure
    from jaxlin.cli.output import emit
    from jaxlin.cli.runs import load_run

    model, config = load_run(options.run)
    data = _data(options, model, config)
    scores = models.scores(model, data.inputs)
    loss = losses.named(model.loss, margin=config.get("margin", 1.0))
    measured = {"run": str(options.run), "data": data.name} | measure(model, data, loss, scores)
    if options.json:
        emit(measured)
        return 0
    low, high = measured["accuracy_interval"]
    print(f"{data.name}: {measured['n']:,} examples")
    print(f"accuracy    {measured['accuracy']:.4f}  (95 % interval {low:.4f} to {high:.4f})")
    print(f"loss        {measured['loss']:.4f}  ({model.loss})")
    for name, share in measured["per_class"].items():
        print(f"  {name:<18} {'no examples' if share is None else f'{share:.4f}'}")
    return 0


def _data(options: Options, model, config: dict):
    """The examples to measure on, checked against the model."""
    from jaxlin.cli.runs import run_data
    from jaxlin.core import DataError
    from jaxlin.data import NAMED, load, load_splits

    if options.data is None:
        moved = {
            key: str(value)
            for key in ("data_dir", "labels")
            if (value := getattr(options, key)) is not None
        }
        _, data = run_data(config | moved)
        if data is None:
            raise DataError(
                f"{options.run}: was trained without a test set. Say what to measure on: --data."
            )
    else:
        choice = {
            "data_dir": options.data_dir,
            "labels": options.labels,
            "image_size": None if model.image_shape is None else model.image_shape[:2],
            "class_names": model.class_names,
        }
        if options.data not in NAMED and Path(options.data).is_file():
            data = load(options.data, **choice)
        else:
            train, test = load_splits(options.data, **choice)
            data = train if test is None else test
    features = model.params.weights.shape[1]
    if data.inputs.shape[1] != features:
        raise DataError(
            f"{data.name}: has {data.inputs.shape[1]} features an example, and the model wants "
            f"{features}. Evaluate it on data of the shape it was trained on."
        )
    if data.class_names != model.class_names:
        raise DataError(
            f"{data.name}: has the classes {', '.join(data.class_names[:10])}, and the model "
            f"{', '.join(model.class_names[:10])}. Evaluate it on data with its classes."
        )
    return data
