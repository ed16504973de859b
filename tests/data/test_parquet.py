"""Parquet tables: numbers, lists and pictures, in files and in shards, read whole or refused."""

import contextlib
import io
import json
import sys

import numpy as np
import pytest
from PIL import Image

from jaxlin.core import DataError
from jaxlin.data import load, load_inputs, load_splits, splits_of

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

ROWS = np.arange(24.0, dtype=np.float32).reshape(6, 4)
CLASSES = np.arange(6) % 3


@pytest.fixture
def saved(tmp_path):
    """A function that writes columns, and returns the path."""

    def write(columns, name="a.parquet", metadata=None, **options):
        table = columns if isinstance(columns, pa.Table) else pa.table(columns)
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        pq.write_table(table.replace_schema_metadata(metadata), tmp_path / name, **options)
        return tmp_path / name

    return write


def fixed(rows):
    return pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), rows.shape[1])


@pytest.mark.parametrize("group", [1, 4, 100])
def test_lists_of_one_length_are_rows(saved, group):
    for column in (
        fixed(ROWS),
        pa.array(list(ROWS)),
        pa.array(ROWS.tolist(), pa.list_(pa.int64())),
    ):
        found = load(saved({"x": column, "label": CLASSES}, row_group_size=group))
        np.testing.assert_array_equal(found.inputs, ROWS)
        assert found.labels.tolist() == CLASSES.tolist()
        assert (found.split, found.notes) == ("all", ())


def test_lists_of_lists_are_pictures(saved):
    pictures = np.arange(6 * 4 * 5, dtype=np.uint8).reshape(6, 4, 5)
    found = load(saved({"image": pa.array(pictures.tolist()), "label": CLASSES}))
    np.testing.assert_array_equal(found.inputs, pictures.reshape(6, -1))
    assert found.image_shape == (4, 5)
    rows = saved({"pixels": fixed(pictures.reshape(6, -1)), "label": CLASSES})
    assert load(rows, image_shape=(4, 5)).image_shape == (4, 5)
    assert load(rows).inputs.dtype == np.uint8


def test_columns_of_numbers_stand_side_by_side(saved):
    columns = {f"f.{i}": ROWS[:, i] for i in range(4)}
    names = pa.array(["ant", "bee", "cow"]).take(pa.array(CLASSES))
    index = {"__index_level_0__": np.arange(6) * 100}
    found = load(saved({**columns, "note": names, "class": names.dictionary_encode(), **index}))
    np.testing.assert_array_equal(found.inputs, ROWS)
    assert found.class_names == ("ant", "bee", "cow")
    assert found.notes == (
        "a.parquet: the features are `f.0`, `f.1`, `f.2`, `f.3`.",
        "a.parquet: columns that are not read: `note`, `__index_level_0__`.",
    )


def test_other_labels_are_never_features(saved):
    path = saved({"a": ROWS[:, 0], "b": ROWS[:, 1], "fine_label": CLASSES, "coarse_label": CLASSES})
    with pytest.raises(DataError, match="`fine_label`, `coarse_label` could all be the labels"):
        load(path)
    found = load(path, label_column="fine_label")
    assert found.inputs.shape == (6, 2)
    assert "`coarse_label`" in found.notes[1]


def png(pixels):
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def pictures(count=6, seed=0, shape=(4, 5, 3)):
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)


def hub(names=("ant", "bee", "cow")):
    features = {"image": {"_type": "Image"}, "label": {"names": list(names), "_type": "ClassLabel"}}
    return {"huggingface": json.dumps({"info": {"features": features}})}


def encoded(pixels, labels):
    column = pa.array([{"bytes": png(p), "path": f"{i}.png"} for i, p in enumerate(pixels)])
    return {"image": column, "label": labels}


