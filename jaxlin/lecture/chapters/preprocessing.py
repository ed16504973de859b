"""Preprocessing: the mean image, centering, scaling.

Answers the lecture's "Image data preprocessing" (L139).
"""

import numpy as np

from jaxlin import preprocess
from jaxlin.data import as_images
from jaxlin.lecture import figures as draw
from jaxlin.lecture.measuring import in_float64, largest_eigenvalue
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


@in_float64
def chapter(lesson: Lesson) -> Chapter:
    train, test = lesson.train, lesson.test
    rows = min(5_000, len(train.labels))
    center = preprocess.fit(train.inputs, "center")
    centered = np.asarray(preprocess.apply(center, train.inputs[:rows]))
    scaling = preprocess.fit(train.inputs, "scale")
    scaled = np.asarray(preprocess.apply(scaling, train.inputs[:rows]))
    both = preprocess.fit(train.inputs[:rows] - center.shift, "scale")
    centered_then_scaled = np.asarray(preprocess.apply(both, centered))
    test_mean = test.inputs.mean(axis=0, dtype=np.float64)
    leak = float(np.abs(center.shift - test_mean).max())
    off = float(np.abs(centered.mean(axis=0)).max()) if rows == len(train.labels) else None
    whole = center.shift - train.inputs.mean(axis=0, dtype=np.float64)
    raw_top = largest_eigenvalue(train.inputs[:rows])
    centered_top = largest_eigenvalue(centered)
    is_bytes = train.inputs.max() == 255
    low, high = centered.min(), centered.max()
    pictures, names = _pictures(lesson, center, centered)
    return Chapter(
        "preprocessing",
        "Preprocessing",
        (
            "Center the data: subtract the mean image of the training pictures from every picture, "
            "test pictures too. Then, if wished, scale every feature to [−1, 1].",
            Formula(r"\mu = \frac{1}{N} \sum_i x_i, \quad x \to x - \mu"),
            Picture(
                "preprocessing",
                draw.row_of_pictures(pictures, names),
                "The mean image of the training pictures, and three of them before and after "
                "subtracting it.",
            ),
            Claim(
                *("L139", "Raw pixels", "0 … 255"),
                f"{train.inputs.min()} … {train.inputs.max()}",
                REPRODUCED if is_bytes else IN_SHAPE,
            ),
            Claim(
                *("L139", "After subtracting the mean image", "about −127 … 127"),
                f"{low:.0f} … {high:.0f}; 98 % within "
                f"{np.percentile(centered, 1):.0f} … {np.percentile(centered, 99):.0f}",
                judge(low < 0 < high, REPRODUCED if is_bytes else IN_SHAPE),
                "Approximately: pixels whose mean is off the middle reach further on one side.",
            ),
            Claim(
                *("L139", "The mean image is computed across the training images", "training only"),
                f"off by {np.abs(whole).max():.0e} from the training mean, "
                f"by up to {leak:.2g} grey levels from the test mean",
                judge(np.abs(whole).max() < 1e-9 < leak),
                "Statistics of test pictures would leak into the classifier."
                + ("" if off is None else f" Centered features average to {off:.0e}."),
            ),
            Claim(
                *("L139", "Scaled features", "−1 … 1"),
                f"{scaled.min():g} … {scaled.max():g}; centered first, then scaled "
                f"{centered_then_scaled.min():.2f} … {centered_then_scaled.max():.2f}",
                judge(scaled.min() >= -1 and scaled.max() <= 1),
                "" if scaled.max() > 0.99 else "Bytes are scaled by 255; these go to 16 only.",
            ),
            Claim(
                *("L139", "Centering is the more important: descent can take larger steps"),
                "justified later",
                f"the largest stable step grows {raw_top / centered_top:.1f} times",
                judge(raw_top > centered_top),
                "The largest eigenvalue of the second-moment matrix bounds it.",
            ),
        ),
    )


def _pictures(
    lesson: Lesson, center: preprocess.Preprocessing, centered: np.ndarray
) -> tuple[list[np.ndarray], list[str]]:
    train = lesson.train
    top = 255 if train.inputs.max() > 16 else 16
    mean = as_images(np.asarray(center.shift), lesson.image_shape)
    pictures, names = [draw.to_pixels(mean, low=0, high=top)], ["mean image"]
    for row in range(3):
        before = as_images(train.inputs[row], lesson.image_shape)
        after = as_images(centered[row], lesson.image_shape)
        shifted = draw.to_pixels(after, low=-top / 2, high=top / 2)  # 0 is mid-grey
        pictures += [draw.to_pixels(before, low=0, high=top), shifted]
        names += [train.class_names[train.labels[row]], "centered"]
    return pictures, names
