"""What a command reads: the rows that are judged, their scale, their layout, and idle options."""

import csv
import io
import json

import numpy as np
import pytest
from PIL import Image

from jaxlin import models
from jaxlin.data import as_images, load

QUICK = ("--steps", "60", "--batch-size", "16")


def pictures(count=40, seed=0, *, color=True):
    """(N, 6, 6[, 3]) uint8 and labels: the classes differ in which half is bright, and of color.

    Every row of a flattened picture holds other pixels in another layout, so that a model which
    mistook the layout would be right about as often as by chance.
    """
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 4
    found = rng.integers(0, 90, (count, 6, 6, 3))
    found[labels == 0, :3, :, 0] += 160
    found[labels == 1, 3:, :, 0] += 160
    found[labels == 2, :3, :, 2] += 160
    found[labels == 3, 3:, :, 2] += 160
    found[0, 0, 0] = 255
    return (found if color else found[..., 0]).astype(np.uint8), labels


def save_pictures(folder, found, labels, names="abcd"):
    for row, (picture, label) in enumerate(zip(found, labels, strict=True)):
        (folder / names[label]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(folder / names[label] / f"{row:03}.png")


def accuracy(jaxlin, run, *words):
    done = jaxlin("evaluate", run, *words, "--json")
    assert done.code == 0, done.err
    return done.json["accuracy"], done.json["split"], done.json["n"]


@pytest.fixture
def train(jaxlin):
    """`train(data, *words)` into a folder named after the data."""

    def fit(data, *words, out="run"):
        done = jaxlin("train", "--data", data, *QUICK, "--validation", "0", "--out", out, *words)
        assert done.code == 0, done.err
        return done

    return fit


def test_evaluate_judges_the_validation_rows_of_a_folder_without_a_test(jaxlin, train, tmp_path):
    found, labels = pictures()
    save_pictures(tmp_path / "pets/train", found, labels)
    other, classes = pictures(12, seed=1)
    save_pictures(tmp_path / "pets/val", other, classes)
    said = train("pets")
    assert "test 12 (the validation split, there is no other)" in said.err
    data = json.loads((tmp_path / "run/results.json").read_text(encoding="utf-8"))["data"]
    assert data["splits"]["test"] == {"split": "validation", "n": 12}
    assert accuracy(jaxlin, "run", "--data", "pets") == (1.0, "validation", 12)
    assert accuracy(jaxlin, "run") == (1.0, "validation", 12)
    assert accuracy(jaxlin, "run", "--data", "pets", "--split", "train") == (1.0, "train", 40)
    assert "the validation split, 12 examples" in jaxlin("evaluate", "run").out


def test_evaluate_refuses_rows_that_are_only_for_training(jaxlin, train):
    found, labels = pictures()
    np.savez("only.npz", X_train=found, y_train=labels, class_names=list("abcd"))
    train("only.npz")
    sentence = jaxlin("evaluate", "run", "--data", "only.npz").refused()
    assert "no test or validation split" in sentence
    assert "--split train" in sentence
    assert "--data, or --split train" in jaxlin("evaluate", "run").refused()
    assert accuracy(jaxlin, "run", "--split", "train") == (1.0, "train", 40)
    assert "no validation split" in jaxlin("evaluate", "run", "--split", "validation").refused()


def test_predict_names_the_rows_of_every_split(jaxlin, train):
    found, labels = pictures()
    other, classes = pictures(7, seed=1)
    np.savez("both.npz", inputs=found, labels=labels, test_inputs=other, test_labels=classes)
    train("both.npz")
    rows = list(csv.DictReader(io.StringIO(jaxlin("predict", "run", "both.npz").out)))
    assert len(rows) == 47
    assert [rows[i]["input"] for i in (0, 39, 40, 46)] == [
        *("both.npz:train[0]", "both.npz:train[39]", "both.npz:test[0]", "both.npz:test[6]")
    ]
    assert [int(row["class"]) for row in rows] == [*labels, *classes]
    alone = jaxlin("predict", "run", "both.npz", "--split", "test").out
    assert alone.splitlines()[1:] == jaxlin("predict", "run", "both.npz").out.splitlines()[41:]


def test_the_digits_are_recognized_on_any_scale(jaxlin, trained, tmp_path):
    test = load("digits", split="test")
    right = trained["test"]["accuracy"]
    grey = as_images(test.inputs, test.image_shape).astype(float)
    save_pictures(tmp_path / "png", np.round(grey * 255 / 16).astype(np.uint8), test.labels,
                  "0123456789")  # fmt: skip
    for name, pixels in (
        ("unit.npz", (grey / 16).astype(np.float32)),
        ("wide.npz", np.round(grey * 65535 / 16).astype(np.uint16)),
        ("bytes.npz", np.round(grey * 255 / 16).astype(np.uint8)),
        ("counts.npz", np.round(grey * 255 / 16).astype(np.int64)),
        ("same.npz", grey.astype(np.uint8)),
        ("sklearn.npz", grey),
    ):
        np.savez(name, inputs=pixels, labels=test.labels)
        # A pixel is rounded by half of 255 levels at most: at most one row may change sides.
        assert accuracy(jaxlin, "run", "--data", name)[0] == pytest.approx(right, abs=1.1 / 355)
    assert accuracy(jaxlin, "run", "--data", "png")[0] == pytest.approx(right, abs=1.1 / 355)
    np.savez("dark.npz", inputs=np.full_like(grey, 3), labels=test.labels)
    assert "nothing tells" in jaxlin("evaluate", "run", "--data", "dark.npz").refused()
    np.savez("stars.npz", inputs=grey * 1000, labels=test.labels)
    sentence = jaxlin("evaluate", "run", "--data", "stars.npz").refused()
    assert "from 0 to 16000" in sentence
    assert "floats from 0 to 1" in sentence


def test_pixels_of_every_known_type_mean_the_same(jaxlin, train, tmp_path):
    found, labels = pictures()
    save_pictures(tmp_path / "png", found, labels)
    same = {
        "png": None,
        "bytes.npz": found,
        "wide.npz": found.astype(np.uint16) * 257,
        "unit.npz": (found / 255).astype(np.float32),
        "double.npz": found / 255,
        "floats.npz": found.astype(np.float32),
    }
    for name, pixels in same.items():
        if pixels is not None:
            np.savez(name, inputs=pixels, labels=labels, class_names=list("abcd"))
    for name in ("png", "wide.npz", "unit.npz"):
        train(name, out=f"run-{name}")
        values = []
        for other in same:
            assert accuracy(jaxlin, f"run-{name}", "--data", other)[0] == 1.0, (name, other)
            done = jaxlin("evaluate", f"run-{name}", "--data", other, "--json")
            values.append(done.json["loss"])
        # A float32 pixel is off by 2**-24 of itself, a score by as much of its terms.
        np.testing.assert_allclose(values, values[0], rtol=1e-4)
    np.savez("normal.npz", inputs=(found - 100.0) / 50, labels=labels, class_names=list("abcd"))
    assert "nothing tells" in jaxlin("evaluate", "run-png", "--data", "normal.npz").refused()
    train("normal.npz", out="run-normal")
    assert "nothing tells" in jaxlin("predict", "run-normal", "png/a/000.png").refused()
    assert accuracy(jaxlin, "run-normal", "--data", "normal.npz")[0] == 1.0


def test_a_test_set_of_another_scale_is_brought_to_that_of_the_training_set(train, tmp_path):
    found, labels = pictures()
    save_pictures(tmp_path / "png", found, labels)
    np.savez("unit.npz", inputs=found / 255, labels=labels, class_names=list("abcd"))
    said = train("png", "--test", "unit.npz")
    assert "scaled to 255" in said.err
    results = json.loads((tmp_path / "run/results.json").read_text(encoding="utf-8"))
    assert results["test"]["accuracy"] == 1.0
    # The test set is the training set, and 255 * (x / 255) is x to one part in 2**23.
    assert results["test"]["loss"] == pytest.approx(results["train"]["loss"], rel=1e-4)


def test_a_model_of_an_older_version_says_what_it_lacks(jaxlin, train, tmp_path):
    found, labels = pictures()
    np.savez("bytes.npz", inputs=found, labels=labels)
    train("bytes.npz")
    path = tmp_path / "run/model.safetensors"
    models.save(path, models.load(path)._replace(pixels=None))
    done = jaxlin("evaluate", "run", "--data", "bytes.npz")
    assert done.code == 0
    assert "does not tell the range" in done.err


@pytest.mark.parametrize("layout", ["last", "first"])
def test_rows_are_pictures_only_by_their_shape(jaxlin, train, tmp_path, layout):
    found, labels = pictures()
    save_pictures(tmp_path / "png", found, labels)
    before = found if layout == "last" else found.transpose(0, 3, 1, 2)
    rows, shape = before.reshape(40, -1), before.shape[1:]
    names = list("abcd")
    np.savez("rows.npz", inputs=rows, labels=labels, class_names=names)
    train("rows.npz")
    sentence = jaxlin("evaluate", "run", "--data", "png").refused()
    assert "--image-shape" in sentence
    assert "--image-shape" in jaxlin("predict", "run", "png/a/000.png").refused()
    np.savez("shaped.npz", inputs=rows, labels=labels, class_names=names, image_shape=shape)
    train("shaped.npz", out="shaped")
    assert accuracy(jaxlin, "shaped", "--data", "png")[0] == 1.0
    train("rows.npz", "--image-shape", *map(str, shape), out="given")
    assert accuracy(jaxlin, "given", "--data", "png")[0] == 1.0
    same = [(tmp_path / run / "model.safetensors").read_bytes() for run in ("shaped", "given")]
    assert same[0] == same[1]
    assert "order of pixels" in jaxlin("evaluate", "given", "--data", "rows.npz").refused()
    words = ("--data", "rows.npz", "--image-shape", *map(str, shape))
    assert accuracy(jaxlin, "given", *words)[0] == 1.0
    wrong = jaxlin("train", "--data", "rows.npz", "--image-shape", "6", "6", "--out", "no")
    assert "a product of 108" in wrong.refused()


IDLE = [
    ("mine.npz", "--labels", "nowhere.npy"),
    ("mine.npz", "--data-dir", "."),
    ("mine.npz", "--image-size", "8"),
    ("mine.npz", "--color", "grey"),
    ("mine.npz", "--label-column", "y"),
    ("mine.npz", "--test", "mine.npz", "--test-labels", "nowhere.npy"),
    ("png", "--labels", "nowhere.npy"),
    ("png", "--data-dir", "."),
    ("png", "--image-shape", "6", "6", "3"),
    ("png", "--inputs-key", "x"),
    ("rows.npy", "--image-size", "8"),
    ("rows.npy", "--inputs-key", "x"),
    ("rows.npy", "--background", "red"),
    ("digits", "--labels", "nowhere.npy"),
    ("digits", "--image-shape", "8", "8"),
]


@pytest.mark.parametrize("words", IDLE, ids=" ".join)
def test_an_option_that_says_nothing_is_refused(jaxlin, arrays, tmp_path, words):
    found, labels = pictures(8)
    save_pictures(tmp_path / "png", found, labels)
    np.save("rows.npy", arrays[0])
    np.save("labels.npy", arrays[1])
    option = next(word for word in reversed(words) if word.startswith("--"))
    sentence = jaxlin("train", "--data", *words, "--out", "run").refused()
    assert option in sentence
    assert "Leave it out" in sentence
    assert not (tmp_path / "run").exists()
    if "--test" not in words:
        landscape = jaxlin("landscape", "--data", *words, "--out", "run").refused()
        assert option in landscape


BESIDE = (
    ("train --margin 2", "softmax has none"),
    ("train --regularizer none --strength 1", "--strength weighs"),
    ("sweep --regularizer none --strengths 1 2", "--strengths weighs"),
    ("train --tolerance 1e-2 --optimizer sgd", "--optimizer belongs to minibatch"),
    ("train --tolerance 1e-2 --batch-size 8", "--batch-size belongs to minibatch"),
    ("sweep --tolerance 1e-2 --schedule linear", "--schedule belongs to minibatch"),
    ("evaluate run --labels x.npy", "--labels is for"),
    ("evaluate run --image-shape 8 8", "--image-shape says how data are read"),
    ("evaluate run --data digits --labels x.npy", "--labels is for"),
    ("predict run digits --labels x.npy", "--labels is for"),
    ("landscape run --labels x.npy", "--labels says how data are read"),
    ("landscape run --image-size 4", "--image-size says how data are read"),
    ("landscape run --start run", "--start is where a line to a run begins"),
    ("landscape run --kind trajectory --directions hessian", "--directions is for a ray"),
    ("landscape run --kind ray --surface", "--surface is of a plane"),
    ("gradcheck --function m:f --data digits", "`--data` is for the gradient"),
    ("gradcheck --function m:f --limit 3", "`--limit` is for the gradient"),
)


def test_an_option_beside_what_it_has_no_meaning_for_is_refused(jaxlin, trained):
    for words, sentence in BESIDE:
        assert sentence in jaxlin(*words.split()).refused()


def test_evaluate_says_when_rows_were_trained_on(jaxlin, train):
    found, labels = pictures()
    np.savez("mine.npz", inputs=found, labels=labels)
    train("mine.npz")
    note = "the very rows that the run was trained on"
    assert note in jaxlin("evaluate", "run", "--data", "mine.npz").err
    assert note in " ".join(jaxlin("evaluate", "run", "--data", "mine.npz", "--json").json["notes"])
    other, classes = pictures(seed=1)
    np.savez("other.npz", inputs=other, labels=classes)
    assert note not in jaxlin("evaluate", "run", "--data", "other.npz").err
