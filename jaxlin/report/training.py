"""The page of a run: what was trained, how well it does, and what it gets wrong."""

__all__ = ["Mistake", "headline", "training_page"]

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from markupsafe import Markup, escape
from matplotlib.figure import Figure

from jaxlin.report.page import Section, chart, figure_tag, image_tag, page, table


class Mistake(NamedTuple):
    """An example that was classified wrong."""

    row: int
    true: str
    predicted: str
    note: str
    """What the classifier gave: a probability or a score."""
    png: bytes | None
    """Its picture, where the inputs are pictures."""


def training_page(
    *,
    results: Mapping,
    config: Mapping,
    environment: Mapping,
    records: Sequence[Mapping],
    templates: Figure | None,
    confusion: Figure | None,
    mistakes: Sequence[Mistake],
    split: str,
) -> str:
    """One self-contained HTML page of a finished run."""
    solved = "lower_bound" in results
    sections = [
        Section("", _numbers(results)),
        Section("Bounds", _bounds(records)) if solved else Section("Curves", _curves(records)),
    ]
    if templates is not None:
        note = (
            "Each row of the weights as a picture: where it is bright the class likes a bright "
            "pixel, where it is dark a dark one. One linear scale serves all classes."
        )
        tag = figure_tag(templates, alt="Templates of the classes", caption=note)
        sections.append(Section("Templates", tag))
    if confusion is not None:
        sections.append(Section("Confusion", figure_tag(confusion, alt="Confusion matrix")))
    if results[split].get("per_class"):
        sections.append(Section("Classes", _classes(results[split]["per_class"], split)))
    if mistakes:
        sections.append(Section("Worst mistakes", _mistakes(mistakes, split, results[split]["n"])))
    sections.append(Section("Configuration", table(list(config.items()))))
    sections.append(Section("Environment", table([(k, _flat(v)) for k, v in environment.items()])))
    name = results["data"]["name"]
    work = f"{results['evaluations']:.4g} passes" if solved else f"{results['steps']:,} steps"
    lead = (
        f"A linear classifier, trained on {results['n_train']:,} examples in "
        f"{results['seconds']['train']:.1f} s ({work})."
    )
    return page(f"{name}: {config['loss']}", sections, lead=lead)


def _numbers(results: Mapping) -> Markup:
    cells = headline(results)
    divs = "".join(f"<div><b>{escape(a)}</b><span>{escape(b)}</span></div>" for a, b in cells)
    return Markup(f'<div class="numbers">{divs}</div>')


def headline(results: Mapping) -> list[tuple[str, str]]:
    """The numbers that count, each with what it is: accuracies, objective, certified gap.

    Args:
      results: what `results.json` of a training run holds.
    """
    cells = []
    for split in ("test", "validation", "train"):
        part = results[split]
        if part is None:
            if split == "test":
                cells.append(("none", "test accuracy: no test set was given"))
            continue
        low, high = part["accuracy_interval"]
        cells.append(
            (
                f"{100 * part['accuracy']:.2f} %",
                f"{split} accuracy, {part['n']:,} examples, 95 % interval {100 * low:.1f} to "
                f"{100 * high:.1f}",
            )
        )
    cells.append((f"{results['objective']:.5g}", "objective on the training examples"))
    if "lower_bound" in results:
        cells.append((f"{results['relative_gap']:.1e}", "certified relative gap to the optimum"))
    return cells


def _curves(records: Sequence[Mapping]) -> Markup:
    """Loss and accuracy over the epochs, with values where the mouse points."""
    from plotly.graph_objects import Scatter
    from plotly.subplots import make_subplots

    validated = [r for r in records if r["validation_accuracy"] is not None]
    figure = make_subplots(specs=[[{"secondary_y": bool(validated)}]])
    epochs = [r["epoch"] for r in records]
    hover = "epoch %{x:g}<br>%{y:.4f}"
    figure.add_trace(
        Scatter(x=epochs, y=[r["loss"] for r in records], name="training objective",
                mode="lines+markers", line={"color": "#2c5fa8"}, hovertemplate=hover)
    )  # fmt: skip
    if validated:
        epochs = [r["epoch"] for r in validated]
        figure.add_trace(
            Scatter(x=epochs, y=[r["validation_loss"] for r in validated], name="validation loss",
                    mode="lines+markers", line={"color": "#d1603d"}, hovertemplate=hover)
        )  # fmt: skip
        figure.add_trace(
            Scatter(x=epochs, y=[r["validation_accuracy"] for r in validated],
                    name="validation accuracy", mode="lines+markers",
                    line={"color": "#2f8f6b", "dash": "dot"}, hovertemplate=hover),
            secondary_y=True,
        )  # fmt: skip
        figure.update_yaxes(
            title_text="accuracy", secondary_y=True, showgrid=False, tickformat=".3f"
        )
    figure.update_traces(marker={"size": 4})
    figure.update_xaxes(title_text="epoch")
    figure.update_yaxes(title_text="loss", secondary_y=False)
    figure.update_layout(legend={"orientation": "h", "y": 1.12}, hovermode="x unified")
    return chart(figure)


