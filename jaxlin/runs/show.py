"""How a `Run` shows itself: a few lines in a terminal, a page of its own in a notebook."""

__all__ = ["html", "lines"]

from collections.abc import Iterator, Mapping
from typing import Any

from markupsafe import Markup, escape

from jaxlin.runs.wording import evaluation_lines, training_lines

SHOWN = 5
"""Predictions that are shown."""
_PICTURES = {
    "train": (("curves.png", "Learning curve"), ("templates.png", "Templates of the classes")),
    "sweep": (("curves.png", "Validation accuracy"), ("pareto.png", "Accuracy and weight norm")),
    "landscape": (("landscape.png", "Loss"),),
    "gradcheck": (("gradcheck.png", "Gradient check"),),
}


def lines(run: Any) -> Iterator[str]:
    """What a terminal shows of a `Run`: no arrays, their shapes."""
    where = "" if run.folder is None else f" {run.folder}"
    yield f"Run{where}"
    if run.model is not None:
        yield f"model       {_shapes(run.model)}"
    yield from _BODY[run.kind](run.results)
    if run.report is not None and run.kind not in ("evaluate", "predict"):
        yield f"report      {run.report}"


def _shapes(model: Any) -> str:
    weights, bias = model.params
    pictures = "" if model.image_shape is None else f", pictures {model.image_shape}"
    return f"{model.loss}, weights {weights.shape} {weights.dtype}, bias {bias.shape}{pictures}"


def _sweep(results: Mapping) -> Iterator[str]:
    from jaxlin.runs.sweeps.page import sweep_lines

    yield from sweep_lines(dict(results))


def _predictions(results: Mapping) -> Iterator[str]:
    found = results["predictions"]
    for item in found[:SHOWN]:
        value = next((name for name in ("probability", "score") if name in item["classes"][0]), "")
        named = ", ".join(
            "no class" if best[value] is None else f"{best['class']} ({value} {best[value]:.4g})"
            for best in item["classes"]
        )
        yield f"{item['input']}: {named}"
    if len(found) > SHOWN:
        yield f"... and {len(found) - SHOWN:,} more rows"


def _checks(results: Mapping) -> Iterator[str]:
    yield f"{results['title']}: {results['verdict']}"
    for name, check in results["checks"].items():
        yield (
            f"  {name}: {check['verdict']}, largest relative error "
            f"{float(check['max_relative_error']):.1e}, {check['evaluations']:,} evaluations"
        )


def _facts(results: Mapping) -> Iterator[str]:
    from jaxlin.report.page import facts_lines

    yield from facts_lines(results)


_BODY = {
    "train": training_lines,
    "sweep": _sweep,
    "evaluate": evaluation_lines,
    "predict": _predictions,
    "gradcheck": _checks,
    "landscape": _facts,
}


def html(run: Any) -> str:
    """What a notebook shows of a `Run`: numbers, curve and templates; pictures lie inside."""
    from jaxlin.report.page import image_tag

    title, *rest = lines(run)
    cells = _cells(run)
    parts = [Markup("<h3 style='margin:.2em 0'>{}</h3>").format(title), cells]
    parts.append(Markup("<pre style='margin:.6em 0'>{}</pre>").format("\n".join(rest)))
    for name, what in _PICTURES.get(run.kind, ()):
        if run.folder is not None and (run.folder / name).is_file():
            parts.append(image_tag((run.folder / name).read_bytes(), alt=what, width=720))
            parts.append(Markup("<br>"))
    return str(Markup("<div>{}</div>").format(Markup("").join(parts)))


def _cells(run: Any) -> Markup:
    """The numbers that count, large."""
    from jaxlin.report.training import headline

    if run.kind == "train":
        cells = headline(run.results)
    elif run.kind == "evaluate":
        what = f"accuracy on {run.results['data']}, {run.results['n']:,} examples"
        cells = [(f"{100 * run.results['accuracy']:.2f} %", what)]
    elif run.kind == "gradcheck":
        cells = [(run.results["verdict"], run.results["title"])]
    else:
        return Markup("")
    style = "display:inline-block;vertical-align:top;max-width:14em;margin:0 2em .6em 0"
    return Markup("").join(
        Markup("<div style='{}'><b style='font-size:1.6em'>{}</b><br>{}</div>").format(
            style, escape(value), escape(what)
        )
        for value, what in cells
    )
