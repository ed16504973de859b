"""What a run folder says of a part of the data: rows without a score are counted, never right."""

import csv

import numpy as np
import pytest

from jaxlin import losses, models
from jaxlin.core import LinearParams
from jaxlin.data import Dataset
from jaxlin.preprocess import fit
from jaxlin.runs.folder import write_predictions
from jaxlin.runs.measures import measure, measure_in_blocks

INPUTS = np.array([[1.0, 0.0], [0.0, 1.0], [np.nan, 0.0], [0.0, np.nan]])
LABELS = np.array([0, 1, 0, 1], np.int32)


@pytest.fixture
def model_and_data():
    """A model whose scores are the inputs, and four rows of which two have no scores."""
    data = Dataset(INPUTS, LABELS, ("a", "b"), None, "four", "")
    params = LinearParams(np.eye(2), np.zeros(2))
    return models.Model(params, fit(INPUTS[:2], "none"), ("a", "b"), None, "softmax"), data


def test_rows_without_a_score_are_counted_and_never_right(model_and_data):
    model, data = model_and_data
    loss, scores = losses.softmax_cross_entropy, models.scores(model, data.inputs)
    whole, blocks = measure(model, data, loss, scores), measure_in_blocks(model, data, loss)
    for found in (whole, blocks):
        assert (found["n"], found["n_without_score"], found["accuracy"]) == (4, 2, 0.5)
        assert found["per_class"] == {"a": 0.5, "b": 0.5}
        assert np.isnan(found["loss"])
    assert whole["confusion"] == [[1, 0], [0, 1]]
    # both scored rows are right with confidence e / (e + 1)
    assert whole["calibration_error"] == pytest.approx(1 / (np.e + 1))


def test_a_row_without_a_score_has_no_predicted_class(model_and_data, tmp_path):
    model, data = model_and_data
    scores = models.scores(model, data.inputs)
    write_predictions(tmp_path / "predictions.csv", model, data, scores, split="test")
    with (tmp_path / "predictions.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["predicted"] for row in rows] == ["a", "b", "", ""]
    assert [row["probability"] for row in rows] == ["0.731059", "0.731059", "nan", "nan"]
