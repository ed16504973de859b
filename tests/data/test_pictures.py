"""Folders of pictures: every file is used, or named; one color mode; nothing shines through."""

import os
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from jaxlin import data
from jaxlin.core import DataError
from jaxlin.data import load, load_inputs, load_splits

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def picture(path, color=RED, size=(4, 4), mode=None, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    mode = mode or ("RGB" if isinstance(color, tuple) and len(color) == 3 else "L")
    Image.new(mode, size[::-1], color).save(path, **options)
    return path


def passed(found):
    return {kind.what: (kind.count, os.path.basename(kind.first)) for kind in found.passed_over}


def pixels(found, row=0):
    """Of the first pixel of a picture."""
    return np.asarray(data.as_images(found.inputs, found.image_shape))[row, 0, 0].tolist()


@pytest.fixture
def pets(tmp_path):
    root = tmp_path / "pets"
    for name, color in (("cat", RED), ("dog", BLUE)):
        picture(root / name / "1.png", color)
    return root


def test_every_format_is_read_and_the_rest_is_counted_once(pets):
    for ending in ["jpg", "jpeg", "jfif", "webp", "bmp", "tif", "tiff", "gif", "ppm"]:
        picture(pets / "cat" / f"x.{ending}", RED)
    for ending in ("pgm", "pbm"):
        picture(pets / "cat" / f"y.{ending}", 255)
    for name in ("a.txt", "b.txt", "README", "z.avif", ".hidden.txt", ".DS_Store"):
        (pets / "cat" / name).write_bytes(b"x")
    found = load(pets)
    assert np.bincount(found.labels).tolist() == [12, 1]
    assert passed(found) == {
        "`.txt` files": (2, "a.txt"),
        "files without an ending": (1, "README"),
        "`.avif` files": (1, "z.avif"),
    }
    names = load_inputs(pets)[0].names
    assert len(names) == 13
    for name, row in zip(names, load_inputs(pets)[0].inputs, strict=True):
        grey, right = name.endswith(("pgm", "pbm")), BLUE if "/dog/" in name else RED
        lossy = 3 if name.endswith(("jpg", "jpeg", "jfif", "webp")) else 0  # of 255, for JPEG
        np.testing.assert_allclose(row[::16], WHITE if grey else right, atol=lossy)


def test_many_kinds_of_other_files_are_still_one_short_list(pets):
    for number in range(20):
        (pets / "dog" / f"x.e{number:02d}").write_bytes(b"")
    (pets / "dog" / "second.e19").write_bytes(b"")
    found = load(pets).passed_over
    assert len(found) == 5
    assert sum(kind.count for kind in found) == 21
    assert found[0].what == "`.e19` files"


def test_what_lies_deeper_counts_for_its_class(tmp_path):
    for number in range(3):
        picture(tmp_path / "train" / "cat" / "deep" / f"s{number}" / "1.png")
    picture(tmp_path / "train" / "dog" / "1.png")
    picture(tmp_path / "train" / "loose.png")
    picture(tmp_path / "test" / "dog" / "a" / "b" / "c" / "1.png")
    train, _, test = load_splits(tmp_path)
    assert train.class_names == ("cat", "dog")
    assert train.labels.tolist() == [0, 0, 0, 1]
    assert test.labels.tolist() == [1]
    assert passed(train) == {"pictures outside of the class folders": (1, "loose.png")}
    parts = {part.split: part.names for part in load_inputs(tmp_path)}
    assert len(parts["train"]) == 5
    assert parts["test"] == [str(tmp_path / "test/dog/a/b/c/1.png")]


@pytest.mark.parametrize("name", ["val", "valid", "validation", "Val"])
def test_the_names_of_the_validation_split(tmp_path, name):
    for split in ("train", name, "Test"):
        for kind in ("cat", "dog"):
            picture(tmp_path / split / kind / "1.png")
    picture(tmp_path / name / "dog" / "2.png")
    train, validation, test = load_splits(tmp_path)
    assert [len(part.labels) for part in (train, validation, test)] == [2, 3, 2]
    assert [part.split for part in (train, validation, test)] == ["train", "validation", "test"]


def test_two_folders_of_one_split_and_folders_beside_the_splits(tmp_path, refused):
    for split in ("train", "val"):
        for kind in ("cat", "dog"):
            picture(tmp_path / split / kind / "1.png")
    (tmp_path / "masks").mkdir()
    (tmp_path / "README.md").write_text("x", encoding="utf-8")
    picture(tmp_path / "cover.png")
    told = {
        "folders beside the splits": (1, "masks"),
        "`.md` files": (1, "README.md"),
        "pictures outside of the splits": (1, "cover.png"),
    }
    assert passed(load(tmp_path)) == passed(load(tmp_path, split="validation")) == told
    picture(tmp_path / "valid" / "cat" / "1.png")
    refused(tmp_path, "both val and valid could be the validation split")


def test_an_empty_class_and_a_split_without_classes_are_refused(tmp_path, refused):
    picture(tmp_path / "train" / "cat" / "1.png")
    (tmp_path / "train" / "dog").mkdir()
    (tmp_path / "train" / "dog" / "a.txt").write_bytes(b"")
    refused(tmp_path, "train/dog: there are no pictures")
    picture(tmp_path / "train" / "dog" / "1.png")
    picture(tmp_path / "test" / "1.png")
    refused(tmp_path, "test: holds 1 pictures, but there are no class folders", split="test")
    assert [len(part.names) for part in load_inputs(tmp_path)] == [2, 1]
    refused(tmp_path / "test" / "1.png", "is one picture, without a label")


def test_a_class_name_that_is_not_text_is_refused(tmp_path, refused):
    picture(tmp_path / "cat" / "1.png")
    os.mkdir(os.fsencode(tmp_path) + b"/caf\xe9")
    refused(tmp_path, r"b'caf\\xe9' is not UTF-8")


def test_the_first_picture_of_several_is_read_and_said(pets):
    frames = [Image.new("RGB", (4, 4), color) for color in (GREEN, BLUE, RED)]
    for ending in ("gif", "png", "webp", "tif"):
        options = {"lossless": True} if ending == "webp" else {}
        path = pets / "cat" / f"0.{ending}"
        frames[0].save(path, save_all=True, append_images=frames[1:], **options)
        assert pixels(load_inputs(path)[0]) == list(GREEN)
    assert "4 the first of several in a file" in load(pets).notes[0]


# Grey and color


@pytest.mark.parametrize("where", ["train/cat/0.png", "train/dog/9.png", "test/cat/0.png"])
def test_one_grey_picture_anywhere_becomes_color(tmp_path, where):
    for split in ("train", "test"):
        for kind, color in (("cat", RED), ("dog", BLUE)):
            picture(tmp_path / split / kind / "1.png", color)
    grey = picture(tmp_path / where, 77)
    train, _, test = load_splits(tmp_path)
    assert train.image_shape == test.image_shape == (4, 4, 3)
    part = train if "train" in where else test
    assert any("1 grey read as color" in note for note in part.notes)
    own = load(tmp_path, split="train" if "train" in where else "test")
    row = 0 if where.endswith("0.png") else -1
    assert own.inputs[row].tolist() == [77] * 48
    assert pixels(load_inputs(grey)[0]) == 77


@pytest.mark.parametrize("colored", ["train", "val", "test"])
def test_splits_agree_on_color_whichever_is_asked(tmp_path, colored):
    for split in ("train", "val", "test"):
        for kind in ("cat", "dog"):
            picture(tmp_path / split / kind / "1.png", (1, 2, 3) if split == colored else 50)
    shapes = {load(tmp_path, split=s).image_shape for s in ("train", "validation", "test")}
    assert shapes == {(4, 4, 3)}
    assert {part.image_shape for part in load_inputs(tmp_path)} == {(4, 4, 3)}
    assert all(part.image_shape == (4, 4, 3) for part in load_splits(tmp_path))
    train = load(tmp_path, color="grey")
    assert train.image_shape == (4, 4)
    # ITU-R 601: 0.299 * 1 + 0.587 * 2 + 0.114 * 3 = 1.815
    assert train.inputs[0, 0] == (2 if colored == "train" else 50)


def test_all_grey_stays_grey_in_every_kind_of_file_and_rgb_can_be_asked(tmp_path):
    for kind in ("cat", "dog"):
        picture(tmp_path / kind / "1.png", 10)
        picture(tmp_path / kind / "2.gif", 20)
        picture(tmp_path / kind / "3.png", (30, 255), mode="LA")
        palette = Image.new("P", (4, 4), 1)
        palette.putpalette([0, 0, 0, 40, 40, 40])
        palette.save(tmp_path / kind / "4.png")
    assert load(tmp_path).image_shape == (4, 4)
    assert load(tmp_path).inputs[:, 0].tolist() == [10, 20, 30, 40] * 2
    assert load(tmp_path).notes == ()
    wide = load(tmp_path, color="rgb")
    assert wide.inputs.tolist() == np.tile(load(tmp_path).inputs, 3).tolist()


def test_hundreds_of_grey_rows_are_widened_in_place_when_color_comes_last(tmp_path):
    rng = np.random.default_rng(0)
    grey = rng.integers(0, 256, (500, 5, 3), np.uint8)
    (tmp_path / "a").mkdir()
    for number, values in enumerate(grey):
        Image.fromarray(values).save(tmp_path / "a" / f"{number:03d}.png")
    picture(tmp_path / "b" / "1.png", (9, 8, 7), size=(5, 3))
    found = load(tmp_path)
    assert found.inputs[:500].tolist() == np.tile(grey.reshape(500, 15), 3).tolist()
    assert found.inputs[500].tolist() == [9] * 15 + [8] * 15 + [7] * 15
    seen = []
    load(tmp_path, progress=lambda done, total: seen.append((done, total)))
    assert seen == sorted(seen)
    assert seen[-1] == (501, 501)


def test_the_size_is_that_of_the_first_training_picture_whichever_split_is_asked(tmp_path):
    for split, size in (("train", (3, 5)), ("test", (8, 8))):
        for kind in ("cat", "dog"):
            picture(tmp_path / split / kind / "1.png", size=size)
    found = load(tmp_path, split="test")
    assert found.image_shape == (3, 5, 3)
    assert found.notes == (f"{tmp_path.name}, test: of 2 pictures, 2 resized to 3x5.",)


# Transparency


def hidden(path, **save):
    """Red that alpha hides, beside a pixel that shows."""
    values = np.zeros((4, 4, 4), np.uint8)
    values[:, :] = (*RED, 0)
    values[3, 3] = (*GREEN, 255)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path, **save)
    return path


