"""The interactive page in a real browser: no console errors, hover and slider work."""

import json
import re
import shutil
import subprocess

import numpy as np
import pytest

from jaxlin.report.landscape import plane_page, ray_page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
STEPS_1, STEPS_2 = np.linspace(-1, 1, 9), np.linspace(-2, 2, 7)
DATA_LOSS = STEPS_1[:, None] ** 2 + 3 * STEPS_2[None, :]
PENALTY = 1 + STEPS_1[:, None] ** 2 + 0 * STEPS_2[None, :]

# Runs before the page's own scripts, which draw at once.
# Virtual time paints no frames, so that animation frames are timed.
LISTEN = """<script>window.seen = {errors: []};
window.requestAnimationFrame = draw => setTimeout(() => draw(performance.now()), 16);
window.addEventListener("error", e => seen.errors.push(String(e.message)));
window.addEventListener("unhandledrejection", e => seen.errors.push(String(e.reason)));
console.error = (...words) => seen.errors.push(words.join(" "));</script>"""
ACT = """<script>window.addEventListener("load", () => setTimeout(() => {
  const charts = document.querySelectorAll(".plotly-graph-div");
  seen.charts = charts.length;
  const first = charts[0];
  const value = () => first.data[0].z ? first.data[0].z[2][6] : null;
  seen.zBefore = value();
  // point at x = 0.5 and at the data there
  const layout = first._fullLayout, drag = first.querySelector(".nsewdrag");
  const corner = drag.getBoundingClientRect();
  const y = first.data[0].z ? first._fullData[0].y[2] : 0.25;
  const pixel = {clientX: corner.left + layout.xaxis.d2p(0.5),
                 clientY: corner.top + layout.yaxis.d2p(y), bubbles: true};
  for (const kind of ["mouseover", "mousemove"]) drag.dispatchEvent(new MouseEvent(kind, pixel));
  setTimeout(() => {
  seen.hover = [...first.querySelectorAll(".hoverlayer text")].map(t => t.textContent).join(" ");
  const rail = first.querySelector(".slider-rail-touch-rect");
  if (rail) {
    const box = rail.getBoundingClientRect();
    const at = {clientX: box.right - 1, clientY: box.top + box.height / 2, bubbles: true};
    rail.dispatchEvent(new MouseEvent("mousedown", at));
    first.dispatchEvent(new MouseEvent("mouseup", at));
    document.dispatchEvent(new MouseEvent("mouseup", at));
  }
  setTimeout(() => {
    seen.zAfter = value();
    const out = document.createElement("pre");
    out.id = "seen"; out.textContent = JSON.stringify(seen);
    document.body.append(out);
  }, 1000); }, 500);
}, 800));</script>"""


def visit(html, tmp_path):
    """Open the page, point at it, pull its slider, and say what was seen."""
    page = tmp_path / "page.html"
    html = html.replace("<head>", "<head>" + LISTEN, 1)
    page.write_text(html.replace("</body>", ACT + "</body>"), encoding="utf-8")
    flags = "--headless --no-sandbox --disable-gpu --enable-unsafe-swiftshader --disable-quic"
    flags += " --no-first-run --disable-background-networking --disable-component-update"
    flags += " --disable-sync --virtual-time-budget=15000 --window-size=1100,900"
    command = [CHROMIUM, *flags.split(), f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom"]
    dom = subprocess.run(
        [*command, page.as_uri()], capture_output=True, text=True, timeout=120, check=True
    ).stdout
    found = re.search(r'<pre id="seen">(.*?)</pre>', dom, re.DOTALL)
    assert found, "the page did not finish its scripts"
    return json.loads(found[1].replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))


@needs_browser
def test_the_page_of_a_plane_shows_values_and_follows_its_slider(tmp_path):
    html = plane_page(
        STEPS_1, STEPS_2, DATA_LOSS, penalty=PENALTY, strengths=[0.0, 0.1, 10.0], strength=0.1,
        accuracy=np.full(DATA_LOSS.shape, 0.25), facts={"loss": "hinge"},
    )  # fmt: skip
    seen = visit(html, tmp_path)
    assert seen["errors"] == []
    assert seen["charts"] == 2
    value = DATA_LOSS[6, 2] + 0.1 * PENALTY[6, 2]
    assert seen["zBefore"] == pytest.approx(value, rel=1e-5)
    shown = re.search(r"loss (\S+?)(?=accuracy|\s|$)", seen["hover"])
    assert float(shown[1].replace("−", "-")) == pytest.approx(value, rel=1e-4)
    assert "accuracy 25.0%" in seen["hover"]
    assert seen["zAfter"] == pytest.approx(DATA_LOSS[6, 2] + 10 * PENALTY[6, 2], rel=1e-5)


@needs_browser
def test_the_page_of_a_ray_shows_values(tmp_path):
    html = ray_page(
        STEPS_1, STEPS_1**2, kinks=[0.5], kink_values=[0.25], minimum=(0.0, 0.0), facts={"n": 1}
    )
    seen = visit(html, tmp_path)
    assert seen["errors"] == []
    assert "kink at 0.5" in seen["hover"] or "loss 0.25" in seen["hover"]


def test_cells_that_are_not_finite_become_holes_and_names_are_escaped():
    holes = DATA_LOSS.copy()
    holes[1, 2] = np.nan
    html = plane_page(
        STEPS_1, STEPS_2, holes, penalty=PENALTY, strengths=[0.0], strength=0.0,
        facts={"data": "<script>alert(1)</script>"},
    )  # fmt: skip
    assert "1 cells are not finite" in html
    assert "<script>alert(1)" not in html
    assert "NaN" not in html.split("Seen from above")[1]
