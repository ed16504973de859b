"""`jaxlin.runs`: what a command writes, from Python."""

import inspect
import json
import os
import signal
from pathlib import Path

import jax
import numpy as np
import pytest

import jaxlin
from jaxlin import runs, train
from jaxlin.cli import main
from jaxlin.core import DataError

QUICK = {"steps": 40, "batch_size": 64}
WORDS = ("--steps", "40", "--batch-size", "64", "-q")


@pytest.fixture(autouse=True, scope="module")
def _blank_pictures(white_pixel):
    """Drawing takes longer than these runs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("matplotlib.figure.Figure.savefig", white_pixel)
        yield


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """The same run by the command and from Python: its folder, and the `Run`."""
    folder = tmp_path_factory.mktemp("both")
    assert main(["train", *WORDS, "--out", str(folder / "command")]) == 0
    return folder / "command", runs.train("digits", out=folder / "python", **QUICK)


@pytest.fixture(scope="module")
def arrays():
    """Sixty separable examples of three classes, and a tidy test set of thirty."""
    rng = np.random.default_rng(0)
    labels = np.arange(90) % 3
    inputs = rng.normal(0, 0.3, (90, 5)) + 3 * np.eye(5)[labels]
    return (inputs[:60], labels[:60]), (inputs[60:], labels[60:])


@pytest.fixture(scope="module")
def certified(arrays, tmp_path_factory):
    folder = tmp_path_factory.mktemp("certified") / "run"
    options = {"tolerance": 1e-4, "preprocess": "none", "out": folder}
    return runs.train(arrays[0], test=arrays[1], **options)


def timeless(path):
    """A JSON file without what a clock says."""
    found = json.loads(path.read_text(encoding="utf-8"))
    found.pop("seconds", None)
    return found


def untimed(history):
    return [{name: record[name] for name in record if name != "seconds"} for record in history]


def test_the_folder_is_the_command_s(both):
    command, run = both
    names = {path.name for path in command.iterdir()} - {".lock"}
    assert {path.name for path in run.folder.iterdir()} - {".lock"} == names
    for name in ("model.safetensors", "predictions.csv", "config.json"):
        assert (run.folder / name).read_bytes() == (command / name).read_bytes()
    assert timeless(run.folder / "results.json") == timeless(command / "results.json")


def test_a_run_has_what_its_files_hold(both):
    command, run = both
    assert run.results == json.loads((run.folder / "results.json").read_text(encoding="utf-8"))
    assert run.report == run.folder / "report.html"
    assert run.report.is_file()
    assert run.model.params.weights.shape == (10, 64)
    assert [record["epoch"] for record in run.history] == sorted({r["epoch"] for r in run.history})
    opened = runs.open(str(command))
    assert untimed(opened.history) == untimed(run.history)
    np.testing.assert_array_equal(opened.model.params.weights, run.model.params.weights)


def test_a_run_shows_itself_without_its_arrays(both, certified):
    for run in (both[1], certified):
        text = repr(run)
        assert len(text.splitlines()) <= 10
        assert str(run.model.params.weights.shape) in text
        assert f"accuracy {run.results['test']['accuracy']:.4f}" in text
        html = run._repr_html_()
        assert html.count("data:image/png;base64,") == (2 if run is both[1] else 1)
        assert "<script" not in html
        assert "http" not in html
        assert str(run.results["test"]["n"]) in html
    assert f"relative gap {certified.results['relative_gap']:.1e}" in repr(certified)


def test_arrays_in_hand_are_those_of_a_file(certified, arrays, tmp_path):
    (inputs, labels), test = arrays
    np.savez(
        tmp_path / "mine.npz",
        inputs=inputs,
        labels=labels,
        test_inputs=test[0],
        test_labels=test[1],
    )
    options = {"tolerance": 1e-4, "preprocess": "none", "out": tmp_path / "file"}
    run = runs.train(tmp_path / "mine.npz", **options)
    one, two = (each.folder / "model.safetensors" for each in (run, certified))
    assert one.read_bytes() == two.read_bytes()
    assert certified.results["relative_gap"] <= 1e-4
    for part in ("train", "validation", "test"):
        assert run.results[part] == certified.results[part]


def test_inputs_in_hand_are_classified_and_measured(certified, arrays):
    weights, bias = certified.model.params
    inputs, labels = arrays[1]
    best = np.argmax(inputs @ weights.T + bias, axis=1)
    found = runs.predict(certified, inputs).results["predictions"]
    assert [item["classes"][0]["class"] for item in found] == [str(label) for label in best]
    measured = runs.evaluate(certified.folder, (inputs, labels)).results
    assert measured["accuracy"] == np.mean(best == labels)
    assert measured["loss"] == pytest.approx(certified.results["test"]["loss"], rel=1e-12)


def test_what_was_in_hand_is_not_looked_for_in_files(certified):
    with pytest.raises(
        DataError,
        match=r"arrays in hand, which its folder does not hold. Give them again as `data`",
    ):
        runs.evaluate(certified)


def test_a_sweep_refits_on_all_that_is_in_hand(arrays, tmp_path, capfd):
    options = {"strengths": [1e-4, 1e-2], "solver": "full-batch", "out": tmp_path / "sweep"}
    run = runs.sweep(arrays[0], progress=True, **options)
    assert f"Look at     {run.report}" in capfd.readouterr().err
    assert run.results["refit"]["n"] == 60
    assert {head["strength"] for head in run.results["heads"]} == {1e-4, 1e-2}
    assert "chosen" in repr(run)
    assert "data:image/png" in run._repr_html_()


@pytest.mark.parametrize(
    ("words", "keywords"),
    [
        (("--data", "digit"), {"data": "digit"}),
        (("--data", "no/such.npz"), {"data": Path("no/such.npz")}),
        (("--loss", "sofmax"), {"loss": "sofmax"}),
        (("--limit", "-2"), {"limit": -2}),
        (("--tolerance", "2"), {"tolerance": 2}),
        (("--patience", "3", "--validation", "0"), {"patience": 3, "validation": 0}),
        (("--out", "full"), {"out": "full"}),
        (("--solver", "full-batch", "--steps", "3"), {"solver": "full-batch", "steps": 3}),
    ],
)
def test_a_mistake_costs_the_command_s_sentence(words, keywords, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").touch()
    assert main(["train", *words]) == 2
    said = capfd.readouterr().err
    with pytest.raises(ValueError) as refused:
        runs.train(**keywords)
    assert said == f"jaxlin: {refused.value}\n"


@pytest.mark.parametrize(
    ("keywords", "sentence"),
    [
        ({"strenght": 1}, "`strenght` is not an option of `runs.train`. Did you mean `strength`"),
        ({"quiet": True}, "`quiet` is not an option of `runs.train`"),
        ({"limit": 2.5}, "--limit must be a whole number, got 2.5"),
        ({"overwrite": 1}, "--overwrite must be True or False, got 1"),
        ({"image_shape": 8}, "--image-shape takes several values, got 8"),
        ({"data": 3}, "`data` must be the name of a data set, a path, .inputs, labels., or"),
    ],
)
def test_what_is_no_option_or_of_another_type(keywords, sentence):
    with pytest.raises(TypeError, match=sentence):
        runs.train(**keywords)


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda x, y: (np.where(x == x[7, 2], np.nan, x), y), "`data`: .* nan at row 7, column 2"),
        (lambda x, y: (x[0], y), r"`data`: the inputs must have two axes .* got shape \(5,\)"),
        (lambda x, y: (x, y[:-1]), "`data`: .*59.*60"),
    ],
)
def test_bad_arrays_in_hand_are_refused(arrays, spoil, sentence):
    with pytest.raises(DataError, match=sentence):
        runs.train(spoil(*arrays[0]))


@pytest.mark.parametrize("how", ["raised", "signal"])
def test_an_interrupted_cell_goes_on(both, tmp_path, monkeypatch, how):
    real, broken = train.chunks, []

    def breaking(*args, **settings):
        for state, infos in real(*args, **settings):
            if int(state.step) >= 20 and not broken:
                broken.append(int(state.step))
                if how == "raised":
                    raise KeyboardInterrupt
                os.kill(os.getpid(), signal.SIGINT)
            yield state, infos

    monkeypatch.setattr(train, "chunks", breaking)
    saving = {"save_every": 10} if how == "raised" else {}
    call = {"out": tmp_path / "run", "resume": "auto", **QUICK, **saving}
    with pytest.raises(KeyboardInterrupt) as stopped:
        runs.train("digits", **call)
    assert how == "raised" or 'resume="auto" goes on' in str(stopped.value)
    assert not (tmp_path / "run" / "results.json").exists()
    assert any((tmp_path / "run" / "checkpoints").iterdir())
    run = runs.train("digits", **call)
    one, two = (folder / "model.safetensors" for folder in (run.folder, both[0]))
    assert one.read_bytes() == two.read_bytes()
    assert untimed(run.history) == untimed(both[1].history)


def test_a_fit_that_diverged_warns_and_leaves_its_last_finite_model(arrays, tmp_path):
    options = {"loss": "squared-hinge", "optimizer": "sgd", "step_size": 1e9, "steps": 20}
    with pytest.warns(UserWarning, match=r"no longer finite .* lower --step-size"):
        run = runs.train(arrays[0], out=tmp_path / "run", **options)
    assert run.results["status"] == "diverged"
    assert np.isfinite(run.model.params.weights).all()


def test_a_call_is_quiet_and_leaves_jax_as_it_was(arrays, tmp_path, capfd):
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", False)
    try:
        run = runs.train(arrays[0], dtype="float64", steps=3, out=tmp_path / "run")
        assert not jax.config.jax_enable_x64
    finally:
        jax.config.update("jax_enable_x64", before)
    assert jax.config.jax_default_matmul_precision is None
    assert run.model.params.weights.dtype == np.float64
    assert capfd.readouterr() == ("", "")


def test_a_solution_and_a_gradient_report_are_a_few_lines(arrays):
    solution = jaxlin.solvers.minimize(*arrays[0], loss="softmax", strength=0.01)
    assert repr(solution).count("\n") == 1
    assert "weights=(3, 5) float64" in repr(solution)
    assert f"gap={float(solution.gap):.7g}" in repr(solution)
    assert "<th>lower_bound</th>" in solution._repr_html_()
    report = jaxlin.gradients.check_gradient(lambda x: (x**2).sum(), np.arange(3.0))
    assert repr(report) == str(report)
    assert len(repr(report).splitlines()) < 15


@pytest.mark.parametrize(
    ("job", "words", "own", "decided"),
    [
        (runs.train, (), set(), set()),
        (runs.sweep, (), set(), set()),
        (runs.evaluate, ("a run",), set(), set()),
        (runs.predict, ("a run", "a file"), {"inputs"}, {"paths"}),
        (runs.gradcheck, (), set(), set()),
        (runs.landscape, (), set(), set()),
    ],
)
def test_the_signature_of_a_job_names_just_the_keywords_that_it_takes(job, words, own, decided):
    """As its refusal lists them: a notebook completes what `inspect.signature` shows."""
    shown = inspect.signature(job).parameters
    with pytest.raises(TypeError, match="Known are: ") as refusal:
        job(*words, zzzzzz=1)
    known = set(str(refusal.value).partition("Known are: ")[2].removesuffix(".").split(", "))
    assert shown.keys() - known == {"progress"} | own
    assert known - shown.keys() == decided
    assert all(parameter.kind is not parameter.VAR_KEYWORD for parameter in shown.values())


def test_the_signature_of_a_job_has_the_defaults():
    shown = inspect.signature(runs.train).parameters
    defaults = {name: shown[name].default for name in ("data", "loss", "strength", "resume")}
    assert defaults == {"data": "digits", "loss": "softmax", "strength": 1e-4, "resume": "never"}