@pytest.mark.parametrize(
    ("background", "right"),
    [(None, WHITE), ("black", (0, 0, 0)), ("#0a141e", (10, 20, 30)), ("hsl(240, 100%, 50%)", BLUE)],
)
@pytest.mark.parametrize("ending", ["png", "webp", "tif"])
def test_what_alpha_hides_is_not_seen(tmp_path, background, right, ending):
    options = {"lossless": True, "exact": True} if ending == "webp" else {}
    path = hidden(tmp_path / f"x.{ending}", **options)
    how = {} if background is None else {"background": background}
    found = load_inputs(path, **how)[0]
    shown = data.as_images(found.inputs, found.image_shape)[0]
    assert shown[0, 0].tolist() == list(right)
    assert shown[3, 3].tolist() == list(GREEN)
    assert "1 with transparent pixels laid on " + (background or "white") in found.notes[0]


def test_palettes_color_keys_and_grey_with_alpha_are_laid_on_the_background(tmp_path):
    values = np.array([[0, 1], [2, 0]], np.uint8)
    palette = Image.new("P", (2, 2))
    palette.putdata(values.ravel().tolist())
    palette.putpalette([*RED, *GREEN, *BLUE])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name, options in {
            "bytes.png": {"transparency": bytes([0, 255, 128])},
            "index.png": {"transparency": 0},
            "index.gif": {"transparency": 0},
        }.items():
            palette.save(tmp_path / name, **options)
            found = load_inputs(tmp_path / name)[0]
            shown = np.asarray(data.as_images(found.inputs, found.image_shape))[0]
            assert shown[0, 0].tolist() == shown[1, 1].tolist() == list(WHITE)
            assert shown[0, 1].tolist() == list(GREEN)
            # half blue on white: 255 * (1 - 128 / 255) = 127
            assert shown[1, 0].tolist() == ([127, 127, 255] if name == "bytes.png" else list(BLUE))
    picture(tmp_path / "key.png", RED, transparency=RED)
    assert pixels(load_inputs(tmp_path / "key.png")[0]) == list(WHITE)
    picture(tmp_path / "grey.png", (10, 0), mode="LA")
    assert pixels(load_inputs(tmp_path / "grey.png")[0]) == 255
    assert pixels(load_inputs(tmp_path / "grey.png", background="red")[0]) == list(RED)


