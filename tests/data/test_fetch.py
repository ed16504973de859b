"""What can be checked without a network: sums, and that archives write nowhere else."""

import io
import tarfile

import pytest

from jaxlin.core import DataError
from jaxlin.data import cifar, fetch


def test_verify_says_which_files_are_not_the_published_ones(tmp_path):
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(b"0")
    files = fetch.verify("mnist", tmp_path)
    assert [file["canonical"] for file in files] == [False] * 4
    assert files[1]["sha256"] == "5feceb66ffc86f38d952786c6d696c79c2dbc239dd4e91b46729d73a27fb57e9"


def test_of_an_archive_only_the_named_batches_are_written(tmp_path, monkeypatch):
    monkeypatch.setattr(cifar, "CANONICAL_ROWS", 1)
    archive = tmp_path / "a.tar.gz"
    names = [f"cifar-10-batches-bin/{b}.bin" for b in [*cifar.BATCHES["train"], "test_batch"]]
    with tarfile.open(archive, "w:gz") as tar:
        for name in [*names, "../outside", str(tmp_path / "absolute")]:
            info = tarfile.TarInfo(name)
            info.size = 3073
            tar.addfile(info, io.BytesIO(bytes(3073)))
    folder = tmp_path / "in" / "cifar-10-batches-bin"
    fetch._take_batches(archive, folder)
    assert sorted(p.name for p in tmp_path.rglob("*") if p.is_file() and p != archive) == sorted(
        name.split("/")[1] for name in names
    )


def test_a_set_without_a_download_is_refused():
    with pytest.raises(DataError, match="needs no download"):
        fetch.fetch("digits")
