"""What an image is to a computer, and the pipeline from images to labels.

Answers the lecture's "Image Classification Task" (L31, L58-L65) and the shapes of "Parameterized
mapping" (L77-L81).
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from jaxlin import preprocess, train
from jaxlin.core import Batch, LinearParams
from jaxlin.data import Dataset, as_images, flatten_images
from jaxlin.lecture import figures as draw
from jaxlin.lecture.nouns import (
    IN_SHAPE,
    REPRODUCED,
    Chapter,
    Claim,
    Formula,
    Lesson,
    Picture,
    judge,
)
from jaxlin.losses import softmax_cross_entropy
from jaxlin.objectives import compose
from jaxlin.probability import softmax
from jaxlin.scores import linear


def chapter(lesson: Lesson) -> Chapter:
    data, test = lesson.train, lesson.test
    examples, features = data.inputs.shape
    classes, shape = len(data.class_names), lesson.image_shape
    pictures = as_images(data.inputs[:500], shape)
    back, _ = flatten_images(pictures)
    row, probabilities, accuracy = _pipeline(data, test)
    picture = as_images(test.inputs[row], shape)
    figure = draw.picture_to_probabilities(
        picture, probabilities, test.class_names, answer=int(test.labels[row])
    )
    is_cifar = (examples, features, classes) == (50_000, 3072, 10)
    size = " × ".join(map(str, shape))
    return Chapter(
        "pixels",
        "Pixels, shapes and the pipeline",
        (
            "To a computer a picture is an array of integers; the task is to turn it into one "
            "label out of $K$. Nobody can write down the rule for a cat, so it is learned from "
            "$N$ labeled examples, and judged on pictures that it has never seen.",
            Formula(r"f : \reals^D \mapsto \reals^K"),
            Picture(
                "pixels",
                figure,
                f"A test picture of the class “{test.class_names[test.labels[row]]}” (green bar), "
                "the numbers in its middle, and the probabilities that a trained softmax "
                "classifier gives to the four likeliest labels.",
            ),
            Claim(
                *("L31", "A picture of 248 × 400 pixels in three colors has", "297,600 numbers"),
                f"{np.zeros((400, 248, 3), np.uint8).size:,}",
                judge(np.zeros((400, 248, 3), np.uint8).size == 297_600),
            ),
            Claim(
                *("L31", "Each number is an integer", "0 (black) to 255 (white)"),
                f"{data.inputs.dtype}, {data.inputs.min()} to {data.inputs.max()}",
                judge(
                    data.inputs.dtype == np.uint8,
                    REPRODUCED if data.inputs.max() == 255 else IN_SHAPE,
                ),
                "" if data.inputs.max() == 255 else "The embedded digits have 17 grey levels.",
            ),
            Claim(
                *("L77", "Training images $N$, features $D$, classes $K$"),
                "50,000; 32 × 32 × 3 = 3,072; 10",
                f"{examples:,}; {size} = {features:,}; {classes}",
                judge(features == np.prod(shape), REPRODUCED if is_cifar else IN_SHAPE),
                "" if is_cifar else f"The same shapes for {data.name}.",
            ),
            Claim(
                *("L81", "Shapes of $x$, $W$, $b$ and of the scores"),
                "[3072 × 1], [10 × 3072], [10 × 1], 10 numbers",
                f"[{features} × 1], [{classes} × {features}], [{classes} × 1], {classes} numbers",
                REPRODUCED if is_cifar else IN_SHAPE,
            ),
            Claim(
                *("L81", "All pixels flattened into one column, in one order", "a single column"),
                "channel after channel, each row by row; there and back equal",
                judge(np.array_equal(back, data.inputs[:500])),
                "The order is that of CIFAR-10's own files.",
            ),
            Claim(
                *("L58-L65", "Input, learning, evaluation: labels of new pictures match often"),
                "a lot",
                f"{100 * accuracy:.1f} % of {len(test.labels):,} test pictures "
                f"(guessing: {100 / classes:.0f} %)",
                judge(accuracy > 2 / classes),
                "One short run of minibatch descent on softmax.",
            ),
            Claim(
                *("L41", "The prediction can be a distribution over the labels", "a distribution"),
                f"sums to {probabilities.sum():.6f}, smallest {probabilities.min():.1e}",
                judge(abs(probabilities.sum() - 1) < 1e-5 and probabilities.min() > 0),
            ),
        ),
    )


def _pipeline(data: Dataset, test: Dataset) -> tuple[int, np.ndarray, float]:
    """Input, learning, evaluation. Returns a test row, its probabilities, and the accuracy."""
    prepared = preprocess.fit(data.inputs, "standardize")
    inputs = jnp.asarray(preprocess.apply(prepared, data.inputs[:20_000]))
    objective = functools.partial(compose(linear, softmax_cross_entropy), strength=1e-3)
    descent = train.trainer(objective, train.optimizer("sgd", 0.01))
    zeros = LinearParams(
        jnp.zeros((len(data.class_names), inputs.shape[1])), jnp.zeros(len(data.class_names))
    )
    batch = Batch(inputs, jnp.asarray(data.labels[:20_000]))
    fit = train.run(descent, zeros, batch, key=jax.random.key(0), steps=600, batch_size=256)
    scores = linear(fit.params, preprocess.apply(prepared, test.inputs))
    probabilities = np.asarray(softmax(scores), np.float64)
    right = probabilities.argmax(axis=1) == test.labels
    certain = probabilities[np.arange(len(test.labels)), test.labels]
    row = int(np.flatnonzero(right)[np.argmin(np.abs(certain[right] - 0.8))])
    return row, probabilities[row], float(right.mean())
