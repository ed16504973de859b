"""What `jaxlin landscape` can be asked for, and what of it cannot be meant."""

__all__ = ["Options", "check_options", "continues", "shape_of"]

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from jaxlin.runs.examples import PictureOptions, SourceOptions, refuse_given
from jaxlin.runs.output import OutputOptions
from jaxlin.runs.train_options import LossName
from jaxlin.runs.wording import check_seed


@dataclass(frozen=True, kw_only=True)
class Options(SourceOptions, PictureOptions, OutputOptions):
    """Draw the loss along rays and planes in parameter space.

    Around the weights of a run, or without one around random weights, as in the lecture. Writes
    landscape.npz, landscape.png, landscape.svg and an interactive landscape.html.
    """

    run: tyro.conf.Positional[Path | None] = None
    """A run folder: its weights are the point, its data, loss and strength the defaults."""
    data: str | None = None
    """digits, mnist, fashion-mnist, cifar10; or an .npz, a .npy, a .safetensors, a folder."""
    loss: LossName | None = None
    """The loss (without it: the run's, or hinge, the lecture's SVM)."""
    margin: float | None = None
    """The hinges' margin (without it: the run's, or 1)."""
    strength: float | None = None
    """Factor of the l2 term (without it: the run's, or 0)."""
    preprocess: Literal["none", "scale", "center", "standardize"] | None = None
    """Preprocessing of a point that is not a run's (without it: standardize)."""
    examples: int | None = None
    """Use only this many training examples, drawn by the seed."""
    kind: Literal["ray", "plane", "interpolate", "trajectory"] = "plane"
    """A line; a plane; the line from zero weights (or --start) to the run; or the plane of a
    training run's path."""
    start: Path | None = None
    """A second run folder, where --kind interpolate starts (without it: zero weights)."""
    directions: Literal["random", "uniform", "gradient", "hessian"] = "random"
    """Gaussian; uniform; the negative gradient (then a random one); or the Hessian's leading
    eigenvectors."""
    normalize: Literal["filter", "layer", "global", "none"] = "filter"
    """Give random directions the length of the weights: row by row, leaf by leaf, or as a whole."""
    points: str | None = None
    """Points of the grid: 51x51 for a plane, 41 for a line."""
    extent: float | None = None
    """Steps run from -extent to extent (without it: 1 around a run, 3 around random weights)."""
    exact: bool = False
    """Every kink, the slopes and the minimum of a hinge along a ray, without a grid."""
    surface: bool = False
    """Also draw the plane as a surface, surface.png."""
    seed: int = 0
    """Decides the random weights, directions and examples."""


def continues(options: Options) -> bool:
    """Whether --out holds a landscape that was begun: the file itself tells if it is the same."""
    return options.out is not None and (options.out / "landscape.npz").is_file()


def shape_of(options: Options) -> tuple[int, ...]:
    """The number of points on each axis."""
    line = options.kind in ("ray", "interpolate")
    text = options.points or ("41" if line else "51x51")
    match = re.fullmatch(r"(\d+)(?:x(\d+))?", text)
    if not match or (match[2] is None) != line:
        example = "41 for a line" if line else "51x51 for a plane"
        raise ValueError(f"--points {text} does not fit --kind {options.kind}. Give {example}.")
    shape = tuple(int(n) for n in match.groups() if n is not None)
    if min(shape) < 1:
        raise ValueError(f"--points {text} is an empty grid. Give at least 1 on each axis.")
    return shape


def check_options(options: Options) -> None:
    """Refuse what cannot be meant, in one sentence each."""
    if options.exact and options.kind not in ("ray", "interpolate"):
        raise ValueError(f"--exact is for a line, and --kind is {options.kind}. Add --kind ray.")
    for name in ("extent", "examples"):
        value = getattr(options, name)
        if value is not None and not 0 < value < float("inf"):
            raise ValueError(f"--{name} must be positive and finite, got {value}.")
    for name in ("strength", "margin"):
        value = getattr(options, name)
        if value is not None and not 0 <= value < float("inf"):
            raise ValueError(f"--{name} must be 0 or more and finite, got {value}.")
    check_seed("--seed", options.seed)
    if options.kind == "interpolate" and options.run is None:
        raise ValueError("--kind interpolate needs a run to go to. Give its folder.")
    if options.start is not None and options.kind != "interpolate":
        raise ValueError(
            f"--start is where a line to a run begins, and --kind is {options.kind}. Leave it out, "
            "or add --kind interpolate."
        )
    if options.kind in ("interpolate", "trajectory"):
        for name, usual in (("directions", "random"), ("normalize", "filter"), ("extent", None)):
            if getattr(options, name) != usual:
                raise ValueError(
                    f"--{name} is for a ray or a plane around a point, and --kind {options.kind} "
                    "lies where the path goes. Leave it out."
                )
    if options.surface and options.kind in ("ray", "interpolate"):
        raise ValueError(f"--surface is of a plane, and --kind {options.kind} is a line.")
    if options.run is not None and options.data is None:
        refuse_given(options, "and the run has its own data. Add --data, or leave it out.")
    if options.run is not None and options.preprocess is not None:
        raise ValueError("--preprocess is the run's own where a run is given. Leave it out.")
