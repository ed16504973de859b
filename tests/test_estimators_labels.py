"""Labels of any one type that sorts are classes; a label that is missing is none."""

import datetime
from decimal import Decimal

import numpy as np
import pytest
from sklearn.datasets import load_iris
from sklearn.metrics import accuracy_score

from jaxlin.estimators import MulticlassSVMClassifier, SoftmaxClassifier, SoftmaxClassifierCV
from jaxlin.estimators.labels import plain_labels

X, Y = load_iris(return_X_y=True)
DAYS = [datetime.date(2026, 11, day) for day in (1, 2, 30)]
STRING = np.dtypes.StringDType
KINDS = {
    "bytes": [b"a", b"b", b"c"],
    "dates": DAYS,
    "decimals": [Decimal("0.1"), Decimal("0.2"), Decimal("1")],
    "python floats": [0.0, 1.0, 2.0],
    "large integers": [2**70, 2**70 + 1, 2**71],
    "nearly equal integers": [-1, 2**63, 2**63 + 1],  # NumPy makes one float64 of the last two
    "python bools": [False, True, True],
    "python integers": [3, 4, 5],
    "strings": ["x", "y", "z"],
    "strings with zeros": ["x", "x\0", "x\0\0"],  # alike in NumPy's strings of a fixed length
    "tuples": [(0, "b"), (1, "a"), (1, "b")],
}


def objects(values):
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


@pytest.mark.parametrize("values", KINDS.values(), ids=list(KINDS))
def test_what_sorts_is_a_class(values):
    """Whatever they are called, classes are numbered in their order: the fit is that of numbers."""
    names = objects([values[k] for k in Y])
    numbers = np.array([sorted(set(values)).index(value) for value in names])
    ours, plain = SoftmaxClassifier().fit(X, names), SoftmaxClassifier().fit(X, numbers)
    assert ours.classes_.tolist() == sorted(set(values))
    np.testing.assert_array_equal(ours.coef_, plain.coef_)
    predicted = [sorted(set(values))[k] for k in plain.predict(X)]
    assert ours.predict(X).tolist() == predicted
    assert ours.score(X, names) == accuracy_score(numbers, plain.predict(X))
    weights = np.arange(150.0)
    assert ours.score(X, names, weights) == pytest.approx(plain.score(X, numbers, weights))
    pieces = SoftmaxClassifier(random_state=0).partial_fit(X, names, classes=objects(values))
    again = SoftmaxClassifier(random_state=0).partial_fit(X, numbers, classes=np.unique(numbers))
    np.testing.assert_array_equal(pieces.coef_, again.coef_)


@pytest.mark.parametrize("values", [DAYS, KINDS["bytes"], KINDS["strings"]], ids=str)
def test_cross_validation_takes_them_too(values):
    names = np.array(values)[Y]
    ours, plain = (SoftmaxClassifierCV([0.01, 1.0], cv=3).fit(X, y) for y in (names, Y))
    np.testing.assert_array_equal(ours.scores_, plain.scores_)
    assert ours.score(X, names) == plain.score(X, Y)
    assert ours.predict(X).tolist() == np.array(values)[plain.predict(X)].tolist()


def test_numbers_in_an_object_array_are_numbers_for_scikit_learn_too():
    for values, kind in ((KINDS["python integers"], "i"), (KINDS["python bools"], "b")):
        model = SoftmaxClassifier().fit(X, objects(values)[Y])
        assert model.predict(X).dtype.kind == kind
        assert accuracy_score(np.array(values)[Y], model.predict(X)) > 0.9


@pytest.mark.parametrize("missing", [None, float("nan")], ids=str)
def test_numpys_strings_of_any_length(missing):
    names = np.array(["long " * 9, "y", "z"])[Y].astype(STRING(na_object=missing))
    model = SoftmaxClassifier().fit(X, names)
    assert model.classes_.tolist() == ["long " * 9, "y", "z"]
    assert model.score(X, names) > 0.9
    names[3] = missing
    with pytest.raises(ValueError, match="no label at row 3"):
        model.fit(X, names)


MISSING = [None, float("nan"), np.datetime64("NaT"), Decimal("nan"), Decimal("snan")]


@pytest.mark.parametrize("missing", MISSING, ids=repr)
@pytest.mark.parametrize("values", [KINDS["strings"], KINDS["python integers"]], ids=["a", "0"])
def test_a_missing_label_is_no_class(values, missing):
    names = objects(values)[Y]
    names[[3, 70]] = missing
    words = r"`y` has no label at row 3, got .*; so it is in 2 of 150 rows. Drop them"
    with pytest.raises(ValueError, match=words):
        SoftmaxClassifier().fit(X, names)
    with pytest.raises(ValueError, match=words):
        SoftmaxClassifierCV(cv=3).fit(X, names.tolist())
    with pytest.raises(ValueError, match="`classes` has no label at row 1"):
        MulticlassSVMClassifier().partial_fit(X, Y, classes=[values[0], missing])


def test_times_that_are_none():
    times = np.array(["2026-11-01", "2026-11-02", "2026-11-30"], "M8[D]")[Y]
    assert SoftmaxClassifier().fit(X, times).score(X, times) > 0.9
    times[9] = "NaT"
    with pytest.raises(ValueError, match="no label at row 9"):
        SoftmaxClassifier().fit(X, times)


def test_frames_keep_the_type_of_their_labels():
    pandas = pytest.importorskip("pandas")
    for values, dtype in (
        ([0, 1, 2], "Int64"),
        ([False, True, True], "boolean"),
        ("xyz", "string"),
    ):
        series = pandas.Series(np.array(list(values))[Y], dtype=dtype)
        model = SoftmaxClassifier().fit(X, series)
        assert model.classes_.tolist() == sorted(set(values))
        series[3] = pandas.NA
        with pytest.raises(ValueError, match="no label at row 3"):
            model.fit(X, series)
    names = objects("xyz")[Y]
    names[4] = pandas.NA
    with pytest.raises(ValueError, match="no label at row 4, got <NA>"):
        SoftmaxClassifier().fit(X, names)


@pytest.mark.parametrize(
    ("values", "error", "words"),
    [
        (["a", "b", 7], TypeError, "mixes labels of the types int and str: classes need one"),
        ([b"a", "b", "c"], TypeError, "mixes labels of the types bytes and str"),
        ([{}, {}, {}], TypeError, "labels of the type dict, which cannot be put in order"),
        ([0.1, 0.2, 0.3], ValueError, "continuous"),
    ],
    ids=str,
)
def test_what_does_not_sort_is_refused(values, error, words):
    names = [values[k] for k in Y]
    with pytest.raises(error, match=words):
        SoftmaxClassifier().fit(X, names)
    with pytest.raises(error, match=words):
        SoftmaxClassifier().fit(X, objects(names))


def test_complex_numbers_have_no_order():
    with pytest.raises(ValueError, match="Complex data not supported: `y` holds complex numbers"):
        SoftmaxClassifier().fit(X, Y * 1j)


def test_a_column_of_labels_is_a_vector_and_is_said_to_be_one():
    from sklearn.exceptions import DataConversionWarning

    with pytest.warns(DataConversionWarning, match="column-vector"):
        found = plain_labels(objects(KINDS["python integers"])[Y][:, None])
    assert found.shape == (150,)
    assert found.dtype.kind == "i"
