"""Published protocols of linear evaluation, with their exact numbers and where they come from.

A strength here is that of this library's objective, mean loss + strength * sum(W**2). Protocols
write it in other units, all of which fall with the number N of training examples:

    scikit-learn's C                     sum of losses * C + |W|^2 / 2     strength = 1 / (2 N C)
    a lambda that is 1 / C               (Radford et al.)                  strength = lambda / (2 N)
    a lambda on a sum of losses          sum of losses + lambda |W|^2      strength = lambda / N
    SGD's weight decay                   gradient + decay * W              strength = decay / 2

so that refitting on more examples lowers the strength of the first three.

The numbers were compared with the texts and the code that each `source` names; where it speaks of
"our reading" the source leaves the point open.
"""

__all__ = ["PRESETS", "Preset", "check_fit", "strength_for", "strengths_for"]

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from jaxlin.core import DataError


class Preset(NamedTuple):
    """One protocol."""

    title: str
    source: str
    solver: str
    """"full-batch" or "minibatch"."""
    units: str
    """Of `values`: "mean" (our strength), "sum" (lambda on the summed loss), "half-sum" (1 / C)
    or "decay" (weight decay)."""
    values: tuple[float, ...]
    """Regularization, in `units`."""
    base_step_sizes: tuple[float, ...] = ()
    """For batches of 256; the step size used is `base * batch_size / 256`."""
    options: Mapping = MappingProxyType({})
    """Options of `jaxlin sweep` that the protocol fixes."""
    adjustable: Mapping = MappingProxyType({})
    """Options whose default it changes; they may be given."""
    search: str = "grid"
    """"grid" or "coarse-to-fine"."""
    halvings: int = 0
    init_scale: float = 0.0
    batch_norm: bool = False
    refit: bool = True
    """The chosen head is fitted again on training and validation examples."""
    shots: tuple[int, ...] = ()
    seeds: tuple[int, ...] = ()


_CONVEX = {"loss": "softmax", "regularizer": "l2", "solver": "full-batch"}
_LBFGS = MappingProxyType({"preprocess": "none", "tolerance": 1e-3, "validation": 0.1})
_DESCENT = {"loss": "softmax", "regularizer": "l2", "solver": "minibatch"}


def _logspace(low: float, high: float, count: int) -> tuple[float, ...]:
    return tuple(np.logspace(low, high, count).tolist())


_45 = _logspace(-6, 5, 45)
_SUM_NOTE = (
    "The units are those of the first author's published code, google-research/linear_eval: "
    "sum of losses + lambda * sum of squares."
)