def _bounds(records: Sequence[Mapping]) -> Markup:
    return chart(bounds_figure(records))


def bounds_figure(records: Sequence[Mapping]) -> Any:
    """Objective and certified lower bound over the passes of a full-batch solver, and between them
    the relative gap.

    Args:
      records: with `evaluations`, `objective` and `lower_bound`, `None` or 0 before one is proved.
    """
    from plotly.graph_objects import Scatter
    from plotly.subplots import make_subplots

    figure = make_subplots(
        rows=2, shared_xaxes=True, row_heights=[0.65, 0.35], vertical_spacing=0.06
    )
    proved = [r for r in records if r["lower_bound"]]
    gaps = [(r["objective"] - r["lower_bound"]) / r["objective"] for r in proved]
    lines = (
        ("objective", records, [r["objective"] for r in records], "#2c5fa8", "%{y:.7g}", 1),
        ("lower bound", proved, [r["lower_bound"] for r in proved], "#d1603d", "%{y:.7g}", 1),
        ("relative gap", proved, gaps, "#2f8f6b", "%{y:.1e}", 2),
    )
    for name, known, values, color, form, row in lines:
        trace = Scatter(
            x=[r["evaluations"] for r in known],
            y=values,
            name=name,
            mode="lines+markers",
            line={"color": color},
            marker={"size": 5},
            hovertemplate=form,
        )
        figure.add_trace(trace, row=row, col=1)
    best, first = min(r["objective"] for r in records), records[0]["objective"]
    spread = first - best or abs(best)
    upper: dict[str, Any] = {"range": [best - 0.15 * spread, best + 0.35 * spread]}
    if first > 50 * best > 0:  # on a linear axis both bounds would lie on the axis
        ends = [np.log10(0.5 * best), np.log10(first)]
        upper = {"type": "log", "dtick": 1, "exponentformat": "power", "range": ends}
    figure.update_yaxes(title_text="objective", **upper, row=1, col=1)
    powers = np.log10([gap for gap in gaps if gap > 0] or [1.0])
    low, high = np.floor(powers.min()), np.ceil(powers.max())
    high = max(high, low + 1)  # a tick has a label at whole powers of ten
    decades = {"range": [low - 0.1, high + 0.1], "dtick": 1 if high - low <= 4 else 2}
    figure.update_yaxes(
        title_text="relative gap", type="log", exponentformat="power", **decades, row=2, col=1
    )
    figure.update_xaxes(title_text="passes over the data", row=2, col=1)
    figure.update_layout(legend={"orientation": "h", "y": 1.12}, hovermode="x unified")
    return figure


def _classes(per_class: Mapping, split: str) -> Markup:
    shares = sorted(per_class.items(), key=lambda item: -1 if item[1] is None else -item[1])
    rows = [(name, "no examples" if s is None else f"{100 * s:.1f} %") for name, s in shares]
    if len(rows) > 40:
        rows = [*rows[:20], ("…", ""), *rows[-20:]]
    return table(rows, head=("class", f"{split} accuracy"))


def _mistakes(mistakes: Sequence[Mistake], split: str, count: int) -> Markup:
    """The examples of highest loss, with their pictures where they have any."""
    if mistakes[0].png is None:
        rows = [(m.row, m.true, m.predicted, m.note) for m in mistakes]
        return table(rows, head=(f"{split} row", "true class", "predicted", ""))
    cells = Markup("").join(
        Markup("<figure>{}<figcaption>{} taken for <b>{}</b><br>{}, row {}</figcaption></figure>")
        .format(
            image_tag(m.png or b"", alt=f"row {m.row}", width=128, pixelated=True),
            m.true, m.predicted, m.note, m.row,
        )
        for m in mistakes
    )  # fmt: skip
    words = f"Those with the highest loss among the {count:,} {split} examples."
    return Markup('<p>{}</p><div class="gallery">{}</div>').format(words, cells)


def _flat(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{k} {v}" for k, v in value.items())
    if isinstance(value, list | tuple | np.ndarray):
        return ", ".join(map(str, value))
    return str(value)