def test_shards_of_encoded_pictures_with_class_names(saved, tmp_path):
    pixels = pictures()
    for shard in range(2):
        part = slice(3 * shard, 3 * shard + 3)
        name = f"set/data/train-0000{shard}-of-00002-0123456789abcdef.parquet"
        saved(encoded(pixels[part], CLASSES[part]), name, metadata=hub())
    saved(encoded(pixels[:2], CLASSES[:2]), "set/data/test-00000-of-00001.parquet", metadata=hub())
    saved(encoded(pixels, CLASSES), "set/data/unsupervised-00000-of-00001.parquet")
    train, validation, test = load_splits(tmp_path / "set")
    np.testing.assert_array_equal(train.inputs, pixels.transpose(0, 3, 1, 2).reshape(6, -1))
    assert train.labels.tolist() == CLASSES.tolist()
    assert train.class_names == test.class_names == ("ant", "bee", "cow")
    assert (train.image_shape, train.pixels.white) == ((4, 5, 3), 255)
    assert validation is None
    assert [part.count for part in train.passed_over] == [1]
    assert [part.split for part in load_inputs(tmp_path / "set")] == ["train", "test"]
    (tmp_path / "set/data/train-00000-of-00002-0123456789abcdef.parquet").unlink()
    with pytest.raises(DataError, match="number 0 is missing"):
        load(tmp_path / "set")


def test_splits_in_folders_and_files(saved, tmp_path):
    saved({"x": fixed(ROWS), "y": CLASSES}, "a/train/0000.parquet")
    saved({"x": fixed(ROWS), "y": CLASSES}, "a/train/0001.parquet")
    saved({"x": fixed(ROWS[:2]), "y": CLASSES[:2]}, "a/val/0000.parquet")
    saved({"x": fixed(ROWS[:3]), "y": CLASSES[:3]}, "a/test.parquet")
    assert splits_of(tmp_path / "a") == ("train", "validation", "test")
    assert [len(part.labels) for part in load_splits(tmp_path / "a")] == [12, 2, 3]
    saved({"x": fixed(ROWS), "y": CLASSES}, "a/train.parquet")
    with pytest.raises(DataError, match=r"both train\.parquet and train/0000\.parquet"):
        load(tmp_path / "a")
    saved({"x": fixed(ROWS), "y": CLASSES}, "b/part-1.parquet")
    assert splits_of(tmp_path / "b") == ("all",)
    saved({"x": fixed(ROWS[:, :3].copy()), "y": CLASSES}, "b/part-2.parquet")
    with pytest.raises(DataError, match="its columns are not those of part-1"):
        load(tmp_path / "b")


def test_grey_and_color_and_sizes_are_decided_over_all_pictures(saved):
    mixed = [*pictures(2, shape=(4, 5)), *pictures(1), pictures(1, shape=(8, 10, 3))[0]]
    path = saved(encoded(mixed, [0, 1, 0, 1]))
    found = load(path)
    assert found.image_shape == (4, 5, 3)
    assert found.notes == ("a.parquet: of 4 pictures, 2 grey read as color, 1 resized to 4x5.",)
    assert load(path, color="grey").image_shape == (4, 5)
    assert load(path, image_size=(2, 2)).image_shape == (2, 2, 3)
    grey = load(saved(encoded(pictures(4, shape=(4, 5)), [0, 1, 0, 1])))
    assert grey.image_shape == (4, 5)


def test_color_in_one_split_makes_the_whole_set_color(saved, tmp_path):
    saved(encoded(pictures(3, shape=(4, 5)), [0, 1, 0]), "set/train.parquet")
    saved({"other": [1, 2], "label": [0, 1]}, "set/test.parquet")
    assert load(tmp_path / "set").image_shape == (4, 5)
    saved(encoded(pictures(2), [0, 1]), "set/test.parquet")
    train, _, test = load_splits(tmp_path / "set")
    assert train.image_shape == test.image_shape == (4, 5, 3)
    assert load(tmp_path / "set", color="grey").image_shape == (4, 5)


def test_class_names_of_another_order_are_mapped(saved, tmp_path):
    train = saved(encoded(pictures(), CLASSES), metadata=hub())
    other = saved(encoded(pictures(), CLASSES), "t.parquet", metadata=hub(["cow", "bee", "ant"]))
    assert load_splits(train, test=other).test.labels.tolist() == [2, 1, 0, 2, 1, 0]


def paths_only():
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    return pa.array([{"bytes": None, "path": "/etc/passwd"}] * 2, kind)


