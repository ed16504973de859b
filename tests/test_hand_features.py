"""Features made by hand against a loop over pixels, and against what one sees."""

import colorsys
import math

import numpy as np
import pytest

from jaxlin.hand_features import describe, hue_histogram, oriented_gradients

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 18, 25, 3)).astype(np.uint8)


def loop(image, cell, orientations):
    """One picture, pixel by pixel."""
    grey = [[0.299 * r + 0.587 * g + 0.114 * b for r, g, b in row] for row in image.astype(float)]
    height, width = len(grey), len(grey[0])
    found = np.zeros((height // cell, width // cell, orientations))
    for y in range(height // cell * cell):
        for x in range(width // cell * cell):
            across = grey[y][x + 1] - grey[y][x] if x + 1 < width else 0.0
            down = grey[y + 1][x] - grey[y][x] if y + 1 < height else 0.0
            degrees = math.degrees(math.atan2(down, across)) % 180
            place = min(int(degrees / (180 / orientations)), orientations - 1)
            found[y // cell, x // cell, place] += math.hypot(across, down) / cell**2
    return found.ravel()


@pytest.mark.parametrize(("cell", "orientations"), [(8, 9), (4, 6), (5, 1)])
def test_gradients_are_those_of_a_loop_over_pixels(cell, orientations):
    found = oriented_gradients(IMAGES, cell=cell, orientations=orientations)
    expected = np.array([loop(image, cell, orientations) for image in IMAGES])
    # float32 grey values to 255 are off by 3e-5, lengths too; a bin can flip only at its edge
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_hues_are_those_of_colorsys():
    found = hue_histogram(IMAGES, bins=12)
    for image, row in zip(IMAGES, found, strict=True):
        hues = [colorsys.rgb_to_hsv(*(pixel / 255.0))[0] for pixel in image.reshape(-1, 3)]
        expected = np.bincount(np.minimum((np.array(hues) * 12).astype(int), 11), minlength=12)
        # a hue on the edge of two bins may fall to either side
        np.testing.assert_allclose(row, expected / len(hues), atol=2.5 / len(hues))
        assert row.sum() == pytest.approx(1, abs=1e-6)


def test_a_line_points_the_same_way_seen_from_both_sides():
    wave = np.sin(np.arange(16) / 3.0)[None, :] + np.zeros((16, 1))
    for turned, place in ((wave, 0), (wave.T, 4)):
        found = oriented_gradients(turned[None], cell=16)[0]
        assert np.argmax(found) == place
        assert found[place] > 0.99 * found.sum()


def test_blocks_and_grey_pictures():
    many = np.tile(IMAGES[:1, :8, :8], (2100, 1, 1, 1))
    found = describe(many)
    assert found.shape == (2100, 9 + 10)
    np.testing.assert_array_equal(found[0], found[-1])
    assert describe(IMAGES[..., 0]).shape == (3, 2 * 3 * 9)
    assert not hue_histogram(np.full((1, 4, 4, 3), 7))[0, 1:].any()
