"""The interactive page of a landscape: hover for values, turn the surface, slide the strength.

The l2 term is a known quadratic on the plane, so that the slider shows other strengths exactly
and nothing is computed again.
"""

__all__ = ["plane_page", "ray_page"]

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.colors import to_hex
from numpy.typing import ArrayLike

from jaxlin.plots.style import COLORS, LOSS_MAP
from jaxlin.report.page import Section, chart, facts_table, page

_MAP = [[float(t), to_hex(LOSS_MAP(float(t)))] for t in np.linspace(0, 1, 17)]


def plane_page(
    steps_1: ArrayLike,
    steps_2: ArrayLike,
    data_loss: ArrayLike,
    *,
    penalty: ArrayLike,
    strengths: Sequence[float],
    strength: float,
    accuracy: ArrayLike | None = None,
    path: ArrayLike | None = None,
    names: tuple[str, str] = ("a", "b"),
    facts: Mapping,
    title: str = "Loss landscape",
) -> str:
    """One self-contained page of a plane.

    Args:
      steps_1, steps_2: (T1,), (T2,).
      data_loss: (T1, T2), the mean loss without regularization.
      penalty: (T1, T2), R(W) at every point; the page shows data_loss + strength * penalty.
      strengths: what the slider offers, in order.
      strength: where the slider starts; one of `strengths`.
      accuracy: (T1, T2) in [0, 1], shown on hover, or `None`.
      path: (P, 2), a training path, or `None`.
      names: of the two axes.
      facts: shown as a table.
      title: of the page.
    """
    grids = [_rounded(np.asarray(data_loss) + s * np.asarray(penalty)) for s in strengths]
    active = list(strengths).index(strength)
    bad = int(np.sum(~np.isfinite(np.asarray(data_loss))))
    notes = Markup("<p>{} cells are not finite and stay empty.</p>").format(bad) if bad else ""
    shown = (steps_1, steps_2, grids, strengths, active)
    above = chart(_contours(*shown, accuracy, path, names), height=620)
    surface = chart(_surface(*shown, names), height=640)
    sections = [
        Section("Seen from above", above + notes),
        Section("As a surface", surface),
        Section("What is shown", facts_table(facts)),
    ]
    lead = "Point at the plane for values; turn the surface; slide the strength of the l2 term."
    return page(title, sections, lead=lead)


def _contours(
    steps_1: ArrayLike,
    steps_2: ArrayLike,
    grids: Sequence[list[list[float | None]]],
    strengths: Sequence[float],
    active: int,
    accuracy: ArrayLike | None,
    path: ArrayLike | None,
    names: tuple[str, str],
) -> Any:
    import plotly.graph_objects as go

    first, second = names
    hover = f"{first} %{{x:.4g}}<br>{second} %{{y:.4g}}<br>loss %{{z:.5g}}"
    extra = {}
    if accuracy is not None:
        extra["customdata"] = _rounded(accuracy)
        hover += "<br>accuracy %{customdata:.1%}"
    figure = go.Figure(
        go.Contour(
            x=np.asarray(steps_1), y=np.asarray(steps_2), z=grids[active], colorscale=_MAP,
            ncontours=30, line={"width": 0.4, "color": "rgba(255,255,255,.5)"},
            hovertemplate=hover + "<extra></extra>", colorbar={"title": "loss"}, **extra,
        )
    )  # fmt: skip
    if path is not None:
        path = np.asarray(path)
        figure.add_scatter(
            x=path[:, 0], y=path[:, 1], mode="lines+markers", name="training path",
            line={"color": "white"}, marker={"size": 5}, text=[str(i) for i in range(len(path))],
            hovertemplate="checkpoint %{text}<extra></extra>", showlegend=False,
        )  # fmt: skip
    else:
        figure.add_scatter(
            x=[0.0], y=[0.0], mode="markers", showlegend=False, hoverinfo="skip",
            marker={"color": "white", "size": 11, "line": {"color": "#1f2430", "width": 1.5}},
        )  # fmt: skip
    figure.update_layout(
        xaxis_title=first, yaxis_title=second, sliders=_slider(grids, strengths, active)
    )
    return figure