def test_alpha_that_is_opaque_everywhere_is_not_told(tmp_path):
    picture(tmp_path / "x.png", (1, 2, 3, 255), mode="RGBA")
    found = load_inputs(tmp_path / "x.png")[0]
    assert pixels(found) == [1, 2, 3]
    assert found.notes == ()


@pytest.mark.parametrize("background", ["nocolor", "#12", "#ff000080"])
def test_a_background_that_is_no_color_is_refused(pets, background):
    with pytest.raises(ValueError, match="`background` must be an opaque color"):
        load(pets, background=background)


# Links


def test_a_snapshot_of_links_into_blobs_is_read(tmp_path):
    snapshot = tmp_path / "hub" / "snapshots" / "1" / "train"
    for number, kind in enumerate(("cat", "dog")):
        blob = tmp_path / "hub" / "blobs" / f"{number:064x}"
        blob.parent.mkdir(exist_ok=True, parents=True)
        picture(tmp_path / "x.png", (number, 0, 0)).rename(blob)
        (snapshot / kind).mkdir(parents=True)
        (snapshot / kind / "1.png").symlink_to(os.path.relpath(blob, snapshot / kind))
    (tmp_path / "readme").write_text("x", encoding="utf-8")
    (snapshot / "README.md").symlink_to(tmp_path / "readme")
    found = load(snapshot.parent)
    assert found.inputs[:, 0].tolist() == [0, 1]
    assert passed(found) == {"`.md` files": (1, "README.md")}
    assert load_inputs(snapshot / "dog" / "1.png")[0].inputs[0, 0] == 1


