"""CIFAR-100 in both of its published forms: 100 fine classes, or the 20 coarse ones over them.

The binary version is two files of records: the coarse label, the fine label, then 3,072 pixels,
channel-major. The Python version is two pickles, which are read without running them.

Source: A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images" (2009), and the
data set's page, https://www.cs.toronto.edu/~kriz/cifar.html.
"""

__all__ = ["COARSE_NAMES", "FINE_NAMES", "files", "find", "load"]

from pathlib import Path

import numpy as np

from jaxlin.core import DataError
from jaxlin.data.cifar import IMAGE_SHAPE, PIXELS, read_pickle
from jaxlin.data.dataset import Dataset
from jaxlin.data.validate import build

_FINE = """apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus
    butterfly camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab
    crocodile cup dinosaur dolphin elephant flatfish forest fox girl hamster house kangaroo keyboard
    lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle mountain mouse mushroom
    oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine
    possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake
    spider squirrel streetcar sunflower sweet_pepper table tank telephone television tiger tractor
    train trout tulip turtle wardrobe whale willow_tree wolf woman worm"""
_COARSE = """aquatic_mammals fish flowers food_containers fruit_and_vegetables
    household_electrical_devices household_furniture insects large_carnivores
    large_man-made_outdoor_things large_natural_outdoor_scenes large_omnivores_and_herbivores
    medium_mammals non-insect_invertebrates people reptiles small_mammals trees vehicles_1
    vehicles_2"""
FINE_NAMES = tuple(_FINE.split())
COARSE_NAMES = tuple(_COARSE.split())
ROWS = {"train": 50_000, "test": 10_000}
FOLDERS = {"cifar-100-binary": ".bin", "cifar-100-python": ""}
_BESIDE = {".bin": ("fine_label_names.txt", "coarse_label_names.txt"), "": ("meta",)}
_LABELS = {"coarse": COARSE_NAMES, "fine": FINE_NAMES}  # in the order of a record


def find(folder: Path) -> tuple[Path, str] | None:
    """The folder that holds the files, `folder` itself or one below, and their ending.

    "train" and "test" are common names: outside of a folder of the published name two of the
    archive's files must be there.
    """
    for name, ending in FOLDERS.items():
        for place in (folder, folder / name):
            own = [place / f"{split}{ending}" for split in ROWS]
            beside = [place / other for other in _BESIDE[ending]]
            there = sum(path.is_file() for path in own)
            total = there + sum(path.is_file() for path in beside)
            if there and (place.name == name or total > 1):
                return place, ending
    return None


def files(folder: Path) -> dict[str, Path]:
    """The file of each split, whether it is there or not."""
    found = find(folder)
    if found is None:
        raise DataError(
            f"{folder}: there is neither cifar-100-binary nor cifar-100-python. Unpack one of the "
            "published archives there."
        )
    place, ending = found
    return {split: place / f"{split}{ending}" for split in ROWS}


def load(folder: Path, split: str, *, kind: str = "fine") -> Dataset:
    """One split of CIFAR-100 with its "fine" or "coarse" labels.

    Raises:
      DataError: a file is missing, cut off, or not what the format says.
    """
    paths = files(folder)
    path = paths[split]
    if not path.is_file():
        raise DataError(f"{path}: the file is missing. Put the files of the archive there.")
    if path.suffix:
        pixels, labels = read_binary(path, kind)
        _refuse_short(paths, split)
    else:
        pixels, labels = read_pickle(path, key=f"{kind}_labels", classes=len(_LABELS[kind]))
    return build(
        pixels,
        labels,
        class_names=_LABELS[kind],
        image_shape=IMAGE_SHAPE,
        name="cifar100" if kind == "fine" else "cifar100-coarse",
        file=str(path),
        training=split == "train",
        split=split,
        white=255,
    )


def read_binary(path: Path, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (N, 3072) uint8, channel-major, and labels (N,) of one binary file."""
    size = path.stat().st_size
    if size == 0 or size % (PIXELS + 2):
        raise DataError(
            f"{path}: the size must be a multiple of 3,074 bytes (two labels and 3,072 pixels), "
            f"got {size:,}: the file is cut off or no binary batch. Get it again."
        )
    records = np.fromfile(path, np.uint8).reshape(-1, PIXELS + 2)
    for column, (name, names) in enumerate(_LABELS.items()):
        wrong = records[:, column] >= len(names)
        if wrong.any():
            row = int(np.argmax(wrong))
            raise DataError(
                f"{path}: {name} labels must be 0 to {len(names) - 1}, got "
                f"{records[row, column]} in record {row}: the file is damaged. Get it again."
            )
    return records[:, 2:], records[:, list(_LABELS).index(kind)]


def _refuse_short(paths: dict[str, Path], split: str) -> None:
    """A file cut at a record's end looks whole; its published length, or the other's, tells."""
    there = {s: p.stat().st_size // (PIXELS + 2) for s, p in paths.items() if p.is_file()}
    published = any(rows == ROWS[s] for s, rows in there.items())
    if published and there[split] != ROWS[split]:
        raise DataError(
            f"{paths[split]}: there are {there[split]:,} pictures instead of {ROWS[split]:,}: the "
            "file is cut off. Get it again."
        )
