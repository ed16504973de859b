"""What a job returns: its folder, model, numbers, history and page."""

__all__ = ["Run", "open_folder"]

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from jaxlin.models import Model


class Run(NamedTuple):
    """A job that is done: in a terminal it shows itself in a few lines, in a notebook as a page.

    >>> from tempfile import mkdtemp
    >>> from jaxlin import runs
    >>> run = runs.train("digits", tolerance=1e-2, out=mkdtemp())
    >>> run.kind, run.report.name, str(run).splitlines()[1][:20]
    ('train', 'report.html', 'model       softmax,')
    """

    folder: Path | None
    """Where its files lie; `None` for a gradient check that was not asked to write any."""
    model: "Model | None"
    """The trained classifier, of a job that has one."""
    results: dict[str, Any]
    """Its numbers: what `results.json` holds of a training run, `sweep.json` of a sweep, and what
    the command prints with `--json` of the others."""
    history: list[dict[str, Any]]
    """The records of `metrics.jsonl`: of descent one for each epoch, of a certified fit one for
    each pass over the data; of a sweep one for each epoch of a bank or head solved."""
    report: Path | None
    """Its page, one self-contained HTML file."""
    kind: str = "train"
    """What it is: "train", "sweep", "evaluate", "predict", "gradcheck" or "landscape"."""

    def __repr__(self) -> str:
        from jaxlin.runs.show import lines

        return "\n".join(lines(self))

    def _repr_html_(self) -> str:
        from jaxlin.runs.show import html

        return html(self)


def open_folder(folder: Path) -> Run:
    """The `Run` in a folder.

    Raises:
      DataError: it is no run folder, or one of its files is broken.
    """
    from jaxlin.runs.folder import load_run, read_json, read_records

    kinds = {"results": "train", "sweep": "sweep", "landscape": "landscape"}
    kinds |= {"gradcheck": "gradcheck"}
    name = next((name for name in kinds if (folder / f"{name}.json").is_file()), "results")
    if name in ("landscape", "gradcheck"):
        results = read_json(folder / f"{name}.json")
        return Run(folder, None, results, [], _there(folder / f"{name}.html"), kinds[name])
    model, _ = load_run(folder)
    results = read_json(folder / f"{name}.json")
    records = _there(folder / "metrics.jsonl")
    history = [] if records is None else read_records(records)
    return Run(folder, model, results, history, _there(folder / "report.html"), kinds[name])


def _there(path: Path) -> Path | None:
    return path if path.is_file() else None