def test_loops_and_dead_links_are_counted_and_end(pets):
    (pets / "cat" / "x.png").symlink_to("x.png")
    (pets / "cat" / "y.png").symlink_to("z.png")
    (pets / "cat" / "z.png").symlink_to("y.png")
    (pets / "cat" / "gone.png").symlink_to("/nowhere/gone.png")
    (pets / "cat" / "up").symlink_to("..")
    (pets / "cat" / "here").symlink_to(".")
    (pets / "cat" / "everything").symlink_to("/")
    (pets / "again").symlink_to(".")
    os.mkfifo(pets / "dog" / "pipe.png")
    found = load(pets)
    assert found.class_names == ("cat", "dog")
    assert len(found.labels) == 2
    assert passed(found) == {
        "links in a circle": (3, "x.png"),
        "dead links": (1, "gone.png"),
        "links to a folder that holds them": (4, "again"),
        "files that are no regular files": (1, "pipe.png"),
    }


def test_linked_folders_are_read_once_below_a_class(tmp_path):
    root, outside = tmp_path / "pets", tmp_path / "outside"
    picture(root / "cat" / "1.png")
    picture(outside / "deep" / "2.png")
    (outside / "back").symlink_to(root)
    (root / "cat" / "a").symlink_to(outside)
    (root / "cat" / "b").symlink_to(outside / "deep")
    (root / "dog").symlink_to(outside / "deep")  # another class: it counts there too
    found = load(root)
    assert np.bincount(found.labels).tolist() == [2, 1]
    assert passed(found) == {
        "folders that a link had led to before": (1, "b"),
        "links to a folder that holds them": (1, "back"),
    }