PRESETS: dict[str, Preset] = {
    "clip": Preset(
        "CLIP linear probe: 96 strengths from 1e-6 to 1e6",
        "Radford et al. (2021), arXiv:2103.00020, A.3: scikit-learn's L-BFGS, at most 1,000 "
        "iterations, an L2 strength lambda from 1e-6 to 1e6 in 96 logarithmic steps (eight a "
        "decade), chosen on validation, then training and validation together; raw features. "
        "lambda = 1 / C is our reading",
        *("full-batch", "half-sum", _logspace(-6, 6, 96)),
        options=MappingProxyType(_CONVEX),
        adjustable=_LBFGS,
    ),
    "clip-search": Preset(
        "CLIP linear probe, its coarse-to-fine search",
        "Radford et al. (2021), arXiv:2103.00020, A.3: from {1e-6, 1e-4, 0.01, 1, 100, 1e4, 1e6} "
        "the interval around the peak is halved until eight steps a decade",
        *("full-batch", "half-sum", _logspace(-6, 6, 7)),
        options=MappingProxyType(_CONVEX),
        adjustable=_LBFGS,
        search="coarse-to-fine",
        halvings=4,
    ),
    "kornblith": Preset(
        "Transfer by logistic regression: 45 strengths from 1e-6 to 1e5",
        "Kornblith, Shlens and Le (2019), arXiv:1805.08974, appendix, as Chen et al. (2020) and "
        "Grill et al. (2020) repeat it: 45 logarithmic values, L-BFGS, chosen on validation, "
        f"refitted on training and validation; warm along the path. {_SUM_NOTE}",
        *("full-batch", "sum", _45),
        options=MappingProxyType(_CONVEX),
        adjustable=_LBFGS,
    ),
    "simclr": Preset(
        "SimCLR transfer, linear evaluation: 45 strengths from 1e-6 to 1e5",
        "Chen et al. (2020), arXiv:2002.05709, B.8.1, after Kornblith et al.: L-BFGS, no "
        f"augmentation, 45 values, refitted on all training and validation images. {_SUM_NOTE}",
        *("full-batch", "sum", _45),
        options=MappingProxyType(_CONVEX),
        adjustable=_LBFGS,
    ),
    "byol": Preset(
        "BYOL transfer, linear evaluation: 45 strengths from 1e-6 to 1e5",
        "Grill et al. (2020), arXiv:2006.07733, D.2, after Kornblith et al.: L-BFGS, 45 values, "
        f"refitted on training and validation. {_SUM_NOTE}",
        *("full-batch", "sum", _45),
        options=MappingProxyType(_CONVEX),
        adjustable=_LBFGS,
    ),
    "dinov2": Preset(
        "DINOv2 linear evaluation: 13 step sizes for every layer and pooling choice",
        "facebookresearch/dinov2, dinov2/eval/linear.py: SGD with momentum 0.9, no decay, cosine "
        "to 0 over 10 epochs of 1,250 steps, batch 128 on each device (eight: our reading), 13 "
        "step sizes times batch / 256, weights normal with spread 0.01; no refit. `--subsets "
        "dinov2:WIDTH` are its layer and pooling choices",
        *("minibatch", "decay", (0.0,)),
        base_step_sizes=(
            *(1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3),
            *(2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1),
        ),
        options=MappingProxyType(_DESCENT | {"optimizer": "momentum", "schedule": "cosine"}),
        adjustable=MappingProxyType(
            {"preprocess": "none", "batch_size": 1024, "steps": 12_500, "validation": 0.1}
        ),
        init_scale=0.01,
        refit=False,
    ),
    "mae": Preset(
        "MAE linear probe: batch norm without affine, LARS",
        "He et al. (2021), arXiv:2111.06377, A.1, and facebookresearch/mae, main_linprobe.py, "
        "util/lars.py and FINETUNE.md (512 on each of 4 x 8 devices): "
        "LARS (momentum 0.9, trust 0.001, not for the bias), base step size 0.1 times batch / "
        "256, batch 16,384, 90 epochs, 10 of them warm-up, cosine, no decay, weights with spread "
        "0.01; batch norm with epsilon 1e-6 in front. Predictions use the statistics of all "
        "training examples, to which its running averages converge",
        *("minibatch", "decay", (0.0,)),
        base_step_sizes=(0.1,),
        options=MappingProxyType(
            _DESCENT
            | {"optimizer": "lars", "schedule": "warmup-cosine", "preprocess": "standardize"}
        ),
        adjustable=MappingProxyType({"batch_size": 16_384, "epochs": 90, "validation": 0.0}),
        init_scale=0.01,
        batch_norm=True,
        refit=False,
    ),
    "vissl": Preset(
        "VISSL linear evaluation on ImageNet",
        "Goyal et al. (2019), arXiv:1905.01235, and facebookresearch/vissl, configs/config/"
        "benchmark/linear_image_classification/imagenet1k/eval_resnet_8gpu_transfer_in1k_linear"
        ".yaml: SGD with Nesterov momentum 0.9, decay 5e-4 (there on the bias too; a comment says "
        "1e-4 for ResNet-50 in the earlier Caffe2 benchmark), step size 0.01 for batches of 256, "
        "divided by 10 after 8, 16 and 24 of 28 epochs; batch norm in front (here without its "
        "affine part, which a linear layer can express)",
        *("minibatch", "decay", (5e-4,)),
        base_step_sizes=(0.01,),
        options=MappingProxyType(
            _DESCENT | {"optimizer": "nesterov", "schedule": "steps", "preprocess": "standardize"}
        ),
        adjustable=MappingProxyType({"batch_size": 256, "epochs": 28, "validation": 0.0}),
        batch_norm=True,
        refit=False,
    ),
    "few-shot": Preset(
        "Few-shot probe: 1, 2, 4, 8 and 16 examples a class, 10 draws of each",
        "Radford et al. (2021), arXiv:2103.00020, 3.1.5, figures 6 and 7: logistic regression on "
        "1, 2, 4, 8 and 16 labeled examples a class. Ten draws of each are ours, as are the "
        "choices: the mean over the draws on validation, from A.3's coarse grid of lambda = 1 / "
        "C; test accuracy comes with its spread",
        *("full-batch", "half-sum", _logspace(-6, 6, 7)),
        options=MappingProxyType(_CONVEX),
        adjustable=_LBFGS,
        refit=False,
        shots=(1, 2, 4, 8, 16),
        seeds=tuple(range(10)),
    ),
}


def strength_for(value: float, units: str, examples: int) -> float:
    """The strength that a published value stands for, given N training examples.

    >>> strength_for(1.0, "half-sum", examples=500)  # scikit-learn's C = 1
    0.001
    """
    factors = {"mean": 1.0, "decay": 0.5, "sum": 1 / examples, "half-sum": 0.5 / examples}
    return value * factors[units]


def strengths_for(preset: Preset, examples: int) -> tuple[float, ...]:
    """The strengths of a protocol for N training examples."""
    return tuple(strength_for(value, preset.units, examples) for value in preset.values)


def check_fit(name: str, labels: np.ndarray, *, batch_size: int, classes: int) -> None:
    """Raise unless the protocol can be run on training examples with these labels.

    Raises:
      DataError: too few examples for its batch or for its shots; the sentence says what helps.
    """
    preset = PRESETS[name]
    counts = np.bincount(labels, minlength=classes)
    if preset.shots and counts.min() < max(preset.shots):
        least = int(counts.argmin())
        raise DataError(
            f"The preset {name} draws up to {max(preset.shots)} training examples of each class, "
            f"and class {least} has {counts[least]}. Use more data, a smaller --validation, or "
            "--shots with smaller numbers instead of the preset."
        )
    if preset.solver == "minibatch" and len(labels) < batch_size:
        raise DataError(
            f"The preset {name} takes steps of {batch_size:,} examples, and there are "
            f"{len(labels):,} training examples. Give a smaller --batch-size (its step sizes are "
            "scaled along) or use more data."
        )
