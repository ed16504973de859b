"""Options of the commands that read examples: which, and where they lie."""

__all__ = ["DataOptions"]

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """Which examples."""

    data: str = "digits"
    """digits, mnist, fashion-mnist, cifar10; or an .npz, features in a .npy or .safetensors, a
    folder of pictures or of features."""
    data_dir: Path | None = None
    """The folder that holds the files of a named data set."""
    labels: Path | None = None
    """The labels of features (without it: those beside them, say `labels.npy`)."""
    test: Path | None = None
    """A file or folder that gives the test set of a file or folder."""
    test_labels: Path | None = None
    """The labels of test features (without it: those beside them)."""
    image_size: int | None = None
    """Side in pixels to which pictures are resized (without it: that of the first picture)."""