@pytest.mark.parametrize("target", ["x.png", "/nowhere"])
def test_a_picture_that_is_a_bad_link_is_one_sentence(tmp_path, target):
    (tmp_path / "x.png").symlink_to(target)
    with pytest.raises(DataError, match=r"x\.png"):
        load_inputs(tmp_path / "x.png")


# What decoders meet


def png16(path, mode, values):
    """A PNG of 16 bits a channel, of which Pillow writes only grey ones."""
    chunks = struct.pack(">IIBBBBB", *values.shape[1::-1], 16, {"L": 0, "RGB": 2}[mode], 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    content = b"\x89PNG\r\n\x1a\n"
    for kind, body in ((b"IHDR", chunks), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")):
        content += struct.pack(">I", len(body)) + kind + body
        content += struct.pack(">I", zlib.crc32(kind + body))
    path.write_bytes(content)


def test_color_of_16_bits_is_read_by_its_high_bytes_and_grey_is_refused(tmp_path):
    png16(tmp_path / "x.png", "RGB", np.full((2, 2, 3), 0x1234))
    found = load_inputs(tmp_path / "x.png")[0]
    assert pixels(found) == [0x12] * 3
    assert "1 of 16 bits a channel read by the high byte" in found.notes[0]
    png16(tmp_path / "y.png", "L", np.full((2, 2), 0x1234))
    with pytest.raises(DataError, match=r"y\.png: pixels of kind 'I;16' are not read.*uint16"):
        load_inputs(tmp_path / "y.png")


def test_pictures_are_turned_upright(tmp_path):
    values = np.zeros((4, 2), np.uint8)
    values[0, 0] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # the row 0 is at the right: turn clockwise
    for ending in ("png", "tif", "webp"):
        options = {"lossless": True} if ending == "webp" else {}
        path = tmp_path / f"x.{ending}"
        Image.fromarray(values).convert("RGB").save(path, exif=exif, **options)
        found = load_inputs(path)[0]
        assert found.image_shape == (2, 4, 3)
        assert data.as_images(found.inputs, found.image_shape)[0, :, :, 0].argmax() == 3


def sentence(path):
    """Of the refusal of a file, or nothing; any other exception comes through."""
    try:
        load_inputs(path, image_size=(16, 16))
    except DataError as error:
        return str(error)
    return None


@pytest.mark.parametrize("ending", ["png", "jpg", "webp", "bmp", "tif", "gif", "ppm"])
def test_any_damage_is_a_picture_or_one_sentence_with_the_name(tmp_path, ending):
    rng = np.random.default_rng(0)
    path = picture(tmp_path / f"x.{ending}", (1, 2, 3), size=(16, 16))
    whole = np.frombuffer(path.read_bytes(), np.uint8)
    for _ in range(40):
        content = whole.copy()
        places = rng.integers(0, len(content), rng.integers(1, 6))
        content[places] = rng.integers(0, 256, len(places))
        path.write_bytes(content[: rng.integers(1, len(content) + 1)].tobytes())
        told = sentence(path)
        assert told is None or (f"x.{ending}: " in told and "\n" not in told)


def test_processes_decode_as_threads_do(tmp_path, monkeypatch, refused):
    rng = np.random.default_rng(0)
    for row in range(150):  # more than two blocks of files
        (tmp_path / "ab"[row % 2]).mkdir(exist_ok=True)
        shape = (4, 5, 3) if row == 140 else (4, 5)
        pixels = rng.integers(0, 256, shape).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / "ab"[row % 2] / f"{row:03}.png")
    by_threads = load(tmp_path)
    monkeypatch.setattr("jaxlin.data.picture_rows.MANY", 100)
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    by_processes = load(tmp_path)
    np.testing.assert_array_equal(by_processes.inputs, by_threads.inputs)
    assert by_processes._replace(inputs=0, labels=0) == by_threads._replace(inputs=0, labels=0)
    (tmp_path / "a" / "100.png").write_bytes(b"no picture")
    refused(tmp_path, "100.png: not a picture")
