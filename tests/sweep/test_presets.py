"""The numbers of published protocols, as they are printed in their papers and code."""

import numpy as np
import pytest

from jaxlin.core import DataError
from jaxlin.sweep import parse_subset
from jaxlin.sweep.presets import PRESETS, check_fit, strength_for, strengths_for


def test_clip_has_96_strengths_from_1e_6_to_1e6():
    values = PRESETS["clip"].values
    assert len(values) == 96
    assert (values[0], values[-1]) == pytest.approx((1e-6, 1e6))
    np.testing.assert_allclose(np.diff(np.log10(values)), 12 / 95)
    coarse = PRESETS["clip-search"]
    np.testing.assert_allclose(coarse.values, [1e-6, 1e-4, 1e-2, 1, 1e2, 1e4, 1e6])
    assert coarse.halvings == 4  # 2 decades / 2^4 = 1/8 of a decade


@pytest.mark.parametrize("name", ["kornblith", "simclr", "byol"])
def test_transfer_has_45_strengths_from_1e_6_to_1e5(name):
    values = PRESETS[name].values
    assert len(values) == 45
    assert (values[0], values[-1]) == pytest.approx((1e-6, 1e5))
    np.testing.assert_allclose(np.diff(np.log10(values)), 0.25)
    assert PRESETS[name].refit


def test_dinov2_has_13_step_sizes_and_12500_steps():
    preset = PRESETS["dinov2"]
    assert preset.base_step_sizes == (
        *(1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1),
    )
    assert preset.adjustable["steps"] == 12_500
    assert (preset.options["optimizer"], preset.options["schedule"]) == ("momentum", "cosine")
    choices = parse_subset("dinov2:4", 20)
    assert [subset.mask(20).sum() for subset in choices] == [4, 8, 16, 20]
    assert 13 * len(choices) == 52  # heads


def test_mae_and_vissl_have_their_numbers():
    mae, vissl = PRESETS["mae"], PRESETS["vissl"]
    assert mae.base_step_sizes[0] * mae.adjustable["batch_size"] / 256 == pytest.approx(6.4)
    assert (mae.adjustable["epochs"], mae.batch_norm, mae.options["optimizer"]) == (
        90,
        True,
        "lars",
    )
    assert (vissl.adjustable["epochs"], vissl.adjustable["batch_size"]) == (28, 256)
    assert strengths_for(vissl, 100) == (2.5e-4,)  # decay 5e-4: its gradient is 2 * strength * W


def test_few_shot_is_five_counts_and_ten_draws():
    assert PRESETS["few-shot"].shots == (1, 2, 4, 8, 16)
    assert PRESETS["few-shot"].seeds == tuple(range(10))


def test_units_give_the_same_fit_as_scikit_learn():
    """lambda = 1 / C: scikit-learn's objective over N C is ours, to a factor."""
    from sklearn.linear_model import LogisticRegression

    from jaxlin.solvers import minimize

    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(60, 3))
    labels = rng.integers(0, 3, 60)
    published = 5.0
    peer = LogisticRegression(C=1 / published, tol=1e-10).fit(inputs, labels)
    strength = strength_for(published, "half-sum", 60)
    ours = minimize(inputs, labels, strength=strength, tolerance=1e-10)
    np.testing.assert_allclose(ours.params.weights, peer.coef_, atol=1e-5)
    # linear_eval: sum of losses + lambda * |W|^2 is twice scikit-learn's regularization
    assert strength_for(published, "sum", 60) == 2 * strength


def test_every_preset_says_where_it_comes_from():
    for preset in PRESETS.values():
        assert "arXiv:" in preset.source or "facebookresearch/" in preset.source
        assert preset.values
        assert preset.solver in ("full-batch", "minibatch")


def test_the_command_line_knows_the_same_presets():
    import typing

    from jaxlin.runs.sweeps.options import Options

    annotation = typing.get_type_hints(Options)["preset"]
    assert set(typing.get_args(typing.get_args(annotation)[0])) == set(PRESETS)


def test_a_preset_that_does_not_fit_is_refused():
    with pytest.raises(DataError, match="class 2 has 0"):
        check_fit("few-shot", np.repeat([0, 1], 20), batch_size=0, classes=3)
    with pytest.raises(DataError, match="steps of 16,384 examples, and there are 10"):
        check_fit("mae", np.zeros(10, int), batch_size=16_384, classes=1)
    with pytest.raises(ValueError, match="wants 5 \\* 768"):
        parse_subset("dinov2:768", 768)
    with pytest.raises(ValueError, match="is no subset"):
        parse_subset("first", 8)
    with pytest.raises(ValueError, match="does not lie in the 8 features"):
        parse_subset("a=4:9", 8)
