"""Every way in which data can be bad, through the command line: exit 2 and one sentence."""

import gzip
import io
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

INPUTS = np.random.default_rng(0).normal(size=(12, 4))
LABELS = np.arange(12) % 3


def archive(**changes):
    """`bad.npz`: good arrays but for `changes`."""
    arrays = {"inputs": INPUTS, "labels": LABELS} | changes
    np.savez("bad.npz", **arrays)
    return ("--data", "bad.npz")


def with_value(value, row=7, column=2):
    inputs = INPUTS.copy()
    inputs[row, column] = value
    return inputs


BAD_ARRAYS = {
    "NaN": (lambda: archive(inputs=with_value(np.nan)), ["bad.npz", "row 7", "column 2"]),
    "infinity": (lambda: archive(inputs=with_value(np.inf)), ["bad.npz", "row 7", "column 2"]),
    "length": (lambda: archive(labels=LABELS[:-1]), ["bad.npz", "11", "12"]),
    "negative": (lambda: archive(labels=LABELS - 1), ["bad.npz", "-1", "row 0"]),
    "too large": (lambda: archive(labels=np.append(LABELS[:-1], 10**9)), ["bad.npz", "1000000000"]),
    "fractional": (lambda: archive(labels=LABELS + 0.5), ["bad.npz", "0.5"]),
    "one class": (lambda: archive(labels=LABELS * 0), ["bad.npz", "one class"]),
    "empty": (lambda: archive(inputs=INPUTS[:0], labels=LABELS[:0]), ["bad.npz"]),
    "objects": (lambda: archive(inputs=np.array([{}] * 12, dtype=object)), ["bad.npz", "object"]),
    "no labels": (lambda: np.savez("bad.npz", inputs=INPUTS) or ("--data", "bad.npz"), ["labels"]),
}


@pytest.mark.parametrize("name", BAD_ARRAYS)
def test_bad_arrays_are_refused(jaxlin, name):
    make, words = BAD_ARRAYS[name]
    sentence = jaxlin("train", *make(), "--out", "run").refused()
    assert all(word in sentence for word in words), sentence
    assert not Path("run").exists()


def truncated_npy():
    np.save("bad.npy", INPUTS)
    np.save("labels.npy", LABELS)
    whole = Path("bad.npy").read_bytes()
    Path("bad.npy").write_bytes(whole[:-9])
    return ("--data", "bad.npy")


def npz_bomb():
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "|u1", "fortran_order": False, "shape": (1 << 28, 4)}
    )
    with zipfile.ZipFile("bad.npz", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("inputs.npy", header.getvalue() + bytes(1 << 26))
        file.writestr("labels.npy", b"")
    return ("--data", "bad.npz")


def idx_folder(payload, name="train-images-idx3-ubyte"):
    Path("bad").mkdir()
    for split, count in (("train", 3), ("t10k", 2)):
        images = b"\0\0\x08\x03" + np.array([count, 28, 28], ">u4").tobytes() + bytes(784 * count)
        labels = b"\0\0\x08\x01" + np.array([count], ">u4").tobytes() + bytes(range(count))
        Path(f"bad/{split}-images-idx3-ubyte").write_bytes(images)
        Path(f"bad/{split}-labels-idx1-ubyte").write_bytes(labels)
    Path(f"bad/{name}").write_bytes(payload)
    return ("--data", "mnist", "--data-dir", "bad")


def idx_gz(payload):
    arguments = idx_folder(b"", "train-images-idx3-ubyte")
    Path("bad/train-images-idx3-ubyte").unlink()
    Path("bad/train-images-idx3-ubyte.gz").write_bytes(payload)
    return arguments


IDX = b"\0\0\x08\x03" + np.array([3, 28, 28], ">u4").tobytes() + bytes(784 * 3)
HUGE = b"\0\0\x08\x03" + np.array([2**32 - 1] * 3, ">u4").tobytes()


def cifar_binary():
    folder = Path("bad/cifar-10-batches-bin")
    folder.mkdir(parents=True)
    record = bytes([1]) + bytes(3072)
    for name in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]:
        (folder / f"{name}.bin").write_bytes(record * 2)
    (folder / "data_batch_3.bin").write_bytes(record + record[:100])
    return ("--data", "cifar10", "--data-dir", "bad")


class Evil:
    def __reduce__(self):
        return (Path("ran").touch, ())


def cifar_pickle():
    folder = Path("bad/cifar-10-batches-py")
    folder.mkdir(parents=True)
    for name in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch", "batches.meta"]:
        (folder / name).write_bytes(pickle.dumps({b"data": Evil(), b"labels": [0]}))
    return ("--data", "cifar10", "--data-dir", "bad")


def broken_picture():
    for name in ("a", "b"):
        Path(f"bad/train/{name}").mkdir(parents=True)
        Image.fromarray(INPUTS[:4].astype(np.uint8)).save(f"bad/train/{name}/1.jpg")
    whole = Path("bad/train/b/1.jpg").read_bytes()
    Path("bad/train/b/1.jpg").write_bytes(whole[: len(whole) // 2])
    return ("--data", "bad")


def no_classes():
    Path("bad/train").mkdir(parents=True)
    return ("--data", "bad")


BAD_FILES = {
    "truncated npy": (truncated_npy, "bad.npy"),
    "npz bomb": (npz_bomb, "bad.npz"),
    "idx header that lies": (lambda: idx_folder(HUGE), "train-images-idx3-ubyte"),
    "truncated idx": (lambda: idx_folder(IDX[:-5]), "train-images-idx3-ubyte"),
    "truncated gz": (lambda: idx_gz(gzip.compress(IDX)[:-12]), "train-images-idx3-ubyte.gz"),
    "gz bomb": (lambda: idx_gz(gzip.compress(IDX + bytes(1 << 26))), "train-images-idx3-ubyte.gz"),
    "truncated cifar": (cifar_binary, "data_batch_3.bin"),
    "pickle with code": (cifar_pickle, "data_batch_1"),
    "truncated jpg": (broken_picture, "1.jpg"),
    "no classes": (no_classes, "bad"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_files_are_refused(jaxlin, name):
    make, word = BAD_FILES[name]
    assert word in jaxlin("train", *make(), "--out", "run").refused()
    assert not Path("run").exists()
    assert not Path("ran").exists()


def test_a_data_set_that_is_not_here_says_what_to_put_where(jaxlin, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(Path.cwd()))
    sentence = jaxlin("train", "--data", "cifar10", "--data-dir", ".").refused()
    assert "cifar-10-batches-bin" in sentence
