"""Three ways to see a linear classifier: weighted colors, lines in pixel space, templates.

Answers the lecture's "Interpreting a linear classifier" (L95-L122).
"""

from collections.abc import Iterable, Sequence

import jax.numpy as jnp
import numpy as np
from scipy.sparse.linalg import svds

from jaxlin import preprocess
from jaxlin.core import LinearParams
from jaxlin.data import Dataset, as_images
from jaxlin.lecture import figures as draw
from jaxlin.lecture.nouns import NEEDS_DATA, Chapter, Claim, Lesson, Picture, judge
from jaxlin.scores import linear
from jaxlin.solvers import minimize

STRENGTH, EXAMPLES = 0.02, 20_000
LECTURE_NAMES = ("plane", "car", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def chapter(lesson: Lesson) -> Chapter:
    train, test = lesson.train, lesson.test
    center = preprocess.fit(train.inputs, "center")
    scale = np.full(train.inputs.shape[1], 2.0 / train.inputs.max())
    prepared = preprocess.Preprocessing("center", center.shift, scale)
    fit = minimize(
        train.inputs[:EXAMPLES],
        train.labels[:EXAMPLES],
        strength=STRENGTH,
        tolerance=1e-2,
        preprocessing=prepared,
        classes=len(train.class_names),
    )
    params = LinearParams(*map(jnp.asarray, fit.params))
    inputs = np.asarray(preprocess.apply(prepared, test.inputs))
    scores = np.asarray(linear(params, inputs))
    accuracy = float((scores.argmax(axis=1) == test.labels).mean())
    is_cifar = train.inputs.shape[1] == 3072 and len(train.class_names) == 10
    names = LECTURE_NAMES if is_cifar else train.class_names
    weights = np.asarray(params.weights)
    templates = as_images(weights, lesson.image_shape)
    low, high = weights.min(), weights.max()
    return Chapter(
        "interpretations",
        "Interpreting a linear classifier",
        (
            "*Weighted colors.* Every weight likes or dislikes one color at one place.",
            *_colors(templates, names, is_cifar),
            "*Points and lines.* Pictures are points; where a class scores 0 is a line (a "
            "hyperplane), and the arrow across it is its row of $W$.",
            *_lines(train, prepared),
            "*Templates.* Every row of $W$ is itself a picture, and a score is how well the "
            "picture matches it.",
            Picture(
                "templates",
                draw.row_of_pictures(
                    [draw.to_pixels(t, low=low, high=high) for t in templates], names
                ),
                f"The {len(names)} templates of a softmax classifier (test accuracy "
                f"{100 * accuracy:.1f} %, strength {STRENGTH}). One rule for all: the least of "
                "all weights is 0, the largest 255.",
            ),
            *_templates(params, inputs, scores, templates, names, is_cifar),
        ),
    )


def _colors(
    templates: np.ndarray, names: Sequence[str], is_cifar: bool
) -> tuple[Picture | Claim, ...]:
    """L95-L102: which colors the ship classifier likes."""
    if not is_cifar:
        why = "Grey pictures have no colors: run with --data cifar10."
        text = "The ship classifier: positive weights on blue, negative on red and green"
        return (Claim("L95-L102", text, "expected", "—", NEEDS_DATA, why),)
    ship = templates[names.index("ship")]
    channels = dict(zip(("red", "green", "blue"), np.moveaxis(ship, -1, 0), strict=True))
    sides = np.concatenate([ship[:, :8], ship[:, -8:]], axis=1).mean(axis=(0, 1))
    means = {name: float(values.mean()) for name, values in channels.items()}
    return (
        Picture(
            "ship_colors",
            draw.channel_weights(channels, title="weights of the ship classifier"),
            "The ship's row of $W$, a picture a channel: blue weights are positive, red negative.",
        ),
        Claim(
            *("L95-L102", "The ship classifier: positive on blue, negative on red and green"),
            "expected",
            f"mean weight {_channels(means.values())}; at the sides {_channels(sides)}",
            judge(means["blue"] > 0 > max(means["red"], means["green"]) and sides.argmax() == 2),
            "Green is close to 0: the sea is not only blue.",
        ),
    )


def _lines(train: Dataset, prepared: preprocess.Preprocessing) -> tuple[Picture | Claim, ...]:
    """L104-L112: three classes in the plane of two principal components, a real fit."""
    wanted = ("automobile", "airplane", "deer")
    chosen = [train.class_names.index(n) for n in wanted if n in train.class_names] or [0, 1, 4]
    rows = np.flatnonzero(np.isin(train.labels, chosen))[:3000]
    pixels = np.asarray(preprocess.apply(prepared, train.inputs[rows]), np.float64)
    _, _, axes = svds(pixels - pixels.mean(axis=0), k=2, random_state=0)
    points = pixels @ axes[::-1].T
    labels = np.searchsorted(np.sort(chosen), train.labels[rows])
    names = [train.class_names[k] for k in sorted(chosen)]
    strength = 0.05 * float(points.var())  # enough that every line runs through the cloud
    fit = minimize(points, labels, strength=strength, tolerance=1e-3, classes=3)
    weights, bias = (np.asarray(part, np.float64) for part in fit.params)
    slopes, turned, moved = _geometry(weights[0], bias[0])
    picture = Picture(
        "pixel_space",
        draw.zero_lines(
            *(points, labels, weights, bias, names),
            x="first principal component",
            y="second principal component",
        ),
        f"{len(rows):,} pictures of three classes, squashed onto their two principal components; "
        "for each class the line where it scores 0 and the arrow towards higher scores, from a "
        "softmax classifier fitted to these points.",
    )
    text = "Along the arrow the score grows linearly, positive on its side"
    return (
        picture,
        Claim(
            *("L106-L110", text, "linearly increasing"),
            f"steps of one length add {slopes.mean():.4g} each, to {np.ptp(slopes):.0e}",
            judge(np.ptp(slopes) < 1e-9 and slopes.min() > 0),
        ),
        Claim(
            *("L112", "Changing a row of $W$ rotates its line; changing $b$ translates it"),
            "rotate, translate",
            f"the row turned by 30°: the line by {turned:.6f}°; bias + 1: the line moved by "
            f"{moved:.6f} / |w|",
            judge(abs(turned - 30) < 1e-9 and abs(moved - 1) < 1e-9),
        ),
    )


def _geometry(row: np.ndarray, bias: float) -> tuple[np.ndarray, float, float]:
    """Score steps along the arrow; the line's angle for a turned row; its shift for bias + 1."""
    length = np.linalg.norm(row)
    foot = -bias * row / length**2
    walk = foot + np.arange(1, 6)[:, None] * row / length
    slopes = np.diff(walk @ row + bias, prepend=0.0)
    angle = np.radians(30)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    along, along_turned = ([-r[1], r[0]] for r in (row, turn @ row))
    cosine = np.dot(along, along_turned) / length**2
    shifted = -(bias + 1) * row / length**2
    return (
        slopes,
        float(np.degrees(np.arccos(cosine))),
        float(np.linalg.norm(shifted - foot) * length),
    )


def _templates(
    params: LinearParams,
    inputs: np.ndarray,
    scores: np.ndarray,
    templates: np.ndarray,
    names: Sequence[str],
    is_cifar: bool,
) -> list[Claim]:
    """L114-L122: inner products, one picture a class, and what the templates show."""
    weights, bias = map(np.asarray, params)
    with_one = np.concatenate([inputs, np.ones((len(inputs), 1))], axis=1)
    matrix = np.concatenate([weights, bias[:, None]], axis=1)
    distances = np.stack([-(with_one @ row) for row in matrix], axis=1)
    agree = float((distances.argmin(axis=1) == scores.argmax(axis=1)).mean())
    claims = [
        Claim(
            *("L114", "Nearest neighbor with one picture a class and the negative inner product"),
            "effectively the same",
            f"{100 * agree:.1f} % of {len(inputs):,} test pictures get the same label",
            judge(agree > 0.999),
            "With the bias trick, so that the template includes the bias.",
        )
    ]
    if not is_cifar:
        text = "The ship template is blue, the horse has two heads, the car is red"
        why = "Needs color photographs: run with --data cifar10."
        return [*claims, Claim("L118-L122", text, "a figure", "—", NEEDS_DATA, why)]
    tint = {n: t.mean(axis=(0, 1)) - t.mean() for n, t in zip(names, templates, strict=True)}
    heads = {n: _mirror(t) for n, t in zip(names, templates, strict=True)}
    rank = sorted(heads, key=heads.__getitem__, reverse=True).index("horse") + 1
    body = templates[names.index("car")][14:24, 4:28].mean(axis=(0, 1))
    return [
        *claims,
        Claim(
            *("L118", "Ten templates in a row", "plane … truck"),
            ", ".join(names),
            judge(len(templates) == 10),
        ),
        Claim(
            *("L118", "The ship template contains a lot of blue", "a lot of blue"),
            _channels(tint["ship"]),
            judge(tint["ship"].argmax() == 2),
            "Mean weight of each channel, relative to the template's mean.",
        ),
        Claim(
            *("L120", "The horse template has two heads: left- and right-facing modes merged"),
            "two-headed",
            f"correlation with its mirror image {heads['horse']:.2f}, rank {rank} of 10",
            judge(heads["horse"] > 0.5),
            "A template that merges both directions is close to its own mirror image.",
        ),
        Claim(
            *("L120-L122", "The car template ended up red", "red"),
            f"in the lower middle, where the body is, {_channels(body)}",
            judge(body.argmax() == 0 and body[0] > 0),
            "Rows 14 to 23: above them is the windscreen, which is blue.",
        ),
    ]


def _channels(values: Iterable[float]) -> str:
    pairs = zip(("red", "green", "blue"), values, strict=True)
    return ", ".join(f"{name} {value:+.2g}" for name, value in pairs).replace("-", "−")


def _mirror(template: np.ndarray) -> float:
    """Correlation of a template with itself, left and right exchanged."""
    return float(np.corrcoef(template.ravel(), template[:, ::-1].ravel())[0, 1])
