"""A table of names and labels beside pictures: every row is used, or named."""

import os

import numpy as np
import pytest
from PIL import Image

from jaxlin.core import DataError
from jaxlin.data import load, load_inputs, load_splits, splits_of


@pytest.fixture
def pets(tmp_path):
    """Pictures whose one pixel is their number: `1.png` to `4.png`, in the folder or below."""

    def make(where=".", count=4, first=1):
        folder = tmp_path / "pets" / where
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(first, first + count):
            Image.new("L", (1, 1), number).save(folder / f"{number}.png")
        return tmp_path / "pets"

    return make


def write(path, text, encoding="utf-8"):
    path.write_bytes(text.encode(encoding))
    return path


def rows(found):
    """The number of every picture, and its label by name."""
    names = [found.class_names[label] for label in found.labels]
    return list(zip(found.inputs[:, 0].tolist(), names, strict=True))


def passed(found):
    return {kind.what: (kind.count, os.path.basename(kind.first)) for kind in found.passed_over}


RIGHT = [(1, "dog"), (2, "cat"), (4, "cat")]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("labels.csv", "name,label\n1.png,dog\n2.png,cat\n4.png,cat\n"),
        ("labels.csv", "1.png,dog\n2.png,cat\n4.png,cat"),
        ("labels.csv", '"1.png","dog"\r\n\r\n2.png, cat \r\n4.png,"cat"\r\n'),
        ("labels.csv", "\ufeff1.png,dog\n2.png,cat\n4.png,cat\n"),
        ("labels.csv", "label;file\ndog;1\ncat;2\ncat;4\n"),
        ("labels.tsv", "id\tlabel\n1\tdog\n2\tcat\n4\tcat\n"),
        ("Labels.CSV", "class,image,note\ndog,./1.png,\ncat,2.png,x\ncat,4.png,\n"),
        ("anything.csv", ",path,label\n0,1.png,dog\n1,2.png,cat\n2,4.png,cat\n"),
    ],
)
@pytest.mark.parametrize("where", [".", "images", "a/b"])
@pytest.mark.parametrize("whole", [True, False])
def test_tables_of_every_style(pets, name, text, where, whole):
    root = pets(where)
    table = write(root / name, text)
    found = load(root if whole else table)
    assert rows(found) == RIGHT
    assert found.class_names == ("cat", "dog")
    assert passed(found) == {"pictures that no table names": (1, "3.png")}
    assert splits_of(root) == ("all",)


def test_the_encodings_of_spreadsheets(pets):
    root = pets()
    write(root / "labels.csv", "1.png\tdog\n2.png\tcafé\n", "utf-16")
    assert rows(load(root)) == [(1, "dog"), (2, "café")]
    write(root / "labels.csv", "1.png,dog\n2.png,cafe\u0301\n", "utf-8-sig")
    assert load(root).class_names == ("café", "dog")  # composed, as the names of folders are
    write(root / "labels.csv", "1.png,dog\n2.png,café\n", "latin-1")
    with pytest.raises(DataError, match=r"labels\.csv: is not UTF-8"):
        load(root)


def test_a_quoted_name_may_hold_the_separator_and_a_label_too(pets):
    root = pets()
    (root / "1.png").rename(root / "1,a.png")
    write(root / "labels.csv", '"1,a.png","dog, ""small"""\n2.png,cat\n')
    assert rows(load(root)) == [(1, 'dog, "small"'), (2, "cat")]


def test_integers_are_the_numbers_of_classes_as_in_arrays(pets):
    root = pets(count=12)
    write(root / "labels.csv", "".join(f"{n}.png,{n - 1}\n" for n in range(1, 13)))
    found = load(root)
    assert found.labels.tolist() == list(range(12))
    assert found.class_names == tuple(map(str, range(12)))
    write(root / "labels.csv", "".join(f"{n}.png,{n - 1:02d}\n" for n in range(1, 13)))
    assert load(root).class_names == tuple(f"{n:02d}" for n in range(12))


def test_numbers_as_names_and_as_labels_are_told_apart(pets):
    root = pets()
    write(root / "labels.csv", "label,id\n1,4\n2,1\n1,2\n2,3\n")
    assert rows(load(root)) == [(4, "1"), (1, "2"), (2, "1"), (3, "2")]


