"""The playground page against the Python library, in headless Chromium."""

import functools
import html
import json
import re
import shutil
import subprocess

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlin import losses
from jaxlin.core import Batch, LinearParams
from jaxlin.lecture.playground import playground_page
from jaxlin.objectives import compose
from jaxlin.scores import linear

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-sync", "--disable-background-networking", "--disable-component-update"),
    "--enable-logging=stderr",
]
LOSSES = [
    "weston_watkins_hinge",
    "one_vs_rest_hinge",
    "crammer_singer_hinge",
    "softmax_cross_entropy",
]
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed"),
    pytest.mark.xdist_group("chromium"),
]


def run_in_page(folder, script):
    """The JSON value that `script` returns inside the page; any console message fails the test."""
    page = playground_page().replace(
        "</body>",
        "<script>const value = (() => {" + script + "})();"
        "const out = document.createElement('pre'); out.id = 'result';"
        "out.textContent = JSON.stringify(value); document.body.append(out);</script></body>",
    )
    copy = folder / "page.html"
    copy.write_text(page, encoding="utf-8")
    profile = f"--user-data-dir={folder / 'profile'}"
    command = [CHROMIUM, *FLAGS, profile, "--dump-dom", copy.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert "CONSOLE" not in done.stderr, done.stderr
    return json.loads(html.unescape(re.search(r'<pre id="result">(.*?)</pre>', done.stdout)[1]))


def cases():
    rng = np.random.default_rng(231)
    for index in range(24):
        n = (1, 6)[index // 4 % 2]
        yield {
            "points": rng.uniform(-1, 1, (n, 2)).tolist(),
            "labels": rng.integers(0, 3, n).tolist(),
            "W": (rng.normal(size=(3, 2)) * 10.0 ** rng.uniform(-1, 2)).tolist(),
            "b": rng.normal(size=3).tolist(),
            "loss": LOSSES[index % 4],
            "margin": float(rng.uniform(0, 3)),
            "strength": float(10.0 ** rng.uniform(-4, 0.5)),
        }
    for loss in LOSSES:  # every score tied: on the kink with margin 0, tied rivals with margin 1
        for margin in (0.0, 1.0):
            zero = {"W": [[0.0, 0.0]] * 3, "b": [0.0] * 3, "margin": margin, "strength": 0.0}
            yield {"points": [[0.5, -0.5], [1.0, 0.0]], "labels": [0, 2], "loss": loss, **zero}


def library_says(case):
    loss = getattr(losses, case["loss"])
    if case["loss"] != "softmax_cross_entropy":
        loss = functools.partial(loss, margin=case["margin"])
    params = LinearParams(jnp.array(case["W"]), jnp.array(case["b"]))
    points, labels = jnp.array(case["points"]), jnp.array(case["labels"])
    objective = compose(linear, loss)

    def total(params, points):
        return objective(params, Batch(points, labels), strength=case["strength"])

    value, (gradient, in_points) = jax.value_and_grad(total, argnums=(0, 1))(params, points)
    scores = linear(params, points)
    data_loss = objective(params, Batch(points, labels))
    return {
        "scores": scores,
        "losses": loss(scores, labels),
        "dataLoss": data_loss,
        "regularizationLoss": value - data_loss,
        "total": value,
        "gradW": gradient.weights,
        "gradB": gradient.bias,
        "gradPoints": in_points,
    }


def test_numbers_equal_the_librarys(tmp_path):
    calls = list(cases())
    script = (
        f"return {json.dumps(calls)}.map(c => "
        "jaxlin.evaluate(c.points, c.labels, c.W, c.b, c.loss, c.margin, c.strength));"
    )
    for case, answer in zip(calls, run_in_page(tmp_path, script), strict=True):
        for name, value in library_says(case).items():
            # Both are float64: only the order of summation differs.
            np.testing.assert_allclose(
                answer[name], value, rtol=1e-9, atol=1e-9, err_msg=f"{case['loss']} {name}"
            )


def test_a_step_by_button_equals_a_step_by_key_and_lowers_the_loss(tmp_path):
    script = """
    const press = key => document.body.dispatchEvent(
      new KeyboardEvent('keydown', {key, bubbles: true}));
    const read = () => [...document.querySelectorAll('#parameters input')].map(i => +i.value);
    const start = read(), losses = [state.history[0]];
    document.getElementById('once').click(); const clicked = read(); losses.push(state.history[1]);
    document.getElementById('reset').click(); press('s'); const pressed = read();
    return {start, clicked, pressed, losses};"""
    result = run_in_page(tmp_path, script)
    assert result["clicked"] == result["pressed"] != result["start"]
    assert result["losses"][1] < result["losses"][0]


def test_points_move_are_relabeled_added_and_removed_by_keyboard(tmp_path):
    script = """
    const chosen = () => document.querySelectorAll('.point')[state.chosen];
    const key = (name, more = {}) => chosen().dispatchEvent(
      new KeyboardEvent('keydown', {key: name, bubbles: true, ...more}));
    document.querySelectorAll('.point')[3].focus();
    const before = [...state.points[3]];
    key('ArrowRight'); key('ArrowUp', {shiftKey: true}); key('2');
    const moved = [...state.points[3]], label = state.labels[3];
    document.querySelector('[data-add="1"]').click();
    const added = [state.points.length, state.labels.at(-1)];
    key('Delete');
    return {before, moved, label, added, after: state.points.length};"""
    result = run_in_page(tmp_path, script)
    moved = np.subtract(result["moved"], result["before"])
    np.testing.assert_allclose(moved, [0.02, 0.1], atol=1e-12)
    assert result["label"] == 2
    assert result["added"] == [10, 1]
    assert result["after"] == 9


def test_points_are_dragged_and_the_loss_is_slid_along_by_pointer(tmp_path):
    script = """
    for (const svg of [plane, landscape]) svg.setPointerCapture = () => {};  // no real pointer here
    const send = (target, type, x, y) => target.dispatchEvent(new PointerEvent(type,
      {clientX: x, clientY: y, bubbles: true, pointerId: 1, buttons: type === 'pointerup' ? 0 : 1}
    ));
    const point = document.querySelectorAll('.point')[5], box = plane.getBoundingClientRect();
    send(point, 'pointerdown', 0, 0);
    const focused = document.activeElement.dataset.index;
    send(plane, 'pointermove', box.left + box.width / 2, box.top + box.height * 115 / 440);
    send(plane, 'pointerup', 0, 0);
    send(plane, 'pointermove', box.left, box.top);
    const curve = landscape.getBoundingClientRect(), before = flatten(state.W, state.b);
    const d = direction(), a = 10 ** 0.7 / 2;
    send(landscape, 'pointerdown', curve.left + curve.width * (44 + 386 * .75) / 440, curve.top);
    send(landscape, 'pointerup', 0, 0);
    const moved = flatten(state.W, state.b).map((v, i) => v - before[i] - a * d[i]);
    return {focused, dragged: state.points[5], moved};"""
    result = run_in_page(tmp_path, script)
    assert result["focused"] == "5"
    np.testing.assert_allclose(result["dragged"], [0, 0.5], atol=1e-6)
    np.testing.assert_allclose(result["moved"], np.zeros(9), atol=1e-6)


def test_gradient_check_passes_for_every_loss_and_warns_on_a_kink(tmp_path):
    script = """
    const verdicts = [...document.querySelectorAll('#losses input')].map(radio => {
      radio.click(); return document.getElementById('check').textContent; });
    document.querySelector('#losses input').click();
    setTheta(Array(9).fill(0)); state.margin = 0; draw();
    return [...verdicts, document.getElementById('check').textContent];"""
    *smooth, kink = run_in_page(tmp_path, script)
    assert all(text.startswith("Gradient check passes") for text in smooth)
    assert kink.startswith("Gradient check differs")


def test_gradient_check_still_passes_at_the_minimum(tmp_path):
    script = """
    state.loss = 'softmax_cross_entropy';
    for (let i = 0; i < 20000; i++) {
      const r = now(), g = flatten(r.gradW, r.gradB);
      setTheta(alongside(flatten(state.W, state.b), -1, g)); }
    draw();
    const r = now();
    return [Math.hypot(...flatten(r.gradW, r.gradB)), document.getElementById('check').textContent];
    """
    norm, verdict = run_in_page(tmp_path, script)
    assert norm < 1e-8
    assert verdict.startswith("Gradient check passes")


def test_kinks_of_the_landscape_are_where_the_slope_changes(tmp_path):
    script = """
    const {points, labels, loss} = state, theta = flatten(state.W, state.b);
    const d = [.3, -.2, .5, .1, -.4, .2, .1, .3, -.2];
    const slope = a => { const p = unflatten(alongside(theta, a, d));
      const r = jaxlin.evaluate(points, labels, p.W, p.b, loss, 1, 0);
      return flatten(r.gradW, r.gradB).reduce((t, g, i) => t + g * d[i], 0); };
    const at = jaxlin.kinks(points, labels, theta, d, loss, 1, 5).sort((a, b) => a - b);
    return at.map((a, i) => { const middle = (a + (at[i + 1] ?? 5)) / 2, after = slope(a + 1e-9);
      return [after - slope(a - 1e-9), slope(middle) - after]; });"""
    changes = np.array(run_in_page(tmp_path, script))
    assert len(changes) >= 5
    assert np.all(changes[:, 0] > 1e-6)  # convex: the slope rises at every kink,
    np.testing.assert_allclose(changes[:, 1], 0, atol=1e-12)  # and is constant in between
