"""Pictures of sweeps: whatever varies, a reader can tell the curves apart."""

import itertools

from jaxlin.plots import sweep as plots


def heads_of(losses, subsets, seeds):
    return [
        {
            **{"strength": s, "step_size": None, "loss": loss, "subset": subset, "seed": seed},
            **{"shots": None, "validation_accuracy": 0.5, "validation_interval": [0.4, 0.6]},
            **{"weight_norm": 1.0 + s, "status": "done"},
        }
        for loss, subset, seed, s in itertools.product(losses, subsets, seeds, (0.1, 1.0))
    ]


def legend(heads):
    figure = plots.validation_curves(heads, heads[0], metric="accuracy")
    (found,) = figure.legends
    return [text.get_text() for text in found.get_texts()], found.get_title().get_text()


def test_few_curves_have_a_name_each():
    heads = heads_of(["softmax", "hinge"], ["all"], [0])
    assert legend(heads) == (["softmax", "hinge"], "")
    pareto = plots.pareto(heads, [0], heads[0], metric="accuracy")
    names = [text.get_text() for text in pareto.axes[0].get_legend().get_texts()]
    assert names == ["softmax", "hinge", "not beaten in both"]


def test_many_curves_are_told_apart_by_what_has_few_values_and_never_by_the_seed():
    heads = heads_of(["softmax", "hinge", "squared-hinge"], list("abcd"), [0, 1])
    assert legend(heads) == (["softmax", "hinge", "squared-hinge"], "24 curves")
