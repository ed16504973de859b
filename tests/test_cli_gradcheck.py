"""`jaxlin gradcheck`: what it prints, writes and returns."""

import json

import numpy as np
import pytest

from jaxlin.cli import main

MODULE = """
import jax, jax.numpy as jnp, numpy as np

def loss(x):
    return jnp.sum(jnp.sin(x["w"])) * x["b"]

def gradient(x):
    return {"w": jnp.cos(x["w"]) * x["b"], "b": jnp.sum(jnp.sin(x["w"]))}

def wrong(x):
    return {"w": jnp.cos(x["w"]), "b": jnp.sum(jnp.sin(x["w"]))}

def kink(x):
    return jnp.sum(jnp.abs(x))

def energy(z):
    return jnp.sum(jnp.abs(z) ** 2)

def vector(x):
    return x

def plain(x):
    return float(np.sum(np.asarray(x) ** 2))
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    name = f"functions_{abs(hash(tmp_path))}"  # modules stay imported, so each test has its own
    (tmp_path / f"{name}.py").write_text(MODULE, encoding="utf-8")
    np.savez(tmp_path / "tree.npz", w=np.array([0.3, 0.7]), b=np.array(2.0))
    np.savez(tmp_path / "one.npz", np.zeros(3))
    np.savez(tmp_path / "integers.npz", np.arange(3))
    np.save(tmp_path / "complex.npy", np.array([1 + 2j, -0.5j]))
    monkeypatch.chdir(tmp_path)
    return name


def test_a_small_check_writes_json_picture_and_page(tmp_path, capsys):
    out = tmp_path / "out"
    options = ["--data", "digits", "--limit", "12", "--out", str(out), "--strength", "0.1"]
    assert main(["gradcheck", *options]) == 0
    assert "PASS" in capsys.readouterr().out
    result = json.loads((out / "gradcheck.json").read_text(encoding="utf-8"))
    assert result["verdict"] == "pass"
    assert result["evaluations"] > 0
    assert result["entries"] == []
    assert set(result["checks"]) == {
        "autodiff", "autodiff of the data loss", "autodiff of the regularizer", "closed form",
    }  # fmt: skip
    assert (out / "gradcheck.png").read_bytes().startswith(b"\x89PNG")
    assert "<html" in (out / "gradcheck.html").read_text(encoding="utf-8")


def test_ties_at_zero_weights_are_a_kink_and_no_failure(capsys):
    options = ["--limit", "12", "--loss", "hinge", "--margin", "0", "--at", "zero", "--json"]
    assert main(["gradcheck", *options, "--against", "closed-form", "--mode", "full"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["verdict"] == "kink"
    entry = result["entries"][0]
    assert min(entry["left"], entry["right"]) <= entry["analytic"]
    assert result["checks"]["closed form"]["margins"]["near"] == 12 * 9


def test_a_users_function_is_checked(here, capsys):
    common = ["gradcheck", "--function", f"{here}:loss", "--input", "tree.npz", "--json"]
    assert main(common) == 0
    assert main([*common, "--gradient", f"{here}:gradient"]) == 0
    capsys.readouterr()
    assert main([*common, "--gradient", f"{here}:wrong", "--mode", "full"]) == 1
    result = json.loads(capsys.readouterr().out)
    assert result["verdict"] == "fail"
    assert {(e["path"], *e["index"]) for e in result["entries"]} == {("['w']", 0), ("['w']", 1)}
    keys = {"path", "index", "analytic", "numeric", "error_bar"}
    assert keys <= result["entries"][0].keys()


def test_a_complex_point_is_checked_and_drawn(here, tmp_path):
    options = ["--function", f"{here}:energy", "--input", "complex.npy", "--out", "drawn"]
    assert main(["gradcheck", *options]) == 0
    result = json.loads((tmp_path / "drawn" / "gradcheck.json").read_text(encoding="utf-8"))
    assert "JAX's convention" in str(result["checks"])
    assert (tmp_path / "drawn" / "gradcheck.png").exists()


def test_a_valid_kink_exits_with_zero(here):
    assert main(["gradcheck", "--function", f"{here}:kink", "--input", "one.npz"]) == 0


@pytest.mark.parametrize(
    ("function", "point", "message"),
    [
        ("{}:vector", "one.npz", "must return a scalar"),
        ("{}:loss", "absent.npz", "no such file"),
        ("{}:absent", "one.npz", "has no `absent`"),
        ("absent_module:f", "one.npz", "cannot import `absent_module`"),
        ("nonsense", "one.npz", "must be MODULE:NAME"),
        ("{}:kink", "integers.npz", "must be floating, got int64"),
        ("{}:plain", "one.npz", "`--gradient`"),
    ],
)
def test_mistakes_cost_one_sentence_and_exit_two(here, function, point, message, capsys):
    assert main(["gradcheck", "--function", function.format(here), "--input", point]) == 2
    printed = capsys.readouterr().err.strip()
    assert message in printed
    assert "\n" not in printed