BAD = {
    "unequal": ({"x": [[1.0, 2.0], [3.0]] * 3, "y": CLASSES}, "list of 1 in row 1, and of 2"),
    "null list": ({"x": [[1.0, 2.0], None] * 3, "y": CLASSES}, "empty value in row 1"),
    "null entry": ({"x": [[1.0, 2.0], [3.0, None]] * 3, "y": CLASSES}, "empty value in row 1"),
    "null number": ({"a": [1.0, None, 2.0], "y": [0, 1, 0]}, "'a' has an empty value in row 1"),
    "null label": ({"x": fixed(ROWS), "y": [0, 1, None, 0, 1, 2]}, "'y' has an empty value in row"),
    "no label yet": ({"x": fixed(ROWS), "y": [-1] * 6}, "-1 at row 0"),
    "infinity": ({"a": [1.0, np.inf, 2.0], "y": [0, 1, 0]}, "inf at row 1, column 0"),
    "no rows": ({"x": fixed(ROWS)[:0], "y": CLASSES[:0]}, "no rows"),
    "no label": ({"x": fixed(ROWS), "kind": CLASSES.astype(str)}, "`label_column`"),
    "two inputs": ({"a": fixed(ROWS), "b": fixed(ROWS), "y": CLASSES}, "`a`, `b` could all"),
    "only text": ({"a": ["1", "2"], "y": [0, 1]}, "neither pictures nor numbers"),
    "path only": ({"image": paths_only(), "y": [0, 1]}, "only the path of a picture"),
    "no picture": ({"image": [b"GIF89a", b""], "y": [0, 1]}, r"image, row 0\): not a picture"),
    "bytes": ({"x": fixed(ROWS), "y": [b"\xff"] * 6}, "not UTF-8"),
    "one-hot": ({"x": fixed(ROWS), "y": np.eye(3)[CLASSES].tolist()}, "argmax"),
    "lengths": ({"x": pa.array([[]] * 6, pa.list_(pa.float32())), "y": CLASSES}, "empty"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_columns_are_named(saved, name):
    columns, match = BAD[name]
    path = saved(columns)
    with pytest.raises(DataError, match=match) as caught:
        load(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"inputs_key": "z"}, "no column 'z' of inputs"),
        ({"label_column": "z"}, "no column 'z'"),
        ({"inputs_key": "word"}, "neither numbers nor pictures"),
        ({"image_size": (2, 2)}, "`image_size`"),
        ({"background": "black"}, "`background`"),
        ({"image_shape": (3, 3)}, "`image_shape`"),
    ],
)
def test_options_that_cannot_be_heeded_are_refused(saved, options, match):
    path = saved({"x": fixed(ROWS), "y": CLASSES, "word": CLASSES.astype(str)})
    with pytest.raises(DataError, match=match):
        load(path, **options)
    if "image_size" in options:  # a model says both of what it was fitted on
        assert load(path, **options, color="grey").inputs.shape == (6, 4)
        with pytest.raises(DataError, match=match):
            load(path, **options, color="rgb")
    if "image_shape" in options:
        with pytest.raises(DataError, match="holds pictures"):
            load(saved(encoded(pictures(), CLASSES)), **options)


def test_files_cut_off_or_damaged_are_refused(saved):
    path = saved({"x": fixed(ROWS.repeat(50, axis=1)), "y": CLASSES}, compression="none")
    whole = path.read_bytes()
    for kept in (0, 3, 100, len(whole) - 9):
        path.write_bytes(whole[:kept])
        with pytest.raises(DataError, match=r"a\.parquet"):
            load(path)
    for at in range(4, len(whole) - 8, 7):  # any byte may be wrong: a sentence, or other numbers
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
        with contextlib.suppress(DataError):
            load(path)


def test_a_table_that_claims_too_much_is_refused_without_memory(saved):
    rows = pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(64_000_000, np.uint8)), 1000)
    path = saved({"x": rows, "y": np.arange(64_000) % 2}, compression="zstd")
    assert path.stat().st_size < 320_000
    with pytest.raises(DataError, match="claim to expand"):
        load(path)


def test_metadata_that_is_no_json_says_nothing(saved):
    path = saved({"x": fixed(ROWS), "label": CLASSES}, metadata={"huggingface": "{"})
    assert load(path).class_names == ("0", "1", "2")


def test_two_columns_of_one_name_are_refused(saved):
    table = pa.Table.from_arrays([pa.array(CLASSES)] * 3, names=["a", "a", "y"])
    with pytest.raises(DataError, match="two columns 'a'"):
        load(saved(table))


def test_without_pyarrow_one_sentence_says_what_to_install(tmp_path, monkeypatch):
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(DataError, match=r"pip install 'jaxlin\[formats\]'"):
        load(tmp_path / "a.parquet")