def test_a_title_that_is_also_the_name_of_a_picture(pets):
    root = pets()
    (root / "3.png").rename(root / "image.png")
    write(root / "labels.csv", "image,label\n1.png,dog\n2.png,cat\n")
    assert rows(load(root)) == RIGHT[:2]


def test_the_column_of_labels_by_name(pets, refused):
    root = pets()
    write(root / "labels.csv", "file,breed,color\n1.png,x,red\n2.png,y,blue\n3.png,x,blue\n")
    refused(root, "which column has the labels is not clear.*file, breed, color.*`label_column`")
    assert load(root, label_column="color").class_names == ("blue", "red")
    assert load(root, label_column="breed").labels.tolist() == [0, 1, 0]
    refused(root, "not clear", label_column="bread")
    write(root / "labels.csv", "file,breed,Label\n1.png,x,red\n2.png,y,blue\n3.png,x,blue\n")
    assert load(root).class_names == ("blue", "red")


def test_a_table_for_each_split_prefers_the_folder_of_its_name(pets):
    root = pets("train", count=2)
    pets("test", count=2)
    Image.new("L", (1, 1), 99).save(root / "test" / "1.png")
    write(root / "train.csv", "1.png,cat\n2.png,dog\n")
    write(root / "test_labels.csv", "1.png,dog\n")
    train, validation, test = load_splits(root)
    assert rows(train) == [(1, "cat"), (2, "dog")]
    assert validation is None
    assert rows(test) == [(99, "dog")]
    assert passed(train) == passed(test) == {"pictures that no table names": (1, "2.png")}
    parts = load_inputs(root)
    assert [(part.split, len(part.names)) for part in parts] == [("train", 2), ("test", 1)]
    assert rows(load(root / "test_labels.csv", split="test"))[0][0] == 99


def test_a_column_of_splits(pets, refused):
    root = pets()
    table = write(root / "l.csv", "f,label,Split\n1,a,train\n2,b,Train\n3,b,val\n4,a,test\n")
    train, validation, test = load_splits(table)
    assert rows(train) == [(1, "a"), (2, "b")]
    assert (rows(validation), rows(test)) == ([(3, "b")], [(4, "a")])
    assert [part.split for part in load_inputs(root)] == ["train", "validation", "test"]
    write(table, "f,label,split\n1,a,train\n2,b,train\n3,b,fold2\n")
    refused(root, "row 4: the split 'fold2' is none of")


def test_a_test_table_without_labels_is_read_by_a_prediction_alone(pets, refused):
    root = pets()
    write(root / "train.csv", "id,label\n1,a\n2,b\n")
    write(root / "test.csv", "id\n3\n4\n")
    assert rows(load(root, label_column="label")) == [(1, "a"), (2, "b")]
    refused(root, r"test\.csv: has names of pictures and no labels", split="test")
    names = {part.split: part.names for part in load_inputs(root)}
    assert names["test"] == [str(root / "3.png"), str(root / "4.png")]


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("n,label\n1.png,a\n9.png,b\n", r"row 3: there is no picture '9\.png'"),
        ("1.png,a\n\n\n9,b\n", "row 4: there is no picture '9'"),
        ("9.png,a\n1.png,b\n", r"row 1: there is no picture '9\.png'"),
        ("9,a\n1,b\n2,a\n", "row 1 .*is no header"),
        ("9,0\n1,1\n2,2\n", "row 1 .*is no header"),
        ("1.png,a\n2.png,b\n1.png,b\n", r"row 3 labels .*1\.png as 'b', and row 1 as 'a'"),
        ("1.png,a\n1,b\n2,a\n", r"row 2 labels .*1\.png as 'b', and row 1 as 'a'"),
        ("1.png,a\n2.png,\n", r"row 2: 2\.png has no label"),
        ("1.png,a\n2.png\n", "row 2 has 1 cells, and row 1 2"),
        ("1.png,a\n2.png,b,c\n", "row 2 has 3 cells"),
        ("1.png,a\n../pets/2.png,b\n", "row 2: '../pets/2.png' leads out"),
        ("1.png,a\n/etc/x.png,b\n", "row 2: '/etc/x.png' leads out"),
        ("1.png,a\n..\\x.png,b\n", "row 2: .* leads out"),
        ("1.png,a\nC:\\x.png,b\n", "row 2: .* leads out"),
        ("1.png,a\nsub/../../2.png,b\n", "leads out"),
        ("1.png,a\nnotes.txt,b\n", r"row 2: 'notes\.txt' is no picture of a kind"),
        ("1.png,a\n2.png,a\n", "one class"),
        ('1.png,"a\n2.png,b\n', "is no table"),
        ("", "is empty"),
        ("name,label\n", "names no picture"),
        ("1.png\n2.png\n", "no labels"),
        ("1.png,a\0\n", "zero bytes"),
        ("f,label,split\n1.png,a,train\n2.png,b,train\n1.png,a,test\n", "row 4 names .* for test"),
    ],
)
def test_a_row_that_cannot_be_used_is_named(pets, refused, text, match):
    root = pets()
    write(root / "notes.txt", "x")
    write(root / "labels.csv", text)
    refused(root, match)
    refused(root / "labels.csv", match)


