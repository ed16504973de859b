"""Downloads, only when asked, and the check that files are the published ones.

A download goes over https, into the user's cache, and must have the SHA-256 written down here.
Of an archive only the six named batches are read, each up to its published size; nothing is ever
extracted to a path that the archive chose.

Source of the hashes: the md5 sums of the uncompressed MNIST and Fashion-MNIST files, of CIFAR's
Python batches and of SVHN are those in wide use (`torchvision.datasets` has the last two).
"""

__all__ = ["FILES", "fetch", "verify"]

import gzip
import hashlib
import os
import tarfile
from pathlib import Path

from jaxlin.core import DataError
from jaxlin.data import cifar
from jaxlin.data.named import NAMED, cache_folder, locate

_BASES = {
    "mnist": "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "fashion-mnist": (
        "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/"
    ),
    "cifar10": "https://www.cs.toronto.edu/~kriz/",
}
FILES = {
    "mnist": {
        "train-images-idx3-ubyte.gz": (
            "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"
        ),
        "train-labels-idx1-ubyte.gz": (
            "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"
        ),
        "t10k-images-idx3-ubyte.gz": (
            "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"
        ),
        "t10k-labels-idx1-ubyte.gz": (
            "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"
        ),
    },
    "fashion-mnist": {
        "train-images-idx3-ubyte.gz": (
            "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84"
        ),
        "train-labels-idx1-ubyte.gz": (
            "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845"
        ),
        "t10k-images-idx3-ubyte.gz": (
            "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073"
        ),
        "t10k-labels-idx1-ubyte.gz": (
            "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5"
        ),
    },
    "cifar10": {
        "cifar-10-binary.tar.gz": (
            "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"
        ),
    },
}
_MD5 = {  # of the content: a distribution may compress the same bytes again
    "mnist": {
        "train-images": "6bbc9ace898e44ae57da46a324031adb",
        "train-labels": "a25bea736e30d166cdddb491f175f624",
        "t10k-images": "2646ac647ad5339dbf082846283269ea",
        "t10k-labels": "27ae3e4e09519cfbb04c329615203637",
    },
    "fashion-mnist": {
        "train-images": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
        "train-labels": "9018921c3c673c538a1fc5bad174d6f9",
        "t10k-images": "8181f5470baa50b63fa0f6fddb340f0a",
        "t10k-labels": "15d484375f8d13e6eb1aabb0c3f46965",
    },
    "cifar10": {
        "data_batch_1": "c99cafc152244af753f735de768cd75f",
        "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
        "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
        "data_batch_4": "634d18415352ddfa80567beed471001a",
        "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
        "test_batch": "40351d587109b95175f43aff81a1287e",
    },
    "cifar100": {
        "train": "16019d7e3df5f24257cddd939b257f8d",
        "test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
    },
    "svhn": {
        "train": "e26dedcc434d2e4c54c9b2d4a06d8373",
        "test": "eb5a983be6a315427106f1b164d9cef3",
    },
}
_MD5["cifar100-coarse"] = _MD5["cifar100"]
_BLOCK = 1 << 20
_MAX_BYTES = 1 << 30


def fetch(name: str) -> Path:
    """Download a named set into the user's cache, unless it is there; returns the folder.

    Raises:
      DataError: there is no connection, or what came has another SHA-256.
    """
    if name == "digits":
        raise DataError(f"{name!r} needs no download. Those that do: {', '.join(FILES)}.")
    if name not in FILES:
        raise DataError(
            f"{name!r} is not downloaded from here ({', '.join(FILES)} are). Get it from "
            f"{NAMED[name].source} and put {NAMED[name].files} into {cache_folder() / name}."
        )
    import pooch

    folder = cache_folder() / NAMED[name].places[0]
    for file, sha256 in FILES[name].items():
        try:
            path = pooch.retrieve(
                _BASES[name] + file, f"sha256:{sha256}", fname=file, path=folder, progressbar=False
            )
        except (OSError, ValueError) as error:  # no connection, or another hash
            reason = " ".join(str(error).split())[:200]
            raise DataError(
                f"{name}: {_BASES[name]}{file} cannot be fetched ({reason}). Get it elsewhere and "
                f"put {NAMED[name].files}, into {folder}."
            ) from None
        if file.endswith(".tar.gz"):
            _take_batches(Path(path), folder / "cifar-10-batches-bin")
    return folder


def _take_batches(archive: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    size = cifar.CANONICAL_ROWS * (cifar.PIXELS + 1)
    with tarfile.open(archive) as tar:
        for batch in cifar.BATCHES["train"] + cifar.BATCHES["test"]:
            member = tar.getmember(f"{folder.name}/{batch}.bin")
            if not member.isfile() or member.size != size:
                raise DataError(f"{archive}: {member.name} is not a batch. Delete the archive.")
            partial = folder / f".{batch}.partial"
            content = tar.extractfile(member)
            assert content is not None  # it is a file
            partial.write_bytes(content.read(size))
            os.replace(partial, folder / f"{batch}.bin")


def verify(name: str, data_dir: str | Path | None = None) -> list[dict]:
    """Each file of a named set: `file`, `sha256` (of the uncompressed content), `canonical`.

    `canonical` is True or False where the published sum is known, else None.
    """
    place = locate(name, data_dir)
    paths = NAMED[name].parts(place)
    known = _MD5.get(name, {})
    if any(path is not None and path.suffix == ".bin" for path in paths.values()):
        known = {}  # the sums are those of the Python version
    return [_verified(part, path, known.get(part), place) for part, path in paths.items()]


def _verified(part: str, path: Path | None, md5: str | None, place: Path) -> dict:
    if path is None or not path.is_file():
        return {"file": str(path or place / part), "sha256": None, "canonical": False}
    sums = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
    total = 0
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            while (block := file.read(_BLOCK)) and total <= _MAX_BYTES:
                total += len(block)
                for digest in sums:
                    digest.update(block)
    except (EOFError, OSError):
        return {"file": str(path), "sha256": None, "canonical": False}
    canonical = None if md5 is None else sums[1].hexdigest() == md5
    return {"file": str(path), "sha256": sums[0].hexdigest(), "canonical": canonical}