def _surface(
    steps_1: ArrayLike,
    steps_2: ArrayLike,
    grids: Sequence[list[list[float | None]]],
    strengths: Sequence[float],
    active: int,
    names: tuple[str, str],
) -> Any:
    import plotly.graph_objects as go

    figure = go.Figure(
        go.Surface(
            x=np.asarray(steps_1), y=np.asarray(steps_2), z=grids[active], colorscale=_MAP,
            colorbar={"title": "loss"},
            hovertemplate="%{x:.4g}, %{y:.4g}<br>loss %{z:.5g}<extra></extra>",
        )
    )  # fmt: skip
    axes = {"xaxis": {"title": names[0]}, "yaxis": {"title": names[1]}, "zaxis": {"title": "loss"}}
    figure.update_layout(scene=axes, sliders=_slider(grids, strengths, active))
    return figure


def _slider(
    grids: Sequence[list[list[float | None]]], strengths: Sequence[float], active: int
) -> list[dict]:
    steps = [
        {"method": "restyle", "label": f"{strength:.2g}", "args": [{"z": [grid]}, [0]]}
        for strength, grid in zip(strengths, grids, strict=True)
    ]
    prefix = {"prefix": "strength of the l2 term: "}
    return [{"active": active, "steps": steps, "currentvalue": prefix, "pad": {"t": 48}}]


def _rounded(values: ArrayLike) -> list[list]:
    """Six digits are what a hover shows; what is not finite becomes a hole."""
    return [
        [float(f"{v:.6g}") if np.isfinite(v) else None for v in row]
        for row in np.asarray(values, float).T
    ]


def ray_page(
    steps: ArrayLike,
    values: ArrayLike,
    *,
    kinks: ArrayLike | None = None,
    kink_values: ArrayLike | None = None,
    minimum: tuple[float, float] | None = None,
    accuracy: ArrayLike | None = None,
    name: str = "a",
    facts: Mapping,
    title: str = "Loss along a ray",
) -> str:
    """One self-contained page of a line; kinks and minimum where they are known exactly."""
    import plotly.graph_objects as go

    figure = go.Figure()
    extra, hover = {}, f"{name} %{{x:.5g}}<br>loss %{{y:.6g}}"
    if accuracy is not None:
        extra["customdata"] = np.asarray(accuracy, float)
        hover += "<br>accuracy %{customdata:.1%}"
    figure.add_scatter(
        x=np.asarray(steps, float), y=np.asarray(values, float), mode="lines", name="loss",
        line={"color": COLORS[0]}, hovertemplate=hover + "<extra></extra>", **extra,
    )  # fmt: skip
    if kinks is not None:
        kinks = np.asarray(kinks)
        every = max(1, len(kinks) // 2000)
        figure.add_scatter(
            x=kinks[::every], y=np.asarray(kink_values)[::every], mode="markers",
            name=f"{len(kinks):,} kinks", marker={"color": COLORS[9], "size": 4},
            hovertemplate="kink at %{x:.8g}<br>loss %{y:.6g}<extra></extra>",
        )  # fmt: skip
    if minimum is not None:
        figure.add_scatter(
            x=[minimum[0]], y=[minimum[1]], mode="markers", name="minimum",
            marker={"color": COLORS[1], "size": 11, "symbol": "triangle-down"},
            hovertemplate="minimum %{y:.8g}<br>at %{x:.8g}<extra></extra>",
        )  # fmt: skip
    figure.update_layout(xaxis_title=name, yaxis_title="loss", hovermode="closest")
    sections = [
        Section("", chart(figure, height=520)),
        Section("What is shown", facts_table(facts)),
    ]
    lead = "Point at the line for values; drag to zoom; click a name in the legend to hide it."
    return page(title, sections, lead=lead)