def test_names_that_fit_several_pictures_are_refused_and_the_nearest_wins(pets, refused):
    root = pets("a", count=2)
    pets("b", count=2)
    table = write(root / "labels.csv", "1,x\n2,y\n")
    refused(table, "row 1: '1' could be .*a/1.png or .*b/1.png")
    write(table, "a/1,x\nb/2.png,y\n")
    assert rows(load(table)) == [(1, "x"), (2, "y")]
    Image.new("L", (1, 1), 7).save(root / "1.png")
    write(table, "1,x\nb/2,y\n")
    assert rows(load(table)) == [(7, "x"), (2, "y")]


def test_a_row_that_comes_again_counts_once_and_is_said(pets):
    root = pets()
    write(root / "labels.csv", "1.png,a\n2.png,b\n1,a\n")
    found = load(root)
    assert rows(found) == [(1, "a"), (2, "b")]
    assert "1 rows name a picture again" in found.notes[0]


def test_which_folders_are_tables(pets, refused):
    root = pets("cat", count=1)
    pets("dog", count=2)
    write(root / "extra.csv", "name,y\ncat/1,0\ndog/1,1\ndog/2,1\n")
    found = load(root)  # class folders come first
    assert found.labels.tolist() == [0, 1, 1]
    assert passed(found) == {"`.csv` files": (1, "extra.csv")}
    assert load(root, label_column="y").class_names == ("0", "1")  # unless the table is asked for
    flat = pets("flat")
    write(flat / "flat" / "one.csv", "1,a\n2,b\n")
    write(flat / "flat" / "two.csv", "1,a\n2,b\n")
    refused(flat / "flat", r"several tables could hold the labels \(one\.csv, two\.csv\)")
    assert rows(load(flat / "flat" / "two.csv")) == [(1, "a"), (2, "b")]


def test_a_prediction_on_a_folder_takes_every_picture_and_on_a_table_its_rows(pets):
    root = pets()
    table = write(root / "labels.csv", "2,a\n1,b\n")
    assert len(load_inputs(root)[0].names) == 4
    assert load_inputs(table)[0].inputs[:, 0].tolist() == [2, 1]


def test_color_transparency_and_size_are_those_of_folders(pets):
    root = pets()
    Image.new("RGBA", (2, 2), (255, 0, 0, 0)).save(root / "4.png")
    write(root / "labels.csv", "1,a\n4,b\n")
    found = load(root, background="blue")
    assert found.image_shape == (1, 1, 3)
    assert found.inputs.tolist() == [[1, 1, 1], [0, 0, 255]]
    assert "1 grey read as color, 1 with transparent pixels laid on blue" in found.notes[0]


def test_pictures_behind_links_and_a_table_behind_one(pets, tmp_path):
    root = pets()
    hub = tmp_path / "hub"
    hub.mkdir()
    table = write(tmp_path / "blob", "1,a\n2,b\n")
    (hub / "labels.csv").symlink_to(table)
    (hub / "images").symlink_to(root)
    found = load(hub)
    assert rows(found) == [(1, "a"), (2, "b")]
    assert found.inputs.dtype == np.uint8


def test_the_option_is_for_tables_alone(pets):
    root = pets("cat")
    pets("dog")
    with pytest.raises(ValueError, match="`label_column` is for tables"):
        load(root, label_column="label")
