"""Options of the commands that read examples: which, and where they lie."""

__all__ = ["DataOptions", "check_examples"]

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """Data: which examples, and where they lie."""

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


def check_examples(options: DataOptions) -> None:
    """Refuse options that would say nothing about the data that are named."""
    from jaxlin.data import NAMED

    if options.labels is not None and options.data in NAMED:
        raise ValueError(
            f"--labels is for features in files, and {options.data} has its own. Leave it out."
        )
    if options.test_labels is not None and options.test is None:
        raise ValueError("--test-labels needs --test, the features that they belong to.")
    if options.image_size is not None and not Path(options.data).expanduser().is_dir():
        raise ValueError("--image-size is for a folder of pictures. Leave it out.")
